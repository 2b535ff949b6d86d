"""DATA specs: every way to name images, and what is said where none fits."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from latlas.base.errors import ImageFormatError, MissingPathError, SettingError, UnknownNameError
from latlas.data.images import ImageSet
from latlas.data.loading import load_images


@pytest.fixture
def array(tmp_path: Path) -> Path:
    """Ten images, each filled with its own number."""
    values = np.broadcast_to(np.arange(10, dtype=np.uint8)[:, None, None], (10, 3, 4))
    np.savez(tmp_path / "ten.npz", images=values, labels=np.arange(10))
    return tmp_path / "ten.npz"


def numbers(images: ImageSet) -> list[int]:
    return images.storage[:, 0, 0, 0].tolist()


def test_a_built_in_set_is_named_with_its_split_and_train_is_meant_where_none_is(
    mnist_test: ImageSet, mnist_train: ImageSet
) -> None:
    assert load_images("mnist:test").content_hash == mnist_test.content_hash
    assert load_images("mnist[0:50]").content_hash == mnist_train.slice(0, 50).content_hash
    assert load_images("mnist:train[0:50]").content_hash == mnist_train.slice(0, 50).content_hash


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ("", range(10)),
        ("[2:5]", [2, 3, 4]),
        ("[:2]", [0, 1]),
        ("[7:]", [7, 8, 9]),
        ("[-3:]", [7, 8, 9]),
        ("[:-8]", [0, 1]),
        ("[:]", range(10)),
        ("[5:9999999999999999999999]", [5, 6, 7, 8, 9]),
        ("[2:8][1:3]", [3, 4]),
        ("[2:8][1:5][-1:]", [6]),
    ],
)
def test_slices_count_as_python_does(array: Path, part: str, expected: list[int]) -> None:
    images = load_images(f"{array}{part}")
    assert numbers(images) == list(expected)
    assert images.labels is not None
    assert images.labels.tolist() == list(expected)


@pytest.mark.parametrize("part", ["[2:5]", "[-3:]", "[:]", "[2:8][1:3]"])
def test_asking_for_a_set_by_its_name_gives_it_again(array: Path, part: str) -> None:
    images = load_images(f"{array}{part}")
    again = load_images(images.name)
    assert again.content_hash == images.content_hash
    assert again.name == images.name


@pytest.mark.parametrize("part", ["[5:5]", "[5:2]", "[10:]", "[:0]"])
def test_an_empty_slice_is_refused_with_the_size_of_the_set(array: Path, part: str) -> None:
    with pytest.raises(SettingError, match=r"is empty: the set has 10 images"):
        load_images(f"{array}{part}")


@pytest.mark.parametrize("part", ["[-:5]", "[1:-]", "[1:2:3]", "[a:b]", "[3]", "[]"])
def test_what_is_no_slice_is_no_crash(part: str) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'mnist'"):
        load_images(f"mnist{part}")


def test_a_folder_of_pictures_is_named_by_its_path_and_resized_on_request(tmp_path: Path) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    for index, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / f"{index}.png")
    heard: list[int] = []
    images = load_images(tmp_path, progress=lambda task, done, total, note="": heard.append(done))
    np.testing.assert_array_equal(images.storage.permute(0, 2, 3, 1).numpy(), pictures)
    assert heard == [0, 1, 2, 3]
    assert load_images(tmp_path, size=4).image_shape == (3, 4, 4)
    assert load_images(f"{tmp_path}[1:]", size=4).names == ("1.png", "2.png")


def test_paths_may_be_strings_or_paths(array: Path) -> None:
    assert load_images(array).content_hash == load_images(str(array)).content_hash


@pytest.mark.parametrize(("typed", "meant"), [("mnits", "mnist"), ("fashion_mnist", "fashion-mnist"), ("MNIST", "")])
def test_an_unknown_name_is_answered_with_the_nearest_and_all_other_ways(typed: str, meant: str) -> None:
    suggestion = f"Did you mean '{meant}'" if meant else ""
    with pytest.raises(UnknownNameError, match=rf"Unknown data set '{typed}'\. ?{suggestion}.*Or give a folder of pictures"):
        load_images(typed)


def test_an_unknown_split_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"Unknown split of mnist 'tests'. Did you mean 'test'"):
        load_images("mnist:tests[0:5]")


@pytest.mark.parametrize("spec", ["./nowhere", "some/folder", "/nowhere", "~/pictures", "../x[0:5]"])
def test_what_looks_like_a_path_is_reported_as_a_missing_path(
    spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingPathError, match="No folder or file"):
        load_images(spec)


@pytest.mark.parametrize("name", ["nowhere.npy", "nowhere.npz", "nowhere.npz[0:5]"])
def test_a_missing_array_is_a_missing_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(MissingPathError, match=r"No file .*nowhere\.np[yz]"):
        load_images(tmp_path / name)


def test_a_file_that_is_no_array_is_told_what_would_be_accepted(tmp_path: Path) -> None:
    (tmp_path / "cat.png").write_bytes(b"a picture")
    with pytest.raises(
        SettingError, match=r"is a file; images come from a folder of pictures, a \.tar, a \.parquet, an \.npy or an \.npz"
    ):
        load_images(tmp_path / "cat.png")


def test_an_empty_folder_is_told_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ImageFormatError, match="holds no pictures"):
        load_images(tmp_path)
