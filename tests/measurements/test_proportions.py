"""Shares and their differences: against SciPy, and against the examples that Newcombe printed."""

import pytest
from scipy import stats

from latlas.base.errors import SettingError
from latlas.measurements.proportions import share_difference, wilson_interval


@pytest.mark.parametrize(("found", "of"), [(0, 7), (1, 7), (3, 10), (10, 10), (50, 1000)])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_the_interval_of_a_share_is_scipys(found: int, of: int, confidence: float) -> None:
    expected = stats.binomtest(found, of).proportion_ci(confidence_level=confidence, method="wilson")
    assert wilson_interval(found, of, confidence=confidence) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize(
    ("counts", "interval"),
    [
        # Newcombe 1998, Stat. Med. 17:873, table II, method 10
        ((56, 70, 48, 80), (0.0524, 0.3339)),
        ((9, 10, 3, 10), (0.1705, 0.8090)),
        ((10, 10, 0, 20), (0.6791, 1.0000)),
    ],
)
def test_the_interval_of_a_difference_is_the_published_one(
    counts: tuple[int, int, int, int], interval: tuple[float, float]
) -> None:
    found = share_difference(*counts)
    assert (found.low, found.high) == pytest.approx(interval, abs=5e-5)
    assert found.difference == pytest.approx(counts[0] / counts[1] - counts[2] / counts[3])


def test_the_p_value_is_the_chance_of_so_many_under_the_hypergeometric_law() -> None:
    """Of 3 with and 7 without, 4 in all are missed: that all 3 with are."""
    assert share_difference(3, 3, 1, 7).p_value == pytest.approx(stats.hypergeom(10, 3, 4).sf(2))
    assert share_difference(0, 3, 4, 7).p_value == 1.0


def test_counts_that_make_no_share_are_refused() -> None:
    with pytest.raises(SettingError, match="got 3 of 2"):
        wilson_interval(3, 2)
    with pytest.raises(SettingError, match="got 0 of 0"):
        share_difference(0, 0, 1, 2)
    with pytest.raises(SettingError, match="confidence must lie between"):
        wilson_interval(1, 2, confidence=1.0)
