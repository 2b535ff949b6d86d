"""Measures at the fewest rows that they are defined for, and mistakes that must not pass in silence."""

import math

import pytest
import torch
from torch import Tensor

from latlas.base.errors import CodeShapeError, IllPosedError
from latlas.measurements.directions import METHODS, find_direction
from latlas.measurements.distances import frechet_distance
from latlas.measurements.neighbours import precision_recall_density_coverage


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("images", "groups"), [(4, 2), (5, 2), (1000, 2), (3, 3), (4, 3), (3, 10)])
def test_a_frechet_distance_has_its_error_from_any_groups_that_leave_two_images(images: int, groups: int) -> None:
    found = frechet_distance(normal(images, 2), normal(images, 2, seed=1), resamples=groups)
    assert found.resamples == min(images, groups)
    assert found.standard_error is not None
    assert math.isfinite(found.standard_error)
    assert found.standard_error > 0


@pytest.mark.parametrize(("images", "groups", "fewest"), [(3, 2, 4), (2, 2, 4), (2, 3, 3), (1, 10, 3), (0, 10, 3)])
def test_fewer_are_refused_with_the_number_that_would_do(images: int, groups: int, fewest: int) -> None:
    with pytest.raises(IllPosedError, match=rf"at least {fewest} images of each set, got {images} and 50"):
        frechet_distance(normal(images, 2), normal(50, 2), resamples=groups)
    frechet_distance(normal(fewest, 2), normal(50, 2), resamples=groups)


@pytest.mark.parametrize(
    ("k", "name"), [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (13, "13th"), (22, "22nd")]
)
def test_a_neighbour_that_is_not_there_is_named_and_the_cure_told(k: int, name: str) -> None:
    rows = normal(k, 2)
    with pytest.raises(
        IllPosedError, match=rf"^The {name} neighbour needs sets of at least {k + 1} images.* or a smaller k\.$"
    ):
        precision_recall_density_coverage(rows, rows, k=k)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e6 / 7])
def test_codes_that_differ_by_the_rounding_of_their_means_have_no_direction(method: str, value: float) -> None:
    """Means of ten and of three copies of a tenth are not the same number."""
    codes = torch.full((13, 4), value, dtype=torch.float64)
    with pytest.raises(IllPosedError, match="there is no direction"):
        find_direction(codes, torch.arange(13) < 3, method=method)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_a_direction_is_found_in_any_units_about_any_origin(method: str, unit: float, offset: float) -> None:
    codes, has = normal(80, 3), torch.arange(80) % 2 == 0
    codes[has, 1] += 1.5
    plain = find_direction(codes, has, method=method)
    found = find_direction((codes + offset) * unit, has, method=method)
    assert float(found.vector @ plain.vector) == pytest.approx(1.0, abs=1e-6)
    assert found.spread == pytest.approx(unit * plain.spread, rel=1e-6)
    assert found.tells((codes + offset) * unit).tolist() == plain.tells(codes).tolist()


def test_numbers_in_place_of_truth_values_are_refused_since_they_would_choose_rows() -> None:
    codes, has = normal(20, 3), torch.arange(20) % 2 == 0
    with pytest.raises(CodeShapeError, match=r"truth values; got torch\.int64 of shape \(20,\).*has == 1"):
        find_direction(codes, has.long())
    with pytest.raises(CodeShapeError, match=r"each of 20 images.*torch\.bool of shape \(19,\)"):
        find_direction(codes, has[:19])
    assert find_direction(codes, has.long() == 1).vector.tolist() == find_direction(codes, has).vector.tolist()
