"""Accumulating: whatever the blocks, and whichever way the mean drifts, the moments are those of exact arithmetic."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from latlas.base.errors import CodeShapeError, NonFiniteError
from latlas.numerics import accumulate as module
from latlas.numerics.accumulate import Accumulator

ROWS = 48


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# Rows that make life hard for a shift guessed from the first of them.
STREAMS = {
    "a mean of 1000": 1000 + randn(ROWS, 3),
    "a mean of a million, little spread": 1e6 + 1e-3 * randn(ROWS, 3),
    "sorted": randn(ROWS, 3).sort(dim=0).values,
    "a first row far out": torch.cat([torch.full((1, 3), 1e6, dtype=torch.float64), randn(ROWS - 1, 3)]),
    "a mean that jumps": torch.cat([randn(ROWS // 2, 3), 1e4 + randn(ROWS // 2, 3, seed=1)]),
    "one constant, one nearly": torch.cat(
        [torch.full((ROWS, 1), 0.1), 5 + 1e-9 * randn(ROWS, 1), randn(ROWS, 1)], dim=1
    ).double(),
}


def exact(rows: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Mean and scatter in rational arithmetic."""
    columns = [[Fraction(value) for value in column] for column in rows.T.tolist()]
    means = [sum(column) / len(column) for column in columns]
    centred = [[value - mean for value in column] for column, mean in zip(columns, means, strict=True)]
    scatter = [[float(sum(x * y for x, y in zip(a, b, strict=True))) for b in centred] for a in centred]
    return np.array([float(mean) for mean in means]), np.array(scatter)


EXACT = {name: exact(rows) for name, rows in STREAMS.items()}


def assert_exact(found: Accumulator, name: str) -> None:
    mean, scatter = EXACT[name]
    spread = np.sqrt(np.diag(scatter))
    assert found.count == ROWS
    assert (np.abs(found.mean.numpy() - mean) <= 1e-14 * (np.abs(mean) + spread)).all()
    # A spread that float64 itself cannot hold beside such a mean is known as well as the mean's own rounding allows.
    limit = 1e-12 * np.outer(spread, spread) + np.outer(np.abs(mean), np.abs(mean)) * 1e-31 * ROWS
    limit += 1e-15 * (np.outer(np.abs(mean), spread) + np.outer(spread, np.abs(mean)))
    assert (np.abs(found.scatter().numpy() - scatter) <= limit).all()


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("block", [1, 5, ROWS])
@given(cuts=st.lists(st.integers(0, ROWS), max_size=6).map(sorted))
def test_any_cuts_and_any_blocks_give_exact_moments(name: str, block: int, cuts: list[int]) -> None:
    found = Accumulator(3)
    found._rows = block
    for start, stop in zip([0, *cuts], [*cuts, ROWS], strict=True):
        found.add(STREAMS[name][start:stop])
    assert_exact(found, name)


def test_parts_side_by_side_are_one_row() -> None:
    rows = STREAMS["a mean of 1000"]
    apart = Accumulator(1, 2)
    apart.add(rows[:, :1], rows[:, 1:])
    assert_exact(apart, "a mean of 1000")


@pytest.mark.parametrize("width", [63, 64, 65, 200])
def test_panels_of_columns_leave_nothing_out(width: int) -> None:
    rows = 3 + randn(300, width)
    found = Accumulator(width)
    found.add(rows)
    centred = rows.numpy() - rows.numpy().mean(axis=0)
    np.testing.assert_allclose(found.scatter().numpy(), centred.T @ centred, rtol=1e-11, atol=1e-10)
    assert found.scatter().equal(found.scatter().T)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.int64, torch.bool])
def test_rows_of_any_type_are_taken_as_they_are(dtype: torch.dtype) -> None:
    rows = (10 * randn(50, 4)).to(dtype)
    found, wanted = Accumulator(4), Accumulator(4)
    found.add(rows)
    wanted.add(rows.double())
    assert found.mean.equal(wanted.mean)
    assert found.scatter().equal(wanted.scatter())


def test_memory_does_not_grow_with_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_ROWS", 32)
    found = Accumulator(4)
    found.add(randn(1000, 4))
    assert found._buffer.shape == (32, 4)
    held = sum(part.numel() for part in vars(found).values() if isinstance(part, Tensor))
    assert held == 4 + 4 * 4 + 32 * 4


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("side", [0, 1])
def test_a_row_that_is_no_number_is_told_by_its_place_in_the_stream_and_its_side(poison: float, side: int) -> None:
    found = Accumulator(2, 3, names=("source", "target"))
    found._rows = 8
    parts = [randn(40, 2), randn(40, 3)]
    found.add(*parts)
    parts[side][29, 1] = poison
    with pytest.raises(NonFiniteError, match=rf"Row 69 holds NaN or infinity among its {('source', 'target')[side]} codes"):
        found.add(*parts)


def test_finite_rows_whose_sum_is_not_finite_are_told_so() -> None:
    found = Accumulator(1)
    with pytest.raises(NonFiniteError, match="near 1e308"):
        found.add(torch.tensor([[1.5e308], [-1.5e308], [1.0]], dtype=torch.float64))


@pytest.mark.parametrize("shapes", [((4, 2), (4, 2)), ((4, 3), (4, 3)), ((4, 2), (5, 3))])
def test_rows_of_other_widths_or_numbers_are_refused(shapes: tuple[tuple[int, int], tuple[int, int]]) -> None:
    with pytest.raises(CodeShapeError, match="Rows of 2 and 3 variables are wanted, as many of each"):
        Accumulator(2, 3).add(*(torch.zeros(shape) for shape in shapes))
