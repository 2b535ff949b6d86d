"""Images beside their inversions: pictures with error maps, and the page of `latlas invert`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from latlas.base.provenance import Provenance
from latlas.base.records import plain
from latlas.base.shapes import Images
from latlas.data.images import ImageSet
from latlas.inversion.descent import Inversion
from latlas.measurements.reconstruction import decode_batches
from latlas.models.protocols import LatentModel, require_generator
from latlas.reports import pictures
from latlas.reports.diagnosis import enlargement
from latlas.reports.page import Finding, Picture, Report, Section
from latlas.reports.wording import images_in_words

SHOWN = 12  # images of a group
_SAMPLED = 2**20  # values that a quantile is taken of, at most about twice as many


def error_map(images: Images, others: Images) -> Tensor:
    """Return the squared difference of each pixel, averaged over channels, `n 1 h w`; its mean is the error of the image."""
    return (images - others).square().mean(dim=1, keepdim=True)


@dataclass(frozen=True, kw_only=True, eq=False)
class Group:
    """Images side by side with their inversions."""

    label: str
    names: tuple[str, ...]
    originals: Images
    inverted: Images

    @classmethod
    def of(cls, label: str, images: ImageSet, codes: Tensor, model: LatentModel) -> "Group":
        """Return images beside what their codes decode to."""
        drawn = torch.cat(list(decode_batches(require_generator(model, "A report"), codes))).nan_to_num().clamp(0, 1)
        return cls(
            label=label,
            names=tuple(images.name_of(i) for i in range(len(images))),
            originals=images.tensor(),
            inverted=drawn,
        )

    @property
    def maps(self) -> Tensor:
        """Where each image differs from its inversion."""
        return error_map(self.originals, self.inverted)

    def picture(self, white: float, enlarge: int) -> Picture:
        """Return three rows: originals, inversions, and error maps, in which `white` is drawn white."""
        rows = pictures.rows(self.originals, self.inverted, pictures.heat(self.maps, white))
        return Picture(
            content=pictures.grid(rows, columns=len(self.originals), enlarge=enlarge),
            caption=(
                f"{self.label[0].upper()}{self.label[1:]} ({', '.join(self.names)}), the nearest image that the decoder was found "
                f"to make, and the squared difference: black is none, white {white:.2g} and more; images have values from 0 to 1."
            ),
            alt=f"Three rows: {self.label}, their inversions, the squared differences.",
            row_labels=("image", "inversion", "error"),
        )


def inversion_report(inversion: Inversion, images: ImageSet, model: LatentModel, *, provenance: Provenance) -> Report:
    """Return the page of an inversion: each image, what its code decodes to, and where they differ.

    Args:
        inversion: of the images.
        images: that were inverted.
        model: the generator.
        provenance: of the inversion.
    """
    order = inversion.errors.argsort(descending=True)
    rows = {"images with the largest errors": order[:SHOWN], "images with the smallest errors": order.flip(0)[:SHOWN]}
    groups = [Group.of(label, numbered(images, shown), inversion.codes[shown], model) for label, shown in rows.items()]
    return Report(
        title=f"Codes of {model.name} for {images_in_words(images.name)}",
        subtitle=f"{len(images):,} images, by descent from {listed(inversion.start_names)}.",
        summary=inversion_findings(inversion),
        sections=[
            Section(
                title="How near the generator comes",
                lead="An error tells of the generator only beside the errors of its own samples, inverted alike: see latlas range.",
                blocks=same_scale(groups, enlargement(images)),
            )
        ],
        numbers=inversion_record(inversion),
        provenance=provenance,
        details={"generator": model.name, "images": images.name},
    )


def inversion_findings(inversion: Inversion) -> list[Finding]:
    """Return in words how well images were inverted."""
    finite = inversion.errors[inversion.errors.isfinite()]
    wins = ", ".join(
        f"{int((inversion.winners == number).sum())} from {name}" for number, name in enumerate(inversion.start_names)
    )
    findings = [
        Finding(
            level="good",
            headline=f"{len(inversion.errors)} images inverted, with a median squared error per pixel of {float(finite.median()):.3g}.",
            text=f"Values lie in [0, 1]. The best code came: {wins}.",
        )
    ]
    if inversion.unfinished:
        findings.append(
            Finding(
                level="warning",
                headline=f"The descent of {len(inversion.unfinished)} images left the numbers (NaN).",
                text=f"Their codes are the best met before that: {listed(inversion.unfinished[:SHOWN])}.",
            )
        )
    return findings


def inversion_record(inversion: Inversion) -> dict[str, Any]:
    """Return every number of an inversion, its codes apart."""
    record: dict[str, Any] = plain(
        {
            "count": len(inversion.errors),
            "values": "[0, 1]",
            "error_median": float(inversion.errors.median()),
            "starts": list(inversion.start_names),
            "unfinished": list(inversion.unfinished),
            "curves": inversion.curves,
            "per_image": [
                {
                    "name": name,
                    "error": float(inversion.errors[i]),
                    "start": inversion.start_names[int(inversion.winners[i])],
                    "start_errors": inversion.start_errors[:, i],
                }
                for i, name in enumerate(inversion.names)
            ],
        }
    )
    return record


def same_scale(groups: Sequence[Group], enlarge: int) -> list[Picture]:
    """Return a picture of each group, with one scale of errors."""
    # Of all groups, so that their maps can be compared; the largest but for a hundredth, or one pixel darkens the rest.
    values = torch.cat([group.maps.flatten() for group in groups])
    white = max(float(values[:: max(1, len(values) // _SAMPLED)].quantile(0.99)), 1e-6)
    return [group.picture(white, enlarge) for group in groups]


def numbered(images: ImageSet, rows: Tensor) -> ImageSet:
    """Return images that keep the names they have in the whole set."""
    chosen = images.take(rows)
    return ImageSet(name=chosen.name, storage=chosen.storage, names=tuple(images.name_of(int(row)) for row in rows))


def listed(names: Sequence[str]) -> str:
    """Return names as a sentence has them.

    >>> listed(("mean", "noise 1", "noise 2"))
    'mean, noise 1 and noise 2'
    """
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)
