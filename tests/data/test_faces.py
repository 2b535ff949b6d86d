"""Crops bring landmarks where they belong, show what Pillow shows, and come back."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.optimize import least_squares
from torch import Tensor
from torch.nn import functional

from latlas.base.errors import ImageFormatError, SettingError, UnknownNameError
from latlas.data.celeba import CROPS
from latlas.data.faces import CELEBA, FFHQ, FRAMES, Crop, aligning, between, celeba_crop, rectangle, resizing

TURN = Crop(source=(40, 60), target=(30, 30), factor=complex(0.6, 0.2), shift=complex(1.5, -4.0))
numbers = st.floats(-3, 3).filter(lambda value: abs(value) > 0.05)


def ramp(height: int, width: int) -> Tensor:
    """An image whose red is x and whose green is y, in pixels: linear, so that no interpolation and no mean changes it."""
    y, x = torch.meshgrid(
        torch.arange(height, dtype=torch.float64) + 0.5, torch.arange(width, dtype=torch.float64) + 0.5, indexing="ij"
    )
    return torch.stack([x, y, torch.ones_like(x)])[None]


def waves(height: int, width: int) -> Tensor:
    """A smooth picture: 3 periods or fewer a side."""
    y, x = torch.meshgrid(
        (torch.arange(height, dtype=torch.float64) + 0.5) / height,
        (torch.arange(width, dtype=torch.float64) + 0.5) / width,
        indexing="ij",
    )
    parts = [torch.sin(2 * math.pi * (a * x + b * y) + c) for a, b, c in ((1, 0.5, 0.2), (2, -1, 1.0), (-1.5, 2.5, 2.0))]
    return 0.5 + 0.5 * torch.stack(parts)[None]


def pillow(image: Tensor, box: tuple[int, int, int, int], size: int) -> Tensor:
    """Each channel cut and resized by Pillow in floats."""
    return torch.stack(
        [
            torch.from_numpy(
                np.array(
                    Image.fromarray(channel.numpy().astype(np.float32))
                    .crop(box)
                    .resize((size, size), Image.Resampling.BILINEAR)
                )
            )
            for channel in image
        ]
    )


@pytest.mark.parametrize("source", sorted(FRAMES))
@pytest.mark.parametrize("crop", sorted(CROPS))
@pytest.mark.parametrize("size", [32, 64, 128])
def test_landmarks_come_back_from_every_crop(source: str, crop: int, size: int) -> None:
    places = FRAMES[source].landmarks()
    there = celeba_crop(source, crop=crop, size=size)
    torch.testing.assert_close(there.inverse().points(there.points(places)), places, rtol=0, atol=1e-9)


def test_landmarks_of_ffhq_fall_on_those_of_celeba() -> None:
    """No similarity can bring all four together, as mean faces differ: measured, 0.79 pixels of 178 x 218 at most."""
    gaps = (between(FFHQ, CELEBA).points(FFHQ.landmarks()) - CELEBA.landmarks()).norm(dim=1)
    assert float(gaps.max()) < 0.8
    eyes = celeba_crop("ffhq").points(FFHQ.landmarks())[:2]
    expected = (CELEBA.landmarks()[:2] - torch.tensor([25.0, 45.0], dtype=torch.float64)) / 2
    torch.testing.assert_close(eyes, expected, rtol=0, atol=0.3)


def test_ffhqs_own_rule_puts_the_frame_nearly_there() -> None:
    """FFHQ's rule on CelebA's mean landmarks: centre 0.1 of the way from eyes to mouth, half a side twice the eyes' distance.

    The mean over faces is larger, as turned faces go by the mouth: measured on CelebA's first 80 faces, 80.0 pixels.
    """
    eyes, mouth = CELEBA.landmarks()[:2], CELEBA.landmarks()[2:]
    centre = eyes.mean(dim=0) + 0.1 * (mouth.mean(dim=0) - eyes.mean(dim=0))
    half = 2 * float((eyes[1] - eyes[0]).norm())
    shown = between(FFHQ, CELEBA).points(torch.tensor([[512.0, 512.0], [0.0, 512.0]], dtype=torch.float64))
    torch.testing.assert_close(shown[0], centre, rtol=0, atol=1.5)
    assert float((shown[0] - shown[1]).norm()) == pytest.approx(half, rel=0.025)
    assert half <= float((shown[0] - shown[1]).norm()) <= 80.0


def test_landmarks_are_those_of_their_sources() -> None:
    theirs = torch.tensor([[192.98138, 239.94708], [318.90277, 240.1936], [201.26117, 371.41043], [313.08905, 371.15118]])
    mirrored = torch.stack([511 - theirs[:, 0], theirs[:, 1]], dim=1)[[1, 0, 3, 2]]
    expected = ((theirs + mirrored) / 2 + 0.5) * 2
    torch.testing.assert_close(FFHQ.landmarks().float(), expected, rtol=0, atol=1e-3)
    published = torch.tensor([[69, 111], [108, 111], [72, 152], [105, 152]])
    torch.testing.assert_close(CELEBA.landmarks().float(), published + 0.5)
    for frame in (FFHQ, CELEBA):  # a face and its mirror image are aligned alike
        x = frame.landmarks()[:, 0]
        assert float(x[0] + x[1]) == pytest.approx(frame.width, abs=1e-2)
        assert float(x[2] + x[3]) == pytest.approx(frame.width, abs=1e-2)


def test_the_whole_target_lies_in_ffhqs_frame() -> None:
    for crop in CROPS:
        assert celeba_crop("ffhq", crop=crop).is_inside
    assert not between(FFHQ, CELEBA).is_inside  # CelebA's picture is wider than FFHQ's


@given(numbers, numbers, numbers, numbers)
def test_crops_chain_and_invert_as_maps_do(a: float, b: float, x: float, y: float) -> None:
    first = Crop(source=(40, 60), target=(30, 30), factor=complex(a, b), shift=complex(x, y))
    second = Crop(source=(30, 30), target=(8, 9), factor=complex(y, x), shift=complex(b, a))
    places = torch.tensor([[0.0, 0.0], [12.5, 30.0], [60.0, 40.0]], dtype=torch.float64)
    torch.testing.assert_close(first.then(second).points(places), second.points(first.points(places)))
    torch.testing.assert_close(first.then(second).inverse().points(second.points(first.points(places))), places)
    assert first.inverse().source == first.target
    assert first.then(second).target == (8, 9)


def test_a_similarity_is_found_again(generator: torch.Generator) -> None:
    places = torch.rand(5, 2, generator=generator, dtype=torch.float64) * 50
    found = aligning(places, TURN.points(places), source_size=TURN.source, target_size=TURN.target)
    assert abs(found.factor - TURN.factor) < 1e-12
    assert abs(found.shift - TURN.shift) < 1e-10


def test_alignment_is_the_least_squares_one(generator: torch.Generator) -> None:
    here, there = torch.rand(2, 6, 2, generator=generator, dtype=torch.float64) * 50
    found = aligning(here, there, source_size=(50, 50), target_size=(50, 50))

    def gaps(parameters: np.ndarray) -> np.ndarray:
        a, b, x, y = parameters
        return (here.numpy() @ np.array([[a, b], [-b, a]]) + [x, y] - there.numpy()).ravel()

    a, b, x, y = least_squares(gaps, [1, 0, 0, 0]).x
    assert found.factor == pytest.approx(complex(a, b), abs=1e-5)
    assert found.shift == pytest.approx(complex(x, y), abs=1e-4)


@pytest.mark.parametrize("crop", sorted(CROPS))
def test_cut_and_resized_as_pillow_does_it(crop: int, generator: torch.Generator) -> None:
    """Noise, in which any other filter and any shift would show; 140 pixels to 70 and 128 to 64 are both halves."""
    picture = torch.rand(3, 218, 178, generator=generator)
    shown = celeba_crop("celeba", crop=crop, size=crop // 2).apply(picture[None])
    torch.testing.assert_close(shown[0], pillow(picture, CROPS[crop], crop // 2), rtol=0, atol=2e-5)


def test_a_shrink_by_no_whole_number_is_near_pillows(generator: torch.Generator) -> None:
    picture = torch.rand(3, 218, 178, generator=generator)
    smooth = functional.avg_pool2d(picture, 5, stride=1, padding=2, count_include_pad=False)
    shown = celeba_crop("celeba", crop=140, size=64).apply(smooth[None])
    torch.testing.assert_close(shown[0], pillow(smooth, CROPS[140], 64), rtol=0, atol=0.02)


@pytest.mark.parametrize("make", [celeba_crop, lambda: TURN.inverse(), lambda: TURN], ids=["shrunk", "enlarged", "turned"])
def test_each_pixel_shows_the_place_it_says(make: object) -> None:
    crop = make()  # type: ignore[operator]
    height, width = crop.target
    shown = crop.apply(ramp(*crop.source), outside="edge")[0]
    places = crop.inverse().points(ramp(height, width)[0, :2].flatten(1).T.contiguous()).T.reshape(2, height, width)
    # Only where all that a pixel averages, two pixels each way, lies inside: elsewhere the picture is continued.
    margin = 2 / abs(crop.factor) + 1
    sizes = torch.tensor([crop.source[1], crop.source[0]], dtype=torch.float64)[:, None, None]
    inside = ((places > margin) & (places < sizes - margin)).all(dim=0)
    inside[[0, -1], :] = inside[:, [0, -1]] = False  # there the weights lean to one side
    assert int(inside.sum()) > 40
    torch.testing.assert_close(shown[:2, inside], places[:, inside], rtol=0, atol=1e-6)


def test_a_detail_finer_than_a_pixel_is_averaged_away() -> None:
    """Stripes of 8 pixels under pixels of 13: the triangle leaves sinc^2(13 / 8), 3 % of their first harmonic."""
    stripes = (torch.arange(-2, 1022) % 8 >= 4).float().expand(1, 1, 1024, 1024)
    read_once = functional.interpolate(stripes, size=(64, 64), mode="bilinear")  # what would come without averaging
    assert float((read_once - 0.5).abs().min()) == 0.5
    shown = celeba_crop().apply(stripes)[..., 1:-1]  # the weights of the outermost lean to one side
    assert float((shown - 0.5).abs().max()) < 0.03


def test_smooth_pictures_come_back() -> None:
    """There at 64 x 64 and back at 1024 x 1024: measured, 0.0022 root mean square of waves between 0 and 1."""
    crop = celeba_crop()
    picture = waves(1024, 1024)
    back = crop.inverse().apply(crop.apply(picture), outside="edge")
    inside = (slice(None), slice(None), slice(80, 840), slice(130, 890))  # what the crop shows, without its outermost pixels
    gap = float((back - picture)[inside].square().mean().sqrt())
    assert gap < 0.004
    shifted = Crop(source=(64, 64), target=(64, 64), shift=complex(1.0, 0.0))
    worse = crop.inverse().apply(shifted.apply(crop.apply(picture), outside="edge"), outside="edge")
    assert float((worse - picture)[inside].square().mean().sqrt()) > 5 * gap


def test_images_of_another_resolution_are_shown_alike() -> None:
    small = celeba_crop().apply(functional.avg_pool2d(waves(1024, 1024), 4))
    torch.testing.assert_close(small, celeba_crop().apply(waves(1024, 1024)), rtol=0, atol=2e-3)


def test_two_crops_at_once_show_what_one_after_the_other_shows() -> None:
    picture = waves(218, 178)
    square = rectangle((218, 178), left=25, upper=45, size=(128, 128))
    halved = resizing((128, 128), (64, 64))
    torch.testing.assert_close(square.then(halved).apply(picture), halved.apply(square.apply(picture)), rtol=0, atol=1e-9)


@pytest.mark.parametrize("crop", [TURN, TURN.inverse()], ids=["shrunk", "enlarged"])
def test_gradients_are_those_of_finite_differences(crop: Crop, generator: torch.Generator) -> None:
    images = torch.rand(1, 1, *crop.source, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: crop.apply(x, outside="edge"), (images,), fast_mode=True)


def test_gradients_reach_every_pixel_that_is_shown_and_no_other() -> None:
    crop = celeba_crop()
    images = torch.zeros(1, 1, 1024, 1024, requires_grad=True)
    crop.apply(images).sum().backward()
    assert images.grad is not None
    x, y = (crop.corners().min(dim=0).values, crop.corners().max(dim=0).values)
    left, upper, right, lower = *x.ceil().int().tolist(), *y.floor().int().tolist()
    assert float(images.grad[0, 0, upper:lower, left:right].min()) > 0.0
    outside = images.grad.clone()
    outside[0, 0, upper - 2 : lower + 2, left - 2 : right + 2] = 0.0
    assert float(outside.abs().max()) == 0.0
    assert float(images.grad.sum()) == pytest.approx(64 * 64, rel=1e-4)  # the weights of each pixel sum to 1


def test_what_lies_outside_is_as_asked() -> None:
    crop = rectangle((10, 10), left=-5, upper=0, size=(10, 10))
    white = torch.ones(1, 3, 10, 10)
    with pytest.raises(SettingError, match="shows more than the 10 x 10 pixels"):
        crop.apply(white)
    torch.testing.assert_close(crop.apply(white, outside="edge"), white)
    black = crop.apply(white, outside="black")
    assert float(black[..., :4].max()) == 0.0
    assert float(black[..., 6:].min()) == 1.0
    with pytest.raises(UnknownNameError, match="what lies outside"):
        crop.apply(white, outside="mirror")


def test_what_cannot_be_is_refused() -> None:
    for wrong in ({"factor": 0j}, {"factor": complex("nan")}, {"shift": complex("inf")}, {"target": (0, 3)}):
        with pytest.raises(SettingError):
            Crop(**({"source": (4, 4), "target": (4, 4)} | wrong))  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="Put a resizing crop between them"):
        celeba_crop().then(celeba_crop())
    with pytest.raises(SettingError, match="not in proportion"):
        resizing((218, 178), (64, 64))
    with pytest.raises(ImageFormatError, match="got 32 x 64 pixels"):
        celeba_crop().apply(torch.zeros(1, 3, 64, 32))
    with pytest.raises(UnknownNameError, match="Did you mean 'ffhq'"):
        celeba_crop("ffhg")
    with pytest.raises(SettingError, match="128 and 140, got 100"):
        celeba_crop(crop=100)
    with pytest.raises(SettingError, match="in less than a pixel"):
        Crop(source=(8, 8), target=(8, 8), factor=1e-9 + 0j).apply(torch.zeros(1, 1, 8, 8), outside="edge")
    assert celeba_crop().apply(torch.zeros(0, 3, 64, 64)).shape == (0, 3, 64, 64)
    one = torch.zeros(2, 2, dtype=torch.float64)
    for here, there in ((one, one), (one[:1], one[:1]), (one, one[:1])):
        with pytest.raises(SettingError):
            aligning(here, there, source_size=(4, 4), target_size=(4, 4))
