"""Range tests, as a section of a page."""

import math
from collections.abc import Mapping, Sequence

from latlas.data.images import ImageSet
from latlas.models.protocols import LatentModel
from latlas.reports import figures, palette
from latlas.reports.diagnosis import enlargement
from latlas.reports.inversions import SHOWN, Group, listed, numbered, same_scale
from latlas.reports.page import Block, Finding, Numbers, Picture, Report, Section, Table
from latlas.reports.wording import capital, counted_images, percent
from latlas.studies.range_calibration import ENOUGH_RECOVERED, RangeCalibration
from latlas.studies.range_test import RangeResult

COLOURS = {
    "own": palette.OWN,
    "digits": palette.ORDINARY,
    "fashion": palette.FOREIGN,
    "images": palette.FOREIGN,
    "reference": palette.ORDINARY,
    "support": palette.SUPPORT,
}
LABELS = {
    "own": "fresh own samples",
    "digits": "test digits",
    "fashion": "Fashion-MNIST images",
    "images": "your images",
    "reference": "reference images",
    "support": "Support Set images",
}


def range_section(results: Mapping[str, RangeResult], judged: Mapping[str, ImageSet], model: LatentModel) -> Section:
    """Return the section: rates, errors, p-values, and the images that lie farthest out.

    Args:
        results: by group: "own", "digits", "fashion", "images", "reference" or "support".
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
                        f"{len(result.errors):,} images, level {percent(result.level)}",
                    )
                    for name, result in shares
                ),
                (f"{100 * calibration.recovered:.1f} %", "own samples recovered", "was the budget enough?"),
                (f"{100 * calibration.agreeing:.1f} %", "of them from two starts", "do starts agree?"),
            ]
        ),
        Picture(
            content=figures.error_histogram(
                [
                    *(
                        ()
                        if "own" in results
                        else (("own samples", calibration.errors[calibration.errors.isfinite()].tolist(), COLOURS["own"]),)
                    ),
                    *(
                        (LABELS[name], result.errors[result.errors.isfinite()].tolist(), COLOURS[name])
                        for name, result in results.items()
                    ),
                ],
                threshold=rejection_threshold(calibration, first.level) if first.verdict_given else None,
                level=first.level,
            ),
            caption=(
                f"Every image got the same inversion: descent from {listed(first.inversion.start_names)}, {calibration.budget.steps} "
                "steps each. The decoder's own samples show what that achieves when a code exists."
            ),
            alt="Histograms of inversion errors of each group of images, on a logarithmic axis.",
        ),
    ]
    if "images" in results:
        beside = [_farthest(name, results, judged, model) for name in ("reference", "support") if name in judged]
        blocks += group_pictures(results["images"], judged["images"], model, beside=beside)
    else:
        shown = [name for name in ("fashion", "digits") if name in results] or ["own"]
        blocks += same_scale([_farthest(name, results, judged, model) for name in shown], enlargement(judged[shown[0]]))
    blocks.append(
        Picture(
            content=figures.p_value_steps(
                [(LABELS[name], result.p_values.tolist(), COLOURS[name]) for name, result in results.items()], level=first.level
            ),
            caption="p-values are conformal: if an image is one of the decoder's own, each level is as likely as it says.",
            alt="Distribution functions of p-values of each group.",
        )
    )
    blocks.append(_table(results))
    return Section(
        title="What the decoder cannot make",
        lead="Each image is inverted as well as the budget allows, and its error is ranked among those of images that the decoder certainly can make: its own samples.",
        blocks=blocks,
        findings=range_findings(results),
    )


def range_findings(results: Mapping[str, RangeResult]) -> list[Finding]:
    """Return the verdicts in words."""
    first = next(iter(results.values()))
    findings = [_unfinished(result) for result in results.values() if result.inversion.unfinished]
    if not first.calibration.budget_is_enough:
        return [_no_verdict(first.calibration), *findings]
    if "own" in results:
        share = results["own"].rejected_share
        findings.append(
            Finding(
                level="good" if 0.02 <= share <= 0.09 else "note",
                headline=f"False alarms: {100 * share:.1f} % of {len(results['own'].errors)} fresh own samples rejected at {percent(first.level)}.",
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
        findings += _verdicts(results["images"])
    return findings


def _no_verdict(calibration: RangeCalibration) -> Finding:
    if calibration.recovered < ENOUGH_RECOVERED:
        return Finding(
            level="warning",
            headline=f"No verdict: only {100 * calibration.recovered:.0f} % of the decoder's own samples were recovered.",
            text=(
                "Where own samples are not recovered, a large error shows a failed inversion, not a limit of the decoder. Raise "
                "the budget (--budget thorough, or --steps), or start from a recoder."
            ),
        )
    return Finding(
        level="warning",
        headline=f"No verdict: of only {100 * calibration.agreeing:.0f} % of the decoder's own samples two starts end alike.",
        text=(
            "Own samples came back from one start and not from another: of an image that no start brings back one cannot tell "
            "whether the decoder or the start failed. Raise the budget (--budget thorough, or --steps), or give more starts "
            "from noise (--start noise --starts 8)."
        ),
    )


def _unfinished(result: RangeResult) -> Finding:
    names = result.inversion.unfinished
    return Finding(
        level="warning",
        headline=f"The descent of {len(names)} of {len(result.errors)} images left the numbers (NaN).",
        text=f"They get no verdict: {listed(names[:SHOWN])}{', and more' if len(names) > SHOWN else ''}.",
    )


def _verdicts(result: RangeResult) -> list[Finding]:
    level, count = result.level, len(result.errors)
    fewest = 1 / (len(result.calibration.errors) + 1)
    text = (
        f"Of images in range, {percent(level)} would be. After correction over the images: {int((result.adjusted <= level).sum())} by "
        f"Benjamini and Hochberg (at most {percent(level)} of those are in range), {int((result.holm <= level).sum())} by Holm (the "
        f"chance that any of those is in range is at most {percent(level)})."
    )
    if fewest * count > level:
        text += (
            f" Holm's correction can reject none of {count} images with {len(result.calibration.errors)} own samples: that takes "
            f"{math.ceil(count / level) - 1} (--samples)."
        )
    findings = [
        Finding(headline=f"{int(result.rejected.sum())} of {count} images are out of range at {percent(level)}.", text=text)
    ]
    if result.reference is not None and result.reference_p_values is not None:
        share, theirs = float((result.reference_p_values <= level).double().mean()), result.reference.rejected_share
        findings.append(
            Finding(
                headline=f"Against {len(result.reference.errors)} reference images, {100 * share:.1f} % stand out.",
                text=(
                    f"Of the reference images themselves {100 * theirs:.1f} % are out of range. "
                    + (
                        "Where ordinary images of the kind are out of range too, the decoder misses detail of all of them, and "
                        "only what stands out among them is peculiar."
                        if theirs > 2 * level
                        else "The decoder makes ordinary images of the kind."
                    )
                ),
            )
        )
    if result.support is not None:
        findings.append(
            Finding(
                headline=f"Of the Support Set's {len(result.support.errors)} images {100 * result.support.rejected_share:.1f} % are out of range."
            )
        )
    network = result.calibration.procedure.features
    if result.feature_p_values is not None and network is not None:
        agreed = (result.feature_p_values <= level) == result.rejected
        findings.append(
            Finding(
                headline=f"By features ({network.name}), {int((result.feature_p_values <= level).sum())} are out of range.",
                text=f"That is the verdict by pixels for {int(agreed.sum())} of {count} images.",
            )
        )
    return findings


def range_report(
    result: RangeResult,
    images: ImageSet,
    model: LatentModel,
    *,
    reference: ImageSet | None = None,
    support: ImageSet | None = None,
) -> Report:
    """Return the page of one range test.

    Args:
        result: of the test.
        images: that were judged.
        model: the generator.
        reference: the reference images of the test, if it had any.
        support: those of its Support Set, if it had one.
    """
    results, judged = {"images": result}, {"images": images}
    for name, other, given in (("reference", result.reference, reference), ("support", result.support, support)):
        if other is not None:
            results[name] = other
            if given is not None:
                judged[name] = given
    section = range_section(results, judged, model)
    return Report(
        title=f"Can {result.generator} make these images?",
        subtitle=f"{capital(counted_images(result.images, len(images)))}, judged against the generator's own samples.",
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


def group_pictures(result: RangeResult, images: ImageSet, model: LatentModel, *, beside: Sequence[Group] = ()) -> list[Picture]:
    """Return a picture of own samples, one of images in range and one of images out of range, with one scale of errors.

    Where no verdict is given, the images stand in one group.

    Args:
        result: of the test.
        images: that were judged.
        model: the generator.
        beside: further groups, which follow on the same scale.
    """
    base = result.calibration
    order = result.errors.argsort(descending=True)
    outside, judged = result.rejected[order], result.judged[order]
    groups = [("own samples of the decoder", base.examples, base.example_codes)]
    wanted = {"images out of range": order[outside & judged], "images in range": order[~outside & judged]}
    if not result.verdict_given:
        wanted = {"images, without a verdict": order[judged]}
    if not bool(judged.all()):
        wanted["images whose descent left the numbers"] = order[~judged]
    for label, rows in wanted.items():
        if len(rows):
            shown = rows[:SHOWN]
            groups.append((label, numbered(images, shown), result.inversion.codes[shown]))
    found = [Group.of(label, members, codes, model) for label, members, codes in groups]
    return same_scale([*found, *beside], enlargement(images))


def _table(results: Mapping[str, RangeResult]) -> Table:
    first = next(iter(results.values()))
    summaries = {name: result.summary() for name, result in results.items()}
    featured = any(result.feature_p_values is not None for result in results.values())
    return Table(
        columns=(
            "images",
            "count",
            "median error",
            f"rejected at {percent(first.level)}",
            "after correction",
            "after Holm's",
            "against other digits" if "digits" in results else "against reference",
            *(("by features",) if featured else ()),
        ),
        rows=[
            [
                LABELS[name],
                len(result.errors),
                float(result.errors.median()),
                _share(summaries[name]["rejected"]),
                _share(summaries[name]["rejected_after_correction"]),
                _share(summaries[name]["rejected_after_holm"]),
                _share(summaries[name]["rejected_against_reference"]),
                *((_share(summaries[name]["rejected_by_features"]),) if featured else ()),
            ]
            for name, result in results.items()
        ],
        caption=(
            "Errors are squared, per pixel, of values in [0, 1]; two unrelated own samples differ by "
            f"{first.calibration.unrelated_error:.3g}. Corrections over the images: Benjamini and Hochberg, "
            "then Holm. Against reference: each image is ranked among images of the kind that the model was trained on."
        ),
    )


def _share(value: float | None) -> str | None:
    return None if value is None else f"{100 * value:.1f} %"


def _farthest(name: str, results: Mapping[str, RangeResult], judged: Mapping[str, ImageSet], model: LatentModel) -> Group:
    result = results[name]
    shown = result.errors.argsort(descending=True)[:SHOWN]
    members = numbered(judged[name], shown)
    return Group.of(f"the {LABELS[name]} that lie farthest out", members, result.inversion.codes[shown], model)
