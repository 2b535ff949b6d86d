"""An order of latent variables, as a page: the order with its errors and ties, other measures beside it, and what the leaders draw."""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from latlas.base.records import plain
from latlas.measurements.ordering import UNITS, Ordering, rank_agreement
from latlas.reports import figures, palette
from latlas.reports.page import Block, Finding, Numbers, Picture, Report, Section, Table
from latlas.reports.traversals import Traversals, traversal_blocks
from latlas.reports.wording import capital, images_in_words

_BARS = 24  # variables in the chart, at most

_NONE: Mapping[str, str] = MappingProxyType({})
_NAMES = {"gain": "reconstruction gain", "kl": "KL", "variance": "variance of means", "jacobian": "Jacobian norm"}


def ordering_report(
    ordering: Ordering,
    alternatives: Sequence[Ordering] = (),
    traversals: Traversals | None = None,
    *,
    left_out: Mapping[str, str] = _NONE,
) -> Report:
    """Return the page of one order.

    Args:
        ordering: what was asked for.
        alternatives: the same variables by other measures.
        traversals: what the leading variables draw; None where the model cannot be asked.
        left_out: measures that this model or these images do not have, and why.
    """
    sections = [Section(title="The order", lead=_lead(ordering), blocks=_order_blocks(ordering))]
    if traversals is not None:
        sections.append(
            Section(
                title="What they draw",
                lead="One variable runs while all others keep the code of an image.",
                blocks=traversal_blocks(traversals),
            )
        )
    if alternatives:
        sections.append(
            Section(
                title="By other measures",
                lead="Gain asks what the image loses; the others ask the encoder, or the decoder near its codes.",
                blocks=_alternative_blocks([ordering, *alternatives]),
            )
        )
    return Report(
        title=f"What informs {ordering.model} most?",
        subtitle=f"Its latent variables by {_NAMES[ordering.by]}, measured on {images_in_words(ordering.images)}.",
        summary=ordering_findings(ordering, left_out),
        sections=sections,
        numbers=ordering_record(ordering, alternatives, left_out),
        provenance=ordering.provenance,
        details={"model": ordering.model, "images": ordering.images},
    )


def ordering_record(
    ordering: Ordering, alternatives: Sequence[Ordering] = (), left_out: Mapping[str, str] = _NONE
) -> dict[str, Any]:
    """Return every number: the order's own, each alternative's order, Kendall's tau with each, and why one was left out."""
    record = ordering.to_json()
    record["alternatives"] = {
        other.by: {
            "variables": list(other.variables),
            "scores": plain(other.score),
            "count": other.count,
            "kendall_tau": plain(rank_agreement(ordering, other)),
        }
        for other in alternatives
    }
    record["left_out"] = dict(left_out)
    return record


def ordering_findings(ordering: Ordering, left_out: Mapping[str, str] = _NONE) -> list[Finding]:
    """Return what to read first: the top, its ties, what it cost, and what it could not be compared with."""
    leading = ", ".join(map(str, ordering.leading[:16])) + (", …" if len(ordering.leading) > 16 else "")
    findings = [
        Finding(
            level="good",
            headline=f"Most informative first: {leading}.",
            text=(
                f"With {100 * ordering.confidence:g} % confidence these are the top {ordering.top} of all {ordering.count:,} images, "
                f"but for ties; {ordering.decodes:,} decodes instead of {ordering.exhaustive_decodes:,}."
                if ordering.fast
                else f"Measured on all {ordering.count:,} images."
            ),
        )
    ]
    if ordering.border_tied:
        assert ordering.top is not None  # or there were no border
        inside, outside = ordering.variables[ordering.top - 1 : ordering.top + 1]
        findings.append(
            Finding(
                level="warning",
                headline=f"The border of the top {ordering.top} is a tie: {inside} and {outside} are within error.",
                text="Other images may swap them. Ask for a top that ends elsewhere, or give more images.",
            )
        )
    inside_ties = [run for run in ordering.ties() if run[0] in ordering.leading]
    if inside_ties:
        told = "; ".join(_few(run) for run in inside_ties)
        findings.append(
            Finding(headline=f"Tied neighbours: {told}.", text="Each differs from the next by less than its error.")
        )
    findings += [Finding(headline=f"Not compared with {_NAMES[by]}.", text=reason) for by, reason in left_out.items()]
    return findings


def _lead(ordering: Ordering) -> str:
    if not ordering.fast:
        return f"Every variable on all {ordering.count:,} images."
    return "Variables plainly out of the top, or in it, stopped being decoded: the order beyond the top is rough."


def _order_blocks(ordering: Ordering) -> list[Block]:
    rows = ordering.table
    blocks: list[Block] = [
        Numbers(
            items=[
                (len(ordering.leading), "variables in the top", f"of {len(rows)}"),
                (ordering.decodes, "decodes", f"{ordering.exhaustive_decodes:,} for all images and variables"),
                (
                    sum(map(bool, ordering.tied)),
                    "ties of neighbours",
                    f"{100 * ordering.confidence:g} % interval of the paired difference",
                ),
            ]
        )
    ]
    shown = rows[:_BARS]
    if max(row["score"] for row in shown) > 0 and all(math.isfinite(row["score"]) for row in shown):
        bars = [
            (
                f"{row['variable']}" + (" ≈" if row["tied_with_next"] else ""),
                max(0.0, row["score"]),
                float("nan") if row["standard_error"] is None else row["standard_error"],
                palette.GAIN if row["variable"] in ordering.leading else palette.COLLAPSED,
            )
            for row in shown
        ]
        blocks.append(
            Picture(
                content=figures.error_bars(
                    bars,
                    title=f"{_NAMES[ordering.by].capitalize()} of each variable (bars: 2 standard errors)",
                    unit=UNITS[ordering.by],
                ),
                caption=(
                    "A sign ≈ after a variable: tied with the next one below. Errors are over images, and larger than those of the "
                    "differences that decide: neighbours are compared on the same images."
                ),
                alt=f"Horizontal bars of the {_NAMES[ordering.by]} of the leading variables.",
            )
        )
    blocks.append(
        Table(
            columns=(
                "rank",
                "variable",
                f"{_NAMES[ordering.by]} ({UNITS[ordering.by]})",
                "standard error",
                "images",
                "next one",
            ),
            rows=[
                [
                    row["rank"],
                    row["variable"],
                    row["score"],
                    row["standard_error"],
                    row["images"],
                    _next_one(row),
                ]
                for row in rows
            ],
            caption="Images: how many the score was measured on."
            + (" Beyond the top nobody looked for ties." if ordering.fast else ""),
            dim=[row["variable"] not in ordering.leading for row in rows],
        )
    )
    return blocks


def _alternative_blocks(orderings: Sequence[Ordering]) -> list[Block]:
    ranks = [{variable: rank + 1 for rank, variable in enumerate(ordering.variables)} for ordering in orderings]
    agreement: list[list[Any]] = [
        [_NAMES[first.by], *(plain(rank_agreement(first, second)) for second in orderings)] for first in orderings
    ]
    return [
        Table(
            columns=("variable", *(f"rank by {_NAMES[ordering.by]}" for ordering in orderings)),
            rows=[[variable, *(rank[variable] for rank in ranks)] for variable in orderings[0].leading],
            caption="The leading variables, and where each other measure puts them.",
        ),
        Table(
            columns=("Kendall's tau", *(_NAMES[ordering.by] for ordering in orderings)),
            rows=agreement,
            caption=(
                "Agreement of two orders over all variables: 1 the same, about 0 unrelated. "
                + ("A fast order is rough beyond its top, which lowers it. " if any(each.fast for each in orderings) else "")
                + capital("; ".join(f"{_NAMES[ordering.by]} on {ordering.count:,} images" for ordering in orderings))
                + "."
            ),
        ),
    ]


def _next_one(row: Mapping[str, Any]) -> str:
    return "" if row["tied_with_next"] is None else "tied" if row["tied_with_next"] else "below"


def _few(run: Sequence[int]) -> str:
    return " ≈ ".join(map(str, run[:6])) + (f" and {len(run) - 6} more" if len(run) > 6 else "")
