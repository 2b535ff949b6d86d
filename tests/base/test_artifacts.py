"""Artifact folders: whole or not there at all, and never believed without a check."""

import json
import os
import stat
from pathlib import Path
from typing import BinaryIO

import pytest
import torch
from safetensors import safe_open

from latlas.base import placing
from latlas.base.artifacts import (
    CONFIG,
    FORMAT,
    check_free,
    load_tensors,
    read_config,
    read_json,
    save_tensors,
    write_config,
    write_file,
    write_json,
    writing,
)
from latlas.base.errors import ArtifactError, MissingPathError, OutputExistsError
from latlas.base.provenance import Provenance, file_hash

KIND = "thing"
TENSORS = "deep/values.safetensors"


def make(folder: Path, value: float = 1.0, *, replace: bool = False) -> Path:
    """Write a small artifact with a file at the top and one in a subfolder."""
    with writing(folder, replace=replace) as beside:
        (beside / "deep").mkdir()
        save_tensors(beside / TENSORS, {"values": torch.full((3,), value)})
        (beside / "notes.txt").write_text(f"value {value}")
        write_config(beside, kind=KIND, settings={"value": value}, provenance=Provenance(made_by="make", seed=3))
    return folder


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def edit(folder: Path, **changes: object) -> None:
    """Change entries of the config, as another program or another version would have written them."""
    record = json.loads((folder / CONFIG).read_text())
    del record["checksum"]
    (folder / CONFIG).write_text(json.dumps({**record, **changes}))


def fail_call(monkeypatch: pytest.MonkeyPatch, failing: int) -> None:
    """Let the given call of os.rename (counted from 1) fail as a full or read-only disk would."""
    calls = 0
    original = os.rename

    def rename(source: Path, target: Path) -> None:
        nonlocal calls
        calls += 1
        if calls == failing:
            raise OSError(28, "No space left on device")
        original(source, target)

    monkeypatch.setattr(os, "rename", rename)


# Writing


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    folder = make(tmp_path / "some" / "new" / "artifact", 2.5)
    record = read_config(folder, kind=KIND)
    assert record["kind"] == KIND
    assert record["format"] == FORMAT
    assert record["settings"] == {"value": 2.5}
    assert Provenance.from_json(record["provenance"]).made_by == "make"
    assert set(record["files"]) == {TENSORS, "notes.txt"}
    assert record["files"][TENSORS] == file_hash(folder / TENSORS)
    assert load_tensors(folder / TENSORS)["values"].tolist() == [2.5, 2.5, 2.5]


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    assert content(make(tmp_path / "first")) == content(make(tmp_path / "second"))


def test_nothing_stands_at_the_folder_until_the_block_has_ended(tmp_path: Path) -> None:
    target = tmp_path / "artifact"
    with writing(target) as beside:
        (beside / "part").write_text("half")
        assert not target.exists()
        assert beside.parent == target.parent, "a rename is atomic only inside one file system"
    assert (target / "part").read_text() == "half"
    assert [path.name for path in tmp_path.iterdir()] == ["artifact"]


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_exception_in_the_block_leaves_nothing(tmp_path: Path, failure: type[BaseException]) -> None:
    def write() -> None:
        with writing(tmp_path / "artifact") as beside:
            (beside / "part").write_text("half")
            raise failure

    with pytest.raises(failure):
        write()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_an_exception_in_the_block_leaves_the_earlier_artifact_as_it_was(tmp_path: Path, failure: type[BaseException]) -> None:
    folder = make(tmp_path / "artifact", 1.0)
    before = content(folder)

    def write() -> None:
        with writing(folder, replace=True) as beside:
            (beside / "part").write_text("half")
            raise failure

    with pytest.raises(failure):
        write()
    assert content(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["artifact"]


def test_replacing_leaves_the_new_artifact_alone(tmp_path: Path) -> None:
    folder = make(tmp_path / "artifact", 1.0)
    with writing(folder, replace=True) as beside:
        (beside / "other.txt").write_text("new")
        write_config(beside, kind="other", settings={}, provenance=Provenance(made_by="test"))
    assert set(content(folder)) == {CONFIG, "other.txt"}
    assert [path.name for path in tmp_path.iterdir()] == ["artifact"]


def test_a_linked_artifact_is_replaced_at_the_link_and_kept_where_it_lies(tmp_path: Path) -> None:
    kept = make(tmp_path / "kept", 1.0)
    link = tmp_path / "latest"
    link.symlink_to(kept)
    make(link, 2.0, replace=True)
    assert read_config(link, kind=KIND)["settings"] == {"value": 2.0}
    assert read_config(kept, kind=KIND)["settings"] == {"value": 1.0}


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "artifact").mkdir()
    assert read_config(make(tmp_path / "artifact"), kind=KIND)["kind"] == KIND


def test_colleagues_can_read_what_was_written(tmp_path: Path) -> None:
    mode = stat.S_IMODE(make(tmp_path / "artifact").stat().st_mode)
    assert mode == 0o755


def test_files_are_flushed_before_their_folder_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    fsync, rename = os.fsync, os.rename
    monkeypatch.setattr(os, "fsync", lambda descriptor: (events.append("fsync"), fsync(descriptor)))
    monkeypatch.setattr(os, "rename", lambda source, target: (events.append("rename"), rename(source, target)))
    make(tmp_path / "artifact")
    # Of its three files and of the names in its two folders; then of its own name, in the folder around it.
    assert events == ["fsync"] * 5 + ["rename", "fsync"]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files can be counted only on Linux")
def test_writing_leaves_no_file_open(tmp_path: Path) -> None:
    make(tmp_path / "first")
    before = len(list(Path("/proc/self/fd").iterdir()))
    make(tmp_path / "second")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# Refusing to overwrite


def test_a_folder_that_holds_something_is_refused_before_any_work(tmp_path: Path) -> None:
    folder = make(tmp_path / "artifact")
    before = content(folder)
    worked = False
    with pytest.raises(OutputExistsError, match=r"already holds something. Name another folder, or .*--replace"):  # noqa: SIM117
        with writing(folder):
            worked = True
    assert not worked
    assert content(folder) == before


@pytest.mark.parametrize(
    "files",
    [
        {"thesis.txt": "years of work"},
        {CONFIG: "not JSON"},
        {CONFIG: "[1, 2]"},
        {CONFIG: '{"kind": "bert", "hidden_size": 768}'},
        {CONFIG: '{"kind": 5, "format": 1, "files": {}, "settings": {}, "provenance": {}}'},
        {CONFIG: '{"kind": "thing", "files": ["a"]}'},
    ],
)
def test_only_latlas_artifacts_are_ever_replaced(tmp_path: Path, files: dict[str, str]) -> None:
    folder = tmp_path / "precious"
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    before = content(folder)
    with pytest.raises(OutputExistsError, match="never replaced: name another folder"):
        make(folder, replace=True)
    assert content(folder) == before


def test_a_file_is_never_replaced(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    for replace in (False, True):
        with pytest.raises(OutputExistsError, match="is a file; name a folder"):
            make(file, replace=replace)
    assert file.read_text() == "mine"


@pytest.mark.parametrize("here", [".", "..", ""])
def test_the_folder_one_stands_in_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputExistsError, match="name a folder that does not exist yet"):
        check_free(here)
    assert list(tmp_path.iterdir()) == []


def test_what_another_process_put_there_meanwhile_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "artifact"

    def write() -> None:
        with writing(target) as beside:
            (beside / "mine").write_text("late")
            target.mkdir()
            (target / "theirs").write_text("early")

    with pytest.raises(OutputExistsError):
        write()
    assert content(target) == {"theirs": b"early"}
    assert [path.name for path in tmp_path.iterdir()] == ["artifact"]


def test_check_free_agrees_with_writing(tmp_path: Path) -> None:
    check_free(tmp_path / "new")
    (tmp_path / "empty").mkdir()
    check_free(tmp_path / "empty")
    check_free(make(tmp_path / "artifact"), replace=True)
    with pytest.raises(OutputExistsError):
        check_free(tmp_path / "artifact")


# A disk that refuses


def test_a_failing_disk_leaves_nothing_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_call(monkeypatch, 1)
    with pytest.raises(ArtifactError, match=r"No space left on device. Nothing was changed there"):
        make(tmp_path / "artifact")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("failing", [1, 2])
def test_a_disk_that_fails_while_replacing_leaves_the_earlier_artifact_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    folder = make(tmp_path / "artifact", 1.0)
    before = content(folder)
    monkeypatch.setattr(placing, "_renamed", lambda *_: False)  # a system that cannot exchange two names
    fail_call(monkeypatch, failing)
    with pytest.raises(ArtifactError, match="Nothing was changed there"):
        make(folder, 2.0, replace=True)
    assert content(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["artifact"]


def test_a_parent_that_refuses_is_the_users_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(ArtifactError, match=r"Could not write .*artifact: Permission denied"):
        make(tmp_path / "artifact")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_parent_is_the_users_mistake(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(ArtifactError, match="Permission denied"):
            make(tmp_path / "artifact")
    finally:
        tmp_path.chmod(0o755)


def test_a_file_where_a_parent_should_be_is_the_users_mistake(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for below in ("artifact", "deeper/artifact"):
        with pytest.raises(ArtifactError, match=r"Could not write .*file is not a folder\. Name a place inside a folder"):
            make(tmp_path / "file" / below)
        with pytest.raises(ArtifactError, match="is not a folder"):
            check_free(tmp_path / "file" / below)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_place_that_may_not_be_written_is_told_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder asked about is the nearest that exists; root may write anywhere, so the answer is planted."""
    asked: list[Path] = []
    monkeypatch.setattr(os, "access", lambda path, mode: asked.append(path))
    with pytest.raises(ArtifactError, match=r"Permission denied in .*Name a place that you may write to"):
        check_free(tmp_path / "new" / "deeper" / "artifact")
    assert asked == [tmp_path]
    assert list(tmp_path.iterdir()) == []


# One file


def test_a_file_is_written_whole_with_its_parents(tmp_path: Path) -> None:
    path = tmp_path / "new" / "deeper" / "x.bin"
    write_file(path, lambda stream: stream.write(b"content"))
    assert path.read_bytes() == b"content"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [each.name for each in path.parent.iterdir()] == ["x.bin"]


@pytest.mark.parametrize(
    ("failure", "told"),
    [(OSError(28, "No space left on device"), ArtifactError), (KeyboardInterrupt(), KeyboardInterrupt)],
    ids=["disk", "ctrl-c"],
)
def test_a_file_that_could_not_be_written_leaves_nothing(
    tmp_path: Path, failure: BaseException, told: type[BaseException]
) -> None:
    def write(stream: BinaryIO) -> None:
        stream.write(b"half")
        raise failure

    with pytest.raises(told, match="No space left on device" if told is ArtifactError else None):
        write_file(tmp_path / "x.bin", write)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_appeared_meanwhile_is_kept(tmp_path: Path) -> None:
    with pytest.raises(OutputExistsError, match="name a new file"):
        write_file(tmp_path / "x.bin", lambda stream: (tmp_path / "x.bin").write_text("theirs"))
    assert content(tmp_path) == {"x.bin": b"theirs"}


# Reading


@pytest.mark.parametrize("name", [TENSORS, "notes.txt"])
def test_any_flipped_byte_is_noticed(tmp_path: Path, name: str) -> None:
    folder = make(tmp_path / "artifact")
    whole = (folder / name).read_bytes()
    for position in range(len(whole)):
        broken = bytearray(whole)
        broken[position] ^= 1
        (folder / name).write_bytes(broken)
        with pytest.raises(ArtifactError, match=r"is damaged: its content is not what config.json says"):
            read_config(folder, kind=KIND)
    (folder / name).write_bytes(whole)
    read_config(folder, kind=KIND)


@pytest.mark.parametrize("name", [TENSORS, "notes.txt"])
def test_a_truncated_file_is_noticed(tmp_path: Path, name: str) -> None:
    folder = make(tmp_path / "artifact")
    whole = (folder / name).read_bytes()
    for length in (0, len(whole) // 2, len(whole) - 1):
        (folder / name).write_bytes(whole[:length])
        with pytest.raises(ArtifactError, match="damaged"):
            read_config(folder, kind=KIND)


@pytest.mark.parametrize("name", [TENSORS, "notes.txt"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    folder = make(tmp_path / "artifact")
    (folder / name).unlink()
    with pytest.raises(ArtifactError, match=f"incomplete: {name} is missing. Make the artifact again"):
        read_config(folder, kind=KIND)


def test_a_missing_folder_is_a_missing_path(tmp_path: Path) -> None:
    with pytest.raises(MissingPathError, match=f"No folder .*nowhere: expected a latlas {KIND} there"):
        read_config(tmp_path / "nowhere", kind=KIND)


def test_a_folder_without_config_is_no_artifact(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=f"is not a latlas {KIND}: it has no config.json"):
        read_config(tmp_path, kind=KIND)


def test_an_artifact_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="holds a latlas thing, where a latlas map is needed"):
        read_config(make(tmp_path / "artifact"), kind="map")


def test_a_newer_format_asks_for_an_update(tmp_path: Path) -> None:
    folder = make(tmp_path / "artifact")
    edit(folder, format=FORMAT + 1)
    with pytest.raises(ArtifactError, match=f"written in format {FORMAT + 1}, this latlas reads up to {FORMAT}: update"):
        read_config(folder, kind=KIND)


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": None},
        {"kind": ["thing"]},
        {"format": "1"},
        {"format": None},
        {"files": ["notes.txt"]},
        {"files": None},
        {"settings": None},
        {"settings": [1]},
        {"provenance": "me"},
    ],
)
def test_a_config_of_another_program_is_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    folder = make(tmp_path / "artifact")
    edit(folder, **changes)
    with pytest.raises(ArtifactError, match=r"its config.json was written by another program"):
        read_config(folder, kind=KIND)


@pytest.mark.parametrize("text", ["[]", "3", '"thing"', "{}", "null"])
def test_json_that_is_no_config_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / CONFIG).write_text(text)
    with pytest.raises(ArtifactError, match="written by another program"):
        read_config(tmp_path, kind=KIND)


@pytest.mark.parametrize("raw", [b"{", b"", b"\xff\xfe{}", b"[" * 100_000])
def test_a_config_that_does_not_parse_is_refused(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / CONFIG).write_bytes(raw)
    with pytest.raises(ArtifactError, match="not readable JSON"):
        read_config(tmp_path, kind=KIND)


@pytest.mark.parametrize("name", ["../secret", "deep/../../secret", "{absolute}"])
def test_no_config_can_reach_outside_its_folder(tmp_path: Path, name: str) -> None:
    """Refused even where the file exists and its hash is right: the listing must not probe the disk."""
    folder = make(tmp_path / "artifact")
    secret = tmp_path / "secret"
    secret.write_text("secret")
    edit(folder, files={name.format(absolute=secret): file_hash(secret)})
    with pytest.raises(ArtifactError, match="lies outside the artifact"):
        read_config(folder, kind=KIND)


# Tensors and JSON


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.bool])
@pytest.mark.parametrize("shape", [(), (0, 3), (4,), (2, 3, 5)])
def test_tensors_come_back_bit_for_bit(tmp_path: Path, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(1)).mul(50).abs().to(dtype)
    save_tensors(tmp_path / "t.safetensors", {"values": values})
    loaded = load_tensors(tmp_path / "t.safetensors")["values"]
    assert loaded.dtype == dtype
    assert loaded.shape == values.shape
    assert loaded.equal(values)


def test_views_and_tensors_with_gradients_can_be_saved(tmp_path: Path) -> None:
    grid = torch.arange(12.0, requires_grad=True).reshape(3, 4)
    save_tensors(tmp_path / "t.safetensors", {"columns": grid.T, "left": grid[:, :2], "right": grid[:, 2:]})
    loaded = load_tensors(tmp_path / "t.safetensors")
    assert loaded["columns"].equal(grid.detach().T)
    assert loaded["left"].equal(grid.detach()[:, :2])
    assert loaded["right"].equal(grid.detach()[:, 2:])


def test_tensors_are_written_as_any_safetensors_reader_expects(tmp_path: Path) -> None:
    save_tensors(tmp_path / "t.safetensors", {"a": torch.arange(3.0)})
    with safe_open(tmp_path / "t.safetensors", framework="np") as reader:
        assert reader.get_tensor("a").tolist() == [0.0, 1.0, 2.0]


def test_truncated_safetensors_are_refused_at_any_length(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    save_tensors(path, {"a": torch.arange(3.0)})
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ArtifactError, match="not a readable safetensors file"):
            load_tensors(path)


def test_what_is_no_safetensors_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.safetensors").write_text("a pickle would have run by now")
    for name in ("t.safetensors", "missing.safetensors", "."):
        with pytest.raises(ArtifactError, match="Make the artifact again"):
            load_tensors(tmp_path / name)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_json_has_no_word_for_nan(tmp_path: Path, value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "r.json", {"deep": [value]})
    with pytest.raises(ValueError, match="not JSON compliant"):
        make(tmp_path / "artifact", value)
    assert list(tmp_path.iterdir()) == []


def test_json_bytes_do_not_depend_on_the_order_of_keys(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": 1, "ü": {"p": 2, "q": 3}})
    write_json(tmp_path / "b.json", {"ü": {"q": 3, "p": 2}, "x": 1})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert read_json(tmp_path / "a.json") == {"x": 1, "ü": {"p": 2, "q": 3}}
