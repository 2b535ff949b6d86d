"""Which pictures a source has, and the bytes of each: the `Listing`, and the one of a folder.

A listing is small and needs no decoding, so that millions of pictures are listed before the first is read. It travels
to worker processes; nothing here imports torch.
"""

import hashlib
import os
import stat
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from latlas.base.errors import ImageFormatError, MissingPathError
from latlas.base.progress import Progress, silent
from latlas.data.decoding import Buffer

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
MOST_BYTES = 512 * 2**20  # of a picture's file
_SAMPLED = 16  # pictures whose bytes enter a listing's hash
_READING = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_TOLD_EVERY = 10_000  # names between two words of progress


@runtime_checkable
class Listing(Protocol):
    """Pictures of one container, numbered from 0."""

    @property
    def spec(self) -> str:
        """How the container is named."""
        ...

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """One class number a picture, where the container has them."""
        ...

    def __len__(self) -> int:
        """How many pictures there are."""
        ...

    def name_of(self, index: int) -> str:
        """Return the name of a picture within the container."""
        ...

    def place_of(self, index: int) -> str:
        """Return where a picture is, for whoever has to mend it."""
        ...

    def read(self, index: int) -> Buffer:
        """Return the bytes of a picture's file.

        Raises:
            OSError, ValueError: they cannot be had.
        """
        ...

    def identity(self) -> Iterator[bytes]:
        """Yield what tells the container from others: names and sizes, in order."""
        ...


def listing_hash(listing: Listing, part: range, *extra: object) -> str:
    """Return the SHA-256 of a listing's names and sizes, of the bytes of a few spread pictures, and of what is added.

    It changes with any picture added, removed, renamed or of another size; not with the container's place. A picture
    replaced by one of the same size is seen only if it is among the few.
    """
    digest = hashlib.sha256(repr((type(listing).__name__, len(listing), part.start, part.stop, *extra)).encode())
    for piece in listing.identity():
        digest.update(piece)
    for index in spread(part, _SAMPLED):
        try:
            digest.update(listing.read(index))
        except (OSError, ValueError):
            digest.update(b"unreadable")
    return digest.hexdigest()


def check_size(size: int) -> None:
    """Raise a ValueError for more bytes than any picture of Pillow's limit of pixels takes, uncompressed and with 4 channels."""
    if size > MOST_BYTES:
        raise ValueError(f"it has {size:,} bytes, and pictures at most {MOST_BYTES:,}")


class FileState(NamedTuple):
    """What tells a file from the one that its name had before, and from itself before it was written to."""

    device: int
    number: int
    size: int  # bytes
    changed: int  # ns


def state_of(path: str, size: int) -> FileState:
    """Return the state of a file that was listed with a size: who keeps it open does so by its state, not by its name alone.

    Raises:
        OSError: it is gone.
        ValueError: it has another size, so that what was listed in it lies elsewhere.
    """
    status = os.stat(path)  # noqa: PTH116 - once a picture
    if status.st_size != size:
        raise ValueError("its file was changed since it was listed")
    return FileState(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def is_picture(name: str) -> bool:
    """Return whether a file's name ends as a picture's does."""
    return os.path.splitext(name)[1].lower() in EXTENSIONS  # noqa: PTH122 - called once a file, of millions


def spread(part: range, count: int) -> range:
    """Return about `count` evenly spread members of a range, its first among them.

    >>> list(spread(range(10, 20), 5)), list(spread(range(3), 5))
    ([10, 12, 14, 16, 18], [0, 1, 2])
    """
    return part[:: max(1, len(part) // count)]


class PackedNames:
    """Names in one block of bytes: a million of them take their letters and 8 bytes each, and no object each."""

    def __init__(self, names: Iterable[str]) -> None:
        letters, ends = bytearray(), array("q")
        for name in names:
            letters += os.fsencode(name)
            ends.append(len(letters))
        self.letters = bytes(letters)
        self.ends: NDArray[np.int64] = np.frombuffer(ends.tobytes(), dtype=np.int64)

    @classmethod
    def joined(cls, parts: Sequence["PackedNames"]) -> "PackedNames":
        """Return the names of all the parts, one after the other."""
        whole = cls(())
        whole.letters = b"".join(part.letters for part in parts)
        before = np.cumsum([0, *(len(part.letters) for part in parts)])
        whole.ends = np.concatenate([part.ends + start for part, start in zip(parts, before, strict=False)])
        return whole

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> str:
        start = int(self.ends[index - 1]) if index else 0
        return os.fsdecode(self.letters[start : int(self.ends[index])])


@dataclass(frozen=True, kw_only=True, eq=False)
class FolderListing:
    """Every picture under a folder, in the order of the names."""

    folder: str
    names: PackedNames  # paths within the folder

    @property
    def spec(self) -> str:
        """The folder."""
        return self.folder

    @property
    def labels(self) -> None:
        """None: what the folders within mean is not known here."""
        return

    def __len__(self) -> int:
        return len(self.names)

    def name_of(self, index: int) -> str:
        """Return the path within the folder."""
        return self.names[index]

    def place_of(self, index: int) -> str:
        """Return the path of the file."""
        return os.path.join(self.folder, self.names[index])  # noqa: PTH118 - a Path costs more than to read the file

    def read(self, index: int) -> bytes:
        """Return the content of the file."""
        # Since it was listed it may have become a pipe, which would be waited for, or a device, which never ends.
        with open(os.open(self.place_of(index), _READING), "rb", buffering=0) as file:  # noqa: PTH123
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ValueError("it is no file any more")
            check_size(status.st_size)
            return file.read() or b""

    def identity(self) -> Iterator[bytes]:
        """Yield the names and the sizes of the files."""
        yield self.names.letters
        yield self.names.ends.tobytes()
        for index in range(len(self)):
            try:
                yield b"%d " % os.stat(self.place_of(index)).st_size  # noqa: PTH116
            except OSError:
                yield b"gone "


def list_folder(folder: Path, *, progress: Progress = silent) -> FolderListing:
    """Return the pictures under a folder, those in folders within included, sorted by the parts of their paths.

    Links to files are followed, links to folders are not. Memory: the names of one folder at a time, beside those found.

    Raises:
        MissingPathError: no such folder, or one that may not be read.
        ImageFormatError: no picture in it.
    """
    if not os.path.isdir(folder):  # noqa: PTH112  # a Path raises where no folder could have that name
        raise MissingPathError(f"No folder {folder}.")
    names = PackedNames(_told(_walk(str(folder)), f"listing {folder.name}", progress))
    if not len(names):
        shards = next(
            (f" Name its shards: '{folder}/*{kind}'." for kind in (".tar", ".parquet") if any(folder.glob(f"*{kind}"))), ""
        )
        raise ImageFormatError(f"{folder} holds no pictures (looked for {', '.join(EXTENSIONS)}).{shards}")
    return FolderListing(folder=str(folder), names=names)


def _walk(top: str) -> Iterator[str]:
    # Not by recursion: folders may lie deeper within each other than calls may.
    entered = [iter(_entries(top, ""))]
    while entered:
        for name, is_folder in entered[-1]:
            if is_folder:
                entered.append(iter(_entries(f"{top}{os.sep}{name}", f"{name}{os.sep}")))
                break
            yield name
        else:
            entered.pop()


def _entries(folder: str, within: str) -> list[tuple[str, bool]]:
    """Return the pictures and the folders in a folder in the order of their names, and which are folders.

    Raises:
        MissingPathError: it cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            found = [
                (entry.name, is_folder)
                for entry in entries
                if (is_folder := entry.is_dir(follow_symlinks=False)) or (is_picture(entry.name) and _is_file(entry))
            ]
    except OSError as failure:
        raise MissingPathError(f"Folder {folder} cannot be read ({failure.strerror}).") from failure
    return [(within + name, is_folder) for name, is_folder in sorted(found)]


def _is_file(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link in a circle, or to where one may not look: one picture that cannot be read, and not a folder
        return True


def _told(names: Iterable[str], task: str, progress: Progress) -> Iterator[str]:
    for count, name in enumerate(names):
        if count and count % _TOLD_EVERY == 0:
            progress(task, count, None)
        yield name
