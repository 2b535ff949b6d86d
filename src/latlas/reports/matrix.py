"""Every ordered pair of a list of models, as a page: heat maps, a table, one image carried along every map."""

import statistics
from collections.abc import Sequence

import torch

from latlas.models.protocols import LatentModel
from latlas.reports import map_figures, pictures
from latlas.reports.comparison import decode
from latlas.reports.diagnosis import enlargement
from latlas.reports.page import Block, Finding, Numbers, Picture, Report, Section, Table
from latlas.reports.wording import images_in_words
from latlas.studies.matrix import Cell, ComparisonMatrix

_LARGEST = 10  # models for which one image is shown along every map


def matrix_report(matrix: ComparisonMatrix, models: Sequence[LatentModel]) -> Report:
    """Return the page of a matrix; models in the order in which they were compared."""
    over = _known(matrix, "over_target")
    shares = _known(matrix, "recovered_share")
    blocks: list[Block] = [
        Numbers(
            items=[
                (len(matrix.models), "models", f"{len(matrix.cells)} ordered pairs"),
                (
                    statistics.median(over) if over else None,
                    "median of M over the target's own error",
                    "the target's own reconstruction has 1",
                ),
                (max(over) if over else None, "the worst pair", _pair(matrix, "over_target", highest=True)),
                (
                    statistics.median(shares) if shares else None,
                    "median recovered share",
                    "0: the mean code; 1: the target's own codes",
                ),
            ]
        ),
        *_heat_maps(matrix),
        *_carried(matrix, models),
        _table(matrix),
    ]
    return Report(
        title=f"{len(matrix.models)} models, every ordered pair",
        subtitle="What is lost when codes are carried from one latent space to another by a linear map, in image space.",
        summary=_findings(matrix, over, shares),
        sections=[
            Section(
                title="Evidence",
                lead=f"Fitted on {images_in_words(matrix.fitted_on)}, measured on {images_in_words(matrix.images)}.",
                blocks=blocks,
            )
        ],
        numbers=matrix.to_json(),
        provenance=matrix.provenance,
        details={"fitted on": matrix.fitted_on, "measured on": matrix.images},
    )


def _heat_maps(matrix: ComparisonMatrix) -> list[Block]:
    over = _known(matrix, "over_target")
    drawn: list[Block] = []
    if over:
        drawn.append(
            Picture(
                content=map_figures.heat_map(
                    matrix.models,
                    matrix.models,
                    _values(matrix, "over_target"),
                    title="M over the target's own error (1: as a perfect map)",
                    low=1.0,
                    high=max(2.0, *over),
                    logarithmic=True,
                ),
                caption="Dark: more is lost. Below 1: the map finds better codes than the target's own encoder. A dash: a model and itself, a target whose codes are known and whose own error is 0, or a pair of generators.",
                alt="Heat map of M over the target's own reconstruction error, source by row, target by column.",
            )
        )
    drawn.append(
        Picture(
            content=map_figures.heat_map(
                matrix.models,
                matrix.models,
                _values(matrix, "recovered_share"),
                title="Recovered share (0: the mean code, 1: the target's own codes)",
                low=0.0,
                high=1.0,
                low_is_dark=True,
            ),
            caption="How much of the way from the mean code's error to the target's own the map goes. Dark: more is lost.",
            alt="Heat map of the recovered share, source by row, target by column.",
        )
    )
    if _known(matrix, "over_no_map"):
        drawn.append(
            Picture(
                content=map_figures.heat_map(
                    matrix.models,
                    matrix.models,
                    _values(matrix, "over_no_map"),
                    title="M over decoding without a map",
                    low=0.0,
                    high=1.0,
                ),
                caption="Below 1: the map is worth having. A dash: the target cannot decode the source's codes, whose shape is another.",
                alt="Heat map of M over decoding without a map, source by row, target by column.",
            )
        )
    return drawn


def _carried(matrix: ComparisonMatrix, models: Sequence[LatentModel]) -> list[Block]:
    by_name = dict(zip(matrix.models, models, strict=True))
    names = list(matrix.codes)  # those that encode
    if not 2 <= len(names) <= _LARGEST:
        return []
    drawn = []
    for source in names:
        for target in names:
            cell = matrix.cell(source, target)
            codes = matrix.codes[source] if cell is None else cell.examples
            drawn.append(decode(by_name[target], codes[:1]))
    return [
        Picture(
            content=pictures.grid(matrix.examples.slice(0, 1).tensor(), columns=1, enlarge=enlargement(matrix.examples)),
            caption="One image of those measured on, which the next figure carries along every map.",
            alt="The original image.",
            row_labels=("original",),
        ),
        Picture(
            content=pictures.grid(torch.cat(drawn), columns=len(names), enlarge=enlargement(matrix.examples)),
            caption=f"Rows: source. Columns: target, in the same order ({', '.join(names)}). On the diagonal a model's own reconstruction.",
            alt="A table of images: the original carried from each source to each target.",
            row_labels=tuple(names),
        ),
    ]


def _table(matrix: ComparisonMatrix) -> Table:
    return Table(
        columns=(
            "source → target", "M", "standard error", "target R", "mean code", "no map", "M over target R", "recovered share",
            "L", "R2", "measured on",
        ),
        rows=[
            [
                f"{cell.source} → {cell.target}", cell.M.mean, cell.M.standard_error, cell.target_R.mean, cell.mean_code.mean,
                None if cell.no_map is None else cell.no_map.mean, cell.over_target, cell.recovered_share, cell.L.mean, cell.r2,
                cell.images,
            ]
            for cell in matrix.cells
        ],
        caption="Squared error per pixel; L per variable; R2 averaged over the target variables that vary.",
    )  # fmt: skip


def _findings(matrix: ComparisonMatrix, over: Sequence[float], shares: Sequence[float]) -> list[Finding]:
    findings = []
    if over:
        findings.append(
            Finding(
                level="good" if max(over) <= 2.0 else "note",
                headline=f"A linear map keeps M within {max(over):.2f} times the target's own error, on the worst pair.",
                text=f"That is {_pair(matrix, 'over_target', highest=True)}; the median over pairs is {statistics.median(over):.2f}.",
            )
        )
    if shares:
        lowest = min(shares)
        findings.append(
            Finding(
                level="good" if lowest >= 0.5 else "warning",
                headline=f"Every map recovers at least {100 * lowest:.0f} % of what the mean code loses."
                if lowest > 0
                else "A map is no better than the target's mean code.",
                text=f"The least: {_pair(matrix, 'recovered_share', highest=False)}.",
            )
        )
    dead = list(dict.fromkeys(cell.target for cell in matrix.cells if cell.recovered_share is None))
    if dead:
        findings.append(
            Finding(
                level="warning",
                headline=f"Every code is decoded to nearly the same image by {', '.join(dead)}.",
                text="There is nothing that a map into such a space could recover. Train it again.",
            )
        )
    return findings


def _known(matrix: ComparisonMatrix, name: str) -> list[float]:
    return [value for cell in matrix.cells if (value := getattr(cell, name)) is not None]


def _values(matrix: ComparisonMatrix, name: str) -> list[list[float | None]]:
    return [
        [None if (cell := matrix.cell(source, target)) is None else getattr(cell, name) for target in matrix.models]
        for source in matrix.models
    ]


def _pair(matrix: ComparisonMatrix, name: str, *, highest: bool) -> str:
    cells = [cell for cell in matrix.cells if getattr(cell, name) is not None]
    if not cells:
        return ""

    def rank(cell: Cell) -> float:
        return float(getattr(cell, name))

    found = max(cells, key=rank) if highest else min(cells, key=rank)
    return f"{found.source} → {found.target}"
