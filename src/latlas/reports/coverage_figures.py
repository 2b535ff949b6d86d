"""Figures of coverage: errors of landmarks, control and own samples; shares of missed images with their intervals."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np

from latlas.reports import palette
from latlas.reports.figures import STYLE, as_svg, stacked_axes
from latlas.studies.coverage_record import Coverage
from latlas.studies.missed_attributes import AttributeRow

_FLOOR = 1e-9  # an error of 0 has no place on a logarithmic axis


def score_histograms(coverage: Coverage) -> str:
    """Draw errors of landmarks, control and own samples above, and below the scores that decide, with the missed ones marked."""
    errors = [
        ("landmarks", coverage.landmarks.errors, palette.SUPPORT),
        ("control", coverage.controls.errors, palette.ORDINARY),
        ("the model's own samples", coverage.own_errors, palette.OWN),
    ]
    with mpl.rc_context(STYLE):
        figure, (top, bottom) = stacked_axes(2, width=8.0, height=4.8)
        values = [np.maximum(group.numpy(), _FLOOR) for _, group, _ in errors]
        joined = np.concatenate(values)
        edges = np.geomspace(joined.min() * 0.9, joined.max() * 1.1, 60).tolist()
        for (label, _, colour), group in zip(errors, values, strict=True):
            top.hist(group, bins=edges, weights=np.full(len(group), 1 / len(group)), color=colour, alpha=0.6, label=label)
        top.set_xscale("log")
        top.set_xlabel("error after inversion (squared, per pixel)")
        top.set_ylabel("share")
        top.set_title("How closely the model comes to each image")
        scores = [coverage.scores.numpy(), coverage.control_scores.numpy()]
        low, high = min(group.min() for group in scores), max(group.max() for group in scores)
        steps = np.linspace(low, high if high > low else low + 1e-9, 60).tolist()
        for group, colour in zip(scores, (palette.SUPPORT, palette.ORDINARY), strict=True):
            bottom.hist(group, bins=steps, weights=np.full(len(group), 1 / len(group)), color=colour, alpha=0.6)
        missed = coverage.scores[coverage.missed]
        if len(missed):
            edge = float(missed.min())
            bottom.axvline(edge, color=palette.INK, ls="--", lw=1)
            bottom.annotate("missed from here on", (edge, bottom.get_ylim()[1]), xytext=(4, -4), textcoords="offset points",
                            va="top", fontsize=9)  # fmt: skip
        less = "" if coverage.reference is None else f", less what {coverage.reference} leaves there"
        bottom.set_xlabel(f"error of the worst window{less}")
        bottom.set_ylabel("share")
        bottom.set_title("What decides: the part of the image that is drawn worst")
        figure.legend(ncols=3, loc="outside lower left", fontsize=9)
        return as_svg(figure)


def share_intervals(rows: Sequence[AttributeRow], *, level: float) -> str:
    """Draw, for each attribute, the share missed with it less the share missed without, with its 95 % interval."""
    with mpl.rc_context(STYLE):
        figure, (axes,) = stacked_axes(1, width=8.0, height=0.34 * len(rows) + 1.1)
        for place, row in enumerate(rows):
            colour = palette.FOREIGN if row.missed(level) else palette.MUTED
            axes.plot([100 * row.shares.low, 100 * row.shares.high], [place, place], color=colour, lw=2)
            axes.plot([100 * row.shares.difference], [place], "o", color=colour, ms=5)
        axes.axvline(0, color=palette.INK, lw=0.8)
        axes.set_yticks(range(len(rows)), [f"{row.name} ({row.having})" for row in rows])
        axes.invert_yaxis()
        axes.set_xlabel("share missed with it, less share missed without (points; 95 % interval)")
        axes.set_title("Which attributes are missed (in brackets: landmarks that have it)")
        return as_svg(figure)


def missed_bars(coverages: Sequence[Coverage]) -> str:
    """Draw the share of landmarks that each model misses, the fewest on top."""
    from latlas.measurements.proportions import wilson_interval

    ranked = sorted(coverages, key=lambda one: one.missed_share)
    with mpl.rc_context(STYLE):
        figure, (axes,) = stacked_axes(1, width=8.0, height=0.42 * len(ranked) + 1.0)
        for place, one in enumerate(ranked):
            low, high = wilson_interval(int(one.missed.sum()), len(one.support))
            axes.barh(place, 100 * one.missed_share, color=palette.SUPPORT)
            axes.plot([100 * low, 100 * high], [place, place], color=palette.INK, lw=1)
            axes.annotate(f"{int(one.missed.sum())}", (100 * high, place), xytext=(6, 0), textcoords="offset points",
                          va="center", fontsize=9)  # fmt: skip
        axes.set_yticks(range(len(ranked)), [one.model for one in ranked])
        axes.invert_yaxis()
        axes.set_xlim(0, 104)
        axes.set_xlabel("landmarks missed (%; 95 % interval)")
        return as_svg(figure)
