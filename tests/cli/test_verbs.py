"""The verbs, driven as a person drives them: real processes for exit codes, a runner where only output matters."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from latlas.cli import training
from latlas.cli.main import app
from latlas.maps.linear import LinearMap
from latlas.models.architectures.conv import Conv
from latlas.models.architectures.dense import Dense
from latlas.models.architectures.draw import Draw
from latlas.models.architectures.registry import ARCHITECTURES
from latlas.models.architectures.resnet import ResNet
from latlas.models.vae import VAE
from latlas.training.objectives import BALANCES

MISTAKE = 2


def _latlas(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from latlas.cli.main import run; run()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=cwd)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small image set as a file: 300 blurred random blobs, so that a VAE has something to learn."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(300, 1, 4, 4, generator=generator)
    images = torch.nn.functional.interpolate(coarse, size=(12, 12), mode="bilinear").clamp(0, 1)
    path = tmp_path_factory.mktemp("data") / "blobs.npy"
    np.save(path, (images * 255).round().to(torch.uint8).numpy())
    return path


@pytest.fixture(scope="module")
def trained(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two trainings of one small model, by the command line itself."""
    folder = tmp_path_factory.mktemp("models")
    for seed, name in ((0, "a"), (1, "b")):
        arguments = ["train", "dense", str(digits), "--widths", "32", "--latent", "4", "--epochs", "40", "--batch-size", "50"]
        # So few steps leave the running error no time to fall from its start of 1: a fixed likelihood, narrow enough.
        arguments += ["--balance", "fixed", "--sigma", "0.1"]
        done = CliRunner().invoke(app, [*arguments, "--seed", str(seed), "--name", name, "--out", str(folder / name)])
        assert done.exit_code == 0, done.output
    return folder / "a", folder / "b"


def test_train_writes_a_model_that_loads(trained: tuple[Path, Path]) -> None:
    model = VAE.from_pretrained(trained[0])
    assert model.name == "a"
    assert model.latent_shape == (4,)
    assert len(json.loads((trained[0] / "run/history.json").read_text())) == 40


def test_diagnose_prints_json_alone_and_writes_a_page_with_the_same_numbers(
    trained: tuple[Path, Path], digits: Path, tmp_path: Path
) -> None:
    done = _latlas("diagnose", str(trained[0]), str(digits), "--out", str(tmp_path / "health"), "--json")
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed == json.loads((tmp_path / "health/report.json").read_text())
    assert len(printed["table"]) == 4
    page = (tmp_path / "health/report.html").read_text()
    assert f"{printed['active']} of 4" in page


def test_map_then_relocate_gives_the_codes_that_the_map_gives(trained: tuple[Path, Path], digits: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    a, b = map(str, trained)
    assert runner.invoke(app, ["map", a, b, str(digits), "--out", str(tmp_path / "m")]).exit_code == 0
    assert runner.invoke(app, ["encode", a, str(digits), "--out", str(tmp_path / "codes")]).exit_code == 0
    moved = runner.invoke(app, ["relocate", str(tmp_path / "m"), str(tmp_path / "codes"), "--out", str(tmp_path / "moved.npy")])
    assert moved.exit_code == 0, moved.output
    fitted = LinearMap.from_pretrained(tmp_path / "m/map")
    codes = np.load(tmp_path / "codes/mean.npy")
    expected = codes.astype(np.float64) @ fitted.weight.numpy() + fitted.bias.numpy()
    np.testing.assert_allclose(np.load(tmp_path / "moved.npy"), expected, rtol=1e-5, atol=1e-6)


def test_support_and_range_answer_and_write_pages(trained: tuple[Path, Path], digits: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    chosen = runner.invoke(
        app, ["support", str(trained[0]), str(digits), "--variables", "2", "--out", str(tmp_path / "s"), "--json"]
    )
    assert chosen.exit_code == 0, chosen.output
    numbers = json.loads(chosen.stdout)
    assert numbers["inhabited"] <= numbers["sectors"] == 4
    assert len(numbers["members"]) == 4
    judged = runner.invoke(
        app,
        [
            "range",
            str(trained[0]),
            f"{digits}[0:20]",
            "--samples",
            "50",
            "--steps",
            "30",
            "--out",
            str(tmp_path / "r"),
            "--json",
        ],
    )
    assert judged.exit_code == 0, judged.output
    assert len(json.loads(judged.stdout)["per_image"]) == 20
    for name in ("s", "r"):
        assert (tmp_path / name / "report.html").stat().st_size > 5_000


def test_the_same_command_twice_gives_the_same_weights(digits: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    for name in ("one", "two"):
        arguments = ["train", "dense", str(digits), "--widths", "16", "--latent", "2", "--epochs", "2", "--seed", "7"]
        assert runner.invoke(app, [*arguments, "--out", str(tmp_path / name)]).exit_code == 0
    assert (tmp_path / "one/model.safetensors").read_bytes() == (tmp_path / "two/model.safetensors").read_bytes()


def test_any_setting_of_an_architecture_can_be_given(digits: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    for name, given, expected in (
        ("resnet", ["--set", "scales=2", "--set", "base_dim=4", "--set", "fc_dim = 8"], ResNet(scales=2, base_dim=4, fc_dim=8)),
        (
            "draw",
            ["--latent", "2", "--set", "steps=2", "--set", "attention=false", "--set", "hidden=8"],
            Draw(latent=2, steps=2, attention=False, hidden=8),
        ),
        ("conv", ["--set", "channels=4,6", "--set", "latent=3"], Conv(channels=(4, 6), latent=3)),
        ("dense", ["--widths", "8"], Dense(widths=(8,))),
    ):
        arguments = ["train", name, f"{digits}[0:64]", *given, "--epochs", "1", "--out", str(tmp_path / name)]
        done = runner.invoke(app, arguments)
        assert done.exit_code == 0, done.output
        assert VAE.from_pretrained(tmp_path / name).architecture == expected


def test_the_help_of_train_lists_the_architectures() -> None:
    assert tuple(ARCHITECTURES) == training.ARCHITECTURES
    shown = " ".join(CliRunner().invoke(app, ["train", "--help"], env={"COLUMNS": "200"}).output.split())
    assert ", ".join(ARCHITECTURES) in shown


def test_the_help_of_train_names_every_balance() -> None:
    assert tuple(training.BALANCES) == BALANCES
    shown = " ".join(CliRunner().invoke(app, ["train", "--help"], env={"COLUMNS": "400"}).output.split())
    assert all(f"{rule}: " in shown for rule in BALANCES)


def test_a_collapse_is_told_once(digits: Path) -> None:
    done = _latlas("train", "dense", str(digits), "--widths", "8", "--latent", "2", "--epochs", "1", "--kl-weight", "1e6")
    assert done.returncode == 0, done.stderr
    assert " ".join((done.stdout + done.stderr).split()).count("latent variable has collapsed") == 1


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_ctrl_c_is_one_line_and_exit_code_130(digits: Path, tmp_path: Path) -> None:
    arguments = ["train", "dense", str(digits), "--widths", "8", "--epochs", "100000", "--out", str(tmp_path / "model")]
    command = [sys.executable, "-c", "from latlas.cli.main import run; run()", *arguments]

    def heed_interrupts() -> None:
        # A shell without job control starts its background processes with SIGINT ignored, and children inherit that.
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed_interrupts
    ) as running:
        checkpoint, patience = tmp_path / ".model.training/last.ckpt", time.monotonic() + 120
        while not checkpoint.is_file() and running.poll() is None and time.monotonic() < patience:
            time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        _, told = running.communicate(timeout=60)
    assert running.returncode == 130, told
    message = told.splitlines()[-1]
    assert message.startswith("latlas: interrupted; the same command goes on from epoch "), told
    assert "Traceback" not in told


def test_single_files_are_written_with_their_folders(trained: tuple[Path, Path], digits: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    a, b = map(str, trained)
    assert runner.invoke(app, ["map", a, b, str(digits), "--out", str(tmp_path / "m")]).exit_code == 0
    np.save(tmp_path / "codes.npy", np.zeros((3, 4), dtype=np.float32))
    for number, arguments in enumerate((["relocate", str(tmp_path / "m"), str(tmp_path / "codes.npy")], ["sample", a])):
        out = tmp_path / "new" / str(number) / "x.npy"
        done = runner.invoke(app, [*arguments, "--out", str(out)])
        assert done.exit_code == 0, done.output
        assert {path.suffix for path in out.parent.iterdir()} == ({".npy", ".png"} if number else {".npy"})


MISTAKES = {
    "unknown data": (["diagnose", "{model}", "mnits"], "Did you mean 'mnist'"),
    "unknown architecture": (["train", "dens", "{data}"], "Did you mean 'dense'"),
    "missing model": (["diagnose", "nowhere", "{data}"], "No model folder nowhere"),
    "missing folder": (["diagnose", "{model}", "nowhere/at/all"], "No folder or file nowhere/at/all"),
    "foreign folder": (["diagnose", "{foreign}", "{data}"], "is not a latlas model"),
    "truncated weights": (["diagnose", "{truncated}", "{data}"], "damaged"),
    "wrong shape": (["diagnose", "{model}", "{other}"], "takes images of 1x12x12"),
    "NaN in an array": (["diagnose", "{model}", "{nan}"], "image 3 holds NaN"),
    "output taken": (["diagnose", "{model}", "{data}", "--out", "{foreign}"], "already holds something"),
    "bad device": (["diagnose", "{model}", "{data}", "--device", "abacus"], "Unknown device"),
    "bad level": (["range", "{model}", "{data}", "--level", "7"], "level must lie between 0 and 1"),
    "bad ridge": (["map", "{model}", "{model}", "{data}", "--ridge", "soft"], "--ridge takes a number or the word gcv"),
    "bad widths": (["train", "dense", "{data}", "--widths", "a,b"], "--widths takes whole numbers"),
    "unknown setting": (["train", "resnet", "{data}", "--set", "depth=3"], "has no setting 'depth'; it has base_dim, fc_dim"),
    "too many variables": (["support", "{model}", "{data}", "--variables", "9"], "9 variables of a latent space of 4"),
    "training below a file": (["train", "dense", "{data}", "--out", "other.npy/x"], "is not a folder"),
    "a page below a file": (["diagnose", "{model}", "{data}", "--out", "other.npy/x"], "is not a folder"),
    "samples below a file": (["sample", "{model}", "--out", "other.npy/x.npy"], "is not a folder"),
    "codes below a file": (["relocate", "{model}", "nan.npy", "--out", "other.npy/x.npy"], "is not a folder"),
    "sigma with running error": (["train", "dense", "{data}", "--sigma", "0.3"], "leave it out, or use --balance fixed"),
    "free nats with warm-up": (
        ["train", "dense", "{data}", "--balance", "warm-up", "--free-nats", "1"],
        "use --balance free-bits",
    ),
    "bernoulli with running error": (["train", "dense", "{data}", "--likelihood", "bernoulli"], "--balance fixed"),
}


@pytest.mark.parametrize("case", MISTAKES, ids=lambda case: case.replace(" ", "-"))
def test_a_mistake_is_one_line_and_exit_code_2_and_changes_nothing(
    case: str, trained: tuple[Path, Path], digits: Path, tmp_path: Path
) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "notes.txt").write_text("mine")
    truncated = tmp_path / "truncated"
    truncated.mkdir()
    for file in ("config.json", "model.safetensors"):
        (truncated / file).write_bytes((trained[0] / file).read_bytes())
    (truncated / "run").mkdir()
    for file in (trained[0] / "run").iterdir():
        (truncated / "run" / file.name).write_bytes(file.read_bytes())
    weights = truncated / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-40])
    nan = np.zeros((5, 12, 12), dtype=np.float32)
    nan[3, 0, 0] = np.nan
    np.save(tmp_path / "nan.npy", nan)
    np.save(tmp_path / "other.npy", np.zeros((5, 9, 9), dtype=np.uint8))
    places = {
        "model": trained[0],
        "data": digits,
        "foreign": foreign,
        "truncated": truncated,
        "nan": tmp_path / "nan.npy",
        "other": tmp_path / "other.npy",
    }
    arguments, words = MISTAKES[case]
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    done = _latlas(*(argument.format(**places) for argument in arguments), cwd=tmp_path)
    assert done.returncode == MISTAKE
    message = [line for line in done.stderr.splitlines() if line.startswith("latlas: ")]
    assert len(message) == 1
    assert words in message[0]
    assert "Traceback" not in done.stderr
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "verb", ["tour", "train", "encode", "diagnose", "calibrate", "sample", "map", "relocate", "support", "range"]
)
def test_every_verb_shows_an_example_in_its_help(verb: str) -> None:
    shown = CliRunner().invoke(app, [verb, "--help"])
    assert shown.exit_code == 0
    assert f"Example: latlas {verb}" in shown.output


def test_calibrate_chooses_a_sampler_that_sample_draws_with(trained: tuple[Path, Path], digits: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    chosen = runner.invoke(
        app,
        ["calibrate", str(trained[0]), f"{digits}[0:200]", "--heldout", f"{digits}[200:300]", "--features", "pixels",
         "--components", "3", "--out", str(tmp_path / "c"), "--json"],
    )  # fmt: skip
    assert chosen.exit_code == 0, chosen.output
    numbers = json.loads(chosen.stdout)
    assert numbers["best"] in numbers["samplers"]
    assert (tmp_path / "c/report.html").is_file()
    arguments = ["sample", str(trained[0]), "-n", "30", "--seed", "5"]
    drawn = runner.invoke(app, [*arguments, "--sampler", str(tmp_path / "c"), "--out", str(tmp_path / "x.npy")])
    assert drawn.exit_code == 0, drawn.output
    images = np.load(tmp_path / "x.npy")
    assert images.shape == (30, 1, 12, 12)
    assert images.dtype == np.uint8
    assert (tmp_path / "x.png").is_file()
    again = runner.invoke(app, [*arguments, "--sampler", str(tmp_path / "c"), "--out", str(tmp_path / "y.npy")])
    assert again.exit_code == 0
    np.testing.assert_array_equal(images, np.load(tmp_path / "y.npy"))


def test_relocate_refuses_the_codes_of_another_model(trained: tuple[Path, Path], digits: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    a, b = map(str, trained)
    assert runner.invoke(app, ["map", a, b, str(digits), "--out", str(tmp_path / "m")]).exit_code == 0
    assert runner.invoke(app, ["encode", b, str(digits), "--out", str(tmp_path / "codes")]).exit_code == 0
    done = _latlas("relocate", str(tmp_path / "m"), str(tmp_path / "codes"), "--out", str(tmp_path / "moved.npy"))
    assert done.returncode == MISTAKE
    assert "latlas: This map takes codes of a (weights " in done.stderr
    assert "Encode the images with the map's source model" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "moved.npy").exists()
