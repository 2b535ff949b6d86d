"""Which images stand for which sectors."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from latlas.base.errors import unknown_name
from latlas.base.shapes import Codes
from latlas.supports.sectors import Sectors, columns, offsets

Choice = Literal["random", "central", "extreme"]
CHOICES: tuple[Choice, ...] = ("random", "central", "extreme")


def one_per_sector(
    codes: Codes, sectors: Sectors, *, at_least: int, generator: torch.Generator, choose: str = "random"
) -> Int[Tensor, " chosen"]:
    """Return the indices of one code of every inhabited sector, in the order of the sectors.

    Where that gives fewer than `at_least`, it is topped up with further codes from the most crowded sectors, one each,
    round after round. Never more than there are codes in sectors.

    Args:
        codes: to choose from.
        sectors: that each get one.
        at_least: how many to choose, where there are that many codes in sectors.
        generator: of what is random, ties between equals included.
        choose: "random";
            "central" (nearest to the mean of the sector's members, in its variables, each in units of its standard
            deviation over all codes);
            "extreme" (farthest beyond the threshold in the variable in which that is least).

    Raises:
        UnknownNameError: no such choice.
    """
    if choose not in CHOICES:
        raise unknown_name("choice within a sector", choose, CHOICES)
    membership = sectors.of(codes)
    shuffled = torch.randperm(len(codes), generator=generator)
    # Within a sector the first of a shuffled order is a uniform choice, and the second a uniform choice of the rest.
    if choose == "central":
        shuffled = shuffled[_eccentricity(codes, sectors, membership)[shuffled].argsort(stable=True)]
    elif choose == "extreme":
        reach = offsets(codes, sectors.variables, sectors.centre, sectors.scale).abs().amin(dim=1)
        shuffled = shuffled[reach[shuffled].argsort(stable=True, descending=True)]
    grouped = shuffled[membership[shuffled].argsort(stable=True)]
    inhabited, sizes = torch.unique(membership, return_counts=True)
    members = dict(zip(inhabited.tolist(), torch.split(grouped, sizes.tolist()), strict=True))
    members.pop(-1, None)
    chosen = [int(waiting[0]) for waiting in members.values()]
    crowded = sorted(members, key=lambda sector: (-len(members[sector]), sector))
    turn = 1
    while len(chosen) < at_least and crowded:
        crowded = [sector for sector in crowded if len(members[sector]) > turn]
        chosen += [int(members[sector][turn]) for sector in crowded[: at_least - len(chosen)]]
        turn += 1
    return torch.tensor(chosen, dtype=torch.int64)


def _eccentricity(codes: Codes, sectors: Sectors, membership: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    chosen = columns(codes, sectors.variables).double()
    spread = chosen.std(dim=0, correction=0)
    chosen = chosen / torch.where(spread > 0, spread, 1.0)
    sizes = torch.zeros(sectors.count + 1, dtype=torch.float64).index_add_(0, membership + 1, torch.ones(len(codes)).double())
    sums = torch.zeros(sectors.count + 1, chosen.shape[1], dtype=torch.float64).index_add_(0, membership + 1, chosen)
    means = sums / sizes.clamp_min(1.0)[:, None]
    return (chosen - means[membership + 1]).square().sum(dim=1)
