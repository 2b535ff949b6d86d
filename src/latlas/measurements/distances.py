"""How far apart two sets of images lie, by the features of a network: Fréchet distance and kernel distance.

Each comes with its sampling error. Which features they are, is asked of `latlas.measurements.features`.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from latlas.base.errors import CodeShapeError, IllPosedError, NonFiniteError, SettingError
from latlas.base.seeds import generator
from latlas.numerics.frechet import FrechetDistance, frechet_distance_of, frechet_distance_with_error
from latlas.numerics.moments import Moments

_SUBSET = 1000  # images, as Binkowski et al. 2018 take
_SUBSETS = 10  # at least, where there are images enough: fewer give no useful standard error


@dataclass(frozen=True, kw_only=True)
class KernelDistance:
    """The squared maximum mean discrepancy of two sets of features; unbiased, so it may be slightly negative."""

    value: float  # mean over subsets
    standard_error: float  # over subsets, which share no images: deviation / sqrt(subsets); NaN of a single one
    deviation: float  # between subsets
    subsets: int
    subset_size: int  # images of each set in a subset
    n_first: int
    n_second: int


def frechet_distance(
    features_a: Float[Tensor, "n d"], features_b: Float[Tensor, "m e"], *, resamples: int = 10, seed: int = 0
) -> FrechetDistance:
    """Return the squared Fréchet distance between two sets of features, with its standard error and bias.

    It is called FID only where the features are those of the reference Inception network (`is_reference_inception`).
    The distance of small samples is too large, by an amount that falls as 1 / n: compare only distances of equal
    `n_first` and `n_second`, or look at `bias`. Where features outnumber images, `bias` itself is too small. Where
    the true distance is near 0 the error is an order of magnitude and no more.

    Args:
        features_a: one row an image.
        features_b: one row an image, of the same network.
        resamples: groups of the delete-a-group jackknife over images, of each set; 0 for none.
        seed: of the division into groups.

    Raises:
        CodeShapeError: features of different widths.
        IllPosedError: fewer than two images in a set; or with resamples, fewer than two once a group is left out.
        NonFiniteError: NaN or infinity.
        SettingError: 1 or less than 0 resamples.

    Cost: one distance, and one more for each resample of each set: 20 times the time of one, by default.

    >>> square = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    >>> round(frechet_distance(square, square + 3).value, 6)
    18.0
    """
    if resamples < 0 or resamples == 1:
        raise SettingError(f"Resamples must be 0, or at least 2 groups of images, got {resamples}.")
    check_features(features_a, features_b)
    if resamples == 0:
        return frechet_distance_of(Moments.of(features_a), Moments.of(features_b))
    smaller = min(len(features_a), len(features_b))
    groups = min(resamples, smaller)
    if groups < 2 or smaller - -(-smaller // groups) < 2:
        raise IllPosedError(
            f"A Fréchet distance with its error needs at least {4 if resamples == 2 else 3} images of each set, got "
            f"{len(features_a)} and {len(features_b)}. Give more, or resamples=0 for no error."
        )
    return frechet_distance_with_error(
        _grouped(features_a, groups, seed, "first"), _grouped(features_b, groups, seed, "second")
    )


def kernel_distance(
    features_a: Float[Tensor, "n d"], features_b: Float[Tensor, "m e"], *, subset_size: int | None = None, seed: int = 0
) -> KernelDistance:
    """Return the mean over subsets of the unbiased squared MMD with the kernel (x . y / d + 1)^3, and its standard error.

    Binkowski et al. 2018 (arXiv:1801.01401), section 4, there called KID of Inception features. Unlike the Fréchet
    distance it has no bias, whatever the number of images. The subsets here are parts of one random division, so that
    none shares an image with another and the error is that of independent values; drawing them anew each time, as
    is usual, counts images many times and gives an error that is too small.

    Args:
        features_a: one row an image.
        features_b: one row an image, of the same network.
        subset_size: images of each set in a subset; by default a tenth of the smaller set, at most 1000.
        seed: of the division.

    Raises:
        CodeShapeError: features of different widths.
        IllPosedError: fewer than two images in a set, or a subset.
        SettingError: subsets larger than a set.
        NonFiniteError: NaN or infinity.

    Cost: images times subset size times features.
    """
    check_features(features_a, features_b)
    smaller = min(len(features_a), len(features_b))
    size = subset_size if subset_size is not None else min(max(smaller // _SUBSETS, 2), _SUBSET)
    if smaller < 2 or size < 2:
        raise IllPosedError(
            f"A kernel distance needs at least 2 images of each set in a subset, got {min(smaller, size)}. Give more images, or a "
            "larger subset_size."
        )
    if size > smaller:
        raise SettingError(f"A subset of {size} images was asked for, the smaller set has {smaller}. Ask for at most that.")
    count = smaller // size
    firsts, seconds = shuffled(features_a, seed, "first"), shuffled(features_b, seed, "second")
    values = torch.tensor(
        [squared_mmd(firsts[start : start + size], seconds[start : start + size]) for start in range(0, count * size, size)],
        dtype=torch.float64,
    )
    deviation = float(values.std()) if count > 1 else math.nan
    return KernelDistance(
        value=float(values.mean()),
        standard_error=deviation / math.sqrt(count),
        deviation=deviation,
        subsets=count,
        subset_size=size,
        n_first=len(features_a),
        n_second=len(features_b),
    )


def squared_mmd(first: Float64[Tensor, "n d"], second: Float64[Tensor, "m d"]) -> float:
    """Return the unbiased squared maximum mean discrepancy with the kernel (x . y / d + 1)^3.

    Gretton et al. 2012, equation 3: the mean kernel within either set over different pairs, minus twice that across.
    """
    n, m, d = len(first), len(second), first.shape[1]
    own_first = (first.square().sum(dim=1) / d + 1).pow(3).sum()
    own_second = (second.square().sum(dim=1) / d + 1).pow(3).sum()
    within_first = ((first @ first.T / d + 1).pow(3).sum() - own_first) / (n * (n - 1))
    within_second = ((second @ second.T / d + 1).pow(3).sum() - own_second) / (m * (m - 1))
    return float(within_first + within_second - 2 * (first @ second.T / d + 1).pow(3).mean())


def check_features(features_a: Float[Tensor, "n d"], features_b: Float[Tensor, "m e"]) -> None:
    """Raise unless two sets of features are finite and of one width.

    Raises:
        CodeShapeError: the widths differ.
        NonFiniteError: NaN or infinity.
    """
    if features_a.shape[1] != features_b.shape[1]:
        raise CodeShapeError(
            f"The sets have {features_a.shape[1]} and {features_b.shape[1]} features an image. "
            "Take both from the same feature network."
        )
    for title, features in (("first", features_a), ("second", features_b)):
        if not bool(features.isfinite().all()):
            bad = int((~features.isfinite()).any(dim=1).nonzero()[0, 0])
            raise NonFiniteError(f"The features of image {bad} of the {title} set hold NaN or infinity. Remove the image.")


def shuffled(features: Tensor, seed: int, title: str) -> Float64[Tensor, "n d"]:
    """Return features in a random order, in float64 on the CPU: each run of rows is then a random group."""
    order = torch.randperm(len(features), generator=generator(seed, "distance", title))
    return features.detach().to(device="cpu", dtype=torch.float64)[order]


def _grouped(features: Tensor, count: int, seed: int, title: str) -> list[Moments]:
    return [Moments.of(part) for part in shuffled(features, seed, title).tensor_split(count)]
