"""What the KL term asks of a variance, where the ratio of deviation to mean is the network's own choice.

A network can scale means and deviations of a variable by any factor and undo it in the decoder; the ratio
rho = sigma / |mu| stays. Along such a scaling KL = 1/2 (sigma^2 (1 + rho^2) / rho^2 - log sigma^2 - 1), whose minimum is at
sigma^2 = rho^2 / (1 + rho^2), that is, where sigma^2 + mu^2 = 1.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from latlas.base.errors import SettingError
from latlas.base.progress import Progress, silent, track
from latlas.base.provenance import Provenance
from latlas.base.records import plain
from latlas.numerics.gaussians import kl_to_prior_nats
from latlas.studies.budgets import as_budget

RATIOS = (0.1, 0.3, 1.0, 3.0)
_LEAST, _MOST = 1e-3, 2.0  # variances drawn
_POINTS = {"quick": 101, "paper": 401}


@dataclass(frozen=True, kw_only=True, eq=False)
class KLCurve:
    """KL against variance at one ratio of deviation to mean."""

    ratio: float  # rho = sigma / |mu|
    kl_nats: Float64[Tensor, " points"]  # at the study's variances
    minimum: float  # the variance of least KL, by formula
    least_kl_nats: float  # there, by formula
    found_minimum: float  # the same by search
    found_kl_nats: float


@dataclass(frozen=True, kw_only=True, eq=False)
class KLCurveStudy:
    """The curves of several ratios."""

    variances: Float64[Tensor, " points"]
    curves: list[KLCurve]  # by ratio
    provenance: Provenance

    @property
    def deviation(self) -> float:
        """The largest difference between a variance of least KL by formula and by search, as a share of it."""
        return max(abs(curve.found_minimum / curve.minimum - 1) for curve in self.curves)

    @property
    def deviation_nats(self) -> float:
        """The largest difference between a least KL by formula and by search, in nats."""
        return max(abs(curve.found_kl_nats - curve.least_kl_nats) for curve in self.curves)

    def to_json(self) -> dict[str, Any]:
        """Return every number."""
        record: dict[str, Any] = plain(
            {
                "variances": self.variances,
                "curves": [vars(curve) for curve in self.curves],
                "deviation": self.deviation,
                "deviation_nats": self.deviation_nats,
                "provenance": self.provenance.to_json(),
            }
        )
        return record


def study_kl_curve(ratios: Sequence[float] = RATIOS, *, points: int = 401, progress: Progress = silent) -> KLCurveStudy:
    """Return KL against variance at several ratios, with its minimum by formula and by search.

    Args:
        ratios: rho = sigma / |mu|, each above 0.
        points: of each curve, evenly spaced in the logarithm of the variance.
        progress: told of each ratio.

    Raises:
        SettingError: no ratio, one that is not above 0 and finite, fewer than two points.
    """
    if not ratios or not all(0 < ratio < math.inf for ratio in ratios):
        raise SettingError(f"The ratios of deviation to mean must be above 0 and finite, got {list(ratios)}.")
    if points < 2:
        raise SettingError(f"A curve needs at least 2 points, got {points}.")
    variances = torch.logspace(math.log10(_LEAST), math.log10(_MOST), points, dtype=torch.float64)
    ordered = sorted(set(ratios))
    return KLCurveStudy(
        variances=variances,
        curves=[_curve(ratio, variances) for ratio in track(ordered, "KL curves", progress)],
        provenance=Provenance(made_by="study_kl_curve", settings={"ratios": ordered, "points": points}),
    )


def run(budget: str, seed: int = 0, progress: Progress = silent) -> KLCurveStudy:  # noqa: ARG001
    """Run the study at a budget; nothing random takes part, whatever the seed.

    Raises:
        UnknownNameError: no such budget.
    """
    return study_kl_curve(points=_POINTS[as_budget(budget)], progress=progress)


def _curve(ratio: float, variances: Float64[Tensor, " points"]) -> KLCurve:
    from scipy.optimize import minimize_scalar

    minimum = ratio**2 / (1 + ratio**2)
    # In the logarithm of the variance the curve is convex, and its minimum well conditioned for small ratios too.
    found = minimize_scalar(
        lambda log_variance: float(_kl(ratio, torch.tensor([math.exp(log_variance)], dtype=torch.float64))),
        bracket=(-1.0, 0.0),
        method="brent",
        options={"xtol": 1e-12},
    )
    return KLCurve(
        ratio=ratio,
        kl_nats=_kl(ratio, variances),
        minimum=minimum,
        least_kl_nats=0.5 * math.log1p(ratio**-2),
        found_minimum=math.exp(float(found.x)),
        found_kl_nats=float(found.fun),
    )


def _kl(ratio: float, variances: Float64[Tensor, " points"]) -> Float64[Tensor, " points"]:
    return kl_to_prior_nats((variances.sqrt() / ratio)[:, None], variances.log()[:, None])[:, 0]
