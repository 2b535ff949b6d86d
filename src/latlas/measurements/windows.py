"""Where an image is drawn worst: errors of windows of it, beside those that another model leaves there."""

import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.nn import functional as F

from latlas.base.errors import CodeShapeError
from latlas.base.shapes import PerImage

_STEPS = 8  # windows are half as wide as the image, and an eighth of it apart


def window_errors(images: Float[Tensor, "n c h w"], drawn: Float[Tensor, "n c h w"]) -> Float64[Tensor, "n windows"]:
    """Return the squared error per pixel within each window of half the image's side.

    A thing that a model cannot draw fills a part of the image, and over all of it its error is diluted by the rest. Where
    steps of an eighth do not end at the far edge, as in 28 pixels, a last window lies against it: every pixel is in some.
    """
    wrong = (images.double() - drawn.double()).square().mean(dim=1, keepdim=True)
    sides = [max(1, side // 2) for side in wrong.shape[2:]]
    strides = [max(1, side // _STEPS) for side in wrong.shape[2:]]
    errors = _means_of_windows(wrong, sides, strides)
    if (wrong.shape[3] - sides[1]) % strides[1]:
        errors = torch.cat([errors, _means_of_windows(wrong[..., -sides[1] :], sides, strides)], dim=3)
    return errors.flatten(1)


def _means_of_windows(wrong: Tensor, sides: list[int], strides: list[int]) -> Tensor:
    means: Tensor = F.avg_pool2d(wrong, sides, strides)
    if (wrong.shape[2] - sides[0]) % strides[0]:
        means = torch.cat([means, F.avg_pool2d(wrong[:, :, -sides[0] :], sides, strides)], dim=2)
    return means


def worst_excess(windows: Float64[Tensor, "n windows"], reference: Float64[Tensor, "m others"] | None = None) -> PerImage:
    """Return the error of each image's worst window, or the most by which a window's error exceeds a reference's there.

    Args:
        windows: from `window_errors`.
        reference: of the same images, drawn by a model that certainly can draw them. What makes an image hard for any model
            is in both, and leaves.

    Raises:
        CodeShapeError: errors of other images, or of other windows.
    """
    if reference is not None and reference.shape != windows.shape:
        raise CodeShapeError(
            f"Window errors of {tuple(windows.shape)} and of {tuple(reference.shape)} are not of the same images."
        )
    excess: PerImage = (windows if reference is None else windows - reference).amax(dim=1)
    return excess
