"""Mini-batches: every image once an epoch, another order each epoch, and the same images however the work is shared out."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from latlas.training.batches import ShuffledRows, training_loader


@st.composite
def layouts(draw: st.DrawFn) -> dict[str, int]:
    """A number of images and a mini-batch that some number of processes can share, perhaps larger than the set."""
    world = draw(st.integers(1, 4))
    return {
        "count": draw(st.integers(1, 60)),
        "batch": world * draw(st.integers(1, 12)),
        "world": world,
        "per_step": draw(st.integers(1, 5)),
        "seed": draw(st.integers(0, 3)),
    }


def mini_batches(layout: dict[str, int], *, rank: int = 0, epoch: int = 0, **changes: int) -> list[list[int]]:
    """The rows of one process, cut where the optimiser steps: chunks undone."""
    settings = {**layout, **changes}
    rows = ShuffledRows(**settings, rank=rank)
    rows.set_epoch(epoch)
    share = len(range(rank, min(settings["batch"], settings["count"]), settings["world"]))
    return [part.tolist() for step in rows if share for part in step.split(share)]


def one_process(layout: dict[str, int], **changes: int) -> list[list[int]]:
    return mini_batches({**layout, "world": 1}, **changes)


@given(layout=layouts(), epoch=st.integers(0, 3))
def test_an_epoch_is_a_permutation_less_its_remainder(layout: dict[str, int], epoch: int) -> None:
    parts = one_process(layout, epoch=epoch)
    batch = min(layout["batch"], layout["count"])
    seen = sorted(row for part in parts for row in part)
    assert {len(part) for part in parts} == {batch}
    assert len(seen) == len(set(seen)) == layout["count"] // batch * batch
    assert set(seen) <= set(range(layout["count"]))


@given(layout=layouts(), epoch=st.integers(0, 3))
def test_processes_share_out_every_mini_batch(layout: dict[str, int], epoch: int) -> None:
    """What all processes take together is what one process alone would take: no image twice, none left out."""
    shares = [mini_batches(layout, rank=rank, epoch=epoch) for rank in range(layout["world"])]
    together = one_process(layout, epoch=epoch)
    for number, whole in enumerate(together):
        parts = [share[number] for share in shares if share]
        assert sorted(row for part in parts for row in part) == sorted(whole)


@given(layout=layouts())
def test_chunks_keep_the_mini_batches(layout: dict[str, int]) -> None:
    assert one_process(layout) == one_process(layout, per_step=1)


@given(layout=layouts())
def test_its_length_is_the_number_of_steps(layout: dict[str, int]) -> None:
    rows = ShuffledRows(**layout)
    steps = list(rows)
    assert len(rows) == len(steps)
    assert rows.mini_batches == len(one_process(layout))


def orders(*, seed: int = 0, epochs: int = 4) -> list[list[list[int]]]:
    layout = {"count": 50, "batch": 8, "per_step": 2, "seed": seed, "world": 1}
    return [mini_batches(layout, epoch=epoch) for epoch in range(epochs)]


def test_the_same_seed_gives_the_same_order_and_another_seed_another() -> None:
    assert orders() == orders()
    assert all(first != second for first, second in zip(orders(), orders(seed=1), strict=True))


def test_every_epoch_has_an_order_of_its_own() -> None:
    assert len({str(order) for order in orders(epochs=6)}) == 6


def test_the_epoch_alone_decides_the_order_and_not_how_often_it_was_asked() -> None:
    """A resumed training asks for epoch 3 first."""
    resumed, from_the_start = ShuffledRows(50, 8), ShuffledRows(50, 8)
    for epoch in range(4):
        from_the_start.set_epoch(epoch)
        expected = [step.tolist() for step in from_the_start]
    resumed.set_epoch(3)
    for _ in range(2):
        assert [step.tolist() for step in resumed] == expected


def test_no_image_is_left_out_of_every_epoch() -> None:
    """50 images in mini-batches of 8 leave 2 out: the same two always would never be learnt."""
    left_out = [set(range(50)) - {row for part in order for row in part} for order in orders(epochs=6)]
    assert {len(rows) for rows in left_out} == {2}
    assert set.intersection(*left_out) == set()


def test_the_order_is_thorough() -> None:
    """A place of the first mini-batch holds each image equally often: chi-square over 4,000 epochs, by SciPy."""
    counts = torch.zeros(10, dtype=torch.int64)
    rows = ShuffledRows(10, 5)
    for epoch in range(4000):
        rows.set_epoch(epoch)
        counts[next(iter(rows))[0]] += 1
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_the_loader_delivers_the_rows_that_were_asked_for(dtype: torch.dtype) -> None:
    storage = torch.arange(20 * 4).reshape(20, 1, 2, 2).to(dtype)
    rows = ShuffledRows(20, 4, per_step=3)
    loader = training_loader(storage, rows)
    assert len(loader) == len(rows) == 2
    delivered: list[Tensor] = list(loader)
    assert [part.shape[0] for part in delivered] == [12, 8]
    for pixels, step in zip(delivered, rows, strict=True):
        assert pixels.dtype == dtype
        assert pixels.equal(storage[step])


def test_loading_leaves_the_callers_random_numbers_alone() -> None:
    before = torch.get_rng_state()
    list(training_loader(torch.zeros(8, 1, 2, 2), ShuffledRows(8, 4)))
    assert torch.get_rng_state().equal(before)
