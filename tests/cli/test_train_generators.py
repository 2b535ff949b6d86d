"""`latlas train dcgan` and `latlas train recoder`: commands of their own behind the verb `train`."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner, Result

from latlas.base.errors import LatlasError
from latlas.cli import generators, training
from latlas.models import loading
from latlas.models.architectures.dcgan import DCGAN
from latlas.models.generator import KIND, GeneratorModel
from latlas.models.recoder import Recoder, with_recoder
from latlas.training.adversarial_runs import TrainedGAN
from latlas.training.precision import choose_precision

app = typer.Typer()
app.command("train", cls=training.TrainCommand)(training.train)
app.command("other")(lambda: None)  # a single command would be the app itself, with no verb before its arguments


@pytest.fixture
def spots(tmp_path: Path) -> str:
    """60 images of blurred chance."""
    coarse = torch.rand(60, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    images = torch.nn.functional.interpolate(coarse, size=(8, 8), mode="bilinear")
    np.save(tmp_path / "spots.npy", (images * 255).round().to(torch.uint8).numpy())
    return str(tmp_path / "spots.npy")


@pytest.fixture(autouse=True)
def generators_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(loading._KINDS, KIND, GeneratorModel.from_pretrained)


def latlas(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["train", *arguments], env={"COLUMNS": "300"})


def test_a_generator_then_its_recoder(spots: str, tmp_path: Path) -> None:
    done = latlas(
        "dcgan", spots, "--latent", "3", "--channels", "2", "--steps", "7", "--batch-size", "20",
        "--seed", "5", "--out", str(tmp_path / "g"), "--json",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    record = json.loads(done.stdout)
    assert record["step"] == 7
    assert {"generator_loss", "discriminator_loss", "spread_ratio", "warnings"} <= record.keys()
    model = GeneratorModel.from_pretrained(tmp_path / "g")
    assert (model.architecture, model.name, model.image_shape) == (DCGAN(channels=2, latent=3), "g", (1, 8, 8))
    assert model.provenance is not None
    assert model.provenance.seed == 5

    arguments = ["recoder", str(tmp_path / "g"), "--loss", "both", "--steps", "4", "--batch-size", "8", "--channels", "4"]
    done = latlas(*arguments, "--cache", str(tmp_path / "kept"), "--cache-images", "16", "--out", str(tmp_path / "r"), "--json")
    assert done.exit_code == 0, done.output
    record = json.loads(done.stdout)
    assert record["code_variance"] == pytest.approx(1, abs=0.1)
    assert with_recoder(model, Recoder.from_pretrained(tmp_path / "r")).name == "g with recoder"
    assert (tmp_path / "kept" / "images.npy").stat().st_size == 16 * 64 + 128

    said = " ".join(latlas(*arguments).stdout.split())
    assert "Trained recoder of g." in said
    assert "On samples held out: error of a code" in said


def test_people_are_told_of_a_collapse_once(spots: str) -> None:
    done = latlas("dcgan", spots, "--channels", "1", "--latent", "1", "--steps", "1", "--learning-rate", "1e-9")
    assert done.exit_code == 0, done.output
    assert done.output.count("has collapsed") <= 1
    assert "samples lie" in done.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["dcgan", "{data}", "--steps", "0"], "at least 1 step"),
        (["dcgan", "{data}", "--steps", "3", "--epochs", "3"], "not both"),
        (["dcgan", "{data}", "--channels", "0"], "channels must be at least 1"),
        (["dcgan", "{data}", "--epochs", "-1"], "at least 1 epoch, got -1."),
        (["dense", "{data}", "--epochs", "-1"], "A training needs at least 1 epoch, got -1."),
        (
            ["dcgam", "{data}"],
            "Did you mean 'dcgan'? Known: autoencoder-kl, conv, dcgan, dense, draw, recoder, resnet, split, stylegan2.",
        ),
        (["--epochs", "3", "stylegan2", "{data}"], "write it first, as in latlas train stylegan2 DATA"),
        (["recoder", "{data}"], "is a file, and a model is a folder"),
        (["recoder", "zoo:dcgan-faces", "--out", "{data}"], "is a file"),
        (["dcgan", "nothing"], "Unknown data set"),
    ],
    ids=[
        "no steps",
        "both",
        "no channels",
        "no epochs",
        "no epochs of a VAE",
        "a slip",
        "an option first",
        "images for a generator",
        "a file",
        "no data",
    ],
)
def test_mistakes_are_one_line(arguments: list[str], words: str, spots: str) -> None:
    done = latlas(*(argument.format(data=spots) for argument in arguments))
    assert isinstance(done.exception, LatlasError)
    assert words in str(done.exception)


@pytest.mark.parametrize(("arch", "own"), [("dcgan", "--gradient-penalty"), ("recoder", "--cache-images")])
def test_each_has_help_of_its_own_with_an_example(arch: str, own: str) -> None:
    shown = latlas(arch, "--help").output
    assert own in shown
    assert "--kl-weight" not in shown
    assert f"Example: latlas train {arch} " in shown


def test_the_help_of_train_names_them() -> None:
    shown = latlas("--help").output
    assert "dcgan, stylegan2, recoder" in " ".join(shown.replace("│", " ").split())
    assert "--kl-weight" in shown


def test_other_architectures_are_still_vaes(spots: str, tmp_path: Path) -> None:
    done = latlas("dense", spots, "--widths", "4", "--latent", "2", "--epochs", "1", "--out", str(tmp_path / "m"))
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "m" / "config.json").read_text())["kind"] == "vae"


@pytest.mark.parametrize(("ratio", "told"), [(0.81, "samples lie 90 % as far apart as the images"), (float("nan"), "")])
def test_how_far_apart_samples_lie_is_told_as_a_distance(ratio: float, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    model = GeneratorModel(DCGAN(channels=2, latent=3), (1, 8, 8), name="g")
    last = {"step": 7, "real_score": 0.1, "fake_score": -0.1}
    precision = choose_precision("float32", convolutional=True, device=torch.device("cpu"))
    result = TrainedGAN(
        model=model, history=[last], precision=precision, spread_ratio=ratio, seconds=1.0, images_per_second=5.0
    )
    generators._say(result, None, json=False)
    words = " ".join(capsys.readouterr().out.split())
    assert told in words
    assert "nan" not in words
    assert ("as far apart" in words) == bool(told)
