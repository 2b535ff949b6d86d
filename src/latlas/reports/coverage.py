"""Coverage, as a page: the worst sectors by picture, the attributes that are missed, and a leaderboard of several models."""

from collections.abc import Sequence

import torch

from latlas.base.shapes import Images
from latlas.measurements.reconstruction import decode_batches
from latlas.models.protocols import LatentModel, require_autoencoder, require_generator
from latlas.reports import pictures
from latlas.reports.coverage_figures import missed_bars, score_histograms, share_intervals
from latlas.reports.diagnosis import enlargement
from latlas.reports.inversions import error_map
from latlas.reports.page import Block, Finding, Numbers, Picture, Report, Section, Table, Words
from latlas.reports.wording import images_in_words, percent
from latlas.studies.coverage_record import Coverage, directions

_SHOWN = 12  # landmarks side by side
_ATTRIBUTES = 12  # in the chart
_LISTED = 20  # landmarks in the table
_SPAN = 2.0  # deviations by which a variable is moved to show what it means


def coverage_report(coverage: Coverage, model: LatentModel, *, chooser: LatentModel | None = None) -> Report:
    """Return the page of one model.

    Args:
        coverage: of the model.
        model: that was judged.
        chooser: the model that the Support Set was chosen by, to show what its variables mean; None: not at hand.
    """
    numbers = coverage.summary()
    return Report(
        title=f"What {coverage.model} misses",
        subtitle=f"{len(coverage.support)} landmarks of {images_in_words(coverage.support.chosen_from)}, beside random images: {images_in_words(coverage.control)}.",
        summary=coverage_findings(coverage),
        headline=Numbers(
            items=[
                (
                    f"{numbers['missed']} of {numbers['landmarks']}",
                    "landmarks missed",
                    f"at {percent(coverage.level)}, corrected",
                ),
                (f"{numbers['missed_sectors']} of {numbers['sectors']}", "sectors missed", "corrected over sectors"),
                (coverage.error_over_control, "error over the control's", "landmarks are extremes"),
                (f"{100 * coverage.null.apart:.0f} %", "of the control stands apart", "left out of the ranking"),
            ]
        ),
        sections=[_pictures(coverage, model), _attributes(coverage), _meaning(coverage, chooser), _evidence(coverage)],
        numbers=coverage.to_json(),
        provenance=coverage.provenance,
        details={
            "model": coverage.model,
            "landmarks": coverage.support.chosen_from,
            "control": coverage.control,
            "reference": coverage.reference or "none",
        },
    )


def coverage_findings(coverage: Coverage) -> list[Finding]:
    """Return the verdict in words, and what it rests on."""
    missed, count = int(coverage.missed.sum()), len(coverage.support)
    findings = [
        Finding(
            level="warning" if missed > 0.1 * count else "note" if missed else "good",
            headline=f"{missed} of {count} landmarks are missed."
            if missed
            else f"None of {count} landmarks can be called missed.",
            text=(
                f"The level of {percent(coverage.level)} is nominal: ranks are exact for images exchangeable with the control, given "
                "that no second part of it is split off, and landmarks are extremes."
            ),
        )
    ]
    findings += [
        Finding(
            level="warning",
            headline=f"Missed: {row.name}.",
            text=(
                f"{row.missed_having} of {row.having} landmarks with it are missed, and {row.missed_lacking} of "
                f"{row.lacking} without: {100 * row.shares.difference:.0f} points more "
                f"({100 * row.shares.low:.0f} to {100 * row.shares.high:.0f})."
            ),
        )
        for row in coverage.missed_attributes[:3]
    ]
    if not coverage.attributes:
        findings.append(
            Finding(
                headline="Nothing is known of the landmarks but their pictures.",
                text="Which attributes are missed takes images whose factors are known.",
            )
        )
    if coverage.null.mixed:
        findings.append(
            Finding(
                headline=f"{100 * coverage.null.apart:.0f} % of the control stand apart from the rest, and were not ranked against.",
                text="Random images that the model cannot draw either would hide what is missed.",
            )
        )
    if coverage.reference is None and not coverage.represented:
        findings.append(
            Finding(
                headline="No reference model was given.",
                text=(
                    "What makes an image hard for any model is not told apart from what this model misses, and few of those "
                    "missed are found. Give the model that the Support Set was chosen by (--reference)."
                ),
            )
        )
    least = coverage.fewest_callable
    if least != 1:
        wanted = round(count / coverage.level)
        findings.append(
            Finding(
                headline=f"Fewer than {least} missed landmarks could not be called missed."
                if least > 0
                else "The control is too small for any landmark to be called missed.",
                text=f"To tell a single one of {count} takes {wanted:,} ordinary control images; here are {1 / coverage.null.smallest - 1:,.0f}.",
            )
        )
    return findings


def leaderboard_report(coverages: Sequence[Coverage], models: Sequence[LatentModel]) -> Report:
    """Return the page of several models, the one that misses least first.

    Args:
        coverages: from `latlas.studies.coverage.cover_all`.
        models: in the same order.
    """
    ranked = sorted(zip(coverages, models, strict=True), key=lambda pair: (pair[0].missed_share, pair[0].error_over_control))
    first = coverages[0]
    best, worst = ranked[0][0], ranked[-1][0]
    return Report(
        title=f"Coverage of {len(coverages)} models",
        subtitle=f"{len(first.support)} landmarks of {images_in_words(first.support.chosen_from)}, beside random images: {images_in_words(first.control)}.",
        summary=[
            Finding(
                headline=f"{best.model} misses {int(best.missed.sum())} of {len(best.support)} landmarks, {worst.model} {int(worst.missed.sum())}.",
                text="All models were given the same images, starts and budget.",
            )
        ],
        sections=[
            Section(
                title="Leaderboard",
                lead="Missed: worse drawn than the ordinary part of the control, after correction over the landmarks.",
                blocks=[leaderboard_table([coverage for coverage, _ in ranked]), Picture(
                    content=missed_bars(coverages), caption="Share of the landmarks that each model misses, with Wilson's interval.",
                    alt="Bars of the share of landmarks missed, by model.",
                )],
            ),
            *(
                Section(title=coverage.model, lead="Its worst landmarks.", blocks=_pictures(coverage, model).blocks, findings=coverage_findings(coverage))
                for coverage, model in ranked
            ),
        ],
        numbers={"models": [coverage.to_json() for coverage in coverages]},
        provenance=first.provenance,
        details={"landmarks": first.support.chosen_from, "control": first.control, "reference": first.reference or "none"},
    )  # fmt: skip


def leaderboard_table(coverages: Sequence[Coverage]) -> Table:
    """Return one row a model."""
    return Table(
        columns=(
            "model",
            "landmarks missed",
            "sectors missed",
            "error",
            "over control",
            "own samples",
            "most missed attribute",
        ),
        rows=[
            [
                one.model,
                f"{int(one.missed.sum())} of {len(one.support)}",
                one.summary()["missed_sectors"],
                float(one.landmarks.errors.mean()),
                one.error_over_control,
                float(one.own_errors.mean()),
                one.missed_attributes[0].name if one.missed_attributes else None,
            ]
            for one in coverages
        ],
        caption="Errors are squared, per pixel, of values in [0, 1], after the same inversion for all.",
    )


def _pictures(coverage: Coverage, model: LatentModel) -> Section:
    rows = coverage.worst[:_SHOWN]
    support = coverage.support
    originals = support.images.tensor()[rows]
    drawn = torch.cat(list(decode_batches(require_generator(model, "A report"), coverage.landmarks.codes[rows]))).nan_to_num()
    maps = error_map(originals, drawn.clamp(0, 1))
    white = max(float(maps.quantile(0.99)), 1e-6)
    missed = coverage.missed
    listed = "; ".join(
        f"{place + 1}: {directions(support, int(support.sector[row]))} (p {float(coverage.p_values[row]):.2g}{', missed' if bool(missed[row]) else ''})"
        for place, row in enumerate(rows)
    )
    return Section(
        title="The worst sectors",
        lead="Each landmark stands for a sector: a combination of directions of the most informative variables.",
        blocks=[
            Picture(
                content=pictures.grid(
                    pictures.rows(originals, drawn.clamp(0, 1), pictures.heat(maps, white)),
                    columns=len(rows),
                    enlarge=enlargement(support.images),
                ),
                caption=f"From the worst on, with their sectors: {listed}. In the last row, the squared differences, black is none and white {white:.2g} and more.",
                alt="Three rows: landmarks, the nearest images that the model was found to draw, the squared differences.",
                row_labels=("landmark", "drawn", "error"),
            )
        ],
    )


def _attributes(coverage: Coverage) -> Section:
    rows = coverage.attributes
    blocks: list[Block] = [Words(text="Nothing is known of the landmarks but their pictures.")]
    if rows:
        blocks = [
            Picture(
                content=share_intervals(rows[:_ATTRIBUTES], level=coverage.level),
                caption="Newcombe's interval. Coloured: over-represented at the level, by Fisher's exact test with Holm's correction over all attributes.",
                alt="Differences of the shares of missed landmarks with and without each attribute, with intervals.",
            ),
            Table(
                columns=("attribute", "missed with it", "missed without", "difference", "from", "to", "p, corrected"),
                rows=[
                    [
                        row.name, f"{row.missed_having} of {row.having}", f"{row.missed_lacking} of {row.lacking}",
                        row.shares.difference, row.shares.low, row.shares.high, row.adjusted,
                    ]
                    for row in rows[:_ATTRIBUTES]
                ],
                caption=(
                    f"The {min(len(rows), _ATTRIBUTES)} most over-represented of {len(rows)} attributes. Difference of the two shares missed, "
                    "from and to the ends of its 95 % interval."
                ),
            ),
        ]  # fmt: skip
    return Section(
        title="Which attributes are missed",
        lead="Whether landmarks with an attribute are missed more often than those without.",
        blocks=blocks,
    )


def _meaning(coverage: Coverage, chooser: LatentModel | None) -> Section:
    support = coverage.support
    blocks: list[Block] = []
    chosen = support.provenance.made_from.get("model")
    if chooser is not None and chooser.fingerprint == chosen:
        strips = [_ends(coverage, chooser, variable) for variable in support.sectors.variables]
        blocks.append(
            Picture(
                content=pictures.grid(torch.cat(strips), columns=len(strips[0]), enlarge=enlargement(support.images)),
                caption=f"Each variable of the sectors, from {_SPAN:g} deviations below the mean landmark to {_SPAN:g} above, as {support.model} draws it.",
                alt="One row a variable: its low end, the mean landmark, its high end.",
                row_labels=tuple(f"variable {variable}" for variable in support.sectors.variables),
            )
        )
    if coverage.variables:
        blocks.append(
            Table(
                columns=("variable", "goes most with", "correlation", "p, corrected"),
                rows=[[row.variable, row.name, row.correlation, row.p_value] for row in coverage.variables],
                caption="Over the landmarks. p: of no correlation at all, times the attributes tried.",
                dim=[row.p_value > coverage.level for row in coverage.variables],
            )
        )
    if not blocks:
        blocks.append(
            Words(
                text="What the variables mean is shown where the model that chose the Support Set is given (--reference), or where attributes are known."
            )
        )
    return Section(
        title="What the variables mean", lead=f"Sectors are directions of variables of {support.model}.", blocks=blocks
    )


def _ends(coverage: Coverage, chooser: LatentModel, variable: int) -> Images:
    codes = coverage.support.codes
    middle = codes.mean(dim=0)
    moved = middle.repeat(3, 1)
    moved[:, variable] += torch.tensor([-_SPAN, 0.0, _SPAN]) * codes[:, variable].std()
    return torch.cat(list(decode_batches(require_autoencoder(chooser, "A report"), moved))).clamp(0, 1)


def _evidence(coverage: Coverage) -> Section:
    summary = coverage.summary()
    return Section(
        title="Evidence",
        lead="Every image got the same inversion, with the same budget.",
        blocks=[
            Picture(
                content=score_histograms(coverage),
                caption=(
                    "The model's own samples show what the inversion achieves where a code exists. "
                    f"{summary['missed_against_own_samples']} of {summary['landmarks']} landmarks lie beyond them, corrected; "
                    "that alone says little: the control is the measure."
                ),
                alt="Histograms of errors of landmarks, control and own samples, and of the scores of landmarks and control.",
            ),
            Table(
                columns=("landmark", "sector", "error", "p", "p, corrected", "all of control", "own samples", "missed"),
                rows=[
                    [
                        row["name"], row["sector"], row["error"], row["p_value"], row["adjusted_p_value"],
                        row["control_p_value"], row["own_p_value"], "yes" if row["missed"] else "",
                    ]
                    for row in coverage.rows()[:_LISTED]
                ],
                caption="The worst landmarks. p: rank among the ordinary part of the control, corrected over landmarks by Benjamini and Hochberg; then, uncorrected, among the whole control and among the model's own samples.",
            ),
        ],
    )  # fmt: skip
