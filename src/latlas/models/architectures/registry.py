"""Architectures by name: from a command line or a saved config to settings, and back."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from latlas.base.errors import SettingError, unknown_name
from latlas.models.architectures.architecture import Architecture, NamedSettings
from latlas.models.architectures.autoencoder_kl import AutoencoderKL
from latlas.models.architectures.conv import Conv
from latlas.models.architectures.dense import Dense
from latlas.models.architectures.draw import Draw
from latlas.models.architectures.resnet import ResNet
from latlas.models.architectures.split import Split

ARCHITECTURES: dict[str, type[Any]] = {kind.name: kind for kind in (Dense, Conv, ResNet, Split, Draw, AutoencoderKL)}


def architecture(name: str, **settings: Any) -> Architecture:
    """Return the architecture of that name with its settings.

    Raises:
        UnknownNameError: no such architecture.
        SettingError: it has no such setting, or the value is out of range.

    >>> architecture("dense", latent=2).latent_shape((1, 28, 28))
    (2,)
    """
    kind = _kind(name)
    known = {field.name for field in fields(kind)}
    for setting in settings:
        if setting not in known:
            raise SettingError(f"The {name} architecture has no setting {setting!r}; it has {', '.join(sorted(known))}.")
    frozen = {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}
    built: Architecture = kind(**frozen)
    return built


def settings_from_text(name: str, texts: Sequence[str], *, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings that came as `name=value`, beside those already given; each is read as its field's type.

    Raises:
        UnknownNameError: no such architecture.
        SettingError: no such setting, one that is given twice, or a value that cannot be read.

    >>> settings_from_text("draw", ["steps=4", "attention=false"], given={"latent": 2})
    {'latent': 2, 'steps': 4, 'attention': False}
    """
    types = {setting.name: setting.type for setting in fields(_kind(name))}
    settings = dict(given)
    for text in texts:
        setting, equals, value = (part.strip() for part in text.partition("="))
        if not equals:
            raise SettingError(f"A setting is written name=value, as latent=8; got {text!r}.")
        if setting in settings:
            raise SettingError(f"The setting {setting!r} of {name} is given twice. Give it once.")
        wanted, read = _READERS.get(types.get(setting, str), ("any text", str))
        try:
            settings[setting] = read(value)
        except (ValueError, KeyError) as failure:
            raise SettingError(f"{name}: {setting} takes {wanted}, got {value!r}.") from failure
    return settings


def architecture_to_json(built: NamedSettings) -> dict[str, Any]:
    """Return the settings with the name, ready for JSON."""
    settings = asdict(built)  # type: ignore[call-overload]
    return {"name": built.name, **{key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()}}


def architecture_from_json(record: Mapping[str, Any]) -> Architecture:
    """Read what `architecture_to_json` wrote."""
    settings = dict(record)
    return architecture(str(settings.pop("name", "")), **settings)


def _kind(name: str) -> type[Any]:
    if name not in ARCHITECTURES:
        raise unknown_name("architecture", name, ARCHITECTURES)
    return ARCHITECTURES[name]


# What a setting's type is called, and how it is read from a command line.
_READERS: dict[Any, tuple[str, Callable[[str], Any]]] = {
    bool: (
        "true or false",
        lambda text: {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[text.lower()],
    ),
    int: ("a whole number", int),
    float: ("a number", float),
    tuple[int, ...]: ("whole numbers with commas between them", lambda text: tuple(int(part) for part in text.split(","))),
}
