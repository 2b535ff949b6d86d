"""Conformal p-values: never too small for what is in range, whatever the distribution; corrected as SciPy corrects."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from latlas.base.errors import IllPosedError, NonFiniteError
from latlas.measurements.conformal import adjusted_p_values, conformal_p_values
from latlas.measurements.corrections import holm_p_values

values = st.floats(0, 1) | st.sampled_from([0.0, 0.25, 0.5, 1.0])  # ties are common
samples = st.lists(values, min_size=1, max_size=30)


def tensor(numbers: object) -> Tensor:
    return torch.tensor(np.asarray(numbers), dtype=torch.float64)


@given(errors=samples, calibration=samples)
def test_p_values_count_the_calibration_errors_that_are_no_smaller(errors: list[float], calibration: list[float]) -> None:
    expected = [(1 + sum(known >= error for known in calibration)) / (1 + len(calibration)) for error in errors]
    assert conformal_p_values(tensor(errors), tensor(calibration)).tolist() == expected


def test_ties_count_against_rejection() -> None:
    """An error equal to every calibration error is as ordinary as can be."""
    assert conformal_p_values(tensor([0.5]), tensor([0.5] * 19)).tolist() == [1.0]
    assert conformal_p_values(tensor([0.5]), tensor([0.4] * 19)).tolist() == [0.05]


def test_the_smallest_p_value_is_one_over_one_more_than_the_calibration() -> None:
    assert conformal_p_values(tensor([np.inf, 3.0]), tensor(range(3))).tolist() == [0.25, 0.25]
    assert conformal_p_values(tensor([-1.0]), tensor(range(3))).tolist() == [1.0]


DRAWS, CALIBRATION = 20_000, 19


def exchangeable(kind: str) -> np.ndarray:
    """DRAWS times one error to judge and CALIBRATION errors of the same kind."""
    generator = np.random.default_rng(5)
    shape = (DRAWS, 1 + CALIBRATION)
    if kind == "heavy-tailed":
        return generator.standard_cauchy(shape)
    if kind == "tied":
        return generator.integers(0, 4, shape).astype(float)
    # Exchangeable and not independent: every draw has a level and a scale of its own.
    return generator.normal(size=(DRAWS, 1)) * 10 + generator.exponential(size=(DRAWS, 1)) * generator.normal(size=shape)


@pytest.mark.parametrize("kind", ["heavy-tailed", "tied", "dependent"])
def test_p_values_of_images_in_range_are_not_too_small(kind: str) -> None:
    """P(p <= a) <= a for every a: SciPy's one-sided Kolmogorov-Smirnov test against the uniform finds no excess."""
    errors = exchangeable(kind)
    p_values = np.concatenate([conformal_p_values(tensor(row[:1]), tensor(row[1:])).numpy() for row in errors[:4000]])
    assert stats.kstest(p_values, "uniform", alternative="greater").pvalue > 1e-3


def test_that_test_would_see_ties_that_count_for_rejection() -> None:
    """The same check on the wrong rule, so that it is known to have power."""
    errors = exchangeable("tied")
    wrong = (1 + (errors[:, 1:] > errors[:, :1]).sum(axis=1)) / (1 + CALIBRATION)
    assert stats.kstest(wrong, "uniform", alternative="greater").pvalue < 1e-6


def test_without_ties_every_p_value_is_equally_frequent() -> None:
    """Ranks of exchangeable errors are uniform over their 20 values: exact, by chi-square."""
    errors = exchangeable("heavy-tailed")[:4000]
    p_values = np.concatenate([conformal_p_values(tensor(row[:1]), tensor(row[1:])).numpy() for row in errors])
    counts = np.bincount(np.rint(p_values * 20).astype(int), minlength=21)
    assert counts[0] == 0
    assert stats.chisquare(counts[1:]).pvalue > 1e-3


def test_p_values_without_calibration_or_of_nan_are_refused() -> None:
    with pytest.raises(IllPosedError, match="need calibration errors; none were given"):
        conformal_p_values(tensor([0.1]), tensor([]))
    for errors, calibration in ([[np.nan], [0.1]], [[0.1], [np.nan, 0.1]]):
        with pytest.raises(NonFiniteError, match="An error is NaN"):
            conformal_p_values(tensor(errors), tensor(calibration))


def test_no_errors_have_no_p_values() -> None:
    assert conformal_p_values(tensor([]), tensor([0.1])).shape == (0,)


# Many images at once


@given(p_values=st.lists(values, min_size=1, max_size=40))
def test_corrected_p_values_are_scipys(p_values: list[float]) -> None:
    expected = stats.false_discovery_control(p_values, method="bh")
    np.testing.assert_allclose(adjusted_p_values(tensor(p_values)).numpy(), expected, rtol=1e-12, atol=0)


@given(p_values=st.lists(values, min_size=1, max_size=6))
def test_holms_p_values_are_the_closure_of_bonferronis(p_values: list[float]) -> None:
    """Marcus, Peritz and Gabriel 1976: an image's is the largest of n times the smallest, over all sets that it is in."""
    images = range(len(p_values))
    sets = [chosen for size in range(1, len(p_values) + 1) for chosen in itertools.combinations(images, size)]
    bonferroni = {chosen: min(1.0, len(chosen) * min(p_values[i] for i in chosen)) for chosen in sets}
    expected = [max(value for chosen, value in bonferroni.items() if i in chosen) for i in images]
    np.testing.assert_allclose(holm_p_values(tensor(p_values)).numpy(), expected, rtol=1e-12, atol=0)


def test_rejecting_corrected_p_values_bounds_the_share_of_false_discoveries() -> None:
    """100 images of which 20 lie out of range, 400 times: at 0.1, at most a tenth of the rejected are false on average."""
    generator = np.random.default_rng(8)
    shares, found = [], []
    for _ in range(400):
        scores = generator.normal(size=100)
        scores[:20] += 3
        rejected = adjusted_p_values(tensor(stats.norm.sf(scores))).numpy() <= 0.1
        shares.append(rejected[20:].sum() / max(rejected.sum(), 1))
        found.append(rejected[:20].mean())
    margin = 4 * np.std(shares) / np.sqrt(len(shares))
    assert 0.8 * 0.1 - margin < np.mean(shares) < 0.8 * 0.1 + margin  # exactly the level times the share in range
    assert np.mean(found) > 0.6
