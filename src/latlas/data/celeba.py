"""CelebA for those who have it: the aligned pictures, cropped as published, with their attributes as factors.

The pictures are fetched by nobody here: their licence allows research only, and every user accepts it at the source.
"""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from latlas.base.errors import ImageFormatError, MissingPathError, SettingError, unknown_name
from latlas.base.progress import Progress, silent, track
from latlas.data.images import ImageSet
from latlas.data.specs import agreed_size, parse_query, whole_number

SPLITS = {"train": "0", "val": "1", "test": "2"}  # as list_eval_partition.txt numbers them
# Name of a crop -> left, upper, right, lower of the 178 x 218 picture. 128: rows 45 to 173, columns 25 to 153, the
# field's usual one. 140: rows 39 to 179, columns 19 to 159, as in the WAE line of work. Numbers measured on one cannot
# be compared with numbers on the other.
CROPS = {128: (25, 45, 153, 173), 140: (19, 39, 159, 179)}
_ALIGNED = (178, 218)  # width, height
_PARTITION = "list_eval_partition.txt"
_ATTRIBUTES = "list_attr_celeba.txt"
_WORDS = {"1": "yes", "-1": "no"}


@dataclass(frozen=True, kw_only=True)
class CelebA:
    """One split of a CelebA folder, listed and not yet read."""

    folder: Path
    pictures: Path  # the folder that holds the .jpg files
    split: str
    files: tuple[str, ...]
    attributes: Mapping[str, tuple[str, ...]]  # attribute -> "yes" or "no", one a file
    crop: int
    size: int

    @property
    def spec(self) -> str:
        """The DATA spec that gives this split again."""
        settings = [f"crop={self.crop}"] * (self.crop != 128) + [f"size={self.size}"] * (self.size != 64)
        return f"celeba:{self.folder}:{self.split}" + (f"?{'&'.join(settings)}" if settings else "")

    def load(self, part: range | None = None, *, progress: Progress = silent) -> ImageSet:
        """Return the pictures with these numbers, cropped and resized, with their attributes as factors.

        Resized by Pillow's bilinear filter, which antialiases: its support grows with the reduction.

        Args:
            part: the numbers of the pictures that are wanted, one after the other; None: all.
            progress: told how many are read.

        Raises:
            MissingPathError: pictures that the partition lists are not there.
            ImageFormatError: a picture that cannot be read, or is not 178 x 218.
        """
        whole = range(len(self.files))
        part = whole if part is None else part
        chosen = self.files[part.start : part.stop]
        try:
            present = {path.name for path in self.pictures.iterdir()}
        except OSError as failure:
            raise MissingPathError(f"Folder {self.pictures} cannot be read ({failure.strerror}).") from failure
        missing = [name for name in chosen if name not in present]
        if missing:
            raise MissingPathError(
                f"{len(missing)} of the {len(chosen)} pictures asked for are not in {self.pictures}, the first is {missing[0]}. "
                "Unpack img_align_celeba.zip there again."
            )
        pixels = torch.empty((len(chosen), 3, self.size, self.size), dtype=torch.uint8)
        # Pillow lets go of the interpreter while it decodes and resizes, so threads are enough.
        with ThreadPoolExecutor() as pool:
            try:
                read = pool.map(self._read, chosen)
                for index, picture in enumerate(track(read, "reading CelebA", progress, total=len(chosen))):
                    pixels[index] = torch.from_numpy(picture).permute(2, 0, 1)
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        return ImageSet(
            name=self.spec if len(part) == len(whole) else f"{self.spec}[{part.start}:{part.stop}]",
            storage=pixels,
            names=chosen,
            factors={name: values[part.start : part.stop] for name, values in self.attributes.items()},
        )

    def _read(self, name: str) -> np.ndarray:
        path = self.pictures / name
        try:
            if not path.is_file():  # to open a pipe would wait for ever
                raise ImageFormatError(f"{path} is no file. Unpack img_align_celeba.zip again.")
            with Image.open(path, formats=("JPEG", "PNG")) as picture:  # PostScript would be handed to another program
                if picture.size != _ALIGNED:
                    width, height = picture.size
                    raise ImageFormatError(
                        f"{path} is {width} x {height}; CelebA's aligned pictures are 178 x 218. "
                        "Use img_align_celeba, not the pictures in the wild."
                    )
                cropped = picture.convert("RGB").crop(CROPS[self.crop])
        except ImageFormatError:
            raise
        except Exception as failure:  # what Pillow raises on damaged files is no closed list
            raise ImageFormatError(
                f"{path} cannot be read as a picture ({failure}). Unpack img_align_celeba.zip again."
            ) from failure
        return np.array(cropped.resize((self.size, self.size), Image.Resampling.BILINEAR), dtype=np.uint8)


def list_celeba(spec: str, *, size: int | None = None) -> CelebA:
    """Return what a spec such as `celeba:FOLDER:test?crop=140&size=64` names, listed and not yet read.

    FOLDER holds `list_eval_partition.txt`, `list_attr_celeba.txt` (in it, or in `Eval` and `Anno` as the original has
    them) and the aligned `.jpg` files (in it, in `img_align_celeba` or in `Img/img_align_celeba`).

    Args:
        spec: `celeba:FOLDER`, perhaps with `:train` (the default), `:val` or `:test` by the official partition, perhaps
            with `?crop=128` (the default) or `140`, and `size=64`.
        size: the side of the images where the spec names none.

    Raises:
        MissingPathError: no such folder, or a list that is not in it.
        ImageFormatError: a list that does not have the original's form.
        UnknownNameError: no such split or setting.
        SettingError: no such crop, or a size below 1.
    """
    base, query = parse_query(spec)
    folder, split = _folder_and_split(base.removeprefix("celeba").removeprefix(":"))
    for key in query:
        if key not in ("crop", "size"):
            raise unknown_name("setting of celeba", key, ("crop", "size"))
    crop = whole_number("crop", query.get("crop", "128"))
    if crop not in CROPS:
        raise SettingError(f"CelebA's published crops are {' and '.join(map(str, CROPS))}, got {crop}.")
    side = agreed_size(spec, whole_number("size", query["size"]) if "size" in query else None, size, 64)
    if side < 1:
        raise SettingError(f"The image size must be at least 1, got {side}.")
    partition = _read_partition(_list_file(folder, _PARTITION))
    files = tuple(sorted(name for name, number in partition.items() if number == SPLITS[split]))
    if not files:
        raise ImageFormatError(f"{folder / _PARTITION} lists no pictures of the {split} split (number {SPLITS[split]}).")
    return CelebA(
        folder=folder,
        pictures=next(
            (place for place in (folder / "img_align_celeba", folder / "Img" / "img_align_celeba") if place.is_dir()), folder
        ),
        split=split,
        files=files,
        attributes=_read_attributes(_list_file(folder, _ATTRIBUTES), files),
        crop=crop,
        size=side,
    )


def _folder_and_split(text: str) -> tuple[Path, str]:
    if not text:
        raise SettingError("celeba needs the folder that holds it: celeba:FOLDER, celeba:FOLDER:val or celeba:FOLDER:test.")
    whole = Path(os.path.expanduser(text))  # noqa: PTH111  # a Path raises for a user that does not exist
    before, colon, split = text.rpartition(":")
    folder = Path(os.path.expanduser(before))  # noqa: PTH111
    if os.path.isdir(whole):  # noqa: PTH112  # a Path raises where no folder could have that name
        return whole, "train"
    if colon and os.path.isdir(folder):  # noqa: PTH112
        if split not in SPLITS:
            raise unknown_name("split of celeba", split, SPLITS)
        return folder, split
    raise MissingPathError(
        f"No folder {folder if colon and split in SPLITS else whole}: celeba:FOLDER names the one with CelebA."
    )


def _list_file(folder: Path, name: str) -> Path:
    for place in (folder, folder / "Eval", folder / "Anno"):
        if os.path.isfile(place / name):  # noqa: PTH113  # a Path raises where one may not look
            return place / name
    raise MissingPathError(f"No {name} in {folder}. Put the file of that name from CelebA's own page there.")


def _read_partition(path: Path) -> dict[str, str]:
    partition = {}
    for number, line in enumerate(_lines(path), start=1):
        words = line.split()
        if len(words) != 2 or words[1] not in SPLITS.values():
            raise ImageFormatError(f"{path}, line {number}: expected a file name and 0, 1 or 2, got {line!r}.")
        partition[_plain_name(words[0], path, number)] = words[1]
    return partition


def _read_attributes(path: Path, files: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    lines = _lines(path)
    names = lines[1].split() if len(lines) > 1 else []
    if not names or not lines[0].strip().isdigit():
        raise ImageFormatError(f"{path} must begin with a line that counts the pictures and a line of attribute names.")
    wanted = set(files)
    rows: dict[str, list[str]] = {}
    for number, line in enumerate(lines[2:], start=3):
        name, *values = line.split()
        if name not in wanted:
            continue
        if len(values) != len(names) or not set(values) <= set(_WORDS):
            raise ImageFormatError(f"{path}, line {number}: expected a file name and {len(names)} numbers, each 1 or -1.")
        rows[name] = [_WORDS[value] for value in values]
    absent = [name for name in files if name not in rows]
    if absent:
        raise ImageFormatError(f"{path} has no line for {len(absent)} pictures, the first is {absent[0]}.")
    return {attribute: tuple(rows[name][place] for name in files) for place, attribute in enumerate(names)}


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as failure:
        raise ImageFormatError(f"{path} cannot be read as text ({failure}).") from failure


def _plain_name(name: str, path: Path, number: int) -> str:
    if Path(name).name != name:
        raise ImageFormatError(f"{path}, line {number}: {name!r} is not a plain file name.")
    return name
