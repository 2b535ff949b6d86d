"""Architectures by name: from a command line or a saved config to settings, and back."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from latlas.base.errors import SettingError, unknown_name
from latlas.models.architectures.architecture import Architecture
from latlas.models.architectures.conv import Conv
from latlas.models.architectures.dense import Dense

ARCHITECTURES: dict[str, type[Any]] = {kind.name: kind for kind in (Dense, Conv)}


def architecture(name: str, **settings: Any) -> Architecture:
    """Return the architecture of that name with its settings.

    Raises:
        UnknownNameError: no such architecture.
        SettingError: it has no such setting, or the value is out of range.

    >>> architecture("dense", latent=2).latent_shape((1, 28, 28))
    (2,)
    """
    if name not in ARCHITECTURES:
        raise unknown_name("architecture", name, ARCHITECTURES)
    kind = ARCHITECTURES[name]
    known = {field.name for field in fields(kind)}
    for setting in settings:
        if setting not in known:
            raise SettingError(f"The {name} architecture has no setting {setting!r}; it has {', '.join(sorted(known))}.")
    frozen = {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}
    built: Architecture = kind(**frozen)
    return built


def architecture_to_json(built: Architecture) -> dict[str, Any]:
    """Return the settings with the name, ready for JSON."""
    settings = asdict(built)  # type: ignore[call-overload]
    return {"name": built.name, **{key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()}}


def architecture_from_json(record: Mapping[str, Any]) -> Architecture:
    """Read what `architecture_to_json` wrote."""
    settings = dict(record)
    return architecture(str(settings.pop("name", "")), **settings)
