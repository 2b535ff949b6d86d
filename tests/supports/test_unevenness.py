"""Unevenness: SciPy's chi-square tests say the same, simulated p-values are uniform where nothing is uneven, planted dependence is found."""

import inspect
import json
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from latlas.base.errors import IllPosedError, SettingError, UnknownNameError
from latlas.supports.unevenness import independent, unevenness


def table(*counts: int) -> Tensor:
    return torch.tensor(counts)


def test_against_even_sectors_it_is_scipys_chi_square() -> None:
    counts = table(30, 22, 41, 27, 25, 35, 18, 38)
    found = unevenness(counts, "uniform")
    expected = stats.chisquare(counts.numpy())
    assert (found.statistic, found.p_value) == pytest.approx((expected.statistic, expected.pvalue))
    assert (found.freedom, found.simulated) == (7, False)
    # Cohen's w: the standard deviation of the numbers in sectors, over their mean.
    assert found.effect == pytest.approx(float(stats.variation(counts.numpy())))
    assert found.entropy == pytest.approx(stats.entropy(counts.numpy()) / math.log(8))


@pytest.mark.parametrize("k", [2, 3])
def test_against_independence_it_is_scipys_contingency_table(k: int) -> None:
    """Bit 0 is the first variable: it changes fastest, which is the last axis of NumPy's reshaping."""
    counts = torch.randint(10, 60, (2**k,), generator=torch.Generator().manual_seed(k))
    found = unevenness(counts, "independence")
    expected = stats.chi2_contingency(counts.numpy().reshape((2,) * k), correction=False)
    assert (found.statistic, found.p_value, found.freedom) == pytest.approx((expected.statistic, expected.pvalue, expected.dof))
    np.testing.assert_allclose(found.expected.numpy(), expected.expected_freq.ravel())


def test_a_product_of_shares_is_independent_of_its_own() -> None:
    shares = torch.tensor([0.2, 0.7, 0.5], dtype=torch.float64)
    cells = torch.ones(1, 8, dtype=torch.float64)
    for bit, share in enumerate(shares.tolist()):
        upper = torch.arange(8) >> bit & 1
        cells = cells * torch.where(upper.bool(), share, 1 - share)
    torch.testing.assert_close(independent(1000 * cells), 1000 * cells)


def test_against_the_gaussian_it_is_scipys_chi_square_with_its_shares() -> None:
    counts, probability = table(60, 25, 20, 35), torch.tensor([0.2, 0.1, 0.05, 0.15], dtype=torch.float64)
    found = unevenness(counts, "gaussian", probability=probability)
    expected = stats.chisquare(counts.numpy(), 140 * probability.numpy() / 0.5)
    assert (found.statistic, found.p_value) == pytest.approx((expected.statistic, expected.pvalue))
    assert float(found.expected.sum()) == pytest.approx(140)  # given how many lie in any sector


def test_the_chi_square_distribution_serves_from_five_expected_codes_on() -> None:
    """Cochran's rule, at its border."""
    assert not unevenness(table(9, 5, 3, 3), "uniform").simulated
    assert unevenness(table(8, 5, 3, 3), "uniform").simulated


@pytest.mark.parametrize("counts", [(4, 4, 4, 4), (7, 4, 3, 2), (8, 5, 2, 1), (16, 0, 0, 0)])
def test_a_simulated_p_value_is_that_of_all_tables_by_scipys_multinomial_law(counts: tuple[int, ...]) -> None:
    """Over all 969 tables of 16 codes in four sectors; ties count, and the table itself is one of those simulated."""
    tables = [(a, b, c, 16 - a - b - c) for a in range(17) for b in range(17 - a) for c in range(17 - a - b)]
    odd = [stats.chisquare(each).statistic >= stats.chisquare(counts).statistic - 1e-9 for each in tables]
    exact = float(stats.multinomial(16, [1 / 4] * 4).pmf(np.array(tables)[odd]).sum())
    found = [unevenness(table(*counts), "uniform", seed=seed).p_value for seed in range(5)]
    for p_value in found:
        assert p_value == pytest.approx((1 + 2000 * exact) / 2001, abs=5 * math.sqrt(exact * (1 - min(exact, 1)) / 2000) + 1e-9)
    assert found[1] == unevenness(table(*counts), "uniform", seed=1).p_value
    assert (len(set(found)) > 1) == (0.001 < exact < 0.999)


@pytest.mark.parametrize("counts", [(6, 1, 2, 3), (4, 2, 2, 4), (1, 5, 5, 1)])
def test_against_independence_each_simulated_table_is_held_against_its_own_shares(counts: tuple[int, ...]) -> None:
    """Over all 455 tables of 12 codes, by SciPy: the law of the shares found, and each table's own contingency test."""
    tables = np.array([(a, b, c, 12 - a - b - c) for a in range(13) for b in range(13 - a) for c in range(13 - a - b)])

    def statistic(each: np.ndarray) -> float:
        square = each.reshape(2, 2)
        one_sided = (square.sum(axis=0) == 0).any() or (square.sum(axis=1) == 0).any()
        return 0.0 if one_sided else float(stats.chi2_contingency(square, correction=False).statistic)

    shares = stats.contingency.expected_freq(np.array(counts).reshape(2, 2)).ravel() / 12
    odd = [statistic(each) >= statistic(np.array(counts)) - 1e-9 for each in tables]
    exact = float(stats.multinomial(12, shares).pmf(tables[odd]).sum())
    found = [unevenness(table(*counts), "independence", seed=seed).p_value for seed in range(5)]
    assert np.mean(found) == pytest.approx((1 + 2000 * exact) / 2001, abs=4 * math.sqrt(exact * (1 - exact) / 10_000) + 1e-9)


@pytest.mark.parametrize("against", ["uniform", "independence"])
def test_few_expected_codes_bring_simulated_p_values_that_are_honest(against: str) -> None:
    """Tables drawn from independent, even sides: p-values are nowhere too small, and not large throughout either.

    So few codes give few different tables: p-values come in steps, which holds them above the diagonal.
    """
    chance = np.random.default_rng(3)
    found = [
        unevenness(torch.from_numpy(chance.multinomial(24, [1 / 8] * 8)), against, seed=draw)  # type: ignore[arg-type]
        for draw in range(120)
    ]
    assert all(one.simulated for one in found)
    p_values = np.array([one.p_value for one in found])
    assert stats.kstest(p_values, "uniform", alternative="greater").pvalue > 0.01
    assert 0.4 < p_values.mean() < 0.65


def test_the_simulation_agrees_with_fishers_exact_test_of_a_small_table() -> None:
    """Not the same test, and yet: strong dependence in 16 codes is found by both, none is found by both."""
    for counts, strong in ((table(8, 0, 0, 8), True), (table(4, 4, 4, 4), False)):
        found = unevenness(counts, "independence")
        assert found.simulated
        assert (found.p_value < 0.01) == (stats.fisher_exact(counts.numpy().reshape(2, 2)).pvalue < 0.01) == strong


@pytest.mark.parametrize("counts", [(8, 0, 0, 8), (30, 12, 9, 41), (1, 40, 3, 200), (5, 10, 20, 40)])
def test_of_two_variables_the_effect_is_scipys_cramers_v(counts: tuple[int, ...]) -> None:
    expected = stats.contingency.association(np.array(counts).reshape(2, 2), method="cramer")
    assert unevenness(table(*counts), "independence").effect == pytest.approx(expected, abs=1e-12)


def test_effects_reach_their_bound_where_all_codes_lie_in_the_least_expected_sector() -> None:
    probability = torch.tensor([0.5, 0.3, 0.19, 0.01], dtype=torch.float64)
    assert unevenness(table(0, 0, 0, 50), "gaussian", probability=probability).effect == pytest.approx(math.sqrt(99))
    assert unevenness(table(0, 0, 50, 0), "gaussian", probability=probability).effect < math.sqrt(99)


def test_three_variables_may_be_farther_from_independence_than_all_alike() -> None:
    """Why the effect is not divided: that of even sides that are all alike is no bound."""
    alike = unevenness(table(50, 0, 0, 0, 0, 0, 0, 50), "independence")
    one = unevenness(table(99, 0, 0, 0, 0, 0, 0, 1), "independence")
    assert alike.effect == pytest.approx(math.sqrt(8 / 2 - 1))
    assert one.effect > 3 * alike.effect


def test_effects_start_at_0_and_end_where_one_of_even_sectors_holds_all() -> None:
    even, one = unevenness(table(50, 50, 50, 50), "uniform"), unevenness(table(200, 0, 0, 0), "uniform")
    assert (even.effect, even.entropy, even.p_value) == (0.0, pytest.approx(1.0), pytest.approx(1.0))
    assert (one.effect, one.entropy) == (pytest.approx(math.sqrt(3)), 0.0)
    assert one.p_value < 1e-100


def test_where_nothing_is_left_to_vary_there_is_no_p_value() -> None:
    one_sided = unevenness(table(10, 30, 0, 0), "independence")  # the second variable has one side
    assert math.isnan(one_sided.p_value)
    assert (one_sided.statistic, one_sided.freedom) == (0.0, 0)
    json.dumps(one_sided.to_json(), allow_nan=False)


def test_a_sector_without_a_chance_that_holds_codes_contradicts() -> None:
    found = unevenness(table(10, 10, 1, 0), "gaussian", probability=torch.tensor([0.5, 0.5, 0.0, 0.0]).double())
    assert math.isinf(found.statistic)
    assert found.p_value < 1e-3
    json.dumps(found.to_json(), allow_nan=False)


def test_nonsense_is_refused() -> None:
    refused = inspect.unwrap(unevenness)
    with pytest.raises(UnknownNameError, match="Did you mean 'gaussian'"):
        refused(table(1, 2), "gausian")  # unwrapped: in tests the type checker would answer first
    with pytest.raises(IllPosedError, match="0 codes in 4 sectors"):
        unevenness(table(0, 0, 0, 0), "uniform")
    with pytest.raises(IllPosedError, match="3 codes in 3 sectors"):
        unevenness(table(1, 1, 1), "uniform")
    for probability in (None, torch.ones(2).double(), -torch.ones(4).double()):
        with pytest.raises(SettingError, match="one probability, at least 0, for each of 4 sectors"):
            refused(table(1, 1, 1, 1), "gaussian", probability=probability)
    with pytest.raises(IllPosedError, match="gives no sector any probability"):
        unevenness(table(1, 1), "gaussian", probability=torch.zeros(2).double())
