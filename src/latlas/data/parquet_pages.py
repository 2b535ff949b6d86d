"""The heads of a Parquet file's pages: Arrow takes the memory that they ask for before it reads on, and a few bytes may ask for 2 GB."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BufferedIOBase
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow.parquet as pq

_MOST_UNPACKED = 2**27  # bytes that a page of any size may unpack to,
_MOST_EXPANSION = 100  # and times its own size that a larger one may: pictures are compressed already
_MOST_HEAD = 2**24  # bytes, as Arrow has it; statistics in it may hold values
_FIRST_LOOK = 2**9
_MOST_NESTED = 64  # structures in structures, as Thrift has it; heads have three
_MOST_VALUES = 10_000  # of one head; heads have some twenty

# Thrift's compact protocol (doc/specs/thrift-compact-protocol.md there): the types of a field.
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)
_BYTES_OF = {
    _TRUE: 1,
    _FALSE: 1,
    _BYTE: 1,
    _DOUBLE: 8,
}  # in a list or a map; in a structure a truth is part of the field's sign
# Fields of a PageHeader (parquet-format's parquet.thrift).
_KIND, _UNPACKED, _PACKED = 1, 2, 3
_DICTIONARY = 2  # the kind of page that other pages' cells are copied from


@dataclass(frozen=True, kw_only=True)
class PageHead:
    """What the head of a page says."""

    is_dictionary: bool
    unpacked: int  # bytes that it will take in memory
    packed: int  # bytes that it takes in the file, behind its head
    length: int  # bytes of the head itself


def check_pages(stream: BufferedIOBase, metadata: "pq.FileMetaData", group: int, columns: Sequence[str]) -> int:
    """Raise if a page of some columns asks for more memory than its bytes justify; return the bytes of the largest dictionary.

    A dictionary's entries are copied once for every cell that has them, so whoever reads cells of it has to take as few at a time.

    Args:
        stream: the file, open for reading.
        metadata: its own.
        group: the row group.
        columns: names of whole columns; of those with parts, all parts.

    Raises:
        OSError: a page asks for too much, lies beyond the file, or has no head that can be read.
    """
    end = stream.seek(0, 2)
    largest = 0
    row_group = metadata.row_group(group)
    for number in range(row_group.num_columns):
        chunk = row_group.column(number)
        if not any(chunk.path_in_schema == name or chunk.path_in_schema.startswith(f"{name}.") for name in columns):
            continue
        start = chunk.data_page_offset
        if chunk.has_dictionary_page and (chunk.dictionary_page_offset or 0) > 0:
            start = min(start, chunk.dictionary_page_offset)
        for head in _heads(stream, start, start + chunk.total_compressed_size, end):
            if head.unpacked > max(_MOST_UNPACKED, _MOST_EXPANSION * head.packed):
                raise OSError(f"a page of {head.packed:,} bytes would unpack to {head.unpacked:,}: pictures do not")
            if head.is_dictionary:
                largest = max(largest, head.unpacked)
    return largest


def _heads(stream: BufferedIOBase, place: int, behind: int, end: int) -> Iterator[PageHead]:
    if place < 0:
        raise OSError("a column begins before the file")
    while place < min(behind, end):
        head = _head_at(stream, place, end)
        place += head.length + head.packed
        if place > end:  # of the file: some writers reckon a column too short
            raise OSError("a page lies beyond the file")
        yield head


def _head_at(stream: BufferedIOBase, place: int, end: int) -> PageHead:
    size = _FIRST_LOOK
    while True:
        stream.seek(place)
        data = stream.read(min(size, end - place))
        try:
            return read_head(data)
        except EOFError as failure:
            if size >= min(_MOST_HEAD, end - place):
                raise OSError("the head of a page is cut off") from failure
            size *= 16
        except ValueError as failure:
            raise OSError(f"the head of a page cannot be read ({failure})") from failure


def read_head(data: bytes) -> PageHead:
    """Return the head of a page that begins some bytes.

    Raises:
        EOFError: it goes on behind them.
        ValueError: it is none.

    >>> read_head(bytes([0x15, 4, 0x15, 36, 0x15, 40, 0]))
    PageHead(is_dictionary=True, unpacked=18, packed=20, length=7)
    """
    reader = _Reader(data)
    found: dict[int, int] = {}
    for field, kind in reader.fields():
        if kind == _I32:  # of another type it is passed over, as Thrift does
            found[field] = reader.number()
        else:
            reader.skip(kind, depth=0, in_struct=True)
    if not {_KIND, _UNPACKED, _PACKED} <= found.keys() or min(found[_UNPACKED], found[_PACKED]) < 0:
        raise ValueError("it does not tell its sizes")
    return PageHead(
        is_dictionary=found[_KIND] == _DICTIONARY, unpacked=found[_UNPACKED], packed=found[_PACKED], length=reader.place
    )


class _Reader:
    """Values of Thrift's compact protocol, one after the other. Raises as `read_head`."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.place = 0
        self.values = 0

    def fields(self) -> Iterator[tuple[int, int]]:
        """Yield number and type of each field of a structure, whose value is to be read or skipped before the next."""
        field = 0
        while sign := self._byte():
            # The number is told as a step from the field before, or whole.
            field = field + (sign >> 4) if sign >> 4 else self.number()
            yield field, sign & 15

    def number(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def skip(self, kind: int, *, depth: int, in_struct: bool) -> None:
        self.values += 1
        if self.values > _MOST_VALUES or depth > _MOST_NESTED:
            raise ValueError("it holds too much")
        if in_struct and kind in (_TRUE, _FALSE):
            return
        if kind in _BYTES_OF:
            self.place += _BYTES_OF[kind]
        elif kind in (_I16, _I32, _I64):
            self._varint()
        elif kind == _BINARY:
            length = self._varint()  # moves the place, so not within the next line
            self.place += length
        elif kind in (_LIST, _SET):
            sign = self._byte()
            for _ in range(sign >> 4 if sign >> 4 < 15 else self._varint()):
                self.skip(sign & 15, depth=depth + 1, in_struct=False)
        elif kind == _MAP:
            count = self._varint()
            sign = self._byte() if count else 0
            for _ in range(count):
                self.skip(sign >> 4, depth=depth + 1, in_struct=False)
                self.skip(sign & 15, depth=depth + 1, in_struct=False)
        elif kind == _STRUCT:
            for _, inner in self.fields():
                self.skip(inner, depth=depth + 1, in_struct=True)
        else:
            raise ValueError(f"it has a value of type {kind}")

    def _byte(self) -> int:
        if self.place >= len(self.data):
            raise EOFError
        self.place += 1
        return self.data[self.place - 1]

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise ValueError("a number is too long")
