"""Pictures in tar files, as WebDataset lays them out: the members of one sample share a key, `000123.jpg`, `000123.cls`.

The headers are read once; from then on each picture is one read at a known place, in any order, and nothing is unpacked.
"""

import os
import tarfile
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from latlas.base.errors import ImageFormatError
from latlas.base.progress import Progress, silent, track
from latlas.data.listings import EXTENSIONS, FileState, PackedNames, check_size, state_of

_OPEN_SHARDS = 4  # at once, in one process
_LARGEST_CLASS = 2**63 - 1
_READ_AT_ONCE = 2**20  # bytes
# Characters; more than a system's paths have. An encoding keeps all of a shard's names at the width of the longest.
_LONGEST_NAME = 4096


@dataclass(frozen=True, kw_only=True, eq=False)
class TarListing:
    """The pictures of tar files, in the order in which they lie there."""

    pattern: str
    shards: tuple[str, ...]
    firsts: NDArray[np.int64]  # the number of each shard's first picture
    names: PackedNames  # of the members
    offsets: NDArray[np.int64]  # n: bytes before a picture in its shard
    sizes: NDArray[np.int64]  # n
    labels: NDArray[np.int64] | None
    lengths: tuple[int, ...]  # bytes of each shard

    @property
    def spec(self) -> str:
        """The pattern that names the shards."""
        return self.pattern

    def __len__(self) -> int:
        return len(self.offsets)

    def name_of(self, index: int) -> str:
        """Return `shard.tar/member.jpg`."""
        return f"{os.path.basename(self._shard(index))}/{self.names[index]}"  # noqa: PTH119 - once a picture

    def place_of(self, index: int) -> str:
        """Return the path of the shard, and the member in it."""
        return f"{self._shard(index)}/{self.names[index]}"

    def read(self, index: int) -> bytes:
        """Return the bytes of a picture."""
        size = int(self.sizes[index])
        check_size(size)
        number = self._number(index)
        path = self.shards[number]
        file = _shard_file(path, os.getpid(), state_of(path, self.lengths[number]))
        file.seek(int(self.offsets[index]))
        data = file.read(size)
        if len(data) < size:
            raise ValueError(f"the shard ends after {len(data)} of its {size} bytes")
        return data

    def identity(self) -> Iterator[bytes]:
        """Yield the names, sizes and places of the pictures, and the names of the shards."""
        yield "\0".join(Path(shard).name for shard in self.shards).encode(errors="surrogateescape")
        yield self.names.letters
        for numbers in (self.names.ends, self.firsts, self.offsets, self.sizes):
            yield numbers.tobytes()

    def _shard(self, index: int) -> str:
        return self.shards[self._number(index)]

    def _number(self, index: int) -> int:
        return int(np.searchsorted(self.firsts, index, side="right")) - 1


def list_tars(pattern: str, paths: Sequence[Path], *, progress: Progress = silent) -> TarListing:
    """Return the pictures of tar files; whatever else the samples hold is passed over, but for a class number in `.cls`.

    A sample is the members whose names agree up to the first dot of the last part. What follows that dot must be a
    picture's ending and nothing else, so that `7.seg.png` is none; of two pictures in a sample the first counts.
    Labels exist where every picture has one.

    Args:
        pattern: how the user named the files.
        paths: the files, in order.
        progress: told after each.

    Raises:
        ImageFormatError: a file that is no uncompressed tar or is cut off, a `.cls` that holds no whole number, or no
            picture in any. A damaged shard stops whatever is done about bad pictures: nobody knows what it held.
    """
    names: list[str] = []
    packed: list[PackedNames] = []
    firsts, offsets, sizes, labels = array("q"), array("q"), array("q"), array("q")
    labelled = True
    lengths = []
    for path in track(paths, "listing tar files", progress):
        lengths.append(path.stat().st_size)
        firsts.append(len(offsets))
        names = []
        classes: dict[str, int] = {}
        keys: dict[str, None] = {}
        for member, content in _members(path, lengths[-1]):
            key, ending = _split(member.name)
            if content is not None:
                classes[key] = _class_number(content, f"{path}/{member.name}")
            elif f".{ending.lower()}" in EXTENSIONS and key not in keys:
                keys[key] = None
                names.append(member.name)
                offsets.append(member.offset_data)
                sizes.append(member.size)
        packed.append(PackedNames(names))
        labelled = labelled and all(key in classes for key in keys)
        labels.extend(classes.get(key, -1) for key in keys)
    if not len(offsets):
        raise ImageFormatError(f"{pattern} holds no pictures (looked for {', '.join(EXTENSIONS)}).")
    return TarListing(
        pattern=pattern,
        shards=tuple(map(str, paths)),
        firsts=_numbers(firsts),
        names=PackedNames.joined(packed),
        offsets=_numbers(offsets),
        sizes=_numbers(sizes),
        labels=_numbers(labels) if labelled else None,
        lengths=tuple(lengths),
    )


def _members(path: Path, length: int) -> Iterator[tuple[tarfile.TarInfo, bytes | None]]:
    """Yield each file of a tar of so many bytes, with its content where it is a class number."""
    try:
        with tarfile.open(path, "r:") as shard:
            for member in shard:
                if not member.isreg():
                    continue
                if member.issparse():
                    raise tarfile.ReadError(
                        f"{member.name[:_LONGEST_NAME]} was packed without its holes: pack it anew, without --sparse"
                    )
                if member.size < 0 or member.offset_data + member.size > length:
                    raise tarfile.ReadError(f"it ends within {member.name[:_LONGEST_NAME]}")
                if len(member.name) > _LONGEST_NAME:
                    raise tarfile.ReadError(
                        f"the name of a member has {len(member.name):,} characters, and names at most {_LONGEST_NAME:,}"
                    )
                opened = shard.extractfile(member) if _split(member.name)[1] == "cls" else None
                yield member, None if opened is None else opened.read(64)
                shard.members = []  # type: ignore[attr-defined]  # else it keeps some 1.5 kB for each
            _check_end(path, shard.offset)
    except (
        Exception
    ) as failure:  # what a header makes tarfile stumble over is no closed list: OverflowError, MemoryError, KeyError
        compressed = " Unpack compressed ones first: pictures are read from their places." if _is_compressed(path) else ""
        raise ImageFormatError(
            f"{path} cannot be read as a tar file ({str(failure) or type(failure).__name__}).{compressed}"
        ) from failure


def _check_end(path: Path, offset: int) -> None:
    """Raise unless a tar ends where its last member does: tarfile takes a damaged header, or a missing one, for the end.

    Raises:
        ReadError: what stands there is not the empty blocks that end every tar, and nothing but those.
    """
    with path.open("rb") as file:
        file.seek(offset)
        if len(block := file.read(tarfile.BLOCKSIZE)) < tarfile.BLOCKSIZE:
            raise tarfile.ReadError(
                f"it ends after {offset + len(block):,} bytes without a tar's end: cut off, or not yet whole"
            )
        if any(block):
            raise tarfile.ReadError(f"the header at byte {offset:,} is damaged")
        while rest := file.read(_READ_AT_ONCE):
            if rest.count(0) < len(rest):
                raise tarfile.ReadError("something stands behind its end, such as a second tar: unpack and pack it anew")


def _split(name: str) -> tuple[str, str]:
    """Return the key and the ending of a member, as WebDataset has them.

    >>> _split("train/0001.seg.png")
    ('train/0001', 'seg.png')
    """
    folder, slash, base = name.rpartition("/")
    stem, _, ending = base.partition(".")
    return f"{folder}{slash}{stem}", ending


def _class_number(content: bytes, place: str) -> int:
    try:
        number = int(content)
    except ValueError:
        number = None
    if number is None or abs(number) > _LARGEST_CLASS:
        raise ImageFormatError(f"{place} must hold a whole class number, got {content[:20]!r}.")
    return number


def _is_compressed(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            head = file.read(6)
    except OSError:
        return False
    return head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"))


def _numbers(values: "array[int]") -> NDArray[np.int64]:
    return np.frombuffer(values.tobytes(), dtype=np.int64)


@lru_cache(maxsize=_OPEN_SHARDS)
def _shard_file(path: str, _process: int, _state: FileState) -> BinaryIO:
    # By process: one that was forked shares the place in the file with its parent. By state: the name may be another file's by now.
    return open(path, "rb")  # noqa: PTH123
