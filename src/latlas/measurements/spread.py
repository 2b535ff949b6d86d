"""How far images lie from each other."""

import math
from dataclasses import dataclass

from latlas.base.errors import IllPosedError
from latlas.base.shapes import Images


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
        raise IllPosedError(f"A spread needs at least 2 images, got {n}.")
    rows = images.double().flatten(1)
    centred = rows - rows.mean(dim=0)
    norms = centred.square().mean(dim=1)
    total = norms.sum()
    mean = float(2 * total / (n - 1))
    if n == 2:
        return Spread(mean=mean, standard_error=math.nan)
    # Leaving image i out changes the sum of squares about the mean by n / (n - 1) times its squared distance to it.
    without = 2 * (total - norms * n / (n - 1)) / (n - 2)
    return Spread(mean=mean, standard_error=float(((n - 1) * (without - without.mean()).square().mean()).sqrt()))
