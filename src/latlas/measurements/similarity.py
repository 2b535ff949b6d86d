"""How alike two latent spaces are, whatever their axes: linear CKA, canonical correlations, Procrustes distance.

All but the debiased CKA follow from the joint moments of paired codes, so that a million pairs cost what two passes over
them cost. None is a map and none says what an image loses: read them beside the errors of a map.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from latlas.base.errors import CodeShapeError, IllPosedError, NonFiniteError, SettingError
from latlas.numerics.moments import Moments, PairedMoments

_CHUNK = 65_536  # rows at a time: bounds the float64 copies
_EPSILON = torch.finfo(torch.float64).eps
_LEAST = 4  # pairs that the unbiased estimate of dependence divides by
_KEPT = 0.99  # share of the variance that SVCCA keeps, as in Raghu et al. 2017


@dataclass(frozen=True, kw_only=True)
class Similarity:
    """Measures of likeness between two sets of paired codes; each stays the same when either set is rotated or scaled."""

    cka: float  # 0 to 1; 1 for codes that differ by rotation, scale and shift
    cka_debiased: float  # the same without the bias that few pairs and many variables bring; can fall below 0
    mean_cca: float  # mean canonical correlation, 0 to 1; 1 for codes that any invertible affine map joins
    svcca: float  # the same of the principal directions that hold 99 % of each set's variance
    procrustes: float  # 0 to 2; squared distance after the best rotation, each set scaled to unit norm; 0 for equal shapes
    pairs: int  # with few pairs for each variable the canonical correlations are near 1 whatever the codes


def similarity(source: Float[Tensor, "n s"], target: Float[Tensor, "m t"]) -> Similarity:
    """Return every measure for paired codes.

    Args:
        source: one row an image.
        target: one row an image, of the same images in the same order.

    Raises:
        IllPosedError: fewer than four pairs; a set of codes that are all alike.
        NonFiniteError: NaN or infinity.
    """
    if source.shape[0] != target.shape[0]:
        raise CodeShapeError(
            f"Source and target codes must be paired: got {source.shape[0]} and {target.shape[0]} of them. Encode the same images "
            "with both models."
        )
    if source.shape[0] < _LEAST:
        raise IllPosedError(f"Similarity needs at least {_LEAST} pairs of codes, got {source.shape[0]}. Give more images.")
    total: PairedMoments | None = None
    for left, right in zip(torch.split(source, _CHUNK), torch.split(target, _CHUNK), strict=True):
        part = PairedMoments.of(left, right)
        total = part if total is None else total.merge(part)
    assert total is not None
    return Similarity(
        cka=linear_cka(total),
        cka_debiased=debiased_cka(source, target, total),
        mean_cca=mean_cca(total),
        svcca=svcca(total),
        procrustes=procrustes_distance(total),
        pairs=total.count,
    )


def linear_cka(moments: PairedMoments) -> float:
    """Return the linear centred kernel alignment |X'Y|^2 / (|X'X| |Y'Y|), of centred codes, with Frobenius norms.

    Kornblith et al. 2019 (arXiv:1905.00414), section 3.

    Raises:
        IllPosedError: codes that are all alike.
        NonFiniteError: the moments hold NaN.
    """
    _check(moments)
    norms = moments.source.scatter.norm() * moments.target.scatter.norm()
    return float(moments.cross.square().sum() / norms)


def debiased_cka(source: Float[Tensor, "n s"], target: Float[Tensor, "n t"], moments: PairedMoments) -> float:
    """Return the linear CKA with each of its three terms replaced by its unbiased estimate.

    Song et al. 2012 (JMLR 13), equation 5, for the estimate; Nguyen, Raghu and Kornblith 2021 (arXiv:2010.15327) for its
    use. The estimate does not change when codes are shifted, so that centred codes serve, whose kernels have zero sums:
    what is left needs the sums of products of squared norms beside the moments, and no n x n kernel. NaN where an estimate
    of the dependence of a set on itself is not positive.

    Args:
        source: one row an image.
        target: one row an image.
        moments: of the two.

    Raises:
        IllPosedError: fewer than four pairs; codes that are all alike.
        NonFiniteError: the moments hold NaN.
    """
    _check(moments)
    if moments.count < _LEAST:
        raise IllPosedError(f"An unbiased CKA needs at least {_LEAST} pairs of codes, got {moments.count}. Give more images.")
    products = torch.zeros(3, dtype=torch.float64)  # sums over images of |x|^4, |y|^4 and |x|^2 |y|^2
    for left, right in zip(torch.split(source, _CHUNK), torch.split(target, _CHUNK), strict=True):
        x = (left.detach().cpu().double() - moments.source.mean).square().sum(dim=1)
        y = (right.detach().cpu().double() - moments.target.mean).square().sum(dim=1)
        products += torch.stack([x @ x, y @ y, x @ y])
    own, other = moments.source.scatter, moments.target.scatter
    n = moments.count

    def dependence(squared: Tensor, traces: Tensor, diagonal: Tensor) -> float:
        spread = traces / ((n - 1) * (n - 2))
        return float((squared - diagonal + spread - 2 * diagonal / (n - 2)) / (n * (n - 3)))

    own_term = dependence(own.square().sum(), own.trace() ** 2, products[0])
    other_term = dependence(other.square().sum(), other.trace() ** 2, products[1])
    if own_term <= 0 or other_term <= 0:
        return math.nan
    shared = dependence(moments.cross.square().sum(), own.trace() * other.trace(), products[2])
    return shared / math.sqrt(own_term * other_term)


def canonical_correlations(moments: PairedMoments, *, kept: float = 1.0) -> Float64[Tensor, " k"]:
    """Return the canonical correlations of source and target, largest first.

    Each set is turned to its principal directions and scaled to unit variance; the correlations are the singular values
    of what then couples them (Björck and Golub 1973). Directions without variance take no part, nor do variables with less
    than some 1e-8 of the largest deviation. Where all directions take part the units of the variables do not matter: each is
    first put into its own deviation.

    Args:
        moments: of paired codes.
        kept: share of each set's variance whose principal directions take part, in (0, 1]; 1 for all.

    Raises:
        SettingError: a share out of its range.
        IllPosedError: codes that are all alike.
        NonFiniteError: the moments hold NaN.
    """
    if not 0.0 < kept <= 1.0:
        raise SettingError(f"The share of variance to keep must lie in (0, 1], got {kept}.")
    _check(moments)
    left, right = _whitening(moments.source, kept), _whitening(moments.target, kept)
    return torch.linalg.svdvals(left.T @ moments.cross @ right).clamp(0.0, 1.0)


def mean_cca(moments: PairedMoments) -> float:
    """Return the mean canonical correlation, over as many as the smaller set has directions."""
    return float(canonical_correlations(moments).mean())


def svcca(moments: PairedMoments, *, kept: float = _KEPT) -> float:
    """Return the mean canonical correlation of the principal directions that hold `kept` of each set's variance.

    Raghu et al. 2017 (arXiv:1706.05806). Unlike the mean over all directions it is not moved by variables that hardly
    vary, and it changes when variables are scaled one by one.
    """
    return float(canonical_correlations(moments, kept=kept).mean())


def procrustes_distance(moments: PairedMoments) -> float:
    """Return 2 - 2 |X'Y|_* / (|X| |Y|): the squared distance left by the best rotation of centred codes of unit norm.

    Schönemann 1966; as a measure of likeness, Ding, Denain and Steinhardt 2021 (arXiv:2108.01661). Sets of different
    width are compared as if the narrower were filled up with zeros. The nuclear norm is the sum of singular values.

    Raises:
        IllPosedError: codes that are all alike.
        NonFiniteError: the moments hold NaN.
    """
    _check(moments)
    norms = (moments.source.scatter.trace() * moments.target.scatter.trace()).sqrt()
    return max(0.0, float(2.0 - 2.0 * torch.linalg.svdvals(moments.cross).sum() / norms))


def _whitening(moments: Moments, kept: float) -> Float64[Tensor, "d k"]:
    # Unscaled, the rounding of the largest variable's scatter would be counted in units of the smallest.
    scale = torch.ones_like(moments.mean) if kept < 1.0 else _inverse_deviations(moments)
    values, vectors = torch.linalg.eigh(moments.scatter * torch.outer(scale, scale))
    values, vectors = values.flip(0).clamp_min(0.0), vectors.flip(1)
    count = int((values > values[0] * _EPSILON * len(values)).sum())
    if kept < 1.0:
        # As many as first hold the share: one more than those whose sum still falls short of it.
        count = min(count, int((values.cumsum(0) < kept * values.sum()).sum()) + 1)
    return scale[:, None] * vectors[:, :count] / values[:count].sqrt()


def _inverse_deviations(moments: Moments) -> Float64[Tensor, " d"]:
    squares = moments.scatter.diagonal()
    varies = squares > squares.max() * _EPSILON * len(squares)
    return torch.where(varies, squares.rsqrt(), torch.zeros_like(squares))


def _check(moments: PairedMoments) -> None:
    if not bool(moments.joint.scatter.isfinite().all() and moments.joint.mean.isfinite().all()):
        raise NonFiniteError("The codes hold NaN or infinity; no similarity can be taken of them. Remove them first.")
    for name, part in (("source", moments.source), ("target", moments.target)):
        # Rounding of equal rows is no variance.
        if float(part.scatter.trace()) <= (1e-14**2) * part.count * float(part.mean.square().sum()):
            raise IllPosedError(f"The {name} codes are all alike: there is nothing to compare. Give codes that differ.")
