"""The sampler is chosen by one half of the held-out images and reported on the other."""

import math

import pytest
import torch

from latlas.base.errors import IllPosedError, NonFiniteError, UnknownNameError
from latlas.data.images import ImageSet
from latlas.measurements.classifier import DigitsClassifier
from latlas.measurements.features import CallableFeatures, RawPixels
from latlas.models.adapters.callables import CallableModel
from latlas.reports.calibration import calibration_report
from latlas.samplers.second_stage import SecondStageSettings
from latlas.studies.calibrate import calibrate_sampler
from latlas.studies.features import feature_network

QUICK = SecondStageSettings(width=16, layers=1, epochs=5, batch_size=100)


def _clusters(n: int, seed: int) -> ImageSet:
    """Return 2 x 2 grey images from three far clusters.

    Means and covariances alone do not tell them from a Gaussian, so the features below look at squares.
    """
    generator = torch.Generator().manual_seed(seed)
    centres = torch.tensor([[0.2, 0.2, 0.8, 0.5], [0.8, 0.2, 0.2, 0.5], [0.5, 0.9, 0.5, 0.1]])
    pixels = centres[torch.randint(0, 3, (n,), generator=generator)] + 0.03 * torch.randn(n, 4, generator=generator)
    return ImageSet(name=f"clusters {seed}", storage=pixels.clamp(0, 1).view(n, 1, 2, 2))


@pytest.fixture
def identity() -> CallableModel:
    """An autoencoder that loses nothing: codes are pixels moved to mean 0."""
    return CallableModel(
        name="identity",
        image_shape=(1, 2, 2),
        latent_shape=(4,),
        encode_with=lambda images: (images.flatten(1) - 0.5) * 4,
        decode_with=lambda codes: (codes / 4 + 0.5).clamp(0, 1).view(-1, 1, 2, 2),
        fingerprint="identity",
    )


def _squares() -> CallableFeatures:
    def compute(images: torch.Tensor) -> torch.Tensor:
        flat = images.flatten(1)
        return torch.cat([flat, flat.square(), flat[:, :1] * flat[:, 1:]], dim=1)

    return CallableFeatures(name="squares", size=11, compute_with=compute)


def test_the_mixture_wins_where_codes_lie_in_clusters(identity: CallableModel) -> None:
    result = calibrate_sampler(
        identity, _clusters(1500, 0), _clusters(1200, 1), features=_squares(), components=3, second_stage=QUICK, seed=0
    )
    assert result.best.sampler.density.kind == "mixture"
    assert result.best.reported.value < 0.5 * result.score_of("gaussian").reported.value
    assert result.best.reported.value < 0.2 * result.score_of("prior").reported.value
    record = result.to_json()
    assert record["best_over_prior"] == pytest.approx(result.best.reported.value / result.score_of("prior").reported.value)
    assert len(record["samplers"]) == 10, "every sampler is reported, with and without renormalisation"


def test_scores_are_ordered_by_the_half_that_chooses_and_the_halves_share_no_image(identity: CallableModel) -> None:
    result = calibrate_sampler(
        identity, _clusters(400, 0), _clusters(400, 1), features=_squares(), kinds=("prior", "moments", "gaussian"), seed=0
    )
    values = [score.chosen_by.value for score in result.scores]
    assert values == sorted(values)
    assert result.count == 200
    assert all(score.chosen_by.value != score.reported.value for score in result.scores)


def test_a_perfect_decoder_reconstructs_at_the_floor_and_errors_cover_the_noise(identity: CallableModel) -> None:
    result = calibrate_sampler(
        identity, _clusters(400, 0), _clusters(2000, 1), features=_squares(), kinds=("prior",), renormalised=(False,), seed=0
    )
    assert result.reconstructions.value == pytest.approx(result.real.value, rel=0.05)
    assert result.real.standard_error is not None
    assert 0 < result.real.standard_error < result.score_of("prior").reported.value


def test_the_seed_decides_the_choice(identity: CallableModel) -> None:
    def numbers(seed: int) -> object:
        result = calibrate_sampler(
            identity, _clusters(200, 0), _clusters(200, 1), features=_squares(), kinds=("gaussian",), seed=seed
        )
        return result.to_json()["samplers"]

    assert numbers(3) == numbers(3)
    assert numbers(3) != numbers(4)


def test_mistakes_are_told(identity: CallableModel) -> None:
    with pytest.raises(IllPosedError, match="at least 40 held-out images, got 39"):
        calibrate_sampler(identity, _clusters(100, 0), _clusters(39, 1), features=_squares())
    broken = CallableFeatures(name="broken", size=1, compute_with=lambda images: torch.full((len(images), 1), math.nan))
    with pytest.raises(NonFiniteError, match="broken"):
        calibrate_sampler(identity, _clusters(100, 0), _clusters(100, 1), features=broken)


def test_the_feature_network_is_found_by_name_or_by_the_images() -> None:
    digits = ImageSet(name="mnist:test", storage=torch.zeros(2, 1, 28, 28, dtype=torch.uint8))
    assert isinstance(feature_network("auto", digits), DigitsClassifier)
    assert isinstance(feature_network("pixels", digits), RawPixels)
    with pytest.raises(UnknownNameError, match="Did you mean 'pixels'"):
        feature_network("pixel", digits)


def test_a_collapsed_model_is_said_to_be_one(identity: CallableModel) -> None:
    """Every posterior the prior, every image the mean one: samplers tie, and choosing among them would hide the cause."""
    mean = torch.full((1, 2, 2), 0.5)
    collapsed = CallableModel(
        name="collapsed",
        image_shape=(1, 2, 2),
        latent_shape=(3,),
        encode_with=lambda images: (torch.zeros(len(images), 3), torch.zeros(len(images), 3)),
        decode_with=lambda codes: mean.expand(len(codes), 1, 2, 2),
    )
    result = calibrate_sampler(
        collapsed, _clusters(200, 0), _clusters(100, 1), features=_squares(), kinds=("prior", "moments"), seed=0
    )
    assert "0 of 3 active" in result.warnings[0]
    assert "--balance running-error" in result.warnings[0]
    report = calibration_report(result, collapsed, _clusters(100, 1))
    assert any(finding.level == "warning" and "collapsed" in finding.headline for finding in report.summary)
    alive = calibrate_sampler(identity, _clusters(200, 0), _clusters(100, 1), features=_squares(), kinds=("prior",), seed=0)
    assert not any("collapsed" in warning for warning in alive.warnings)
