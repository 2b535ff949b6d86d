"""Sectors as values: NumPy's masks say the same, and intersection keeps the laws of intersections."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from latlas.base.errors import CodeShapeError, SettingError
from latlas.supports.sectors import HalfSpace, Sector, Sectors, beyond, largest_threshold

some_sectors = st.tuples(
    st.integers(0, 1),
    st.sampled_from([-0.5, 0.0, 0.3, 1.0]),
    st.sampled_from([-1, 1]),
    st.sampled_from([0.0, 0.2]),
    st.sampled_from([1.0, 0.5]),
)
Parts = tuple[int, float, int, float, float]


def cloud(n: int = 200, d: int = 4, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("direction", [-1, 1])
def test_a_half_space_holds_what_lies_beyond_its_threshold(direction: int) -> None:
    codes = cloud().double()
    sector = beyond(2, 0.4, direction, centre=0.1, scale=0.5)
    expected = direction * (codes[:, 2].numpy() - 0.1) / 0.5 > 0.4
    assert sector.contains(codes).numpy().tolist() == expected.tolist()
    assert sector.members(codes).tolist() == np.flatnonzero(expected).tolist()
    assert sector.occupancy(codes) == pytest.approx(expected.mean())


def test_a_threshold_below_0_takes_the_centre_in() -> None:
    assert beyond(0, -0.1, 1).contains(torch.zeros(1, 2)).tolist() == [True]
    assert beyond(0, 0.0, 1).contains(torch.zeros(1, 2)).tolist() == [False]


@given(parts=st.tuples(some_sectors, some_sectors, some_sectors))
def test_intersections_hold_what_all_their_parts_hold_in_any_order(parts: tuple[Parts, Parts, Parts]) -> None:
    codes = cloud(60, 2)
    first, second, third = (beyond(*part[:3], centre=part[3], scale=part[4]) for part in parts)
    both = first & second
    assert both.contains(codes).equal(first.contains(codes) & second.contains(codes))
    assert both == second & first
    assert (first & second) & third == first & (second & third)
    assert first & first == first
    assert first & Sector() == first
    assert len({both, second & first}) == 1  # fit for a set or a dictionary


def test_of_two_thresholds_in_one_direction_the_stricter_is_kept() -> None:
    assert beyond(1, 0.2, 1) & beyond(1, 0.7, 1) == beyond(1, 0.7, 1)
    between = beyond(1, 0.2, 1) & beyond(1, -0.7, -1)  # 0.2 < z < 0.7
    assert between.contains(torch.tensor([[0.0, 0.1], [0.0, 0.5], [0.0, 0.8]])).tolist() == [False, True, False]


def test_the_whole_space_holds_everything_and_no_codes_have_no_share() -> None:
    assert Sector().occupancy(cloud()) == 1.0
    assert np.isnan(beyond(0, 0.0, 1).occupancy(cloud(0)))


@pytest.mark.parametrize("scale", [(), (0.3, 1.7, 0.9)], ids=["code", "spread"])
@pytest.mark.parametrize("centre", [(), (0.3, -0.2, 0.1)], ids=["origin", "centre"])
def test_the_sectors_of_a_table_are_the_values_that_it_gives(centre: tuple[float, ...], scale: tuple[float, ...]) -> None:
    """To the last bit, at the largest threshold too, where a rounding step would lose a member."""
    codes, variables = cloud(300, 5), (4, 0, 2)
    level = largest_threshold(codes, variables, centre, scale)
    table = Sectors(variables=variables, threshold=level, centre=centre, scale=scale)
    numbers = table.of(codes)
    for number in range(table.count):
        assert table.sector(number).contains(codes).equal(numbers == number)
        assert len(table.sector(number).half_spaces) == 3
    assert [int((numbers == number).sum()) for number in range(8)] == table.occupancy(codes).tolist()


def test_a_threshold_in_units_of_spread_is_one_of_codes_divided_by_it() -> None:
    codes, scale = cloud(300, 3).double(), (0.4, 2.0)
    divided = codes.clone()
    divided[:, [2, 0]] /= torch.tensor(scale, dtype=torch.float64)
    table = Sectors(variables=(2, 0), threshold=0.5, scale=scale)
    assert table.of(codes).equal(Sectors(variables=(2, 0), threshold=0.5).of(divided))
    assert table.thresholds == (0.2, 1.0)
    assert Sectors(variables=(2, 0), threshold=0.5).thresholds == (0.5, 0.5)


def test_the_unit_of_one_variable_moves_its_own_border_alone() -> None:
    codes = torch.tensor(list(itertools.product((-1.0, -0.3, 0.3, 1.0), repeat=2)))
    narrow = Sectors(variables=(0, 1), threshold=0.5, scale=(1.0, 0.1)).of(codes)
    assert (narrow >= 0).tolist() == (codes[:, 0].abs() == 1.0).tolist()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"variable": -1, "threshold": 0.0, "direction": 1}, "from 0 on, got -1"),
        ({"variable": 0, "threshold": 0.0, "direction": 0}, "A direction is 1 or -1, got 0"),
        ({"variable": 0, "threshold": float("nan"), "direction": 1}, "must be numbers, got nan"),
        ({"variable": 0, "threshold": 0.0, "direction": 1, "centre": float("inf")}, "must be numbers, got 0.0 and inf"),
        ({"variable": 0, "threshold": 0.0, "direction": 1, "scale": 0.0}, "must be above 0, got 0.0"),
    ],
)
def test_half_spaces_that_make_no_sense_are_refused(settings: dict[str, float], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        HalfSpace(**settings)  # type: ignore[arg-type]


def test_scales_and_numbers_that_make_no_sense_are_refused() -> None:
    with pytest.raises(SettingError, match="A scale needs one value for each of the 2 variables, got 1"):
        Sectors(variables=(0, 1), threshold=0.0, scale=(1.0,))
    with pytest.raises(SettingError, match="must be above 0"):
        Sectors(variables=(0, 1), threshold=0.0, scale=(1.0, 0.0))
    with pytest.raises(SettingError, match="numbered 0 to 3, got 4"):
        Sectors(variables=(0, 1), threshold=0.0).sector(4)
    with pytest.raises(CodeShapeError, match="need vector codes that have them"):
        beyond(4, 0.0, 1).contains(cloud())
