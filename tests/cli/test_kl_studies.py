"""`latlas study kl-curve`, `trajectories` and `coverage-3d`: they answer, write their pages, and take a mistake as one line."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from latlas.base.errors import LatlasError
from latlas.cli import training
from latlas.cli.main import app
from latlas.models.vae import VAE
from latlas.training.objectives import LATENT_TERMS


@pytest.fixture(scope="module")
def spots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """150 images of three classes: a bright spot in one of three places."""
    generator = torch.Generator().manual_seed(2)
    labels = torch.arange(150) % 3
    images = (80 * torch.rand(150, 1, 28, 28, generator=generator)).to(torch.uint8)
    images[torch.arange(150), 0, 9 * labels, 9 * labels] = 255
    path = tmp_path_factory.mktemp("data") / "spots.npz"
    np.savez(path, images=images.numpy(), labels=labels.numpy())
    return path


@pytest.mark.parametrize("name", ["kl-curve", "trajectories", "coverage-3d"])
def test_every_study_shows_an_example_in_its_help(name: str) -> None:
    shown = CliRunner().invoke(app, ["study", name, "--help"])
    assert shown.exit_code == 0
    assert f"Example: latlas study {name}" in shown.output
    assert name in CliRunner().invoke(app, ["study", "--help"]).output


def test_each_prints_json_alone_and_writes_a_page_with_the_same_numbers(spots: Path, tmp_path: Path) -> None:
    for arguments in (
        ["kl-curve"],
        ["trajectories", "--data", str(spots), "--classes", "3", "--epochs", "1", "--device", "cpu"],
        ["coverage-3d", "--data", str(spots), "--test", str(spots), "--epochs", "1", "--seeds", "1", "--device", "cpu"],
    ):
        out = tmp_path / arguments[0]
        shown = CliRunner().invoke(app, ["study", *arguments, "--out", str(out), "--json"])
        assert shown.exit_code == 0, shown.output
        assert json.loads(shown.stdout) == json.loads((out / "report.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trajectories"], "3 classes, fewer than the 10"),
        (["trajectories", "--budget", "large"], "quick"),
        (["trajectories", "--classes", "3", "--epochs", "0"], "at least 1 epoch"),
        (["coverage-3d", "--seeds", "0"], "at least 1 seed"),
    ],
)
def test_a_mistake_is_told_in_one_line_and_writes_nothing(
    arguments: list[str], words: str, spots: Path, tmp_path: Path
) -> None:
    test = ["--test", str(spots)] if arguments[0] == "coverage-3d" else []
    shown = CliRunner().invoke(
        app, ["study", *arguments, "--data", str(spots), *test, "--out", str(tmp_path / "out"), "--device", "cpu"]
    )
    assert isinstance(shown.exception, LatlasError)
    assert words in str(shown.exception)
    assert "\n" not in str(shown.exception)
    assert list(tmp_path.iterdir()) == []


def test_train_takes_what_the_studies_take(spots: Path, tmp_path: Path) -> None:
    assert tuple(training.LATENT_TERMS) == LATENT_TERMS
    arguments = ["train", "dense", str(spots), "--widths", "8", "--latent", "2", "--epochs", "1", "--device", "cpu"]
    shown = CliRunner().invoke(
        app, [*arguments, "--latent-term", "quadratic", "--no-sampling", "--out", str(tmp_path / "model")]
    )
    assert shown.exit_code == 0, shown.output
    made_by = VAE.from_pretrained(tmp_path / "model").provenance
    assert made_by is not None
    assert made_by.settings["objective"]["latent_term"] == "quadratic"
    assert made_by.settings["objective"]["sampling"] is False
    refused = CliRunner().invoke(app, [*arguments, "--latent-term", "square"])
    assert isinstance(refused.exception, LatlasError)
    assert "quadratic" in str(refused.exception)
