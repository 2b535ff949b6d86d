"""Pictures of Hugging Face data sets: by their name on the Hub, or from a folder that `save_to_disk` wrote."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from latlas.base.errors import DataUnavailableError, ImageFormatError, MissingPathError, unknown_name
from latlas.data.decoding import Buffer
from latlas.data.parquet_files import (
    class_numbers,
    columns_asked,
    image_column,
    labels_column,
    missing_data_extra,
    picture_bytes,
)

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

_WINDOW = 256  # rows looked up together: to look up one costs some 50 µs


@dataclass(frozen=True, kw_only=True, eq=False)
class HubListing:
    """The pictures of one split of a data set, row by row."""

    asked: str
    column: str
    rows: "Dataset"  # in Arrow's format, pictures undecoded
    fingerprint: str  # the data set's own
    labels: NDArray[np.int64] | None
    folders: tuple[Path, ...]  # where files may lie that cells name: whoever made the set may name any
    _window: dict[int, "pa.Array"] = field(default_factory=dict, repr=False)

    @property
    def spec(self) -> str:
        """The spec that gives the split again."""
        return self.asked

    def __len__(self) -> int:
        return len(self.rows)

    def name_of(self, index: int) -> str:
        """Return `#row`."""
        return f"#{index}"

    def place_of(self, index: int) -> str:
        """Return the data set, and the row in it."""
        return f"{self.asked}#{index}"

    def read(self, index: int) -> Buffer:
        """Return the bytes of a picture.

        Raises:
            ValueError, OSError: there are none.
        """
        first = index - index % _WINDOW
        if first not in self._window:
            self._window.clear()
            try:
                column = self.rows[first : min(first + _WINDOW, len(self))].column(self.column)
                # Arrow trusts the file as to where each cell lies, and would read, or end the process, anywhere in memory.
                column.validate(full=True)
                self._window[first] = column.combine_chunks()
            except (OSError, ValueError):
                raise
            except Exception as failure:  # what datasets raises for rows that its own files do not have is no closed list
                raise ValueError(f"its rows cannot be read: {_first_line(failure)}") from failure
        return picture_bytes(self._window[first], index - first, self.folders)

    def identity(self) -> Iterator[bytes]:
        """Yield the data set's fingerprint."""
        yield f"{self.fingerprint}/{self.column}".encode()


def list_hub(
    name: str, *, split: str | None = None, config: str | None = None, image: str | None = None, label: str | None = None
) -> HubListing:
    """Return the pictures of a data set; of one that is not in the local cache the files are fetched first.

    `HF_HUB_OFFLINE=1` is respected. Downloads are not reported to the Hub's counter.

    Args:
        name: `owner/name` on the Hub, or a folder: one that `save_to_disk` wrote, or one that `datasets` reads as a set.
        split: which; None: `train`, or the only one.
        config: which configuration of a set on the Hub that has several.
        image: the column of pictures; None: the only one that can be.
        label: the column of class numbers; None: `label`, where there is one.

    Raises:
        MissingExtraError: datasets is not installed.
        DataUnavailableError: the Hub does not deliver the set.
        MissingPathError, ImageFormatError, UnknownNameError, SettingError: as their names say.
    """
    try:
        import datasets
    except ModuleNotFoundError as absent:
        raise missing_data_extra(absent) from absent
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False
    folder = Path(os.path.expanduser(name))  # noqa: PTH111  # a Path raises for a user that does not exist
    local = os.path.isdir(folder)  # noqa: PTH112  # a Path raises where no folder could have that name
    if not local and (name.startswith((".", "~", os.sep)) or name.count("/") > 1):
        raise MissingPathError(f"No folder {folder}. A data set on the Hub is named hub:OWNER/NAME.")
    try:
        saved = local and any((folder / file).is_file() for file in ("state.json", "dataset_dict.json"))
        if saved:
            found: Any = datasets.load_from_disk(str(folder))
        else:
            found = datasets.load_dataset(str(folder) if local else name, config)
    except Exception as failure:  # what datasets and its transports raise is no closed list, neither here nor below
        kind = ImageFormatError if local else DataUnavailableError
        hint = "" if local else " Fetch it where there is a network, save it with save_to_disk, and give hub:FOLDER."
        raise kind(f"Data set {name} cannot be loaded ({_first_line(failure)}).{hint}") from failure
    whole = _one_split(found, name, split)
    schema = whole.features.arrow_schema
    column = image_column(schema, image, f"hub:{name}")
    label_column = labels_column(schema, label, f"hub:{name}")
    if not len(whole):
        raise ImageFormatError(f"hub:{name} holds no rows.")
    fingerprint = str(whole._fingerprint)
    try:
        labels = None if label_column is None else _class_numbers(whole.select_columns([label_column]).with_format("arrow"))
    except Exception as failure:  # likewise
        raise ImageFormatError(f"The labels of hub:{name} cannot be read ({_first_line(failure)}).") from failure
    # To take one column of the table, and no picture decoded by datasets: `read` gives the file's bytes.
    rows = whole.select_columns([column]).with_format("arrow")
    parts = [f"hub:{name}"] + ([split] if split else [])
    asked = ":".join(parts) + columns_asked(config=config, image=image, label=label)
    folders = (folder,) if local else _caches(name)
    return HubListing(asked=asked, column=column, rows=rows, fingerprint=fingerprint, labels=labels, folders=folders)


def _class_numbers(rows: "Dataset") -> NDArray[np.int64] | None:
    column = rows[:].column(0)
    column.validate(full=True)
    return class_numbers(column)


def _caches(name: str) -> tuple[Path, ...]:
    """Return where the files of a set lie that were fetched from the Hub."""
    import datasets
    from huggingface_hub import constants

    repository = Path(constants.HF_HUB_CACHE) / f"datasets--{name.replace('/', '--')}"
    return repository, Path(datasets.config.DOWNLOADED_DATASETS_PATH)


def _one_split(found: Any, name: str, split: str | None) -> "Dataset":
    if not isinstance(found, dict):
        if split not in (None, str(found.split)):
            raise unknown_name(f"split of {name}", str(split), [str(found.split)] if found.split else ["the only one"])
        return found
    if split is None and len(found) == 1:
        return next(iter(found.values()))
    wanted = split or "train"
    if wanted not in found:
        raise unknown_name(f"split of {name}", wanted, map(str, found))
    return found[wanted]


def _first_line(failure: Exception) -> str:
    return (str(failure).strip().splitlines() or [type(failure).__name__])[0].rstrip(".")
