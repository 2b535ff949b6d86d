"""Choosing k of n codes: one interface for every rule by which a few points may stand for all.

Distances are Euclidean, in the codes as they come; D-optimality alone does not depend on the coordinates. Every rule
but k-means and the Support Set is nested: the choice of k points is the first k of a choice of more.
"""

import heapq
import warnings
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float64, Int
from torch import Tensor

from latlas.base.errors import CodeShapeError, IllPosedError, NonFiniteError, SettingError, unknown_name
from latlas.base.seeds import derived_seed, generator
from latlas.base.shapes import Codes
from latlas.numerics.moments import Moments
from latlas.supports.sectors import Sectors, largest_threshold, offsets
from latlas.supports.selection import one_per_sector

SELECTORS = ("random", "k-means", "farthest", "d-optimal", "facility-location", "support-set")
_CHUNK = 16_384  # rows in float64 at a time: bounds the copies
_K_MEANS_ROWS = 20_000  # the centres of this many random rows; the medoids come from all of them
_K_MEANS_ROUNDS = 50
_FACILITY_ROWS = 5_000  # facility location compares every pair: random rows beyond this are left out
_MOST_FACILITY_ROWS = 20_000  # 1.6 GB of distances
_PRIOR = 1e-6  # ridge of the D-optimal design, in variances of the codes: what makes its first steps defined
_NO_SPREAD = 1e-12  # share of the largest variance below which a direction of the codes carries rounding alone


def select(kind: str, codes: Codes, k: int, *, seed: int = 0, order: Sequence[int] | None = None) -> Int[Tensor, " k"]:
    """Return the indices of k different codes.

    Args:
        kind: "random" (uniform without replacement);
            "k-means" (the nearest code to each centre of scikit-learn's `KMeans`, no code twice);
            "farthest" (farthest point first, Gonzalez 1985: from a random code on, always the one farthest from all
            chosen; its covering radius is at most twice the smallest possible);
            "d-optimal" (greedy, Fedorov 1972: always the code that most increases the log-determinant of the information
            matrix of an affine regression);
            "facility-location" (greedy: always the code that most decreases the mean distance of a code to the nearest
            chosen one);
            "support-set" (one random code for each sector of the leading variables, as many as give at most k sectors,
            topped up from the most crowded).
        codes: to choose from; vector codes.
        k: from 1 to n; from 2 for a Support Set.
        seed: decides what is random in the rule: the first point of "farthest", the start of k-means, which codes
            facility location leaves out beyond 5,000 of them; nothing in "d-optimal".
        order: variables from the most informative down, for the Support Set; None orders them by their variance.

    Raises:
        UnknownNameError: no such rule.
        CodeShapeError: codes that are no matrix, or an order that names variables they lack.
        SettingError: k below 1, or above the number of codes.
        NonFiniteError: NaN or infinity among the codes.
        IllPosedError: a Support Set of codes of which fewer than k lie in any sector.

    Cost: n k d for each rule, but for facility location (pairs of at most 5,000 codes, or 2 k).
    """
    if kind not in SELECTORS:
        raise unknown_name("selector", kind, SELECTORS)
    if codes.ndim != 2 or codes.shape[1] == 0:
        raise CodeShapeError(f"A selector needs vector codes of shape n x variables, got {tuple(codes.shape)}.")
    if not 1 <= k <= len(codes):
        raise SettingError(f"Asked for {k} of {len(codes)} codes; ask for 1 to that many.")
    if not bool(codes.isfinite().all()):
        bad = int((~codes.isfinite()).any(dim=1).nonzero()[0, 0])
        raise NonFiniteError(f"Code {bad} holds NaN or infinity; nothing can be chosen by distances to it. Remove it first.")
    here = codes.detach().cpu()
    return _support_set(here, k, seed, order) if kind == "support-set" else _RULES[kind](here, k, seed)


def _random(codes: Tensor, k: int, seed: int) -> Tensor:
    return torch.randperm(len(codes), generator=generator(seed, "random points"))[:k]


def _farthest(codes: Tensor, k: int, seed: int) -> Tensor:
    rows, norms = _centred(codes)
    chosen = [int(torch.randint(len(rows), (1,), generator=generator(seed, "first of the farthest points")))]
    nearest = _squared_distances(rows, norms, chosen[0])
    nearest[chosen[0]] = -1.0  # below every distance, so that of codes that are all alike none is chosen twice
    while len(chosen) < k:
        chosen.append(int(nearest.argmax()))
        torch.minimum(nearest, _squared_distances(rows, norms, chosen[-1]), out=nearest)
        nearest[chosen[-1]] = -1.0
    return torch.tensor(chosen)


def _k_means(codes: Tensor, k: int, seed: int) -> Tensor:
    from sklearn.cluster import KMeans

    chance = generator(seed, "k-means")
    bound = max(_K_MEANS_ROWS, 2 * k)
    some = codes if len(codes) <= bound else codes[torch.randperm(len(codes), generator=chance)[:bound]]
    middle = codes.double().mean(dim=0)
    # In float32 codes of more digits would lose them to a common offset.
    given = some - middle if codes.dtype == torch.float64 else some.float()
    rule = KMeans(k, n_init=1, max_iter=_K_MEANS_ROUNDS, random_state=derived_seed(seed, "k-means") % 2**32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fewer different codes than clusters: below, each medoid is another code all the same
        centres = torch.from_numpy(rule.fit(given.numpy()).cluster_centers_).double()
    rows, norms = _centred(codes)
    centres = centres if codes.dtype == torch.float64 else centres - middle
    chosen = []
    taken = torch.zeros(len(rows), dtype=torch.bool)
    for centre in centres:
        distances = (norms - 2.0 * (rows @ centre)).masked_fill_(taken, torch.inf)
        chosen.append(int(distances.argmin()))
        taken[chosen[-1]] = True
    return torch.tensor(chosen)


def _d_optimal(codes: Tensor, k: int, seed: int) -> Tensor:  # noqa: ARG001 - one signature for every rule
    """Greedy on log det(prior I + sum of f f'), f = (whitened code, 1).

    A row f adds log(1 + f' inverse f); after a choice the inverse, and with it every row's f' inverse f, changes by a
    rank-one term (Sherman and Morrison 1950), so that a step costs one product of all rows with one vector.
    """
    rows = _whitened_with_bias(codes)
    inverse = torch.eye(rows.shape[1], dtype=torch.float64) / _PRIOR
    leverage = rows.square().sum(dim=1) / _PRIOR
    chosen: list[int] = []
    for _ in range(k):
        chosen.append(int(leverage.argmax()))
        row = rows[chosen[-1]]
        change = inverse @ row
        change = change / (1.0 + row @ change).sqrt()
        inverse -= torch.outer(change, change)
        leverage -= (rows @ change).square_()
        leverage[chosen] = -torch.inf
    return torch.tensor(chosen)


def _facility_location(codes: Tensor, k: int, seed: int) -> Tensor:
    """Lazy greedy (Minoux 1978): a gain can only shrink, so that one still on top after its renewal is the largest."""
    bound = max(_FACILITY_ROWS, 2 * k)
    if min(bound, len(codes)) > _MOST_FACILITY_ROWS:
        raise SettingError(
            f"Facility location compares every pair of {bound:,} codes to choose {k:,}; ask for at most "
            f"{_MOST_FACILITY_ROWS // 2:,}, or use k-means."
        )
    some = torch.randperm(len(codes), generator=generator(seed, "facilities"))[:bound].sort().values
    distances = torch.cdist(codes[some].double(), codes[some].double(), compute_mode="donot_use_mm_for_euclid_dist").float()
    totals = distances.sum(dim=1, dtype=torch.float64)
    chosen = [int(totals.argmin())]
    nearest = distances[chosen[0]].clone()
    gains = torch.cat(
        [(nearest - part).clamp_min_(0.0).sum(dim=1, dtype=torch.float64) for part in torch.split(distances, 512)]
    )
    waiting = [(-gain, place, 1) for place, gain in enumerate(gains.tolist()) if place != chosen[0]]
    heapq.heapify(waiting)
    while len(chosen) < k:
        gain, place, known_at = heapq.heappop(waiting)
        if known_at < len(chosen):
            gain = -float((nearest - distances[place]).clamp_min_(0.0).sum(dtype=torch.float64))
            heapq.heappush(waiting, (gain, place, len(chosen)))
            continue
        chosen.append(place)
        torch.minimum(nearest, distances[place], out=nearest)
    return some[chosen]


def _support_set(codes: Tensor, k: int, seed: int, order: Sequence[int] | None) -> Tensor:
    if k < 2:
        raise SettingError("A Support Set holds one code for each of at least 2 sectors; ask for 2 or more.")
    if order is not None and not set(order) <= set(range(codes.shape[1])):
        raise CodeShapeError(f"An order must name variables 0 to {codes.shape[1] - 1}, got {list(order)}.")
    variances = codes.double().var(dim=0, correction=0)
    ranked = variances.argsort(descending=True, stable=True).tolist() if order is None else list(order)
    varying = [variable for variable in ranked if float(variances[variable]) > _NO_SPREAD * float(variances.max())]
    leading = tuple(varying[: min(k.bit_length() - 1, 20)])
    if not leading:
        raise IllPosedError("All codes are alike: they have no sectors. Use another selector, or give codes that differ.")
    centre = tuple(codes[:, list(leading)].double().mean(dim=0).tolist())
    reach = offsets(codes, leading, centre).abs().amin(dim=1)
    # The largest threshold that empties no sector may leave fewer than k codes in all of them together.
    kth = reach.topk(k).values[-1]
    below = float(torch.nextafter(kth, torch.zeros_like(kth)))
    sectors = Sectors(variables=leading, threshold=min(largest_threshold(codes, leading, centre), below), centre=centre)
    chosen = one_per_sector(codes, sectors, at_least=k, generator=generator(seed, "support selection"))
    if len(chosen) < k:
        raise IllPosedError(
            f"Only {len(chosen)} of {len(codes)} codes lie in a sector of variables {list(leading)}, {k} were asked for: "
            "the others lie at the mean in some variable. Ask for fewer, or use another selector."
        )
    return chosen


def _centred(codes: Tensor) -> tuple[Float64[Tensor, "n d"], Float64[Tensor, " n"]]:
    # About the mean, |x|^2 - 2 x y + |y|^2 loses no digits to a common offset.
    rows = codes.to(torch.float64, copy=True)
    rows -= rows.mean(dim=0)
    return rows, torch.linalg.vector_norm(rows, dim=1).square_()


def _squared_distances(rows: Tensor, norms: Tensor, place: int) -> Float64[Tensor, " n"]:
    return torch.addmv(norms, rows, rows[place], alpha=-2.0).add_(norms[place]).clamp_min_(0.0)


def _whitened_with_bias(codes: Tensor) -> Float64[Tensor, "n e"]:
    moments = Moments.over(torch.split(codes, _CHUNK))
    values, vectors = torch.linalg.eigh(moments.covariance())
    kept = values > _NO_SPREAD * values[-1].clamp_min(torch.finfo(torch.float64).tiny)
    whitening = vectors[:, kept] / values[kept].sqrt()
    rows = torch.ones(len(codes), whitening.shape[1] + 1, dtype=torch.float64)
    for start in range(0, len(codes), _CHUNK):
        part = codes[start : start + _CHUNK].double() - moments.mean
        rows[start : start + _CHUNK, :-1] = part @ whitening
    return rows


_RULES: dict[str, Callable[[Tensor, int, int], Tensor]] = {
    "random": _random,
    "k-means": _k_means,
    "farthest": _farthest,
    "d-optimal": _d_optimal,
    "facility-location": _facility_location,
}
