"""Spatial maps: planted convolutions are found to rounding, noisy ones are scikit-learn's, and one serves every grid."""

import inspect
import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.metrics import r2_score
from torch import Tensor
from torch.nn import functional as F

from latlas.base.artifacts import CONFIG, save_tensors
from latlas.base.errors import (
    ArtifactError,
    CapabilityError,
    CodeShapeError,
    IllPosedError,
    MissingPathError,
    NonFiniteError,
    OutputExistsError,
    SettingError,
    UnknownNameError,
)
from latlas.base.provenance import Provenance, file_hash, tensor_hash
from latlas.encodings.encoding import Encoding
from latlas.maps import spatial_map as spatial_map_module
from latlas.maps.fit import fit_map
from latlas.maps.inputs import check_ridge
from latlas.maps.linear import LinearMap
from latlas.maps.loading import load_map
from latlas.maps.spatial import fit_spatial_map, fit_spatial_map_from, fit_spatial_map_over
from latlas.maps.spatial_map import SpatialMap
from latlas.numerics.patches import PatchGeometry, PatchMoments, patch_rows

GEOMETRIES = [
    PatchGeometry(1),
    PatchGeometry(3),
    PatchGeometry(1, down=2),
    PatchGeometry(3, down=2),
    PatchGeometry(1, up=2),
    PatchGeometry(3, up=2),
    PatchGeometry(5, up=3),
]
POINTWISE = [one for one in GEOMETRIES if one.neighbourhood == 1]
CONCEPTS = Path(__file__).parents[2] / "docs" / "concepts" / "spatial-maps.md"


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def a_map(
    geometry: PatchGeometry,
    *,
    channels: tuple[int, int] = (4, 3),
    seed: int = 0,
    names: tuple[str, str] = ("A", "B"),
    **more: Any,
) -> SpatialMap:
    source, target = channels
    outputs = target * geometry.up**2
    return SpatialMap(
        weight=draws(outputs, source, geometry.window, geometry.window, seed=seed + 1),
        bias=3 * draws(outputs, seed=seed + 2),
        fill=draws(source, seed=seed + 3),
        geometry=geometry,
        kind="affine",
        source=names[0],
        target=names[1],
        **more,
    )


def source_codes(geometry: PatchGeometry, *, n: int = 40, blocks: tuple[int, int] = (6, 5), channels: int = 4) -> Tensor:
    return 2.0 + draws(n, channels, blocks[0] * geometry.down, blocks[1] * geometry.down, seed=9)


def planted(geometry: PatchGeometry, *, noise: float = 0.0) -> tuple[Tensor, Tensor, SpatialMap]:
    """Codes, what a map makes of them whose fill is their mean, and that map."""
    source = source_codes(geometry)
    there = a_map(geometry)
    there = SpatialMap(
        weight=there.weight,
        bias=there.bias,
        fill=source.mean(dim=(0, 2, 3)),
        geometry=geometry,
        kind="affine",
        source="",
        target="",
    )
    target = there.apply(source)
    return source, target + noise * draws(*target.shape, seed=10), there


def rows_of(source: Tensor, target: Tensor, geometry: PatchGeometry, fill: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Patches and blocks by torch's unfold alone, each channel padded by its own value."""
    margin = geometry.margin
    channels = [F.pad(source[:, one], [margin] * 4, value=float(fill[one])) for one in range(source.shape[1])]
    patches = F.unfold(torch.stack(channels, dim=1), geometry.window, stride=geometry.down)
    blocks = F.unfold(target, geometry.up, stride=geometry.up)
    return patches.transpose(1, 2).flatten(0, 1).numpy(), blocks.transpose(1, 2).flatten(0, 1).numpy()


def encoding(
    codes: Tensor, *, model: str = "A", images_hash: str = "the same", weights: str = "unstated", **settings: str
) -> Encoding:
    return Encoding(
        mean=codes,
        log_variance=None,
        model=model,
        images=f"images of {model}",
        images_hash=images_hash,
        provenance=Provenance(made_by="encode", made_from={"model": weights}, settings=settings),
    )


# Applying


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_applying_is_the_weight_on_every_patch(geometry: PatchGeometry) -> None:
    there, source = a_map(geometry), source_codes(geometry, n=3)
    moved = there.apply(source)
    patches, blocks = rows_of(source, moved, geometry, there.fill)
    np.testing.assert_allclose(blocks, patches @ there.weight.flatten(1).T.numpy() + there.bias.numpy(), rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(patch_rows(source, geometry, there.fill).numpy(), patches)
    assert tuple(moved.shape[2:]) == there.target_grid(*source.shape[2:]) == (6 * geometry.up, 5 * geometry.up)


@pytest.mark.parametrize("neighbourhood", [1, 3, 5])
def test_inside_it_is_torchs_convolution(neighbourhood: int) -> None:
    there, source = a_map(PatchGeometry(neighbourhood)), draws(2, 4, 9, 8)
    inner = slice(there.geometry.margin, -there.geometry.margin or None)
    expected = F.conv2d(source, there.weight, there.bias)
    torch.testing.assert_close(there.apply(source)[:, :, inner, inner], expected, rtol=1e-12, atol=1e-12)


def test_onto_a_finer_grid_without_neighbours_it_is_torchs_transposed_convolution() -> None:
    there, source = a_map(PatchGeometry(1, up=3)), draws(2, 4, 5, 6)
    weight = there.weight.view(3, 3, 3, 4).permute(3, 0, 1, 2)
    expected = F.conv_transpose2d(source, weight, stride=3) + there.bias.view(1, 3, 1, 3, 1, 3).expand(
        1, 3, 5, 3, 6, 3
    ).reshape(1, 3, 15, 18)
    torch.testing.assert_close(there.apply(source), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_moving_the_codes_moves_the_result_away_from_the_edges(geometry: PatchGeometry) -> None:
    there, source = a_map(geometry), source_codes(geometry, n=2, blocks=(9, 8))
    down, up = geometry.down, geometry.up
    moved = there.apply(source[:, :, 2 * down :, 1 * down :])
    margin = -(-geometry.margin // down) * up  # target positions that see the edge
    whole = there.apply(source)[:, :, 2 * up :, 1 * up :]
    inner = slice(margin, -margin or None)
    torch.testing.assert_close(moved[:, :, inner, inner], whole[:, :, inner, inner], rtol=1e-12, atol=1e-12)
    if margin:
        assert not torch.allclose(moved[:, :, 0], whole[:, :, 0])  # where a neighbour was cut off, the result did change


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_codes_that_are_the_fill_everywhere_have_no_edges(geometry: PatchGeometry) -> None:
    there = a_map(geometry)
    moved = there.apply(there.fill[None, :, None, None].expand(1, 4, 4 * geometry.down, 4 * geometry.down))
    block = moved[:, :, : geometry.up, : geometry.up].repeat(1, 1, 4, 4)
    torch.testing.assert_close(moved, block, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_codes_come_back_in_their_own_type_and_are_computed_in_double(dtype: torch.dtype) -> None:
    there, source = a_map(PatchGeometry(3)), draws(2, 4, 5, 5).to(dtype)
    moved = there.apply(source)
    assert moved.dtype == dtype
    assert moved.equal(there.apply(source.double()).to(dtype))


def test_codes_are_moved_the_same_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    there, source = a_map(PatchGeometry(3, up=2)), draws(7, 4, 5, 6)
    whole = there.apply(source)
    monkeypatch.setattr(spatial_map_module, "_ELEMENTS", 2 * 36 * 30)
    torch.testing.assert_close(there.apply(source), whole, rtol=1e-13, atol=1e-13)


def test_no_codes_are_moved_to_no_codes() -> None:
    assert a_map(PatchGeometry(3, up=2)).apply(torch.zeros(0, 4, 5, 6)).shape == (0, 3, 10, 12)


def test_gradients_pass() -> None:
    source = draws(1, 4, 5, 5).requires_grad_()
    a_map(PatchGeometry(3)).apply(source).sum().backward()
    assert source.grad is not None
    assert bool(source.grad.any())


@pytest.mark.parametrize(
    ("codes", "words"),
    [
        (torch.zeros(2, 4), r"spatial codes of 4 channels \(A\), got vector codes \(2, 4\).*fit_map for vectors"),
        (
            torch.zeros(2, 5, 4, 4),
            r"spatial codes of 4 channels \(A\), got shape \(2, 5, 4, 4\).*fit a map on encodings of yours",
        ),
        (torch.zeros(4, 4, 4), r"got shape \(4, 4, 4\)"),
        (torch.zeros(2, 4, 5, 4), "blocks of 2 x 2 positions, and a grid of 5 x 4 does not divide"),
        (torch.zeros(2, 4, 4, 0), "a grid of 4 x 0 does not divide"),
    ],
)
def test_codes_that_do_not_fit_are_refused(codes: Tensor, words: str) -> None:
    with pytest.raises(CodeShapeError, match=words):
        a_map(PatchGeometry(3, down=2)).apply(codes)


@pytest.mark.parametrize(
    ("weight", "bias", "fill"),
    [
        ((8, 4, 3, 3), (8,), (3,)),
        ((8, 4, 3, 3), (7,), (4,)),
        ((8, 4, 1, 1), (8,), (4,)),
        ((7, 4, 3, 3), (7,), (4,)),
        ((8, 4, 3), (8,), (4,)),
    ],
)
def test_parts_that_do_not_fit_make_no_map(weight: tuple[int, ...], bias: tuple[int, ...], fill: tuple[int, ...]) -> None:
    with pytest.raises(CodeShapeError, match=r"weight t\*4 x s x 3 x 3, a bias t\*4 and a fill s"):
        SpatialMap(
            weight=torch.zeros(weight),
            bias=torch.zeros(bias),
            fill=torch.zeros(fill),
            geometry=PatchGeometry(3, up=2),
            kind="affine",
            source="A",
            target="B",
        )


# What is found


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_a_planted_map_is_found_to_rounding_edges_included(geometry: PatchGeometry) -> None:
    source, target, there = planted(geometry)
    found = fit_spatial_map(source, target, neighbourhood=geometry.neighbourhood)
    assert found.geometry == geometry
    torch.testing.assert_close(found.weight, there.weight, rtol=0, atol=1e-10)
    torch.testing.assert_close(found.bias, there.bias, rtol=0, atol=1e-10)
    torch.testing.assert_close(found.fill, there.fill, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.apply(source), target, rtol=0, atol=1e-10)
    assert found.evidence["r2"] == pytest.approx([1.0] * 3, abs=1e-10)
    assert found.evidence["ill_posed"] is False
    assert (found.evidence["pairs"], found.evidence["positions"]) == (40, 40 * 6 * 5)
    assert found.warnings == ()


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_a_planted_map_found_on_small_grids_is_that_of_large_ones(geometry: PatchGeometry) -> None:
    source, target, there = planted(geometry)
    large = source_codes(geometry, n=1, blocks=(31, 17))
    found = fit_spatial_map(source, target, neighbourhood=geometry.neighbourhood)
    torch.testing.assert_close(found.apply(large), there.apply(large), rtol=0, atol=1e-9)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_a_noisy_fit_is_scikit_learns_regression_on_unfolded_patches(geometry: PatchGeometry) -> None:
    source, target, _ = planted(geometry, noise=2.0)
    found = fit_spatial_map(source, target, neighbourhood=geometry.neighbourhood)
    patches, blocks = rows_of(source, target, geometry, source.mean(dim=(0, 2, 3)))
    reference = LinearRegression().fit(patches, blocks)
    np.testing.assert_allclose(found.weight.flatten(1).numpy(), reference.coef_, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(found.bias.numpy(), reference.intercept_, rtol=1e-8, atol=1e-9)
    errors = (found.apply(source) - target).square().mean(dim=(0, 2, 3)).numpy()
    np.testing.assert_allclose(found.evidence["residual_variance"], errors, rtol=1e-9)
    np.testing.assert_allclose(found.evidence["r2"], 1 - errors / target.numpy().var(axis=(0, 2, 3)), rtol=1e-9)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("geometry", [PatchGeometry(3), PatchGeometry(3, down=2), PatchGeometry(3, up=2)], ids=str)
def test_a_ridge_is_scikit_learns_alpha(geometry: PatchGeometry, bias: bool) -> None:
    source, target, _ = planted(geometry, noise=2.0)
    found = fit_spatial_map(source, target, neighbourhood=3, ridge=50.0, bias=bias)
    fill = source.mean(dim=(0, 2, 3)) if bias else torch.zeros(4)
    patches, blocks = rows_of(source, target, geometry, fill)
    reference = Ridge(alpha=50.0, fit_intercept=bias, solver="cholesky").fit(patches, blocks)
    np.testing.assert_allclose(found.weight.flatten(1).numpy(), reference.coef_, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(
        found.bias.numpy(), np.broadcast_to(reference.intercept_, found.bias.shape), rtol=1e-8, atol=1e-9
    )
    assert found.evidence["ridge"] == 50.0


def test_without_a_bias_it_is_numpys_least_squares_and_linear_to_the_edge() -> None:
    geometry = PatchGeometry(3)
    source, target, _ = planted(geometry, noise=2.0)
    found = fit_spatial_map(source, target, neighbourhood=3, bias=False)
    patches, blocks = rows_of(source, target, geometry, torch.zeros(4))
    reference = np.linalg.lstsq(patches, blocks, rcond=None)[0].T
    np.testing.assert_allclose(found.weight.flatten(1).numpy(), reference, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(found.apply(-2 * source), -2 * found.apply(source), rtol=1e-10, atol=1e-10)
    assert not bool(found.bias.any())
    assert found.parameters == found.weight.numel()


def test_gcv_records_the_ridge_that_it_chose_and_saves_a_fit_from_few_codes() -> None:
    geometry = PatchGeometry(3)
    source, target, there = planted(geometry, noise=10.0)
    fresh = source_codes(geometry, n=40)[20:]
    errors = {}
    for ridge in (None, "gcv"):
        found = fit_spatial_map(source[:2], target[:2], neighbourhood=3, ridge=ridge)  # type: ignore[arg-type]
        errors[ridge] = float((found.apply(fresh) - there.apply(fresh)).square().mean())
    assert errors["gcv"] < 0.7 * errors[None]
    assert found.evidence["ridge"] > 0
    again = fit_spatial_map(source[:2], target[:2], neighbourhood=3, ridge=found.evidence["ridge"])
    assert found.weight.equal(again.weight)


def test_on_grids_of_one_position_it_is_the_vector_map() -> None:
    source, target = draws(50, 4), draws(50, 3, seed=1)
    found = fit_spatial_map(source[:, :, None, None], target[:, :, None, None])
    expected = fit_map(source, target)
    torch.testing.assert_close(found.weight[:, :, 0, 0].T, expected.weight, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.bias, expected.bias, rtol=1e-12, atol=1e-12)


def test_fewer_than_twice_as_many_positions_as_unknowns_are_told() -> None:
    """Four channels and a bias are five unknowns: ten positions say nothing, nine are few."""
    source, target = draws(10, 4, 1, 1), draws(10, 2, 1, 1, seed=1)
    assert fit_spatial_map(source, target).warnings == ()
    (told,) = fit_spatial_map(source[:9], target[:9]).warnings
    assert told.startswith("Only 9 positions for 5 unknowns")
    assert fit_spatial_map(source[:9], target[:9]).evidence["unknowns"] == 5
    assert fit_spatial_map(source[:8], target[:8], bias=False).warnings == ()


def test_a_channel_that_varies_little_beside_its_mean_is_no_constant_one() -> None:
    """A ten-thousandth of its mean is not rounding: its R2 is scikit-learn's."""
    source, target = draws(40, 4, 3, 3), 1000 + 0.1 * draws(40, 2, 3, 3, seed=1)
    target = target + 0.1 * source[:, :2]
    found = fit_spatial_map(source, target)
    rows, wanted = (codes.movedim(1, -1).flatten(0, 2).numpy() for codes in (source, target))
    theirs = r2_score(wanted, LinearRegression().fit(rows, wanted).predict(rows), multioutput="raw_values")
    np.testing.assert_allclose(found.evidence["r2"], theirs, rtol=1e-6)
    assert found.warnings == ()


def test_without_a_ridge_as_many_positions_as_unknowns_are_the_fewest() -> None:
    source, target = draws(5, 4, 1, 1), draws(5, 2, 1, 1, seed=1)
    torch.testing.assert_close(fit_spatial_map(source, target).apply(source), target, rtol=1e-8, atol=1e-8)
    with pytest.raises(IllPosedError, match="5 unknowns for each target channel, and 4 codes gave 4 positions"):
        fit_spatial_map(source[:4], target[:4])


def test_neighbours_never_make_the_fit_worse() -> None:
    source, target, _ = planted(PatchGeometry(5), noise=1.0)
    lost = [sum(fit_spatial_map(source, target, neighbourhood=size).evidence["residual_variance"]) for size in (1, 3, 5)]
    assert lost[0] > lost[1] > lost[2]


@pytest.mark.parametrize(("channels", "target", "parameters"), [(4, 4, 20), (16, 4, 68)], ids=["xl-to-v1", "fx-to-xl"])
def test_parameters_are_those_of_peers_one_by_one_map(channels: int, target: int, parameters: int) -> None:
    """peers.md 5.6."""
    found = fit_spatial_map(draws(10, channels, 4, 4), draws(10, target, 4, 4, seed=1))
    assert found.parameters == parameters


# How it is fed


@given(
    cuts=st.lists(st.integers(1, 39), unique=True, max_size=4).map(sorted),
    geometry=st.sampled_from(GEOMETRIES),
    bias=st.booleans(),
)
def test_a_stream_gives_the_map_of_the_whole_however_it_is_cut(cuts: list[int], geometry: PatchGeometry, bias: bool) -> None:
    source, target, _ = planted(geometry, noise=1.0)
    edges = [0, *cuts, 40]
    pairs = ((source[left:right], target[left:right]) for left, right in pairwise(edges))
    whole = fit_spatial_map(source, target, neighbourhood=geometry.neighbourhood, bias=bias)
    found = fit_spatial_map_over(pairs, neighbourhood=geometry.neighbourhood, bias=bias)
    for part in ("weight", "bias", "fill"):
        torch.testing.assert_close(getattr(found, part), getattr(whole, part), rtol=1e-9, atol=1e-9)
    one = fit_spatial_map_over([(source, target)], neighbourhood=geometry.neighbourhood, bias=bias)
    assert found.provenance == one.provenance


def test_moments_of_two_processes_give_the_map_of_both() -> None:
    geometry = PatchGeometry(3, up=2)
    source, target, _ = planted(geometry, noise=1.0)
    parts = [PatchMoments.of(source[half], target[half], geometry) for half in (slice(0, 15), slice(15, None))]
    found = fit_spatial_map_from(parts[0].merge(parts[1]))
    whole = fit_spatial_map(source, target, neighbourhood=3)
    torch.testing.assert_close(found.weight, whole.weight, rtol=1e-9, atol=1e-10)
    assert found.evidence["pairs"] == 40


def test_a_stream_may_hold_grids_of_several_sizes() -> None:
    geometry = PatchGeometry(1, down=2)
    there = a_map(geometry)
    pairs = [(codes, there.apply(codes)) for codes in (source_codes(geometry), source_codes(geometry, n=9, blocks=(3, 8)))]
    found = fit_spatial_map_over(pairs, source="A", target="B", source_scaling="raw", target_scaling="scaled")
    torch.testing.assert_close(found.weight, there.weight, rtol=0, atol=1e-10)
    assert (found.source, found.target, found.source_scaling, found.target_scaling) == ("A", "B", "raw", "scaled")


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_maps_are_float64_whatever_the_codes_are(dtype: torch.dtype) -> None:
    source, target, _ = planted(PatchGeometry(3), noise=1.0)
    low, high = source.to(dtype), target.to(dtype)
    found = fit_spatial_map(low, high, neighbourhood=3)
    assert found.weight.dtype == found.bias.dtype == found.fill.dtype == torch.float64
    expected = fit_spatial_map(low.double(), high.double(), neighbourhood=3)
    torch.testing.assert_close(found.weight, expected.weight, rtol=1e-12, atol=1e-12)


def test_encodings_name_the_spaces_of_their_map_and_state_their_scaling() -> None:
    source, target, _ = planted(PatchGeometry(3))
    old = encoding(source, model="old", weights="weights of old", scaling="scaled")
    new = encoding(target, model="new", weights="weights of new")
    found = fit_spatial_map(old, new, neighbourhood=3, target_scaling="raw")
    assert (found.source, found.target) == ("old", "new")
    assert (found.source_fingerprint, found.target_fingerprint) == ("weights of old", "weights of new")
    assert (found.source_scaling, found.target_scaling) == ("scaled", "raw")
    assert found.provenance.made_from == {"source": tensor_hash(source), "target": tensor_hash(target)}
    assert found.provenance.settings == {"neighbourhood": 3, "ridge": None, "bias": True}
    mixed = fit_spatial_map(old, target)
    assert (mixed.source, mixed.target, mixed.target_fingerprint) == ("old", "target", None)
    with pytest.raises(SettingError, match="says that its latents are scaled, and raw was given"):
        fit_spatial_map(old, new, source_scaling="raw")


# Whose codes


def test_codes_of_another_model_or_scaled_otherwise_are_refused() -> None:
    source, target, _ = planted(PatchGeometry(1))
    there = fit_spatial_map(encoding(source, weights="a", scaling="scaled"), encoding(target, model="B", weights="b"))
    there.check_source(encoding(source, weights="a", scaling="scaled").provenance, name="A")
    there.check_source(encoding(source).provenance, name="A")  # nothing is stated, so nothing is known against it
    with pytest.raises(CodeShapeError, match=r"takes codes of A \(weights a\), the encoding is of C \(weights c\)"):
        there.check_source(encoding(source, weights="c").provenance, name="C")
    words = "takes scaled latents of A, and the encoding of A has raw ones: they differ by the model's scale and shift. Use scaled latents"
    with pytest.raises(CodeShapeError, match=words):
        there.check_source(encoding(source, weights="a", scaling="raw").provenance, name="A")


# Following and going back


@pytest.mark.parametrize("second", [*POINTWISE, PatchGeometry(1, down=2, up=3)], ids=str)
@pytest.mark.parametrize("first", [*POINTWISE, PatchGeometry(1, down=3, up=2)], ids=str)
def test_then_applies_one_after_the_other(first: PatchGeometry, second: PatchGeometry) -> None:
    one, other = a_map(first), a_map(second, channels=(3, 5), seed=7, names=("B", "C"))
    both = one.then(other)
    source = draws(2, 4, 12, 24)
    torch.testing.assert_close(both.apply(source), other.apply(one.apply(source)), rtol=1e-11, atol=1e-11)
    assert (both.source, both.target, both.kind) == ("A", "C", "composed")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (PatchGeometry(3), PatchGeometry(1)),
        (PatchGeometry(3, down=2), PatchGeometry(1, up=2)),
        (PatchGeometry(3, up=2), PatchGeometry(1, down=2)),
        (PatchGeometry(5, up=2), PatchGeometry(1, up=2)),
    ],
)
def test_a_map_that_looks_at_no_neighbours_may_follow_one_that_does(first: PatchGeometry, second: PatchGeometry) -> None:
    one, other = a_map(first), a_map(second, channels=(3, 5), seed=7)
    source = draws(2, 4, 8, 6)
    torch.testing.assert_close(one.then(other).apply(source), other.apply(one.apply(source)), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (PatchGeometry(1), PatchGeometry(3)),
        (PatchGeometry(3), PatchGeometry(3)),
        (PatchGeometry(3), PatchGeometry(1, down=2)),
        (PatchGeometry(3, up=2), PatchGeometry(1, down=3)),
    ],
)
def test_what_no_single_map_does_at_the_edges_is_refused(first: PatchGeometry, second: PatchGeometry) -> None:
    with pytest.raises(CapabilityError, match=r"at the edges\. Fit one from A to C, or apply one after the other"):
        a_map(first).then(a_map(second, channels=(3, 5), names=("B", "C")))


def test_a_map_that_starts_elsewhere_cannot_follow() -> None:
    with pytest.raises(CodeShapeError, match=r"Cannot follow a map into 3 channels \(B\) by one from 4 \(C\)"):
        a_map(PatchGeometry(1)).then(a_map(PatchGeometry(1), names=("C", "D")))
    one = a_map(PatchGeometry(1), target_scaling="raw")
    with pytest.raises(CodeShapeError, match="ends in raw latents of B, and the second map from B has scaled ones"):
        one.then(a_map(PatchGeometry(1), channels=(3, 5), names=("B", "C"), source_scaling="scaled"))


@pytest.mark.parametrize(
    ("geometry", "channels"),
    [
        (PatchGeometry(1), (4, 4)),
        (PatchGeometry(1), (4, 7)),
        (PatchGeometry(1, down=2), (1, 4)),
        (PatchGeometry(1, up=2), (4, 1)),
        (PatchGeometry(1, down=2), (1, 6)),
    ],
)
def test_there_and_back_is_where_it_began(geometry: PatchGeometry, channels: tuple[int, int]) -> None:
    there = a_map(geometry, channels=channels, source_scaling="raw", target_scaling="scaled", source_fingerprint="a")
    source = draws(2, channels[0], 6, 4)
    back = there.inverse()
    torch.testing.assert_close(back.apply(there.apply(source)), source, rtol=1e-9, atol=1e-9)
    assert (back.source, back.target, back.kind) == ("B", "A", "inverse")
    assert (back.source_scaling, back.target_scaling, back.target_fingerprint) == ("scaled", "raw", "a")
    around = there.then(back)
    torch.testing.assert_close(around.apply(source), source, rtol=1e-9, atol=1e-9)


def test_back_from_fewer_channels_is_the_nearest_of_the_codes_that_lead_there() -> None:
    there = a_map(PatchGeometry(1), channels=(5, 3))
    target = draws(2, 3, 4, 4)
    returned = there.inverse().apply(target)
    torch.testing.assert_close(there.apply(returned), target, rtol=1e-10, atol=1e-10)
    rows = (target.movedim(1, -1).reshape(-1, 3) - there.bias).numpy()
    shortest = np.linalg.lstsq(there.weight[:, :, 0, 0].numpy(), rows.T, rcond=None)[0].T
    np.testing.assert_allclose(returned.movedim(1, -1).reshape(-1, 5).numpy(), shortest, rtol=1e-9, atol=1e-10)


def test_maps_with_no_inverse_say_so() -> None:
    with pytest.raises(CapabilityError, match=r"3 x 3 neighbourhood has no inverse.*Fit the other way, from B to A"):
        a_map(PatchGeometry(3)).inverse()
    flat = a_map(PatchGeometry(1), channels=(3, 3))
    flat.weight[2] = flat.weight[1]
    with pytest.raises(IllPosedError, match=r"singular: some of the source is lost.*Fit the other way"):
        flat.inverse()


# Keeping


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_what_is_saved_comes_back_to_the_last_bit(geometry: PatchGeometry, tmp_path: Path) -> None:
    source, target, _ = planted(geometry, noise=1.0)
    target[:, 1] = 2.0  # a target without R2
    there = fit_spatial_map(
        encoding(source, weights="a", scaling="raw"),
        encoding(target, model="B", weights="b"),
        neighbourhood=geometry.neighbourhood,
        ridge=0.1,
    )
    there.save_pretrained(tmp_path / "map")
    for loaded in (SpatialMap.from_pretrained(tmp_path / "map"), load_map(tmp_path / "map"), load_map(tmp_path)):
        assert isinstance(loaded, SpatialMap)
        for part in ("weight", "bias", "fill"):
            assert getattr(loaded, part).equal(getattr(there, part))
        names = (
            "geometry",
            "kind",
            "source",
            "target",
            "source_fingerprint",
            "target_fingerprint",
            "source_scaling",
            "target_scaling",
        )
        for name in (*names, "evidence", "provenance"):
            assert getattr(loaded, name) == getattr(there, name)
        assert loaded.evidence["r2"][1] is None
        assert loaded.apply(source).equal(there.apply(source))
        assert loaded.warnings == there.warnings == ("Target channels that never vary: 1. R2 is undefined there.",)


def test_a_map_is_loaded_as_the_kind_it_is(tmp_path: Path) -> None:
    vector = fit_map(draws(30, 3), draws(30, 2, seed=1))
    vector.save_pretrained(tmp_path / "vector")
    vector.save_pretrained(tmp_path / "both" / "map")
    for folder in ("vector", "both"):
        loaded = load_map(tmp_path / folder)
        assert isinstance(loaded, LinearMap)
        assert loaded.weight.equal(vector.weight)
    with pytest.raises(MissingPathError, match="No folder"):
        load_map(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactError, match=r"has no config\.json"):
        load_map(tmp_path / "empty")
    encoding(draws(3, 2)).save_pretrained(tmp_path / "encoding")
    with pytest.raises(ArtifactError, match="holds a latlas encoding, where a latlas linear-map or spatial-map is needed"):
        load_map(tmp_path / "encoding")
    a_map(PatchGeometry(1)).save_pretrained(tmp_path / "spatial")
    with pytest.raises(ArtifactError, match="holds a latlas spatial-map, where a latlas linear-map is needed"):
        LinearMap.from_pretrained(tmp_path / "spatial")
    with pytest.raises(OutputExistsError, match="--replace"):
        a_map(PatchGeometry(1)).save_pretrained(tmp_path / "spatial")
    a_map(PatchGeometry(3)).save_pretrained(tmp_path / "spatial", replace=True)
    assert SpatialMap.from_pretrained(tmp_path / "spatial").geometry == PatchGeometry(3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"neighbourhood": 2}, "must be odd"),
        ({"neighbourhood": 5}, "weight t"),
        ({"down": 0}, "at least 1"),
        ({"map": ...}, "'map'"),
    ],
)
def test_settings_that_make_no_map_are_told_and_not_raised_raw(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    a_map(PatchGeometry(3)).save_pretrained(tmp_path / "map")
    record = json.loads((tmp_path / "map" / CONFIG).read_text())
    record["settings"] = {name: value for name, value in (record["settings"] | change).items() if value is not ...}
    record.pop("checksum", None)  # as a stranger would
    (tmp_path / "map" / CONFIG).write_text(json.dumps(record))
    with pytest.raises(ArtifactError, match=rf"not a readable map \(.*{words}.*\)\. Fit it again"):
        SpatialMap.from_pretrained(tmp_path / "map")


def test_damage_is_noticed(tmp_path: Path) -> None:
    folder = tmp_path / "map"
    a_map(PatchGeometry(3)).save_pretrained(folder)
    save_tensors(folder / "map.safetensors", {"weight": torch.zeros(3, 4, 3, 3), "bias": torch.zeros(3)})
    with pytest.raises(ArtifactError, match="damaged"):
        SpatialMap.from_pretrained(folder)
    record = json.loads((folder / CONFIG).read_text())
    record["files"]["map.safetensors"] = file_hash(folder / "map.safetensors")
    record.pop("checksum", None)  # as a stranger would
    (folder / CONFIG).write_text(json.dumps(record))
    with pytest.raises(ArtifactError, match=r"not a readable map \('fill'\)\. Fit it again"):
        SpatialMap.from_pretrained(folder)


# What can go wrong


def test_encodings_of_different_images_are_refused() -> None:
    source, target, _ = planted(PatchGeometry(1))
    with pytest.raises(IllPosedError, match="different images"):
        fit_spatial_map(encoding(source), encoding(target, images_hash="other"))


X, Y = draws(6, 4, 4, 4), draws(6, 3, 4, 4, seed=1)


@pytest.mark.parametrize(
    ("source", "target", "error", "words"),
    [
        (X.flatten(1), Y, CodeShapeError, "Use fit_map for vectors"),
        (X, Y.flatten(1), CodeShapeError, "Use fit_map for vectors"),
        (X, Y[:5], CodeShapeError, "must be paired: got 6 and 5"),
        (X[:0], Y[:0], IllPosedError, "No codes were given"),
        (X, Y[:, :, :3, :3], CodeShapeError, "one integer factor"),
        (X, Y[:, :, :2], CodeShapeError, "one integer factor"),
        (torch.where(X > 2, torch.nan, X), Y, NonFiniteError, "The source code #. holds NaN"),
        (torch.full_like(X, 0.1), Y, IllPosedError, "The source codes are the same at every position of every image"),
        (X, torch.full_like(Y, 0.1), IllPosedError, "The target codes are the same at every position of every image"),
        (X[:2], Y[:2], IllPosedError, r"37 unknowns for each target channel, and 2 codes gave 32 positions.*ridge='gcv'"),
    ],
)
def test_codes_that_make_no_map_are_refused(source: Tensor, target: Tensor, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        fit_spatial_map(source, target, neighbourhood=3)
    with pytest.raises(error, match=words):
        fit_spatial_map_over([(source, target)], neighbourhood=3)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"neighbourhood": 2}, "must be odd"),
        ({"ridge": -1.0}, "at least 0, got -1.0"),
        ({"ridge": float("nan")}, "at least 0, got nan"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        fit_spatial_map(X, Y, **settings)
    with pytest.raises(SettingError, match=words):
        fit_spatial_map_over([(X, Y)], **settings)


def test_an_unknown_ridge_is_answered_with_the_known() -> None:
    """Unwrapped: in tests the type checker would answer first."""
    with pytest.raises(UnknownNameError, match=r"Unknown ridge 'gvc'\. Did you mean 'gcv'"):
        inspect.unwrap(fit_spatial_map)(X, Y, ridge="gvc")  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="Unknown ridge 'loo'"):  # which vector maps know
        inspect.unwrap(fit_spatial_map)(X, Y, ridge="loo")  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="at least 0, got True"):
        inspect.unwrap(check_ridge)(True, ("gcv",))


def test_streams_that_make_no_map_are_refused() -> None:
    with pytest.raises(IllPosedError, match="empty stream"):
        fit_spatial_map_over([])
    with pytest.raises(CodeShapeError, match="not of the geometry of those"):
        fit_spatial_map_over([(X, Y), (X, Y[:, :, :2, :2])])
    with pytest.raises(CodeShapeError, match="merge those of one pair of spaces"):
        fit_spatial_map_over([(X, Y), (X[:, :2], Y)])


def test_an_ill_posed_fit_says_what_would_cure_it() -> None:
    twice = torch.cat([X, 2 * X[:, :1]], dim=1)
    found = fit_spatial_map(twice, Y)
    assert (found.evidence["rank"], found.evidence["ill_posed"]) == (4, True)
    assert re.search(r"Ill-posed: the patches span 4 of 5 dimensions.*ridge='gcv'", " ".join(found.warnings))
    json.dumps(found.evidence, allow_nan=False)
    nearly = torch.cat([X, X[:, :1] + 1e-6 * draws(6, 1, 4, 4, seed=5)], dim=1)
    assert re.search(r"Nearly ill-posed: noise .*fold", " ".join(fit_spatial_map(nearly, Y).warnings))
    still = X.clone()
    still[:, 2] = 0.3
    assert fit_spatial_map(still, Y).warnings[0] == "Source channels that never vary: 2. Nothing can be learnt from them."
    assert "Only 64 positions for 37 unknowns" in " ".join(fit_spatial_map(X[:4], Y[:4], neighbourhood=3).warnings)
    assert fit_spatial_map(X, Y).warnings == ()


def test_the_example_of_the_concept_page_runs() -> None:
    for example in re.findall(r"```python\n(.*?)```", CONCEPTS.read_text(), flags=re.DOTALL):
        exec(example, {})
