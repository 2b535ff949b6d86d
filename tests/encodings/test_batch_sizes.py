"""How many images are computed at once: bounded by their size, the same codes and errors whatever it is."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from latlas.data.images import ImageSet
from latlas.encodings.encode import encode
from latlas.measurements.reconstruction import decode_batches, decode_errors, measure_reconstruction
from latlas.models.adapters.callables import CallableModel
from latlas.models.protocols import images_at_once


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


def test_progress_counts_the_images_that_there_are() -> None:
    told: list[tuple[int, int | None]] = []
    model = watched((3, 64, 64), [])
    encode(
        model,
        ImageSet("large", torch.zeros(100, 3, 64, 64)),
        progress=lambda task, done, total, note="": told.append((done, total)),
    )
    assert told == [(0, 100), (85, 100), (100, 100)]
