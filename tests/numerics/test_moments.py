"""Moments: any split of the rows gives the same result, and it is that of exact arithmetic."""

from collections.abc import Iterator
from dataclasses import FrozenInstanceError
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from latlas.base.errors import CodeShapeError, IllPosedError, NonFiniteError
from latlas.numerics.moments import MarginalMoments, Moments, PairedMoments

RELATIVE = 1e-12  # of the standard deviations involved; rounding leaves about 1e-15 a merge
ROWS = 60


def cloud(mean: float, deviation: float, *, rows: int = ROWS, size: int = 3, seed: int = 0) -> Tensor:
    """Correlated Gaussian rows in float64."""
    generator = torch.Generator().manual_seed(seed)
    plain = torch.randn(rows, size, generator=generator, dtype=torch.float64)
    mixing = torch.eye(size, dtype=torch.float64) + 0.3 * torch.randn(size, size, generator=generator, dtype=torch.float64)
    return mean + deviation * plain @ mixing


def exact_moments(rows: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Mean and population covariance in rational arithmetic, rounded once at the end."""
    columns = [[Fraction(value) for value in column] for column in rows.double().T.tolist()]
    n = len(columns[0])
    means = [sum(column) / n for column in columns]
    covariance = [
        [float(sum(x * y for x, y in zip(a, b, strict=True)) / n - ma * mb) for b, mb in zip(columns, means, strict=True)]
        for a, ma in zip(columns, means, strict=True)
    ]
    return np.array([float(mean) for mean in means]), np.array(covariance)


def assert_close(mean: Tensor, covariance: Tensor, exact: tuple[np.ndarray, np.ndarray]) -> None:
    """Agreement relative to the standard deviations (covariance) and to the mean or deviation (mean)."""
    deviation = np.sqrt(np.diag(exact[1]))
    assert (np.abs(mean.numpy() - exact[0]) <= RELATIVE * (np.abs(exact[0]) + deviation)).all()
    assert (np.abs(covariance.numpy() - exact[1]) <= RELATIVE * np.outer(deviation, deviation)).all()


CLOUDS = {(mean, deviation): cloud(mean, deviation) for mean, deviation in [(0.0, 1.0), (1000.0, 1.0), (-3.0, 1e-3)]}
EXACT = {key: exact_moments(rows) for key, rows in CLOUDS.items()}

# Cuts may coincide, which makes empty batches, and may lie next to each other, which makes single rows.
splits = st.lists(st.integers(0, ROWS), max_size=ROWS).map(sorted)


def pieces(rows: Tensor, cuts: list[int]) -> Iterator[Tensor]:
    for start, stop in zip([0, *cuts], [*cuts, len(rows)], strict=True):
        yield rows[start:stop]


@pytest.mark.parametrize("key", CLOUDS)
@given(cuts=splits)
def test_merging_any_split_gives_the_moments_of_the_whole(key: tuple[float, float], cuts: list[int]) -> None:
    merged = Moments.over(pieces(CLOUDS[key], cuts))
    assert merged.count == ROWS
    assert_close(merged.mean, merged.covariance(), EXACT[key])


@pytest.mark.parametrize("key", CLOUDS)
@pytest.mark.parametrize("size", [1, 7, 59, ROWS])
def test_no_batch_size_changes_the_moments(key: tuple[float, float], size: int) -> None:
    merged = Moments.over(CLOUDS[key].split(size))
    assert_close(merged.mean, merged.covariance(), EXACT[key])


def test_raw_second_moments_would_not_pass_here() -> None:
    """The tolerance is sharp: the textbook formula loses the digits that merging keeps."""
    key = (1000.0, 1.0)
    rows = CLOUDS[key]
    mean = rows.mean(dim=0)
    textbook = rows.T @ rows / ROWS - torch.outer(mean, mean)
    with pytest.raises(AssertionError):
        assert_close(mean, textbook, EXACT[key])


def test_thousands_of_single_rows_of_large_mean_keep_twelve_digits() -> None:
    rows = cloud(1000.0, 1.0, rows=3000, size=4, seed=1)
    merged = Moments.over(rows.split(1))
    exact = exact_moments(rows)
    assert_close(merged.mean, merged.covariance(), exact)


@given(order=st.permutations(range(5)), cuts=st.lists(st.integers(0, ROWS), min_size=4, max_size=4).map(sorted))
def test_the_order_of_merging_does_not_matter(order: list[int], cuts: list[int]) -> None:
    key = (1000.0, 1.0)
    parts = [Moments.of(piece) for piece in pieces(CLOUDS[key], cuts)]
    first, second, third, fourth, fifth = (parts[index] for index in order)
    tree = first.merge(second).merge(third.merge(fourth.merge(fifth)))
    assert_close(tree.mean, tree.covariance(), EXACT[key])


@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_covariance_is_numpys(ddof: int, size: int) -> None:
    rows = cloud(2.0, 3.0, size=size, seed=size)
    ours = Moments.of(rows).covariance(ddof=ddof).numpy()
    np.testing.assert_allclose(ours, np.atleast_2d(np.cov(rows.numpy().T, ddof=ddof)), rtol=1e-12, atol=1e-13)


def test_variance_is_the_diagonal_of_the_covariance_and_a_copy() -> None:
    moments = Moments.of(CLOUDS[0.0, 1.0])
    variance = moments.variance()
    np.testing.assert_allclose(variance.numpy(), CLOUDS[0.0, 1.0].numpy().var(axis=0), rtol=1e-13)
    variance.zero_()
    assert float(moments.variance().min()) > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_rows_of_few_bits_are_accumulated_in_double(dtype: torch.dtype) -> None:
    rows = cloud(100.0, 1.0, seed=3).to(dtype)
    moments = Moments.over(rows.split(9))
    assert moments.mean.dtype == moments.scatter.dtype == torch.float64
    assert_close(moments.mean, moments.covariance(), exact_moments(rows))


def test_no_rows_are_the_neutral_element() -> None:
    moments = Moments.of(CLOUDS[1000.0, 1.0])
    for merged in (moments.merge(Moments.empty(3)), Moments.empty(3).merge(moments)):
        assert merged.count == moments.count
        assert merged.mean.equal(moments.mean)
        assert merged.scatter.equal(moments.scatter)
    nothing = Moments.of(torch.zeros(0, 3)).merge(Moments.empty(3))
    assert nothing.count == 0
    assert nothing.size == 3


def test_one_row_has_its_own_mean_and_no_spread() -> None:
    moments = Moments.of(torch.tensor([[0.1, 1e8]], dtype=torch.float64))
    assert moments.mean.tolist() == [0.1, 1e8]
    assert moments.covariance().tolist() == [[0.0, 0.0], [0.0, 0.0]]


@pytest.mark.parametrize("value", [0.1, 1 / 3, -1000.3, 1e8 + 0.1])
@pytest.mark.parametrize("rows", [2, 3, 7, 49, 1000])
def test_a_constant_variable_has_its_value_as_mean_and_no_spread_at_all(value: float, rows: int) -> None:
    """The plain sum divided by the count misses 0.1 already for three rows; what it misses is taken out again."""
    moments = Moments.of(torch.full((rows, 2), value, dtype=torch.float64))
    assert moments.mean.tolist() == [value, value]
    assert moments.scatter.tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_rounding_is_no_variance_however_often_its_rows_come_again() -> None:
    """A two-hundred-trillionth of the mean; merging doubles the rows twenty times, and the deviation stays what it was."""
    moments = Moments.of(torch.tensor([[1 - 5e-15, 1 - 5e-14], [1 + 5e-15, 1 + 5e-14]], dtype=torch.float64))
    for _ in range(21):
        assert moments.constant().tolist() == [True, False]
        moments = moments.merge(moments)
    assert moments.count == 2**22


@pytest.mark.parametrize(("rows", "ddof"), [(0, 0), (1, 1), (0, 1)])
def test_a_covariance_of_too_few_rows_is_refused(rows: int, ddof: int) -> None:
    with pytest.raises(IllPosedError, match=f"ddof={ddof} needs more than {ddof} rows, got {rows}"):
        Moments.of(torch.zeros(rows, 2)).covariance(ddof=ddof)


def test_a_stream_of_nothing_is_refused() -> None:
    with pytest.raises(IllPosedError, match="empty stream; give at least one batch"):
        Moments.over(iter([]))


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf")])
def test_a_row_that_is_no_number_is_refused_by_its_number(poison: float) -> None:
    rows = CLOUDS[0.0, 1.0].clone()
    rows[7, 1] = poison
    rows[9, 0] = poison
    for refuse in (
        lambda: Moments.of(rows),
        lambda: PairedMoments.of(rows, CLOUDS[0.0, 1.0]),
        lambda: PairedMoments.of(CLOUDS[0.0, 1.0], rows),
    ):
        with pytest.raises(NonFiniteError, match=r"Row 7 holds NaN or infinity.*Remove it first"):
            refuse()


def test_infinities_of_both_signs_do_not_hide_each_other() -> None:
    with pytest.raises(NonFiniteError, match="Row 1 "):
        Moments.of(torch.tensor([[0.0], [float("inf")], [-float("inf")]]))


@pytest.mark.parametrize("kind", [Moments, MarginalMoments, PairedMoments])
def test_moments_are_values_that_nobody_changes(kind: type) -> None:
    rows = CLOUDS[0.0, 1.0]
    moments = kind.of(rows, rows) if kind is PairedMoments else kind.of(rows)
    with pytest.raises(FrozenInstanceError):
        setattr(moments, next(iter(vars(moments))), None)


def test_moments_hold_no_gradient() -> None:
    rows = CLOUDS[0.0, 1.0].clone().requires_grad_()
    assert not Moments.of(rows).scatter.requires_grad
    assert not MarginalMoments.of(rows).scatter.requires_grad
    assert not PairedMoments.of(rows, rows).joint.scatter.requires_grad


# Marginal moments


@pytest.mark.parametrize("key", CLOUDS)
@given(cuts=splits)
def test_merging_any_split_gives_the_marginal_moments_of_the_whole(key: tuple[float, float], cuts: list[int]) -> None:
    merged = MarginalMoments.of(CLOUDS[key][:0])
    for piece in pieces(CLOUDS[key], cuts):
        merged = merged.merge(MarginalMoments.of(piece))
    mean, covariance = EXACT[key]
    assert merged.count == ROWS
    np.testing.assert_allclose(merged.mean.numpy(), mean, rtol=RELATIVE, atol=RELATIVE * np.sqrt(covariance.max()))
    np.testing.assert_allclose(merged.variance().numpy(), np.diag(covariance), rtol=RELATIVE)


@pytest.mark.parametrize("shape", [(), (4,), (2, 3), (3, 4, 5)])
def test_marginal_moments_take_rows_of_any_shape(shape: tuple[int, ...], generator: torch.Generator) -> None:
    rows = torch.randn(11, *shape, generator=generator)
    moments = MarginalMoments.of(rows[:4]).merge(MarginalMoments.of(rows[4:]))
    exact = rows.double().numpy()
    np.testing.assert_allclose(moments.mean.numpy(), exact.mean(axis=0), atol=1e-14)
    np.testing.assert_allclose(moments.variance().numpy(), exact.var(axis=0), rtol=1e-12)


def test_marginal_moments_of_nothing_are_neutral_and_have_no_variance() -> None:
    nothing = MarginalMoments.of(torch.zeros(0, 2, 3))
    assert nothing.variance().equal(torch.zeros(2, 3, dtype=torch.float64))
    assert nothing.merge(nothing).count == 0
    some = MarginalMoments.of(torch.ones(2, 2, 3))
    for merged in (some.merge(nothing), nothing.merge(some)):
        assert merged.count == 2
        assert merged.mean.equal(some.mean)


# Paired moments


def test_paired_moments_hold_each_side_and_what_they_share() -> None:
    source, target = cloud(5.0, 1.0, size=3, seed=4), cloud(-2.0, 2.0, size=2, seed=5) + cloud(0.0, 1.0, size=2, seed=4)
    paired = PairedMoments.of(source, target)
    x, y = source.numpy() - source.numpy().mean(axis=0), target.numpy() - target.numpy().mean(axis=0)
    assert paired.count == ROWS
    np.testing.assert_allclose(paired.source.mean.numpy(), source.numpy().mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(paired.target.mean.numpy(), target.numpy().mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(paired.source.scatter.numpy(), x.T @ x, rtol=1e-12, atol=1e-11)
    np.testing.assert_allclose(paired.target.scatter.numpy(), y.T @ y, rtol=1e-12, atol=1e-11)
    np.testing.assert_allclose(paired.cross.numpy(), x.T @ y, rtol=1e-12, atol=1e-11)
    assert paired.cross.shape == (3, 2)


@given(cuts=splits)
def test_merging_any_split_of_pairs_gives_the_moments_of_all_pairs(cuts: list[int]) -> None:
    source, target = CLOUDS[1000.0, 1.0], CLOUDS[0.0, 1.0][:, :2]
    merged = PairedMoments.of(source[:0], target[:0])
    for a, b in zip(pieces(source, cuts), pieces(target, cuts), strict=True):
        merged = merged.merge(PairedMoments.of(a, b))
    assert merged.source_size == 3
    mean, covariance = exact_moments(torch.cat([source, target], dim=1))
    assert_close(merged.joint.mean, merged.joint.covariance(), (mean, covariance))


def test_uncentred_moments_are_the_raw_sums_of_products() -> None:
    source, target = cloud(5.0, 1.0, size=3, seed=6), cloud(-2.0, 2.0, size=2, seed=7)
    raw = PairedMoments.of(source, target).uncentred()
    np.testing.assert_allclose(raw.cross.numpy(), source.numpy().T @ target.numpy(), rtol=1e-13)
    np.testing.assert_allclose(raw.source.scatter.numpy(), source.numpy().T @ source.numpy(), rtol=1e-13)
    assert raw.joint.mean.equal(torch.zeros(5, dtype=torch.float64))
    assert raw.count == ROWS


def test_moments_of_different_widths_do_not_merge() -> None:
    with pytest.raises(CodeShapeError, match="2 and 3 variables"):
        Moments.of(torch.zeros(4, 2)).merge(Moments.of(torch.zeros(4, 3)))
