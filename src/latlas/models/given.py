"""What a user hands in for a model or for images: told from what only looks like one, before any work."""

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from latlas.base.errors import CapabilityError, ImageFormatError, SettingError

_OF_A_MODEL = ("name", "image_shape", "latent_shape")
_OF_IMAGES = ("name", "image_shape", "batches")
_OF_A_SOURCE = ("name", "image_shape", "blocks")
_HOLDERS = ("model", "recoder")  # where results of trainings and prunings keep what they made

# Layers whose answer in training mode depends on chance, or on the other images of a batch; the latter learn from every look.
_DROPS = (nn.modules.dropout._DropoutNd, nn.RReLU)  # what all kinds of dropout have in common
_LEARNS = (nn.modules.batchnorm._BatchNorm,)


def check_model(model: object, question: str) -> None:
    """Raise unless something is a model, and at rest: what is in training mode answers by chance, and learns from being asked.

    Args:
        model: what came.
        question: "A diagnosis", for the message.

    Raises:
        CapabilityError: it is none; says how to make one of it.
        SettingError: batch normalisation or dropout in it are in training mode.
    """
    if not _has_all(model, _OF_A_MODEL):
        raise CapabilityError(f"{question} needs a model, got {described(model)}. {_way_to_a_model(model)}")
    name: Any = model.name  # type: ignore[attr-defined]
    kinds = dict.fromkeys(type(part).__name__ for network in _networks(model) for part in _in_training(network))
    if kinds:
        raise SettingError(
            f"{name} is in training mode: its layers {', '.join(kinds)} would answer by chance or by the company that an image has, and "
            "batch normalisation would learn from being looked at. Call eval() on it first."
        )


def check_image_set(images: object, question: str) -> None:
    """Raise unless something is an ImageSet.

    Args:
        images: what came.
        question: "A diagnosis", for the message.

    Raises:
        ImageFormatError: it is none; says how to make one of it.
    """
    _check_images(images, _OF_IMAGES, question)


def check_image_source(images: object, question: str) -> None:
    """Raise unless something gives images block by block, as an ImageSet does and what lies on disk.

    Args:
        images: what came.
        question: "Encoding", for the message.

    Raises:
        ImageFormatError: it does not; says how to make an ImageSet of it.
    """
    _check_images(images, _OF_A_SOURCE, question)


def described(value: object) -> str:
    """Return in words what came.

    >>> described("mnist"), described([1, 2]), described(np.zeros((2, 3)))
    ("the text 'mnist'", 'a list of 2', 'an array of 2x3')
    """
    if isinstance(value, str | Path):
        return f"the text {str(value)!r}"
    if isinstance(value, Tensor | np.ndarray):
        return f"{'a tensor' if isinstance(value, Tensor) else 'an array'} of {'x'.join(map(str, value.shape)) or 'one number'}"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, type):
        return f"the class {value.__name__} itself"
    name = type(value).__name__
    return "None" if value is None else f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def _check_images(images: object, parts: tuple[str, ...], question: str) -> None:
    if not _has_all(images, parts):
        raise ImageFormatError(f"{question} needs images as an ImageSet, got {described(images)}. {_way_to_images(images)}")


def _way_to_a_model(came: object) -> str:
    if isinstance(came, str | Path):
        return f"Load it: latlas.load_model({str(came)!r})."
    holder = next((field for field in _HOLDERS if _has_all(getattr(came, field, None), _OF_A_MODEL)), None)
    if holder is not None:
        return f"Give its .{holder}."
    if isinstance(came, nn.Module):
        return "Wrap it: latlas.from_module(it, image_shape=(1, 28, 28), latent_shape=(16,)), with the shapes that it has."
    return "Load one with latlas.load_model, or make one with latlas.from_module or latlas.CallableModel."


def _way_to_images(came: object) -> str:
    if isinstance(came, str | Path):
        return f"Load them: latlas.load_images({str(came)!r})."
    if hasattr(came, "blocks"):
        return "That gives its pixels block by block, for latlas.encode; here they are needed in memory: latlas.load_images."
    tensor = "torch.from_numpy(array)" if isinstance(came, np.ndarray) else "tensor"
    return f'Make one: latlas.ImageSet("a name", {tensor}), n x c x h x w, of float32 in [0, 1] or of uint8.'


def _networks(model: object) -> list[nn.Module]:
    """Return the networks that a model computes with, as far as it tells of them."""
    told: Any = getattr(model, "networks", ())
    return [each for each in (model, *(told if isinstance(told, tuple) else ())) if isinstance(each, nn.Module)]


def _in_training(network: nn.Module) -> list[nn.Module]:
    drops = [part for part in network.modules() if isinstance(part, _DROPS) and part.training and getattr(part, "p", 1.0) > 0]
    return drops + [part for part in network.modules() if isinstance(part, _LEARNS) and part.training]


def _has_all(value: object, parts: tuple[str, ...]) -> bool:
    return not isinstance(value, type) and all(hasattr(value, part) for part in parts)
