"""Which avatars there are: the styles, their factors, and the settings that pin or weigh them.

Nothing here draws, and nothing here imports torch: the worker processes that draw import this module.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from typing import Any, Literal

from latlas.base.errors import MissingExtraError, SettingError, unknown_name

STYLES = {"avatars": "pixel-art", "avatars-peeps": "open-peeps"}  # name in a DATA spec -> style; both are CC0
COUNTS = {"train": 20_000, "test": 5_000}  # images of a split where no count is given
ABSENT = "none"  # the value of a part that is not drawn, and of a colour that no drawn part uses
BACKGROUND = "#ffffff"
_LARGEST_SIZE = 1024  # pixels; a style is a drawing, yet an image set lies in memory as a whole


@dataclass(frozen=True, kw_only=True)
class Factor:
    """One thing that varies: which hat, or which colour the hair has."""

    name: str  # as in tables and specs, for example "facial_hair" or "hair_color"
    option: str  # dicebear's word for it, for example "facialHair" or "hair"
    kind: Literal["part", "color"]
    values: tuple[str, ...]  # equally likely unless weighed; without ABSENT
    presence: float  # the style's own probability that the part is drawn; 1 for colours


@dataclass(frozen=True, kw_only=True)
class AvatarStyle:
    """A style of dicebear-styles: what varies in it, and whose work it is."""

    name: str
    factors: Mapping[str, Factor]
    licence: str
    definition: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class AvatarSettings:
    """Everything that decides a set of avatars.

    Raises:
        UnknownNameError: a style, split, factor or value that does not exist; the nearest is suggested.
        SettingError: a number out of its range, or settings that contradict each other.
        MissingExtraError: the styles are not installed.
    """

    style: str = "pixel-art"
    split: str = "train"  # train and test share no key from which an image is drawn
    size: int = 64  # side, in pixels
    count: int | None = None  # None: 20,000 for train, 5,000 for test
    seed: int = 0
    background: str = BACKGROUND  # #rrggbb; what is transparent is composited on it
    pinned: Mapping[str, str] = field(default_factory=dict)  # factor -> its value in every image that shows it
    # part -> probability that it is drawn, or "factor.value" -> probability of the value where the factor shows
    probabilities: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.style not in STYLES.values():
            raise unknown_name("avatar style", self.style, STYLES.values())
        if self.split not in COUNTS:
            raise unknown_name("split of avatars", self.split, COUNTS)
        if not 1 <= self.size <= _LARGEST_SIZE:
            raise SettingError(f"The size of avatars must lie in [1, {_LARGEST_SIZE}], got {self.size}.")
        if self.count is not None and self.count < 1:
            raise SettingError(f"The count of avatars must be at least 1, got {self.count}.")
        if not re.fullmatch("#[0-9a-f]{6}", self.background):
            raise SettingError(f"The background must be a colour like {BACKGROUND} in lower case, got {self.background!r}.")
        factors = read_style(self.style).factors
        for name, value in self.pinned.items():
            factor = _known(factors, name)
            allowed = (*factor.values, ABSENT) if factor.kind == "part" else factor.values
            if value not in allowed:
                raise unknown_name(f"value of {name}", value, allowed)
        for key, probability in self.probabilities.items():
            name, dot, value = key.partition(".")
            factor = _known(factors, name)
            if not (math.isfinite(probability) and 0.0 <= probability <= 1.0):
                raise SettingError(f"{key} is a probability and must lie in [0, 1], got {probability:g}. For 5 % give 0.05.")
            if name in self.pinned:
                raise SettingError(f"{name} is pinned to {self.pinned[name]} and {key} weighs it. Keep one of the two.")
            if dot and value not in factor.values:
                raise unknown_name(f"value of {name}", value, factor.values)
            if not dot and factor.kind == "color":
                raise SettingError(f"{name} is a colour and has no probability of its own; weigh a value: {name}.VALUE.")
        for factor in factors.values():
            _weights(factor, self.probabilities)
        # Its own, sorted copies: a caller's later change shall not reach a frozen record, nor its order the name.
        object.__setattr__(self, "pinned", dict(sorted(self.pinned.items())))
        object.__setattr__(self, "probabilities", {k: float(p) for k, p in sorted(self.probabilities.items())})

    @property
    def total(self) -> int:
        """How many images the set has."""
        return COUNTS[self.split] if self.count is None else self.count

    @property
    def spec(self) -> str:
        """The DATA spec that gives this set again."""
        name = next(name for name, style in STYLES.items() if style == self.style)
        settings: dict[str, str | int | float] = {}
        for key in ("size", "seed", "background"):
            if getattr(self, key) != AvatarSettings.__dataclass_fields__[key].default:
                settings[key] = getattr(self, key)
        if self.total != COUNTS[self.split]:
            settings["count"] = self.total
        settings.update(self.pinned)
        settings.update(self.probabilities)
        query = "&".join(f"{key}={value}" for key, value in settings.items())
        return f"{name}:{self.split}" + (f"?{query}" if query else "")

    def presence(self, factor: Factor) -> float:
        """Return the probability that a part is drawn, before pinning."""
        return self.probabilities.get(factor.name, factor.presence)

    def weights(self, factor: Factor) -> tuple[float, ...]:
        """Return the probability of each of a factor's values, given that it shows, before pinning."""
        return _weights(factor, self.probabilities)


@lru_cache
def read_style(name: str) -> AvatarStyle:
    """Return a style of the installed dicebear-styles.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        text = (resources.files("dicebear_styles") / f"{name}.json").read_text(encoding="utf-8")
    except ModuleNotFoundError as absent:
        raise missing_extra(absent) from absent
    definition = json.loads(text)
    parts = [
        Factor(
            name=_snake(option),
            option=option,
            kind="part",
            values=tuple(sorted(component["variants"])),
            presence=component.get("probability", 100) / 100,
        )
        for option, component in definition["components"].items()
    ]
    colors = [
        Factor(name=f"{_snake(option)}_color", option=option, kind="color", values=tuple(color["values"]), presence=1.0)
        for option, color in definition["colors"].items()
    ]
    return AvatarStyle(
        name=name,
        factors={factor.name: factor for factor in (*parts, *colors)},
        licence=definition["meta"]["license"]["text"],
        definition=definition,
    )


def missing_extra(absent: ModuleNotFoundError) -> MissingExtraError:
    """Return the error for a package of the extra `avatars` that is not installed."""
    return MissingExtraError(
        f"Avatars are drawn by dicebear-core, dicebear-styles and resvg-py (no module {absent.name}). "
        "Install them: pip install 'latlas[avatars]'"
    )


def _known(factors: Mapping[str, Factor], name: str) -> Factor:
    if name not in factors:
        raise unknown_name("factor of avatars", name, factors)
    return factors[name]


def _weights(factor: Factor, probabilities: Mapping[str, float]) -> tuple[float, ...]:
    given = {
        value: probabilities[f"{factor.name}.{value}"] for value in factor.values if f"{factor.name}.{value}" in probabilities
    }
    total = math.fsum(given.values())
    others = len(factor.values) - len(given)
    if total > 1.0 + 1e-9 or (others == 0 and total < 1.0 - 1e-9):
        raise SettingError(f"The probabilities of {factor.name}'s values add up to {total:g}; together they must make 1.")
    rest = max(0.0, 1.0 - total) / others if others else 0.0
    return tuple(given.get(value, rest) for value in factor.values)


def _snake(option: str) -> str:
    return re.sub("[A-Z]", lambda letter: f"_{letter[0].lower()}", option)
