"""Two ways of doing one thing, tried side by side: how many times the error of one is that of the other."""

import math
from dataclasses import dataclass

from jaxtyping import Float64
from torch import Tensor

from latlas.base.errors import IllPosedError


@dataclass(frozen=True, kw_only=True)
class PairedRatio:
    """Errors over reference errors, pair by pair."""

    mean: float  # geometric, over pairs
    p_value: float  # two-sided, of a mean of 1: Student's t of the logarithms; NaN of a single pair


def paired_ratio(errors: Float64[Tensor, " pairs"], references: Float64[Tensor, " pairs"]) -> PairedRatio:
    """Return the geometric mean of errors over reference errors, and how surely it is not 1.

    Args:
        errors: above 0.
        references: each measured under the same circumstances as its error; above 0.

    Raises:
        IllPosedError: no pairs, or an error that is not above 0, which has no ratio.
    """
    from scipy import stats

    if len(errors) == 0 or not bool((errors > 0).all() and (references > 0).all()):
        raise IllPosedError("A ratio of errors needs at least one pair, and errors above 0.")
    logs = (errors / references).log()
    mean = float(logs.mean())
    if len(logs) == 1:
        return PairedRatio(mean=math.exp(mean), p_value=math.nan)
    deviation = float(logs.std()) / len(logs) ** 0.5
    t = abs(mean) / deviation if deviation > 0 else math.inf if mean else 0.0
    return PairedRatio(mean=math.exp(mean), p_value=float(2 * stats.t.sf(t, len(logs) - 1)))
