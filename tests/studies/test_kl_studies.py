"""The curve by torch's own KL; trajectories by the network that they end in; clouds whose shape and images are planted."""

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from scipy.stats import norm
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from latlas.base.errors import CapabilityError, IllPosedError, SettingError, UnknownNameError
from latlas.base.provenance import Provenance
from latlas.data.images import ImageSet
from latlas.measurements.features import RawPixels
from latlas.models.adapters.callables import CallableModel
from latlas.studies import kl_curve, latent_cloud, trajectories
from latlas.studies.budgets import as_budget
from latlas.studies.kl_curve import study_kl_curve
from latlas.studies.latent_cloud import ARMS, gather_clouds, measure_cloud, slice_codes, study_latent_cloud, train_arm
from latlas.studies.trajectories import moments_of, rows_by_class, study_trajectories

SHAPE = (1, 3, 4)


# KL against variance


def test_a_curve_is_torchs_kl_of_a_posterior_whose_deviation_is_that_share_of_its_mean() -> None:
    study = study_kl_curve((0.2, 2.0), points=31)
    for curve in study.curves:
        deviation = study.variances.sqrt()
        expected = kl_divergence(Normal(deviation / curve.ratio, deviation), Normal(0.0, 1.0))
        torch.testing.assert_close(curve.kl_nats, expected)


@pytest.mark.parametrize("ratio", [0.01, 0.1, 1.0, 7.0, 100.0])
def test_the_least_kl_is_where_torchs_gradient_vanishes_and_variance_and_squared_mean_add_to_one(ratio: float) -> None:
    (curve,) = study_kl_curve((ratio,)).curves
    deviation = torch.tensor(curve.found_minimum, dtype=torch.float64).sqrt().requires_grad_()
    kl = kl_divergence(Normal(deviation / ratio, deviation), Normal(0.0, 1.0))
    (gradient,) = torch.autograd.grad(kl, deviation)
    assert float(gradient * deviation.detach()) == pytest.approx(0.0, abs=1e-6)
    assert curve.found_minimum + curve.found_minimum / ratio**2 == pytest.approx(1.0, rel=1e-6)
    assert curve.minimum == pytest.approx(curve.found_minimum, rel=1e-6)
    assert curve.least_kl_nats == pytest.approx(float(kl.detach()), rel=1e-6)


def test_formula_and_search_are_told_apart_in_the_variance_and_in_the_kl() -> None:
    study = study_kl_curve((0.1, 3.0), points=5)
    assert study.deviation < 1e-6
    assert study.deviation_nats < 1e-9
    first, second = study.curves
    off = replace(study, curves=[first, replace(second, least_kl_nats=second.least_kl_nats + 0.25)])
    assert off.deviation == study.deviation
    assert off.deviation_nats == pytest.approx(0.25)
    assert off.to_json()["deviation_nats"] == off.deviation_nats


@pytest.mark.parametrize("ratios", [(), (0.0,), (1.0, -1.0), (math.inf,), (math.nan,)])
def test_ratios_that_are_none_are_refused(ratios: tuple[float, ...]) -> None:
    with pytest.raises(SettingError, match="above 0"):
        study_kl_curve(ratios)


@pytest.mark.parametrize("study", [kl_curve, trajectories, latent_cloud])
def test_an_unknown_budget_is_refused_before_any_work(study: Any) -> None:
    with pytest.raises(UnknownNameError, match="quick"):
        study.run("papper")
    assert as_budget("paper") == "paper"


# Trajectories


@pytest.fixture(scope="module")
def spots() -> ImageSet:
    """Three classes, 50 images each: a bright spot in one of three places, on noise."""
    generator = torch.Generator().manual_seed(2)
    labels = torch.arange(150) % 3
    images = 0.3 * torch.rand(150, *SHAPE, generator=generator)
    images[torch.arange(150), 0, labels, labels] = 1.0
    return ImageSet("spots", images, labels=labels)


def test_trajectories_begin_at_the_prior_and_end_with_the_first_epoch(spots: ImageSet) -> None:
    study = study_trajectories(spots, classes=3, per_class=4, epochs=2, frames=5, batch_size=30, device="cpu")
    assert study.first.steps.tolist() == [0, 1, 3, 5]
    assert study.labels.tolist() == [0, 1, 2]
    assert sorted(study.later_labels.tolist()) == [0] * 4 + [1] * 4 + [2] * 4
    assert study.later.steps.tolist() == [5, 10]
    assert 0.3 < study.start < 3  # an untrained network's log-variances lie near 0
    assert len(study.over_epochs) == len(study.health) == 2
    record = study.to_json()
    assert record["first"]["squared_radius"][0] == pytest.approx(
        [math.sqrt(math.exp(a) * math.exp(b)) for a, b in record["first"]["log_variance"][0]]
    )
    # The images of the first epoch are among those of the later ones: at its end both say the same of them.
    torch.testing.assert_close(study.first.mean[-1], study.later.mean[0, ::4], atol=1e-6, rtol=1e-5)


def test_a_study_is_the_same_again_with_the_same_seed_and_another_with_another(spots: ImageSet) -> None:
    def run(seed: int) -> Tensor:
        return study_trajectories(spots, classes=3, epochs=1, frames=3, batch_size=30, device="cpu", seed=seed).first.mean

    assert run(1).equal(run(1))
    assert not run(1).equal(run(2))


def test_chosen_images_have_the_classes_asked_for_and_are_chosen_by_the_seed(spots: ImageSet) -> None:
    rows = rows_by_class(spots, classes=3, per_class=6, seed=0)
    assert spots.labels is not None
    assert (spots.labels[rows] == torch.arange(3)[:, None]).all()
    assert len(set(rows.flatten().tolist())) == 18
    assert not rows.equal(rows_by_class(spots, classes=3, per_class=6, seed=1))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"classes": 4}, "3 classes, fewer than the 4"),
        ({"classes": 3, "per_class": 51}, "50 images of class 0"),
        ({"classes": 0}, "At least 1 class"),
        ({"classes": 3, "frames": 1}, "at least 2 moments"),
        ({"classes": 3, "epochs": 0}, "at least 1 epoch"),
        ({"classes": 3, "batch_size": 0}, "at least 1 image"),
    ],
)
def test_what_cannot_be_followed_is_refused(settings: dict[str, Any], words: str, spots: ImageSet) -> None:
    with pytest.raises(SettingError, match=words):
        study_trajectories(spots, **settings)


def test_images_without_labels_are_refused(spots: ImageSet) -> None:
    with pytest.raises(SettingError, match="has no labels"):
        study_trajectories(replace(spots, labels=None))


@pytest.mark.parametrize(("steps", "frames"), [(1, 90), (5, 90), (469, 90), (10, 2)])
def test_moments_run_from_the_start_to_the_end_and_thin_out(steps: int, frames: int) -> None:
    moments = moments_of(steps, frames)
    assert moments[0] == 0
    assert moments[-1] == steps
    assert len(moments) <= frames
    gaps = [later - earlier for earlier, later in pairwise(moments)]
    assert all(gap >= 1 for gap in gaps)
    assert gaps[0] <= gaps[-1]


# Clouds


def planted(cloud: Tensor, *, scale: float = 1.0, spread: float | None = 0.05) -> tuple[CallableModel, ImageSet]:
    """Images that hold the points of a cloud; codes are the points times `scale`, and come back exactly."""
    generator = torch.Generator().manual_seed(8)
    drawing = torch.linalg.qr(torch.randn(12, 3, generator=generator, dtype=torch.float64))[0].T  # 3 x 12
    pixels = 0.5 + 0.06 * cloud.double() @ drawing
    assert 0 < float(pixels.min()) < float(pixels.max()) < 1

    def encode(images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        mean = (scale * (images.flatten(1).double() - 0.5) @ drawing.T / 0.06).float()
        return mean if spread is None else (mean, torch.full_like(mean, 2 * math.log(spread)))

    model = CallableModel(
        name="planted",
        image_shape=SHAPE,
        latent_shape=(3,),
        encode_with=encode,
        decode_with=lambda codes: (0.5 + 0.06 / scale * codes.double() @ drawing).float().unflatten(1, SHAPE),
    )
    return model, ImageSet("planted", pixels.float().unflatten(1, SHAPE), labels=torch.arange(len(cloud)) % 10)


def normal(count: int = 1500) -> Tensor:
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(6))


def measured(cloud: Tensor, arm: Any = "sampling", **settings: Any) -> latent_cloud.Cloud:
    model, images = planted(cloud, **settings)
    return measure_cloud(model, arm, images, features=RawPixels(SHAPE), shown=1000, samples=1500)


def test_a_normal_cloud_is_hit_by_the_prior_and_a_shell_is_not() -> None:
    good = measured(normal())
    shell = normal() / normal().norm(dim=1, keepdim=True) * math.sqrt(3)
    hollow = measured(shell)
    assert good.error == pytest.approx(0.0, abs=1e-9)
    assert good.shape.energy < 0.002 < 0.004 < hollow.shape.energy
    assert good.shape.empty < 0.01 < hollow.shape.empty
    assert good.means.shape == (1000, 3)
    assert good.frechet_reconstructions == pytest.approx(0.0, abs=1e-6)
    assert good.deviations == pytest.approx([1, 1, 1], abs=0.1)
    # Raw pixels see mean and covariance alone, and those the shell has as well: the distance is a matter of features.
    assert good.frechet < 0.1 * measured(3 + 0.3 * normal()).frechet


def test_a_cloud_of_another_size_misses_the_prior_but_not_the_fitted_normal() -> None:
    same = measured(normal(), "no sampling", scale=1.0, spread=None)
    small = measured(normal(), "no sampling", scale=0.05, spread=None)
    assert small.frechet > 50 * same.frechet
    assert small.frechet_fitted == pytest.approx(same.frechet_fitted, rel=0.01)
    assert small.shape.energy == pytest.approx(same.shape.energy, rel=1e-3)
    assert small.shape.energy_to_prior > 0.1 > 50 * abs(same.shape.energy_to_prior)


def test_with_sampling_the_codes_are_the_aggregate_posterior() -> None:
    """Means of deviation 0.6 with posteriors of 0.8: a normal cloud of deviation 1, whatever the means alone look like."""
    cloud = measured(normal(), scale=0.6, spread=0.8)
    assert cloud.sampled_shape is not None
    assert abs(cloud.sampled_shape.energy_to_prior) < 0.005 < 0.02 < cloud.shape.energy_to_prior
    assert measured(normal(), "no sampling", spread=None).sampled_shape is None


def test_slices_are_at_equally_probable_quantiles_of_the_prior() -> None:
    codes = slice_codes(3)
    assert codes.shape == (125, 3)
    middles = torch.tensor(norm.ppf([0.1, 0.3, 0.5, 0.7, 0.9])).float()
    torch.testing.assert_close(codes[::25, 0], middles)
    assert codes[:25, 0].unique().numel() == 1
    torch.testing.assert_close(codes[:5, 2], middles)
    assert slice_codes(2).shape == (25, 2)
    assert slice_codes(5)[:, 3:].abs().max() == 0


def test_a_model_without_posterior_variances_was_not_trained_with_sampling() -> None:
    with pytest.raises(CapabilityError, match="no posterior variances"):
        measured(normal(), "sampling", spread=None)


def test_a_latent_space_that_cannot_be_drawn_is_refused() -> None:
    _, images = planted(normal(60))
    wide = CallableModel(
        name="wide",
        image_shape=SHAPE,
        latent_shape=(12,),
        encode_with=lambda batch: batch.flatten(1),
        decode_with=lambda codes: codes.unflatten(1, SHAPE),
    )
    with pytest.raises(SettingError, match="2 to 6 latent variables"):
        measure_cloud(wide, "no sampling", images, features=RawPixels(SHAPE))
    with pytest.raises(IllPosedError, match="at least 30 test images"):
        study_latent_cloud(images, images.slice(0, 20), seeds=1)
    with pytest.raises(SettingError, match="at least 1 seed"):
        study_latent_cloud(images, images, seeds=0)


def test_a_study_counts_seeds_in_which_sampling_is_lower() -> None:
    model, images = planted(normal(400))
    base = measure_cloud(model, "sampling", images, features=RawPixels(SHAPE), samples=400)
    distances = {("sampling", 0): 1.0, ("no sampling", 0): 2.0, ("sampling", 1): 3.0, ("no sampling", 1): 2.5}
    clouds = [replace(base, arm=arm, seed=seed, frechet=value) for (arm, seed), value in distances.items()]  # type: ignore[arg-type]
    study = gather_clouds(clouds, features=RawPixels(SHAPE), samples=400, provenance=Provenance(made_by="test"))
    assert study.lower_with_sampling("frechet") == 1
    assert study.lower_with_sampling("energy") == 0  # equal is not lower
    assert study.mean_of("no sampling", "frechet") == 2.25
    assert study.to_json()["lower_with_sampling"]["frechet"] == 1
    assert study.normal.energy < 0.02
    with pytest.raises(SettingError, match="Each seed"):
        gather_clouds(clouds[:3], features=RawPixels(SHAPE), samples=400, provenance=Provenance(made_by="test"))


def test_both_arms_start_from_the_same_weights_and_record_what_they_left_out(spots: ImageSet) -> None:
    models = {arm: train_arm(spots, arm, epochs=1, seed=3, device="cpu") for arm in ARMS}
    provenances = {arm: model.provenance for arm, model in models.items()}
    recorded = {arm: found.settings["objective"] for arm, found in provenances.items() if found is not None}
    assert len({found.seed for found in provenances.values() if found is not None}) == 1
    assert recorded["no sampling"] == {**recorded["sampling"], "latent_term": "quadratic", "sampling": False}
    assert models["sampling"].fingerprint != models["no sampling"].fingerprint
