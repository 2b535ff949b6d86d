"""Choices that no offset and no unit of the codes may change, and sectors that cannot be."""

import math

import pytest
import torch

from latlas.base.errors import SettingError
from latlas.supports.sectors import Sectors
from latlas.supports.selectors import SELECTORS, select

INVARIANT = [kind for kind in SELECTORS if kind != "random"]


@pytest.mark.parametrize("kind", INVARIANT)
@pytest.mark.parametrize("offset", [1e4, 1e8])
def test_codes_far_from_the_origin_are_chosen_as_the_same_codes_about_it(
    kind: str, offset: float, generator: torch.Generator
) -> None:
    """In steps of 2^-20, so that an offset costs no digit of float64: in float32 it would cost all of them."""
    codes = (torch.randn(200, 4, generator=generator, dtype=torch.float64) * 2**20).round() / 2**20
    assert sorted(select(kind, codes + offset, 9).tolist()) == sorted(select(kind, codes, 9).tolist())


@pytest.mark.parametrize("kind", INVARIANT)
@pytest.mark.parametrize("power", [-20, 20, 60])
def test_codes_in_other_units_are_chosen_as_before(kind: str, power: int, generator: torch.Generator) -> None:
    """Powers of 2 change no digit."""
    codes = torch.randn(200, 4, generator=generator, dtype=torch.float64)
    assert select(kind, codes * 2.0**power, 9).tolist() == select(kind, codes, 9).tolist()


@pytest.mark.parametrize("threshold", [math.inf, math.nan, -1.0])
def test_a_threshold_that_no_code_could_pass_is_refused(threshold: float) -> None:
    with pytest.raises(SettingError, match=r"at least 0, got .* Give a finite number"):
        Sectors(variables=(0, 1), threshold=threshold)


@pytest.mark.parametrize("centre", [math.inf, math.nan])
def test_a_centre_that_is_no_place_is_refused(centre: float) -> None:
    with pytest.raises(SettingError, match="A centre must be finite"):
        Sectors(variables=(0, 1), threshold=0.0, centre=(0.0, centre))
