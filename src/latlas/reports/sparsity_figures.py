"""Figures of the sparsity studies: counts of collapsed variables, a course under noise, the variance law over time."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.ticker import MaxNLocator

from latlas.numerics.posteriors import ACTIVE_VARIANCE
from latlas.reports import palette
from latlas.reports.figures import STYLE, as_svg, stacked_axes
from latlas.reports.wording import percent
from latlas.training.noise_injection import NoiseEpoch

_FLOOR = 1e-5  # variances are drawn on a logarithmic scale


def collapsed_counts(
    counts: Sequence[tuple[str, str, Sequence[int]]], *, published: Sequence[tuple[str, int]], variables: int
) -> str:
    """Draw collapsed variables, one row a cell and one point a seed, beside what was published.

    Args:
        counts: (what, group that gives the colour, one number a seed).
        published: (what, collapsed) of figures published elsewhere, drawn as crosses in the row of that name.
        variables: that each net has.
    """
    labels = [label for label, _, _ in counts]
    groups = list(dict.fromkeys(group for _, group, _ in counts))
    with mpl.rc_context(STYLE):
        figure, (axes,) = stacked_axes(1, width=8.0, height=0.4 * len(counts) + 1.1)
        for row, (_, group, numbers) in enumerate(counts):
            # Seeds with one number would hide one another: they stand beside each other across the row.
            places = row + np.linspace(-0.22, 0.22, len(numbers)) if len(numbers) > 1 else [row]
            axes.scatter(numbers, places, color=palette.SERIES[groups.index(group)], s=26, zorder=3)
        for label, number in published:
            if label in labels:
                axes.scatter([number], [labels.index(label)], color=palette.INK, marker="x", s=60, zorder=4)
        axes.set_yticks(range(len(labels)), labels)
        axes.invert_yaxis()
        axes.set_xlim(-0.5, variables + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="x", color=palette.COLLAPSED, lw=0.4)
        axes.set_xlabel(f"collapsed variables of {variables}")
        axes.set_title("One point a training; the cross is published")
        return as_svg(figure)


def noise_course(epochs: Sequence[NoiseEpoch], variable: int, *, marks: Sequence[tuple[str, int]]) -> str:
    """Draw one variable under growing noise: its variances, and its gain against its KL.

    Args:
        epochs: of the course.
        variable: whose.
        marks: (what, epoch) of events.
    """
    numbers = [epoch.epoch for epoch in epochs]
    with mpl.rc_context(STYLE):
        figure, (top, bottom) = stacked_axes(2, width=8.0, height=4.8)
        for axes in (top, bottom):
            for phase, colour in (("growing", palette.KL), ("held", palette.FOREIGN)):
                inside = [epoch.epoch for epoch in epochs if epoch.phase == phase]
                if inside:
                    axes.axvspan(inside[0] - 0.5, inside[-1] + 0.5, color=colour, alpha=0.12, lw=0)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.set_yscale("log")
        beside: Any = {"fontsize": 9, "loc": "center left", "bbox_to_anchor": (1.01, 0.5)}
        means = np.maximum([epoch.variance_of_means[variable] for epoch in epochs], _FLOOR)
        top.plot(numbers, means, color=palette.ACTIVE, label="variance of means")
        posterior = [epoch.mean_posterior_variance[variable] for epoch in epochs]
        top.plot(numbers, np.maximum(posterior, _FLOOR), color=palette.TARGET, label="mean posterior variance")
        noise = [epoch.deviation**2 if epoch.deviation > 0 else np.nan for epoch in epochs]
        top.plot(numbers, noise, color=palette.MUTED, ls=":", label="variance of the noise")
        top.axhline(ACTIVE_VARIANCE, color=palette.INK, ls="--", lw=0.8)
        top.set_ylabel("variance")
        top.set_title(f"Variable {variable}: noise grows (yellow), stays (red), is gone; dashed: collapsed below")
        bottom.plot(numbers, np.maximum([e.gain_nats[variable] for e in epochs], _FLOOR), color=palette.GAIN, label="gain")
        bottom.plot(numbers, np.maximum([e.kl_nats[variable] for e in epochs], _FLOOR), color=palette.KL, label="KL")
        top.legend(**beside)
        bottom.legend(**beside)
        bottom.set_ylabel("nats")
        bottom.set_xlabel("epoch")
        bottom.set_title("What it buys and what it costs")
        for place, (name, epoch) in enumerate(marks):
            bottom.axvline(epoch, color=palette.INK, ls=":", lw=0.8)
            # Events follow each other by an epoch: names above and below in turn do not lie on each other.
            at, shift, align = (1, -2, "top") if place % 2 == 0 else (0, 2, "bottom")
            bottom.annotate(
                name, (epoch, at), xycoords=("data", "axes fraction"), xytext=(2, shift), textcoords="offset points",
                rotation=90, va=align, fontsize=8,
            )  # fmt: skip
        return as_svg(figure)


def law_over_time(courses: Sequence[tuple[str, Sequence[Sequence[float]], Sequence[bool]]]) -> str:
    """Draw the sum of every variable over the epochs, one panel a training.

    Args:
        courses: (what, sums of each variable after each epoch, whether each variable is active at the end).
    """
    with mpl.rc_context(STYLE):
        figure, panels = stacked_axes(len(courses), width=8.0, height=2.3 * len(courses) + 0.5)
        for axes, (label, sums, active) in zip(panels, courses, strict=True):
            values = np.array(sums)
            epochs = np.arange(1, len(values) + 1)
            for variable, alive in enumerate(active):
                colour = palette.ACTIVE if alive else palette.COLLAPSED
                axes.plot(epochs, values[:, variable], color=colour, lw=1.2, marker="." if len(epochs) == 1 else None)
            axes.axhline(1.0, color=palette.KL, ls="--", lw=1)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.set_ylabel("sum")
            axes.set_title(f"{label}: active variables (blue) and collapsed ones (grey)")
        panels[-1].set_xlabel("epoch")
        return as_svg(figure)


def law_by_model(models: Sequence[tuple[str, Sequence[float], Sequence[bool]]], *, bound: float) -> str:
    """Draw the sum of every variable at the end of training, one row a model.

    Args:
        models: (what, sums, whether each variable is active).
        bound: half the width of the band about 1.
    """
    with mpl.rc_context(STYLE):
        figure, (axes,) = stacked_axes(1, width=8.0, height=0.26 * len(models) + 1.2)
        axes.axvspan(1 - bound, 1 + bound, color=palette.KL, alpha=0.15, lw=0)
        axes.axvline(1.0, color=palette.KL, ls="--", lw=1)
        for row, (_, sums, active) in enumerate(models):
            for wanted, colour, offset in ((False, palette.MUTED, 0.15), (True, palette.ACTIVE, -0.15)):
                chosen = [total for total, alive in zip(sums, active, strict=True) if alive is wanted]
                axes.scatter(chosen, [row + offset] * len(chosen), color=colour, s=10, alpha=0.8, zorder=3, lw=0)
            axes.scatter([float(np.mean(sums))], [row], color=palette.INK, marker="|", s=90, zorder=4)
        axes.set_yticks(range(len(models)), [label for label, _, _ in models], fontsize=8)
        axes.invert_yaxis()
        axes.set_xlabel("variance of means + mean posterior variance")
        axes.set_title(f"Active variables (blue), collapsed ones (grey), mean of all (bar); band: within {percent(bound)} of 1")
        return as_svg(figure)
