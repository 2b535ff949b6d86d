"""An `.npy` that stays on disk gives what the same file gives in memory."""

import sys
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pytest
import torch

from latlas.base.errors import ImageFormatError, NonFiniteError, SettingError
from latlas.data.array_files import ArrayFile
from latlas.data.images import ImageSet
from latlas.data.loading import load_images, open_images

SHAPES = {"grey": (9, 5, 4), "colour last": (9, 5, 4, 3), "colour first": (9, 3, 5, 4)}


def saved(path: Path, shape: tuple[int, ...], kind: type) -> Path:
    values = np.random.default_rng(0).integers(0, 256, shape)
    array = values > 127 if kind is np.bool_ else values / 255 if issubclass(kind, np.floating) else values
    np.save(path, array.astype(kind))
    return path


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", [np.uint8, np.bool_, np.float32, np.float64])
def test_blocks_are_the_images_in_memory(tmp_path: Path, shape: str, kind: type) -> None:
    path = saved(tmp_path / "a.npy", SHAPES[shape], kind)
    source, whole = open_images(path), load_images(path)
    assert isinstance(source, ArrayFile)
    assert (len(source), source.image_shape, source.name) == (len(whole), whole.image_shape, whole.name)
    for start, stop in [(0, 4), (4, 9), (2, 3)]:
        (block,) = source.blocks([(start, stop)])
        assert torch.equal(block.pixels, whole.storage[start:stop])
        assert block.pixels.dtype == whole.storage.dtype
        assert block.indices.tolist() == list(range(start, stop))
    part = open_images(f"{path}[2:8][1:3]")
    (block,) = part.blocks([(0, 2)])
    assert torch.equal(block.pixels, whole.storage[3:5])
    assert (part.name_of(0), len(part)) == ("#0", 2)
    assert open_images(part.name).listing_hash == part.listing_hash != source.listing_hash


def test_nothing_is_read_before_it_is_asked_for(tmp_path: Path) -> None:
    array = np.zeros((1000, 4, 4), np.float32)
    array[700] = np.nan
    array[900] = 2
    np.save(tmp_path / "a.npy", array)
    source = open_images(tmp_path / "a.npy")
    assert len(next(source.blocks([(0, 700)]))) == 700
    with pytest.raises(NonFiniteError, match=r"a\.npy\[650:750\]: image 50 "):
        list(source.blocks([(650, 750)]))
    with pytest.raises(ImageFormatError, match=r"must lie in \[0, 1\]"):
        list(source.blocks([(800, 1000)]))


def test_what_is_no_array_of_images_is_refused_as_in_memory(tmp_path: Path) -> None:
    np.save(tmp_path / "words.npy", np.array(["a", "b"]))
    np.save(tmp_path / "row.npy", np.zeros(5))
    np.save(tmp_path / "none.npy", np.zeros((0, 4, 4), np.uint8))
    np.save(tmp_path / "many.npy", np.zeros((2, 5, 4, 4), np.uint8))
    (tmp_path / "text.npy").write_text("text")
    for path in tmp_path.iterdir():
        with pytest.raises(ImageFormatError, match=path.name) as opened:
            open_images(path)
        with pytest.raises(ImageFormatError) as loaded:
            load_images(path)
        assert str(opened.value) == str(loaded.value)


def test_an_archive_is_read_at_once(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=np.zeros((3, 4, 4), np.uint8), labels=np.arange(3))
    source = open_images(tmp_path / "a.npz")
    assert isinstance(source, ImageSet)
    (block,) = source.blocks([(1, 3)])
    assert block.labels is not None
    assert block.labels.tolist() == [1, 2]


def test_the_hash_sees_content_and_shape(tmp_path: Path) -> None:
    hashes = set()
    for name, array in {
        "a": np.zeros((4, 4, 4), np.uint8),
        "b": np.zeros((4, 2, 8), np.uint8),
        "c": np.ones((4, 4, 4), np.uint8),
        "d": np.zeros((4, 4, 4), np.bool_),
    }.items():
        np.save(tmp_path / f"{name}.npy", array)
        hashes.add(open_images(tmp_path / f"{name}.npy").listing_hash)
    assert len(hashes) == 4


def test_bounds_that_leave_the_array_are_refused(tmp_path: Path) -> None:
    source = open_images(saved(tmp_path / "a.npy", (9, 5, 4), np.uint8))
    for bounds in [(0, 10), (-1, 2), (3, 3)]:
        with pytest.raises(SettingError, match="has 9 images"):
            list(source.blocks([bounds]))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_pass_keeps_nothing_of_the_file_in_memory(order: str, tmp_path: Path) -> None:
    def held() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith(("RssFile", "RssShmem")))

    values = np.arange(2**25, dtype=np.int64).astype(np.uint8).reshape(-1, 64, 64)  # 32 MiB
    np.save(tmp_path / "a.npy", np.asarray(values, order=order))  # type: ignore[call-overload]
    before, most = held(), 0
    source = open_images(f"{tmp_path / 'a.npy'}[3:8190]")
    assert isinstance(source, ArrayFile)
    for start, block in zip(
        range(0, 8187, 819), source.blocks((at, min(at + 819, 8187)) for at in range(0, 8187, 819)), strict=True
    ):
        most = max(most, held() - before)
        assert torch.equal(block.pixels[:, 0], torch.from_numpy(values[3 + start : 3 + start + 819][: len(block)]))
    assert most < 4 * 2**20
    assert int(np.asarray(source.array).max()) == 255
    assert held() - before > 24 * 2**20, "the measure would have seen it"


def test_what_travels_to_a_worker_is_the_files_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "a.npy", np.arange(50_000, dtype=np.int64).astype(np.uint8).reshape(500, 10, 10))
    monkeypatch.chdir(tmp_path)
    source = open_images("a.npy[100:400]")
    sent = ForkingPickler.dumps(source)
    assert len(sent) < 1000
    monkeypatch.chdir("/")
    came = ForkingPickler.loads(sent)
    assert (came.name, len(came), came.listing_hash) == (source.name, 300, source.listing_hash)
    (mine,), (theirs,) = source.blocks([(7, 99)]), came.blocks([(7, 99)])
    assert mine.pixels.equal(theirs.pixels)
