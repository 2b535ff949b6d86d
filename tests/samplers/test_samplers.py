"""Samplers draw what they were fitted to, keep it on disk, and say when they have lost it."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.mixture import GaussianMixture
from torch.distributions import Normal, kl_divergence

from latlas.base.errors import CodeShapeError, IllPosedError, SettingError, UnknownNameError
from latlas.base.provenance import Provenance
from latlas.encodings.encoding import Encoding
from latlas.models.adapters.callables import CallableModel
from latlas.samplers.fit import COLLAPSED_RATIO, SAMPLER_KINDS, fit_sampler, load_sampler
from latlas.samplers.second_stage import SecondStage, SecondStageNetwork, SecondStageSettings, _loss

QUICK = SecondStageSettings(width=32, layers=2, epochs=12, batch_size=100)


def _encoding(mean: torch.Tensor, log_variance: torch.Tensor | None = None) -> Encoding:
    return Encoding(
        mean=mean, log_variance=log_variance, model="m", images="i", images_hash="h", provenance=Provenance(made_by="test")
    )


@pytest.fixture
def two_moons() -> Encoding:
    """Codes in two far clusters, with different scales per variable: no Gaussian fits them."""
    generator = torch.Generator().manual_seed(1)
    side = torch.randint(0, 2, (3000, 1), generator=generator) * 2.0 - 1.0
    codes = side * torch.tensor([2.0, 0.0, 0.5]) + 0.3 * torch.randn(3000, 3, generator=generator)
    return _encoding(codes + torch.tensor([0.0, 5.0, -1.0]), torch.full((3000, 3), -3.0))


def _law_moments(encoding: Encoding) -> tuple[np.ndarray, np.ndarray]:
    assert encoding.log_variance is not None
    mean = encoding.mean.double().numpy()
    return mean.mean(axis=0), mean.var(axis=0) + np.exp(encoding.log_variance.double().numpy()).mean(axis=0)


@pytest.mark.parametrize("kind", [kind for kind in SAMPLER_KINDS if kind not in ("prior", "second-stage")])
def test_a_fitted_density_has_the_moments_of_the_aggregate_posterior(kind: str, two_moons: Encoding) -> None:
    codes = fit_sampler(kind, two_moons, components=4).sample(40_000, torch.Generator().manual_seed(0)).double().numpy()
    mean, variance = _law_moments(two_moons)
    # 3,000 codes fix a standard deviation to about 1.3 %, so a variance to 2.6 %; twice that and a little is allowed.
    np.testing.assert_allclose(codes.mean(axis=0), mean, atol=0.1)
    np.testing.assert_allclose(codes.var(axis=0), variance, rtol=0.06)


@pytest.mark.parametrize("kind", SAMPLER_KINDS)
def test_renormalised_codes_have_the_moments_that_the_variance_law_gives(kind: str, two_moons: Encoding) -> None:
    sampler = fit_sampler(kind, two_moons, renormalised=True, second_stage=QUICK)
    codes = sampler.sample(40_000, torch.Generator().manual_seed(5)).double().numpy()
    mean, variance = _law_moments(two_moons)
    np.testing.assert_allclose(codes.mean(axis=0), mean, atol=0.06)
    np.testing.assert_allclose(codes.var(axis=0), variance, rtol=0.05)
    assert sampler.name == f"{kind}, renormalised"


def test_the_prior_is_standard_normal_whatever_the_codes(two_moons: Encoding) -> None:
    codes = fit_sampler("prior", two_moons).sample(5_000, torch.Generator().manual_seed(0))
    assert stats.kstest(codes.flatten().numpy(), "norm").pvalue > 0.01


def test_the_mixture_is_scikit_learns(two_moons: Encoding) -> None:
    """Held-out log-likelihood under scikit-learn's own density, of our draws and of scikit-learn's."""
    sampler = fit_sampler("mixture", two_moons, components=2)
    codes = two_moons.mean + torch.randn(3000, 3, generator=torch.Generator().manual_seed(9)) * np.exp(-1.5)
    reference = GaussianMixture(2, random_state=0).fit(codes.numpy())
    ours = reference.score(sampler.sample(200_000, torch.Generator().manual_seed(0)).numpy())
    theirs = reference.score(reference.sample(200_000)[0])
    assert ours == pytest.approx(theirs, abs=0.03)


def test_a_mixture_tells_two_clusters_apart_where_a_gaussian_fills_the_gap(two_moons: Encoding) -> None:
    gap = {}
    for kind in ("gaussian", "mixture"):
        codes = fit_sampler(kind, two_moons, components=2).sample(4_000, torch.Generator().manual_seed(0))
        gap[kind] = float((codes[:, 0].abs() < 0.5).double().mean())
    assert gap["mixture"] < 0.01 < gap["gaussian"]


@pytest.mark.parametrize("kind", SAMPLER_KINDS)
@pytest.mark.parametrize("renormalised", [False, True])
def test_a_sampler_draws_the_same_codes_after_saving_and_loading(
    kind: str, renormalised: bool, two_moons: Encoding, tmp_path: Path
) -> None:
    sampler = fit_sampler(kind, two_moons, renormalised=renormalised, second_stage=QUICK)
    sampler.save_pretrained(tmp_path / "s")
    again = load_sampler(tmp_path / "s")
    drawn = [each.sample(50, torch.Generator().manual_seed(3)) for each in (sampler, again)]
    assert drawn[0].equal(drawn[1])
    assert (again.name, again.warnings, again.variance_ratio) == (sampler.name, sampler.warnings, sampler.variance_ratio)


def test_the_second_stage_keeps_the_variance_because_it_adds_its_noise(two_moons: Encoding) -> None:
    sampler = fit_sampler("second-stage", two_moons, second_stage=QUICK)
    assert 0.8 < sampler.variance_ratio < 1.2
    assert 0.0 < sampler.evidence["gamma"] <= 1.0
    assert sampler.warnings == ()


def test_a_second_stage_that_lost_its_variance_is_said_to_have_collapsed(
    two_moons: Encoding, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The defect of published two-stage samplers, planted: draws without the likelihood's noise from an untrained network."""
    from latlas.samplers import second_stage

    monkeypatch.setattr(second_stage.SecondStage, "gamma", property(lambda self: 0.0))
    barely = SecondStageSettings(width=8, layers=1, epochs=1, batch_size=3000, learning_rate=1e-6)
    sampler = fit_sampler("second-stage", two_moons, second_stage=barely)
    assert sampler.variance_ratio < COLLAPSED_RATIO
    assert "collapsed" in sampler.warnings[0]
    assert "use another sampler" in sampler.warnings[0]


def test_spatial_codes_come_back_in_their_shape() -> None:
    mean = torch.randn(200, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    for kind in ("prior", "moments", "gaussian"):
        assert fit_sampler(kind, _encoding(mean)).sample(7, torch.Generator().manual_seed(0)).shape == (7, 2, 3, 3)


def test_a_deterministic_encoders_codes_are_fitted_as_they_are() -> None:
    mean = torch.randn(500, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 3.0])
    drawn = fit_sampler("moments", _encoding(mean)).sample(50_000, torch.Generator().manual_seed(1))
    np.testing.assert_allclose(drawn.double().std(dim=0).numpy(), mean.double().std(dim=0, correction=0).numpy(), rtol=0.02)


def test_the_seed_decides_a_fit(two_moons: Encoding) -> None:
    def draws(seed: int) -> torch.Tensor:
        return fit_sampler("second-stage", two_moons, second_stage=QUICK, seed=seed).sample(5, torch.Generator().manual_seed(0))

    assert draws(1).equal(draws(1))
    assert not draws(1).equal(draws(2))


@pytest.mark.parametrize("renormalised", [False, True])
def test_of_posteriors_of_unlike_width_the_mean_variance_counts(renormalised: bool) -> None:
    """Not the variance of the mean logarithm, which here is a third of it."""
    generator = torch.Generator().manual_seed(3)
    encoding = _encoding(torch.randn(6000, 2, generator=generator), 1.5 * torch.randn(6000, 2, generator=generator) - 1)
    drawn = fit_sampler("moments", encoding, renormalised=renormalised).sample(60_000, torch.Generator().manual_seed(0))
    np.testing.assert_allclose(drawn.double().numpy().var(axis=0), _law_moments(encoding)[1], rtol=0.05)


def test_the_variance_ratio_is_of_all_variables_together_and_the_prior_is_never_called_collapsed() -> None:
    """Codes of variance 4 and 1/4 under a standard normal: 2 over 4.25."""
    codes = torch.randn(5000, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([2.0, 0.5])
    sampler = fit_sampler("prior", _encoding(codes))
    assert sampler.variance_ratio == pytest.approx(2 / 4.25, rel=0.05)
    assert sampler.variance_ratio < COLLAPSED_RATIO
    assert sampler.warnings == ()


@pytest.mark.parametrize("kind", ["gaussian", "mixture"])
def test_one_gaussian_has_numpys_covariance_whatever_the_units(kind: str) -> None:
    generator = torch.Generator().manual_seed(4)
    mixing = torch.tensor([[1.0, 0.0, 0.0], [0.9, 0.4, 0.0], [-0.7, 0.5, 0.5]]) * torch.tensor([1.0, 50.0, 0.02])
    codes = torch.randn(5000, 3, generator=generator) @ mixing
    drawn = fit_sampler(kind, _encoding(codes), components=1).sample(100_000, torch.Generator().manual_seed(0))
    ours, theirs = drawn.double().numpy(), codes.double().numpy()
    np.testing.assert_allclose(ours.std(axis=0), theirs.std(axis=0), rtol=0.015)
    np.testing.assert_allclose(np.corrcoef(ours.T), np.corrcoef(theirs.T), atol=0.015)  # five standard errors of 100,000


def test_a_rare_cluster_is_drawn_as_rarely() -> None:
    generator = torch.Generator().manual_seed(5)
    rare = torch.rand(4000, 1, generator=generator) < 0.1
    codes = 0.3 * torch.randn(4000, 2, generator=generator) + 6.0 * rare
    drawn = fit_sampler("mixture", _encoding(codes), components=2).sample(20_000, torch.Generator().manual_seed(0))
    assert float((drawn[:, 0] > 3).double().mean()) == pytest.approx(float(rare.double().mean()), abs=0.01)


def test_the_seed_decides_where_a_mixture_starts_and_what_posteriors_give() -> None:
    generator = torch.Generator().manual_seed(6)
    plain = _encoding(torch.randn(300, 4, generator=generator))
    wide = _encoding(plain.mean, torch.zeros(300, 4))
    for kind, encoding in (("mixture", plain), ("moments", wide)):
        first, again, other = (
            fit_sampler(kind, encoding, components=6, seed=seed).density.tensors()["means"] for seed in (1, 1, 2)
        )
        assert first.equal(again)
        assert not torch.allclose(first, other, rtol=1e-3)


# The second stage


def test_the_loss_of_a_second_stage_is_torchs_negative_evidence_bound_but_for_a_constant() -> None:
    torch.manual_seed(0)
    network, codes = SecondStageNetwork(3, 8, 2), torch.randn(50, 3)
    network.log_gamma.data.fill_(-0.4)
    found = _loss(network, codes, torch.Generator().manual_seed(7))
    mean, log_variance = network.encode(codes)
    posterior = Normal(mean, (0.5 * log_variance).exp())
    second = mean + torch.randn(50, 3, generator=torch.Generator().manual_seed(7)) * posterior.scale
    likelihood = Normal(network.decode(second), np.exp(-0.4)).log_prob(codes).sum(dim=1)
    bound = likelihood - kl_divergence(posterior, Normal(0.0, 1.0)).sum(dim=1)
    assert found.item() == pytest.approx(-bound.mean().item() - 1.5 * np.log(2 * np.pi), rel=1e-5)


def test_a_second_stage_whose_network_draws_nothing_has_the_deviation_of_its_likelihood() -> None:
    network = SecondStageNetwork(2, 4, 1)
    network.log_gamma.data.fill_(np.log(0.3))
    network.decoder_head.weight.data.zero_()
    network.decoder_head.bias.data.copy_(torch.tensor([1.0, -2.0]))
    centre, spread = torch.tensor([5.0, 0.0]).double(), torch.tensor([1.0, 10.0]).double()
    drawn = SecondStage(network, centre, spread).draw(4000, torch.Generator().manual_seed(0)).numpy()
    for variable, law in enumerate((stats.norm(6.0, 0.3), stats.norm(-20.0, 3.0))):
        assert stats.kstest(drawn[:, variable], law.cdf).pvalue > 0.01


def test_a_second_stage_is_fitted_to_draws_from_the_posteriors() -> None:
    """All means are 0, and whatever varies is in the posteriors: their deviation is 2."""
    eager = SecondStageSettings(width=16, layers=1, epochs=12, batch_size=100, learning_rate=0.02)
    encoding = _encoding(torch.zeros(2000, 2), torch.full((2000, 2), np.log(4.0)))
    drawn = fit_sampler("second-stage", encoding, second_stage=eager).sample(10_000, torch.Generator().manual_seed(0))
    np.testing.assert_allclose(drawn.double().numpy().std(axis=0), 2.0, rtol=0.15)


def test_the_rate_of_a_second_stage_falls_along_a_cosine(two_moons: Encoding, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []

    class Watched(torch.optim.SGD):
        def __init__(self, parameters: object, *, lr: float, fused: bool) -> None:
            super().__init__(parameters, lr=lr)  # type: ignore[arg-type]

        def step(self, closure: object = None) -> None:  # type: ignore[override]
            rates.append(self.param_groups[0]["lr"])

    monkeypatch.setattr(torch.optim, "Adam", Watched)
    fit_sampler("second-stage", two_moons, second_stage=QUICK)
    assert len(rates) == 12 * 30
    np.testing.assert_allclose(rates, 1e-3 * (1 + np.cos(np.pi * np.arange(360) / 360)) / 2, rtol=1e-9)


def test_mistakes_are_told_with_their_remedy(two_moons: Encoding) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'mixture'"):
        fit_sampler("mixtur", two_moons)
    with pytest.raises(IllPosedError, match="Ask for fewer components"):
        fit_sampler("mixture", _encoding(torch.randn(5, 2)), components=6)
    with pytest.raises(IllPosedError, match="at least 2 codes"):
        fit_sampler("moments", _encoding(torch.randn(1, 2)))
    with pytest.raises(SettingError, match="at least 1"):
        fit_sampler("moments", two_moons).sample(0, torch.Generator())
    other = CallableModel(name="other", image_shape=(1, 2, 2), latent_shape=(4,))
    with pytest.raises(CodeShapeError, match=r"draws codes of shape 3 .* other takes 4\. Fit one for it"):
        fit_sampler("moments", two_moons).check_fits(other)


def test_a_sampler_of_other_weights_is_refused_though_the_shapes_agree(two_moons: Encoding, tmp_path: Path) -> None:
    known = dataclasses.replace(two_moons, provenance=Provenance(made_by="encode", made_from={"model": "weights of m"}))
    fit_sampler("moments", known).save_pretrained(tmp_path / "sampler")
    sampler = load_sampler(tmp_path / "sampler")
    models = {
        name: CallableModel(name=name, image_shape=(1, 2, 2), latent_shape=(3,), fingerprint=fingerprint)
        for name, fingerprint in (("m", "weights of m"), ("stranger", "other weights"))
    }
    sampler.check_fits(models["m"])
    sampler.check_fits(CallableModel(name="unnamed", image_shape=(1, 2, 2), latent_shape=(3,)))  # states no fingerprint
    with pytest.raises(CodeShapeError, match="stranger has other weights"):
        sampler.check_fits(models["stranger"])
