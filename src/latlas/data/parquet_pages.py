"""The foot of a Parquet file and the heads of its pages.

Arrow takes the memory that a head asks for before it reads on, and a few bytes may ask for 2 GB.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BufferedIOBase

_MOST_UNPACKED = 2**27  # bytes that a page of any size may unpack to,
_MOST_EXPANSION = 100  # and times its own size that a larger one may: pictures are compressed already
_MOST_HEAD = 2**24  # bytes, as Arrow has it; statistics in it may hold values
_FIRST_LOOK = 2**9
_MOST_NESTED = 64  # structures in structures, as Thrift has it; heads have three
_MOST_VALUES = 10_000  # of one head; heads have some twenty
_MOST_FOOT = 2**26  # bytes,
_MOST_FOOT_VALUES = 5_000_000  # and values: some sixty for each column of each row group

# Thrift's compact protocol (doc/specs/thrift-compact-protocol.md there): the types of a field.
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)
# In a list or a map; in a structure a truth is part of the field's sign.
_BYTES_OF = {_TRUE: 1, _FALSE: 1, _BYTE: 1, _DOUBLE: 8}
# Fields of a PageHeader (parquet-format's parquet.thrift).
_KIND, _UNPACKED, _PACKED = 1, 2, 3
_DICTIONARY = 2  # the kind of page that other pages' cells are copied from
# Of FileMetaData, RowGroup, ColumnChunk, ColumnMetaData.
_ROW_GROUPS, _COLUMNS, _ABOUT = 4, 1, 3
_LENGTH, _DATA, _DICTIONARY_AT = 7, 9, 11


@dataclass(frozen=True, kw_only=True)
class PageHead:
    """What the head of a page says."""

    is_dictionary: bool
    unpacked: int  # bytes that it will take in memory
    packed: int  # bytes that it takes in the file, behind its head
    length: int  # bytes of the head itself


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Where the cells of a column, or of a part of one, lie for one row group."""

    start: int
    length: int  # bytes


def check_pages(stream: BufferedIOBase, chunks: Sequence[Chunk], leaves: Sequence[int]) -> int:
    """Raise if a page asks for more memory than its bytes justify; return the bytes of the largest dictionary.

    A dictionary's entries are copied once for every cell that has them, so whoever reads cells of it has to take as few at a time.

    Args:
        stream: the file, open for reading.
        chunks: of one of its row groups, as `read_chunks` returns them.
        leaves: the places of those that are to be looked at, by the schema: the name that a chunk has in the foot is nothing that
            Arrow goes by.

    Raises:
        OSError: a page asks for too much, lies beyond the file, or has no head that can be read; or a chunk is missing.
    """
    end = stream.seek(0, 2)
    largest = 0
    for leaf in leaves:
        if leaf >= len(chunks):
            raise OSError("a row group lacks a column")
        chunk = chunks[leaf]
        for head in _heads(stream, chunk.start, chunk.start + chunk.length, end):
            if head.unpacked > max(_MOST_UNPACKED, _MOST_EXPANSION * head.packed):
                raise OSError(f"a page of {head.packed:,} bytes would unpack to {head.unpacked:,}: pictures do not")
            if head.is_dictionary:
                largest = max(largest, head.unpacked)
    return largest


def read_chunks(stream: BufferedIOBase, groups: int) -> tuple[tuple[Chunk, ...], ...]:
    """Return where the columns of each row group lie, as the file's foot tells.

    pyarrow's own account of a column ends the process where the foot is damaged in some ways, for an error of C++ that it does
    not expect.

    Args:
        stream: the file, open for reading.
        groups: how many row groups Arrow has found in it.

    Raises:
        OSError: the foot cannot be read, tells too much, or of another number of row groups.
    """
    end = stream.seek(0, 2)
    stream.seek(max(0, end - 8))
    tail = stream.read(8)
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != b"PAR1" or length > end - 8:
        raise OSError("it has no foot")
    if length > _MOST_FOOT:
        raise OSError(f"its foot has {length:,} bytes")
    stream.seek(end - 8 - length)
    reader = _Reader(stream.read(length), most=_MOST_FOOT_VALUES)
    found: list[tuple[Chunk, ...]] = []
    try:
        for field, kind in reader.fields():
            if (field, kind) == (_ROW_GROUPS, _LIST):
                found = [_group(reader) for _ in reader.structures()]
            else:
                reader.skip(kind, depth=0, in_struct=True)
    except (EOFError, ValueError) as failure:
        raise OSError(f"its foot cannot be read ({failure})") from failure
    if len(found) != groups:
        raise OSError(f"its foot tells of {len(found)} row groups, and then of {groups}")
    return tuple(found)


def _group(reader: "_Reader") -> tuple[Chunk, ...]:
    chunks: list[Chunk] = []
    for field, kind in reader.fields():
        if (field, kind) == (_COLUMNS, _LIST):
            chunks = [_chunk(reader) for _ in reader.structures()]
        else:
            reader.skip(kind, depth=0, in_struct=True)
    return tuple(chunks)


def _chunk(reader: "_Reader") -> Chunk:
    found: Chunk | None = None
    for field, kind in reader.fields():
        if (field, kind) == (_ABOUT, _STRUCT):
            found = _about(reader)
        else:
            reader.skip(kind, depth=0, in_struct=True)
    if found is None:
        raise ValueError("a column tells nothing of itself")
    return found


def _about(reader: "_Reader") -> Chunk:
    found: dict[int, int] = {}
    for field, kind in reader.fields():
        if kind == _I64:
            found[field] = reader.number()
        else:
            reader.skip(kind, depth=0, in_struct=True)
    if not {_LENGTH, _DATA} <= found.keys() or found[_LENGTH] < 0:
        raise ValueError("a column does not tell where it lies")
    start = min(found[_DATA], found[_DICTIONARY_AT]) if found.get(_DICTIONARY_AT, 0) > 0 else found[_DATA]
    return Chunk(start=start, length=found[_LENGTH])


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
    reader = _Reader(data, most=_MOST_VALUES)
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

    def __init__(self, data: bytes, *, most: int) -> None:
        self.data = data
        self.most = most
        self.place = 0
        self.values = 0

    def fields(self) -> Iterator[tuple[int, int]]:
        """Yield number and type of each field of a structure, whose value is to be read or skipped before the next."""
        field = 0
        while sign := self._byte():
            # The number is told as a step from the field before, or whole.
            field = field + (sign >> 4) if sign >> 4 else self.number()
            yield field, sign & 15

    def structures(self) -> Iterator[None]:
        """Yield once for each structure of a list, whose fields are to be read before the next."""
        count, kind = self._count()
        if count and kind != _STRUCT:
            raise ValueError(f"a list has values of type {kind}")
        for _ in range(count):
            yield

    def number(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def skip(self, kind: int, *, depth: int, in_struct: bool) -> None:
        self.values += 1
        if self.values > self.most or depth > _MOST_NESTED:
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
            count, inner = self._count()
            for _ in range(count):
                self.skip(inner, depth=depth + 1, in_struct=False)
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
        if self.place > len(self.data):  # so that no count outlasts the bytes
            raise EOFError

    def _count(self) -> tuple[int, int]:
        sign = self._byte()
        return (sign >> 4 if sign >> 4 < 15 else self._varint()), sign & 15

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
