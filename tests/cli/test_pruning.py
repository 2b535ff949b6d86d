"""`latlas prune`: a folder that every other verb takes, or one line and nothing written."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from latlas.base.errors import LatlasError
from latlas.cli.main import app
from latlas.models.architectures.dense import Dense
from latlas.models.vae import VAE


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("data") / "noise.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (120, 1, 8, 8), dtype=np.uint8))
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A network of five variables, the second and fifth of which are always 0.2."""
    torch.manual_seed(0)
    model = VAE(Dense(widths=(12,), latent=5), (1, 8, 8), name="five")
    with torch.no_grad():
        model.encoder.head.weight[:5] *= 30.0
        model.encoder.head.weight[[1, 4]] = 0.0
        model.encoder.head.bias[[1, 4]] = 0.2
    path = tmp_path_factory.mktemp("models") / "five"
    model.save_pretrained(path)
    return str(path)


def latlas(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == 0, (done.output, done.exception)
    return done.stdout


def refused(*arguments: str) -> str:
    """What a person reads, in one line: `run` prints it and exits with 2."""
    done = CliRunner().invoke(app, list(arguments))
    assert isinstance(done.exception, LatlasError), done.output
    assert "\n" not in str(done.exception)
    return str(done.exception)


def test_what_it_writes_is_a_model_for_every_verb(folder: str, images: str, tmp_path: Path) -> None:
    out = str(tmp_path / "three")
    record = json.loads(latlas("prune", folder, images, "--test", f"{images}[0:50]", "--out", out, "--json", "--device", "cpu"))
    assert (record["kept"], record["removed"], record["errors"]["count"]) == ([0, 2, 3], [1, 4], 50)
    assert record["errors"]["largest_output_difference"] < 1e-5
    assert json.loads((tmp_path / "three/report/report.json").read_text()) == record
    sheet = json.loads(latlas("diagnose", out, images, "--json"))
    assert (sheet["variables"], sheet["collapsed"]) == (3, 0)
    latlas("encode", folder, images, "--out", str(tmp_path / "old"))
    latlas("encode", out, images, "--out", str(tmp_path / "new"))
    latlas("relocate", f"{out}/to-pruned", str(tmp_path / "old"), "--out", str(tmp_path / "relocated"))
    latlas("sample", out, "-n", "3", "--out", str(tmp_path / "samples.npy"))
    relocated, new = (np.load(tmp_path / name / "mean.npy") for name in ("relocated", "new"))
    np.testing.assert_allclose(relocated, new, atol=1e-6)


def test_a_person_reads_what_went_and_what_it_cost(folder: str, images: str, tmp_path: Path) -> None:
    shown = " ".join(latlas("prune", folder, images, "--keep", "1", "--out", str(tmp_path / "one")).split())
    assert "1 of 5 latent variables are kept, and the error changes by" in shown
    assert "2 of the removed ones are active" in shown
    assert f"The pruned model lies at {tmp_path / 'one'}" in shown
    assert VAE.from_pretrained(tmp_path / "one").latent_shape == (1,)


def test_with_nothing_to_prune_nothing_is_written(folder: str, images: str, tmp_path: Path) -> None:
    latlas("prune", folder, images, "--out", str(tmp_path / "three"))
    assert "Nothing to prune: all 3 latent variables" in refused(
        "prune", str(tmp_path / "three"), images, "--out", str(tmp_path / "again")
    )
    assert not (tmp_path / "again").exists()
    kept = (tmp_path / "three/config.json").read_bytes()
    assert "Nothing to prune" in refused(
        "prune", str(tmp_path / "three"), images, "--out", str(tmp_path / "three"), "--replace"
    )
    assert (tmp_path / "three/config.json").read_bytes() == kept


def test_what_cannot_be_written_is_refused_before_any_work(folder: str, images: str, tmp_path: Path) -> None:
    assert "keep 1 to 4 of them, got 5" in refused("prune", folder, images, "--keep", "5", "--out", str(tmp_path / "out"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out/letter.txt").write_text("mine")
    assert "already holds something" in refused("prune", folder, "nowhere", "--out", str(tmp_path / "out"))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
