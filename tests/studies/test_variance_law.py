"""The variance law: on posteriors whose sums are known, on a network that is rescaled, and on the published tables."""

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from latlas.base.errors import CapabilityError, IllPosedError, UnknownNameError
from latlas.base.provenance import Provenance
from latlas.data.images import ImageSet
from latlas.models.adapters.callables import CallableModel
from latlas.models.architectures.dense import Dense
from latlas.models.protocols import Posterior
from latlas.models.vae import VAE
from latlas.reports.page import render
from latlas.reports.sparsity import PUBLISHED, PUBLISHED_COLLAPSED
from latlas.reports.variance_law import variance_law_report
from latlas.studies.variance_law import (
    LawVariable,
    VarianceLawPoint,
    run,
    variance_law_point,
    variance_law_study,
)

SHAPE = (1, 4, 4)


@pytest.fixture
def images(generator: torch.Generator) -> ImageSet:
    return ImageSet("noise", torch.rand(400, *SHAPE, generator=generator))


def planted(deviations: Sequence[float], posteriors: Sequence[float], *, shift: float = 0.0) -> CallableModel:
    """A model whose means have these deviations over any large set of uniform noise, and these posterior variances."""

    def encode(batch: Tensor) -> tuple[Tensor, Tensor]:
        unit = (batch.flatten(1)[:, : len(deviations)] - 0.5) * math.sqrt(12)
        mean = unit * torch.tensor(deviations) + shift
        return mean, torch.tensor(posteriors).log().expand_as(mean)

    return CallableModel(name="planted", image_shape=SHAPE, latent_shape=(len(deviations),), encode_with=encode)


def variables(*totals: float, squared_mean: float = 0.0) -> list[LawVariable]:
    return [
        LawVariable(
            variable=n, active=True, variance_of_means=total - 0.1, mean_posterior_variance=0.1, squared_mean=squared_mean
        )
        for n, total in enumerate(totals)
    ]


def point(*totals: float, squared_mean: float = 0.0, history: list[list[float]] | None = None) -> VarianceLawPoint:
    return VarianceLawPoint(
        model="m", family="f", images="i", variables=variables(*totals, squared_mean=squared_mean), positions=1,
        history=history or [],
    )  # fmt: skip


def test_sums_are_those_of_the_codes_that_were_planted(images: ImageSet) -> None:
    found = variance_law_point(planted([0.9, 1.1, 0.0], [0.19, 0.2, 1.0]), images)
    exact = images.tensor().double().flatten(1)[:, :3].sub(0.5).mul(math.sqrt(12)).var(dim=0, correction=0)
    wanted = exact * torch.tensor([0.81, 1.21, 0.0]).double() + torch.tensor([0.19, 0.2, 1.0]).double()
    assert [v.total for v in found.variables] == pytest.approx(wanted.tolist(), rel=1e-5)
    assert [v.active for v in found.variables] == [True, True, False]
    assert found.mean_of(active=False) == pytest.approx(1.0)
    assert found.mean == pytest.approx(float(wanted.mean()), rel=1e-5)
    assert (found.low, found.high) == pytest.approx((float(wanted.min()), float(wanted.max())), rel=1e-5)


def test_rescaling_a_network_to_a_sum_of_1_saves_exactly_what_the_wrong_scale_costs(images: ImageSet) -> None:
    """Codes times c in the encoder's head, the decoder's first layer divided by it: the pictures stay, the KL falls."""
    torch.manual_seed(0)
    model = VAE(Dense(widths=(12,), latent=3), SHAPE)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)
    before = variance_law_point(model, images)
    with torch.no_grad():
        codes = model.encode(images.tensor())
        pictures = model.decode(codes.mean)
    factor = torch.tensor([v.scale for v in before.variables]).pow(-0.5).float()
    with torch.no_grad():
        head = model.encoder.get_submodule("head")
        weight, bias = head.get_parameter("weight"), head.get_parameter("bias")
        weight[:3] *= factor[:, None]
        bias[:3] *= factor
        bias[3:] += 2 * factor.log()
        model.decoder.get_submodule("hidden.0").get_parameter("weight").div_(factor)
    after = variance_law_point(model, images)
    with torch.no_grad():
        rescaled = model.encode(images.tensor())
        torch.testing.assert_close(model.decode(rescaled.mean), pictures, rtol=1e-4, atol=1e-5)
    assert [v.scale for v in after.variables] == pytest.approx([1.0] * 3, rel=1e-5)
    assert after.cost_nats == pytest.approx(0.0, abs=1e-9)

    def kl(posterior: Posterior) -> float:
        assert posterior.log_variance is not None
        normal = torch.distributions.Normal(posterior.mean.double(), (0.5 * posterior.log_variance.double()).exp())
        prior = torch.distributions.Normal(torch.zeros(3).double(), torch.ones(3).double())
        return float(torch.distributions.kl_divergence(normal, prior).sum(dim=1).mean())

    assert kl(codes) - kl(rescaled) == pytest.approx(before.cost_nats, rel=1e-4)


def test_a_sum_of_1_4_costs_a_thirtieth_of_a_nat() -> None:
    assert variables(1.4)[0].cost_nats == pytest.approx(0.0318, abs=1e-4)
    assert variables(1.0)[0].cost_nats == 0.0


def test_means_that_are_not_centred_are_told_as_the_cause(images: ImageSet) -> None:
    found = variance_law_point(planted([0.5], [0.25], shift=math.sqrt(0.5)), images)
    assert found.variables[0].scale == pytest.approx(1.0, abs=0.1)
    assert found.far
    assert any("not centred" in cause for cause in found.causes)
    assert point(1.4).causes == ["the right scales would save 0.032 nats of KL in all"]


def test_a_training_that_still_moves_is_told_as_the_cause() -> None:
    moving = point(1.4, 1.0, history=[[1.0 + 0.05 * epoch, 1.0] for epoch in range(9)])
    assert moving.drift == pytest.approx(0.1)  # over the last two of nine epochs
    assert any("had not settled" in cause for cause in moving.causes)
    settled = point(1.4, 1.0, history=[[1.4, 1.0]] * 9)
    assert settled.drift == 0.0
    assert not any("settled" in cause for cause in settled.causes)
    assert point(1.4, history=[[1.0], [1.4]]).drift is None  # too short to tell


def test_causes_are_told_only_of_what_is_far() -> None:
    assert point(1.09, 0.92, history=[[1.0, 1.0]] * 4).causes == []
    assert [v.variable for v in point(1.2, 1.0, 0.5).far] == [2, 0]


def test_the_history_of_a_training_gives_the_sums_over_time(images: ImageSet) -> None:
    history = [{"variance_of_means": [0.5], "mean_posterior_variance": [0.25 + epoch]} for epoch in range(3)]
    found = variance_law_point(planted([0.9], [0.19]), images, history=history)
    assert found.history == [[0.75], [1.75], [2.75]]


def test_the_published_tables_agree_on_average_for_the_dense_net_and_not_for_the_convolutional_one() -> None:
    """As derived from the posts: 0.994 and 1.078, the active variables of the latter 1.100, one of them 1.403."""
    assert PUBLISHED_COLLAPSED == {"dense": 8, "conv": 3}
    dense, conv = ([sum(row) for row in PUBLISHED[network]] for network in ("dense", "conv"))
    assert sum(dense) / 16 == pytest.approx(0.994, abs=5e-4)
    assert (min(dense), max(dense)) == pytest.approx((0.9605, 1.0330), abs=1e-4)
    assert sum(conv) / 16 == pytest.approx(1.078, abs=5e-4)
    assert max(conv) == pytest.approx(1.4031, abs=1e-4)
    alive = [sum(row) for row in PUBLISHED["conv"] if row[0] > 0.01]
    assert sum(alive) / 13 == pytest.approx(1.100, abs=5e-4)


def test_a_model_without_posterior_variances_is_refused(images: ImageSet) -> None:
    blind = CallableModel(name="plain", image_shape=SHAPE, latent_shape=(2,), encode_with=lambda batch: batch.flatten(1)[:, :2])
    with pytest.raises(CapabilityError, match=r"plain has no posterior variances.*Give a VAE"):
        variance_law_point(blind, images)
    decoder = CallableModel(name="half", image_shape=SHAPE, latent_shape=(2,), decode_with=lambda codes: codes)
    with pytest.raises(CapabilityError):
        variance_law_point(decoder, images)
    with pytest.raises(IllPosedError, match="has 1"):
        variance_law_point(planted([1.0], [0.1]), images.slice(0, 1))
    with pytest.raises(IllPosedError, match="at least one model"):
        variance_law_study([])
    with pytest.raises(UnknownNameError, match="quick"):
        run("slow")
    with pytest.raises(UnknownNameError, match="resnet"):
        run("quick", others=("resnext",))


def test_the_page_tells_what_is_far_and_why() -> None:
    history = [[1.0 + 0.05 * epoch, 1.0] for epoch in range(9)]
    study = variance_law_study([point(1.4, 1.0, history=history)], provenance=Provenance(made_by="test"))
    report = variance_law_report(study)
    page = render(report)
    assert "1 of 2 variables are more than 10 % from 1" in page
    assert "0 (1.40)" in page
    assert "had not settled" in page
    assert report.numbers["points"][0]["mean"] == pytest.approx(1.2)
    assert "published: conv" in page
    assert "nan" not in page.lower().split("</style>")[1]
