"""How far images lie from each other."""

import functools
import math
from dataclasses import dataclass

import torch

from latlas.base.errors import IllPosedError
from latlas.base.shapes import Images
from latlas.models.protocols import images_at_once

_NORMAL = 1.959963984540054  # 97.5 % quantile of the standard normal distribution


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Mean squared distance per pixel between two different images of a set, averaged over pairs."""

    mean: float
    standard_error: float  # jackknife over images, since pairs that share one are not independent; NaN of two images


def pairwise_spread(images: Images) -> Spread:
    """Return the mean squared difference per pixel over all pairs of images.

    From the moments: the mean over pairs of |x - y|^2 is 2 n / (n - 1) times the population's variance.

    Raises:
        IllPosedError: fewer than two images.
    """
    n = images.shape[0]
    if n < 2:
        raise IllPosedError(f"A spread needs at least 2 images, got {n}. Give more.")
    channels, height, width = images.shape[1:]
    # By batches: in float64 all of them at once would take twice the room of the images themselves, and more than once.
    batches = torch.split(images, images_at_once((channels, height, width)))
    middle = functools.reduce(torch.add, (batch.double().sum(dim=0) for batch in batches)) / n
    norms = torch.cat([(batch.double() - middle).square().flatten(1).mean(dim=1) for batch in batches])
    total = norms.sum()
    mean = float(2 * total / (n - 1))
    if n == 2:
        return Spread(mean=mean, standard_error=math.nan)
    # Leaving image i out changes the sum of squares about the mean by n / (n - 1) times its squared distance to it.
    without = 2 * (total - norms * n / (n - 1)) / (n - 2)
    return Spread(mean=mean, standard_error=float(((n - 1) * (without - without.mean()).square().mean()).sqrt()))


def ratio_interval(spread: Spread, other: Spread) -> tuple[float, float]:
    """Return the 95 % interval of one spread over another, of images that were drawn apart.

    The relative standard errors add up in squares, and the interval is even on the scale of logarithms, on which a ratio and its
    inverse tell the same. Images that were drawn one a sector differ less from draw to draw than the jackknife takes them to: of
    these it is a little wide.

    Returns:
        NaN twice where a spread is 0 or has no standard error.
    """
    if not (spread.mean > 0 and other.mean > 0):
        return math.nan, math.nan
    error = math.hypot(spread.standard_error / spread.mean, other.standard_error / other.mean)
    ratio = spread.mean / other.mean
    return ratio * math.exp(-_NORMAL * error), ratio * math.exp(_NORMAL * error)
