"""The k variables of largest mean growth, without decoding every image: successive elimination on pairs of variables.

The images are drawn in random order without replacement, in rounds of doubling size. After each round every pair of undecided
variables is compared by the difference of their growths on the same images; a variable that enough others surely exceed is out,
one that surely exceeds enough others is in, and neither is decoded again. When the images are used up nothing is left to
estimate, and the answer is the exhaustive one.

Why the intervals may be trusted. The question is about one finite set of images, and the squared codes of all of them are known
before anything is decoded. As setting z_i to 0 moves an image by about z_i times a derivative, the growth is nearly linear in
z_i^2: the regression estimator of survey sampling (Cochran 1977, chapter 7) predicts from it what the images not yet decoded will
add, and only the residuals are left to chance. Their variance is the jackknife's, which weighs each image by what leaving it out
would change, times 1 - n / N for drawing without replacement. The quantile is Student's at the level left by Bonferroni over all
pairs across the border and over all rounds. That is no bound for every distribution but an approximation for means of skewed
growths, of which the unions take much less than they allow for; the rate of wrong tops is measured in the tests. Two cautions
guard it: a variable is undecided while its sample holds less than half the mean squared code of the set (the images in which it
acts may not have been drawn yet), and while one image alone fixes its slope. What no caution sees is a variable that varies
everywhere and yet changes the image in a few percent of the images only.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from latlas.base.errors import SettingError
from latlas.base.progress import Progress, silent

# Fewer make Student's quantile suspect on growths, which are skewed; more cost decodes of variables that are plainly out.
FIRST_ROUND = 64
# Where the best that is left exceeds the rest by no less than minus this share of the largest growth, either choice is as good.
INDIFFERENCE = 1e-3

_SEEN_SHARE = 0.5  # of the mean squared code of the set: below it a sample says nothing of a variable
_FREE = 1e-6  # one image fixes the slope alone where 1 - leverage falls below

Measure = Callable[[Tensor, list[int]], Tensor]  # (indices of images, variables) -> growths, images x variables


@dataclass(frozen=True, kw_only=True, eq=False)
class Elimination:
    """Which variables are the top, and everything that was measured to tell."""

    top: tuple[int, ...]  # in the order of the latent space
    rows: Int64[Tensor, " n"]  # the images in the order of drawing
    growth: Float64[Tensor, "n latent"]  # of the drawn images, in that order; NaN where a variable was no longer decoded
    seen: Int64[Tensor, " latent"]  # how many of the drawn images each variable was decoded for
    settled: bool  # told apart before the images were used up, and by more than what is indifferent
    rounds: int
    decodes: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Estimates:
    """Mean growths over a whole set, estimated from a sample of it, and what each image of the sample adds to their error."""

    mean: Float64[Tensor, " variables"]
    influence: Float64[Tensor, "n variables"]  # infinite where one image alone decides
    trusted: Tensor  # bool, one a variable: the sample holds its share of the squared codes
    finite: float  # 1 - n / N

    def differences(self) -> Float64[Tensor, "variables variables"]:
        """Return mean_i - mean_j."""
        return self.mean[:, None] - self.mean[None, :]

    def errors(self) -> Float64[Tensor, "variables variables"]:
        """Return the standard error of each difference, as an estimate for the whole set; NaN where it is not known."""
        if self.finite == 0.0:
            return torch.zeros(len(self.mean), len(self.mean), dtype=torch.float64)
        products = self.influence.T @ self.influence
        squares = products.diagonal()
        variance = (squares[:, None] + squares[None, :] - 2.0 * products).clamp(min=0.0)
        error = (self.finite * variance).sqrt() / len(self.influence)
        both = self.trusted[:, None] & self.trusted[None, :]
        return torch.where(both, error, float("nan"))


def eliminate(
    measure: Measure,
    energies: Float64[Tensor, "images latent"],
    *,
    top: int,
    confidence: float,
    generator: torch.Generator,
    first: int = FIRST_ROUND,
    indifference: float = INDIFFERENCE,
    progress: Progress = silent,
) -> Elimination:
    """Return the `top` variables of largest mean growth over all images.

    Args:
        measure: decodes some images without some variables, and returns the growths of the error.
        energies: squared codes of every image and variable, which cost no decode; zeros where nothing is known.
        top: how many variables, fewer than there are.
        confidence: that the top is the exhaustive one, but for ties.
        generator: decides the order of the images.
        first: images of the first round; each further one doubles their number.
        indifference: share of the largest mean growth within which a variable in and one out are tied.
        progress: told after each round, in images.

    Raises:
        SettingError: top, confidence or first out of range.
    """
    count, latent = energies.shape
    if not 1 <= top < latent:
        raise SettingError(
            f"The top {top} of {latent} variables cannot be told apart from the rest; ask for 1 to {latent - 1}."
        )
    if not 0.5 <= confidence < 1.0:
        raise SettingError(f"A confidence lies from 0.5 to below 1, got {confidence}.")
    if first < 3:
        raise SettingError(f"A slope and its error need 3 images at least in the first round, got {first}.")
    sizes = schedule(count, first)
    rows = torch.randperm(count, generator=generator)
    whole = energies.mean(dim=0)
    level = (1.0 - confidence) / (top * (latent - top) * max(1, len(sizes) - 1))  # the last round leaves nothing to chance
    growth = torch.full((sizes[-1], latent), float("nan"), dtype=torch.float64)
    taken: set[int] = set()
    undecided = list(range(latent))
    done = decodes = rounds = 0
    largest, settled = 0.0, True
    progress("ordering variables", 0, count, f"{latent} undecided")
    for size in sizes:
        new = rows[done:size]
        growth[done:size, undecided] = measure(new, undecided)
        decodes += len(new) * (len(undecided) + 1)
        done, rounds = size, rounds + 1
        drawn = rows[:size]
        found = estimate(growth[:size, undecided], energies[drawn][:, undecided], whole[undecided], count)
        largest = max(largest, float(found.mean.max()))
        chosen, undecided, settled = _decide(found, undecided, top - len(taken), _quantile(level, size), indifference * largest)
        taken.update(chosen)
        if len(taken) == top:
            undecided = []
        progress("ordering variables", count if not undecided else size, count, f"{len(undecided)} undecided")
        if not undecided:
            break
    return Elimination(
        top=tuple(sorted(taken)),
        rows=rows[:done],
        growth=growth[:done].clone(),
        seen=growth[:done].isfinite().sum(dim=0),
        settled=settled,
        rounds=rounds,
        decodes=decodes,
    )


def schedule(count: int, first: int) -> list[int]:
    """Return the numbers of images after which variables are compared: doubling, and all of them at last.

    >>> schedule(5000, 1000)
    [1000, 2000, 4000, 5000]
    """
    sizes = [first]
    while sizes[-1] < count:
        sizes.append(2 * sizes[-1])
    return [*sizes[:-1], count]


def estimate(
    growth: Float64[Tensor, "n variables"],
    energies: Float64[Tensor, "n variables"],
    whole: Float64[Tensor, " variables"],
    count: int,
) -> Estimates:
    """Return the mean growth over a set from a sample of it, by regression on the squared codes.

    Args:
        growth: of the sample.
        energies: squared codes of the sample.
        whole: mean squared codes of the set.
        count: images of the set.
    """
    n = len(growth)
    average = energies.mean(dim=0)
    away = energies - average
    spread = away.square().sum(dim=0)
    # Where codes do not vary there is no slope: the estimator is then the plain mean.
    varies = spread > (1e-12 * average.abs()).square() * n
    share = torch.where(varies, away / torch.where(varies, spread, 1.0), 0.0)
    slope = (share * growth).sum(dim=0)
    step = whole - average
    residual = growth - growth.mean(dim=0) - slope * away
    free = 1.0 - 1.0 / n - share * away
    influence = torch.where(free > _FREE, (1.0 + n * step * share) * residual / free.clamp(min=_FREE), float("inf"))
    return Estimates(
        mean=growth.mean(dim=0) + slope * step,
        influence=influence,
        trusted=average >= _SEEN_SHARE * whole,
        finite=1.0 - n / count,
    )


def _decide(
    found: Estimates, undecided: Sequence[int], places: int, quantile: float, slack: float
) -> tuple[list[int], list[int], bool]:
    """Return the variables that are in the top, those that are undecided still, and whether what was decided is sure."""
    differences = found.differences()
    order = found.mean.argsort(descending=True, stable=True)
    best, rest = order[:places], order[places:]
    if found.finite == 0.0:
        return [undecided[int(place)] for place in best], [], False
    bounds = differences - quantile * found.errors()  # NaN is never above anything
    if bool((bounds[best][:, rest] >= -slack).all()):
        return [undecided[int(place)] for place in best], [], bool((bounds[best][:, rest] > 0.0).all())
    exceeds = bounds > 0.0
    sure = exceeds.sum(dim=1) >= len(undecided) - places
    out = exceeds.sum(dim=0) >= places
    chosen = [variable for variable, yes in zip(undecided, sure.tolist(), strict=True) if yes]
    decided = (sure | out).tolist()
    return chosen, [variable for variable, yes in zip(undecided, decided, strict=True) if not yes], True


def _quantile(level: float, n: int) -> float:
    from scipy.stats import t as student

    return float(student.isf(level, n - 2)) if n > 2 else math.inf
