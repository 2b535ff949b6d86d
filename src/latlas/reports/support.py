"""A Support Set, as a section of a page."""

import math

from latlas.data.images import ImageSet
from latlas.reports import figures, pictures
from latlas.reports.diagnosis import enlargement
from latlas.reports.page import Block, Finding, Numbers, Picture, Report, Section, Table
from latlas.reports.support_figures import NULL_NAMES, occupancy_chart, threshold_chart
from latlas.reports.wording import images_in_words
from latlas.studies.sectors import SectorStudy
from latlas.studies.support import BY_SECTORS, SmallFits, SpreadComparison
from latlas.supports.support_set import SupportSet
from latlas.supports.unevenness import Null

_COLUMNS = 16
_LISTED = 5  # most and least crowded sectors in the table
_SIGNS = {1: "+", -1: "−"}
_SURE = 0.001  # p-value below which sectors are said to be uneven
_UNSUSPECTED = 0.05  # and from which, of enough images, that none is shown is good news
_PUBLISHED = (0.183, 0.116)  # of the post, on CelebA: its Support Set, random images
_IF: dict[Null, str] = {"uniform": "if even", "independence": "if independent", "gaussian": "if Gaussian"}
_WAYS = {
    "random": "drawn at random within its sector",
    "central": "the one nearest to the mean of its sector",
    "extreme": "the one farthest beyond the threshold",
}


def support_section(
    support: SupportSet,
    spread: SpreadComparison,
    fits: SmallFits | None = None,
    *,
    sectors: SectorStudy | None = None,
    images: ImageSet | None = None,
) -> Section:
    """Return the section: the members, how even the sectors are, how well the set fixes a map.

    Args:
        support: to show.
        spread: of its images.
        fits: maps from it, if any were fitted.
        sectors: what the study of its sectors found; it adds expected numbers, the threshold's curve and pictures.
        images: that it was chosen from, for pictures of other members.
    """
    occupancy = support.occupancy.double()
    expected = float(occupancy.sum()) / support.sectors.count
    blocks: list[Block] = [
        Numbers(
            items=[
                (len(support), "images", f"of {images_in_words(support.chosen_from)}"),
                (
                    f"{support.inhabited} of {support.sectors.count}",
                    "sectors inhabited",
                    f"threshold {support.sectors.threshold:.3f}{' standard deviations' if support.sectors.scale else ''}",
                ),
                (
                    None if math.isnan(spread.ratio) else spread.ratio,
                    "spread over random images",
                    f"{spread.support.mean:.4f} against {spread.random.mean:.4f}",
                ),
                (f"{int(occupancy.min())} to {int(occupancy.max())}", "images a sector", f"{expected:.0f} if even"),
            ]
        ),
        Picture(
            content=pictures.grid(support.images.tensor(), columns=_COLUMNS, enlarge=enlargement(support.images)),
            caption=_caption(support),
            alt=f"A grid of the {len(support)} images of the Support Set.",
        ),
    ]
    findings = [_spread_finding(spread, support.chosen_from)]
    if support.chosen_from.startswith("celeba:"):
        blocks.append(_published_table(spread))
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
    if sectors is not None:
        findings.append(_unevenness_finding(sectors))
        blocks += _sector_blocks(sectors, images)
    blocks.append(_occupancy_table(support, sectors))
    return Section(
        title="A Support Set",
        lead="Few images that cover the main factors of variation: landmarks of the latent space, one for each of its sectors.",
        blocks=blocks,
        findings=findings,
    )


def support_report(
    support: SupportSet,
    spread: SpreadComparison,
    numbers: dict[str, object],
    *,
    sectors: SectorStudy | None = None,
    images: ImageSet | None = None,
) -> Report:
    """Return the page of one Support Set; the arguments are those of `support_section`, and the page's numbers."""
    section = support_section(support, spread, sectors=sectors, images=images)
    return Report(
        title=f"Support Set of {images_in_words(support.chosen_from)}",
        subtitle=f"Chosen by the latent sectors of {support.model}.",
        summary=section.findings,
        sections=[Section(title="Evidence", lead=section.lead, blocks=section.blocks)],
        numbers=numbers,
        provenance=support.provenance,
        details={"model": support.model, "images": support.chosen_from},
    )


def _caption(support: SupportSet) -> str:
    settings = support.provenance.settings
    selector = settings.get("selector", BY_SECTORS)
    variables = ", ".join(str(variable) for variable in support.sectors.variables)
    if selector != BY_SECTORS:
        return f"Images chosen by another rule ({selector}), to be held beside one for each sector of variables {variables}."
    way = _WAYS[settings.get("choose", "random")]
    left_out = [
        *(f"with {name}" for name in settings.get("without", ())),
        *(f"without {name}" for name in settings.get("with", ())),
    ]
    if names := settings.get("exclude", ()):
        left_out.append(f"on a list of {len(names)} {'name' if len(names) == 1 else 'names'}")
    omitted = f" Images {' or '.join(left_out)} were left out." if left_out else ""
    return f"One image for each combination of directions of the most informative variables ({variables}), {way}.{omitted}"


def _spread_finding(spread: SpreadComparison, images: str) -> Finding:
    low, high = spread.interval
    if math.isnan(spread.ratio):
        return Finding(headline="Random images are all alike: no spread can be held against theirs.")
    interval = "interval of no known width" if math.isnan(low) else f"95 % interval {low:.2f} to {high:.2f}"
    if low > 1.0 or math.isnan(low):
        return Finding(
            level="good" if low > 1.0 else "note",
            headline=f"Its images lie {spread.ratio:.2f} times as far apart as random ones ({interval}).",
        )
    text = (
        "Digits differ by the place of thin strokes, and two random ones are already about as far apart as two can be."
        if images.startswith("mnist")
        else "Fewer variables, a larger threshold, or the most extreme image of each sector make a wider set."
    )
    if high < 1.0:
        return Finding(headline=f"Its images lie closer together than random ones ({spread.ratio:.2f}, {interval}).", text=text)
    return Finding(headline=f"Its images lie about as far apart as random ones ({spread.ratio:.2f}, {interval}).", text=text)


def _published_table(spread: SpreadComparison) -> Table:
    support, random = _PUBLISHED
    return Table(
        columns=("mean squared distance between", "here", "the post on Support Sets"),
        rows=[
            ["random images", spread.random.mean, random],
            ["images of the Support Set", spread.support.mean, support],
            ["ratio", spread.ratio, support / random],
        ],
        caption="Per pixel and channel, of values in [0, 1]. The post's model and crop are its own.",
    )


def _unevenness_finding(study: SectorStudy) -> Finding:
    even, reference = study.tests["uniform"], study.reference
    if even.p_value >= _SURE:
        images = int(study.occupancy.sum())
        return Finding(
            level="good" if not even.simulated and even.p_value >= _UNSUSPECTED else "note",
            headline=f"No unevenness is shown ({_p(even.p_value)}, {images:,} images in {study.sectors.count} sectors).",
            text=f"Entropy of the shares: {even.entropy:.3f} of the most possible.",
        )
    low, high = int(study.occupancy.min()), int(study.occupancy.max())
    rest = (
        ""
        if not reference.p_value < _SURE  # NaN: nothing is left
        else " The codes are no Gaussian."
        if reference.against == "gaussian"
        else " The variables depend on each other."
    )
    return Finding(
        headline=f"The sectors are unevenly inhabited: {low} to {high} images, Cohen's w {even.effect:.2f} ({_p(even.p_value)}).",
        text=(
            f"Chi-square is {even.statistic:,.0f} against even sectors and {reference.statistic:,.0f} against "
            f"{NULL_NAMES[reference.against]} ({_p(reference.p_value)}).{rest}"
        ),
    )


def _sector_blocks(study: SectorStudy, images: ImageSet | None) -> list[Block]:
    tests = [
        [
            NULL_NAMES[null],
            test.statistic,
            test.freedom,
            _p(test.p_value) + (", simulated" if test.simulated else ""),
            test.effect,
            study.inside.get(null),
        ]
        for null, test in study.tests.items()
    ]
    blocks: list[Block] = [
        Picture(
            content=occupancy_chart(study),
            caption=(
                "Where all sectors are alike, where the variables are independent with the share on each side that they have, and "
                "where the codes are Gaussian with their own mean and covariance."
            ),
            alt="Bars of the images in each sector, with marks at the numbers expected.",
        ),
        Table(
            columns=("against", "chi-square", "freedom", "p-value", "Cohen's w", "in sectors"),
            rows=tests,
            caption=(
                f"Of the {int(study.occupancy.sum()):,} images that lie in sectors, of {study.codes:,}; entropy of their shares "
                f"{study.tests['uniform'].entropy:.3f} of the most possible. Cohen's w: by what share of the number expected a "
                "sector is off, root mean square. In sectors: how many each expectation puts there. The Gaussian is fitted to the "
                "same codes: its p-value is on the large side."
            ),
        ),
        Picture(
            content=threshold_chart(study),
            caption="Sectors that hold an image, and images that lie in any sector, as the threshold grows.",
            alt="Two falling curves over the threshold, with a line at the one chosen.",
        ),
    ]
    if images is not None:
        seen: dict[int, list[str]] = {}
        for name, (sector, _) in study.examples.items():
            seen.setdefault(sector, []).append(name)
        members = dict(study.examples.values())
        for sector, names in seen.items():
            shown = images.take(members[sector])
            blocks.append(
                Picture(
                    content=pictures.grid(shown.tensor(), columns=len(shown), enlarge=enlargement(images)),
                    caption=(
                        f"{' and '.join(names).capitalize()}: members of the sector {_signs(study.sectors.directions(sector), study.sectors.variables)} "
                        f"(images: {int(study.occupancy[sector]):,}; {float(study.reference.expected[sector]):.1f} expected by "
                        f"{NULL_NAMES[study.reference.against]})."
                    ),
                    alt=f"A row of {len(shown)} images of one sector.",
                )
            )
    return blocks


def _occupancy_table(support: SupportSet, study: SectorStudy | None) -> Table:
    order = support.occupancy.argsort(descending=True, stable=True)
    ranked = order.tolist()
    rows = ranked if len(ranked) <= 2 * _LISTED else [*ranked[:_LISTED], *ranked[-_LISTED:]]
    nulls = () if study is None else tuple(null for null in study.tests if null != "uniform")
    return Table(
        columns=(
            "sector (signs of the variables)",
            "images in it",
            "share",
            *(_IF[null] for null in nulls),
        ),
        rows=[
            [
                _signs(support.sectors.directions(sector), support.sectors.variables),
                int(support.occupancy[sector]),
                float(support.occupancy[sector]) / max(float(support.occupancy.sum()), 1.0),
                *(float(study.tests[null].expected[sector]) for null in nulls if study is not None),
            ]
            for sector in rows
        ],
        caption="The most and the least crowded sectors. Were the variables independent and alike, all would hold as many.",
    )


def _signs(directions: tuple[int, ...], variables: tuple[int, ...]) -> str:
    return " ".join(f"{_SIGNS[sign]}{variable}" for sign, variable in zip(directions, variables, strict=True))


def _p(value: float) -> str:
    return "–" if math.isnan(value) else "p < 1e-16" if value < 1e-16 else f"p = {value:.2g}"
