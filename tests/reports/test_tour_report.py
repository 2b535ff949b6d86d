"""The tour on a small part of the real digits: every part runs, the page shows it, the numbers hang together."""

import json
from pathlib import Path

import pytest

from latlas.inversion.descent import Budget
from latlas.maps.linear import LinearMap
from latlas.models.loading import load_model
from latlas.reports.artifacts import write_tour
from latlas.studies.tour import Tour, TourSettings, run_tour
from latlas.supports.support_set import SupportSet

# 750 optimiser steps a model: fewer than that and the running error is still on its way down from its start.
SETTINGS = TourSettings(
    epochs=8,
    train_images=12_000,
    test_images=1000,
    judged=100,
    own_samples=60,
    calibration_samples=200,
    budget=Budget(steps=150),
)


@pytest.fixture(scope="module")
def tour() -> Tour:
    return run_tour(SETTINGS)


@pytest.fixture(scope="module")
def written(tour: Tour, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tour") / "tour"
    write_tour(tour, folder)
    return folder


def test_the_report_holds_the_promised_keys_as_numbers(written: Path) -> None:
    record = json.loads((written / "report.json").read_text())
    promised = [
        "diagnosis.sparse.active", "diagnosis.sparse.zeroing_collapsed_relative_change", "diagnosis.sparse.variance_law_mean",
        "diagnosis.sparse.variance_loss_over_mse", "map.type1.M_over_target_R", "map.type1.M_over_no_map",
        "map.support.M_over_full_M", "range.own_rejected_at_5pct", "range.fashion_rejected_at_5pct",
    ]  # fmt: skip
    for key in promised:
        value = record
        for part in key.split("."):
            value = value[part]
        assert isinstance(value, int | float), key


def test_the_bounds_of_a_map_are_in_order(tour: Tour) -> None:
    comparison = tour.comparison
    assert comparison.target_R.mean < comparison.M.mean < comparison.shuffled.mean
    assert comparison.no_map is not None
    assert comparison.M.mean < comparison.no_map.mean
    assert comparison.shuffled.mean == pytest.approx(comparison.mean_code.mean, rel=0.05), "shuffled pairs teach only the mean"


def test_fashion_is_out_of_range_and_fresh_samples_mostly_are_not(tour: Tour) -> None:
    assert tour.ranges["fashion"].rejected_share >= 0.95
    # 60 draws at 5 %: more than 9 has probability 2e-3 under the binomial.
    assert tour.ranges["own"].rejected_share <= 9 / 60
    assert tour.ranges["own"].calibration.budget_is_enough


def test_zeroing_collapsed_variables_changes_nothing_to_speak_of(tour: Tour) -> None:
    for sheet in tour.diagnosis.values():
        assert abs(sheet.summary["zeroing_collapsed_relative_change"]) < 0.01


def test_the_artifacts_load_and_are_what_the_tour_measured(tour: Tour, written: Path) -> None:
    model = load_model(written / "models/balanced")
    assert model.fingerprint == tour.models["balanced"].fingerprint
    assert LinearMap.from_pretrained(written / "map").weight.equal(tour.comparison.linear_map.weight)
    assert SupportSet.from_pretrained(written / "support-set").indices.equal(tour.support.indices)


def test_the_page_shows_each_part(written: Path) -> None:
    page = (written / "report.html").read_text()
    for part in (
        "Beside the published figures",
        "The sparse VAE",
        "From one latent space",
        "A Support Set",
        "What the decoder cannot make",
    ):
        assert part in page
    assert page.count('<img src="data:image/png;base64,') >= 7
    assert page.count("<svg") >= 8
    assert str(Path.home()) not in page
