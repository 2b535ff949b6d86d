"""The images of an `.npy` file, read from disk where they are asked for."""

import hashlib
import mmap
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from latlas.base.errors import ImageFormatError
from latlas.base.npy import open_npy
from latlas.base.shapes import ImageShape
from latlas.data.files import as_images, load_array
from latlas.data.images import ImageSet, PixelBlock, check_bounds, part_of
from latlas.data.listings import spread

_SAMPLED = 64  # images that enter the hash


@dataclass(frozen=True, kw_only=True, eq=False)
class ArrayFile:
    """An `.npy` file of images as an ImageSource: mapped into memory, converted block by block."""

    path: Path
    array: "np.memmap[Any, Any]"  # n h w, n h w c or n c h w, mapped
    part: range
    state: os.stat_result | None = None  # of the file when it was mapped

    def __len__(self) -> int:
        return len(self.part)

    @property
    def name(self) -> str:
        """The spec that gives these images again."""
        return str(self.path) if len(self.part) == len(self.array) else f"{self.path}[{self.part.start}:{self.part.stop}]"

    @cached_property
    def image_shape(self) -> ImageShape:
        """Channels, height, width."""
        channels, height, width = as_images(np.array(self.array[:1]), self.path).shape[1:]
        return int(channels), int(height), int(width)

    @cached_property
    def listing_hash(self) -> str:
        """SHA-256 of the array's shape and type and of some spread images."""
        digest = hashlib.sha256(repr((self.array.shape, self.array.dtype.str, self.part.start, self.part.stop)).encode())
        for index in spread(self.part, _SAMPLED):
            digest.update(np.ascontiguousarray(self.array[index]).tobytes())
        return digest.hexdigest()

    def name_of(self, index: int) -> str:
        """Return `#` and the image's number in this source."""
        return f"#{index}"

    def slice(self, start: int | None, stop: int | None) -> "ArrayFile":
        """Return images `start` up to, not including, `stop`, counted as Python does.

        Raises:
            SettingError: nothing is left.
        """
        return ArrayFile(path=self.path, array=self.array, part=part_of(self.name, self.part, start, stop), state=self.state)

    def __reduce__(self) -> tuple[Any, ...]:
        # Its place travels, not its content, which would fill the memory of whoever is sent it.
        return _opened_again, (self.path, self.path.absolute(), self.part)

    def blocks(self, bounds: Iterable[tuple[int, int]]) -> Iterator[PixelBlock]:
        """Yield the images of each `[start, stop)`.

        Raises:
            ImageFormatError, NonFiniteError: floats that leave [0, 1], NaN or infinity; the file was written to meanwhile.
            SettingError: bounds that leave the set, or hold nothing.
        """
        for start, stop in bounds:
            check_bounds(self.name, len(self), start, stop)
            rows = self.part[start:stop]
            self._check_unchanged()  # before: to read what was cut off of a mapped file ends the process
            images = as_images(np.array(self.array[rows.start : rows.stop]), self.path)
            self._check_unchanged()
            self._release()
            checked = ImageSet(name=f"{self.path}[{rows.start}:{rows.stop}]", storage=images)
            yield PixelBlock(pixels=checked.storage, indices=torch.arange(start, stop))

    def _check_unchanged(self) -> None:
        """Raise if the file was written to since it was mapped; one that another has replaced is mapped as it was.

        Raises:
            ImageFormatError: it was.
        """
        try:
            now = os.stat(self.path)  # noqa: PTH116 - once a block
        except OSError:  # gone, and mapped all the same
            return
        then = self.state
        if then is None or not os.path.samestat(now, then):
            return
        if (now.st_size, now.st_mtime_ns) != (then.st_size, then.st_mtime_ns):
            raise ImageFormatError(f"{self.path} was written to while it was read. Begin again, once it is whole.")

    def _release(self) -> None:
        """Let go of what was read: else all of the file stays in this process's memory, as long as there is room.

        Of the whole mapping, since the system maps more than was asked for, on either side.
        """
        pages: mmap.mmap | None = getattr(self.array, "_mmap", None)
        if pages is not None and hasattr(mmap, "MADV_DONTNEED"):  # Windows has no such call
            pages.madvise(mmap.MADV_DONTNEED)


def open_array(path: Path) -> ArrayFile | ImageSet:
    """Return the images of an `.npy` file without reading them; of an `.npz` they are read at once.

    Raises:
        MissingPathError, ImageFormatError, NonFiniteError: as `latlas.data.files.load_array`.
    """
    if path.suffix != ".npy" or not os.path.isfile(path):  # noqa: PTH113
        return load_array(path)
    try:
        state = path.stat()
        array = open_npy(path)
    except Exception:  # a header may claim anything: OverflowError, TypeError
        return load_array(path)  # which says what is wrong
    if not len(array.shape) or not array.shape[0]:
        return load_array(path)
    opened = ArrayFile(path=path, array=array, part=range(len(array)), state=state)
    try:
        _ = opened.image_shape
    except ImageFormatError:
        return load_array(path)  # which says it of the whole
    return opened


def _opened_again(path: Path, place: Path, part: range) -> ArrayFile:
    return ArrayFile(path=path, array=open_npy(place), part=part, state=place.stat())
