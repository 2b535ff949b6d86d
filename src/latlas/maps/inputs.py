"""What every fit is given: codes or an encoding of them, and a ridge."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from latlas.base.errors import CodeShapeError, SettingError, unknown_name
from latlas.encodings.encoding import Encoding


def codes_of(given: Tensor | Encoding) -> Tensor:
    """Return codes: those given, or the means of an encoding."""
    return given.mean if isinstance(given, Encoding) else given


def name_of(given: Tensor | Encoding | str, otherwise: str) -> str:
    """Return the name of a latent space, where an encoding or its name is given."""
    if isinstance(given, Encoding):
        return given.model
    return given if isinstance(given, str) else otherwise


def fingerprint_of(given: Tensor | Encoding | str) -> str | None:
    """Return the fingerprint of the model that an encoding was made by; None where it is not known."""
    return given.provenance.model if isinstance(given, Encoding) else None


def exact_type(codes: Tensor) -> torch.dtype:
    """Return the type that codes are mapped in: float64, but on Apple's devices, which know none."""
    return torch.float32 if codes.device.type == "mps" else torch.float64


def answer_type(codes: Tensor) -> torch.dtype:
    """Return the type of mapped codes: the one they came in, unless that holds whole numbers alone and would cut them off."""
    return codes.dtype if codes.is_floating_point() else exact_type(codes)


def check_follows(end: tuple[str, str | None], start: tuple[str, str | None]) -> None:
    """Raise if a map is known to start in another model's space than the one before it ends in.

    Args:
        end: name and fingerprint of the first map's target; None where it is not known.
        start: of the second map's source.

    Raises:
        CodeShapeError: both models are known, and differ.
    """
    if None not in (end[1], start[1]) and end[1] != start[1]:
        raise CodeShapeError(
            f"The first map ends in codes of {end[0]} (weights {str(end[1])[:12]}), the second takes those of {start[0]} (weights "
            f"{str(start[1])[:12]}): the same numbers mean other images there. Fit one from the first map's target."
        )


def check_ridge(ridge: float | str | None, words: Sequence[str]) -> None:
    """Raise unless a fit can be asked for this ridge.

    Args:
        ridge: a number of at least 0, one of the words, or None.
        words: ways to choose it that the fit knows.

    Raises:
        UnknownNameError: another word.
        SettingError: a negative or non-finite number.
    """
    if isinstance(ridge, str):
        if ridge not in words:
            raise unknown_name("ridge", ridge, words, hint="Or give a number, or None.")
    elif ridge is not None and (isinstance(ridge, bool) or not (ridge >= 0.0 and math.isfinite(ridge))):
        raise SettingError(f"Ridge must be a finite number of at least 0, got {ridge}.")
