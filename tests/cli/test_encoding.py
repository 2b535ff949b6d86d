"""`latlas encode`: what a person reads, what is kept of a run that was cut off, and one line for each mistake."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from latlas.base.errors import LatlasError
from latlas.cli.main import app
from latlas.data.loading import load_images, open_images
from latlas.encodings.encoding import Encoding
from latlas.encodings.shards import encode_shard, write_shard
from latlas.encodings.store import open_job
from latlas.models.architectures.dense import Dense
from latlas.models.loading import load_model
from latlas.models.vae import VAE

BAD = {"0007.png": b"nonsense", "0029.png": b""}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, thirty pictures of which two cannot be read, and 9,000 images in one file."""
    folder = tmp_path_factory.mktemp("place")
    torch.manual_seed(0)
    VAE(Dense(widths=(12,), latent=3), (1, 8, 8), name="three").save_pretrained(folder / "m")
    (folder / "pics").mkdir()
    values = np.random.default_rng(0)
    for number in range(30):
        path = folder / "pics" / f"{number:04d}.png"
        Image.fromarray(values.integers(0, 256, (8, 8), dtype=np.uint8)).save(path)
        if path.name in BAD:
            path.write_bytes(BAD[path.name])
    np.save(folder / "many.npy", values.integers(0, 256, (9000, 8, 8), dtype=np.uint8))
    return folder


@pytest.fixture
def latlas(place: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    def called(*arguments: str) -> str:
        monkeypatch.chdir(place)
        done = CliRunner().invoke(app, ["encode", *arguments, "--device", "cpu"])
        if isinstance(done.exception, LatlasError):
            assert "\n" not in str(done.exception)
            raise done.exception
        assert done.exit_code == 0, (done.output, done.exception)
        return done.stdout

    return called


def test_pictures_that_cannot_be_read_stop_it_or_are_skipped_and_all_named(latlas: Callable[..., str], tmp_path: Path) -> None:
    out = str(tmp_path / "codes")
    with pytest.raises(LatlasError, match=r"0007\.png cannot be read as a picture"):
        latlas("m", "pics", "--out", out)
    assert list(tmp_path.iterdir()) == []
    told = latlas("m", "pics", "--out", out, "--on-bad", "skip", "--workers", "0").splitlines()
    assert told[0].startswith("Encoded pics: codes of shape 28 x 3. 30 images now, ")
    assert told[0].endswith(" a second.")
    assert told[1] == "Skipped 2 that could not be read:"
    assert [line.split(":")[0].strip() for line in told[2:4]] == list(BAD)
    assert all(len(line.split(": ", 1)[1]) > 10 for line in told[2:4]), "a reason each"
    encoding = Encoding.from_pretrained(out)
    assert [each.name for each in encoding.skipped] == list(BAD)
    assert encoding.names[7] == "0008.png"
    with pytest.raises(LatlasError, match=r"Unknown policy for bad pictures 'sikp'\. Did you mean 'skip'\?"):
        latlas("m", "pics", "--out", str(tmp_path / "other"), "--on-bad", "sikp")


def test_names_that_are_no_text_are_told_all_the_same(place: Path, tmp_path: Path) -> None:
    (tmp_path / "pics").mkdir()
    (tmp_path / "pics" / "a.png").write_bytes((place / "pics" / "0000.png").read_bytes())
    (tmp_path / "pics" / os.fsdecode(b"b\xff.png")).write_bytes(b"nonsense")
    done = CliRunner().invoke(app, ["encode", str(place / "m"), str(tmp_path / "pics"), "--on-bad", "skip", "--device", "cpu"])
    assert done.exit_code == 0, done.exception
    assert r"b\udcff.png: cannot be read" in done.stdout


def test_json_says_speed_and_every_bad_picture(latlas: Callable[..., str], tmp_path: Path) -> None:
    record = json.loads(latlas("m", "pics", "--on-bad", "skip", "--json"))
    assert (record["shape"], record["encoded_now"]) == ([28, 3], 30)
    assert record["images_per_second"] > 0
    assert [(each["index"], each["name"]) for each in record["skipped"]] == [(7, "0007.png"), (29, "0029.png")]
    assert all(each["reason"] for each in record["skipped"])


def test_a_run_goes_on_where_another_was_cut_off(latlas: Callable[..., str], place: Path, tmp_path: Path) -> None:
    out = tmp_path / "codes"
    latlas("m", "many.npy", "--out", str(tmp_path / "whole"), "--shard-rows", "4096")
    model, images = load_model(place / "m"), open_images("many.npy")
    with open_job(model, images, out, shard_rows=4096) as job:
        write_shard(job.work, encode_shard(model, images, 1, job))
        with pytest.raises(LatlasError, match="is being written by another process"):
            latlas("m", "many.npy", "--out", str(out), "--shard-rows", "4096")
    with pytest.raises(LatlasError, match=r"differs in dtype \(float32 there, float16 here\)"):
        latlas("m", "many.npy", "--out", str(out), "--shard-rows", "4096", "--half")
    told = latlas("m", "many.npy", "--out", str(out), "--shard-rows", "4096")
    assert " 4,904 images now, " in told
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (out / path.name).read_bytes()


def test_codes_are_appended_in_half_precision_and_relocated(latlas: Callable[..., str], place: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "codes")
    latlas("m", "many.npy[0:5000]", "--out", out, "--append", "--half", "--shard-rows", "4096")
    told = latlas("m", "many.npy[5000:9000]", "--out", out, "--append", "--half")
    assert told.startswith("Encoded many.npy[0:5000] + many.npy[5000:9000]: codes of shape 9000 x 3. 4,000 images now")
    encoding = Encoding.from_pretrained(out)
    assert encoding.mean.dtype == torch.float16
    codes = load_model(place / "m").encode(load_images(place / "many.npy").tensor()).mean.detach()  # type: ignore[attr-defined]
    np.testing.assert_allclose(encoding.mean.float().numpy(), codes.numpy(), rtol=1e-3, atol=1e-3)
    with pytest.raises(LatlasError, match="already holds the codes of these images"):
        latlas("m", "many.npy[5000:9000]", "--out", out, "--append", "--half")
    with pytest.raises(LatlasError, match="--append needs --out"):
        latlas("m", "pics", "--append")
    with pytest.raises(LatlasError, match="multiple of 4096, got 100"):
        latlas("m", "many.npy", "--out", str(tmp_path / "other"), "--shard-rows", "100")
    fitted = CliRunner().invoke(
        app, ["map", str(place / "m"), str(place / "m"), str(place / "many.npy"), "--out", str(tmp_path / "map")]
    )
    assert fitted.exit_code == 0, fitted.output
    moved = CliRunner().invoke(app, ["relocate", str(tmp_path / "map"), out, "--out", str(tmp_path / "moved.npy")])
    assert moved.exit_code == 0, (moved.output, moved.exception)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGKILL")
def test_twenty_runs_killed_at_random_moments_all_end_with_the_same_bytes(place: Path, tmp_path: Path) -> None:
    """Real processes, the same command again and again, until the encoding is there."""
    values = np.random.default_rng(1)
    np.save(tmp_path / "more.npy", values.integers(0, 256, (60_000, 8, 8), dtype=np.uint8))

    def command(out: Path) -> list[str]:
        arguments = ["encode", str(place / "m"), str(tmp_path / "more.npy"), "--out", str(out), "--shard-rows", "4096"]
        return [str(Path(sys.executable).with_name("latlas")), *arguments]

    def run(out: Path, after: float | None = None) -> tuple[int, float]:
        began = time.perf_counter()
        with subprocess.Popen(command(out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                process.wait(after)
            except subprocess.TimeoutExpired:
                process.kill()
        return process.returncode, time.perf_counter() - began

    code, lasts = run(tmp_path / "whole")
    assert code == 0
    expected = _content(tmp_path / "whole")
    moments, killed = random.Random(2), 0
    for trial in range(20):
        out = tmp_path / f"codes{trial}"
        code, _ = run(out, moments.uniform(0.3, 1.0) * lasts)  # before, torch is still being imported
        killed += code == -signal.SIGKILL
        if code != 0 and not (out.exists() and not (tmp_path / f".{out.name}.encoding").exists()):
            assert run(out)[0] == 0
        assert _content(out) == expected
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    assert killed >= 10


def _content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_help_shows_both_examples_and_every_option() -> None:
    shown: Any = CliRunner().invoke(app, ["encode", "--help"], env={"COLUMNS": "200"})
    for word in (
        "--append",
        "--half",
        "--shard-rows",
        "--on-bad",
        "--workers",
        "--precision",
        "Example: latlas encode runs/faces",
    ):
        assert word in shown.output
