"""Rotations through least squares and maps of low rank: optimal by references that know no normal equations."""

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

from latlas.base.errors import IllPosedError, SettingError
from latlas.numerics.moments import PairedMoments
from latlas.numerics.restricted import fit_orthogonalised, fit_reduced_rank
from latlas.numerics.solve import fit_affine, fit_orthogonal


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pairs(rows: int, source: int, target: int, *, noise: float = 0.5) -> tuple[Tensor, Tensor]:
    x = randn(rows, source) @ (torch.eye(source).double() + 0.4 * randn(source, source, seed=1)) + 1.5
    return x, x @ randn(source, target, seed=2) - 4 + noise * randn(rows, target, seed=3)


def without_mean(rows: Tensor, bias: bool) -> np.ndarray:
    return rows.numpy() - bias * rows.numpy().mean(axis=0)


# Orthogonalised least squares


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("source", "target"), [(5, 5), (4, 9), (9, 4), (1, 3), (1, 1)])
def test_the_rotation_is_scipys_polar_factor_of_numpys_least_squares(source: int, target: int, bias: bool) -> None:
    x, y = pairs(100, source, target)
    fit = fit_orthogonalised(PairedMoments.of(x, y), bias=bias)
    left, right = without_mean(x, bias), without_mean(y, bias)
    rotation = scipy.linalg.polar(np.linalg.lstsq(left, right, rcond=None)[0])[0]
    moved = left @ rotation
    scale = (moved * right).sum() / np.square(moved).sum()  # least squares in one unknown
    np.testing.assert_allclose(fit.weight.numpy(), scale * rotation, rtol=1e-9, atol=1e-10)
    shift = (y.numpy().mean(axis=0) - x.numpy().mean(axis=0) @ (scale * rotation)) * bias
    np.testing.assert_allclose(fit.bias.numpy(), shift, rtol=1e-9, atol=1e-10)
    assert (fit.rank, fit.full_rank, fit.ill_posed) == (min(source, target), min(source, target), False)


@pytest.mark.parametrize("size", [2, 16])
def test_a_planted_rotation_scale_and_shift_come_back(size: int) -> None:
    turn = torch.linalg.qr(randn(size, size, seed=4)).Q
    x = randn(100, size) * torch.logspace(0, -2, size, dtype=torch.float64)
    fit = fit_orthogonalised(PairedMoments.of(x, 0.7 * x @ turn + 3))
    np.testing.assert_allclose(fit.weight.numpy(), 0.7 * turn.numpy(), atol=1e-11)
    np.testing.assert_allclose(fit.bias.numpy(), 3.0, atol=1e-11)


def test_procrustes_has_the_smaller_error_and_is_another_rotation() -> None:
    x, y = pairs(100, 6, 6)
    moments = PairedMoments.of(x, y)
    least, through = fit_orthogonal(moments), fit_orthogonalised(moments)
    assert float(least.residual_covariance.trace()) < float(through.residual_covariance.trace())
    assert float((least.weight - through.weight).abs().max()) > 0.01


def test_a_ridge_lets_few_pairs_make_a_rotation() -> None:
    x, y = pairs(5, 8, 8)
    with pytest.raises(IllPosedError, match="9 unknowns"):
        fit_orthogonalised(PairedMoments.of(x, y))
    fit = fit_orthogonalised(PairedMoments.of(x, y), ridge=1.0)
    gram = (fit.weight @ fit.weight.T).numpy()
    np.testing.assert_allclose(gram, gram[0, 0] * np.eye(8), atol=1e-9 * gram[0, 0])
    assert fit.ill_posed, "four directions of eight are seen"


def test_a_constant_source_makes_no_rotation() -> None:
    with pytest.raises(IllPosedError, match="constant; there is nothing to rotate"):
        fit_orthogonalised(PairedMoments.of(torch.full((9, 2), 0.1, dtype=torch.float64), randn(9, 2)))


# Reduced rank


def by_svd(x: Tensor, y: Tensor, rank: int, ridge: float, bias: bool) -> np.ndarray:
    """The truncated singular value decomposition of the fitted values, with the ridge as rows of data."""
    left, right = without_mean(x, bias), without_mean(y, bias)
    left = np.vstack([left, ridge**0.5 * np.eye(x.shape[1])])
    right = np.vstack([right, np.zeros((x.shape[1], y.shape[1]))])
    full = np.linalg.lstsq(left, right, rcond=None)[0]
    axes = np.linalg.svd(left @ full, full_matrices=False)[2][:rank]
    return full @ axes.T @ axes


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("ridge", [0.0, 5.0])
@pytest.mark.parametrize(("source", "target"), [(6, 6), (4, 9), (9, 4)])
def test_each_rank_is_the_truncation_of_the_fitted_values(source: int, target: int, ridge: float, bias: bool) -> None:
    x, y = pairs(80, source, target, noise=2.0)
    moments = PairedMoments.of(x, y)
    for rank in range(1, min(source, target) + 1):
        fit = fit_reduced_rank(moments, rank=rank, ridge=ridge, bias=bias)
        np.testing.assert_allclose(fit.weight.numpy(), by_svd(x, y, rank, ridge, bias), rtol=1e-7, atol=1e-8)
        assert int(torch.linalg.matrix_rank(fit.weight, rtol=1e-9)) == rank


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("ridge", [0.0, 5.0])
@pytest.mark.parametrize(("source", "target"), [(5, 5), (3, 7), (7, 3)])
def test_the_curve_is_the_error_of_the_fit_of_each_rank(source: int, target: int, ridge: float, bias: bool) -> None:
    x, y = pairs(80, source, target, noise=2.0)
    moments = PairedMoments.of(x, y)
    curve = fit_reduced_rank(moments, rank=1, ridge=ridge, bias=bias).rank_errors
    assert curve is not None
    assert curve.shape == (min(source, target) + 1,)
    constant = y.mean(dim=0) * bias
    assert float(curve[0]) == pytest.approx(float((y - constant).square().mean()), rel=1e-10)
    for rank in range(1, len(curve)):
        fit = fit_reduced_rank(moments, rank=rank, ridge=ridge, bias=bias)
        assert float(curve[rank]) == pytest.approx(float((y - x @ fit.weight - fit.bias).square().mean()), rel=1e-9)
    if ridge == 0.0:
        assert (curve.diff() < 0).all()


def test_no_map_near_by_of_the_same_rank_fits_better() -> None:
    x, y = pairs(60, 5, 4, noise=2.0)
    fit = fit_reduced_rank(PairedMoments.of(x, y), rank=2, ridge=3.0)
    a, b = torch.from_numpy(without_mean(x, True)), torch.from_numpy(without_mean(y, True))
    u, s, v = torch.linalg.svd(fit.weight)

    def loss(weight: Tensor) -> float:
        return float((b - a @ weight).square().sum() + 3.0 * weight.square().sum())

    best = loss(fit.weight)
    for seed in range(50):
        left = u[:, :2] * s[:2] + 1e-3 * randn(5, 2, seed=seed)
        assert loss(left @ (v[:2] + 1e-3 * randn(2, 4, seed=seed + 99))) > best


def test_a_planted_low_rank_is_found_and_the_curve_ends_there() -> None:
    x = randn(200, 8) + 2
    planted = randn(8, 3, seed=1) @ randn(3, 6, seed=2)
    fit = fit_reduced_rank(PairedMoments.of(x, x @ planted + 1), rank=3)
    np.testing.assert_allclose(fit.weight.numpy(), planted.numpy(), atol=1e-11)
    assert fit.rank_errors is not None
    assert float(fit.rank_errors[2]) > 1e-3
    assert float(fit.rank_errors[3:].max()) < 1e-12


def test_the_full_rank_is_the_affine_fit() -> None:
    x, y = pairs(80, 6, 4)
    moments = PairedMoments.of(x, y)
    assert fit_reduced_rank(moments, rank=4).weight.equal(fit_affine(moments).weight)


@pytest.mark.parametrize("rank", [-1, 0, 4, 5])
def test_a_rank_that_no_map_has_is_refused(rank: int) -> None:
    x, y = pairs(80, 6, 3)
    with pytest.raises(SettingError, match=rf"from 6 to 3 variables has a rank of 1 to 3, got {rank}"):
        fit_reduced_rank(PairedMoments.of(x, y), rank=rank)
