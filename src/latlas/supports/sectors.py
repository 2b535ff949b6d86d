"""Sectors: the parts of a latent space beyond a threshold, in a chosen direction of each chosen variable."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from latlas.base.errors import CodeShapeError, IllPosedError, SettingError
from latlas.base.shapes import Codes
from latlas.encodings.mapped import batches

_MOST_VARIABLES = 20  # 2^20 sectors are more than any image set inhabits
_ROWS = 16_384  # codes read at a time


@dataclass(frozen=True, kw_only=True)
class HalfSpace:
    """{z : direction * (z_variable - centre) / scale > threshold}."""

    variable: int
    threshold: float
    direction: int  # +1 or -1
    centre: float = 0.0
    scale: float = 1.0  # what the threshold is counted in: 1 is the unit of the code itself

    def __post_init__(self) -> None:
        if self.variable < 0:
            raise SettingError(f"A variable is a number from 0 on, got {self.variable}.")
        if self.direction not in (-1, 1):
            raise SettingError(f"A direction is 1 or -1, got {self.direction}.")
        if not (math.isfinite(self.threshold) and math.isfinite(self.centre)):
            raise SettingError(f"A threshold and a centre must be numbers, got {self.threshold} and {self.centre}.")
        if not 0.0 < self.scale < math.inf:
            raise SettingError(f"The unit of a threshold must be above 0, got {self.scale}.")

    def contains(self, codes: Codes) -> Bool[Tensor, " n"]:
        """Tell of each code whether it lies beyond the threshold."""
        reach = offsets(codes, (self.variable,), (self.centre,), (self.scale,))[:, 0] * self.direction
        return reach > self.threshold


@dataclass(frozen=True)
class Sector:
    """An intersection of half-spaces: `beyond(3, 0.5, 1) & beyond(7, 0.5, -1)`; of none, the whole space.

    Two sectors that were put together from the same half-spaces are equal, whatever the order.
    """

    half_spaces: tuple[HalfSpace, ...] = ()

    def __post_init__(self) -> None:
        strictest: dict[tuple[int, int, float, float], HalfSpace] = {}
        for half in self.half_spaces:
            key = (half.variable, half.direction, half.centre, half.scale)
            if key not in strictest or half.threshold > strictest[key].threshold:
                strictest[key] = half
        object.__setattr__(self, "half_spaces", tuple(strictest[key] for key in sorted(strictest)))

    def __and__(self, other: "Sector") -> "Sector":
        return Sector(self.half_spaces + other.half_spaces)

    def contains(self, codes: Codes) -> Bool[Tensor, " n"]:
        """Tell of each code whether it lies in the sector.

        Raises:
            CodeShapeError: codes that lack a variable, or are no matrix.
        """
        inside = torch.ones(codes.shape[0], dtype=torch.bool)
        for half in self.half_spaces:
            inside &= half.contains(codes)
        return inside

    def members(self, codes: Codes) -> Int[Tensor, " members"]:
        """Return the indices of the codes in the sector, ascending."""
        return self.contains(codes).nonzero().flatten()

    def occupancy(self, codes: Codes) -> float:
        """Return the share of codes that lie in the sector; NaN of no codes."""
        return float(self.contains(codes).double().mean())


def beyond(variable: int, threshold: float, direction: int, *, centre: float = 0.0, scale: float = 1.0) -> Sector:
    """Return {z : direction * (z_variable - centre) / scale > threshold}; `&` intersects such sectors.

    Args:
        variable: of the latent space, from 0 on.
        threshold: in units of `scale`; below 0 the centre itself lies inside.
        direction: 1 or -1.
        centre: measured from here.
        scale: 1, or for example the standard deviation of the variable over a data set.

    Raises:
        SettingError: no such direction, or a threshold, centre or scale that is no number.
    """
    return Sector((HalfSpace(variable=variable, threshold=float(threshold), direction=direction, centre=centre, scale=scale),))


@dataclass(frozen=True, kw_only=True)
class Sectors:
    """Every combination of directions of k variables: {z : direction_i * (z_i - centre_i) > threshold * scale_i, all i}.

    The post on Support Sets takes the origin as the centre. Codes need not be centred there, whatever the prior says:
    about their mean the sectors are inhabited more evenly. Sector numbers are the directions read as bits: bit i is set where the i-th variable is positive.
    """

    variables: tuple[int, ...]  # most informative first
    threshold: float  # in units of the scale, at least 0
    centre: tuple[float, ...] = ()  # one value a chosen variable; empty: the origin
    scale: tuple[float, ...] = ()  # the unit of the threshold, one a chosen variable; empty: the code's own

    def __post_init__(self) -> None:
        if not 1 <= len(self.variables) <= _MOST_VARIABLES or len(set(self.variables)) != len(self.variables):
            raise SettingError(f"Sectors need 1 to {_MOST_VARIABLES} different variables, got {list(self.variables)}.")
        if not 0.0 <= self.threshold < math.inf:
            raise SettingError(f"A sector's threshold must be at least 0, got {self.threshold}. Give a finite number.")
        if self.centre and len(self.centre) != len(self.variables):
            raise SettingError(
                f"A centre needs one value for each of the {len(self.variables)} variables, got {len(self.centre)}."
            )
        if not all(map(math.isfinite, self.centre)):
            raise SettingError(f"A centre must be finite, got {list(self.centre)}.")
        if self.scale and len(self.scale) != len(self.variables):
            raise SettingError(
                f"A scale needs one value for each of the {len(self.variables)} variables, got {len(self.scale)}."
            )
        if not all(0.0 < unit < math.inf for unit in self.scale):
            raise SettingError(f"The unit of a threshold must be above 0, got {list(self.scale)}.")

    @property
    def count(self) -> int:
        """Number of sectors, inhabited or not."""
        return 1 << len(self.variables)

    @property
    def thresholds(self) -> tuple[float, ...]:
        """The threshold of each variable, in units of the code itself."""
        return tuple(self.threshold * unit for unit in self.scale or (1.0,) * len(self.variables))

    def directions(self, sector: int) -> tuple[int, ...]:
        """Return +1 or -1 for each variable of a sector."""
        return tuple(1 if sector >> bit & 1 else -1 for bit in range(len(self.variables)))

    def sector(self, number: int) -> Sector:
        """Return one of them as a value of its own, with the same members.

        Raises:
            SettingError: no such number.
        """
        if not 0 <= number < self.count:
            raise SettingError(f"Sectors of {len(self.variables)} variables are numbered 0 to {self.count - 1}, got {number}.")
        ones = (1.0,) * len(self.variables)
        middles, units = self.centre or tuple(0.0 for _ in ones), self.scale or ones
        parts = zip(self.variables, self.directions(number), middles, units, strict=True)
        return Sector(
            tuple(
                HalfSpace(variable=variable, threshold=self.threshold, direction=direction, centre=middle, scale=unit)
                for variable, direction, middle, unit in parts
            )
        )

    def of(self, codes: Codes) -> Int[Tensor, " n"]:
        """Return the sector of each code; -1 for codes within the threshold in some variable."""
        chosen = offsets(codes, self.variables, self.centre, self.scale)
        bits = 1 << torch.arange(len(self.variables))
        sector = ((chosen > 0) * bits).sum(dim=1)
        return torch.where((chosen.abs() > self.threshold).all(dim=1), sector, -1)

    def occupancy(self, codes: Codes) -> Int[Tensor, " sectors"]:
        """Return how many codes lie in each sector."""
        sector = self.of(codes)
        return torch.bincount(sector[sector >= 0], minlength=self.count)


def last_inhabited(
    codes: Codes, variables: tuple[int, ...], centre: tuple[float, ...] = (), scale: tuple[float, ...] = ()
) -> Float[Tensor, " sectors"]:
    """Return for each sector the threshold at which its last code leaves; 0 for a sector that is empty at 0.

    A code leaves its sector when the threshold reaches the smallest of its |z_i - centre_i| / scale_i. Membership is
    strict: at that very threshold the sector is empty.
    """
    sectors = Sectors(variables=variables, threshold=0.0, centre=centre, scale=scale)
    membership = sectors.of(codes)
    inside = membership >= 0
    reach = offsets(codes, variables, centre, scale).abs().amin(dim=1)
    empty = torch.zeros(sectors.count, dtype=codes.dtype)
    return empty.scatter_reduce(0, membership[inside], reach[inside], reduce="amax")


def largest_threshold(
    codes: Codes, variables: tuple[int, ...], centre: tuple[float, ...] = (), scale: tuple[float, ...] = ()
) -> float:
    """Return the largest threshold at which every sector that is inhabited at 0 still is.

    The smallest, over sectors, of the threshold at which the last code leaves, less one rounding step, since membership
    is strict.

    Raises:
        IllPosedError: there are no codes, or all have a zero among the chosen variables.
    """
    last = last_inhabited(codes, variables, centre, scale)
    if not bool((last > 0).any()):
        raise IllPosedError("No code lies in any sector: give codes of images, and variables that are not constant.")
    threshold = last[last > 0].amin()
    return float(torch.nextafter(threshold, torch.zeros_like(threshold)))


def offsets(
    codes: Codes, variables: tuple[int, ...], centre: tuple[float, ...] = (), scale: tuple[float, ...] = ()
) -> Float[Tensor, "n chosen"]:
    """Return the chosen variables of codes, measured from the centre, in units of the scale.

    Raises:
        CodeShapeError: codes that lack a variable, or are no matrix.
    """
    chosen = columns(codes, variables)
    if centre:
        chosen = chosen - torch.tensor(centre, dtype=codes.dtype)
    return chosen / torch.tensor(scale, dtype=codes.dtype) if scale else chosen


def columns(codes: Codes, variables: Sequence[int]) -> Float[Tensor, "n chosen"]:
    """Return some variables of codes, on the CPU; of codes that stay on disk, nothing else is kept in memory.

    Raises:
        CodeShapeError: codes that lack a variable, or are no matrix.
    """
    if codes.ndim != 2 or max(variables) >= codes.shape[1] or min(variables) < 0:
        raise CodeShapeError(
            f"Sectors of variables {list(variables)} need vector codes that have them, got shape {tuple(codes.shape)}."
        )
    # A batch of mapped codes is let go once the next one is asked for: indexing copies what is wanted of it.
    parts = [part[:, list(variables)].cpu() for part in batches(codes, _ROWS)]
    return parts[0] if len(parts) == 1 else torch.cat(parts) if parts else codes[:, list(variables)].cpu()
