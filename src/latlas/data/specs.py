"""The settings that stand in a DATA spec after its `?`, as in `avatars:train?hat=0.01&size=32`."""

import re

from latlas.base.errors import SettingError

LARGEST_SIDE = 2**14  # pixels of an image: an image in colour then takes 800 MB


def parse_query(spec: str) -> tuple[str, dict[str, str]]:
    """Split a spec into what stands before the first `?` and the settings after it.

    Settings are `key=value`, separated by `&` or by `,` (which a shell leaves alone).

    Raises:
        SettingError: a setting without a value, or one that stands there twice.

    >>> parse_query("avatars:test?hat=0.01,size=32")
    ('avatars:test', {'hat': '0.01', 'size': '32'})
    """
    base, mark, query = spec.partition("?")
    if not mark:
        return base, {}
    settings: dict[str, str] = {}
    for piece in re.split("[&,]", query):
        key, equals, value = (part.strip() for part in piece.partition("="))
        if not (key and equals and value):
            raise SettingError(f"{spec}: expected key=value after the '?', got {piece!r}. Write for example ?size=64&seed=1")
        if key in settings:
            raise SettingError(f"{spec}: {key} is set twice, to {settings[key]} and to {value}. Keep one.")
        settings[key] = value
    return base, settings


def whole_number(key: str, value: str) -> int:
    """Return the whole number that a setting gives.

    Raises:
        SettingError: it is none.
    """
    try:
        return int(value)
    except ValueError:
        raise SettingError(f"{key} must be a whole number, got {value!r}.") from None


def agreed_size(spec: str, named: int | None, asked: int | None, default: int) -> int:
    """Return the image side that the spec names, or that the caller asks for beside it.

    Raises:
        SettingError: they name two different ones, or one above `LARGEST_SIDE`.
    """
    if max(named or 0, asked or 0) > LARGEST_SIDE:
        raise SettingError(f"{spec}: images have at most {LARGEST_SIDE:,} pixels a side, got {max(named or 0, asked or 0)}.")
    if named is not None and asked is not None and named != asked:
        raise SettingError(f"{spec} says size={named}, and a size of {asked} was asked for beside it. Give one of them.")
    return named if named is not None else asked if asked is not None else default
