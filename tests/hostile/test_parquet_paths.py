"""A table that somebody else wrote names files of its own folder, and no others of this machine."""

from pathlib import Path

import pytest
from PIL import Image

from latlas.base.errors import ImageFormatError
from latlas.data.loading import load_images

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
