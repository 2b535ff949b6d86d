"""How far clouds are from normal: against closed forms in one dimension, Monte Carlo, and clouds whose holes are planted."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.linalg import sqrtm
from scipy.stats import norm, special_ortho_group
from torch import Tensor

from latlas.base.errors import IllPosedError, NonFiniteError, SettingError
from latlas.numerics import normality
from latlas.numerics.normality import (
    CloudShape,
    cloud_shape,
    empty_share,
    energy_coefficient,
    largest_of_normals,
    standardised,
)


def normal(count: int, size: int, seed: int = 0) -> Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def shell(count: int, size: int) -> Tensor:
    points = normal(count, size, 1)
    return points / points.norm(dim=1, keepdim=True) * math.sqrt(size)


@pytest.mark.parametrize("shift", [0.0, 0.7, 3.0])
def test_in_one_dimension_the_energy_distance_is_the_integral_of_squared_differences_of_distribution_functions(
    shift: float,
) -> None:
    """E = 2 * integral (F - G)^2 (Szekely and Rizzo 2013); E|x - z| of two normals is a folded normal's mean."""
    points = normal(4000, 1, 5) * 1.3 + shift
    exact = 2 * quad(lambda x: (norm.cdf(x, shift, 1.3) - norm.cdf(x)) ** 2, -12, 12)[0]
    spread = math.sqrt(1 + 1.3**2)
    apart = spread * math.sqrt(2 / math.pi) * math.exp(-(shift**2) / (2 * spread**2)) + shift * (
        1 - 2 * norm.cdf(-shift / spread)
    )
    assert energy_coefficient(points) == pytest.approx(exact / (2 * apart), abs=0.006)


@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_distances_to_the_normal_are_those_of_drawn_points(size: int) -> None:
    """Against the plain sample version with 20,000 draws: the exact average has to lie within its noise."""
    points, draws = 0.6 * shell(300, size) + 0.5, normal(20_000, size, 9)
    between = torch.cdist(points, draws).mean()
    within = torch.pdist(points).mean()
    drawn = torch.cdist(draws[:5000], draws[5000:10_000]).mean()
    assert energy_coefficient(points) == pytest.approx(float((2 * between - within - drawn) / (2 * between)), abs=0.004)


@given(st.integers(1, 5), st.integers(0, 1000))
def test_a_normal_cloud_has_a_coefficient_near_zero_and_no_holes(size: int, seed: int) -> None:
    points = normal(1500, size, seed)
    assert abs(energy_coefficient(points)) < 0.004
    assert empty_share(points) < 0.01


@pytest.mark.parametrize("distance", [10.0, 100.0, 1e4])
def test_a_cloud_far_away_has_a_coefficient_that_nears_one(distance: float) -> None:
    far = energy_coefficient(normal(200, 3) + distance)
    assert 1 - 3 / distance < far < 1


def test_a_normal_cloud_that_is_far_too_wide_stays_below_one_third() -> None:
    """Its points lie as far apart, times the root of 2, as from the origin."""
    assert energy_coefficient(1e4 * normal(1500, 3)) == pytest.approx(1 - 1 / math.sqrt(2), abs=0.02)


def test_the_coefficient_does_not_depend_on_the_axes() -> None:
    turn = torch.from_numpy(special_ortho_group.rvs(3, random_state=4))
    points = shell(400, 3) * torch.tensor([1.0, 0.4, 2.0])
    assert energy_coefficient(points @ turn) == pytest.approx(energy_coefficient(points), rel=1e-9)


def test_standardising_takes_away_place_size_and_tilt_and_nothing_else() -> None:
    points = normal(500, 3) ** 3
    tilted = points @ torch.tensor([[1.0, 0.5, 0.0], [0.0, 2.0, 0.3], [0.0, 0.0, 0.1]], dtype=torch.float64) + 7
    whitened = standardised(tilted)
    torch.testing.assert_close(whitened.mean(0), torch.zeros(3, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(whitened.T.cov(correction=0), torch.eye(3, dtype=torch.float64), atol=1e-10, rtol=0)
    assert energy_coefficient(whitened) == pytest.approx(energy_coefficient(standardised(points)), rel=1e-9)


def test_standardising_is_by_the_symmetric_root_that_scipy_finds() -> None:
    """Of all roots of the inverse covariance the one that turns nothing: cells are cut along the coordinates."""
    points = normal(400, 3) @ torch.tensor([[1.0, 0.5, 0.0], [0.0, 2.0, 0.3], [0.4, 0.0, 0.7]], dtype=torch.float64) + 3
    centred = (points - points.mean(dim=0)).numpy()
    root = np.linalg.inv(sqrtm(np.cov(centred.T, ddof=0)).real)
    np.testing.assert_allclose(standardised(points).numpy(), centred @ root, rtol=1e-9, atol=1e-10)


def test_the_coefficient_of_few_normal_points_is_zero_on_average() -> None:
    """Were a point counted among its own neighbours, ten points would have 0.05."""
    found = [energy_coefficient(normal(10, 2, seed)) for seed in range(1500)]
    assert abs(float(np.mean(found))) < 0.01


@pytest.mark.parametrize("make", [lambda: shell(4000, 3), lambda: normal(4000, 3) ** 3], ids=["shell", "rays"])
def test_planted_clouds_that_are_not_normal_stand_out_in_both_numbers(make: object) -> None:
    points = standardised(make())  # type: ignore[operator]
    assert energy_coefficient(points) > 0.005
    assert empty_share(points) > 0.01
    others = [standardised(normal(4000, 3, seed)) for seed in range(10)]
    assert energy_coefficient(points) > 5 * max(energy_coefficient(other) for other in others)
    assert empty_share(points) > 2 * max(empty_share(other) for other in others)


def test_the_shape_of_a_cloud_knows_neither_its_place_nor_its_size_and_the_distance_to_the_prior_does() -> None:
    points = shell(1000, 3)
    here, there = cloud_shape(points), cloud_shape(0.1 * points + 2.0)
    assert (there.energy, there.empty) == pytest.approx((here.energy, here.empty), rel=1e-6)
    assert here.energy_to_prior == energy_coefficient(points)
    assert there.energy_to_prior > 10 * here.energy_to_prior


def test_the_largest_of_twenty_normal_clouds_is_exceeded_by_one_in_twenty_one() -> None:
    """The 21 clouds are exchangeable: of 42 others 2 on average exceed it, and 15 or more once in 1,000."""
    largest = largest_of_normals(300, 2)
    assert largest == largest_of_normals(300, 2)
    others = [cloud_shape(normal(300, 2, seed)) for seed in range(42)]
    assert sum(each.energy > largest.energy for each in others) < 15
    assert sum(each.empty > largest.empty for each in others) < 15
    assert sum(each.energy_to_prior > largest.energy_to_prior for each in others) < 15
    assert cloud_shape(shell(300, 2)).energy > 0.01 > largest.energy


def test_it_is_the_largest_of_twenty_and_of_no_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of another seed, and of each measure NumPy's largest."""
    clouds: list[Tensor] = []
    shape = normality.cloud_shape

    def watched(codes: Tensor) -> CloudShape:
        clouds.append(codes)
        return shape(codes)

    monkeypatch.setattr(normality, "cloud_shape", watched)
    largest = largest_of_normals(60, 4)  # so few a cell that some clouds leave one empty
    assert len({tuple(cloud.flatten().tolist()) for cloud in clouds}) == 20
    found = [shape(cloud) for cloud in clouds]
    for name in ("energy", "empty", "energy_to_prior"):
        values = [getattr(each, name) for each in found]
        assert getattr(largest, name) == np.max(values) > np.min(values)


def test_the_empty_share_is_the_probability_of_the_hole() -> None:
    """Points where the first coordinate is negative: half of the normal has none."""
    points = normal(20_000, 3)
    assert empty_share(points[points[:, 0] < 0], side=4) == pytest.approx(0.5)
    corner = (points > 0).all(dim=1)
    assert empty_share(points[~corner], side=2) == pytest.approx(1 / 8)


@pytest.mark.parametrize("side", [3, 4, 10])
def test_cells_are_cut_at_scipys_quantiles(side: int) -> None:
    """A point close to every cut on either side fills all cells; without the outermost two, two are empty."""
    cuts = torch.from_numpy(norm.ppf(np.arange(1, side) / side))
    around = torch.cat([cuts - 1e-6, cuts + 1e-6]).sort().values[:, None]
    assert empty_share(around, side=side) == pytest.approx(0.0)
    assert empty_share(around[1:-1], side=side) == pytest.approx(2 / side)


@pytest.mark.parametrize(("thickness", "flat"), [(0.0, True), (1e-7, True), (1e-5, False)])
def test_a_cloud_is_flat_where_one_deviation_is_a_millionth_of_another(thickness: float, flat: bool) -> None:
    cloud = normal(200, 3) * torch.tensor([1.0, 1.0, thickness], dtype=torch.float64)
    cloud = cloud @ torch.from_numpy(special_ortho_group.rvs(3, random_state=1)) + 2
    if flat:
        with pytest.raises(IllPosedError, match="one direction does not vary"):
            standardised(cloud)
    else:
        np.testing.assert_allclose(np.cov(standardised(cloud).numpy().T, ddof=0), np.eye(3), atol=1e-4)


def test_every_point_falls_into_a_cell_however_far_out() -> None:
    assert empty_share(torch.tensor([[1e9, 1e9], [-1e9, -1e9]]), side=2) == pytest.approx(0.5)


def test_clouds_that_have_no_shape_are_refused() -> None:
    with pytest.raises(IllPosedError, match="at least 4 points"):
        standardised(torch.zeros(3, 3))
    with pytest.raises(IllPosedError, match="does not vary"):
        standardised(torch.cat([normal(50, 2), torch.zeros(50, 1)], dim=1))
    with pytest.raises(NonFiniteError):
        standardised(torch.full((9, 2), math.nan))
    with pytest.raises(IllPosedError, match="at least 2"):
        energy_coefficient(torch.zeros(1, 3))
    with pytest.raises(SettingError, match="at least 1"):
        empty_share(torch.zeros(5, 2), side=0)
