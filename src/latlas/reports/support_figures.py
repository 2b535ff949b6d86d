"""Figures of sectors: how many images each holds against what is expected, and how many are inhabited over the threshold."""

import matplotlib as mpl
import numpy as np

from latlas.reports import palette
from latlas.reports.figures import STYLE, as_svg, stacked_axes
from latlas.studies.sectors import SectorStudy
from latlas.supports.unevenness import Null

NULL_NAMES: dict[Null, str] = {
    "uniform": "all sectors alike",
    "independence": "independent variables",
    "gaussian": "the fitted Gaussian",
}
_COLOURS: dict[Null, str] = {"uniform": palette.MUTED, "independence": palette.KL, "gaussian": palette.FOREIGN}
_BARS = 512  # sectors drawn, at most: beyond, every so many of them


def occupancy_chart(study: SectorStudy) -> str:
    """Draw the images in each sector, from the fullest to the emptiest, and what each expectation puts there."""
    order = study.occupancy.argsort(descending=True, stable=True)
    if len(order) > _BARS:
        order = order[:: -(-len(order) // _BARS)]
    places = np.arange(len(order))
    with mpl.rc_context(STYLE):
        figure, (axes,) = stacked_axes(1, width=8.0, height=3.0)
        axes.bar(places, study.occupancy[order].numpy(), width=1.0, color=palette.ACTIVE, alpha=0.75, label="found")
        for null, test in study.tests.items():
            values = test.expected[order].numpy()
            if null == "uniform":
                axes.axhline(float(values[0]), color=_COLOURS[null], ls="--", lw=1.2, label=NULL_NAMES[null])
            else:
                marker = "." if null == "independence" else "x"
                axes.plot(places, values, ls="", marker=marker, ms=4.5, color=_COLOURS[null], label=NULL_NAMES[null])
        axes.set_xlim(-0.5, len(order) - 0.5)
        axes.set_ylim(bottom=0)
        axes.set_xticks([])
        axes.set_xlabel("sectors, from the fullest to the emptiest")
        axes.set_ylabel("images")
        axes.set_title("Images in each sector, and how many to expect")
        figure.legend(ncols=4, loc="outside lower right", fontsize=9)
        return as_svg(figure)


def threshold_chart(study: SectorStudy) -> str:
    """Draw how many sectors are inhabited, and what share of images lies in any, over the threshold."""
    curve, level = study.curve, study.sectors.threshold
    with mpl.rc_context(STYLE):
        figure, (top, bottom) = stacked_axes(2, width=8.0, height=3.8)
        top.step(curve.thresholds, curve.inhabited, where="post", color=palette.ACTIVE, lw=1.6)
        top.set_ylim(0, curve.sectors * 1.08)
        top.set_ylabel("inhabited\nsectors")
        top.set_title("What a larger threshold costs")
        bottom.plot(curve.thresholds, 100 * np.array(curve.inside) / curve.codes, color=palette.ACTIVE, lw=1.6)
        bottom.set_ylim(0, 108)
        bottom.set_ylabel("images in\nsectors (%)")
        unit = "standard deviations of each variable" if study.sectors.scale else "units of the code"
        bottom.set_xlabel(f"threshold ({unit})")
        for axes in (top, bottom):
            axes.set_xlim(0, max(curve.thresholds[-1], level))
            axes.axvline(level, color=palette.KL, ls="--", lw=1)
        # Beside the line, on the side that has room.
        right = level < 0.6 * curve.thresholds[-1]
        top.annotate("chosen", (level, 0.1 * curve.sectors), xytext=(4 if right else -4, 0), textcoords="offset points",
                     ha="left" if right else "right", va="center", fontsize=9)  # fmt: skip
        return as_svg(figure)
