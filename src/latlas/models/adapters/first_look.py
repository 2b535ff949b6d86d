"""What is looked at of the first answers of somebody else's functions: that codes are no samples, and images in their range."""

import logging
from dataclasses import dataclass

import torch
from torch import Tensor

from latlas.base.errors import CapabilityError

logger = logging.getLogger(__name__)

COMPARED = 2  # images that are encoded a second time
# Of the size of a variable, and of that of the whole code: beyond what rounding in half precision does, and far below a sample
# of a collapsed variable, all of which is chance.
_OWN_SHARE, _WHOLE_SHARE = 0.05, 0.02
_SLACK = 0.05  # of a range's width: what a network without a last bound overshoots by
_MOST_OUT = 0.05  # share of pixels out of range that need not mean another range


@dataclass
class FirstLook:
    """What was looked at already: each is looked at once."""

    encoded: bool = False
    decoded: bool = False
    drawn: bool = False


def check_same_codes(codes: Tensor, again: Tensor, *, name: str) -> None:
    """Raise if images have other codes when they are encoded again: samples of posteriors, or dropout.

    Args:
        codes: of a few images, `n ...`.
        again: of the same images, encoded a second time.
        name: of the model.

    Raises:
        CapabilityError: they differ by more than rounding.
    """
    first, second = (each.detach().cpu().double().flatten(1) for each in (codes, again))
    if first.shape != second.shape or not bool(first.isfinite().all() and second.isfinite().all()):
        return  # what that means is told where it matters
    size = torch.maximum(first.abs(), second.abs()).amax(dim=0)
    moved = (first - second).abs().amax(dim=0)
    if bool((moved > _OWN_SHARE * size + _WHOLE_SHARE * size.max()).any()):
        raise CapabilityError(
            f"{name} gives the same images other codes when it is asked again, apart by up to {float(moved.max()):.3g}: samples, "
            "dropout, or codes that depend on the other images of a batch. Give means, with log-variances beside them where there "
            "are some, in evaluation mode."
        )


def tell_of_range(images: Tensor, low: float, high: float, *, name: str, cure: str) -> bool:
    """Warn of images of which many pixels lie outside of a range; return whether they could be looked at.

    Args:
        images: as they were drawn.
        low: of the range.
        high: of the range.
        name: of the model.
        cure: what to do.
    """
    if images.device.type == "meta" or torch.compiler.is_compiling() or not images.is_floating_point():
        return False
    slack = _SLACK * (high - low)
    try:
        pixels = images.detach()
        out = float(((pixels < low - slack) | (pixels > high + slack)).float().mean())
        if out > _MOST_OUT:
            least, most = (float(edge) for edge in pixels.aminmax())
            logger.warning(
                "%s draws %.0f %% of its pixels outside of %g to %g, from %.3g to %.3g. %s",
                name, 100 * out, low, high, least, most, cure,
            )  # fmt: skip
    except RuntimeError:  # within a transform of torch.func no number can be looked at
        return False
    return True
