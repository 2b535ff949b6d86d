"""Leave-one-out by the hat matrix is leave-one-out by leaving one out: every pair, every ridge, bias included."""

import math
from collections.abc import Callable, Iterable

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression, Ridge, RidgeCV
from torch import Tensor

from latlas.base.errors import IllPosedError
from latlas.numerics.leave_one_out import choose_ridge_leaving_one_out, leave_one_out
from latlas.numerics.moments import PairedMoments
from latlas.numerics.spectrum import Spectrum

RIDGES = [1e-3, 0.3, 2.0, 50.0, 1e4]


def pairs(rows: int, source: int, target: int = 3, *, noise: float = 1.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Correlated source codes off the origin, of unlike spread, and noisy affine images of them."""
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    x = randn(rows, source) * torch.logspace(0, -1.5, source, dtype=torch.float64) + 2
    return x, x @ randn(source, target) - 4 + noise * randn(rows, target)


def batches(x: Tensor, y: Tensor, size: int) -> Callable[[], Iterable[tuple[Tensor, Tensor]]]:
    return lambda: zip(x.split(size), y.split(size), strict=True)


def brute_force(x: Tensor, y: Tensor, ridge: float, bias: bool) -> np.ndarray:
    """Mean squared error per target variable of NumPy's fits, each without one pair: on rows that hold the ridge as data."""
    total = np.zeros(y.shape[1])
    penalty = ridge**0.5 * np.eye(x.shape[1])
    for left_out in range(len(x)):
        kept = np.arange(len(x)) != left_out
        left, right = x.numpy()[kept], y.numpy()[kept]
        centre, level = bias * left.mean(axis=0), bias * right.mean(axis=0)
        rows = np.vstack([left - centre, penalty]), np.vstack([right - level, np.zeros((x.shape[1], y.shape[1]))])
        q, r = np.linalg.qr(rows[0])
        weight = np.linalg.solve(r, q.T @ rows[1])
        total += np.square((x.numpy()[left_out] - centre) @ weight + level - y.numpy()[left_out])
    return total / len(x)


def by_scikit_learn(x: Tensor, y: Tensor, ridge: float, bias: bool) -> np.ndarray:
    """The same of scikit-learn's fits."""
    total = np.zeros(y.shape[1])
    for left_out in range(len(x)):
        kept = np.arange(len(x)) != left_out
        model = Ridge(alpha=ridge, fit_intercept=bias, solver="svd") if ridge else LinearRegression(fit_intercept=bias)
        fitted = model.fit(x.numpy()[kept], y.numpy()[kept])
        total += np.square(fitted.predict(x.numpy()[left_out : left_out + 1])[0] - y.numpy()[left_out])
    return total / len(x)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("rows", "source"), [(40, 6), (12, 9), (20, 30), (4, 2), (3, 5)])
@pytest.mark.parametrize("size", [1, 7, 40])
def test_it_is_fitting_again_without_each_pair(rows: int, source: int, bias: bool, size: int) -> None:
    x, y = pairs(rows, source)
    spectrum = Spectrum.of(PairedMoments.of(x, y), bias=bias)
    ridges = [0.0, *RIDGES] if rows > source + 1 + bias else RIDGES
    found = leave_one_out(spectrum, batches(x, y, size), ridges)
    for index, ridge in enumerate(ridges):
        np.testing.assert_allclose(found[index].numpy(), brute_force(x, y, ridge, bias), rtol=1e-8)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("rows", "source"), [(15, 6), (8, 11)])
def test_it_is_fitting_again_with_scikit_learn(rows: int, source: int, bias: bool) -> None:
    x, y = pairs(rows, source)
    ridges = [0.0, 0.3, 50.0] if rows > source + 2 else [0.3, 50.0]
    found = leave_one_out(Spectrum.of(PairedMoments.of(x, y), bias=bias), batches(x, y, 4), ridges)
    for index, ridge in enumerate(ridges):
        np.testing.assert_allclose(found[index].numpy(), by_scikit_learn(x, y, ridge, bias), rtol=1e-8)


@pytest.mark.parametrize("bias", [True, False])
def test_it_is_scikit_learns_ridge_cv(bias: bool) -> None:
    x, y = pairs(60, 10)
    theirs = RidgeCV(alphas=RIDGES, fit_intercept=bias, store_cv_results=True).fit(x.numpy(), y.numpy())
    found = leave_one_out(Spectrum.of(PairedMoments.of(x, y), bias=bias), batches(x, y, 9), RIDGES)
    np.testing.assert_allclose(found.numpy(), theirs.cv_results_.mean(axis=0).T, rtol=1e-8)


def test_float32_pairs_are_reckoned_in_double() -> None:
    x, y = (part.float() for part in pairs(40, 6))
    spectrum = Spectrum.of(PairedMoments.of(x, y))
    found = leave_one_out(spectrum, batches(x, y, 11), RIDGES)
    wanted = leave_one_out(spectrum, batches(x.double(), y.double(), 11), RIDGES)
    assert found.equal(wanted)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("rows", "source", "noise"), [(60, 6, 0.01), (40, 10, 2.0), (30, 25, 1.0), (24, 40, 0.5), (50, 4, 50.0)]
)
def test_the_ridge_chosen_is_the_best_of_the_grid_by_brute_force(rows: int, source: int, noise: float, bias: bool) -> None:
    x, y = pairs(rows, source, noise=noise, seed=5)
    moments = PairedMoments.of(x, y)
    chosen, errors = choose_ridge_leaving_one_out(moments, batches(x, y, 17), bias=bias)
    spectrum = Spectrum.of(moments, bias=bias)
    grid = spectrum.strengths([exponent / 8 - 12 for exponent in range(129)])[
        32:
    ]  # below a 1e-8th, scikit-learn's own rounding shows
    best = min(brute_force(x, y, ridge, bias).sum() for ridge in grid)
    assert errors.sum() <= best * (1 + 1e-6)
    np.testing.assert_allclose(errors.numpy(), brute_force(x, y, chosen, bias), rtol=1e-6)


def test_pure_noise_is_given_the_strongest_ridge() -> None:
    """The grid ends where the map has gone, and not where its largest direction is halved."""
    x, y = pairs(60, 4, noise=0.0)
    noise = torch.randn(60, 3, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    chosen, errors = choose_ridge_leaving_one_out(PairedMoments.of(x, noise), batches(x, noise, 60))
    top = float(Spectrum.of(PairedMoments.of(x, y)).values[-1])
    assert chosen > 10 * top
    assert float(errors.sum()) < brute_force(x, noise, 0.0, True).sum()


def test_without_noise_no_ridge_is_chosen() -> None:
    x, y = pairs(60, 4, noise=1e-7)
    assert choose_ridge_leaving_one_out(PairedMoments.of(x, y), batches(x, y, 60))[0] == 0.0


def test_a_pair_that_alone_decides_its_prediction_forbids_least_squares() -> None:
    """Only row 0 moves the last variable: without it and without a ridge, nothing is known of that weight."""
    x, y = pairs(30, 4)
    x = torch.cat([x, torch.zeros(30, 1, dtype=torch.float64)], dim=1)
    x[0, -1] = 1.0
    found = leave_one_out(Spectrum.of(PairedMoments.of(x, y)), batches(x, y, 30), [0.0, 0.5])
    assert found[0].isinf().all()
    np.testing.assert_allclose(found[1].numpy(), brute_force(x, y, 0.5, True), rtol=1e-8)
    chosen, errors = choose_ridge_leaving_one_out(PairedMoments.of(x, y), batches(x, y, 30))
    assert chosen > 0
    assert math.isfinite(float(errors.sum()))


@pytest.mark.parametrize(("others", "told"), [(1e-5, False), (1e-2, True)])
def test_a_pair_that_keeps_a_hundred_millionth_of_its_residual_is_not_left_out_by_arithmetic(others: float, told: bool) -> None:
    """A variable that is 1 in the first pair and small in all others, which alone could tell its weight."""
    x, y = pairs(30, 4)
    small = others * torch.randn(30, 1, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    x = torch.cat([x, small], dim=1)
    x[0, -1] = 1.0
    found = leave_one_out(Spectrum.of(PairedMoments.of(x, y)), batches(x, y, 30), [0.0])[0]
    if told:
        np.testing.assert_allclose(found.numpy(), brute_force(x, y, 0.0, True), rtol=1e-6)
    else:
        assert found.isinf().all()


def test_other_pairs_than_those_of_the_moments_are_noticed() -> None:
    x, y = pairs(30, 4)
    with pytest.raises(IllPosedError, match="needs the 30 pairs of the moments again, and 29 came"):
        leave_one_out(Spectrum.of(PairedMoments.of(x, y)), batches(x[1:], y[1:], 10), [1.0])
