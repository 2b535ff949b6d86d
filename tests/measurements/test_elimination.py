"""Elimination: the exhaustive top for a part of the decodes, and errors that are what they say."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.stats import linregress
from scipy.stats import t as student
from torch import Tensor

from latlas.base.errors import SettingError
from latlas.measurements import elimination
from latlas.measurements.elimination import Elimination, Estimates, eliminate, estimate, schedule

N, LATENT, TOP = 1000, 16, 5
STRENGTH = torch.linspace(1.0, 0.3, LATENT, dtype=torch.float64).square()


def draws(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def quadratic(seed: int) -> tuple[Tensor, Tensor]:
    """Growths as of a linear decoder: the squared code, and a term that depends on the residual."""
    generator = draws(seed)
    z = torch.randn(N, LATENT, generator=generator, dtype=torch.float64)
    noise = 0.3 * STRENGTH.sqrt() * z * torch.randn(N, LATENT, generator=generator, dtype=torch.float64)
    return STRENGTH * z.square() + noise, z.square()


def heavy(seed: int) -> tuple[Tensor, Tensor]:
    """Growths whose largest is often a hundred times the middle one, and about which the codes say nothing."""
    tails = torch.exp(1.5 * torch.randn(N, LATENT, generator=draws(seed), dtype=torch.float64) - 1.125)
    return STRENGTH * tails, torch.zeros(N, LATENT, dtype=torch.float64)


def rare(seed: int) -> tuple[Tensor, Tensor]:
    """Every other variable acts in one image of fifty only, and there so much that its mean is what it would be."""
    generator = draws(seed)
    share = torch.where(torch.arange(LATENT) % 2 == 0, 0.02, 1.0).double()
    on = torch.rand(N, LATENT, generator=generator) < share
    z = torch.randn(N, LATENT, generator=generator, dtype=torch.float64) * on / share.sqrt()
    return STRENGTH * z.square(), z.square()


def run(growth: Tensor, energies: Tensor, seed: int, **settings: float) -> Elimination:
    return eliminate(
        lambda rows, variables: growth[rows][:, variables],
        energies,
        top=TOP,
        confidence=0.95,
        generator=draws(seed),
        **settings,  # type: ignore[arg-type]
    )


def mistakes(tables: list[tuple[Tensor, Tensor]]) -> tuple[int, float]:
    """Return how many runs found another top than the exhaustive one, and the share of its decodes that they took."""
    wrong, share = 0, 0.0
    for seed, (growth, energies) in enumerate(tables):
        found = run(growth, energies, seed, indifference=0.0)
        wrong += set(found.top) != set(growth.mean(dim=0).topk(TOP).indices.tolist())
        share += found.decodes / (N * (LATENT + 1)) / len(tables)
    return wrong, share


# The rate of mistakes


def test_the_top_is_the_exhaustive_one_for_a_fifth_of_the_decodes() -> None:
    wrong, share = mistakes([quadratic(seed) for seed in range(60)])
    assert wrong <= 3
    assert share < 0.25


def test_heavy_tails_cost_decodes_and_not_the_truth() -> None:
    wrong, share = mistakes([heavy(seed) for seed in range(60)])
    assert wrong <= 3
    assert 0.3 < share < 0.8


def test_a_variable_that_acts_in_few_images_is_waited_for_because_its_codes_are_known() -> None:
    tables = [rare(seed) for seed in range(40)]
    assert mistakes(tables)[0] <= 2
    blind = [(growth, torch.zeros_like(energies)) for growth, energies in tables]
    assert mistakes(blind)[0] > 20  # without the codes nothing tells that such a variable has not been seen yet


# What is decoded


def test_decodes_are_counted_and_a_decided_variable_is_never_decoded_again() -> None:
    growth, energies = quadratic(7)
    asked: list[tuple[int, list[int]]] = []

    def measure(rows: Tensor, variables: list[int]) -> Tensor:
        asked.append((len(rows), variables))
        return growth[rows][:, variables]

    found = eliminate(measure, energies, top=TOP, confidence=0.95, generator=draws(1), first=32)
    assert found.decodes == sum(images * (len(variables) + 1) for images, variables in asked)
    assert len(asked) == found.rounds > 1
    for (_, before), (_, after) in pairwise(asked):
        assert set(after) <= set(before)
    assert [images for images, _ in asked] == [32, 32, 64, 128, 256, 488][: len(asked)]
    seen = [sum(images for images, variables in asked if variable in variables) for variable in range(LATENT)]
    assert found.seen.tolist() == seen
    for variable in range(LATENT):
        drawn = found.rows[: seen[variable]]
        assert found.growth[: seen[variable], variable].equal(growth[drawn, variable])
        assert bool(found.growth[seen[variable] :, variable].isnan().all())


def test_a_near_tie_uses_up_the_images_and_is_then_decided_as_exhaustively() -> None:
    growth, energies = heavy(3)
    order = growth.mean(dim=0).argsort(descending=True)
    inside, outside = int(order[TOP - 1]), int(order[TOP])
    growth[:, outside] += growth[:, inside].mean() - growth[:, outside].mean() - 1e-9
    found = run(growth, energies, 0, indifference=0.0)
    assert set(found.top) == set(order[:TOP].tolist())
    assert found.seen[[inside, outside]].tolist() == [N, N]
    assert int(found.seen.min()) < N
    assert not found.settled
    assert len(found.rows.unique()) == N
    other = run(growth, energies, 0, indifference=0.5)  # half the leading gain is all the same to us
    assert other.decodes < found.decodes
    assert not other.settled


def test_collapsed_variables_do_not_use_up_the_images() -> None:
    """Five places and three variables that draw anything: which of the rest come fourth and fifth is nobody's concern."""
    growth, energies = quadratic(1)
    growth[:, 3:] = 0.0
    energies[:, 3:] *= 1e-6
    found = run(growth, energies, 0)
    assert {0, 1, 2} < set(found.top)
    assert len(found.top) == TOP
    assert int(found.seen.max()) < N
    assert not found.settled


def test_few_images_are_all_decoded() -> None:
    growth, energies = quadratic(2)
    found = run(growth[:20], energies[:20], 0)
    assert found.decodes == 20 * (LATENT + 1)
    assert set(found.top) == set(growth[:20].mean(dim=0).topk(TOP).indices.tolist())


@pytest.mark.parametrize(("count", "sizes"), [(10, [10]), (64, [64]), (65, [64, 65]), (300, [64, 128, 256, 300])])
def test_rounds_double_and_end_with_all_images(count: int, sizes: list[int]) -> None:
    assert schedule(count, 64) == sizes


def test_the_level_is_shared_among_all_pairs_across_the_border_and_all_rounds_but_the_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Bonferroni; and the quantile is SciPy's Student's, with two degrees less than images: a slope and a mean are fitted."""
    asked: list[tuple[float, int]] = []
    quantile = elimination._quantile

    def watched(level: float, n: int) -> float:
        asked.append((level, n))
        return quantile(level, n)

    monkeypatch.setattr(elimination, "_quantile", watched)
    growth, energies = heavy(11)
    run(growth, energies, 0, indifference=0.0)
    sizes = schedule(N, 64)
    assert len(asked) > 1
    assert [n for _, n in asked] == sizes[: len(asked)]
    for level, _ in asked:
        assert level * TOP * (LATENT - TOP) * (len(sizes) - 1) == pytest.approx(0.05)
    for n in (3, 10, 64):
        assert quantile(1e-4, n) == pytest.approx(student.isf(1e-4, n - 2))
    assert quantile(1e-4, 2) == float("inf")


def test_who_is_surely_exceeded_by_as_many_as_there_are_places_is_out() -> None:
    """The third is measured badly: nobody is told from it. The first exceeds all, the fourth is exceeded by two."""
    influence = torch.zeros(50, 4, dtype=torch.float64)
    influence[::2], influence[1::2] = torch.tensor([0.1, 0.1, 9.0, 0.1]), -torch.tensor([0.1, 0.1, 9.0, 0.1])
    found = Estimates(
        mean=torch.tensor([30.0, 5.0, 4.6, 4.5]).double(), influence=influence, trusted=torch.ones(4).bool(), finite=0.9
    )
    assert elimination._decide(found, [7, 8, 9, 10], 2, 2.0, 0.0) == ([7], [8, 9], True)


@pytest.mark.parametrize(("share", "trusted"), [(0.0, False), (0.49, False), (0.5, True), (2.0, True)])
def test_a_sample_is_trusted_from_half_the_mean_squared_code_of_the_set_on(share: float, trusted: bool) -> None:
    energies = share * torch.tensor([0.5, 1.5, 0.5, 1.5], dtype=torch.float64)[:, None]
    found = estimate(torch.rand(4, 1).double(), energies, torch.ones(1, dtype=torch.float64), 100)
    assert found.trusted.tolist() == [trusted]


# The estimator


def test_the_mean_is_where_the_regression_line_meets_the_mean_of_the_set() -> None:
    growth, energies = quadratic(4)
    found = estimate(growth[:50], energies[:50], energies.mean(dim=0), N)
    for variable in range(LATENT):
        line = linregress(energies[:50, variable].numpy(), growth[:50, variable].numpy())
        expected = line.intercept + line.slope * float(energies[:, variable].mean())
        assert float(found.mean[variable]) == pytest.approx(expected, rel=1e-10)


def test_an_influence_is_what_leaving_the_image_out_would_change() -> None:
    growth, energies = quadratic(5)
    n, whole = 40, energies.mean(dim=0)
    found = estimate(growth[:n, :2], energies[:n, :2], whole[:2], N)
    for variable in range(2):
        x, y = energies[:n, variable].numpy(), growth[:n, variable].numpy()
        for left_out in (0, int(x.argmax()), 17):
            line = linregress(np.delete(x, left_out), np.delete(y, left_out))
            without = line.intercept + line.slope * float(whole[variable])
            change = float(found.mean[variable]) - without
            assert float(found.influence[left_out, variable]) / n == pytest.approx(change, rel=1e-8)


@pytest.mark.parametrize("table", [quadratic, heavy], ids=["linear in the squared code", "codes say nothing"])
def test_standard_errors_are_the_spread_over_draws(table: object) -> None:
    assert callable(table)
    growth, energies = table(6)
    truth = growth.mean(dim=0)
    misses, stated = [], []
    for seed in range(400):
        rows = torch.randperm(N, generator=draws(seed))[:300]
        found = estimate(growth[rows], energies[rows], energies.mean(dim=0), N)
        misses.append((found.differences() - (truth[:, None] - truth[None, :]))[0, 1:])
        stated.append(found.errors()[0, 1:])
    ratio = torch.stack(misses).square().mean(dim=0).sqrt() / torch.stack(stated).square().mean(dim=0).sqrt()
    assert float(ratio.mean()) == pytest.approx(1.0, abs=0.06)


def test_the_squared_codes_take_the_better_part_of_the_error_away() -> None:
    growth, energies = quadratic(8)
    rows = torch.arange(100)
    informed = estimate(growth[rows], energies[rows], energies.mean(dim=0), N).errors()[0, 1:]
    plain = estimate(growth[rows], torch.zeros(100, LATENT, dtype=torch.float64), torch.zeros(LATENT).double(), N)
    assert float((informed / plain.errors()[0, 1:]).mean()) < 0.4


def test_all_images_leave_no_error_and_the_plain_mean() -> None:
    growth, energies = heavy(9)[0], quadratic(9)[1]
    found = estimate(growth, energies, energies.mean(dim=0), N)
    torch.testing.assert_close(found.mean, growth.mean(dim=0), rtol=1e-12, atol=0.0)
    assert float(found.errors().max()) == 0.0


def test_a_slope_that_one_image_decides_is_not_believed() -> None:
    growth, energies = torch.rand(30, 2).double(), torch.zeros(30, 2).double()
    energies[:, 0] = torch.rand(30).double()
    energies[0, 1] = 1.0
    found = estimate(growth, energies, torch.tensor([0.5, 0.04]).double(), N)
    assert bool(found.influence[:, 0].isfinite().all())
    assert not bool(found.errors()[0, 1] < float("inf"))


# Mistakes


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"top": 0}, "top 0 of 16"),
        ({"top": LATENT}, "ask for 1 to 15"),
        ({"confidence": 1.0}, "from 0.5 to below 1, got 1.0"),
        ({"confidence": float("nan")}, "from 0.5 to below 1, got nan"),
        ({"first": 2}, "3 images at least"),
    ],
)
def test_settings_out_of_range_are_told(settings: dict[str, float], told: str) -> None:
    growth, energies = quadratic(0)
    asked = {"top": TOP, "confidence": 0.95, **settings}
    with pytest.raises(SettingError, match=told):
        eliminate(lambda rows, variables: growth[rows][:, variables], energies, generator=draws(0), **asked)  # type: ignore[arg-type]
