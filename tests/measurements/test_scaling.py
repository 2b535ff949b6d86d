"""The scale of latents: against NumPy on drawn codes, with errors that repeated draws confirm, and beside a stated scale."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from latlas.base.errors import IllPosedError
from latlas.base.provenance import Provenance
from latlas.encodings.encoding import Encoding
from latlas.measurements.scaling import ConfiguredScaling, LatentScaling, latent_scaling
from latlas.models.protocols import CodeScale

CHANNELS = 3


def encoding_of(mean: Tensor, log_variance: Tensor | None = None) -> Encoding:
    return Encoding(
        mean=mean,
        log_variance=log_variance,
        model="m",
        images="i",
        images_hash="h",
        provenance=Provenance(made_by="encode"),
    )


def latents(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Codes whose positions go together, as in images: a channel's level differs from image to image."""
    chance = np.random.default_rng(seed)
    level = chance.normal(size=(n, CHANNELS, 1, 1)) * np.array([1.0, 3.0, 0.3])[:, None, None]
    mean = level + chance.normal(size=(n, CHANNELS, 4, 5)) + np.array([2.0, -1.0, 0.5])[:, None, None]
    log_variance = chance.normal(size=mean.shape) * 0.3 - np.array([1.0, 2.0, 0.0])[:, None, None]
    return torch.from_numpy(mean), torch.from_numpy(log_variance)


def drawn(mean: Tensor, log_variance: Tensor, draws: int = 400) -> np.ndarray:
    noise = np.random.default_rng(1).normal(size=(draws, *mean.shape))
    return mean.numpy() + noise * np.exp(0.5 * log_variance.numpy())


# The numbers


def test_without_variances_the_numbers_are_those_of_numpy() -> None:
    mean, _ = latents(50, 0)
    found, codes = latent_scaling(encoding_of(mean)), mean.numpy()
    assert found.count == 50
    np.testing.assert_allclose(found.latents_mean.numpy(), codes.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(found.latents_std.numpy(), codes.std(axis=(0, 2, 3)), rtol=1e-12)
    assert found.shift_factor == pytest.approx(codes.mean(), rel=1e-12)
    assert found.scaling_factor == pytest.approx(1 / codes.std(), rel=1e-12)
    assert found.configured is None


def test_with_variances_the_numbers_are_those_of_codes_drawn_from_the_posteriors() -> None:
    mean, log_variance = latents(50, 0)
    found, codes = latent_scaling(encoding_of(mean, log_variance)), drawn(mean, log_variance)
    np.testing.assert_allclose(found.latents_mean.numpy(), codes.mean(axis=(0, 1, 3, 4)), atol=0.01)
    np.testing.assert_allclose(found.latents_std.numpy(), codes.std(axis=(0, 1, 3, 4)), rtol=0.005)
    assert found.scaling_factor == pytest.approx(1 / codes.std(), rel=0.005)
    # And they differ from those of the means: what is drawn varies more.
    assert found.scaling_factor < 0.98 / mean.numpy().std()


def test_either_way_of_scaling_makes_mean_0_and_deviation_1() -> None:
    mean, log_variance = latents(30, 3)
    found = latent_scaling(encoding_of(mean, log_variance))
    ways = (
        CodeScale(factor=(found.scaling_factor,), shift=(found.shift_factor,)),
        CodeScale(factor=tuple((1 / found.latents_std).tolist()), shift=tuple(found.latents_mean.tolist())),
    )
    for scale in ways:
        again = latent_scaling(
            encoding_of(scale.apply(mean), log_variance + scale.log_variance_gain(log_variance)), configured=CodeScale()
        )
        assert again.shift_factor == pytest.approx(0, abs=1e-12)
        assert again.scaling_factor == pytest.approx(1, rel=1e-12)
        assert again.configured is not None
        assert (again.configured.mean, again.configured.deviation) == pytest.approx((0, 1), abs=1e-12)
        assert again.configured.fits


def test_many_images_and_float32_change_nothing_that_matters() -> None:
    """More images than are looked at at once, far from 0: sums of squares in float32 would lose every digit."""
    mean = latents(2500, 4)[0] * 1e-2 + 100
    found, codes = latent_scaling(encoding_of(mean.float())), mean.float().double().numpy()
    np.testing.assert_allclose(found.latents_std.numpy(), codes.std(axis=(0, 2, 3)), rtol=1e-9)
    assert found.scaling_factor == pytest.approx(1 / codes.std(), rel=1e-9)


def test_a_variable_of_a_vector_counts_as_a_channel() -> None:
    codes = torch.from_numpy(np.random.default_rng(5).normal(size=(40, 4)) * [1, 2, 3, 4])
    found = latent_scaling(encoding_of(codes))
    np.testing.assert_allclose(found.latents_std.numpy(), codes.numpy().std(axis=0), rtol=1e-12)
    assert found.scaling_factor == pytest.approx(1 / codes.numpy().std(), rel=1e-12)


# Standard errors


def statistics(found: LatentScaling) -> np.ndarray:
    rest = [found.scaling_factor, found.shift_factor]
    if found.configured is not None:
        rest += [found.configured.mean, found.configured.deviation]
    return np.concatenate([found.latents_mean.numpy(), found.latents_std.numpy(), rest])


def errors(found: LatentScaling) -> np.ndarray:
    rest = [found.scaling_factor_error, found.shift_factor_error]
    if found.configured is not None:
        rest += [found.configured.mean_error, found.configured.deviation_error]
    return np.concatenate([found.latents_mean_error.numpy(), found.latents_std_error.numpy(), rest])


def test_standard_errors_are_those_of_the_jackknife_over_images() -> None:
    """Positions of one image go together: errors that took each for a draw would be several times too small."""
    mean, log_variance = latents(200, 6)
    scale = CodeScale(factor=(0.5, 0.2, 1.5), shift=(1.0,))
    whole = latent_scaling(encoding_of(mean, log_variance), configured=scale)
    left_out = []
    for image in range(len(mean)):
        rest = torch.arange(len(mean)) != image
        left_out.append(statistics(latent_scaling(encoding_of(mean[rest], log_variance[rest]), configured=scale)))
    jackknife = np.sqrt((len(mean) - 1) * np.var(left_out, axis=0))
    np.testing.assert_allclose(errors(whole), jackknife, rtol=0.03)


def test_standard_errors_are_the_spread_of_repeated_measurements() -> None:
    found = [latent_scaling(encoding_of(*latents(100, seed)), configured=CodeScale(factor=(0.5,))) for seed in range(300)]
    spread = np.std([statistics(one) for one in found], axis=0)
    np.testing.assert_allclose(np.mean([errors(one) for one in found], axis=0), spread, rtol=0.15)


# Beside a stated scale


def test_what_a_stated_scale_makes_of_the_codes_is_measured() -> None:
    mean, log_variance = latents(60, 7)
    scale = CodeScale(factor=(0.5, 0.2, 1.5), shift=(1.0, 0.0, -1.0))
    found = latent_scaling(encoding_of(mean, log_variance), configured=scale).configured
    assert found is not None
    codes = drawn(mean, log_variance)
    scaled = (codes - np.array(scale.shift)[:, None, None]) * np.array(scale.factor)[:, None, None]
    assert found.mean == pytest.approx(scaled.mean(), abs=0.005)
    assert found.deviation == pytest.approx(scaled.std(), rel=0.005)
    assert found.scale == scale


@pytest.mark.parametrize(
    ("ratio", "fits"), [(1.0, True), (0.93, True), (1.07, True), (0.85, False), (1.2, False), (5.5, False)]
)
def test_a_stated_factor_fits_within_a_tenth(ratio: float, fits: bool) -> None:
    mean = torch.from_numpy(np.random.default_rng(8).normal(size=(400, CHANNELS, 4, 4)))
    factor = ratio * latent_scaling(encoding_of(mean)).scaling_factor
    found = latent_scaling(encoding_of(mean), configured=CodeScale(factor=(factor,))).configured
    assert found is not None
    assert found.deviation == pytest.approx(ratio, rel=1e-9)
    assert found.fits is fits


@pytest.mark.parametrize(
    ("deviation", "error", "fits"),
    [
        (1.0999, 0.0, True), (1.1001, 0.0, False), (0.9001, 0.0, True), (0.8999, 0.0, False),
        (1.1499, 0.05, True), (1.1501, 0.05, False), (1.1001, float("nan"), False),
    ],
)  # fmt: skip
def test_a_deviation_may_be_off_by_a_tenth_or_by_three_standard_errors(deviation: float, error: float, fits: bool) -> None:
    found = ConfiguredScaling(scale=CodeScale(), mean=0.0, mean_error=0.0, deviation=deviation, deviation_error=error)
    assert found.fits is fits


def test_few_images_are_no_proof_against_a_stated_factor() -> None:
    mean, log_variance = latents(4, 9)
    factor = 1.3 * latent_scaling(encoding_of(mean, log_variance)).scaling_factor
    found = latent_scaling(encoding_of(mean, log_variance), configured=CodeScale(factor=(factor,))).configured
    assert found is not None
    assert 0.1 < abs(found.deviation - 1) < 3 * found.deviation_error
    assert found.fits
    assert not dataclasses.replace(found, deviation_error=0.05).fits


# Nonsense


def test_codes_that_do_not_vary_have_no_scale() -> None:
    found = latent_scaling(encoding_of(torch.full((5, 2, 3, 3), 7.0)))
    assert found.scaling_factor == float("inf")
    assert np.isnan(found.scaling_factor_error)
    assert found.shift_factor == 7.0


def test_one_image_has_no_standard_error() -> None:
    found = latent_scaling(encoding_of(*latents(1, 0)), configured=CodeScale())
    assert np.isnan(errors(found)).all()
    assert np.isfinite(statistics(found)).all()
    assert found.configured is not None
    assert not found.configured.fits


def test_no_images_are_refused() -> None:
    with pytest.raises(IllPosedError, match="The scale of no codes was asked for: the encoding of i is empty"):
        latent_scaling(encoding_of(torch.zeros(0, 2, 3, 3)))
