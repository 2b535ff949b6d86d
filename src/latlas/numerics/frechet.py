"""The Fréchet distance between two clouds, from their moments alone.

It compares means and covariances, as if both clouds were Gaussian; whatever else differs, it does not see.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from latlas.base.errors import CodeShapeError, IllPosedError, NonFiniteError
from latlas.numerics.moments import Moments

_EPSILON = torch.finfo(torch.float64).eps
_WANTED = 1e-9  # of the covariance term: what its quicker ways may be off
_SMALLEST, _LARGEST = 1e-130, 1e150  # squares of less lose digits, of more overflow
# Columns a product: wide enough to be multiplied at full speed, narrow enough that little is multiplied that is 0 or known.
_PANEL = 256


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
    singular values of R' S for any roots A = R R' and B = S S', here those of pivoted Cholesky factorisations, which
    also find the rank (Higham 2002, section 10.3).

    Raises:
        CodeShapeError: the clouds have different numbers of variables.
        IllPosedError: a cloud has fewer than two rows.
        NonFiniteError: the moments hold NaN or infinity.

    Cost: two Cholesky factorisations, a product and the eigenvalues of a symmetric d x d matrix; where the spectrum is
    wide a second time these, and between nearly equal covariances or ranks the singular values of a d x d matrix.

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
    """A cloud's mean and covariance, whose rows and columns in `order` are `factor @ factor.T`."""

    count: int
    mean: Float64[Tensor, " d"]
    factor: Float64[Tensor, "d rank"]  # lower trapezoid: zero above its diagonal
    order: Int64[Tensor, " d"]
    trace: float
    clipped: float  # of the trace, what the factor leaves out

    @classmethod
    def of(cls, moments: Moments) -> "_Gaussian":
        if moments.count < 2:
            raise IllPosedError(f"A Fréchet distance needs at least 2 rows of each cloud, got {moments.count}. Give more.")
        if not bool((moments.mean.sum() + moments.scatter.sum()).isfinite()):
            raise NonFiniteError(
                "The moments hold NaN or infinity; a Fréchet distance needs finite features. Remove those rows."
            )
        covariance = moments.covariance(ddof=1)
        trace = float(covariance.trace())
        factor, order = _pivoted_cholesky(covariance)
        clipped = abs(trace - float(torch.linalg.vector_norm(factor)) ** 2)
        return cls(moments.count, moments.mean, factor, order, trace, clipped)


def _pivoted_cholesky(covariance: Float64[Tensor, "d d"]) -> tuple[Float64[Tensor, "d rank"], Int64[Tensor, " d"]]:
    """Return the factor and the order of the variables; the covariance is overwritten.

    It stops where every pivot left is rounding: kept, it would count by its root, 1e-8 of the largest.
    """
    from scipy.linalg.lapack import dpstrf

    least = float(covariance.diagonal().max().clamp_min(0.0)) * _EPSILON * covariance.shape[0]
    # LAPACK counts by columns; of a symmetric matrix the transpose is the same memory, read its way.
    factor, order, rank, _ = dpstrf(covariance.numpy().T, tol=least, lower=1, overwrite_a=1)
    return torch.from_numpy(factor.T)[:rank].triu_().T, torch.from_numpy(order).long() - 1


def _between(one: _Gaussian, other: _Gaussian) -> FrechetDistance:
    if one.mean.shape != other.mean.shape:
        raise CodeShapeError(
            f"The clouds have {one.mean.shape[0]} and {other.mean.shape[0]} variables. Take both from the same feature network."
        )
    total = one.trace + other.trace
    mean_term = float((one.mean - other.mean).square().sum())
    covariance_term = max(total - 2 * _summed_singular_values(_product(one, other), total), 0.0)  # below 0 is rounding
    return FrechetDistance(
        value=mean_term + covariance_term,
        mean_term=mean_term,
        covariance_term=covariance_term,
        clipped_mass=(one.clipped + other.clipped) / total if total > 0 else 0.0,
        n_first=one.count,
        n_second=other.count,
        size=one.mean.shape[0],
    )


def _product(one: _Gaussian, other: _Gaussian) -> Float64[Tensor, "rank_one rank_other"]:
    """Return a root of one covariance, transposed, times a root of the other."""
    rows = other.factor[torch.argsort(other.order)[one.order]]
    size = one.factor.shape[1]
    product = torch.empty(size, rows.shape[1], dtype=torch.float64)
    for first in range(0, size, _PANEL):
        panel = slice(first, first + _PANEL)
        torch.mm(one.factor[first:, panel].T, rows[first:], out=product[panel])
    return product


def _summed_singular_values(matrix: Float64[Tensor, "n m"], total: float) -> float:
    """Return the sum, by the quickest way that leaves `total` less twice it to a relative 1e-9.

    The eigenvalues of the matrix times its transpose, the squares, cost a fifth of the singular values. Their rounding is
    at most `rounding` of the largest, and over twice the root it moves the root: nothing where the spectrum is narrow.
    Where it is wide, less is lost than this bound tells, since the rows of a product of pivoted factors fall off with
    its spectrum. The same from the columns, rounded otherwise, then tells how much. What neither vouches for, as where
    the clouds are the same and their distance is nothing but rounding, is taken from the singular values themselves.
    """
    if 0 in matrix.shape:
        return 0.0
    if not _SMALLEST < total < _LARGEST:
        return float(torch.linalg.svdvals(matrix).sum())
    if matrix.shape[0] > matrix.shape[1]:
        matrix = matrix.T
    rounding = _EPSILON * math.sqrt(max(matrix.shape))
    by_rows = _squared_singular_values(matrix)
    if float(by_rows[0]) > 0:  # below 0, the smallest are rounding
        roots = by_rows.sqrt()
        found = float(roots.sum())
        allowed = _WANTED * (total - 2 * found) - rounding * total
        if 2 * rounding * float(by_rows[-1] * (0.5 / roots).sum()) <= allowed:
            return found
        if matrix.shape[0] == matrix.shape[1] and allowed > 0:
            by_columns = _squared_singular_values(matrix.T)
            again = float(by_columns.clamp_min(0.0).sqrt().sum())
            if float(by_columns[0]) > 0 and 2 * abs(again - found) <= allowed:
                return found
    return float(torch.linalg.svdvals(matrix).sum())


def _squared_singular_values(matrix: Float64[Tensor, "n m"]) -> Float64[Tensor, " n"]:
    """Return the eigenvalues, ascending, of the product with the transpose, its largest rows first.

    A symmetric solver that starts at a graded matrix's large end leaves small eigenvalues errors of their own size.
    """
    rows = matrix[torch.linalg.vector_norm(matrix, dim=1).argsort(descending=True)]
    size = rows.shape[0]
    lower = torch.zeros(size, size, dtype=torch.float64)  # what lies above its diagonal is not read
    for first in range(0, size, _PANEL):
        torch.mm(rows[first:], rows[first : first + _PANEL].T, out=lower[first:, first : first + _PANEL])
    return torch.linalg.eigvalsh(lower, UPLO="L")


def _merged(groups: Sequence[Moments]) -> Moments:
    return reduce(Moments.merge, groups)
