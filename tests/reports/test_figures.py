"""Drawings: what coincides is still seen."""

import re

from latlas.reports import figures


def test_of_groups_whose_p_values_coincide_every_line_is_seen() -> None:
    colours = ("#112233", "#445566", "#778899")
    drawing = figures.p_value_steps([(colour, [0.01, 0.02, 0.5], colour) for colour in colours], level=0.05)
    strokes = re.findall(r"stroke: (#(?:112233|445566|778899)); stroke-width: ([0-9.]+)", drawing)
    steps = [(colour, float(width)) for colour, width in strokes[: len(colours)]]  # the others are the legend's
    assert [colour for colour, _ in steps] == list(colours)  # from the ground up
    widths = [width for _, width in steps]
    assert widths == sorted(widths, reverse=True)
    assert len(set(widths)) == len(widths)
