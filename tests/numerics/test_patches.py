"""Patches: what they hold is what slicing says, and their moments are those of all the rows at once."""

import numpy as np
import pytest
import torch
from torch import Tensor

from latlas.base.errors import CodeShapeError, IllPosedError, NonFiniteError, SettingError
from latlas.numerics import patches as patches_module
from latlas.numerics.patches import PatchGeometry, PatchMoments, geometry_between, patch_rows

GEOMETRIES = [
    PatchGeometry(1),
    PatchGeometry(3),
    PatchGeometry(5),
    PatchGeometry(1, down=2),
    PatchGeometry(3, down=2),
    PatchGeometry(1, up=2),
    PatchGeometry(3, up=3),
]
EXACT = {"rtol": 1e-11, "atol": 1e-11}


def codes(geometry: PatchGeometry, *, n: int = 5, blocks: tuple[int, int] = (4, 3), seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    high, wide = blocks
    source = 2.0 + torch.randn(n, 2, high * geometry.down, wide * geometry.down, generator=generator, dtype=torch.float64)
    target = torch.randn(n, 3, high * geometry.up, wide * geometry.up, generator=generator, dtype=torch.float64) - 1.0
    return source, target


def sliced(source: Tensor, geometry: PatchGeometry, fill: Tensor) -> np.ndarray:
    """Every patch by indices alone, with the fill where an index leaves the grid."""
    rows = []
    n, channels, high, wide = source.shape
    for code in range(n):
        for top in range(0, high, geometry.down):
            for left in range(0, wide, geometry.down):
                row = []
                for channel in range(channels):
                    for down in range(-geometry.margin, geometry.down + geometry.margin):
                        for right in range(-geometry.margin, geometry.down + geometry.margin):
                            inside = 0 <= top + down < high and 0 <= left + right < wide
                            row.append(source[code, channel, top + down, left + right] if inside else fill[channel])
                rows.append([float(value) for value in row])
    return np.array(rows)


def blocks_of(target: Tensor, up: int) -> np.ndarray:
    n, _, high, wide = target.shape
    return np.array(
        [
            target[code, :, top : top + up, left : left + up].numpy().ravel()
            for code in range(n)
            for top in range(0, high, up)
            for left in range(0, wide, up)
        ]
    )


def close(one: PatchMoments, other: PatchMoments) -> None:
    assert (one.geometry, one.codes, one.paired.count) == (other.geometry, other.codes, other.paired.count)
    torch.testing.assert_close(one.paired.joint.mean, other.paired.joint.mean, **EXACT)
    torch.testing.assert_close(one.paired.joint.scatter, other.paired.joint.scatter, rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_a_patch_is_the_window_about_its_block(geometry: PatchGeometry) -> None:
    source, _ = codes(geometry)
    fill = torch.tensor([7.0, -3.0], dtype=torch.float64)
    np.testing.assert_array_equal(patch_rows(source, geometry, fill).numpy(), sliced(source, geometry, fill))


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_moments_are_those_of_all_patches_and_blocks_at_once(geometry: PatchGeometry) -> None:
    source, target = codes(geometry)
    fill = torch.tensor([7.0, -3.0], dtype=torch.float64)
    pairs = PatchMoments.of(source, target, geometry, fill=fill).pairs()
    rows = np.concatenate([sliced(source, geometry, fill), blocks_of(target, geometry.up)], axis=1)
    assert (pairs.count, pairs.source_size) == (5 * 4 * 3, 2 * geometry.window**2)
    np.testing.assert_allclose(pairs.joint.mean.numpy(), rows.mean(axis=0), **EXACT)
    np.testing.assert_allclose(pairs.joint.scatter.numpy(), np.cov(rows.T, ddof=0) * len(rows), rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_another_fill_is_a_change_of_variables(geometry: PatchGeometry) -> None:
    source, target = codes(geometry)
    fill = torch.tensor([7.0, -3.0], dtype=torch.float64)
    close(PatchMoments.of(source, target, geometry).refilled(fill), PatchMoments.of(source, target, geometry, fill=fill))


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("cut", [1, 3])
def test_any_split_merges_into_the_whole(cut: int, geometry: PatchGeometry) -> None:
    """Each part fills with its own mean, so that merging has something to reconcile."""
    source, target = codes(geometry)
    whole = PatchMoments.of(source, target, geometry)
    left = PatchMoments.of(source[:cut], target[:cut], geometry)
    right = PatchMoments.of(source[cut:], target[cut:], geometry)
    assert not left.fill.equal(right.fill)
    close(left.merge(right).refilled(whole.fill), whole)
    close(right.merge(left).refilled(whole.fill), whole)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("elements", [1, 150, 700])
def test_strips_change_nothing(elements: int, geometry: PatchGeometry, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = codes(geometry)
    whole = PatchMoments.of(source, target, geometry)
    monkeypatch.setattr(patches_module, "_ELEMENTS", elements)
    close(PatchMoments.of(source, target, geometry), whole)


def test_codes_of_several_grids_make_one_set_of_moments() -> None:
    geometry = PatchGeometry(3, down=2)
    small, large = codes(geometry), codes(geometry, blocks=(6, 9), seed=1)
    fill = torch.zeros(2, dtype=torch.float64)
    merged = PatchMoments.of(*small, geometry, fill=fill).merge(PatchMoments.of(*large, geometry, fill=fill))
    rows = np.concatenate([sliced(source, geometry, fill) for source, _ in (small, large)])
    np.testing.assert_allclose(merged.pairs().source.covariance().numpy(), np.cov(rows.T, ddof=0), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_statistics_are_those_of_the_codes_whatever_the_fill(geometry: PatchGeometry) -> None:
    source, target = codes(geometry)
    moments = PatchMoments.of(source, target, geometry, fill=torch.tensor([50.0, -50.0], dtype=torch.float64))
    for (mean, variance), of in ((moments.source_statistics(), source), (moments.target_statistics(), target)):
        np.testing.assert_allclose(mean.numpy(), of.numpy().mean(axis=(0, 2, 3)), rtol=1e-11)
        np.testing.assert_allclose(variance.numpy(), of.numpy().var(axis=(0, 2, 3)), rtol=1e-11)
    assert (moments.channels, moments.target_channels) == (2, 3)


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ((8, 8), (8, 8), (1, 1)),
        ((8, 12), (4, 6), (2, 1)),
        ((4, 6), (8, 12), (1, 2)),
        ((3, 3), (1, 1), (3, 1)),
        ((1, 1), (4, 4), (1, 4)),
    ],
)
def test_grids_tell_the_geometry(source: tuple[int, int], target: tuple[int, int], expected: tuple[int, int]) -> None:
    found = geometry_between(torch.zeros(1, 1, *source), torch.zeros(1, 1, *target), neighbourhood=3)
    assert (found.neighbourhood, found.down, found.up) == (3, *expected)


@pytest.mark.parametrize(
    ("source", "target"),
    [((8, 8), (4, 8)), ((8, 8), (2, 4)), ((8, 8), (6, 6)), ((6, 6), (9, 9)), ((4, 8), (8, 8)), ((0, 0), (4, 4))],
)
def test_grids_without_one_integer_factor_are_refused(source: tuple[int, int], target: tuple[int, int]) -> None:
    words = rf"one integer factor.*{source[0]} x {source[1]} positions and target codes of {target[0]} x {target[1]}\. Encode images"
    with pytest.raises(CodeShapeError, match=words):
        geometry_between(torch.zeros(1, 1, *source), torch.zeros(1, 1, *target))


@pytest.mark.parametrize("neighbourhood", [0, 2, 4, -1])
def test_a_neighbourhood_without_a_middle_is_refused(neighbourhood: int) -> None:
    with pytest.raises(SettingError, match=rf"must be odd.*got {neighbourhood}"):
        PatchGeometry(neighbourhood)


def test_a_block_of_no_positions_is_refused() -> None:
    with pytest.raises(SettingError, match="at least 1 position across"):
        PatchGeometry(1, down=0)


@pytest.mark.parametrize(
    ("source", "target", "error", "words"),
    [
        (torch.zeros(5, 2), torch.zeros(5, 2, 3, 3), CodeShapeError, r"source codes.*got vector codes \(5, 2\)\. Use fit_map"),
        (torch.zeros(5, 2, 3, 3), torch.zeros(5, 2), CodeShapeError, r"target codes.*got vector codes \(5, 2\)\. Use fit_map"),
        (torch.zeros(5, 2, 3), torch.zeros(5, 2, 3), CodeShapeError, r"n x channels x rows x columns, got \(5, 2, 3\)"),
        (torch.zeros(5, 2, 3, 3), torch.zeros(4, 2, 3, 3), CodeShapeError, "must be paired: got 5 and 4"),
        (torch.zeros(0, 2, 3, 3), torch.zeros(0, 2, 3, 3), IllPosedError, "No codes were given"),
        (torch.zeros(5, 2, 6, 6), torch.zeros(5, 2, 3, 3), CodeShapeError, "not of the geometry of those"),
    ],
)
def test_codes_that_make_no_patches_are_refused(source: Tensor, target: Tensor, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        PatchMoments.of(source, target, PatchGeometry(3))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("side", ["source", "target"])
def test_a_code_that_is_no_number_is_named(side: str, bad: float, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = codes(PatchGeometry(3))
    {"source": source, "target": target}[side][3, 1, 0, 2] = bad
    for at_once in (256, 2):
        monkeypatch.setattr(patches_module, "_CODES", at_once)
        with pytest.raises(NonFiniteError, match=f"The {side} code #3 holds NaN or infinity"):
            PatchMoments.of(source, target, PatchGeometry(3))


def test_moments_of_other_spaces_do_not_merge() -> None:
    geometry = PatchGeometry(3)
    source, target = codes(geometry)
    moments = PatchMoments.of(source, target, geometry)
    for other in (
        PatchMoments.of(source[:, :1], target, geometry),
        PatchMoments.of(source, target[:, :1], geometry),
        PatchMoments.of(source, target, PatchGeometry(5)),
    ):
        with pytest.raises(CodeShapeError, match="merge those of one pair of spaces"):
            moments.merge(other)
