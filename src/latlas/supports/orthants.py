"""Probabilities of the sectors of a Gaussian: all orthants of it at once, from a seed, with a stated error."""

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from latlas.base.errors import IllPosedError
from latlas.base.seeds import derived_seed
from latlas.supports.sectors import Sectors

_POINTS = 1024  # of a Sobol sequence: a power of 2
_SCRAMBLES = 8  # independent ones, from whose scatter the error is told
_AT_ONCE = 2**20  # sectors times points
_TINY = 1e-300


@dataclass(frozen=True, kw_only=True)
class OrthantProbabilities:
    """The probability of each sector under a Gaussian."""

    probability: Float64[Tensor, " sectors"]
    standard_error: Float64[Tensor, " sectors"]  # of the integration


def orthant_probabilities(
    mean: Float64[Tensor, " k"], covariance: Float64[Tensor, "k k"], sectors: Sectors, *, seed: int = 0
) -> OrthantProbabilities:
    """Return the probability of every sector under a Gaussian of the sectors' variables.

    Genz 1992, "Numerical computation of multivariate normal probabilities": the integral is turned, one variable after
    another, into one over the unit cube, and that is taken over scrambled Sobol points. SciPy has the same integral, one sector a
    call and without a seed in every version that latlas takes; drawing codes and counting them would need millions for the same error.

    Args:
        mean: of the sectors' variables, in their order.
        covariance: of the same.
        sectors: whose thresholds bound each variable from its centre on.
        seed: of the scrambling.

    Raises:
        IllPosedError: a covariance that is not positive definite: variables that are sums of each other, or too few codes.

    Cost: 2^k sectors times 8,192 points times k: about a second of seven variables, a quarter of a minute of ten.
    """
    variables = len(sectors.variables)
    centre = torch.tensor(sectors.centre or (0.0,) * variables, dtype=torch.float64)
    limits = torch.tensor(sectors.thresholds, dtype=torch.float64)
    deviations = covariance.diagonal().clamp_min(0.0).sqrt()
    # In units of each deviation, so that whether the matrix is singular does not depend on the units of the code.
    factor, failed = torch.linalg.cholesky_ex(covariance / deviations.outer(deviations).clamp_min(_TINY))
    if bool(failed) or not bool(deviations.isfinite().all()) or float(factor.diagonal().min()) < 1e-6:
        raise IllPosedError(
            f"The covariance of variables {list(sectors.variables)} is singular: no Gaussian of them has a density. "
            "Give more codes, or leave out variables that follow from others."
        )
    shifts, limits = (mean - centre) / deviations, limits / deviations
    bits = torch.arange(sectors.count)[:, None] >> torch.arange(variables) & 1
    signs = (2 * bits - 1).double()
    estimates = []
    for scramble in range(_SCRAMBLES):
        points = _sobol(variables - 1, derived_seed(seed, "orthants", scramble))
        share = max(1, _AT_ONCE // _POINTS)
        parts = [_integral(part, factor, shifts, limits, points) for part in torch.split(signs, share)]
        estimates.append(torch.cat(parts))
    stacked = torch.stack(estimates)
    return OrthantProbabilities(probability=stacked.mean(dim=0), standard_error=stacked.std(dim=0) / _SCRAMBLES**0.5)


def _sobol(dimensions: int, seed: int) -> Float64[Tensor, "points d"]:
    if dimensions == 0:
        return torch.empty(_POINTS, 0, dtype=torch.float64)
    engine = torch.quasirandom.SobolEngine(dimensions, scramble=True, seed=seed % 2**31)  # type: ignore[no-untyped-call]
    return engine.draw(_POINTS, dtype=torch.float64)


def _integral(
    signs: Float64[Tensor, "s k"],
    factor: Float64[Tensor, "k k"],
    shifts: Float64[Tensor, " k"],
    limits: Float64[Tensor, " k"],
    points: Float64[Tensor, "points d"],
) -> Float64[Tensor, " s"]:
    """P(sign_i * (shift_i + (factor @ e)_i) > limit_i for all i), e standard normal, averaged over points.

    Mirroring variable i by its sign turns the factor L into D L, whose rows are negated, and e with it: each e_i is bounded from below.
    """
    total = torch.ones(len(signs), len(points), dtype=torch.float64)
    drawn: list[Tensor] = []  # s x points each: the mirrored variables so far
    for i in range(signs.shape[1]):
        known = torch.zeros_like(total)
        for j, value in enumerate(drawn):
            known += (signs[:, i] * signs[:, j] * factor[i, j])[:, None] * value
        low = (limits[i] - signs[:, i, None] * shifts[i] - known) / factor[i, i]
        above = torch.special.ndtr(-low)
        total *= above
        if i < points.shape[1]:
            # Of the upper tail, so that no digit is lost far out: e = -ndtri(u * P(e > low)).
            drawn.append(-torch.special.ndtri((points[:, i] * above).clamp_min(_TINY)))
    return total.mean(dim=1)
