"""PSNR, SSIM and a distance of the user's: against the printed formulas, written with SciPy's filters."""

import math

import numpy as np
import pytest
import scipy.ndimage
import torch
from torch import Tensor

from latlas.base.errors import ImageFormatError, NonFiniteError
from latlas.measurements.quality import ImageQuality, image_quality


def pair(generator: torch.Generator, shape: tuple[int, ...] = (5, 3, 16, 20)) -> tuple[Tensor, Tensor]:
    originals = torch.rand(*shape, generator=generator)
    return (originals + 0.1 * torch.randn(*shape, generator=generator)).clamp(0, 1), originals


def printed_ssim(x: np.ndarray, y: np.ndarray) -> float:
    """Wang et al. 2004, equation 13, of one channel, over the windows that lie inside."""
    window = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    window /= window.sum()

    def mean(values: np.ndarray) -> np.ndarray:
        once = scipy.ndimage.correlate1d(values, window, axis=0, mode="constant")
        return scipy.ndimage.correlate1d(once, window, axis=1, mode="constant")[5:-5, 5:-5]

    mx, my = mean(x), mean(y)
    vx, vy, cov = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    return float((((2 * mx * my + c1) * (2 * cov + c2)) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean())


def test_psnr_is_ten_decibels_for_each_tenth_of_the_squared_error(generator: torch.Generator) -> None:
    originals = torch.full((3, 1, 12, 12), 0.5)
    found = image_quality(originals + torch.tensor([0.1, 0.01, 0.0]).view(3, 1, 1, 1), originals).psnr
    np.testing.assert_allclose(found[:2], [20.0, 40.0], rtol=1e-4)
    assert math.isinf(float(found[2]))


def test_ssim_is_the_printed_formula_averaged_over_channels(generator: torch.Generator) -> None:
    images, originals = pair(generator)
    expected = [
        np.mean([printed_ssim(x, y) for x, y in zip(image.double().numpy(), original.double().numpy(), strict=True)])
        for image, original in zip(images, originals, strict=True)
    ]
    found = image_quality(images, originals).ssim
    assert found is not None
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_an_image_has_the_quality_that_it_has_alone(generator: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the batch nor the pieces in which it is worked through matter."""
    images, originals = pair(generator)
    whole = image_quality(images, originals)
    monkeypatch.setattr("latlas.measurements.quality._PIXELS", 2000)
    pieces = [image_quality(images[place : place + 1], originals[place : place + 1]) for place in range(5)]
    for quality in (image_quality(images, originals), ImageQuality.joined(pieces)):
        torch.testing.assert_close(quality.psnr, whole.psnr)
        torch.testing.assert_close(quality.ssim, whole.ssim, atol=1e-6, rtol=1e-6)


def test_images_smaller_than_the_window_have_no_ssim(generator: torch.Generator) -> None:
    small = torch.rand(2, 1, 10, 30, generator=generator)
    assert image_quality(small, small).ssim is None
    fits = torch.rand(2, 1, 11, 11, generator=generator)
    found = image_quality(fits, fits).ssim
    assert found is not None
    np.testing.assert_allclose(found, 1.0, atol=1e-5)


def test_a_distance_of_the_users_gets_images_and_originals(generator: torch.Generator) -> None:
    images, originals = pair(generator)

    def brightness(a: Tensor, b: Tensor) -> Tensor:
        return (a - b).mean(dim=(1, 2, 3), keepdim=True)  # LPIPS too returns n x 1 x 1 x 1

    found = image_quality(images, originals, perceptual=brightness).perceptual
    assert found is not None
    np.testing.assert_allclose(found, (images - originals).mean(dim=(1, 2, 3)), atol=1e-7)
    assert image_quality(images, originals).perceptual is None


def test_a_distance_that_is_none_is_refused(generator: torch.Generator) -> None:
    images, originals = pair(generator)
    with pytest.raises(ImageFormatError, match=r"one number for each of 5 images, got shape \(\)"):
        image_quality(images, originals, perceptual=lambda a, b: (a - b).mean())
    with pytest.raises(ImageFormatError, match="got float"):
        image_quality(images, originals, perceptual=lambda a, b: 1.0)  # type: ignore[arg-type, return-value]
    with pytest.raises(NonFiniteError, match="first for image 2"):
        image_quality(images, originals, perceptual=lambda a, b: torch.tensor([0.0, 0.0, math.nan, 0.0, 0.0]))
    with pytest.raises(ImageFormatError, match="cannot be held against"):
        image_quality(images, originals[:4])
