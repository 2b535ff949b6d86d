"""What else is read again: CelebA's pictures, the history of a training, the course of a study that died."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import EpsImagePlugin, Image

from latlas.base.errors import ArtifactError, ImageFormatError
from latlas.data.celeba import list_celeba
from latlas.studies.noise_injection import _kept
from latlas.studies.variance_law import history_of


def test_postscript_among_celebas_pictures_is_handed_to_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "list_eval_partition.txt").write_text("0.jpg 0\n")
    (tmp_path / "list_attr_celeba.txt").write_text("1\nSmiling\n0.jpg 1\n")
    Image.new("RGB", (178, 218)).save(tmp_path / "0.jpg", format="EPS")
    handed: list[Any] = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *given, **named: handed.append(given))
    with Image.open(tmp_path / "0.jpg") as opened, pytest.raises(Exception):  # noqa: B017  # nothing comes back, so that Pillow fails
        opened.load()
    assert len(handed) == 1  # as it would have been
    with pytest.raises(ImageFormatError, match="cannot be read as a picture"):
        list_celeba(f"celeba:{tmp_path}").load()
    assert len(handed) == 1


@pytest.mark.parametrize("content", [b"", b"[", b"\xff", b"[" * 100_000, b'[{"a": 1}'])
def test_a_history_that_is_damaged_is_one_line(content: bytes, tmp_path: Path) -> None:
    assert history_of(tmp_path) == []
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "history.json").write_bytes(content)
    with pytest.raises(ArtifactError, match="is damaged"):
        history_of(tmp_path)


COURSE = {"variable": 0, "frozen": [1], "epochs": []}


def test_a_course_that_was_kept_is_taken_up_again(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps({"seed": 1, "course": COURSE}))
    found = _kept("x", tmp_path, {"seed": 1})
    assert found is not None
    assert (found.variable, found.frozen, found.epochs) == (0, (1,), ())
    assert _kept("x", tmp_path, {"seed": 2}) is None


@pytest.mark.parametrize(
    "course", [None, 3, [], {}, {**COURSE, "frozen": 3}, {**COURSE, "epochs": [1]}, {**COURSE, "epochs": [{"x": 1}]}]
)
def test_a_course_that_is_damaged_is_run_again(course: Any, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps({"seed": 1, "course": course}))
    assert _kept("x", tmp_path, {"seed": 1}) is None
