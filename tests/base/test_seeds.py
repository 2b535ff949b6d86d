"""Seeds by name: the same everywhere, different for every purpose."""

import hashlib

import torch
from hypothesis import given
from hypothesis import strategies as st

from latlas.base.seeds import derived_seed, generator


def test_a_derived_seed_is_the_first_63_bits_of_a_sha256() -> None:
    """Python's own `hash` differs from process to process; this is what makes runs repeatable across machines."""
    digest = hashlib.sha256(b"5/noise/3").digest()
    assert derived_seed(5, "noise", 3) == int.from_bytes(digest[:8], "big") // 2


@given(seed=st.integers(-(2**70), 2**70), names=st.lists(st.text(max_size=5) | st.integers(), max_size=3))
def test_every_seed_that_can_be_derived_can_be_used(seed: int, names: list[str | int]) -> None:
    assert 0 <= derived_seed(seed, *names) < 2**63
    torch.rand(1, generator=generator(seed, *names))


def test_seed_and_every_name_and_their_order_decide() -> None:
    asked = [(0,), (1,), (-1,), (0, "a"), (0, "b"), (0, "a", "b"), (0, "b", "a"), (0, "a", 1), (0, "a", 2), (1, "a")]
    seeds = [derived_seed(*names) for names in asked]
    assert len(set(seeds)) == len(asked)


def test_neighbouring_seeds_give_unrelated_draws() -> None:
    """The largest of 190 correlations of 1,000 draws stays below 5 standard errors."""
    draws = torch.stack([torch.randn(1000, generator=generator(seed, "noise")) for seed in range(20)])
    correlation = torch.corrcoef(draws) - torch.eye(20)
    assert float(correlation.abs().max()) < 5 / 1000**0.5


def test_drawing_for_one_purpose_does_not_disturb_another() -> None:
    alone = torch.rand(4, generator=generator(0, "map"))
    torch.rand(100, generator=generator(0, "range"))
    assert torch.rand(4, generator=generator(0, "map")).equal(alone)


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    torch.rand(3, generator=generator(0, "a"))
    assert torch.get_rng_state().equal(before)


def test_purposes_differ() -> None:
    draws = {tuple(torch.rand(4, generator=generator(3, name)).tolist()) for name in ("map", "range", "noise", "weights")}
    assert len(draws) == 4
