"""Models find images of their shape, their recoders, and each result is computed once."""

import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from latlas.app import charts
from latlas.app.charts import (
    Atlas,
    Kept,
    chart_of,
    default_models,
    load_with_recoder,
    open_atlas,
)
from latlas.app.measured import codes_of, variables_of
from latlas.base.errors import CapabilityError, DataUnavailableError, ImageFormatError, SettingError, UnknownNameError
from latlas.models.protocols import is_encoder
from latlas.models.zoo import ZOO


def _array(folder: Path, shape: tuple[int, ...], name: str = "images") -> str:
    path = folder / f"{name}.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, size=shape, dtype=np.uint8))
    return str(path)


def test_the_models_shown_by_default_are_in_the_zoo() -> None:
    shown = default_models()
    assert "zoo:avatars-dcgan" in shown
    assert all(spec.removeprefix("zoo:").split("#")[0] in ZOO for spec in shown)


def test_a_generator_of_the_zoo_comes_with_its_recoder_and_in_another_space_without() -> None:
    assert is_encoder(load_with_recoder("zoo:avatars-dcgan"))
    assert is_encoder(load_with_recoder("zoo:avatars-stylegan2#w"))
    assert not is_encoder(load_with_recoder("zoo:avatars-stylegan2#z"))  # its recoder gives codes of W


def test_each_model_gets_the_first_images_of_its_shape(tmp_path: Path) -> None:
    specs = [_array(tmp_path, (20, 28, 28), "grey"), _array(tmp_path, (30, 32, 32, 3), "colour")]
    atlas = open_atlas(["zoo:avatars-dcgan"], data=specs, device="cpu")
    assert len(atlas.chart("zoo:avatars-dcgan").images) == 30


def test_images_of_another_shape_are_refused_for_a_model_that_was_named(tmp_path: Path) -> None:
    with pytest.raises(ImageFormatError, match="takes images of 3x32x32"):
        open_atlas(["zoo:avatars-dcgan"], data=[_array(tmp_path, (20, 28, 28))], device="cpu")


def test_of_the_models_that_nobody_named_those_that_do_not_fit_stay_away(tmp_path: Path) -> None:
    atlas = open_atlas(data=[_array(tmp_path, (20, 32, 32, 3))], device="cpu")
    assert "zoo:avatars-dcgan" in atlas.charts
    assert not any("digits" in label for label in atlas.charts)


def test_images_that_no_model_takes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="No model of the zoo fits"):
        open_atlas(data=[_array(tmp_path, (20, 24, 24))], device="cpu")


def test_a_model_named_twice_is_refused() -> None:
    with pytest.raises(SettingError, match="named once"):
        open_atlas(["zoo:avatars-dcgan", "zoo:avatars-dcgan"])


def test_where_images_cannot_be_had_own_samples_with_known_codes_serve(
    painter: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*args: object, **settings: object) -> None:
        raise DataUnavailableError("no network")

    monkeypatch.setattr(charts, "load_images", missing)
    monkeypatch.setattr(charts, "default_data", lambda shape: "mnist:test")
    model = painter.Painter()
    chart = chart_of(model, label="painter")
    assert "no network" in chart.remark
    assert chart.known_codes is not None
    decoded = model.decode(chart.known_codes.mean)
    assert torch.allclose(decoded, chart.images.tensor(), atol=0.5 / 255 + 1e-6)  # the very codes, but for rounding to 8 bits


def test_a_model_that_neither_encodes_nor_draws_cannot_be_explored(painter: SimpleNamespace) -> None:
    model = painter.Painter(draws=False)
    model.lacks = ("sample_codes", "encode")
    with pytest.raises(CapabilityError, match="must decode, and either encode or draw"):
        chart_of(model, label="painter")


def test_a_model_that_draws_none_needs_images(painter: SimpleNamespace) -> None:
    with pytest.raises(CapabilityError, match="name some with --data"):
        chart_of(painter.Painter(draws=False), label="painter")


def test_an_unknown_label_is_told(atlas: Atlas) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'painter'"):
        atlas.chart("paintr")
    with pytest.raises(UnknownNameError, match="Choose a model"):
        atlas.chart(None)


def test_what_is_kept_is_computed_once_however_many_ask_at_once() -> None:
    kept, computed = Kept(), []

    def compute() -> int:
        time.sleep(0.05)
        computed.append(1)
        return 7

    threads = [threading.Thread(target=lambda: kept.get("key", compute)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(computed) == 1
    assert kept.get("key", compute) == 7


def test_a_failure_is_not_kept() -> None:
    kept = Kept()
    with pytest.raises(ZeroDivisionError):
        kept.get("key", lambda: 1 // 0)
    assert kept.get("key", lambda: 3) == 3


def test_variables_are_ordered_by_what_they_draw_and_collapsed_ones_are_known(atlas: Atlas) -> None:
    found = variables_of(atlas, atlas.chart("painter"))
    assert set(found.active) == {0, 1, 2, 3}
    assert found.collapsed == {4, 5}
    gains = [found.gain[variable] for variable in found.order]
    assert gains == sorted(gains, reverse=True)
    # Setting variable i to 0 costs (weight_i z_i)^2 at one of 64 pixels.
    codes = codes_of(atlas, atlas.chart("painter")).mean
    expected = (codes[:, 0] * 0.12).square().mean() / 64
    assert found.gain[0] == pytest.approx(float(expected), rel=1e-4)


def test_a_collapsed_variables_slider_reaches_as_far_as_the_prior(atlas: Atlas) -> None:
    found = variables_of(atlas, atlas.chart("painter"))
    assert found.low[4] == pytest.approx(-3.0)
    assert found.high[4] == pytest.approx(3.0)


def test_a_generator_without_encoder_has_an_order_too(painter: SimpleNamespace) -> None:
    model = painter.Painter()
    model.lacks = ("encode",)
    chart = charts._on_own_samples(model, "painter", "none")
    found = variables_of(Atlas(charts={"painter": chart}), chart)
    assert set(found.order[:4]) == {0, 1, 2, 3}
    assert found.collapsed == set()
