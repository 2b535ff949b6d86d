"""Faces between conventions: which part of one frame another frame shows, as values that apply, chain and invert."""

import cmath
import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from latlas.base.errors import ImageFormatError, SettingError, unknown_name
from latlas.base.shapes import Images
from latlas.data.celeba import CROPS

Shown = Float[Tensor, "n c row column"]  # images of another size than those that came
Points = Float64[Tensor, "point 2"]  # x to the right, y downwards: pixel (row, column) covers x in [column, column + 1]

_OUTSIDE = ("refuse", "edge", "black")
_ROUNDING = 1e-6  # of a pixel: this far outside is no outside


@dataclass(frozen=True, kw_only=True)
class Frame:
    """A convention of aligning faces: the size of its pictures, and where the parts of the mean face lie in them.

    Positions are (x, y) in pixels, to the right and downwards from the upper left corner of the picture, so that the centre of
    the first pixel is (0.5, 0.5). "Left" is left in the picture.
    """

    name: str
    height: int
    width: int
    left_eye: tuple[float, float]
    right_eye: tuple[float, float]
    left_mouth: tuple[float, float]  # the corner of the mouth
    right_mouth: tuple[float, float]

    def landmarks(self) -> Points:
        """Return the four positions: eyes, then corners of the mouth, the left before the right."""
        return torch.tensor([self.left_eye, self.right_eye, self.left_mouth, self.right_mouth], dtype=torch.float64)


# The five points at 512 x 512 to which facexlib aligns faces as FFHQ has them (facexlib, face_restoration_helper.py; GFPGAN and
# CodeFormer use them too): eyes (192.98, 239.95) and (318.90, 240.19), corners of the mouth (201.26, 371.41) and (313.09, 371.15),
# counted from the centre of the first pixel. Here at 1024 x 1024, and averaged with their mirror image.
FFHQ = Frame(
    name="ffhq",
    height=1024,
    width=1024,
    left_eye=(386.079, 481.141),
    right_eye=(637.921, 481.141),
    left_mouth=(400.172, 743.562),
    right_mouth=(623.828, 743.562),
)

# The means of list_landmarks_align_celeba.txt, rounded to a pixel, as ALAE states them in align_faces.py: eyes (69, 111) and
# (108, 111), corners of the mouth (72, 152) and (105, 152), counted from the centre of the first pixel.
CELEBA = Frame(
    name="celeba",
    height=218,
    width=178,
    left_eye=(69.5, 111.5),
    right_eye=(108.5, 111.5),
    left_mouth=(72.5, 152.5),
    right_mouth=(105.5, 152.5),
)

FRAMES = {frame.name: frame for frame in (FFHQ, CELEBA)}


@dataclass(frozen=True, kw_only=True)
class Crop:
    """A similarity from the places of one frame to those of another, and the sizes of both.

    With places as complex numbers x + iy, place p of the source is shown at `factor * p + shift`. A factor of modulus 1/2 makes
    pictures half as large; its argument turns them.

    Raises:
        SettingError: a size below 1, a factor of 0, or numbers that are not finite.
    """

    source: tuple[int, int]  # height and width of the frame that is looked at
    target: tuple[int, int]  # height and width of what is shown of it
    factor: complex = 1.0 + 0.0j
    shift: complex = 0.0j

    def __post_init__(self) -> None:
        if min(*self.source, *self.target) < 1:
            raise SettingError(f"A crop needs sizes of at least 1, got {self.source} and {self.target}.")
        if not (cmath.isfinite(self.factor) and cmath.isfinite(self.shift)) or self.factor == 0:
            raise SettingError(
                f"A crop needs a finite factor other than 0 and a finite shift, got {self.factor} and {self.shift}."
            )

    def then(self, following: "Crop") -> "Crop":
        """Return both crops as one: images are sampled once, and what the frame between them does not hold is no matter.

        Raises:
            SettingError: the second does not start from the frame in which the first ends.
        """
        if self.target != following.source:
            raise SettingError(
                f"The first crop gives {_size(self.target)} and the second takes {_size(following.source)}. "
                "Put a resizing crop between them."
            )
        return Crop(
            source=self.source,
            target=following.target,
            factor=following.factor * self.factor,
            shift=following.factor * self.shift + following.shift,
        )

    def inverse(self) -> "Crop":
        """Return the crop that puts everything back in its place; what was cut off does not come back."""
        return Crop(source=self.target, target=self.source, factor=1 / self.factor, shift=-self.shift / self.factor)

    def points(self, places: Points) -> Points:
        """Return where places of the source frame are shown.

        Args:
            places: (x, y) in pixels of the source frame.
        """
        shown = torch.view_as_complex(places.contiguous()) * self.factor + self.shift
        return torch.view_as_real(shown)

    def corners(self) -> Points:
        """Return the places of the source frame that the four corners of the target show, clockwise from the upper left."""
        height, width = self.target
        corners = torch.tensor([[0, 0], [width, 0], [width, height], [0, height]], dtype=torch.float64)
        return self.inverse().points(corners)

    @property
    def is_inside(self) -> bool:
        """Whether the source frame holds all that the target shows."""
        height, width = self.source
        x, y = self.corners().unbind(1)
        return bool(
            (x >= -_ROUNDING).all()
            and (x <= width + _ROUNDING).all()
            and (y >= -_ROUNDING).all()
            and (y <= height + _ROUNDING).all()
        )

    def apply(self, images: Images, *, outside: str = "refuse") -> Shown:
        """Return what the target frame shows of images. Gradients reach the images.

        Where the target is coarser than the images, k x k positions are read for each of its pixels, the smallest k that
        leaves no pixel between two positions unread, by bilinear interpolation; they are then averaged with the
        triangular weights of Pillow's `BILINEAR` resizing, two target pixels wide. Of a rectangle that is shrunk by a
        whole number, this makes what Pillow makes.

        Args:
            images: of the source frame, at its size or at any other in the same proportion.
            outside: what to do where the target shows more than the source holds: "refuse", continue its "edge", or "black".

        Raises:
            ImageFormatError: images of another proportion.
            SettingError: the target shows more than the source holds, and `outside` is "refuse"; or the whole source would be
                less than a pixel.
            UnknownNameError: no such choice of what lies outside.
        """
        if outside not in _OUTSIDE:
            raise unknown_name("choice for what lies outside", outside, _OUTSIDE)
        height, width = images.shape[-2:]
        if height * self.source[1] != width * self.source[0]:
            raise ImageFormatError(
                f"The crop takes images of {_size(self.source)} or of that proportion, got {_size((height, width))}. "
                "Resize or cut them first."
            )
        if outside == "refuse" and not self.is_inside:
            raise SettingError(
                f"The crop shows more than the {_size(self.source)} of its source. "
                'Choose what it shall show there: outside="edge" or "black".'
            )
        rows, columns = self.target
        density = max(1, math.ceil(height / self.source[0] / abs(self.factor) - _ROUNDING))
        if density > max(height, width):
            raise SettingError(f"The crop shows its whole source in less than a pixel: its factor is {abs(self.factor):.3g}.")
        grid = self._grid(density).to(images.device, images.dtype).expand(len(images), -1, -1, -1)
        padding = "border" if outside != "black" else "zeros"
        shown = nn.functional.grid_sample(images, grid, mode="bilinear", padding_mode=padding, align_corners=False)
        if density == 1:
            return shown
        return nn.functional.interpolate(shown, size=(rows, columns), mode="bilinear", antialias=True, align_corners=False)

    def _grid(self, density: int) -> Tensor:
        """Return the places to read, 1 x row x column x 2, in the units of `grid_sample`: the source reaches from -1 to 1."""
        rows, columns = (size * density for size in self.target)
        y, x = torch.meshgrid(
            (torch.arange(rows, dtype=torch.float64) + 0.5) / density,
            (torch.arange(columns, dtype=torch.float64) + 0.5) / density,
            indexing="ij",
        )
        places = self.inverse().points(torch.stack([x.flatten(), y.flatten()], dim=1))
        sizes = torch.tensor([self.source[1], self.source[0]], dtype=torch.float64)
        return (2 * places / sizes - 1).reshape(1, rows, columns, 2)


def rectangle(source: tuple[int, int], *, left: float | int, upper: float | int, size: tuple[int, int]) -> Crop:
    """Return the crop that shows a rectangle of a frame, pixel by pixel.

    Args:
        source: height and width of the frame.
        left: x of the rectangle's left side.
        upper: y of its upper side.
        size: its height and width.
    """
    return Crop(source=source, target=size, shift=complex(-left, -upper))


def resizing(source: tuple[int, int], target: tuple[int, int]) -> Crop:
    """Return the crop that shows all of a frame, in another size.

    Raises:
        SettingError: the sizes are not in proportion.
    """
    if source[0] * target[1] != source[1] * target[0]:
        raise SettingError(f"{_size(source)} and {_size(target)} are not in proportion; cut a rectangle first.")
    return Crop(source=source, target=target, factor=complex(target[0] / source[0]))


def aligning(
    source: Points, target: Float64[Tensor, "other 2"], *, source_size: tuple[int, int], target_size: tuple[int, int]
) -> Crop:
    """Return the similarity that brings landmarks nearest to where they shall be shown, in squared distance.

    Args:
        source: two or more places of the source frame, not all the same.
        target: where each shall be shown.
        source_size: height and width of the source frame.
        target_size: height and width of the target frame.

    Raises:
        SettingError: fewer than two landmarks, another number of them in the target, or all in one place.
    """
    if len(source) < 2 or len(source) != len(target):
        raise SettingError(
            f"Aligning needs two landmarks or more, as many in both frames; got {len(source)} and {len(target)}."
        )
    here, there = (torch.view_as_complex(places.contiguous()) for places in (source, target))
    spread, wanted = here - here.mean(), there - there.mean()
    total = spread.abs().square().sum()
    if not float(total) > 0:
        raise SettingError("Aligning needs landmarks in different places; these are all in one.")
    factor = complex((spread.conj() * wanted).sum() / total)
    shift = complex(there.mean()) - factor * complex(here.mean())
    return Crop(source=source_size, target=target_size, factor=factor, shift=shift)


def between(source: Frame, target: Frame) -> Crop:
    """Return the crop from one convention's pictures to another's, by the landmarks of their mean faces."""
    return aligning(
        source.landmarks(),
        target.landmarks(),
        source_size=(source.height, source.width),
        target_size=(target.height, target.width),
    )


def celeba_crop(source: str = "ffhq", *, crop: int = 128, size: int = 64) -> Crop:
    """Return the crop from a convention's pictures to those on which models of CelebA faces are trained.

    Args:
        source: "ffhq" or "celeba".
        crop: 128 or 140, the side of the published square of CelebA's aligned picture.
        size: side of the images shown.

    Raises:
        UnknownNameError: no such convention.
        SettingError: no such square, or a size below 1.

    >>> celeba_crop("celeba").corners().tolist()
    [[25.0, 45.0], [153.0, 45.0], [153.0, 173.0], [25.0, 173.0]]
    """
    if source not in FRAMES:
        raise unknown_name("convention of aligned faces", source, FRAMES)
    if crop not in CROPS:
        raise SettingError(f"CelebA's published crops are {' and '.join(map(str, CROPS))}, got {crop}.")
    left, upper, right, lower = CROPS[crop]
    square = rectangle((CELEBA.height, CELEBA.width), left=left, upper=upper, size=(lower - upper, right - left))
    return between(FRAMES[source], CELEBA).then(square).then(resizing(square.target, (size, size)))


def _size(size: tuple[int, int]) -> str:
    return f"{size[1]} x {size[0]} pixels"
