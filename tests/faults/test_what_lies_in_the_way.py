"""What others have put where latlas writes: links, pipes, folders of their own; and the rights of what is written."""

import errno
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from latlas.base import locking
from latlas.base.artifacts import check_free, read_config, save_tensors, write_config, write_file, writing
from latlas.base.errors import ArtifactError, LatlasError, OutputExistsError
from latlas.base.locking import LOCK, FolderLock
from latlas.base.placing import sync_folder
from latlas.base.provenance import Provenance
from latlas.data.images import ImageSet
from latlas.encodings.arrays import write_bytes
from latlas.encodings.encode import encode
from latlas.encodings.encoding import Encoding
from latlas.encodings.shards import encode_shards, write_shard
from latlas.encodings.store import open_job, work_folder
from latlas.models.architectures.dense import Dense
from latlas.models.vae import VAE

IMAGES = ImageSet(name="i", storage=torch.arange(48, dtype=torch.uint8).reshape(3, 1, 4, 4))


def make(folder: Path, *, replace: bool = False) -> Path:
    with writing(folder, replace=replace) as beside:
        (beside / "within").mkdir()
        (beside / "within" / "a.txt").write_text("content")
        save_tensors(beside / "t.safetensors", {"a": torch.ones(2)})
        write_config(beside, kind="thing", settings={}, provenance=Provenance(made_by="test"))
    return folder


@pytest.fixture
def model() -> VAE:
    torch.manual_seed(0)
    return VAE(Dense(widths=(4,), latent=2), (1, 4, 4))


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    """A file of the user's, elsewhere."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("years of work")
    return tmp_path / "home" / "thesis.txt"


# Rights


@pytest.fixture
def mask() -> Iterator[None]:
    """Put back what a test sets."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.usefixtures("mask")
@pytest.mark.parametrize("hidden", [0o022, 0o077, 0o002, 0o027])
def test_everything_written_has_the_rights_that_the_users_mask_leaves(hidden: int, tmp_path: Path) -> None:
    os.umask(hidden)
    folder = make(tmp_path / "artifact")
    write_file(tmp_path / "one.bin", lambda stream: stream.write(b"x"))
    write_bytes(tmp_path / "two.bin", [b"x"])
    for path in (folder, *folder.rglob("*"), tmp_path / "one.bin", tmp_path / "two.bin"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o777 if path.is_dir() else 0o666) & ~hidden, path.name


@pytest.mark.usefixtures("mask")
def test_a_folder_that_a_group_shares_goes_on_being_shared(tmp_path: Path) -> None:
    os.umask(0o002)
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o2775)
    for _ in range(2):
        assert stat.S_IMODE(make(shared / "artifact", replace=True).stat().st_mode) == 0o2775


def test_the_disk_has_the_names_before_and_after_the_artifact_has_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A renamed folder whose own list of names was never written would come back empty after a power cut."""
    synced, kept = [], os.fsync

    def fsync(descriptor: int) -> None:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            synced.append((status.st_ino, (tmp_path / "artifact").exists()))
        kept(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    folder = make(tmp_path / "artifact")
    before, after = ({number for number, there in synced if there == late} for late in (False, True))
    assert {folder.stat().st_ino, (folder / "within").stat().st_ino} <= before
    assert tmp_path.stat().st_ino in after


def test_an_artifact_that_has_its_place_is_not_told_of_as_unwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the disk says then: the earlier one is gone."""
    kept = os.fsync

    def fsync(descriptor: int) -> None:
        if (tmp_path / "artifact").exists():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        kept(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    assert read_config(make(tmp_path / "artifact"), kind="thing")


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_a_file_system_that_syncs_no_folder_is_written_to_all_the_same(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fsync)
    sync_folder(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.EIO, "broken")))
    with pytest.raises(OSError, match="broken"):
        sync_folder(tmp_path)


# Places that cannot be taken are told before any work


def test_what_is_no_folder_is_refused_in_one_line(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for place in (Path(os.devnull), tmp_path / "pipe"):
        with pytest.raises(OutputExistsError, match="name a folder that does not exist yet"):
            check_free(place)


@pytest.mark.parametrize("target", ["empty", "nowhere"])
def test_a_link_into_whose_place_nothing_can_be_renamed_is_refused_before_any_work(target: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(target)
    for replace in (False, True):
        with pytest.raises(OutputExistsError, match="is a link; name the folder that it leads to"):
            check_free(tmp_path / "link", replace=replace)


def test_whatever_name_is_free_by_its_length_can_be_written_to(tmp_path: Path) -> None:
    """A name that is one byte too long was refused only when the work was done: the folder beside it has a longer one."""
    longest = next(
        length for length in range(os.pathconf(tmp_path, "PC_NAME_MAX") + 2, 0, -1) if _is_free(tmp_path / ("n" * length))
    )
    make(tmp_path / ("n" * longest))
    make(tmp_path / ("n" * longest), replace=True)
    with pytest.raises(ArtifactError, match=f"names have at most {longest} bytes"):
        check_free(tmp_path / ("é" * (longest // 2 + 1)))
    with pytest.raises(ArtifactError, match="Shorten it"):
        check_free(tmp_path / ("n" * 300) / "artifact")


def _is_free(place: Path) -> bool:
    try:
        check_free(place)
    except ArtifactError:
        return False
    return True


def test_a_pipe_that_looks_left_over_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".a.0123abcd.partial")
    code = f"from latlas.base.artifacts import check_free; check_free({str(tmp_path / 'a')!r})"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become nobody")
def test_what_may_not_be_read_is_one_line(tmp_path: Path) -> None:
    """Root reads everything, so a process of nobody's looks."""
    folder = make(tmp_path / "open" / "artifact")
    make(tmp_path / "open" / "shut").chmod(0o600)
    (folder / "t.safetensors").chmod(0)
    (tmp_path / "open").chmod(0o777)
    code = f"""
import os, sys
from latlas.base.artifacts import check_free, read_config
from latlas.base.errors import LatlasError
os.chdir({str(tmp_path / "open")!r})
os.setgid(65534)
os.setuid(65534)
for what in (lambda: read_config("artifact", kind="thing"), lambda: read_config("shut", kind="thing"), lambda: check_free("shut")):
    try:
        what()
        print("read")
    except LatlasError as failure:
        print(failure)
"""
    done = subprocess.run([sys.executable, "-B", "-c", code], check=False, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 3, done.stderr
    assert all("Permission denied" in line for line in lines), lines


# Work folders


@pytest.mark.parametrize("leads_to", ["home/thesis.txt", "no/such/place"])
def test_a_link_in_the_locks_place_has_nothing_written_where_it_leads(leads_to: str, precious: Path, tmp_path: Path) -> None:
    """In a folder that others may write to it would empty any file of whoever encodes there; one that leads nowhere never ended."""
    work = tmp_path / ".out.encoding"
    work.mkdir()
    (work / LOCK).symlink_to(tmp_path / leads_to)
    code = f"""
from pathlib import Path
from latlas.base.errors import ArtifactError
from latlas.base.locking import FolderLock
try:
    FolderLock(Path({str(work)!r}))
except ArtifactError as failure:
    print(failure)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=30)
    assert "Could not write" in done.stdout
    assert precious.read_text() == "years of work"


def test_a_pipe_in_the_locks_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    os.mkfifo(tmp_path / "work" / LOCK)
    with pytest.raises(ArtifactError, match="is no file"):
        FolderLock(tmp_path / "work")


def test_a_link_in_the_place_of_a_file_that_is_written_has_nothing_written_where_it_leads(
    precious: Path, tmp_path: Path
) -> None:
    (tmp_path / ".job.json.partial").symlink_to(precious)
    (tmp_path / "job.json").symlink_to(precious)
    write_bytes(tmp_path / "job.json", [b"{}"])
    assert precious.read_text() == "years of work"
    assert (tmp_path / "job.json").read_bytes() == b"{}"
    assert not (tmp_path / "job.json").is_symlink()


def test_two_that_write_one_file_at_once_both_write_it_whole(tmp_path: Path) -> None:
    """As a worker does that was given up for dead, and the one that has its work since."""

    def late() -> Iterator[bytes]:
        yield b"who"
        write_bytes(tmp_path / "shard", [b"whole"])
        yield b"le"

    write_bytes(tmp_path / "shard", late())
    assert (tmp_path / "shard").read_bytes() == b"whole"
    assert [path.name for path in tmp_path.iterdir()] == ["shard"]


def test_what_a_killed_process_had_half_written_does_not_pile_up(model: VAE, tmp_path: Path) -> None:
    with open_job(model, IMAGES, tmp_path / "out") as job:
        write_shard(job.work, next(iter(encode_shards(model, IMAGES, [0], job))))
        half = job.work / ".mean-00001.npy.0123abcd.partial"
        half.write_bytes(b"half")
    with open_job(model, IMAGES, tmp_path / "out") as job:
        assert not half.exists()
        assert job.missing() == []


@pytest.mark.parametrize("kind", ["link", "folder"])
def test_a_folder_of_somebody_elses_in_a_work_folders_place_keeps_all_that_it_holds(
    kind: str, model: VAE, precious: Path, tmp_path: Path
) -> None:
    work = work_folder(tmp_path / "out")
    if kind == "link":
        work.symlink_to(precious.parent)
    else:
        precious = precious.parent.rename(work) / precious.name
    with pytest.raises(
        ArtifactError, match="is a link" if kind == "link" else "holds 'thesis.txt', which latlas did not write"
    ):
        encode(model, IMAGES, out=tmp_path / "out")
    assert precious.read_text() == "years of work"
    assert [path.name for path in precious.parent.iterdir()] == [precious.name]


def test_a_training_empties_no_folder_of_somebody_elses_either(precious: Path, tmp_path: Path) -> None:
    from latlas.training.resumable import held_work_folder

    precious = precious.parent.rename(tmp_path / ".model.training") / precious.name
    with (
        pytest.raises(ArtifactError, match="which latlas did not write"),
        held_work_folder(tmp_path / "model", Provenance(made_by="test")),
    ):
        pass
    assert precious.read_text() == "years of work"


def test_who_removes_a_lock_by_hand_loses_nothing(model: VAE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is what people do who read of another process that they know to be dead."""
    from latlas.encodings import jobs

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(jobs, "assemble", full)
        with pytest.raises(ArtifactError, match="1 of 1 shards are kept"):
            encode(model, IMAGES, out=tmp_path / "out")
    (work_folder(tmp_path / "out") / LOCK).unlink()
    assert len(encode(model, IMAGES, out=tmp_path / "out")) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_a_work_folder_names_as_half_put_together_is_removed_only_if_it_can_be(model: VAE, tmp_path: Path) -> None:
    kept = make(tmp_path / ".out.training")  # a name that begins as those beside `out` do, and is another's
    work = work_folder(tmp_path / "out")
    work.mkdir()
    for name, content in ((LOCK, ""), ("staged", kept.name)):
        (work / name).write_text(content)
    encode(model, IMAGES, out=tmp_path / "out")
    assert read_config(kept, kind="thing")


def test_a_place_whose_name_is_no_text_is_written_to(model: VAE, tmp_path: Path) -> None:
    place = tmp_path / os.fsdecode(b"caf\xe9")
    try:
        place.mkdir()
    except OSError:
        pytest.skip("this file system takes no such names")
    encode(model, IMAGES, out=place / os.fsdecode(b"\xfe"))
    assert len(Encoding.from_pretrained(place / os.fsdecode(b"\xfe"))) == 3


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK])
def test_a_file_system_without_locks_is_worked_on(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As some of clusters are; what can hold nothing is told of nobody who would."""

    class Without:
        LOCK_EX, LOCK_NB = 2, 4

        @staticmethod
        def flock(descriptor: int, operation: int) -> None:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(locking, "fcntl", Without)
    lock = FolderLock(tmp_path / "work")
    assert lock.held
    lock.release()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing is forked here")
def test_a_forked_process_that_outlives_the_holder_holds_nothing(tmp_path: Path) -> None:
    """The workers that decode live for seconds after their parent was killed, and one that hangs in a read for ever."""
    lock = FolderLock(tmp_path / "work")
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(told, b"x")
        signal.pause()
    try:
        os.read(ready, 1)
        assert lock.held, "the child lets go of its own, and of no more"
        with pytest.raises(ArtifactError, match="another process"):
            FolderLock(tmp_path / "work")
        lock.release()
        FolderLock(tmp_path / "work").release()
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
        os.close(ready)
        os.close(told)


# What is appended to


def test_an_encoding_whose_config_latlas_never_wrote_is_refused_in_one_line(model: VAE, tmp_path: Path) -> None:
    encode(model, IMAGES, out=tmp_path / "whole")
    whole = json.loads((tmp_path / "whole" / "config.json").read_text())
    del whole["checksum"]
    others = ImageSet(name="j", storage=IMAGES.storage + 1)
    odd = (None, 3, "x", -1, [], [3], [{}], [{"count": "x", "listing_hash": "y"}], {})
    refused = 0
    for where in ("settings", "provenance"):
        for key in whole[where]:
            without = {name: each for name, each in whole[where].items() if name != key}
            for changed in (without, *({**without, key: value} for value in odd)):
                shutil.rmtree(tmp_path / "out", ignore_errors=True)
                shutil.copytree(tmp_path / "whole", tmp_path / "out")
                (tmp_path / "out" / "config.json").write_text(json.dumps({**whole, where: changed}))
                try:
                    encode(model, others, out=tmp_path / "out", append=True)
                except LatlasError:  # and nothing else: of some words nothing depends
                    refused += 1
    assert refused > 50
