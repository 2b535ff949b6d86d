"""The encoding store: whole shards or none, the same bytes however often a run was cut off, and one tensor over many files."""

import builtins
import copy
import errno
import io
import json
import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from latlas.base import artifacts, placing, work_folders
from latlas.base.artifacts import CONFIG
from latlas.base.errors import (
    ArtifactError,
    ImageFormatError,
    NonFiniteError,
    OutputExistsError,
    SettingError,
    UnknownNameError,
)
from latlas.base.provenance import UNSTATED, file_hash
from latlas.data.images import ImageSet, PixelBlock, SkippedImage
from latlas.encodings import jobs, mapped, store
from latlas.encodings.arrays import write_array
from latlas.encodings.encode import encode
from latlas.encodings.encoding import Encoding, require_paired, tree_of
from latlas.encodings.mapped import batches, map_joined
from latlas.encodings.shards import ShardPlan, encode_shard, image_hashes, write_shard
from latlas.encodings.store import open_job
from latlas.maps.fit import fit_map
from latlas.models.adapters.callables import CallableModel
from latlas.models.protocols import Posterior
from latlas.training.precision import Precision

SHAPE = (1, 3, 4)
LATENT = 5
STEP = 4096  # rows of the smallest shard
MIXING = torch.randn(12, 2 * LATENT, generator=torch.Generator().manual_seed(5))


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is killed loses nothing that it wrote; only a machine would, and nine tenths of the time go into waiting."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def pixels_of(indices: Tensor) -> Tensor:
    """Pictures that are a function of their number alone."""
    values = (indices[:, None] * 2_654_435_761 + torch.arange(12) * 40_503) >> 7
    return (values % 256).to(torch.uint8).view(-1, *SHAPE)


@dataclass(frozen=True)
class Pictures:
    """A source that makes its pictures as they are asked for, and cannot read some of them."""

    count: int
    start: int = 0
    bad: tuple[int, ...] = ()
    named: bool = True
    labelled: bool = True
    name: str = "pictures"
    image_shape: tuple[int, int, int] = SHAPE

    @property
    def listing_hash(self) -> str:
        return f"{self.start}+{self.count}"

    def __len__(self) -> int:
        return self.count

    def name_of(self, index: int) -> str:
        return f"p{self.start + index}.png"

    def blocks(self, bounds: Iterable[tuple[int, int]]) -> Iterator[PixelBlock]:
        for start, stop in bounds:
            listed = torch.arange(start, stop)
            good = torch.tensor([index not in self.bad for index in range(start, stop)]) if self.bad else listed >= 0
            indices = listed[good]
            yield PixelBlock(
                pixels=pixels_of(indices + self.start),
                indices=indices,
                names=tuple(self.name_of(index) for index in indices.tolist()) if self.named else (),
                labels=(indices + self.start) % 7 if self.labelled else None,
                skipped=tuple(
                    SkippedImage(index=index, name=self.name_of(index), reason="cut short")
                    for index in self.bad
                    if start <= index < stop
                ),
            )


def gaussian(images: Tensor) -> tuple[Tensor, Tensor]:
    mean, log_variance = (images.flatten(1) @ MIXING).chunk(2, dim=1)
    return mean, log_variance


def model(name: str = "linear", **options: Any) -> CallableModel:
    given = {"encode_with": gaussian, "fingerprint": f"weights of {name}", **options}
    return CallableModel(image_shape=SHAPE, latent_shape=(LATENT,), name=name, **given)


def expected(indices: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The codes by NumPy, in float64."""
    values = pixels_of(indices).double().flatten(1).numpy() / 255
    codes = values @ MIXING.double().numpy()
    return codes[:, :LATENT], codes[:, LATENT:]


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def litter(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


# One tensor over many files


def test_stored_codes_are_the_models_and_those_that_are_kept_in_memory(tmp_path: Path) -> None:
    source = Pictures(2 * STEP + 1000)
    stored = encode(model(), source, out=tmp_path / "codes", shard_rows=STEP)
    memory = encode(model(), source, shard_rows=STEP)
    mean, log_variance = expected(torch.arange(len(source)))
    np.testing.assert_allclose(stored.mean.numpy(), mean, rtol=0, atol=1e-5)
    assert stored.log_variance is not None
    np.testing.assert_allclose(stored.log_variance.numpy(), log_variance, rtol=0, atol=1e-5)
    for name in ("mean", "log_variance", "indices", "labels"):
        assert getattr(stored, name).equal(getattr(memory, name)), name
    assert (list(stored.names), stored.skipped) == (list(memory.names), ())
    assert stored.provenance == memory.provenance
    assert stored.images_hash == memory.images_hash
    assert litter(tmp_path) == []


def test_many_shards_are_one_tensor_and_numpy_reads_each_alone(tmp_path: Path) -> None:
    source = Pictures(2 * STEP + 1000)
    encoding = encode(model(), source, out=tmp_path / "codes", shard_rows=STEP)
    for part in ("mean", "log_variance", "indices", "labels", "names"):
        files = [np.load(tmp_path / "codes" / f"{part}-{number:05d}.npy", mmap_mode="r") for number in range(3)]
        assert [len(file) for file in files] == [STEP, STEP, 1000]
        np.testing.assert_array_equal(np.concatenate(files), np.asarray(getattr(encoding, part)))
    assert encoding.mean.is_contiguous()
    assert torch.cat([batch.clone() for batch in batches(encoding.mean, 999)]).equal(encoding.mean)
    assert encoding.mean[STEP - 1 : STEP + 1].equal(encoding.mean.clone()[STEP - 1 : STEP + 1])
    assert (encoding.names[-1], encoding.names[STEP], encoding.name_of(0)) == ("p9191.png", "p4096.png", "p0.png")
    assert encoding.names[STEP - 1 : STEP + 1] == ("p4095.png", "p4096.png")


def test_a_single_shard_is_called_as_an_encoding_from_memory_is(tmp_path: Path) -> None:
    encode(model(), Pictures(100), out=tmp_path / "codes")
    files = ["config.json", "image_hashes.npy", "indices.npy", "labels.npy", "log_variance.npy", "mean.npy", "names.npy"]
    assert sorted(content(tmp_path / "codes")) == files


@pytest.mark.parametrize("joined", [True, False], ids=["mapped side by side", "copied"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int64])
def test_files_in_a_row_are_their_concatenation(
    dtype: type, joined: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapped, "can_join", lambda: joined and sys.platform == "linux")
    random_rows = np.random.default_rng(0).normal(size=(2 * STEP + 77, 2, 3)) * 100
    parts = [part.astype(dtype) for part in np.split(random_rows, [STEP, 2 * STEP])]
    paths = []
    for number, part in enumerate(parts):
        paths.append(tmp_path / f"rows-{number}.npy")
        mapped_write(paths[-1], part)
    before = [path.read_bytes() for path in paths]
    rows = map_joined(paths)
    np.testing.assert_array_equal(rows.numpy(), np.concatenate(parts))
    for size in (1000, STEP, 10 * STEP):
        assert torch.cat([batch.clone() for batch in batches(rows, size)]).equal(rows)
    rows += 1
    np.testing.assert_array_equal(rows.numpy(), np.concatenate(parts) + dtype(1))
    assert [path.read_bytes() for path in paths] == before
    for path in paths:
        path.unlink()
    np.testing.assert_array_equal(rows.numpy(), np.concatenate(parts) + dtype(1))
    assert copy.deepcopy(rows).equal(rows)


def mapped_write(path: Path, array: np.ndarray) -> None:
    write_array(path, array.dtype, array.shape, [array[:100], array[100:]])
    np.testing.assert_array_equal(np.load(path), array)


def test_files_that_numpy_wrote_itself_are_joined_too(tmp_path: Path) -> None:
    parts = [np.arange(15.0).reshape(5, 3), np.arange(6.0).reshape(2, 3)]
    for number, part in enumerate(parts):
        np.save(tmp_path / f"{number}.npy", part)
    np.testing.assert_array_equal(map_joined([tmp_path / "0.npy", tmp_path / "1.npy"]).numpy(), np.concatenate(parts))


@pytest.mark.parametrize("other", [np.zeros((2, 4)), np.zeros((2, 3), dtype=np.float32), np.zeros((3, 2)).T], ids=str)
def test_arrays_that_do_not_continue_one_another_are_refused(other: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "0.npy", np.zeros((5, 3)))
    np.save(tmp_path / "1.npy", other)
    with pytest.raises(ValueError, match=r"1\.npy does not continue 0\.npy"):
        map_joined([tmp_path / "0.npy", tmp_path / "1.npy"])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_pass_over_many_shards_holds_one_batch_and_their_addresses_are_given_back(tmp_path: Path) -> None:
    def held() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("RssFile")).split()[1])

    paths = [tmp_path / f"{number}.npy" for number in range(4)]
    for path in paths:
        mapped_write(path, np.ones((STEP, 512), dtype=np.float32))  # 8 MiB each
    rows = map_joined(paths)
    before, most = held(), 0
    for batch in batches(rows, 512):
        assert float(batch.sum()) == 512 * 512
        most = max(most, held() - before)
    assert most < 6 * 2**20
    assert float(rows.sum()) == 4 * STEP * 512
    assert held() - before > 24 * 2**20, "the measure would have seen it"
    assert str(tmp_path) in Path("/proc/self/maps").read_text()
    del rows, batch
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()


# Cut off and continued


def interrupted(out: Path, source: Pictures, seconds: float) -> bool:
    """Encode in a process that gets SIGKILL after so many seconds; tell whether it was still at it."""
    context = multiprocessing.get_context("fork")
    started, start = context.Pipe(duplex=False)

    def work() -> None:
        start.send(True)
        encode(model(), source, out=out, shard_rows=STEP)

    process = context.Process(target=work)
    process.start()
    started.recv()
    time.sleep(seconds)
    process.kill()
    process.join()
    return process.exitcode == -signal.SIGKILL


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.parametrize("bad", [(), (3, STEP, 3 * STEP + 5)], ids=["all good", "some bad"])
def test_a_killed_encoding_goes_on_and_ends_with_the_same_bytes(bad: tuple[int, ...], tmp_path: Path) -> None:
    source = Pictures(6 * STEP + 100, bad=bad)
    began = time.perf_counter()
    encode(model(), source, out=tmp_path / "whole", shard_rows=STEP)
    lasts = time.perf_counter() - began
    moments = random.Random(1)
    cut_off = kept = 0
    for trial in range(6):
        out = tmp_path / f"codes{trial}"
        cut_off += interrupted(out, source, moments.uniform(0.0, lasts))
        kept += len(list(tmp_path.glob(f".{out.name}.encoding/shard-*.json")))
        assert not out.exists() or (out / CONFIG).is_file(), "an encoding is whole or absent"
        if not out.exists() or (tmp_path / f".{out.name}.encoding").exists():
            encode(model(), source, out=out, shard_rows=STEP)
        assert content(out) == content(tmp_path / "whole")
        assert litter(tmp_path) == []
    assert cut_off >= 3
    assert kept >= 1


def test_only_the_missing_shards_are_computed_again(tmp_path: Path) -> None:
    source, told = Pictures(3 * STEP), list[tuple[int, int | None, str]]()
    with open_job(model(), source, tmp_path / "codes", shard_rows=STEP) as job:
        for number in (2, 0):  # in any order
            write_shard(job.work, encode_shard(model(), source, number, job))
        assert job.missing() == [1]
    seen = list[int]()

    def watching(images: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(len(images))
        return gaussian(images)

    found = encode(
        model(encode_with=watching),
        source,
        out=tmp_path / "codes",
        shard_rows=STEP,
        progress=lambda task, done, total, note="": told.append((done, total, note)),
    )
    assert sum(seen) == STEP
    assert told[0] == (2 * STEP, 3 * STEP, "2 of 3 shards kept")
    assert told[-1] == (3 * STEP, 3 * STEP, "2 of 3 shards kept")
    assert found.mean.equal(encode(model(), source, shard_rows=STEP).mean)


@pytest.mark.parametrize("damage", ["cut short", "gone", "no record"])
def test_a_shard_that_is_not_whole_is_computed_again(damage: str, tmp_path: Path) -> None:
    source = Pictures(2 * STEP)
    with open_job(model(), source, tmp_path / "codes", shard_rows=STEP) as job:
        for number in (0, 1):
            write_shard(job.work, encode_shard(model(), source, number, job))
        path = job.work / "mean-00001.npy"
        if damage == "cut short":
            path.write_bytes(path.read_bytes()[:-1])
        elif damage == "gone":
            path.unlink()
        else:
            (job.work / "shard-00001.json").write_text("{")
        assert job.missing() == [1]
        with pytest.raises(ValueError, match="1 shards are missing"):
            job.finish()
    again = encode(model(), source, out=tmp_path / "codes", shard_rows=STEP)
    assert again.mean.equal(encode(model(), source, shard_rows=STEP).mean)


def test_ctrl_c_keeps_the_whole_shards_and_says_so(tmp_path: Path) -> None:
    def stopping(task: str, done: int, total: int | None, note: str = "") -> None:
        if done > 2 * STEP:
            raise KeyboardInterrupt

    source = Pictures(3 * STEP)
    with pytest.raises(KeyboardInterrupt, match="2 of 3 shards are kept: the same command goes on with the others"):
        encode(model(), source, out=tmp_path / "codes", shard_rows=STEP, progress=stopping)
    assert not (tmp_path / "codes").exists()
    encode(model(), source, out=tmp_path / "codes", shard_rows=STEP)
    assert litter(tmp_path) == []


def test_a_run_that_kept_nothing_leaves_nothing(tmp_path: Path) -> None:
    def broken(images: Tensor) -> tuple[Tensor, Tensor]:
        return gaussian(images)[0] * torch.nan, gaussian(images)[1]

    with pytest.raises(NonFiniteError, match=r"linear encodes image p0\.png of pictures as NaN or infinity"):
        encode(model(encode_with=broken), Pictures(50), out=tmp_path / "codes")
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_died_between_renaming_and_clearing_up_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(work: Path, target: Path) -> None:
        raise KeyboardInterrupt

    source = Pictures(100)
    with monkeypatch.context() as patched:
        patched.setattr(jobs, "discard", dies)
        with pytest.raises(KeyboardInterrupt):
            encode(model(), source, out=tmp_path / "codes")
    before = content(tmp_path / "codes")
    assert litter(tmp_path) == [".codes.encoding"]
    again = model(encode_with=lambda images: pytest.fail("encoded again"))
    assert len(encode(again, source, out=tmp_path / "codes")) == 100
    assert content(tmp_path / "codes") == before
    assert litter(tmp_path) == []
    with pytest.raises(OutputExistsError):
        encode(model(), source, out=tmp_path / "codes")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_wherever_clearing_up_ends_the_same_command_is_done_or_finds_nothing_to_go_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a folder that is deleted file by file, what is left at some moment says nothing of a whole encoding."""
    source, states = Pictures(2 * STEP), list[str]()
    monkeypatch.setattr(jobs, "discard", lambda work, target: None)
    for allowed in range(100):
        out = tmp_path / f"codes{allowed}"
        encode(model(), source, out=out, shard_rows=STEP)

        def killed_at(allowed: int = allowed, out: Path = out) -> None:
            left = allowed

            def counted(call: Callable[..., Any]) -> Callable[..., Any]:
                def counting(*given: Any, **options: Any) -> Any:
                    nonlocal left
                    if left == 0:
                        os.kill(os.getpid(), signal.SIGKILL)
                    left -= 1
                    return call(*given, **options)

                return counting

            for name in ("rename", "unlink", "rmdir", "mkdir"):
                setattr(os, name, counted(getattr(os, name)))
            work_folders.discard(out.parent / f".{out.name}.encoding", out)

        process = multiprocessing.get_context("fork").Process(target=killed_at)
        process.start()
        process.join()
        if process.exitcode == 0:
            break
        with monkeypatch.context() as patched:
            patched.setattr(jobs, "discard", work_folders.discard)
            try:
                encode(model(encode_with=lambda images: pytest.fail("encoded again")), source, out=out, shard_rows=STEP)
                states.append("done")
            except OutputExistsError:
                states.append("nothing to go on with")
        assert litter(tmp_path) == []
    assert states[:2] == ["done", "done"]
    assert set(states[2:]) == {"nothing to go on with"}
    assert len(states) > 5


def test_what_a_model_without_a_fingerprint_left_is_never_gone_on_with(tmp_path: Path) -> None:
    source, seen = Pictures(2 * STEP), list[int]()
    first = model(fingerprint=UNSTATED)
    with open_job(first, source, tmp_path / "codes", shard_rows=STEP) as job:
        write_shard(job.work, encode_shard(first, source, 0, job))

    def doubled(images: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(len(images))
        mean, log_variance = gaussian(images)
        return 2 * mean, log_variance

    found = encode(model(fingerprint=UNSTATED, encode_with=doubled), source, out=tmp_path / "codes", shard_rows=STEP)
    assert sum(seen) == 2 * STEP
    np.testing.assert_allclose(found.mean.numpy(), 2 * expected(torch.arange(2 * STEP))[0], atol=1e-4)


# What is refused, and leaves everything as it was


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"model": "other"}, r"differs in the model \(linear, weights weights of l there, other, weights weights of o here\)"),
        ({"source": Pictures(2 * STEP + 1, name="more")}, r"differs in the images \(pictures there, more here\)"),
        ({"dtype": "float16"}, r"differs in dtype \(float32 there, float16 here\)"),
        ({"shard_rows": 2 * STEP}, r"differs in shard rows \(4096 there, 8192 here\)"),
        ({"precision": "bfloat16"}, r"differs in precision asked for \(float32 there, bfloat16 here\)"),
        ({"versions": {"torch": "1.0"}}, r"differs in torch \(.* there, 1\.0 here\)"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_an_unfinished_encoding_of_something_else_is_named_and_left_alone(
    changed: dict[str, Any], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Pictures(2 * STEP)
    with open_job(model(), source, tmp_path / "codes", shard_rows=STEP) as job:
        write_shard(job.work, encode_shard(model(), source, 0, job))
    before = content(tmp_path)
    given = {"model": "linear", "source": source, "shard_rows": STEP, **changed}
    if "versions" in given:
        versions = given.pop("versions")
        monkeypatch.setattr(store, "package_versions", lambda: versions)
    with pytest.raises(SettingError, match=words) as raised:
        encode(model(given.pop("model")), given.pop("source"), out=tmp_path / "codes", **given)
    assert "\n" not in str(raised.value)
    assert content(tmp_path) == before
    monkeypatch.undo()
    encode(model(), source, out=tmp_path / "codes", shard_rows=STEP)


def test_a_folder_that_is_being_written_is_refused_with_the_number_of_the_process(tmp_path: Path) -> None:
    source = Pictures(2 * STEP)
    with open_job(model(), source, tmp_path / "codes", shard_rows=STEP) as job:
        write_shard(job.work, encode_shard(model(), source, 0, job))
        before = content(tmp_path)
        with pytest.raises(
            ArtifactError, match=rf"is being written by another process \({os.getpid()} on .*\)\. Wait"
        ) as raised:
            encode(model(), source, out=tmp_path / "codes", shard_rows=STEP)
        assert "\n" not in str(raised.value)
        assert content(tmp_path) == before
        assert job.missing() == [1]


def test_a_job_that_is_done_leaves_the_folder_of_the_next_one_alone(tmp_path: Path) -> None:
    with open_job(model(), Pictures(50), tmp_path / "codes") as job:
        write_shard(job.work, encode_shard(model(), Pictures(50), 0, job))
        job.finish()
        # Another process begins before this one has given its lock back.
        more = Pictures(20, start=50)
        following = open_job(model(), more, tmp_path / "codes", append=True)
    with following:
        write_shard(following.work, encode_shard(model(), more, 0, following))
        assert len(following.finish()) == 70
    assert litter(tmp_path) == []


def test_settings_out_of_their_range_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    source = Pictures(100)
    for given, kind, words in [
        ({"dtype": "float64"}, SettingError, "float32 or float16, not as float64"),
        ({"shard_rows": 1000}, SettingError, "multiple of 4096, got 1000"),
        ({"shard_rows": 0}, SettingError, "multiple of 4096, got 0"),
        ({"precision": "float8"}, UnknownNameError, "float8"),
        ({"append": True, "replace": True}, SettingError, "Leave one of the two out"),
    ]:
        with pytest.raises(kind, match=words):
            encode(model(), source, out=tmp_path / "codes", **given)  # type: ignore[arg-type]
    with pytest.raises(
        SettingError, match=r"1,000,000,000 images in shards of 8,192 are 122,071 files.*Give shards of 253952 rows"
    ):
        encode(model(), Pictures(1_000_000_000), out=tmp_path / "codes")
    with pytest.raises(ImageFormatError, match="pictures holds no images"):
        encode(model(), Pictures(0), out=tmp_path / "codes")
    with pytest.raises(ImageFormatError, match="pictures holds no images"):
        encode(model(), Pictures(0))
    assert list(tmp_path.iterdir()) == []


class DiskFull:
    """Lets so many of the calls that write succeed; then one fails, and after it each that needs room (renaming needs none)."""

    def __init__(self, patched: pytest.MonkeyPatch, allowed: int) -> None:
        self.allowed, self.calls = allowed, 0
        for name in ("fsync", "rename", "link"):
            patched.setattr(os, name, self.counted(getattr(os, name), needs_room=name == "fsync"))
        opened = io.open

        def counted_open(file: Any, mode: str = "r", *rest: Any, **options: Any) -> Any:
            if "w" in mode:
                self.spend(needs_room=True)
            return opened(file, mode, *rest, **options)

        patched.setattr(io, "open", counted_open)
        patched.setattr(builtins, "open", counted_open)

    def counted(self, call: Callable[..., Any], *, needs_room: bool) -> Callable[..., Any]:
        def counting(*arguments: Any, **options: Any) -> Any:
            self.spend(needs_room=needs_room)
            return call(*arguments, **options)

        return counting

    def spend(self, *, needs_room: bool) -> None:
        self.calls += 1
        if self.calls == self.allowed + 1 or (needs_room and self.calls > self.allowed):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("bad", [(), (3,)], ids=["linked", "put together anew"])
def test_a_full_disk_is_one_line_and_what_was_there_stays(
    bad: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Pictures(STEP + 10, bad=bad)
    encode(model(), source, out=tmp_path / "whole", shard_rows=STEP)
    encode(model("earlier"), Pictures(20), out=tmp_path / "codes")
    earlier, failures = content(tmp_path / "codes"), 0
    for allowed in range(1000):
        with monkeypatch.context() as patched:
            disk = DiskFull(patched, allowed)
            told = ""
            try:
                encode(model(), source, out=tmp_path / "codes", shard_rows=STEP, replace=True)
            except ArtifactError as failure:
                told = str(failure)
        if disk.calls <= allowed:
            break
        if not told:  # the whole encoding has its place: what was left to do is to clear up
            break
        failures += 1
        assert "\n" not in told
        assert "No space left on device" in told
        assert ("shards are kept" in told) == bool(list(tmp_path.glob(".codes.encoding/shard-*.json")))
        assert content(tmp_path / "codes") == earlier
        if allowed % 5 == 0:  # gone on with from here, elsewhere
            os.rename(tmp_path / ".codes.encoding", tmp_path / ".again.encoding") if litter(tmp_path) else None
            encode(model(), source, out=tmp_path / "again", shard_rows=STEP, replace=True)
            assert content(tmp_path / "again") == content(tmp_path / "whole")
    assert failures > 20
    assert content(tmp_path / "codes") == content(tmp_path / "whole")
    assert litter(tmp_path) == []


# Images that cannot be read


def test_bad_images_are_left_out_named_and_every_shard_is_full_again(tmp_path: Path) -> None:
    bad = (0, 17, STEP - 1, STEP, 2 * STEP + 3)
    source = Pictures(3 * STEP + 50, bad=bad)
    encoding = encode(model(), source, out=tmp_path / "codes", shard_rows=STEP)
    good = torch.tensor([index for index in range(len(source)) if index not in bad])
    np.testing.assert_allclose(encoding.mean.numpy(), expected(good)[0], atol=1e-5)
    assert encoding.indices is not None
    assert encoding.labels is not None
    assert encoding.indices.equal(good)
    assert encoding.labels.equal(good % 7)
    assert list(encoding.names) == [f"p{index}.png" for index in good.tolist()]
    assert encoding.skipped == tuple(SkippedImage(index=index, name=f"p{index}.png", reason="cut short") for index in bad)
    sizes = [len(np.load(tmp_path / "codes" / f"mean-{number:05d}.npy", mmap_mode="r")) for number in range(4)]
    assert sizes == [STEP, STEP, STEP, 50 - len(bad)]
    memory = encode(model(), source, shard_rows=STEP)
    assert memory.mean.equal(encoding.mean)
    assert memory.skipped == encoding.skipped
    assert memory.images_hash == encoding.images_hash


def test_a_shard_without_one_good_image_leaves_no_gap(tmp_path: Path) -> None:
    source = Pictures(2 * STEP + 10, bad=tuple(range(STEP, 2 * STEP)))
    encoding = encode(model(), source, out=tmp_path / "codes", shard_rows=STEP)
    assert encoding.indices is not None
    assert encoding.indices.tolist() == [*range(STEP), *range(2 * STEP, 2 * STEP + 10)]
    assert len(encoding) == STEP + 10 == len(encoding.mean)
    assert encoding.log_variance is not None


def test_more_left_out_images_than_a_config_takes_are_kept_in_a_file(tmp_path: Path) -> None:
    bad = tuple(range(1, 2000))
    encode(model(), Pictures(STEP, bad=bad), out=tmp_path / "codes")
    encoding = encode(model(), Pictures(50, start=STEP, bad=(3,)), out=tmp_path / "codes", append=True)
    assert [each.index for each in encoding.skipped] == [*bad, STEP + 3]
    assert {each.reason for each in encoding.skipped} == {"cut short"}
    encoding.save_pretrained(tmp_path / "again")
    for folder in ("codes", "again"):  # of more than MOST_JSON bytes it could not be read
        assert (tmp_path / folder / CONFIG).stat().st_size < 5000
    assert Encoding.from_pretrained(tmp_path / "again").skipped == encoding.skipped
    lines = (tmp_path / "codes" / "skipped.jsonl").read_text().splitlines()
    assert [json.loads(line)["name"] for line in lines] == [each.name for each in encoding.skipped]
    (tmp_path / "codes" / "skipped.jsonl").write_text("\n".join([*lines[:5], "{"]))
    for verify in (True, False):
        with pytest.raises(ArtifactError, match=r"damaged|not a readable encoding"):
            Encoding.from_pretrained(tmp_path / "codes", verify=verify)


def test_a_shard_that_leaves_out_more_than_a_record_takes_is_whole_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit of a record lowered to what these images take: of shards of a million long names it is that of any."""
    monkeypatch.setattr(artifacts, "MOST_JSON", 50_000)
    bad = tuple(range(1, 2000))
    source = Pictures(2 * STEP, bad=bad)
    with open_job(model(), source, tmp_path / "codes", shard_rows=STEP) as job:
        write_shard(job.work, encode_shard(model(), source, 0, job))
        assert job.missing() == [1]
        lines = job.work / "skipped-00000.jsonl"
        assert lines.stat().st_size > 50_000
        assert all(path.stat().st_size < 50_000 for path in job.work.glob("*.json"))
    encoding = encode(model(), source, out=tmp_path / "codes", shard_rows=STEP)
    assert tuple(each.index for each in encoding.skipped) == bad
    assert {each.name for each in encoding.skipped} == {f"p{index}.png" for index in bad}
    assert len(encoding) == len(encoding.names) == 2 * STEP - len(bad)
    assert Encoding.from_pretrained(tmp_path / "codes").skipped == encoding.skipped


@pytest.mark.parametrize("damage", ["cut short", "gone"])
def test_a_shard_without_its_list_of_what_was_left_out_is_computed_again(damage: str, tmp_path: Path) -> None:
    source = Pictures(2 * STEP, bad=tuple(range(1, 2000)))
    with open_job(model(), source, tmp_path / "codes", shard_rows=STEP) as job:
        for number in (0, 1):
            write_shard(job.work, encode_shard(model(), source, number, job))
        lines = job.work / "skipped-00000.jsonl"
        lines.unlink() if damage == "gone" else lines.write_bytes(lines.read_bytes()[:-1])
        assert job.missing() == [0]
    assert len(encode(model(), source, out=tmp_path / "codes", shard_rows=STEP).skipped) == 1999


def test_shards_of_before_that_list_in_their_record_what_they_left_out_are_gone_on_with(tmp_path: Path) -> None:
    source = Pictures(2 * STEP, bad=(3,))
    with open_job(model(), source, tmp_path / "codes", shard_rows=STEP) as job:
        write_shard(job.work, encode_shard(model(), source, 0, job))
        path = job.work / "shard-00000.json"
        record = json.loads(path.read_text())
        del record["others"]
        record["skipped"] *= 1500
        path.write_text(json.dumps(record))
        assert job.missing() == [1]
    assert len(encode(model(), source, out=tmp_path / "codes", shard_rows=STEP).skipped) == 1500


def test_not_one_good_image_is_an_error(tmp_path: Path) -> None:
    source = Pictures(10, bad=tuple(range(10)))
    with pytest.raises(ImageFormatError, match=r"Not one image of pictures could be read; the first: p0\.png \(cut short\)"):
        encode(model(), source, out=tmp_path / "codes")
    with pytest.raises(ImageFormatError, match="Not one image of pictures could be read"):
        encode(model(), source)
    assert not (tmp_path / "codes").exists()


def test_the_first_bad_picture_stops_it_and_the_shards_before_it_are_kept(tmp_path: Path) -> None:
    class Stopping(Pictures):
        def blocks(self, bounds: Iterable[tuple[int, int]]) -> Iterator[PixelBlock]:
            for block in super().blocks(bounds):
                if block.skipped:
                    raise ImageFormatError(f"{block.skipped[0].name} is cut short.")
                yield block

    with pytest.raises(ImageFormatError, match=r"^p5000\.png is cut short\. 1 of 3 shards are kept\.$"):
        encode(model(), Stopping(3 * STEP, bad=(5000,)), out=tmp_path / "codes", shard_rows=STEP)
    found = encode(model(), Pictures(3 * STEP, bad=(5000,)), out=tmp_path / "codes", shard_rows=STEP)  # now it may skip
    assert len(found) == 3 * STEP - 1


def test_names_and_codes_of_an_open_encoding_stay_when_its_folder_is_replaced(tmp_path: Path) -> None:
    first = encode(model(), Pictures(100), out=tmp_path / "codes")
    encode(model(), Pictures(50, start=7000), out=tmp_path / "codes", replace=True)
    assert (len(first.names), first.names[99]) == (100, "p99.png")
    np.testing.assert_allclose(first.mean.numpy(), expected(torch.arange(100))[0], atol=1e-5)


# Which images


def test_images_are_known_by_their_pixels_however_they_came(tmp_path: Path) -> None:
    indices = torch.arange(STEP + 500)
    images = ImageSet("in memory", pixels_of(indices))
    lazy = encode(model(), Pictures(len(indices)), out=tmp_path / "lazy", shard_rows=STEP)
    kept = encode(model("other"), images, out=tmp_path / "kept", shard_rows=2 * STEP)
    plain = encode(model("plain"), images)
    assert (kept.images_hash, plain.images_hash) == (images.content_hash, images.content_hash)
    assert lazy.images_tree == kept.images_tree == tree_of(images)
    require_paired(lazy, kept)
    require_paired(kept, plain)
    for encoding in (lazy, kept, plain):
        assert encoding.is_of(images)
        assert not encoding.is_of(ImageSet("turned", images.storage.flip(0)))
        assert not encoding.is_of(images.slice(0, 500))


def test_hashes_are_those_of_each_images_type_shape_and_pixels() -> None:
    pixels = pixels_of(torch.arange(6))
    hashes = image_hashes(pixels)
    assert hashes.shape == (6, 32)
    assert len({bytes(row) for row in hashes}) == 6
    np.testing.assert_array_equal(hashes[2:4], image_hashes(pixels[2:4]))
    for other in (pixels.view(6, 1, 4, 3), pixels.float(), pixels.view(torch.int8)):
        assert not (image_hashes(other) == hashes).all(axis=1).any()


# Appending


def test_appended_codes_follow_those_that_were_there(tmp_path: Path) -> None:
    first, more = Pictures(STEP + 1000, named=False), Pictures(2 * STEP, start=STEP + 1000, bad=(5,), name="more")
    encode(model(), first, out=tmp_path / "codes", shard_rows=STEP)
    kept = (tmp_path / "codes" / "mean-00000.npy").stat().st_ino
    both = encode(model(), more, out=tmp_path / "codes", append=True)
    indices = torch.tensor([index for index in range(3 * STEP + 1000) if index != STEP + 1005])
    np.testing.assert_allclose(both.mean.numpy(), expected(indices)[0], atol=1e-5)
    assert both.indices is not None
    assert both.labels is not None
    assert both.indices.equal(indices)
    assert both.labels.equal(indices % 7)
    assert (both.names[0], both.names[STEP + 1000]) == ("#0", f"p{STEP + 1000}.png")
    assert both.skipped == (SkippedImage(index=STEP + 1005, name=f"p{STEP + 1005}.png", reason="cut short"),)
    assert both.images == "pictures + more"
    assert (tmp_path / "codes" / "mean-00000.npy").stat().st_ino == kept, "a whole shard is linked, not copied"
    assert both.is_of(ImageSet("all", pixels_of(indices)))
    sizes = [len(np.load(tmp_path / "codes" / f"mean-{number:05d}.npy", mmap_mode="r")) for number in range(4)]
    assert sizes == [STEP, STEP, STEP, 999]
    assert Encoding.from_pretrained(tmp_path / "codes").mean.equal(both.mean)  # every hash is right
    assert litter(tmp_path) == []


def test_appending_fills_the_short_shard_and_links_the_others(tmp_path: Path) -> None:
    """The first of the new shards holds what the last of the old ones has room for."""
    encode(model(), Pictures(1000), out=tmp_path / "codes", shard_rows=STEP)
    more = Pictures(3 * STEP, start=1000, name="more")
    with open_job(model(), more, tmp_path / "codes", append=True) as job:
        assert [job.bounds(number) for number in range(job.shards)] == [
            (0, STEP - 1000), (STEP - 1000, 2 * STEP - 1000), (2 * STEP - 1000, 3 * STEP - 1000), (3 * STEP - 1000, 3 * STEP)
        ]  # fmt: skip
        for number in job.missing():
            write_shard(job.work, encode_shard(model(), more, number, job))
        linked = (job.work / "mean-00001.npy").stat().st_ino
        job.finish()
    assert (tmp_path / "codes" / "mean-00001.npy").stat().st_ino == linked


def test_appending_to_nothing_begins_and_appending_twice_is_refused(tmp_path: Path) -> None:
    source = Pictures(100)
    encode(model(), source, out=tmp_path / "codes", append=True)
    before = content(tmp_path / "codes")
    with pytest.raises(OutputExistsError, match="already holds the codes of these images"):
        encode(model(), source, out=tmp_path / "codes", append=True)
    assert content(tmp_path) == {f"codes/{name}": held for name, held in before.items()}


def test_two_models_codes_are_paired_after_appending_to_both(tmp_path: Path) -> None:
    for name, rows in (("a", STEP), ("b", 2 * STEP)):
        for source in (Pictures(STEP + 3), Pictures(100, start=9000)):
            encode(model(name), source, out=tmp_path / name, shard_rows=rows, append=True)
    require_paired(Encoding.from_pretrained(tmp_path / "a"), Encoding.from_pretrained(tmp_path / "b"))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"model": "other"}, r"they differ in the model \(linear, .* there, other, .* here\)"),
        ({"dtype": "float16"}, r"they differ in dtype \(float32 there, float16 here\)"),
        ({"shard_rows": 2 * STEP}, r"they differ in shard rows \(4096 there, 8192 here\)"),
    ],
)
def test_codes_of_another_kind_are_not_appended(changed: dict[str, Any], words: str, tmp_path: Path) -> None:
    encode(model(), Pictures(100), out=tmp_path / "codes", shard_rows=STEP)
    before = content(tmp_path)
    with pytest.raises(SettingError, match=words):
        encode(model(changed.pop("model", "linear")), Pictures(50, start=100), out=tmp_path / "codes", append=True, **changed)
    assert content(tmp_path) == before


def test_an_encoding_saved_from_memory_cannot_be_appended_to(tmp_path: Path) -> None:
    encode(model(), Pictures(100)).save_pretrained(tmp_path / "codes")
    with pytest.raises(SettingError, match="keeps no hashes of its images"):
        encode(model(), Pictures(50, start=100), out=tmp_path / "codes", append=True)


def test_an_append_that_was_cut_off_leaves_the_earlier_encoding_and_goes_on(tmp_path: Path) -> None:
    first, more = Pictures(1000), Pictures(4 * STEP, start=1000, name="more")
    for name in ("codes", "whole"):
        encode(model(), first, out=tmp_path / name, shard_rows=STEP)
    earlier = content(tmp_path / "codes")
    encode(model(), more, out=tmp_path / "whole", append=True)
    with open_job(model(), more, tmp_path / "codes", append=True) as job:
        for number in (0, 3):
            write_shard(job.work, encode_shard(model(), more, number, job))
    assert content(tmp_path / "codes") == earlier
    encode(model(), more, out=tmp_path / "codes", append=True)
    assert content(tmp_path / "codes") == content(tmp_path / "whole")


def test_an_append_that_died_between_two_renames_finds_the_earlier_encoding_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, more = Pictures(1000), Pictures(500, start=1000, name="more")
    for name in ("codes", "whole"):
        encode(model(), first, out=tmp_path / name)
    encode(model(), more, out=tmp_path / "whole", append=True)
    rename = os.rename

    def dies(source: Any, target: Any) -> None:
        if Path(target) == tmp_path / "codes":
            raise KeyboardInterrupt  # which nobody on the way takes for a failure to be mended
        rename(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(placing, "_renamed", lambda *_: False)  # a system that cannot exchange two names
        patched.setattr(os, "rename", dies)
        with pytest.raises(KeyboardInterrupt):
            encode(model(), more, out=tmp_path / "codes", append=True)
    assert not (tmp_path / "codes").exists()
    encode(model(), more, out=tmp_path / "codes", append=True)
    assert content(tmp_path / "codes") == content(tmp_path / "whole")
    assert litter(tmp_path) == []


def test_nothing_is_appended_to_what_was_changed_meanwhile(tmp_path: Path) -> None:
    more = Pictures(500, start=1000, name="more")
    encode(model(), Pictures(1000), out=tmp_path / "codes")
    with open_job(model(), more, tmp_path / "codes", append=True) as job:
        write_shard(job.work, encode_shard(model(), more, 0, job))
        encode(model(), Pictures(20)).save_pretrained(tmp_path / "codes", replace=True)
        with pytest.raises(ArtifactError, match="was changed while"):
            job.finish()
    assert len(Encoding.from_pretrained(tmp_path / "codes")) == 20


# Half precision


def test_half_precision_is_numpys_rounding_and_every_statistic_takes_it(tmp_path: Path) -> None:
    source = Pictures(2 * STEP)
    single = encode(model(), source, shard_rows=STEP)
    half = encode(model(), source, out=tmp_path / "half", shard_rows=STEP, dtype="float16")
    assert (half.mean.dtype, np.load(tmp_path / "half" / "mean-00000.npy").dtype) == (torch.float16, np.float16)
    np.testing.assert_array_equal(half.mean.numpy(), single.mean.numpy().astype(np.float16))
    exact = half.mean.numpy().astype(np.float64)
    np.testing.assert_allclose(half.moments().means.mean, exact.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(half.moments().variance_of_means, exact.var(axis=0), rtol=1e-11)
    target = encode(model("b", encode_with=lambda images: gaussian(images)[1]), source)
    found = fit_map(half, target)
    design = np.column_stack([exact, np.ones(len(exact))])
    solved = np.linalg.lstsq(design, target.mean.double().numpy(), rcond=None)[0]
    np.testing.assert_allclose(found.weight.numpy(), solved[:-1], rtol=0, atol=1e-8)


def test_a_code_that_half_precision_cannot_hold_is_named(tmp_path: Path) -> None:
    large = model(encode_with=lambda images: tuple(1e5 * part for part in gaussian(images)))
    with pytest.raises(SettingError, match=r"image p\d+\.png of pictures as numbers up to .*float16 ends at 65504"):
        encode(large, Pictures(50), out=tmp_path / "codes", dtype="float16")


# Opening


def test_opening_without_verifying_finds_what_is_missing_and_not_what_is_changed(tmp_path: Path) -> None:
    folder = tmp_path / "codes"
    encode(model(), Pictures(STEP + 5), out=folder, shard_rows=STEP)
    path = folder / "mean-00001.npy"
    held = path.read_bytes()
    path.write_bytes(held[:-1] + bytes([held[-1] ^ 1]))
    with pytest.raises(ArtifactError, match=r"mean-00001\.npy is damaged"):
        Encoding.from_pretrained(folder)
    assert len(Encoding.from_pretrained(folder, verify=False)) == STEP + 5
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match=r"not a readable encoding \(mean-00001\.npy is cut short\)"):
        Encoding.from_pretrained(folder, verify=False)
    path.unlink()
    with pytest.raises(ArtifactError, match=r"incomplete: mean-00001\.npy is missing"):
        Encoding.from_pretrained(folder, verify=False)


@pytest.mark.parametrize(
    "changed",
    [
        {"rows": 7},
        {"rows": 10**15},
        {"shard_rows": 10**6},
        {"shard_rows": 0},
        {"shard_rows": -1},
        {"rows": "many"},
        {"skipped": [3]},
    ],
    ids=str,
)
def test_a_config_that_its_files_contradict_is_not_readable(changed: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "codes"
    encode(model(), Pictures(STEP + 5), out=folder, shard_rows=STEP)
    record = json.loads((folder / CONFIG).read_text())
    record["settings"] |= changed
    record.pop("checksum", None)  # as a stranger would
    (folder / CONFIG).write_text(json.dumps(record))
    with pytest.raises(ArtifactError, match="not a readable encoding"):
        Encoding.from_pretrained(folder)


def test_an_encoding_of_the_first_format_still_opens(tmp_path: Path) -> None:
    """Written as the first latlas did: two files of NumPy's, and nothing of rows, shards or indices."""
    whole = encode(model(), Pictures(30))
    whole.save_pretrained(tmp_path / "new")
    folder = tmp_path / "old"
    folder.mkdir()
    record = json.loads((tmp_path / "new" / CONFIG).read_text())
    record["settings"] = {name: record["settings"][name] for name in ("model", "images", "images_hash")}
    for name in ("mean", "log_variance"):
        np.save(folder / f"{name}.npy", getattr(whole, name).numpy())
    record["files"] = {f"{name}.npy": file_hash(folder / f"{name}.npy") for name in ("mean", "log_variance")}
    record.pop("checksum", None)  # as a stranger would
    (folder / CONFIG).write_text(json.dumps(record))
    opened = Encoding.from_pretrained(folder)
    assert opened.mean.equal(whole.mean)
    assert (opened.indices, list(opened.names), opened.labels) == (None, [], None)
    assert opened.name_of(3) == "#3"


def test_a_sharded_encoding_saved_again_is_one_file_with_everything_in_it(tmp_path: Path) -> None:
    stored = encode(model(), Pictures(STEP + 50, bad=(3,)), out=tmp_path / "codes", shard_rows=STEP)
    stored.save_pretrained(tmp_path / "copy")
    again = Encoding.from_pretrained(tmp_path / "copy")
    for name in ("mean", "log_variance", "indices", "labels"):
        assert getattr(again, name).equal(getattr(stored, name))
    assert list(again.names) == list(stored.names)
    for name in ("skipped", "images_hash", "images_tree", "provenance", "model", "images"):
        assert getattr(again, name) == getattr(stored, name)
    assert len(np.load(tmp_path / "copy" / "mean.npy")) == STEP + 49


def test_chosen_rows_keep_names_labels_and_positions(tmp_path: Path) -> None:
    stored = encode(model(), Pictures(STEP + 50, bad=(3,)), out=tmp_path / "codes", shard_rows=STEP)
    taken = stored.take(torch.tensor([3, STEP]))
    assert taken.indices is not None
    assert taken.labels is not None
    assert taken.indices.tolist() == [4, STEP + 1]
    assert taken.names == ("p4.png", f"p{STEP + 1}.png")
    assert taken.labels.tolist() == [4, (STEP + 1) % 7]


def test_names_are_kept_whatever_is_in_them(tmp_path: Path) -> None:
    names = ("ä/ö.png", "a b\n", "日本", "x" * 300, "\udcff", "")
    images = ImageSet("named", pixels_of(torch.arange(6)), names=names)
    stored = encode(model(), images, out=tmp_path / "codes")
    assert tuple(stored.names) == names


# What goes to another process


def test_a_job_sent_to_another_process_is_its_plan_without_the_lock(tmp_path: Path) -> None:
    source = Pictures(2 * STEP)
    with open_job(model(), source, tmp_path / "codes", shard_rows=STEP) as job:
        sent = copy.copy(job)  # as pickling does
        assert type(sent) is ShardPlan
        shards = [encode_shard(model(), source, number, plan) for plan in (sent, job) for number in (1,)]
        assert shards[0].mean.equal(shards[1].mean)
        write_shard(sent.folder, shards[0])  # type: ignore[arg-type]
        assert job.missing() == [0]


def test_the_bounds_of_shards_part_the_images() -> None:
    plan = ShardPlan(
        folder=None,
        count=3 * STEP + 7,
        shard_rows=STEP,
        batch_size=1000,
        dtype="float32",
        precision=Precision(autocast="float32", channels_last=False, why=""),
        hashed=False,
    )
    for lead in (None, 1, 700, STEP):
        for count in (1, 699, 700, 701, STEP, STEP + 1, 3 * STEP + 7):
            each = replace(plan, lead=lead, count=count)
            covered = [index for number in range(each.shards) for index in range(*each.bounds(number))]
            assert covered == list(range(count))
            for number in range(each.shards):
                batched = [index for batch in each.batches(number) for index in range(*batch)]
                assert batched == list(range(*each.bounds(number)))
                assert batched
    with pytest.raises(IndexError):
        plan.bounds(4)


# Precision


def test_bfloat16_is_chosen_once_and_kept_by_a_run_that_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = torch.nn.Conv2d(1, LATENT, (3, 4))

    class Net(torch.nn.Module):
        name, image_shape, latent_shape, fingerprint = "net", SHAPE, (LATENT,), "net"

        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def encode(self, images: Tensor) -> Any:
            seen.append(self.layer(images).dtype)
            return Posterior(self.layer(images).flatten(1))

    seen = list[torch.dtype]()
    source = Pictures(2 * STEP)
    monkeypatch.setattr("latlas.training.precision.has_bfloat16", lambda device: True)
    with open_job(Net(), source, tmp_path / "codes", shard_rows=STEP, precision="auto") as job:
        assert (job.precision.autocast, job.precision.channels_last) == ("bfloat16", True)
        write_shard(job.work, encode_shard(Net(), source, 0, job))
    monkeypatch.setattr("latlas.training.precision.has_bfloat16", lambda device: False)  # gone on with on another machine
    found = encode(Net(), source, out=tmp_path / "codes", shard_rows=STEP, precision="auto")
    assert set(seen) == {torch.bfloat16}
    assert found.provenance.settings["precision"]["autocast"] == "bfloat16"
    plain = encode(Net(), source, shard_rows=STEP)
    assert plain.provenance.settings["precision"] == {"autocast": "float32", "channels_last": False, "why": "asked for"}
    torch.testing.assert_close(found.mean, plain.mean, rtol=0.05, atol=0.02)
    assert not found.mean.equal(plain.mean)
