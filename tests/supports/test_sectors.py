"""Sectors: NumPy's brute force counts the same, and the largest threshold is the largest by trying the next float."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from latlas.base.errors import CodeShapeError, IllPosedError, SettingError
from latlas.supports.sectors import Sectors, largest_threshold, offsets

LATENT = 6


def cloud(n: int = 400, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Correlated codes off the origin: unevenly inhabited sectors."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.eye(LATENT) + 0.4 * torch.randn(LATENT, LATENT, generator=generator)
    return (torch.randn(n, LATENT, generator=generator) @ mixing + 0.3).to(dtype)


def brute_force(codes: Tensor, sectors: Sectors) -> list[int]:
    """Straight from the definition: every sector, every code, every variable."""
    centre = sectors.centre or (0.0,) * len(sectors.variables)
    found = []
    for code in codes.tolist():
        number = -1
        for sector, signs in enumerate(itertools.product((-1, 1), repeat=len(sectors.variables))):
            reversed_signs = signs[::-1]  # bit 0 is the first variable
            reach = [sign * (code[i] - c) for sign, i, c in zip(reversed_signs, sectors.variables, centre, strict=True)]
            if all(value > sectors.threshold for value in reach):
                assert number == -1
                number = sector
        found.append(number)
    return found


# Membership


@pytest.mark.parametrize("centre", [(), (0.3, -0.2, 0.1)])
@pytest.mark.parametrize("threshold", [0.0, 0.25, 1.0, 5.0])
def test_every_code_is_in_the_sector_that_the_definition_says(threshold: float, centre: tuple[float, ...]) -> None:
    codes = cloud(dtype=torch.float64)
    sectors = Sectors(variables=(4, 0, 2), threshold=threshold, centre=centre)
    expected = brute_force(codes, sectors)
    assert sectors.of(codes).tolist() == expected
    assert sectors.occupancy(codes).tolist() == [expected.count(sector) for sector in range(8)]


@given(codes=st.lists(st.lists(st.floats(-3, 3).filter(bool), min_size=3, max_size=3), min_size=1, max_size=30))
def test_sectors_at_threshold_0_cover_all_codes_without_a_zero(codes: list[list[float]]) -> None:
    rows = torch.tensor(codes, dtype=torch.float64)
    sectors = Sectors(variables=(2, 0, 1), threshold=0.0)
    assert int(sectors.of(rows).min()) >= 0
    assert int(sectors.occupancy(rows).sum()) == len(codes)


def test_membership_is_strict() -> None:
    """A code on the border lies in no sector: one whose directions all fit would otherwise lie in two."""
    codes = torch.tensor([[0.5, 0.5], [0.5, -0.5], [0.6, 0.0], [0.6, 0.6]])
    assert Sectors(variables=(0, 1), threshold=0.5).of(codes).tolist() == [-1, -1, -1, 3]
    assert Sectors(variables=(0, 1), threshold=0.0).of(codes).tolist() == [3, 1, -1, 3]


def test_directions_are_the_bits_of_the_sector() -> None:
    sectors = Sectors(variables=(5, 1, 3), threshold=0.1)
    assert sectors.count == 8
    assert sectors.directions(0) == (-1, -1, -1)
    assert sectors.directions(1) == (1, -1, -1)  # the first variable named, not the first of the latent space
    assert sectors.directions(6) == (-1, 1, 1)
    assert len({sectors.directions(sector) for sector in range(8)}) == 8


@pytest.mark.parametrize("sector", range(8))
def test_a_code_that_goes_in_a_sectors_directions_lies_in_it(sector: int) -> None:
    sectors = Sectors(variables=(5, 1, 3), threshold=0.1, centre=(2.0, -1.0, 0.5))
    code = torch.zeros(1, LATENT)
    for variable, middle, direction in zip(sectors.variables, sectors.centre, sectors.directions(sector), strict=True):
        code[0, variable] = middle + 0.2 * direction
    assert sectors.of(code).tolist() == [sector]


def test_about_a_centre_is_about_the_origin_of_shifted_codes() -> None:
    codes, centre = cloud(dtype=torch.float64), (0.5, -0.25)
    shifted = codes.clone()
    shifted[:, [3, 1]] -= torch.tensor(centre, dtype=torch.float64)
    about_centre = Sectors(variables=(3, 1), threshold=0.2, centre=centre)
    assert about_centre.of(codes).equal(Sectors(variables=(3, 1), threshold=0.2).of(shifted))


def test_empty_sectors_count_0() -> None:
    codes = cloud().abs() + 0.1
    occupancy = Sectors(variables=(0, 1), threshold=0.0).occupancy(codes)
    assert occupancy.tolist() == [0, 0, 0, 400]
    assert Sectors(variables=(0, 1), threshold=0.0).occupancy(codes[:0]).tolist() == [0, 0, 0, 0]


# The largest threshold


def inhabited(codes: Tensor, threshold: float, variables: tuple[int, ...], centre: tuple[float, ...]) -> list[bool]:
    return (Sectors(variables=variables, threshold=threshold, centre=centre).occupancy(codes) > 0).tolist()


def next_up(threshold: float, dtype: torch.dtype) -> float:
    value = torch.tensor(threshold, dtype=dtype)
    return float(torch.nextafter(value, torch.full_like(value, math.inf)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("centre", [(), (0.2, 0.3, 0.1)], ids=["origin", "centre"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_largest_threshold_keeps_every_sector_and_the_next_float_does_not(
    seed: int, centre: tuple[float, ...], dtype: torch.dtype
) -> None:
    codes, variables = cloud(120, seed=seed, dtype=dtype), (1, 4, 2)
    at_0 = inhabited(codes, 0.0, variables, centre)
    threshold = largest_threshold(codes, variables, centre)
    assert threshold > 0
    assert inhabited(codes, threshold, variables, centre) == at_0
    assert inhabited(codes, next_up(threshold, dtype), variables, centre) != at_0


@pytest.mark.parametrize("seed", range(5))
def test_the_largest_threshold_is_that_of_trying_them_all(seed: int) -> None:
    """Occupancy changes only where a code leaves: try each code's own reach, from the largest down."""
    codes, variables = cloud(60, seed=seed, dtype=torch.float64), (0, 3)
    at_0 = inhabited(codes, 0.0, variables, ())
    reaches = np.sort(np.abs(codes[:, list(variables)].numpy()).min(axis=1))[::-1]
    working = next(reach for reach in reaches if inhabited(codes, float(np.nextafter(reach, 0)), variables, ()) == at_0)
    assert largest_threshold(codes, variables) == np.nextafter(working, 0)


def test_sectors_that_nothing_inhabits_do_not_hold_the_threshold_at_0() -> None:
    codes = cloud().abs() + 1.0
    assert largest_threshold(codes, (0, 1)) > 1.0


def test_one_code_can_stand_at_its_very_end() -> None:
    codes = torch.tensor([[0.5, -2.0, 3.0]])
    assert largest_threshold(codes, (0, 1)) == pytest.approx(0.5, rel=1e-6)
    assert largest_threshold(codes, (0, 1)) < 0.5


# What can go wrong


def test_codes_that_lie_in_no_sector_have_no_threshold() -> None:
    for codes in (torch.zeros(5, 3), torch.zeros(0, 3)):
        with pytest.raises(IllPosedError, match=r"No code lies in any sector.*variables that are not constant"):
            largest_threshold(codes, (0, 1))
    with pytest.raises(IllPosedError, match="No code lies in any sector"):
        largest_threshold(torch.full((5, 3), 0.7), (0, 1), (0.7, 0.7))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"variables": (), "threshold": 0.0}, r"1 to 20 different variables, got \[\]"),
        ({"variables": (1, 1), "threshold": 0.0}, r"different variables, got \[1, 1\]"),
        ({"variables": tuple(range(21)), "threshold": 0.0}, "1 to 20 different variables"),
        ({"variables": (0,), "threshold": -0.1}, "threshold must be at least 0, got -0.1"),
        ({"variables": (0,), "threshold": math.nan}, "threshold must be at least 0, got nan"),
        ({"variables": (0, 1), "threshold": 0.0, "centre": (1.0,)}, "one value for each of the 2 variables, got 1"),
    ],
)
def test_sectors_that_make_no_sense_are_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        Sectors(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("codes", "variables"), [(torch.zeros(4, 3), (0, 3)), (torch.zeros(4, 3), (-1,)), (torch.zeros(4, 3, 2, 2), (0,))]
)
def test_codes_that_lack_a_variable_are_refused(codes: Tensor, variables: tuple[int, ...]) -> None:
    words = r"need vector codes that have them, got shape \(4, 3"
    with pytest.raises(CodeShapeError, match=words):
        offsets(codes, variables)
    with pytest.raises(CodeShapeError, match=words):
        largest_threshold(codes, variables)
    with pytest.raises(CodeShapeError, match=words):
        Sectors(variables=variables, threshold=0.0).of(codes)
