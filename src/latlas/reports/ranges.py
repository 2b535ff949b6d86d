"""Range tests, as a section of a page."""

from collections.abc import Mapping

import torch

from latlas.data.images import ImageSet
from latlas.measurements.reconstruction import decode_batches
from latlas.models.protocols import LatentModel, require_generator
from latlas.reports import figures, palette, pictures
from latlas.reports.diagnosis import enlargement
from latlas.reports.page import Block, Finding, Numbers, Picture, Report, Section, Table
from latlas.studies.range_test import RangeCalibration, RangeResult

_SHOWN = 12
COLOURS = {"own": palette.OWN, "digits": palette.ORDINARY, "fashion": palette.FOREIGN, "images": palette.FOREIGN}
LABELS = {"own": "fresh own samples", "digits": "test digits", "fashion": "Fashion-MNIST images", "images": "your images"}


def range_section(results: Mapping[str, RangeResult], judged: Mapping[str, ImageSet], model: LatentModel) -> Section:
    """Return the section: rates, errors, p-values, and the images that lie farthest out.

    Args:
        results: by group: "own", "digits", "fashion", or "images".
        judged: the images of each group.
        model: the generator.
    """
    first = next(iter(results.values()))
    calibration = first.calibration
    shares = results.items() if first.verdict_given else ()
    blocks: list[Block] = [
        Numbers(
            items=[
                *(
                    (
                        f"{100 * result.rejected_share:.1f} %",
                        f"of {LABELS[name]} rejected",
                        f"{len(result.errors):,} images, level {result.level:.0%}",
                    )
                    for name, result in shares
                ),
                (f"{100 * calibration.recovered:.1f} %", "own samples recovered", "was the budget enough?"),
            ]
        ),
        Picture(
            content=figures.error_histogram(
                [(LABELS[name], result.errors.tolist(), COLOURS[name]) for name, result in results.items()],
                threshold=rejection_threshold(calibration, first.level) if first.verdict_given else None,
            ),
            caption="Every image got the same inversion: from the encoder's answer and from the mean of the prior, then descent. The decoder's own samples show what that achieves when a code exists.",
            alt="Histograms of inversion errors of each group of images, on a logarithmic axis.",
        ),
    ]
    outside = next((name for name in ("images", "fashion", "digits") if name in results), "own")
    blocks.append(_strips(results[outside], judged[outside], model, label=LABELS[outside]))
    if "digits" in results and outside != "digits":
        blocks.append(_strips(results["digits"], judged["digits"], model, label=LABELS["digits"]))
    blocks.append(
        Picture(
            content=figures.p_value_steps(
                [(LABELS[name], result.p_values.tolist(), COLOURS[name]) for name, result in results.items()], level=first.level
            ),
            caption="p-values are conformal: if an image is one of the decoder's own, each level is as likely as it says.",
            alt="Distribution functions of p-values of each group.",
        )
    )
    blocks.append(
        Table(
            columns=(
                "images",
                "count",
                "median error",
                "rejected at level",
                "after correction",
                "against other digits" if "digits" in results else "against reference",
            ),
            rows=[
                [
                    LABELS[name],
                    len(result.errors),
                    float(result.errors.median()),
                    result.summary()["rejected"],
                    result.summary()["rejected_after_correction"],
                    result.summary()["rejected_against_reference"],
                ]
                for name, result in results.items()
            ],
            caption="Errors are squared, per pixel, in [0, 1] units. Correction over the images: Benjamini and Hochberg. The last column ranks each image among reference images of the kind that the model was trained on.",
        )
    )
    return Section(
        title="What the decoder cannot make",
        lead="Each image is inverted as well as the budget allows, and its error is ranked among those of images that the decoder certainly can make: its own samples.",
        blocks=blocks,
        findings=range_findings(results),
    )


def range_findings(results: Mapping[str, RangeResult]) -> list[Finding]:
    """Return the verdicts in words."""
    first = next(iter(results.values()))
    findings = []
    if not first.calibration.budget_is_enough:
        findings.append(
            Finding(
                level="warning",
                headline=f"No verdict: only {100 * first.calibration.recovered:.0f} % of the decoder's own samples were recovered.",
                text="Where own samples are not recovered, a large error shows a failed inversion, not a limit of the decoder. Raise the budget (--steps).",
            )
        )
        return findings
    if "own" in results:
        share = results["own"].rejected_share
        findings.append(
            Finding(
                level="good" if 0.02 <= share <= 0.09 else "note",
                headline=f"False alarms: {100 * share:.1f} % of {len(results['own'].errors)} fresh own samples rejected at {first.level:.0%}.",
            )
        )
    if "fashion" in results:
        reference = results["fashion"].summary()["rejected_against_reference"]
        beside = "" if reference is None else f" Ranked among other test digits instead: {100 * reference:.1f} %."
        findings.append(
            Finding(
                level="good" if results["fashion"].rejected_share >= 0.95 else "note",
                headline=f"{100 * results['fashion'].rejected_share:.1f} % of Fashion-MNIST images are out of range.",
                text=beside.strip(),
            )
        )
    if "digits" in results:
        result = results["digits"]
        ratio = float(result.errors.median() / result.calibration.errors.median())
        reference = result.summary()["rejected_against_reference"]
        beside = "" if reference is None else f" Ranked among other test digits, {100 * reference:.1f} % stand out."
        findings.append(
            Finding(
                headline=f"{100 * result.rejected_share:.1f} % of real test digits are out of range.",
                text=f"Their median error is {ratio:,.0f} times that of own samples: the decoder draws the conditional mean, and no code gives a digit's exact strokes.{beside}",
            )
        )
    if "images" in results:
        result = results["images"]
        rejected = int(result.rejected.sum())
        findings.append(
            Finding(
                level="note",
                headline=f"{rejected} of {len(result.errors)} images are out of range at {result.level:.0%}.",
                text=f"Of images in range, {result.level:.0%} would be. After correction over the images: {int((result.adjusted <= result.level).sum())}.",
            )
        )
    return findings


def range_report(result: RangeResult, images: ImageSet, model: LatentModel) -> Report:
    """Return the page of one range test."""
    section = range_section({"images": result}, {"images": images}, model)
    return Report(
        title=f"Can {result.generator} make these images?",
        subtitle=f"{len(images):,} images of {result.images}, judged against the generator's own samples.",
        summary=section.findings,
        sections=[Section(title="Evidence", lead=section.lead, blocks=section.blocks)],
        numbers=result.to_json(),
        provenance=result.provenance,
        details={"generator": result.generator, "images": result.images},
    )


def rejection_threshold(calibration: RangeCalibration, level: float) -> float:
    """Return the error beyond which images are rejected at a level."""
    ordered = calibration.errors.sort().values
    # p <= level needs at most level * (n + 1) - 1 calibration errors at or above.
    allowed = max(int(level * (len(ordered) + 1)) - 1, 0)
    return float(ordered[len(ordered) - 1 - min(allowed, len(ordered) - 1)])


def _strips(result: RangeResult, images: ImageSet, model: LatentModel, *, label: str) -> Picture:
    order = result.errors.argsort(descending=True)[:_SHOWN]
    originals = images.take(order).tensor()
    inverted = torch.cat(list(decode_batches(require_generator(model, "A report"), result.inversion.codes[order])))
    return Picture(
        content=pictures.grid(
            pictures.rows(originals, inverted, pictures.difference(originals, inverted)),
            columns=len(order),
            enlarge=enlargement(images),
        ),
        caption=(
            f"The {label} that lie farthest out ({', '.join(result.names[int(index)] for index in order)}), the nearest image "
            "that the decoder was found to make, and the difference."
        ),
        alt=f"Three rows: {label}, their inversions, the differences.",
        row_labels=("image", "inversion", "difference"),
    )
