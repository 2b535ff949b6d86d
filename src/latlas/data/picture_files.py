"""Pictures that are not in memory: a listing, decoded block by block as they are asked for."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from latlas.base.errors import ImageFormatError, SettingError, unknown_name
from latlas.base.progress import Progress, silent
from latlas.base.shapes import ImageShape
from latlas.data.decode_workers import Bad, Decoded, DecodeWorkers, workers_for
from latlas.data.decoding import COLOUR_AMONG_GREY, RESIZING, UnreadableError, picture_shape, read_picture
from latlas.data.images import ImageSet, PixelBlock, SkippedImage, check_bounds, part_of
from latlas.data.listings import Listing, listing_hash, spread
from latlas.data.specs import LARGEST_SIDE

POLICIES = ("stop", "skip")  # what may happen with pictures that cannot be used

_PROBED = 32  # pictures whose heads are read before any is decoded
_TOLD = 50  # times that the reading of a whole set tells how far it is, at least
_AT_ONCE = 1 << 24  # bytes of one block while a whole set is read


class _ColourError(ImageFormatError):
    """A picture in colour where the heads that were read were all grey."""


@dataclass(frozen=True, kw_only=True)
class PictureForm:
    """What every picture of a source becomes."""

    image_shape: ImageShape
    side: int | None  # None: no picture is resized
    strict: bool  # whether a picture in colour is refused where there is one channel
    example: str  # a picture that has this shape, for messages


@dataclass(frozen=True, kw_only=True, eq=False)
class PictureFiles:
    """The pictures of a listing as an ImageSource: nothing of them is kept, and worker processes decode ahead.

    With policy "stop" the first picture that cannot be used ends the pass with an ImageFormatError that names it; with
    "skip" it is left out, and named in its block's `skipped`. Blocks are in pinned memory where this process uses CUDA.
    Worker processes last until `close`, or until the source is forgotten.
    """

    listing: Listing
    part: range
    form: PictureForm
    policy: str = "stop"
    workers: int = 0  # processes that decode; 0: this one
    _started: list[DecodeWorkers] = field(default_factory=list, init=False, repr=False)

    def __len__(self) -> int:
        return len(self.part)

    @property
    def name(self) -> str:
        """The spec that gives these pictures again, their size included."""
        settings = [] if self.form.side is None else [f"size={self.form.side}"]
        if not self.form.strict:
            settings.append(f"channels={self.form.image_shape[0]}")
        query = ("&" if "?" in self.listing.spec else "?") + "&".join(settings) if settings else ""
        part = "" if len(self.part) == len(self.listing) else f"[{self.part.start}:{self.part.stop}]"
        return f"{self.listing.spec}{query}{part}"

    @property
    def image_shape(self) -> ImageShape:
        """Channels, height, width."""
        return self.form.image_shape

    @property
    def reading(self) -> dict[str, str]:
        """How pixels came from files, for a provenance."""
        resizing = "none" if self.form.side is None else f"to {self.form.side}: {RESIZING}"
        return {"resizing": resizing, "transparency": "over white", "bad_pictures": self.policy}

    @cached_property
    def listing_hash(self) -> str:
        """SHA-256 of the names and sizes of the files, of the bytes of a few, and of what is made of them."""
        return listing_hash(self.listing, self.part, self.form.image_shape, self.form.side, self.form.strict)

    def name_of(self, index: int) -> str:
        """Return the name of a picture within the container."""
        return self.listing.name_of(self.part[index])

    def slice(self, start: int | None, stop: int | None) -> "PictureFiles":
        """Return pictures `start` up to, not including, `stop`, counted as Python does.

        Raises:
            SettingError: nothing is left.
        """
        part = part_of(self.name, self.part, start, stop)
        return replace(self, part=part)

    def blocks(self, bounds: Iterable[tuple[int, int]]) -> Iterator[PixelBlock]:
        """Yield the pictures of each `[start, stop)`, in the order of the bounds, decoded ahead by the workers.

        Raises:
            ImageFormatError: a picture that cannot be used, under policy "stop".
            DataUnavailableError: a worker process was killed.
            SettingError: bounds that leave the set, or hold nothing.
        """
        pinned = torch.cuda.is_available() and bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]
        for start, stop, pixels, bad in self._decoded(self._checked(bounds), pinned):
            if bad and self.policy == "stop":
                self.close()  # whoever holds the error holds this source
                raise self._refusal(*bad[0])
            indices = torch.arange(start, stop)
            if bad:
                kept = torch.ones(stop - start, dtype=torch.bool)
                kept[[index - start for index, _ in bad]] = False
                pixels, indices = pixels[kept], indices[kept]
                pixels = pixels.pin_memory() if pinned and len(pixels) else pixels
            labels = self.listing.labels
            yield PixelBlock(
                pixels=pixels,
                indices=indices,
                names=tuple(self.listing.name_of(self.part.start + index) for index in indices.tolist()),
                labels=None if labels is None else torch.from_numpy(labels[self.part.start + indices.numpy()]),
                skipped=tuple(SkippedImage(index=index, name=self.name_of(index), reason=reason) for index, reason in bad),
            )

    def load(self, *, progress: Progress = silent) -> ImageSet:
        """Return all pictures in memory; those that were skipped are named in the set's `skipped`.

        Raises:
            ImageFormatError: as `blocks`, or no picture is left.
        """
        total = len(self)
        storage = torch.empty((total, *self.image_shape), dtype=torch.uint8)
        kept: list[torch.Tensor] = []
        names: list[str] = []
        skipped: list[SkippedImage] = []
        step = max(1, min(_AT_ONCE // int(np.prod(self.image_shape)), total // _TOLD))
        filled, task = 0, f"reading {os.path.basename(self.listing.spec) or self.listing.spec}"  # noqa: PTH119
        progress(task, 0, total)
        for block in self.blocks((start, min(start + step, total)) for start in range(0, total, step)):
            storage[filled : filled + len(block)] = block.pixels
            filled += len(block)
            kept.append(block.indices)
            names.extend(block.names)
            skipped.extend(block.skipped)
            progress(task, filled + len(skipped), total, f"{len(skipped)} skipped" if skipped else "")
        if not filled:
            raise ImageFormatError(f"{self.name}: no picture can be used; {skipped[0].name} {skipped[0].reason}.")
        labels = self.listing.labels
        return ImageSet(
            name=self.name,
            storage=storage if filled == total else storage[:filled].clone(),
            labels=None if labels is None else torch.from_numpy(labels[self.part.start + torch.cat(kept).numpy()]),
            names=tuple(names),
            skipped=tuple(skipped),
        )

    def close(self) -> None:
        """End the worker processes; another pass starts new ones."""
        while self._started:
            self._started.pop().close()

    def _decoded(self, bounds: Iterator[tuple[int, int]], pinned: bool) -> Iterator[Decoded]:
        decode = _Decode(self.listing, self.part.start, self.form)
        if not self.workers:
            for start, stop in bounds:
                pixels = torch.empty((stop - start, *self.image_shape), dtype=torch.uint8, pin_memory=pinned)
                yield start, stop, pixels, decode(start, stop, pixels.numpy())
            return
        self._started[:] = [kept for kept in self._started if not kept.closed]
        idle = next((kept for kept in self._started if not kept.busy), None)
        if idle is None:
            idle = DecodeWorkers(decode, self.image_shape, count=self.workers, source=self.name)
            self._started.append(idle)
        yield from idle.blocks(bounds, pinned=pinned)

    def _checked(self, bounds: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        for start, stop in bounds:
            check_bounds(self.name, len(self), start, stop)
            yield start, stop

    def _refusal(self, index: int, reason: str) -> ImageFormatError:
        kind = _ColourError if reason == COLOUR_AMONG_GREY else ImageFormatError
        return kind(
            f"{self.listing.place_of(self.part[index])} {reason}. Remove or repair it, or leave such pictures out (--on-bad skip)."
        )


@dataclass(frozen=True, eq=False)
class _Decode:
    """Decodes pictures into rows of an array; sent to every worker."""

    listing: Listing
    first: int  # the listing's number of the source's first picture
    form: PictureForm

    def __call__(self, start: int, stop: int, rows: NDArray[np.uint8]) -> Bad:
        bad = []
        for row, index in zip(rows, range(start, stop), strict=True):
            try:
                row[...] = self._picture(self.first + index)
            except UnreadableError as failure:
                bad.append((index, str(failure)))
        return tuple(bad)

    def _picture(self, index: int) -> NDArray[np.uint8]:
        channels, height, width = self.form.image_shape
        try:
            data = self.listing.read(index)
        except (OSError, ValueError) as failure:
            raise UnreadableError(f"cannot be read ({getattr(failure, 'strerror', None) or failure})") from failure
        strict = self.form.strict and channels == 1
        picture = read_picture(data, channels=None if strict else channels, side=self.form.side)
        if strict and picture.shape[0] == 3:
            raise UnreadableError(COLOUR_AMONG_GREY)
        if picture.shape[1:] != (height, width):
            raise UnreadableError(
                f"is {picture.shape[2]} x {picture.shape[1]} and {self.form.example} is {width} x {height}: a set holds one "
                "size. Give a size to crop and resize to (--resize N)"
            )
        return picture


def open_pictures(
    listing: Listing,
    *,
    part: range | None = None,
    size: int | None = None,
    channels: int | None = None,
    policy: str = "stop",
    workers: int | None = None,
) -> PictureFiles:
    """Return the pictures of a listing as a source; the heads of a few are read, to know the shape.

    Args:
        listing: which pictures.
        part: their numbers, one after the other; None: all.
        size: the side that each picture's central square is resized to; None: all must have one shape.
        channels: 1 or 3, to which every picture is converted; None: 3 if one of 32 spread pictures is in colour, else 1,
            and then a picture in colour counts as bad.
        policy: what happens with pictures that cannot be used: "stop" or "skip".
        workers: processes that decode; None: one a core, at most 8, and none for up to 256 pictures.

    Raises:
        ImageFormatError: no picture has a readable head.
        SettingError: a setting out of its range.
        UnknownNameError: no such policy.
    """
    part = range(len(listing)) if part is None else part
    if size is not None and not 1 <= size <= LARGEST_SIDE:
        raise SettingError(f"The image size must lie between 1 and {LARGEST_SIDE:,}, got {size}.")
    if channels not in (None, 1, 3):
        raise SettingError(f"Images have 1 or 3 channels, got {channels}.")
    if policy not in POLICIES:
        raise unknown_name("policy for bad pictures", policy, POLICIES)
    if workers is not None and workers < 0:
        raise SettingError(f"The number of workers must be at least 0, got {workers}.")
    example, shapes = _probe(listing, part)
    seen, height, width = shapes[0]
    seen = max(seen, *(shape[0] for shape in shapes))
    return PictureFiles(
        listing=listing,
        part=part,
        form=PictureForm(
            image_shape=(channels or seen, *((height, width) if size is None else (size, size))),
            side=size,
            strict=channels is None,
            example=example,
        ),
        policy=policy,
        workers=workers_for(len(part), workers),
    )


def load_pictures(files: PictureFiles, *, progress: Progress = silent) -> ImageSet:
    """Return all pictures of a source in memory: one channel if all are grey, else three.

    Where the few heads that were read were all grey and another picture is not, all are read again.

    Raises:
        ImageFormatError: as `PictureFiles.load`.
    """
    in_colour = replace(files, form=replace(files.form, image_shape=(3, *files.image_shape[1:])))
    try:
        loaded = files.load(progress=progress)
        if not any(image.reason == COLOUR_AMONG_GREY for image in loaded.skipped):
            return loaded
    except _ColourError:
        pass
    finally:
        files.close()
    try:
        return in_colour.load(progress=progress)
    finally:
        in_colour.close()


def _probe(listing: Listing, part: range) -> tuple[str, list[ImageShape]]:
    """Return the name of the first picture whose head can be read, and the shapes of some, its own first."""
    example, shapes, reason = "", [], ""  # of the first picture without a readable head
    first = spread(part, _PROBED)
    for tried in (first, part):
        for index in tried:
            try:
                shapes.append(picture_shape(listing.read(index)))
            except (UnreadableError, OSError, ValueError) as failure:
                told = str(failure) if isinstance(failure, UnreadableError) else f"cannot be read ({failure})"
                reason = reason or f"{listing.place_of(index)} {told}"
                continue
            example = example or os.path.basename(listing.name_of(index))  # noqa: PTH119
            if tried is part:
                break
        if shapes:
            return example, shapes
    raise ImageFormatError(f"{listing.spec}: no picture can be used, the first: {reason}. Remove or repair them.")
