"""The fuzzer in short, with the same inputs on every machine, and each of its findings once more."""

import importlib
import json
import random
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from latlas.base.errors import ArtifactError

ROOT = Path(__file__).parents[2]
FINDINGS = sorted((Path(__file__).parent / "findings").glob("*-*"))
RUNS = 150
TARGETS = (
    "artifacts", "weights", "encodings", "safetensors", "npy", "npz", "pickles", "torch-files", "idx", "openvino", "tables", "diffusers",
    "pictures", "uploads", "tars", "parquet", "hub-sets", "celeba", "data-specs", "model-specs", "repositories", "work-folders", "streams",
)  # fmt: skip


@pytest.fixture
def fuzz(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return importlib.import_module("fuzz")


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What came of all loaders, in a process of its own, whose memory is bounded."""
    record = tmp_path_factory.mktemp("fuzz") / "record.json"
    asked = [sys.executable, str(ROOT / "tools" / "fuzz.py"), "--runs", str(RUNS), "--record", str(record)]
    ended = subprocess.run(asked, capture_output=True, text=True, check=False)
    assert record.is_file(), ended.stderr[-2000:]
    return {outcome["target"]: outcome for outcome in json.loads(record.read_text())}


def test_every_loader_is_among_the_targets(fuzz: ModuleType) -> None:
    assert set(fuzz.TARGETS) == set(TARGETS)


def test_the_page_states_these_bounds_and_names_every_loader(fuzz: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    text = " ".join((ROOT / "docs" / "concepts" / "trust.md").read_text(encoding="utf-8").split())
    assert "one second of processor time and without the process growing by 512 MiB" in text
    assert (fuzz.MOST_SECONDS, fuzz.MOST_MEMORY) == (1.0, 512 * 2**20)
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    assert set(importlib.import_module("fuzzing")._WORDS) == set(TARGETS)


@pytest.mark.parametrize("target", TARGETS)
def test_mutated_files_are_read_or_refused_and_nothing_else(target: str, outcomes: dict[str, dict[str, Any]]) -> None:
    outcome = outcomes[target]
    assert outcome["findings"] == []
    assert outcome["done"] == RUNS
    assert outcome["read"] + outcome["refused"] >= RUNS
    assert outcome["refused"] > RUNS // 20  # else nothing was tried
    assert outcome["read"] > 0  # nor was it all refused at the door
    assert outcome["slowest"] < 1.0


@pytest.mark.parametrize("path", FINDINGS, ids=[path.name for path in FINDINGS])
def test_a_finding_stays_mended(path: Path, fuzz: ModuleType) -> None:
    assert fuzz.replay(path) is None


def test_the_judge_sees_what_it_should(fuzz: ModuleType, tmp_path: Path) -> None:
    def judged(load: Any) -> str | None:
        outcome = fuzz.Outcome(target="x", engine="x", runs=1)
        found: str | None = fuzz.judge(fuzz.Target(seeds=lambda _: [b""], load=load), b"", tmp_path, outcome)
        return found

    def fail(failure: BaseException) -> Any:
        def load(data: bytes, folder: Path) -> object:
            raise failure

        return load

    def forever(data: bytes, folder: Path) -> object:
        while True:
            try:
                while True:
                    pass
            except Exception:  # as a loader that minds nothing would
                continue

    assert judged(lambda data, folder: 1) is None
    assert judged(fail(ArtifactError("one line"))) is None
    assert str(judged(fail(KeyError("x")))).startswith("KeyError")
    assert str(judged(fail(SystemExit(3)))).startswith("SystemExit")
    assert str(judged(forever)).startswith("Hang")


def test_a_text_of_any_content_becomes_one_line_of_an_error() -> None:
    chance = random.Random(0)
    for _ in range(300):
        text = "".join(chr(chance.randrange(0x3000)) for _ in range(chance.randrange(1, 40))) + chance.choice(
            ("\ud800", "\n", "\x1b[2J", "\u202e", "")
        )
        message = str(ArtifactError(f"a{text}"))
        assert len(message.splitlines()) == 1
        message.encode()  # a surrogate alone could not be printed
        assert not any(sign in message for sign in "\x1b\r\n\x00\u202e\u2028")
    assert len(str(ArtifactError("x" * 10**7))) <= 4_000
    assert str(ArtifactError("Latents of Gaußscher Art × 2 – as they are…")) == "Latents of Gaußscher Art × 2 – as they are…"
