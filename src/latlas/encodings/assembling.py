"""From shards to a whole encoding: each of its files has as many rows, whatever was skipped or appended."""

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from latlas.base.npy import open_npy
from latlas.encodings.arrays import Written, read_header, write_array
from latlas.encodings.shards import PARTS, file_name

_ROWS = 4096  # copied at a time
NO_LABEL = -1  # of rows without a label in an encoding where others have one


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Consecutive rows of an encoding, in files of their own."""

    rows: int
    files: dict[str, Path]  # part -> its file
    hashes: dict[str, str]  # part -> SHA-256 of its file

    def array(self, part: str) -> np.ndarray:
        """Return one part, mapped; made up where this piece has none and others have: a name, a label."""
        if part in self.files:
            return open_npy(self.files[part])
        if part == "names":
            return np.array([f"#{index}" for index in open_npy(self.files["indices"])])
        if part == "labels":
            return np.full(self.rows, NO_LABEL, dtype=np.int64)
        raise ValueError(f"a stretch of {self.rows} rows has no {part}, which others have")


def whole_name(part: str, number: int, shards: int) -> str:
    """Return what the file of a part is called in an encoding of so many shards."""
    return f"{part}.npy" if shards == 1 else file_name(part, number)


def shards_of(rows: int, shard_rows: int) -> int:
    """Return how many shards an encoding of so many rows has."""
    return max(1, -(-rows // shard_rows))


def assemble(pieces: Sequence[Piece], folder: Path, *, shard_rows: int) -> dict[str, str]:
    """Put the rows of all pieces into a folder, `shard_rows` to a file; return the SHA-256 of each file.

    A piece that is one shard already is linked, not copied; at most a few thousand rows are in memory.

    Raises:
        OSError: a file could not be written.
    """
    total = sum(piece.rows for piece in pieces)
    shards = shards_of(total, shard_rows)
    parts = [part for part in PARTS if any(part in piece.files for piece in pieces)]
    starts = np.cumsum([0, *(piece.rows for piece in pieces)]).tolist()
    hashes: dict[str, str] = {}
    first = 0  # piece that the shard begins in
    for number in range(shards):
        start, stop = number * shard_rows, min(total, (number + 1) * shard_rows)
        while starts[first + 1] <= start:
            first += 1
        last = first
        while starts[last + 1] < stop:
            last += 1
        own = [
            (piece, max(start - begin, 0), min(stop - begin, piece.rows))
            for piece, begin in zip(pieces[first : last + 1], starts[first : last + 1], strict=True)
        ]
        for part in parts:
            path = folder / whole_name(part, number, shards)
            piece, lower, upper = own[0]
            if len(own) == 1 and (lower, upper) == (0, piece.rows) and part in piece.files:
                _link(piece.files[part], path)
                hashes[path.name] = piece.hashes[part]
            else:
                hashes[path.name] = _join(path, part, own).sha256
    return hashes


def _join(path: Path, part: str, own: Sequence[tuple[Piece, int, int]]) -> Written:
    rows = sum(upper - lower for _, lower, upper in own)
    first = own[0][0].array(part)
    # Text has the width of the longest name of each file.
    dtype = np.result_type(*(_type(piece, part) for piece, _, _ in own))
    return write_array(path, dtype, (rows, *first.shape[1:]), _chunks(part, own))


def _type(piece: Piece, part: str) -> np.dtype:
    return read_header(piece.files[part]).dtype if part in piece.files else piece.array(part).dtype


def _chunks(part: str, own: Sequence[tuple[Piece, int, int]]) -> Iterator[np.ndarray]:
    for piece, lower, upper in own:
        array = piece.array(part)
        for start in range(lower, upper, _ROWS):
            yield array[start : min(start + _ROWS, upper)]


def _link(source: Path, path: Path) -> None:
    try:
        os.link(source, path)
    except OSError:  # a file system without links, or one that has them on one disk only
        shutil.copyfile(source, path)
