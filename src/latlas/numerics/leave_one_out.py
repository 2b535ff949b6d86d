"""Exact leave-one-out cross-validation of a ridge, without fitting anything again."""

import math
from collections.abc import Callable, Iterable

import torch
from jaxtyping import Float64
from torch import Tensor

from latlas.base.errors import IllPosedError
from latlas.numerics.moments import PairedMoments
from latlas.numerics.spectrum import HIGHEST, LOWEST, Spectrum, eighths

# A pair that keeps less than this of its own residual cannot be left out by arithmetic: of what is left of the digits,
# rounding would be more than a share of 1e-8.
_LEAST_SPARE = 1e-7

Batches = Callable[[], Iterable[tuple[Tensor, Tensor]]]  # gives the pairs again, from the first, each time it is called


def leave_one_out(spectrum: Spectrum, batches: Batches, ridges: list[float]) -> Float64[Tensor, "ridges t"]:
    """Return, for each ridge, the mean squared error per target variable of pairs that were each left out of the fit.

    Leaving pair i out and fitting the rest, bias included, gives it the residual e_i / (1 - h_i), with e_i its residual in
    the fit of all and h_i = 1/n + x_i' (X'X + a I)^-1 x_i, x centred, the diagonal of the hat matrix (Allen 1974); without
    bias, x is not centred and 1/n falls away. One pass over the pairs, in batches, for all ridges together.

    Args:
        spectrum: of the moments of the same pairs.
        batches: gives the pairs.
        ridges: at least 0 each.

    Returns:
        errors; infinite for a ridge that leaves some pair alone in deciding its own prediction, where the residual of the
        others' fit cannot be computed from this one.
    """
    penalised = spectrum.values + torch.tensor(ridges, dtype=torch.float64)[:, None]  # ridges k
    errors = torch.zeros(len(ridges), spectrum.cross.shape[1], dtype=torch.float64)
    least = torch.full((len(ridges),), math.inf, dtype=torch.float64)
    seen = 0
    for source, target in batches():
        along = (source.detach().cpu().double() - spectrum.source_mean) @ spectrum.vectors
        wanted = target.detach().cpu().double() - spectrum.target_mean
        spare = 1.0 - int(spectrum.bias) / spectrum.count - along.square() @ (1.0 / penalised).T  # n ridges
        least = torch.minimum(least, spare.amin(dim=0)) if len(along) else least
        for index in range(len(ridges)):
            residual = wanted - along @ (spectrum.cross / penalised[index][:, None])
            errors[index] += (residual / spare[:, index : index + 1]).square().sum(dim=0)
        seen += along.shape[0]
    if seen != spectrum.count:
        raise IllPosedError(f"Leaving one out needs the {spectrum.count} pairs of the moments again, and {seen} came.")
    errors[least < _LEAST_SPARE] = math.inf
    return errors / spectrum.count


def choose_ridge_leaving_one_out(
    moments: PairedMoments, batches: Batches, *, bias: bool = True
) -> tuple[float, Float64[Tensor, " t"]]:
    """Return the ridge with the least leave-one-out error, summed over target variables, and that error of each.

    The grid is that of `choose_ridge`, searched by decades and then by eighths of one on both sides of the best: two passes
    over the pairs beside the one that gave the moments.

    Raises:
        IllPosedError: fewer than three pairs, or a constant source.
        NonFiniteError: the moments hold NaN.
    """
    spectrum = Spectrum.of(moments, bias=bias)
    decades = list(range(LOWEST, HIGHEST + 1))
    ridges = spectrum.strengths(map(float, decades))
    errors = leave_one_out(spectrum, batches, ridges)
    best = int(errors.sum(dim=1).argmin())
    at = decades[max(best - (len(ridges) - len(decades)), 0)]  # beside 0 lies the weakest ridge
    finer = spectrum.strengths(eighths(max(at - 1, LOWEST), min(at + 1, HIGHEST)))
    finer_errors = leave_one_out(spectrum, batches, finer)
    ridges, errors = ridges + finer, torch.cat([errors, finer_errors])
    best = int(errors.sum(dim=1).argmin())
    return ridges[best], errors[best]
