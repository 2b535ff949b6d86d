"""A table or data set that somebody else made names files of its own folders, and no others of this machine."""

import os
from pathlib import Path

import pytest
from PIL import Image

from latlas.base.errors import ImageFormatError
from latlas.data.loading import load_images

datasets = pytest.importorskip("datasets")
huggingface_hub = pytest.importorskip("huggingface_hub")
pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def picture(path: Path, grey: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8), grey).save(path)
    return path


def table(path: Path, *names: str) -> Path:
    cells = pa.array(
        [{"bytes": None, "path": name} for name in names], pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.table({"image": cells}), path)
    return path


def test_a_cell_may_name_a_file_beside_its_table(tmp_path: Path) -> None:
    picture(tmp_path / "set" / "pictures" / "a.png", 51)
    images = load_images(table(tmp_path / "set" / "t.parquet", "pictures/a.png"))
    assert images.storage.unique().tolist() == [51]


@pytest.mark.parametrize("way", ["up", "absolute", "link"])
def test_a_cell_that_leads_out_of_the_folder_is_refused(way: str, tmp_path: Path) -> None:
    secret = picture(tmp_path / "home" / "secret.png", 200)
    (tmp_path / "set").mkdir()
    if way == "link":
        (tmp_path / "set" / "link.png").symlink_to(secret)
    name = {"up": "../home/secret.png", "absolute": str(secret), "link": "link.png"}[way]
    with pytest.raises(ImageFormatError, match="outside"):
        load_images(table(tmp_path / "set" / "t.parquet", name))


# Data sets of Hugging Face, whose cells have whole paths


def saved_set(place: Path, *names: str) -> Path:
    """A data set on disk whose cells name files, as whoever made it chose."""
    # Not as pictures: of those `save_to_disk` takes the bytes, and would need the files.
    features = datasets.Features({"image": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}})
    cells = [{"bytes": None, "path": name} for name in names]
    datasets.Dataset.from_dict({"image": cells}, features=features).save_to_disk(str(place))
    return place


def test_a_cell_of_a_saved_set_may_name_a_file_in_its_folder(tmp_path: Path) -> None:
    inside = picture(tmp_path / "set" / "pictures" / "a.png", 51)
    saved_set(tmp_path / "set", str(inside), "pictures/a.png")
    assert load_images(f"hub:{tmp_path / 'set'}").storage.unique().tolist() == [51]


@pytest.mark.parametrize("way", ["up", "absolute", "link", "through the folder", "pipe", "null"])
def test_a_cell_of_a_saved_set_that_leads_out_of_its_folder_is_refused(way: str, tmp_path: Path) -> None:
    secret = picture(tmp_path / "home" / "secret.png", 200)
    names = {
        "up": "../home/secret.png",
        "absolute": str(secret),
        "link": "link.png",
        "through the folder": f"{tmp_path}/set/../home/secret.png",
        "pipe": "pipe.png",
        "null": "a\0.png",
    }
    place = saved_set(tmp_path / "set", names[way])
    (place / "link.png").symlink_to(secret)
    os.mkfifo(place / "pipe.png")
    with pytest.raises(ImageFormatError, match={"pipe": "is no file", "null": "null"}.get(way, "outside")) as failure:
        load_images(f"hub:{place}")
    assert str(failure.value).isprintable()


def test_a_folder_of_pictures_is_a_set_whose_cells_have_whole_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    for number in range(2):
        picture(tmp_path / "set" / "train" / f"{number}.png", number)
    assert load_images(f"hub:{tmp_path / 'set'}").storage[:, 0, 0, 0].tolist() == [0, 1]


def fetched(monkeypatch: pytest.MonkeyPatch, place: Path, *names: str) -> None:
    """Have `datasets` answer with a set of the Hub whose cells are these, and the caches lie in a folder."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(place / "hub"))
    monkeypatch.setattr(datasets.config, "DOWNLOADED_DATASETS_PATH", place / "downloads")
    rows = datasets.load_from_disk(str(saved_set(place / "rows", *names)))
    monkeypatch.setattr(datasets, "load_dataset", lambda *_: rows)


@pytest.mark.parametrize("cache", ["hub/datasets--owner--name/snapshots/1", "downloads/extracted/1"])
def test_a_set_of_the_hub_may_name_what_was_fetched_with_it(
    cache: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = picture(tmp_path / cache / "a.png", 51)
    fetched(monkeypatch, tmp_path, str(inside))
    assert load_images("hub:owner/name").storage.unique().tolist() == [51]


@pytest.mark.parametrize("way", ["absolute", "up", "of another set"])
def test_a_set_of_the_hub_may_name_nothing_else(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = picture(tmp_path / "home" / "secret.png", 200)
    other = picture(tmp_path / "hub" / "datasets--owner--private" / "a.png", 201)
    monkeypatch.chdir(secret.parent)
    names = {"absolute": str(secret), "up": "../../home/secret.png", "of another set": str(other)}
    fetched(monkeypatch, tmp_path, names[way])
    with pytest.raises(ImageFormatError, match="outside"):
        load_images("hub:owner/name")


def test_a_path_that_is_no_text_is_no_path(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", 51)
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.binary())])
    parquet.write_table(pa.table({"image": pa.array([{"bytes": None, "path": b"a.png"}], kind)}), tmp_path / "t.parquet")
    with pytest.raises(ImageFormatError, match="the cell is empty"):
        load_images(tmp_path / "t.parquet")
