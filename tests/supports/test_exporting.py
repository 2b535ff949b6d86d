"""Exports: pictures and arrays hold the members, and read back as image sets."""

import csv
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch

from latlas.base.errors import OutputExistsError, SettingError
from latlas.base.provenance import tensor_hash
from latlas.data.images import ImageSet
from latlas.data.loading import load_images
from latlas.supports.exporting import TABLE, export_folder, export_npz, picture_names
from latlas.supports.sectors import Sectors
from latlas.supports.support_set import SupportSet


def a_set(names: tuple[str, ...] = (), *, channels: int = 3, labels: bool = False) -> SupportSet:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (4, channels, 5, 4), generator=generator, dtype=torch.uint8)
    return SupportSet(
        images=ImageSet("Support Set of faces", pixels, labels=torch.tensor([4, 0, 9, 1]) if labels else None, names=names),
        indices=torch.tensor([17, 3, 250, 8]),
        codes=torch.randn(4, 5, generator=generator),
        sector=torch.tensor([0, 2, 11, -1]),
        sectors=Sectors(variables=(4, 1, 2, 0), threshold=0.3),
        occupancy=torch.arange(16),
        model="a model",
        chosen_from="faces",
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_a_folder_of_pictures_reads_back_with_the_same_pixels(channels: int, tmp_path: Path) -> None:
    support = a_set(channels=channels)
    export_folder(support, tmp_path / "out/pictures")
    again = load_images(tmp_path / "out/pictures")
    names = picture_names(support)
    assert again.names == tuple(sorted(names))
    order = [names.index(name) for name in again.names]
    assert again.storage.equal(support.images.storage[order])
    with (tmp_path / "out/pictures" / TABLE).open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["file"] for row in rows] == list(names)
    assert [(row["name"], int(row["index"]), int(row["sector"])) for row in rows] == [
        ("#17", 17, 0), ("#3", 3, 2), ("#250", 250, 11), ("#8", 8, -1)]  # fmt: skip
    assert [row["sha256"] for row in rows] == [tensor_hash(image) for image in support.images.storage]


def test_pictures_are_named_by_sector_and_name_and_none_takes_anothers() -> None:
    assert picture_names(a_set()) == ("sector-00_17.png", "sector-02_3.png", "sector-11_250.png", "no-sector_8.png")
    awkward = a_set(("../é x.png", "a/b.jpg", "..", "no.png"))
    assert picture_names(awkward) == ("sector-00_é-x.png", "sector-02_a-b.png", "sector-11_image.png", "no-sector_no.png")
    alike = SupportSet(**{**vars(a_set(("a/b.png", "a-b.png", "A-B.jpg", "c.png"))), "sector": torch.tensor([1, 1, 1, 1])})
    assert picture_names(alike) == ("sector-01_a-b.png", "sector-01_a-b-2.png", "sector-01_A-B-3.png", "sector-01_c.png")


def test_an_npz_holds_everything_without_pickles_and_reads_back(tmp_path: Path) -> None:
    support = a_set(("1.png", "2.png", "3.png", "ü.png"), labels=True)
    export_npz(support, tmp_path / "s.npz")
    with np.load(tmp_path / "s.npz", allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    assert set(arrays) == {"images", "codes", "sector", "indices", "names", "hashes", "labels"}
    np.testing.assert_array_equal(arrays["codes"], support.codes.numpy())
    assert arrays["names"].tolist() == ["1.png", "2.png", "3.png", "ü.png"]
    assert arrays["hashes"].tolist() == list(support.hashes)
    again = load_images(tmp_path / "s.npz")
    assert again.content_hash == support.images.content_hash
    assert again.labels is not None
    assert again.labels.tolist() == [4, 0, 9, 1]


def test_nothing_is_overwritten_and_nothing_is_half_written(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match="already holds something"):
        export_folder(a_set(), tmp_path / "mine")
    (tmp_path / "s.npz").write_text("mine")
    with pytest.raises(OutputExistsError, match="already exists"):
        export_npz(a_set(), tmp_path / "s.npz")
    with pytest.raises(SettingError, match=r"to an \.npz file, got .*s\.zip"):
        export_npz(a_set(), tmp_path / "s.zip")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["mine", "notes.txt", "s.npz"]
    assert (tmp_path / "s.npz").read_text() == "mine"


def test_file_names_fit_any_file_system() -> None:
    """Of at most 255 bytes, and different where case, or a letter whole and in parts, are not told apart."""
    long = a_set(tuple(80 * letter + end for letter, end in (("界", "1.png"), ("𝔘", "2.png"), ("é", "3.png"), ("x", "4.png"))))
    alike = ("\uac01.png", "\u1100\u1161\u11a8.png", "STRASSE.png", "straße.png")  # a syllable whole, and in parts
    together = SupportSet(**{**vars(a_set(alike)), "sector": torch.tensor([1, 1, 1, 1])})
    longest = SupportSet(**{**vars(a_set(tuple(f"{'𝔘' * 79}{i}.png" for i in range(4)))), "sector": torch.tensor([1, 1, 1, 1])})
    for support in (long, together, longest):
        names = picture_names(support)
        assert max(len(name.encode()) for name in names) <= 255
        assert len({unicodedata.normalize("NFC", name).casefold() for name in names}) == 4


def test_long_names_are_written_and_read(tmp_path: Path) -> None:
    export_folder(a_set(tuple(f"{'界' * 90}{i}.png" for i in range(4))), tmp_path / "out")
    assert len(load_images(tmp_path / "out")) == 4
