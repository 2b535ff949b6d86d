"""Likeness of codes: against definitions by n x n kernels, QR and SVD, against SciPy, and by its invariances."""

import math

import numpy as np
import pytest
import scipy.linalg
import scipy.spatial
import torch
from torch import Tensor

from latlas.base.errors import CodeShapeError, IllPosedError, NonFiniteError, SettingError
from latlas.measurements.similarity import canonical_correlations, similarity, svcca
from latlas.numerics.moments import PairedMoments

EXACT = {"rel": 1e-8, "abs": 1e-8}
INVARIANT = ("cka", "cka_debiased", "mean_cca", "svcca", "procrustes")


def paired(generator: torch.Generator, n: int = 200, source: int = 7, target: int = 5) -> tuple[Tensor, Tensor]:
    """Codes that share three factors, with means far from 0."""
    shared = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    sets = []
    for width, mean in ((source, 5.0), (target, -3.0)):
        mixing = torch.randn(3, width, generator=generator, dtype=torch.float64)
        sets.append(shared @ mixing + 0.7 * torch.randn(n, width, generator=generator, dtype=torch.float64) + mean)
    return sets[0], sets[1]


def rotation(size: int, generator: torch.Generator) -> Tensor:
    return torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q


def centred(codes: Tensor) -> np.ndarray:
    return (codes - codes.mean(dim=0)).numpy()


def unbiased_hsic(K: np.ndarray, L: np.ndarray) -> float:
    """Song et al. 2012, equation 5, as printed: kernels with zero diagonals."""
    n = len(K)
    K, L = K - np.diag(np.diag(K)), L - np.diag(np.diag(L))
    one = np.ones(n)
    bracket = np.trace(K @ L) + one @ K @ one * (one @ L @ one) / ((n - 1) * (n - 2)) - 2 / (n - 2) * (one @ K @ L @ one)
    return bracket / (n * (n - 3))


# Against independent definitions


def test_cka_is_the_alignment_of_centred_kernels(generator: torch.Generator) -> None:
    """Cortes et al. 2012: kernels centred by the matrix H, then their cosine."""
    x, y = paired(generator)
    H = np.eye(len(x)) - 1 / len(x)
    K, L = (H @ (codes.numpy() @ codes.numpy().T) @ H for codes in (x, y))
    assert similarity(x, y).cka == pytest.approx((K * L).sum() / np.linalg.norm(K) / np.linalg.norm(L), **EXACT)


def test_the_debiased_cka_is_the_one_of_the_printed_estimator(generator: torch.Generator) -> None:
    x, y = paired(generator, n=60)
    K, L = (codes.numpy() @ codes.numpy().T for codes in (x, y))  # not centred: the estimator sees to that
    expected = unbiased_hsic(K, L) / math.sqrt(unbiased_hsic(K, K) * unbiased_hsic(L, L))
    assert similarity(x, y).cka_debiased == pytest.approx(expected, **EXACT)


def test_canonical_correlations_are_the_cosines_of_scipys_subspace_angles(generator: torch.Generator) -> None:
    x, y = paired(generator)
    angles = scipy.linalg.subspace_angles(centred(x), centred(y))
    np.testing.assert_allclose(canonical_correlations(PairedMoments.of(x, y)), np.sort(np.cos(angles))[::-1], atol=1e-8)
    assert similarity(x, y).mean_cca == pytest.approx(np.cos(angles).mean(), **EXACT)


def test_svcca_is_the_cca_of_the_leading_singular_vectors(generator: torch.Generator) -> None:
    x, y = paired(generator)
    x = x * torch.tensor([9.0, 5.0, 3.0, 1.0, 0.3, 0.05, 0.01], dtype=torch.float64)  # so that 99 % leaves some out
    kept = []
    for codes in (x, y):
        left, values, _ = np.linalg.svd(centred(codes), full_matrices=False)
        share = np.cumsum(values**2) / np.sum(values**2)
        kept.append(left[:, : np.argmax(share >= 0.99) + 1])
    assert kept[0].shape[1] < 7
    expected = np.linalg.svd(kept[0].T @ kept[1], compute_uv=False).mean()
    assert similarity(x, y).svcca == pytest.approx(expected, **EXACT)


def test_the_procrustes_distance_follows_from_scipys_disparity(generator: torch.Generator) -> None:
    """SciPy also scales: what it leaves is 1 - s^2 with s the sum of singular values, ours 2 - 2 s."""
    x, y = paired(generator)
    wide = np.zeros((len(y), x.shape[1]))
    wide[:, : y.shape[1]] = y.numpy() - y.mean(dim=0).numpy()
    disparity = scipy.spatial.procrustes(centred(x), wide)[2]
    assert similarity(x, y).procrustes == pytest.approx(2 - 2 * math.sqrt(1 - disparity), **EXACT)


# Laws


@pytest.mark.parametrize("change", ["rotated", "scaled", "shifted"])
def test_rotation_scale_and_shift_of_either_set_change_nothing(change: str, generator: torch.Generator) -> None:
    x, y = paired(generator)
    before = similarity(x, y)
    changed = {
        "rotated": lambda codes: codes @ rotation(codes.shape[1], generator),
        "scaled": lambda codes: -13.0 * codes,
        "shifted": lambda codes: codes + 100.0,
    }[change]
    for after in (similarity(changed(x), y), similarity(x, changed(y))):
        for name in INVARIANT:
            assert getattr(after, name) == pytest.approx(getattr(before, name), rel=1e-7, abs=1e-8), name


def test_every_measure_is_symmetric(generator: torch.Generator) -> None:
    x, y = paired(generator)
    for name in INVARIANT:
        assert getattr(similarity(x, y), name) == pytest.approx(getattr(similarity(y, x), name), **EXACT)


def test_codes_are_wholly_like_themselves_rotated(generator: torch.Generator) -> None:
    x, _ = paired(generator)
    same = similarity(x, 3 * x @ rotation(7, generator) + 1)
    assert (same.cka, same.mean_cca, same.svcca) == pytest.approx((1.0, 1.0, 1.0))
    assert same.procrustes == pytest.approx(0.0, abs=1e-7)


def test_only_the_canonical_correlations_survive_any_invertible_map(generator: torch.Generator) -> None:
    x, _ = paired(generator)
    sheared = similarity(x, x @ torch.diag(torch.logspace(0, 3, 7, dtype=torch.float64)))
    assert sheared.mean_cca == pytest.approx(1.0)
    assert sheared.cka < 0.9
    assert sheared.procrustes > 0.1


def test_only_the_debiased_cka_of_independent_codes_is_zero_where_variables_are_many(generator: torch.Generator) -> None:
    found = [similarity(torch.randn(40, 60, generator=generator), torch.randn(40, 60, generator=generator)) for _ in range(20)]
    assert np.mean([one.cka for one in found]) > 0.5
    assert abs(np.mean([one.cka_debiased for one in found])) < 0.02


def test_a_direction_without_variance_takes_no_part(generator: torch.Generator) -> None:
    x, y = paired(generator)
    wide = torch.cat(
        [x, x[:, :2] @ torch.ones(2, 1, dtype=torch.float64), torch.full((200, 1), 4.0, dtype=torch.float64)], dim=1
    )
    assert similarity(wide, y).mean_cca == pytest.approx(similarity(x, y).mean_cca, **EXACT)


def test_the_share_kept_decides_how_many_directions_take_part(generator: torch.Generator) -> None:
    x, y = paired(generator)
    moments = PairedMoments.of(x * torch.logspace(0, -3, 7, dtype=torch.float64), y)
    assert len(canonical_correlations(moments)) == 5
    assert len(canonical_correlations(moments, kept=0.5)) == 1
    assert svcca(moments, kept=1.0) == pytest.approx(float(canonical_correlations(moments).mean()))
    for share in (0.0, 1.5, math.nan):
        with pytest.raises(SettingError, match=r"must lie in \(0, 1\]"):
            canonical_correlations(moments, kept=share)


# What can go wrong


def test_codes_that_cannot_be_compared_are_refused(generator: torch.Generator) -> None:
    x, y = paired(generator)
    with pytest.raises(CodeShapeError, match="must be paired: got 200 and 199"):
        similarity(x, y[:199])
    with pytest.raises(IllPosedError, match="at least 4 pairs of codes, got 3"):
        similarity(x[:3], y[:3])
    for constant in (torch.zeros(200, 4), torch.full((200, 4), 0.1)):
        with pytest.raises(IllPosedError, match="source codes are all alike"):
            similarity(constant, y)
        with pytest.raises(IllPosedError, match="target codes are all alike"):
            similarity(x, constant)
    y[3, 0] = torch.nan
    with pytest.raises(NonFiniteError):
        similarity(x, y)
