"""Selectors: against brute force where that is possible, against planted truths and the rules' own laws elsewhere."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.spatial.distance import cdist
from torch import Tensor

from latlas.base.errors import CodeShapeError, IllPosedError, NonFiniteError, SettingError, UnknownNameError
from latlas.supports.selectors import SELECTORS, select

BOUND = 1 - 1 / math.e  # of a greedy choice, where the value is monotone and submodular (Nemhauser et al. 1978)


def rows(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def chosen(kind: str, codes: Tensor, k: int, *, seed: int = 0) -> list[int]:
    return select(kind, codes, k, seed=seed).tolist()


def radius(codes: Tensor, places: tuple[int, ...] | list[int]) -> float:
    """How far the worst served code lies from the nearest chosen one."""
    return float(cdist(codes.numpy(), codes.numpy()[list(places)]).min(axis=1).max())


def served(codes: Tensor, places: tuple[int, ...] | list[int]) -> float:
    """Mean distance of a code to the nearest chosen one."""
    return float(cdist(codes.numpy(), codes.numpy()[list(places)]).min(axis=1).mean())


def information(codes: Tensor, places: tuple[int, ...] | list[int], prior: float = 0.0) -> float:
    """Log-determinant of the information matrix of an affine regression on whitened codes, by NumPy."""
    centred = codes.numpy() - codes.numpy().mean(axis=0)
    values, vectors = np.linalg.eigh(centred.T @ centred / len(centred))
    design = np.column_stack([centred @ vectors / np.sqrt(values), np.ones(len(centred))])[list(places)]
    return float(np.linalg.slogdet(design.T @ design + prior * np.eye(design.shape[1]))[1])


# What all have in common


@pytest.mark.parametrize("kind", SELECTORS)
@pytest.mark.parametrize(("n", "k"), [(40, 2), (40, 7), (40, 40), (300, 33)])
def test_k_different_indices_come_out(kind: str, n: int, k: int) -> None:
    found = select(kind, rows(n, 3).float(), k, seed=3)
    assert found.dtype == torch.int64
    assert len(set(found.tolist())) == len(found) == k
    assert 0 <= int(found.min()) <= int(found.max()) < n


@pytest.mark.parametrize("kind", SELECTORS)
def test_the_seed_alone_decides(kind: str) -> None:
    codes = rows(200, 4)
    assert chosen(kind, codes, 20, seed=1) == chosen(kind, codes, 20, seed=1)
    differs = chosen(kind, codes, 20, seed=1) != chosen(kind, codes, 20, seed=2)
    assert differs == (kind not in ("d-optimal", "facility-location"))  # 200 codes are few enough to compare all of them


@pytest.mark.parametrize("kind", ["random", "farthest", "d-optimal", "facility-location"])
def test_a_choice_of_few_is_the_beginning_of_a_choice_of_more(kind: str) -> None:
    codes = rows(200, 4)
    assert chosen(kind, codes, 30)[:11] == chosen(kind, codes, 11)


@pytest.mark.parametrize("kind", ["d-optimal", "facility-location"])
def test_a_rule_without_chance_does_not_depend_on_the_order_of_the_codes(kind: str) -> None:
    codes, order = rows(150, 2), torch.randperm(150, generator=torch.Generator().manual_seed(5))
    assert order[chosen(kind, codes[order], 12)].tolist() == chosen(kind, codes, 12)


@pytest.mark.parametrize("kind", [kind for kind in SELECTORS if kind != "support-set"])
def test_codes_that_are_all_alike_are_still_chosen_once_each(kind: str) -> None:
    found = chosen(kind, torch.full((9, 3), 2.5), 5)
    assert len(set(found)) == 5


@pytest.mark.parametrize("kind", SELECTORS)
def test_the_codes_are_left_as_they_were(kind: str) -> None:
    codes = rows(60, 3)
    before = codes.clone()
    chosen(kind, codes, 8)
    assert codes.equal(before)


# Each rule


def test_random_points_are_uniform() -> None:
    counts = torch.zeros(10, dtype=torch.int64)
    codes = rows(10, 2)
    for seed in range(2000):
        counts[select("random", codes, 3, seed=seed)] += 1
    assert int(counts.sum()) == 6000
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("k", [2, 3, 4])
def test_farthest_points_cover_within_twice_the_best_radius(seed: int, k: int) -> None:
    codes = rows(14, 2, seed)
    best = min(radius(codes, places) for places in itertools.combinations(range(14), k))
    assert radius(codes, chosen("farthest", codes, k, seed=seed)) <= 2 * best + 1e-12


def test_farthest_points_are_each_the_farthest_from_those_before() -> None:
    codes = rows(300, 5) + 1e4  # an offset that would eat the digits of a careless distance
    found = chosen("farthest", codes, 25)
    distances = cdist(codes.numpy(), codes.numpy())
    for size in range(1, 25):
        nearest = distances[:, found[:size]].min(axis=1)
        assert nearest[found[size]] == pytest.approx(nearest.max(), rel=1e-9)


def test_medoids_of_planted_clusters_are_one_code_of_each() -> None:
    centres = 100 * torch.eye(6, dtype=torch.float64)
    cluster = torch.arange(120) % 6
    codes = centres[cluster] + rows(120, 6)
    found = chosen("k-means", codes, 6)
    assert sorted(cluster[found].tolist()) == list(range(6))
    for place in found:
        members = (cluster == cluster[place]).nonzero().flatten()
        middle = codes[members].mean(dim=0)
        assert place == int(members[(codes[members] - middle).square().sum(dim=1).argmin()])


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("k", [2, 3, 4])
def test_facility_location_keeps_the_greedy_promise(seed: int, k: int) -> None:
    """The value is what the farthest possible service would cost, less what this one costs."""
    codes = rows(13, 2, seed)
    worst = float(cdist(codes.numpy(), codes.numpy()).max())
    best = max(worst - served(codes, places) for places in itertools.combinations(range(13), k))
    assert worst - served(codes, chosen("facility-location", codes, k)) >= BOUND * best


def test_facility_location_is_greedy_although_it_is_lazy() -> None:
    """The same choice as by trying every code at every step."""
    codes = rows(80, 3)
    found: list[int] = []
    for _ in range(12):
        costs = [served(codes, [*found, place]) if place not in found else math.inf for place in range(80)]
        found.append(int(np.argmin(costs)))
    assert chosen("facility-location", codes, 12) == found


def test_facility_location_of_many_codes_considers_some_of_them() -> None:
    codes = rows(6_000, 2)
    found = chosen("facility-location", codes, 30)
    assert len(set(found)) == 30
    assert max(found) >= 5_000  # chosen from the whole, not from its beginning
    assert served(codes, found) < 0.85 * np.mean([served(codes, chosen("random", codes, 30, seed=s)) for s in range(5)])
    assert found != chosen("facility-location", codes, 30, seed=1)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("k", [3, 4, 5])
def test_the_d_optimal_choice_keeps_the_greedy_promise(seed: int, k: int) -> None:
    """The value is the growth of the log-determinant over that of the prior alone, which makes it 0 for no codes."""
    codes, prior = rows(12, 2, seed), 1e-6
    nothing = 3 * math.log(prior)
    best = max(information(codes, places, prior) - nothing for places in itertools.combinations(range(12), k))
    assert information(codes, chosen("d-optimal", codes, k), prior) - nothing >= BOUND * best


def test_the_d_optimal_choice_is_greedy() -> None:
    """Each step against trying every code, by NumPy's determinant: rank-one updates lose nothing over 30 steps."""
    codes = rows(60, 4)
    found = chosen("d-optimal", codes, 30)
    assert len(set(found)) == 30
    for size in range(29):
        values = [
            information(codes, [*found[:size], place], 1e-6) if place not in found[:size] else -math.inf for place in range(60)
        ]
        assert values[found[size]] == pytest.approx(max(values), abs=1e-6)


def test_the_d_optimal_choice_does_not_depend_on_the_coordinates() -> None:
    codes = rows(200, 4)
    turned = codes @ (rows(4, 4, 9) * torch.tensor([1.0, 10.0, 0.1, 3.0], dtype=torch.float64)) + 7
    assert chosen("d-optimal", turned, 40) == chosen("d-optimal", codes, 40)
    with_a_constant = torch.column_stack([codes, torch.full((200,), 3.0, dtype=torch.float64)])
    assert chosen("d-optimal", with_a_constant, 40) == chosen("d-optimal", codes, 40)


def test_the_d_optimal_choice_informs_a_regression_more_than_chance_does() -> None:
    codes = rows(500, 5)
    found = information(codes, chosen("d-optimal", codes, 20))
    assert found > max(information(codes, chosen("random", codes, 20, seed=seed)) for seed in range(20)) + 3


def test_a_support_set_has_a_code_in_every_sector_of_the_leading_variables() -> None:
    codes = rows(400, 4) * torch.tensor([1.0, 5.0, 0.2, 3.0], dtype=torch.float64) + 2
    leading = (codes - codes.mean(dim=0))[:, [1, 3, 0]] > 0
    signs = leading[chosen("support-set", codes, 8)]
    assert len({tuple(row) for row in signs.tolist()}) == 8
    signs = leading[chosen("support-set", codes, 15)]  # 15 points still have three variables, and seven more to place
    assert len({tuple(row) for row in signs.tolist()}) == 8


def test_a_support_set_goes_by_how_much_variables_vary_and_not_by_how_large_they_are() -> None:
    spread, mean = (torch.tensor(values, dtype=torch.float64) for values in ([0.1, 1.0, 0.1], [50.0, 0.0, -50.0]))
    for seed in range(8):
        codes = rows(400, 3, seed) * spread + mean
        sides = (codes - codes.mean(dim=0))[chosen("support-set", codes, 2), 1] > 0
        assert sorted(sides.tolist()) == [False, True]


def test_a_support_set_follows_an_order_that_is_given() -> None:
    codes = rows(400, 4) * torch.tensor([1.0, 5.0, 0.2, 3.0], dtype=torch.float64)
    found = select("support-set", codes, 4, order=[2, 0, 1, 3]).tolist()
    signs = (codes - codes.mean(dim=0))[found][:, [2, 0]] > 0
    assert len({tuple(row) for row in signs.tolist()}) == 4


def test_a_support_set_lowers_its_threshold_where_too_few_codes_lie_beyond_the_largest() -> None:
    """All but four codes lie close to the middle: the largest threshold leaves four, and twenty are wanted."""
    corners = 10 * torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    codes = torch.cat([corners, 0.1 * rows(60, 2).float()])
    assert len(set(chosen("support-set", codes, 20))) == 20


# Mistakes


@pytest.mark.parametrize("kind", SELECTORS)
def test_bad_codes_and_sizes_are_refused(kind: str) -> None:
    codes = rows(10, 2)
    for k in (0, -3, 11):
        with pytest.raises(SettingError, match=f"Asked for {k} of 10 codes"):
            select(kind, codes, k)
    codes[4, 1] = math.nan
    with pytest.raises(NonFiniteError, match="Code 4 holds NaN"):
        select(kind, codes, 3)
    with pytest.raises(CodeShapeError, match="n x variables"):
        select(kind, torch.zeros(10, 2, 4, 4), 3)


def test_an_unknown_rule_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'farthest'"):
        select("fartest", rows(10, 2), 3)


def test_a_support_set_needs_two_sectors_and_codes_that_vary() -> None:
    with pytest.raises(SettingError, match="at least 2"):
        select("support-set", rows(10, 2), 1)
    with pytest.raises(IllPosedError, match="All codes are alike"):
        select("support-set", torch.ones(10, 2), 3)
    with pytest.raises(CodeShapeError, match="variables 0 to 1"):
        select("support-set", rows(10, 2), 3, order=[0, 2])
    half = torch.cat([torch.zeros(6, 1), torch.ones(3, 1), -torch.ones(3, 1)])
    with pytest.raises(IllPosedError, match="Only 6 of 12"):
        select("support-set", half, 8)


def test_too_many_facilities_are_refused_before_their_distances_are_taken() -> None:
    with pytest.raises(SettingError, match="or use k-means"):
        select("facility-location", torch.zeros(30_000, 1), 15_000)
