"""How many sectors are inhabited, and how many codes lie in any, as the threshold grows."""

from dataclasses import dataclass
from typing import Any

import torch

from latlas.base.errors import IllPosedError, SettingError
from latlas.base.records import plain
from latlas.base.shapes import Codes
from latlas.supports.sectors import last_inhabited, offsets


@dataclass(frozen=True, kw_only=True)
class ThresholdCurve:
    """Two counts at each threshold; exact, not sampled: only the grid is a choice."""

    thresholds: tuple[float, ...]  # ascending from 0, in the units of the sectors
    inhabited: tuple[int, ...]  # sectors that hold a code
    inside: tuple[int, ...]  # codes that lie in some sector
    sectors: int
    codes: int

    def to_json(self) -> dict[str, Any]:
        """Return every number."""
        record: dict[str, Any] = plain(self)
        return record


def threshold_curve(
    codes: Codes,
    variables: tuple[int, ...],
    centre: tuple[float, ...] = (),
    scale: tuple[float, ...] = (),
    *,
    steps: int = 100,
) -> ThresholdCurve:
    """Return how many sectors are inhabited at thresholds from 0 to the one at which the last is empty.

    Args:
        codes: of a data set.
        variables: of the sectors.
        centre: measured from here; empty: the origin.
        scale: units of the threshold; empty: the code's own.
        steps: equal ones.

    Raises:
        SettingError: no steps.
        IllPosedError: no code lies in any sector.
    """
    if steps < 1:
        raise SettingError(f"A curve needs at least 1 step, got {steps}.")
    last = last_inhabited(codes, variables, centre, scale)
    if not bool((last > 0).any()):
        raise IllPosedError("No code lies in any sector: give codes of images, and variables that are not constant.")
    reach = offsets(codes, variables, centre, scale).abs().amin(dim=1)
    grid = torch.linspace(0.0, 1.0, steps + 1, dtype=codes.dtype) * last.max()
    counts = [len(values) - torch.searchsorted(values.sort().values, grid, right=True) for values in (last, reach)]
    return ThresholdCurve(
        thresholds=tuple(grid.tolist()),
        inhabited=tuple(counts[0].tolist()),
        inside=tuple(counts[1].tolist()),
        sectors=len(last),
        codes=len(codes),
    )
