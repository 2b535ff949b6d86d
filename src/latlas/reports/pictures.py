"""Images as pictures for a page: grids of them as PNG, enlarged without smoothing."""

import io

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from latlas.base.shapes import Images
from latlas.data.images import to_pixels
from latlas.reports.palette import FOREIGN

_GAP = 2  # pixels between images, before enlarging


def grid(images: Images, *, columns: int, enlarge: int = 2) -> bytes:
    """Return a PNG of images laid out in rows of `columns`, on a transparent ground.

    Args:
        images: in [0, 1].
        columns: images a row.
        enlarge: whole factor; pixels stay squares.
    """
    pixels = to_pixels(images)
    n, channels, height, width = pixels.shape
    rows = -(-n // columns)
    canvas = torch.zeros(4, rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP, dtype=torch.uint8)
    for place in range(n):
        top, left = (place // columns) * (height + _GAP), (place % columns) * (width + _GAP)
        canvas[:3, top : top + height, left : left + width] = (
            pixels[place].expand(3, -1, -1) if channels == 1 else pixels[place]
        )
        canvas[3, top : top + height, left : left + width] = 255
    big = canvas.repeat_interleave(enlarge, dim=1).repeat_interleave(enlarge, dim=2)
    stream = io.BytesIO()
    Image.fromarray(big.permute(1, 2, 0).contiguous().numpy(), mode=None).save(stream, format="PNG", optimize=True)
    return stream.getvalue()


def rows(*strips: Float[Tensor, "_ _ h w"]) -> Float[Tensor, "rows c h w"]:
    """Return strips of images one under the other, in colour where any is: show with as many columns as a strip is long."""
    channels = max(strip.shape[1] for strip in strips)
    return torch.cat([strip.detach().cpu().float().expand(-1, channels, -1, -1) for strip in strips])


def difference(images: Images, others: Images) -> Tensor:
    """Return the absolute difference, in [0, 1]."""
    return (images - others).abs()


def heat(maps: Float[Tensor, "n 1 h w"], white: float) -> Float[Tensor, "n 3 h w"]:
    """Return maps of differences as images: black for none, by the palette's colour of foreign images to white.

    A grey map looks like an image, of digits above all; and its ground is its own, or a dark page would change how it reads.

    Args:
        maps: at least 0.
        white: the value from which on a map is white.
    """
    colour = torch.tensor([int(FOREIGN[place : place + 2], 16) / 255 for place in (1, 3, 5)]).view(1, 3, 1, 1)
    strength = 2 * (maps.detach().cpu().float() / max(white, 1e-12)).clamp(0, 1)
    return colour * strength.clamp(max=1) + (1 - colour) * (strength - 1).clamp(min=0)
