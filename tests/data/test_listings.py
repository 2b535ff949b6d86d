"""What is in a folder, a tar, a Parquet file or a Hub data set; and what is none of them, refused in one line."""

import io
import os
import sys
import tarfile
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from latlas.base.errors import (
    DataUnavailableError,
    ImageFormatError,
    LatlasError,
    MissingExtraError,
    MissingPathError,
    SettingError,
    UnknownNameError,
)
from latlas.data.listings import Listing, PackedNames, list_folder, spread
from latlas.data.loading import load_images, open_images
from latlas.data.parquet_files import list_parquet
from latlas.data.picture_files import PictureFiles
from latlas.data.shard_paths import expand_braces, shard_paths
from latlas.data.tar_shards import list_tars


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def png(value: int = 0, side: int = 4) -> bytes:
    stream = io.BytesIO()
    Image.new("L", (side, side), value).save(stream, "PNG")
    return stream.getvalue()


def tar(path: Path, members: dict[str, bytes], mode: str = "w", **options: object) -> Path:
    with tarfile.open(path, mode, **options) as shard:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            shard.addfile(member, io.BytesIO(data))
    return path


def listing_of(spec: str | Path) -> Listing:
    source = open_images(spec)
    assert isinstance(source, PictureFiles)
    return source.listing


def names_of(listing: Listing) -> list[str]:
    return [listing.name_of(index) for index in range(len(listing))]


# Names


@pytest.mark.parametrize("names", [[], ["a"], ["a", "", "long " * 99, "ü", "日本", "\udcff broken"]])
def test_packed_names_are_the_names(names: list[str]) -> None:
    packed = PackedNames(iter(names))
    assert [packed[index] for index in range(len(packed))] == names
    twice = PackedNames.joined([packed, PackedNames(()), packed])
    assert [twice[index] for index in range(len(twice))] == names * 2


def test_a_million_names_take_their_letters_and_eight_bytes_each() -> None:
    packed = PackedNames(f"{number:09d}.jpg" for number in range(100_000))
    assert len(packed.letters) + packed.ends.nbytes == 100_000 * (13 + 8)


def test_a_spread_covers_its_range() -> None:
    for length in (1, 7, 32, 33, 1000):
        some = spread(range(5, 5 + length), 32)
        assert some[0] == 5
        assert min(length, 32) <= len(some) < 64
        assert some[-1] >= 5 + length - 2 * max(1, length // 32)


# Folders


def test_a_folder_is_listed_in_the_order_of_its_paths_parts(tmp_path: Path) -> None:
    names = ["b/a.png", "a.png", "a-b/x.png", "a/z.png", "a/b/c.JPG", "B.png", "a b/y.webp", "ä.png"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(png())
    for other in ("notes.txt", ".png", "a/readme", "c.png.txt"):
        (tmp_path / other).write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    found = names_of(list_folder(tmp_path))
    assert found == [str(path.relative_to(tmp_path)) for path in sorted(tmp_path / name for name in names)]


@pytest.mark.skipif(os.name != "posix", reason="links need rights elsewhere")
def test_links_to_files_are_followed_and_links_to_folders_are_not(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set/a.png").write_bytes(png())
    (tmp_path / "set/b.png").symlink_to(tmp_path / "set/a.png")
    (tmp_path / "set/round").symlink_to(tmp_path / "set")
    (tmp_path / "set/dead.png").symlink_to(tmp_path / "nothing")
    assert names_of(list_folder(tmp_path / "set")) == ["a.png", "b.png"]


def test_a_folder_of_shards_says_how_to_name_them(tmp_path: Path) -> None:
    tar(tmp_path / "x.tar", {"a.png": png()})
    with pytest.raises(ImageFormatError, match=r"holds no pictures.*Name its shards: '.*/\*\.tar'"):
        open_images(tmp_path)


# Patterns


def test_braces_stand_for_ranges_and_lists() -> None:
    assert expand_braces("x") == ["x"]
    assert expand_braces("x-{008..011}.tar") == ["x-008.tar", "x-009.tar", "x-010.tar", "x-011.tar"]
    assert expand_braces("{a,b}-{0..1}") == ["a-0", "a-1", "b-0", "b-1"]


@pytest.mark.parametrize("pattern", ["{}", "{a}", "{5..2}", "{0..99999999}", "{a..b}", "{0..999}{0..999}{0..9}"])
def test_braces_that_mean_nothing_are_refused(pattern: str) -> None:
    with pytest.raises(SettingError):
        expand_braces(pattern)


def test_patterns_name_files_in_order_and_none_twice(tmp_path: Path) -> None:
    for name in ("x-2.tar", "x-10.tar", "x-1.tar", "{odd}.tar"):
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in shard_paths(f"{tmp_path}/x-*.tar")] == ["x-1.tar", "x-10.tar", "x-2.tar"]
    assert [path.name for path in shard_paths(f"{tmp_path}/x-{{1..2}}.tar")] == ["x-1.tar", "x-2.tar"]
    assert [path.name for path in shard_paths(f"{tmp_path}/{{odd}}.tar")] == ["{odd}.tar"]
    with pytest.raises(MissingPathError, match=r"No file .*x-3\.tar"):
        shard_paths(f"{tmp_path}/x-{{1..3}}.tar")
    with pytest.raises(MissingPathError, match=r"fits the pattern"):
        shard_paths(f"{tmp_path}/y-*.tar")
    with pytest.raises(SettingError, match=r"x-1\.tar twice"):
        shard_paths(f"{tmp_path}/x-{{1,1}}.tar")


# Tar


def test_a_sample_is_what_shares_a_key(tmp_path: Path) -> None:
    members = {
        "train/0.1.json": b"{}",  # the key is train/0: what follows the first dot is the ending
        "train/0.jpg": png(1),
        "train/0.seg.png": png(9),
        "train/0.png": png(8),
        "train/0.cls": b"4\n",
        "test/0.PNG": png(2),
        "test/0.cls": b" 5",
        "train/1.cls": b"7",  # a sample without a picture
    }
    listing = listing_of(tar(tmp_path / "x.tar", members))
    assert names_of(listing) == ["x.tar/train/0.jpg", "x.tar/test/0.PNG"]
    assert [listing.read(index) for index in range(2)] == [png(1), png(2)]
    assert listing.labels is not None
    assert listing.labels.tolist() == [4, 5]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_form_of_tar_and_long_names_are_read(tmp_path: Path, form: int) -> None:
    members = {
        f"{'d' * 90}/{number:04d}{'' if form == tarfile.USTAR_FORMAT else 'e' * 150}.png": png(number) for number in range(5)
    }
    listing = listing_of(tar(tmp_path / "x.tar", members, format=form))
    assert [listing.read(index) for index in (4, 0, 2)] == [png(4), png(0), png(2)]
    assert names_of(listing) == [f"x.tar/{name}" for name in members]


def test_labels_exist_where_every_picture_has_one(tmp_path: Path) -> None:
    tar(tmp_path / "x-0.tar", {"a.png": png(), "a.cls": b"1"})
    tar(tmp_path / "x-1.tar", {"b.png": png()})
    assert listing_of(tmp_path / "x-0.tar").labels is not None
    assert listing_of(f"{tmp_path}/x-{{0,1}}.tar").labels is None


def test_shards_in_the_middle_and_empty_ones_are_found(tmp_path: Path) -> None:
    counts = [3, 0, 1, 4]
    for number, count in enumerate(counts):
        tar(tmp_path / f"x-{number}.tar", {f"{number}-{index}.png": png(10 * number + index) for index in range(count)})
    listing = list_tars("x", shard_paths(f"{tmp_path}/x-*.tar"))
    wanted = [(number, index) for number, count in enumerate(counts) for index in range(count)]
    assert names_of(listing) == [f"x-{number}.tar/{number}-{index}.png" for number, index in wanted]
    assert [listing.read(place) for place in range(8)] == [png(10 * number + index) for number, index in wanted]


def damaged_tars(place: Path) -> dict[str, tuple[Path, str]]:
    whole = tar(place / "whole.tar", {f"{number}.png": png(number) * 30 for number in range(9)}).read_bytes()
    (place / "cut.tar").write_bytes(whole[: 512 + 1000])
    (place / "text.tar").write_bytes(b"no tar at all" * 99)
    (place / "empty.tar").write_bytes(b"")
    with tarfile.open(place / "whole.tar") as opened:
        last, end = opened.getmembers()[-1], opened.offset
    (place / "header.tar").write_bytes(whole[: last.offset] + b"\xaa" * 40 + whole[last.offset + 40 :])
    (place / "cut-header.tar").write_bytes(whole[: last.offset + 100])
    (place / "cut-between.tar").write_bytes(whole[:end])
    (place / "two.tar").write_bytes(whole + whole)
    return {
        "damaged header": (
            place / "header.tar",
            rf"header\.tar cannot be read .*the header at byte {last.offset:,} is damaged",
        ),
        "cut off in a header": (place / "cut-header.tar", r"cannot be read as a tar file .*cut off"),
        "cut off between members": (place / "cut-between.tar", r"cannot be read as a tar file .*cut off"),
        "two in one file": (place / "two.tar", r"cannot be read as a tar file .*something stands behind its end"),
        "cut off": (place / "cut.tar", r"cut\.tar cannot be read as a tar file .*ends within"),
        "text": (place / "text.tar", r"text\.tar cannot be read as a tar file"),
        "nothing": (place / "empty.tar", r"empty\.tar cannot be read as a tar file"),
        "compressed": (tar(place / "gz.tar", {"a.png": png()}, "w:gz"), r"cannot be read.*Unpack compressed ones first"),
        "no pictures": (tar(place / "words.tar", {"a.txt": b"a"}), "holds no pictures"),
        "class": (
            tar(place / "class.tar", {"a.png": png(), "a.cls": b"cat"}),
            r"a\.cls must hold a whole class number, got b'cat'",
        ),
        "large class": (
            tar(place / "large.tar", {"a.png": png(), "a.cls": b"9" * 30}),
            r"a\.cls must hold a whole class number",
        ),
    }


DAMAGES = ("cut off", "cut off in a header", "cut off between members", "damaged header", "two in one file")


@pytest.mark.parametrize("kind", [*DAMAGES, "text", "nothing", "compressed", "no pictures", "class", "large class"])
def test_damaged_tars_stop_whatever_the_policy(tmp_path: Path, kind: str) -> None:
    path, match = damaged_tars(tmp_path)[kind]
    for policy in ("stop", "skip"):
        with pytest.raises(ImageFormatError, match=match) as caught:
            open_images(path, policy=policy)
        assert "\n" not in str(caught.value)


def test_compressed_tars_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="Unpack it first"):
        open_images(tar(tmp_path / "x.tar.gz", {"a.png": png()}, "w:gz"))


# Parquet


def test_the_columns_can_be_named(tmp_path: Path) -> None:
    table = pa.table({"left": [png(1)], "right": [png(2)], "label": [3], "kind": [4], "word": ["cat"]})
    pq.write_table(table, tmp_path / "x.parquet")
    path = tmp_path / "x.parquet"
    with pytest.raises(SettingError, match=r"several columns of bytes, left, right.*\?image=NAME"):
        open_images(path)
    source = open_images(f"{path}?image=right&label=kind")
    assert load_images(source.name).storage.unique().tolist() == [2]
    labels = load_images(source.name).labels
    assert labels is not None
    assert labels.tolist() == [4]
    with pytest.raises(UnknownNameError, match="'rigth'"):
        open_images(f"{path}?image=rigth")
    with pytest.raises(ImageFormatError, match="'word' holds string, and pictures are bytes"):
        open_images(f"{path}?image=word")
    with pytest.raises(ImageFormatError, match="'word' holds string, and labels are whole numbers"):
        open_images(f"{path}?image=left&label=word")


def test_rows_are_numbered_within_their_file_and_empty_cells_are_bad_pictures(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [png(0), png(1), png(2)]}), tmp_path / "x-0.parquet", row_group_size=2)
    pq.write_table(pa.table({"image": pa.array([None], pa.binary())}), tmp_path / "x-1.parquet")
    pq.write_table(pa.table({"image": [png(4), png(5)], "more": [1, 2]}), tmp_path / "x-2.parquet", row_group_size=1)
    images = load_images(f"{tmp_path}/x-*.parquet", policy="skip")
    assert images.names == ("x-0.parquet#0", "x-0.parquet#1", "x-0.parquet#2", "x-2.parquet#0", "x-2.parquet#1")
    assert images.storage[:, 0, 0, 0].tolist() == [0, 1, 2, 4, 5]
    assert [(image.index, image.name, image.reason) for image in images.skipped] == [
        (3, "x-1.parquet#0", "cannot be read (the cell is empty)")
    ]


def test_cells_are_bytes_that_compare_as_bytes(tmp_path: Path) -> None:
    """Arrow's views are of signed bytes: no JPEG would be known by its first two, and each would go the long way."""
    pq.write_table(pa.table({"image": [b"\xff\xd8 and so on"]}), tmp_path / "x.parquet")
    listing = list_parquet("x", [tmp_path / "x.parquet"])
    assert listing.read(0)[:2] == b"\xff\xd8"


def test_a_pair_without_bytes_is_read_from_its_path(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(7))
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    rows = pa.array([{"bytes": None, "path": str(tmp_path / "a.png")}, {"bytes": png(8), "path": None}], kind)
    pq.write_table(pa.table({"image": rows}), tmp_path / "x.parquet")
    assert load_images(tmp_path / "x.parquet").storage[:, 0, 0, 0].tolist() == [7, 8]


@pytest.mark.parametrize(
    ("table", "match"),
    [
        (None, "cannot be read as a Parquet file"),
        ({"word": ["a"]}, r"no column of pictures \(bytes\); it has word"),
        ({"image": pa.array([], pa.binary())}, "holds no rows"),
    ],
)
def test_what_is_no_table_of_pictures_is_refused(tmp_path: Path, table: dict[str, object] | None, match: str) -> None:
    path = tmp_path / "x.parquet"
    if table is None:
        path.write_bytes(b"PAR1 and no more")
    else:
        pq.write_table(pa.table(table), path)
    with pytest.raises(ImageFormatError, match=match) as caught:
        open_images(path)
    assert "\n" not in str(caught.value)


def test_files_without_the_first_ones_column_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [png()]}), tmp_path / "x-0.parquet")
    pq.write_table(pa.table({"photo": [png()]}), tmp_path / "x-1.parquet")
    with pytest.raises(ImageFormatError, match=r"x-1\.parquet has no column 'image' of pictures"):
        open_images(f"{tmp_path}/x-*.parquet")


def test_of_a_row_group_of_any_size_a_few_cells_are_in_memory_and_every_order_is_read(tmp_path: Path) -> None:
    cells = [np.random.default_rng(number).bytes(10_000) for number in range(2000)]
    pq.write_table(pa.table({"image": cells}), tmp_path / "one.parquet", use_dictionary=False, write_batch_size=64)
    assert pq.ParquetFile(tmp_path / "one.parquet").num_row_groups == 1
    listing = list_parquet("one.parquet", [tmp_path / "one.parquet"])
    before, most = pa.total_allocated_bytes(), 0
    for index in [*range(2000), 5, 4, 1999, 63, 64, 0]:
        assert bytes(listing.read(index)) == cells[index]
        most = max(most, pa.total_allocated_bytes() - before)
    assert most < 5_000_000, "of 20,000,000 bytes"


def test_of_a_damaged_row_group_what_stands_before_the_damage_is_read(tmp_path: Path) -> None:
    cells = [np.random.default_rng(number).integers(0, 4, 20_000, dtype=np.uint8).tobytes() for number in range(400)]
    path = tmp_path / "x.parquet"
    options = {"use_dictionary": False, "compression": "zstd", "data_page_size": 200_000, "write_batch_size": 8}
    pq.write_table(pa.table({"image": cells}), path, **options)
    whole = bytearray(path.read_bytes())
    middle = len(whole) // 2
    whole[middle : middle + 2000] = b"\xff" * 2000
    path.write_bytes(whole)
    listing = list_parquet("x.parquet", [path])
    assert bytes(listing.read(3)) == cells[3]
    for index in (399, 398, 399):
        with pytest.raises(OSError, match=r"row group cannot be read: \w+|corrupt"):
            listing.read(index)
    assert bytes(listing.read(3)) == cells[3]


@pytest.mark.parametrize("other", [{}, {"label": ["cat"]}])
def test_labels_that_a_later_file_lacks_are_none_unless_they_were_asked_for(tmp_path: Path, other: dict[str, object]) -> None:
    pq.write_table(pa.table({"image": [png()], "label": [3]}), tmp_path / "x-0.parquet")
    pq.write_table(pa.table({"image": [png()], **other}), tmp_path / "x-1.parquet")
    assert listing_of(f"{tmp_path}/x-*.parquet").labels is None
    with pytest.raises(ImageFormatError, match=r"x-1\.parquet has no column 'label' of whole numbers"):
        open_images(f"{tmp_path}/x-*.parquet?label=label")


# Hub data sets


def small_set(count: int = 4) -> datasets.Dataset:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    rows = {"image": [{"bytes": png(number), "path": None} for number in range(count)], "label": [0, 1] * (count // 2)}
    return datasets.Dataset.from_dict(rows, features=features)


def test_splits_are_named_and_train_is_the_usual_one(tmp_path: Path) -> None:
    splits = {"train": small_set(4), "test": small_set(2)}
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "both"))
    assert len(open_images(f"hub:{tmp_path / 'both'}")) == 4
    assert len(open_images(f"hub:{tmp_path / 'both'}:test")) == 2
    with pytest.raises(UnknownNameError, match=r"'tset'.*Did you mean 'test'"):
        open_images(f"hub:{tmp_path / 'both'}:tset")


def test_a_shuffled_part_of_a_data_set_is_read_in_its_order(tmp_path: Path) -> None:
    whole = small_set(600)
    part = whole.shuffle(seed=3).select(range(300))
    part.save_to_disk(str(tmp_path / "part"))
    images = load_images(f"hub:{tmp_path / 'part'}", workers=2)
    wanted = np.stack([np.asarray(row["image"]) for row in part])
    np.testing.assert_array_equal(images.storage[:, 0].numpy(), wanted)
    assert images.labels is not None
    assert images.labels.tolist() == part["label"][:]


def test_a_folder_that_datasets_reads_as_a_set_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    pq.write_table(pa.table({"image": [png(3), png(4)]}), tmp_path / "train.parquet")
    assert load_images(f"hub:{tmp_path}").storage[:, 0, 0, 0].tolist() == [3, 4]


@pytest.mark.parametrize(
    ("spec", "kind", "match"),
    [
        ("hub:", SettingError, "hub needs the name of a data set"),
        ("hub:nobody/nothing", DataUnavailableError, "nobody/nothing cannot be loaded .*save it with save_to_disk"),
        ("hub:./nowhere", MissingPathError, "No folder nowhere"),
        ("hub:a/b/c", MissingPathError, "No folder a/b/c"),
        ("hub:nobody/nothing?side=3", UnknownNameError, "setting of hub:nobody/nothing 'side'"),
    ],
)
def test_what_the_hub_does_not_have_is_one_line(spec: str, kind: type[LatlasError], match: str) -> None:
    with pytest.raises(kind, match=match) as caught:
        open_images(spec)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_no_data_set_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(ImageFormatError, match="cannot be loaded") as caught:
        open_images(f"hub:{tmp_path}")
    assert "\n" not in str(caught.value)


def test_downloads_are_counted_by_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_UPDATE_DOWNLOAD_COUNTS", True)
    small_set().save_to_disk(str(tmp_path / "set"))
    open_images(f"hub:{tmp_path / 'set'}")
    assert not datasets.config.HF_UPDATE_DOWNLOAD_COUNTS


@pytest.mark.parametrize(("spec", "module"), [("x.parquet", "pyarrow"), ("hub:a/b", "datasets")])
def test_without_the_extra_its_name_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str, module: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.parquet").write_bytes(b"")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'latlas\[data\]'"):
        open_images(spec)
