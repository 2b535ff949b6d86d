"""What one latent variable draws: the images along a line through a code."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from latlas.base.errors import CodeShapeError, SettingError
from latlas.base.shapes import Codes, Images
from latlas.models.protocols import Decoder, check_codes, device_of

SPAN = (-2.25, 2.25)  # the range that the posts show


def traverse(decoder: Decoder, code: Tensor, variable: int, *, steps: int = 11, span: tuple[float, float] = SPAN) -> Images:
    """Return the images of a code whose one variable runs over a span, evenly.

    Args:
        decoder: what decodes.
        code: one code, without a leading axis; one kept in half precision is widened. A channel of a spatial code is set at
            every position.
        variable: which one runs.
        steps: images.
        span: first and last value.

    Raises:
        CodeShapeError: no such variable.
    """
    if not 0 <= variable < code.shape[0]:
        raise CodeShapeError(f"The code has variables 0 to {code.shape[0] - 1}, asked for {variable}.")
    wide = code.float() if code.dtype == torch.float16 else code  # as codes are widened that are decoded as they are
    codes = wide.expand(steps, *code.shape).clone()
    values = torch.linspace(*span, steps).view(-1, *([1] * (code.ndim - 1)))
    codes[:, variable] = values.to(codes.dtype)
    with torch.inference_mode():
        images = decoder.decode(codes.to(device_of(decoder))).float().cpu()
    return images.clone()


def traverse_all(
    decoder: Decoder, codes: Codes, variables: Sequence[int], *, steps: int = 21, span: tuple[float, float] = SPAN
) -> Float[Tensor, "n variables steps c h w"]:
    """Return the images of each of some variables running over a span, from each of several codes.

    Args:
        decoder: what decodes.
        codes: where to start.
        variables: which ones run, one at a time.
        steps: images of each.
        span: first and last value.

    Raises:
        CodeShapeError: codes of another latent space, or no such variable.
        SettingError: no codes, no variables, or fewer than two steps.
    """
    check_codes(codes, decoder)
    if len(codes) == 0 or len(variables) == 0 or steps < 2:
        raise SettingError(
            f"Traversals need codes, variables and 2 steps at least; got {len(codes)}, {len(variables)} and {steps}."
        )
    return torch.stack(
        [torch.stack([traverse(decoder, code, variable, steps=steps, span=span) for variable in variables]) for code in codes]
    )
