"""Figures as SVG text: drawn without global state, with the page's own text colour, the same bytes every time."""

import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

from latlas.reports import palette

_BORDER = 3  # points between a title and the edge of a drawing
_ROUNDS = 4  # of layout

STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: selectable, and drawn in the page's font
    "svg.hashsalt": "latlas",  # the same ids every time
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": palette.INK,
    "axes.labelcolor": palette.INK,
    "axes.titlecolor": palette.INK,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "xtick.color": palette.INK,
    "ytick.color": palette.INK,
    "text.color": palette.INK,
    "legend.frameon": False,
}


def gain_and_kl(table: Sequence[Mapping[str, Any]], *, most: int = 64) -> str:
    """Draw gain and KL of each latent variable, in the order of gain; collapsed ones in grey."""
    rows = sorted(table, key=lambda row: -row["gain"])[:most]
    names = [str(row["variable"]) for row in rows]
    colours = [palette.GAIN if row["verdict"] == "active" else palette.COLLAPSED for row in rows]
    costs = [row["kl_nats"] for row in rows]
    deterministic = all(cost is None for cost in costs)  # an encoder without posteriors costs nothing that could be drawn
    with mpl.rc_context(STYLE):
        figure, panels = stacked_axes(1 if deterministic else 2, width=8.0, height=2.4 if deterministic else 4.2)
        top = panels[0]
        errors = [0.0 if row["gain_standard_error"] is None else 2 * row["gain_standard_error"] for row in rows]
        top.bar(names, [row["gain"] for row in rows], color=colours, yerr=errors, ecolor=palette.INK, error_kw={"lw": 0.8})
        top.set_ylabel("gain\n(squared error\nper pixel)")
        top.set_title("What each variable buys: growth of the error when it is set to 0 (bars: 2 standard errors)")
        for bottom in panels[1:]:
            kl_colours = [palette.KL if row["verdict"] == "active" else palette.COLLAPSED for row in rows]
            bottom.bar(names, [cost or 0.0 for cost in costs], color=kl_colours)
            bottom.set_ylabel("KL (nats)")
            bottom.set_title("What it costs: mean KL divergence from the prior")
        panels[-1].set_xlabel("latent variable, by gain")
        return as_svg(figure)


def evolution(history: Sequence[Mapping[str, Any]], *, threshold: float) -> str:
    """Draw the variance of means of every variable over the epochs, on a logarithmic scale."""
    values = np.array([epoch["variance_of_means"] for epoch in history])
    epochs = [epoch["epoch"] for epoch in history]
    with mpl.rc_context(STYLE):
        figure, (axes,) = stacked_axes(1, width=8.0, height=2.9)
        for variable in range(values.shape[1]):
            alive = values[-1, variable] > threshold
            colour = palette.ACTIVE if alive else palette.COLLAPSED
            axes.plot(
                epochs, np.maximum(values[:, variable], 1e-7), color=colour, lw=1.4, marker="." if len(epochs) == 1 else None
            )
        axes.axhline(threshold, color=palette.KL, ls="--", lw=1)
        axes.annotate("active above this", (epochs[-1], threshold), ha="right", va="bottom", fontsize=9, color=palette.INK)
        axes.set_yscale("log")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epoch")
        axes.set_ylabel("variance of means")
        axes.set_title("Variables that live and variables that collapse, during training")
        return as_svg(figure)


def variance_law(table: Sequence[Mapping[str, Any]]) -> str:
    """Draw variance of means and mean posterior variance of each variable, stacked, against their sum of 1."""
    names = [str(row["variable"]) for row in table]
    means = np.array([row["variance_of_means"] for row in table])
    posterior = np.array([row["mean_posterior_variance"] for row in table])
    with mpl.rc_context(STYLE):
        figure, (axes,) = stacked_axes(1, width=8.0, height=2.8)
        axes.bar(names, means, color=palette.ACTIVE, label="variance of means")
        axes.bar(names, posterior, bottom=means, color=palette.COLLAPSED, label="mean posterior variance")
        axes.axhline(1.0, color=palette.KL, ls="--", lw=1)
        axes.set_xlabel("latent variable")
        axes.set_ylabel("variance")
        axes.set_title("The variance law: the two parts sum to 1 (dashed) where the scale of the code is stationary")
        figure.legend(ncols=2, loc="outside lower right", fontsize=9)
        return as_svg(figure)


def error_bars(bars: Sequence[tuple[str, float, float, str]], *, title: str, unit: str) -> str:
    """Draw horizontal bars: (label, value, standard error, colour), first on top; an error that is NaN is not drawn."""
    bars = [(label, value, 0.0 if math.isnan(error) else error, colour) for label, value, error, colour in bars]
    with mpl.rc_context(STYLE):
        figure, (axes,) = stacked_axes(1, width=8.0, height=0.42 * len(bars) + 0.9)
        labels = [label for label, *_ in bars]
        values = [value for _, value, _, _ in bars]
        axes.barh(labels, values, color=[colour for *_, colour in bars], xerr=[2 * error for _, _, error, _ in bars],
                  ecolor=palette.INK, error_kw={"lw": 0.8})  # fmt: skip
        ends = [value + 2 * error for _, value, error, _ in bars]
        for place, (value, end) in enumerate(zip(values, ends, strict=True)):
            axes.annotate(f"{value:.4g}", (end, place), xytext=(6, 0), textcoords="offset points", va="center", fontsize=9)
        axes.invert_yaxis()
        axes.set_xlim(0, max(ends) * 1.14)
        axes.set_xlabel(unit)
        axes.set_title(title)
        return as_svg(figure)


def few_points(full: float, support: float, random: Sequence[float], *, points: int) -> str:
    """Draw the M error of maps from a Support Set and from random sets of its size, against the map from everything."""
    with mpl.rc_context(STYLE):
        figure, (axes,) = stacked_axes(1, width=8.0, height=1.5)
        axes.axvline(full, color=palette.RELOCATED, lw=1.5)
        axes.annotate("fitted on everything", (full, 1.25), xytext=(4, 0), textcoords="offset points", fontsize=9, va="center")
        axes.scatter(random, np.zeros(len(random)), color=palette.MUTED, s=28, alpha=0.8, label=f"{len(random)} random sets")
        axes.scatter([support], [0.5], color=palette.SUPPORT, s=60, marker="D", label="Support Set", zorder=3)
        axes.set_yticks([0.0, 0.5], [f"random, {points} points", f"Support Set, {points} points"])
        axes.set_ylim(-0.4, 1.5)
        axes.set_xlabel("M error (squared error per pixel on test images)")
        return as_svg(figure)


def error_histogram(groups: Sequence[tuple[str, Sequence[float], str]], *, threshold: float | None, level: float) -> str:
    """Draw the inversion errors of several groups of images (label, errors, colour) on one logarithmic scale.

    Beyond the threshold, where there is one, images are rejected at the level.
    """
    floor = 1e-9
    everything = np.maximum(np.concatenate([np.asarray(errors) for _, errors, _ in groups]), floor)
    bins = np.geomspace(everything.min() * 0.9, everything.max() * 1.1, 60).tolist()
    with mpl.rc_context(STYLE):
        figure, (axes,) = stacked_axes(1, width=8.0, height=3.1)
        for label, errors, colour in groups:
            weights = np.full(len(errors), 1.0 / len(errors))
            axes.hist(np.maximum(errors, floor), bins=bins, weights=weights, color=colour, alpha=0.65, label=label)
        if threshold is not None:
            axes.axvline(threshold, color=palette.INK, ls="--", lw=1)
            axes.annotate(f"rejected at {100 * level:g} % beyond", (threshold, axes.get_ylim()[1]), xytext=(4, -4), textcoords="offset points",
                          va="top", fontsize=9)  # fmt: skip
        axes.set_xscale("log")
        axes.set_xlabel("error after inversion (squared, per pixel)")
        axes.set_ylabel("share of images")
        axes.set_title("How closely the decoder comes to each image")
        figure.legend(ncols=len(groups), loc="outside lower left", fontsize=9)
        return as_svg(figure)


def p_value_steps(groups: Sequence[tuple[str, Sequence[float], str]], *, level: float) -> str:
    """Draw the distribution function of p-values of several groups; images in range follow the diagonal."""
    with mpl.rc_context(STYLE):
        figure, (axes,) = stacked_axes(1, width=4.2, height=3.2)
        axes.plot([0, 1], [0, 1], color=palette.MUTED, lw=1, ls=":")
        for place, (label, values, colour) in enumerate(groups):
            wider = 0.9 * (len(groups) - 1 - place)  # of groups whose lines coincide each is seen
            ordered = np.sort(np.asarray(values))
            axes.step(np.concatenate([[0.0], ordered, [1.0]]), np.concatenate([[0.0], np.arange(1, len(ordered) + 1) / len(ordered), [1.0]]),
                      where="post", color=colour, label=label, lw=1.6 + wider)  # fmt: skip
        axes.axvline(level, color=palette.INK, ls="--", lw=0.8)
        axes.set_xlabel("p-value")
        axes.set_ylabel("share of images at or below it")
        axes.set_title("In range: along the diagonal")
        axes.legend(loc="lower right", fontsize=9)
        return as_svg(figure)


def variance_loss_scatter(
    points: Sequence[tuple[str, str, float, float]],
    *,
    slope: float,
    low: float,
    high: float,
    marks: Sequence[tuple[str, float, float]] = (),
) -> str:
    """Draw variance loss against squared error: (family, data, error, variance loss), coloured by family, shaped by data.

    Args:
        points: one a training.
        slope: of the line through the origin; the dashed diagonal is equality.
        low: of its 95 % interval.
        high: of its 95 % interval.
        marks: (label, error, variance loss) of figures published elsewhere.
    """
    families = list(dict.fromkeys(family for family, *_ in points))
    sets = list(dict.fromkeys(data for _, data, *_ in points))
    most = 1.08 * max(max(error, loss) for _, _, error, loss in points)
    with mpl.rc_context(STYLE):
        figure, (axes,) = stacked_axes(1, width=6.6, height=4.6)
        ends = np.array([0.0, most])
        axes.plot(ends, ends, color=palette.MUTED, ls="--", lw=1, label="equal")
        axes.plot(ends, slope * ends, color=palette.INK, lw=1.2, label=f"slope {slope:.3f} ({low:.3f} to {high:.3f})")
        axes.fill_between(ends, low * ends, high * ends, color=palette.MUTED, alpha=0.2, lw=0)
        for family, colour in zip(families, palette.SERIES, strict=False):
            for data, marker in zip(sets, "os^D", strict=False):
                chosen = [(error, loss) for f, d, error, loss in points if (f, d) == (family, data)]
                if chosen:
                    axes.scatter(
                        [error for error, _ in chosen],
                        [loss for _, loss in chosen],
                        color=colour,
                        marker=marker,
                        s=34,
                        label=f"{family}, {data}",
                        zorder=3,
                    )
        for label, error, loss in marks:
            axes.scatter([error], [loss], color=palette.INK, marker="x", s=50, zorder=4)
            axes.annotate(label, (error, loss), xytext=(-6, 6), textcoords="offset points", fontsize=9, ha="right")
        axes.set_xlim(0, most)
        axes.set_ylim(0, most)
        axes.set_xlabel("squared error per pixel")
        axes.set_ylabel("variance loss per pixel")
        axes.set_title("Variance lost, against squared error")
        figure.legend(loc="outside right upper", fontsize=8)
        return as_svg(figure)


def stacked_axes(rows: int, *, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """Return a figure, in inches, and its axes from top to bottom; to be used within `rc_context(STYLE)`."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    grid = figure.subplots(rows, 1, squeeze=False)
    return figure, [grid[row, 0] for row in range(rows)]


def as_svg(figure: Figure) -> str:
    """Return the drawing alone, to stand inside a page, with titles that end within it."""
    _keep_titles_whole(figure)
    stream = io.StringIO()
    figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    # Only the drawing itself can stand inside a page, and its ink takes the page's text colour.
    return text[text.index("<svg") :].replace(palette.INK, "currentColor")


def _keep_titles_whole(figure: Figure) -> None:
    """Break titles that are wider than the figure, and move to the left those that end beyond it; the layout does neither."""
    for _ in range(_ROUNDS):  # each time the layout follows the titles a little
        figure.draw_without_rendering()
        changed = [_made_whole(title, axes, figure.bbox.width) for axes in figure.axes for title in _titles(axes)]
        if not any(changed):
            return


def _titles(axes: Axes) -> list[Text]:
    words = axes.get_title(loc="left")
    return [part for part in axes.get_children() if words and isinstance(part, Text) and part.get_text() == words]


def _made_whole(title: Text, axes: Axes, width: float) -> bool:
    """Return whether anything had to be done."""
    extent, whole = title.get_window_extent(), width - 2 * _BORDER
    if extent.width > whole:
        longest = max(map(len, title.get_text().split("\n")))
        title.set_text(textwrap.fill(" ".join(title.get_text().split()), int(longest * whole / extent.width)))
        return True
    shift = max(min(width - _BORDER - extent.x1, 0.0), _BORDER - extent.x0)
    if abs(shift) < 0.5:
        return False
    title.set_x(title.get_position()[0] + shift / axes.bbox.width)
    return True
