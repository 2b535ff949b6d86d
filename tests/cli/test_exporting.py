"""`latlas export`, driven by a runner: a file that onnxruntime runs, or one line of what to do."""

import json
from pathlib import Path

import jaxtyping
import numpy as np
import onnxruntime
import pytest
import torch
import typer
from typer.testing import CliRunner, Result

from latlas.cli.exporting import export
from latlas.maps.linear import LinearMap
from latlas.models.architectures.registry import architecture
from latlas.models.vae import VAE

app = typer.Typer(pretty_exceptions_enable=False)
app.command("export")(export)
app.command("other")(lambda: None)  # with one command alone, typer drops its name


@pytest.fixture
def model(tmp_path: Path) -> VAE:
    torch.manual_seed(0)
    made = VAE(architecture("dense", widths=(8,), latent=2), (1, 4, 4), name="digits")
    made.save_pretrained(tmp_path / "model")
    return made


@pytest.fixture
def fitted(model: VAE, tmp_path: Path) -> LinearMap:
    there = LinearMap(
        weight=torch.randn(3, 2, dtype=torch.float64),
        bias=torch.randn(2, dtype=torch.float64),
        kind="affine",
        source="other",
        target="digits",
        target_fingerprint=model.fingerprint,
    )
    there.save_pretrained(tmp_path / "there" / "map")
    return there


def run(folder: Path, *arguments: str) -> Result:
    jaxtyping.config.update("jaxtyping_disable", True)  # as in tests/models/test_exporting.py
    try:
        return CliRunner().invoke(app, ["export", str(folder / "model"), *arguments])
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def test_a_decoder_behind_a_map_takes_the_codes_of_the_source(model: VAE, fitted: LinearMap, tmp_path: Path) -> None:
    out = tmp_path / "model.onnx"
    done = run(tmp_path, "--map", str(tmp_path / "there"), "--out", str(out), "--json")
    assert done.exit_code == 0, done.output
    record = json.loads(done.stdout)
    assert record.pop("largest_difference") <= 1e-4
    assert record == {
        "model": "other → digits", "what": "decode", "inputs": ["codes"], "outputs": ["images"], "batch": None, "out": str(out),
    }  # fmt: skip
    codes = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    (found,) = onnxruntime.InferenceSession(str(out)).run(None, {"codes": codes.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(found, model.decode(fitted.apply(codes)).numpy(), atol=1e-5)


def test_an_encoder_for_a_fixed_number_is_told_in_words(model: VAE, tmp_path: Path) -> None:
    done = run(tmp_path, "--what", "encode", "--batch", "2", "--out", str(tmp_path / "model.onnx"))
    assert done.exit_code == 0, done.output
    assert "digits: images to mean and log_variance; onnxruntime and PyTorch differ by" in done.output
    inputs = onnxruntime.InferenceSession(str(tmp_path / "model.onnx")).get_inputs()
    assert inputs[0].shape == [2, 1, 4, 4]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--out", "{here}/model.pt"], "ends in .onnx"),
        (["--out", "{here}/there.onnx", "--batch", "many"], "takes a whole number or the word dynamic, got 'many'"),
        (["--out", "{here}/there.onnx", "--batch", "0"], "at least 1"),
        (["--out", "{here}/there.onnx", "--what", "sample"], "exports its decode or encode half"),
        (["--out", "{here}/there.onnx", "--what", "encode", "--map", "{here}/there"], "Leave --map or --what encode out"),
        (["--out", "{here}/there.onnx", "--map", "{here}/nowhere"], "expected a latlas linear-map there"),
        (["--out", "{here}/there.onnx", "--map", "{here}/model"], "holds a latlas vae"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    model: VAE, fitted: LinearMap, tmp_path: Path, arguments: list[str], words: str
) -> None:
    before = sorted(tmp_path.rglob("*"))
    done = run(tmp_path, *(argument.format(here=tmp_path) for argument in arguments))
    assert done.exit_code == 1
    assert words in str(done.exception)
    assert "\n" not in str(done.exception)
    assert sorted(tmp_path.rglob("*")) == before
