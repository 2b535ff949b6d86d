"""The table of latent variables: NumPy's moments, and the verdicts that the published tables have."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from latlas.measurements.latents import COLLAPSE_RULES, latent_table, silence
from latlas.numerics.moments import MarginalMoments
from latlas.numerics.posteriors import PosteriorMoments

# The tables of the posts on sparsity, as methods.md (a) gives them: variance of means, mean posterior variance, their sum.
DENSE = [
    (8.847e-05, 0.98022, 0.9803), (1.1756e-04, 0.99551, 0.9956), (6.665e-05, 0.98517, 0.9852), (0.97418, 0.008741, 0.9829),
    (0.99132, 0.006186, 0.9975), (1.00123, 0.010143, 1.0114), (0.94563, 0.057169, 1.0028), (1.5841e-04, 0.98205, 0.9822),
    (0.94694, 0.033208, 0.9802), (1.4789e-04, 0.98506, 0.9852), (1.00404, 0.018151, 1.0222), (0.98544, 0.023996, 1.0094),
    (1.0744e-04, 0.98298, 0.9831), (4.5068e-05, 0.99898, 0.9990), (1.0855e-04, 0.96041, 0.9605), (0.98864, 0.044406, 1.0330),
]  # fmt: skip
CONVOLUTIONAL = [
    (1.5939e-04, 0.99322, 0.9934), (0.91645, 0.015827, 0.9323), (1.05479, 0.006262, 1.0611), (0.98103, 0.012603, 0.9936),
    (1.07353, 0.005136, 1.0787), (1.06932, 0.006687, 1.0760), (6.478e-05, 0.96163, 0.9617), (1.11955, 0.003192, 1.1227),
    (0.88756, 0.024708, 0.9123), (0.97943, 0.009488, 0.9889), (0.93229, 0.016984, 0.9493), (1.40060, 0.002521, 1.4031),
    (1.30228, 0.003376, 1.3057), (1.9337e-04, 0.99534, 0.9955), (1.13598, 0.007609, 1.1436), (1.33483, 0.002084, 1.3369),
]  # fmt: skip


def moments_of(variance: Tensor, posterior: Tensor, *, count: int = 1000) -> PosteriorMoments:
    """Statistics as if all images had one posterior variance: its root is then the mean deviation too."""
    kl = 0.5 * (variance + posterior - posterior.log() - 1)
    return PosteriorMoments(
        MarginalMoments(count, torch.zeros_like(variance), variance * count), posterior, posterior.sqrt(), kl
    )


@pytest.mark.parametrize(
    ("table", "collapsed"),
    [(DENSE, [0, 1, 2, 7, 9, 12, 13, 14]), (CONVOLUTIONAL, [0, 6, 13])],
    ids=["dense: 8 of 16", "convolutional: 3 of 16"],
)
def test_all_four_rules_agree_on_the_published_tables(table: list[tuple[float, float, float]], collapsed: list[int]) -> None:
    variance, posterior, total = torch.tensor(table, dtype=torch.float64).unbind(1)
    rows = latent_table(moments_of(variance, posterior))
    assert (~rows.active).nonzero().flatten().tolist() == collapsed
    assert rows.active_count == 16 - len(collapsed)
    assert len(rows.collapsed_by_rule) == 4
    for rule, marked in rows.collapsed_by_rule.items():
        assert marked.nonzero().flatten().tolist() == collapsed, rule
    np.testing.assert_allclose(rows.variance_law.numpy(), total.numpy(), atol=6e-5)  # printed with four decimals


def test_the_published_dense_table_carries_at_least_16_nats() -> None:
    """And its collapsed half about a thousandth of a nat: the last column of the table."""
    variance, posterior, _ = torch.tensor(DENSE, dtype=torch.float64).unbind(1)
    rows = latent_table(moments_of(variance, posterior))
    assert float(rows.kl_nats[rows.active].sum()) == pytest.approx(15.8, abs=0.05)
    assert float(rows.kl_nats[~rows.active].sum()) < 0.002


@pytest.mark.parametrize("latent", [(6,), (3, 2, 4)], ids=["vector", "spatial"])
def test_every_column_is_numpys(latent: tuple[int, ...], generator: torch.Generator) -> None:
    """A channel counts as one variable: variances are averaged over its positions, its KL is their sum."""
    mean = torch.randn(50, *latent, generator=generator, dtype=torch.float64) * 1.7 + 0.3
    log_variance = torch.randn(50, *latent, generator=generator, dtype=torch.float64) - 1
    rows = latent_table(PosteriorMoments.of(mean, log_variance))
    m = mean.numpy().reshape(50, latent[0], -1)
    v = np.exp(log_variance.numpy()).reshape(50, latent[0], -1)
    np.testing.assert_allclose(rows.mean, m.mean(axis=(0, 2)), rtol=1e-12)
    np.testing.assert_allclose(rows.variance_of_means, m.var(axis=0).mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(rows.mean_posterior_variance, v.mean(axis=(0, 2)), rtol=1e-12)
    np.testing.assert_allclose(rows.variance_law, m.var(axis=0).mean(axis=1) + v.mean(axis=(0, 2)), rtol=1e-12)
    np.testing.assert_allclose(rows.kl_nats, (0.5 * (m**2 + v - np.log(v) - 1)).mean(axis=0).sum(axis=1), rtol=1e-12)
    deviation = np.sqrt(v).mean(axis=(0, 2))
    assert rows.collapsed_by_rule["mean posterior deviation > 0.8"].tolist() == (deviation > 0.8).tolist()
    assert len(rows) == latent[0]


def test_the_kl_is_that_of_torchs_gaussians_averaged_over_images(generator: torch.Generator) -> None:
    mean, log_variance = (torch.randn(40, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    expected = kl_divergence(Normal(mean, (0.5 * log_variance).exp()), Normal(torch.zeros(3), torch.ones(3))).mean(dim=0)
    rows = latent_table(PosteriorMoments.of(mean, log_variance))
    torch.testing.assert_close(rows.kl_nats, expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize(
    ("variance", "posterior", "collapsed_by"),
    [
        (0.01, 0.64, [True, True, False, False]),  # Burda's "active" is strict, and so are the deviations'
        (0.0100001, 0.6401, [False, True, False, True]),
        (0.05, 0.8, [False, False, False, True]),
        (0.0499, 0.8001, [False, True, True, True]),
        (0.9, 0.1, [False, False, False, False]),
        (0.0, 1.0, [True, True, True, True]),
    ],
)
def test_the_rules_differ_at_their_borders(variance: float, posterior: float, collapsed_by: list[bool]) -> None:
    moments = moments_of(torch.tensor([variance], dtype=torch.float64), torch.tensor([posterior], dtype=torch.float64), count=1)
    rows = latent_table(moments)
    assert list(rows.collapsed_by_rule) == list(COLLAPSE_RULES)
    assert [bool(marked[0]) for marked in rows.collapsed_by_rule.values()] == collapsed_by
    assert bool(rows.active[0]) is not collapsed_by[0]


def test_a_deterministic_encoder_has_variances_of_means_and_an_infinite_kl(generator: torch.Generator) -> None:
    mean = torch.randn(30, 4, generator=generator)
    rows = latent_table(PosteriorMoments.of(mean, torch.full_like(mean, -torch.inf)))
    np.testing.assert_allclose(rows.variance_law, mean.double().numpy().var(axis=0), rtol=1e-12)
    assert bool((rows.kl_nats == torch.inf).all())
    assert rows.active_count == 4


def test_prior_samples_obey_the_variance_law() -> None:
    """Codes of one variable: means of variance 0.7 and posteriors of 0.3 make up a standard normal, by SciPy's test."""
    generator = torch.Generator().manual_seed(0)
    mean = 0.7**0.5 * torch.randn(4000, 1, generator=generator, dtype=torch.float64)
    log_variance = torch.full_like(mean, np.log(0.3))
    rows = latent_table(PosteriorMoments.of(mean, log_variance))
    codes = mean + 0.3**0.5 * torch.randn(4000, 1, generator=generator, dtype=torch.float64)
    assert stats.kstest(codes.flatten().numpy(), "norm").pvalue > 1e-3
    assert float(rows.variance_law) == pytest.approx(1.0, abs=0.06)  # four standard errors of a variance of 4,000


def test_silencing_sets_the_marked_variables_to_0_and_no_others(generator: torch.Generator) -> None:
    for shape in ((5, 3), (5, 3, 2, 2)):
        codes = torch.randn(*shape, generator=generator)
        before = codes.clone()
        quiet = silence(codes, torch.tensor([True, False, True]))
        assert codes.equal(before)
        assert quiet[:, 1].equal(codes[:, 1])
        assert not bool(quiet[:, [0, 2]].any())
