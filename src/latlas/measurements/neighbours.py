"""Precision, recall, density and coverage: whether images lie among others, by nearest neighbours of features.

A Fréchet distance says how far two sets lie apart and not in which way; these say whether the second set leaves the
first (precision, density) or leaves parts of it out (recall, coverage).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from latlas.base.errors import IllPosedError, SettingError
from latlas.measurements.distances import check_features, shuffled

_BLOCK = 1000  # rows compared at a time: memory is this many times the size of a set, 80 MB for 10,000 images
# Squared distances are differences of squared lengths: below this share of those they are rounding, and count as 0.
_COINCIDENT = 128 * torch.finfo(torch.float64).eps


@dataclass(frozen=True, kw_only=True)
class Neighbourhood:
    """Precision, recall, density and coverage of a second set (generated images) with respect to a first (real ones).

    Standard errors are those of a delete-a-group jackknife over the images of either set in turn, and NaN without
    resamples. They err upwards: between Gaussian clouds they were 1.0 to 2.3 times the spread of new draws. The error
    with balls held fixed, which costs nothing, was as little as a quarter of it.
    """

    precision: float  # share of the second set within reach of the first
    recall: float  # share of the first set within reach of the second
    density: float  # mean number of the first set's balls that hold an image of the second, over k; 1 if alike
    coverage: float  # share of the first set's balls that hold an image of the second
    precision_error: float
    recall_error: float
    density_error: float
    coverage_error: float
    resamples: int  # groups of the jackknife
    k: int
    n_first: int
    n_second: int
    coincident_first: int  # images with k others in the very same place, whose ball has radius 0
    coincident_second: int


def precision_recall_density_coverage(
    features_a: Float[Tensor, "n d"], features_b: Float[Tensor, "m e"], *, k: int = 5, resamples: int = 10, seed: int = 0
) -> Neighbourhood:
    """Return precision and recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020) of set b against a.

    arXiv:1904.06991 and arXiv:2002.09797. The ball of an image reaches to the k-th nearest other image of its own set.
    An image lies in a ball if it is nearer than its radius, as in Naeem's program. That program finds precision, recall,
    density and coverage 0 between two identical constant sets, since no distance is less than a radius of 0. Here a
    ball of radius 0 holds the images in its very place, and counts k / (number of its set's images there) towards
    density, so that identical sets have 1 in all four, constant or not. Where no k + 1 images coincide, nothing differs.

    Precision and recall are sensitive to outliers, whose balls are large; density and coverage less so. All four
    depend on the numbers of images: compare only results of equal `n_first`, `n_second` and `k`.

    Args:
        features_a: of the real images, one row each.
        features_b: of the generated images, of the same network.
        k: which neighbour a ball reaches to; 5 as Naeem et al. choose, and Kynkäänniemi et al. take 3.
        resamples: groups of the jackknife, of each set; 0 for no standard errors.
        seed: of the division into groups.

    Raises:
        SettingError: k below 1; 1 or less than 0 resamples.
        IllPosedError: a set with no more than k images, or with none more once a group is left out.
        CodeShapeError: features of different widths.
        NonFiniteError: NaN or infinity.

    Cost: n x m, n x n and m x m distances, a block at a time; as much for each resample of each set again.
    """
    if k < 1:
        raise SettingError(f"k must be at least 1, got {k}.")
    if resamples < 0 or resamples == 1:
        raise SettingError(f"Resamples must be 0, or at least 2 groups of images, got {resamples}.")
    check_features(features_a, features_b)
    first, second = shuffled(features_a, seed, "first"), shuffled(features_b, seed, "second")
    smaller = min(len(first), len(second))
    if smaller <= k or (resamples > 0 and smaller - -(-smaller // resamples) <= k):
        remedy = f"more than {2 * k + resamples}, or resamples=0 for no errors" if smaller > k else "more, or a smaller k"
        raise IllPosedError(
            f"The {_ordinal(k)} neighbour needs sets of at least {k + 1} images, got {len(first)} and {len(second)}"
            f"{', of which groups are left out' if smaller > k else ''}. Give {remedy}."
        )
    centre = first.mean(dim=0)  # distances are the same, and squared lengths no larger than they must be
    first, second = first - centre, second - centre
    whole = _measured(first, second, k)
    variance = torch.full((4,), 0.0 if resamples else float("nan"), dtype=torch.float64)
    if resamples:
        parts_first, parts_second = first.tensor_split(resamples), second.tensor_split(resamples)
        for without in (
            torch.stack([_measured(_left(parts_first, index), second, k).means for index in range(resamples)]),
            torch.stack([_measured(first, _left(parts_second, index), k).means for index in range(resamples)]),
        ):
            variance += (without - without.mean(dim=0)).square().sum(dim=0) * (resamples - 1) / resamples
    values, errors = whole.means.tolist(), variance.sqrt().tolist()
    return Neighbourhood(
        precision=values[0],
        recall=values[1],
        density=values[2],
        coverage=values[3],
        precision_error=errors[0],
        recall_error=errors[1],
        density_error=errors[2],
        coverage_error=errors[3],
        resamples=resamples,
        k=k,
        n_first=len(first),
        n_second=len(second),
        coincident_first=whole.coincident_first,
        coincident_second=whole.coincident_second,
    )


@dataclass(frozen=True)
class _Measured:
    means: Float64[Tensor, " four"]  # precision, recall, density, coverage
    coincident_first: int
    coincident_second: int


def _measured(first: Float64[Tensor, "n d"], second: Float64[Tensor, "m d"], k: int) -> _Measured:
    reach_first, together_first = _reach(first, k)
    reach_second, _ = _reach(second, k)
    weight = torch.where(reach_first > 0, 1.0, k / together_first)
    balls = torch.zeros(len(second), dtype=torch.float64)  # of the first set that hold each image of the second
    reached = torch.zeros(len(second), dtype=torch.bool)
    recalled, covered = [], []
    for start, squared in _blocks(first, second):
        rows = slice(start, start + len(squared))
        inside = _inside(squared, reach_first[rows, None])
        balls += (inside * weight[rows, None]).sum(dim=0)
        reached |= inside.any(dim=0)
        covered.append(inside.any(dim=1))
        recalled.append(_inside(squared, reach_second[None, :]).any(dim=1))
    means = [values.double().mean() for values in (reached, torch.cat(recalled), balls / k, torch.cat(covered))]
    return _Measured(torch.stack(means), int((reach_first == 0).sum()), int((reach_second == 0).sum()))


def _ordinal(number: int) -> str:
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def _left(parts: tuple[Tensor, ...], index: int) -> Tensor:
    return torch.cat([*parts[:index], *parts[index + 1 :]])


def _blocks(rows: Float64[Tensor, "n d"], others: Float64[Tensor, "m d"]) -> Iterator[tuple[int, Float64[Tensor, "b m"]]]:
    """Yield the first row's number and the squared distances of a block of rows to all others."""
    lengths = others.square().sum(dim=1)
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        summed = block.square().sum(dim=1, keepdim=True) + lengths
        squared = summed - 2 * (block @ others.T)
        yield start, torch.where(squared <= _COINCIDENT * summed, 0.0, squared)


def _reach(rows: Float64[Tensor, "n d"], k: int) -> tuple[Float64[Tensor, " n"], Float64[Tensor, " n"]]:
    """Return the squared distance to each row's k-th nearest other row, and how many rows lie where it lies."""
    reach, together = [], []
    for _, squared in _blocks(rows, rows):
        # The row itself is among them at distance 0, so the k-th other is the (k + 1)-th smallest.
        reach.append(squared.kthvalue(k + 1, dim=1).values)
        together.append((squared == 0).sum(dim=1))
    return torch.cat(reach), torch.cat(together).double()


def _inside(squared: Float64[Tensor, "b m"], reach: Float64[Tensor, "..."]) -> Bool[Tensor, "b m"]:
    return (squared < reach) | ((reach == 0) & (squared == 0))
