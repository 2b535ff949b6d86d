"""Selection: one member of every inhabited sector, each equally likely, topped up from the most crowded."""

import pytest
import torch
from scipy import stats
from torch import Tensor

from latlas.base.errors import UnknownNameError
from latlas.supports.sectors import Sectors
from latlas.supports.selection import one_per_sector

SECTORS = Sectors(variables=(0, 1), threshold=0.5)
# Members of the four sectors (--, +-, -+, ++), then codes within the threshold.
MEMBERS = (7, 1, 12, 3)


def codes(members: tuple[int, ...] = MEMBERS, outside: int = 4) -> tuple[Tensor, Tensor]:
    """Codes in a shuffled order, and the sector of each (-1: none)."""
    generator = torch.Generator().manual_seed(1)
    sector = torch.tensor([s for s, count in enumerate(members) for _ in range(count)] + [-1] * outside)
    signs = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, 1.0], [0.1, 0.1]])[sector]
    order = torch.randperm(len(sector), generator=generator)
    spread = 1 + torch.rand(len(sector), 2, generator=generator)
    return (signs * spread)[order], sector[order]


def choose(rows: Tensor, at_least: int = 0, *, seed: int = 0, sectors: Sectors = SECTORS) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return one_per_sector(rows, sectors, at_least=at_least, generator=generator).tolist()


def test_the_planted_sectors_are_as_meant() -> None:
    rows, sector = codes()
    assert SECTORS.of(rows).equal(sector)


@pytest.mark.parametrize("seed", range(5))
def test_every_inhabited_sector_gets_one_of_its_own_in_order(seed: int) -> None:
    rows, sector = codes()
    assert sector[choose(rows, seed=seed)].tolist() == [0, 1, 2, 3]


def test_empty_sectors_are_passed_over() -> None:
    rows, sector = codes((0, 2, 0, 5))
    assert sector[choose(rows)].tolist() == [1, 3]


@pytest.mark.parametrize(
    ("at_least", "expected"),
    [
        (4, [0, 1, 2, 3]),
        (5, [0, 1, 2, 3, 2]),  # the most crowded first,
        (6, [0, 1, 2, 3, 2, 0]),  # one each, in order of their crowds,
        (8, [0, 1, 2, 3, 2, 0, 3, 2]),  # round after round, passing over what is used up
        (23, [0, 1, 2, 3] + [2, 0, 3] * 2 + [2, 0] * 4 + [2] * 5),
    ],
)
def test_it_is_topped_up_from_the_most_crowded_sectors(at_least: int, expected: list[int]) -> None:
    rows, sector = codes()
    assert sector[choose(rows, at_least)].tolist() == expected


@pytest.mark.parametrize("at_least", [0, 4, 10, 23, 1000])
@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_chosen_twice_and_nothing_from_outside(seed: int, at_least: int) -> None:
    rows, sector = codes()
    chosen = choose(rows, at_least, seed=seed)
    assert len(chosen) == len(set(chosen)) == min(max(at_least, 4), 23)
    assert int(sector[chosen].min()) >= 0


def test_no_code_in_any_sector_chooses_nothing() -> None:
    assert choose(torch.zeros(5, 2), 10) == []


def test_the_generator_alone_decides() -> None:
    rows, _ = codes()
    assert choose(rows, 10, seed=1) == choose(rows, 10, seed=1)
    assert choose(rows, 10, seed=1) != choose(rows, 10, seed=2)


def test_every_member_of_a_sector_is_equally_likely() -> None:
    """Chi-square by SciPy, of the 12 members of the third sector over 6,000 choices."""
    rows, sector = codes()
    counts = torch.zeros(len(rows), dtype=torch.int64)
    generator = torch.Generator().manual_seed(0)
    for _ in range(6000):
        counts[one_per_sector(rows, SECTORS, at_least=0, generator=generator)[2]] += 1
    members = counts[sector == 2]
    assert int(members.sum()) == 6000
    assert stats.chisquare(members.numpy()).pvalue > 1e-3


def test_sectors_choose_independently_of_each_other() -> None:
    """Whether the first sector takes its first member says nothing of what the third takes: a contingency table."""
    rows, sector = codes()
    table = torch.zeros(7, 12, dtype=torch.int64)
    places = {sector_: (sector == sector_).nonzero().flatten().tolist() for sector_ in (0, 2)}
    generator = torch.Generator().manual_seed(0)
    for _ in range(8000):
        chosen = one_per_sector(rows, SECTORS, at_least=0, generator=generator).tolist()
        table[places[0].index(chosen[0]), places[2].index(chosen[2])] += 1
    assert stats.chi2_contingency(table.numpy()).pvalue > 1e-3


def test_the_top_up_is_a_uniform_choice_of_the_rest() -> None:
    rows, sector = codes()
    counts = torch.zeros(len(rows), dtype=torch.int64)
    generator = torch.Generator().manual_seed(0)
    for _ in range(6000):
        counts[one_per_sector(rows, SECTORS, at_least=5, generator=generator)[4]] += 1
    assert stats.chisquare(counts[sector == 2].numpy()).pvalue > 1e-3


# Which member of a sector


def test_the_most_extreme_is_the_farthest_beyond_in_its_least_variable() -> None:
    rows, sector = codes()
    chosen = one_per_sector(rows, SECTORS, at_least=23, generator=torch.Generator().manual_seed(0), choose="extreme")
    reach = rows.abs().min(dim=1).values
    for number in range(4):
        mine = [int(index) for index in chosen if sector[index] == number]
        assert mine == sorted(mine, key=lambda index: -float(reach[index])), "the next extreme tops up"
        assert float(reach[mine[0]]) == float(reach[sector == number].max())


def test_the_most_central_is_the_nearest_to_the_mean_of_its_sector_whatever_the_units() -> None:
    rows, sector = codes()
    chosen = one_per_sector(rows, SECTORS, at_least=0, generator=torch.Generator().manual_seed(0), choose="central")
    scaled = (rows / rows.std(dim=0)).double()
    for number, index in enumerate(chosen.tolist()):
        members = scaled[sector == number]
        distances = (members - members.mean(dim=0)).norm(dim=1)
        assert float((scaled[index] - members.mean(dim=0)).norm()) == pytest.approx(float(distances.min()))
    units = torch.tensor([1.0, 1000.0])
    stretched = Sectors(variables=(0, 1), threshold=0.5, scale=tuple(units.tolist()))
    again = one_per_sector(rows * units, stretched, at_least=0, generator=torch.Generator().manual_seed(0), choose="central")
    assert again.equal(chosen)


def test_members_that_are_equals_are_drawn_by_lot() -> None:
    rows = torch.ones(8, 2)
    drawn = {
        int(one_per_sector(rows, SECTORS, at_least=0, generator=torch.Generator().manual_seed(seed), choose="extreme")[0])
        for seed in range(40)
    }
    assert len(drawn) > 4


def test_a_way_to_choose_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'extreme'"):
        one_per_sector(codes()[0], SECTORS, at_least=0, generator=torch.Generator(), choose="extrem")


def test_tens_of_thousands_of_sectors_get_one_each() -> None:
    """Sixteen variables of 20,000 codes: one pass each would take minutes."""
    rows = torch.randn(20_000, 16, generator=torch.Generator().manual_seed(0))
    many = Sectors(variables=tuple(range(16)), threshold=0.0)
    chosen = one_per_sector(rows, many, at_least=0, generator=torch.Generator().manual_seed(0))
    assert many.of(rows[chosen]).equal(torch.unique(many.of(rows)))
