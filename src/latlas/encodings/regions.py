"""The data of several files side by side in one stretch of addresses: one array, and nothing copied."""

import ctypes
import errno
import mmap
import os
import sys
import weakref
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

PIECE = 4096  # bytes: what each part's place and size in its file must be a multiple of (the last part's size excepted)

_NO_ACCESS, _READ_AND_WRITE = 0, 3
_FIXED = 0x10  # the same on Linux and macOS; Python's mmap does not name it


class Region:
    """A private mapping of parts of files, one behind the other; an array in the sense of NumPy.

    What is written into it changes no file. The addresses are given back when nothing refers to the region any more.

    Args:
        parts: path, offset and size in bytes of each; offsets and sizes are multiples of `PIECE`, the last size excepted.
        dtype: of the array that all together hold.
        shape: of that array.

    Raises:
        OSError: a file cannot be mapped, or there are more than the system maps at once.
    """

    def __init__(self, parts: Sequence[tuple[Path, int, int]], dtype: np.dtype, shape: tuple[int, ...]) -> None:
        total = sum(size for _, _, size in parts)
        self.size = -(-total // mmap.PAGESIZE) * mmap.PAGESIZE
        self.address = _map(None, self.size, _NO_ACCESS, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
        # At the end of the process the system takes everything back; till then somebody may still be reading.
        weakref.finalize(self, _library().munmap, self.address, self.size).atexit = False
        place = self.address
        for path, offset, size in parts:
            descriptor = os.open(path, os.O_RDONLY)
            try:
                _map(place, size, _READ_AND_WRITE, mmap.MAP_PRIVATE | _FIXED, descriptor, offset)
            finally:
                os.close(descriptor)
            place += size
        self.__array_interface__ = {"version": 3, "data": (self.address, False), "typestr": dtype.str, "shape": shape}

    def __len__(self) -> int:
        return self.size

    def madvise(self, option: int, start: int, length: int, /) -> None:
        """Tell the system what will become of bytes [start, start + length), as `mmap.mmap.madvise`."""
        if not 0 <= start <= start + length <= self.size:
            raise ValueError(f"bytes {start} to {start + length} of {self.size}")
        if _library().madvise(self.address + start, length, option) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def can_join() -> bool:
    """Tell whether this system maps files side by side at offsets of `PIECE` bytes."""
    known = sys.platform in ("linux", "darwin") and ctypes.sizeof(ctypes.c_void_p) == 8
    return known and mmap.PAGESIZE <= PIECE


@cache
def _library() -> Any:
    library = ctypes.CDLL(None, use_errno=True)
    library.mmap.restype = ctypes.c_void_p
    library.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    library.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    library.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return library


def _map(place: int | None, size: int, access: int, flags: int, descriptor: int, offset: int) -> int:
    found = _library().mmap(place, size, access, flags, descriptor, offset)
    if found is None or found == ctypes.c_void_p(-1).value:
        number = ctypes.get_errno()
        many = "; of files, the system maps no more than vm.max_map_count says" if number == errno.ENOMEM else ""
        raise OSError(number, f"{os.strerror(number)}{many}")
    return int(found)
