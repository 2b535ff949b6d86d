"""Putting an artifact into its place: in one step where the system can, and what dead processes left is cleared away."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from latlas.base import placing
from latlas.base.artifacts import CONFIG, check_free, read_config, write_config, write_file, writing
from latlas.base.errors import ArtifactError, OutputExistsError
from latlas.base.locking import FolderLock
from latlas.base.placing import FINISHED, exchange, make_beside
from latlas.base.provenance import Provenance, file_hash


def make(folder: Path, value: int, *, replace: bool = False) -> Path:
    with writing(folder, replace=replace) as beside:
        write_config(beside, kind="thing", settings={"value": value}, provenance=Provenance(made_by="test"))
    return folder


def value_of(folder: Path) -> int:
    return int(read_config(folder, kind="thing")["settings"]["value"])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="renameat2 is Linux's")
def test_two_names_change_what_they_name(tmp_path: Path) -> None:
    make(tmp_path / "a", 1)
    make(tmp_path / "b", 2)
    assert exchange(tmp_path / "a", tmp_path / "b")
    assert (value_of(tmp_path / "a"), value_of(tmp_path / "b")) == (2, 1)
    with pytest.raises(FileNotFoundError):
        exchange(tmp_path / "a", tmp_path / "nothing")


def dying(tmp_path: Path, patch: str) -> None:
    """Replace the artifact in a process that ends at once where `patch` says."""
    code = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from latlas.base import placing
from test_places import make
from pathlib import Path
{patch}
make(Path({str(tmp_path / "artifact")!r}), 2, replace=True)
os._exit(0)
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 9, done.stderr


TWO = "placing._renamed = lambda *_: False\nrename, calls = os.rename, []\n"
DEATHS = {
    "before the exchange": "placing.swap = lambda *_: os._exit(9)\nimport latlas.base.artifacts as a; a.swap = placing.swap",
    "after the exchange": "import latlas.base.artifacts as a; a.remove = lambda *_: os._exit(9)",
    "between two renames": TWO
    + "os.rename = lambda *names: (calls.append(0), os._exit(9) if len(calls) == 2 else rename(*names))",
    "before clearing up": TWO + "placing.remove = lambda *_: os._exit(9)",
}


@pytest.mark.parametrize("death", DEATHS)
def test_whatever_died_while_replacing_the_next_writer_finds_one_whole_artifact_and_clears_up(
    death: str, tmp_path: Path
) -> None:
    make(tmp_path / "artifact", 1)
    dying(tmp_path, DEATHS[death])
    assert len(names(tmp_path)) > (death != "between two renames"), "or there is nothing to clear up"
    with pytest.raises(OutputExistsError, match="already holds something"):
        check_free(tmp_path / "artifact")
    assert value_of(tmp_path / "artifact") == (2 if death in ("after the exchange", "before clearing up") else 1)
    assert names(tmp_path) == ["artifact"]


def test_what_a_living_process_writes_is_never_cleared_away(tmp_path: Path) -> None:
    with writing(tmp_path / "artifact") as beside:
        (beside / "half").write_text("mine")
        check_free(tmp_path / "artifact")
        with writing(tmp_path / "another") as other:
            (other / "part").write_text("theirs")
        make(tmp_path / "third", 3)
        assert (beside / "half").read_text() == "mine"


def test_what_belongs_to_another_name_stays(tmp_path: Path) -> None:
    """One name may begin with another; and folders that only look alike are somebody's."""
    kept = [
        ".a.b.12345678.partial",
        ".a.partial",
        ".a.1234567.partial",
        ".b.12345678.old",
        "a.12345678.old",
        ".a.12345678.partial~",
    ]
    for name in kept:
        (tmp_path / name).mkdir()
    (tmp_path / ".a.12345678.partial").mkdir()
    check_free(tmp_path / "a")
    assert names(tmp_path) == sorted(kept)


def test_a_file_that_was_left_half_written_is_cleared_away(tmp_path: Path) -> None:
    path, descriptor = make_beside(tmp_path / "x.npy", ".partial", folder=False)
    os.close(descriptor)
    write_file(tmp_path / "x.npy", lambda stream: stream.write(b"whole"))
    assert names(tmp_path) == ["x.npy"]
    assert not path.exists()


def test_two_that_replace_one_artifact_at_once_do_not_undo_each_other(tmp_path: Path) -> None:
    folder = make(tmp_path / "artifact", 1)

    def late() -> None:
        with writing(folder, replace=True) as beside:
            write_config(beside, kind="thing", settings={"value": 2}, provenance=Provenance(made_by="late"))
            make(folder, 3, replace=True)

    with pytest.raises(OutputExistsError, match="was written by another process meanwhile"):
        late()
    assert value_of(folder) == 3
    assert names(tmp_path) == ["artifact"]


def test_a_system_without_locks_clears_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There nobody can tell what is left over from what is being written."""
    monkeypatch.setattr(placing, "fcntl", None)
    (tmp_path / ".a.12345678.partial").mkdir()
    make(tmp_path / "a", 1)
    make(tmp_path / "a", 2, replace=True)
    assert value_of(tmp_path / "a") == 2
    assert names(tmp_path) == [".a.12345678.partial", "a"]


@pytest.mark.parametrize("matches", [True, False])
def test_the_work_folder_of_a_training_whose_model_has_its_place_is_cleared_away(matches: bool, tmp_path: Path) -> None:
    folder = make(tmp_path / "artifact", 1)
    work = tmp_path / ".artifact.training"
    work.mkdir()
    (work / FINISHED).write_text(file_hash(folder / CONFIG) if matches else "of another")
    with pytest.raises(OutputExistsError):
        check_free(folder)
    assert work.exists() != matches


def test_a_training_that_another_process_holds_is_refused_with_its_number(tmp_path: Path) -> None:
    from latlas.training.resumable import held_work_folder

    lock = FolderLock(tmp_path / ".model.training")
    with (
        pytest.raises(ArtifactError, match=f"being written by another process \\({os.getpid()} on "),
        held_work_folder(tmp_path / "model", Provenance(made_by="test")),
    ):
        pass
    lock.release()
    with held_work_folder(tmp_path / "model", Provenance(made_by="test")) as work:
        assert work is not None
        assert (work / "settings.json").is_file()
