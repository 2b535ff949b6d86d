"""Colours of classes: ten, for digits; further classes begin again. Where the class matters, its number stands beside."""

from latlas.reports import palette

COLOURS = (*palette.SERIES, "#882255", "#117733", "#999933", "#6e7781")


def colour_of(label: int) -> str:
    """Return the colour of a class.

    >>> colour_of(0) == colour_of(10)
    True
    """
    return COLOURS[label % len(COLOURS)]
