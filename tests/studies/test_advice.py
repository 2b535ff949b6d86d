"""Advice: each finding follows from its number, at the border too, and the most urgent comes first."""

import math
import re

import pytest
import torch
from torch import Tensor

from latlas.measurements.latents import LatentTable, latent_table
from latlas.measurements.reconstruction import Reconstruction
from latlas.numerics.moments import MarginalMoments
from latlas.numerics.posteriors import PosteriorMoments
from latlas.studies.advice import Advice, Zeroing, advise, few_images


def table(variances: list[float], posteriors: list[float]) -> LatentTable:
    variance: Tensor = torch.tensor(variances, dtype=torch.float64)
    posterior = torch.tensor(posteriors, dtype=torch.float64)
    kl = 0.5 * (variance + posterior - posterior.log() - 1)
    means = MarginalMoments(10, torch.zeros_like(variance), 10 * variance)
    return latent_table(PosteriorMoments(means, posterior, posterior.sqrt(), kl))


def reconstruction(ratio: float, *, error: float = 0.02, variance: float = 0.1) -> Reconstruction:
    """Of that error, with a variance loss of `ratio` times it."""
    return Reconstruction(
        errors=torch.full((4,), error, dtype=torch.float64),
        image_variance=variance,
        reconstruction_variance=variance - ratio * error,
    )


HEALTHY = table([0.9, 0.8, 0.0], [0.1, 0.2, 1.0])
GOOD = reconstruction(1.0)


def found(findings: list[Advice], word: str) -> Advice:
    (finding,) = [each for each in findings if word in each.headline]
    return finding


def test_a_healthy_model_has_nothing_but_good_news() -> None:
    findings = advise(HEALTHY, GOOD, None)
    assert {finding.level for finding in findings} == {"good"}
    assert len(findings) == 3


def test_the_most_urgent_comes_first() -> None:
    findings = advise(table([0.0, 0.0], [0.5, 0.5]), reconstruction(3.0), None)
    assert [finding.level for finding in findings] == ["warning", "note", "note", "note"]
    assert "Everything has collapsed: 0 of 2" in findings[0].headline


def test_a_latent_space_in_full_use_may_be_too_small() -> None:
    finding = found(advise(table([0.9, 0.8], [0.1, 0.2]), GOOD, None), "in use")
    assert finding.level == "note"
    assert finding.headline == "All 2 latent variables are in use."
    assert "try more variables" in finding.text


def test_what_zeroing_measured_is_told_and_nothing_is_made_up_without_it() -> None:
    zeroing = Zeroing(error_before=0.02, error_after=0.0203, largest_output_difference=0.0123)
    text = found(advise(HEALTHY, GOOD, zeroing), "active").text
    assert "changes the error by +1.50 % and no pixel by more than 0.012." in text
    assert "Setting" not in found(advise(HEALTHY, GOOD, None), "active").text


@pytest.mark.parametrize(("after", "change"), [(0.0, 0.0), (0.1, math.inf)])
def test_an_error_where_there_was_none_is_no_small_change(after: float, change: float) -> None:
    assert Zeroing(error_before=0.0, error_after=after, largest_output_difference=1.0).relative_change == change


def test_rules_that_disagree_are_counted_out() -> None:
    """A variance of 0.03 is active to Burda and collapsed to Split-VAE's rule; its posteriors say collapsed."""
    finding = found(advise(table([0.9, 0.03], [0.1, 0.9]), GOOD, None), "disagree")
    assert finding.level == "note"
    assert "variance of means <= 0.01: 0; variance of means < 0.05: 1" in finding.text
    assert "look at their gain before you prune" in finding.text


@pytest.mark.parametrize(
    ("law", "level", "words"),
    [
        (1.0, "good", "The variance law holds: 1.000 on average"),
        (1.079, "good", "The variance law holds: 1.079"),
        (0.921, "good", "The variance law holds: 0.921"),
        (1.081, "note", "The variance law is off: 1.081 on average"),
        (0.919, "note", "The variance law is off: 0.919"),
    ],
)
def test_the_variance_law_is_judged_by_its_mean(law: float, level: str, words: str) -> None:
    """The published convolutional table has a mean of 1.078, and single variables up to 1.40."""
    finding = found(advise(table([law - 0.4, law + 0.2], [0.2, 0.0]), GOOD, None), "variance law")
    assert finding.level == level
    assert words in finding.headline
    assert f"between {law - 0.2:.2f} and {law + 0.2:.2f}" in finding.text


@pytest.mark.parametrize(("ratio", "level"), [(0.79, "note"), (0.81, "good"), (1.0, "good"), (1.19, "good"), (1.21, "note")])
def test_a_variance_loss_like_the_error_is_a_conditional_mean(ratio: float, level: str) -> None:
    finding = found(advise(HEALTHY, reconstruction(ratio), None), "Variance loss")
    assert finding.level == level
    assert f"{ratio:.2f}" in finding.headline
    assert f"lack {100 * ratio * 0.02 / 0.1:.0f} % of the variance of the images" in finding.text


def test_a_variance_that_grows_is_told_with_its_sign() -> None:
    finding = found(advise(HEALTHY, reconstruction(-0.5), None), "Variance loss")
    assert finding.level == "note"
    assert "Variance loss is -0.50 times the squared error" in finding.headline


def test_exact_reconstructions_are_no_case_of_nan() -> None:
    findings = advise(HEALTHY, reconstruction(0.0, error=0.0), None)
    finding = found(findings, "exact")
    assert finding.level == "good"
    assert not any("nan" in each.headline + each.text for each in findings)


@pytest.mark.parametrize(
    ("count", "variables", "asked"),
    [(3, 2, 100), (99, 16, 100), (100, 16, None), (100, 101, 101), (2000, 512, None), (500, 512, 512)],
)
def test_images_are_too_few_below_a_hundred_and_below_the_variables(count: int, variables: int, asked: int | None) -> None:
    findings = few_images(count, variables)
    if asked is None:
        assert findings == []
        return
    (finding,) = findings
    assert finding.level == "warning"
    assert f"{count} images are too few" in finding.headline
    assert (f"fewer than the {variables} latent variables" in finding.headline) == (count < variables)
    assert f"Give at least {asked:,}" in finding.text


def test_the_doubt_that_is_told_of_few_images_is_that_of_drawn_ones(generator: torch.Generator) -> None:
    for count in (3, 20):
        variances = torch.randn(200_000, count, generator=generator).double().var(dim=1)
        (finding,) = few_images(count, 2)
        told = float(re.search(r"about (\d+) %", finding.text)[1])  # type: ignore[index]
        assert told == pytest.approx(100 * float(variances.std() / variances.mean()), rel=0.03)


# Images that the model was not made for


@pytest.mark.parametrize(("error", "told"), [(0.10, False), (0.109, False), (0.111, True), (5.0, True)])
def test_worse_than_the_mean_image_comes_before_all_else(error: float, told: bool) -> None:  # the mean image has 0.1
    findings = advise(HEALTHY, reconstruction(1.0, error=error), None)
    assert (findings[0].headline == "Reconstructions are farther from the images than one mean image would be.") == told
    if told:
        assert findings[0].level == "warning"
        assert f"is {error:.3g} a pixel, and that of the mean of these images 0.1." in findings[0].text


def test_deviations_in_the_place_of_log_variances_are_found_out() -> None:
    deviations = torch.tensor([[0.2, 0.9, 0.4], [0.3, 1.0, 0.5]])  # taken for logarithms: variances of 1.2 and more
    wide = table([0.9, 0.0, 0.8], deviations.exp().double().mean(dim=0).tolist())
    finding = found(advise(wide, GOOD, None), "wider than the prior")
    assert finding.level == "warning"
    assert f"variance of {float(deviations[:, 0].exp().double().mean()):.3g} on average" in finding.text
    assert "give the logarithm of the variance" in finding.text


@pytest.mark.parametrize("variances", [[1.0, 1.01, 1.0], [0.2, 1.3, 1.4], [1.09, 1.5, 2.0]])
def test_a_posterior_as_wide_as_the_prior_is_no_mistake(variances: list[float]) -> None:
    assert not [each for each in advise(table([0.0, 0.0, 0.5], variances), GOOD, None) if "wider" in each.headline]
