"""What a training is asked with: numbers that artifacts can hold, callbacks, and gradients, whatever the caller switched off."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral, Real
from typing import overload

import lightning.pytorch as L
import torch

from latlas.base.errors import SettingError
from latlas.models.given import described


@overload
def whole(value: int, what: str) -> int: ...
@overload
def whole(value: int | None, what: str) -> int | None: ...
def whole(value: object, what: str) -> int | None:
    """Return a whole number as Python has it, so that an artifact can record it; None stays None.

    Args:
        value: of Python's own type, or another's as numpy.int64.
        what: "epochs", for the message.

    Raises:
        SettingError: it is none.
    """
    if value is None:
        return None
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise SettingError(f"The {what} of a training must be a whole number, got {value!r}.")
    return int(value)


def number(value: object, what: str) -> float | int:
    """Return a number as Python has it; a whole one stays whole, so that an artifact records it as it was given.

    Raises:
        SettingError: it is none.
    """
    if not isinstance(value, Real) or isinstance(value, bool):
        raise SettingError(f"The {what} of a training must be a number, got {value!r}.")
    return int(value) if isinstance(value, Integral) else float(value)


def checked_seed(value: object) -> int:
    """Return a seed as Python has it: two that are written differently (0 and 0.0) would decide differently.

    Raises:
        SettingError: it is no whole number.
    """
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise SettingError(f"A seed is a whole number, got {value!r}. Every training has one; 0 if none is given.")
    return int(value)


def checked_callbacks(given: object) -> tuple[L.Callback, ...]:
    """Return callbacks, given as a sequence of them.

    Raises:
        SettingError: they are none.
    """
    if isinstance(given, L.Callback):
        return (given,)
    found = tuple(given) if isinstance(given, Sequence) else (given,)
    for each in found:
        if not isinstance(each, L.Callback):
            raise SettingError(
                f"A callback is a lightning.pytorch.Callback, as latlas.LatentHealth(images); got {described(each)}. For a function "
                "that is told how far the training is, use progress=."
            )
    return found


@contextmanager
def learning() -> Iterator[None]:
    """Have gradients within the block, though the caller works under `no_grad` or `inference_mode` as notebooks do.

    Raises:
        SettingError: torch makes numbers of another type than float32 by default, which networks here are not made for.
    """
    if torch.get_default_dtype() != torch.float32:
        raise SettingError(
            f"Networks here learn in float32, and torch's default type is {torch.get_default_dtype()}. Call "
            "torch.set_default_dtype(torch.float32)."
        )
    with torch.inference_mode(mode=False), torch.enable_grad():
        yield
