"""Pictures in a column of Parquet files: bytes, or the pair of bytes and path in which Hub data sets keep them."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from latlas.base.errors import ImageFormatError, MissingExtraError, SettingError, unknown_name
from latlas.base.progress import Progress, silent, track
from latlas.data.decoding import Buffer
from latlas.data.listings import FileState, check_size, state_of
from latlas.data.parquet_pages import Chunk, check_pages, read_chunks

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_AT_ONCE = 64  # cells in memory,
_MOST_COPIED = 2**27  # and bytes of them, where all may be copies of one entry of a dictionary
_MOST_ROWS = 10_000_000  # that files of fewer bytes may tell of: a few bytes stand for any number of labels, which are all read
_BUFFER = 2**20  # bytes of a file read at once
_USUAL_LABELS = ("label", "labels", "cls")
_USUAL_IMAGES = ("image", "images", "img", "picture", "jpg", "png")


@dataclass(frozen=True, kw_only=True, eq=False)
class ParquetListing:
    """The pictures of Parquet files, row by row."""

    asked: str
    files: tuple[str, ...]
    column: str
    # Row groups are what Parquet can read on its own, so they are what is looked up.
    firsts: NDArray[np.int64]  # the number of each row group's first picture
    groups: NDArray[np.int64]  # g 2: file and row group in it
    starts: NDArray[np.int64]  # the number of each file's first picture
    rows: int
    sizes: NDArray[np.int64]  # bytes of each file
    labels: NDArray[np.int64] | None

    @property
    def spec(self) -> str:
        """The spec that names the files, and the columns where they were named."""
        return self.asked

    def __len__(self) -> int:
        return self.rows

    def name_of(self, index: int) -> str:
        """Return `file.parquet#row`, the row counted from 0 within the file."""
        path, row = self._row(index)
        return f"{os.path.basename(path)}#{row}"  # noqa: PTH119 - once a picture

    def place_of(self, index: int) -> str:
        """Return the path of the file, and the row in it."""
        path, row = self._row(index)
        return f"{path}#{row}"

    def read(self, index: int) -> Buffer:
        """Return the bytes of a picture; quick for one behind that which was asked for before, in the same process."""
        group = int(np.searchsorted(self.firsts, index, side="right")) - 1
        file, number = (int(each) for each in self.groups[group])
        path = self.files[file]
        place = (path, number, self.column, os.getpid(), state_of(path, int(self.sizes[file])))
        row = index - int(self.firsts[group])
        if row < _group(*place).start:
            _group.cache_clear()
        cells, behind = _group(*place).holding(row)
        return picture_bytes(cells, behind, (Path(path).parent,))

    def identity(self) -> Iterator[bytes]:
        """Yield the names and sizes of the files, and how their rows are grouped."""
        yield "\0".join((self.column, *(Path(file).name for file in self.files))).encode(errors="surrogateescape")
        for numbers in (self.sizes, self.firsts, self.groups):
            yield numbers.tobytes()

    def _row(self, index: int) -> tuple[str, int]:
        file = int(np.searchsorted(self.starts, index, side="right")) - 1
        return self.files[file], index - int(self.starts[file])


def list_parquet(
    pattern: str, paths: Sequence[Path], *, image: str | None = None, label: str | None = None, progress: Progress = silent
) -> ParquetListing:
    """Return the pictures of Parquet files; no picture is read.

    Args:
        pattern: how the user named the files.
        paths: the files, in order.
        image: the column of pictures; None: the only one that can be, or the only one with a usual name.
        label: the column of class numbers; None: `label`, `labels` or `cls`, where every file has one of whole numbers.
        progress: told after each file.

    Raises:
        MissingExtraError: pyarrow is not installed.
        ImageFormatError: a file that cannot be read, or without such columns.
        SettingError: several columns could be the one of pictures.
        UnknownNameError: no column of that name.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError as absent:
        raise missing_data_extra(absent) from absent
    firsts: list[int] = []
    groups: list[tuple[int, int]] = []
    starts: list[int] = []
    labels: list[NDArray[np.int64] | None] = []
    sizes: list[int] = []
    rows = total = 0
    column = label_column = None
    for number, path in enumerate(track(paths, "listing Parquet files", progress)):
        try:
            sizes.append(path.stat().st_size)
            total += sizes[-1]
            with pq.ParquetFile(path) as file:
                schema = file.schema_arrow
                if number == 0:
                    column = image_column(schema, image, str(path))
                    label_column = labels_column(schema, label, str(path))
                elif column not in schema.names or not _holds_pictures(schema.field(column).type):
                    raise ImageFormatError(f"{path} has no column {column!r} of pictures, and {paths[0]} has.")
                starts.append(rows)
                for group in range(file.num_row_groups):
                    if file.metadata.row_group(group).num_rows:
                        firsts.append(rows)
                        groups.append((number, group))
                        rows += file.metadata.row_group(group).num_rows
                if rows > max(_MOST_ROWS, total):
                    raise ImageFormatError(
                        f"{path} tells of {rows - starts[-1]:,} rows in {sizes[-1]:,} bytes: pictures take more."
                    )
                if label_column is not None:
                    there = label_column in schema.names and _holds_numbers(schema, label_column)
                    if label is not None and not there:
                        raise ImageFormatError(f"{path} has no column {label!r} of whole numbers, and {paths[0]} has.")
                    if there:
                        with path.open("rb") as stream:
                            for chunks in read_chunks(stream, file.num_row_groups):
                                check_pages(stream, chunks, _leaves(file, label_column))
                    labels.append(class_numbers(file.read(columns=[label_column]).column(0)) if there else None)
        except (pa.ArrowException, OSError, KeyError, ValueError) as failure:  # of names that are no text, a ValueError
            raise ImageFormatError(f"{path} cannot be read as a Parquet file ({' '.join(str(failure).split())}).") from failure
    if not rows or column is None:
        raise ImageFormatError(f"{pattern} holds no rows.")
    known = [part for part in labels if part is not None]
    return ParquetListing(
        asked=pattern + columns_asked(image=image, label=label),
        files=tuple(map(str, paths)),
        column=column,
        firsts=np.array(firsts, dtype=np.int64),
        groups=np.array(groups, dtype=np.int64),
        starts=np.array(starts, dtype=np.int64),
        rows=rows,
        sizes=np.array(sizes, dtype=np.int64),
        labels=np.concatenate(known) if known and len(known) == len(labels) else None,
    )


def columns_asked(**settings: str | None) -> str:
    """Return what a spec says after its `?`; nothing where nothing was asked for.

    >>> columns_asked(image="cover", label=None)
    '?image=cover'
    """
    given = "&".join(f"{key}={value}" for key, value in settings.items() if value is not None)
    return f"?{given}" if given else ""


def image_column(schema: "pa.Schema", asked: str | None, place: str) -> str:
    """Return the name of the column that holds pictures.

    Raises:
        ImageFormatError, SettingError, UnknownNameError: as `list_parquet`.
    """
    fitting = [field.name for field in schema if _holds_pictures(field.type)]
    if asked is not None:
        if asked not in schema.names:
            raise unknown_name(f"column of {place}", asked, schema.names)
        if asked not in fitting:
            raise ImageFormatError(f"{place}: column {asked!r} holds {schema.field(asked).type}, and pictures are bytes.")
        return asked
    usual = [name for name in fitting if name.lower() in _USUAL_IMAGES]
    for choice in (fitting, usual):
        if len(choice) == 1:
            return choice[0]
    if not fitting:
        raise ImageFormatError(f"{place} has no column of pictures (bytes); it has {', '.join(schema.names) or 'none'}.")
    raise SettingError(f"{place} has several columns of bytes, {', '.join(fitting)}. Name that of the pictures: ?image=NAME")


def labels_column(schema: "pa.Schema", asked: str | None, place: str) -> str | None:
    """Return the name of the column that holds class numbers, or None.

    Raises:
        ImageFormatError, UnknownNameError: as `list_parquet`.
    """
    if asked is not None:
        if asked not in schema.names:
            raise unknown_name(f"column of {place}", asked, schema.names)
        if not _holds_numbers(schema, asked):
            raise ImageFormatError(f"{place}: column {asked!r} holds {schema.field(asked).type}, and labels are whole numbers.")
        return asked
    return next((name for name in _USUAL_LABELS if name in schema.names and _holds_numbers(schema, name)), None)


def class_numbers(column: "pa.ChunkedArray") -> NDArray[np.int64] | None:
    """Return a column of class numbers; None where some are missing."""
    import pyarrow as pa

    if column.null_count:
        return None
    return np.asarray(column.cast(pa.int64()).to_numpy(), dtype=np.int64)


def picture_bytes(cells: "pa.Array", row: int, within: Sequence[Path]) -> Buffer:
    """Return the bytes of one cell, or of the file that it names.

    Args:
        cells: a column of pictures.
        row: which.
        within: the folders that a file may lie in, links followed; in the first of them it is named. Anybody may have made the table.

    Raises:
        ValueError, OSError: there are none.
    """
    import pyarrow as pa

    cell = cells[row]
    if pa.types.is_struct(cells.type) and cell.is_valid:
        path = cell["path"].as_py() if cells.type.get_field_index("path") >= 0 else None
        cell = cell["bytes"]
        if not cell.is_valid and path and isinstance(path, str):
            return _bytes_of(path, within)
    if not cell.is_valid:
        raise ValueError("the cell is empty")
    return memoryview(cell.as_buffer()).cast("B")  # Arrow's own are of signed bytes, equal to no bytes


def _bytes_of(name: str, within: Sequence[Path]) -> bytes:
    place = (within[0] / name).resolve()
    # Whoever made the table would choose which file of this machine is taken for a picture.
    if not any(place.is_relative_to(folder.resolve()) for folder in within):
        raise ValueError(f"the cell names a file outside of the table's folder, {name[:100]!r}")
    if not place.is_file():  # to open a pipe would wait for ever
        raise ValueError(f"the cell names {name[:100]!r}, which is no file")
    check_size(place.stat().st_size)
    return place.read_bytes()


def missing_data_extra(absent: ModuleNotFoundError) -> MissingExtraError:
    """Return the error for a package of the extra `data` that is not installed."""
    return MissingExtraError(
        f"Parquet files and Hub data sets need datasets and pyarrow (no module {absent.name}). "
        "Install them: pip install 'latlas[data]'"
    )


def _leaves(file: "pq.ParquetFile", column: str) -> list[int]:
    """Return the places, among all that holds values, of a column's parts."""
    paths = [file.schema.column(leaf).path for leaf in range(len(file.schema.names))]
    return [leaf for leaf, path in enumerate(paths) if path == column or path.startswith(f"{column}.")]


def _holds_pictures(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        place = kind.get_field_index("bytes")
        return place >= 0 and _holds_pictures(kind.field(place).type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _holds_numbers(schema: "pa.Schema", name: str) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_integer(schema.field(name).type))


@lru_cache(maxsize=2)
def _file(path: str, _process: int, _state: FileState) -> "pq.ParquetFile":
    # By process: one that was forked shares the place in the file with its parent. By state: the name may be another file's by now.
    import pyarrow.parquet as pq

    return pq.ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False)  # else all of a column of a row group at once


@lru_cache(maxsize=2)
def _chunks(path: str, process: int, state: FileState) -> tuple[tuple[Chunk, ...], ...]:
    with Path(path).open("rb") as stream:
        return read_chunks(stream, _file(path, process, state).num_row_groups)


class _Group:
    """The cells of one row group, a few at a time: many programs write files of one group, whatever its size."""

    def __init__(self, path: str, group: int, column: str, process: int, state: FileState) -> None:
        file = _file(path, process, state)
        with Path(path).open("rb") as stream:
            copied = check_pages(stream, _chunks(path, process, state)[group], _leaves(file, column))
        at_once = max(1, min(_AT_ONCE, _MOST_COPIED // max(copied, 1)))
        self.batches = file.iter_batches(batch_size=at_once, row_groups=[group], columns=[column], use_threads=False)
        self.start = 0  # of the cells that are in memory
        self.cells: Any = ()

    def holding(self, row: int) -> tuple[Any, int]:
        """Return the cells among which a row is, and its place among them; there is no way back."""
        import pyarrow as pa

        try:
            while row >= self.start + len(self.cells):
                self.start += len(self.cells)
                self.cells = ()  # before the next ones take memory
                self.cells = next(self.batches).column(0)
        except (pa.ArrowException, StopIteration) as failure:
            reason = str(failure) or "it is damaged before this row"
            raise OSError(f"its row group cannot be read: {reason}") from failure
        return self.cells, row - self.start


@lru_cache(maxsize=1)
def _group(path: str, group: int, column: str, process: int, state: FileState) -> _Group:
    return _Group(path, group, column, process, state)
