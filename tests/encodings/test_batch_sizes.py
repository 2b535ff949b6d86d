"""How many images are computed at once: bounded by their size, the same codes and errors whatever it is."""

import math
import mmap
import platform
import statistics
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor

from latlas.data.images import ImageSet
from latlas.encodings.encode import encode
from latlas.measurements.reconstruction import decode_batches, decode_errors, measure_reconstruction
from latlas.models.adapters.callables import CallableModel
from latlas.models.architectures.registry import architecture
from latlas.models.protocols import Posterior, images_at_once
from latlas.models.vae import VAE


def watched(shape: tuple[int, int, int], sizes: list[int]) -> CallableModel:
    """A model whose codes are half the pixels, and that notes how many it is given."""

    def noting(given: Tensor) -> Tensor:
        sizes.append(len(given))
        return given * 0.5

    return CallableModel(name="watched", image_shape=shape, latent_shape=shape, encode_with=noting, decode_with=noting)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 28, 28), (3, 64, 64), (3, 256, 256), (3, 512, 512), (3, 4096, 4096)])
def test_a_batch_holds_at_most_a_million_values_or_one_image(shape: tuple[int, int, int]) -> None:
    count = images_at_once(shape)
    assert 1 <= count <= 1000
    assert count == 1 or count * math.prod(shape) <= 2**20
    assert count == 1000 or (count + 1) * math.prod(shape) > 2**20


def test_large_images_are_encoded_and_decoded_few_at_a_time_with_the_same_results(generator: torch.Generator) -> None:
    shape = (3, 64, 64)
    pixels = torch.rand(200, *shape, generator=generator)
    images, sizes = ImageSet("large", pixels), list[int]()
    model = watched(shape, sizes)
    codes = encode(model, images).mean
    assert sizes == [85, 85, 30]
    assert codes.equal(pixels * 0.5)
    sizes.clear()
    assert torch.cat(list(decode_batches(model, codes))).equal(pixels * 0.25)
    assert sizes == [85, 85, 30]
    expected = np.square(pixels.double().numpy() * 0.75).mean(axis=(1, 2, 3))
    for errors in (decode_errors(model, codes, images), measure_reconstruction(model, codes, images).errors):
        np.testing.assert_allclose(errors.numpy(), expected, rtol=1e-6)
    assert max(sizes) <= 85


def test_digits_are_computed_a_thousand_at_a_time() -> None:
    sizes = list[int]()
    encode(watched((1, 28, 28), sizes), ImageSet("digits", torch.zeros(1500, 1, 28, 28)))
    assert sizes == [1000, 500]


@pytest.mark.parametrize(
    ("kind", "shape", "batch"), [("dense", (3, 64, 64), 340), ("conv", (3, 64, 64), 85), ("dense", (1, 28, 28), 1000)]
)
def test_dense_networks_encode_more_large_images_at_once(kind: str, shape: tuple[int, int, int], batch: int) -> None:
    """They read all of their weights for each batch; convolutions want the memory for what lies between them."""
    model = VAE(architecture(kind, latent=2), shape).eval()
    sizes = list[int]()
    model.register_forward_pre_hook(lambda module, given: None)
    encoded = model.encode

    def noting(images: Tensor) -> Posterior:
        sizes.append(len(images))
        return encoded(images)

    model.encode = noting  # type: ignore[method-assign]
    images = ImageSet("large", torch.randint(0, 256, (batch + 5, *shape), dtype=torch.uint8))
    codes = encode(model, images).mean
    assert sizes == [batch, 5]
    with torch.inference_mode():
        torch.testing.assert_close(codes, encoded(images.tensor()).mean, rtol=1e-4, atol=1e-5)


FAULTS = """
import resource
import torch
from latlas.data.images import ImageSet
from latlas.encodings import shards
from latlas.encodings.encode import encode
from latlas.models.adapters.callables import CallableModel

torch.set_num_threads(1)
faults = []

def noting(images):
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
    kept = [torch.zeros(11 * 2**18) for _ in range(3)]  # as a network's activations: 11 MB each, freed together
    return images.flatten(1)[:, :2] + 0 * sum(float(each[0]) for each in kept)

model = CallableModel(image_shape=(3, 64, 64), latent_shape=(2,), encode_with=noting, name="large", fingerprint="large")
encode(model, ImageSet("large", torch.zeros(10 * 85, 3, 64, 64, dtype=torch.uint8)))
print((faults[-1] - faults[1]) / 8)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc's allocator")
def test_a_batch_takes_the_memory_that_the_one_before_it_freed() -> None:
    """Pages that are asked of the system anew for each batch took a fifth of the time of a convolutional encoder."""
    command = [sys.executable, "-c", FAULTS]
    # Where the system puts a process's memory differs from run to run, and with it how much of the heap's end is given back.
    done = [subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout for _ in range(5)]
    pages = 3 * 11 * 2**20 / mmap.PAGESIZE
    assert statistics.median(map(float, done)) < pages / 2


def test_progress_counts_the_images_that_there_are() -> None:
    told: list[tuple[int, int | None]] = []
    model = watched((3, 64, 64), [])
    encode(
        model,
        ImageSet("large", torch.zeros(100, 3, 64, 64)),
        progress=lambda task, done, total, note="": told.append((done, total)),
    )
    assert told == [(0, 100), (85, 100), (100, 100)]
