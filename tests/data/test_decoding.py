"""One picture from its bytes: as Pillow itself reads it, whatever the short way takes; or refused with the reason."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageOps

from latlas.data.decoding import UnreadableError, picture_shape, read_picture


def noise(height: int = 24, width: int = 32, channels: int = 3, seed: int = 0) -> np.ndarray:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encoded(picture: Image.Image | np.ndarray, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(stream, kind, **options)
    return stream.getvalue()


def by_pillow(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as opened:
        turned = ImageOps.exif_transpose(opened)
        array = np.asarray(turned.convert("L" if turned.mode in ("1", "L") else "RGB"))
    return array.reshape(*array.shape[:2], -1).transpose(2, 0, 1)


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def with_two_frames() -> bytes:
    """A JPEG of the kind that cameras write for two views; Pillow calls it MPO."""
    return encoded(noise(), "MPO", save_all=True, append_images=[Image.fromarray(noise(seed=1))])


JPEGS = {
    "plain": lambda: encoded(noise(), "JPEG"),
    "grey": lambda: encoded(noise(channels=1), "JPEG"),
    "progressive": lambda: encoded(noise(), "JPEG", progressive=True),
    "optimised": lambda: encoded(noise(), "JPEG", optimize=True),
    "unsubsampled": lambda: encoded(noise(), "JPEG", subsampling=0, quality=100),
    "restarts": lambda: encoded(noise(), "JPEG", restart_marker_blocks=1),
    "as RGB": lambda: encoded(noise(), "JPEG", keep_rgb=True),
    "commented": lambda: encoded(noise(), "JPEG", comment=b"hello"),
    "profile": lambda: encoded(noise(), "JPEG", icc_profile=bytes(range(256)) * 300),
    "four inks": lambda: encoded(Image.fromarray(noise()).convert("CMYK"), "JPEG"),
    "upright": lambda: encoded(noise(), "JPEG", exif=turned(1)),
    "lying": lambda: encoded(noise(), "JPEG", exif=turned(6)),
    "mirrored": lambda: encoded(noise(), "JPEG", exif=turned(2)),
    "two views": with_two_frames,
    "odd size": lambda: encoded(noise(17, 5), "JPEG"),
    "followed": lambda: encoded(noise(), "JPEG") + b"more bytes than the picture has",
}


@pytest.mark.parametrize("kind", JPEGS)
def test_every_jpeg_is_read_to_the_pixel_as_pillow_opens_it(kind: str) -> None:
    data = JPEGS[kind]()
    wanted = by_pillow(data)
    np.testing.assert_array_equal(read_picture(data), wanted)
    np.testing.assert_array_equal(read_picture(memoryview(data)), wanted)
    assert picture_shape(data) == wanted.shape


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "TIFF", "PPM", "WEBP"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_format_is_read_as_pillow_opens_it(kind: str, channels: int) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(noise(channels=channels), kind, **options)
    np.testing.assert_array_equal(read_picture(data), by_pillow(data))
    assert picture_shape(data) == by_pillow(data).shape


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
@pytest.mark.parametrize("kind", ["plain", "grey", "lying"])
def test_asked_for_channels_are_pillows_conversion(kind: str, channels: int, mode: str) -> None:
    data = JPEGS[kind]()
    with Image.open(io.BytesIO(data)) as opened:
        wanted = (
            np.asarray(ImageOps.exif_transpose(opened).convert(mode)).reshape(*opened.size[::-1], -1)
            if kind != "lying"
            else None
        )
        if wanted is None:
            upright = ImageOps.exif_transpose(opened).convert(mode)
            wanted = np.asarray(upright).reshape(*upright.size[::-1], -1)
    np.testing.assert_array_equal(read_picture(data, channels=channels), wanted.transpose(2, 0, 1))


@pytest.mark.parametrize("side", [8, 24, 40])
def test_resizing_is_pillows_bicubic_of_the_central_square(side: int) -> None:
    data = encoded(noise(24, 32), "JPEG")
    whole = Image.open(io.BytesIO(data)).convert("RGB")
    wanted = np.asarray(whole.resize((side, side), Image.Resampling.BICUBIC, box=(4, 0, 28, 24)))
    np.testing.assert_array_equal(read_picture(data, side=side), wanted.transpose(2, 0, 1))


# Transparency over white, by the definition of compositing: alpha * colour + (1 - alpha) * 255.


def test_transparency_is_laid_over_white() -> None:
    rgba = noise(channels=4)
    alpha = rgba[..., 3:].astype(float) / 255
    wanted = (alpha * rgba[..., :3] + (1 - alpha) * 255).transpose(2, 0, 1)
    found = read_picture(encoded(Image.fromarray(rgba, "RGBA"), "PNG"))
    assert np.abs(found - wanted).max() <= 1.0


def test_grey_with_transparency_stays_grey_and_is_laid_over_white() -> None:
    both = noise(channels=2)
    alpha = both[..., 1].astype(float) / 255
    found = read_picture(encoded(Image.fromarray(both, "LA"), "PNG"))
    assert found.shape == (1, 24, 32)
    assert np.abs(found[0] - (alpha * both[..., 0] + (1 - alpha) * 255)).max() <= 1.0


def test_a_palettes_transparent_colour_is_white() -> None:
    picture = Image.new("P", (4, 4), 1)
    picture.putpalette([0, 0, 0, 200, 100, 50])
    picture.putpixel((0, 0), 0)
    for kind in ("PNG", "GIF"):
        found = read_picture(encoded(picture, kind, transparency=0))
        assert found[:, 0, 0].tolist() == [255, 255, 255]
        assert found[:, 3, 3].tolist() == [200, 100, 50]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animated_picture_the_first_frame_counts(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "lime")]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **({"lossless": True} if kind == "WEBP" else {}))
    assert getattr(Image.open(io.BytesIO(data)), "n_frames", 1) == 3
    assert read_picture(data)[:, 4, 4].tolist() == [255, 0, 0]


# What is refused, and why


@pytest.mark.parametrize("kind", ["I;16", "I", "F"])
def test_more_than_8_bits_are_refused(kind: str) -> None:
    data = encoded(Image.new(kind, (4, 4)), "TIFF")
    for read in (read_picture, picture_shape):
        with pytest.raises(UnreadableError, match="16 or more bits a pixel; convert it to 8 bits first"):
            read(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
def test_a_cut_off_picture_is_refused_wherever_it_was_cut(kind: str) -> None:
    data = encoded(noise(), kind)
    for kept in (1, 10, len(data) // 2, len(data) * 9 // 10):
        with pytest.raises(UnreadableError, match="cannot be read as a picture") as caught:
            read_picture(data[:kept])
        assert "\n" not in str(caught.value)
        assert "BytesIO" not in str(caught.value)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"])
def test_flipped_bytes_are_read_or_refused_and_never_another_error(kind: str) -> None:
    data, rng = encoded(noise(16, 16), kind), np.random.default_rng(0)
    for _ in range(150):
        damaged = bytearray(data)
        for place in rng.integers(0, len(data), 3):
            damaged[place] = int(rng.integers(0, 256))
        try:
            found = read_picture(bytes(damaged), channels=3, side=8)
        except UnreadableError:
            continue
        assert found.shape == (3, 8, 8)


def test_a_damaged_jpeg_gives_what_pillow_gives_or_is_refused_as_pillow_refuses() -> None:
    data, rng = encoded(noise(16, 16), "JPEG"), np.random.default_rng(1)
    read = 0
    for _ in range(200):
        damaged = bytearray(data)
        damaged[int(rng.integers(0, len(data)))] = int(rng.integers(0, 256))
        try:
            wanted = by_pillow(bytes(damaged))
        except Exception:
            with pytest.raises(UnreadableError):
                read_picture(bytes(damaged))
        else:
            np.testing.assert_array_equal(read_picture(bytes(damaged)), wanted)
            read += 1
    assert 20 < read < 200


@pytest.mark.parametrize("data", [b"", b"\xff\xd8", b"\xff\xd8\xff\xda\x00\x08", b"GIF89a", b"no picture", bytes(1000)])
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    with pytest.raises(UnreadableError, match="cannot be read as a picture"):
        read_picture(data)


def test_postscript_is_never_run_whatever_the_file_is_called() -> None:
    with pytest.raises(UnreadableError, match="none of the formats"):
        read_picture(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n")


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_bomb_is_refused_before_it_takes_memory(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(noise(24, 32), kind)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 24 * 32)
    assert read_picture(data).shape == (3, 24, 32)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 24 * 32 - 1)  # between once and twice Pillow only warns
    with pytest.raises(UnreadableError, match="more than 767 pixels"):
        read_picture(data)


def test_a_jpeg_that_says_it_is_huge_is_refused() -> None:
    data = bytearray(encoded(noise(), "JPEG"))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 60_000, 60_000)
    with pytest.raises(UnreadableError, match="pixels"):
        read_picture(bytes(data))
