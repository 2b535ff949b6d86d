"""The files that a spec names when it names several: `x-{000..009}.tar`, `x-{a,b}.tar`, `x-*.tar`."""

import glob
import os
import re
from collections import Counter
from pathlib import Path

from latlas.base.errors import MissingPathError, SettingError

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d{1,18})\.\.(\d{1,18})")
_MOST_BRACES = 20
_MOST = 1_000_000
_MOST_SIGNS = 2**26  # of all the names of a pattern together


def expand_braces(pattern: str) -> list[str]:
    """Return the names that a pattern with braces stands for, in its order.

    Raises:
        SettingError: braces that hold neither a range of numbers nor a list, or stand for over a million names.

    >>> expand_braces("x-{08..10}.tar"), expand_braces("{a,b}.tar")
    (['x-08.tar', 'x-09.tar', 'x-10.tar'], ['a.tar', 'b.tar'])
    """
    if pattern.count("{") > _MOST_BRACES:
        raise SettingError(f"A pattern may have {_MOST_BRACES} pairs of braces, got {pattern.count('{')}.")
    match = _BRACES.search(pattern)
    if match is None:
        return [pattern]
    inner = match[1]
    numbers = _RANGE.fullmatch(inner)
    if numbers:
        first, last = int(numbers[1]), int(numbers[2])
        if not first <= last < first + _MOST:
            raise SettingError(f"{pattern}: the range {{{inner}}} must rise, and name at most {_MOST:,} files.")
        values = [str(value).zfill(len(numbers[1])) for value in range(first, last + 1)]
    elif "," in inner:
        values = inner.split(",")
    else:
        raise SettingError(f"{pattern}: expected a range like {{000..009}} or a list like {{a,b}}, got {{{inner}}}.")
    rest = expand_braces(pattern[match.end() :])
    if len(values) * len(rest) > _MOST:
        raise SettingError(f"{pattern} stands for more than {_MOST:,} files.")
    if len(values) * len(rest) * len(pattern) > _MOST_SIGNS:
        raise SettingError(f"{pattern} stands for {len(values) * len(rest):,} long names. Write a * in place of the braces.")
    return [f"{pattern[: match.start()]}{value}{tail}" for value in values for tail in rest]


def shard_paths(pattern: str) -> list[Path]:
    """Return the files that a pattern names: braces in their order, what `*`, `?` and `[...]` find sorted by name.

    Raises:
        MissingPathError: a name without a file, or a pattern that fits none.
        SettingError: as `expand_braces`, or a file that is named twice.
    """
    paths: list[Path] = []
    for name in [pattern] if os.path.isfile(pattern) else expand_braces(pattern):  # noqa: PTH113  # a Path raises where no file could have that name
        path = Path(os.path.expanduser(name))  # noqa: PTH111  # likewise for a user that does not exist
        if os.path.isfile(path):  # noqa: PTH113
            paths.append(path)
            continue
        try:
            found = [Path(text) for text in sorted(glob.glob(str(path))) if Path(text).is_file()]  # noqa: PTH207 - the pattern may be absolute
        except ValueError:  # signs that no file's name can have
            found = []
        if not found:
            fitting = " fits the pattern" if glob.has_magic(name) else ""
            raise MissingPathError(f"No file {path}{fitting}.")
        paths.extend(found)
    twice = next((path for path, times in Counter(paths).items() if times > 1), None)
    if twice is not None:
        raise SettingError(f"{pattern} names {twice} twice.")
    return paths
