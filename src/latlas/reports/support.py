"""A Support Set, as a section of a page."""

import math

from latlas.reports import figures, pictures
from latlas.reports.diagnosis import enlargement
from latlas.reports.page import Block, Finding, Numbers, Picture, Report, Section, Table
from latlas.studies.support import SmallFits, SpreadComparison
from latlas.supports.support_set import SupportSet

_COLUMNS = 16
_LISTED = 5  # most and least crowded sectors in the table


def support_section(support: SupportSet, spread: SpreadComparison, fits: SmallFits | None = None) -> Section:
    """Return the section: the members, how even the sectors are, how well the set fixes a map."""
    occupancy = support.occupancy.double()
    expected = float(occupancy.sum()) / support.sectors.count
    blocks: list[Block] = [
        Numbers(
            items=[
                (len(support), "images", f"of {support.chosen_from}"),
                (
                    f"{support.inhabited} of {support.sectors.count}",
                    "sectors inhabited",
                    f"threshold {support.sectors.threshold:.3f}",
                ),
                (spread.ratio, "spread over random images", f"{spread.support.mean:.4f} against {spread.random.mean:.4f}"),
                (f"{int(occupancy.min())} to {int(occupancy.max())}", "images a sector", f"{expected:.0f} if even"),
            ]
        ),
        Picture(
            content=pictures.grid(support.images.tensor(), columns=_COLUMNS, enlarge=enlargement(support.images)),
            caption=(
                "One image for each combination of directions of the most informative variables "
                f"({', '.join(str(variable) for variable in support.sectors.variables)}), drawn at random within its sector."
            ),
            alt=f"A grid of the {len(support)} images of the Support Set.",
        ),
    ]
    findings = [_spread_finding(spread)]
    if fits is not None:
        blocks.append(
            Picture(
                content=figures.few_points(fits.full_M, fits.support_M, fits.random_M, points=fits.points),
                caption="How well few images fix a map. Each map's ridge is chosen by generalised cross-validation on its own points.",
                alt="Dots of the error of maps fitted on random sets, and a diamond for the Support Set.",
            )
        )
        random = sum(fits.random_M) / len(fits.random_M)
        comparison = (
            "beats"
            if fits.support_M < min(fits.random_M)
            else "ties with"
            if fits.support_M <= max(fits.random_M)
            else "does worse than"
        )
        findings.append(
            Finding(
                level="good" if fits.support_M / fits.full_M < 1.3 else "note",
                headline=f"{fits.points} images fix the map: {100 * (fits.support_M / fits.full_M - 1):.1f} % more error than all of them.",
                text=(
                    f"At this size the Support Set {comparison} random sets ({100 * (random / fits.full_M - 1):.1f} % on average). "
                    "What it is for is coverage: the fit is a by-product."
                ),
            )
        )
    blocks.append(_occupancy_table(support))
    return Section(
        title="A Support Set",
        lead="Few images that cover the main factors of variation: landmarks of the latent space, one for each of its sectors.",
        blocks=blocks,
        findings=findings,
    )


def support_report(support: SupportSet, spread: SpreadComparison, numbers: dict[str, object]) -> Report:
    """Return the page of one Support Set."""
    section = support_section(support, spread)
    return Report(
        title=f"Support Set of {support.chosen_from}",
        subtitle=f"Chosen by the latent sectors of {support.model}.",
        summary=section.findings,
        sections=[Section(title="Evidence", lead=section.lead, blocks=section.blocks)],
        numbers=numbers,
        provenance=support.provenance,
        details={"model": support.model, "images": support.chosen_from},
    )


def _spread_finding(spread: SpreadComparison) -> Finding:
    error = (spread.support.standard_error**2 + (spread.random.standard_error * spread.ratio) ** 2) ** 0.5 / spread.random.mean
    interval = "of no known width" if math.isnan(error) else f"{spread.ratio - 2 * error:.2f} to {spread.ratio + 2 * error:.2f}"
    if spread.ratio - 2 * error > 1.0:
        return Finding(
            level="good",
            headline=f"Its images lie {spread.ratio:.2f} times as far apart as random ones (interval {interval}).",
            text="On CelebA the post reports 0.183 against 0.116, a ratio of 1.58.",
        )
    return Finding(
        headline=f"Its images lie no farther apart than random ones ({spread.ratio:.2f}, interval {interval}).",
        text=(
            "The post reports 1.58 on CelebA, where the leading variables change the light of the whole picture. "
            "Digits differ by the place of thin strokes, and two random ones are already about as far apart as two can be."
        ),
    )


def _occupancy_table(support: SupportSet) -> Table:
    order = support.occupancy.argsort(descending=True, stable=True)
    ranked = order.tolist()
    rows = ranked if len(ranked) <= 2 * _LISTED else [*ranked[:_LISTED], *ranked[-_LISTED:]]
    signs = {1: "+", -1: "−"}
    return Table(
        columns=("sector (signs of the variables)", "images in it", "share"),
        rows=[
            [
                " ".join(
                    f"{signs[sign]}{variable}"
                    for sign, variable in zip(support.sectors.directions(sector), support.sectors.variables, strict=True)
                ),
                int(support.occupancy[sector]),
                float(support.occupancy[sector]) / max(float(support.occupancy.sum()), 1.0),
            ]
            for sector in rows
        ],
        caption="The most and the least crowded sectors. Were the variables independent and alike, all would hold as many.",
    )
