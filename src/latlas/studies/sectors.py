"""Codes and their sectors -> how many lie where, against what is expected, and over the threshold."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from latlas.base.errors import IllPosedError, SettingError
from latlas.base.records import plain
from latlas.base.seeds import generator
from latlas.base.shapes import Codes
from latlas.supports.orthants import OrthantProbabilities, orthant_probabilities
from latlas.supports.sectors import Sectors, columns, offsets
from latlas.supports.thresholds import ThresholdCurve, threshold_curve
from latlas.supports.unevenness import Null, Unevenness, unevenness

_MOST_VARIABLES = 10  # of which a Gaussian's orthants are computed: of more they take minutes


@dataclass(frozen=True, kw_only=True, eq=False)
class SectorStudy:
    """How many codes of a data set lie in each sector, and how many were to be expected there."""

    sectors: Sectors
    codes: int
    occupancy: Tensor  # codes in each sector
    tests: Mapping[Null, Unevenness]  # against even sectors, independent variables, and the fitted Gaussian where there is one
    inside: Mapping[Null, float]  # codes that independent variables, and the Gaussian, put in any sector
    integration_error: float | None  # largest standard error of the Gaussian's expected codes in a sector
    curve: ThresholdCurve
    examples: Mapping[
        str, tuple[int, Tensor]
    ]  # "fullest", "emptiest", "fuller than expected", "emptier ..." -> sector, members

    @property
    def reference(self) -> Unevenness:
        """The most telling expectation that there is: the Gaussian's, else that of independent variables."""
        return self.tests["gaussian"] if "gaussian" in self.tests else self.tests["independence"]

    def to_json(self) -> dict[str, Any]:
        """Return every number."""
        record: dict[str, Any] = plain(
            {
                "variables": self.sectors.variables,
                "threshold": self.sectors.threshold,
                "thresholds": self.sectors.thresholds,
                "centre": self.sectors.centre,
                "scale": self.sectors.scale,
                "codes": self.codes,
                "inside": int(self.occupancy.sum()),
                "expected_inside": self.inside,
                "inhabited": int((self.occupancy > 0).sum()),
                "occupancy": self.occupancy,
                "unevenness": {null: test.to_json() for null, test in self.tests.items()},
                "integration_error": self.integration_error,
                "curve": self.curve.to_json(),
                "examples": {name: {"sector": sector, "members": rows} for name, (sector, rows) in self.examples.items()},
            }
        )
        return record


def study_sectors(codes: Codes, sectors: Sectors, *, shown: int = 8, steps: int = 100, seed: int = 0) -> SectorStudy:
    """Count the codes in each sector and hold the counts against three expectations.

    Args:
        codes: of a data set; they may stay on disk.
        sectors: to count in.
        shown: members of each example sector, at most.
        steps: of the curve over the threshold.
        seed: of the integration, of simulated tables, and of which members are shown.

    Raises:
        CodeShapeError: codes that lack a variable, or are no matrix.
        SettingError: fewer than one member shown, or no steps.
        IllPosedError: no code lies in any sector.
    """
    if shown < 1:
        raise SettingError(f"Show at least 1 member of a sector, got {shown}.")
    membership = sectors.of(codes)
    occupancy = torch.bincount(membership[membership >= 0], minlength=sectors.count)
    if int(occupancy.sum()) == 0:
        raise IllPosedError(f"No code lies beyond the threshold {sectors.threshold:g} in all variables. Lower the threshold.")
    gaussian = _gaussian(codes, sectors, seed)
    tests: dict[Null, Unevenness] = {null: unevenness(occupancy, null, seed=seed) for null in ("uniform", "independence")}
    beyond = offsets(codes, sectors.variables, sectors.centre, sectors.scale).abs() > sectors.threshold
    inside: dict[Null, float] = {"independence": float(beyond.double().mean(dim=0).prod()) * len(codes)}
    if gaussian is not None:
        tests["gaussian"] = unevenness(occupancy, "gaussian", probability=gaussian.probability, seed=seed)
        inside["gaussian"] = float(gaussian.probability.sum()) * len(codes)
    reference = list(tests.values())[-1]
    return SectorStudy(
        sectors=sectors,
        codes=len(codes),
        occupancy=occupancy,
        tests=tests,
        inside=inside,
        integration_error=None if gaussian is None else float(gaussian.standard_error.max()) * len(codes),
        curve=threshold_curve(codes, sectors.variables, sectors.centre, sectors.scale, steps=steps),
        examples=_examples(membership, occupancy, reference, shown, seed),
    )


def _gaussian(codes: Codes, sectors: Sectors, seed: int) -> OrthantProbabilities | None:
    if len(sectors.variables) > _MOST_VARIABLES or len(codes) <= len(sectors.variables):
        return None
    chosen = columns(codes, sectors.variables).double()
    covariance = chosen.T.cov(correction=0).reshape(len(sectors.variables), len(sectors.variables))
    try:
        found = orthant_probabilities(chosen.mean(dim=0), covariance, sectors, seed=seed)
    except IllPosedError:  # variables that are sums of each other: independence is what is left to hold against
        return None
    return found if float(found.probability.sum()) > 0 else None


def _examples(
    membership: Tensor, occupancy: Tensor, reference: Unevenness, shown: int, seed: int
) -> dict[str, tuple[int, Tensor]]:
    found, expected = occupancy.double(), reference.expected
    surprise = (found - expected) / expected.clamp_min(torch.finfo(torch.float64).tiny).sqrt()
    few = torch.where(occupancy > 0, found, torch.inf)  # of an empty sector there is nothing to show
    sectors = {
        "fullest": int(found.argmax()),
        "emptiest": int(few.argmin()),
        "fuller than expected": int(surprise.argmax()),
        "emptier than expected": int(torch.where(occupancy > 0, surprise, torch.inf).argmin()),
    }
    examples = {}
    for name, sector in sectors.items():
        members = (membership == sector).nonzero().flatten()
        some = torch.randperm(len(members), generator=generator(seed, "members of a sector", sector))[:shown]
        examples[name] = (sector, members[some.sort().values])
    return examples
