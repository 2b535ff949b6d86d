"""`latlas study`: each study answers, writes its page, and takes a mistake as one line."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from latlas.base.errors import LatlasError
from latlas.cli import studying
from latlas.cli.main import app
from latlas.models.architectures.dense import Dense
from latlas.models.vae import VAE
from latlas.supports.selectors import SELECTORS


@pytest.fixture(scope="module")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 images of 12 x 12 with labels: whether the upper half is the brighter one."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(200, 1, 4, 4, generator=generator)
    images = torch.nn.functional.interpolate(coarse, size=(12, 12), mode="bilinear")
    labels = (images[:, 0, :6].mean(dim=(1, 2)) > images[:, 0, 6:].mean(dim=(1, 2))).long()
    path = tmp_path_factory.mktemp("data") / "blobs.npz"
    np.savez(path, images=(images * 255).round().to(torch.uint8).numpy(), labels=labels.numpy())
    return path


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Two untrained models: what they draw means nothing, and every verb must answer all the same."""
    folder = tmp_path_factory.mktemp("models")
    for name in ("a", "b"):
        torch.manual_seed(ord(name))
        model = VAE(Dense(latent=3, widths=(16,)), image_shape=(1, 12, 12), name=name)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(3)
        model.save_pretrained(folder / name)
    return str(folder / "a"), str(folder / "b")


def test_selectors_are_listed_without_importing_them() -> None:
    assert studying.SELECTORS == SELECTORS


@pytest.mark.parametrize("name", ["little-data", "directions"])
def test_every_study_shows_an_example_in_its_help(name: str) -> None:
    shown = CliRunner().invoke(app, ["study", name, "--help"])
    assert shown.exit_code == 0
    assert f"Example: latlas study {name}" in shown.output
    assert name in CliRunner().invoke(app, ["study", "--help"]).output


def test_little_data_prints_json_alone_and_writes_a_page_with_the_same_numbers(
    models: tuple[str, str], blobs: Path, tmp_path: Path
) -> None:
    arguments = ["study", "little-data", *models, str(blobs), "--selectors", "farthest, k-means", "--points", "4,10",
                 "--draws", "2", "--measured", "20"]  # fmt: skip
    done = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "out"), "--json"])
    assert done.exit_code == 0, done.output
    numbers = json.loads(done.stdout)
    assert numbers == json.loads((tmp_path / "out/report.json").read_text())
    assert {(fit["selector"], fit["points"]) for fit in numbers["fits"]} == {
        (selector, size) for selector in ("random", "farthest", "k-means") for size in (4, 10)
    }
    assert numbers["measured"] == 20
    plain = CliRunner().invoke(app, arguments)
    assert plain.exit_code == 0
    assert "k-means" in plain.stdout
    assert "random images" in plain.stdout


def test_directions_prints_json_alone_and_writes_a_page_with_the_same_numbers(
    models: tuple[str, str], blobs: Path, tmp_path: Path
) -> None:
    arguments = ["study", "directions", *models, str(blobs), "--attribute", "0:1", "--edited", "5"]
    done = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "out"), "--json"])
    assert done.exit_code == 0, done.output
    numbers = json.loads(done.stdout)
    assert numbers == json.loads((tmp_path / "out/report.json").read_text())
    assert set(numbers["success"]) == {edit["name"] for edit in numbers["edits"]}
    assert (tmp_path / "out/report.html").stat().st_size > 5_000


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["little-data", "--points", "4,many"], "--points takes whole numbers"),
        (["little-data", "--points", "3"], "between 4"),
        (["little-data", "--selectors", "rondom"], "Did you mean 'random'"),
        (["directions", "--attribute", "hat"], "has no factors"),
        (["directions", "--attribute", "0:5"], "Unknown label"),
        (["directions", "--attribute", "0:1", "--method", "guess"], "Unknown method"),
    ],
)
def test_mistakes_write_nothing(arguments: list[str], words: str, models: tuple[str, str], blobs: Path, tmp_path: Path) -> None:
    name, *options = arguments
    done = CliRunner().invoke(app, ["study", name, *models, str(blobs), *options, "--out", str(tmp_path / "out")])
    assert isinstance(done.exception, LatlasError)
    assert words in str(done.exception)
    assert list(tmp_path.iterdir()) == []
