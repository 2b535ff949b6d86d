"""Linear fits: planted maps come back, and what scikit-learn and SciPy find is found."""

from dataclasses import FrozenInstanceError

import mpmath
import numpy as np
import pytest
import scipy.linalg
import torch
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.metrics import r2_score
from torch import Tensor

from latlas.base.errors import IllPosedError, NonFiniteError, SettingError
from latlas.numerics.moments import Moments, PairedMoments
from latlas.numerics.solve import LinearFit, choose_ridge, fit_affine, fit_orthogonal

SIZES = [(16, 16), (64, 64), (128, 128), (16, 64), (64, 16), (16, 128), (128, 16), (64, 128), (128, 64)]


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotation(size: int, seed: int = 0) -> Tensor:
    """A random orthogonal matrix of determinant 1."""
    q = torch.linalg.qr(randn(size, size, seed=seed)).Q
    if torch.linalg.det(q) < 0:
        q[:, 0] = -q[:, 0]
    return q


def predict(fit: LinearFit, source: Tensor) -> Tensor:
    return source @ fit.weight + fit.bias


def relative(found: Tensor, planted: Tensor) -> float:
    return float(torch.linalg.norm(found - planted) / torch.linalg.norm(planted))


def noisy(rows: int, source: int, target: int, *, noise: float = 0.5, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Correlated source codes off the origin, and noisy affine images of them."""
    x = randn(rows, source, seed=seed) @ (torch.eye(source).double() + 0.2 * randn(source, source, seed=seed + 1)) + 1.5
    y = x @ randn(source, target, seed=seed + 2) + 2 * randn(1, target, seed=seed + 3) - 4
    return x, y + noise * randn(rows, target, seed=seed + 4)


# Least squares


@pytest.mark.parametrize(("source", "target"), SIZES)
def test_a_planted_affine_map_is_recovered_to_twelve_digits(source: int, target: int) -> None:
    codes = randn(5 * source, source, seed=source) + 0.5
    weight = randn(source, target, seed=target) / source**0.5
    bias = 6 * torch.rand(target, generator=torch.Generator().manual_seed(9), dtype=torch.float64) - 3
    fit = fit_affine(PairedMoments.of(codes, codes @ weight + bias))
    assert relative(fit.weight, weight) < 1e-12
    assert relative(fit.bias, bias) < 1e-12
    assert fit.rank == source
    assert fit.count == 5 * source
    assert float(fit.r2.min()) == pytest.approx(1.0, abs=1e-12)
    assert float(fit.residual_covariance.abs().max()) < 1e-12
    held_out = randn(50, source, seed=77)
    assert relative(predict(fit, held_out), held_out @ weight + bias) < 1e-12


@pytest.mark.parametrize("size", [16, 64, 128])
def test_a_planted_map_is_recovered_both_ways(size: int) -> None:
    codes = randn(5 * size, size, seed=size)
    turn, shift = rotation(size, seed=1), 3 * randn(size, seed=2).tanh()
    there = fit_affine(PairedMoments.of(codes, codes @ turn + shift))
    back = fit_affine(PairedMoments.of(codes @ turn + shift, codes))
    assert relative(there.weight, turn) < 1e-12
    assert relative(back.weight, turn.T) < 1e-12
    assert relative(predict(back, predict(there, codes)), codes) < 1e-12


@pytest.mark.parametrize("spread", [1.0, 0.1, 1e-2, 1e-3])
def test_the_condition_tells_how_many_digits_were_lost(spread: float) -> None:
    """Variables that share most of their variance: the error of a planted map stays below condition * 1e-15."""
    codes = randn(400, 1, seed=1) + spread * randn(400, 8, seed=2)
    weight = randn(8, 3, seed=3)
    fit = fit_affine(PairedMoments.of(codes, codes @ weight))
    assert fit.condition > 1 / spread**2
    assert relative(fit.weight, weight) < 1e-15 * fit.condition


def test_one_step_of_refinement_leaves_a_fifth_of_the_rounding_that_the_condition_allows() -> None:
    """Against the same normal equations in 50 digits. Without the step it is twice as much."""
    shares = []
    for seed in range(12):
        codes = randn(200, 1, seed=seed) + 0.01 * randn(200, 6, seed=seed + 100)
        moments = PairedMoments.of(codes, codes @ randn(6, 1, seed=seed + 200))
        fit = fit_affine(moments)
        with mpmath.workdps(50):
            exact = mpmath.lu_solve(mpmath.matrix(moments.source.scatter.tolist()), mpmath.matrix(moments.cross.tolist()))
        wanted = torch.tensor([[float(value)] for value in exact], dtype=torch.float64)
        shares.append(relative(fit.weight, wanted) / (fit.condition * np.finfo(float).eps))
    assert np.median(shares) < 0.2


@pytest.mark.parametrize(("source", "target"), [(1, 1), (3, 5), (20, 4)])
def test_a_noisy_fit_is_ordinary_least_squares(source: int, target: int) -> None:
    x, y = noisy(120, source, target)
    fit = fit_affine(PairedMoments.of(x, y))
    theirs = LinearRegression().fit(x.numpy(), y.numpy())
    np.testing.assert_allclose(fit.weight.numpy(), theirs.coef_.T, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(fit.bias.numpy(), theirs.intercept_, rtol=1e-9, atol=1e-10)


def test_exactly_as_many_pairs_as_unknowns_are_interpolated() -> None:
    x, y = randn(5, 4, seed=1), randn(5, 2, seed=2)
    fit = fit_affine(PairedMoments.of(x, y))
    assert relative(predict(fit, x), y) < 1e-10


def test_without_bias_the_fit_goes_through_the_origin() -> None:
    x, y = noisy(120, 6, 3)
    fit = fit_affine(PairedMoments.of(x, y), bias=False)
    theirs = np.linalg.lstsq(x.numpy(), y.numpy(), rcond=None)[0]
    np.testing.assert_allclose(fit.weight.numpy(), theirs, rtol=1e-10, atol=1e-11)
    assert fit.bias.tolist() == [0.0, 0.0, 0.0]
    assert relative(fit.weight, fit_affine(PairedMoments.of(x, y)).weight) > 0.01, "the data must tell the two apart"


def test_a_fit_from_merged_batches_is_the_fit_from_all_rows() -> None:
    x, y = noisy(200, 8, 5)
    whole = fit_affine(PairedMoments.of(x, y))
    merged = PairedMoments.of(x[:13], y[:13]).merge(PairedMoments.of(x[13:], y[13:]))
    assert relative(fit_affine(merged).weight, whole.weight) < 1e-12
    assert relative(fit_affine(merged).bias, whole.bias) < 1e-11


def test_float32_codes_lose_only_their_own_rounding() -> None:
    x, weight = randn(400, 16, seed=1).float(), randn(16, 16, seed=2)
    fit = fit_affine(PairedMoments.of(x, (x.double() @ weight).float()))
    assert fit.weight.dtype == torch.float64
    assert relative(fit.weight, weight) < 1e-6


def test_the_scale_of_a_variable_does_not_change_the_prediction() -> None:
    """Units of twelve decades: what scaling inside the solve is for."""
    x, y = noisy(200, 4, 2)
    units = torch.tensor([1e-6, 1.0, 1e3, 1e6], dtype=torch.float64)
    plain, scaled = fit_affine(PairedMoments.of(x, y)), fit_affine(PairedMoments.of(x * units, y))
    assert relative(scaled.weight * units[:, None], plain.weight) < 1e-10
    assert scaled.rank == 4
    assert scaled.condition == pytest.approx(plain.condition, rel=1e-6)


def test_a_fit_is_a_value_that_nobody_changes() -> None:
    with pytest.raises(FrozenInstanceError):
        fit_affine(PairedMoments.of(randn(9, 2), randn(9, 2))).ridge = 1.0  # type: ignore[misc]


# Ridge


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("alpha", [1e-3, 1.0, 250.0])
@pytest.mark.parametrize(("rows", "source", "target"), [(120, 6, 3), (40, 60, 5), (3, 4, 2)])
def test_a_ridge_fit_is_that_of_scikit_learn(rows: int, source: int, target: int, alpha: float, bias: bool) -> None:
    x, y = noisy(rows, source, target)
    fit = fit_affine(PairedMoments.of(x, y), ridge=alpha, bias=bias)
    theirs = Ridge(alpha=alpha, fit_intercept=bias, solver="svd").fit(x.numpy(), y.numpy())
    np.testing.assert_allclose(fit.weight.numpy(), theirs.coef_.T, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(fit.bias.numpy(), theirs.intercept_, rtol=1e-8, atol=1e-8)
    assert fit.ridge == alpha


def test_an_endless_ridge_leaves_the_mean() -> None:
    x, y = noisy(120, 6, 3)
    fit = fit_affine(PairedMoments.of(x, y), ridge=1e14)
    assert float(fit.weight.abs().max()) < 1e-9
    np.testing.assert_allclose(fit.bias.numpy(), y.numpy().mean(axis=0), rtol=1e-9)


@pytest.mark.parametrize("ridge", [-1.0, float("nan"), float("inf")])
def test_a_ridge_that_is_no_penalty_is_refused(ridge: float) -> None:
    with pytest.raises(SettingError, match="Ridge must be a finite number of at least 0"):
        fit_affine(PairedMoments.of(randn(9, 2), randn(9, 2)), ridge=ridge)


# Degenerate sources


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("size", [4, 32])
def test_a_rank_deficient_source_is_told_and_still_predicts(size: int, seed: int) -> None:
    base = randn(300, size, seed=seed) + 5
    x = torch.cat([base, base[:, :2] @ randn(2, 3, seed=seed + 1), base[:, :1]], dim=1)
    y = x @ randn(size + 4, 3, seed=seed + 2) + 1
    fit = fit_affine(PairedMoments.of(x, y))
    assert fit.rank == size
    assert relative(predict(fit, x), y) < 1e-11
    # Of all solutions the one of least norm in the scaled variables: what a pseudo-inverse gives.
    centred = x.numpy() - x.numpy().mean(axis=0)
    scale = np.sqrt((centred**2).sum(axis=0))
    theirs = np.linalg.pinv(centred / scale, rcond=1e-8) @ (y.numpy() - y.numpy().mean(axis=0)) / scale[:, None]
    np.testing.assert_allclose(fit.weight.numpy(), theirs, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("value", [0.0, 0.1, -1000.3])
@pytest.mark.parametrize("batch", [300, 7])
def test_a_constant_variable_gets_no_weight_and_costs_one_rank(value: float, batch: int) -> None:
    x = randn(300, 4, seed=1)
    x[:, 2] = value
    weight = randn(4, 3, seed=2)
    y = x @ weight + 1
    moments = PairedMoments.of(x[:0], y[:0])
    for a, b in zip(x.split(batch), y.split(batch), strict=True):
        moments = moments.merge(PairedMoments.of(a, b))
    fit = fit_affine(moments)
    assert fit.rank == 3
    assert fit.weight[2].tolist() == [0.0, 0.0, 0.0]
    kept = [0, 1, 3]
    assert relative(fit.weight[kept], weight[kept]) < 1e-11
    assert fit.condition < 10


def test_a_collapsed_variable_beside_active_ones_costs_them_no_digits() -> None:
    """Standard deviation 1e-8 is what the means of a collapsed variable have; its square is below float64's reach of 1."""
    x = randn(400, 6, seed=1)
    x[:, 4] *= 1e-8
    weight = randn(6, 3, seed=2)
    weight[4] *= 1e8
    fit = fit_affine(PairedMoments.of(x, x @ weight + 3))
    assert fit.rank == 6
    assert fit.condition < 10
    assert relative(fit.weight, weight) < 1e-7  # of the large weights of the collapsed variable
    active = [0, 1, 2, 3, 5]
    assert relative(fit.weight[active], weight[active]) < 1e-7
    weight[4] /= 1e8  # the usual case: nothing in the target depends on it
    fit = fit_affine(PairedMoments.of(x, x @ weight + 3))
    assert relative(fit.weight[active], weight[active]) < 1e-12


@pytest.mark.parametrize("ridge", [0.0, 1.0])
def test_a_constant_source_predicts_the_mean(ridge: float) -> None:
    y = randn(20, 2, seed=1)
    fit = fit_affine(PairedMoments.of(torch.full((20, 3), 0.1, dtype=torch.float64), y), ridge=ridge)
    assert float(fit.weight.abs().max()) < 1e-12
    np.testing.assert_allclose(fit.bias.numpy(), y.numpy().mean(axis=0), atol=1e-12)
    if ridge == 0.0:
        assert fit.rank == 0
        assert fit.condition == float("inf")


@pytest.mark.parametrize(("pairs", "bias", "unknowns"), [(16, True, 17), (15, False, 16), (1, True, 17), (0, True, 17)])
def test_fewer_pairs_than_unknowns_are_refused_with_the_remedy(pairs: int, bias: bool, unknowns: int) -> None:
    moments = PairedMoments.of(randn(pairs, 16), randn(pairs, 4))
    message = rf"{unknowns} unknowns.*{pairs} pairs were given. Give at least {unknowns} pairs, or a ridge"
    with pytest.raises(IllPosedError, match=message):
        fit_affine(moments, bias=bias)


def test_with_a_ridge_fewer_pairs_than_unknowns_are_enough_but_none_are_not() -> None:
    assert fit_affine(PairedMoments.of(randn(3, 16), randn(3, 4)), ridge=1.0).count == 3
    with pytest.raises(IllPosedError, match="no pairs at all"):
        fit_affine(PairedMoments.of(randn(0, 16), randn(0, 4)), ridge=1.0)


def test_moments_that_hold_nan_are_refused() -> None:
    joint = Moments(50, torch.zeros(4).double(), torch.full((4, 4), float("nan")).double())
    for fit in (fit_affine, fit_orthogonal, choose_ridge):
        with pytest.raises(NonFiniteError, match="NaN or infinity"):
            fit(PairedMoments(joint, 2))


# Evidence


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("ridge", [0.0, 20.0])
def test_r2_is_that_of_scikit_learn(bias: bool, ridge: float) -> None:
    x, y = noisy(90, 5, 4, noise=3.0)
    fit = fit_affine(PairedMoments.of(x, y), ridge=ridge, bias=bias)
    theirs = r2_score(y.numpy(), predict(fit, x).numpy(), multioutput="raw_values")
    np.testing.assert_allclose(fit.r2.numpy(), theirs, rtol=1e-9, atol=1e-12)
    assert 0.05 < float(fit.r2.min()) < 0.99, "the data must leave something to explain"


def test_r2_of_a_fit_without_bias_may_be_negative_as_in_scikit_learn() -> None:
    x, y = randn(50, 2, seed=1), 10 + 0.1 * randn(50, 1, seed=2)
    fit = fit_affine(PairedMoments.of(x, y), bias=False)
    assert float(fit.r2) == pytest.approx(r2_score(y.numpy(), predict(fit, x).numpy()), rel=1e-9)
    assert float(fit.r2) < -100


@pytest.mark.parametrize("value", [0.0, 0.1, 1000.3])
@pytest.mark.parametrize("batch", [60, 1])
def test_r2_of_a_constant_target_is_nan_however_it_was_batched(value: float, batch: int) -> None:
    """Merging leaves rounding of the mean in the scatter; that must not pass for variance."""
    x = randn(60, 3, seed=1)
    y = torch.cat([torch.full((60, 1), value, dtype=torch.float64), x[:, :1]], dim=1)
    moments = PairedMoments.of(x[:0], y[:0])
    for a, b in zip(x.split(batch), y.split(batch), strict=True):
        moments = moments.merge(PairedMoments.of(a, b))
    r2 = fit_affine(moments).r2
    assert r2.isnan().tolist() == [True, False]


def test_a_target_that_moves_little_is_not_constant() -> None:
    x = randn(60, 3, seed=1)
    fit = fit_affine(PairedMoments.of(x, 1 + 1e-9 * x[:, :1]))
    assert float(fit.r2) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("ridge", [0.0, 20.0])
def test_residual_covariance_is_that_of_the_residuals(ridge: float) -> None:
    x, y = noisy(90, 5, 4)
    fit = fit_affine(PairedMoments.of(x, y), ridge=ridge)
    residuals = (y - predict(fit, x)).numpy()
    np.testing.assert_allclose(fit.residual_covariance.numpy(), np.cov(residuals.T, ddof=0), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("rows", "ridge"), [(90, 0.0), (90, 9.0), (1, 9.0)])
def test_residual_covariance_without_bias_is_the_second_moment_of_the_residuals(rows: int, ridge: float) -> None:
    x, y = noisy(rows, 5, 4)
    fit = fit_affine(PairedMoments.of(x, y), ridge=ridge, bias=False)
    residuals = (y - predict(fit, x)).numpy()
    np.testing.assert_allclose(fit.residual_covariance.numpy(), residuals.T @ residuals / rows, rtol=1e-9, atol=1e-11)


def test_residual_covariance_of_a_planted_noise_is_that_noise() -> None:
    """20,000 rows: five standard errors of a unit variance are 0.05."""
    mixing = randn(3, 3, seed=1)
    x = randn(20_000, 4, seed=2)
    y = x @ randn(4, 3, seed=3) + randn(20_000, 3, seed=4) @ mixing
    planted = mixing.T @ mixing
    found = fit_affine(PairedMoments.of(x, y)).residual_covariance
    scale = planted.diagonal().sqrt()
    assert float(((found - planted) / torch.outer(scale, scale)).abs().max()) < 0.05


def test_condition_is_that_of_the_correlation_matrix() -> None:
    x, y = noisy(90, 5, 2)
    fit = fit_affine(PairedMoments.of(x, y))
    assert fit.condition == pytest.approx(np.linalg.cond(np.corrcoef(x.numpy().T)), rel=1e-9)


def test_a_single_direction_that_repeats_others_makes_a_fit_ill_posed() -> None:
    x, y = noisy(90, 6, 2)
    assert not fit_affine(PairedMoments.of(x, y)).ill_posed
    x[:, 5] = x[:, 0] - 2 * x[:, 1]
    assert np.linalg.matrix_rank(x.numpy() - x.numpy().mean(axis=0)) == 5
    assert fit_affine(PairedMoments.of(x, y)).ill_posed
    assert not fit_affine(PairedMoments.of(x, y), ridge=1.0).ill_posed


# Generalised cross-validation


def without_mean(rows: Tensor, bias: bool) -> np.ndarray:
    """The rows in an orthonormal basis of what is orthogonal to the constant: fitting there fits a bias besides."""
    basis = scipy.linalg.helmert(len(rows)) if bias else np.eye(len(rows))
    return basis @ rows.numpy()


def gcv_by_hat_matrix(x: Tensor, y: Tensor, ridge: float, bias: bool) -> float:
    """The score n |(I - H) y|^2 / trace(I - H)^2, with I - H written out so that it stays exact in an interpolating fit."""
    left, values, _ = np.linalg.svd(without_mean(x, bias), full_matrices=True)
    square = np.zeros(len(left))
    square[: len(values)] = np.where(values > values[0] * 1e-10, values, 0.0) ** 2
    withheld = np.divide(ridge, square + ridge, out=np.ones(len(left)), where=square + ridge > 0)
    complement = left @ np.diag(withheld) @ left.T
    return float(len(x) * np.square(complement @ without_mean(y, bias)).sum() / np.trace(complement) ** 2)


def strengths(x: Tensor, bias: bool) -> list[float]:
    """The grid that the docstring promises: 129 strengths over sixteen decades about the largest eigenvalue."""
    top = float(np.linalg.svd(without_mean(x, bias), compute_uv=False)[0] ** 2)
    return [top * 10.0 ** (exponent / 8 - 12) for exponent in range(129)]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("noise", [0.01, 0.3, 3.0])
@pytest.mark.parametrize(
    ("rows", "source", "target"),
    [(80, 6, 4), (30, 28, 3), (24, 24, 3), (25, 24, 3), (26, 24, 3), (20, 40, 3), (12, 30, 1), (3, 9, 2)],
)
def test_the_ridge_chosen_is_the_best_by_brute_force(rows: int, source: int, target: int, noise: float, bias: bool) -> None:
    """Also where fewer pairs than variables let the fit interpolate: there both parts of the score vanish together."""
    spread = torch.logspace(0, -2, source, dtype=torch.float64)
    x = randn(rows, source, seed=rows) * spread + (2.0 if bias else 0.0)
    y = x @ randn(source, target, seed=1) + noise * randn(rows, target, seed=2)
    chosen = choose_ridge(PairedMoments.of(x, y), bias=bias)
    grid = strengths(x, bias)
    if rows > source + bias:
        grid = [0.0, *grid]
    best = min(gcv_by_hat_matrix(x, y, ridge, bias) for ridge in grid)
    assert min(abs(chosen - ridge) / (ridge + 1e-300) for ridge in grid) < 1e-6, "one of the grid"
    assert gcv_by_hat_matrix(x, y, chosen, bias) <= best * (1 + 1e-6)


@pytest.mark.parametrize(("rows", "source", "noise"), [(40, 10, 2.0), (30, 25, 1.0), (24, 40, 0.5)])
def test_the_ridge_chosen_is_near_the_leave_one_out_optimum(rows: int, source: int, noise: float) -> None:
    """GCV approximates leave-one-out; on these sizes its choice costs at most a tenth more than the best choice."""
    spread = torch.logspace(0, -1.5, source, dtype=torch.float64)
    x = randn(rows, source, seed=5) * spread + 1
    y = x @ randn(source, 3, seed=6) + noise * randn(rows, 3, seed=7)

    def left_out_error(ridge: float) -> float:
        total = 0.0
        for left_out in range(rows):
            kept = np.arange(rows) != left_out
            fitted = Ridge(alpha=ridge, solver="cholesky").fit(x.numpy()[kept], y.numpy()[kept])
            total += float(np.square(fitted.predict(x.numpy()[left_out : left_out + 1]) - y.numpy()[left_out]).sum())
        return total

    chosen = choose_ridge(PairedMoments.of(x, y))
    grid = strengths(x, True)[40::8]
    errors = [left_out_error(ridge) for ridge in grid]
    assert left_out_error(chosen) <= 1.1 * min(errors)
    assert left_out_error(chosen) < 0.9 * max(errors[0], errors[-1]), "the data must make the choice matter"


def test_a_noise_free_map_needs_no_ridge_to_speak_of() -> None:
    x = randn(200, 8, seed=1)
    moments = PairedMoments.of(x, x @ randn(8, 4, seed=2) + 1)
    fit = fit_affine(moments, ridge=choose_ridge(moments))
    assert float(fit.r2.min()) > 1 - 1e-9


def test_a_map_with_next_to_no_noise_is_fitted_without_a_ridge() -> None:
    """Noise of 1e-7 is worth a ridge of 1e-14 of the largest eigenvalue: of those offered, none is the nearest."""
    x, y = noisy(200, 8, 4, noise=1e-7)
    assert choose_ridge(PairedMoments.of(x, y)) == 0.0
    assert choose_ridge(PairedMoments.of(x[:8], y[:8])) > 0.0, "interpolation alone is no reason to trust a fit"


@pytest.mark.parametrize("pairs", [0, 1, 2])
def test_choosing_a_ridge_needs_three_pairs(pairs: int) -> None:
    with pytest.raises(IllPosedError, match=f"at least 3 pairs, got {pairs}"):
        choose_ridge(PairedMoments.of(randn(pairs, 4), randn(pairs, 2)))


@pytest.mark.parametrize("batch", [40, 1])
def test_no_ridge_and_no_rotation_is_chosen_for_a_constant_source(batch: int) -> None:
    x, y = torch.full((40, 3), 0.1, dtype=torch.float64), randn(40, 2, seed=1)
    moments = PairedMoments.of(x[:0], y[:0])
    for a, b in zip(x.split(batch), y.split(batch), strict=True):
        moments = moments.merge(PairedMoments.of(a, b))
    for choose in (choose_ridge, fit_orthogonal):
        with pytest.raises(IllPosedError, match=r"source codes are constant.*Give codes that differ"):
            choose(moments)


# Procrustes


@pytest.mark.parametrize("reflect", [False, True])
@pytest.mark.parametrize("size", [2, 16, 64])
def test_a_planted_rotation_scale_and_shift_are_recovered(size: int, reflect: bool) -> None:
    turn = rotation(size, seed=size)
    if reflect:
        turn = turn * torch.cat([torch.tensor([-1.0]), torch.ones(size - 1)]).double()
    codes, shift = randn(4 * size, size, seed=1) + 2, 3 * randn(size, seed=2)
    fit = fit_orthogonal(PairedMoments.of(codes, 0.7 * codes @ turn + shift))
    assert relative(fit.weight, 0.7 * turn) < 1e-12
    assert relative(fit.bias, shift) < 1e-11
    assert float(fit.r2.min()) == pytest.approx(1.0, abs=1e-12)
    assert fit.rank == size
    assert (fit.condition, fit.ridge, fit.count) == (1.0, 0.0, 4 * size)


def test_a_rotation_of_noisy_codes_is_scipys() -> None:
    x, y = noisy(100, 7, 7, noise=4.0)
    fit = fit_orthogonal(PairedMoments.of(x, y))
    a, b = x.numpy() - x.numpy().mean(axis=0), y.numpy() - y.numpy().mean(axis=0)
    turn, nuclear = scipy.linalg.orthogonal_procrustes(a, b)
    np.testing.assert_allclose(fit.weight.numpy(), turn * nuclear / np.square(a).sum(), rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(predict(fit, x).numpy().mean(axis=0), y.numpy().mean(axis=0), rtol=1e-10)
    residuals = (y - predict(fit, x)).numpy()
    np.testing.assert_allclose(fit.residual_covariance.numpy(), np.cov(residuals.T, ddof=0), rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(
        fit.r2.numpy(), r2_score(y.numpy(), predict(fit, x).numpy(), multioutput="raw_values"), rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize(("source", "target"), [(4, 9), (9, 4), (1, 3), (3, 1)])
def test_where_sizes_differ_the_rotation_is_scipys_on_codes_padded_with_zeros(source: int, target: int) -> None:
    x, y = noisy(100, source, target, noise=1.0)
    fit = fit_orthogonal(PairedMoments.of(x, y))
    wide = max(source, target)
    a = np.pad(x.numpy() - x.numpy().mean(axis=0), ((0, 0), (0, wide - source)))
    b = np.pad(y.numpy() - y.numpy().mean(axis=0), ((0, 0), (0, wide - target)))
    turn = scipy.linalg.orthogonal_procrustes(a, b)[0][:source, :target]
    scale = float(torch.linalg.matrix_norm(fit.weight, 2))
    np.testing.assert_allclose(fit.weight.numpy() / scale, turn, rtol=1e-8, atol=1e-9)
    smaller = fit.weight @ fit.weight.T if source <= target else fit.weight.T @ fit.weight
    np.testing.assert_allclose(smaller.numpy(), scale**2 * np.eye(min(source, target)), atol=1e-10 * scale**2)


@pytest.mark.parametrize(("source", "target"), [(5, 5), (4, 9), (9, 4)])
def test_no_other_scale_fits_better(source: int, target: int) -> None:
    x, y = noisy(100, source, target, noise=1.0)
    fit = fit_orthogonal(PairedMoments.of(x, y))
    a, b = x - x.mean(dim=0), y - y.mean(dim=0)
    errors = [float((b - factor * a @ fit.weight).square().sum()) for factor in (0.99, 1.0, 1.01)]
    assert errors[1] < min(errors[0], errors[2])
    assert errors[0] == pytest.approx(errors[2], rel=1e-9), "a parabola with its foot at 1"


@pytest.mark.parametrize("pairs", [0, 1])
def test_a_rotation_needs_two_pairs(pairs: int) -> None:
    with pytest.raises(IllPosedError, match=f"at least 2 pairs, got {pairs}"):
        fit_orthogonal(PairedMoments.of(randn(pairs, 3), randn(pairs, 3)))


def test_two_pairs_are_enough_for_a_rotation() -> None:
    x = torch.tensor([[0.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    y = torch.tensor([[5.0, 1.0], [5.0, 3.0]], dtype=torch.float64)
    fit = fit_orthogonal(PairedMoments.of(x, y))
    torch.testing.assert_close(predict(fit, x), y)


def test_fewer_pairs_than_variables_still_give_a_rotation() -> None:
    fit = fit_orthogonal(PairedMoments.of(randn(4, 10, seed=1), randn(4, 10, seed=2)))
    gram = (fit.weight @ fit.weight.T).numpy()
    np.testing.assert_allclose(gram, gram[0, 0] * np.eye(10), atol=1e-10 * gram[0, 0])
    assert fit.rank == 3
