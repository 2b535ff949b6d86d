"""Diagnosis: of a model whose alive and dead variables are planted, every number and every word is known."""

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from latlas.base.errors import CapabilityError, IllPosedError, ImageFormatError, SettingError
from latlas.data.images import ImageSet
from latlas.measurements.latents import COLLAPSE_RULES
from latlas.models.adapters.callables import CallableModel
from latlas.studies.diagnose import Diagnosis, diagnose

SHAPE, PIXELS, N = (1, 4, 6), 24, 500
# Five variables: the first, third and fifth carry the three factors; the second and fourth are dead.
ALIVE, DEAD, LATENT = [0, 2, 4], [1, 3], 5
POSTERIOR_VARIANCE = torch.tensor([0.1, 1.0, 0.2, 0.98, 0.05], dtype=torch.float64)


def planted(world: Any, *, dead_reach: float = 0.0, posterior: bool = True, name: str = "planted") -> CallableModel:
    """The dead variables' means are tiny functions of the image; they draw `dead_reach` of the first factor."""
    wiring = torch.zeros(3, LATENT, dtype=torch.float64)
    wiring[torch.arange(3), ALIVE] = 1.0
    drawing = torch.zeros(LATENT, PIXELS, dtype=torch.float64)
    drawing[ALIVE] = world.drawing
    drawing[DEAD] = dead_reach * world.drawing[0]

    def encode(images: Tensor) -> Any:
        factors = world.factors_of(images)
        mean = factors @ wiring
        mean[:, DEAD] = 0.01 * factors[:, :1]
        log_variance = POSTERIOR_VARIANCE.log().expand(mean.shape)
        return (mean.float(), log_variance.float()) if posterior else mean.float()

    return CallableModel(
        name=name,
        image_shape=SHAPE,
        latent_shape=(LATENT,),
        encode_with=encode,
        decode_with=lambda codes: (0.5 + codes.double() @ drawing).float().unflatten(1, SHAPE),
        fingerprint="planted weights",
    )


@pytest.fixture
def sheet(world: Any) -> Diagnosis:
    return diagnose(planted(world), world.images())


def means(world: Any) -> np.ndarray:
    mean = np.zeros((N, LATENT))
    mean[:, ALIVE] = world.factors.numpy()
    mean[:, DEAD] = 0.01 * world.factors.numpy()[:, :1]
    return mean


# The table


def test_the_table_holds_the_planted_moments(sheet: Diagnosis, world: Any) -> None:
    mean, variance = means(world), POSTERIOR_VARIANCE.numpy()
    kl = 0.5 * (np.square(mean).mean(axis=0) + variance - np.log(variance) - 1)
    expected = {
        "variable": np.arange(LATENT),
        "mean": mean.mean(axis=0),
        "variance_of_means": mean.var(axis=0),
        "mean_posterior_variance": variance,
        "variance_law": mean.var(axis=0) + variance,
        "kl_nats": kl,
    }
    for name, values in expected.items():
        np.testing.assert_allclose([row[name] for row in sheet.table], values, rtol=1e-4, atol=1e-6, err_msg=name)
    assert (sheet.model, sheet.images, sheet.count) == ("planted", "world", N)


def test_alive_and_dead_are_told_apart_with_the_rules_that_say_so(sheet: Diagnosis) -> None:
    assert [row["verdict"] for row in sheet.table] == ["active", "collapsed", "active", "collapsed", "active"]
    for row in sheet.table:
        assert row["collapsed_by"] == (list(COLLAPSE_RULES) if row["variable"] in DEAD else [])


def test_gains_are_the_drawings_of_the_factors_and_exactly_0_of_the_dead(sheet: Diagnosis, world: Any) -> None:
    """The residual is at right angles to every drawing, so the gain of z_i is mean z_i^2 |a_i|^2 / pixels."""
    strength = np.square(world.drawing.numpy()).sum(axis=1) / PIXELS
    growth = np.square(world.factors.numpy()) * strength
    table = sheet.table
    np.testing.assert_allclose([table[i]["gain"] for i in ALIVE], growth.mean(axis=0), rtol=1e-4)
    standard = growth.std(axis=0, ddof=1) / np.sqrt(N)
    np.testing.assert_allclose([table[i]["gain_standard_error"] for i in ALIVE], standard, rtol=1e-3)
    assert [table[i]["gain"] for i in DEAD] == [0.0, 0.0]
    assert sheet.gain.order()[:3] == ALIVE


def test_the_summary_is_of_the_whole_model(sheet: Diagnosis, world: Any) -> None:
    summary, mean = sheet.summary, means(world)
    assert (summary["variables"], summary["active"], summary["collapsed"]) == (5, 3, 2)
    assert set(summary["collapsed_by_rule"].values()) == {2}
    law = mean.var(axis=0) + POSTERIOR_VARIANCE.numpy()
    assert summary["variance_law_mean"] == pytest.approx(law.mean(), rel=1e-4)
    assert (summary["variance_law_min"], summary["variance_law_max"]) == pytest.approx((law.min(), law.max()), rel=1e-4)
    assert summary["kl_nats"] == pytest.approx(sum(row["kl_nats"] for row in sheet.table), rel=1e-9)
    residual = np.square(world.residual.numpy()).mean(axis=1)
    assert summary["mse"] == pytest.approx(residual.mean(), rel=1e-4)
    assert summary["mse_standard_error"] == pytest.approx(residual.std(ddof=1) / np.sqrt(N), rel=1e-3)
    pixels = world.images().tensor().double().flatten(1).numpy()
    assert summary["image_variance"] == pytest.approx(pixels.var(axis=0).mean(), rel=1e-6)
    lost = pixels.var(axis=0).mean() - world.drawn.numpy().var(axis=0).mean()
    assert summary["variance_loss"] == pytest.approx(lost, rel=1e-3)
    assert summary["variance_loss_over_mse"] == pytest.approx(lost / residual.mean(), rel=1e-3)


def test_the_record_is_json_and_whole(sheet: Diagnosis) -> None:
    record = json.loads(json.dumps(sheet.to_json(), allow_nan=False))
    assert record["table"] == sheet.table
    assert record["count"] == N
    assert [advice["headline"] for advice in record["advice"]] == [advice.headline for advice in sheet.advice]
    assert record["provenance"]["made_from"]["model"] == "planted weights"


# Zeroing what is dead


def test_zeroing_what_the_decoder_ignores_changes_nothing_at_all(sheet: Diagnosis) -> None:
    assert sheet.zeroing is not None
    assert sheet.zeroing.error_after == sheet.zeroing.error_before == sheet.reconstruction.error
    assert sheet.zeroing.largest_output_difference == 0.0
    assert sheet.summary["zeroing_collapsed_relative_change"] == 0.0


def test_zeroing_what_was_only_called_dead_is_measured(world: Any) -> None:
    """Both dead means are a hundredth of the first factor: without them, twice that of its drawing goes missing."""
    reach = 2.0
    sheet = diagnose(planted(world, dead_reach=reach), world.images())
    assert sheet.zeroing is not None
    missing = 2 * 0.01 * reach * world.factors.numpy()[:, :1] * world.drawing.numpy()[:1]
    assert sheet.zeroing.largest_output_difference == pytest.approx(np.abs(missing).max(), rel=1e-3)
    # With them the drawing is too strong by what goes missing, and without them it is right.
    assert sheet.zeroing.error_after == pytest.approx(np.square(world.residual.numpy()).mean(), rel=1e-4)
    assert sheet.zeroing.relative_change < 0
    assert sheet.zeroing.relative_change == pytest.approx(sheet.zeroing.error_after / sheet.zeroing.error_before - 1, rel=1e-12)


def test_where_nothing_is_dead_nothing_is_zeroed(world: Any) -> None:
    sheet = diagnose(world.autoencoder(torch.eye(3, dtype=torch.float64)), world.images())
    assert sheet.zeroing is None
    assert sheet.summary["zeroing_collapsed_relative_change"] == 0.0


# Other models


def headlines(sheet: Diagnosis) -> str:
    return " | ".join(f"{advice.level}: {advice.headline}" for advice in sheet.advice)


def test_a_healthy_model_is_told_so_with_what_was_measured(sheet: Diagnosis) -> None:
    assert "good: 3 of 5 latent variables are active, 2 collapsed." in headlines(sheet)
    (finding,) = [advice for advice in sheet.advice if "active" in advice.headline]
    assert "Setting them to 0 changes the error by +0.00 % and no pixel by more than 0." in finding.text
    assert "disagree" not in headlines(sheet)


def test_a_model_in_which_everything_has_collapsed_is_warned_of_first(world: Any) -> None:
    """Its variance law holds to the letter, which must not reassure."""
    middle = world.drawn.mean(dim=0)
    dead = CallableModel(
        name="dead",
        image_shape=SHAPE,
        latent_shape=(2,),
        encode_with=lambda images: (torch.zeros(len(images), 2), torch.zeros(len(images), 2)),
        decode_with=lambda codes: middle.float().expand(len(codes), PIXELS).unflatten(1, SHAPE),
    )
    sheet = diagnose(dead, world.images())
    assert sheet.advice[0].level == "warning"
    assert sheet.advice[0].headline == "Everything has collapsed: 0 of 2 latent variables are active."
    assert "running-error balance" in sheet.advice[0].text
    assert sheet.summary["variance_law_mean"] == 1.0
    assert "good: The variance law holds: 1.000 on average." in headlines(sheet)
    assert any("cannot tell health from collapse" in advice.text for advice in sheet.advice)
    assert sheet.summary["kl_nats"] == 0.0
    assert sheet.gain.mean.tolist() == [0.0, 0.0]


def test_a_deterministic_encoder_is_diagnosed_by_its_means(world: Any) -> None:
    sheet = diagnose(planted(world, posterior=False), world.images())
    assert [row["verdict"] for row in sheet.table] == ["active", "collapsed", "active", "collapsed", "active"]
    assert all(row["mean_posterior_variance"] == 0.0 for row in sheet.table)
    assert all(math.isinf(row["kl_nats"]) for row in sheet.table)
    record = sheet.to_json()
    json.dumps(record, allow_nan=False)
    assert record["kl_nats"] is None


def test_a_channel_of_a_spatial_latent_space_is_one_row(world: Any) -> None:
    spatial = CallableModel(
        name="spatial",
        image_shape=SHAPE,
        latent_shape=(2, 2, 6),
        encode_with=lambda images: images.reshape(-1, 2, 2, 6),
        decode_with=lambda codes: codes.reshape(-1, *SHAPE),
    )
    sheet = diagnose(spatial, world.images())
    assert len(sheet.table) == 2
    pixels = world.images().tensor().double().numpy().reshape(N, 2, 12)
    expected = pixels.var(axis=0).mean(axis=1)
    np.testing.assert_allclose([row["variance_of_means"] for row in sheet.table], expected, rtol=1e-9)


def test_progress_is_told_throughout(world: Any) -> None:
    tasks: list[str] = []
    diagnose(planted(world), world.images(), progress=lambda task, done, total, note="": tasks.append(task))
    assert list(dict.fromkeys(tasks)) == ["encoding world", "decoding", "gain of each variable"]


def test_what_cannot_be_diagnosed_is_told_so(world: Any) -> None:
    whole = planted(world)
    half = CallableModel(name="half", image_shape=SHAPE, latent_shape=(LATENT,), encode_with=whole.encode_with)
    with pytest.raises(CapabilityError, match="A diagnosis needs a decoder, which half lacks"):
        diagnose(half, world.images())
    with pytest.raises(ImageFormatError, match="planted takes images of 1x4x6"):
        diagnose(whole, ImageSet("wide", torch.zeros(4, 1, 4, 7)))


def test_one_image_is_too_few_to_call_a_model_collapsed(world: Any) -> None:
    model = world.autoencoder(torch.eye(3, dtype=torch.float64))
    with pytest.raises(IllPosedError, match="has 1 image, and a diagnosis is of how codes vary"):
        diagnose(model, world.images().slice(0, 1))


def test_a_sheet_of_very_few_images_says_so_first(world: Any) -> None:
    sheet = diagnose(planted(world), world.images().slice(0, 3))
    assert sheet.advice[0].level == "warning"
    assert "3 images are too few" in sheet.advice[0].headline
    assert "too few" not in headlines(diagnose(planted(world), world.images()))


def test_gains_may_be_measured_on_the_first_images_alone(world: Any) -> None:
    model, images = planted(world), world.images()
    whole, part = diagnose(model, images, gain_images=50), diagnose(model, images.slice(0, 50))
    assert torch.equal(whole.gain.mean, part.gain.mean)
    assert (whole.count, whole.gain_count, part.gain_count) == (N, 50, 50)
    assert whole.summary["mse"] == diagnose(model, images).summary["mse"]
    assert diagnose(model, images, gain_images=10 * N).gain_count == N
    with pytest.raises(SettingError, match="at least 2 images, got 1"):
        diagnose(model, images, gain_images=1)
