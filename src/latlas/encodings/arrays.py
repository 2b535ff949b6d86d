"""Arrays in `.npy` files that are written whole or not at all, their data on pages of its own: several can be mapped as one."""

import contextlib
import hashlib
import os
import secrets
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np

from latlas.base.npy import check_header, open_npy
from latlas.base.placing import new_file

# Bytes before the data. A multiple of the usual page, so that the data of one file can be mapped right behind that of another;
# numpy.load refuses headers above 10,000.
HEADER = 4096
PARTIAL = ".partial"  # the end of the name of what is being written


class Written(NamedTuple):
    """What a file holds."""

    sha256: str
    size: int  # bytes


class ArrayHeader(NamedTuple):
    """What an `.npy` file says of its data."""

    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int  # bytes before the data
    rows_first: bool


def write_array(path: Path, dtype: np.dtype, shape: tuple[int, ...], chunks: Iterable[np.ndarray]) -> Written:
    """Write an array of a known shape, piece by piece along its first axis; the file has its name once it is whole.

    Args:
        path: what lies there already is replaced.
        dtype: each piece is converted to it.
        shape: of the whole array.
        chunks: read one at a time.

    Raises:
        OSError: it could not be written.
        ValueError: the pieces do not make up that shape.
    """
    rows = 0

    def content() -> Iterator[bytes | memoryview]:
        nonlocal rows
        yield _header(dtype, shape)
        for chunk in chunks:
            if chunk.shape[1:] != shape[1:]:
                raise ValueError(f"{path.name}: a piece of shape {chunk.shape} in an array of shape {shape}")
            rows += len(chunk)
            if chunk.size:
                # Through bytes: NumPy lends no buffer of text.
                yield np.ascontiguousarray(chunk, dtype=dtype).reshape(-1).view(np.uint8).data
        if rows != shape[0]:
            raise ValueError(f"{path.name}: {rows} rows in an array of shape {shape}")

    return write_bytes(path, content())


def write_bytes(path: Path, content: Iterable[bytes | memoryview]) -> Written:
    """Write a file beside its place, have the disk keep it, and rename it into place; what lies there is replaced.

    It has a name of its own until then: a worker that was given up for dead may be writing the same.

    Raises:
        OSError: it could not be written; nothing is left of it.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PARTIAL}")
    digest, size = hashlib.sha256(), 0
    try:
        with os.fdopen(new_file(beside), "wb") as stream:
            for piece in content:
                stream.write(piece)
                digest.update(piece)
                size += len(piece)
            stream.flush()
            os.fsync(stream.fileno())
        os.rename(beside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise
    return Written(digest.hexdigest(), size)


def read_header(path: Path) -> ArrayHeader:
    """Return what an `.npy` file says of its data.

    Raises:
        OSError, ValueError: no readable `.npy`.
    """
    with path.open("rb") as stream:
        check_header(stream)
        stream.seek(0)
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(stream)
        return ArrayHeader(dtype, shape, stream.tell(), rows_first=not fortran)


class StoredNames(Sequence[str]):
    """Names of images, one an image, that stay on disk: `.npy` files of text, one behind the other.

    The files are mapped at once: should they be replaced, these names stay, as the codes beside them do.

    Args:
        paths: of the files.

    Raises:
        OSError, ValueError: no readable `.npy` of text.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._files = [open_npy(path) for path in paths]
        for path, file in zip(paths, self._files, strict=True):
            if file.dtype.kind != "U" or file.ndim != 1:
                raise ValueError(f"{path.name} holds no names")
        self._starts = np.cumsum([0, *map(len, self._files)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...
    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        if isinstance(index, slice):
            return tuple(self[each] for each in range(*index.indices(len(self))))
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"There are {len(self)} names, and number {index} was asked for.")
        number = int(np.searchsorted(self._starts, place, side="right")) - 1
        return str(self._files[number][place - self._starts[number]])

    def __repr__(self) -> str:
        return f"<{len(self)} names in {len(self._files)} files>"


def _header(dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    start = np.lib.format.magic(1, 0) + struct.pack("<H", HEADER - 10)
    return start + repr(described).encode("latin1").ljust(HEADER - len(start) - 1) + b"\n"
