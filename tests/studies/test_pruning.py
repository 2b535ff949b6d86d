"""Pruning as a study: what goes, what it is held at, what it costs, and the maps there and back; planted, every answer is known."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from latlas.base.errors import CapabilityError, CodeShapeError, IllPosedError, OutputExistsError, SettingError
from latlas.data.images import ImageSet
from latlas.encodings.encode import encode
from latlas.maps.folding import fold
from latlas.maps.linear import LinearMap
from latlas.maps.spatial_map import SpatialMap
from latlas.models.adapters.callables import CallableModel
from latlas.models.architectures.autoencoder_kl import AutoencoderKL
from latlas.models.architectures.dense import Dense
from latlas.models.architectures.registry import architecture
from latlas.models.loading import load_model
from latlas.models.pruning import PinnedModel
from latlas.models.vae import VAE
from latlas.samplers.fit import fit_sampler
from latlas.studies.diagnose import diagnose
from latlas.studies.pruning import TO_NEW, TO_OLD, PrunedModel, PruningErrors, prune

DEAD = (1, 4)
IMAGES = ImageSet("noise", torch.rand(160, 1, 12, 12, generator=torch.Generator().manual_seed(1)))
OTHERS = ImageSet("other noise", torch.rand(50, 1, 12, 12, generator=torch.Generator().manual_seed(2)))
SETTINGS: dict[str, dict[str, Any]] = {
    "dense": {"widths": (24, 12), "latent": 6},
    "conv": {"channels": (6, 10), "latent": 6},
    "resnet": {"scales": 2, "base_dim": 6, "fc_dim": 12, "latent": 6},
    "split": {"scales": 2, "base_dim": 6, "fc_dim": 12, "latent": 6},
    "draw": {"steps": 2, "latent": 3, "hidden": 16, "read": 3, "write": 3},
    "autoencoder-kl": {"latent": 6, "channels": (8, 12), "norm_groups": 4},
}


def planted(name: str, dead: tuple[int, ...] = DEAD, *, spread: float = 0.02) -> VAE:
    """A network whose means have variance 1 but for dead ones, which lie about 0.3 and vary by `spread` (a deviation)."""
    torch.manual_seed(3)
    model = VAE(architecture(name, **SETTINGS[name]), IMAGES.image_shape, name=f"planted {name}")
    head: Any = model.encoder.last if name == "autoencoder-kl" else model.encoder.head
    with torch.no_grad():
        if name == "draw":  # one head for both steps: variable v is output v % 3 of step v // 3
            head.weight[:3] *= 30.0
            for output in {variable % 3 for variable in dead}:
                head.weight[output] = 0.0
                head.bias[output] = 0.3
            return model
        axes = (0, 2, 3) if name == "autoencoder-kl" else (0,)
        means = model.encode(IMAGES.tensor()).mean
        for variable in range(6):
            deviation, centre = means[:, variable].std(), means[:, variable].mean()
            wanted, place = (spread, 0.3) if variable in dead else (1.0, 0.1 * variable)
            head.weight[variable] *= wanted / deviation
            head.bias[variable] = (head.bias[variable] - centre) * wanted / deviation + place
        assert float(model.encode(IMAGES.tensor()).mean.mean(dim=axes)[1]) == pytest.approx(0.3 if 1 in dead else 0.1, abs=1e-4)
    return model


def reconstructions_at_means(model: VAE, images: Tensor, means: Tensor, removed: tuple[int, ...]) -> Tensor:
    """By torch alone: encode, overwrite, decode."""
    with torch.no_grad():
        codes = model.encode(images).mean.clone()
        for variable in removed:
            codes[:, variable] = means[variable]
        return model.decode(codes)


def channel_means(model: VAE) -> Tensor:
    with torch.no_grad():
        codes = model.encode(IMAGES.tensor()).mean.double()
    return codes.mean(dim=tuple(axis for axis in range(codes.ndim) if axis != 1))


@pytest.fixture(scope="module")
def dense() -> PrunedModel:
    return prune(planted("dense"), IMAGES)


@pytest.mark.parametrize("name", [name for name in SETTINGS if name != "draw"])
def test_collapsed_variables_go_and_nothing_else_changes(name: str) -> None:
    model = planted(name)
    result = prune(model, IMAGES)
    assert (result.kept, result.removed, result.varying_by_position) == ((0, 2, 3, 5), DEAD, ())
    means = channel_means(model)
    assert result.constants == pytest.approx({variable: float(means[variable]) for variable in DEAD}, rel=1e-5)
    expected = reconstructions_at_means(model, IMAGES.tensor(), means, DEAD)
    with torch.no_grad():
        pruned = result.model.decode(result.model.encode(IMAGES.tensor()).mean)
    torch.testing.assert_close(pruned, expected, rtol=0, atol=1e-5)
    difference = float((pruned - expected).abs().max())
    assert result.errors.largest_output_difference == pytest.approx(difference, abs=5e-7)
    error = float((expected.double() - IMAGES.tensor()).square().mean())
    assert result.errors.at_constants == pytest.approx(error, rel=1e-6)
    assert result.errors.after == pytest.approx(error, rel=1e-5)


@pytest.mark.parametrize("name", [name for name in SETTINGS if name != "draw"])
def test_afterwards_a_diagnosis_finds_nothing_collapsed_and_the_same_kl(name: str) -> None:
    model = planted(name)
    result = prune(model, IMAGES)
    before, after = diagnose(model, IMAGES), diagnose(result.model, IMAGES)
    assert before.summary["collapsed"] == 2
    assert (after.summary["collapsed"], after.summary["variables"]) == (0, 4)
    kept = list(result.kept)
    np.testing.assert_allclose(after.latents.kl_nats, before.latents.kl_nats[kept], rtol=1e-5)
    assert after.summary["mse"] == pytest.approx(result.errors.after, rel=1e-9)
    with pytest.raises(IllPosedError, match="Nothing to prune: all 4 latent variables of planted"):
        prune(result.model, IMAGES)


def test_draw_loses_a_variable_of_every_step() -> None:
    model = planted("draw")
    result = prune(model, IMAGES)
    assert (result.kept, result.removed) == ((0, 2, 3, 5), DEAD)
    assert result.constants == pytest.approx({1: 0.3, 4: 0.3}, abs=1e-6)
    expected = reconstructions_at_means(model, IMAGES.tensor(), channel_means(model), DEAD)
    with torch.no_grad():
        pruned = result.model.decode(result.model.encode(IMAGES.tensor()).mean)
    torch.testing.assert_close(pruned, expected, rtol=0, atol=1e-5)  # constant from the start, so no step saw anything else
    assert diagnose(result.model, IMAGES).summary["collapsed"] == 0


def test_the_cost_is_measured_on_the_test_images_and_constants_on_the_others() -> None:
    model = planted("dense", spread=0.09)
    result = prune(model, IMAGES, test=OTHERS)
    assert (result.images, result.count, result.errors.images, result.errors.count) == ("noise", 160, "other noise", 50)
    means, images = channel_means(model), OTHERS.tensor()
    assert result.constants == pytest.approx({variable: float(means[variable]) for variable in DEAD}, rel=1e-5)
    with torch.no_grad():
        before = (model.decode(model.encode(images).mean).double() - images).square().flatten(1).mean(dim=1)
    after = (reconstructions_at_means(model, images, means, DEAD).double() - images).square().flatten(1).mean(dim=1)
    assert result.errors.before == pytest.approx(float(before.mean()), rel=1e-6)
    assert result.errors.after == pytest.approx(float(after.mean()), rel=1e-6)
    assert result.errors.relative_change == pytest.approx(float(after.mean() / before.mean()) - 1, rel=1e-2)
    paired = np.std((after - before).numpy(), ddof=1) / np.sqrt(50)
    assert result.errors.difference_standard_error == pytest.approx(paired, rel=1e-2)
    assert result.provenance.made_from["test"] == OTHERS.content_hash


# A number of variables, by gain; in a world whose factors draw the most, less, and least


def of_factors(world: Any, *, latent: int = 5) -> CallableModel:
    """Variables 0, 2 and 4 are the third, first and second factor; 1 and 3 are dead."""
    wiring = torch.zeros(3, latent, dtype=torch.float64)
    wiring[[2, 0, 1], [0, 2, 4]] = 1.0
    return CallableModel(
        name="factors",
        image_shape=(1, 4, 6),
        latent_shape=(latent,),
        encode_with=lambda images: (world.factors_of(images) @ wiring).float(),
        decode_with=lambda codes: (0.5 + codes.double() @ wiring.T @ world.drawing).float().unflatten(1, (1, 4, 6)),
        fingerprint="weights of factors",
    )


def lost(world: Any, *factors: int) -> float:
    """What the images lose if these factors are held at their means: the residual, and the variance of what they draw."""
    centred = world.factors - world.factors.mean(dim=0)
    missing = centred[:, list(factors)] @ world.drawing[list(factors)]
    return float((world.residual + missing).square().mean())


def test_the_largest_gains_are_kept_and_the_cost_is_the_variance_of_what_goes(world: Any) -> None:
    result = prune(of_factors(world), world.images(), keep=2)
    assert (result.kept, result.removed, result.keep) == ((2, 4), (0, 1, 3), 2)
    assert result.errors.before == pytest.approx(lost(world), rel=1e-4)
    assert result.errors.after == pytest.approx(lost(world, 2), rel=1e-4)
    assert result.errors.after > 1.05 * result.errors.before


def test_the_curve_falls_from_the_mean_image_to_the_whole_model(world: Any) -> None:
    result = prune(of_factors(world), world.images())
    assert [point.kept for point in result.curve] == [0, 1, 2, 3, 4, 5]
    expected = [lost(world, 0, 1, 2), lost(world, 1, 2), lost(world, 2), lost(world), lost(world), lost(world)]
    np.testing.assert_allclose([point.error for point in result.curve], expected, rtol=1e-4)
    assert result.curve[3].error == pytest.approx(result.errors.after, rel=1e-9)


def test_a_model_of_another_maker_is_pruned_in_memory_and_not_written(world: Any, tmp_path: Path) -> None:
    result = prune(of_factors(world), world.images())
    assert isinstance(result.model, PinnedModel)
    assert result.kept == (0, 2, 4)
    assert result.errors.largest_output_difference < 1e-6
    with pytest.raises(CapabilityError, match="factors is of no architecture of latlas: pruned, it cannot be written"):
        result.save_pretrained(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_more_than_the_active_ones_may_be_kept(world: Any) -> None:
    result = prune(of_factors(world), world.images(), keep=4)
    assert result.kept == (0, 1, 2, 4)
    assert result.errors.after == pytest.approx(lost(world), rel=1e-4)


def test_what_is_constant_goes_first_whatever_its_gain(world: Any) -> None:
    """A third dead variable lies at 4 and draws the first factor: set to 0, it would be missed most of all."""
    base = of_factors(world)
    assert base.encode_with is not None
    assert base.decode_with is not None
    far = torch.tensor([0.0, 4.0, 0.0, 0.0, 0.0])
    encode_with, decode_with = base.encode_with, base.decode_with

    def decode(codes: Tensor) -> Tensor:
        moved = codes.clone()
        moved[:, 2] += 4.0 - codes[:, 1]
        return decode_with(moved)

    model = replace(base, encode_with=lambda images: encode_with(images) + far, decode_with=decode)
    result = prune(model, world.images(), keep=1)
    assert result.gain.order()[0] == 1
    assert result.order == (2, 4, 0, 1, 3)
    assert (result.kept, result.constants[1]) == ((2,), 4.0)
    assert result.errors.after == pytest.approx(lost(world, 1, 2), rel=1e-4)


def test_a_long_curve_is_thinned_out_and_keeps_the_point_of_the_model() -> None:
    torch.manual_seed(0)
    model = VAE(Dense(widths=(70,), latent=120), IMAGES.image_shape)
    with torch.no_grad():
        model.encoder.head.weight[:120] *= 30.0
    counts = [point.kept for point in prune(model, OTHERS, keep=101).curve]
    assert len(counts) <= 50
    assert (counts[0], counts[-1]) == (0, 120)
    assert 101 in counts
    assert counts == sorted(set(counts))


# The maps


def test_the_maps_select_and_complete(dense: PrunedModel) -> None:
    model = planted("dense")
    codes = encode(model, OTHERS)
    assert isinstance(dense.to_new, LinearMap)
    assert isinstance(dense.to_old, LinearMap)
    there = dense.to_new.apply(codes.mean)
    assert there.equal(codes.mean[:, [0, 2, 3, 5]])
    back = dense.to_old.apply(there)
    assert back[:, [0, 2, 3, 5]].equal(there)
    for variable, constant in dense.constants.items():
        assert back[:, variable].unique().tolist() == pytest.approx([constant], rel=1e-6)
    torch.testing.assert_close(dense.to_new.apply(back), there)
    dense.to_new.check_source(codes.provenance, name="planted dense")
    with pytest.raises(CodeShapeError, match="This map takes codes of planted dense, pruned"):
        dense.to_old.check_source(codes.provenance, name="planted dense")


@pytest.mark.parametrize("name", ["dense", "autoencoder-kl"])
def test_folded_into_the_original_the_map_back_is_the_pruned_decoder(name: str) -> None:
    model = planted(name)
    result = prune(model, IMAGES)
    codes = result.model.sample_codes(8, torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(fold(result.to_old, model).decode(codes), result.model.decode(codes), rtol=0, atol=1e-5)
    with pytest.raises(CodeShapeError):
        fold(result.to_old, result.model)


# Spatial latents


def test_channels_have_maps_of_their_own_that_serve_every_grid() -> None:
    result = prune(planted("autoencoder-kl"), IMAGES)
    assert isinstance(result.to_new, SpatialMap)
    assert isinstance(result.to_old, SpatialMap)
    codes = torch.randn(2, 6, 5, 7, generator=torch.Generator().manual_seed(0))
    there = result.to_new.apply(codes)
    assert there.equal(codes[:, [0, 2, 3, 5]])
    assert result.to_old.apply(there)[:, 4].unique().tolist() == pytest.approx([result.constants[4]], rel=1e-6)


def test_a_channel_that_differs_from_place_to_place_is_no_constant(monkeypatch: pytest.MonkeyPatch) -> None:
    """It tells nothing of the images, but one number cannot stand for it: it stays, and is named."""
    model = planted("autoencoder-kl")
    assert isinstance(model.architecture, AutoencoderKL)
    slope = torch.zeros(6, 6, 6)
    slope[4] = torch.linspace(-1, 1, 6)
    plain = model.encoder.forward
    monkeypatch.setattr(model.encoder, "forward", lambda images: (plain(images)[0] + slope, plain(images)[1]))
    result = prune(model, IMAGES)
    assert (result.kept, result.removed, result.varying_by_position) == ((0, 2, 3, 4, 5), (1,), (4,))
    assert prune(model, IMAGES, keep=1).varying_by_position == ()


# Folders


def test_the_folder_is_a_model_with_its_maps_and_its_origin(dense: PrunedModel, tmp_path: Path) -> None:
    model = planted("dense")
    dense.save_pretrained(tmp_path / "small")
    loaded = load_model(tmp_path / "small")
    assert isinstance(loaded, VAE)
    assert (loaded.name, loaded.latent_shape, loaded.fingerprint) == ("planted dense, pruned", (4,), dense.model.fingerprint)
    assert loaded.provenance is not None
    assert loaded.provenance.made_from == {"model": model.fingerprint, "images": IMAGES.content_hash}
    assert loaded.provenance.settings["removed"] == "1, 4"
    new, old = (LinearMap.from_pretrained(tmp_path / "small" / name) for name in (TO_NEW, TO_OLD))
    codes = encode(loaded, OTHERS).mean
    assert new.apply(old.apply(codes)).equal(codes)
    assert (old.source_fingerprint, old.target_fingerprint) == (loaded.fingerprint, model.fingerprint)
    with pytest.raises(OutputExistsError):
        dense.save_pretrained(tmp_path / "small")


def test_a_sampler_of_the_original_does_not_serve_the_pruned_model(dense: PrunedModel) -> None:
    sampler = fit_sampler("gaussian", encode(planted("dense"), IMAGES))
    with pytest.raises(CodeShapeError):
        sampler.check_fits(dense.model)


def test_the_record_is_json_and_whole(dense: PrunedModel) -> None:
    record = json.loads(json.dumps(dense.to_json(), allow_nan=False))
    assert (record["kept"], record["removed"], record["variables"]) == ([0, 2, 3, 5], [1, 4], 6)
    assert record["errors"]["before"] == dense.errors.before
    assert [row["becomes"] for row in record["table"]] == [0, None, 1, 2, None, 3]
    assert [row["verdict"] for row in record["table"]].count("collapsed") == 2
    assert record["table"][1]["constant"] == pytest.approx(0.3, abs=1e-4)
    assert [point["kept"] for point in record["curve"]] == list(range(7))


# What cannot be done


def test_with_nothing_to_prune_it_says_so() -> None:
    with pytest.raises(IllPosedError, match="Nothing to prune: all 6 latent variables of planted dense are in use on noise"):
        prune(planted("dense", dead=()), IMAGES)


@pytest.mark.parametrize("keep", [None, 2])
def test_with_nothing_active_it_says_so(keep: int | None) -> None:
    with pytest.raises(IllPosedError, match="None of the 6 latent variables of planted dense is active on noise"):
        prune(planted("dense", dead=(0, 1, 2, 3, 4, 5)), IMAGES, keep=keep)


@pytest.mark.parametrize("keep", [0, 6, 7, -1])
def test_a_number_that_keeps_all_or_none_is_refused(keep: int) -> None:
    with pytest.raises(SettingError, match=f"has 6 latent variables: keep 1 to 5 of them, got {keep}"):
        prune(planted("dense"), IMAGES, keep=keep)


def test_one_image_tells_nothing_of_variation() -> None:
    with pytest.raises(IllPosedError, match="has 1 image"):
        prune(planted("dense"), IMAGES.slice(0, 1))


@pytest.mark.parametrize(("after", "change"), [(0.0, 0.0), (0.1, math.inf)])
def test_an_error_that_was_0_changes_by_infinity_or_not_at_all(after: float, change: float) -> None:
    errors = PruningErrors(
        images="some",
        count=2,
        before=0.0,
        at_constants=after,
        after=after,
        difference_standard_error=0.01,
        largest_output_difference=0.0,
    )
    assert errors.relative_change == change
    assert math.isnan(errors.relative_standard_error)
