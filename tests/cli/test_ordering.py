"""`latlas order`: answers, writes its page and pictures, and takes a mistake as one line."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from latlas.base.errors import CapabilityError, IllPosedError, LatlasError, NonFiniteError
from latlas.cli.main import app, run
from latlas.data.loading import load_images
from latlas.measurements.ordering import order_variables
from latlas.models.architectures.dense import Dense
from latlas.models.vae import VAE

LATENT = 5


@pytest.fixture(scope="module")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> str:
    """200 images of 12 x 12."""
    coarse = torch.rand(200, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    images = torch.nn.functional.interpolate(coarse, size=(12, 12), mode="bilinear")
    path = tmp_path_factory.mktemp("data") / "blobs.npy"
    np.save(path, (images * 255).round().to(torch.uint8).numpy())
    return str(path)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An untrained model: what it draws means nothing, and the verb must answer all the same."""
    torch.manual_seed(1)
    made = VAE(Dense(latent=LATENT, widths=(16,)), image_shape=(1, 12, 12), name="a")
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(3)
    folder = tmp_path_factory.mktemp("models") / "a"
    made.save_pretrained(folder)
    return str(folder)


def test_the_verb_shows_an_example_in_its_help() -> None:
    shown = CliRunner().invoke(app, ["order", "--help"])
    assert shown.exit_code == 0
    assert "Example: latlas order" in shown.output


def test_order_prints_json_alone_and_writes_a_page_with_the_same_numbers(model: str, blobs: str, tmp_path: Path) -> None:
    out = tmp_path / "order"
    done = CliRunner().invoke(app, ["order", model, blobs, "--top", "2", "--seed", "3", "--out", str(out), "--json"])
    assert done.exit_code == 0, done.output
    printed = json.loads(done.stdout)
    assert printed == json.loads((out / "report.json").read_text())
    direct = order_variables(VAE.from_pretrained(model), load_images(blobs), top=2, seed=3)
    assert printed["leading"] == list(direct.leading)
    assert printed["decodes"] == direct.decodes < printed["exhaustive_decodes"] == 200 * (LATENT + 1)
    assert set(printed["alternatives"]) == {"kl", "variance", "jacobian"}
    page = (out / "report.html").read_text()
    assert f"Most informative first: {printed['leading'][0]}, {printed['leading'][1]}." in page
    assert "With 95 % confidence" in page
    with Image.open(out / "traversals.webp") as moving:
        assert moving.n_frames == 40
    with Image.open(out / "traversals.png") as strip:
        assert strip.size[0] == 12 * 14 * 5 - 2 * 5  # eleven values and the difference of the ends


@pytest.mark.parametrize("by", ["gain", "kl", "variance", "jacobian"])
def test_every_measure_answers_exhaustively(by: str, model: str, blobs: str) -> None:
    done = CliRunner().invoke(app, ["order", model, blobs, "--by", by, "--exhaustive", "--top", "2", "--json"])
    assert done.exit_code == 0, done.output
    printed = json.loads(done.stdout)
    assert not printed["fast"]
    assert sorted(row["variable"] for row in printed["table"]) == list(range(LATENT))
    scores = [row["score"] for row in printed["table"]]
    assert scores == sorted(scores, reverse=True)


def test_a_person_reads_the_order_and_its_ties(model: str, blobs: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["order", model, blobs, "--top", "3", "--by", "kl", "--out", str(tmp_path / "o")])
    assert done.exit_code == 0, done.output
    assert "Most informative first" in done.output
    page = (tmp_path / "o/report.html").read_text()
    assert "rank by reconstruction gain" in page


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--top", "6"], "top 6 of 5 variables"),
        (["--top", "0"], "ask for 1 to 5"),
        (["--confidence", "1", "--top", "2"], "from 0.5 to below 1"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], told: str, model: str, blobs: str) -> None:
    done = CliRunner().invoke(app, ["order", model, blobs, *arguments])
    assert isinstance(done.exception, LatlasError)
    assert told in str(done.exception)
    assert "\n" not in str(done.exception)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("gian", "latlas: Unknown measure 'gian'. Did you mean 'gain'? Known: gain, jacobian, kl, variance."),
        ("", "latlas: Unknown measure ''. Known: gain, jacobian, kl, variance."),
    ],
)
def test_a_measure_that_does_not_exist_is_one_line_with_the_nearest_that_does(
    asked: str, told: str, model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked for before any image is read: the data set does not exist either, and is not what is complained of."""
    monkeypatch.setattr("sys.argv", ["latlas", "order", model, "nowhere.npy", "--by", asked])
    with pytest.raises(SystemExit) as ended:
        run()
    assert ended.value.code == 2
    assert capsys.readouterr().err.strip() == told


def test_the_top_of_all_variables_is_all_of_them(model: str, blobs: str) -> None:
    done = CliRunner().invoke(app, ["order", model, blobs, "--top", "5", "--json"])
    assert done.exit_code == 0, done.output
    assert sorted(json.loads(done.stdout)["leading"]) == list(range(5))


@pytest.mark.parametrize("error", [CapabilityError, IllPosedError, NonFiniteError])
def test_a_measure_that_nobody_asked_for_fails_alone(
    error: type[LatlasError], model: str, blobs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> torch.Tensor:
        raise error("No derivative of this <decoder>.")

    monkeypatch.setattr("latlas.measurements.ordering.squared_derivatives", fails)
    out = tmp_path / "order"
    done = CliRunner().invoke(app, ["order", model, blobs, "--top", "2", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "Not compared with Jacobian norm." in done.output
    record = json.loads((out / "report.json").read_text())
    assert set(record["alternatives"]) == {"kl", "variance"}
    assert record["left_out"] == {"jacobian": "No derivative of this <decoder>."}
    page = (out / "report.html").read_text()
    assert "Not compared with Jacobian norm." in page
    assert "No derivative of this &lt;decoder&gt;." in page
    asked = CliRunner().invoke(app, ["order", model, blobs, "--top", "2", "--by", "jacobian"])
    assert isinstance(asked.exception, error)
