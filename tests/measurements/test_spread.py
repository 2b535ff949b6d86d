"""Spread: the brute force over pairs and over left-out images, without either."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist
from torch.utils._python_dispatch import TorchDispatchMode

from latlas.base.errors import IllPosedError
from latlas.measurements.spread import Spread, pairwise_spread, ratio_interval
from latlas.models.protocols import images_at_once


@pytest.mark.parametrize(("n", "shape"), [(3, (1, 2, 2)), (4, (3, 5, 4)), (40, (1, 8, 8))])
def test_the_spread_is_the_mean_over_all_pairs(n: int, shape: tuple[int, ...], generator: torch.Generator) -> None:
    images = torch.rand(n, *shape, generator=generator)
    rows = images.double().flatten(1).numpy()
    spread = pairwise_spread(images)
    assert spread.mean == pytest.approx(pdist(rows, "sqeuclidean").mean() / rows.shape[1], rel=1e-12)


@pytest.mark.parametrize("n", [3, 4, 40])
def test_its_error_is_the_jackknife_over_images(n: int, generator: torch.Generator) -> None:
    """Leave each image out, take the spread of the others, and scale the scatter as Tukey does."""
    images = torch.rand(n, 1, 4, 4, generator=generator)
    rows = images.double().flatten(1).numpy()
    without = np.array([pdist(np.delete(rows, i, axis=0), "sqeuclidean").mean() / rows.shape[1] for i in range(n)])
    expected = np.sqrt((n - 1) / n * np.square(without - without.mean()).sum())
    assert pairwise_spread(images).standard_error == pytest.approx(expected, rel=1e-9)


def test_few_differences_between_bright_images_keep_their_digits(generator: torch.Generator) -> None:
    """Raw second moments would lose them: 1e-8 beside 0.81."""
    images = 0.9 + 1e-4 * torch.rand(20, 1, 4, 4, generator=generator)
    rows = images.double().flatten(1).numpy()
    assert pairwise_spread(images).mean == pytest.approx(pdist(rows, "sqeuclidean").mean() / 16, rel=1e-9)


def test_images_that_are_all_alike_have_no_spread() -> None:
    spread = pairwise_spread(torch.full((5, 1, 2, 2), 0.3))
    assert (spread.mean, spread.standard_error) == (0.0, 0.0)


def test_the_standard_error_covers_the_truth(generator: torch.Generator) -> None:
    """Uniform pixels are 1/6 apart in the square: of 200 sets of 30 images, about 95 % lie within two standard errors."""
    spreads = [pairwise_spread(torch.rand(30, 1, 5, 5, generator=generator)) for _ in range(200)]
    covered = np.mean([abs(spread.mean - 1 / 6) <= 2 * spread.standard_error for spread in spreads])
    assert 0.89 < covered < 0.99


@pytest.mark.parametrize("n", [0, 1])
def test_fewer_than_two_images_have_no_spread(n: int) -> None:
    with pytest.raises(IllPosedError, match=f"at least 2 images, got {n}"):
        pairwise_spread(torch.zeros(n, 1, 2, 2))


def test_two_images_have_a_spread_and_no_error() -> None:
    spread = pairwise_spread(torch.tensor([0.0, 0.5]).view(2, 1, 1, 1))
    assert spread.mean == 0.25
    assert math.isnan(spread.standard_error)


# The ratio of two spreads


def test_the_interval_of_a_ratio_covers_the_truth(generator: torch.Generator) -> None:
    """Uniform pixels, those of one set stretched by 1.2: the truth is 1.44, and 95 % of the intervals hold it."""
    inside = 0
    for _ in range(300):
        wide = 0.5 + 0.6 * (2 * torch.rand(25, 1, 4, 4, generator=generator) - 1)
        narrow = torch.rand(60, 1, 4, 4, generator=generator)
        low, high = ratio_interval(pairwise_spread(wide), pairwise_spread(narrow))
        inside += low < 1.44 < high
    assert 0.91 < inside / 300 < 0.985


def test_the_interval_of_the_inverse_is_the_inverse_of_the_interval() -> None:
    a, b = Spread(mean=0.18, standard_error=0.01), Spread(mean=0.12, standard_error=0.002)
    low, high = ratio_interval(a, b)
    assert ratio_interval(b, a) == pytest.approx((1 / high, 1 / low))
    # To first order, the relative errors in squares (the delta method).
    relative = math.sqrt((0.01 / 0.18) ** 2 + (0.002 / 0.12) ** 2)
    assert (high - low) / 2 == pytest.approx(1.959964 * relative * 1.5, rel=0.01)


def test_spreads_without_an_error_or_of_0_have_no_interval() -> None:
    known, unknown, none = (
        Spread(mean=0.1, standard_error=0.01),
        Spread(mean=0.1, standard_error=math.nan),
        Spread(mean=0.0, standard_error=0.0),
    )
    for pair in ((known, unknown), (unknown, known), (known, none), (none, known)):
        assert all(math.isnan(end) for end in ratio_interval(*pair))


class Largest(TorchDispatchMode):
    """Notes how many values the largest float64 tensor has that is made while this lasts."""

    values = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor) and made.dtype == torch.float64:
            self.values = max(self.values, made.numel())
        return made


def test_images_are_never_all_in_float64_at_once() -> None:
    images = torch.rand(12, 3, 300, 300, generator=torch.Generator().manual_seed(2))
    with Largest() as largest:
        spread = pairwise_spread(images)
    assert largest.values <= images_at_once((3, 300, 300)) * 3 * 300 * 300 < images.numel() / 3
    exact = images.double().flatten(1)
    assert spread.mean == pytest.approx(2 * float(exact.var(dim=0).mean()), rel=1e-12)
