"""A shard: the codes of a stretch of consecutive images, computed and written by whoever comes to it, with the same bytes."""

import hashlib
import json
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latlas.base.artifacts import read_json
from latlas.base.errors import ArtifactError, NonFiniteError, SettingError
from latlas.base.heap import give_back_memory
from latlas.base.placing import sync_folder
from latlas.data.images import ImageSource, PixelBlock, SkippedImage, to_floats
from latlas.encodings.arrays import Written, write_array, write_bytes
from latlas.encodings.left_out import keep_left_out, read_left_out
from latlas.models.protocols import Encoder, LatentModel, device_of, require_encoder
from latlas.training.precision import Precision

PARTS = ("mean", "log_variance", "indices", "names", "labels", "image_hashes")  # files of a shard; not every one has all
DTYPES = {"float32": torch.float32, "float16": torch.float16}
ROWS_STEP = 4096  # shards hold a multiple of these rows, so that their data ends where a page does
_HASH = 32  # bytes of a SHA-256
_LARGEST_COUNTED = 2**25 - 2**13  # bytes; glibc's limit is 2^25, its own words beside them and rounding to pages included


@dataclass(frozen=True, kw_only=True)
class ShardPlan:
    """What decides the bytes of every shard, beside the model and the images; can be sent to another process.

    Raises:
        SettingError: another type than "float32" or "float16", or rows of a shard that are no multiple of 4096.
    """

    folder: Path | None  # where shards are written; None where they are kept in memory
    count: int  # images that the source lists
    shard_rows: int  # images of a shard, those that cannot be read included
    lead: int | None = None  # images of the first shard, where it fills up a short one; None for shard_rows
    offset: int = 0  # images that were encoded before: added to every index
    batch_size: int  # images encoded at once
    dtype: str  # "float32" or "float16"
    precision: Precision
    hashed: bool  # whether the hash of each image is kept
    threads: int | None = None  # that compute a shard: convolutions sum in another order on another number; None: all there are

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise SettingError(f"Codes are kept as float32 or float16, not as {self.dtype}.")
        if self.shard_rows < ROWS_STEP or self.shard_rows % ROWS_STEP:
            raise SettingError(
                f"The rows of a shard must be a multiple of {ROWS_STEP}, got {self.shard_rows}. Give for example {2 * ROWS_STEP}."
            )

    @property
    def _first(self) -> int:
        return min(self.count, self.shard_rows if self.lead is None else self.lead)

    @property
    def shards(self) -> int:
        """How many there are."""
        return 1 + -(-(self.count - self._first) // self.shard_rows)

    def bounds(self, number: int) -> tuple[int, int]:
        """Return [start, stop) of a shard's images in the source."""
        if not 0 <= number < self.shards:
            raise IndexError(f"There are {self.shards} shards, and number {number} was asked for.")
        start = 0 if number == 0 else self._first + (number - 1) * self.shard_rows
        return start, min(self.count, self._first if number == 0 else start + self.shard_rows)

    def batches(self, number: int) -> Iterator[tuple[int, int]]:
        """Yield [start, stop) of what is encoded at once."""
        start, stop = self.bounds(number)
        for first in range(start, stop, self.batch_size):
            yield first, min(first + self.batch_size, stop)


@dataclass(frozen=True, kw_only=True, eq=False)
class Shard:
    """The codes of one stretch of images; rows are those that could be read."""

    number: int
    mean: Tensor  # n *latent, of the plan's type
    log_variance: Tensor | None
    indices: Tensor  # n int64
    names: tuple[str, ...]  # n, or none
    labels: Tensor | None  # n int64
    image_hashes: np.ndarray | None  # n x 32 bytes
    skipped: tuple[SkippedImage, ...]

    def __len__(self) -> int:
        return self.mean.shape[0]


@dataclass(frozen=True, kw_only=True)
class ShardRecord:
    """What is known of a shard that lies whole in a folder."""

    folder: Path
    number: int
    rows: int
    files: dict[str, Written] = field(repr=False)  # of arrays
    listed: list[dict[str, Any]] = field(repr=False)  # images left out, where they are few
    others: dict[str, Written] = field(repr=False)  # the file of those, where they are many

    def skipped(self) -> tuple[SkippedImage, ...]:
        """Return the images that were left out.

        Raises:
            ArtifactError: their file cannot be read.
        """
        try:
            return read_left_out(self.folder, self.listed, self.others, name=_left_out_name(self.number))
        except (OSError, ValueError, TypeError) as failure:
            raise ArtifactError(f"{self.folder} is damaged ({failure}). Delete it, and encode again.") from failure


def encode_shard(
    model: LatentModel,
    source: ImageSource,
    number: int,
    job: ShardPlan,
    *,
    told: Callable[[int], None] = lambda images: None,  # noqa: ARG005
) -> Shard:
    """Return one shard; as `encode_shards`."""
    return next(iter(encode_shards(model, source, [number], job, told=told)))


def encode_shards(
    model: LatentModel,
    source: ImageSource,
    numbers: Sequence[int],
    job: ShardPlan,
    *,
    told: Callable[[int], None] = lambda images: None,  # noqa: ARG005
) -> Iterator[Shard]:
    """Yield shards in the order of their numbers, asking the source once, so that it can decode ahead of the model.

    Args:
        model: anything with `encode`.
        source: of the model's image shape.
        numbers: of the shards.
        job: what decides their bytes.
        told: given, after each batch, how many images it was to hold.

    Raises:
        CapabilityError: the model has no encoder.
        NonFiniteError: the encoder returned NaN or infinity; names the first image.
        SettingError: a code that float16 cannot hold.
    """
    encoder = require_encoder(model, "Encoding")
    _have_memory_kept()
    blocks = source.blocks(bounds for number in numbers for bounds in job.batches(number))
    floats = _Floats()
    with ExitStack() as stack:
        if isinstance(blocks, Generator):
            stack.enter_context(closing(blocks))  # ends its workers, whatever happens here
        for number in numbers:
            give_back_memory()  # of the shard before: else what lies between its holes grows with the number of shards
            start, stop = job.bounds(number)
            rows = _Rows(number, stop - start, encoder, source, job, floats)
            for first, last in job.batches(number):
                rows.add(next(blocks))
                told(last - first)
            shard = rows.shard()
            del rows
            yield shard
            del shard


def write_shard(folder: Path, shard: Shard) -> None:
    """Write a shard into a folder: whole, with its record last, or not at all for those who look for the record.

    Raises:
        ArtifactError: it could not be written.
    """
    arrays: dict[str, np.ndarray | None] = {
        "mean": shard.mean.numpy(),
        "log_variance": None if shard.log_variance is None else shard.log_variance.numpy(),
        "indices": shard.indices.numpy(),
        "names": np.array(shard.names) if shard.names else None,
        "labels": None if shard.labels is None else shard.labels.numpy(),
        "image_hashes": shard.image_hashes,
    }
    try:
        files = {
            file_name(part, shard.number): write_array(
                folder / file_name(part, shard.number), array.dtype, array.shape, [array]
            )
            for part, array in arrays.items()
            if array is not None
        }
        listed, others = keep_left_out(shard.skipped, folder, name=_left_out_name(shard.number))
        record = {
            "rows": len(shard),
            "files": {name: list(written) for name, written in files.items()},
            "skipped": listed,
            "others": {name: list(written) for name, written in others.items()},
        }
        # The disk must have the names of the files before it has that of the record which vouches for them.
        sync_folder(folder)
        write_bytes(folder / _record_name(shard.number), [_json(record)])
        sync_folder(folder)
    except OSError as failure:
        raise ArtifactError(f"Could not write {folder}: {failure.strerror or failure}.") from failure


def read_shard_record(folder: Path, number: int) -> ShardRecord | None:
    """Return the record of a shard; None if it is not whole."""
    try:
        record = read_json(folder / _record_name(number))
        files, others = (
            {name: Written(*written) for name, written in record.get(key, {}).items()} for key in ("files", "others")
        )
        if not all((folder / name).stat().st_size == written.size for name, written in (files | others).items()):
            return None
        rows, listed = int(record["rows"]), list(record["skipped"])
        hashes = files.get(file_name("image_hashes", number))
        if not 0 <= rows * _HASH <= (0 if hashes is None else hashes.size):  # told of more rows than its files can hold
            return None
        return ShardRecord(folder=folder, number=number, rows=rows, files=files, listed=listed, others=others)
    except (ArtifactError, OSError, KeyError, TypeError, ValueError, AttributeError):
        return None


def file_name(part: str, number: int) -> str:
    """Return what the file of a part is called in a folder of several shards."""
    return f"{part}-{number:05d}.npy"


def tree_hash(hashes: Iterable[np.ndarray]) -> str:
    """Return the hash of a sequence of images from those of each: however they were blocked, stored or skipped over."""
    digest = hashlib.sha256()
    for part in hashes:
        digest.update(np.ascontiguousarray(part).reshape(-1).data)
    return digest.hexdigest()


def image_hashes(pixels: Tensor) -> np.ndarray:
    """Return the SHA-256 of each image, of its type, its shape and its pixels: `m x 32` bytes."""
    described = hashlib.sha256(f"{pixels.dtype}{tuple(pixels.shape[1:])}".encode())
    values = memoryview(pixels.contiguous().view(-1).view(torch.uint8).numpy().data)
    width = len(values) // max(len(pixels), 1)
    digests = bytearray()
    for start in range(0, len(values), width or 1):
        digest = described.copy()
        digest.update(values[start : start + width])
        digests += digest.digest()
    return np.frombuffer(bytes(digests), dtype=np.uint8).reshape(len(pixels), _HASH)


def _have_memory_kept() -> None:
    """Have what a batch frees kept for the next one, up to 64 MB.

    glibc gives freed memory back beyond twice the largest block that it ever mapped and saw freed (mallopt(3), M_MMAP_THRESHOLD).
    Activations are several such blocks, so each batch got its memory from the system anew: a fifth of the processor time of a
    convolutional encoder. Freeing the largest block that counts raises the limit; nothing is written to it, and it takes no memory.
    """
    torch.empty(_LARGEST_COUNTED, dtype=torch.uint8)


class _Floats:
    """Pixels as floats, in the same memory for every batch: memory that is asked for anew costs more than to fill it."""

    def __init__(self) -> None:
        self.room = torch.empty(0)

    def of(self, pixels: Tensor) -> Tensor:
        """Return what `to_floats` does; it holds until the next call."""
        if pixels.device.type != "cpu" or pixels.dtype != torch.uint8:
            return to_floats(pixels)
        if self.room.numel() < pixels.numel():
            self.room = torch.empty(pixels.numel())
        return self.room[: pixels.numel()].view(pixels.shape).copy_(pixels).div_(255.0)


class _Rows:
    """A shard that fills up batch by batch."""

    def __init__(self, number: int, most: int, encoder: Encoder, source: ImageSource, job: ShardPlan, floats: _Floats) -> None:
        self.number, self.most, self.encoder, self.source, self.job, self.floats = number, most, encoder, source, job, floats
        self.codes: dict[str, Tensor] = {}
        self.rows = 0
        self.blocks: list[PixelBlock] = []  # without their pixels
        self.hashes: list[np.ndarray] = []

    @cached_property
    def device(self) -> torch.device:
        return device_of(self.encoder)

    def add(self, block: PixelBlock) -> None:
        if self.job.hashed:
            self.hashes.append(image_hashes(block.pixels))
        self.blocks.append(replace(block, pixels=torch.empty(0)))  # a slice of none would keep them all in memory
        if not len(block):
            return
        with torch.inference_mode(), _autocast(self.device, self.job.precision):
            images = self.floats.of(block.pixels.to(self.device, non_blocking=True))
            if self.job.precision.channels_last:
                images = images.contiguous(memory_format=torch.channels_last)
            posterior = self.encoder.encode(images)
            given = {"mean": posterior.mean.float().cpu()}
            if posterior.log_variance is not None:
                given["log_variance"] = posterior.log_variance.float().cpu()
        for part, codes in given.items():
            self._put(part, codes, block)
        self.rows += len(block)

    def _put(self, part: str, codes: Tensor, block: PixelBlock) -> None:
        if part not in self.codes:
            self.codes[part] = torch.empty((self.most, *codes.shape[1:]), dtype=DTYPES[self.job.dtype])
        place = self.codes[part][self.rows : self.rows + len(block)]
        place.copy_(codes)
        if not bool(place.isfinite().all()):
            row = int((~place.isfinite()).flatten(1).any(dim=1).nonzero()[0, 0])
            name = self.source.name_of(int(block.indices[row]))
            if bool(codes[row].isfinite().all()):
                raise SettingError(
                    f"{self.encoder.name} encodes image {name} of {self.source.name} as numbers up to "
                    f"{float(codes[row].abs().max()):.4g}, and float16 ends at 65504. Keep the codes as float32."
                )
            raise NonFiniteError(f"{self.encoder.name} encodes image {name} of {self.source.name} as NaN or infinity.")

    def shard(self) -> Shard:
        codes = {part: values[: self.rows] for part, values in self.codes.items()}
        labels = [block.labels for block in self.blocks if block.labels is not None]
        if not codes:  # not one image of it could be read
            codes["mean"] = torch.empty((0, *self.encoder.latent_shape), dtype=DTYPES[self.job.dtype])
        return Shard(
            number=self.number,
            mean=codes["mean"],
            log_variance=codes.get("log_variance"),
            indices=torch.cat([block.indices for block in self.blocks]) + self.job.offset,
            names=tuple(name for block in self.blocks for name in block.names),
            labels=torch.cat(labels).long() if labels else None,
            image_hashes=np.concatenate(self.hashes) if self.hashes else None,
            skipped=tuple(
                SkippedImage(index=each.index + self.job.offset, name=each.name, reason=each.reason)
                for block in self.blocks
                for each in block.skipped
            ),
        )


def _autocast(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
    if precision.autocast == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def _left_out_name(number: int) -> str:
    return f"skipped-{number:05d}.jsonl"


def _record_name(number: int) -> str:
    return f"shard-{number:05d}.json"


def _json(record: dict[str, Any]) -> bytes:
    return (json.dumps(record, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()
