"""What visitors give is read within bounds, and refused in words."""

import io
import struct
import time

import numpy as np
import pytest
import torch
from PIL import Image

from latlas.app.uploads import MOST_BYTES, MOST_PIXELS, read_upload
from latlas.base.errors import ImageFormatError


def _file(picture: Image.Image, format: str = "PNG", **settings: object) -> bytes:  # noqa: A002
    stream = io.BytesIO()
    picture.save(stream, format=format, **settings)
    return stream.getvalue()


def _noise(width: int, height: int, seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, size=(height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def test_a_picture_of_the_models_own_shape_comes_through_to_the_last_bit() -> None:
    picture = _noise(32, 32)
    upload = read_upload(_file(picture), (3, 32, 32))
    expected = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1).float() / 255
    assert torch.equal(upload.image, expected)
    assert upload.remarks == ()


def test_a_picture_is_cut_and_resized_as_pillow_does_it_and_says_so() -> None:
    picture = _noise(60, 40)
    upload = read_upload(_file(picture), (3, 32, 32))
    middle = picture.resize((32, 32), Image.Resampling.BICUBIC, box=(10, 0, 50, 40))
    assert torch.equal((upload.image * 255).round(), torch.from_numpy(np.asarray(middle).copy()).permute(2, 0, 1).float())
    assert "60 x 40 pixels, its middle cut out and resized to 32 x 32." in upload.remarks


def test_colours_become_grey_for_a_grey_model_and_it_is_said() -> None:
    upload = read_upload(_file(_noise(28, 28)), (1, 28, 28))
    assert upload.image.shape == (1, 28, 28)
    assert any("grey" in remark for remark in upload.remarks)


def test_what_is_transparent_is_white_and_not_black() -> None:
    clear = Image.new("RGBA", (28, 28), (0, 0, 0, 0))
    for content in (_file(clear), _file(clear.convert("LA"))):
        upload = read_upload(content, (1, 28, 28))
        assert torch.equal(upload.image, torch.ones(1, 28, 28))
        assert any("transparent" in remark for remark in upload.remarks)


def test_of_an_animation_the_first_frame_is_taken_and_it_is_said() -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue", "green")]
    upload = read_upload(_file(frames[0], "GIF", save_all=True, append_images=frames[1:]), (3, 16, 16))
    assert torch.allclose(upload.image.mean(dim=(1, 2)), torch.tensor([1.0, 0.0, 0.0]), atol=0.01)
    assert any("first frame" in remark for remark in upload.remarks)


def test_a_picture_is_turned_as_its_exif_says() -> None:
    picture = Image.new("RGB", (32, 16), "black")
    picture.paste("white", (0, 0, 16, 16))  # the left half; turned by a quarter clockwise it is the upper one
    exif = Image.Exif()
    exif[0x0112] = 6
    upload = read_upload(_file(picture, "JPEG", exif=exif, quality=95), (1, 32, 16))
    assert upload.image[0, :12].mean() > 0.9
    assert upload.image[0, -12:].mean() < 0.1


def _giant() -> bytes:
    return _file(Image.new("1", (10_000, 10_000)))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"this is a text, whatever the file is called", "no picture that can be read"),
        (b"", "no picture that can be read"),
        (b"%PDF-1.4 and so on", "no picture that can be read"),
        (_file(_noise(64, 64))[:2000], "damaged"),
        (b"\x89PNG\r\n\x1a\n" + b"\x00" * 50, "(no picture|damaged)"),
        (_file(Image.new("RGB", (1, 1))), "1 x 1 pixels: too few"),
        (_giant(), "10000 x 10000 pixels, 100 million; at most 16 million"),
        (b"\x00" * (MOST_BYTES + 1), "at most 10 MB"),
        (_file(Image.fromarray(np.zeros((16, 16), dtype=np.uint16))), "16 or more bits"),
    ],
)
def test_what_cannot_be_used_is_refused_in_words(content: bytes, words: str) -> None:
    with pytest.raises(ImageFormatError, match=words):
        read_upload(content, (3, 32, 32))


def test_a_bomb_that_pillow_itself_refuses_to_open_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # Pillow refuses twice as many
    with pytest.raises(ImageFormatError, match="16 million pixels"):
        read_upload(_file(_noise(64, 64)), (3, 32, 32))


def test_the_largest_picture_that_is_allowed_is_read() -> None:
    side = int(MOST_PIXELS**0.5)
    assert read_upload(_file(Image.new("L", (side, side), 255)), (1, 28, 28)).image.min() == 1.0


def test_a_picture_just_beyond_the_largest_is_refused() -> None:
    side = int(MOST_PIXELS**0.5)
    with pytest.raises(ImageFormatError, match="at most 16 million"):
        read_upload(_file(Image.new("L", (side + 1, side))), (1, 28, 28))


def test_a_jpeg_that_goes_over_its_pixels_for_ever_is_refused_at_once() -> None:
    """Each of its scans is a few bytes, and passes over all of sixteen million pixels (ITU T.81, B.2)."""

    def segment(marker: int, content: bytes) -> bytes:
        return struct.pack(">HH", marker, len(content) + 2) + content

    tables = segment(0xFFDB, b"\0" + bytes([1] * 64)) + segment(0xFFC4, b"\0" + bytes([1] + [0] * 15) + b"\0")
    tables += segment(0xFFC4, b"\x10" + bytes([1] + [0] * 15) + b"\xe0")
    frame = segment(0xFFC2, struct.pack(">BHHB", 8, 4000, 4000, 1) + b"\1\x11\0")
    first = segment(0xFFDA, b"\1\1\0\0\0\0") + bytes(16)
    content = b"\xff\xd8" + tables + frame + first + (segment(0xFFDA, b"\1\1\0\1\x3f\0") + bytes(4)) * 600_000 + b"\xff\xd9"
    assert len(content) <= MOST_BYTES
    started = time.process_time()
    with pytest.raises(ImageFormatError, match="JPEG of more than 500 scans"):
        read_upload(content, (1, 8, 8))
    assert time.process_time() - started < 1.0
