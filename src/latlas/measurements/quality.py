"""How near an image comes to its original, image by image: PSNR, SSIM, and a perceptual distance that the user brings."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from latlas.base.errors import ImageFormatError, NonFiniteError
from latlas.base.shapes import Images, PerImage

Perceptual = Callable[[Tensor, Tensor], Tensor]  # images and originals in [0, 1] -> one distance an image

_WINDOW = 11  # pixels: the Gaussian window of Wang et al. 2004
_PIXELS = 2_000_000  # at a time: SSIM holds about ten copies of what it is given


@dataclass(frozen=True, kw_only=True)
class ImageQuality:
    """Likeness of images to their originals, one number an image."""

    psnr: PerImage  # decibels, for a range of 1; infinite where nothing differs
    ssim: PerImage | None  # at most 1; None where an image is smaller than the window
    perceptual: PerImage | None  # in the units of the function given; None without one

    @staticmethod
    def joined(parts: "list[ImageQuality]") -> "ImageQuality":
        """Return the quality of several batches as one."""
        ssims = [part.ssim for part in parts if part.ssim is not None]
        distances = [part.perceptual for part in parts if part.perceptual is not None]
        return ImageQuality(
            psnr=torch.cat([part.psnr for part in parts]),
            ssim=torch.cat(ssims) if ssims else None,
            perceptual=torch.cat(distances) if distances else None,
        )


def image_quality(images: Images, originals: Float[Tensor, "m k y x"], *, perceptual: Perceptual | None = None) -> ImageQuality:
    """Return PSNR, SSIM and perhaps a perceptual distance of each image to its original.

    PSNR is 10 log10(1 / squared error per pixel). SSIM is that of Wang et al. 2004 (IEEE TIP 13, 4): an 11 x 11 Gaussian
    window of deviation 1.5, K1 = 0.01, K2 = 0.03, over the windows that lie inside the image, averaged over channels.

    Args:
        images: in [0, 1].
        originals: of the same shape.
        perceptual: called with images and originals, both in [0, 1]; returns one number an image. LPIPS takes [-1, 1]:
            `lambda a, b: network(2 * a - 1, 2 * b - 1)`.

    Raises:
        ImageFormatError: images and originals of different shapes; a perceptual function that returns another shape.
        NonFiniteError: it returns NaN or infinity.
    """
    if images.shape != originals.shape:
        raise ImageFormatError(
            f"Images of {tuple(images.shape)} cannot be held against originals of {tuple(originals.shape)}; resize them."
        )
    errors = (images.double() - originals.double()).square().flatten(1).mean(dim=1)
    return ImageQuality(
        psnr=-10.0 * errors.log10(),
        ssim=structural_similarity(images, originals),
        perceptual=None if perceptual is None else _distances(perceptual, images, originals),
    )


def structural_similarity(images: Images, originals: Images) -> PerImage | None:
    """Return the SSIM of each image; None where the smaller side is below the window's 11 pixels."""
    if min(images.shape[2:]) < _WINDOW:
        return None
    from torchmetrics.functional.image import structural_similarity_index_measure

    size = max(1, _PIXELS // math.prod(images.shape[1:]))
    edge = _WINDOW // 2
    found = []
    for left, right in zip(torch.split(images.float(), size), torch.split(originals.float(), size), strict=True):
        _, everywhere = structural_similarity_index_measure(
            left, right, data_range=1.0, reduction="none", return_full_image=True
        )
        # The whole image is filled up by mirroring at its edges, where there are no whole windows: those are left out.
        inside = everywhere[..., edge:-edge, edge:-edge]
        found.append(inside.double().flatten(1).mean(dim=1))
    return torch.cat(found) if found else torch.zeros(0, dtype=torch.float64)


def _distances(perceptual: Perceptual, images: Images, originals: Images) -> PerImage:
    with torch.inference_mode():
        found = perceptual(images, originals)
    if not isinstance(found, Tensor) or found.numel() != len(images):
        got = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise ImageFormatError(
            f"The perceptual distance should return one number for each of {len(images)} images, got {got}. "
            "Average over positions, not over images."
        )
    distances = found.detach().reshape(-1).double().cpu().clone()
    if not bool(distances.isfinite().all()):
        raise NonFiniteError(f"The perceptual distance returned NaN or infinity, first for image {_first_bad(distances)}.")
    return distances


def _first_bad(values: Tensor) -> int:
    return int((~values.isfinite()).nonzero()[0, 0])
