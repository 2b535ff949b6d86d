"""Shares of counted things, and differences of shares, with intervals that hold for few of them."""

from dataclasses import dataclass

from latlas.base.errors import SettingError


@dataclass(frozen=True, kw_only=True)
class ShareDifference:
    """A share of one group less that of another."""

    first: float
    second: float
    low: float  # of the interval of the difference
    high: float
    p_value: float  # that the first share is no larger, of Fisher's exact test

    @property
    def difference(self) -> float:
        """First share less second."""
        return self.first - self.second


def wilson_interval(found: int, of: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Return the score interval of a share (Wilson 1927).

    Raises:
        SettingError: more found than there are, none to look at, or a confidence outside 0 to 1.

    >>> [round(end, 4) for end in wilson_interval(0, 10)]
    [0.0, 0.2775]
    """
    from scipy import stats

    if not 0 <= found <= of or of < 1:
        raise SettingError(f"A share is of at least one thing, and counts no more than there are; got {found} of {of}.")
    if not 0 < confidence < 1:
        raise SettingError(f"The confidence must lie between 0 and 1, got {confidence}.")
    z = float(stats.norm.ppf(0.5 + confidence / 2))
    share = found / of
    middle = (share + z * z / (2 * of)) / (1 + z * z / of)
    half = z / (1 + z * z / of) * (share * (1 - share) / of + z * z / (4 * of * of)) ** 0.5
    # At the ends one end of the interval is the share itself, but for rounding.
    return (0.0 if found == 0 else middle - half), (1.0 if found == of else middle + half)


def share_difference(first: int, of_first: int, second: int, of_second: int, *, confidence: float = 0.95) -> ShareDifference:
    """Return how much larger one share is than another, with Newcombe's interval (1998, Stat. Med. 17:873, method 10).

    Args:
        first: found in the first group.
        of_first: its size.
        second: found in the second group.
        of_second: its size.
        confidence: of the interval.

    Raises:
        SettingError: as `wilson_interval`.

    >>> found = share_difference(56, 70, 48, 80)
    >>> round(found.difference, 4), round(found.low, 4), round(found.high, 4)
    (0.2, 0.0524, 0.3339)
    """
    from scipy import stats

    one, two = first / max(of_first, 1), second / max(of_second, 1)
    low_one, high_one = wilson_interval(first, of_first, confidence=confidence)
    low_two, high_two = wilson_interval(second, of_second, confidence=confidence)
    table = [[first, of_first - first], [second, of_second - second]]
    return ShareDifference(
        first=one,
        second=two,
        low=one - two - ((one - low_one) ** 2 + (high_two - two) ** 2) ** 0.5,
        high=one - two + ((high_one - one) ** 2 + (two - low_two) ** 2) ** 0.5,
        p_value=float(stats.fisher_exact(table, alternative="greater").pvalue),
    )
