"""Reconstruction: errors are NumPy's, and the variance that is lost is the error exactly where theory says so."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import Tensor

from latlas.data.images import ImageSet
from latlas.measurements.reconstruction import (
    Reconstruction,
    decode_batches,
    decode_errors,
    measure_reconstruction,
    squared_error_per_pixel,
)
from latlas.models.adapters.callables import CallableModel

SHAPE, PIXELS = (1, 6, 6), 36
N = 1250  # a batch of 1,000 and a part of one


@pytest.fixture
def images(generator: torch.Generator) -> ImageSet:
    """Correlated images: a few directions hold most of the variance."""
    mixing = torch.randn(5, PIXELS, generator=generator)
    rows = torch.randn(N, 5, generator=generator) @ mixing + 0.3 * torch.randn(N, PIXELS, generator=generator)
    return ImageSet("correlated", rows.sub(rows.min()).div(rows.max() - rows.min()).unflatten(1, SHAPE))


def flat(images: ImageSet) -> np.ndarray:
    return images.tensor().double().flatten(1).numpy()


def identity() -> CallableModel:
    """Codes are pixels, drawn as they are."""
    return CallableModel(
        name="identity", image_shape=SHAPE, latent_shape=(PIXELS,), decode_with=lambda codes: codes.unflatten(1, SHAPE)
    )


@pytest.mark.parametrize("components", [1, 4, 20])
def test_pca_loses_exactly_its_error_in_variance(components: int, images: ImageSet) -> None:
    """Its reconstruction is the conditional mean of its codes: Var(x) = Var(E[x|z]) + E|x - E[x|z]|^2.

    1e-6: reconstructions travel in float32.
    """
    pca = PCA(n_components=components, svd_solver="full").fit(flat(images))
    decoder = CallableModel(
        name="PCA",
        image_shape=SHAPE,
        latent_shape=(components,),
        decode_with=lambda codes: torch.from_numpy(pca.inverse_transform(codes.double().numpy())).unflatten(1, SHAPE),
    )
    measured = measure_reconstruction(decoder, torch.from_numpy(pca.transform(flat(images))), images)
    assert measured.variance_loss_over_error == pytest.approx(1.0, abs=1e-6)
    left_over = pca.noise_variance_ * (PIXELS - components) * (len(images) - 1) / len(images) / PIXELS
    assert measured.error == pytest.approx(left_over, rel=1e-5)
    assert measured.reconstruction_variance < measured.image_variance


@pytest.mark.parametrize("contrast", [0.0, 0.5, 1.5])
def test_a_decoder_of_other_contrast_has_a_known_ratio(contrast: float, images: ImageSet) -> None:
    """Contrast c leaves the error (1 - c)^2 V and loses the variance (1 - c^2) V: below 0 where the decoder exaggerates."""
    middle = images.tensor().double().mean(dim=0)
    changed = middle + contrast * (images.tensor().double() - middle)
    measured = measure_reconstruction(identity(), changed.flatten(1), images)
    variance = flat(images).var(axis=0).mean()
    assert measured.image_variance == pytest.approx(variance, rel=1e-12)
    assert measured.variance_loss == pytest.approx((1 - contrast**2) * variance, rel=1e-5)
    assert measured.variance_loss_over_error == pytest.approx((1 + contrast) / (1 - contrast), rel=1e-5)


def test_errors_and_variances_are_numpys(images: ImageSet, generator: torch.Generator) -> None:
    codes = torch.rand(N, PIXELS, generator=generator)
    measured = measure_reconstruction(identity(), codes, images)
    originals, drawn = flat(images), codes.double().numpy()
    errors = np.square(originals - drawn).mean(axis=1)
    np.testing.assert_allclose(measured.errors.numpy(), errors, rtol=1e-12)
    np.testing.assert_allclose(decode_errors(identity(), codes, images).numpy(), errors, rtol=1e-12)
    assert measured.error == pytest.approx(errors.mean(), rel=1e-12)
    assert measured.standard_error() == pytest.approx(errors.std(ddof=1) / np.sqrt(N), rel=1e-12)
    assert measured.image_variance == pytest.approx(originals.var(axis=0).mean(), rel=1e-12)
    assert measured.reconstruction_variance == pytest.approx(drawn.var(axis=0).mean(), rel=1e-12)
    assert measured.variance_loss == pytest.approx(originals.var(axis=0).mean() - drawn.var(axis=0).mean(), rel=1e-9)


def test_an_error_is_a_mean_over_all_channels_and_pixels(generator: torch.Generator) -> None:
    first, second = (torch.rand(4, 3, 2, 5, generator=generator) for _ in range(2))
    expected = np.square(first.double().numpy() - second.double().numpy()).reshape(4, 30).mean(axis=1)
    np.testing.assert_allclose(squared_error_per_pixel(first, second).numpy(), expected, rtol=1e-12)


def test_codes_can_be_changed_on_their_way(images: ImageSet) -> None:
    codes = images.tensor().flatten(1)
    black = measure_reconstruction(identity(), codes, images, change=torch.zeros_like)
    assert black.error == pytest.approx(np.square(flat(images)).mean(), rel=1e-12)
    assert black.reconstruction_variance == 0.0
    assert measure_reconstruction(identity(), codes, images).error == 0.0


def test_what_is_undefined_is_nan() -> None:
    exact = Reconstruction(errors=torch.zeros(3, dtype=torch.float64), image_variance=0.1, reconstruction_variance=0.1)
    assert np.isnan(exact.variance_loss_over_error)
    single = Reconstruction(errors=torch.ones(1, dtype=torch.float64), image_variance=0.0, reconstruction_variance=0.0)
    assert np.isnan(single.standard_error())


def test_progress_is_told_in_batches(images: ImageSet) -> None:
    told: list[tuple[str, int, int | None]] = []
    measure_reconstruction(
        identity(),
        images.tensor().flatten(1),
        images,
        progress=lambda task, done, total, note="": told.append((task, done, total)),
    )
    assert told == [("decoding", done, 2) for done in range(3)]


# Decoding batch by batch


def test_batches_are_the_images_of_the_codes_in_order(generator: torch.Generator) -> None:
    codes = torch.rand(10, PIXELS, generator=generator)
    parts = list(decode_batches(identity(), codes.double(), size=4))
    assert [len(part) for part in parts] == [4, 4, 2]
    assert {part.dtype for part in parts} == {torch.float32}
    assert torch.cat(parts).equal(codes.unflatten(1, SHAPE))


def test_decoding_runs_in_inference_mode_and_its_caller_does_not(generator: torch.Generator) -> None:
    """A mode that a generator enters holds in its caller for as long as the generator is suspended."""
    modes = []

    def watched(codes: Tensor) -> Tensor:
        modes.append(torch.is_inference_mode_enabled())
        return codes.unflatten(1, SHAPE)

    decoder = CallableModel(name="watched", image_shape=SHAPE, latent_shape=(PIXELS,), decode_with=watched)
    abandoned = decode_batches(decoder, torch.rand(6, PIXELS, generator=generator), size=2)
    for _ in range(2):
        next(abandoned)
        assert not torch.is_inference_mode_enabled()
        assert torch.is_grad_enabled()
    weight = torch.ones(2, requires_grad=True)
    (weight * 2).sum().backward()
    assert weight.grad is not None
    abandoned.close()
    assert modes == [True, True]


def test_errors_can_take_part_in_later_gradients(images: ImageSet) -> None:
    errors = decode_errors(identity(), images.tensor().flatten(1) / 2, images)
    weight = torch.ones(N, dtype=torch.float64, requires_grad=True)
    (weight * errors).sum().backward()
    torch.testing.assert_close(weight.grad, errors)


@pytest.mark.parametrize("seed", range(5))
def test_the_ratio_is_one_plus_what_contrast_lacks(seed: int, images: ImageSet) -> None:
    """Ratio = 1 + 2 (c - 1) variance of reconstructions / error, where c regresses images on reconstructions of equal means.

    Checked with NumPy's own regression on a decoder that blurs, shrinks and errs.
    """
    drawn = np.random.default_rng(seed)
    middle = flat(images).mean(axis=0)
    changed = middle + drawn.uniform(0.5, 1.5) * (flat(images) - middle) + drawn.normal(0, 0.05, flat(images).shape)
    changed -= changed.mean(axis=0) - middle
    measured = measure_reconstruction(identity(), torch.from_numpy(changed), images)
    deviations, theirs = (flat(images) - middle).ravel(), (changed - middle).ravel()
    slope = np.linalg.lstsq(theirs[:, None], deviations, rcond=None)[0][0]
    expected = 1 + 2 * (slope - 1) * changed.var(axis=0).mean() / ((flat(images) - changed) ** 2).mean()
    assert measured.variance_loss_over_error == pytest.approx(expected, rel=1e-5)
