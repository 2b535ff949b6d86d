"""Where a training left the numbers: which weights, which latent variables."""

from torch import Tensor, nn

from latlas.base.errors import NonFiniteError


def check_finite(module: nn.Module, *, when: str, cure: str) -> None:
    """Raise if a weight, or what a layer has gathered, left the numbers: such a state must not become the last good one.

    Args:
        module: all networks of the training.
        when: "after step 3", for the message.
        cure: what to do.

    Raises:
        NonFiniteError: naming the first of them.
    """
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            bad = int((~tensor.isfinite()).sum())
            raise NonFiniteError(
                f"Training left the numbers {when}: {bad:,} of {tensor.numel():,} values of {name} are NaN or infinite. {cure}"
            )


def bad_variables(codes: Tensor) -> str:
    """Return which latent variables hold NaN or infinity for some image, in words; empty where none does.

    Args:
        codes: `n ...`, the variables, or channels, along the second axis.
    """
    bad = (~codes.isfinite()).flatten(2).any(dim=2) if codes.ndim > 2 else ~codes.isfinite()
    variables, images = bad.any(dim=0).nonzero().flatten().tolist(), bad.any(dim=1).nonzero().flatten().tolist()
    if not variables:
        return ""
    first = ", ".join(map(str, variables[:8])) + (", …" if len(variables) > 8 else "")
    which = "every latent variable" if len(variables) == bad.shape[1] else f"latent variable {first}"
    return f"{which} of image {images[0]} of the batch" + (f" and {len(images) - 1} more" if len(images) > 1 else "")
