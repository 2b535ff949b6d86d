"""Figures of maps between latent spaces: tables as heat maps, R2 by variable, the time of two routes."""

import math
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.colors import Colormap, LinearSegmentedColormap, LogNorm, Normalize

from latlas.reports import palette
from latlas.reports.figures import STYLE, as_svg, stacked_axes

_NAMED = 48  # bars that still have room for a number each
_MOST = 256  # bars drawn
_LIGHT, _DARK = "#eef4f9", "#0b3b5c"  # ends of the scale; they are grounds of cells and do not follow the page's theme
_ON_LIGHT, _ON_DARK = "#10161d", "#ffffff"


def heat_map(
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Sequence[float | None]],
    *,
    title: str,
    low: float,
    high: float,
    logarithmic: bool = False,
    low_is_dark: bool = False,
) -> str:
    """Draw a table of numbers as coloured cells with the numbers in them; undefined ones have no ground, and a dash.

    Args:
        rows: their labels: the sources.
        columns: their labels: the targets.
        values: one row after the other.
        title: what the numbers are, and which end is the better.
        low: value at one end of the colours.
        high: at the other.
        logarithmic: whether equal ratios are equal steps of colour; needs values above 0.
        low_is_dark: whether low values are the dark ones.
    """
    scale = LinearSegmentedColormap.from_list("house", [_LIGHT, palette.SOURCE, palette.RELOCATED, _DARK])
    colours: Colormap = scale.reversed() if low_is_dark else scale
    norm = LogNorm(low, high, clip=True) if logarithmic else Normalize(low, high, clip=True)
    # A letter takes about 0.08 inches; columns carry theirs slanted where they would run into each other.
    beside = 0.08 * max(map(len, rows)) + 0.6
    width = min(8.0, beside + max(1.0 * len(columns), 0.085 * len(title)))
    slanted = max(map(len, columns)) > 9
    height = 0.62 * len(rows) + (1.6 if slanted else 1.1)
    with mpl.rc_context(STYLE):
        figure, (axes,) = stacked_axes(1, width=width, height=height)
        for y, line in enumerate(values):
            for x, value in enumerate(line):
                if value is None or not math.isfinite(value):
                    axes.annotate("–", (x, y), ha="center", va="center", color=palette.MUTED)
                    continue
                red, green, blue, _ = ground = colours(norm(value))
                axes.add_patch(mpl.patches.Rectangle((x - 0.47, y - 0.47), 0.94, 0.94, facecolor=ground, lw=0))
                bright = 0.2126 * red + 0.7152 * green + 0.0722 * blue
                axes.annotate(
                    _short(value), (x, y), ha="center", va="center", color=_ON_LIGHT if bright > 0.45 else _ON_DARK, fontsize=10
                )
        axes.set_xlim(-0.5, len(columns) - 0.5)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xticks(range(len(columns)), columns, rotation=30 if slanted else 0, ha="right" if slanted else "center")
        axes.set_yticks(range(len(rows)), rows)
        axes.tick_params(length=0)
        axes.spines[["left", "bottom"]].set_visible(False)
        axes.set_xlabel("target")
        axes.set_ylabel("source")
        axes.set_title(title)
        return as_svg(figure)


def r2_bars(r2: Sequence[float | None], *, what: str = "variable") -> str:
    """Draw R2 of each target variable, best first; a negative one ends at 0, one that is undefined is left out."""
    known = sorted(((value, place) for place, value in enumerate(r2) if value is not None), reverse=True)[:_MOST]
    names = [str(place) for _, place in known]
    values = np.clip([value for value, _ in known], 0.0, 1.0)
    with mpl.rc_context(STYLE):
        figure, (axes,) = stacked_axes(1, width=8.0, height=2.6)
        axes.bar(np.arange(len(known)), values, color=palette.RELOCATED, width=0.8 if len(known) <= _NAMED else 1.0)
        if len(known) <= _NAMED:
            axes.set_xticks(np.arange(len(known)), names, fontsize=8)
        axes.set_xlim(-0.7, max(len(known), 1) - 0.3)
        axes.set_ylim(0.0, 1.0)
        axes.set_xlabel(f"target {what}, best first" if len(known) <= _NAMED else f"{len(known)} target {what}s, best first")
        axes.set_ylabel("R2 on test images")
        axes.set_title(f"How much of each target {what} the map predicts")
        return as_svg(figure)


def route_times(routes: Sequence[tuple[str, Sequence[tuple[str, float, str]]]], *, images: int) -> str:
    """Draw routes as bars of steps laid end to end: (route, [(step, seconds, colour), ...])."""
    with mpl.rc_context(STYLE):
        figure, (axes,) = stacked_axes(1, width=8.0, height=0.5 * len(routes) + 1.1)
        named: set[str] = set()
        for place, (_, steps) in enumerate(routes):
            start = 0.0
            for step, seconds, colour in steps:
                label = step if step not in named else None
                axes.barh(place, 1000 * seconds, left=1000 * start, color=colour, label=label, height=0.6)
                named.add(step)
                start += seconds
            axes.annotate(
                f"{1000 * start:.3g} ms",
                (1000 * start, place),
                xytext=(6, 0),
                textcoords="offset points",
                va="center",
                fontsize=9,
            )
        axes.set_yticks(range(len(routes)), [name for name, _ in routes])
        axes.invert_yaxis()
        axes.set_xlim(0, 1.16 * max(1000 * sum(seconds for _, seconds, _ in steps) for _, steps in routes))
        axes.set_xlabel(f"milliseconds for {images} images")
        axes.set_title("The time of the two routes, step by step")
        figure.legend(ncols=4, loc="outside lower left", fontsize=9)
        return as_svg(figure)


def _short(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.1e}"
