"""`latlas map` with every option, as a person gives it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from latlas.base.errors import LatlasError
from latlas.cli import mapping
from latlas.cli.main import app
from latlas.maps.fit import fit_map
from latlas.maps.loading import load_map
from latlas.maps.spatial import fit_spatial_map
from latlas.models.architectures.dense import Dense
from latlas.models.vae import VAE

MISTAKE = 2


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 blurred blobs as a file."""
    coarse = torch.rand(200, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    images = torch.nn.functional.interpolate(coarse, size=(12, 12), mode="bilinear").clamp(0, 1)
    path = tmp_path_factory.mktemp("data") / "blobs.npy"
    np.save(path, (images * 255).round().to(torch.uint8).numpy())
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Three models as their initialisation leaves them, of contrast enough to be told apart."""
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate("abc"):
        torch.manual_seed(seed)
        model = VAE(Dense(latent=3, widths=(16,)), image_shape=(1, 12, 12), name=name)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(3.0)
        model.save_pretrained(folder / name)
    return [str(folder / name) for name in "abc"]


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["map", *arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


def refused(*arguments: str, cwd: Path) -> str:
    """The one line that a mistake is answered with; nothing may be written."""
    before = sorted(cwd.rglob("*"))
    mistake = CliRunner().invoke(app, ["map", *arguments]).exception
    assert isinstance(mistake, LatlasError), mistake
    assert sorted(cwd.rglob("*")) == before
    assert "\n" not in str(mistake)
    return str(mistake)


def test_a_matrix_is_every_ordered_pair_and_a_page(trained: list[str], digits: Path, tmp_path: Path) -> None:
    record = json.loads(run("--matrix", *trained, str(digits), "--ridge", "gcv", "--out", str(tmp_path / "m"), "--json"))
    assert record["models"] == ["a", "b", "c"]
    assert {(pair["source"], pair["target"]) for pair in record["pairs"]} == {
        (one, other) for one in "abc" for other in "abc" if one != other
    }
    assert record == json.loads((tmp_path / "m/report.json").read_text())
    page = (tmp_path / "m/report.html").read_text()
    assert page.count("<svg") >= 3
    assert "3 models, every ordered pair" in page
    alone = json.loads(run(trained[0], trained[1], str(digits), "--ridge", "gcv", "--json"))
    assert record["pairs"][0]["M"] == alone["M"]


def test_without_json_a_matrix_is_two_tables_on_the_terminal(trained: list[str], digits: Path) -> None:
    shown = " ".join(run("--matrix", *trained, str(digits)).split())
    assert "M over the target's own error: source by row, target by column" in shown
    assert "Recovered share" in shown


def test_every_option_of_one_pair_is_heard(
    trained: list[str], digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mydistance.py").write_text("def mean(a, b):\n    return (a - b).abs().mean(dim=(1, 2, 3))\n")
    monkeypatch.chdir(tmp_path)
    record = json.loads(
        run(
            *trained[:2], str(digits), "--ridge", "0.5", "--features", "pixels", "--perceptual", "mydistance:mean",
            "--yardstick", "--out", str(tmp_path / "m"), "--json",
        )
    )  # fmt: skip
    assert record["map"]["ridge"] == 0.5
    assert record["features"] == "Fréchet distance (raw pixels)"
    for part in ("psnr", "ssim", "perceptual", "frechet"):
        assert part in record["quality"]["M"]
    assert record["yardstick"]["pairs"] == 160
    assert load_map(tmp_path / "m/map").evidence["ridge"] == 0.5
    assert str(tmp_path) not in sys.path


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{a}", "{data}"], "takes SOURCE TARGET DATA, got 2: "),
        (["{a}", "{b}", "{a}", "{data}"], "For more than two models give --matrix"),
        (["--matrix", "{a}", "{data}"], "--matrix takes two or more models and the images last"),
        (["--matrix", "{a}", "{b}", "{data}", "--yardstick"], "--yardstick is for one pair of models"),
        (["{a}", "{b}", "stream"], "Both a and b encode: there is no need of a stream"),
        (["{a}", "{b}", "stream", "--test", "{data}"], "Leave --test out"),
        (["{a}", "{b}", "{data}", "--neighbourhood", "3"], "A neighbourhood is for two spatial latent spaces"),
        (["{a}", "{b}", "{data}", "--perceptual", "nowhere:f"], "--perceptual nowhere:f cannot be had"),
        (["{a}", "{b}", "{data}", "--perceptual", "math"], "takes MODULE:FUNCTION, got 'math'"),
        (["{a}", "{b}", "{data}", "--perceptual", "math:pi"], "is a float; name a function"),
        (["{a}", "{b}", "{data}", "--kind", "orthogonnal"], "Did you mean 'orthogonal'?"),
        (["{a}", "{b}", "{data}[0:3]", "--out", "m"], "has 1 image to measure on"),
        (["{a}", "{b}", "{data}[0:4]", "--out", "m", "--test", "{data}"], "Give at least 4 pairs, or a ridge"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_written(
    arguments: list[str], words: str, trained: list[str], digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = {"a": trained[0], "b": trained[1], "data": str(digits)}
    if words.startswith("Give at least"):
        arguments = [argument.replace("[0:4]", "[0:3]") for argument in arguments]
    monkeypatch.chdir(tmp_path)
    assert words in refused(*(argument.format(**places) for argument in arguments), cwd=tmp_path)


def test_a_generator_is_mapped_on_its_own_stream(trained: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seer = VAE.from_pretrained(trained[0])

    class Drawer:
        name, fingerprint, image_shape, latent_shape = "drawer", "d", seer.image_shape, seer.latent_shape
        decode, sample_codes = staticmethod(seer.decode), staticmethod(seer.sample_codes)

    monkeypatch.setattr("latlas.cli.models.model_on", lambda spec, device: Drawer() if spec == "gan" else seer)
    arguments = ["gan", trained[0], "stream", "--stream", "100", "--features", "pixels", "--out", str(tmp_path / "m"), "--json"]
    record = json.loads(run(*arguments))
    assert (record["known_codes"], record["R"], record["map"]["pairs"]) == ("drawer", 0.0, 100)
    assert "0 by construction" in (tmp_path / "m/report.html").read_text()
    arguments = ["--matrix", "gan", trained[0], trained[0], "x.npy", "--stream", "100", "--json"]
    np.save(tmp_path / "x.npy", np.random.default_rng(0).integers(0, 255, (60, 12, 12), dtype=np.uint8))
    monkeypatch.chdir(tmp_path)
    assert len(json.loads(run(*arguments))["pairs"]) == 6


def test_the_shell_prints_that_line_and_exits_with_2(trained: list[str]) -> None:
    command = [sys.executable, "-c", "from latlas.cli.main import run; run()", "map", trained[0], trained[1]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == MISTAKE
    assert done.stderr.startswith("latlas: latlas map takes SOURCE TARGET DATA, got 2: ")
    assert len(done.stderr.splitlines()) == 1


def test_a_spatial_map_relocates_spatial_codes(digits: Path, tmp_path: Path) -> None:
    """What `latlas map` writes of two spatial latent spaces, `latlas relocate` reads."""
    codes = torch.randn(30, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    fitted = fit_spatial_map(codes, 2 * codes + 1)
    fitted.save_pretrained(tmp_path / "m/map")
    np.save(tmp_path / "codes.npy", codes.numpy())
    done = CliRunner().invoke(
        app, ["relocate", str(tmp_path / "m"), str(tmp_path / "codes.npy"), "--out", str(tmp_path / "moved.npy")]
    )
    assert done.exit_code == 0, done.output
    np.testing.assert_allclose(np.load(tmp_path / "moved.npy"), 2 * codes + 1, atol=1e-5)


def test_the_help_has_an_example_of_each_form() -> None:
    shown = " ".join(CliRunner().invoke(app, ["map", "--help"]).output.split())
    for example in ("latlas map runs/a runs/b mnist:train", "latlas map --matrix runs/a", "latlas map runs/gan runs/a stream"):
        assert example in shown
    for option in ("--matrix", "--neighbourhood", "--rank", "--features", "--perceptual", "--yardstick", "--stream"):
        assert option in shown


def test_relocate_names_what_is_wrong_with_codes_and_place(tmp_path: Path) -> None:
    fit_map(torch.randn(40, 3), torch.randn(40, 2)).save_pretrained(tmp_path / "map")
    np.save(tmp_path / "codes.npy", np.ones((5, 3), dtype=np.float32))
    np.save(tmp_path / "nan.npy", np.full((5, 3), np.nan, dtype=np.float32))
    (tmp_path / "text.npy").write_text("no array")
    for codes, words in (
        ("nowhere", "No encoding folder"),
        ("nan.npy", "Row 0"),
        ("text.npy", "not a readable .npy of numbers."),
    ):
        with pytest.raises(LatlasError, match=words):
            mapping.relocate(str(tmp_path / "map"), tmp_path / codes, tmp_path / "new.npy")
    mapping.relocate(str(tmp_path / "map"), tmp_path / "codes.npy", tmp_path / "new.npy")
    with pytest.raises(LatlasError, match="already exists; name a new file"):
        mapping.relocate(str(tmp_path / "map"), tmp_path / "codes.npy", tmp_path / "new.npy")
