"""Kernel distance against a loop over pairs, Fréchet distance of features with its errors, and the mistakes."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torchmetrics.image.kid import poly_mmd

import latlas
from latlas.base.errors import CodeShapeError, IllPosedError, NonFiniteError, SettingError
from latlas.measurements import distances
from latlas.measurements.distances import frechet_distance, kernel_distance, squared_mmd
from latlas.numerics.frechet import frechet_distance_of
from latlas.numerics.moments import Moments


def rows(n: int, d: int, generator: torch.Generator, *, mean: float = 0.0) -> Tensor:
    return torch.randn(n, d, generator=generator) + mean


def mmd_by_pairs(x: np.ndarray, y: np.ndarray) -> float:
    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return float((a @ b / len(a) + 1) ** 3)

    within_x = np.mean([kernel(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j])
    within_y = np.mean([kernel(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j])
    return float(within_x + within_y - 2 * np.mean([kernel(a, b) for a in x for b in y]))


def test_the_discrepancy_is_that_of_a_loop_over_pairs(generator: torch.Generator) -> None:
    x, y = rows(30, 5, generator).double(), rows(20, 5, generator, mean=0.5).double()
    assert squared_mmd(x, y) == pytest.approx(mmd_by_pairs(x.numpy(), y.numpy()), rel=1e-12)


def test_the_discrepancy_is_torchmetrics(generator: torch.Generator) -> None:
    x, y = rows(50, 8, generator).double(), rows(50, 8, generator, mean=0.5).double()
    assert squared_mmd(x, y) == pytest.approx(float(poly_mmd(x, y)), rel=1e-10)


def test_a_single_subset_of_all_images_is_the_discrepancy_itself(generator: torch.Generator) -> None:
    x, y = rows(40, 6, generator), rows(40, 6, generator, mean=0.5)
    found = kernel_distance(x, y, subset_size=40)
    assert found.value == pytest.approx(squared_mmd(x.double(), y.double()), rel=1e-10)
    assert found.subsets == 1
    assert math.isnan(found.standard_error)


def test_kernel_distance_has_no_bias_and_its_error_is_the_spread(generator: torch.Generator) -> None:
    found = [kernel_distance(rows(200, 4, generator), rows(300, 4, generator)) for _ in range(200)]
    assert (found[0].subsets, found[0].subset_size, found[0].n_first, found[0].n_second) == (10, 20, 200, 300)
    values = torch.tensor([f.value for f in found])
    told = math.sqrt(sum(f.standard_error**2 for f in found) / len(found))
    assert abs(float(values.mean())) < 4 * float(values.std()) / math.sqrt(len(found))
    assert told == pytest.approx(float(values.std()), rel=0.2)  # 200 spreads are known to 5 %


def test_the_error_of_subsets_is_scipys_standard_error_of_their_mean(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three subsets of planted discrepancies."""
    planted = [0.1, 0.4, 1.3]
    left = iter(planted)
    monkeypatch.setattr(distances, "squared_mmd", lambda first, second: next(left))
    found = kernel_distance(rows(9, 2, generator), rows(11, 2, generator), subset_size=3)
    assert (found.subsets, found.subset_size) == (3, 3)
    assert found.value == pytest.approx(np.mean(planted))
    assert found.deviation == pytest.approx(np.std(planted, ddof=1))
    assert found.standard_error == pytest.approx(stats.sem(planted))


@pytest.mark.parametrize(("asked", "images", "groups"), [(10, 40, 10), (4, 40, 4), (10, 7, 7)])
def test_as_many_groups_are_left_out_as_were_asked_for(
    asked: int, images: int, groups: int, generator: torch.Generator
) -> None:
    x, y = rows(images, 2, generator), rows(50, 2, generator)
    assert frechet_distance(x, y, resamples=asked).resamples == groups
    assert frechet_distance(x, y).resamples == min(10, images)


def test_kernel_distance_grows_with_a_shift_and_keeps_to_its_seed(generator: torch.Generator) -> None:
    x, y = rows(500, 4, generator), rows(500, 4, generator)
    near, far = kernel_distance(x, y), kernel_distance(x, y + 1)
    assert far.value > near.value + 5 * (near.standard_error + far.standard_error)
    assert kernel_distance(x, y, seed=1) == kernel_distance(x, y, seed=1)
    assert kernel_distance(x, y, seed=2).value != kernel_distance(x, y, seed=1).value


def test_the_public_frechet_distance_is_that_of_the_moments(generator: torch.Generator) -> None:
    x, y = rows(100, 6, generator), rows(120, 6, generator, mean=0.3)
    exact = frechet_distance_of(Moments.of(x), Moments.of(y))
    assert latlas.frechet_distance(x, y).value == pytest.approx(exact.value, rel=1e-10)
    assert isinstance(latlas.frechet_distance(x, y), latlas.FrechetDistance)
    assert frechet_distance(x, y, resamples=0) == exact
    with_error = frechet_distance(x, y, resamples=5, seed=3)
    assert with_error == frechet_distance(x, y, resamples=5, seed=3)
    assert with_error.standard_error is not None
    assert with_error.standard_error > 0


def test_small_samples_of_one_distribution_are_farther_apart_than_large_ones(generator: torch.Generator) -> None:
    """As 1 / n: so distances of different sample sizes may not be compared, and the record says the sizes and the bias."""
    pool = rows(4000, 8, generator)
    small = frechet_distance(pool[:200], pool[200:400])
    large = frechet_distance(pool[:2000], pool[2000:])
    assert small.value == pytest.approx(10 * large.value, rel=0.5)
    assert small.bias == pytest.approx(small.value, rel=0.5)


def test_mistakes_are_told(generator: torch.Generator) -> None:
    x = rows(10, 3, generator)
    with pytest.raises(CodeShapeError, match=r"3 and 2 features an image\. Take both from the same feature network"):
        frechet_distance(x, x[:, :2])
    with pytest.raises(CodeShapeError, match="Take both from the same feature network"):
        kernel_distance(x, x[:, :2])
    broken = x.clone()
    broken[4, 1] = math.nan
    with pytest.raises(NonFiniteError, match="image 4 of the second set"):
        frechet_distance(x, broken)
    with pytest.raises(IllPosedError, match="at least 3 images of each set, got 10 and 2"):
        frechet_distance(x, x[:2])
    with pytest.raises(SettingError, match="at least 2 groups of images, got 1"):
        frechet_distance(x, x, resamples=1)
    with pytest.raises(SettingError, match="A subset of 11 images was asked for, the smaller set has 10"):
        kernel_distance(x, x, subset_size=11)
    with pytest.raises(IllPosedError, match="at least 2 images of each set in a subset, got 1"):
        kernel_distance(x, x, subset_size=1)
