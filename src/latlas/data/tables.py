"""Tables with one row an image, as parquet.

Written and read by arro3 (12 MB) rather than pyarrow (55 MB): the files are the same format, and any parquet reader
opens them.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from latlas.base.errors import ArtifactError, MissingExtraError


def write_table(path: Path, columns: Mapping[str, Sequence[str]]) -> None:
    """Write columns of words as one parquet file: the same columns give the same bytes.

    Raises:
        MissingExtraError: arro3 is not installed.
        OSError: it could not be written.
    """
    try:
        from arro3.core import Array, DataType, Table
        from arro3.io import write_parquet
    except ModuleNotFoundError as absent:
        raise _missing(absent) from absent
    content = io.BytesIO()  # given a file, arro3 0.9 panics when the disk takes no more
    write_parquet(Table.from_pydict({name: Array(list(values), DataType.utf8()) for name, values in columns.items()}), content)
    path.write_bytes(content.getvalue())


def read_table(path: Path) -> dict[str, tuple[str, ...]]:
    """Return the columns that `write_table` wrote.

    Raises:
        MissingExtraError: arro3 is not installed.
        ArtifactError: the file is missing, or no parquet file.
    """
    try:
        from arro3.io import read_parquet
    except ModuleNotFoundError as absent:
        raise _missing(absent) from absent
    try:
        table = read_parquet(path).read_all()
    except BaseException as failure:  # the Rust side raises its own kinds, and one that is no Exception where it panics
        if not isinstance(failure, Exception) and type(failure).__name__ != "PanicException":
            raise
        raise ArtifactError(f"{path} is not a readable parquet file ({failure}). Make it again.") from failure
    return {name: tuple(table.column(name).to_pylist()) for name in table.column_names}


def _missing(absent: ModuleNotFoundError) -> MissingExtraError:
    return MissingExtraError(
        f"Tables of factors need arro3 (no module {absent.name}). Install it: pip install 'latlas[avatars]'"
    )
