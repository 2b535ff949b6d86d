"""Linear fits whose weight must be of a kind: a rotation found through least squares, or a matrix of low rank."""

from dataclasses import replace

import torch
from torch import Tensor

from latlas.base.errors import IllPosedError, SettingError
from latlas.numerics.moments import PairedMoments
from latlas.numerics.solve import LinearFit, fit_affine, fit_of


def fit_orthogonalised(moments: PairedMoments, *, ridge: float = 0.0, bias: bool = True) -> LinearFit:
    """Return the rotation (or reflection) nearest to the least-squares weight, with the uniform scale that fits best.

    The "l-ortho" of Maiorca et al. (2023). There both sides are standardised first and the rotation has no scale; codes here
    keep their units, so one scale is fitted, as `fit_orthogonal` does. That fit has the least error of all rotations; this
    one turns each direction as least squares does, whatever variance it has. Where the sizes differ, the rotation is a partial
    isometry.

    Args:
        moments: joint moments of source and target.
        ridge: penalty of the least-squares weight that is made orthogonal.
        bias: whether the map has a shift.

    Raises:
        SettingError, IllPosedError, NonFiniteError: as `fit_affine`; also a constant source.
    """
    least = fit_affine(moments, ridge=ridge, bias=bias)
    used = moments if bias else moments.uncentred()
    left, values, right = torch.linalg.svd(least.weight, full_matrices=False)
    rotation = left @ right
    carried = float((rotation.T @ used.source.scatter @ rotation).trace())
    if least.rank == 0 or carried <= 0.0:
        raise IllPosedError("The source codes are constant; there is nothing to rotate. Give codes that differ.")
    scale = float((rotation * used.cross).sum()) / carried
    rank = min(least.rank, int((values > values[0] * torch.finfo(torch.float64).eps * max(rotation.shape)).sum()))
    return fit_of(
        rotation * scale,
        used,
        moments,
        ridge=ridge,
        rank=rank,
        full_rank=min(rotation.shape),
        condition=least.condition,
    )


def fit_reduced_rank(moments: PairedMoments, *, rank: int, ridge: float = 0.0, bias: bool = True) -> LinearFit:
    """Return the map of at most this rank with the least squared error, or least error + ridge * |weight|^2.

    Reduced-rank regression: with W the unrestricted solution, whatever a weight V lacks to it costs
    |(S + a I)^(1/2) (V - W)|^2, so that the best V is W, projected on the leading eigenvectors of W' (S + a I) W (Izenman
    1975; with a ridge Mukherjee and Zhu 2011). `rank_errors` tells what every other rank would give.

    Args:
        moments: joint moments of source and target.
        rank: from 1 to the smaller of the two sizes.
        ridge: as in `fit_affine`.
        bias: whether the map has an intercept; it does not count towards the rank.

    Raises:
        SettingError: a rank out of its range; as `fit_affine`.
        IllPosedError, NonFiniteError: as `fit_affine`.
    """
    most = min(moments.source_size, moments.joint.size - moments.source_size)
    if not 1 <= rank <= most:
        raise SettingError(
            f"A map from {moments.source_size} to {moments.joint.size - moments.source_size} variables has a rank of 1 to {most}, "
            f"got {rank}. Give a rank in that range."
        )
    least = fit_affine(moments, ridge=ridge, bias=bias)
    used = moments if bias else moments.uncentred()
    gained = least.weight.T @ used.cross  # W' (S + a I) W, by the normal equations
    axes = torch.linalg.eigh((gained + gained.T) / 2).eigenvectors.flip(1)[:, :most]
    weight = least.weight if rank == most else (least.weight @ axes[:, :rank]) @ axes[:, :rank].T
    fit = fit_of(weight, used, moments, ridge=ridge, rank=least.rank, condition=least.condition)
    return replace(fit, rank_errors=_rank_errors(used, least.weight, axes))


def _rank_errors(used: PairedMoments, weight: Tensor, axes: Tensor) -> Tensor:
    """Return the mean squared error per target variable with the first 0, 1, ... axes kept."""
    carried = weight @ axes
    gain = 2.0 * (carried * (used.cross @ axes)).sum(dim=0) - (carried * (used.source.scatter @ carried)).sum(dim=0)
    lost = used.target.scatter.trace() - torch.cat([gain.new_zeros(1), gain.cumsum(dim=0)])
    return lost.clamp_min(0.0) / (max(used.count, 1) * used.target.size)
