"""The range room: verdicts as the library gives them, calibrations that are kept and never taken for another's."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from latlas.app import calibrations
from latlas.app.calibrations import calibration, generator_of, read_calibration, write_calibration
from latlas.app.charts import Atlas
from latlas.app.rooms import ranges
from latlas.base.errors import ArtifactError, ImageFormatError
from latlas.studies.range_test import range_test


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    places = (tmp_path / "carried", tmp_path / "cache" / "range-calibrations")
    monkeypatch.setattr(calibrations, "CARRIED", places[0])
    monkeypatch.setenv("LATLAS_CACHE", str(tmp_path / "cache"))
    return places


@pytest.fixture
def foreign() -> torch.Tensor:
    image = torch.full((1, 8, 8), 0.5)
    image[0, 4:] = 1.0  # pixels that no variable of the painter reaches
    return image


def test_own_images_are_in_range_and_one_that_cannot_be_made_is_not(
    atlas: Atlas, foreign: torch.Tensor, folders: tuple[Path, Path]
) -> None:
    chart = atlas.chart("painter")
    own = list(chart.images.tensor()[:2])
    found = ranges.judge(atlas, chart, [*own, foreign], ["a", "b", "c"])
    assert found.verdict(2) == "out of range"
    assert float(found.result.p_values[2]) == pytest.approx(1 / (calibrations.SAMPLES + 1))
    assert [found.verdict(0), found.verdict(1)] == ["in range", "in range"]
    html = ranges.pictures(found)
    assert html.count("out of range") == 1
    assert html.count("<p>painter, level 5 %</p>") == 3  # whoever chooses another model sees whose verdicts these are
    assert html.count("<p>painter</p>") == 4
    assert "images that painter can make for certain" in html
    assert html.count("<img") == 3 * (3 + 4)
    # The error map's scale covers the error that there is, half of all pixels.
    assert found.white == pytest.approx(0.25, rel=0.05)
    assert f'0 <i class="la-heat"></i> {found.white:.2g} and more' in html
    assert "99 of the model's own samples" in ranges.explained(found)


def test_the_verdict_is_the_librarys(atlas: Atlas, foreign: torch.Tensor, folders: tuple[Path, Path]) -> None:
    chart = atlas.chart("painter")
    found = ranges.judge(atlas, chart, [foreign], ["c"])
    again = range_test(chart.model, found.result.calibration.examples, level=0.05, calibration=found.result.calibration)
    assert torch.allclose(again.errors, found.result.calibration.errors[: len(again.errors)], atol=1e-9)


def test_a_calibration_is_kept_on_disk_and_read_back_equal(
    atlas: Atlas, painter: SimpleNamespace, folders: tuple[Path, Path]
) -> None:
    chart = atlas.chart("painter")
    first = calibration(atlas, chart)
    (kept,) = folders[1].iterdir()
    second = read_calibration(kept, generator_of(atlas, chart))
    assert torch.equal(first.errors, second.errors)
    assert torch.equal(first.example_codes, second.example_codes)
    assert torch.equal(first.examples.storage, second.examples.storage)
    assert (first.recovered, first.agreeing, first.unrelated_error) == (
        second.recovered,
        second.agreeing,
        second.unrelated_error,
    )
    assert first.procedure.settings == second.procedure.settings


def test_what_is_kept_is_not_measured_again(
    atlas: Atlas, painter: SimpleNamespace, folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = calibration(atlas, atlas.chart("painter"))
    monkeypatch.setattr(calibrations, "_measured", lambda *args: pytest.fail("measured again"))
    fresh = Atlas(charts={"painter": painter.chart()})
    assert torch.equal(calibration(fresh, fresh.chart("painter")).errors, first.errors)


def test_a_damaged_calibration_is_measured_again(atlas: Atlas, painter: SimpleNamespace, folders: tuple[Path, Path]) -> None:
    first = calibration(atlas, atlas.chart("painter"))
    (kept,) = folders[1].iterdir()
    (kept / "calibration.safetensors").write_bytes(b"broken")
    fresh = Atlas(charts={"painter": painter.chart()})
    assert torch.equal(calibration(fresh, fresh.chart("painter")).errors, first.errors)


def test_a_calibration_of_another_generator_is_refused(atlas: Atlas, painter: SimpleNamespace, tmp_path: Path) -> None:
    found = calibration(atlas, atlas.chart("painter"), folders=(tmp_path / "kept",))
    write_calibration(found, tmp_path / "one")
    with pytest.raises(ArtifactError, match="another generator"):
        read_calibration(tmp_path / "one", painter.Painter(turned=3))
    config = json.loads((tmp_path / "one" / "config.json").read_text())
    del config["settings"]["recovered"]
    config.pop("checksum", None)  # as a stranger would
    (tmp_path / "one" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ArtifactError, match="not a readable calibration"):
        read_calibration(tmp_path / "one", painter.Painter())


def test_an_autoencoder_that_draws_none_is_judged_on_codes_of_half_its_images(atlas: Atlas, folders: tuple[Path, Path]) -> None:
    chart = atlas.chart("mute")
    images, words = ranges.trials(atlas, chart, 0)
    assert all(int(word.removeprefix("image ")) >= 60 for word in words)  # none that codes are drawn of
    found = ranges.judge(atlas, chart, images, words)
    assert len(found.words) == ranges.TRIED


@pytest.mark.parametrize("count", [0, ranges.MOST + 1])
def test_too_few_and_too_many_images_are_refused(atlas: Atlas, foreign: torch.Tensor, count: int) -> None:
    with pytest.raises(ImageFormatError, match="judged at once"):
        ranges.judge(atlas, atlas.chart("painter"), [foreign] * count, [""] * count)
