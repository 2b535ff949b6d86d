"""Room 6: the diagnosis of a model as a table and a chart, and what each of its variables draws."""

import html
import math
from typing import Any

import torch

from latlas.app.charts import Atlas, Chart
from latlas.app.markup import Column, Row, as_cpu, numbers, rows
from latlas.app.markup import chart as columns_of
from latlas.app.measured import codes_of
from latlas.base.errors import SettingError
from latlas.base.progress import Progress, silent
from latlas.measurements.traversals import SPAN, traverse
from latlas.models.protocols import Decoder
from latlas.reports import palette
from latlas.reports.page import with_commands
from latlas.reports.wording import images_in_words
from latlas.studies.diagnose import Diagnosis

COLUMNS = {
    "variable": "variable",
    "verdict": "verdict",
    "gain": "gain",
    "KL, nats": "kl_nats",
    "variance of means": "variance_of_means",
    "mean posterior variance": "mean_posterior_variance",
    "sum of the two": "variance_law",
    "mean": "mean",
}
MEASURES = {
    "gain": "growth of the squared error per pixel when the variable is set to 0: what it buys",
    "KL, nats": "divergence of its posteriors from the prior: what it costs",
    "variance of means": "how much its posterior mean varies from image to image; active above 0.01",
    "mean posterior variance": "how unsure the encoder is of it; 1 is the prior",
    "sum of the two": "1 where the scale of the code is stationary (the variance law)",
}
UNITS = {"gain": "gain, squared error per pixel", "KL, nats": "KL divergence from the prior, nats"}  # the others have none
MARKS = {"mean posterior variance": 1.0, "sum of the two": 1.0}  # what the prior and the variance law say
_STEPS = 9


def sheet(diagnosis: Diagnosis) -> list[list[Any]]:
    """Return one line a variable, largest gain first, in the order of `COLUMNS`; what is no number is None."""
    ordered = sorted(diagnosis.table, key=lambda row: -row["gain"])
    return [[_plain(row[key]) for key in COLUMNS.values()] for row in ordered]


def bars(diagnosis: Diagnosis, measure: str) -> tuple[list[str], list[float], list[str]]:
    """Return variables by gain, one measure of each, and whether each is active.

    Raises:
        SettingError: no such measure.
    """
    if measure not in MEASURES:
        raise SettingError(f"The chart shows {', '.join(MEASURES)}; got {measure!r}.")
    ordered = sorted(diagnosis.table, key=lambda row: -row["gain"])
    values = [float(row[COLUMNS[measure]]) for row in ordered]
    finite = [value if math.isfinite(value) else 0.0 for value in values]
    return [str(row["variable"]) for row in ordered], finite, [row["verdict"] for row in ordered]


def chart(diagnosis: Diagnosis, measure: str) -> str:
    """Return one measure of every variable as columns.

    Raises:
        SettingError: no such measure.
    """
    names, values, verdicts = bars(diagnosis, measure)
    colours = {"active": palette.KL if measure == "KL, nats" else palette.ACTIVE, "collapsed": palette.COLLAPSED}
    parts = [
        Column(name=name, value=value, colour=colours[verdict], words=f"variable {name}, {verdict}: {measure} {value:.4g}")
        for name, value, verdict in zip(names, values, verdicts, strict=True)
    ]
    return columns_of(
        parts,
        axis="latent variables, by gain",
        unit=UNITS.get(measure, measure),
        words=f"Columns of {measure} of {len(parts)} latent variables; the table below has the numbers.",
        legend=[(colour, verdict) for verdict, colour in colours.items() if verdict in verdicts],
        mark=MARKS.get(measure),
    )


def headline(diagnosis: Diagnosis) -> str:
    """Return the numbers of the whole model."""
    summary = diagnosis.summary
    ratio = summary["variance_loss_over_mse"]
    return numbers(
        [
            (f"{summary['active']} of {summary['variables']}", "variables active", "variance of means above 0.01"),
            (f"{summary['mse']:.4f}", "squared error per pixel", f"over {images_in_words(diagnosis.images)}"),
            (f"{ratio:.2f}" if math.isfinite(ratio) else "–", "variance loss over error", "1 for a conditional mean"),
            (
                f"{summary['kl_nats']:.1f}" if math.isfinite(summary["kl_nats"]) else "–",
                "KL, nats",
                "all variables" if math.isfinite(summary["kl_nats"]) else "a deterministic encoder has none",
            ),
        ]
    )


def advice(diagnosis: Diagnosis) -> str:
    """Return the findings in words, most urgent first."""
    items = (
        f'<li class="la-finding la-{each.level}"><strong>{html.escape(each.headline)}</strong> {with_commands(each.text)}</li>'
        for each in diagnosis.advice
    )
    return f'<ul class="la-findings">{"".join(items)}</ul>'


def traversal(atlas: Atlas, chart: Chart, variable: int, image: int = 0, progress: Progress = silent) -> str:
    """Return what one variable draws while it runs over [-2.25, 2.25] from the code of an image.

    Raises:
        CodeShapeError: no such variable.
    """
    code = codes_of(atlas, chart, progress).mean[image % len(chart.images)]
    decoder: Decoder = chart.model  # type: ignore[assignment]  # a chart's model decodes
    images = as_cpu(traverse(decoder, code, variable, steps=_STEPS))
    values = torch.linspace(*SPAN, _STEPS).tolist()
    return rows(
        [
            Row(
                title=f"What variable {variable} draws",
                images=images,
                words=[f"variable {variable} at {value:+.2f}" for value in values],
                captions=[f"{value:+.2f}".replace("-", "−") for value in values],
                remark=f"It runs from −{-SPAN[0]:g} to {SPAN[1]:g} while the others keep the code of image {image}.",
            )
        ]
    )


def written(value: float) -> str:
    """Return a number of the table as it stands there, 0 without a sign.

    >>> written(0.12345), written(-0.00001)
    ('0.1235', '0.0000')
    """
    return f"{value:z.4f}"


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value
