"""The KL divergence to the prior, against torch.distributions and against its own series."""

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from latlas.numerics.gaussians import kl_to_prior_nats


@pytest.mark.parametrize("shape", [(5,), (5, 3), (2, 3, 4, 4)])
def test_kl_is_that_of_torch_distributions(shape: tuple[int, ...], generator: torch.Generator) -> None:
    mean = 3 * torch.randn(shape, generator=generator, dtype=torch.float64)
    log_variance = 4 * torch.randn(shape, generator=generator, dtype=torch.float64)
    theirs = kl_divergence(Normal(mean, (0.5 * log_variance).exp()), Normal(torch.zeros_like(mean), 1.0))
    torch.testing.assert_close(kl_to_prior_nats(mean, log_variance), theirs, rtol=1e-12, atol=1e-12)


def test_kl_keeps_its_digits_where_a_variable_has_collapsed() -> None:
    """Near variance 1 it is log_variance^2 / 4 + log_variance^3 / 12; taken naively, float32 gives 0 or noise here."""
    log_variance = torch.tensor([[1e-3, -1e-3, 2e-4]], dtype=torch.float64)
    series = log_variance**2 / 4 + log_variance**3 / 12 + log_variance**4 / 48
    torch.testing.assert_close(kl_to_prior_nats(torch.zeros(1, 3).double(), log_variance), series, rtol=1e-9, atol=0)
    tiny = torch.tensor([[1e-6]], dtype=torch.float64)
    torch.testing.assert_close(kl_to_prior_nats(torch.zeros(1, 1).double(), tiny), tiny**2 / 4, rtol=1e-5, atol=0)


def test_kl_is_zero_at_the_prior_and_positive_elsewhere(generator: torch.Generator) -> None:
    mean = torch.randn(1000, 2, generator=generator, dtype=torch.float64)
    log_variance = torch.randn(1000, 2, generator=generator, dtype=torch.float64)
    assert float(kl_to_prior_nats(mean, log_variance).min()) > 0
    assert kl_to_prior_nats(torch.zeros(1, 2), torch.zeros(1, 2)).tolist() == [[0.0, 0.0]]


def test_the_gradient_of_kl_pulls_mean_and_log_variance_to_the_prior(generator: torch.Generator) -> None:
    mean = torch.randn(4, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    log_variance = torch.randn(4, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    kl_to_prior_nats(mean, log_variance).sum().backward()
    torch.testing.assert_close(mean.grad, mean.detach())
    torch.testing.assert_close(log_variance.grad, 0.5 * (log_variance.detach().exp() - 1))
