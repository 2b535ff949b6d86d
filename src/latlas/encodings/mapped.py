"""Codes that stay on disk: mapped into memory as a tensor, and passed over in batches that leave no trace there."""

import mmap
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from latlas.base.npy import open_npy
from latlas.encodings.arrays import ArrayHeader, read_header
from latlas.encodings.regions import PIECE, Region, can_join

_COPIED = 2**24  # bytes at a time


@runtime_checkable
class _Mapping(Protocol):
    """A mapping of files whose memory may be let go."""

    def __len__(self) -> int: ...
    def madvise(self, option: int, start: int, length: int, /) -> None: ...


@dataclass(frozen=True, eq=False)
class _Pages:
    """A second mapping of the files behind a tensor: what it holds in memory may be let go at any time."""

    pages: _Mapping
    rows: Tensor
    offset: int  # bytes before the first row

    def release(self, start: int, stop: int) -> None:
        """Let go of the memory behind rows [start, stop): they can be read again, from the file."""
        if not hasattr(mmap, "MADV_DONTNEED") or not self.rows.numel():  # Windows has no such call, and no need to fail
            return
        width = self.rows[0].numel() * self.rows.element_size()
        first = (self.offset + start * width) // mmap.PAGESIZE * mmap.PAGESIZE
        last = min(self.offset + stop * width, len(self.pages))
        if last > first:
            self.pages.madvise(mmap.MADV_DONTNEED, first, last - first)


# By identity: what is made from a mapped tensor (a slice, a copy in another type) is no longer the file's content.
_MAPPED = WeakIdKeyDictionary()


def map_rows(path: Path) -> Tensor:
    """Return the array in an `.npy` file as a tensor that is read from disk where it is used.

    Writing into the tensor changes neither the file nor what another mapping of it sees.

    Raises:
        OSError, ValueError: no readable `.npy` of numbers that a tensor can hold.
    """
    array = open_npy(path, "c")
    rows = _tensor(array, path.name)
    if array.flags.c_contiguous and array.ndim and array.size:
        with path.open("rb") as file:
            pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        again = np.frombuffer(pages, dtype=array.dtype, count=array.size, offset=array.offset).reshape(array.shape)
        _MAPPED[rows] = _Pages(pages, torch.from_numpy(again), array.offset)
    return rows


def map_joined(paths: Sequence[Path], *, again: bool = True) -> Tensor:
    """Return the arrays in several `.npy` files, one behind the other, as one tensor that is read from disk where it is used.

    Where the system can map them side by side nothing is copied; else they are copied into a file without a name, beside them
    if that folder can be written to, which goes when the tensor does. Writing into the tensor changes no file.

    Args:
        paths: of the files.
        again: whether `batches` shall leave no trace in memory, which takes a second mapping of each file.

    Raises:
        OSError, ValueError: no readable `.npy` files of numbers, or arrays that do not continue one another.
    """
    headers = [read_header(path) for path in paths]
    first = headers[0]
    for path, header in zip(paths, headers, strict=True):
        if (header.dtype, header.shape[1:], header.rows_first) != (first.dtype, first.shape[1:], True) or not header.shape:
            raise ValueError(f"{path.name} does not continue {paths[0].name}")
        if path.stat().st_size < header.offset + _size(header):
            raise ValueError(f"{path.name} is cut short")
    shape = (sum(header.shape[0] for header in headers), *first.shape[1:])
    if 0 in shape:
        return _tensor(np.empty(shape, dtype=first.dtype), paths[0].name)
    aligned = all(header.offset % PIECE == 0 and _size(header) % PIECE == 0 for header in headers[:-1])
    if can_join() and aligned and headers[-1].offset % PIECE == 0:
        parts = [
            (path, header.offset, _size(header)) for path, header in zip(paths, headers, strict=True) if _size(header)
        ]  # the system maps nothing of nothing
        rows = _tensor(np.asarray(Region(parts, first.dtype, shape)), paths[0].name)
        if again:
            pages = Region(parts, first.dtype, shape)
            _MAPPED[rows] = _Pages(pages, torch.from_numpy(np.asarray(pages)), 0)
        return rows
    with _nameless(paths[0].parent) as file:
        for path, header in zip(paths, headers, strict=True):
            _copy_data(path, header, file)
        file.flush()
        array = np.memmap(file, dtype=first.dtype, mode="c", shape=shape)
        copied = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    rows = _tensor(array, paths[0].name)
    _MAPPED[rows] = _Pages(copied, torch.from_numpy(np.frombuffer(copied, dtype=first.dtype).reshape(shape)), 0)
    return rows


def batches(rows: Tensor, size: int) -> Iterator[Tensor]:
    """Yield `size` rows at a time; of rows that `map_rows` or `map_joined` gave, only the batch in use is in memory.

    A batch is to be read before the next one is asked for, and not to be written to.
    """
    found = _pages_of(rows)
    if found is None:
        yield from torch.split(rows, size)
        return
    whole = found.rows.view(rows.shape)
    for start in range(0, rows.shape[0], size):
        stop = min(start + size, rows.shape[0])
        yield whole[start:stop]
        found.release(start, stop)


def _pages_of(rows: Tensor) -> _Pages | None:
    if rows.is_inference():
        return None
    whole = rows if rows._base is None else rows._base  # of the same codes in another shape
    found: _Pages | None = _MAPPED.get(whole)  # type: ignore[no-untyped-call]
    same = (
        rows.numel() == whole.numel()
        and rows.is_contiguous()
        and rows.shape[:1] == whole.shape[:1]
        and rows.dtype == whole.dtype
    )
    # Rows that somebody has written to since are no longer those of the file.
    return found if same and rows._version == 0 else None


def _tensor(array: Any, name: str) -> Tensor:
    try:
        return torch.from_numpy(array)
    except TypeError as failure:  # of text, or in another machine's byte order
        raise ValueError(f"{name} holds {array.dtype}, which is no tensor's type") from failure


def _size(header: ArrayHeader) -> int:
    return int(np.prod(header.shape)) * header.dtype.itemsize


def _nameless(folder: Path) -> Any:
    try:
        return tempfile.TemporaryFile(dir=folder)
    except OSError:  # a folder that is not to be written to
        return tempfile.TemporaryFile()


def _copy_data(path: Path, header: ArrayHeader, file: BinaryIO) -> None:
    with path.open("rb") as stream:
        stream.seek(header.offset)
        left = _size(header)
        while left and (piece := stream.read(min(left, _COPIED))):
            file.write(piece)
            left -= len(piece)
