"""Sectors: the parts of a latent space beyond a threshold, in a chosen direction of each chosen variable."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from latlas.base.errors import CodeShapeError, IllPosedError, SettingError
from latlas.base.shapes import Codes

_MOST_VARIABLES = 20  # 2^20 sectors are more than any image set inhabits


@dataclass(frozen=True, kw_only=True)
class Sectors:
    """Every combination of directions of k variables: {z : direction_i * (z_i - centre_i) > threshold, all i}.

    The post on Support Sets takes the origin as the centre. Codes need not be centred there, whatever the prior says:
    about their mean the sectors are inhabited more evenly. Sector numbers are the directions read as bits: bit i is set where the i-th variable is positive.
    """

    variables: tuple[int, ...]  # most informative first
    threshold: float  # in units of the code itself, at least 0
    centre: tuple[float, ...] = ()  # one value a chosen variable; empty: the origin

    def __post_init__(self) -> None:
        if not 1 <= len(self.variables) <= _MOST_VARIABLES or len(set(self.variables)) != len(self.variables):
            raise SettingError(f"Sectors need 1 to {_MOST_VARIABLES} different variables, got {list(self.variables)}.")
        if not self.threshold >= 0.0:
            raise SettingError(f"A sector's threshold must be at least 0, got {self.threshold}.")
        if self.centre and len(self.centre) != len(self.variables):
            raise SettingError(
                f"A centre needs one value for each of the {len(self.variables)} variables, got {len(self.centre)}."
            )

    @property
    def count(self) -> int:
        """Number of sectors, inhabited or not."""
        return 1 << len(self.variables)

    def directions(self, sector: int) -> tuple[int, ...]:
        """Return +1 or -1 for each variable of a sector."""
        return tuple(1 if sector >> bit & 1 else -1 for bit in range(len(self.variables)))

    def of(self, codes: Codes) -> Int[Tensor, " n"]:
        """Return the sector of each code; -1 for codes within the threshold in some variable."""
        chosen = offsets(codes, self.variables, self.centre)
        bits = 1 << torch.arange(len(self.variables))
        sector = ((chosen > 0) * bits).sum(dim=1)
        return torch.where((chosen.abs() > self.threshold).all(dim=1), sector, -1)

    def occupancy(self, codes: Codes) -> Int[Tensor, " sectors"]:
        """Return how many codes lie in each sector."""
        sector = self.of(codes)
        return torch.bincount(sector[sector >= 0], minlength=self.count)


def largest_threshold(codes: Codes, variables: tuple[int, ...], centre: tuple[float, ...] = ()) -> float:
    """Return the largest threshold at which every sector that is inhabited at 0 still is.

    A code leaves its sector when the threshold reaches the smallest of its |z_i - centre_i|; a sector empties when its
    last code leaves. The answer is the smallest, over sectors, of the largest such value, less one rounding step,
    since membership is strict.

    Raises:
        IllPosedError: there are no codes, or all have a zero among the chosen variables.
    """
    sectors = Sectors(variables=variables, threshold=0.0, centre=centre)
    membership = sectors.of(codes)
    inside = membership >= 0
    if not bool(inside.any()):
        raise IllPosedError("No code lies in any sector: give codes of images, and variables that are not constant.")
    reach = offsets(codes, variables, centre).abs().amin(dim=1)
    last = torch.zeros(sectors.count, dtype=codes.dtype).scatter_reduce(0, membership[inside], reach[inside], reduce="amax")
    threshold = last[last > 0].amin()
    return float(torch.nextafter(threshold, torch.zeros_like(threshold)))


def offsets(codes: Codes, variables: tuple[int, ...], centre: tuple[float, ...] = ()) -> Float[Tensor, "n chosen"]:
    """Return the chosen variables of codes, measured from the centre.

    Raises:
        CodeShapeError: codes that lack a variable, or are no matrix.
    """
    if codes.ndim != 2 or max(variables) >= codes.shape[1] or min(variables) < 0:
        raise CodeShapeError(
            f"Sectors of variables {list(variables)} need vector codes that have them, got shape {tuple(codes.shape)}."
        )
    chosen = codes[:, list(variables)]
    return chosen - torch.tensor(centre, dtype=codes.dtype) if centre else chosen
