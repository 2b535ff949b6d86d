"""`.npy` files that anybody may have written: their headers are looked at before NumPy reads them."""

import ast
import re
import struct
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np

_MAGIC = b"\x93NUMPY"
_LONGEST_HEADER = 10_000  # bytes; numpy.load refuses longer ones by itself, after it has read them
_KEYS = {"descr", "fortran_order", "shape"}


@runtime_checkable
class Readable(Protocol):
    """What bytes are read from."""

    def read(self, size: int, /) -> bytes: ...  # noqa: D102


def open_npy(path: Path, mode: Literal["r", "r+", "c"] = "r") -> "np.memmap[tuple[int, ...], np.dtype]":
    """Return the array of an `.npy` file, mapped: "r" to read, "r+" to write into the file, "c" to write into memory alone.

    Raises:
        OSError: the file cannot be opened.
        ValueError: it is no `.npy` of numbers or text, or is cut short.
    """
    try:
        with path.open("rb") as stream:
            check_header(stream)
        array = np.load(path, mmap_mode="r" if mode == "r+" else mode, allow_pickle=False)
        if isinstance(array, np.memmap):  # NumPy would make a file longer that is opened to be written to
            return np.load(path, mmap_mode=mode, allow_pickle=False) if mode == "r+" else array
    except (OSError, ValueError):
        raise
    except Exception as failure:  # what a header makes NumPy stumble over is no closed list
        raise ValueError(f"its header cannot be used: {type(failure).__name__}") from failure
    raise ValueError(f"{path.name} holds no single array")


def check_header(stream: Readable) -> None:
    """Raise unless an `.npy` file begins with a header that NumPy reads at once.

    Where one is no Python literal NumPy takes it apart word by word, as Python 2 may have written it: of some of 10,000 bytes
    that takes half a minute, and ends in errors that are no ValueError.

    Args:
        stream: at the beginning of the file. Of what does not begin as an `.npy` nothing is said.

    Raises:
        ValueError: it does not.
    """
    start = stream.read(len(_MAGIC) + 2)
    if start[: len(_MAGIC)] != _MAGIC:
        return
    wide = start[len(_MAGIC) :] != b"\x01\x00"  # 4 bytes of length since version 2
    length = stream.read(4 if wide else 2)
    try:
        (size,) = struct.unpack("<I" if wide else "<H", length)
        if size > _LONGEST_HEADER:
            raise ValueError(f"its header is of {size:,} bytes")
        text = stream.read(size).decode("utf-8" if wide else "latin1")
        try:
            header = ast.literal_eval(text)
        except SyntaxError:
            header = ast.literal_eval(re.sub(r"(?<=[0-9])L\b", "", text))  # Python 2 wrote 3L for some 3
        if not isinstance(header, dict) or header.keys() != _KEYS:
            raise ValueError("its header is none")
        if isinstance(header["shape"], tuple) and any(isinstance(size, int) and size < 0 for size in header["shape"]):
            raise ValueError(f"its shape is {header['shape']}")  # older NumPy works one of them out by itself
    except ValueError:
        raise
    except Exception as failure:  # literal_eval has many ways to fail: SyntaxError, MemoryError, RecursionError, TypeError
        raise ValueError(f"its header cannot be read: {type(failure).__name__}") from failure
