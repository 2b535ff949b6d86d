"""One changed byte anywhere in any artifact is told by whoever reads it."""

import importlib
import json
import shutil
from pathlib import Path
from types import ModuleType

import pytest

from latlas.base.artifacts import CONFIG, check_config, config_text, read_config, read_json
from latlas.base.errors import ArtifactError
from latlas.base.hub import _to_send

# As in torture_artifacts.READERS, which cannot be imported before the tests run; a test holds the two equal.
KINDS = [
    "autoencoder",
    "encoding",
    "encoding-stored",
    "generator",
    "map",
    "preview",
    "pruned",
    "pruned/to-pruned",
    "recoder",
    "report",
    "sampler-gaussian",
    "sampler-mixture",
    "sampler-moments",
    "sampler-prior",
    "sampler-second-stage",
    "spatial-map",
    "stylegan2",
    "support-set",
    "vae",
]


@pytest.fixture(scope="module")
def kinds() -> ModuleType:
    return importlib.import_module("torture_artifacts")


def test_every_kind_is_tried(kinds: ModuleType, artifacts: Path) -> None:
    assert sorted(kinds.READERS) == KINDS
    written = {json.loads((folder / CONFIG).read_text())["kind"] for folder in kinds.configs_of(artifacts)}
    source = Path(__file__).parents[2] / "src" / "latlas"
    stated = {
        line.split('"')[1]
        for path in source.rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.startswith('KIND = "')
    }
    # Of a cache, of what the package carries, and of a folder that holds others: the same functions write and read them.
    assert stated - written <= {"avatars", "classifier", "relocated-model", "range calibration"}


@pytest.mark.parametrize("kind", KINDS)
def test_one_changed_byte_in_any_file_is_told(kind: str, kinds: ModuleType, artifacts: Path, tmp_path: Path) -> None:
    folder = tmp_path / "artifact"
    shutil.copytree(artifacts / kind, folder)
    found = list(kinds.flips(folder, kinds.READERS[kind], each=3))
    assert {name for name, _, _ in found} == {path.relative_to(folder).as_posix() for path in kinds.files_of(folder)}
    assert [(name, position) for name, position, said in found if not said] == []


def test_any_byte_of_a_config_changed_in_any_bit_is_told(kinds: ModuleType, artifacts: Path, tmp_path: Path) -> None:
    """What a random change may miss: white space into other white space, a key into one nobody knows, a digit of the checksum."""
    folder = tmp_path / "artifact"
    shutil.copytree(artifacts / "report", folder)
    whole = (folder / CONFIG).read_bytes()
    missed = []
    for position in range(len(whole)):
        for changed in {whole[position] ^ 1, whole[position] ^ 0x20, ord("\t")} - {whole[position]}:
            (folder / CONFIG).write_bytes(whole[:position] + bytes([changed]) + whole[position + 1 :])
            try:
                read_config(folder, kind="report")
            except ArtifactError:
                continue
            missed.append((position, changed))
    assert missed == []


def test_a_checksum_that_was_made_anew_is_believed(artifacts: Path, tmp_path: Path) -> None:
    """It is no seal: who changes a config and its checksum has made another artifact."""
    folder = tmp_path / "artifact"
    shutil.copytree(artifacts / "map", folder)
    record = read_json(folder / CONFIG)
    record["settings"]["source"] = "renamed"
    (folder / CONFIG).write_text(config_text(record))
    check_config(folder, read_json(folder / CONFIG))
    assert read_config(folder, kind=record["kind"])["settings"]["source"] == "renamed"


def test_what_a_push_sends_reads_as_what_lies_here(artifacts: Path, tmp_path: Path) -> None:
    """A push leaves pages out of the config's list, and so makes its checksum anew."""
    content = _to_send(artifacts / "pruned", "ada/pruned", None)
    for name, what in content.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(what if isinstance(what, bytes) else Path(what).read_bytes())
    assert "report/report.html" not in content
    read_config(tmp_path, kind=read_json(tmp_path / CONFIG)["kind"])
