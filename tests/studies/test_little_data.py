"""Little data: in a linear world few points fix the map exactly; with noise the error falls as least squares says it must."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from latlas.base.errors import CapabilityError, CodeShapeError, IllPosedError, SettingError, UnknownNameError
from latlas.base.provenance import Provenance
from latlas.models.adapters.callables import CallableModel
from latlas.reports.little_data import little_data_findings, little_data_report
from latlas.reports.page import write_report
from latlas.studies.compare import compare
from latlas.studies.little_data import RIDGES, Advantage, FewPoints, LittleData, study_little_data
from latlas.supports.selectors import SELECTORS

SHAPE = (1, 4, 6)
IDENTITY = torch.eye(3, dtype=torch.float64)
MIXED = IDENTITY + 0.3 * torch.tensor([[0.0, 1.0, -1.0], [2.0, 0.0, 1.0], [1.0, -1.0, 0.5]], dtype=torch.float64)


def noisy_world(world: Any, basis: Tensor, noise: float = 0.5) -> CallableModel:
    """A target whose codes are partly chance, decided by each image alone."""
    exact = world.autoencoder(basis)

    def encode(images: Tensor) -> Tensor:
        codes = exact.encode(images).mean
        seeds = (images.double().flatten(1).sum(dim=1) * 1e6).round().long().tolist()
        drawn = [torch.randn(codes.shape[1], generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return codes + noise * torch.stack(drawn)

    return CallableModel(
        name="noisy", image_shape=SHAPE, latent_shape=(3,), encode_with=encode, decode_with=exact.decode, fingerprint="n"
    )


@pytest.fixture(scope="module")
def noisy(world: Any) -> LittleData:
    return study_little_data(
        world.autoencoder(IDENTITY, name="old"),
        noisy_world(world, MIXED),
        world.images(),
        points=[4, 8, 40, 150],
        selectors=["d-optimal", "farthest"],
        draws=8,
    )


def test_where_a_linear_map_is_exact_one_more_point_than_variables_fixes_it(world: Any, basis: Tensor) -> None:
    source, target = world.autoencoder(IDENTITY, name="old"), world.autoencoder(basis, 0.7, name="new")
    result = study_little_data(source, target, world.images(), draws=2, measured=60)
    assert result.points[0] == 4
    assert result.points[-1] == 200  # half of the 400 images that are not held out
    assert result.selectors == SELECTORS
    assert len(result.fits) == len(SELECTORS) * len(result.points) * 2
    for fit in result.fits:
        if fit.ridge == "none":
            assert list(fit.M) == pytest.approx([result.target_R] * 2, rel=1e-3)
    assert result.full["none"] == pytest.approx(result.target_R, rel=1e-4)
    assert result.measured == 60
    assert result.enough("none") == 4


def test_the_map_of_all_images_is_that_of_a_comparison(world: Any, noisy: LittleData) -> None:
    target = noisy_world(world, MIXED)
    for ridge in RIDGES:
        against = compare(world.autoencoder(IDENTITY), target, world.images(), ridge="gcv" if ridge == "gcv" else None)
        assert noisy.full[ridge] == pytest.approx(against.M.mean, rel=1e-5)
    assert noisy.target_R == pytest.approx(against.target_R.mean, rel=1e-5)
    assert noisy.measured == 100  # all of the last fifth: fewer than would be drawn


def test_the_excess_error_of_random_points_is_that_of_least_squares(noisy: LittleData) -> None:
    """Noise of variance s on k points with d Gaussian variables and a bias: excess s (1/k + d/(k-d-2)) (1 + 1/k), about.

    The full map's excess is as good as none. Ratios of the excess cancel s and what the decoder makes of it.
    """
    excess = {size: noisy.fit("random", size, "none").mean - noisy.full["none"] for size in noisy.points}
    law = {size: (1 + 1 / size) * 3 / (size - 5) + 1 / size for size in (8, 40, 150)}
    assert excess[40] / excess[150] == pytest.approx(law[40] / law[150], rel=0.5)
    assert excess[8] > 4 * excess[40]
    assert excess[4] > excess[8]


def test_well_chosen_points_beat_random_ones_where_points_are_few_and_tie_where_they_are_many(noisy: LittleData) -> None:
    # With no point to spare the error of random ones has no bounded mean: so wide a spread is hard to tell from chance.
    assert noisy.advantage("d-optimal", 4, "none").ratio < 0.2
    few = noisy.advantage("d-optimal", 8, "none")
    assert few.ratio < 0.7
    assert few.differs
    assert few.p_value <= few.adjusted
    many = noisy.advantage("d-optimal", 150, "none")
    assert many.ratio == pytest.approx(1, abs=0.05)


def test_a_ridge_tames_the_fit_of_few_points(noisy: LittleData) -> None:
    bare, held = (noisy.fit("random", 4, ridge).mean for ridge in RIDGES)
    assert held < 0.7 * bare


def test_the_seed_alone_decides(world: Any, basis: Tensor) -> None:
    def run(seed: int) -> Any:
        return study_little_data(
            world.autoencoder(IDENTITY), noisy_world(world, basis), world.images(), points=[6], draws=2, measured=20, seed=seed
        ).to_json()

    assert run(1) == run(1)
    assert run(1)["fits"] != run(2)["fits"]


def test_random_points_are_always_there_to_be_held_against(world: Any, basis: Tensor) -> None:
    result = study_little_data(
        world.autoencoder(IDENTITY), world.autoencoder(basis), world.images(), selectors=["farthest", "farthest"], draws=1
    )
    assert result.selectors == ("random", "farthest")
    assert all(math.isnan(advantage.p_value) and not advantage.differs for advantage in result.advantages)
    assert math.isnan(result.fits[0].standard_error)
    assert "cannot be told" in little_data_findings(result)[-1].headline
    json.dumps(result.to_json(), allow_nan=False)


def test_the_page_says_what_the_numbers_say(noisy: LittleData, tmp_path: Path) -> None:
    words = [finding.headline + " " + finding.text for finding in little_data_findings(noisy)]
    with_ridge, without = words[-2:]
    assert without.startswith("Without a ridge, the choice of points helps at 4 and 8 points")
    assert "d-optimal −" in without
    assert "With a ridge" in with_ridge
    page = write_report(little_data_report(noisy), tmp_path / "page").read_text()
    assert all(selector in page for selector in noisy.selectors)
    numbers = json.loads((tmp_path / "page/report.json").read_text())
    assert numbers == json.loads(json.dumps(noisy.to_json()))
    assert numbers["fits"][0]["M"] == pytest.approx(sum(numbers["fits"][0]["draws"]) / 8)


def _planted(ratios: dict[int, float], *, differs: bool) -> LittleData:
    fits = tuple(
        FewPoints(selector=name, points=size, ridge=ridge, M=(0.02, 0.021))
        for name in ("random", "farthest") for size in ratios for ridge in RIDGES
    )  # fmt: skip
    advantages = tuple(
        Advantage(selector="farthest", points=size, ridge=ridge, ratio=ratio, p_value=0.01, adjusted=0.01 if differs else 0.2)
        for size, ratio in ratios.items() for ridge in RIDGES
    )  # fmt: skip
    return LittleData(
        source="a", target="b", images="i", test="t", measured=9, latent=3, draws=2, fits=fits, advantages=advantages,
        full={"none": 0.02, "gcv": 0.02}, full_points=100, target_R=0.01, provenance=Provenance(made_by="test"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("ratios", "differs", "words"),
    [
        ({4: 0.8, 9: 1.0}, True, "the choice of points helps at 4 points, and is not seen to at 9."),
        ({4: 0.8, 9: 0.7}, True, "the choice of points helps at every size tried."),
        ({4: 0.8, 9: 0.7}, False, "no way of choosing points is seen to beat random ones."),
        ({4: 0.97, 9: 1.5}, True, "no way of choosing points is seen to beat random ones."),  # 3 % is no matter, and 50 % worse
    ],
)
def test_only_what_is_sure_and_large_is_said_to_matter(ratios: dict[int, float], differs: bool, words: str) -> None:
    finding = little_data_findings(_planted(ratios, differs=differs))[-1]
    assert finding.headline.endswith(words)
    assert ("Worse than random points: at 9 points farthest +50 %" in finding.text) == (ratios[9] == 1.5)


def test_enough_means_from_there_on() -> None:
    study = _planted({4: 1.0, 9: 1.0, 20: 1.0}, differs=False)
    assert study.enough("gcv") == 4
    spoiled = [replace(fit, M=(0.03, 0.03)) if fit.points == 9 else fit for fit in study.fits]
    assert replace(study, fits=tuple(spoiled)).enough("gcv") == 20
    assert replace(study, full={"none": 0.001, "gcv": 0.001}).enough("gcv") is None


# Mistakes


def test_bad_settings_are_refused(world: Any, basis: Tensor) -> None:
    source, target, images = world.autoencoder(IDENTITY), world.autoencoder(basis), world.images()
    with pytest.raises(UnknownNameError, match="Did you mean 'farthest'"):
        study_little_data(source, target, images, selectors=["fartest"])
    for points in ([3, 10], [10, 201], []):
        with pytest.raises(SettingError, match=r"between 4 .* and 200"):
            study_little_data(source, target, images, points=points)
    with pytest.raises(SettingError, match="4 points at least, and half the images are 3"):
        study_little_data(source, target, images.slice(0, 7), test=images)
    with pytest.raises(SettingError, match="at least 1 draw"):
        study_little_data(source, target, images, draws=0)


def test_a_source_that_tells_no_image_from_another_is_refused(world: Any, basis: Tensor) -> None:
    flat = world.autoencoder(IDENTITY)
    blind = CallableModel(
        name="blind", image_shape=SHAPE, latent_shape=(3,), encode_with=lambda images: torch.ones(len(images), 3),
        decode_with=flat.decode, fingerprint="b",
    )  # fmt: skip
    with pytest.raises(IllPosedError, match="blind has no active variable"):
        study_little_data(blind, world.autoencoder(basis), world.images())


def test_models_that_cannot_answer_are_refused(world: Any) -> None:
    whole = world.autoencoder(IDENTITY)
    one_way = CallableModel(
        name="one way", image_shape=SHAPE, latent_shape=(3,), encode_with=whole.encode_with, fingerprint="o"
    )
    with pytest.raises(CapabilityError, match="one way"):
        study_little_data(one_way, whole, world.images())
    spatial = CallableModel(
        name="grid", image_shape=SHAPE, latent_shape=(1, 2, 2), encode_with=whole.encode_with, decode_with=whole.decode,
        fingerprint="s",
    )  # fmt: skip
    with pytest.raises(CodeShapeError, match="grid has a spatial latent space"):
        study_little_data(spatial, whole, world.images())
