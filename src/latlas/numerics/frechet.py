"""The Fréchet distance between two clouds, from their moments alone.

It compares means and covariances, as if both clouds were Gaussian; whatever else differs, it does not see.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce

import torch
from jaxtyping import Float64
from torch import Tensor

from latlas.base.errors import CodeShapeError, IllPosedError, NonFiniteError
from latlas.numerics.moments import Moments

_EPSILON = torch.finfo(torch.float64).eps


@dataclass(frozen=True, kw_only=True)
class FrechetDistance:
    """The squared Fréchet (2-Wasserstein) distance between two Gaussians, in squared units of the features.

    Distances of different sample sizes are not comparable: see `bias`. Two samples of one distribution have a positive
    distance, which falls as 1 / n (Chong and Forsyth 2020, arXiv:1911.07023).
    """

    value: float  # mean_term + covariance_term
    mean_term: float  # |mean - mean|^2
    covariance_term: float  # trace(A + B - 2 sqrt(A B)), at least 0
    clipped_mass: float  # share of both traces in eigenvalues that are rounding and were set to 0
    n_first: int  # rows that each covariance was estimated from
    n_second: int
    size: int  # features: with fewer rows than these, a covariance has no full rank and the bias is large
    standard_error: float | None = None  # grouped jackknife over rows; None if it was not asked for
    bias: float | None = None  # the jackknife's estimate of how much `value` exceeds that of endless samples
    resamples: int = 0  # groups of the jackknife


def frechet_distance_of(moments_a: Moments, moments_b: Moments) -> FrechetDistance:
    """Return |m_a - m_b|^2 + trace(A + B - 2 (A B)^(1/2)), with unbiased covariances A and B, in float64.

    Dowson and Landau 1982; Heusel et al. 2017 (arXiv:1706.08500), equation 6. The trace of the root is the sum of the
    singular values of sqrt(A) sqrt(B), which are the square roots of the eigenvalues of sqrt(A) B sqrt(A). Taking them
    without forming that product leaves them errors of 1e-16 of the largest, and not of its square root, 1e-8.

    Raises:
        CodeShapeError: the clouds have different numbers of variables.
        IllPosedError: a cloud has fewer than two rows.
        NonFiniteError: the moments hold NaN or infinity.

    Cost: two eigenvalue and one singular value decomposition of d x d.

    >>> near, far = Moments.of(torch.tensor([[0.0], [2.0]])), Moments.of(torch.tensor([[3.0], [5.0]]))
    >>> frechet_distance_of(near, far).value
    9.0
    """
    return _between(_Gaussian.of(moments_a), _Gaussian.of(moments_b))


def frechet_distance_with_error(first: Sequence[Moments], second: Sequence[Moments]) -> FrechetDistance:
    """Return the distance between two clouds given as groups of rows, with its standard error and bias.

    Delete-a-group jackknife, of either cloud in turn (Shao and Tu 1995, section 2.3): with g groups, the variance is
    (g - 1) / g times the summed squared deviation of the g distances that leave one group out, and the bias is (g - 1)
    times their mean excess. Both are of leading order in 1 / n: where rows are fewer than variables, they are too small.

    Args:
        first: moments of the groups of one cloud, alike in size, at least two.
        second: the same of the other, as many or not.

    Cost: one distance a group.
    """
    if min(len(first), len(second)) < 2:
        raise IllPosedError(f"A jackknife needs at least 2 groups of each cloud, got {len(first)} and {len(second)}.")
    one, other = _Gaussian.of(_merged(first)), _Gaussian.of(_merged(second))
    whole = _between(one, other)
    variance = bias = 0.0
    for groups, fixed in ((first, other), (second, one)):
        without = torch.tensor(
            [
                _between(_Gaussian.of(_merged([*groups[:index], *groups[index + 1 :]])), fixed).value
                for index in range(len(groups))
            ],
            dtype=torch.float64,
        )
        variance += float((without - without.mean()).square().sum()) * (len(groups) - 1) / len(groups)
        bias += (float(without.mean()) - whole.value) * (len(groups) - 1)
    return replace(whole, standard_error=math.sqrt(variance), bias=bias, resamples=len(first))


@dataclass(frozen=True)
class _Gaussian:
    """A cloud's mean and a square root of its covariance, `covariance = root @ root.T`, its null directions left out."""

    count: int
    mean: Float64[Tensor, " d"]
    root: Float64[Tensor, "d rank"]
    trace: float
    clipped: float  # summed absolute eigenvalues that were set to 0

    @classmethod
    def of(cls, moments: Moments) -> "_Gaussian":
        if moments.count < 2:
            raise IllPosedError(f"A Fréchet distance needs at least 2 rows of each cloud, got {moments.count}.")
        if not bool(moments.mean.isfinite().all() and moments.scatter.isfinite().all()):
            raise NonFiniteError("The moments hold NaN or infinity; a Fréchet distance needs finite features.")
        covariance = moments.covariance(ddof=1)
        values, vectors = torch.linalg.eigh(covariance)
        # Below this an eigenvalue is rounding, and its root would be as large as 1e-8 of the largest one's.
        kept = values > values[-1].clamp_min(0.0) * _EPSILON * moments.size
        root = vectors[:, kept] * values[kept].sqrt()
        return cls(moments.count, moments.mean, root, float(covariance.trace()), float(values[~kept].abs().sum()))


def _between(one: _Gaussian, other: _Gaussian) -> FrechetDistance:
    if one.mean.shape != other.mean.shape:
        raise CodeShapeError(
            f"The clouds have {one.mean.shape[0]} and {other.mean.shape[0]} variables. Take both from the same feature network."
        )
    overlap = float(torch.linalg.svdvals(one.root.T @ other.root).sum())
    total = one.trace + other.trace
    mean_term = float((one.mean - other.mean).square().sum())
    covariance_term = max(total - 2 * overlap, 0.0)  # never negative but for rounding
    return FrechetDistance(
        value=mean_term + covariance_term,
        mean_term=mean_term,
        covariance_term=covariance_term,
        clipped_mass=(one.clipped + other.clipped) / total if total > 0 else 0.0,
        n_first=one.count,
        n_second=other.count,
        size=one.mean.shape[0],
    )


def _merged(groups: Sequence[Moments]) -> Moments:
    return reduce(Moments.merge, groups)
