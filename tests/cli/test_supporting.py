"""`latlas support`, driven by a runner: what is asked for is chosen, written and told; mistakes leave nothing behind."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from latlas.base.errors import LatlasError
from latlas.cli.main import app
from latlas.data.loading import load_images
from latlas.encodings.encode import encode
from latlas.models.architectures.dense import Dense
from latlas.models.vae import VAE
from latlas.supports.support_set import SupportSet


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained VAE of wide codes, 200 images with labels, and their codes."""
    folder = tmp_path_factory.mktemp("supports")
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(200, 1, 3, 3, generator=generator)
    images = torch.nn.functional.interpolate(coarse, size=(8, 8), mode="bilinear")
    np.savez(folder / "data.npz", images=(255 * images).round().to(torch.uint8).numpy(), labels=np.arange(200) % 4)
    torch.manual_seed(0)
    model = VAE(Dense(latent=3, widths=(16,)), (1, 8, 8), name="tiny")
    with torch.no_grad():  # else the codes of an untrained network lie within 0.1 of each other: no variable is active
        for name, parameter in model.named_parameters():
            parameter.mul_(8 if "encoder" in name else 1)
    model.save_pretrained(folder / "model")
    encode(model, load_images(folder / "data.npz"), out=folder / "codes")
    return folder


def ask(place: Path, *options: str) -> list[str]:
    return ["support", str(place / "model"), str(place / "data.npz"), "--variables", "2", *options]


def test_everything_that_is_asked_for_is_written_and_agrees(place: Path, tmp_path: Path) -> None:
    out, pictures, npz = tmp_path / "s", tmp_path / "pictures", tmp_path / "s.npz"
    options = ["--codes", str(place / "codes"), "--choose", "extreme", "--threshold-unit", "spread", "--without", "label=3",
               "--size", "9", "--out", str(out), "--export", str(pictures), "--npz", str(npz), "--json"]  # fmt: skip
    done = CliRunner().invoke(app, ask(place, *options))
    assert done.exit_code == 0, done.output
    numbers = json.loads(done.stdout)
    assert numbers == json.loads((out / "report.json").read_text())
    chosen = SupportSet.from_pretrained(out / "support-set")
    assert len(chosen) == 9
    assert numbers["members"] == chosen.indices.tolist()
    assert numbers["hashes"] == list(chosen.hashes)
    assert chosen.images.labels is not None
    assert set(chosen.images.labels.tolist()) <= {0, 1, 2}
    images = load_images(place / "data.npz")
    assert chosen.verify(images).holds
    assert load_images(npz).content_hash == chosen.images.content_hash
    assert len(load_images(pictures)) == 9
    study = numbers["sector_study"]
    assert study["codes"] == 150
    assert study["occupancy"] == numbers["occupancy"]
    assert numbers["spread"]["interval"][0] < numbers["spread"]["ratio"] < numbers["spread"]["interval"][1]
    assert "Sectors that hold an image" in (out / "report.html").read_text()


def test_codes_and_names_on_disk_give_what_encoding_gives(place: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("#0\n\n#7\n")
    runner = CliRunner()
    options = ["--exclude", str(tmp_path / "names.txt"), "--json"]
    fresh = runner.invoke(app, ask(place, *options))
    stored = runner.invoke(app, ask(place, *options, "--codes", str(place / "codes")))
    assert fresh.exit_code == stored.exit_code == 0, stored.output
    assert json.loads(fresh.stdout) == json.loads(stored.stdout)
    assert not {0, 7} & set(json.loads(fresh.stdout)["members"])


def test_another_selector_is_told_in_words(place: Path) -> None:
    done = CliRunner().invoke(app, ask(place, "--selector", "farthest", "--size", "6"))
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("6 images for")
    assert "random ones" in done.stdout


MISTAKES = {
    "selector": (["--selector", "kmeans"], "Did you mean 'k-means'"),
    "choice": (["--choose", "extrem"], "Did you mean 'extreme'"),
    "unit": (["--threshold-unit", "sigma"], "Known: code, spread"),
    "threshold": (["--threshold", "big"], "a number or the word largest"),
    "too far": (["--threshold", "500"], "Lower the threshold"),
    "attribute": (["--without", "hat"], "Unknown attribute"),
    "value": (["--without", "label=7"], "Unknown value of label"),
    "too many": (["--variables", "9"], "9 variables of a latent space of 3"),
    "exclude": (["--exclude", "nothing.txt"], "a text file with the name of an image on each line"),
    "npz": (["--npz", "s.zip"], "ends in .npz"),
    "size": (["--size", "201"], "Asked for 201 of 200 images"),
    "one": (["--size", "1", "--selector", "k-means"], "ask for 2 to that many"),
    "none": (["--variables", "0"], "0 variables of a latent space of 3"),
    "not a number": (["--threshold", "nan"], "must be at least 0, got nan"),
    "codes": (["--codes", "nowhere"], "nowhere"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_told_and_nothing_is_written(
    case: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options, text = MISTAKES[case]
    monkeypatch.chdir(tmp_path)
    # Unwrapped of jaxtyping's checks a name is what the user typed; with them the checker would answer first.
    monkeypatch.setattr("latlas.studies.support.build_support_set", _unchecked())
    done = CliRunner().invoke(app, ask(place, "--out", "s", "--export", "pictures", *options))
    assert isinstance(done.exception, LatlasError), done.output
    assert text in str(done.exception)
    assert "\n" not in str(done.exception)
    assert list(tmp_path.iterdir()) == []


def _unchecked() -> object:
    import inspect

    from latlas.studies.support import build_support_set

    return inspect.unwrap(build_support_set)


def test_more_sectors_than_images_and_places_that_are_taken_are_refused(place: Path, tmp_path: Path) -> None:
    few = CliRunner().invoke(app, ["support", str(place / "model"), f"{place}/data.npz[0:5]", "--variables", "3"])
    assert "more than the 5 images" in str(few.exception)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/mine.txt").write_text("mine")
    taken = CliRunner().invoke(
        app, ask(place, "--export", str(tmp_path / "pictures"), "--out", str(tmp_path / "s"), "--replace")
    )
    assert "already holds something" in str(taken.exception)
    assert [path.name for path in tmp_path.rglob("*")] == ["pictures", "mine.txt"]


SLIPS = ("selector", "choice", "unit", "too many", "none", "size", "one", "not a number")


@pytest.mark.parametrize("case", SLIPS)
def test_a_slip_is_told_before_anything_is_encoded(case: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def encodes(*_: object, **__: object) -> None:
        pytest.fail("encoded for nothing")

    monkeypatch.setattr("latlas.encodings.encode.encode", encodes)
    options, text = MISTAKES[case]
    done = CliRunner().invoke(app, ask(place, *options))
    assert isinstance(done.exception, LatlasError), done.output
    assert text in str(done.exception)
