"""Conformal p-values: how an error ranks among errors of the same procedure on images known to be in range."""

import torch
from jaxtyping import Float64
from torch import Tensor

from latlas.base.errors import IllPosedError, NonFiniteError
from latlas.base.shapes import PerImage


def conformal_p_values(errors: PerImage, calibration: Float64[Tensor, " calibration"]) -> PerImage:
    """Return (1 + number of calibration errors >= error) / (1 + number of calibration errors), per error.

    If an error is exchangeable with the calibration errors, P(p <= a) <= a for every a, whatever their distribution
    (Vovk, Gammerman and Shafer 2005, section 2.2; ties count against rejection).

    Args:
        errors: of the images to judge.
        calibration: of images in range that went through the same procedure, at least one.

    Raises:
        IllPosedError: no calibration errors.
        NonFiniteError: an error is NaN.

    >>> conformal_p_values(torch.tensor([0.5]).double(), torch.tensor([0.1, 0.9, 0.7]).double())
    tensor([0.7500], dtype=torch.float64)
    """
    if calibration.numel() == 0:
        raise IllPosedError("Conformal p-values need calibration errors; none were given. Give images in range.")
    if bool(errors.isnan().any() or calibration.isnan().any()):
        raise NonFiniteError("An error is NaN; p-values of it would mean nothing. Leave that image out.")
    ordered = calibration.sort().values
    at_least = len(ordered) - torch.searchsorted(ordered, errors.contiguous(), right=False)
    return (1.0 + at_least.double()) / (1.0 + len(ordered))


def adjusted_p_values(p_values: PerImage) -> PerImage:
    """Return p-values corrected over images: rejecting those at most a keeps the false discovery rate at most a.

    Benjamini and Hochberg 1995: p_(i) * n / i, made monotone from the largest down. It holds for p-values that are independent or
    depend on each other positively, as conformal ones that share a calibration do (Bates et al. 2023, Ann. Statist. 51:149).
    """
    order = p_values.argsort()
    n = len(p_values)
    scaled = p_values[order] * n / torch.arange(1, n + 1, dtype=torch.float64)
    monotone = scaled.flip(0).cummin(dim=0).values.flip(0).clamp_max(1.0)
    adjusted: Tensor = torch.empty_like(monotone)
    adjusted[order] = monotone
    return adjusted
