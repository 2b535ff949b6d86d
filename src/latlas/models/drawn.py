"""What a generator draws, looked at before anything is learnt from it or held against it."""

import functools

import torch
from torch import Tensor

from latlas.base.errors import IllPosedError, ImageFormatError, NonFiniteError
from latlas.models.protocols import LatentModel, images_at_once
from latlas.numerics.moments import MarginalMoments

_SLACK = 1e-3  # beyond [0, 1]: rounding
_ALIKE = 1e-8  # variance of a pixel over images, at which they count as one and the same


def check_drawn(images: Tensor, model: LatentModel) -> None:
    """Raise unless images that a model drew can be compared with pixels.

    Args:
        images: one or more, `n c h w`.
        model: which drew them.

    Raises:
        ImageFormatError: images of another shape than the model says, or that leave [0, 1].
        NonFiniteError: NaN or infinity among them.
    """
    check_shape(images, model)
    low, high = (float(edge) for edge in images.detach().aminmax())  # NaN if any value is
    if not (abs(low) < torch.inf and abs(high) < torch.inf):
        raise NonFiniteError(
            f"{model.name} draws NaN or infinity for codes of its own: such images cannot be compared with others. Mend the model."
        )
    if low < -_SLACK or high > 1 + _SLACK:
        raise ImageFormatError(
            f"{model.name} draws values from {low:.4g} to {high:.4g}; latlas needs images in [0, 1]. Rescale what its decode returns."
        )


def check_shape(images: Tensor, model: LatentModel, *, count: int | None = None) -> None:
    """Raise unless images that a model drew have the shape that it states.

    Args:
        images: `n c h w`, as they came.
        model: which drew them.
        count: of the codes that it drew them from; None: of no account.

    Raises:
        ImageFormatError: images of another shape, or not one a code.
    """
    if tuple(images.shape[1:]) != tuple(model.image_shape):
        want, got = ("x".join(map(str, shape)) for shape in (model.image_shape, images.shape[1:]))
        raise ImageFormatError(f"{model.name} says that its images have shape {want}, and draws {got}. State its true shape.")
    if count is not None and images.shape[0] != count:
        raise ImageFormatError(f"{model.name} draws {images.shape[0]} images of {count} codes. Let it give one image a code.")


def check_varied(images: Tensor | MarginalMoments, model: LatentModel) -> None:
    """Raise if images that a model drew from different codes are all alike.

    Args:
        images: two or more, `n c h w`; or the moments of their pixels.
        model: which drew them.

    Raises:
        IllPosedError: they are.
    """
    if isinstance(images, Tensor):
        batches = torch.split(images, images_at_once(model.image_shape))
        images = functools.reduce(MarginalMoments.merge, map(MarginalMoments.of, batches))
    if float(images.scatter.mean() / (images.count - 1)) < _ALIKE:
        raise IllPosedError(
            f"{model.name} draws one and the same image whatever the code (collapsed?): there is nothing to invert. Train it again."
        )
