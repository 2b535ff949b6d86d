"""The verdict on a model's coverage: what became of each landmark and sector, and the evidence."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from latlas.base.provenance import Provenance
from latlas.base.records import plain
from latlas.base.shapes import PerImage
from latlas.data.images import ImageSet
from latlas.measurements.conformal import adjusted_p_values
from latlas.measurements.empirical_null import EmpiricalNull
from latlas.studies.missed_attributes import AttributeRow, Carried
from latlas.supports.support_set import SupportSet


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawn:
    """Images, and the best that a model was found to draw of them."""

    images: ImageSet
    codes: Tensor
    errors: PerImage  # squared error per pixel
    windows: Float64[Tensor, "n windows"]  # the same within windows

    def __repr__(self) -> str:
        return (
            f"<Drawn: {len(self.errors):,} images of {self.images.name!r}, mean squared error {float(self.errors.mean()):.4g}>"
        )


@dataclass(frozen=True, kw_only=True)
class SectorRow:
    """What became of the landmarks of one sector."""

    sector: int  # its number in the Support Set; -1: of none
    landmarks: tuple[int, ...]  # rows of the Support Set
    error: float  # mean over them
    p_value: float  # the smallest of theirs, times their number
    adjusted: float  # corrected over the sectors (Benjamini and Hochberg)


@dataclass(frozen=True, kw_only=True, eq=False)
class Coverage:
    """How well a model represents each landmark, with the evidence.

    `missed` says which landmarks are, by `adjusted` p-values at `level`; `worst` is their rows in the Support Set, the most
    missed first, `sectors` and `missed_attributes` what they have in common.
    """

    model: str
    support: SupportSet
    control: str  # name of the random images
    reference: str | None  # the model whose errors were taken off
    represented: bool  # whether the control is taken as represented throughout
    level: float
    landmarks: Drawn
    controls: Drawn
    reference_landmarks: Drawn | None
    scores: PerImage  # of landmarks: how much the worst window is off, less what the reference leaves there
    control_scores: Float64[Tensor, " controls"]
    own_errors: Float64[Tensor, " own"]  # of the model's own samples, inverted alike
    null: EmpiricalNull  # of the control's scores
    p_values: PerImage  # of landmarks, against the ordinary part of the control: the verdict
    control_p_values: PerImage  # against all of the control
    own_p_values: PerImage  # of their errors, against the model's own samples
    attributes: tuple[AttributeRow, ...]
    variables: tuple[Carried, ...]  # the attribute that goes most with each variable of the Support Set
    provenance: Provenance

    def __repr__(self) -> str:
        return (
            f"<Coverage by {self.model!r} of {len(self.support)} landmarks of {self.support.chosen_from!r}: {int(self.missed.sum())} missed "
            f"at level {self.level:g}; .worst, .sectors, .summary()>"
        )

    @property
    def adjusted(self) -> PerImage:
        """p-values corrected over the landmarks (Benjamini and Hochberg); the level is nominal, see `EmpiricalNull`."""
        return adjusted_p_values(self.p_values)

    @property
    def missed(self) -> Bool[Tensor, " n"]:
        """Whether each landmark is missed."""
        return self.adjusted <= self.level

    @property
    def missed_share(self) -> float:
        """Share of the landmarks that is missed."""
        return float(self.missed.double().mean())

    @property
    def fewest_callable(self) -> int:
        """How many landmarks must stand out before the control is large enough to call any of them missed."""
        smallest = self.null.smallest
        return next((k for k in range(1, len(self.support) + 1) if smallest * len(self.support) / k <= self.level), -1)

    @property
    def error_over_control(self) -> float:
        """Mean error of the landmarks over that of the control's images."""
        return float(self.landmarks.errors.mean() / self.controls.errors.mean())

    @property
    def worst(self) -> list[int]:
        """Rows of the landmarks, the most missed first."""
        rows = range(len(self.support))
        return sorted(rows, key=lambda row: (float(self.p_values[row]), -float(self.scores[row])))

    @property
    def sectors(self) -> tuple[SectorRow, ...]:
        """One row for each sector that has a landmark, and one for landmarks of none, the most missed first."""
        members: dict[int, list[int]] = {}
        for row, sector in enumerate(self.support.sector.tolist()):
            members.setdefault(sector, []).append(row)
        p_values = {sector: min(1.0, len(rows) * float(self.p_values[rows].amin())) for sector, rows in members.items()}
        adjusted = adjusted_p_values(torch.tensor(list(p_values.values()), dtype=torch.float64)).tolist()
        found = [
            SectorRow(
                sector=sector, landmarks=tuple(rows), error=float(self.landmarks.errors[rows].mean()),
                p_value=p_values[sector], adjusted=corrected,
            )
            for (sector, rows), corrected in zip(members.items(), adjusted, strict=True)
        ]  # fmt: skip
        return tuple(sorted(found, key=lambda row: (row.p_value, -row.error)))

    @property
    def missed_attributes(self) -> tuple[AttributeRow, ...]:
        """Attributes that missed landmarks have too often, at the level over all attributes."""
        return tuple(row for row in self.attributes if row.missed(self.level))

    def summary(self) -> dict[str, Any]:
        """Return the numbers of the whole."""
        record: dict[str, Any] = plain(
            {
                "model": self.model,
                "landmarks": len(self.support),
                "chosen_from": self.support.chosen_from,
                "control": self.control,
                "controls": len(self.control_scores),
                "reference": self.reference,
                "level": self.level,
                "missed": int(self.missed.sum()),
                "missed_share": self.missed_share,
                "missed_sectors": sum(row.adjusted <= self.level for row in self.sectors if row.sector >= 0),
                "sectors": sum(row.sector >= 0 for row in self.sectors),
                "error_mean": float(self.landmarks.errors.mean()),
                "control_error_mean": float(self.controls.errors.mean()),
                "own_error_mean": float(self.own_errors.mean()),
                "error_over_control": self.error_over_control,
                "control_apart": self.null.apart,
                "control_evidence": self.null.evidence,
                "represented": self.represented,
                "fewest_callable": self.fewest_callable,
                "missed_against_all_of_control": int((adjusted_p_values(self.control_p_values) <= self.level).sum()),
                "missed_against_own_samples": int((adjusted_p_values(self.own_p_values) <= self.level).sum()),
                "missed_attributes": [row.name for row in self.missed_attributes],
            }
        )
        return record

    def rows(self) -> list[dict[str, Any]]:
        """Return one record a landmark, the most missed first."""
        adjusted, missed = self.adjusted, self.missed
        return [
            plain(
                {
                    "name": self.support.images.name_of(row)
                    if self.support.images.names
                    else f"#{int(self.support.indices[row])}",
                    "sector": int(self.support.sector[row]),
                    "error": float(self.landmarks.errors[row]),
                    "score": float(self.scores[row]),
                    "p_value": float(self.p_values[row]),
                    "adjusted_p_value": float(adjusted[row]),
                    "control_p_value": float(self.control_p_values[row]),
                    "own_p_value": float(self.own_p_values[row]),
                    "missed": bool(missed[row]),
                }
            )
            for row in self.worst
        ]

    def to_json(self) -> dict[str, Any]:
        """Return every number."""
        return {
            **self.summary(),
            "per_landmark": self.rows(),
            "per_sector": [
                {
                    **asdict(row),
                    "directions": directions(self.support, row.sector),
                    "missed": row.adjusted <= self.level,
                }
                for row in self.sectors
            ],
            "attributes": [
                {**plain(row), "difference": row.shares.difference, "missed": row.missed(self.level)} for row in self.attributes
            ],
            "variables": [plain(row) for row in self.variables],
            "provenance": self.provenance.to_json(),
        }


def directions(support: SupportSet, sector: int) -> str:
    """Return the directions of a sector as words: "+3 -7"; of none, "within the threshold"."""
    if sector < 0:
        return "within the threshold"
    signs = zip(support.sectors.directions(sector), support.sectors.variables, strict=True)
    return " ".join(f"{'+' if sign > 0 else '-'}{variable}" for sign, variable in signs)
