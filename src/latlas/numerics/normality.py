"""How far a cloud of points is from the normal distribution that codes are drawn from."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from numpy.typing import NDArray
from torch import Tensor

from latlas.base.errors import IllPosedError, SettingError
from latlas.base.seeds import generator
from latlas.numerics.moments import Moments

_ROWS = 500  # of the distances held at a time
_NORMALS = 20  # normal clouds of the same size, to hold the statistics of a cloud against
_PER_CELL = 10  # points expected in a cell: a normal cloud then leaves e^-10 of the cells empty
_MOST_CELLS = 2**24  # 128 MiB of counts; of a million points, nearly all of so many cells are empty whatever the cloud


@dataclass(frozen=True, kw_only=True)
class CloudShape:
    """How far a cloud of codes is from the normal distribution: 0 is none."""

    energy: float  # energy coefficient of the standardised cloud: its shape alone
    empty: float  # share of the normal distribution in cells without a code, standardised
    energy_to_prior: float  # energy coefficient of the cloud as it lies: its place and size too


def standardised(points: Float[Tensor, "n d"]) -> Float64[Tensor, "n d"]:
    """Return points moved and stretched, along their principal axes, to mean 0 and covariance 1.

    Raises:
        IllPosedError: too few points, or points in a plane: there is nothing to stretch.
        NonFiniteError: a point is not finite.
    """
    count, size = points.shape
    if count <= size:
        raise IllPosedError(f"A cloud in {size} dimensions needs at least {size + 1} points, got {count}. Give more.")
    moments = Moments.of(points)
    variances, axes = torch.linalg.eigh(moments.covariance())
    if float(variances[0]) <= 1e-12 * float(variances[-1]):
        raise IllPosedError(
            f"The points lie in fewer than {size} dimensions: one direction does not vary. Leave out variables that have collapsed."
        )
    # The symmetric root turns nothing: a coordinate stays as near to itself as it can.
    return (points.cpu().double() - moments.mean) @ (axes * variances.rsqrt()) @ axes.T


def energy_coefficient(points: Float[Tensor, "n d"]) -> float:
    """Return how far a cloud is from N(0, I): 0 for points of it, 1 for a compact cloud infinitely far away.

    E / (2 E|x - z|) with the energy distance E = 2 E|x - z| - E|x - x'| - E|z - z'| (Szekely and Rizzo 2013, J. Stat. Plan.
    Inference 143), x of the cloud and z normal. It is 0 for no other distribution, does not depend on the axes, and has
    neither a bandwidth nor bins to choose. Only the place brings it to 1: a normal cloud that is infinitely too wide reaches
    1 - 1/sqrt(2) = 0.29, since its points are as far from each other as from z, but for a factor. The averages over z are
    exact; that over pairs of points is unbiased, so that the coefficient of a normal cloud is 0 on average, and may be
    slightly negative.

    Args:
        points: at least two.

    Raises:
        IllPosedError: fewer than two points.
    """
    from scipy.special import gammaln

    count, size = points.shape
    if count < 2:
        raise IllPosedError(f"Distances between points need at least 2, got {count}. Give more.")
    rows = points.cpu().double()
    between_normals = 2 * math.exp(gammaln((size + 1) / 2) - gammaln(size / 2))
    to_normals = float(_mean_distances(0.5 * rows.square().sum(dim=1).numpy(), size).mean())
    total = sum(
        float(torch.cdist(part, rows, compute_mode="donot_use_mm_for_euclid_dist").sum()) for part in torch.split(rows, _ROWS)
    )
    within = total / (count * (count - 1))
    return (2 * to_normals - within - between_normals) / (2 * to_normals)


def empty_share(points: Float[Tensor, "n d"], *, side: int | None = None) -> float:
    """Return the share of N(0, I) that lies in cells without a point: the chance that a draw falls into a hole.

    Each coordinate is cut at the quantiles of the normal distribution, so that all cells are equally probable.

    Args:
        points: of few dimensions; there are side^d cells.
        side: cells along a coordinate; None for the most that leave 10 points a cell on average, and at least 2.

    Raises:
        SettingError: a side below 1, or more than 2^24 cells.
    """
    count, size = points.shape
    along = side if side is not None else max(2, math.floor((count / _PER_CELL) ** (1 / size) + 1e-9))
    if along < 1:
        raise SettingError(f"Cells need a side of at least 1, got {along}.")
    if along**size > _MOST_CELLS:
        raise SettingError(
            f"{size} dimensions cut into {along} have {along}^{size} cells, nearly all of them empty whatever the cloud; at most "
            f"{_MOST_CELLS:,} are counted. Take fewer variables."
        )
    cells = _cells(points, along)
    return 1.0 - int(torch.bincount(cells, minlength=along**size).count_nonzero()) / along**size


def _mean_distances(halves: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Return E|a - z| for z normal in `size` dimensions and points with |a|^2 / 2 as given: means of non-central chi laws.

    It is E|z| * 1F1(-1/2; d/2; -|a|^2/2). SciPy's series of that overflows from a hundred dimensions on, where |a|^2 / 2 lies
    between fifty and the number of dimensions. There the law is taken as what it is, a mixture of central ones of d + 2 k
    dimensions with Poisson weights (Johnson, Kotz and Balakrishnan 1995, chapter 29).
    """
    from scipy.special import gammaln, hyp1f1

    at_zero = math.sqrt(2) * math.exp(gammaln((size + 1) / 2) - gammaln(size / 2))
    means: NDArray[np.float64] = at_zero * hyp1f1(-0.5, size / 2, -halves)
    for place in np.flatnonzero(~np.isfinite(means) & np.isfinite(halves)):
        rate = float(halves[place])
        reach = 12 * math.sqrt(rate) + 50  # twelve standard deviations and more: no digit lies beyond
        k = np.arange(max(0.0, math.floor(rate - reach)), math.ceil(rate + reach) + 1)
        log_weights = k * math.log(rate) - rate - gammaln(k + 1)
        means[place] = math.sqrt(2) * np.exp(log_weights + gammaln((size + 1) / 2 + k) - gammaln(size / 2 + k)).sum()
    return means


def _cells(points: Float[Tensor, "n d"], along: int) -> Int64[Tensor, " n"]:
    places = (torch.special.ndtr(points.cpu().double()) * along).long().clamp(0, along - 1)
    weights = along ** torch.arange(points.shape[1])
    return (places * weights).sum(dim=1)


def cloud_shape(codes: Float[Tensor, "n d"]) -> CloudShape:
    """Return how far a cloud is from normal, in shape, in holes, and as it lies.

    Raises:
        IllPosedError: too few codes, or some direction in which they do not vary.
    """
    whitened = standardised(codes)
    return CloudShape(
        energy=energy_coefficient(whitened), empty=empty_share(whitened), energy_to_prior=energy_coefficient(codes)
    )


def largest_of_normals(count: int, variables: int) -> CloudShape:
    """Return the largest of each measure over 20 normal clouds of that many points: what chance alone gives."""
    shapes = [cloud_shape(torch.randn(count, variables, generator=generator(0, "normal cloud", n))) for n in range(_NORMALS)]
    return CloudShape(
        energy=max(shape.energy for shape in shapes),
        empty=max(shape.empty for shape in shapes),
        energy_to_prior=max(shape.energy_to_prior for shape in shapes),
    )
