"""Collapse at any scale: what rescaling the code must not change, and what the published rules make of it."""

import pytest
import torch
from torch import Tensor

from latlas.measurements.collapse_rules import collapsed_at_any_scale, information_share, rules_agree
from latlas.measurements.latents import LatentTable, latent_table
from latlas.numerics.posteriors import PosteriorMoments


def table(scale: float, generator: torch.Generator) -> LatentTable:
    """Three variables: informative, noisy, collapsed; means and deviations alike times `scale`."""
    means = torch.randn(4000, 3, generator=generator, dtype=torch.float64) * torch.tensor([0.99, 0.3, 0.001]).double()
    variances = torch.tensor([0.02, 0.91, 1.0], dtype=torch.float64).expand(4000, 3)
    return latent_table(PosteriorMoments.of(means * scale, variances.log() + 2 * torch.tensor(scale).log()))


@pytest.mark.parametrize("scale", [1e-3, 0.1, 1.0, 30.0])
def test_the_verdict_at_any_scale_is_the_same_at_every_scale(scale: float, generator: torch.Generator) -> None:
    rows = table(scale, generator)
    assert collapsed_at_any_scale(rows).tolist() == [False, False, True]
    torch.testing.assert_close(
        information_share(rows), torch.tensor([0.98, 0.09, 1e-6], dtype=torch.float64), atol=5e-3, rtol=0.05
    )


def test_where_the_variance_law_holds_the_verdict_is_burdas(generator: torch.Generator) -> None:
    rows = table(1.0, generator)
    assert collapsed_at_any_scale(rows).tolist() == (~rows.active).tolist()


def test_a_small_scale_misleads_every_published_rule_one_way_or_the_other(generator: torch.Generator) -> None:
    """Shrunk a hundredfold, an informative variable looks collapsed by its means and active by its deviations."""
    rows = table(0.01, generator)
    votes = [bool(marked[0]) for marked in rows.collapsed_by_rule.values()]
    assert votes == [True, True, False, False]
    assert not bool(collapsed_at_any_scale(rows)[0])


def test_rules_agree_where_all_say_the_same(generator: torch.Generator) -> None:
    assert rules_agree(table(1.0, generator)).tolist() == [True, False, True]  # 0.09 of variance, and 0.91 of the posterior's
    assert rules_agree(table(0.01, generator)).tolist() == [False, False, False]


def test_a_variable_that_is_always_0_is_collapsed(generator: torch.Generator) -> None:
    codes: Tensor = torch.zeros(10, 1)
    rows = latent_table(PosteriorMoments.of(codes, torch.full_like(codes, -torch.inf)))
    assert float(information_share(rows)) == 0.0
    assert bool(collapsed_at_any_scale(rows))
