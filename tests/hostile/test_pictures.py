"""Pictures from the wild: what cannot be used is named, whichever way the user wants to go on, and nothing else is raised."""

import io
import os
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from PIL import Image

from latlas.base.errors import ImageFormatError
from latlas.data.decoding import UnreadableError, picture_shape, read_picture
from latlas.data.loading import load_images, open_images

GREY_VALUE = 200


def saved(picture: Image.Image, kind: str, **settings: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **settings)  # type: ignore[arg-type]
    return stream.getvalue()


def plain(mode: str = "RGB", size: tuple[int, int] = (12, 9)) -> Image.Image:
    return Image.effect_noise(size, 80).convert(mode)


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png_of(width: int, height: int, *, rows: bytes = b"", extra: bytes = b"") -> bytes:
    """A PNG whose head says what it likes."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def bmp_of(width: int, height: int) -> bytes:
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)


def turned(tag: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = tag
    return saved(plain(), "JPEG", exif=exif)


def animated() -> bytes:
    return saved(plain("P"), "GIF", save_all=True, append_images=[plain("P") for _ in range(3)])


# File name -> content. Of the first a picture comes; of the second none does.
GOOD: dict[str, Callable[[], bytes]] = {
    "a-cmyk.jpg": lambda: saved(plain("CMYK"), "JPEG"),
    "b-palette.png": lambda: saved(plain("P"), "PNG"),
    "c-alpha.png": lambda: saved(plain("RGBA"), "PNG"),
    "d-turned.jpg": lambda: turned(6),
    "e-turned-no-way.jpg": lambda: turned(999),
    "f-animated.gif": animated,
    "g-one-pixel.png": lambda: saved(plain(size=(1, 1)), "PNG"),
    "h-line.png": lambda: saved(plain("L", size=(100_000, 1)), "PNG"),
    "i-column.png": lambda: saved(plain("L", size=(1, 100_000)), "PNG"),
    "j-wrong-ending.png": lambda: saved(plain(), "JPEG"),
    "k-black-and-white.png": lambda: saved(plain("1"), "PNG"),
    "l-big-endian.tiff": lambda: saved(plain(), "TIFF", compression="tiff_lzw"),
    "m-lossless.webp": lambda: saved(plain(), "WEBP", lossless=True),
    "n-rubbish-behind.jpg": lambda: saved(plain(), "JPEG") + b"rubbish" * 100,
}
BAD: dict[str, Callable[[], bytes]] = {
    "a-empty.png": lambda: b"",
    "b-cut.png": lambda: saved(plain(size=(64, 64)), "PNG")[:900],
    "c-cut.jpg": lambda: saved(plain(size=(64, 64)), "JPEG")[:700],
    "d-head-alone.jpg": lambda: saved(plain(), "JPEG")[:20],
    "e-text.png": lambda: b"this is a text\n",
    "f-zeros.jpg": lambda: bytes(5_000),
    "g-16-bits.png": lambda: saved(Image.new("I;16", (9, 9), GREY_VALUE), "PNG"),
    "h-32-bits.tiff": lambda: saved(Image.new("F", (9, 9)), "TIFF"),
    "i-bomb.png": lambda: png_of(60_000, 60_000),
    "j-bomb.bmp": lambda: bmp_of(60_000, 60_000),
    "k-bomb.gif": lambda: b"GIF89a\xff\xff\xff\xff\x80\0\0" + bytes(6) + b",\0\0\0\0\xff\xff\xff\xff\0\x02\x02L\x01\0;",
    "l-endless.png": lambda: png_of(2**31 - 1, 1),
    "m-nothing-wide.png": lambda: png_of(0, 5),
    "n-bomb-of-text.png": lambda: png_of(4, 4, extra=chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 26)))),
    "o-postscript.png": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "p-bad-sum.png": lambda: saved(plain(), "PNG").replace(b"IDAT", b"IDAX", 1),
    "q-svg.png": lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "r-loop.tiff": lambda: b"II*\0\x08\0\0\0" + b"\0\0" + b"\x08\0\0\0",
}


@pytest.mark.parametrize("name", GOOD)
def test_a_strange_picture_is_read(name: str) -> None:
    data = GOOD[name]()
    channels, height, width = picture_shape(data)
    pixels = read_picture(data)
    assert pixels.shape == (channels, height, width)
    assert read_picture(data, channels=3, side=8).shape == (3, 8, 8)


@pytest.mark.parametrize("name", BAD)
def test_a_bad_picture_is_refused_in_one_kind_of_words(name: str) -> None:
    data = BAD[name]()
    with pytest.raises(UnreadableError) as failure:
        read_picture(data, channels=3, side=8)
    assert str(failure.value).isprintable()
    with suppress(UnreadableError):  # which the head of some tells already
        picture_shape(data)


def test_the_four_sides_of_exif_stand_upright() -> None:
    """Tags 5 to 8 lie on their side: 12 x 9 becomes 9 x 12, and the head says so before the pixels do."""
    for tag in range(1, 9):
        data = turned(tag)
        assert picture_shape(data) == read_picture(data).shape == ((3, 12, 9) if tag >= 5 else (3, 9, 12))


@pytest.fixture
def wild(tmp_path: Path) -> Path:
    folder = tmp_path / "wild"
    for within, files in (("good", GOOD), ("bad", BAD)):
        (folder / within).mkdir(parents=True)
        for name, make in files.items():
            (folder / within / name).write_bytes(make())
    (folder / "bad" / "y-link.png").symlink_to("/etc/passwd")
    (folder / "bad" / "z-nowhere.png").symlink_to("/no/such/file")  # which is no picture at all, and not listed
    os.mkfifo(folder / "bad" / "zz-pipe.png")  # nor is this, or it would be waited for
    (folder / "loop").symlink_to(folder)
    return folder


@pytest.mark.parametrize("workers", [0, 2])
def test_skipping_names_each_bad_picture_and_keeps_the_others(wild: Path, workers: int) -> None:
    bad = sorted([*(f"bad/{name}" for name in BAD), "bad/y-link.png"])
    images = load_images(wild, size=8, policy="skip", workers=workers)
    assert [each.name for each in images.skipped] == bad
    assert [each.name for each in images.skipped if not each.reason.isprintable()] == []
    assert [each.reason for each in images.skipped if "root:" in each.reason] == []
    assert list(images.names) == sorted(f"good/{name}" for name in GOOD)
    assert images.tensor().shape == (len(GOOD), 3, 8, 8)


def test_skipping_as_they_are_read_says_the_same(wild: Path) -> None:
    source = open_images(wild, size=8, policy="skip", workers=0)
    blocks = list(source.blocks((start, min(start + 5, len(source))) for start in range(0, len(source), 5)))
    whole = load_images(wild, size=8, policy="skip", workers=0)
    assert [each.name for block in blocks for each in block.skipped] == [each.name for each in whole.skipped]
    assert torch.equal(torch.cat([block.pixels for block in blocks]), whole.storage)


@pytest.mark.parametrize("name", BAD)
def test_stopping_names_the_one_bad_picture(name: str, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(saved(plain(), "PNG"))
    (tmp_path / f"b-{name}").write_bytes(BAD[name]())
    for read in (
        lambda: load_images(tmp_path, size=8, workers=0),
        lambda: list(open_images(tmp_path, size=8, workers=0).blocks([(0, 2)])),
    ):
        with pytest.raises(ImageFormatError) as failure:
            read()
        assert f"b-{name}" in str(failure.value)
        assert str(failure.value).isprintable()
