"""How many images fix a linear map, and which, as a page."""

import math

import matplotlib as mpl
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from latlas.reports import figures, palette
from latlas.reports.page import Block, Finding, Numbers, Picture, Report, Section, Table
from latlas.studies.little_data import LEVEL, REFERENCE, RIDGES, LittleData, Ridge

_NAMES: dict[str, str] = {"none": "without a ridge", "gcv": "with a ridge by generalised cross-validation"}
_TICKS = (1.5, 2.0, 3.0, 5.0, 7.0)  # between powers of ten: further apart than their labels are high
_TIE = 0.05  # a difference below this share is told as one that does not matter


def little_data_report(study: LittleData) -> Report:
    """Return the page: the curves, where the choice of points matters, and every number."""
    return Report(
        title=f"How many images fix {study.source} → {study.target}",
        subtitle=(
            f"Linear maps fitted on few images of {study.images}, chosen in {len(study.selectors)} ways, and measured on "
            f"{study.measured} others in image space."
        ),
        summary=little_data_findings(study),
        sections=[_curves(study), _choice(study)],
        numbers=study.to_json(),
        provenance=study.provenance,
        details={"source": study.source, "target": study.target, "images": study.images, "measured on": study.test},
    )


def little_data_findings(study: LittleData) -> list[Finding]:
    """Return what a reader should take home: how many images are enough, what the ridge saves, whether the choice matters."""
    return [_enough(study), _ridge(study), *(_matters(study, ridge) for ridge in reversed(RIDGES))]


def _enough(study: LittleData) -> Finding:
    enough = study.enough("gcv")
    if enough is None:
        last = study.fit(REFERENCE, study.points[-1], "gcv")
        return Finding(
            headline=f"{last.points} random images are not enough: {_more(last.mean, study.full['gcv'])} than all {study.full_points:,}.",
            text="Give larger sizes to find out how many are.",
        )
    at = study.fit(REFERENCE, enough, "gcv")
    return Finding(
        level="good",
        headline=f"{enough} random images fix the map: {_more(at.mean, study.full['gcv'])} than all {study.full_points:,}.",
        text=f"From {enough} on, of the sizes tried, the error stays within 10 % of the map fitted on everything, with a ridge.",
    )


def _ridge(study: LittleData) -> Finding:
    fewest = study.points[0]
    bare, held = (study.fit(REFERENCE, fewest, ridge).mean for ridge in RIDGES)
    if held * (1 + _TIE) >= bare:
        return Finding(headline=f"A ridge changes little, even at {fewest} points ({bare:.3g} without, {held:.3g} with).")
    last = study.points[-1]
    bare_last, held_last = (study.fit(REFERENCE, last, ridge).mean for ridge in RIDGES)
    return Finding(
        level="note",
        headline=f"At {fewest} points the ridge matters more than the points: the error without one is {bare / held:.1f} times as large.",
        text=f"At {last} points it is {bare_last / held_last:.2f} times as large. The ridge is chosen on the same few points.",
    )


def _matters(study: LittleData, ridge: Ridge) -> Finding:
    better: dict[int, list[str]] = {}
    worse: dict[int, list[str]] = {}
    for advantage in study.advantages:
        if advantage.ridge == ridge and advantage.differs and abs(advantage.ratio - 1) > _TIE:
            sign = "−" if advantage.ratio < 1 else "+"
            words = f"{advantage.selector} {sign}{100 * abs(advantage.ratio - 1):.0f} %"
            (better if advantage.ratio < 1 else worse).setdefault(advantage.points, []).append(words)
    if study.draws < 2 or not study.advantages:
        return Finding(
            headline=f"Whether the choice of points matters {_NAMES[ridge]} cannot be told.",
            text="That needs two draws at least, and a selector beside random points.",
        )
    said = [
        f"{word} than random points: "
        + "; ".join(f"at {size} points {', '.join(names)}" for size, names in sorted(found.items()))
        + "."
        for word, found in (("Better", better), ("Worse", worse))
        if found
    ]
    silent = [size for size in study.points if size not in better]
    if not better:
        headline = f"{_capital(_NAMES[ridge])}, no way of choosing points is seen to beat random ones."
    elif silent:
        headline = (
            f"{_capital(_NAMES[ridge])}, the choice of points helps at {_listed(sorted(better))} points, "
            f"and is not seen to at {_listed(silent)}."
        )
    else:
        headline = f"{_capital(_NAMES[ridge])}, the choice of points helps at every size tried."
    return Finding(
        headline=headline,
        text=" ".join(said) + f" Told are differences above {100 * _TIE:.0f} %, at a false discovery rate of {LEVEL:g}.",
    )


def _curves(study: LittleData) -> Section:
    blocks: list[Block] = [
        Numbers(
            items=[
                (study.latent, "variables", f"a map has {study.latent + 1} unknowns for each of the target's"),
                (study.full["gcv"], "M of all images", f"{study.full_points:,} of them"),
                (study.target_R, "target R", "the target's own reconstruction: what a perfect map would give"),
                (study.draws, "draws", "each from a random half of the images"),
            ]
        ),
        Picture(
            content=_drawing(study),
            caption=(
                "Mean over draws, with bars of 2 standard errors; the sizes of the selectors are drawn a little apart. "
                "Each draw has a pool of its own, a random half of the images, so that rules without chance spread too."
            ),
            alt="Curves of the M error against the number of points, on logarithmic axes, one a selector; without and with a ridge.",
        ),
    ]
    return Section(
        title="Error against the number of images",
        lead="Points are chosen by the source's codes alone. The error is in image space: the target decodes the relocated code.",
        blocks=blocks,
    )


def _choice(study: LittleData) -> Section:
    blocks: list[Block] = []
    for ridge in reversed(RIDGES):
        rows = []
        for selector in study.selectors:
            cells: list[object] = [selector]
            for size in study.points:
                if selector == REFERENCE:
                    cells.append(f"{study.fit(selector, size, ridge).mean:.4g}")
                    continue
                found = study.advantage(selector, size, ridge)
                cells.append(f"{found.ratio:.2f}{' *' if found.differs else ''}")
            rows.append(cells)
        blocks.append(
            Table(
                columns=["selector", *(f"{size} points" for size in study.points)],
                rows=rows,
                caption=(
                    f"{_capital(_NAMES[ridge])}: the M error of random points, then that of each selector over it (geometric mean "
                    f"over {study.draws} draws). * differs from 1 (paired t test, false discovery rate {LEVEL:g} over all cells)."
                ),
            )
        )
    return Section(
        title="Does it matter which images?",
        lead="Below 1: better than as many random images from the same pool.",
        blocks=blocks,
    )


def _drawing(study: LittleData) -> str:
    colours = dict(zip(study.selectors, (palette.MUTED, *palette.SERIES), strict=False))
    with mpl.rc_context(figures.STYLE):
        figure, panels = figures.stacked_axes(2, width=8.0, height=6.4)
        for axes, ridge in zip(panels, RIDGES, strict=True):
            for place, selector in enumerate(study.selectors):
                fits = [study.fit(selector, size, ridge) for size in study.points]
                apart = 1.012 ** (place - (len(study.selectors) - 1) / 2)
                axes.errorbar(
                    [fit.points * apart for fit in fits],
                    [fit.mean for fit in fits],
                    yerr=[0.0 if math.isnan(fit.standard_error) else 2 * fit.standard_error for fit in fits],
                    color=colours[selector],
                    lw=2.4 if selector == REFERENCE else 1.4,
                    marker="o",
                    ms=3.5,
                    elinewidth=0.9,
                    label=selector if ridge == RIDGES[0] else None,
                )
            axes.axhline(study.full[ridge], color=palette.INK, lw=1, ls="--")
            axes.axhline(study.target_R, color=palette.TARGET, lw=1, ls=":")
            # Above its line at the left, below its line at the right: there the curves leave room.
            axes.annotate(
                "all images", (study.points[0], study.full[ridge]), xytext=(0, 2), textcoords="offset points", fontsize=9
            )
            axes.annotate(
                "target's own reconstruction", (study.points[-1], study.target_R), xytext=(0, -2), textcoords="offset points",
                fontsize=9, va="top", ha="right",
            )  # fmt: skip
            axes.set_xscale("log")
            axes.set_yscale("log")
            low, high = axes.get_ylim()
            axes.set_ylim(low * (low / high) ** 0.12, high)  # room for the words below the lowest line
            axes.set_xticks(study.points)
            axes.xaxis.set_major_formatter(ScalarFormatter())
            axes.yaxis.set_major_formatter(ScalarFormatter())
            axes.yaxis.set_minor_locator(LogLocator(subs=_TICKS))
            axes.yaxis.set_minor_formatter(ScalarFormatter())
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.set_ylabel("M error (squared, per pixel)")
            axes.set_title(_capital(_NAMES[ridge]))
        panels[-1].set_xlabel("images fitted on")
        figure.legend(ncols=3, loc="outside lower left", fontsize=9)
        return figures.as_svg(figure)


def _more(error: float, full: float) -> str:
    return f"{100 * (error / full - 1):.0f} % more error"


def _listed(sizes: list[int]) -> str:
    return str(sizes[0]) if len(sizes) == 1 else f"{', '.join(map(str, sizes[:-1]))} and {sizes[-1]}"


def _capital(words: str) -> str:
    return words[0].upper() + words[1:]
