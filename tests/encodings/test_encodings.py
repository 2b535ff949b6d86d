"""Encodings: the encoder's own codes in the images' order, kept as any NumPy user can read them."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from latlas.base.artifacts import CONFIG
from latlas.base.errors import (
    ArtifactError,
    CapabilityError,
    IllPosedError,
    ImageFormatError,
    MissingPathError,
    NonFiniteError,
    OutputExistsError,
)
from latlas.base.provenance import Provenance
from latlas.data.images import ImageSet
from latlas.encodings import encode as encode_module
from latlas.encodings.encode import encode
from latlas.encodings.encoding import Encoding, require_paired
from latlas.encodings.statistics import posterior_moments
from latlas.models.adapters.callables import CallableModel
from latlas.models.architectures.conv import Conv
from latlas.models.vae import VAE
from latlas.numerics.posteriors import PosteriorMoments

LATENT = 3
MIXING = torch.randn(12, 2 * LATENT, generator=torch.Generator().manual_seed(5))


def gaussian(images: Tensor) -> tuple[Tensor, Tensor]:
    """A linear encoder with a linear log-variance."""
    mean, log_variance = (images.flatten(1) @ MIXING).chunk(2, dim=1)
    return mean, log_variance


def deterministic(images: Tensor) -> Tensor:
    return gaussian(images)[0]


def spatial(images: Tensor) -> tuple[Tensor, Tensor]:
    mean = images.flatten(1)[:, :8].unflatten(1, (2, 2, 2))
    return mean, -mean


ENCODERS: dict[str, tuple[Callable[[Tensor], Any], tuple[int, ...]]] = {
    "gaussian": (gaussian, (LATENT,)),
    "deterministic": (deterministic, (LATENT,)),
    "spatial": (spatial, (2, 2, 2)),
}


def model(kind: str = "gaussian", **options: Any) -> CallableModel:
    encode_with, latent_shape = ENCODERS[kind]
    given = {"encode_with": encode_with, "name": kind, "fingerprint": f"weights of {kind}", **options}
    return CallableModel(image_shape=(1, 3, 4), latent_shape=latent_shape, **given)


@pytest.fixture
def images(generator: torch.Generator) -> ImageSet:
    pixels = (255 * torch.rand(23, 1, 3, 4, generator=generator)).to(torch.uint8)
    return ImageSet("noise", pixels, names=tuple(f"picture{i}.png" for i in range(23)))


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode_module, "encoding_batch", lambda _: 7)  # 23 images: three batches and a remainder of two


# Encoding


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("kind", ENCODERS)
def test_codes_are_the_encoders_in_the_order_of_the_images(kind: str, images: ImageSet) -> None:
    encoding = encode(model(kind), images)
    answer = ENCODERS[kind][0](torch.from_numpy(images.storage.numpy() / np.float32(255)))
    mean, log_variance = answer if isinstance(answer, tuple) else (answer, None)
    torch.testing.assert_close(encoding.mean, mean, rtol=1e-6, atol=1e-6)
    assert (encoding.log_variance is None) == (log_variance is None)
    if log_variance is not None:
        torch.testing.assert_close(encoding.log_variance, log_variance, rtol=1e-6, atol=1e-6)
    assert len(encoding) == 23
    assert encoding.latent_shape == ENCODERS[kind][1]
    assert (encoding.model, encoding.images, encoding.images_hash) == (kind, "noise", images.content_hash)
    assert encoding.provenance.made_from == {"model": f"weights of {kind}", "images": images.content_hash}


def test_codes_are_float32_on_the_cpu_whatever_the_model_computes_in(images: ImageSet) -> None:
    half = model(encode_with=lambda batch: tuple(part.bfloat16() for part in gaussian(batch)))
    encoding = encode(half, images)
    assert encoding.log_variance is not None
    for part in (encoding.mean, encoding.log_variance):
        assert (part.dtype, part.device.type) == (torch.float32, "cpu")


def test_a_vae_encodes_without_a_trace_of_gradients(images: ImageSet) -> None:
    torch.manual_seed(0)
    vae = VAE(Conv(channels=(3,), latent=2), (1, 4, 4))
    square = ImageSet("square", images.storage.repeat(1, 1, 2, 1)[:, :, :4])
    encoding = encode(vae, square)
    torch.testing.assert_close(encoding.mean, vae.encode(square.tensor()).mean.detach(), rtol=1e-5, atol=1e-6)
    assert not encoding.mean.requires_grad


@pytest.mark.parametrize("enabled", [True, False])
def test_encoding_leaves_the_gradient_mode_as_it_was(enabled: bool, images: ImageSet) -> None:
    with torch.set_grad_enabled(enabled):
        encode(model(), images)
        assert torch.is_grad_enabled() is enabled
        with pytest.raises(ZeroDivisionError):
            encode(model(encode_with=lambda batch: 1 / 0), images)
        assert torch.is_grad_enabled() is enabled
        assert not torch.is_inference_mode_enabled()


def test_codes_can_take_part_in_later_gradients(images: ImageSet) -> None:
    """Tensors made in inference mode cannot; whoever fits something to codes would meet a RuntimeError."""
    encoding = encode(model(), images)
    assert encoding.log_variance is not None
    weight = torch.ones(LATENT, requires_grad=True)
    ((encoding.mean + encoding.log_variance) * weight).sum().backward()
    torch.testing.assert_close(weight.grad, (encoding.mean + encoding.log_variance).sum(dim=0))


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("part", [0, 1], ids=["mean", "log-variance"])
def test_an_encoder_that_leaves_the_numbers_is_named_with_the_first_image(part: int, value: float, images: ImageSet) -> None:
    def broken(batch: Tensor) -> tuple[Tensor, ...]:
        answer = [each.clone() for each in gaussian(batch)]
        answer[part][(batch == images.tensor()[16]).flatten(1).all(dim=1), 1] = value
        answer[part][(batch == images.tensor()[20]).flatten(1).all(dim=1), 0] = value
        return tuple(answer)

    with pytest.raises(NonFiniteError, match=r"gaussian encodes image picture16\.png of noise as NaN or infinity"):
        encode(model(encode_with=broken), images)


def test_what_cannot_encode_these_images_is_told_so(images: ImageSet) -> None:
    with pytest.raises(CapabilityError, match="Encoding needs an encoder, which gaussian lacks"):
        encode(model(encode_with=None), images)
    with pytest.raises(ImageFormatError, match=r"takes images of 1x3x4 .*, wide has 1x3x5"):
        encode(model(), ImageSet("wide", torch.zeros(2, 1, 3, 5)))


@pytest.mark.usefixtures("small_batches")
def test_progress_is_told_in_images(images: ImageSet) -> None:
    told: list[tuple[str, int, int | None]] = []
    encode(model(), images, progress=lambda task, done, total, note="": told.append((task, done, total)))
    assert told == [("encoding noise", done, 23) for done in (0, 7, 14, 21, 23)]


# Keeping


def assert_equal(first: Encoding, second: Encoding) -> None:
    assert first.mean.equal(second.mean)
    assert first.mean.dtype == second.mean.dtype
    if first.log_variance is None or second.log_variance is None:
        assert first.log_variance is second.log_variance
    else:
        assert first.log_variance.equal(second.log_variance)
    for name in ("model", "images", "images_hash", "provenance"):
        assert getattr(first, name) == getattr(second, name)


@pytest.mark.parametrize("kind", ENCODERS)
def test_what_is_saved_comes_back_to_the_last_bit(kind: str, images: ImageSet, tmp_path: Path) -> None:
    encoding = encode(model(kind), images)
    encoding.save_pretrained(tmp_path / "codes")
    assert_equal(Encoding.from_pretrained(tmp_path / "codes"), encoding)


def test_out_stores_the_encoding_that_is_returned(images: ImageSet, tmp_path: Path) -> None:
    encoding = encode(model(), images, out=tmp_path / "codes")
    assert_equal(Encoding.from_pretrained(tmp_path / "codes"), encoding)


@pytest.mark.parametrize("kind", ENCODERS)
def test_plain_numpy_can_map_the_codes(kind: str, images: ImageSet, tmp_path: Path) -> None:
    encoding = encode(model(kind), images, out=tmp_path / "codes")
    mapped = np.load(tmp_path / "codes" / "mean.npy", mmap_mode="r", allow_pickle=False)
    assert isinstance(mapped, np.memmap)
    assert mapped.shape == tuple(encoding.mean.shape)
    np.testing.assert_array_equal(mapped, encoding.mean.numpy())
    assert (tmp_path / "codes" / "log_variance.npy").is_file() == (encoding.log_variance is not None)


def test_a_folder_that_is_taken_is_refused_before_any_work(images: ImageSet, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    lazy = model(encode_with=lambda batch: pytest.fail("was encoded"))
    with pytest.raises(OutputExistsError, match="already holds something"):
        encode(lazy, images, out=tmp_path)
    encode(model(), images, out=tmp_path / "codes")
    with pytest.raises(OutputExistsError, match="--replace"):
        encode(lazy, images, out=tmp_path / "codes")
    again = encode(model("deterministic"), images, out=tmp_path / "codes", replace=True)
    assert_equal(Encoding.from_pretrained(tmp_path / "codes"), again)  # of the earlier log-variances nothing is left


def test_damage_and_strangers_are_noticed(images: ImageSet, tmp_path: Path) -> None:
    with pytest.raises(MissingPathError, match="expected a latlas encoding there"):
        Encoding.from_pretrained(tmp_path / "nothing")
    folder = tmp_path / "codes"
    encode(model(), images, out=folder)
    raw = bytearray((folder / "mean.npy").read_bytes())
    raw[-1] ^= 1
    (folder / "mean.npy").write_bytes(raw)
    with pytest.raises(ArtifactError, match=r"mean\.npy is damaged"):
        Encoding.from_pretrained(folder)
    torch.manual_seed(0)
    VAE(Conv(channels=(3,), latent=2), (1, 4, 4)).save_pretrained(tmp_path / "model")
    with pytest.raises(ArtifactError, match="holds a latlas vae, where a latlas encoding is needed"):
        Encoding.from_pretrained(tmp_path / "model")


@pytest.mark.parametrize("name", ["model", "images", "images_hash"])
def test_a_config_without_a_setting_says_which(name: str, images: ImageSet, tmp_path: Path) -> None:
    folder = tmp_path / "codes"
    encode(model(), images, out=folder)
    record = json.loads((folder / CONFIG).read_text())
    del record["settings"][name]
    record.pop("checksum", None)  # as a stranger would
    (folder / CONFIG).write_text(json.dumps(record))
    with pytest.raises(ArtifactError, match=rf"not a readable encoding \('{name}'\)\. Encode again"):
        Encoding.from_pretrained(folder)


# Statistics


@pytest.mark.parametrize("kind", ENCODERS)
def test_moments_are_numpys(kind: str, images: ImageSet) -> None:
    encoding = encode(model(kind), images)
    mean = encoding.mean.double().numpy()
    moments = encoding.moments()
    np.testing.assert_allclose(moments.means.mean, mean.mean(axis=0), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(moments.variance_of_means, mean.var(axis=0), rtol=1e-12)
    variance = np.zeros_like(mean) if encoding.log_variance is None else np.exp(encoding.log_variance.double().numpy())
    np.testing.assert_allclose(moments.posterior_variance, variance.mean(axis=0), rtol=1e-12)
    assert bool(moments.kl_nats.isinf().all()) == (kind == "deterministic")  # a point lies infinitely far from a density


# Pairing


class LargestMade(TorchFunctionMode):
    """Notes the size of the largest tensor of its own that any call returns; views of the given one do not count."""

    def __init__(self, given: Tensor) -> None:
        super().__init__()
        self.given, self.bytes = given.untyped_storage().data_ptr(), 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for each in found if isinstance(found, tuple | list) else [found]:
            if isinstance(each, Tensor) and each.untyped_storage().data_ptr() != self.given:
                self.bytes = max(self.bytes, each.untyped_storage().nbytes())
        return found


@pytest.mark.parametrize("of", ["the store's statistics", "the encoding's own"])
def test_no_variances_are_made_up_where_there_are_none(of: str) -> None:
    codes = torch.randn(40_000, 6, generator=torch.Generator().manual_seed(0))
    encoding = Encoding(
        mean=codes, log_variance=None, model="m", images="i", images_hash="0", provenance=Provenance(made_by="encode")
    )
    with LargestMade(codes) as made:
        found = posterior_moments(encoding) if of == "the store's statistics" else encoding.moments()
    assert made.bytes <= 8192 * 6 * 8, "no more than a chunk in float64"
    np.testing.assert_allclose(found.variance_of_means.numpy(), codes.double().numpy().var(axis=0), rtol=1e-12)
    rows = found.as_rows()
    assert rows[3:5].equal(torch.zeros(2, 6).double()), "posterior variance and deviation"
    assert rows[5].equal(torch.full((6,), torch.inf).double()), "nats to the prior"
    points = PosteriorMoments.of(codes, torch.full_like(codes, -torch.inf))
    torch.testing.assert_close(rows, points.as_rows(), rtol=1e-10, atol=1e-12)


def test_two_models_codes_of_one_image_set_are_paired(images: ImageSet) -> None:
    require_paired(encode(model(), images), encode(model("deterministic"), images))


def test_pairing_goes_by_pixels_and_not_by_names(images: ImageSet) -> None:
    renamed = ImageSet("the same under another name", images.storage.clone())
    require_paired(encode(model(), images), encode(model(), renamed))
    other = ImageSet("noise", images.storage.flip(0), names=images.names)
    with pytest.raises(IllPosedError, match=r"of different images \(noise, 23 codes; noise, 23 codes\)\. Encode one image set"):
        require_paired(encode(model(), images), encode(model(), other))


def test_as_many_images_are_needed_as_well(images: ImageSet) -> None:
    """A hash that someone copied does not make 22 codes the partners of 23."""
    whole, part = encode(model(), images), encode(model(), images.slice(0, 22))
    with pytest.raises(IllPosedError, match="noise, 23 codes; noise"):
        require_paired(whole, dataclasses.replace(part, images_hash=whole.images_hash))


def test_taking_rows_keeps_means_variances_and_pairs(images: ImageSet) -> None:
    first, second = encode(model(), images), encode(model("deterministic"), images)
    rows = torch.tensor([4, 0, 22])
    taken = first.take(rows)
    assert taken.mean.equal(first.mean[rows])
    assert first.log_variance is not None
    assert taken.log_variance is not None
    assert taken.log_variance.equal(first.log_variance[rows])
    assert second.take(rows).log_variance is None
    assert (len(taken), taken.images) == (3, "noise[3 chosen]")
    require_paired(taken, second.take(rows))


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ([4, 0, 22], [0, 4, 22]),
        ([0, 1], [0, 2]),
        (list(range(23)), list(range(22, -1, -1))),  # all of them, in another order
        ([1, *range(1, 23)], list(range(23))),  # as many, one of them twice
    ],
    ids=["other order", "other rows", "all in reverse", "one twice"],
)
def test_other_rows_are_not_paired(left: list[int], right: list[int], images: ImageSet) -> None:
    encoding = encode(model(), images)
    with pytest.raises(IllPosedError, match="different images"):
        require_paired(encoding.take(torch.tensor(left)), encoding.take(torch.tensor(right)))


def test_taking_every_row_in_order_changes_nothing_of_the_pairing(images: ImageSet) -> None:
    encoding = encode(model(), images)
    require_paired(encoding, encoding.take(torch.arange(23)))
    with pytest.raises(IllPosedError, match="noise, 23 codes; noise"):
        require_paired(encoding, encoding.take(torch.arange(22)))
