"""Linear fits from joint moments, with the evidence of how well posed they were.

Everything here works on `PairedMoments`, so that a fit over a million rows costs what the d x d matrices cost.
Row convention: target = source @ weight + bias.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from latlas.base.errors import IllPosedError, NonFiniteError, SettingError
from latlas.numerics.moments import Moments, PairedMoments

_EPSILON = torch.finfo(torch.float64).eps
# Below this share of its spread a variable counts as constant: it carries rounding, not information.
_CONSTANT = 1e-14


@dataclass(frozen=True, kw_only=True)
class LinearFit:
    """A fitted weight and bias, and what is known of the fit."""

    weight: Float64[Tensor, "s t"]
    bias: Float64[Tensor, " t"]
    ridge: float  # the penalty used, in scikit-learn's units (added to the scatter of the source)
    rank: int  # of the source's scatter, out of its number of variables
    condition: float  # of the scaled scatter that was solved: how much rounding and noise are amplified
    residual_covariance: Float64[Tensor, "t t"]  # mean outer product of target - prediction (its mean is 0 with a bias)
    r2: Float64[Tensor, " t"]  # per target variable; NaN where the target is constant
    count: int  # rows of the fit


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
    _require_finite(used)
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
    return _evidence(used, weight, ridge=ridge, rank=int(kept.sum()), condition=condition, original=moments)


def fit_orthogonal(moments: PairedMoments) -> LinearFit:
    """Return the rotation (or reflection), uniform scale and shift with the least squared error: Procrustes.

    Schönemann (1966) for the rotation, Gower (1975) for the scale. Where the sizes differ, the rotation is a
    partial isometry of the smaller rank, and the scale its best least-squares factor.

    Raises:
        IllPosedError: fewer than two pairs, or a constant source.
        NonFiniteError: the moments hold NaN.
    """
    _require_finite(moments)
    if moments.count < 2:
        raise IllPosedError(f"An orthogonal map needs at least 2 pairs, got {moments.count}.")
    left, values, right = torch.linalg.svd(moments.cross, full_matrices=False)
    rotation = left @ right
    carried = (rotation.T @ moments.source.scatter @ rotation).trace()
    if float(carried) <= 0.0 or bool(_is_constant(moments.source).all()):
        raise IllPosedError("The source codes are constant; there is nothing to rotate. Give codes that differ.")
    rank = int((values > values[0] * _EPSILON * max(moments.cross.shape)).sum())
    return _evidence(moments, rotation * (values.sum() / carried), ridge=0.0, rank=rank, condition=1.0, original=moments)


def choose_ridge(moments: PairedMoments, *, bias: bool = True) -> float:
    """Return the ridge that generalised cross-validation prefers, from one eigendecomposition.

    GCV(a) = n * RSS(a) / (n - dof(a))^2 with dof(a) = sum s_i / (s_i + a), plus 1 for the bias (Golub, Heath and
    Wahba 1979). RSS and dof follow from the moments alone. A grid of 97 strengths over twelve decades is searched,
    and 0 with it wherever least squares is defined.

    Raises:
        IllPosedError: fewer than three pairs.
    """
    used = moments if bias else moments.uncentred()
    if used.count < 3:
        raise IllPosedError(f"Choosing a ridge needs at least 3 pairs, got {used.count}.")
    _require_finite(used)
    values, vectors = torch.linalg.eigh(used.source.scatter)
    values = values.clamp_min(0.0)
    if bool(_is_constant(used.source).all()):
        raise IllPosedError("The source codes are constant; no map can be fitted from them. Give codes that differ.")
    kept = values > values[-1] * _EPSILON * values.numel()
    values = values[kept]
    explained = (vectors.T @ used.cross).square().sum(dim=1)[kept] / values
    # What no ridge can explain, and the rows left to judge it by. Each is zero where the fit interpolates; left to
    # rounding, 0/0 would then look like the best score of all.
    spare = used.count - int(bias) - values.numel()
    unexplained = float((used.target.scatter.trace() - explained.sum()).clamp_min(0.0)) if spare > 0 else 0.0
    strengths = [float(values[-1]) * 10.0 ** (exponent / 8 - 12) for exponent in range(97)]
    if spare > 0 and bool(kept.all()):
        strengths.insert(0, 0.0)

    def score(ridge: float) -> float:
        withheld = ridge / (values + ridge)
        lost = unexplained + float((withheld.square() * explained).sum())
        freedom = spare + float(withheld.sum())
        return lost * used.count / freedom**2

    return min(strengths, key=score)


def _require_finite(moments: PairedMoments) -> None:
    if not bool(moments.joint.scatter.isfinite().all() and moments.joint.mean.isfinite().all()):
        raise NonFiniteError("The moments hold NaN or infinity; nothing can be fitted from them.")


def _is_constant(moments: Moments) -> Tensor:
    spread = moments.scatter.diagonal().clamp_min(0.0).sqrt()
    return spread <= _CONSTANT * moments.mean.abs() * math.sqrt(max(moments.count, 1))


def _inverse_spread(scatter: Tensor, moments: PairedMoments) -> Tensor:
    spread = scatter.diagonal().clamp_min(0.0).sqrt()
    # A variable that never moves gets no weight instead of an infinite one.
    floor = _CONSTANT * (spread.max() + moments.source.mean.abs() * math.sqrt(max(moments.count, 1)))
    return torch.where(spread > floor, 1.0 / spread, torch.zeros_like(spread))


def _evidence(
    used: PairedMoments, weight: Tensor, *, ridge: float, rank: int, condition: float, original: PairedMoments
) -> LinearFit:
    fitted = weight.T @ used.cross
    residual = used.target.scatter - fitted - fitted.T + weight.T @ used.source.scatter @ weight
    spread = original.target.scatter.diagonal()
    r2 = 1.0 - residual.diagonal().clamp_min(0.0) / spread
    r2 = torch.where(_is_constant(original.target), torch.full_like(spread, math.nan), r2)
    return LinearFit(
        weight=weight,
        bias=used.target.mean - used.source.mean @ weight,
        ridge=ridge,
        rank=rank,
        condition=condition,
        residual_covariance=residual / max(used.count, 1),
        r2=r2,
        count=used.count,
    )
