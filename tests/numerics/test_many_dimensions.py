"""The shape of clouds of many dimensions: against mpmath where SciPy's series overflows, and told where it has no answer."""

import math
import warnings

import mpmath
import numpy as np
import pytest
import torch

from latlas.base.errors import SettingError
from latlas.numerics.normality import empty_share, energy_coefficient


def expected_distance(squared: float, size: int) -> float:
    """E|a - z| for |a|^2 as given: the mean of a non-central chi law, with forty digits."""
    with mpmath.workdps(40):
        half = mpmath.mpf(size) / 2
        at_zero = mpmath.sqrt(2) * mpmath.gamma(half + mpmath.mpf(1) / 2) / mpmath.gamma(half)
        return float(at_zero * mpmath.hyp1f1(-0.5, half, -mpmath.mpf(squared) / 2))


@pytest.mark.parametrize("size", [2, 64, 100, 128, 256, 512, 1000])
def test_the_coefficient_of_two_points_is_that_of_their_expected_distances(size: int) -> None:
    """At a tenth to four times the typical distance of a normal point; from 100 dimensions on SciPy's series overflows on the way."""
    for share in (0.1, 0.4, 0.8, 1.0, 1.5, 4.0):
        points = torch.zeros(2, size, dtype=torch.float64)
        points[0, 0], points[1, 0] = math.sqrt(share * size), -math.sqrt(share * size)
        to_normals = expected_distance(share * size, size)
        between_normals = math.sqrt(2) * expected_distance(0.0, size)
        wanted = (2 * to_normals - 2 * math.sqrt(share * size) - between_normals) / (2 * to_normals)
        assert energy_coefficient(points) == pytest.approx(wanted, rel=1e-10, abs=1e-12), share


@pytest.mark.parametrize("size", [100, 256, 512])
def test_a_normal_cloud_of_many_dimensions_has_a_coefficient_near_0(size: int, generator: torch.Generator) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = energy_coefficient(torch.randn(300, size, generator=generator))
    assert abs(found) < 1e-3


def test_cells_of_many_dimensions_are_counted_while_they_can_be_and_else_refused() -> None:
    points = torch.zeros(30, 20)
    assert empty_share(points) == pytest.approx(1 - 2.0**-20)
    with pytest.raises(SettingError, match=r"40 dimensions cut into 2 have 2\^40 cells.*Take fewer variables"):
        empty_share(torch.zeros(30, 40))
    with pytest.raises(SettingError, match=r"64 dimensions"):  # 2^64 overflows a count of cells
        empty_share(torch.zeros(30, 64))
    with pytest.raises(SettingError, match="at most 16,777,216 are counted"):
        empty_share(torch.zeros(30, 3), side=300)
    assert np.isclose(empty_share(torch.zeros(30, 2), side=300), 1 - 1 / 300**2)
