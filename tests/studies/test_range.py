"""The range test: of what a generator drew itself it rejects the nominal share, and of what it cannot draw everything."""

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from latlas.base.errors import CapabilityError, IllPosedError, ImageFormatError, NonFiniteError, SettingError
from latlas.data.images import ImageSet
from latlas.inversion.descent import Budget
from latlas.models.adapters.callables import CallableModel
from latlas.studies.range_test import RangeCalibration, calibrate_range, invert, own_samples, range_test

SHAPE, PIXELS, LATENT = (1, 4, 6), 24, 3
BUDGET = Budget(steps=120, learning_rate=0.1)


def drawing() -> Tensor:
    """A linear generator's picture of each variable; small enough that codes in [-1, 1] stay within [0, 1]."""
    rows = torch.randn(LATENT, PIXELS, generator=torch.Generator().manual_seed(3))
    return 0.45 * rows / rows.abs().sum(dim=0).max()


def draw(codes: Tensor) -> Tensor:
    return (0.5 + codes @ drawing().to(codes.dtype)).unflatten(1, SHAPE)


def uniform(n: int, generator: torch.Generator) -> Tensor:
    return 2 * torch.rand(n, LATENT, generator=generator) - 1


def linear(decode_with: Callable[[Tensor], Tensor] = draw, **options: Any) -> CallableModel:
    given = {"name": "linear", "sample_with": uniform, "fingerprint": "linear weights", **options}
    return CallableModel(image_shape=SHAPE, latent_shape=(LATENT,), decode_with=decode_with, **given)


def off_range(n: int = 20) -> ImageSet:
    """Images with a part at right angles to everything that the generator draws."""
    pixels = torch.rand(n, PIXELS, generator=torch.Generator().manual_seed(4))
    return ImageSet("strangers", pixels.unflatten(1, SHAPE))


@pytest.fixture(scope="module")
def calibration() -> RangeCalibration:
    return calibrate_range(linear(), samples=199, budget=BUDGET)


# What it rejects


def test_own_samples_are_rejected_at_the_nominal_rate(calibration: RangeCalibration) -> None:
    """Given a calibration of n, rejections of m own samples follow the beta-binomial law, k = level (n + 1): by SciPy."""
    own = own_samples(linear(), 300, seed=77, purpose="fresh")
    for level in (0.05, 0.2, 0.5):
        result = range_test(linear(), own, calibration=calibration, level=level)
        rejected, k = int(result.rejected.sum()), round(level * 200)
        law = stats.betabinom(300, k, 200 - k)
        assert law.ppf(1e-3) <= rejected <= law.ppf(1 - 1e-3)
        assert result.rejected_share == rejected / 300


def test_errors_of_own_samples_are_those_of_the_calibration(calibration: RangeCalibration) -> None:
    """Exchangeable: SciPy's two-sample test tells them apart no better than chance. So p-values are uniform."""
    result = range_test(linear(), own_samples(linear(), 300, seed=78, purpose="fresh"), calibration=calibration)
    assert stats.ks_2samp(result.errors.numpy(), calibration.errors.numpy()).pvalue > 1e-3
    # Against the uniform itself the shared calibration strays like a second sample: 1.63 sqrt(1/300 + 1/199) at 1 %.
    assert stats.kstest(result.p_values.numpy(), "uniform").statistic < 1.63 * math.sqrt(1 / 300 + 1 / 199)


def test_images_off_the_range_are_rejected_with_the_smallest_p_value(calibration: RangeCalibration) -> None:
    result = range_test(linear(), off_range(), calibration=calibration)
    assert set(result.p_values.tolist()) == {1 / 200}
    assert bool(result.rejected.all())
    assert result.summary()["rejected_after_correction"] == 1.0


def test_errors_are_the_distances_to_the_range(calibration: RangeCalibration) -> None:
    """The range of codes that descent may use is a plane: NumPy's least squares knows the distance to it."""
    result = range_test(linear(), off_range(), calibration=calibration)
    target = off_range().tensor().double().flatten(1).numpy() - 0.5
    _, residual, _, _ = np.linalg.lstsq(drawing().double().numpy().T, target.T, rcond=None)
    np.testing.assert_allclose(result.errors.numpy(), residual / PIXELS, rtol=1e-3)


@pytest.mark.parametrize("patience", [0.0, 1e-3])
def test_the_verdict_on_an_image_does_not_depend_on_its_company(patience: float) -> None:
    """Judged alone, among own samples, or among strangers: else an own sample in bad company could be rejected."""
    budget = Budget(steps=60, learning_rate=0.1, patience=patience)
    base = calibrate_range(linear(), samples=99, budget=budget)
    own = own_samples(linear(), 12, seed=5, purpose="fresh")
    together = range_test(linear(), own, calibration=base)
    mixed = ImageSet("mixed", torch.cat([own.storage, (255 * off_range().storage).to(torch.uint8)]))
    among_strangers = range_test(linear(), mixed, calibration=base)
    torch.testing.assert_close(among_strangers.errors[:12], together.errors, rtol=1e-3, atol=1e-12)
    for i in range(12):
        alone = range_test(linear(), own.slice(i, i + 1), calibration=base)
        torch.testing.assert_close(alone.errors, together.errors[i : i + 1], rtol=1e-3, atol=1e-12)


def test_p_values_count_the_calibration_errors(calibration: RangeCalibration) -> None:
    mixed = ImageSet("mixed", torch.cat([own_samples(linear(), 30, seed=1).tensor(), off_range(5).tensor()]))
    result = range_test(linear(), mixed, calibration=calibration)
    expected = [(1 + int((calibration.errors >= error).sum())) / 200 for error in result.errors]
    assert result.p_values.tolist() == expected
    adjusted = stats.false_discovery_control(result.p_values.numpy(), method="bh")
    np.testing.assert_allclose(result.adjusted.numpy(), adjusted, rtol=1e-12)


def test_reference_images_rank_a_second_time(calibration: RangeCalibration) -> None:
    """Among strangers a stranger is ordinary, however far all of them lie from the range."""
    strangers = off_range(40)
    result = range_test(linear(), strangers.slice(0, 20), reference=strangers.slice(20, 40), calibration=calibration)
    known = range_test(linear(), strangers.slice(20, 40), calibration=calibration).errors
    expected = [(1 + int((known >= error).sum())) / 21 for error in result.errors]
    assert result.reference_p_values is not None
    assert result.reference_p_values.tolist() == expected
    summary = result.summary()
    assert summary["rejected"] == 1.0
    assert summary["rejected_against_reference"] < 0.3
    assert range_test(linear(), strangers, calibration=calibration).summary()["rejected_against_reference"] is None


# Calibration


def test_a_budget_that_recovers_own_samples_is_enough_and_one_of_no_steps_is_not(calibration: RangeCalibration) -> None:
    assert calibration.recovered == 1.0
    assert calibration.budget_is_enough
    idle = calibrate_range(linear(), samples=60, budget=Budget(steps=0))
    assert idle.recovered < 0.2
    assert not idle.budget_is_enough


def test_recovery_is_a_twentieth_of_what_the_mean_image_leaves() -> None:
    """Counted here, with a budget that brings some samples home and not others."""
    budget = Budget(steps=12, learning_rate=0.1)
    base = calibrate_range(linear(), samples=80, budget=budget, seed=3)
    pixels = own_samples(linear(), 80, seed=3, purpose="calibration samples").tensor().double().flatten(1).numpy()
    left = np.square(pixels - pixels.mean(axis=0)).mean()
    share = float((base.errors.numpy() <= 0.05 * left).mean())
    assert 0 < share < 1
    assert base.recovered == pytest.approx(share)


def test_a_calibration_serves_with_its_own_budget(calibration: RangeCalibration) -> None:
    result = range_test(linear(), off_range(), calibration=calibration, budget=Budget(steps=1), samples=3)
    assert result.calibration is calibration
    assert result.inversion.curves.shape[1] == BUDGET.steps + 1
    settings = result.provenance.settings
    assert (settings["level"], settings["samples"], settings["budget"]["steps"]) == (0.05, 199, 120)


def test_without_a_calibration_one_is_made() -> None:
    result = range_test(linear(), off_range(4), samples=30, budget=BUDGET, seed=6)
    base = calibrate_range(linear(), samples=30, budget=BUDGET, seed=6)
    assert result.calibration.errors.equal(base.errors)
    assert set(result.p_values.tolist()) == {1 / 31}


def test_a_calibration_of_another_generator_is_refused(calibration: RangeCalibration) -> None:
    other = linear(name="other", fingerprint="other weights")
    with pytest.raises(SettingError, match=r"of another generator than other\. Calibrate this one"):
        range_test(other, off_range(), calibration=calibration)


def test_the_seed_decides_everything() -> None:
    runs = [range_test(linear(), off_range(3), samples=20, budget=BUDGET, seed=seed) for seed in (1, 1, 2)]
    assert runs[0].calibration.errors.equal(runs[1].calibration.errors)
    assert runs[0].errors.equal(runs[1].errors)
    assert not runs[0].calibration.errors.equal(runs[2].calibration.errors)


# Own samples


def test_own_samples_are_the_generators_images_rounded_to_8_bits() -> None:
    drawn: list[Tensor] = []

    def remember(codes: Tensor) -> Tensor:
        drawn.append(draw(codes))
        return drawn[-1]

    own = own_samples(linear(remember), 50, seed=1)
    assert own.storage.dtype == torch.uint8
    expected = np.rint(torch.cat(drawn).double().numpy() * 255)
    np.testing.assert_array_equal(own.storage.numpy(), expected)
    assert (len(own), own.name) == (50, "samples of linear")


def test_samples_for_one_purpose_are_no_samples_for_another() -> None:
    """Else the check of false alarms would be made on the calibration itself."""
    first = own_samples(linear(), 10, seed=1, purpose="calibration samples")
    assert first.storage.equal(own_samples(linear(), 10, seed=1, purpose="calibration samples").storage)
    assert not first.storage.equal(own_samples(linear(), 10, seed=1, purpose="fresh samples").storage)
    assert not first.storage.equal(own_samples(linear(), 10, seed=2, purpose="calibration samples").storage)


def test_a_hair_beyond_0_and_1_is_rounding() -> None:
    own = own_samples(linear(lambda codes: draw(codes) * 0 + 1.0005), 3, seed=0)
    assert set(own.storage.flatten().tolist()) == {255}


# Inversion


def test_an_encoders_answer_is_a_start_beside_the_mean_of_the_prior() -> None:
    """With no steps at all, the error is that of the better of the two."""
    back = torch.linalg.pinv(drawing())
    inverse = linear(encode_with=lambda images: (images.flatten(1) - 0.5) @ back)
    own = own_samples(inverse, 8, seed=2)
    found = invert(inverse, own, budget=Budget(steps=0))
    assert found.start_errors.shape == (2, 8)
    assert float(found.start_errors[0].max()) < 1e-4 < float(found.start_errors[1].min())
    assert found.errors.equal(found.start_errors[0])
    assert invert(linear(), own, budget=Budget(steps=0)).start_errors.shape == (1, 8)


def test_without_an_encoder_descent_starts_at_the_mean_of_the_prior() -> None:
    shifted = linear(sample_with=lambda n, generator: 0.5 + 0.1 * torch.randn(n, LATENT, generator=generator))
    found = invert(shifted, off_range(2), budget=Budget(steps=0))
    torch.testing.assert_close(found.codes, torch.full((2, LATENT), 0.5), rtol=0, atol=0.01)  # 2,000 draws: 0.1 / 45


# Generators that cannot be tested


def test_a_generator_of_one_image_has_no_range() -> None:
    collapsed = linear(lambda codes: draw(codes * 0), name="collapsed")
    with pytest.raises(IllPosedError, match=r"collapsed draws one and the same image whatever the code .*no range to test"):
        calibrate_range(collapsed, samples=20, budget=Budget(steps=2))
    with pytest.raises(IllPosedError, match="collapsed draws one and the same image"):
        range_test(collapsed, off_range(), samples=20, budget=Budget(steps=2))


@pytest.mark.parametrize("scale", [-1.0, 2.0])
def test_a_generator_that_leaves_0_to_1_is_told_to_rescale(scale: float) -> None:
    """StyleGANs draw in [-1, 1]: their errors would be four times those of the images."""
    with pytest.raises(SettingError, match=r"linear draws values in \[.*needs images in \[0, 1\]\. Wrap its decode"):
        calibrate_range(linear(lambda codes: scale * draw(codes)), samples=20)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_generator_that_draws_no_numbers_is_named(value: float) -> None:
    with pytest.raises(NonFiniteError, match="linear drew NaN or infinity; its range cannot be tested"):
        calibrate_range(linear(lambda codes: draw(codes) * value), samples=20)


def test_a_model_that_cannot_draw_is_told_so(world: Any) -> None:
    encoder = CallableModel(name="half", image_shape=SHAPE, latent_shape=(3,), encode_with=lambda images: images)
    with pytest.raises(CapabilityError, match="A range test needs a decoder that can draw its own codes, which half is not"):
        calibrate_range(encoder)
    with pytest.raises(CapabilityError, match="Inversion needs a decoder that can draw its own codes"):
        invert(encoder, off_range())


@pytest.mark.parametrize("level", [0.0, 1.0, -0.1, math.nan])
def test_a_level_that_is_no_rate_is_refused(level: float, calibration: RangeCalibration) -> None:
    with pytest.raises(SettingError, match="level must lie between 0 and 1"):
        range_test(linear(), off_range(), level=level, calibration=calibration)


def test_images_and_numbers_of_samples_that_do_not_fit_are_refused(calibration: RangeCalibration) -> None:
    with pytest.raises(ImageFormatError, match="linear takes images of 1x4x6"):
        range_test(linear(), ImageSet("wide", torch.zeros(2, 1, 4, 7)), calibration=calibration)
    with pytest.raises(SettingError, match="at least 1 own sample, got 0"):
        calibrate_range(linear(), samples=0)


# Records


def test_the_record_is_json_with_a_verdict_for_each_image(calibration: RangeCalibration) -> None:
    result = range_test(linear(), off_range(7), calibration=calibration, reference=off_range(9))
    record = json.loads(json.dumps(result.to_json(), allow_nan=False))
    rows = record["per_image"]
    assert [row["error"] for row in rows] == sorted(result.errors.tolist(), reverse=True), "the farthest out first"
    by_name = {row["name"]: row for row in rows}
    for index in range(7):
        row = by_name[f"#{index}"]
        assert row["p_value"] == float(result.p_values[index])
        assert row["adjusted_p_value"] == float(result.adjusted[index])
        assert row["rejected"] == bool(result.rejected[index])
        assert row["reference_p_value"] is not None
    assert (record["count"], record["level"], record["calibration_count"]) == (7, 0.05, 199)
    assert record["error_mean"] == pytest.approx(result.errors.numpy().mean())
    assert (record["recovered"], record["budget_is_enough"]) == (1.0, True)
    assert record["provenance"]["made_from"]["generator"] == "linear weights"


def test_too_few_own_samples_to_reject_anything_are_refused() -> None:
    """The smallest conformal p-value is 1 / (samples + 1): 18 samples cannot reject at 5 %, 19 can."""
    with pytest.raises(IllPosedError, match=r"at least 19 own samples to calibrate on, got 18\. Give more \(--samples\)"):
        range_test(linear(), off_range(3), samples=18)
    assert range_test(linear(), off_range(3), samples=19).rejected.tolist() == [True] * 3


def test_no_verdict_is_given_where_own_samples_were_not_recovered() -> None:
    result = range_test(linear(), off_range(3), samples=40, budget=Budget(steps=0))
    assert not result.verdict_given
    assert result.summary()["rejected"] is None
    assert [row["rejected"] for row in result.rows()] == [None] * 3
