"""`latlas cover`: one model a page, several a leaderboard, a mistake one line."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from latlas.base.errors import LatlasError
from latlas.cli.main import app
from latlas.data.loading import load_images
from latlas.models.architectures.dense import Dense
from latlas.models.vae import VAE
from latlas.studies.support import build_support_set


@pytest.fixture(scope="module")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(160, 1, 3, 3, generator=generator)
    images = torch.nn.functional.interpolate(coarse, size=(8, 8), mode="bilinear")
    path = tmp_path_factory.mktemp("data") / "blobs.npy"
    np.save(path, (images * 255).round().to(torch.uint8).numpy())
    return path


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Untrained models: what they draw means nothing, and the verb must answer all the same."""
    folder = tmp_path_factory.mktemp("models")
    for name in ("a", "b", "c"):
        torch.manual_seed(ord(name))
        model = VAE(Dense(latent=3, widths=(12,)), image_shape=(1, 8, 8), name=name)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(3)
        model.save_pretrained(folder / name)
    return [str(folder / name) for name in ("a", "b", "c")]


@pytest.fixture(scope="module")
def landmarks(models: list[str], blobs: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """As `latlas support --out` lays it: the set beside a page."""
    folder = tmp_path_factory.mktemp("landmarks")
    chosen = build_support_set(VAE.from_pretrained(models[2]), load_images(blobs), variables=2, threshold=0.0, order=[0, 1, 2])
    chosen.save_pretrained(folder / "support-set")
    return str(folder)


def arguments(models: list[str], landmarks: str, blobs: Path) -> list[str]:
    return ["cover", models[0], landmarks, "--control", str(blobs), "--samples", "20", "--steps", "3"]


def test_help_shows_an_example() -> None:
    shown = CliRunner().invoke(app, ["cover", "--help"])
    assert shown.exit_code == 0
    assert "Example: latlas cover" in shown.output


def test_json_stands_alone_and_the_page_has_the_same_numbers(
    models: list[str], landmarks: str, blobs: Path, tmp_path: Path
) -> None:
    given = [*arguments(models, landmarks, blobs), "--reference", models[2]]
    done = CliRunner().invoke(app, [*given, "--out", str(tmp_path / "out"), "--json"])
    assert done.exit_code == 0, done.output
    numbers = json.loads(done.stdout)
    assert numbers == json.loads((tmp_path / "out/report.json").read_text())
    assert numbers["reference"] == "c"
    assert numbers["controls"] == 160
    assert "What a misses" in (tmp_path / "out/report.html").read_text()


def test_several_models_make_a_leaderboard(models: list[str], landmarks: str, blobs: Path, tmp_path: Path) -> None:
    # The set itself is taken as well as the folder around it.
    given = [*arguments(models, str(Path(landmarks) / "support-set"), blobs), "--more", models[1], "--more", models[2]]
    done = CliRunner().invoke(app, [*given, "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "most missed" in done.stdout
    assert f"The report lies at {tmp_path / 'out' / 'report.html'}" in done.stdout.replace("\n", "")
    numbers = json.loads((tmp_path / "out/report.json").read_text())
    assert [one["model"] for one in numbers["models"]] == ["a", "b", "c"]


def test_mistakes_are_told_before_any_work(models: list[str], landmarks: str, blobs: Path, tmp_path: Path) -> None:
    def refused(*more: str) -> str:
        done = CliRunner().invoke(app, [*arguments(models, landmarks, blobs), *more])
        assert isinstance(done.exception, LatlasError)
        return str(done.exception)

    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "letter.txt").write_text("mine")
    assert "already" in refused("--out", str(tmp_path / "kept"))
    assert "level must lie" in refused("--level", "7")
    assert "its own reference" in refused("--reference", models[0])
    assert "no attributes to look for" in refused("--attributes", str(blobs))
    assert "Unknown budget" in refused("--budget", "endless")
    missing = CliRunner().invoke(app, ["cover", models[0], landmarks])
    assert missing.exit_code == 2
    assert "--control" in missing.output
