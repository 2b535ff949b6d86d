"""Which images stand for which sectors."""

import torch
from torch import Tensor

from latlas.base.shapes import Codes
from latlas.supports.sectors import Sectors


def one_per_sector(codes: Codes, sectors: Sectors, *, at_least: int, generator: torch.Generator) -> Tensor:
    """Return the indices of one random code of every inhabited sector, in the order of the sectors.

    Where that gives fewer than `at_least`, it is topped up with random codes from the most crowded sectors, one each,
    round after round. Never more than there are codes in sectors.
    """
    membership = sectors.of(codes)
    shuffled = torch.randperm(len(codes), generator=generator)
    inhabited: list[int] = [sector for sector in torch.unique(membership).tolist() if sector >= 0]
    # Within a sector the first of a shuffled order is a uniform choice, and the second a uniform choice of the rest.
    waiting = {sector: shuffled[membership[shuffled] == sector].tolist() for sector in inhabited}
    chosen = [members.pop(0) for _, members in sorted(waiting.items())]
    crowded = sorted(waiting, key=lambda sector: (-len(waiting[sector]), sector))
    while len(chosen) < at_least and any(waiting.values()):
        for sector in crowded:
            if waiting[sector] and len(chosen) < at_least:
                chosen.append(waiting[sector].pop(0))
    return torch.tensor(chosen, dtype=torch.int64)
