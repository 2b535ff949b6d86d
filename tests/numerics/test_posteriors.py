"""Statistics of a stream of posteriors: the same for any split, on any journey, and with planted values."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from latlas.numerics.moments import MarginalMoments
from latlas.numerics.posteriors import ACTIVE_VARIANCE, PosteriorMoments, mean_by_channel, sum_by_channel

ROWS = 40


def posteriors(shape: tuple[int, ...], *, rows: int = ROWS, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return 2 + torch.randn(rows, *shape, generator=generator), torch.randn(rows, *shape, generator=generator)


@pytest.mark.parametrize("shape", [(3,), (2, 4, 4)])
def test_every_statistic_is_what_numpy_and_torch_distributions_say(shape: tuple[int, ...]) -> None:
    mean, log_variance = posteriors(shape)
    ours = PosteriorMoments.of(mean, log_variance)
    m, v = mean.double().numpy(), np.exp(log_variance.double().numpy())
    kl = kl_divergence(Normal(mean.double(), torch.from_numpy(v).sqrt()), Normal(0.0, 1.0))
    assert ours.means.count == ROWS
    np.testing.assert_allclose(ours.variance_of_means.numpy(), m.var(axis=0), rtol=1e-12)
    np.testing.assert_allclose(ours.posterior_variance.numpy(), v.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(ours.posterior_deviation.numpy(), np.sqrt(v).mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(ours.kl_nats.numpy(), kl.mean(dim=0).numpy(), rtol=1e-11)


@pytest.mark.parametrize("shape", [(3,), (2, 2, 2)])
@given(cuts=st.sets(st.integers(1, ROWS - 1)).map(sorted))
def test_merging_any_split_gives_the_statistics_of_the_whole(shape: tuple[int, ...], cuts: list[int]) -> None:
    mean, log_variance = posteriors(shape)
    merged: PosteriorMoments | None = None
    for start, stop in zip([0, *cuts], [*cuts, ROWS], strict=True):
        part = PosteriorMoments.of(mean[start:stop], log_variance[start:stop])
        merged = part if merged is None else merged.merge(part)
    assert merged is not None
    torch.testing.assert_close(merged.as_rows(), PosteriorMoments.of(mean, log_variance).as_rows(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [(1,), (3,), (2, 4, 4)])
def test_statistics_survive_the_journey_as_rows(shape: tuple[int, ...]) -> None:
    ours = PosteriorMoments.of(*posteriors(shape))
    back = PosteriorMoments.from_rows(ours.as_rows())
    assert back.means.count == ours.means.count
    assert isinstance(back.means.count, int)
    for field in ("posterior_variance", "posterior_deviation", "kl_nats", "variance_of_means"):
        assert getattr(back, field).equal(getattr(ours, field)), field
    assert back.means.mean.equal(ours.means.mean)
    assert ours.as_rows().shape == (6, *shape)


def test_processes_that_travel_as_rows_merge_to_the_whole() -> None:
    mean, log_variance = posteriors((3,))
    parts = [PosteriorMoments.of(mean[a:b], log_variance[a:b]).as_rows() for a, b in [(0, 7), (7, 40)]]
    merged = PosteriorMoments.from_rows(parts[0]).merge(PosteriorMoments.from_rows(parts[1]))
    torch.testing.assert_close(merged.as_rows(), PosteriorMoments.of(mean, log_variance).as_rows(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("variance", [0.05, 0.5, 0.99])
def test_a_stationary_code_obeys_the_variance_law(variance: float) -> None:
    """Planted exactly: means of +-sqrt(1 - s^2) around a shift, posteriors of variance s^2 on average."""
    sign = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64)[:, None]
    mean = 3 + sign * (1 - variance) ** 0.5
    own = variance * torch.tensor([0.5, 1.5, 1.0, 1.0], dtype=torch.float64)[:, None]
    law = PosteriorMoments.of(mean, own.log()).variance_law()
    assert float(law) == pytest.approx(1.0, abs=1e-12)


def test_codes_scaled_by_two_break_the_variance_law_by_their_excess() -> None:
    mean = torch.tensor([[2.0], [-2.0]])
    assert float(PosteriorMoments.of(mean, torch.full((2, 1), -30.0)).variance_law()) == pytest.approx(4.0, abs=1e-9)


def test_a_variable_is_active_strictly_above_burdas_threshold() -> None:
    deviation = ACTIVE_VARIANCE**0.5 * torch.tensor([0.0, 0.99, 1.01, 10.0], dtype=torch.float64)
    mean = torch.stack([deviation, -deviation]) + 5
    assert PosteriorMoments.of(mean, torch.zeros_like(mean)).active().tolist() == [False, False, True, True]
    assert ACTIVE_VARIANCE == 0.01


def test_a_variance_of_exactly_burdas_threshold_is_not_active() -> None:
    variance = torch.tensor([0.01, np.nextafter(0.01, 1.0)], dtype=torch.float64)
    means = MarginalMoments(1, torch.zeros(2, dtype=torch.float64), variance)
    assert PosteriorMoments(means, *(torch.ones(2, dtype=torch.float64),) * 3).active().tolist() == [False, True]


def test_channels_are_numpys_means_and_sums_over_positions() -> None:
    values = torch.randn(3, 2, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    np.testing.assert_allclose(mean_by_channel(values).numpy(), values.numpy().mean(axis=(1, 2)), rtol=1e-12)
    np.testing.assert_allclose(sum_by_channel(values).numpy(), values.numpy().sum(axis=(1, 2)), rtol=1e-12)
    vector = values[:, 0, 0]
    assert mean_by_channel(vector).equal(vector)
    assert sum_by_channel(vector).equal(vector)


def test_half_precision_posteriors_are_accumulated_in_double() -> None:
    mean, log_variance = posteriors((3,))
    ours = PosteriorMoments.of(mean.bfloat16(), log_variance.bfloat16())
    assert ours.as_rows().dtype == torch.float64
    np.testing.assert_allclose(ours.means.mean.numpy(), mean.bfloat16().double().numpy().mean(axis=0), rtol=1e-14)
