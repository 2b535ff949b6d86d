"""How unevenly the sectors are inhabited, against what is expected of them, with a test."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float64, Int
from torch import Tensor

from latlas.base.errors import IllPosedError, SettingError, unknown_name
from latlas.base.records import plain
from latlas.base.seeds import derived_seed

Null = Literal["uniform", "independence", "gaussian"]
NULLS: tuple[Null, ...] = ("uniform", "independence", "gaussian")
_ENOUGH = 5.0  # expected codes a sector from which the chi-square distribution serves: Cochran's rule
_DRAWS = 2_000  # simulated tables where it does not
_TABLE = 2**22  # counts simulated at a time


@dataclass(frozen=True, kw_only=True, eq=False)
class Unevenness:
    """Pearson's chi-square of the codes in sectors, given how many lie in any, against one expectation.

    The effect is Cohen's w (1988, chapter 7): by what share of the codes expected of it a sector is off, root mean square, each
    sector weighted by those codes. Two variables held against independence have Cramér's V, from 0 to 1. More have no such bound: a
    single code in the sector opposite to all others lies the farther from independence the more others there are.
    """

    against: Null
    expected: Float64[Tensor, " sectors"]  # codes in each; they sum to the codes that lie in sectors
    statistic: float
    freedom: int  # degrees of it
    p_value: float  # NaN where nothing is left to vary
    simulated: bool  # whether by simulated tables: some sector expects fewer than 5 codes
    effect: float  # Cohen's w, sqrt(chi-square / codes): 0 as expected, at most sqrt(1 / smallest expected share - 1)
    entropy: float  # of the shares found, over that of even ones: 1 if even; NaN of a single sector

    def to_json(self) -> dict[str, Any]:
        """Return every number."""
        record: dict[str, Any] = plain(self)
        return record


def unevenness(
    occupancy: Int[Tensor, " sectors"],
    against: Null,
    *,
    probability: Float64[Tensor, " sectors"] | None = None,
    seed: int = 0,
) -> Unevenness:
    """Test how many codes lie in each sector against an expectation, given how many lie in any.

    Where some sector expects fewer than 5 codes, the p-value is that of 2,000 simulated tables instead of the chi-square
    distribution's: (1 + tables at least as uneven) / (1 + tables).

    Args:
        occupancy: codes in each of 2^k sectors, numbered as `Sectors` does.
        against: "uniform" (all sectors alike);
            "independence" (the product of the shares on each side of every variable, among the codes in sectors; simulated tables
            get shares of their own, as the table found does);
            "gaussian" (`probability`; as that was fitted to the same codes, the p-value is on the large side).
        probability: of each sector under the Gaussian; they need not sum to 1.
        seed: of simulated tables.

    Raises:
        UnknownNameError: no such expectation.
        SettingError: a Gaussian without its probabilities, or other probabilities than one a sector.
        IllPosedError: no code lies in any sector, or a number of sectors that is no power of 2.
    """
    if against not in NULLS:
        raise unknown_name("expectation", against, NULLS)
    cells, total = len(occupancy), int(occupancy.sum())
    if total == 0 or cells < 2 or cells & (cells - 1):
        raise IllPosedError(
            f"{total} codes in {cells} sectors cannot be uneven: give codes that lie in some of 2, 4, 8, ... sectors."
        )
    found = occupancy.double()
    if against == "gaussian":
        if probability is None or tuple(probability.shape) != (cells,) or not bool((probability >= 0).all()):
            raise SettingError(f"The Gaussian's expectation needs one probability, at least 0, for each of {cells} sectors.")
        if not float(probability.sum()) > 0:
            raise IllPosedError("The Gaussian gives no sector any probability. Lower the threshold.")
        expected = probability / probability.sum() * total
        freedom = int((expected > 0).sum()) - 1
    elif against == "independence":
        expected = independent(found[None])[0]
        # Of each variable that has both sides, one share was taken from the table itself.
        varying = int((expected > 0).sum()).bit_length() - 1
        freedom = (1 << varying) - 1 - varying
    else:
        expected = torch.full((cells,), total / cells, dtype=torch.float64)
        freedom = cells - 1
    statistic = float(_chi_square(found[None], expected[None])[0])
    shares = found[found > 0] / total
    simulated = bool((expected[expected > 0] < _ENOUGH).any())
    return Unevenness(
        against=against,
        expected=expected,
        statistic=statistic,
        freedom=freedom,
        p_value=_p_value(statistic, expected, freedom, total, against=against, simulated=simulated, seed=seed),
        simulated=simulated,
        effect=(statistic / total) ** 0.5,
        entropy=float(-(shares * shares.log()).sum() / torch.tensor(float(cells)).log()),
    )


def independent(tables: Float64[Tensor, "tables sectors"]) -> Float64[Tensor, "tables sectors"]:
    """Return what each table would be if the sides of its variables were independent, with the shares that it has."""
    cells = tables.shape[1]
    totals = tables.sum(dim=1, keepdim=True)
    expected = totals.expand(-1, cells).clone()
    for bit in range(cells.bit_length() - 1):
        upper = (torch.arange(cells) >> bit & 1).bool()
        share = tables[:, upper].sum(dim=1, keepdim=True) / totals
        expected *= torch.where(upper, share, 1.0 - share)
    return expected


def _chi_square(
    found: Float64[Tensor, "tables sectors"], expected: Float64[Tensor, "some sectors"]
) -> Float64[Tensor, " tables"]:
    # A sector that can hold nothing and holds nothing adds nothing; one that holds something contradicts the expectation.
    surprise = torch.where(found > 0, torch.inf, 0.0)
    return torch.where(expected > 0, (found - expected).square() / expected, surprise).sum(dim=1)


def _p_value(
    statistic: float,
    expected: Float64[Tensor, " sectors"],
    freedom: int,
    total: int,
    *,
    against: Null,
    simulated: bool,
    seed: int,
) -> float:
    import numpy as np
    from scipy import stats

    if freedom == 0:
        return float("nan")
    if not simulated:
        return float(stats.chi2.sf(statistic, freedom))
    chance = np.random.default_rng(derived_seed(seed, "tables of sectors", against))
    shares = (expected / expected.sum()).numpy()
    at_once = max(1, _TABLE // len(expected))
    beyond = 0
    for start in range(0, _DRAWS, at_once):
        tables = torch.from_numpy(chance.multinomial(total, shares, size=min(at_once, _DRAWS - start))).double()
        others = independent(tables) if against == "independence" else expected[None]
        beyond += int((_chi_square(tables, others) >= statistic * (1 - 1e-12)).sum())
    return (1 + beyond) / (1 + _DRAWS)
