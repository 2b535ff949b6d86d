"""The line through variance loss and error: against SciPy, and on decoders whose ratio is known."""

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.decomposition import PCA
from torch import Tensor

from latlas.base.errors import CapabilityError, IllPosedError
from latlas.base.provenance import Provenance
from latlas.data.images import ImageSet
from latlas.models.adapters.callables import CallableModel
from latlas.models.architectures.registry import architecture
from latlas.models.vae import VAE
from latlas.reports.page import Picture
from latlas.reports.variance_loss import variance_loss_report
from latlas.studies.variance_loss import VarianceLossPoint, variance_loss_point, variance_loss_study

SHAPE, PIXELS = (1, 5, 5), 25


@pytest.fixture
def images(generator: torch.Generator) -> ImageSet:
    mixing = torch.randn(4, PIXELS, generator=generator)
    rows = torch.randn(800, 4, generator=generator) @ mixing + 0.5 * torch.randn(800, PIXELS, generator=generator)
    return ImageSet("correlated", rows.sub(rows.min()).div(rows.max() - rows.min()).unflatten(1, SHAPE))


def principal(images: ImageSet, components: int, *, contrast: float = 1.0, spread: float | None = None) -> CallableModel:
    """Projection on principal components: a conditional mean at contrast 1. With `spread`, posteriors that wide."""
    rows = images.tensor().flatten(1).double().numpy()
    fitted = PCA(components, svd_solver="full").fit(rows)

    def encode(batch: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        mean = torch.from_numpy(fitted.transform(batch.flatten(1).double().numpy())).float()
        return mean if spread is None else (mean, torch.full_like(mean, 2 * np.log(spread)))

    def decode(codes: Tensor) -> Tensor:
        return torch.from_numpy(fitted.inverse_transform(contrast * codes.double().numpy())).float().unflatten(1, SHAPE)

    return CallableModel(
        name=f"PCA {components}", image_shape=SHAPE, latent_shape=(components,), encode_with=encode, decode_with=decode
    )


def points(errors: list[float], losses: list[float]) -> list[VarianceLossPoint]:
    return [
        VarianceLossPoint(model=str(n), family="planted", images="none", error=error, variance_loss=loss)
        for n, (error, loss) in enumerate(zip(errors, losses, strict=True))
    ]


def test_principal_components_lie_on_the_diagonal(images: ImageSet) -> None:
    study = variance_loss_study([variance_loss_point(principal(images, k), images) for k in (1, 2, 3, 8)])
    assert study.slope.value == pytest.approx(1.0, abs=1e-5)
    assert study.slope.high - study.slope.low < 1e-4
    assert study.share_within == 1.0


def test_a_decoder_of_half_contrast_is_an_outlier(images: ImageSet) -> None:
    point = variance_loss_point(principal(images, 2, contrast=0.5), images)
    assert point.ratio > 1.2
    assert point.outlying


def test_sampling_adds_the_posteriors_variance_to_the_error_and_takes_it_from_the_loss(images: ImageSet) -> None:
    spread, components = 0.2, 3
    point = variance_loss_point(principal(images, components, spread=spread), images, seed=4)
    added = components * spread**2 / PIXELS  # orthonormal directions: each adds its variance once, over all pixels
    assert point.sampled_error is not None
    assert point.sampled_variance_loss is not None
    assert point.sampled_error - point.error == pytest.approx(added, rel=0.1)
    assert point.variance_loss - point.sampled_variance_loss == pytest.approx(added, rel=0.3)
    assert variance_loss_point(principal(images, components), images).sampled_error is None


def test_slope_and_interval_are_those_of_a_regression_through_the_origin() -> None:
    generator = np.random.default_rng(0)
    errors = generator.uniform(0.01, 0.06, 25)
    losses = 0.97 * errors + generator.normal(0, 0.002, 25)
    slope = variance_loss_study(points(errors.tolist(), losses.tolist())).slope
    found, residual, *_ = np.linalg.lstsq(errors[:, None], losses, rcond=None)
    assert slope.value == pytest.approx(float(found[0]), rel=1e-12)
    deviation = np.sqrt(float(residual[0]) / 24 / float((errors**2).sum()))
    low, high = stats.t.interval(0.95, 24, loc=found[0], scale=deviation)
    assert (slope.low, slope.high) == (pytest.approx(low, rel=1e-9), pytest.approx(high, rel=1e-9))
    assert slope.correlation == pytest.approx(stats.pearsonr(errors, losses).statistic, rel=1e-9)


def test_the_interval_holds_the_true_slope_nineteen_times_in_twenty() -> None:
    generator = np.random.default_rng(1)
    errors = np.linspace(0.01, 0.05, 12)
    held = 0
    for _ in range(400):
        slope = variance_loss_study(points(errors.tolist(), (errors + generator.normal(0, 0.003, 12)).tolist())).slope
        held += slope.low <= 1.0 <= slope.high
    assert 0.92 <= held / 400 <= 0.98


def test_iterative_posteriors_are_sampled_step_by_step(images: ImageSet) -> None:
    """The later steps of DRAW look at what earlier codes drew, so its samples are no means plus independent noise."""
    torch.manual_seed(0)
    model = VAE(architecture("draw", steps=3, latent=2, hidden=16, attention=False), SHAPE)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    asked: list[int] = []
    infer = model.infer
    model.infer = lambda batch, noise: asked.append(len(batch)) or infer(batch, noise)  # type: ignore[method-assign,func-returns-value]
    point = variance_loss_point(model, images.slice(0, 50))
    assert asked.count(50) >= 2  # once along the means, once along the noise
    assert point.family == "draw"
    assert point.sampled_error != point.error


def test_two_trainings_and_perfect_models_are_refused(images: ImageSet) -> None:
    with pytest.raises(IllPosedError, match="at least 3"):
        variance_loss_study(points([0.1, 0.2], [0.1, 0.2]))
    with pytest.raises(IllPosedError, match="exactly"):
        variance_loss_study(points([0.0] * 3, [0.0] * 3))
    blind = CallableModel(name="blind", image_shape=SHAPE, latent_shape=(2,), decode_with=lambda codes: codes)
    with pytest.raises(CapabilityError):
        variance_loss_point(blind, images)


def test_the_report_names_outliers_and_shows_every_training(images: ImageSet) -> None:
    models = [principal(images, 1), principal(images, 3), principal(images, 2, contrast=0.5)]
    study = variance_loss_study([variance_loss_point(model, images, family="linear") for model in models])
    report = variance_loss_report(study, Provenance(made_by="test"))
    assert any("PCA 2" in finding.text for finding in report.summary)
    blocks = report.sections[0].blocks
    drawing = next(block for block in blocks if isinstance(block, Picture))
    assert isinstance(drawing.content, str)
    assert "linear, correlated" in drawing.content
    assert report.numbers["share_within"] == pytest.approx(2 / 3)
