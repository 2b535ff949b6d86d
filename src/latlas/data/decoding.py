"""One picture: from the bytes of its file to an array of pixels. Pillow decides what they are; nothing here imports torch.

Stated once, for every container: a picture is turned as its EXIF says; of an animated one the first frame counts;
transparency is laid over white; CMYK and palettes become RGB as Pillow converts them, without colour profiles; more than
8 bits a grey pixel are refused, since no rule says what is white. To a side it comes by its central square and Pillow's
bicubic filter, which antialiases.
"""

import io
import re
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, TiffImagePlugin, UnidentifiedImageError, WebPImagePlugin

RESIZING = "central square, Pillow's bicubic filter with antialiasing"
COLOUR_AMONG_GREY = "is in colour, and the set was taken for grey. Say that it is in colour (?channels=3 behind its name)"

Buffer = bytes | memoryview
Pixels = NDArray[np.uint8]  # c h w

# The formats of EXTENSIONS and no other: Pillow would hand PostScript, whatever its file is called, to another program.
_FORMATS = ("JPEG", "PNG", WebPImagePlugin.WebPImageFile.format, "GIF", "BMP", TiffImagePlugin.TiffImageFile.format, "PPM")
_GREY_MODES = ("1", "L", "LA", "La")
_TRANSPARENT_MODES = ("LA", "La", "PA", "RGBA", "RGBa")
# Markers of a JPEG, each with its 0xFF: frames (baseline, extended, progressive), and what else may stand before the scan.
_FRAMES = frozenset({0xFFC0, 0xFFC1, 0xFFC2})
_TABLES = frozenset({0xFFC4, 0xFFDB, 0xFFDD, 0xFFFE, *range(0xFFE0, 0xFFF0)} - {0xFFE1})  # without APP1, EXIF and XMP
_APP2, _SCAN, _PROGRESSIVE = 0xFFE2, 0xFFDA, 0xFFC2
# With a length behind it: it is no byte 0xFF among the pixels, and no restart.
_MARKER = re.compile(rb"\xff[\x02-\xcf\xd9-\xfe]")
_MOST_SCANS = 500  # libjpeg-turbo's own fuzzers stop there; pictures have some 10
_SEGMENT, _FRAME = struct.Struct(">HH"), struct.Struct(">BHHB")
_ROW_BY_ROW = {"L": "L", "RGB": "RGB;L"}  # Pillow's names of the layout that is one row of red, one of green, one of blue


class UnreadableError(Exception):
    """A picture that cannot be used; the message goes on where its name ends."""


def read_picture(data: Buffer, *, channels: int | None = None, side: int | None = None) -> Pixels:
    """Return the pixels of a picture, upright.

    Args:
        data: the content of a file.
        channels: 1 or 3, whatever the picture has; None: 1 of a grey picture, else 3.
        side: crop to the central square and resize it to this side, in pixels; None: as it is.

    Raises:
        UnreadableError: it is no picture, is damaged, has more pixels than Pillow's `Image.MAX_IMAGE_PIXELS`, or more
            than 8 bits a grey pixel; or it is a JPEG of more than 500 scans.
    """
    picture = _plain_jpeg(data) or _any_picture(data)
    if channels is not None and len(picture.getbands()) != channels:
        picture = picture.convert("L" if channels == 1 else "RGB")
    if side is not None and picture.size != (side, side):
        picture = ImageOps.fit(picture, (side, side), method=Image.Resampling.BICUBIC)
    width, height = picture.size
    rows = np.frombuffer(picture.tobytes("raw", _ROW_BY_ROW[picture.mode]), dtype=np.uint8)
    return rows.reshape(height, -1, width).transpose(1, 0, 2)


def picture_shape(data: Buffer) -> tuple[int, int, int]:
    """Return channels, height and width that `read_picture` would give; only the head of the file is read.

    Raises:
        UnreadableError: the head is none of a picture that can be used.
    """
    with _warnings_judged(), _opened(data) as picture:
        width, height = picture.size
        try:
            turned = picture.getexif().get(0x0112, 1) in (5, 6, 7, 8)  # stored lying on its side
        except Exception as failure:  # of a PNG all is read for it
            raise UnreadableError(_unreadable(failure)) from failure
        if turned:
            width, height = height, width
        return 1 if picture.mode in _GREY_MODES else 3, height, width


def check_scans(data: Buffer) -> None:
    """Raise for a JPEG that goes over its pixels too often: each time takes milliseconds, and a few bytes.

    Raises:
        UnreadableError: it has more than 500 scans.
    """
    if data[:2] != b"\xff\xd8" or bytes(data).count(b"\xff\xda") <= _MOST_SCANS:  # which may stand in what is no scan, too
        return
    place, scans = 2, 0
    while (found := _MARKER.search(data, place)) is not None and found[0] != b"\xff\xd9":
        scans += found[0] == b"\xff\xda"
        if scans > _MOST_SCANS:
            raise UnreadableError(f"cannot be read as a picture (it is a JPEG of more than {_MOST_SCANS} scans)")
        length = data[found.end() : found.end() + 2]
        place = found.end() + int.from_bytes(length, "big")


def _plain_jpeg(data: Buffer) -> Image.Image | None:
    """Return a JPEG's pixels without what `Image.open` does for all the others, which takes longer than to decode 64 x 64.

    None of any picture that needs it: with EXIF or XMP (it may lie on its side), of several pictures, in CMYK, damaged.
    """
    if data[:2] != b"\xff\xd8":
        return None
    place, size, layers, frame = 2, (0, 0), 0, 0
    try:
        while True:
            marker, length = _SEGMENT.unpack_from(data, place)
            if marker in _TABLES:
                if marker == _APP2 and data[place + 4 : place + 8] == b"MPF\0":
                    return None
            elif marker in _FRAMES:
                bits, height, width, layers = _FRAME.unpack_from(data, place + 4)
                size, frame = (width, height), marker
                if bits != 8 or layers not in (1, 3):
                    return None
            elif marker == _SCAN:
                if frame == _PROGRESSIVE or data[place + 4] != layers:  # else it is the only one: libjpeg takes no other
                    check_scans(data)
                break
            else:
                return None
            place += 2 + length
        if not 0 < size[0] * size[1] <= (Image.MAX_IMAGE_PIXELS or float("inf")):
            return None
        mode = "L" if layers == 1 else "RGB"
        return Image.frombytes(mode, size, data, "jpeg", mode, "")
    except (struct.error, ValueError, OSError, IndexError):
        return None  # and `Image.open` shall say what is wrong


def _any_picture(data: Buffer) -> Image.Image:
    check_scans(data)
    with _warnings_judged(), _opened(data) as picture:
        try:
            ImageOps.exif_transpose(picture, in_place=True)
            picture.load()
            grey = picture.mode in _GREY_MODES
            if picture.mode in _TRANSPARENT_MODES or "transparency" in picture.info:
                over = Image.new("RGBA", picture.size, "white")
                over.alpha_composite(picture.convert("RGBA"))
                return over.convert("RGB").convert("L" if grey else "RGB")
            return picture.convert("L" if grey else "RGB")
        except Exception as failure:  # what Pillow raises on damaged files is no closed list: struct.error, KeyError, ...
            raise UnreadableError(_unreadable(failure)) from failure


@contextmanager
def _warnings_judged() -> Iterator[None]:
    """Make Pillow's one limit of pixels an error (by itself it warns, and refuses at twice the limit), the rest silent."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _opened(data: Buffer) -> Image.Image:
    if not len(data):
        raise UnreadableError("cannot be read as a picture (it is empty)")
    try:
        picture = Image.open(io.BytesIO(data), formats=_FORMATS)
    except Exception as failure:
        raise UnreadableError(_unreadable(failure)) from failure
    if picture.mode.startswith("I") or picture.mode == "F":
        raise UnreadableError("has 16 or more bits a pixel; convert it to 8 bits first")
    return picture


def _unreadable(failure: Exception) -> str:
    if isinstance(failure, UnidentifiedImageError):
        return "cannot be read as a picture (it has none of the formats JPEG, PNG, WebP, GIF, BMP, TIFF, PPM)"
    if isinstance(failure, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"cannot be read as a picture (it has more than {Image.MAX_IMAGE_PIXELS:,} pixels, Pillow's limit)"
    return f"cannot be read as a picture ({' '.join(str(failure).split()) or type(failure).__name__})"
