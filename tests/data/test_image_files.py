"""Pictures and arrays of a user: read as they look, or refused by name."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from latlas.base.errors import ImageFormatError, MissingPathError, NonFiniteError, SettingError
from latlas.data.files import load_array, load_folder


def picture(height: int = 6, width: int = 4, *, colour: bool = True, seed: int = 0) -> np.ndarray:
    shape = (height, width, 3) if colour else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(path: Path, array: np.ndarray, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)  # type: ignore[arg-type]
    return path


# Folders


def test_pictures_are_read_as_their_pixels_in_the_order_of_their_names(tmp_path: Path) -> None:
    arrays = {name: picture(seed=seed) for seed, name in enumerate(["b.png", "a.PNG", "sub/c.bmp", "sub/a.tiff", "z.ppm"])}
    for name, array in arrays.items():
        save(tmp_path / name, array)
    (tmp_path / "notes.txt").write_text("no picture")
    images = load_folder(tmp_path)
    assert images.names == ("a.PNG", "b.png", "sub/a.tiff", "sub/c.bmp", "z.ppm")
    assert images.name == str(tmp_path)
    for index, name in enumerate(images.names):
        np.testing.assert_array_equal(images.storage[index].permute(1, 2, 0).numpy(), arrays[name])


def test_grey_pictures_have_one_channel(tmp_path: Path) -> None:
    array = picture(colour=False)
    save(tmp_path / "a.png", array)
    save(tmp_path / "b.pgm", array)
    images = load_folder(tmp_path)
    assert images.image_shape == (1, 6, 4)
    for index in range(2):
        np.testing.assert_array_equal(images.storage[index, 0].numpy(), array)


def test_among_colour_pictures_a_grey_one_gets_three_equal_channels(tmp_path: Path) -> None:
    grey, colour = picture(colour=False), picture(colour=True)
    save(tmp_path / "a.png", grey)
    save(tmp_path / "b.png", colour)
    images = load_folder(tmp_path)
    assert images.image_shape == (3, 6, 4)
    for channel in range(3):
        np.testing.assert_array_equal(images.storage[0, channel].numpy(), grey)
    np.testing.assert_array_equal(images.storage[1].permute(1, 2, 0).numpy(), colour)


def test_black_and_white_and_palette_and_transparent_pictures_are_read_as_they_look(tmp_path: Path) -> None:
    grey = picture(colour=False)
    bits = Image.fromarray(grey).convert("1")
    bits.save(tmp_path / "bits.png")
    images = load_folder(tmp_path)
    np.testing.assert_array_equal(images.storage[0, 0].numpy(), np.asarray(bits) * 255)
    (tmp_path / "bits.png").unlink()
    flat = Image.fromarray(np.full((4, 4, 3), (200, 100, 50), np.uint8))
    flat.quantize(4).save(tmp_path / "palette.png")
    flat.convert("RGBA").save(tmp_path / "transparent.png")
    for image in load_folder(tmp_path).storage:
        assert image.flatten(1).unique(dim=1).flatten().tolist() == [200, 100, 50]


# What a viewer does with a stored picture to show it upright: the EXIF standard's eight orientations.
UPRIGHT = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_pictures_are_turned_as_their_exif_says(tmp_path: Path, orientation: int) -> None:
    stored, exif = picture(), Image.Exif()
    exif[0x0112] = orientation
    save(tmp_path / "a.png", stored, exif=exif)
    np.testing.assert_array_equal(load_folder(tmp_path).storage[0].permute(1, 2, 0).numpy(), UPRIGHT[orientation](stored))


def test_a_photograph_taken_sideways_stands_upright(tmp_path: Path) -> None:
    """JPEG loses some pixels' last digits, and no side of the picture: stored left is shown on top."""
    stored, exif = np.zeros((16, 32, 3), np.uint8), Image.Exif()
    stored[:, :16] = 255
    exif[0x0112] = 6
    save(tmp_path / "a.jpeg", stored, exif=exif, quality=95)
    image = load_folder(tmp_path).tensor()[0]
    assert image.shape == (3, 32, 16)
    assert float(image[:, :16].mean()) > 0.99
    assert float(image[:, 16:].mean()) < 0.01


def test_pictures_of_differing_sizes_are_refused_with_the_remedy(tmp_path: Path) -> None:
    save(tmp_path / "a.png", picture(6, 4))
    save(tmp_path / "b.png", picture(6, 5))
    with pytest.raises(ImageFormatError, match=r"b\.png is 5 x 6 and a\.png is 4 x 6.*\(--resize N\)"):
        load_folder(tmp_path)


@pytest.mark.parametrize("size", [5, 12, 20])
@pytest.mark.parametrize("colour", [True, False])
def test_resizing_is_pillows_of_the_central_square(tmp_path: Path, size: int, colour: bool) -> None:
    wide, tall = picture(12, 20, colour=colour), picture(20, 12, colour=colour, seed=1)
    save(tmp_path / "a.png", wide)
    save(tmp_path / "b.png", tall)
    images = load_folder(tmp_path, size=size)
    assert images.image_shape == (3 if colour else 1, size, size)
    for stored, whole, central in zip(images.storage, (wide, tall), ((4, 0, 16, 12), (0, 4, 12, 16)), strict=True):
        by_hand = np.asarray(Image.fromarray(whole).resize((size, size), Image.Resampling.BICUBIC, box=central))
        np.testing.assert_array_equal(stored.permute(1, 2, 0).numpy().squeeze(), by_hand)


def test_shrinking_averages_and_does_not_alias(tmp_path: Path) -> None:
    """A checkerboard of single pixels has nothing but grey to show at an eighth of its size."""
    board = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    save(tmp_path / "a.png", board)
    small = load_folder(tmp_path, size=8).tensor()
    assert float((small - 0.5).abs().max()) < 0.02


def test_pictures_are_turned_before_they_are_cropped(tmp_path: Path) -> None:
    stored, exif = picture(12, 20), Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / "a.png", stored, exif=exif)
    image = load_folder(tmp_path, size=12).storage[0].permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(image, np.rot90(stored[:, 4:16], -1))


@pytest.mark.parametrize("size", [0, -3])
def test_a_size_below_one_is_refused(tmp_path: Path, size: int) -> None:
    save(tmp_path / "a.png", picture())
    with pytest.raises(SettingError, match=f"between 1 and 16,384, got {size}"):
        load_folder(tmp_path, size=size)


def damaged_chunk(raw: bytes) -> bytes:
    """A PNG whose pixels end early although every checksum is right."""
    start = raw.index(b"IDAT") - 4
    body = zlib.compress(b"\0")
    chunk = struct.pack(">I", len(body)) + b"IDAT" + body + struct.pack(">I", zlib.crc32(b"IDAT" + body))
    return raw[:start] + chunk + raw[raw.index(b"IEND") - 4 :]


@pytest.mark.parametrize(
    "damage",
    [lambda raw: b"", lambda raw: b"text", lambda raw: raw[: len(raw) // 2], lambda raw: raw[:40], damaged_chunk],
    ids=["empty", "text", "half", "header", "short"],
)
def test_a_picture_that_cannot_be_read_is_named(tmp_path: Path, damage: object) -> None:
    save(tmp_path / "good.png", picture(40, 40))
    bad = save(tmp_path / "sub" / "torn.png", picture(40, 40))
    bad.write_bytes(damage(bad.read_bytes()))  # type: ignore[operator]
    with pytest.raises(ImageFormatError, match=r"torn\.png cannot be read as a picture .*Remove or repair it"):
        load_folder(tmp_path)


def test_a_torn_jpeg_is_named(tmp_path: Path) -> None:
    path = save(tmp_path / "torn.jpg", picture(40, 40))
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(ImageFormatError, match=r"torn\.jpg cannot be read"):
        load_folder(tmp_path)


def test_sixteen_bits_are_not_silently_cut_to_eight(tmp_path: Path) -> None:
    save(tmp_path / "deep.png", np.full((4, 4), 40_000, np.uint16))
    with pytest.raises(ImageFormatError, match=r"deep\.png has 16 or more bits a pixel; convert it to 8 bits first"):
        load_folder(tmp_path)


def test_a_missing_folder_and_an_empty_one_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(MissingPathError, match=r"No folder .*nowhere"):
        load_folder(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(ImageFormatError, match=r"holds no pictures \(looked for \.png"):
        load_folder(tmp_path)


def test_reading_tells_how_far_it_is(tmp_path: Path) -> None:
    heard: list[tuple[int, int | None]] = []
    for name in "abc":
        save(tmp_path / f"{name}.png", picture())
    load_folder(tmp_path, progress=lambda task, done, total, note="": heard.append((done, total)))
    assert heard == [(0, 3), (1, 3), (2, 3), (3, 3)]


# Arrays


def save_array(path: Path, array: np.ndarray, labels: np.ndarray | None = None, name: str = "images") -> Path:
    if path.suffix == ".npy":
        np.save(path, array)
    else:
        np.savez_compressed(path, **{name: array}, **({} if labels is None else {"labels": labels}))
    return path


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize(
    ("shape", "order", "expected"),
    [
        ((5, 6, 7), None, (5, 1, 6, 7)),
        ((5, 6, 7, 1), (0, 3, 1, 2), (5, 1, 6, 7)),
        ((5, 6, 7, 3), (0, 3, 1, 2), (5, 3, 6, 7)),
        ((5, 1, 6, 7), (0, 1, 2, 3), (5, 1, 6, 7)),
        ((5, 3, 6, 7), (0, 1, 2, 3), (5, 3, 6, 7)),
        ((5, 3, 6, 3), (0, 1, 2, 3), (5, 3, 6, 3)),  # either could be channels: channels first, as inside
    ],
)
def test_every_layout_comes_out_channels_first(
    tmp_path: Path, suffix: str, shape: tuple[int, ...], order: tuple[int, ...] | None, expected: tuple[int, ...]
) -> None:
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    images = load_array(save_array(tmp_path / f"a{suffix}", array))
    assert images.storage.shape == expected
    np.testing.assert_array_equal(images.storage.numpy(), array[:, None] if order is None else array.transpose(order))


@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f4", "<f8", ">f8"])
def test_floats_of_any_width_and_byte_order_are_read(tmp_path: Path, dtype: str) -> None:
    values = np.random.default_rng(0).random((4, 5, 5)).astype(dtype)
    images = load_array(save_array(tmp_path / "a.npy", values))
    np.testing.assert_array_equal(images.tensor().numpy()[:, 0], values.astype(np.float32))


def test_bools_are_black_and_white(tmp_path: Path) -> None:
    array = np.random.default_rng(0).random((4, 5, 5)) < 0.5
    images = load_array(save_array(tmp_path / "a.npy", array))
    np.testing.assert_array_equal(images.tensor().numpy()[:, 0], array.astype(np.float32))


def test_fortran_order_changes_nothing(tmp_path: Path) -> None:
    array = picture(6, 7)[None]
    images = load_array(save_array(tmp_path / "a.npy", np.asfortranarray(array)))
    np.testing.assert_array_equal(images.storage[0].permute(1, 2, 0).numpy(), array[0])


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64, np.bool_])
def test_labels_of_any_whole_type_are_read(tmp_path: Path, dtype: type) -> None:
    labels = np.array([1, 0, 1, 1]).astype(dtype)
    images = load_array(save_array(tmp_path / "a.npz", np.zeros((4, 2, 2), np.uint8), labels))
    assert images.labels is not None
    assert images.labels.tolist() == [1, 0, 1, 1]
    assert load_array(save_array(tmp_path / "b.npz", np.zeros((4, 2, 2), np.uint8))).labels is None


@pytest.mark.parametrize("labels", [np.array(["a", "b", "c", "d"]), np.array([0.0, 0.5, 1.0, np.nan])])
def test_labels_that_are_no_class_numbers_are_refused(tmp_path: Path, labels: np.ndarray) -> None:
    path = save_array(tmp_path / "a.npz", np.zeros((4, 2, 2), np.uint8), labels)
    with pytest.raises(ImageFormatError, match=r"a\.npz: labels must be whole class numbers, got .*Number the classes first"):
        load_array(path)


@pytest.mark.parametrize("shape", [(3,), (4, 1), (5,)])
def test_labels_that_are_not_one_an_image_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = save_array(tmp_path / "a.npz", np.zeros((4, 2, 2), np.uint8), np.zeros(shape, np.int64))
    with pytest.raises(ImageFormatError, match=r"labels have shape .*, expected \(4,\), one an image"):
        load_array(path)


def test_the_only_array_that_can_be_images_is_taken_whatever_its_name(tmp_path: Path) -> None:
    array = picture(6, 7)[None]
    images = load_array(save_array(tmp_path / "a.npz", array, np.array([3]), name="x_train"))
    np.testing.assert_array_equal(images.storage[0].permute(1, 2, 0).numpy(), array[0])
    assert images.labels is not None
    np.savez(tmp_path / "b.npz", train=array, test=array)
    with pytest.raises(ImageFormatError, match="must hold an array named 'images'; it holds test, train"):
        load_array(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz")
    with pytest.raises(ImageFormatError, match="it holds nothing"):
        load_array(tmp_path / "c.npz")


@pytest.mark.parametrize("shape", [(), (4,), (4, 5), (4, 2, 5, 5), (4, 5, 5, 4), (0, 5, 5), (2, 0, 5), (2, 3, 5, 5, 5)])
def test_shapes_that_are_no_images_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = save_array(tmp_path / "a.npy", np.zeros(shape, np.uint8))
    with pytest.raises(ImageFormatError, match=r"expected images as n x h x w, .*got shape"):
        load_array(path)


@pytest.mark.parametrize("dtype", [np.int64, np.int8, np.uint16, np.complex64])
def test_types_that_are_no_pixels_are_refused(tmp_path: Path, dtype: object) -> None:
    path = save_array(tmp_path / "a.npy", np.zeros((2, 3, 3), dtype))  # type: ignore[call-overload]
    with pytest.raises(ImageFormatError, match=r"expected uint8, bool or float values.*Convert to uint8 \(0 to 255\) first"):
        load_array(path)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_nothing_is_ever_unpickled(tmp_path: Path, suffix: str) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return (Path.touch, (tmp_path / "sprung",))

    array = np.empty((1, 1, 1), object)
    array[0, 0, 0] = Trap()
    path = save_array(tmp_path / f"a{suffix}", array)
    with pytest.raises(ImageFormatError, match=r"holds Python objects or text, not numbers; save it as uint8") as raised:
        load_array(path)
    assert "allow_pickle" not in str(raised.value)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("array", [np.array(["a", "b"]), np.full((2, 3, 3), b"abc")], ids=["one row", "as images"])
def test_text_is_told_from_numbers_in_our_words(tmp_path: Path, array: np.ndarray) -> None:
    with pytest.raises(ImageFormatError, match=r"a\.npy holds Python objects or text, not numbers; save it as uint8"):
        load_array(save_array(tmp_path / "a.npy", array))


def test_a_file_that_is_no_array_is_not_answered_with_the_advice_to_unpickle(tmp_path: Path) -> None:
    path = tmp_path / "notes.npy"
    path.write_text("these are notes")
    with pytest.raises(ImageFormatError, match=r"is not a readable array file: .*neither \.npy nor \.npz") as raised:
        load_array(path)
    assert "allow_pickle" not in str(raised.value)


def test_nan_and_numbers_out_of_range_are_refused(tmp_path: Path) -> None:
    values = np.full((4, 3, 3), 0.5)
    values[2, 1, 1] = np.nan
    with pytest.raises(NonFiniteError, match="image 2 holds NaN"):
        load_array(save_array(tmp_path / "a.npy", values))
    values[2, 1, 1] = 200.0
    with pytest.raises(ImageFormatError, match=r"must lie in \[0, 1\], got \[0.5, 200\]"):
        load_array(save_array(tmp_path / "a.npy", values))


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_an_array_file_cut_anywhere_is_refused(tmp_path: Path, suffix: str) -> None:
    path = save_array(tmp_path / f"a{suffix}", picture(20, 20)[None])
    raw = path.read_bytes()
    for length in range(0, len(raw), max(1, len(raw) // 40)):
        path.write_bytes(raw[:length])
        with pytest.raises(ImageFormatError, match=r"is not a readable array file|is damaged"):
            load_array(path)


def test_an_npz_with_a_flipped_byte_is_refused(tmp_path: Path) -> None:
    """Whatever byte of the compressed pixels is flipped: the zip's own checksum must not pass as an image."""
    path = save_array(tmp_path / "a.npz", picture(20, 20)[None])
    raw = path.read_bytes()
    for position in range(200, 1000, 37):
        broken = bytearray(raw)
        broken[position] ^= 0x40
        path.write_bytes(broken)
        with pytest.raises(ImageFormatError, match=r"is not a readable array file|is damaged"):
            load_array(path)


def test_a_missing_array_is_a_missing_path(tmp_path: Path) -> None:
    with pytest.raises(MissingPathError, match=r"No file .*nowhere.npy"):
        load_array(tmp_path / "nowhere.npy")
