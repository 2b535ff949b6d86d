"""Folders, archives and pictures as strangers make them, and files that change between listing and reading."""

import io
import os
import struct
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from latlas.base.errors import ArtifactError, ImageFormatError
from latlas.data.array_files import open_array
from latlas.data.decoding import UnreadableError, read_picture
from latlas.data.listings import Listing, list_folder
from latlas.data.loading import load_images
from latlas.data.parquet_files import list_parquet
from latlas.data.tar_shards import list_tars
from latlas.encodings.encoding import Encoding
from latlas.encodings.left_out import read_left_out


def grey(value: int, size: int = 4) -> bytes:
    stream = io.BytesIO()
    Image.new("L", (size, size), value).save(stream, "PPM")
    return stream.getvalue()


# Folders


def test_folders_may_lie_deeper_within_each_other_than_calls_may(tmp_path: Path) -> None:
    depth = sys.getrecursionlimit() + 200
    if len(str(tmp_path)) + 2 * depth > os.pathconf(tmp_path, "PC_PATH_MAX"):
        pytest.skip("no path is that long here")
    before = Path.cwd()
    try:
        os.chdir(tmp_path)
        for _ in range(depth):
            Path("a").mkdir()
            os.chdir("a")
        Path("x.ppm").write_bytes(grey(1))
        (tmp_path / "b.ppm").write_bytes(grey(2))
        listing = list_folder(tmp_path)
        assert [listing.read(index) for index in range(len(listing))] == [grey(1), grey(2)]
    finally:
        os.chdir(before)
        subprocess.run(["rm", "-rf", str(tmp_path / "a")], check=True)  # deeper than shutil goes, and so pytest


@pytest.mark.parametrize("workers", [0, 2])
def test_a_link_in_a_circle_is_one_bad_picture_and_not_a_bad_folder(workers: int, tmp_path: Path) -> None:
    for value in range(3):
        (tmp_path / f"{value}.ppm").write_bytes(grey(value))
    (tmp_path / "1a.png").symlink_to("1b.png")
    (tmp_path / "1b.png").symlink_to("1a.png")
    images = load_images(tmp_path, policy="skip", workers=workers)
    assert images.names == ("0.ppm", "1.ppm", "2.ppm")
    assert [each.name for each in images.skipped] == ["1a.png", "1b.png"]
    with pytest.raises(ImageFormatError, match=r"1a\.png cannot be read"):
        load_images(tmp_path, workers=workers)


def test_a_picture_that_became_a_pipe_or_a_device_is_not_waited_for(tmp_path: Path) -> None:
    """One never opens, the other never ends."""
    for name in ("0", "pipe", "zero"):
        (tmp_path / f"{name}.ppm").write_bytes(grey(1))
    code = f"""
import os
from pathlib import Path
from latlas.data.listings import list_folder
listing = list_folder(Path({str(tmp_path)!r}))
for name in ("pipe", "zero"):
    os.unlink({str(tmp_path)!r} + f"/{{name}}.ppm")
os.mkfifo({str(tmp_path / "pipe.ppm")!r})
os.symlink("/dev/zero", {str(tmp_path / "zero.ppm")!r})
for index in range(3):
    try:
        print(len(listing.read(index)))
    except ValueError as failure:
        print(failure)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == [str(len(grey(1))), "it is no file any more", "it is no file any more"]


def test_a_pipe_among_celebas_pictures_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "0.jpg")
    (tmp_path / "list_eval_partition.txt").write_text("0.jpg 0\n")
    (tmp_path / "list_attr_celeba.txt").write_text("1\nBald\n0.jpg 1\n")
    code = f"""
from latlas.base.errors import ImageFormatError
from latlas.data.celeba import list_celeba
try:
    list_celeba({f"celeba:{tmp_path}"!r}).load()
except ImageFormatError as failure:
    print(failure)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert "0.jpg is no file" in done.stdout


# Archives


def tar(path: Path, pictures: dict[str, bytes]) -> Listing:
    """Put a tar into a place in one step, as whoever makes it anew does, and list it."""
    beside = path.with_suffix(".new")
    with tarfile.open(beside, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in pictures.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    beside.replace(path)
    return list_tars(str(path), [path])


def parquet(path: Path, pictures: dict[str, bytes]) -> Listing:
    pa = pytest.importorskip("pyarrow")
    table = pytest.importorskip("pyarrow.parquet")
    beside = path.with_suffix(".new")
    table.write_table(pa.table({"image": list(pictures.values())}), beside)
    beside.replace(path)
    return list_parquet(str(path), [path])


@pytest.mark.parametrize("make", [tar, parquet])
def test_a_file_that_was_made_anew_is_read_and_not_the_one_that_had_its_name(
    make: Callable[[Path, dict[str, bytes]], Listing], tmp_path: Path
) -> None:
    """Files stay open from picture to picture: in one process, the second set had the pictures of the first."""
    for value in (10, 20, 30):
        listing = make(tmp_path / "x", {f"{number}.ppm": grey(value + number) for number in range(3)})
        assert [bytes(listing.read(index)) for index in (2, 0, 1)] == [grey(value + number) for number in (2, 0, 1)]


@pytest.mark.parametrize("make", [tar, parquet])
def test_what_lies_elsewhere_than_it_was_listed_is_not_taken_for_a_picture(
    make: Callable[[Path, dict[str, bytes]], Listing], tmp_path: Path
) -> None:
    before = make(tmp_path / "x", {f"{number}.ppm": grey(number) for number in range(3)})
    before.read(0)
    make(tmp_path / "x", {f"{number}.ppm": grey(number, size=90) for number in range(4)})
    with pytest.raises(ValueError, match="was changed since it was listed"):
        before.read(1)
    (tmp_path / "x").unlink()
    with pytest.raises(FileNotFoundError):
        before.read(1)


def test_a_name_of_any_length_does_not_make_an_encoding_of_any_size(tmp_path: Path) -> None:
    """Names are kept at the width of the longest: one of 200,000 characters among 8,192 would take 6 GB."""
    assert len(tar(tmp_path / "x", {"a" * 4_000 + ".ppm": grey(1)})) == 1
    with pytest.raises(ImageFormatError, match="the name of a member has 200,004 characters") as failure:
        tar(tmp_path / "x", {"a" * 200_000 + ".ppm": grey(1), "b.ppm": grey(2)})
    assert len(str(failure.value)) < 1_000


def test_a_picture_that_was_packed_without_its_holes_is_refused(tmp_path: Path) -> None:
    """What lies in its place is shorter than the picture, and goes on with those behind it."""
    path = tmp_path / "holes.ppm"
    path.write_bytes(grey(0, size=600))
    with path.open("r+b") as stream:
        head = len(grey(0, size=600)) - 600 * 600
        stream.truncate(head)
        stream.truncate(head + 600 * 600 - 10)
        stream.seek(0, os.SEEK_END)
        stream.write(b"\xff" * 10)
    (tmp_path / "whole.ppm").write_bytes(grey(5, size=600))
    shard = tmp_path / "x.tar"
    subprocess.run(["tar", "-C", str(tmp_path), "--sparse", "-cf", str(shard), "holes.ppm", "whole.ppm"], check=True)
    with tarfile.open(shard) as archive:
        if not any(member.issparse() for member in archive):
            pytest.skip("this file system keeps no holes")
    with pytest.raises(ImageFormatError, match=r"holes\.ppm was packed without its holes"):
        list_tars("x.tar", [shard])


def test_a_table_of_a_few_bytes_is_not_asked_for_gigabytes_of_labels(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    table = pytest.importorskip("pyarrow.parquet")
    rows = 11_000_000
    columns = {"image": pa.nulls(rows, pa.binary()), "label": pa.nulls(rows, pa.int64()).fill_null(7)}
    table.write_table(pa.table(columns), tmp_path / "x.parquet", compression="zstd", row_group_size=rows)
    assert (tmp_path / "x.parquet").stat().st_size < 2_000_000
    with pytest.raises(ImageFormatError, match=r"tells of 11,000,000 rows in [0-9,]+ bytes"):
        list_parquet("x.parquet", [tmp_path / "x.parquet"])


# Arrays


def test_an_array_that_is_cut_off_while_it_is_read_is_one_line_and_not_the_end_of_the_process(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, np.zeros((1000, 32, 32), dtype=np.uint8))
    code = f"""
import os
from pathlib import Path
from latlas.base.errors import ImageFormatError
from latlas.data.array_files import open_array
images = open_array(Path({str(path)!r}))
next(images.blocks([(0, 10)]))
os.truncate({str(path)!r}, 4096)
try:
    next(images.slice(500, None).blocks([(400, 410)]))
except ImageFormatError as failure:
    print(failure)
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, "the system ended it"
    assert "was written to while it was read" in done.stdout


def test_an_array_that_is_written_anew_while_it_is_read_is_not_mixed(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, np.zeros((50, 8, 8), dtype=np.uint8))
    images = open_array(path)
    assert int(next(images.blocks([(0, 50)])).pixels.max()) == 0
    time.sleep(0.02)  # longer than a tick of the clock that stamps files
    np.save(path, np.ones((50, 8, 8), dtype=np.uint8))
    with pytest.raises(ImageFormatError, match="was written to while it was read"):
        next(images.blocks([(0, 50)]))


def test_an_array_that_another_has_replaced_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, np.zeros((50, 8, 8), dtype=np.uint8))
    images = open_array(path)
    np.save(tmp_path / "y.npy", np.ones((70, 8, 8), dtype=np.uint8))
    (tmp_path / "y.npy").replace(path)
    assert int(next(images.blocks([(0, 50)])).pixels.max()) == 0
    path.unlink()
    assert int(next(images.blocks([(0, 50)])).pixels.max()) == 0


# Pictures


def jpeg_of_scans(scans: int, *, side: int = 16, within: bytes = b"", hidden: bool = False) -> bytes:
    """Return a progressive JPEG of nothing but scans, put together marker by marker (ITU T.81, B.2)."""

    def segment(marker: int, content: bytes) -> bytes:
        return struct.pack(">HH", marker, len(content) + 2) + content

    tables = segment(0xFFDB, b"\0" + bytes([1] * 64)) + segment(0xFFC4, b"\0" + bytes([1] + [0] * 15) + b"\0")
    tables += segment(0xFFC4, b"\x10" + bytes([1] + [0] * 15) + b"\xe0")
    frame = segment(0xFFC2, struct.pack(">BHHB", 8, side, side, 1) + b"\1\x11\0")
    first = segment(0xFFDA, b"\1\1\0\0\0\0") + bytes(16)
    scan = (b"\xff\1" if hidden else b"") + segment(0xFFDA, b"\1\1\0\1\x3f\0") + bytes(4)
    return b"\xff\xd8" + within + tables + frame + first + scan * scans + b"\xff\xd9"


@pytest.mark.parametrize("hidden", [False, True], ids=["plain", "behind-a-marker-without-a-length"])
@pytest.mark.parametrize("exif", [False, True])
def test_a_jpeg_that_goes_over_its_pixels_for_ever_is_refused(exif: bool, hidden: bool) -> None:
    """A megabyte of scans of 9,000 x 9,000 pixels takes a quarter of an hour."""
    within = b"\xff\xe1\0\x0aExif\0\0II" if exif else b""
    assert read_picture(jpeg_of_scans(400, within=within, hidden=hidden)).shape == (1, 16, 16)
    data = jpeg_of_scans(100_000, side=9_000, within=within, hidden=hidden)
    for given in (data, memoryview(data)):
        started = time.process_time()
        with pytest.raises(UnreadableError, match="JPEG of more than 500 scans"):
            read_picture(given, side=8)
        assert time.process_time() - started < 1.0


def test_a_jpeg_of_one_colour_at_a_time_for_ever_is_refused_too() -> None:
    """Pictures that are not progressive may come in several scans as well, and each scan may come again."""
    stream = io.BytesIO()
    Image.effect_noise((64, 64), 60).save(stream, "JPEG")
    plain = stream.getvalue()
    start, end = plain.index(b"\xff\xda"), plain.rindex(b"\xff\xd9")
    # Three components in the frame, one in each scan; the first one's over and over.
    frame = plain.index(b"\xff\xc0")
    (length,) = struct.unpack(">H", plain[frame + 2 : frame + 4])
    three = b"\xff\xc0" + struct.pack(">HBHHB", 17, 8, 64, 64, 3) + b"\1\x11\0\2\x11\0\3\x11\0"
    scans = plain[:frame] + three + plain[frame + 2 + length : start]
    one = plain[start:end]
    both = [scans + one * 3 * times + b"\xff\xd9" for times in (1, 200)]
    assert read_picture(both[0]).shape == (3, 64, 64)
    with pytest.raises(UnreadableError, match="JPEG of more than 500 scans"):
        read_picture(both[1])


def test_what_only_looks_like_scans_is_a_picture() -> None:
    """As a preview, a profile or a film in the same file may; what stands behind the picture's end is no part of it."""
    block = b"\xff\xda" * 1000
    stream = io.BytesIO()
    Image.effect_noise((40, 30), 60).save(stream, "JPEG", progressive=True, quality=95)
    plain = stream.getvalue()
    within = struct.pack(">HH", 0xFFEF, len(block) + 2) + block
    np.testing.assert_array_equal(read_picture(plain[:2] + within + plain[2:] + block), read_picture(plain))


# Records


def test_a_line_of_brackets_within_brackets_is_refused(tmp_path: Path) -> None:
    for line in ("[" * 200_000, '{"index": 1, "name": "a", "reason": ' + "[" * 5000 + "]" * 5000 + "}", "[" * 2_000_000):
        (tmp_path / "skipped.jsonl").write_text(line + "\n")
        with pytest.raises((ValueError, TypeError)):
            read_left_out(tmp_path, [], {"skipped.jsonl": ""})


@pytest.mark.parametrize("odd", [{"index": "1"}, {"name": None}, {"name": ["a"]}, {"reason": 3}, {"index": 1.5}])
def test_what_was_left_out_is_told_in_the_types_that_latlas_writes(odd: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="in other words than latlas writes"):
        read_left_out(tmp_path, [{"index": 1, "name": "a", "reason": "b", **odd}], {})


def test_a_name_that_no_file_can_have_is_one_line_where_nothing_is_verified_either(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        '{"kind": "encoding", "format": 1, "settings": {}, "provenance": {}, "files": {"%s": "x"}}' % ("a" * 5_000)
    )
    with pytest.raises(ArtifactError, match="is incomplete"):
        Encoding.from_pretrained(tmp_path, verify=False)


# What is published


def test_a_card_that_is_a_link_out_of_its_artifact_is_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever made the artifact would choose which file of the machine everybody gets to read."""
    import torch

    from latlas.base import hub
    from latlas.maps.linear import LinearMap

    (tmp_path / "key").write_text("secret")
    folder = tmp_path / "models--a--b" / "snapshots" / "0123"
    LinearMap(weight=torch.eye(2), bias=torch.zeros(2), kind="affine", source="a", target="b").save_pretrained(folder)
    blobs = tmp_path / "models--a--b" / "blobs"
    blobs.mkdir()
    (folder / "README.md").rename(blobs / "card")
    (folder / "README.md").symlink_to("../../blobs/card")
    assert b"secret" not in b"".join(each for each in hub._to_send(folder, "a/b", None).values() if isinstance(each, bytes))
    (folder / "README.md").unlink()
    (folder / "README.md").symlink_to(tmp_path / "key")
    monkeypatch.setattr(hub, "_huggingface_hub", lambda *_: pytest.fail("the Hub was asked"))
    with pytest.raises(ArtifactError, match="is a link out of the artifact"):
        hub.push_to_hub(folder, "a/b")
