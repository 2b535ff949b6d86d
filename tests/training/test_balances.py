"""The other balance rules, each by the property that its paper gives it."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from latlas.base.errors import SettingError
from latlas.data.images import ImageSet
from latlas.models.architectures.dense import Dense
from latlas.models.protocols import Posterior
from latlas.training.objectives import BALANCES, FixedWeight, LearnedSigma, Objective, OptimalSigma, RunningError
from latlas.training.runs import train_vae

FLOAT32 = 1e-5
PIXELS = 60


def batch(generator: torch.Generator, *, latent: int = 4, n: int = 6) -> tuple[Tensor, Tensor, Posterior]:
    logits = 2 * torch.randn(n, 3, 5, 4, generator=generator)
    images = torch.rand(n, 3, 5, 4, generator=generator)
    mean = torch.randn(n, latent, generator=generator)
    return logits, images, Posterior(mean, torch.randn(n, latent, generator=generator))


def exact_kl(posterior: Posterior) -> Tensor:
    """Per variable, averaged over images, by torch.distributions."""
    assert posterior.log_variance is not None
    mean, deviation = posterior.mean.double(), (0.5 * posterior.log_variance.double()).exp()
    return kl_divergence(Normal(mean, deviation), Normal(torch.zeros_like(mean), torch.ones_like(mean))).mean(dim=0)


def nats(logits: Tensor, images: Tensor, sigma: float) -> float:
    return -float(Normal(logits.double().sigmoid(), sigma).log_prob(images.double()).flatten(1).sum(dim=1).mean())


def mean_squared_error(logits: Tensor, images: Tensor) -> float:
    return float((logits.double().sigmoid() - images.double()).square().mean())


# One-sided


def test_the_one_sided_rule_only_ever_moves_down(generator: torch.Generator) -> None:
    """The rule m <- min(m, 0.99 m + 0.01 b) forgets every hard batch and keeps every easy one."""
    errors = 0.3 * (1 + 0.1 * torch.randn(900, generator=generator, dtype=torch.float64))
    balance, honest = RunningError(one_sided=True), RunningError()
    lowest = 1.0
    for error in errors:
        balance.update(error)
        honest.update(error)
        lowest = min(lowest, 0.99 * lowest + 0.01 * float(error))
        assert float(balance.variance) == pytest.approx(lowest, rel=1e-12)
    assert float(balance.variance) < float(honest.variance)


# Warm-up


def test_the_kl_weight_rises_linearly_and_only_in_training(generator: torch.Generator) -> None:
    balance = Objective(balance="warm-up", kl_weight=2.0, warm_up_steps=4).build()
    for step in range(7):
        logits, images, posterior = batch(generator)
        kl = float(exact_kl(posterior).sum())
        expected = nats(logits, images, 1.0) + 2.0 * min(step / 4, 1.0) * kl
        balance.eval()
        assert balance(logits, images, posterior).loss.item() == pytest.approx(expected, rel=FLOAT32)
        balance.train()
        terms = balance(logits, images, posterior)
        assert terms.loss.item() == pytest.approx(expected, rel=FLOAT32)
        assert float(terms.kl_nats) == pytest.approx(kl, rel=FLOAT32)  # reported in full, whatever its weight


def test_a_resumed_warm_up_goes_on_where_it_was(generator: torch.Generator) -> None:
    aim = Objective(balance="warm-up", warm_up_steps=5)
    first, second = aim.build(), aim.build()
    for _ in range(3):
        first(*batch(generator))
    second.load_state_dict(first.state_dict())
    same = batch(generator)
    assert second(*same).loss.equal(first(*same).loss)


# Free bits


def test_variables_below_their_allowance_feel_no_pressure(generator: torch.Generator) -> None:
    """Two variables under 0.3 nats, two above: the loss counts the first at their allowance, and they get no gradient."""
    logits, images, _ = batch(generator)
    mean = torch.tensor([0.1, 2.0, 0.2, 1.5]).repeat(6, 1).requires_grad_(True)
    posterior = Posterior(mean, torch.zeros(6, 4))
    terms = Objective(balance="free-bits", free_nats=0.3, kl_weight=2.0).build()(logits, images, posterior)
    kl = exact_kl(Posterior(mean.detach(), torch.zeros(6, 4)))
    expected = nats(logits, images, 1.0) + 2.0 * float(kl.clamp_min(0.3).sum())
    assert terms.loss.item() == pytest.approx(expected, rel=FLOAT32)
    assert float(terms.kl_nats) == pytest.approx(float(kl.sum()), rel=FLOAT32)
    terms.loss.backward()
    assert mean.grad is not None
    np.testing.assert_allclose(mean.grad.numpy(), np.tile([0.0, 2.0 * 2.0 / 6, 0.0, 2.0 * 1.5 / 6], (6, 1)), rtol=1e-5)


# Sigma learnt, and sigma solved for


def test_the_learnt_deviation_starts_at_1_and_rests_where_its_square_is_the_error(generator: torch.Generator) -> None:
    logits, images, posterior = batch(generator)
    balance = LearnedSigma()
    error = mean_squared_error(logits, images)
    for sigma, sign in [(1.0, 1), (error**0.5, 0), (0.5 * error**0.5, -1)]:
        with torch.no_grad():
            balance.log_sigma.fill_(math.log(sigma))
        balance.zero_grad()
        terms = balance(logits, images, posterior)
        expected = nats(logits, images, sigma)
        assert float(terms.reconstruction_nats) == pytest.approx(expected, rel=FLOAT32)
        assert terms.loss.item() == pytest.approx(expected + float(exact_kl(posterior).sum()), rel=FLOAT32)
        terms.loss.backward()
        assert balance.log_sigma.grad is not None
        # d/d log sigma of pixels (log sigma + error / 2 sigma^2)
        assert float(balance.log_sigma.grad) == pytest.approx(PIXELS * (1 - error / sigma**2), abs=PIXELS * 1e-5)
        assert round(float(balance.log_sigma.grad), 2) * sign >= 0
    assert LearnedSigma().variance.item() == 1.0


def test_the_optimal_deviation_is_the_error_of_the_batch_with_its_gradient(generator: torch.Generator) -> None:
    """Its loss is pixels / 2 log(error) but for constants: the gradient of that, by hand."""
    logits, images, posterior = batch(generator)
    logits.requires_grad_(True)
    balance = OptimalSigma()
    terms = balance(logits, images, posterior)
    error = mean_squared_error(logits.detach(), images)
    assert float(terms.reconstruction_nats) == pytest.approx(nats(logits.detach(), images, error**0.5), rel=FLOAT32)
    assert float(balance.variance) == pytest.approx(error, rel=FLOAT32)
    terms.loss.backward()
    by_hand = logits.detach().clone().requires_grad_(True)
    (PIXELS / 2 * (by_hand.sigmoid() - images).square().mean().log()).backward()
    torch.testing.assert_close(logits.grad, by_hand.grad, rtol=1e-4, atol=1e-7)


def test_an_image_drawn_exactly_has_no_infinite_likelihood() -> None:
    white, posterior = torch.full((2, 1, 2, 2), 40.0), Posterior(torch.zeros(2, 3), torch.zeros(2, 3))
    terms = OptimalSigma()(white, torch.ones(2, 1, 2, 2), posterior)
    assert math.isfinite(terms.loss.item())


# All of them


def test_every_rule_builds_what_it_is_called() -> None:
    kinds = {name: type(Objective(balance=name).build()) for name in BALANCES}
    assert kinds == {
        "running-error": RunningError,
        "one-sided-error": RunningError,
        "fixed": FixedWeight,
        "warm-up": FixedWeight,
        "free-bits": FixedWeight,
        "learned-sigma": LearnedSigma,
        "optimal-sigma": OptimalSigma,
    }
    assert Objective(balance="one-sided-error").build().one_sided  # type: ignore[union-attr]
    assert not Objective(balance="running-error").build().one_sided  # type: ignore[union-attr]
    fixed = Objective(balance="fixed").build()
    assert (fixed.warm_up_steps, fixed.free_nats) == (None, None)  # type: ignore[union-attr]


@pytest.mark.parametrize("balance", BALANCES)
def test_every_rule_trains_and_resumes_to_the_last_bit(balance: str, blobs: ImageSet, tmp_path: Any) -> None:
    class PowerCut(Exception):
        """The machine went away."""

    def cut(task: str, done: int, total: int | None, note: str = "") -> None:
        if done > 1.5 * len(blobs):
            raise PowerCut

    def train(**options: Any) -> Any:
        aim = Objective(balance=balance, warm_up_steps=15 if balance == "warm-up" else None)
        arch = Dense(widths=(16,), latent=3)
        return train_vae(blobs, arch, objective=aim, epochs=3, batch_size=32, learning_rate=5e-3, device="cpu", **options)

    whole = train()
    assert whole.history[-1]["squared_error"] < whole.history[0]["squared_error"]
    assert all(math.isfinite(record["likelihood_variance"]) for record in whole.history)
    with pytest.raises(PowerCut):
        train(out=tmp_path / "model", progress=cut)
    resumed = train(out=tmp_path / "model")
    assert resumed.history == whole.history
    assert resumed.model.fingerprint == whole.model.fingerprint


@pytest.mark.parametrize("balance", ["running-error", "one-sided-error", "learned-sigma", "optimal-sigma"])
def test_rules_that_estimate_a_gaussians_variance_refuse_the_bernoulli(balance: str) -> None:
    with pytest.raises(SettingError, match=f"The {balance} balance estimates the variance .*use --balance fixed"):
        Objective(balance=balance, likelihood="bernoulli")


@pytest.mark.parametrize(
    ("setting", "balances"),
    [
        ({"sigma": 0.5}, {"fixed", "warm-up", "free-bits"}),
        ({"warm_up_steps": 5}, {"warm-up"}),
        ({"free_nats": 0.5}, {"free-bits"}),
    ],
    ids=["sigma", "warm-up-steps", "free-nats"],
)
@pytest.mark.parametrize("balance", BALANCES)
def test_a_setting_is_never_ignored_in_silence(balance: str, setting: dict[str, Any], balances: set[str]) -> None:
    if balance in balances:
        built = Objective(balance=balance, **setting).build()
        name, value = next(iter(setting.items()))
        assert (built.variance == 0.25) if name == "sigma" else (getattr(built, name) == value)
        return
    with pytest.raises(SettingError, match=f"The {balance} balance has no use for --.*: leave it out, or use --balance "):
        Objective(balance=balance, **setting)


@pytest.mark.parametrize("settings", [{"warm_up_steps": 0}, {"free_nats": -0.1}, {"free_nats": math.nan}])
def test_allowances_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match=r"Warm-up needs at least 1 step|Free nats must be at least 0"):
        Objective(**settings)
