"""Pictures that stay on disk: the same pixels whatever the container, the workers and the blocks; bad ones named; nothing left."""

import gc
import io
import json
import multiprocessing
import os
import re
import signal
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from latlas.base.errors import (
    DataUnavailableError,
    ImageFormatError,
    MissingPathError,
    SettingError,
    UnknownNameError,
)
from latlas.data.decode_workers import DecodeWorkers, workers_for
from latlas.data.images import ImageSet, ImageSource, PixelBlock
from latlas.data.loading import load_images, open_images
from latlas.data.picture_files import PictureFiles

COUNT = 30


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    yield
    gc.collect()  # an error that a test has caught holds what the test had
    assert not multiprocessing.active_children()


def jpegs(count: int = COUNT, side: int = 16) -> list[bytes]:
    rng = np.random.default_rng(0)
    streams = [io.BytesIO() for _ in range(count)]
    for stream in streams:
        Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(stream, "JPEG")
    return [stream.getvalue() for stream in streams]


def pixels_of(pictures: list[bytes]) -> torch.Tensor:
    return torch.stack([torch.from_numpy(np.array(Image.open(io.BytesIO(data)))).permute(2, 0, 1) for data in pictures])


def folder(pictures: list[bytes], place: Path) -> str:
    for number, data in enumerate(pictures):
        path = place / f"pictures/{number // 10}/{number:03d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return str(place / "pictures")


def add(shard: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    shard.addfile(member, io.BytesIO(data))


def tars(pictures: list[bytes], place: Path) -> str:
    """Two shards as WebDataset writes them, with classes and captions."""
    for number, part in enumerate((range(len(pictures))[:12], range(len(pictures))[12:])):
        with tarfile.open(place / f"s-{number:02d}.tar", "w") as shard:
            for index in part:
                add(shard, f"{index:06d}.cls", str(index % 7).encode())
                add(shard, f"{index:06d}.jpg", pictures[index])
                add(shard, f"{index:06d}.json", json.dumps({"caption": "a picture"}).encode())
    return str(place / "s-{00..01}.tar")


def parquet_bytes(pictures: list[bytes], place: Path) -> str:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for number, part in enumerate((slice(0, 12), slice(12, None))):
        some = pictures[part]
        labels = [index % 7 for index in range(len(pictures))][part]
        pq.write_table(pa.table({"jpg": some, "label": labels}), place / f"b-{number}.parquet", row_group_size=5)
    return str(place / "b-*.parquet")


def parquet_pairs(pictures: list[bytes], place: Path) -> str:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"bytes": data, "path": f"{number}.jpg"} for number, data in enumerate(pictures)]
    labels = pa.array([index % 7 for index in range(len(pictures))])
    pq.write_table(pa.table({"label": labels, "image": pa.array(rows)}), place / "p.parquet", row_group_size=8)
    return str(place / "p.parquet")


def saved_set(pictures: list[bytes], place: Path) -> str:
    import datasets

    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(num_classes=7)})
    rows = {
        "image": [{"bytes": data, "path": None} for data in pictures],
        "label": [index % 7 for index in range(len(pictures))],
    }
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(place / "saved"))
    return f"hub:{place / 'saved'}"


CONTAINERS: dict[str, Callable[[list[bytes], Path], str]] = {
    "folder": folder,
    "tar": tars,
    "parquet of bytes": parquet_bytes,
    "parquet of pairs": parquet_pairs,
    "saved data set": saved_set,
}


def collected(source: ImageSource, step: int) -> tuple[torch.Tensor, list[int]]:
    blocks = list(source.blocks((start, min(start + step, len(source))) for start in range(0, len(source), step)))
    return torch.cat([block.pixels for block in blocks]), torch.cat([block.indices for block in blocks]).tolist()


# The same pixels


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("workers", [0, 2])
def test_every_container_gives_the_pictures_as_pillow_reads_them(tmp_path: Path, container: str, workers: int) -> None:
    pictures = jpegs()
    source = open_images(CONTAINERS[container](pictures, tmp_path), workers=workers)
    assert isinstance(source, PictureFiles)
    assert (len(source), source.image_shape) == (COUNT, (3, 16, 16))
    for step in (7, COUNT):
        found, indices = collected(source, step)
        assert torch.equal(found, pixels_of(pictures))
        assert indices == list(range(COUNT))
    source.close()


@pytest.mark.parametrize("container", CONTAINERS)
def test_labels_and_names_belong_to_their_pictures(tmp_path: Path, container: str) -> None:
    spec = CONTAINERS[container](jpegs(), tmp_path)
    source = open_images(spec)
    (block,) = source.blocks([(5, 25)])
    assert block.names == tuple(source.name_of(index) for index in range(5, 25))
    assert len(set(block.names)) == 20
    if container == "folder":
        assert block.labels is None
        assert block.names[0] == os.path.join("0", "005.jpg")  # noqa: PTH118
    else:
        assert block.labels is not None
        assert block.labels.tolist() == [index % 7 for index in range(5, 25)]
    images = load_images(spec)
    assert images.names[5:25] == block.names
    assert (images.labels is None) == (block.labels is None)


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_set_in_memory_has_the_same_images(tmp_path: Path, container: str) -> None:
    pictures = jpegs()
    spec = CONTAINERS[container](pictures, tmp_path)
    images = load_images(spec, workers=2)
    assert isinstance(images, ImageSet)
    assert torch.equal(images.storage, pixels_of(pictures))
    assert torch.equal(load_images(f"{spec}[3:17]").storage, pixels_of(pictures)[3:17])
    assert load_images(f"{spec}[3:17]").names == images.names[3:17]


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_name_gives_the_same_images_again(tmp_path: Path, container: str) -> None:
    spec = CONTAINERS[container](jpegs(), tmp_path)
    source = open_images(f"{spec}[4:20]", size=8)
    again = open_images(source.name)
    assert again.name == source.name
    assert again.listing_hash == source.listing_hash
    assert torch.equal(collected(again, 16)[0], collected(source, 16)[0])
    assert source.name.endswith("?size=8[4:20]")


def test_blocks_come_in_the_order_asked_for_whatever_it_is(tmp_path: Path) -> None:
    pictures = jpegs()
    source = open_images(folder(pictures, tmp_path), workers=2)
    wanted = [(20, 30), (0, 1), (3, 29), (5, 6), (0, 30)]
    for (start, stop), block in zip(wanted, source.blocks(iter(wanted)), strict=True):
        assert block.indices.tolist() == list(range(start, stop))
        assert torch.equal(block.pixels, pixels_of(pictures)[start:stop])


def test_a_block_of_many_chunks_is_put_together_right(tmp_path: Path) -> None:
    """With 700 pictures and two workers, chunks of 256 pass through fewer slots than there are chunks in all passes."""
    pictures = jpegs(COUNT, side=4)
    many = [pictures[index * 7 % COUNT] for index in range(700)]
    source = open_images(tars(many, tmp_path), workers=2)
    whole = pixels_of(pictures)[[index * 7 % COUNT for index in range(700)]]
    for _ in range(3):
        (block,) = source.blocks([(0, 700)])
        assert torch.equal(block.pixels, whole)
    blocks = list(source.blocks((start, start + 70) for start in range(0, 700, 70)))
    assert torch.equal(torch.cat([block.pixels for block in blocks]), whole)  # kept blocks are not overwritten


def test_started_afresh_workers_give_the_same(tmp_path: Path) -> None:
    """Where processes are not forked the listing travels, and the memory has a name."""
    pictures = jpegs()
    source = open_images(tars(pictures, tmp_path))
    assert isinstance(source, PictureFiles)
    from latlas.data.picture_files import _Decode

    workers = DecodeWorkers(_Decode(source.listing, 0, source.form), (3, 16, 16), count=1, source="x", method="spawn")
    ((start, stop, pixels, bad),) = workers.blocks([(2, 30)], pinned=False)
    assert (start, stop, bad) == (2, 30, ())
    assert torch.equal(pixels, pixels_of(pictures)[2:])
    workers.close()


def test_two_passes_at_once_do_not_meet(tmp_path: Path) -> None:
    pictures = jpegs()
    source = open_images(folder(pictures, tmp_path), workers=1)
    bounds = [(start, start + 5) for start in range(0, COUNT, 5)]
    for one, other in zip(source.blocks(bounds), source.blocks(bounds[::-1]), strict=True):
        assert torch.equal(one.pixels, pixels_of(pictures)[one.indices])
        assert torch.equal(other.pixels, pixels_of(pictures)[other.indices])


def test_reading_leaves_the_shared_generator_alone(tmp_path: Path) -> None:
    source = open_images(folder(jpegs(), tmp_path), workers=1)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    list(source.blocks([(0, 5)]))
    assert torch.equal(torch.get_rng_state(), before)


# The shape of a source


def test_one_colour_picture_among_grey_ones_makes_the_set_colour(tmp_path: Path) -> None:
    grey = np.full((6, 6), 90, np.uint8)
    for number in range(70):
        Image.fromarray(grey).save(tmp_path / f"{number:02d}.png")
    assert open_images(tmp_path).image_shape == (1, 6, 6)
    Image.fromarray(np.full((6, 6, 3), (9, 8, 7), np.uint8)).save(tmp_path / "37.png")  # no head that is looked at
    for policy in ("stop", "skip"):
        images = load_images(tmp_path, policy=policy)
        assert images.image_shape == (3, 6, 6)
        assert images.storage[37, :, 0, 0].tolist() == [9, 8, 7]
        assert images.storage[36, :, 0, 0].tolist() == [90, 90, 90]
    with pytest.raises(ImageFormatError, match=r"37\.png is in colour, and the set was taken for grey.*channels=3"):
        list(open_images(tmp_path).blocks([(0, 70)]))
    (block,) = open_images(f"{tmp_path}?channels=3").blocks([(0, 70)])
    assert torch.equal(block.pixels, images.storage)
    (block,) = open_images(f"{tmp_path}?channels=1").blocks([(37, 38)])
    assert block.pixels[0, 0, 0, 0] == Image.new("RGB", (1, 1), (9, 8, 7)).convert("L").getpixel((0, 0))


def test_the_listing_hash_tells_sets_apart_and_not_places(tmp_path: Path) -> None:
    pictures = jpegs()
    seen = {"first": open_images(folder(pictures, tmp_path / "a")).listing_hash}
    assert open_images(folder(pictures, tmp_path / "b")).listing_hash == seen["first"]
    seen["resized"] = open_images(tmp_path / "a/pictures", size=8).listing_hash
    seen["part"] = open_images(f"{tmp_path / 'a/pictures'}[0:9]").listing_hash
    seen["of other pictures"] = open_images(folder(pictures[::-1], tmp_path / "c")).listing_hash
    (tmp_path / "b/pictures/0/003.jpg").rename(tmp_path / "b/pictures/0/003b.jpg")
    seen["renamed"] = open_images(tmp_path / "b/pictures").listing_hash
    (tmp_path / "b/pictures/0/003b.jpg").unlink()
    seen["removed"] = open_images(tmp_path / "b/pictures").listing_hash
    seen["tar"] = open_images(tars(pictures, tmp_path)).listing_hash
    assert len(set(seen.values())) == len(seen)


# Bad pictures


def planted(place: Path) -> tuple[str, dict[int, str]]:
    """A folder with five bad pictures; their positions, and a word of each reason."""
    spec = folder(jpegs(), place)
    whole = Path(spec) / "0/002.jpg"
    whole.write_bytes(whole.read_bytes()[:300])
    (Path(spec) / "0/007.jpg").write_bytes(b"")
    (Path(spec) / "1/011.jpg").write_bytes(b"<html>not found</html>")
    Image.new("RGB", (9, 16)).save(Path(spec) / "1/019.jpg")
    Image.new("I;16", (16, 16)).save(Path(spec) / "2/025.jpg", "PNG")
    return spec, {
        2: "truncated|cannot be read",
        7: "empty",
        11: "formats",
        19: "9 x 16 and 000.jpg is 16 x 16",
        25: "16 or more",
    }


@pytest.mark.parametrize("workers", [0, 2])
def test_skipping_leaves_out_the_bad_pictures_and_names_each_in_order(tmp_path: Path, workers: int) -> None:
    spec, bad = planted(tmp_path)
    source = open_images(spec, policy="skip", workers=workers)
    blocks = list(source.blocks([(0, 8), (8, 30)]))
    skipped = [image for block in blocks for image in block.skipped]
    assert [image.index for image in skipped] == list(bad)
    for image, reason in zip(skipped, bad.values(), strict=True):
        assert image.name == source.name_of(image.index)
        assert re.search(reason, image.reason)
    assert [len(block) for block in blocks] == [6, 19]
    good = [index for index in range(COUNT) if index not in bad]
    assert [index for block in blocks for index in block.indices.tolist()] == good
    assert torch.equal(torch.cat([block.pixels for block in blocks]), pixels_of(jpegs())[good])
    images = load_images(spec, policy="skip", workers=workers)
    assert images.skipped == tuple(skipped)
    assert torch.equal(images.storage, torch.cat([block.pixels for block in blocks]))
    assert images.names == tuple(source.name_of(index) for index in good)


@pytest.mark.parametrize("workers", [0, 2])
def test_stopping_names_the_first_bad_picture(tmp_path: Path, workers: int) -> None:
    spec, _ = planted(tmp_path)
    for read in (
        lambda: load_images(spec, workers=workers),
        lambda: list(open_images(spec, workers=workers).blocks([(0, 30)])),
    ):
        with pytest.raises(
            ImageFormatError, match=r"pictures/0/002\.jpg cannot be read as a picture.*Remove or repair it"
        ) as caught:
            read()
        assert "\n" not in str(caught.value)


def test_a_block_of_bad_pictures_alone_is_empty_and_names_them(tmp_path: Path) -> None:
    spec, _ = planted(tmp_path)
    (block,) = open_images(spec, policy="skip").blocks([(7, 8)])
    assert block.pixels.shape == (0, 3, 16, 16)
    assert len(block.skipped) == 1


def test_pictures_that_vanish_after_they_were_listed_are_bad_ones(tmp_path: Path) -> None:
    spec = folder(jpegs(), tmp_path)
    source = open_images(spec, policy="skip")
    assert isinstance(source, PictureFiles)
    (Path(spec) / "0/004.jpg").unlink()
    (block,) = source.blocks([(0, 30)])
    assert [(image.index, image.reason) for image in block.skipped] == [(4, "cannot be read (No such file or directory)")]
    with pytest.raises(ImageFormatError, match=r"004\.jpg cannot be read \(No such file or directory\)"):
        replace(source, policy="stop").load()


def test_where_no_picture_can_be_used_the_first_is_named(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.png").write_bytes(b"nothing")
    for policy in ("stop", "skip"):
        with pytest.raises(ImageFormatError, match=r"no picture can be used.*a\.png cannot be read"):
            open_images(tmp_path, policy=policy)


# Processes


def test_workers_are_kept_between_passes_and_end_with_the_source(tmp_path: Path) -> None:
    source = open_images(folder(jpegs(), tmp_path), workers=2)
    list(source.blocks([(0, 30)]))
    first = {child.pid for child in multiprocessing.active_children()}
    list(source.blocks([(0, 30)]))
    assert {child.pid for child in multiprocessing.active_children()} == first
    assert len(first) == 2
    del source
    assert not multiprocessing.active_children()


def test_a_pass_that_is_left_ends_its_workers(tmp_path: Path) -> None:
    source = open_images(folder(jpegs(), tmp_path), workers=2)
    passing = source.blocks((start, start + 1) for start in range(30))
    next(passing)
    passing.close()
    assert not multiprocessing.active_children()
    assert len(next(source.blocks([(0, 3)]))) == 3


def test_after_an_error_no_process_is_left_while_the_error_is_looked_at(tmp_path: Path) -> None:
    spec, _ = planted(tmp_path)
    source = open_images(spec, workers=2)
    with pytest.raises(ImageFormatError) as caught:
        list(source.blocks([(0, 30)]))
    assert not multiprocessing.active_children()
    assert caught.value
    with pytest.raises(SettingError):
        list(source.blocks([(0, 2), (5, 31)]))
    assert not multiprocessing.active_children()


def test_a_killed_worker_is_one_line(tmp_path: Path) -> None:
    source = open_images(folder(jpegs(), tmp_path), workers=2)

    def bounds() -> Iterator[tuple[int, int]]:
        for number in range(10_000):
            if number == 20:
                os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)  # type: ignore[arg-type]
            yield number % 30, number % 30 + 1

    with pytest.raises(
        DataUnavailableError, match=r"A process that decodes .*pictures ended before its work.*workers=0"
    ) as caught:
        list(source.blocks(bounds()))
    assert "\n" not in str(caught.value)
    assert not multiprocessing.active_children()
    assert len(next(source.blocks([(0, 3)]))) == 3  # with new ones


def test_no_memory_and_no_file_stays_open(tmp_path: Path) -> None:
    spec = folder(jpegs(), tmp_path)

    def resources() -> tuple[int, int, int]:
        return len(os.listdir("/proc/self/fd")), len(os.listdir("/dev/shm")), threading.active_count()  # noqa: PTH208

    list(open_images(spec, workers=2).blocks([(0, 30)]))
    time.sleep(1.0)  # threads that fed queues notice their end a little later
    before = resources()
    for _ in range(3):
        list(open_images(spec, workers=2).blocks([(0, 30), (3, 4)]))
    for _ in range(100):
        after = resources()
        if all(now <= then for now, then in zip(after, before, strict=True)):
            return
        time.sleep(0.1)
    assert after == before


def test_few_pictures_need_no_workers_and_many_get_at_most_eight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert (workers_for(10), workers_for(1_000_000), workers_for(10, 3)) == (0, 8, 3)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    assert workers_for(1_000_000) == 2


# Nonsense


@pytest.mark.parametrize("bounds", [(0, 0), (5, 3), (-1, 3), (0, 31), (30, 31)])
@pytest.mark.parametrize("workers", [0, 1])
def test_bounds_that_leave_the_set_are_refused(tmp_path: Path, bounds: tuple[int, int], workers: int) -> None:
    spec = folder(jpegs(), tmp_path)
    for source in (open_images(spec, workers=workers), load_images(spec)):
        with pytest.raises(SettingError, match="has 30 images; a block must lie in"):
            list(source.blocks([bounds]))


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"size": 0}, "size must lie between 1 and 16,384"),
        ({"policy": "ignore"}, r"policy for bad pictures 'ignore'.*skip, stop"),
        ({"workers": -1}, "workers must be at least 0"),
    ],
)
def test_settings_out_of_range_are_refused(tmp_path: Path, settings: dict[str, object], match: str) -> None:
    spec = folder(jpegs(3), tmp_path)
    for read in (open_images, load_images):
        with pytest.raises((SettingError, UnknownNameError), match=match):
            read(spec, **settings)


def test_settings_that_do_not_fit_the_container_are_refused(tmp_path: Path) -> None:
    spec = folder(jpegs(3), tmp_path)
    with pytest.raises(UnknownNameError, match=r"setting of .* 'image'"):
        open_images(f"{spec}?image=x")
    with pytest.raises(SettingError, match="channels, got 2"):
        open_images(f"{spec}?channels=2")
    with pytest.raises(SettingError, match="size must lie between 1 and 16,384, got 0"):
        open_images(f"{spec}?size=0")
    with pytest.raises(SettingError, match="size=8, and a size of 9"):
        open_images(f"{spec}?size=8", size=9)


def test_the_sets_in_memory_are_sources_too(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((5, 4, 4), np.uint8))
    for source in (open_images(folder(jpegs(3), tmp_path)), open_images(tmp_path / "a.npy"), load_images(tmp_path / "a.npy")):
        assert isinstance(source, ImageSource)
        (block,) = source.blocks([(1, 3)])
        assert isinstance(block, PixelBlock)
        assert len(block) == 2


def test_a_missing_folder_is_a_missing_path(tmp_path: Path) -> None:
    with pytest.raises(MissingPathError):
        open_images(tmp_path / "nowhere")
