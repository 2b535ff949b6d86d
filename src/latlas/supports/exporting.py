"""A Support Set for programs that know nothing of latlas: a folder of pictures, or one `.npz`."""

import csv
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from latlas.base.artifacts import write_file, writing
from latlas.base.errors import SettingError
from latlas.data.images import to_pixels
from latlas.supports.support_set import SupportSet

TABLE = "members.csv"
_BYTES = 200  # of a file's name: file systems take 255, and a number and an ending follow


def export_folder(support: SupportSet, folder: str | Path) -> None:
    """Write each member as a PNG named by its sector and its name, and `members.csv` with numbers and hashes.

    Images of floats are rounded to 256 levels. `load_images` reads the folder; its order is that of the files' names.

    Args:
        support: to write.
        folder: must not exist yet, or be empty.

    Raises:
        OutputExistsError: the folder already holds something.
    """
    names = picture_names(support)
    with writing(folder) as beside:
        for name, pixels in zip(names, to_pixels(support.images.tensor()), strict=True):
            array = pixels.permute(1, 2, 0).numpy()
            Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array).save(beside / name, format="PNG", optimize=True)
        with (beside / TABLE).open("w", encoding="utf-8", newline="") as stream:
            rows = csv.writer(stream, lineterminator="\n")
            rows.writerow(("file", "name", "index", "sector", "sha256"))
            columns = names, support.member_names, support.indices.tolist(), support.sector.tolist(), support.hashes
            rows.writerows(zip(*columns, strict=True))


def export_npz(support: SupportSet, path: str | Path) -> None:
    """Write one file that NumPy reads without latlas, and without unpickling.

    It holds `images` (n c h w, as they are kept), `codes`, `sector`, `indices`, `names` and `hashes`, and `labels` where there are any.

    Args:
        support: to write.
        path: ends in `.npz`, and must not exist yet.

    Raises:
        OutputExistsError: something lies there.
        SettingError: another ending.
    """
    if Path(path).suffix != ".npz":
        raise SettingError(f"A Support Set is exported to an .npz file, got {path}.")
    arrays: dict[str, Any] = {
        "images": support.images.storage.numpy(),
        "codes": support.codes.numpy(),
        "sector": support.sector.numpy(),
        "indices": support.indices.numpy(),
        "names": np.array(support.member_names),
        "hashes": np.array(support.hashes),
    }
    if support.images.labels is not None:
        arrays["labels"] = support.images.labels.numpy()
    write_file(path, lambda stream: np.savez_compressed(stream, **arrays))


def picture_names(support: SupportSet) -> tuple[str, ...]:
    """Return a file name for each member: its sector, then its name; no two alike, on any file system."""
    digits = len(str(support.sectors.count - 1))
    taken: set[str] = set()
    names = []
    for sector, name in zip(support.sector.tolist(), support.member_names, strict=True):
        plain = "".join(
            letter if letter.isalnum() or letter in "._-" else "-" for letter in name.removesuffix(Path(name).suffix)
        )
        where = f"sector-{sector:0{digits}d}" if sector >= 0 else "no-sector"
        stem = f"{where}_{plain.strip('-.')[:80] or 'image'}".encode()[:_BYTES].decode(errors="ignore")
        number, unique = 2, stem
        while _seen_by_file_systems(unique) in taken:
            unique, number = f"{stem}-{number}", number + 1
        taken.add(_seen_by_file_systems(unique))
        names.append(f"{unique}.png")
    return tuple(names)


def _seen_by_file_systems(name: str) -> str:
    # Some tell apart neither cases nor a letter that is whole from one in parts.
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
