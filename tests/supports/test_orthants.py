"""Probabilities of sectors under a Gaussian: SciPy's integral of each, and the closed form of two variables."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from latlas.base.errors import IllPosedError
from latlas.supports.orthants import orthant_probabilities
from latlas.supports.sectors import Sectors


def gaussian(k: int, seed: int) -> tuple[Tensor, Tensor, Sectors]:
    """A correlated Gaussian, and sectors from a centre of their own, in units of their own."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.eye(k, dtype=torch.float64) + 0.4 * torch.randn(k, k, generator=generator, dtype=torch.float64)
    mean = 0.3 * torch.randn(k, generator=generator, dtype=torch.float64)
    centre, scale = (0.5 * torch.randn(k, generator=generator)).tolist(), (0.5 + torch.rand(k, generator=generator)).tolist()
    sectors = Sectors(variables=tuple(range(k)), threshold=0.4, centre=tuple(centre), scale=tuple(scale))
    return mean, mixing @ mixing.T, sectors


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_each_sector_has_the_probability_that_scipy_finds(k: int) -> None:
    mean, covariance, sectors = gaussian(k, seed=k)
    found = orthant_probabilities(mean, covariance, sectors)
    for number in range(sectors.count):
        signs = np.array(sectors.directions(number), dtype=float)
        # P(s (z - c) > t) = P(-s (z - c) < -t)
        mirrored = stats.multivariate_normal(
            -signs * (mean.numpy() - np.array(sectors.centre)), covariance.numpy() * np.outer(signs, signs)
        )
        expected = float(mirrored.cdf(-np.array(sectors.thresholds)))
        error = float(found.standard_error[number])
        assert float(found.probability[number]) == pytest.approx(expected, abs=max(6 * error, 2e-5))
        assert error < 2e-4


def test_the_stated_error_is_the_spread_about_the_closed_form_of_three_variables() -> None:
    """P(all positive) = 1/8 + sum of asin(r) / (4 pi). Over the error of 8 scrambles a miss is Student's: variance 7/5."""
    correlations = torch.tensor([[1.0, 0.5, -0.3], [0.5, 1.0, 0.2], [-0.3, 0.2, 1.0]], dtype=torch.float64)
    sectors = Sectors(variables=(0, 1, 2), threshold=0.0)
    exact = []
    for number in range(8):
        a, b, c = sectors.directions(number)
        mirrored = (a * b * correlations[0, 1], a * c * correlations[0, 2], b * c * correlations[1, 2])
        exact.append(1 / 8 + sum(math.asin(float(each)) for each in mirrored) / (4 * math.pi))
    squares = []
    for seed in range(40):
        found = orthant_probabilities(torch.zeros(3, dtype=torch.float64), correlations, sectors, seed=seed)
        squares += ((found.probability - torch.tensor(exact).double()) / found.standard_error).square().tolist()
    assert 0.7 < np.mean(squares) < 2.8


@pytest.mark.parametrize("correlation", [-0.9, -0.3, 0.0, 0.5, 0.99])
def test_the_quadrants_of_two_variables_are_sheppards(correlation: float) -> None:
    """P(both positive) = 1/4 + asin(r) / (2 pi), whatever the units (Sheppard 1899)."""
    deviations = torch.tensor([0.01, 30.0], dtype=torch.float64)
    matrix = torch.tensor([[1.0, correlation], [correlation, 1.0]], dtype=torch.float64)
    covariance = matrix * deviations.outer(deviations)
    found = orthant_probabilities(torch.zeros(2, dtype=torch.float64), covariance, Sectors(variables=(0, 1), threshold=0.0))
    alike = 0.25 + math.asin(correlation) / (2 * math.pi)
    assert found.probability.tolist() == pytest.approx([alike, 0.5 - alike, 0.5 - alike, alike], abs=2e-5)


def test_at_threshold_0_the_sectors_share_everything() -> None:
    mean, covariance, _ = gaussian(5, seed=9)
    sectors = Sectors(variables=tuple(range(5)), threshold=0.0)
    assert float(orthant_probabilities(mean, covariance, sectors).probability.sum()) == pytest.approx(1.0, abs=1e-4)


def test_far_tails_keep_their_digits() -> None:
    """Independent variables: products of normal tails, down to 1e-30."""
    mean, covariance = torch.zeros(3, dtype=torch.float64), torch.eye(3, dtype=torch.float64)
    sectors = Sectors(variables=(0, 1, 2), threshold=6.0)
    expected = stats.norm.sf(6.0) ** 3
    assert orthant_probabilities(mean, covariance, sectors).probability.tolist() == pytest.approx([expected] * 8, rel=1e-9)


def test_the_seed_alone_decides() -> None:
    mean, covariance, sectors = gaussian(3, seed=1)
    first, again, other = (orthant_probabilities(mean, covariance, sectors, seed=seed).probability for seed in (0, 0, 1))
    assert first.equal(again)
    assert not first.equal(other)


@pytest.mark.parametrize(
    "covariance",
    [torch.ones(2, 2), torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.full((2, 2), float("nan"))],
    ids=["the same variable twice", "a constant one", "NaN"],
)
def test_a_gaussian_without_a_density_is_refused(covariance: Tensor) -> None:
    with pytest.raises(IllPosedError, match="singular: no Gaussian of them has a density"):
        orthant_probabilities(torch.zeros(2).double(), covariance.double(), Sectors(variables=(0, 1), threshold=0.0))
