"""The images that an encoding, or a shard of one, leaves out: in its record where they are few, else in a file of their own."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from latlas.data.images import SkippedImage
from latlas.encodings.arrays import Written, write_bytes

LEFT_OUT = "skipped.jsonl"
_LONGEST_LINE = 2**20  # characters: of a longer one the rest is no JSON, and is refused as such
_KINDS = {"index": int, "name": str, "reason": str}
MOST_IN_RECORD = 1000  # a record is read whole, as what it may be: of a stranger, and no more than 64 MB


def keep_left_out(
    skipped: Sequence[SkippedImage], folder: Path, *, name: str = LEFT_OUT
) -> tuple[list[dict[str, Any]], dict[str, Written]]:
    """Return what a record says of the images, and what was written into the folder instead, by its name, if anything was.

    The file has a JSON object a line: index, name, reason.

    Raises:
        OSError: it could not be written.
    """
    if len(skipped) <= MOST_IN_RECORD:
        return [asdict(each) for each in skipped], {}
    lines = ((json.dumps(asdict(each), sort_keys=True) + "\n").encode() for each in skipped)
    return [], {name: write_bytes(folder / name, lines)}


def read_left_out(
    folder: Path, listed: Sequence[Mapping[str, Any]], files: Mapping[str, Any], *, name: str = LEFT_OUT
) -> tuple[SkippedImage, ...]:
    """Return the images that were left out.

    Args:
        folder: where the file is, if there is one.
        listed: those in the record.
        files: the names of the record's files.
        name: what the file is called.

    Raises:
        OSError, ValueError, TypeError: a file that cannot be read, or a record that was never written.
    """
    found = tuple(map(_of_record, listed))
    if name not in files:
        return found
    with (folder / name).open(encoding="utf-8") as lines:
        return (*found, *map(_read, iter(lambda: lines.readline(_LONGEST_LINE), "")))


def _read(line: str) -> SkippedImage:
    try:
        found = json.loads(line)
    except RecursionError as failure:
        raise ValueError("an image that was left out is told in brackets within brackets") from failure
    return _of_record(found)


def _of_record(record: Any) -> SkippedImage:
    known = isinstance(record, Mapping) and record.keys() == _KINDS.keys()
    if not known or not all(isinstance(record[key], kind) for key, kind in _KINDS.items()):
        raise ValueError("an image that was left out is told in other words than latlas writes")
    return SkippedImage(**record)
