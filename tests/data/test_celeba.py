"""CelebA from a folder of the original's form: the official split, the published crops, attributes as factors."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from latlas.base.errors import ImageFormatError, MissingPathError, SettingError, UnknownNameError
from latlas.data.celeba import list_celeba
from latlas.data.images import ImageSet
from latlas.data.loading import load_images

SPLIT = "0001200120"  # of pictures 1 to 10
SMILING = "1010110010"


def name(number: int) -> str:
    return f"{number:06d}.jpg"


def picture(number: int) -> np.ndarray:
    """A smooth ramp that says where in the picture a pixel lies: red by column, green by row, blue by number."""
    rows, columns = np.mgrid[0:218, 0:178]
    return np.stack([columns, rows, np.full_like(rows, 20 * number)], axis=-1).astype(np.uint8)


@pytest.fixture
def celeba(tmp_path: Path) -> Path:
    """Ten pictures of 178 x 218 with the two lists, as CelebA's own archive has them."""
    folder = tmp_path / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True)
    for number in range(1, 11):
        Image.fromarray(picture(number)).save(folder / "img_align_celeba" / name(number), quality=100, subsampling=0)
    (folder / "list_eval_partition.txt").write_text("".join(f"{name(i)} {s}\n" for i, s in enumerate(SPLIT, start=1)))
    rows = "".join(f"{name(i)} {'1' if s == '1' else '-1':>2} -1\n" for i, s in enumerate(SMILING, start=1))
    (folder / "list_attr_celeba.txt").write_text(f"10\nSmiling Wearing_Hat \n{rows}")
    return folder


def factors(images: ImageSet) -> dict[str, tuple[str, ...]]:
    assert images.factors is not None
    return dict(images.factors)


@pytest.mark.parametrize(("split", "number"), [("", "0"), (":train", "0"), (":val", "1"), (":test", "2")])
def test_the_official_partition_decides_and_train_is_meant_where_none_is(celeba: Path, split: str, number: str) -> None:
    images = load_images(f"celeba:{celeba}{split}")
    wanted = [i for i, s in enumerate(SPLIT, start=1) if s == number]
    assert images.names == tuple(name(i) for i in wanted)
    assert factors(images) == {
        "Smiling": tuple("yes" if SMILING[i - 1] == "1" else "no" for i in wanted),
        "Wearing_Hat": ("no",) * len(wanted),
    }
    assert images.storage[:, 2].float().mean(dim=(1, 2)).round().tolist() == [20 * i for i in wanted]


@pytest.mark.parametrize(
    ("query", "left", "upper", "side"), [("", 25, 45, 128), ("?crop=128", 25, 45, 128), ("?crop=140", 19, 39, 140)]
)
def test_the_crops_are_the_published_rows_and_columns(celeba: Path, query: str, left: int, upper: int, side: int) -> None:
    images = load_images(f"celeba:{celeba}:val{query}")
    assert images.image_shape == (3, 64, 64)
    # The ramps survive a symmetric filter: each output pixel is its window's middle. Ends see a window cut short.
    middles = (np.arange(64) + 0.5) * side / 64 - 0.5
    inner = slice(2, -2)
    np.testing.assert_allclose(images.storage[0, 0, 32, inner], (left + middles)[inner], atol=1.6)
    np.testing.assert_allclose(images.storage[0, 1, inner, 32], (upper + middles)[inner], atol=1.6)


@pytest.mark.parametrize(("query", "box"), [("", (25, 45, 153, 173)), ("?crop=140", (19, 39, 159, 179))])
@pytest.mark.parametrize("size", [32, 64])
def test_a_picture_is_to_the_pixel_what_pillow_cuts_and_resizes(
    celeba: Path, query: str, box: tuple[int, int, int, int], size: int
) -> None:
    """Of noise, kept without loss, with the numbers that are published: rows 45 to 173 and columns 25 to 153, or 39 and 19."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (218, 178, 3), dtype=np.uint8))
    noise.save(celeba / "img_align_celeba" / name(4), format="PNG")
    found = load_images(f"celeba:{celeba}:val{query}[0:1]", size=size)
    expected = np.asarray(noise.crop(box).resize((size, size), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(found.storage[0].permute(1, 2, 0).numpy(), expected)


def test_reducing_antialiases_as_an_average_over_the_cells_would(celeba: Path) -> None:
    """Stripes two pixels wide fall below what 64 pixels can hold: bilinear with antialias leaves them even grey."""
    stripes = np.zeros((218, 178, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(celeba / "img_align_celeba" / name(4), quality=100, subsampling=0)
    images = load_images(f"celeba:{celeba}:val[0:1]")
    assert images.storage[..., 4:-4].float().std() < 3
    assert abs(float(images.storage.float().mean()) - 127.5) < 3


def test_a_size_is_given_in_the_spec_or_beside_it(celeba: Path) -> None:
    assert load_images(f"celeba:{celeba}?size=32").image_shape == (3, 32, 32)
    assert load_images(f"celeba:{celeba}", size=16).image_shape == (3, 16, 16)
    with pytest.raises(SettingError, match="says size=32, and a size of 16"):
        load_images(f"celeba:{celeba}?size=32", size=16)


@pytest.mark.parametrize("part", ["", "[1:3]", "[-2:]", "[1:4][1:]"])
@pytest.mark.parametrize("query", ["", "?crop=140&size=32"])
def test_asking_for_a_set_by_its_name_gives_it_again(celeba: Path, part: str, query: str) -> None:
    images = load_images(f"celeba:{celeba}:train{query}{part}")
    again = load_images(images.name)
    assert (again.name, again.names, again.content_hash) == (images.name, images.names, images.content_hash)


def test_a_slice_is_the_same_part_of_the_whole_and_reads_nothing_else(celeba: Path) -> None:
    whole = load_images(f"celeba:{celeba}")
    (celeba / "img_align_celeba" / name(1)).write_bytes(b"no picture")
    part = load_images(f"celeba:{celeba}[1:3]")
    assert part.storage.equal(whole.storage[1:3])
    assert part.names == whole.names[1:3]
    assert factors(part) == {key: values[1:3] for key, values in factors(whole).items()}


def test_the_archives_own_folders_and_loose_pictures_are_found(celeba: Path) -> None:
    expected = load_images(f"celeba:{celeba}").content_hash
    for place in ("Img", "Eval", "Anno"):
        (celeba / place).mkdir()
    (celeba / "img_align_celeba").rename(celeba / "Img" / "img_align_celeba")
    (celeba / "list_eval_partition.txt").rename(celeba / "Eval" / "list_eval_partition.txt")
    (celeba / "list_attr_celeba.txt").rename(celeba / "Anno" / "list_attr_celeba.txt")
    assert load_images(f"celeba:{celeba}").content_hash == expected
    for path in (celeba / "Img" / "img_align_celeba").iterdir():
        path.rename(celeba / path.name)
    (celeba / "Img" / "img_align_celeba").rmdir()
    assert load_images(f"celeba:{celeba}").content_hash == expected


def test_progress_tells_how_many_are_read(celeba: Path) -> None:
    heard: list[int] = []
    load_images(f"celeba:{celeba}[:3]", progress=lambda task, done, total, note="": heard.append(done))
    assert heard == [0, 1, 2, 3]


# Mistakes


@pytest.mark.parametrize(
    ("spec", "error", "words"),
    [
        ("celeba", SettingError, "celeba needs the folder that holds it: celeba:FOLDER"),
        ("celeba:", SettingError, "celeba needs the folder"),
        ("celeba:{0}:vel", UnknownNameError, "Unknown split of celeba 'vel'. Did you mean 'val'"),
        ("celeba:/nowhere/x", MissingPathError, "No folder /nowhere/x: celeba:FOLDER names the one with CelebA"),
        ("celeba:/nowhere/x:test", MissingPathError, "No folder /nowhere/x:"),
        ("celeba:{0}?crop=130", SettingError, "published crops are 128 and 140, got 130"),
        ("celeba:{0}?crop=big", SettingError, "crop must be a whole number, got 'big'"),
        ("celeba:{0}?size=0", SettingError, "size must be at least 1, got 0"),
        ("celeba:{0}?corp=140", UnknownNameError, "Unknown setting of celeba 'corp'. Did you mean 'crop'"),
        ("celeba:{0}[9:]", SettingError, r"is empty: the set has 6 images"),
    ],
)
def test_a_spec_that_cannot_be_met_says_why(celeba: Path, spec: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        load_images(spec.format(celeba))


@pytest.mark.parametrize("file", ["list_eval_partition.txt", "list_attr_celeba.txt"])
def test_a_missing_list_is_named(celeba: Path, file: str) -> None:
    (celeba / file).unlink()
    with pytest.raises(MissingPathError, match=rf"No {file} in .*from CelebA's own page"):
        load_images(f"celeba:{celeba}")


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("list_eval_partition.txt", "000001.jpg 7\n", r"line 1: expected a file name and 0, 1 or 2, got '000001.jpg 7'"),
        ("list_eval_partition.txt", "000001.jpg\n", r"line 1: expected a file name and 0, 1 or 2"),
        ("list_eval_partition.txt", "../000001.jpg 0\n", r"'../000001.jpg' is not a plain file name"),
        ("list_eval_partition.txt", "000001.jpg 1\n", r"lists no pictures of the train split"),
        ("list_attr_celeba.txt", "", r"must begin with a line that counts the pictures"),
        ("list_attr_celeba.txt", "10\nSmiling\n000001.jpg 1\n", r"has no line for 5 pictures, the first is 000002.jpg"),
        ("list_attr_celeba.txt", "10\nSmiling\n000001.jpg 1 1\n", r"line 3: expected a file name and 1 numbers, each 1 or -1"),
        ("list_attr_celeba.txt", "10\nSmiling\n000001.jpg 0\n", r"line 3: expected a file name and 1 numbers, each 1 or -1"),
    ],
)
def test_a_list_of_another_form_is_told_where_it_departs(celeba: Path, file: str, text: str, words: str) -> None:
    (celeba / file).write_text(text)
    with pytest.raises(ImageFormatError, match=words):
        list_celeba(f"celeba:{celeba}")


def test_missing_pictures_are_counted_and_the_first_is_named(celeba: Path) -> None:
    for number in (2, 3):
        (celeba / "img_align_celeba" / name(number)).unlink()
    with pytest.raises(MissingPathError, match=r"2 of the 6 pictures asked for are not in .*, the first is 000002.jpg"):
        load_images(f"celeba:{celeba}")


def test_pictures_in_the_wild_are_refused(celeba: Path) -> None:
    Image.new("RGB", (400, 300)).save(celeba / "img_align_celeba" / name(3))
    with pytest.raises(ImageFormatError, match=r"000003.jpg is 400 x 300; CelebA's aligned pictures are 178 x 218"):
        load_images(f"celeba:{celeba}")


@pytest.mark.parametrize("content", [b"", b"no picture", b"\xff\xd8\xff\xe0 half of one"])
def test_a_picture_that_cannot_be_read_is_named(celeba: Path, content: Any) -> None:
    (celeba / "img_align_celeba" / name(2)).write_bytes(content)
    with pytest.raises(ImageFormatError, match=r"000002.jpg cannot be read as a picture"):
        load_images(f"celeba:{celeba}")
