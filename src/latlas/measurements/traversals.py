"""What one latent variable draws: the images along a line through a code."""

import torch
from torch import Tensor

from latlas.base.errors import CodeShapeError
from latlas.base.shapes import Images
from latlas.models.protocols import Decoder, device_of

SPAN = (-2.25, 2.25)  # the range that the posts show


def traverse(decoder: Decoder, code: Tensor, variable: int, *, steps: int = 11, span: tuple[float, float] = SPAN) -> Images:
    """Return the images of a code whose one variable runs over a span, evenly.

    Args:
        decoder: what decodes.
        code: one code, without a leading axis. A channel of a spatial code is set at every position.
        variable: which one runs.
        steps: images.
        span: first and last value.

    Raises:
        CodeShapeError: no such variable.
    """
    if not 0 <= variable < code.shape[0]:
        raise CodeShapeError(f"The code has variables 0 to {code.shape[0] - 1}, asked for {variable}.")
    codes = code.expand(steps, *code.shape).clone()
    values = torch.linspace(*span, steps).view(-1, *([1] * (code.ndim - 1)))
    codes[:, variable] = values.to(codes.dtype)
    with torch.inference_mode():
        images = decoder.decode(codes.to(device_of(decoder))).float().cpu()
    return images.clone()
