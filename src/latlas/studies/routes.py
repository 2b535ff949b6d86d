"""Ways from a code to an image: what each loses, and how long it takes."""

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from latlas.base.progress import Progress, silent
from latlas.base.shapes import Codes, PerImage
from latlas.data.images import ImageSet
from latlas.measurements.features import FeatureNetwork, features_of_batch
from latlas.measurements.quality import ImageQuality, Perceptual, image_quality
from latlas.measurements.reconstruction import decode_batches, squared_error_per_pixel
from latlas.models.protocols import Autoencoder, Decoder, LatentModel, device_of, images_at_once, is_encoder
from latlas.numerics.frechet import FrechetDistance
from latlas.studies.calibrate import as_file, distance

_TIMED = 100  # images in a timed batch
_ROUNDS = 7  # batches timed, after one that warms up

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Error:
    """A number of each image, averaged: squared error per pixel (or per latent variable), PSNR, SSIM, a distance."""

    mean: float
    standard_error: float
    deviation: float  # spread over images

    @classmethod
    def of(cls, errors: PerImage) -> "Error":
        """Return mean, standard error and standard deviation of one number an image."""
        deviation = float(errors.std()) if len(errors) > 1 else math.nan
        return cls(mean=float(errors.mean()), standard_error=deviation / len(errors) ** 0.5, deviation=deviation)


@dataclass(frozen=True, kw_only=True)
class Route:
    """What one way to an image gives, against the original."""

    error: Error  # squared, per pixel
    psnr: Error | None  # decibels; None where likeness was not asked for
    ssim: Error | None  # likewise; and None where images are smaller than its window
    perceptual: Error | None  # None without a perceptual function
    frechet: FrechetDistance | None = None  # to the originals; None without a feature network

    def quality(self) -> dict[str, Any]:
        """Return what is known beside the squared error: means and their standard errors."""
        known = {"psnr": self.psnr, "ssim": self.ssim, "perceptual": self.perceptual}
        record: dict[str, Any] = {name: value for name, value in known.items() if value is not None}
        return record if self.frechet is None else {**record, "frechet": self.frechet}


@dataclass(frozen=True, kw_only=True, eq=False)
class Judge:
    """What images are held against their originals by, besides squared error, PSNR and SSIM."""

    likeness: bool = True  # whether PSNR and SSIM, and what is perceptual, are taken
    perceptual: Perceptual | None = None
    features: FeatureNetwork | None = None
    reference: Tensor | None = None  # features of the originals

    @classmethod
    def of(
        cls, images: ImageSet, *, perceptual: Perceptual | None, features: FeatureNetwork | None, likeness: bool = True
    ) -> "Judge":
        """Return the judge of ways to these images."""
        if features is None:
            return cls(likeness=likeness, perceptual=perceptual)
        rows = [features_of_batch(features, as_file(batch)) for batch in images.batches(images_at_once(images.image_shape))]
        return cls(likeness=likeness, perceptual=perceptual, features=features, reference=torch.cat(rows))


def measure_route(decoder: Decoder, codes: Codes, images: ImageSet, judge: Judge, *, frechet: bool = False) -> Route:
    """Return errors, likeness and perhaps the Fréchet distance of decoding these codes, against these images.

    Args:
        decoder: what decodes.
        codes: one an image, in order.
        images: the originals.
        judge: made of the same images.
        frechet: whether to take the Fréchet distance as well, where the judge has a feature network.
    """
    errors, qualities, rows = [], [], []
    network = judge.features if frechet else None
    at_once = images_at_once(images.image_shape)
    for batch, decoded in zip(images.batches(at_once), decode_batches(decoder, codes, size=at_once), strict=True):
        errors.append(squared_error_per_pixel(batch, decoded))
        if judge.likeness:
            qualities.append(image_quality(decoded, batch, perceptual=judge.perceptual))
        if network is not None:
            rows.append(features_of_batch(network, as_file(decoded), title=f"images decoded for {images.name}"))
    quality = ImageQuality.joined(qualities) if qualities else None
    return Route(
        error=Error.of(torch.cat(errors)),
        psnr=None if quality is None else Error.of(quality.psnr),
        ssim=None if quality is None or quality.ssim is None else Error.of(quality.ssim),
        perceptual=None if quality is None or quality.perceptual is None else Error.of(quality.perceptual),
        frechet=distance(torch.cat(rows), judge.reference) if rows and judge.reference is not None else None,
    )


def latent_error(moved: Codes, own: Codes) -> Error:
    """Return the squared error per variable of relocated codes against the target's own."""
    return Error.of((moved.double() - own.double()).square().flatten(1).mean(dim=1))


def explained(moved: Codes, own: Codes) -> tuple[float | None, ...]:
    """Return R2 of each target variable: 1 - squared error / variance; of a spatial code, of each channel over its positions."""
    left, spread = (moved.double() - own.double()).square(), (own.double() - own.double().mean(dim=0)).square()
    axes = [0, *range(2, own.ndim)]
    pairs = zip(left.sum(dim=axes).tolist(), spread.sum(dim=axes).tolist(), strict=True)
    return tuple(1.0 - error / whole if whole > 0 else None for error, whole in pairs)


def through_images(source: Decoder, target: Autoencoder, codes: Tensor) -> Tensor:
    """Return the target's codes of the source's reconstructions: the route that a map replaces."""
    start, end = device_of(source), device_of(target)
    size = images_at_once(target.image_shape)
    with torch.inference_mode():
        parts = [target.encode(source.decode(batch.to(start)).to(end)).mean.float().cpu() for batch in torch.split(codes, size)]
    return torch.cat(parts).clone()


@dataclass(frozen=True, kw_only=True)
class Times:
    """Seconds a batch takes in each step of two routes to the target's image: the median over batches of one run.

    By map: relocate, then decode. Through images: decode by the source, encode and decode by the target.
    """

    batch: int  # images
    rounds: int  # batches timed
    relocate: float
    source_decode: float
    target_encode: float | None  # None where the target has no encoder: then there is no way through images
    target_decode: float

    @property
    def by_map(self) -> float:
        """Seconds of the route by map, to the image."""
        return self.relocate + self.target_decode

    @property
    def through_images(self) -> float | None:
        """Seconds of the route through images, to the image."""
        return None if self.target_encode is None else self.source_decode + self.target_encode + self.target_decode

    def to_json(self) -> dict[str, Any]:
        """Return the times, the ratio of the routes, and the share of each in what differs between them."""
        replaced = None if self.target_encode is None else self.source_decode + self.target_encode
        return {
            "batch": self.batch,
            "rounds": self.rounds,
            "relocate_seconds": self.relocate,
            "source_decode_seconds": self.source_decode,
            "target_encode_seconds": self.target_encode,
            "target_decode_seconds": self.target_decode,
            "by_map_seconds": self.by_map,
            "through_images_seconds": self.through_images,
            "by_map_over_through_images": None if not self.through_images else self.by_map / self.through_images,
            "relocate_over_decode_encode": None
            if not replaced
            else self.relocate / replaced,  # code to code, without the last decode
            "relocate_share_of_by_map": self.relocate / self.by_map if self.by_map else None,
        }


def time_routes(
    source: Decoder,
    target: Decoder,
    carry: Callable[[Tensor], Tensor],
    codes: Codes,
    *,
    size: int = _TIMED,
    rounds: int = _ROUNDS,
    progress: Progress = silent,
) -> Times:
    """Time each step of relocating and of going through images, on the same batches in turn.

    Args:
        source: decodes its codes.
        target: decodes, and encodes unless there is no way through images.
        carry: the map, on the CPU, where codes are kept.
        codes: of the source; batches are taken from them in turn.
        size: images a batch.
        rounds: batches timed, after one that is not.
        progress: told after each batch.
    """
    size = min(size, len(codes))
    count = len(codes) // size
    encoder = _encoder(target)
    taken: dict[str, list[float]] = {"relocate": [], "source_decode": [], "target_encode": [], "target_decode": []}
    progress("timing", 0, rounds)
    for round_ in range(rounds + 1):
        start = (round_ % count) * size
        batch = codes[start : start + size]
        moved, relocating = timed(partial(carry, batch), None)
        here, there = batch.to(device_of(source)), moved.to(device_of(target))
        with torch.inference_mode():
            drawn, decoding = timed(partial(source.decode, here), source)
            _, ending = timed(partial(target.decode, there), target)
            encoding = math.nan
            if encoder is not None:
                pixels = drawn.to(device_of(target))
                _, encoding = timed(partial(encoder.encode, pixels), target)
        if round_ > 0:
            for name, seconds in zip(taken, (relocating, decoding, encoding, ending), strict=True):
                taken[name].append(seconds)
            progress("timing", round_, rounds)
    median = {name: statistics.median(seconds) for name, seconds in taken.items()}
    return Times(
        batch=size,
        rounds=rounds,
        relocate=median["relocate"],
        source_decode=median["source_decode"],
        target_encode=None if encoder is None else median["target_encode"],
        target_decode=median["target_decode"],
    )


def timed(work: Callable[[], T], model: LatentModel | None) -> tuple[T, float]:
    """Return what some work gives and the seconds that it takes, to the end of what a GPU was asked for."""
    device = torch.device("cpu") if model is None else device_of(model)
    _wait(device)
    start = time.perf_counter()
    result = work()
    _wait(device)
    return result, time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _encoder(target: Decoder) -> Autoencoder | None:
    return target if is_encoder(target) else None  # type: ignore[return-value]
