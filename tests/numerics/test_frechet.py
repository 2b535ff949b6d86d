"""The Fréchet distance: 50 digits, SciPy's root of a matrix, torchmetrics' FID on the same features, a distance's laws."""

import math
from functools import reduce

import mpmath
import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from latlas.base.errors import CodeShapeError, IllPosedError, NonFiniteError
from latlas.numerics import frechet as module
from latlas.numerics.frechet import FrechetDistance, frechet_distance_of, frechet_distance_with_error
from latlas.numerics.moments import Moments


def cloud(n: int, d: int, generator: torch.Generator, *, rank: int | None = None, mean: float = 0.0) -> Tensor:
    """Rows of a random covariance of this rank."""
    inner = rank if rank is not None else d
    mixing = torch.randn(inner, d, generator=generator, dtype=torch.float64) / math.sqrt(inner)
    return torch.randn(n, inner, generator=generator, dtype=torch.float64) @ mixing + mean


def distance(a: Tensor, b: Tensor) -> FrechetDistance:
    return frechet_distance_of(Moments.of(a), Moments.of(b))


def by_scipy(a: Tensor, b: Tensor) -> float:
    x, y = a.double().numpy(), b.double().numpy()
    first, second = np.atleast_2d(np.cov(x, rowvar=False)), np.atleast_2d(np.cov(y, rowvar=False))
    # The root of the symmetric product, which has the same trace and stays real where A B is singular.
    root = sqrtm(first).real
    middle = sqrtm(root @ second @ root)
    return float(np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(first + second) - 2 * np.trace(middle).real)


@pytest.mark.parametrize("d", [1, 3, 64, 512])
def test_it_is_scipys_of_full_rank(d: int, generator: torch.Generator) -> None:
    a, b = cloud(3 * d + 10, d, generator), cloud(2 * d + 10, d, generator, mean=0.1)
    assert distance(a, b).value == pytest.approx(by_scipy(a, b), rel=1e-6)


@pytest.mark.parametrize(("d", "rank_a", "rank_b"), [(3, 1, 2), (64, 10, 64), (64, 10, 20), (512, 100, 300)])
def test_it_is_scipys_of_deficient_rank(d: int, rank_a: int, rank_b: int, generator: torch.Generator) -> None:
    a, b = cloud(2 * d, d, generator, rank=rank_a), cloud(2 * d, d, generator, rank=rank_b, mean=0.1)
    assert distance(a, b).value == pytest.approx(by_scipy(a, b), rel=1e-6)
    assert distance(a, b).clipped_mass < 1e-13


@pytest.mark.parametrize("n", [20, 64])
def test_it_is_scipys_of_fewer_rows_than_variables(n: int, generator: torch.Generator) -> None:
    a, b = cloud(n, 64, generator), cloud(n + 5, 64, generator)
    assert distance(a, b).value == pytest.approx(by_scipy(a, b), rel=1e-6)


# Spectra over as many orders of magnitude, and the distance of the clouds in digits no rounding reaches


def turned(spectrum: Tensor, generator: torch.Generator) -> Tensor:
    """A covariance of this spectrum, exactly symmetric."""
    basis = orthogonal(len(spectrum), generator)
    covariance = (basis * spectrum) @ basis.T
    return (covariance + covariance.T) / 2


def orthogonal(size: int, generator: torch.Generator) -> Tensor:
    return torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q


def falling(size: int, orders: float) -> Tensor:
    return torch.logspace(0, -orders, size, dtype=torch.float64)


def moments_with(covariance: Tensor) -> Moments:
    """Moments of this covariance: one row more than a power of two, so that it is not rounded."""
    return Moments(1025, torch.zeros(len(covariance), dtype=torch.float64), covariance * 1024)


def in_fifty_digits(a: Tensor, b: Tensor) -> float:
    with mpmath.workdps(50):
        first, second = mpmath.matrix(a.tolist()), mpmath.matrix(b.tolist())
        values, vectors = mpmath.eigsy(first)
        root = vectors * mpmath.diag([mpmath.sqrt(value) for value in values])
        squared = mpmath.eigsy(root.T * second * root, eigvals_only=True)
        trace = sum(first[index, index] + second[index, index] for index in range(len(a)))
        return float(trace - 2 * sum(mpmath.sqrt(value) for value in squared))


@pytest.mark.parametrize("orders", [0.5, 6, 12])
@pytest.mark.parametrize("kind", ["turned apart", "nearly equal", "widest variable last", "opposite"])
def test_it_is_that_of_fifty_digits(orders: float, kind: str, generator: torch.Generator) -> None:
    spectrum = falling(16, orders)
    a = torch.diag(spectrum.flip(0)) if kind == "widest variable last" else turned(spectrum, generator)
    if kind in ("turned apart", "opposite"):
        b = turned(spectrum, generator) if kind == "turned apart" else torch.linalg.inv(a) * float(spectrum[-1])
    else:
        jitter = orthogonal(16, generator) * (1 + 0.1 * torch.rand(16, generator=generator, dtype=torch.float64))
        scale = torch.linalg.cholesky(a)
        b = scale @ (jitter @ jitter.T) @ scale.T
    b = (b + b.T) / 2
    found = frechet_distance_of(moments_with(a), moments_with(b))
    assert found.covariance_term == pytest.approx(in_fifty_digits(a, b), rel=1e-8)


@pytest.mark.parametrize("orders", [0.5, 3, 12])
def test_of_many_variables_it_is_that_of_the_singular_values(orders: float, generator: torch.Generator) -> None:
    """NumPy's, of the product of its own Cholesky roots, rounded 1e-16 of the largest."""
    a, b = (turned(falling(300, orders), generator) for _ in range(2))
    product = np.linalg.cholesky(a.numpy()).T @ np.linalg.cholesky(b.numpy())
    wanted = float(a.trace() + b.trace()) - 2 * float(np.linalg.norm(product, "nuc"))
    assert frechet_distance_of(moments_with(a), moments_with(b)).covariance_term == pytest.approx(wanted, rel=1e-8)


@pytest.mark.parametrize("orders", [0.5, 12, math.inf])
@pytest.mark.parametrize("size", [16, 300])
def test_equal_covariances_are_at_no_distance(orders: float, size: int, generator: torch.Generator) -> None:
    spectrum = falling(size, orders) if orders < math.inf else (torch.arange(size) < size // 2).double()
    a = turned(spectrum, generator)
    assert 0 <= frechet_distance_of(moments_with(a), moments_with(a.clone())).value < 1e-12 * float(a.trace())


@pytest.mark.parametrize("orders", [1, 4, 8, 12])
@pytest.mark.parametrize("share", [1e-6, 1e-2, 0.5])
@pytest.mark.parametrize("shape", [(150, 150), (150, 100), (100, 150)])
def test_singular_values_are_summed_to_a_billionth_of_what_they_leave(
    orders: float, share: float, shape: tuple[int, int], generator: torch.Generator
) -> None:
    """Planted, and not graded as those of a product of factors are: squares lose what is below 1e-8 of the largest."""
    values = falling(min(shape), orders)
    rank = len(values)
    matrix = orthogonal(shape[0], generator)[:, :rank] * values @ orthogonal(shape[1], generator)[:, :rank].T
    total = 2 * float(values.sum()) / (1 - share)
    left = total - 2 * module._summed_singular_values(matrix, total)
    assert left == pytest.approx(total * share, rel=2e-9, abs=1e-14 * total)


def test_constant_and_repeated_variables_are_left_out(generator: torch.Generator) -> None:
    a, b = cloud(100, 8, generator), cloud(120, 8, generator, mean=0.1)
    wider_a, wider_b = (torch.cat([torch.ones(len(x), 1).double(), x, x[:, :3]], dim=1) for x in (a, b))
    # Repeating a variable stretches its axis by sqrt(2).
    stretch = torch.tensor([2.0] * 3 + [1.0] * 5, dtype=torch.float64).sqrt()
    assert distance(wider_a, wider_b).value == pytest.approx(distance(a * stretch, b * stretch).value, rel=1e-7)


@pytest.mark.parametrize("scale", [1e-100, 1e-80, 1e70, 1e90])
def test_no_scale_is_too_small_or_too_large(scale: float, generator: torch.Generator) -> None:
    """Squared covariances of the least and the largest are no longer numbers of full length."""
    a, b = cloud(100, 8, generator), cloud(120, 8, generator, mean=0.1)
    assert distance(a * scale, b * scale).value / scale**2 == pytest.approx(distance(a, b).value, rel=1e-9)


class Flat(nn.Module):
    """Features as they are, for torchmetrics: what it takes for images is n x d here."""

    num_features = 64

    def forward(self, features: Tensor) -> Tensor:
        return features


def test_it_is_torchmetrics_fid_on_the_same_features(generator: torch.Generator) -> None:
    a, b = cloud(500, 64, generator), cloud(400, 64, generator, mean=0.2)
    theirs = FrechetInceptionDistance(feature=Flat())
    theirs.update(a, real=True)
    theirs.update(b, real=False)
    assert distance(a, b).value == pytest.approx(float(theirs.compute()), rel=1e-9)


@pytest.mark.parametrize("d", [1, 3, 64])
def test_shifting_a_cloud_moves_it_by_the_squared_shift(d: int, generator: torch.Generator) -> None:
    rows, shift = cloud(200, d, generator), torch.randn(d, generator=generator, dtype=torch.float64)
    moved = distance(rows, rows + shift)
    assert moved.value == pytest.approx(float(shift @ shift), rel=1e-9)
    assert moved.mean_term == pytest.approx(float(shift @ shift), rel=1e-9)
    assert moved.covariance_term < 1e-12 * d


def test_scaling_a_cloud_costs_the_squared_change_of_its_deviations(generator: torch.Generator) -> None:
    rows = cloud(200, 8, generator)
    rows = rows - rows.mean(dim=0)
    trace = float(rows.var(dim=0).sum())
    assert distance(rows, 3 * rows).value == pytest.approx((3 - 1) ** 2 * trace, rel=1e-10)


def test_two_normals_on_a_line() -> None:
    """(mean - mean)^2 + (sigma - sigma)^2."""
    a, b = torch.tensor([[-1.0], [1.0]]), torch.tensor([[3.0], [9.0]])
    assert distance(a, b).value == pytest.approx(36 + (math.sqrt(18) - math.sqrt(2)) ** 2, rel=1e-12)


@pytest.mark.parametrize("d", [1, 3, 64])
def test_it_is_symmetric_and_zero_of_a_cloud_with_itself(d: int, generator: torch.Generator) -> None:
    a, b = cloud(100, d, generator), cloud(50, d, generator, mean=1.0)
    assert distance(a, b).value == pytest.approx(distance(b, a).value, rel=1e-10)
    assert 0 <= distance(a, a).value < 1e-12 * d
    narrow = cloud(100, 64, generator, rank=5)
    assert 0 <= distance(narrow, narrow).value < 1e-12 * 64


def test_turning_both_clouds_changes_nothing(generator: torch.Generator) -> None:
    a, b = cloud(200, 20, generator), cloud(200, 20, generator, mean=0.5)
    turn, _ = torch.linalg.qr(torch.randn(20, 20, generator=generator, dtype=torch.float64))
    assert distance(a @ turn, b @ turn).value == pytest.approx(distance(a, b).value, rel=1e-9)


def test_a_far_mean_costs_no_digits_of_the_covariances(generator: torch.Generator) -> None:
    a, b = cloud(300, 10, generator), 2 * cloud(300, 10, generator)
    assert distance(a + 1e4, b + 1e4).covariance_term == pytest.approx(distance(a, b).covariance_term, rel=1e-8)


def test_streams_give_the_distance_of_the_whole(generator: torch.Generator) -> None:
    a, b = cloud(1000, 16, generator), cloud(700, 16, generator, mean=0.3)
    streamed = frechet_distance_of(Moments.over(a.split(64)), Moments.over(b.split(100)))
    assert streamed.value == pytest.approx(distance(a, b).value, rel=1e-10)
    assert (streamed.n_first, streamed.n_second, streamed.size) == (1000, 700, 16)


def test_constant_clouds_differ_by_their_means_alone() -> None:
    found = distance(torch.ones(5, 3), torch.zeros(4, 3))
    assert (found.value, found.covariance_term, found.clipped_mass) == (3.0, 0.0, 0.0)


# Its error and its bias


def groups(rows: Tensor, count: int) -> list[Moments]:
    return [Moments.of(part) for part in rows.tensor_split(count)]


def test_the_jackknife_finds_the_spread_between_samples(generator: torch.Generator) -> None:
    """300 pairs of samples, whose distances spread as much as the jackknife says of each."""
    found = []
    for _ in range(300):
        a, b = cloud_of(generator, 200), 1.5 * cloud_of(generator, 300) + 1.0
        found.append(frechet_distance_with_error(groups(a, 10), groups(b, 10)))
    told = math.sqrt(sum(f.standard_error**2 for f in found if f.standard_error is not None) / len(found))
    spread = float(torch.tensor([f.value for f in found], dtype=torch.float64).std())
    assert told == pytest.approx(spread, rel=0.15)  # 300 spreads are known to 4 %, and the jackknife errs upwards


def test_the_jackknife_finds_the_bias_of_small_samples(generator: torch.Generator) -> None:
    """Between samples of one distribution the true distance is 0: whatever the mean distance is, is bias."""
    found = [
        frechet_distance_with_error(groups(cloud_of(generator, 200), 10), groups(cloud_of(generator, 200), 10))
        for _ in range(100)
    ]
    values = sum(f.value for f in found) / len(found)
    biases = sum(f.bias or 0.0 for f in found) / len(found)
    assert values > 0
    assert biases == pytest.approx(values, rel=0.15)


def cloud_of(generator: torch.Generator, n: int) -> Tensor:
    return torch.randn(n, 4, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 2.0, 0.5, 1.0]).double()


def test_with_its_error_the_distance_is_the_same(generator: torch.Generator) -> None:
    a, b = cloud(100, 5, generator), cloud(120, 5, generator)
    with_error, plain = frechet_distance_with_error(groups(a, 5), groups(b, 5)), distance(a, b)
    assert with_error.value == pytest.approx(plain.value, rel=1e-10)
    assert (with_error.n_first, with_error.n_second, with_error.resamples) == (100, 120, 5)
    assert (plain.standard_error, plain.bias, plain.resamples) == (None, None, 0)
    assert reduce(Moments.merge, groups(a, 5)).count == 100


def test_the_jackknife_is_that_of_leaving_each_group_out_by_scipy(generator: torch.Generator) -> None:
    """Tukey's variance and Quenouille's bias written out, of either cloud in turn: rows alone, and rows in fives."""
    a, b = cloud(12, 3, generator), 2 * cloud(20, 3, generator) + 0.5
    found = frechet_distance_with_error(groups(a, 12), groups(b, 4))
    parts = b.tensor_split(4)
    left_out = [
        np.array([by_scipy(torch.cat([a[:row], a[row + 1 :]]), b) for row in range(12)]),
        np.array([by_scipy(a, torch.cat([*parts[:group], *parts[group + 1 :]])) for group in range(4)]),
    ]
    variance = sum((len(each) - 1) * each.var() for each in left_out)
    bias = sum((len(each) - 1) * (each.mean() - by_scipy(a, b)) for each in left_out)
    assert found.standard_error == pytest.approx(math.sqrt(variance), rel=1e-6)
    assert found.bias == pytest.approx(bias, rel=1e-5)


def test_the_share_that_is_rounding_is_told_of_either_cloud() -> None:
    """63 variances of a hundred-trillionth of the first are below what a factor of 64 variables can hold."""
    tiny = torch.full((64,), 1e-14, dtype=torch.float64)
    tiny[0] = 1.0
    alone = torch.diag((tiny == 1.0).double())
    one, other = moments_with(torch.diag(tiny)), moments_with(alone)
    for found in (frechet_distance_of(one, other), frechet_distance_of(other, one)):
        assert found.clipped_mass == pytest.approx(63e-14 / 2, rel=0.01, abs=0)
    assert frechet_distance_of(one, one).clipped_mass == pytest.approx(63e-14, rel=0.01, abs=0)


# Mistakes


def test_clouds_of_different_widths_are_refused() -> None:
    with pytest.raises(CodeShapeError, match=r"3 and 2 variables\. Take both from the same feature network"):
        distance(torch.ones(5, 3), torch.ones(5, 2))


def test_a_single_row_is_refused() -> None:
    with pytest.raises(IllPosedError, match="at least 2 rows of each cloud, got 1"):
        distance(torch.ones(5, 3), torch.ones(1, 3))
    with pytest.raises(IllPosedError, match="at least 2 groups of each cloud, got 1 and 2"):
        frechet_distance_with_error([Moments.of(torch.ones(5, 3))], [Moments.of(torch.ones(5, 3))] * 2)


def test_nan_is_refused() -> None:
    broken = Moments(3, torch.full((2,), math.nan, dtype=torch.float64), torch.eye(2, dtype=torch.float64))
    with pytest.raises(NonFiniteError, match="needs finite features"):
        frechet_distance_of(broken, broken)
