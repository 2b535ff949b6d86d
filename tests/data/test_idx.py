"""The IDX reader, against files written by hand."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from latlas.base.errors import ImageFormatError
from latlas.data.idx import read_idx


def idx(array: np.ndarray) -> bytes:
    """An IDX file as the description of the format says: two zeros, the type, the number of sizes, the sizes, the bytes."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def pattern(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("shape", [(5,), (300,), (2, 3), (4, 5, 6), (2, 3, 4, 5), (0, 28, 28)])
@pytest.mark.parametrize("zipped", [False, True])
def test_what_was_written_by_hand_is_read_back(tmp_path: Path, shape: tuple[int, ...], zipped: bool) -> None:
    array = pattern(*shape)
    path = tmp_path / ("images.gz" if zipped else "images")
    path.write_bytes(gzip.compress(idx(array)) if zipped else idx(array))
    loaded = read_idx(path)
    assert loaded.shape == shape
    np.testing.assert_array_equal(loaded.numpy(), array)
    loaded.fill_(7)  # the tensor is ours to write to


@pytest.mark.parametrize("zipped", [False, True])
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, zipped: bool) -> None:
    raw = gzip.compress(idx(pattern(2, 3, 4))) if zipped else idx(pattern(2, 3, 4))
    path = tmp_path / ("images.gz" if zipped else "images")
    for length in range(len(raw)):
        path.write_bytes(raw[:length])
        with pytest.raises(ImageFormatError, match="Delete it and fetch it again"):
            read_idx(path)


def test_a_file_that_holds_more_than_it_promises_is_refused(tmp_path: Path) -> None:
    (tmp_path / "images").write_bytes(idx(pattern(2, 3)) + b"x")
    with pytest.raises(ImageFormatError, match="promises 6 values and holds 7"):
        read_idx(tmp_path / "images")


@pytest.mark.parametrize(
    "raw",
    [
        b"\x89PNG\r\n\x1a\n" + bytes(20),
        b"<!doctype html><title>404</title>",
        b"\0\0\x0d\x01\0\0\0\x01" + bytes(4),  # float32 elements: a valid IDX file, and none of ours
        b"\0\x01\x08\x01\0\0\0\x01\0",
        b"\0\0\x08\0",
        b"\0\0\x08\x05" + bytes(20),
    ],
)
def test_what_is_no_idx_file_of_bytes_is_refused(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "images").write_bytes(raw)
    with pytest.raises(ImageFormatError, match=r"not an IDX file of bytes. Delete it and fetch it again"):
        read_idx(tmp_path / "images")


def test_a_boastful_header_is_not_believed(tmp_path: Path) -> None:
    """Sizes whose product overflows 64 bits must not wrap round to something small."""
    (tmp_path / "images").write_bytes(struct.pack(">BBBB4I", 0, 0, 8, 4, 2**31, 2**31, 2**31, 2**31))
    with pytest.raises(ImageFormatError, match=f"promises {2**124} values and holds 0"):
        read_idx(tmp_path / "images")


@pytest.mark.parametrize("raw", [b"not gzip", b"\x1f\x8b\x08\0" + bytes(30)])
def test_a_gz_that_is_none_is_refused(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "images.gz").write_bytes(raw)
    with pytest.raises(ImageFormatError, match="Delete it and fetch it again"):
        read_idx(tmp_path / "images.gz")


def test_a_gz_with_a_flipped_byte_is_refused(tmp_path: Path) -> None:
    raw = bytearray(gzip.compress(idx(pattern(4, 28, 28))))
    raw[len(raw) // 2] ^= 0x10
    (tmp_path / "images.gz").write_bytes(raw)
    with pytest.raises(ImageFormatError, match="Delete it and fetch it again"):
        read_idx(tmp_path / "images.gz")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageFormatError, match="cannot be read"):
        read_idx(tmp_path / "missing")
