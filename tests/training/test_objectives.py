"""Objectives: the nats are those of torch.distributions, and the running error is the one that its docstring promises."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Normal, kl_divergence

from latlas.base.errors import SettingError, UnknownNameError
from latlas.models.protocols import Posterior
from latlas.training.objectives import BALANCES, FixedWeight, Objective, RunningError, bernoulli_nats, gaussian_nats

FLOAT32 = 1e-5  # relative: sums of a few hundred float32 terms


def batch(generator: torch.Generator, *, latent: tuple[int, ...] = (4,), n: int = 6) -> tuple[Tensor, Tensor, Posterior]:
    """Logits, images and a posterior that have nothing to do with each other."""
    logits = 2 * torch.randn(n, 3, 5, 4, generator=generator)
    images = torch.rand(n, 3, 5, 4, generator=generator)
    mean = torch.randn(n, *latent, generator=generator)
    return logits, images, Posterior(mean, torch.randn(n, *latent, generator=generator))


def exact_kl(posterior: Posterior) -> Tensor:
    """Summed over variables, averaged over images, by torch.distributions."""
    assert posterior.log_variance is not None
    mean, deviation = posterior.mean.double(), (0.5 * posterior.log_variance.double()).exp()
    prior = Normal(torch.zeros_like(mean), torch.ones_like(mean))
    return kl_divergence(Normal(mean, deviation), prior).flatten(1).sum(dim=1).mean()


# Nats


def test_bernoulli_nats_of_black_and_white_images_are_torchs(generator: torch.Generator) -> None:
    logits, grey, _ = batch(generator)
    images = (grey > 0.5).float()
    expected = -Bernoulli(logits=logits.double()).log_prob(images.double()).flatten(1).sum(dim=1).mean()
    assert float(bernoulli_nats(logits, images)) == pytest.approx(float(expected), rel=FLOAT32)


def test_grey_values_count_as_soft_bits(generator: torch.Generator) -> None:
    """A pixel of 0.3 costs 0.3 of a white one and 0.7 of a black one."""
    logits, images, _ = batch(generator)
    model = Bernoulli(logits=logits.double())
    white, black = model.log_prob(torch.ones_like(images).double()), model.log_prob(torch.zeros_like(images).double())
    expected = -(images * white + (1 - images) * black).flatten(1).sum(dim=1).mean()
    assert float(bernoulli_nats(logits, images)) == pytest.approx(float(expected), rel=FLOAT32)


@pytest.mark.parametrize(("value", "nats"), [(1.0, 0.0), (0.0, 200.0)])
def test_saturated_logits_keep_their_nats(value: float, nats: float) -> None:
    """A sigmoid of 200 is 1 in float32, and the log of 1 - 1 is not 200."""
    assert float(bernoulli_nats(torch.full((1, 1, 1, 1), 200.0), torch.full((1, 1, 1, 1), value))) == pytest.approx(nats)


@pytest.mark.parametrize("sigma", [0.05, 1.0, 3.0])
def test_gaussian_nats_are_torchs(sigma: float, generator: torch.Generator) -> None:
    _, images, _ = batch(generator)
    others = torch.rand(images.shape, generator=generator)
    expected = -Normal(others.double(), sigma).log_prob(images.double()).flatten(1).sum(dim=1).mean()
    squared_error = (images - others).square().mean()
    for variance in (sigma**2, torch.tensor(sigma**2)):
        assert float(gaussian_nats(squared_error, 60, variance)) == pytest.approx(float(expected), rel=FLOAT32)


# The ELBO with constant weights


@pytest.mark.parametrize("latent", [(4,), (2, 3, 3)], ids=["vector", "spatial"])
@pytest.mark.parametrize("kl_weight", [0.0, 1.0, 4.0])
@pytest.mark.parametrize(("likelihood", "sigma"), [("bernoulli", 1.0), ("gaussian", 1.0), ("gaussian", 0.2)])
def test_a_fixed_weight_gives_the_elbo(
    likelihood: str, sigma: float, kl_weight: float, latent: tuple[int, ...], generator: torch.Generator
) -> None:
    logits, images, posterior = batch(generator, latent=latent)
    aim = Objective(balance="fixed", likelihood=likelihood, kl_weight=kl_weight, sigma=sigma)  # type: ignore[arg-type]
    terms = aim.build()(logits, images, posterior)
    if likelihood == "gaussian":
        log_likelihood = Normal(logits.double().sigmoid(), sigma).log_prob(images.double())
    else:
        model = Bernoulli(logits=logits.double())
        log_likelihood = images * model.log_prob(torch.ones_like(images).double()) + (1 - images) * model.log_prob(
            torch.zeros_like(images).double()
        )
    reconstruction = -log_likelihood.flatten(1).sum(dim=1).mean()
    assert float(terms.reconstruction_nats) == pytest.approx(float(reconstruction), rel=FLOAT32)
    assert float(terms.kl_nats) == pytest.approx(float(exact_kl(posterior)), rel=FLOAT32)
    assert float(terms.loss) == pytest.approx(float(reconstruction + kl_weight * exact_kl(posterior)), rel=FLOAT32)
    squared_error = np.square(1 / (1 + np.exp(-logits.double().numpy())) - images.double().numpy()).mean()
    assert float(terms.squared_error) == pytest.approx(squared_error, rel=FLOAT32)


@pytest.mark.parametrize("balance", ["fixed", "running-error"])
def test_only_the_loss_carries_a_gradient(balance: str, generator: torch.Generator) -> None:
    """The terms are kept for a whole epoch; one that held on to its graph would fill the memory."""
    logits, images, posterior = batch(generator)
    logits.requires_grad_(True)
    posterior.mean.requires_grad_(True)
    terms = Objective(balance=balance).build()(logits, images, posterior)
    assert terms.loss.requires_grad
    for term in (terms.reconstruction_nats, terms.kl_nats, terms.squared_error):
        assert not term.requires_grad


# The running error


def documented_recursion(errors: list[float]) -> list[float]:
    """M <- 0.99 m + 0.01 b from 1, and the minimum of all m so far."""
    mean, lowest, held = 1.0, 1.0, []
    for error in errors:
        mean = 0.99 * mean + 0.01 * error
        lowest = min(lowest, mean)
        held.append(lowest)
    return held


def test_the_variance_is_the_lowest_running_mean_of_the_error(generator: torch.Generator) -> None:
    """Errors fall, rise and fall again, so that following the mean, the minimum or the batch would each show."""
    drift = 0.3 + 0.25 * torch.cos(torch.arange(900) / 140.0)
    errors = (drift * (1 + 0.1 * torch.randn(900, generator=generator))).double()
    balance = RunningError()
    held = []
    for error in errors:
        balance.update(error)
        held.append(float(balance.variance))
    expected = documented_recursion(errors.tolist())
    assert held == pytest.approx(expected, rel=1e-12)
    assert any(expected[i] == expected[i - 1] for i in range(1, 900))  # the minimum did hold


def test_the_loss_uses_the_variance_that_earlier_batches_left(generator: torch.Generator) -> None:
    balance = RunningError(kl_weight=2.0)
    for step in range(3):
        logits, images, posterior = batch(generator)
        before = float(balance.variance)
        assert (before == 1.0) == (step == 0)
        terms = balance(logits, images, posterior)
        log_likelihood = Normal(logits.double().sigmoid(), math.sqrt(before)).log_prob(images.double())
        reconstruction = -log_likelihood.flatten(1).sum(dim=1).mean()
        assert float(terms.reconstruction_nats) == pytest.approx(float(reconstruction), rel=FLOAT32)
        assert float(terms.loss) == pytest.approx(float(reconstruction + 2 * exact_kl(posterior)), rel=FLOAT32)


def test_a_forward_pass_takes_in_its_own_error_and_only_in_training(generator: torch.Generator) -> None:
    balance = RunningError()
    errors = []
    for _ in range(4):
        logits, images, posterior = batch(generator)
        errors.append(float((logits.double().sigmoid() - images.double()).square().mean()))
        balance(logits, images, posterior)
    assert float(balance.variance) == pytest.approx(documented_recursion(errors)[-1], rel=1e-7)  # the error was float32
    kept = (float(balance.variance), float(balance.mean_error))
    balance.eval()
    balance(*batch(generator))
    assert (float(balance.variance), float(balance.mean_error)) == kept


def test_the_running_error_lives_in_the_state_dict() -> None:
    balance, resumed = RunningError(), RunningError()
    for error in (0.2, 0.9, 0.1):
        balance.update(torch.tensor(error))
    resumed.load_state_dict(balance.state_dict())
    for each in (balance, resumed):
        each.update(torch.tensor(0.05))
    assert resumed.variance.equal(balance.variance)
    assert resumed.mean_error.equal(balance.mean_error)
    assert resumed.variance.dtype == torch.float64


def test_no_gradient_flows_into_the_variance(generator: torch.Generator) -> None:
    """Were the variance the batch's own error, the gradient would be that of log(error), whatever the weight."""
    balance = RunningError()
    for _ in range(200):
        balance.update(torch.tensor(0.01))
    logits, images, posterior = batch(generator)
    logits.requires_grad_(True)
    variance = float(balance.variance)
    balance(logits, images, posterior).loss.backward()
    constant = logits.detach().clone().requires_grad_(True)
    (0.5 * (constant.sigmoid() - images).square().flatten(1).sum(dim=1).mean() / variance).backward()
    assert logits.grad is not None
    assert constant.grad is not None
    torch.testing.assert_close(logits.grad, constant.grad, rtol=1e-5, atol=1e-9)
    assert not any(buffer.requires_grad for buffer in balance.buffers())


@pytest.mark.parametrize("balance", BALANCES)
def test_a_settled_rule_weighs_as_after_a_long_training_that_left_the_same_error(
    balance: str, generator: torch.Generator
) -> None:
    logits, images, posterior = batch(generator)
    objective = Objective(balance=balance, warm_up_steps=50 if balance == "warm-up" else None)
    taught, settled = objective.build(), objective.build()
    descent = torch.optim.Adam([*taught.parameters(), torch.zeros((), requires_grad=True)], lr=0.01)
    for _ in range(1500):
        terms = taught(logits, images, posterior)
        if balance == "learned-sigma":
            descent.zero_grad()
            terms.loss.backward()
            descent.step()
    settled.settle(float(terms.squared_error))
    found, wanted = (float(rule(logits, images, posterior).loss.detach()) for rule in (settled, taught))
    assert found == pytest.approx(wanted, rel=1e-4)
    kept, learnt = (float(torch.as_tensor(rule.variance).detach()) for rule in (settled, taught))
    assert kept == pytest.approx(learnt, rel=1e-3)


@pytest.mark.parametrize("balance", BALANCES)
def test_a_rule_settled_on_a_perfect_reconstruction_stays_finite(balance: str, generator: torch.Generator) -> None:
    rule = Objective(balance=balance).build()
    rule.settle(0.0)
    assert bool(rule(*batch(generator)).loss.isfinite())


@pytest.mark.parametrize(("spread", "honest", "one_sided"), [(0.02, 0.996, 0.957), (0.05, 0.990, 0.893), (0.10, 0.983, 0.786)])
def test_the_running_error_hardly_drifts_where_the_one_sided_rule_does(spread: float, honest: float, one_sided: float) -> None:
    """Both rules on one constant error with Gaussian noise, 10,000 steps: the table of methods.md, section (e).

    The table was simulated too, and of how many trainings it does not say. So each figure must lie where single trainings
    do: within four of their standard deviations, and the rounding of the table. The rules are 14 and more of those apart.
    """
    trainings, steps, true = 64, 10_000, 0.01
    generator = torch.Generator().manual_seed(3)
    balance = RunningError()
    balance.mean_error = torch.ones(trainings, dtype=torch.float64)
    balance.variance = torch.ones(trainings, dtype=torch.float64)
    lower_only = np.ones(trainings)  # that rule, written here
    for noise in torch.randn(steps, trainings, generator=generator, dtype=torch.float64):
        error = true * (1 + spread * noise)
        balance.update(error)
        lower_only = np.minimum(lower_only, 0.99 * lower_only + 0.01 * error.numpy())
    for ratios, published in ((balance.variance.numpy() / true, honest), (lower_only / true, one_sided)):
        assert ratios.mean() == pytest.approx(published, abs=4 * ratios.std() + 0.0005)


# Settings


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"balance": "running-eror"}, UnknownNameError, r"Unknown balance rule 'running-eror'\. Did you mean 'running-error'"),
        ({"kl_weight": -1.0}, SettingError, "KL weight must be at least 0, got -1.0"),
        ({"kl_weight": math.inf}, SettingError, "KL weight must be at least 0, got inf"),
        ({"kl_weight": math.nan}, SettingError, "KL weight must be at least 0, got nan"),
        ({"balance": "fixed", "sigma": 0.0}, SettingError, "Sigma must be above 0, got 0.0"),
        ({"balance": "fixed", "sigma": math.nan}, SettingError, "Sigma must be above 0, got nan"),
        ({"likelihood": "bernoulli"}, SettingError, "use --balance fixed with the Bernoulli one"),
    ],
)
def test_settings_out_of_range_are_refused_with_the_cure(
    settings: dict[str, object], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        Objective(**settings)  # type: ignore[arg-type]


def test_settings_build_the_rule_that_they_name() -> None:
    running = Objective(kl_weight=3.0).build()
    fixed = Objective(balance="fixed", likelihood="bernoulli", kl_weight=0.5, sigma=2.0).build()
    assert isinstance(running, RunningError)
    assert isinstance(fixed, FixedWeight)
    assert running.kl_weight == 3.0
    assert (fixed.likelihood, fixed.kl_weight, fixed.variance) == ("bernoulli", 0.5, 4.0)
