"""Errors and variances of reconstructions: per image, per pixel, in squared units of [0, 1] values."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from latlas.base.progress import Progress, silent, track
from latlas.base.shapes import Codes, Images, PerImage
from latlas.data.images import ImageSet
from latlas.models.protocols import Decoder, device_of, images_at_once
from latlas.numerics.moments import MarginalMoments


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """How well images come back, and how much of their variance does."""

    errors: PerImage  # mean squared error per pixel, one number an image
    image_variance: float  # variance of a pixel over the images, averaged over pixels
    reconstruction_variance: float  # the same of the reconstructions

    @property
    def error(self) -> float:
        """Mean squared error per pixel over all images."""
        return float(self.errors.mean())

    @property
    def variance_loss(self) -> float:
        """Variance of images minus variance of reconstructions (Asperti 2020, arXiv:2002.09860)."""
        return self.image_variance - self.reconstruction_variance

    @property
    def variance_loss_over_error(self) -> float:
        """The ratio that is 1 for a conditional mean: Var(x) = Var(E[x|z]) + E|x - E[x|z]|^2. NaN if the error is 0."""
        return self.variance_loss / self.error if self.error > 0 else float("nan")

    def standard_error(self) -> float:
        """Standard error of `error` over images."""
        return float(self.errors.std() / len(self.errors) ** 0.5) if len(self.errors) > 1 else float("nan")


def squared_error_per_pixel(images: Images, others: Images) -> PerImage:
    """Return the mean over pixels of the squared difference, one number an image.

    >>> squared_error_per_pixel(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2))
    tensor([1.], dtype=torch.float64)
    """
    return (images.double() - others.double()).square().flatten(1).mean(dim=1)


def decode_batches(decoder: Decoder, codes: Codes, *, size: int | None = None) -> Iterator[Images]:
    """Yield the images of codes, batch by batch, on the CPU in float32.

    Args:
        decoder: what decodes.
        codes: of its latent space; codes kept in half precision are widened.
        size: codes a batch; None: `images_at_once` of its image shape.
    """
    device = device_of(decoder)
    for batch in torch.split(codes, images_at_once(decoder.image_shape) if size is None else size):
        batch = batch.float() if batch.dtype == torch.float16 else batch
        # Not around the loop: a mode entered in a generator would hold in its caller while it is suspended.
        with torch.inference_mode():
            images = decoder.decode(batch.to(device)).float().cpu()
        yield images


def decode_errors(decoder: Decoder, codes: Codes, images: ImageSet) -> PerImage:
    """Return the error per pixel of decoding these codes, against these images."""
    size = images_at_once(images.image_shape)
    pairs = zip(images.batches(size), decode_batches(decoder, codes, size=size), strict=True)
    return torch.cat([squared_error_per_pixel(batch, decoded) for batch, decoded in pairs]).clone()


def measure_reconstruction(
    decoder: Decoder,
    codes: Codes,
    images: ImageSet,
    *,
    change: Callable[[Tensor], Tensor] | None = None,
    progress: Progress = silent,
) -> Reconstruction:
    """Return errors and variances of decoding the codes of images.

    Args:
        decoder: what decodes.
        codes: one an image, in order.
        images: the originals.
        change: applied to the codes before decoding, for example to set variables to 0.
        progress: told after each batch.
    """
    used = codes if change is None else change(codes)
    original: MarginalMoments | None = None
    decoded: MarginalMoments | None = None
    errors = []
    size = images_at_once(images.image_shape)
    batches = zip(images.batches(size), decode_batches(decoder, used, size=size), strict=True)
    for batch, output in track(batches, "decoding", progress, total=-(-len(images) // size)):
        errors.append(squared_error_per_pixel(batch, output))
        original = _merged(original, batch)
        decoded = _merged(decoded, output)
    assert original is not None  # an ImageSet that was encoded has images
    assert decoded is not None
    return Reconstruction(
        errors=torch.cat(errors).clone(),
        image_variance=float(original.variance().mean()),
        reconstruction_variance=float(decoded.variance().mean()),
    )


def _merged(total: MarginalMoments | None, batch: Tensor) -> MarginalMoments:
    moments = MarginalMoments.of(batch)
    return moments if total is None else total.merge(moments)
