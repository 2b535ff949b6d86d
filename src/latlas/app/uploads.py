"""A visitor's picture to an image of a model: bounded in bytes and pixels, its file name never looked at."""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from latlas.base.errors import ImageFormatError
from latlas.base.shapes import ImageShape
from latlas.data.decoding import UnreadableError, check_scans

MOST_BYTES = 10_000_000
MOST_PIXELS = 16_000_000
_LEAST_SIDE = 8  # pixels: of fewer nothing could be told
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
_DEEP = ("I", "I;16", "I;16B", "I;16L", "F")


@dataclass(frozen=True, kw_only=True, eq=False)
class Upload:
    """An image in a model's shape, and what was done to the picture on the way."""

    image: Float[Tensor, "c h w"]  # in [0, 1]
    remarks: tuple[str, ...]


def read_upload(content: bytes, shape: ImageShape) -> Upload:
    """Return the image that a file holds, cut to the model's proportions, resized and coloured as the model takes it.

    Args:
        content: of a PNG, JPEG, WebP, GIF or BMP file.
        shape: channels (1 or 3), height and width of the model's images.

    Raises:
        ImageFormatError: no such picture, too many bytes or pixels, or too small.
    """
    if len(content) > MOST_BYTES:
        raise ImageFormatError(
            f"The file has {len(content) / 1e6:.1f} MB; at most {MOST_BYTES / 1e6:.0f} MB are read. Save it smaller."
        )
    channels, height, width = shape
    try:
        check_scans(content)  # else a file of 10 MB could keep a processor busy for twenty minutes
        # Opening reads the header alone: a picture that is too large is refused before its pixels are.
        with Image.open(io.BytesIO(content), formats=_FORMATS) as opened:
            _check_size(opened.size)
            remarks = ["Of an animation the first frame is taken."] if getattr(opened, "is_animated", False) else []
            opened.load()
            picture: Any = ImageOps.exif_transpose(opened)
            if picture.mode in _DEEP:
                raise ImageFormatError("The picture has 16 or more bits a pixel; save it with 8 bits.")
            picture = _on_white(picture, remarks)
    except Image.DecompressionBombError as failure:
        raise ImageFormatError(
            f"The picture has more than {MOST_PIXELS / 1e6:.0f} million pixels. Save it smaller."
        ) from failure
    except ImageFormatError:
        raise
    except UnreadableError as failure:
        raise ImageFormatError(f"The picture {failure}. Save it again.") from failure
    except UnidentifiedImageError as failure:
        raise ImageFormatError(
            "The file holds no picture that can be read, whatever its name says. Give a PNG, JPEG, WebP, GIF or BMP."
        ) from failure
    except Exception as failure:  # a damaged file raises whatever its decoder stumbles over
        raise ImageFormatError("The picture is damaged: it cannot be read to its end. Save it again.") from failure
    grey = picture.mode in ("1", "L")
    if grey and channels == 3:
        remarks.append("The picture is grey; the model takes colours.")
    if not grey and channels == 1:
        remarks.append("Colours are made grey, as the model takes it.")
    picture = picture.convert("L" if channels == 1 else "RGB")
    if picture.size != (width, height):
        cut = "" if picture.size[0] * height == picture.size[1] * width else "its middle cut out and "
        remarks.append(f"{picture.size[0]} x {picture.size[1]} pixels, {cut}resized to {width} x {height}.")
        picture = ImageOps.fit(picture, (width, height), method=Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.array(picture, dtype=np.uint8)).reshape(height, width, channels).permute(2, 0, 1)
    return Upload(image=pixels.float().div(255.0).contiguous(), remarks=tuple(remarks))


def _check_size(size: tuple[int, int]) -> None:
    width, height = size
    if width * height > MOST_PIXELS:
        raise ImageFormatError(
            f"The picture has {width} x {height} pixels, {width * height / 1e6:.0f} million; at most {MOST_PIXELS / 1e6:.0f} million "
            "are read. Save it smaller."
        )
    if min(width, height) < _LEAST_SIDE:
        raise ImageFormatError(
            f"The picture has {width} x {height} pixels: too few to see anything. Give at least {_LEAST_SIDE} x {_LEAST_SIDE}."
        )


def _on_white(picture: Any, remarks: list[str]) -> Any:
    if not (picture.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in picture.info):
        return picture if picture.mode in ("1", "L") else picture.convert("RGB")
    remarks.append("What is transparent is shown on white.")
    grey = picture.mode in ("LA", "La", "L", "1")
    layer = picture.convert("RGBA")
    ground = Image.new("RGBA", layer.size, "white")
    ground.alpha_composite(layer)
    return ground.convert("L" if grey else "RGB")
