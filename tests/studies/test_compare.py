"""Comparison: between two models of one linear world a linear map loses nothing, and each bound has its closed form."""

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from latlas.base.errors import CapabilityError, IllPosedError, ImageFormatError, SettingError, UnknownNameError
from latlas.base.provenance import Provenance
from latlas.data.images import ImageSet
from latlas.models.adapters.callables import CallableModel
from latlas.studies import routes
from latlas.studies.bounds import ratio
from latlas.studies.compare import compare
from latlas.studies.routes import Error, through_images
from latlas.supports.sectors import Sectors
from latlas.supports.support_set import SupportSet

CLOSE = {"rel": 1e-4}  # codes and images travel in float32
SHAPE = (1, 4, 6)
IDENTITY = torch.eye(3, dtype=torch.float64)


def square(values: Tensor) -> float:
    return float(np.square(values.numpy()).mean())


def test_where_a_linear_map_is_exact_it_loses_nothing(world: Any, basis: Tensor) -> None:
    """M is the target's own error, which is the residual; L is 0; the mean code adds what the factors draw."""
    source, target = world.autoencoder(IDENTITY, name="old"), world.autoencoder(basis, 0.7, name="new")
    result = compare(source, target, world.images())
    held_out = slice(400, 500)
    residual = square(world.residual[held_out])
    for error in (result.R, result.M, result.target_R, result.decode_encode):
        assert error.mean == pytest.approx(residual, **CLOSE)
    assert result.L.mean == pytest.approx(0, abs=1e-10)
    torch.testing.assert_close(result.linear_map.weight, basis, rtol=1e-4, atol=1e-5)
    middle = world.factors[:400].mean(dim=0)
    expected = residual + square((world.factors[held_out] - middle) @ world.drawing)
    assert result.mean_code.mean == pytest.approx(expected, **CLOSE)
    codes = world.factors[held_out] @ basis
    assert result.target_variance == pytest.approx(codes.numpy().var(axis=0).mean(), **CLOSE)
    # The target reads the source's codes, which are the factors, in its own coordinates.
    misread = (world.factors[held_out] - 0.7) @ torch.linalg.inv(basis) - world.factors[held_out]
    assert result.no_map is not None
    assert result.no_map.mean == pytest.approx(residual + square(misread @ world.drawing), **CLOSE)
    assert (result.source, result.target, result.images) == ("old", "new", "world[400:500]")
    assert result.fitted_on == "world[0:400]"


def test_a_shuffled_map_is_no_better_than_the_mean_code(world: Any, basis: Tensor) -> None:
    result = compare(world.autoencoder(IDENTITY), world.autoencoder(basis), world.images())
    assert result.shuffled.mean == pytest.approx(result.mean_code.mean, rel=0.05)  # 400 pairs leave a little chance
    assert result.shuffled.mean != result.mean_code.mean


@pytest.mark.parametrize("noise", [0.0, 0.3, 1.0])
def test_bounds_enclose_the_map(noise: float, world: Any, basis: Tensor) -> None:
    """A target whose codes are partly chance: the map is worse than the target's own code, better than none."""
    exact = world.autoencoder(basis)

    def noisy(images: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(round(float(images.double().sum())))
        codes = exact.encode(images).mean
        return codes + noise * torch.randn(codes.shape, generator=generator)

    source = CallableModel(
        name="noisy", image_shape=SHAPE, latent_shape=(3,), encode_with=noisy, decode_with=exact.decode, fingerprint="n"
    )
    result = compare(source, exact, world.images())
    assert result.target_R.mean <= result.M.mean * (1 + 1e-6)
    assert result.M.mean < result.shuffled.mean
    assert result.M.mean < result.mean_code.mean
    assert (result.M.mean > 1.05 * result.target_R.mean) == (noise > 0)
    assert (result.L.mean > 1e-6) == (noise > 0)


@pytest.mark.parametrize("width", [2, 5])
def test_between_other_sizes_there_is_no_doing_without_a_map(width: int, world: Any) -> None:
    """Two variables hold two of the three factors; five hold all, some twice."""
    generator = torch.Generator().manual_seed(3)
    other = world.autoencoder(torch.randn(3, width, generator=generator, dtype=torch.float64), name="other")
    result = compare(world.autoencoder(IDENTITY), other, world.images())
    assert result.no_map is None
    assert result.to_json()["no_map"] is None
    assert result.to_json()["M_over_no_map"] is None
    assert result.M.mean == pytest.approx(result.target_R.mean, **CLOSE)  # what the target has no room for is lost in both
    back = compare(other, world.autoencoder(IDENTITY), world.images())
    assert (back.M.mean == pytest.approx(back.target_R.mean, **CLOSE)) == (width == 5)


# What it is fitted and measured on


def test_test_images_of_their_own_leave_all_others_to_the_fit(world: Any, basis: Tensor) -> None:
    images = world.images()
    result = compare(world.autoencoder(IDENTITY), world.autoencoder(basis), images, test=images.slice(0, 50))
    assert result.linear_map.evidence["pairs"] == 500
    assert result.images == "world[0:50]"
    assert result.R.mean == pytest.approx(square(world.residual[:50]), **CLOSE)
    assert result.provenance.made_from["test"] == images.slice(0, 50).content_hash


def test_a_map_can_be_fitted_on_chosen_images(world: Any, basis: Tensor) -> None:
    rows = torch.tensor([3, 141, 59, 26, 5])
    result = compare(world.autoencoder(IDENTITY), world.autoencoder(basis), world.images(), fit_on=rows)
    assert result.linear_map.evidence["pairs"] == 5
    assert result.fitted_on == "world[0:400][5 chosen]"
    assert result.M.mean == pytest.approx(result.target_R.mean, **CLOSE)  # five points fix a map of three variables


def test_a_map_can_be_fitted_on_a_support_set(world: Any, basis: Tensor) -> None:
    members = world.images().take(torch.arange(100, 108), name="Support Set of world")
    support = SupportSet(
        images=members,
        indices=torch.arange(100, 108),
        codes=torch.zeros(8, 3),
        sector=torch.arange(8),
        sectors=Sectors(variables=(0, 1, 2), threshold=0.0),
        occupancy=torch.ones(8, dtype=torch.int64),
        model="planted",
        chosen_from="world",
        provenance=Provenance(made_by="test"),
    )
    result = compare(world.autoencoder(IDENTITY), world.autoencoder(basis), world.images(), fit_on=support)
    assert result.fitted_on == "Support Set of world"
    assert result.linear_map.evidence["pairs"] == 8


def test_the_kind_and_the_ridge_are_those_of_the_map(world: Any, basis: Tensor) -> None:
    source, target = world.autoencoder(IDENTITY), world.autoencoder(basis)
    orthogonal = compare(source, target, world.images(), kind="orthogonal")
    assert orthogonal.linear_map.kind == "orthogonal"
    assert orthogonal.M.mean > 1.01 * orthogonal.target_R.mean  # the planted basis is no rotation
    ridged = compare(source, target, world.images(), ridge=50.0)
    assert ridged.linear_map.evidence["ridge"] == 50.0
    assert ridged.L.mean > 1e-4
    moved = ridged.linear_map.apply(world.factors[400:].float()).double()
    assert ridged.L.mean == pytest.approx(square(moved - world.factors[400:] @ basis), rel=1e-3)  # per variable, not summed


def test_the_seed_decides_the_shuffle_and_nothing_else(world: Any, basis: Tensor) -> None:
    results = [compare(world.autoencoder(IDENTITY), world.autoencoder(basis), world.images(), seed=s) for s in (0, 0, 1)]
    assert results[0].shuffled == results[1].shuffled
    assert results[0].shuffled != results[2].shuffled
    assert results[0].M == results[2].M


# Numbers and records


def test_an_error_is_a_mean_with_its_standard_error(generator: torch.Generator) -> None:
    errors = torch.rand(50, generator=generator, dtype=torch.float64)
    ours = Error.of(errors)
    assert ours.mean == pytest.approx(errors.numpy().mean(), rel=1e-12)
    assert ours.standard_error == pytest.approx(errors.numpy().std(ddof=1) / np.sqrt(50), rel=1e-12)
    assert math.isnan(Error.of(errors[:1]).standard_error)


def test_the_record_holds_every_error_and_the_ratios_that_make_it_readable(world: Any, basis: Tensor) -> None:
    result = compare(world.autoencoder(IDENTITY), world.autoencoder(basis), world.images())
    record = result.to_json()
    json.dumps(record, allow_nan=False)
    for name in ("R", "L", "M", "target_R", "decode_encode", "shuffled", "mean_code", "no_map"):
        assert record[name] == getattr(result, name).mean
        assert record["standard_errors"][name] == getattr(result, name).standard_error
    for name in ("target_R", "decode_encode", "shuffled", "mean_code", "no_map"):
        assert record[f"M_over_{name}"] == pytest.approx(result.M.mean / getattr(result, name).mean)
    assert record["L_over_target_variance"] == pytest.approx(result.L.mean / result.target_variance)
    assert record["map"]["kind"] == "affine"
    assert record["map"]["pairs"] == 400


def test_models_without_any_error_still_have_a_record() -> None:
    """A share of nothing is undefined and not a ZeroDivisionError."""
    codes = torch.rand(20, 24, generator=torch.Generator().manual_seed(0))
    identity = CallableModel(
        name="identity",
        image_shape=SHAPE,
        latent_shape=(24,),
        encode_with=lambda images: images.flatten(1),
        decode_with=lambda z: z.unflatten(1, SHAPE),
    )
    images = ImageSet("noise", codes.unflatten(1, SHAPE))
    record = compare(identity, identity, images, ridge=1e-3).to_json()
    assert (record["target_R"], record["M_over_target_R"], record["M_over_no_map"]) == (0.0, None, None)
    json.dumps(record, allow_nan=False)
    assert ratio(1.0, 4.0) == 0.25


def test_the_way_through_images_is_decoding_and_encoding_in_batches(
    world: Any, basis: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "images_at_once", lambda _: 4)  # two batches and a remainder
    source, target = world.autoencoder(IDENTITY), world.autoencoder(basis, 0.7)
    codes = world.factors[:10].float()
    found = through_images(source, target, codes)
    torch.testing.assert_close(found, (world.factors[:10] @ basis + 0.7).float(), rtol=1e-4, atol=1e-4)
    assert not torch.is_inference_mode_enabled()
    assert not found.is_inference()


# What can go wrong


def test_models_that_lack_a_half_are_told_which(world: Any) -> None:
    whole = world.autoencoder(IDENTITY)
    no_decoder = CallableModel(name="half", image_shape=SHAPE, latent_shape=(3,), encode_with=whole.encode_with)
    no_encoder = CallableModel(name="half", image_shape=SHAPE, latent_shape=(3,), decode_with=whole.decode_with)
    with pytest.raises(CapabilityError, match="A comparison needs a decoder, which half lacks"):
        compare(whole, no_decoder, world.images())
    with pytest.raises(CapabilityError, match="A comparison needs an encoder, which half lacks"):
        compare(no_encoder, whole, world.images())


def test_images_that_do_not_fit_or_suffice_are_refused(world: Any, basis: Tensor) -> None:
    source, target = world.autoencoder(IDENTITY), world.autoencoder(basis)
    with pytest.raises(ImageFormatError, match="planted takes images of 1x4x6"):
        compare(source, target, ImageSet("wide", torch.zeros(20, 1, 4, 7)))
    with pytest.raises(SettingError, match=r"has 1 images: too few to hold a fifth out\. Give test images"):
        compare(source, target, world.images().slice(0, 1))
    with pytest.raises(IllPosedError, match="No images to fit on were given"):
        compare(source, target, world.images(), fit_on=torch.tensor([], dtype=torch.int64))
    with pytest.raises(IllPosedError, match="Give at least 4 pairs, or a ridge"):
        compare(source, target, world.images(), fit_on=torch.tensor([0, 1, 2]))


def never_encodes(image_shape: tuple[int, int, int] = SHAPE, name: str = "idle") -> CallableModel:
    def refuse(_: Tensor) -> Tensor:
        raise AssertionError("work was done before the mistake was told")

    return CallableModel(name=name, image_shape=image_shape, latent_shape=(3,), encode_with=refuse, decode_with=refuse)


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"kind": "afine"}, UnknownNameError, "Did you mean 'affine'"),
        ({"kind": "orthogonal", "ridge": 1.0}, SettingError, "Leave them out, or fit an affine map"),
        ({"ridge": -1.0}, SettingError, "finite number of at least 0, got -1.0"),
        ({"ridge": float("nan")}, SettingError, "finite number of at least 0, got nan"),
        ({"ridge": float("inf")}, SettingError, "finite number of at least 0, got inf"),
    ],
)
def test_settings_are_refused_before_any_work(settings: dict[str, Any], error: type[Exception], words: str, world: Any) -> None:
    with pytest.raises(error, match=words):
        compare(never_encodes(), never_encodes(), world.images(), **settings)


def test_images_are_refused_before_any_work(world: Any) -> None:
    images = world.images()
    wide = ImageSet("wide", torch.zeros(20, 1, 4, 7))
    other = never_encodes((3, 8, 8), name="coloured")
    words = r"idle takes images of 1x4x6 and coloured of 3x8x8 .*one image set\. Compare models of one image shape"
    with pytest.raises(ImageFormatError, match=words):
        compare(never_encodes(), other, images)
    with pytest.raises(ImageFormatError, match=r"idle takes images of 1x4x6 .*, wide has 1x4x7"):
        compare(never_encodes(), never_encodes(), images, test=wide)
    for given in ({"images": images, "test": images.slice(0, 1)}, {"images": images.slice(0, 5)}):
        with pytest.raises(IllPosedError, match=r"has 1 image to measure on; .*at least 2\. Give more test images"):
            compare(never_encodes(), never_encodes(), **given)


def test_the_provenance_holds_all_that_decided_the_result(world: Any, basis: Tensor) -> None:
    source, target = world.autoencoder(IDENTITY, name="old"), world.autoencoder(basis, name="new")
    images, rows = world.images(), torch.arange(0, 300, 2)
    made = compare(source, target, images, fit_on=rows, ridge=0.5, seed=3).to_json()["provenance"]
    assert made["seed"] == 3
    assert {name: value for name, value in made["settings"].items() if value} == {
        "kind": "affine",
        "ridge": 0.5,
        "fit_on": "150 chosen images",
    }
    assert made["made_from"] == {
        "source": "weights of old",
        "target": "weights of new",
        "fitted_on": images.take(rows).content_hash,
        "test": images.slice(400, 500).content_hash,
    }
    whole = compare(source, target, images)
    assert whole.provenance.settings["fit_on"] == "all"
    assert whole.linear_map.source_fingerprint == "weights of old"
    assert whole.linear_map.target_fingerprint == "weights of new"
