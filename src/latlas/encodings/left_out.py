"""The images that an encoding leaves out: in its config where they are few, else in a file of their own."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from latlas.data.images import SkippedImage
from latlas.encodings.arrays import write_bytes

LEFT_OUT = "skipped.jsonl"
MOST_IN_CONFIG = 1000  # a config is read whole, as what it may be: of a stranger, and no more than 64 MB


def keep_left_out(skipped: Sequence[SkippedImage], folder: Path) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Return what a config says of the images, and the SHA-256 of the file that was written into the folder instead, if one was.

    The file has a JSON object a line: index, name, reason.

    Raises:
        OSError: it could not be written.
    """
    if len(skipped) <= MOST_IN_CONFIG:
        return [asdict(each) for each in skipped], {}
    lines = ((json.dumps(asdict(each), sort_keys=True) + "\n").encode() for each in skipped)
    return [], {LEFT_OUT: write_bytes(folder / LEFT_OUT, lines).sha256}


def read_left_out(folder: Path, record: Mapping[str, Any]) -> tuple[SkippedImage, ...]:
    """Return the images that a stored encoding leaves out.

    Raises:
        OSError, ValueError, TypeError: a file that cannot be read, or a record that was never written.
    """
    listed = tuple(SkippedImage(**each) for each in record["settings"].get("skipped", ()))
    if LEFT_OUT not in record["files"]:
        return listed
    with (folder / LEFT_OUT).open(encoding="utf-8") as lines:
        return (*listed, *(SkippedImage(**json.loads(line)) for line in lines))
