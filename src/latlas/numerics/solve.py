"""Linear fits from joint moments, with the evidence of how well posed they were.

Everything here works on `PairedMoments`, so that a fit over a million rows costs what the d x d matrices cost.
Row convention: target = source @ weight + bias.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from latlas.base.errors import IllPosedError, SettingError
from latlas.numerics.moments import CONSTANT, PairedMoments
from latlas.numerics.spectrum import HIGHEST, LOWEST, Spectrum, eighths

_EPSILON = torch.finfo(torch.float64).eps


@dataclass(frozen=True, kw_only=True)
class LinearFit:
    """A fitted weight and bias, and what is known of the fit."""

    weight: Float64[Tensor, "s t"]
    bias: Float64[Tensor, " t"]
    ridge: float  # the penalty used, in scikit-learn's units (added to the scatter of the source)
    rank: int  # of the source's scatter, out of its number of variables
    full_rank: int  # what `rank` is where the fit is well posed
    condition: float  # of the scaled scatter that was solved: how much rounding and noise are amplified
    residual_covariance: Float64[Tensor, "t t"]  # mean outer product of target - prediction (its mean is 0 with a bias)
    r2: Float64[Tensor, " t"]  # per target variable; NaN where the target is constant
    count: int  # rows of the fit
    constant: Bool[Tensor, " s"]  # source variables that never vary, and so get no weight
    # Mean squared error per target variable of the best map of each rank, from 0 up; only of a reduced-rank fit.
    rank_errors: Float64[Tensor, " ranks"] | None = None

    @property
    def ill_posed(self) -> bool:
        """Whether the data leave part of the map undecided."""
        return self.rank < self.full_rank


def fit_affine(moments: PairedMoments, *, ridge: float = 0.0, bias: bool = True) -> LinearFit:
    """Return the affine map with the least squared error, or least error + ridge * |weight|^2.

    The normal equations are solved after scaling each source variable to unit spread, so that a collapsed variable
    beside an active one costs no digits. With `ridge=0` and a rank-deficient source the solution of least norm (in
    the scaled variables) is returned; `rank` tells. The bias is never penalised, as in scikit-learn's `Ridge`.

    Args:
        moments: joint moments of source and target.
        ridge: penalty on the squared weights, at least 0, in units of the summed squared source (`alpha` of
            scikit-learn's `Ridge`).
        bias: whether the map has an intercept.

    Raises:
        SettingError: a negative or non-finite ridge.
        IllPosedError: fewer rows than unknowns a target variable, with `ridge=0`; or none at all.
        NonFiniteError: the moments hold NaN.
    """
    if not (ridge >= 0.0 and math.isfinite(ridge)):
        raise SettingError(f"Ridge must be a finite number of at least 0, got {ridge}.")
    used = moments if bias else moments.uncentred()
    unknowns = moments.source_size + int(bias)
    if ridge == 0.0 and moments.count < unknowns:
        raise IllPosedError(
            f"An affine map from {moments.source_size} variables has {unknowns} unknowns per target variable, and "
            f"{moments.count} pairs were given. Give at least {unknowns} pairs, or a ridge (ridge='gcv' in Python, "
            "--ridge gcv in the shell)."
        )
    if moments.count == 0:
        raise IllPosedError("A map was asked of no pairs at all. Give pairs of source and target codes.")
    used.require_finite()
    scatter = used.source.scatter
    penalised = scatter + ridge * torch.eye(scatter.shape[0], dtype=torch.float64)
    scale = _inverse_spread(penalised, used)
    values, vectors = torch.linalg.eigh(penalised * torch.outer(scale, scale))
    kept = values > values[-1].clamp_min(0) * _EPSILON * scatter.shape[0]
    inverse = torch.where(kept, 1.0 / values, torch.zeros_like(values))
    weight = scale[:, None] * (vectors @ (inverse[:, None] * (vectors.T @ (scale[:, None] * used.cross))))
    # One step of refinement halves the rounding of the solve. What squaring the data cost is lost with the rows: the
    # weights are good to about condition * 1e-16.
    residue = used.cross - penalised @ weight
    weight = weight + scale[:, None] * (vectors @ (inverse[:, None] * (vectors.T @ (scale[:, None] * residue))))
    condition = float(values[-1] / values[kept][0]) if bool(kept.any()) else math.inf
    return fit_of(weight, used, moments, ridge=ridge, rank=int(kept.sum()), condition=condition)


def fit_orthogonal(moments: PairedMoments) -> LinearFit:
    """Return the rotation (or reflection), uniform scale and shift with the least squared error: Procrustes.

    Schönemann (1966) for the rotation, Gower (1975) for the scale. Where the sizes differ, the rotation is a
    partial isometry of the smaller rank, and the scale its best least-squares factor.

    Raises:
        IllPosedError: fewer than two pairs, or a constant source.
        NonFiniteError: the moments hold NaN.
    """
    moments.require_finite()
    if moments.count < 2:
        raise IllPosedError(f"An orthogonal map needs at least 2 pairs, got {moments.count}. Give more.")
    left, values, right = torch.linalg.svd(moments.cross, full_matrices=False)
    rotation = left @ right
    carried = (rotation.T @ moments.source.scatter @ rotation).trace()
    if float(carried) <= 0.0 or bool(moments.source.constant().all()):
        raise IllPosedError("The source codes are constant; there is nothing to rotate. Give codes that differ.")
    rank = int((values > values[0] * _EPSILON * max(moments.cross.shape)).sum())
    weight = rotation * (values.sum() / carried)
    return fit_of(weight, moments, moments, ridge=0.0, rank=rank, full_rank=min(weight.shape), condition=1.0)


def choose_ridge(moments: PairedMoments, *, bias: bool = True) -> float:
    """Return the ridge that generalised cross-validation prefers, from one eigendecomposition.

    GCV(a) = n * RSS(a) / (n - dof(a))^2 with dof(a) = sum s_i / (s_i + a), plus 1 for the bias (Golub, Heath and
    Wahba 1979). RSS and dof follow from the moments alone. A grid of 129 strengths over sixteen decades, from 1e-12 to
    1e4 times the largest eigenvalue, is searched, and 0 with it wherever least squares is defined.

    Raises:
        IllPosedError: fewer than three pairs, or a constant source.
        NonFiniteError: the moments hold NaN.
    """
    spectrum = Spectrum.of(moments, bias=bias)
    explained = spectrum.cross.square().sum(dim=1) / spectrum.values
    # What no ridge can explain, and the rows left to judge it by. Each is zero where the fit interpolates; left to
    # rounding, 0/0 would then look like the best score of all.
    spare = max(spectrum.spare, 0)
    unexplained = max(spectrum.total - float(explained.sum()), 0.0) if spare > 0 else 0.0

    def score(ridge: float) -> float:
        withheld = ridge / (spectrum.values + ridge)
        lost = unexplained + float((withheld.square() * explained).sum())
        freedom = spare + float(withheld.sum())
        return lost * spectrum.count / freedom**2

    return min(spectrum.strengths(eighths(LOWEST, HIGHEST)), key=score)


def _inverse_spread(scatter: Tensor, moments: PairedMoments) -> Tensor:
    spread = scatter.diagonal().clamp_min(0.0).sqrt()
    # A variable that never moves gets no weight instead of an infinite one.
    floor = CONSTANT * (spread.max() + moments.source.mean.abs() * math.sqrt(max(moments.count, 1)))
    return torch.where(spread > floor, 1.0 / spread, torch.zeros_like(spread))


def fit_of(
    weight: Tensor,
    used: PairedMoments,
    moments: PairedMoments,
    *,
    ridge: float,
    rank: int,
    condition: float,
    full_rank: int | None = None,
) -> LinearFit:
    """Return a weight with its bias and the evidence that the moments give.

    Args:
        weight: `s t`.
        used: the moments that it was fitted from; with a mean of zero where it has no bias.
        moments: the pairs' own moments.
        ridge: that was used.
        rank: of what was solved.
        condition: of what was solved.
        full_rank: what the rank should be; None for the number of source variables.
    """
    fitted = weight.T @ used.cross
    residual = used.target.scatter - fitted - fitted.T + weight.T @ used.source.scatter @ weight
    spread = moments.target.scatter.diagonal()
    r2 = 1.0 - residual.diagonal().clamp_min(0.0) / spread
    return LinearFit(
        weight=weight,
        bias=used.target.mean - used.source.mean @ weight,
        ridge=ridge,
        rank=rank,
        full_rank=weight.shape[0] if full_rank is None else full_rank,
        condition=condition,
        residual_covariance=residual / max(used.count, 1),
        r2=torch.where(moments.target.constant(), torch.full_like(spread, math.nan), r2),
        count=used.count,
        constant=used.source.constant(),
    )
