"""`latlas study sparsity`, `noise-injection`, `variance-law`: each answers, and takes a mistake as one line."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from latlas.base.errors import LatlasError
from latlas.base.provenance import Provenance
from latlas.cli.main import app
from latlas.data.images import ImageSet
from latlas.models.architectures.dense import Dense
from latlas.models.vae import VAE
from latlas.studies import noise_injection, sparsity, variance_law
from latlas.studies.budgets import Budget
from latlas.studies.kept_trainings import PUBLISHED_OBJECTIVE
from latlas.studies.noise_injection import NoiseSettings
from latlas.studies.sparsity import SparsitySettings
from latlas.studies.variance_law import LawSettings
from latlas.training.noise_injection import NoisePlan

PLAN = NoisePlan(increment=1.0, growing=1, held=1, removed=1, batch_size=64)


@pytest.fixture
def blobs(tmp_path: Path) -> Path:
    """150 grey images of 8 x 8."""
    coarse = torch.rand(150, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    images = torch.nn.functional.interpolate(coarse, size=(8, 8), mode="bilinear")
    path = tmp_path / "blobs.npz"
    np.savez(path, images=(images * 255).round().to(torch.uint8).numpy())
    return path


@pytest.fixture
def model(tmp_path: Path) -> str:
    """Untrained, its weights large: every variable is in use."""
    torch.manual_seed(1)
    provenance = Provenance(made_by="test", settings={"objective": PUBLISHED_OBJECTIVE.to_json()})
    vae = VAE(Dense(latent=3, widths=(12,)), image_shape=(1, 8, 8), name="model", provenance=provenance)
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.mul_(3)
    vae.save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Budgets of seconds, on noise."""

    def load(spec: str, **_: object) -> ImageSet:
        return ImageSet(spec, torch.rand(128, 1, 8, 8, generator=torch.Generator().manual_seed(5)).round())

    for module in (sparsity, noise_injection, variance_law):
        monkeypatch.setattr(module, "load_images", load)
    small: Mapping[Budget, SparsitySettings] = {
        "quick": SparsitySettings(images=100, epochs={"dense": 1, "conv": 1}, seeds=1, controls=1, measured=50, data=("mnist",))
    }
    monkeypatch.setattr(sparsity, "SETTINGS", small)
    monkeypatch.setattr(variance_law, "SPARSITY", small)
    law = LawSettings(seeds=1, others=("draw",), images=64, epochs=1, measured=50)
    monkeypatch.setattr(variance_law, "SETTINGS", {"quick": law})
    noise = NoiseSettings(images=100, epochs=1, seeds=1, variables=1, plan=PLAN)
    monkeypatch.setattr(noise_injection, "SETTINGS", {"quick": noise})


@pytest.mark.parametrize("name", ["sparsity", "noise-injection", "variance-law"])
def test_every_study_shows_an_example_in_its_help(name: str) -> None:
    shown = CliRunner().invoke(app, ["study", name, "--help"])
    assert shown.exit_code == 0
    assert f"Example: latlas study {name}" in shown.output


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("name", ["sparsity", "variance-law"])
def test_a_study_that_trains_prints_json_alone_and_writes_a_page_with_the_same_numbers(name: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    work = ["--work", str(tmp_path / "work")]
    done = CliRunner().invoke(app, ["study", name, "--budget", "quick", "--out", str(out), *work, "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == json.loads((out / "report.json").read_text())
    plain = CliRunner().invoke(app, ["study", name, *work])
    assert plain.exit_code == 0
    assert "mnist" in plain.stdout


def test_noise_and_law_answer_for_a_model_of_ones_own(
    model: str, blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = NoiseSettings(images=None, epochs=1, seeds=1, variables=2, plan=PLAN)
    monkeypatch.setattr(noise_injection, "SETTINGS", {"quick": noise})
    before = {path.name: path.read_bytes() for path in Path(model).iterdir()}
    for name in ("noise-injection", "variance-law"):
        out = tmp_path / name
        done = CliRunner().invoke(app, ["study", name, model, str(blobs), "--out", str(out), "--json"])
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout) == json.loads((out / "report.json").read_text())
        assert CliRunner().invoke(app, ["study", name, model, str(blobs)]).exit_code == 0
    assert {path.name: path.read_bytes() for path in Path(model).iterdir()} == before
    runs = json.loads((tmp_path / "noise-injection/report.json").read_text())["runs"]
    assert [run["rank"] for run in runs] == [0, 2]


def test_two_models_of_one_name_both_stand_in_the_record(model: str, blobs: Path, tmp_path: Path) -> None:
    other = VAE.from_pretrained(model)
    with torch.no_grad():
        other.encoder.get_submodule("head").get_parameter("bias").add_(1.0)
    other.save_pretrained(tmp_path / "other")
    done = CliRunner().invoke(app, ["study", "variance-law", model, str(tmp_path / "other"), str(blobs), "--json"])
    assert done.exit_code == 0, done.output
    made_from = json.loads(done.stdout)["provenance"]["made_from"]
    prints = {VAE.from_pretrained(folder).fingerprint for folder in (model, tmp_path / "other")}
    assert len(prints) == 2
    assert set(made_from.values()) > prints


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["sparsity", "--budget", "huge"], "quick"),
        (["sparsity", "--data", "cifar"], "fashion-mnist"),
        (["noise-injection", "MODEL"], "neither"),
        (["noise-injection", "--budget", "huge"], "quick"),
        (["noise-injection", "MODEL", "DATA", "--work", "w"], "Leave it out"),
        (["variance-law", "MODEL"], "nothing at all"),
        (["variance-law", "MODEL", "DATA", "--work", "w"], "Leave it out"),
        (["variance-law", "--budget", "huge"], "quick"),
        (["variance-law", "MODEL", "DATA", "--out", "HELD"], "holds"),
    ],
)
def test_a_mistake_is_told_before_anything_is_trained(
    arguments: list[str], words: str, model: str, blobs: Path, tmp_path: Path
) -> None:
    held = tmp_path / "held"
    held.mkdir()
    (held / "mine.txt").write_text("keep")
    places = {"MODEL": model, "DATA": str(blobs), "HELD": str(held)}
    done = CliRunner().invoke(app, ["study", *(places.get(word, word) for word in arguments)])
    assert isinstance(done.exception, LatlasError), done.output
    assert words in str(done.exception)
    assert [path.name for path in held.iterdir()] == ["mine.txt"]
    assert not (tmp_path / "w").exists()
