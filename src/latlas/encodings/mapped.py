"""Codes that stay on disk: mapped into memory as a tensor, and passed over in batches that leave no trace there."""

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary


@dataclass(frozen=True, eq=False)
class _Pages:
    """A second mapping of the file behind a tensor: what it holds in memory may be let go at any time."""

    pages: mmap.mmap
    rows: Tensor
    offset: int  # bytes before the first row

    def release(self, start: int, stop: int) -> None:
        """Let go of the memory behind rows [start, stop): they can be read again, from the file."""
        if not hasattr(self.pages, "madvise") or not self.rows.numel():  # Windows has no such call, and no need to fail
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
    array = np.load(path, mmap_mode="c", allow_pickle=False)
    if not isinstance(array, np.memmap):
        raise ValueError(f"{path.name} holds no single array")
    try:
        rows = torch.from_numpy(array)
    except TypeError as failure:  # of text, or in another machine's byte order
        raise ValueError(f"{path.name} holds {array.dtype}, which is no tensor's type") from failure
    if array.flags.c_contiguous and array.ndim and array.size:
        with path.open("rb") as file:
            pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        again = np.frombuffer(pages, dtype=array.dtype, count=array.size, offset=array.offset).reshape(array.shape)
        _MAPPED[rows] = _Pages(pages, torch.from_numpy(again), array.offset)
    return rows


def batches(rows: Tensor, size: int) -> Iterator[Tensor]:
    """Yield `size` rows at a time; of rows that `map_rows` gave, only the batch in use is in memory.

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
