"""How far the image moves when a latent variable does: squared norms of the decoder's derivatives."""

from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor
from torch.autograd import forward_ad as forward
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from latlas.base.errors import CapabilityError, IllPosedError
from latlas.base.progress import Progress, silent, track
from latlas.base.seeds import generator
from latlas.base.shapes import Codes, PerImage
from latlas.models.protocols import Decoder, device_of, images_at_once


def squared_derivatives(
    decoder: Decoder, codes: Codes, *, seed: int = 0, progress: Progress = silent
) -> Float64[Tensor, "n latent"]:
    """Return, for each code and variable, |d image / d z_i|^2, averaged over pixels; summed over positions for a channel.

    Per unit of the code, not per posterior deviation: where the evidence bound is maximal, a posterior narrows as the image's
    derivative grows (Lucas et al. 2019, arXiv:1911.02469, for linear decoders), and the product tells the variables apart no more.

    Args:
        decoder: differentiable by PyTorch.
        codes: where; those kept in half precision are widened.
        seed: decides the signs by which the derivatives of a channel's positions are added up: the expected square of a sum with
            random signs is the sum of squares (Hutchinson 1990). A vector space needs none, and its answer is exact.
        progress: told after each variable.

    Raises:
        CapabilityError: the decoder cannot be differentiated.
        IllPosedError: no variable moves any image, which also a decoder shows that hides its derivative.

    Cost: one derivative in forward mode, some two decodes, for each code and variable.
    """
    device = device_of(decoder)
    size = images_at_once(decoder.image_shape)
    columns = []
    for variable in track(range(codes.shape[1]), "derivative by each variable", progress):
        signs = generator(seed, "derivative signs", variable)
        parts = []
        for batch in torch.split(codes.float() if codes.dtype == torch.float16 else codes, size):
            direction = torch.zeros_like(batch)
            place = direction[:, variable]
            drawn = torch.randint(0, 2, place.shape, generator=signs) * 2 - 1
            direction[:, variable] = 1.0 if batch.ndim == 2 else drawn.to(batch.dtype)
            parts.append(_moved(decoder, batch.to(device), direction.to(device)).cpu())
        columns.append(torch.cat(parts))
    result = torch.stack(columns, dim=1)
    if not bool((result != 0).any()):
        raise IllPosedError(f"No variable of {decoder.name} has a derivative other than 0: order by gain.")
    return result


def _moved(decoder: Decoder, codes: Codes, direction: Codes) -> PerImage:
    """Return the mean square, over pixels, of the derivative of each image along a direction."""
    # Not torch.func.jvp: within it even a decoder's own weights are wrapped, and those that hash them fail.
    # Plain attention: the fused kinds have no derivative in forward mode.
    with torch.no_grad(), forward.dual_level(), sdpa_kernel(SDPBackend.MATH), _ContiguousGroupNorm():
        try:
            images = decoder.decode(forward.make_dual(codes, direction))  # type: ignore[no-untyped-call]
        except (RuntimeError, NotImplementedError) as failure:
            raise CapabilityError(
                f"{decoder.name} cannot be differentiated in forward mode ({str(failure).splitlines()[0]}). Order by gain."
            ) from failure
        derivative = forward.unpack_dual(images).tangent  # type: ignore[no-untyped-call]
    if derivative is None:
        return torch.zeros(len(codes), dtype=torch.float64)
    return derivative.double().square().flatten(1).mean(dim=1)


class _ContiguousGroupNorm(TorchFunctionMode):
    """Within it group norm is given contiguous images: its derivative in forward mode refuses those that attention leaves."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function in (torch.nn.functional.group_norm, torch.group_norm) and args:
            args = (args[0].contiguous(), *args[1:])
        return function(*args, **(kwargs or {}))
