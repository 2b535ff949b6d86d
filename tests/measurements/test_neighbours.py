"""Precision, recall, density and coverage against their definitions written out in NumPy, and on sets that coincide."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from latlas.base.errors import CodeShapeError, IllPosedError, SettingError
from latlas.measurements import neighbours
from latlas.measurements.neighbours import Neighbourhood, precision_recall_density_coverage


def by_definition(first: np.ndarray, second: np.ndarray, k: int) -> tuple[float, float, float, float]:
    """Naeem et al. 2020, equations 2 to 5, with balls that leave their border out."""

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.sqrt(np.sum((a - b) ** 2)))

    def radii(rows: np.ndarray) -> list[float]:
        return [sorted(distance(a, b) for j, b in enumerate(rows) if j != i)[k - 1] for i, a in enumerate(rows)]

    real, fake = radii(first), radii(second)
    holds = np.array([[distance(x, y) < real[i] for y in second] for i, x in enumerate(first)])
    held = np.array([[distance(x, y) < fake[j] for j, y in enumerate(second)] for x in first])
    return holds.any(0).mean(), held.any(1).mean(), holds.sum(0).mean() / k, holds.any(1).mean()


def numbers(found: Neighbourhood) -> tuple[float, float, float, float]:
    return found.precision, found.recall, found.density, found.coverage


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("shift", [0.0, 0.8, 50.0])
def test_they_are_the_definitions(k: int, shift: float, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "_BLOCK", 7)  # so that blocks end inside the sets
    first = torch.randn(40, 4, generator=generator, dtype=torch.float64)
    second = torch.randn(30, 4, generator=generator, dtype=torch.float64) + shift
    expected = by_definition(first.numpy(), second.numpy(), k)
    found = precision_recall_density_coverage(first, second, k=k, resamples=0)
    assert numbers(found) == pytest.approx(expected, abs=1e-12)
    assert (found.n_first, found.n_second, found.k, found.coincident_first) == (40, 30, k, 0)
    assert math.isnan(found.precision_error)


def test_a_set_has_one_in_all_four_against_itself(generator: torch.Generator) -> None:
    rows = torch.randn(50, 3, generator=generator)
    assert numbers(precision_recall_density_coverage(rows, rows, k=4, resamples=0)) == pytest.approx((1, 1, 1, 1))


def test_so_has_a_constant_set_where_the_definition_gives_nought() -> None:
    rows = torch.full((20, 3), 0.7)
    assert by_definition(rows.numpy(), rows.numpy(), 5) == (0, 0, 0, 0)
    found = precision_recall_density_coverage(rows, rows, k=5)
    assert numbers(found) == pytest.approx((1, 1, 1, 1))
    assert (found.coincident_first, found.coincident_second) == (20, 20)
    assert (found.precision_error, found.density_error) == (0, 0)
    elsewhere = precision_recall_density_coverage(rows, rows + 1, k=5, resamples=0)
    assert numbers(elsewhere) == (0, 0, 0, 0)


def test_repeated_images_among_others_leave_density_one(generator: torch.Generator) -> None:
    rows = torch.cat([torch.randn(30, 3, generator=generator), torch.full((20, 3), 40.0)])
    found = precision_recall_density_coverage(rows, rows, k=5, resamples=0)
    assert numbers(found) == pytest.approx((1, 1, 1, 1))
    assert found.coincident_first == 20


def test_far_features_cost_no_digits(generator: torch.Generator) -> None:
    first = torch.randn(60, 4, generator=generator, dtype=torch.float64)
    second = torch.randn(60, 4, generator=generator, dtype=torch.float64) + 0.5
    near = precision_recall_density_coverage(first, second, resamples=0)
    assert numbers(precision_recall_density_coverage(first + 1e6, second + 1e6, resamples=0)) == numbers(near)


def test_a_lost_mode_costs_recall_and_coverage_and_not_precision(generator: torch.Generator) -> None:
    real = torch.randn(400, 2, generator=generator)
    real[200:] += 20
    found = precision_recall_density_coverage(real, torch.randn(400, 2, generator=generator), resamples=0)
    assert found.precision > 0.9
    assert found.recall < 0.55
    assert found.coverage < 0.55


def test_with_groups_of_one_the_errors_are_those_of_leaving_each_image_out(generator: torch.Generator) -> None:
    """Tukey's variance of the definitions, of either set in turn: which image is in which group is then no matter."""
    first = torch.randn(12, 3, generator=generator, dtype=torch.float64).numpy()
    second = 1.5 * torch.randn(12, 3, generator=generator, dtype=torch.float64).numpy() + 0.4
    found = precision_recall_density_coverage(torch.from_numpy(first), torch.from_numpy(second), k=2, resamples=12)
    left_out = [
        np.array([by_definition(np.delete(first, row, axis=0), second, 2) for row in range(12)]),
        np.array([by_definition(first, np.delete(second, row, axis=0), 2) for row in range(12)]),
    ]
    expected = np.sqrt(sum(11 * each.var(axis=0) for each in left_out))
    assert bool((expected > 0).all())
    errors = (found.precision_error, found.recall_error, found.density_error, found.coverage_error)
    assert errors == pytest.approx(tuple(expected), rel=1e-9)


def test_the_jackknife_errs_upwards_and_not_far(generator: torch.Generator) -> None:
    """Against the spread of new draws, which 30 of them tell to 13 %."""
    found = [precision_recall_density_coverage(*pair(generator)) for _ in range(30)]
    for name in ("precision", "recall", "density", "coverage"):
        spread = float(torch.tensor([getattr(f, name) for f in found]).std())
        told = math.sqrt(sum(getattr(f, f"{name}_error") ** 2 for f in found) / len(found))
        assert 0.7 * spread < told < 3 * spread, name


def pair(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    return torch.randn(100, 4, generator=generator), 0.9 * torch.randn(100, 4, generator=generator) + 0.5


def test_mistakes_are_told() -> None:
    rows = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    with pytest.raises(IllPosedError, match="The 6th neighbour needs sets of at least 7 images, got 6 and 6"):
        precision_recall_density_coverage(rows, rows, k=6)
    with pytest.raises(IllPosedError, match=r"of which groups are left out\. Give more than 20, or resamples=0"):
        precision_recall_density_coverage(rows, rows, k=5)
    with pytest.raises(SettingError, match="k must be at least 1"):
        precision_recall_density_coverage(rows, rows, k=0)
    with pytest.raises(SettingError, match="at least 2 groups of images, got 1"):
        precision_recall_density_coverage(rows, rows, k=1, resamples=1)
    with pytest.raises(CodeShapeError, match="Take both from the same feature network"):
        precision_recall_density_coverage(rows, rows[:, :1], k=1)
