"""The variance law, as a page: the sum of every variable, at the end of training and over it, and where it is not 1."""

from latlas.reports.page import Block, Finding, Numbers, Picture, Report, Section, Table
from latlas.reports.sparsity import PUBLISHED, PUBLISHED_COLLAPSED
from latlas.reports.sparsity_figures import law_by_model, law_over_time
from latlas.reports.wording import percent
from latlas.studies.variance_law import BOUND, FAR, VarianceLawPoint, VarianceLawStudy

_DRAWN = 4  # trainings over time


def variance_law_report(study: VarianceLawStudy) -> Report:
    """Return the page of a study."""
    blocks: list[Block] = [
        Numbers(
            items=[
                (f"{study.agreeing} of {len(study.points)}", f"models within {percent(BOUND)} of 1", "mean over variables"),
                (min(point.low for point in study.points), "smallest sum", "of any variable"),
                (max(point.high for point in study.points), "largest sum", "of any variable"),
            ]
        ),
        Picture(
            content=law_figure(study),
            caption="Both posts' tables are rows of the same kind: the law holds on their average, and not for each variable.",
            alt="Dot plot of the sum of every variable of every model.",
        ),
        _table(study),
    ]
    timed = _timed(study)
    if timed:
        blocks.append(
            Picture(
                content=time_figure(study),
                caption="Over the training images of each epoch.",
                alt="Line charts of the sum of every variable over training epochs.",
            )
        )
    return Report(
        title="The variance law",
        subtitle="Mean posterior variance + variance of posterior means, of each latent variable: 1 where the scale of the code is stationary.",
        summary=law_findings(study),
        sections=[
            Section(
                title="Evidence",
                lead="Scaling a code up and the decoder's first layer down changes the KL alone.",
                blocks=blocks,
            )
        ],
        numbers=study.to_json(),
        provenance=study.provenance,
        details={"models": str(len(study.points))},
    )


def law_findings(study: VarianceLawStudy) -> list[Finding]:
    """Return what the study says: for which models the law holds on average, and which variables are far from it, and why."""
    findings = [
        Finding(
            level="good" if study.agreeing == len(study.points) else "note",
            headline=f"The mean over variables is within {percent(BOUND)} of 1 in {study.agreeing} of {len(study.points)} models.",
            text=", ".join(f"{p.model} ({p.mean:.2f})" for p in study.points if not p.agrees),
        )
    ]
    for point in study.points:
        if point.far:
            names = ", ".join(f"{variable.variable} ({variable.total:.2f})" for variable in point.far[:4])
            rest = f" and {len(point.far) - 4} more" if len(point.far) > 4 else ""
            findings.append(
                Finding(
                    level="note",
                    headline=f"{point.model}: {len(point.far)} of {len(point.variables)} variables are more than {percent(FAR)} from 1.",
                    text=f"{names}{rest}: {'; '.join(point.causes)}.",
                )
            )
    return findings


def law_figure(study: VarianceLawStudy) -> str:
    """Return every variable of every model, with the two published tables, as a drawing."""
    published = [
        (f"published: {network}", [sum(row) for row in table], [row[0] > 0.01 for row in table])
        for network, table in PUBLISHED.items()
    ]
    ours = [
        (point.model, [variable.total for variable in point.variables], [variable.active for variable in point.variables])
        for point in study.points
    ]
    return law_by_model([*published, *ours], bound=BOUND)


def time_figure(study: VarianceLawStudy) -> str:
    """Return the sums over training time of the first training of each family, as a drawing."""
    return law_over_time(
        [(point.model, point.history, [variable.active for variable in point.variables]) for point in _timed(study)[:_DRAWN]]
    )


def _timed(study: VarianceLawStudy) -> list[VarianceLawPoint]:
    found: dict[str, VarianceLawPoint] = {}
    for point in study.points:
        if point.history:
            found.setdefault(point.family, point)
    return list(found.values())


def _table(study: VarianceLawStudy) -> Table:
    rows = [
        [
            f"published: {network}",
            network,
            "mnist",
            f"{16 - PUBLISHED_COLLAPSED[network]} of 16",
            _mean([sum(row) for row in table]),
            _mean([sum(row) for row in table if row[0] > 0.01]),
            _mean([sum(row) for row in table if row[0] <= 0.01]),
            min(map(sum, table)),
            max(map(sum, table)),
            None,
            None,
        ]
        for network, table in PUBLISHED.items()
    ]
    rows += [
        [
            point.model,
            point.family,
            point.images,
            f"{sum(variable.active for variable in point.variables)} of {len(point.variables)}",
            point.mean,
            point.mean_of(active=True),
            point.mean_of(active=False),
            point.low,
            point.high,
            point.drift,
            point.cost_nats,
        ]
        for point in study.points
    ]
    return Table(
        columns=(
            "model", "family", "images", "active", "mean", "mean, active", "mean, collapsed", "least", "most",
            "moved in the last quarter", "costs, nats",
        ),
        rows=rows,
        caption="Sums over variables. Moved: the largest change of a sum over the last quarter of the training. Costs: KL that the right "
        "scale of every variable would save; nothing else pulls a sum to 1.",
    )  # fmt: skip


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
