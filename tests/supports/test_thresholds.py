"""The curve over the threshold: counting at each threshold gives the same."""

import pytest
import torch

from latlas.base.errors import IllPosedError, SettingError
from latlas.supports.sectors import Sectors, largest_threshold
from latlas.supports.thresholds import threshold_curve


@pytest.mark.parametrize("scale", [(), (0.5, 1.5, 1.0)], ids=["code", "spread"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_point_is_what_counting_there_finds(dtype: torch.dtype, scale: tuple[float, ...]) -> None:
    codes = torch.randn(150, 4, generator=torch.Generator().manual_seed(2)).to(dtype)
    variables, centre = (3, 0, 1), (0.2, -0.1, 0.0)
    curve = threshold_curve(codes, variables, centre, scale, steps=40)
    assert (len(curve.thresholds), curve.thresholds[0], curve.sectors, curve.codes) == (41, 0.0, 8, 150)
    for threshold, inhabited, inside in zip(curve.thresholds, curve.inhabited, curve.inside, strict=True):
        sectors = Sectors(variables=variables, threshold=threshold, centre=centre, scale=scale)
        occupancy = sectors.occupancy(codes)
        assert (inhabited, inside) == (int((occupancy > 0).sum()), int(occupancy.sum()))
    assert curve.inhabited[-1] == curve.inside[-1] == 0
    largest = largest_threshold(codes, variables, centre, scale)
    whole = [
        threshold for threshold, count in zip(curve.thresholds, curve.inhabited, strict=True) if count == curve.inhabited[0]
    ]
    assert max(whole) <= largest < curve.thresholds[len(whole)]


def test_codes_without_sectors_and_curves_without_steps_are_refused() -> None:
    with pytest.raises(IllPosedError, match="No code lies in any sector"):
        threshold_curve(torch.zeros(5, 2), (0, 1))
    with pytest.raises(SettingError, match="at least 1 step, got 0"):
        threshold_curve(torch.ones(5, 2), (0, 1), steps=0)
