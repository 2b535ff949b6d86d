"""Named, reproducible collections of images: held in memory as one tensor (ImageSet), or given block by block (ImageSource)."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from latlas.base.errors import ImageFormatError, NonFiniteError, SettingError
from latlas.base.provenance import tensor_hash
from latlas.base.shapes import Images, ImageShape


@dataclass(frozen=True, kw_only=True)
class SkippedImage:
    """An image that a source lists and could not give."""

    index: int  # its position in the source
    name: str
    reason: str


@dataclass(frozen=True, kw_only=True, eq=False)
class PixelBlock:
    """Images of a source that stand one after the other, without those that had to be skipped."""

    pixels: Tensor  # m c h w, uint8, or float32 in [0, 1]
    indices: Tensor  # m int64: positions in the source, rising; fewer than were asked for where images were skipped
    names: tuple[str, ...] = ()  # m; empty: the index is the name
    labels: Tensor | None = None  # m int64 class numbers, where the source has classes
    skipped: tuple[SkippedImage, ...] = ()

    def __len__(self) -> int:
        return self.pixels.shape[0]


@runtime_checkable
class ImageSource(Protocol):
    """A listed collection of images that gives their pixels block by block; an ImageSet is one, and need not fit in memory."""

    @property
    def name(self) -> str:
        """How to ask for it again."""
        ...

    @property
    def image_shape(self) -> ImageShape:
        """Channels, height, width of every image."""
        ...

    @property
    def listing_hash(self) -> str:
        """What tells this source from others before any image is decoded."""
        ...

    def __len__(self) -> int:
        """How many images are listed, those that cannot be read included."""
        ...

    def name_of(self, index: int) -> str:
        """Return the name of one image: its file, or its number."""
        ...

    def blocks(self, bounds: Iterable[tuple[int, int]]) -> Iterator[PixelBlock]:
        """Yield one block for each `[start, stop)`, in the order of the bounds, which may be made as they are asked for."""
        ...


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images with a name, kept as uint8 (or float32 in [0, 1]) and converted batch by batch.

    Raises:
        ImageFormatError: the tensor is not `n c h w`, or of another type, or floats leave [0, 1], or labels, names or
            factors are not one an image.
        NonFiniteError: floats hold NaN or infinity.
    """

    name: str  # how to ask for it again, for example "mnist:test[0:100]"
    storage: Tensor  # n c h w, uint8 or float32
    labels: Tensor | None = None  # n class numbers, where the set has classes
    names: tuple[str, ...] = field(default=())  # a name an image (files); empty: the index is the name
    factors: Mapping[str, tuple[str, ...]] | None = None  # what is known of each image: factor -> a value an image
    skipped: tuple[SkippedImage, ...] = ()  # what was listed and could not be read, with its position among all listed

    def __post_init__(self) -> None:
        shape = tuple(self.storage.shape)
        if self.storage.ndim != 4 or shape[1] not in (1, 3):
            raise ImageFormatError(f"{self.name}: images must have the shape n x c x h x w with 1 or 3 channels, got {shape}.")
        if self.storage.dtype not in (torch.uint8, torch.float32):
            raise ImageFormatError(
                f"{self.name}: images must be uint8 or float32, got {self.storage.dtype}. Convert them first."
            )
        if self.labels is not None and tuple(self.labels.shape) != shape[:1]:
            raise ImageFormatError(
                f"{self.name}: labels have shape {tuple(self.labels.shape)}, expected ({shape[0]},), one an image."
            )
        if self.names and len(self.names) != shape[0]:
            raise ImageFormatError(f"{self.name}: got {len(self.names)} names for {shape[0]} images. Give one an image.")
        for factor, values in (self.factors or {}).items():
            if len(values) != shape[0]:
                raise ImageFormatError(
                    f"{self.name}: factor {factor!r} has {len(values)} values for {shape[0]} images. Give one an image."
                )
        if self.storage.dtype == torch.float32 and self.storage.numel():
            low, high = self.storage.aminmax()
            if not bool(low.isfinite() and high.isfinite()):
                bad = int((~self.storage.isfinite()).flatten(1).any(dim=1).nonzero()[0, 0])
                raise NonFiniteError(f"{self.name}: image {bad} holds NaN or infinity. Remove or repair it.")
            if float(low) < 0.0 or float(high) > 1.0:
                raise ImageFormatError(
                    f"{self.name}: float images must lie in [0, 1], got [{float(low):.3g}, {float(high):.3g}]. "
                    "Rescale them, or give uint8."
                )

    def __len__(self) -> int:
        return self.storage.shape[0]

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.image_shape))
        return f"<ImageSet {self.name!r}: {len(self):,} images of {shape} ({self.storage.dtype}); .tensor(), .name_of(0)>"

    @property
    def image_shape(self) -> ImageShape:
        """Channels, height, width."""
        channels, height, width = self.storage.shape[1:]
        return int(channels), int(height), int(width)

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of the pixels: two sets with the same hash hold the same images in the same order."""
        return tensor_hash(self.storage)

    @property
    def listing_hash(self) -> str:
        """The content hash: a set in memory needs no other."""
        return self.content_hash

    def blocks(self, bounds: Iterable[tuple[int, int]]) -> Iterator[PixelBlock]:
        """Yield the stored images of each `[start, stop)`, without a copy.

        Raises:
            SettingError: bounds that leave the set, or hold nothing.
        """
        for start, stop in bounds:
            check_bounds(self.name, len(self), start, stop)
            yield PixelBlock(
                pixels=self.storage[start:stop],
                indices=torch.arange(start, stop),
                names=self.names[start:stop],
                labels=None if self.labels is None else self.labels[start:stop],
            )

    def tensor(self) -> Images:
        """Return all images as floats in [0, 1]."""
        return to_floats(self.storage)

    def batches(self, size: int = 500) -> Iterator[Images]:
        """Yield the images in order, as floats in [0, 1], at most `size` at a time."""
        if size < 1:
            raise SettingError(f"A batch must hold at least 1 image, got {size}.")
        for start in range(0, len(self), size):
            yield to_floats(self.storage[start : start + size])

    def take(self, indices: Tensor, *, name: str | None = None) -> "ImageSet":
        """Return the images at these indices, in this order."""
        wanted = [int(index) for index in indices] if self.names or self.factors else []
        return ImageSet(
            name=name if name is not None else f"{self.name}[{len(indices)} chosen]",
            storage=self.storage[indices],
            labels=None if self.labels is None else self.labels[indices],
            names=tuple(self.names[index] for index in wanted) if self.names else (),
            factors=None
            if self.factors is None
            else {factor: tuple(values[index] for index in wanted) for factor, values in self.factors.items()},
        )

    def slice(self, start: int | None, stop: int | None) -> "ImageSet":
        """Return images `start` up to, not including, `stop`, counted as Python does.

        Raises:
            SettingError: nothing is left.
        """
        part = part_of(self.name, range(len(self)), start, stop)
        if len(part) == len(self):
            return self
        return self.take(torch.arange(part.start, part.stop), name=f"{self.name}[{part.start}:{part.stop}]")

    def name_of(self, index: int) -> str:
        """Return the name of one image: its file, or its number."""
        return self.names[index] if self.names else f"#{index}"


def part_of(name: str, whole: range, start: int | None, stop: int | None) -> range:
    """Return the numbers of the images `start` up to, not including, `stop` of a range of them.

    Raises:
        SettingError: nothing is left.
    """
    part = whole[start:stop]
    if not part:
        raise SettingError(
            f"{name}[{'' if start is None else start}:{'' if stop is None else stop}] is empty: the set has {len(whole)} images."
        )
    return part


def check_bounds(name: str, count: int, start: int, stop: int) -> None:
    """Refuse a block that leaves a source of `count` images, or that holds none.

    Raises:
        SettingError: it does.
    """
    if not 0 <= start < stop <= count:
        raise SettingError(f"{name} has {count} images; a block must lie in [0, {count}) and hold one, got [{start}, {stop}).")


def to_floats(storage: Tensor) -> Images:
    """Return stored pixels as floats in [0, 1]."""
    return storage.float().div_(255.0) if storage.dtype == torch.uint8 else storage


def to_pixels(images: Images) -> Tensor:
    """Return float images as uint8, rounded to the nearest level, as saving them to a file would."""
    return images.detach().clamp(0.0, 1.0).mul(255.0).round().to(torch.uint8).cpu()
