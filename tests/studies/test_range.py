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
from latlas.base.seeds import generator
from latlas.data.images import ImageSet
from latlas.inversion.descent import Budget
from latlas.inversion.invert import invert
from latlas.measurements.conformal import adjusted_p_values, conformal_p_values
from latlas.measurements.corrections import holm_p_values
from latlas.measurements.features import CallableFeatures
from latlas.models.adapters.callables import CallableModel
from latlas.reports.ranges import range_findings
from latlas.studies.range_calibration import RangeCalibration, calibrate_range, own_samples
from latlas.studies.range_test import range_test

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


def test_p_values_of_own_samples_are_uniform() -> None:
    """Own samples that share a calibration are not independent: here each has its own. Kolmogorov and Smirnov, at 1 %."""
    errors = calibrate_range(linear(), samples=2000, budget=Budget(steps=40, learning_rate=0.15), seed=8).errors
    groups = errors.reshape(100, 20)
    p_values = torch.cat([conformal_p_values(group[:1], group[1:]) for group in groups])
    # Of 20 possible values: a uniform draw within each step makes them continuous.
    steps = torch.rand(100, generator=torch.Generator().manual_seed(1)) / 20
    assert stats.kstest((p_values - steps).numpy(), "uniform").pvalue > 0.01
    assert stats.kstest((p_values / 2).numpy(), "uniform").pvalue < 0.01  # the test would notice


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
    assert result.reference is not None
    assert result.reference.rejected_share == 1.0, "they are out of range themselves"
    assert range_test(linear(), strangers, calibration=calibration).summary()["rejected_against_reference"] is None


def test_corrections_are_those_of_scipy_and_of_holms_own_words(generator: torch.Generator) -> None:
    """Holm (1979): go up the sorted p-values, reject while the i-th is at most level / (n - i + 1), and stop for good."""
    for _ in range(50):
        p_values = torch.rand(int(torch.randint(1, 30, (), generator=generator)), generator=generator).double() ** 4
        p_values = (p_values * 20).ceil() / 20 if len(p_values) % 2 else p_values  # with ties, as conformal ones have
        adjusted = stats.false_discovery_control(p_values.numpy(), method="bh")
        np.testing.assert_allclose(adjusted_p_values(p_values).numpy(), adjusted, rtol=1e-12)
        for level in (0.01, 0.05, 0.2, 0.5):
            expected = [False] * len(p_values)
            for i, row in enumerate(np.argsort(p_values.numpy(), kind="stable")):
                if p_values[row] > level / (len(p_values) - i):
                    break
                expected[row] = True
            assert (holm_p_values(p_values) <= level).tolist() == expected


def test_corrections_are_over_the_images_of_the_test(calibration: RangeCalibration) -> None:
    mixed = ImageSet("mixed", torch.cat([own_samples(linear(), 30, seed=1).tensor(), off_range(5).tensor()]))
    result = range_test(linear(), mixed, calibration=calibration, reference=off_range(4))
    assert result.holm.equal(holm_p_values(result.p_values))
    assert result.adjusted.equal(adjusted_p_values(result.p_values))
    assert result.summary()["rejected_after_holm"] == 0.0, "35 images and 199 own samples: at best 35 / 200"
    assert result.summary()["rejected_after_correction"] == pytest.approx(5 / 35, abs=2 / 35)


def test_a_support_set_is_judged_beside_by_the_same_calibration(calibration: RangeCalibration) -> None:
    own = own_samples(linear(), 8, seed=9, purpose="support")
    result = range_test(linear(), off_range(4), support=own, calibration=calibration)
    assert result.support is not None
    assert result.support.errors.equal(range_test(linear(), own, calibration=calibration).errors)
    assert result.provenance.made_from["support"] == own.content_hash
    assert result.to_json()["support"]["count"] == 8


def test_errors_in_a_feature_space_rank_among_those_of_own_samples() -> None:
    """Features that see the top row alone: strangers that differ below it are out of range by pixels, and not by features."""
    top = CallableFeatures(name="top row", size=6, compute_with=lambda images: images[:, 0, 0])
    base = calibrate_range(linear(), samples=99, budget=BUDGET, features=top)
    own = own_samples(linear(), 20, seed=3, purpose="below")
    pixels = own.tensor()
    pixels[:, :, 1:] = 1 - pixels[:, :, 1:].flip(3)
    result = range_test(linear(), ImageSet("below", pixels), calibration=base)
    decoded = draw(result.inversion.codes)
    expected = (decoded[:, 0, 0] - pixels[:, 0, 0]).double().square().mean(dim=1)
    assert result.feature_errors is not None
    assert result.feature_p_values is not None
    assert base.feature_errors is not None
    torch.testing.assert_close(result.feature_errors, expected, rtol=1e-4, atol=1e-10)
    counted = [(1 + int((base.feature_errors >= error).sum())) / 100 for error in result.feature_errors]
    assert result.feature_p_values.tolist() == counted
    assert result.summary()["features"] == "top row"
    assert range_test(linear(), off_range(3), samples=19, budget=BUDGET).feature_p_values is None


def test_an_image_whose_descent_left_the_numbers_gets_no_verdict_and_the_others_keep_theirs() -> None:
    """A generator that breaks beyond codes of its own: there the bright strangers would lie, and only they."""

    def holed(codes: Tensor) -> Tensor:
        return draw(codes) + torch.where((codes.abs() > 3).any(dim=1), torch.nan, 0.0)[:, None, None, None]

    base = calibrate_range(linear(holed), samples=40, budget=BUDGET)
    far = (0.5 + 4 * (draw(torch.eye(3)) - 0.5)).clamp(0, 1)
    mixed = ImageSet("mixed", torch.cat([off_range(4).tensor(), far]))
    result = range_test(linear(holed), mixed, calibration=base)
    lost = set(result.inversion.unfinished)
    assert lost == {"#4", "#5", "#6"}
    for row in result.rows():
        assert (row["rejected"] is None) == (row["name"] in lost)
        assert row["p_value"] == (1.0 if row["name"] in lost else pytest.approx(1 / 41))
    json.dumps(result.to_json(), allow_nan=False)
    words = " ".join(f"{finding.headline} {finding.text}" for finding in range_findings({"images": result}))
    assert all(name in words for name in lost)


def test_spatial_codes_are_ranked_like_any_others() -> None:
    """As those of the autoencoders of latent diffusion: a map of two channels, each position of which draws four pixels."""
    mix = torch.tensor([[0.1, 0.1, -0.1, 0.1], [0.1, -0.1, 0.1, 0.1]])

    def patches(codes: Tensor) -> Tensor:
        return 0.5 + torch.nn.functional.pixel_shuffle(torch.einsum("nkrc,kp->nprc", codes.clamp(-2, 2), mix), 2)

    model = CallableModel(name="spatial", image_shape=(1, 4, 6), latent_shape=(2, 2, 3), decode_with=patches)
    base = calibrate_range(model, samples=60, budget=Budget(steps=150, learning_rate=0.1))
    assert base.budget_is_enough
    own = own_samples(model, 40, seed=4, purpose="fresh")
    assert range_test(model, own, calibration=base).rejected_share <= 0.2
    result = range_test(model, off_range(10), calibration=base)
    assert bool(result.rejected.all())
    assert result.inversion.codes.shape == (10, 2, 2, 3)


# Calibration


def test_starts_that_end_apart_give_no_verdict_even_if_one_of_them_recovers() -> None:
    """An encoder that knows own samples brings all of them back, and from anywhere else nothing comes back."""

    def waves(codes: Tensor) -> Tensor:
        return 0.5 + 0.5 * torch.sin(400 * (draw(codes) - 0.5))

    book = own_samples(linear(waves), 60, seed=0, purpose="calibration samples")
    codes = uniform(60, generator(0, "calibration samples"))
    knowing = linear(waves, encode_with=lambda images: codes[: len(images)])
    base = calibrate_range(knowing, samples=60, budget=Budget(steps=5))
    assert len(book) == 60
    assert base.recovered == 1.0
    assert base.agreeing < 0.5
    assert not base.budget_is_enough
    (finding,) = range_findings({"images": range_test(knowing, off_range(3), calibration=base)})
    assert "two starts end alike" in finding.headline


def test_unrelated_samples_differ_by_what_is_stated(calibration: RangeCalibration) -> None:
    pixels = own_samples(linear(), 199, seed=0, purpose="calibration samples").tensor().double().flatten(1)
    expected = torch.pdist(pixels).square().mean() / PIXELS
    assert calibration.unrelated_error == pytest.approx(float(expected), rel=1e-9)
    assert float(calibration.errors.max()) < 0.01 * calibration.unrelated_error


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


@pytest.mark.parametrize(
    "beside", [{"budget": Budget(steps=1)}, {"start": "noise"}, {"starts": 3}, {"recoder": linear()}, {"prior_weight": 0.1}]
)
def test_what_a_calibration_decides_is_not_taken_and_ignored(beside: dict[str, Any], calibration: RangeCalibration) -> None:
    with pytest.raises(SettingError, match=f"give {next(iter(beside))} to calibrate_range"):
        range_test(linear(), off_range(), calibration=calibration, **beside)


def test_a_calibration_serves_with_its_own_budget(calibration: RangeCalibration) -> None:
    result = range_test(linear(), off_range(), calibration=calibration, samples=3)
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


def inverse() -> CallableModel:
    back = torch.linalg.pinv(drawing())
    return linear(encode_with=lambda images: (images.flatten(1) - 0.5) @ back)


def test_beside_an_encoder_a_range_test_starts_at_the_nearest_draw_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """With no steps at all, the error is that of the better of the two, and they do not agree: no verdict."""
    monkeypatch.setattr("latlas.inversion.invert._NEAREST_OF", 1)  # the nearest of one draw is any draw
    base = calibrate_range(inverse(), samples=40, budget=Budget(steps=0))
    assert base.procedure.starts == ("recoder", "nearest")
    assert (base.recovered, base.agreeing < 0.3, base.budget_is_enough) == (1.0, True, False)
    result = range_test(inverse(), off_range(3), calibration=base)
    assert result.inversion.start_names == ("recoder", "nearest")
    assert not result.verdict_given
    assert [row["rejected"] for row in result.rows()] == [None] * 3


def test_starts_that_one_cannot_hold_against_another_are_refused() -> None:
    with pytest.raises(SettingError, match="at least 2 starts, to see whether they agree, got 1"):
        calibrate_range(linear(), samples=20, start="noise", starts=1)
    assert calibrate_range(linear(), samples=20, start="mean", starts=1, budget=BUDGET).procedure.starts == ("mean", "noise")


# Generators that cannot be tested


def test_a_generator_of_one_image_has_no_range() -> None:
    collapsed = linear(lambda codes: draw(codes * 0), name="collapsed")
    with pytest.raises(IllPosedError, match=r"collapsed draws one and the same image whatever the code .*nothing to invert"):
        calibrate_range(collapsed, samples=20, budget=Budget(steps=2))
    with pytest.raises(IllPosedError, match="collapsed draws one and the same image"):
        range_test(collapsed, off_range(), samples=20, budget=Budget(steps=2))


@pytest.mark.parametrize("scale", [-1.0, 2.0])
def test_a_generator_that_leaves_0_to_1_is_told_to_rescale(scale: float) -> None:
    """StyleGANs draw in [-1, 1]: their errors would be four times those of the images."""
    with pytest.raises(
        ImageFormatError, match=r"linear draws values from .*needs images in \[0, 1\]\. Rescale what its decode returns"
    ):
        calibrate_range(linear(lambda codes: scale * draw(codes)), samples=20)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_generator_that_draws_no_numbers_is_named(value: float) -> None:
    with pytest.raises(NonFiniteError, match="linear draws NaN or infinity for codes of its own"):
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
    assert (record["recovered"], record["starts_agree"], record["budget_is_enough"]) == (1.0, 1.0, True)
    assert record["values"] == "[0, 1]"
    assert record["reference"]["count"] == 9
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
