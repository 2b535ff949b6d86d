"""What a map cannot give back is told, maps of different models do not join, and whole numbers are not cut off."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from latlas.base.errors import CodeShapeError, NonFiniteError
from latlas.maps.fit import fit_map
from latlas.maps.linear import LinearMap
from latlas.maps.perceptron import PerceptronSettings, fit_perceptron
from latlas.maps.spatial import fit_spatial_map
from latlas.maps.spatial_map import SpatialMap
from latlas.numerics.patches import PatchGeometry


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def linear(weight: Tensor, **known: Any) -> LinearMap:
    return LinearMap(weight=weight, bias=torch.ones(weight.shape[1]), kind="affine", source="A", target="B", **known)


def spatial(weight: Tensor, **known: Any) -> SpatialMap:
    """The same matrix at every position."""
    source, target = weight.shape
    return SpatialMap(
        weight=weight.T.reshape(target, source, 1, 1),
        bias=torch.ones(target, dtype=weight.dtype),
        fill=torch.zeros(source, dtype=weight.dtype),
        geometry=PatchGeometry(),
        kind="affine",
        source="A",
        target="B",
        **known,
    )


MAKERS = pytest.mark.parametrize("make", [linear, spatial])


def with_singular_values(*values: float) -> Tensor:
    left, right = (torch.linalg.qr(normal(len(values), len(values), seed=seed)).Q for seed in (1, 2))
    return left @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ right


@MAKERS
def test_a_well_posed_way_back_has_nothing_to_tell_and_knows_its_condition(make: Any) -> None:
    weight = normal(4, 4)
    back = make(weight).inverse()
    assert back.warnings == ()
    assert back.evidence["rank"] == 4
    assert back.evidence["condition"] == pytest.approx(np.linalg.cond(weight.numpy()))


@MAKERS
@pytest.mark.parametrize(("smallest", "told"), [(1e-9, False), (1e-11, True), (1e-14, True)])
def test_a_way_back_in_which_noise_would_drown_the_codes_says_so(make: Any, smallest: float, told: bool) -> None:
    back = make(with_singular_values(1.0, 0.5, smallest)).inverse()
    assert ("Nearly singular" in " ".join(back.warnings)) == told
    if told:
        assert f"up to {1 / smallest:.0e}"[:6] in back.warnings[0]


@MAKERS
@pytest.mark.parametrize(("shape", "kept"), [((5, 3), 3), ((3, 5), 3), ((4, 6), 2), ((6, 4), 2)])
def test_a_way_back_tells_how_much_of_the_source_it_cannot_know(make: Any, shape: tuple[int, int], kept: int) -> None:
    weight = normal(shape[0], kept) @ normal(kept, shape[1], seed=1)
    back = make(weight).inverse()
    lost = kept < shape[0]
    assert bool(back.warnings) == lost
    if lost:
        assert f"keeps {kept} of {shape[0]} directions" in back.warnings[0]
    codes = normal(7, shape[0], seed=2)
    given = codes if make is linear else codes[:, :, None, None]
    error = (back.apply(make(weight).apply(given)) - given).abs().max()
    assert bool(error < 1e-9) == (not lost)


def test_the_warnings_of_a_way_back_are_kept_with_it(tmp_path: Any) -> None:
    back = linear(normal(5, 3)).inverse()
    back.save_pretrained(tmp_path / "map")
    assert LinearMap.from_pretrained(tmp_path / "map").warnings == back.warnings != ()


# Following


@MAKERS
def test_a_map_of_another_model_does_not_follow(make: Any) -> None:
    first = make(normal(3, 3), target_fingerprint="a" * 64)
    other = make(normal(3, 3, seed=1), source_fingerprint="b" * 64)
    with pytest.raises(
        CodeShapeError, match=r"ends in codes of B \(weights aaaaaaaaaaaa\).*takes those of A \(weights bbbbbbbbbbbb\)"
    ):
        first.then(other)


@MAKERS
@pytest.mark.parametrize(("end", "start"), [("a" * 64, "a" * 64), (None, "a" * 64), ("a" * 64, None), (None, None)])
def test_a_map_of_the_same_model_or_of_one_that_is_not_known_does(make: Any, end: str | None, start: str | None) -> None:
    first, second = make(normal(3, 3), target_fingerprint=end), make(normal(3, 3, seed=1), source_fingerprint=start)
    assert first.then(second).kind == "composed"


def test_there_and_back_join_whatever_is_known() -> None:
    there = dataclasses.replace(fit_map(normal(50, 3), normal(50, 3, seed=1)), source_fingerprint="a", target_fingerprint="b")
    round_trip = there.then(there.inverse())
    torch.testing.assert_close(round_trip.weight, torch.eye(3, dtype=torch.float64))
    assert round_trip.source_fingerprint == round_trip.target_fingerprint == "a"


# Types


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool], ids=str)
def test_codes_of_whole_numbers_are_mapped_to_what_their_floats_are_mapped_to(dtype: torch.dtype) -> None:
    """As for one-hot codes: in their own type every answer would be cut off to a whole number."""
    codes = (normal(40, 3) > 0).to(dtype)
    target = normal(40, 2, seed=1)
    maps = [fit_map(codes.double(), target), fit_perceptron(codes.double(), target, settings=PerceptronSettings(epochs=1))]
    for fitted in maps:
        found = fitted.apply(codes)
        assert found.dtype == torch.float64
        assert torch.equal(found, fitted.apply(codes.double()))
    grid, image = codes.reshape(10, 3, 2, 2), target.reshape(10, 2, 2, 2)
    there = fit_spatial_map(grid.double(), image)
    assert torch.equal(there.apply(grid), there.apply(grid.double()))


def test_a_spatial_map_is_kept_in_float64_whatever_it_was_made_from() -> None:
    weight = normal(3, 3)
    narrow, wide = spatial(weight.float()), spatial(weight.float().double())
    codes = normal(2, 3, 4, 4)
    assert {part.dtype for part in (narrow.weight, narrow.bias, narrow.fill)} == {torch.float64}
    assert torch.equal(narrow.inverse().apply(codes), wide.inverse().apply(codes))
    other = spatial(normal(3, 2, seed=1))
    assert torch.equal(narrow.then(other).apply(codes), wide.then(other).apply(codes))


# What a fit tells


def test_a_channel_that_never_varies_is_told_once_and_not_as_a_lack_of_codes() -> None:
    """No ridge and no further image would settle what a constant does."""
    source, target = normal(30, 3, 4, 4), normal(30, 2, 4, 4, seed=1)
    source[:, 1] = 5.0
    for neighbourhood in (1, 3):
        told = fit_spatial_map(source, target, neighbourhood=neighbourhood).warnings
        assert [warning.split(":")[0] for warning in told] == ["Source channels that never vary"]
    source[:, 2] = 2.0 * source[:, 0]
    assert any(warning.startswith("Ill-posed") for warning in fit_spatial_map(source, target).warnings)


def test_codes_whose_squares_overflow_are_told_apart_from_nan() -> None:
    with pytest.raises(NonFiniteError, match=r"beyond 1e150, whose squares overflow.*scale them down"):
        fit_map(1e200 * normal(20, 2), normal(20, 2))
