"""`latlas zoo`, and zoo:NAME where a verb asks for a map or a sampler."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from latlas.base.errors import CodeShapeError, UnknownNameError
from latlas.cli.main import app
from latlas.data.loading import load_images
from latlas.models.carried_folders import CARRIED
from latlas.models.loading import load_model
from latlas.models.protocols import require_encoder


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "220"})
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_list_names_everything_with_its_size_and_its_command() -> None:
    entries: list[dict[str, Any]] = json.loads(run("zoo", "--json"))["entries"]
    by_name = {entry["name"]: entry for entry in entries}
    assert {path.name for path in CARRIED.iterdir()} < set(by_name)
    assert by_name["digits-dense"]["codes"] == [16]
    assert by_name["digits-dense"]["images"] == [1, 28, 28]
    on_disk = sum(path.stat().st_size for path in (CARRIED / "digits-dense").iterdir())
    assert by_name["digits-dense"]["size"] == on_disk
    assert by_name["mobile-stylegan"]["size"] is None
    shown = run("zoo")
    for name in by_name:
        assert name in shown
    assert "6 of 16 active" in shown


def test_a_name_shows_its_card_however_it_is_written() -> None:
    card = (CARRIED / "avatars-stylegan2" / "README.md").read_text(encoding="utf-8").strip()
    for name in ("avatars-stylegan2", "zoo:avatars-stylegan2", "zoo:avatars-stylegan2#w"):
        assert run("zoo", name).strip() == card
    assert "gan-face-generate 1.1.1" in run("zoo", "dcgan-faces")


@pytest.mark.parametrize("name", ["", "digits-dens", "../carried", "zoo:zoo:digits-dense"])
def test_a_wrong_name_is_answered_with_what_there_is(name: str) -> None:
    mistake = CliRunner().invoke(app, ["zoo", name]).exception
    assert isinstance(mistake, UnknownNameError)
    assert "digits-dense" in str(mistake)


def test_codes_are_relocated_by_a_map_of_the_zoo(tmp_path: Path) -> None:
    images = load_images("mnist:test[0:20]").tensor()
    codes = require_encoder(load_model("zoo:digits-dense"), "This test").encode(images).mean
    np.save(tmp_path / "codes.npy", codes.detach().numpy())
    run("relocate", "zoo:digits-dense-to-digits-conv", str(tmp_path / "codes.npy"), "--out", str(tmp_path / "moved.npy"))
    assert np.load(tmp_path / "moved.npy").shape == (20, 16)


def test_images_are_drawn_with_a_sampler_of_the_zoo_and_of_no_other_model(tmp_path: Path) -> None:
    sampler = ["--sampler", "zoo:digits-conv-second-stage", "--count", "4"]
    run("sample", "zoo:digits-conv", *sampler, "--out", str(tmp_path / "digits.npy"))
    run("sample", "zoo:digits-conv", "--count", "4", "--out", str(tmp_path / "prior.npy"))
    drawn, prior = (np.load(tmp_path / f"{name}.npy") for name in ("digits", "prior"))
    assert drawn.shape == prior.shape == (4, 1, 28, 28)
    assert (drawn != prior).any()
    other = CliRunner().invoke(app, ["sample", "zoo:digits-dense", *sampler, "--out", str(tmp_path / "other.npy")])
    assert isinstance(other.exception, CodeShapeError)


def test_names_are_listed_without_torch() -> None:
    for arguments in (["zoo"], ["zoo", "--json"], ["zoo", "digits-dense"], ["zoo", "dcgan-faces"]):
        code = (
            f"import sys\nfrom latlas.cli.main import app\nsys.argv = ['latlas', *{arguments!r}]\n"
            "try:\n    app()\nexcept SystemExit:\n    pass\nprint('torch' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert "digits-dense" in done.stdout or "dcgan-faces" in done.stdout
        assert done.stdout.splitlines()[-1] == "False"


def test_names_are_whole_on_a_narrow_terminal() -> None:
    done = CliRunner().invoke(app, ["zoo"], env={"COLUMNS": "80"})
    for name in ("digits-dense-to-digits-conv", "avatars-stylegan2-recoder"):
        assert f"\n{name} " in done.stdout
