"""What a comparison tells beside R, L and M: likeness of images, there and back, time, spaces of another shape, a yardstick."""

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from latlas.base.errors import CodeShapeError, IllPosedError, NonFiniteError, SettingError
from latlas.data.images import ImageSet
from latlas.maps.spatial_map import SpatialMap
from latlas.measurements.distances import frechet_distance
from latlas.measurements.features import RawPixels
from latlas.models.adapters.callables import CallableModel
from latlas.reports.comparison import comparison_report
from latlas.reports.page import render
from latlas.studies.bounds import recovered_share, share_of
from latlas.studies.calibrate import as_file
from latlas.studies.compare import compare
from latlas.studies.pairs import MapSettings
from latlas.studies.routes import Times, explained, time_routes

SHAPE = (1, 4, 6)
IDENTITY = torch.eye(3, dtype=torch.float64)
CLOSE = {"rel": 1e-4}


def square(values: Tensor) -> float:
    return float(np.square(values.numpy()).mean())


# There and back


def test_there_and_back_an_exact_map_loses_nothing(world: Any, basis: Tensor) -> None:
    result = compare(world.autoencoder(IDENTITY), world.autoencoder(basis, 0.7), world.images())
    assert result.round_trip is not None
    assert result.round_trip.mean == pytest.approx(result.R.mean, **CLOSE)
    assert result.to_json()["round_trip_over_R"] == pytest.approx(1.0, **CLOSE)


def test_what_a_narrow_target_has_no_room_for_does_not_come_back(world: Any) -> None:
    """Two variables hold two factors: what comes back of the third is its regression on the others, which are independent."""
    narrow = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    result = compare(world.autoencoder(IDENTITY), world.autoencoder(narrow), world.images())
    third = world.factors[400:, 2] - world.factors[:400, 2].mean()
    expected = square(world.residual[400:]) + square(torch.outer(third, world.drawing[2]))
    assert result.round_trip is not None
    assert result.round_trip.mean == pytest.approx(expected, rel=0.05)  # chance correlations of 400 factors


def test_where_pairs_do_not_suffice_for_the_way_back_there_is_none(world: Any) -> None:
    wide = world.autoencoder(torch.randn(3, 9, generator=torch.Generator().manual_seed(3), dtype=torch.float64))
    result = compare(world.autoencoder(IDENTITY), wide, world.images(), fit_on=torch.arange(6))
    assert result.round_trip is None
    assert result.to_json()["round_trip"] is None
    assert result.M.mean == pytest.approx(result.target_R.mean, **CLOSE)


# Shares


def test_the_recovered_share_runs_from_the_mean_code_to_the_targets_own(world: Any, basis: Tensor) -> None:
    exact = compare(world.autoencoder(IDENTITY), world.autoencoder(basis), world.images())
    assert exact.recovered_share == pytest.approx(1.0, abs=1e-4)
    assert recovered_share(3.0, mean_code=5.0, best=1.0) == 0.5
    assert recovered_share(6.0, mean_code=5.0, best=1.0) == -0.25
    assert recovered_share(5.0, mean_code=5.0, best=4.9999) is None


def test_an_error_that_is_rounding_has_no_multiples() -> None:
    assert share_of(2.0, 1.0, 5.0) == 2.0
    assert share_of(2.0, 1e-12, 5.0) is None


def test_r2_is_that_of_scikit_learn_on_test_images(world: Any, basis: Tensor) -> None:
    from sklearn.metrics import r2_score

    result = compare(world.autoencoder(IDENTITY), world.autoencoder(basis), world.images(), ridge=100.0)
    moved = result.relocate(world.factors[400:].float()).double()
    expected = r2_score((world.factors[400:] @ basis).numpy(), moved.numpy(), multioutput="raw_values")
    np.testing.assert_allclose(result.r2, expected, atol=1e-5)
    assert explained(torch.zeros(3, 2), torch.tensor([[1.0, 0.0], [1.0, 2.0], [1.0, 4.0]])) == (None, pytest.approx(-1.5))


# Likeness of images


def test_every_route_has_its_psnr(world: Any, basis: Tensor) -> None:
    result = compare(world.autoencoder(IDENTITY), world.autoencoder(basis), world.images())
    errors = world.residual[400:].square().mean(dim=1)
    assert result.routes["M"].psnr.mean == pytest.approx(float((-10 * errors.log10()).mean()), **CLOSE)
    assert result.R.deviation == pytest.approx(float(errors.std()), **CLOSE)
    assert set(result.to_json()["quality"]) == {
        "R", "M", "target_R", "decode_encode", "shuffled", "mean_code", "no_map", "round_trip",
    }  # fmt: skip
    assert result.routes["M"].ssim is None  # 4 x 6 pixels


def test_a_perceptual_distance_and_features_are_asked_where_given(world: Any, basis: Tensor) -> None:
    source, target, images = world.autoencoder(IDENTITY), world.autoencoder(basis), world.images()

    def brightness(found: Tensor, originals: Tensor) -> Tensor:
        return (found - originals).mean(dim=(1, 2, 3)).abs()

    result = compare(source, target, images, features=RawPixels(SHAPE), perceptual=brightness)
    record = result.to_json()
    assert record["features"] == "Fréchet distance (raw pixels)"
    own = result.routes["M"]
    assert own.perceptual is not None
    assert own.perceptual.mean == pytest.approx(float(world.residual[400:].mean(dim=1).abs().mean()), rel=1e-3)
    assert own.frechet is not None
    drawn = as_file(target.decode((world.factors[400:] @ basis).float()))
    expected = frechet_distance(drawn.flatten(1), as_file(images.slice(400, 500).tensor()).flatten(1), resamples=0).value
    assert own.frechet.value == pytest.approx(expected, rel=1e-3)
    assert result.routes["target_R"].frechet is not None
    assert result.routes["mean_code"].frechet is None
    json.dumps(record, allow_nan=False)


# Time


def test_times_are_medians_of_what_each_step_takes(world: Any) -> None:
    """Steps of known length, in turn: the first batch, which warms up, is not counted."""
    import time

    calls: list[str] = []

    def slow(name: str, seconds: float, give: Tensor) -> Any:
        def work(batch: Tensor) -> Tensor:
            calls.append(name)
            time.sleep(seconds if len(calls) > 4 else 0.2)
            return give[: len(batch)]

        return work

    codes, pixels = torch.zeros(30, 3), torch.zeros(30, *SHAPE)
    settings: dict[str, Any] = {"image_shape": SHAPE, "latent_shape": (3,)}
    source = CallableModel(name="s", decode_with=slow("draw", 0.02, pixels), **settings)
    target = CallableModel(
        name="t", encode_with=slow("read", 0.03, codes), decode_with=slow("redraw", 0.01, pixels), **settings
    )
    found = time_routes(source, target, slow("carry", 0.005, codes), codes, size=10, rounds=3)
    assert calls == ["carry", "draw", "redraw", "read"] * 4
    assert (found.batch, found.rounds) == (10, 3)
    assert 0.015 <= found.by_map < 0.15
    assert 0.06 <= found.through_images < 0.19  # type: ignore[operator]
    assert found.to_json()["relocate_over_decode_encode"] == pytest.approx(
        found.relocate / (found.source_decode + found.target_encode)  # type: ignore[operator]
    )


def test_without_an_encoder_there_is_no_time_of_the_way_through_images() -> None:
    times = Times(batch=1, rounds=1, relocate=1.0, source_decode=2.0, target_encode=None, target_decode=3.0)
    record = times.to_json()
    assert (record["through_images_seconds"], record["by_map_over_through_images"]) == (None, None)
    assert record["relocate_share_of_by_map"] == 0.25


# Likeness of codes, and the yardstick


def test_codes_of_one_world_in_other_coordinates_are_alike(world: Any, basis: Tensor) -> None:
    found = compare(world.autoencoder(IDENTITY), world.autoencoder(basis), world.images()).similarity
    assert found is not None
    assert found.mean_cca == pytest.approx(1.0, abs=1e-6)
    assert found.pairs == 100


def test_a_perceptron_undoes_what_is_bent_and_gains_nothing_where_nothing_is(world: Any) -> None:
    straight = world.autoencoder(IDENTITY)
    bent = CallableModel(
        name="bent",
        image_shape=SHAPE,
        latent_shape=(3,),
        encode_with=lambda images: torch.sinh(1.5 * straight.encode(images).mean),
        decode_with=lambda codes: straight.decode(torch.asinh(codes) / 1.5),
    )
    result = compare(bent, straight, world.images(), yardstick=True)
    assert result.yardstick is not None
    assert result.yardstick.M.mean < 0.6 * result.M.mean
    assert result.yardstick.L.mean < 0.2 * result.L.mean
    record = result.to_json()["yardstick"]
    assert record["M_over_linear"] == pytest.approx(result.yardstick.M.mean / result.M.mean)
    plain = compare(straight, straight, world.images(), yardstick=True, ridge=5.0)
    assert plain.yardstick is not None
    assert plain.yardstick.M.mean == pytest.approx(plain.target_R.mean, rel=1e-3)


# Spatial latent spaces


def spatial(channels: int, side: int, *, name: str, seed: int) -> CallableModel:
    """A patch of pixels is a code of its position: an orthonormal transform, cut off after some channels."""
    pixels = (12 // side) ** 2
    transform = torch.linalg.qr(torch.randn(pixels, pixels, generator=torch.Generator().manual_seed(seed))).Q[:, :channels]
    step = 12 // side

    def encode(images: Tensor) -> Tensor:
        return torch.einsum("npyx,pc->ncyx", F.pixel_unshuffle(images, step), transform)

    def decode(codes: Tensor) -> Tensor:
        return F.pixel_shuffle(torch.einsum("ncyx,pc->npyx", codes, transform), step)

    return CallableModel(
        name=name, image_shape=(1, 12, 12), latent_shape=(channels, side, side), encode_with=encode, decode_with=decode
    )


@pytest.fixture
def blots() -> ImageSet:
    coarse = torch.rand(200, 1, 4, 4, generator=torch.Generator().manual_seed(5))
    return ImageSet("blots", F.interpolate(coarse, size=(12, 12), mode="bilinear").clamp(0, 1))


@pytest.mark.parametrize("sides", [(6, 6), (6, 3), (3, 6)])
def test_between_spatial_spaces_that_hold_everything_nothing_is_lost(sides: tuple[int, int], blots: ImageSet) -> None:
    source, target = (spatial((12 // side) ** 2, side, name=f"{side}", seed=number) for number, side in enumerate(sides))
    result = compare(source, target, blots)
    assert isinstance(result.linear_map, SpatialMap)
    assert result.M.mean == pytest.approx(0.0, abs=1e-9)
    assert result.round_trip is not None
    assert result.round_trip.mean == pytest.approx(0.0, abs=1e-9)
    assert len(result.r2) == target.latent_shape[0]
    assert result.relocate(source.encode(blots.tensor()[:2]).mean).shape == (2, *target.latent_shape)
    json.dumps(result.to_json(), allow_nan=False)


def test_a_neighbourhood_helps_where_a_position_alone_does_not_suffice(blots: ImageSet) -> None:
    source, target = spatial(2, 6, name="a", seed=0), spatial(3, 6, name="b", seed=1)
    alone, near = (compare(source, target, blots, neighbourhood=size) for size in (1, 3))
    assert near.L.mean < 0.9 * alone.L.mean
    with_yardstick = compare(source, target, blots, neighbourhood=3, yardstick=True).yardstick
    assert with_yardstick is not None
    assert with_yardstick.L.mean < alone.L.mean  # it sees the neighbours too


def test_a_spatial_map_says_which_latents_it_joins(blots: ImageSet) -> None:
    source, target = spatial(4, 6, name="a", seed=0), spatial(4, 6, name="b", seed=1)
    object.__setattr__(target, "scaling", "scaled")  # as the adapters of diffusers say
    fitted = compare(source, target, blots).linear_map
    assert isinstance(fitted, SpatialMap)
    assert (fitted.source_scaling, fitted.target_scaling) == (None, "scaled")


def test_a_reduced_rank_is_the_rank_of_the_map(world: Any, basis: Tensor) -> None:
    result = compare(world.autoencoder(IDENTITY), world.autoencoder(basis), world.images(), kind="reduced-rank", rank=2)
    assert int(torch.linalg.matrix_rank(result.linear_map.weight)) == 2
    assert result.M.mean > result.target_R.mean
    assert result.provenance.settings["rank"] == 2


@pytest.mark.parametrize("way", ["to a vector", "from a vector"])
def test_a_spatial_code_beside_a_vector_is_one_long_vector(way: str, blots: ImageSet) -> None:
    grid = spatial(4, 6, name="grid", seed=0)
    flat = CallableModel(
        name="flat",
        image_shape=(1, 12, 12),
        latent_shape=(144,),
        encode_with=lambda images: images.flatten(1),
        decode_with=lambda codes: codes.unflatten(1, (1, 12, 12)),
    )
    source, target = (grid, flat) if way == "to a vector" else (flat, grid)
    result = compare(source, target, blots, ridge=1e-9)
    assert result.M.mean == pytest.approx(0.0, abs=1e-6)
    assert result.linear_map.weight.shape == (144, 144)


# What can go wrong


@pytest.mark.parametrize(
    ("shapes", "settings", "error", "words"),
    [
        (((4, 6, 6), (4, 6, 6)), {"kind": "orthogonal"}, SettingError, "maps are affine, got orthogonal"),
        (((4, 6, 6), (4, 6, 6)), {"neighbourhood": 2}, SettingError, "must be odd"),
        (((4, 6, 6), (4, 6, 6)), {"neighbourhood": 0}, SettingError, "must be odd"),
        (((4, 6, 6), (4, 6, 6)), {"ridge": "loo"}, SettingError, "a number or gcv, got loo"),
        (((4, 6, 6), (4, 4, 4)), {}, CodeShapeError, "one integer factor"),
        (((4, 6, 6), (8,)), {"neighbourhood": 3}, SettingError, "these have shapes 4x6x6 and 8"),
    ],
)
def test_settings_that_the_shapes_do_not_allow_are_refused(
    shapes: Any, settings: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        MapSettings(**settings).check(*shapes)


@pytest.mark.parametrize("side", ["source", "target"])
def test_a_model_that_gives_all_images_one_code_is_refused(side: str, world: Any) -> None:
    dead = CallableModel(
        name="dead",
        image_shape=SHAPE,
        latent_shape=(3,),
        encode_with=lambda images: torch.full((len(images), 3), 0.1),
        decode_with=world.autoencoder(IDENTITY).decode,
    )
    alive = world.autoencoder(IDENTITY)
    with pytest.raises(IllPosedError, match=r"dead gives all 400 images of .* the same code: its latent space has collapsed"):
        compare(*((dead, alive) if side == "source" else (alive, dead)), world.images())


def test_codes_and_distances_that_are_no_numbers_are_refused(world: Any) -> None:
    alive = world.autoencoder(IDENTITY)
    broken = CallableModel(
        name="broken",
        image_shape=SHAPE,
        latent_shape=(3,),
        encode_with=lambda images: torch.full((len(images), 3), math.nan),
        decode_with=alive.decode,
    )
    with pytest.raises(NonFiniteError, match="broken encodes image #0 of"):
        compare(alive, broken, world.images())
    with pytest.raises(NonFiniteError, match="perceptual distance returned NaN"):
        compare(alive, alive, world.images(), perceptual=lambda a, b: torch.full((len(a),), math.nan))


def test_a_brief_comparison_has_the_same_errors_and_neither_likeness_nor_times(world: Any, basis: Tensor) -> None:
    pair, images = (world.autoencoder(IDENTITY), world.autoencoder(basis, 0.7)), world.images()
    whole, brief = compare(*pair, images), compare(*pair, images, brief=True)
    for name in ("R", "L", "M", "target_R", "decode_encode", "shuffled", "mean_code", "no_map", "round_trip"):
        assert getattr(brief, name) == getattr(whole, name), name
    assert brief.times is None
    assert {route.psnr for route in brief.routes.values()} == {None}
    record = brief.to_json()
    assert record["times"] is None
    assert record["M"] == whole.to_json()["M"]
    page = render(comparison_report(brief, *pair))
    assert "PSNR" not in page
    assert "PSNR" in render(comparison_report(whole, *pair))
