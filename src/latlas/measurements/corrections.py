"""p-values corrected so that not one image in range is rejected, at a stated chance."""

import torch
from torch import Tensor

from latlas.base.shapes import PerImage


def holm_p_values(p_values: PerImage) -> PerImage:
    """Return p-values corrected over images: rejecting those at most a rejects any in range with a chance of at most a.

    Holm 1979: the i-th smallest of n is multiplied by n - i + 1, made monotone from the smallest up. It holds however the
    p-values depend on each other, as those that share one calibration do.

    >>> holm_p_values(torch.tensor([0.01, 0.04, 0.03]).double())
    tensor([0.0300, 0.0600, 0.0600], dtype=torch.float64)
    """
    order = p_values.argsort()
    n = len(p_values)
    scaled = p_values[order] * torch.arange(n, 0, -1, dtype=torch.float64)
    adjusted: Tensor = torch.empty_like(scaled)
    adjusted[order] = scaled.cummax(dim=0).values.clamp_max(1.0)
    return adjusted
