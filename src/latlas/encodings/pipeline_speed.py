"""What bounds an encoding: decoding, the way to the device, or the network; and what share of that bound it reaches."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from latlas.base.errors import ImageFormatError, SettingError
from latlas.data.images import ImageSource, PixelBlock, to_floats
from latlas.encodings.origins import encoding_batch, encoding_precision
from latlas.encodings.shards import ShardPlan, encode_shards
from latlas.encodings.store import SHARD_ROWS
from latlas.models.protocols import LatentModel, check_images, device_of, require_encoder
from latlas.training.precision import Precision

_KEPT = 8  # decoded blocks that transfer and network are measured on, over and over


@dataclass(frozen=True, kw_only=True)
class PipelineSpeed:
    """Images per second of each part by itself, and of all together; medians of rounds that alternate.

    Where decoding and network share the same cores, as on a machine without a GPU, the whole cannot reach the slower of
    the two: each image costs the time of both.
    """

    images: int  # that a round passes over
    batch: int  # images encoded at once
    workers: int  # processes that decode; 0: the one that encodes
    decode: float  # the source's blocks, and nothing done with them
    transfer: float | None  # pixels as uint8 to the device and floats there; None where they are used where they lie
    network: float  # the encoder on images that lie on its device
    whole: float  # encoding as `encode` does it, kept in memory
    rounds: int

    @property
    def bound(self) -> str:
        """The slowest part: "decode", "transfer" or "network"."""
        return min(self._parts, key=lambda part: self._parts[part])

    @property
    def share(self) -> float:
        """The speed of the whole over that of the slowest part; 1 is the most that parts side by side can reach."""
        return self.whole / self._parts[self.bound]

    @property
    def share_one_after_the_other(self) -> float:
        """The speed of the whole over what the parts reach one after the other; above 1 they overlap."""
        return self.whole * sum(1.0 / speed for speed in self._parts.values())

    @property
    def _parts(self) -> dict[str, float]:
        parts = {"decode": self.decode, "transfer": self.transfer, "network": self.network}
        return {part: speed for part, speed in parts.items() if speed is not None}


def measure_pipeline(
    source: ImageSource, model: LatentModel, *, images: int = 4096, rounds: int = 3, precision: str = "float32"
) -> PipelineSpeed:
    """Return what bounds the encoding of a source by a model.

    Args:
        source: of the model's image shape.
        model: anything with `encode`.
        images: how many of the source's first images a round passes over, at most.
        rounds: how often each part is measured, in turn; one more round before them is not counted.
        precision: as for `encode`.

    Raises:
        CapabilityError: the model has no encoder.
        ImageFormatError: images of another shape, or none that can be read.
        SettingError: no images or rounds asked for.
    """
    if images < 1 or rounds < 1:
        raise SettingError(f"A measurement needs at least 1 image and 1 round, got {images} and {rounds}.")
    encoder = require_encoder(model, "Measuring its encoding")
    check_images(source.image_shape, encoder, name=source.name)
    device = device_of(encoder)
    plan = ShardPlan(
        folder=None,
        count=min(images, len(source)),
        shard_rows=SHARD_ROWS,
        batch_size=encoding_batch(encoder),
        dtype="float32",
        precision=encoding_precision(precision, encoder),
        hashed=False,
    )
    kept = [block.pixels for block in islice(_blocks(source, plan), _KEPT) if len(block)]
    if not kept:
        raise ImageFormatError(f"Not one of the first images of {source.name} could be read.")
    ready = [_on_device(pixels, device, plan.precision) for pixels in kept]
    batches = -(-plan.count // plan.batch_size)

    def decode() -> int:
        return sum(len(block) + len(block.skipped) for block in _blocks(source, plan))

    def transfer() -> int:
        return _passed(_on_device(kept[number % len(kept)], device, plan.precision) for number in range(batches))

    def network() -> int:
        with torch.inference_mode(), _autocast(device, plan.precision):
            return _passed(encoder.encode(ready[number % len(ready)]).mean for number in range(batches))

    def whole() -> int:
        return sum(len(shard) + len(shard.skipped) for shard in encode_shards(encoder, source, range(plan.shards), plan))

    parts: dict[str, Callable[[], int]] = {"decode": decode, "network": network, "whole": whole}
    if device.type != "cpu":
        parts["transfer"] = transfer
    speeds: dict[str, list[float]] = {part: [] for part in parts}
    for number in range(rounds + 1):
        for part, run in parts.items():
            start = time.perf_counter()
            done = run()
            if number:
                speeds[part].append(done / (time.perf_counter() - start))
    medians = {part: statistics.median(values) for part, values in speeds.items()}
    return PipelineSpeed(
        images=plan.count,
        batch=plan.batch_size,
        workers=int(getattr(source, "workers", 0)),
        decode=medians["decode"],
        transfer=medians.get("transfer"),
        network=medians["network"],
        whole=medians["whole"],
        rounds=rounds,
    )


def _blocks(source: ImageSource, plan: ShardPlan) -> Iterator[PixelBlock]:
    return source.blocks(bounds for number in range(plan.shards) for bounds in plan.batches(number))


def _on_device(pixels: Tensor, device: torch.device, precision: Precision) -> Tensor:
    images = to_floats(pixels.to(device, non_blocking=True))
    return images.contiguous(memory_format=torch.channels_last) if precision.channels_last else images


def _passed(results: Iterator[Tensor]) -> int:
    """Return how many rows came; the last is fetched, since a device says that it is done before it is."""
    rows, last = 0, None
    for last in results:
        rows += len(last)
    if last is not None:
        last[-1:].cpu()
    return rows


def _autocast(device: torch.device, precision: Precision) -> "torch.autocast | nullcontext[None]":
    return nullcontext() if precision.autocast == "float32" else torch.autocast(device.type, dtype=torch.bfloat16)
