"""Variance loss against squared error, as a page."""

from latlas.base.provenance import Provenance
from latlas.reports import figures
from latlas.reports.page import Block, Finding, Numbers, Picture, Report, Section, Table
from latlas.studies.variance_loss import RATIO_BOUNDS, VarianceLossStudy

PUBLISHED = ("Keras example, as published", 0.0413, 0.0411)  # Asperti: 784-256-2 on MNIST, 50 epochs; error and variance loss


def variance_loss_report(study: VarianceLossStudy, provenance: Provenance) -> Report:
    """Return the page of a study: the scatter, the slope, and every training with its ratio."""
    slope = study.slope
    outliers = [point for point in study.points if point.outlying]
    blocks: list[Block] = [
        Numbers(
            items=[
                (slope.value, "slope", f"95 %: {slope.low:.3f} to {slope.high:.3f}"),
                (study.share_within, "within 0.8 to 1.2", f"of {len(study.points)} trainings"),
                (slope.correlation, "correlation", "of error and variance loss"),
            ]
        ),
        Picture(
            content=variance_loss_figure(study),
            caption="One point a training, on test images; the cross is the published figure of the Keras example.",
            alt="Scatter of variance loss against squared error, close to the diagonal.",
        ),
        Table(
            columns=("model", "family", "images", "error", "variance loss", "ratio", "ratio, sampled", "active"),
            rows=[
                [
                    point.model,
                    point.family,
                    point.images,
                    point.error,
                    point.variance_loss,
                    point.ratio,
                    point.sampled_ratio,
                    None if point.active is None else f"{point.active} of {point.variables}",
                ]
                for point in sorted(study.points, key=lambda point: (point.images, point.family, point.error))
            ],
            caption="Ratio: variance loss over error, decoding posterior means; sampled: decoding a sample of each posterior.",
        ),
    ]
    names = ", ".join(f"{point.model} ({point.ratio:.2f})" for point in outliers)
    findings = [
        Finding(
            level="good" if slope.low <= 1.0 <= slope.high else "note",
            headline=f"Variance loss is {slope.value:.3f} of the squared error.",
            text="The 95 % interval holds 1: the decoders draw conditional means."
            if slope.low <= 1.0 <= slope.high
            else "The 95 % interval does not hold 1; the table tells which trainings make it so.",
        )
    ]
    if outliers:
        low, high = RATIO_BOUNDS
        findings.append(
            Finding(level="note", headline=f"{len(outliers)} of {len(study.points)} lie outside {low} to {high}.", text=names)
        )
    return Report(
        title="Variance loss and squared error",
        subtitle="How much of the images' variance reconstructions lose, against how far they are from the images.",
        summary=findings,
        sections=[Section(title="Evidence", lead="", blocks=blocks)],
        numbers=study.to_json(),
        provenance=provenance,
        details={"trainings": str(len(study.points))},
    )


def variance_loss_figure(study: VarianceLossStudy) -> str:
    """Return the scatter of a study as a drawing."""
    return figures.variance_loss_scatter(
        [(point.family, point.images.split(":")[0], point.error, point.variance_loss) for point in study.points],
        slope=study.slope.value,
        low=study.slope.low,
        high=study.slope.high,
        marks=[PUBLISHED],
    )
