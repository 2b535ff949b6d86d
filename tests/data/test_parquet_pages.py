"""Heads of Parquet pages: read as pyarrow reads them, and refused where they ask for memory that nothing justifies."""

import io
import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latlas.data.parquet_files import list_parquet
from latlas.data.parquet_pages import PageHead, _heads, check_pages, read_chunks, read_head

pa = pytest.importorskip("pyarrow", reason="Parquet needs the extra data")
pq = pytest.importorskip("pyarrow.parquet", reason="Parquet needs the extra data")


def _file(rows: int = 300, **settings: object) -> io.BytesIO:
    chance = np.random.default_rng(0)
    sizes = chance.integers(1, 3000, rows)
    cells = [{"bytes": chance.bytes(int(size)), "path": None if size % 2 else "a.png"} for size in sizes]
    table = pa.table({"image": pa.array([None, *cells[1:]]), "label": pa.array(chance.integers(0, 10, rows))})
    stream = io.BytesIO()
    pq.write_table(table, stream, row_group_size=120, **settings)
    return stream


@pytest.mark.parametrize(
    ("compression", "version", "dictionary"),
    [*itertools.product(("none", "snappy", "gzip", "zstd", "lz4", "brotli"), ("1.0", "2.0"), (True, False))],
)
def test_the_pages_of_a_column_add_up_to_what_pyarrow_says_of_it(compression: str, version: str, dictionary: bool) -> None:
    for few in (True, False):
        stream = _file(
            compression=compression,
            data_page_version=version,
            use_dictionary=dictionary,
            data_page_size=3000 if few else None,
            write_page_checksum=few,
            write_statistics=few,
        )
        metadata = pq.ParquetFile(stream).metadata
        chunks = read_chunks(stream, metadata.num_row_groups)
        assert [len(each) for each in chunks] == [metadata.num_columns] * metadata.num_row_groups
        for group, number in itertools.product(range(metadata.num_row_groups), range(metadata.num_columns)):
            chunk, ours = metadata.row_group(group).column(number), chunks[group][number]
            heads = list(_heads(stream, ours.start, ours.start + ours.length, len(stream.getvalue())))
            assert sum(head.length + head.packed for head in heads) == chunk.total_compressed_size
            assert sum(head.length + head.unpacked for head in heads) == chunk.total_uncompressed_size
            assert [head.is_dictionary for head in heads] == [chunk.has_dictionary_page] + [False] * (len(heads) - 1)
            largest = max((head.unpacked for head in heads if head.is_dictionary), default=0)
            assert check_pages(stream, chunks[group], [number]) == largest
        assert check_pages(stream, chunks[0], []) == 0
        with pytest.raises(OSError, match="tells of 3 row groups, and then of 4"):
            read_chunks(stream, 4)
        with pytest.raises(OSError, match="lacks a column"):
            check_pages(stream, chunks[0], [3])


def test_a_page_that_asks_for_more_than_its_bytes_justify_is_refused(tmp_path: Path) -> None:
    """A few bytes had Arrow take 400 MB, and might have asked for 2 GB."""
    cell = b"P6 1 1 255\n\0\1\2"
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"x": [cell, cell]}), path, compression="none")
    listing = list_parquet(str(path), [path])
    assert bytes(listing.read(1)) == cell
    whole = path.read_bytes()
    told = read_head(whole[4:])
    size = bytes([0x15, 2 * told.unpacked])  # of the field, and of a number below 64
    forged = whole[4:].replace(size, b"\x15" + _varint(2 * 400_000_000), 1)
    assert read_head(forged) == PageHead(is_dictionary=True, unpacked=400_000_000, packed=told.packed, length=told.length + 4)
    (chunks,) = read_chunks(io.BytesIO(whole), 1)
    with pytest.raises(OSError, match=r"would unpack to 400,000,000: pictures do not"):
        check_pages(io.BytesIO(whole[:4] + forged), chunks, [0])
    with pytest.raises(OSError, match="beyond the file"):
        check_pages(io.BytesIO(whole[:30]), chunks, [0])


def _varint(value: int) -> bytes:
    found = b""
    while value > 127:
        found += bytes([value & 127 | 128])
        value >>= 7
    return found + bytes([value])


def test_a_page_is_refused_whatever_its_column_is_called_in_the_foot(tmp_path: Path) -> None:
    """Arrow goes by the place of a column, and takes the memory under any name."""
    path = tmp_path / "a.parquet"
    table = pa.table({"picture": [b"P6 1 1 255\n\0\1\2"] * 2, "number": [1, 2]})
    pq.write_table(table, path, compression="none", store_schema=False)
    whole = path.read_bytes()
    told = read_head(whole[4:])
    at = whole.index(bytes([0x15, 2 * told.unpacked]), 4)
    forged = bytearray(whole)
    forged[at + 1 : at + 2] = _varint(2 * 400_000_000)
    added = len(forged) - len(whole)
    del forged[4 + told.length + added : 4 + told.length + 2 * added]  # of the page itself, so that all else keeps its place
    before, found, behind = bytes(forged).rpartition(b"picture")  # the last is the chunk's, behind the schema's
    for name in (found, b"another"):
        path.write_bytes(before + name + behind)
        listing = list_parquet(str(path), [path])
        assert listing.column == "picture"
        with pytest.raises(OSError, match=r"would unpack to 400,000,000"):
            listing.read(0)


def test_a_foot_that_is_cut_off_or_none_is_told() -> None:
    whole = _file(rows=3).getvalue()
    length = int.from_bytes(whole[-8:-4], "little")
    assert len(read_chunks(io.BytesIO(whole), 1)) == 1
    for content, told in (
        (b"", "no foot"),
        (whole[:-1], "no foot"),
        (whole[:-8] + (2**31).to_bytes(4, "little") + b"PAR1", "no foot"),
        (whole[:-8] + (length // 2).to_bytes(4, "little") + b"PAR1", "cannot be read"),
        (b"\x49\x0c\x15\0" + (4).to_bytes(4, "little") + b"PAR1", "cannot be read"),
    ):
        with pytest.raises(OSError, match=told):
            read_chunks(io.BytesIO(content), 1)


def test_of_cells_that_may_be_copies_of_a_large_one_few_are_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    large = bytes(8 * 2**20)
    pq.write_table(pa.table({"x": [large] * 64}), path, compression="zstd")
    assert path.stat().st_size < 2**16
    before = pa.total_allocated_bytes()
    listing = list_parquet(str(path), [path])
    assert all(len(listing.read(index)) == len(large) for index in (0, 15, 16, 63))
    assert pa.total_allocated_bytes() - before < 2**28  # all of them take twice that


def test_values_of_every_type_are_passed_over() -> None:
    sizes = bytes([0x15, 0, 0x15, 36, 0x15, 40])
    every = [
        bytes([0x11]),  # true
        bytes([0x12]),  # false
        bytes([0x13, 7]),  # a byte
        bytes([0x14, 1]),  # i16
        bytes([0x16, 0x81, 1]),  # i64 of two bytes
        bytes([0x17, *range(8)]),  # a double
        bytes([0x18, 3, 1, 2, 3]),  # bytes
        bytes([0x19, 0x21, 1, 2]),  # a list of two truths
        bytes([0x1A, 0xF5, 16, *[1] * 16]),  # a set of 16 numbers, its length told beside
        bytes([0x1B, 1, 0x58, 2, 1, 9]),  # a map from a number to bytes
        bytes([0x1B, 0]),  # an empty map
        bytes([0x1C, 0x11, 0x0C, 16, 0x15, 2, 0, 0]),  # a structure with another one in it, whose number is told whole
    ]
    for value in every:
        head = sizes + value + b"\0"
        assert read_head(head + b"more") == PageHead(is_dictionary=False, unpacked=18, packed=20, length=len(head))
        with pytest.raises(EOFError):
            read_head(head[:-1])
    # Arrow reads sizes that are i32, and passes over the same fields of another type.
    assert read_head(sizes + bytes([0x06, 4, 0x10, 0])).unpacked == 18


@pytest.mark.parametrize(
    ("head", "told"),
    [
        (b"\0", "does not tell its sizes"),
        (bytes([0x15, 0, 0x15, 1, 0x15, 2, 0]), "does not tell its sizes"),  # -1
        (b"\x1c" * 100 + b"\0" * 101, "holds too much"),
        (b"\x19\xf1" + _varint(10**9) + bytes(20_000), "holds too much"),
        (b"\x15" + b"\xff" * 11, "too long"),
        (b"\x1d\0", "type 13"),
    ],
)
def test_what_is_no_head_is_told_at_once(head: bytes, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        read_head(head)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_head_or_refused(data: bytes) -> None:
    try:
        head = read_head(data)
    except (EOFError, ValueError):
        return
    assert 0 < head.length <= len(data)
    assert min(head.unpacked, head.packed) >= 0
