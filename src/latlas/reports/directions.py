"""A direction carried from one latent space to another, as a page."""

import math

import matplotlib as mpl

from latlas.reports import figures, palette, pictures
from latlas.reports.page import Block, Finding, Numbers, Picture, Report, Section, Table
from latlas.studies.directions import EDITS, DirectionStudy

_PICTURE_WIDTH = 700  # pixels that a strip is enlarged to, about
_UNSURE = 0.8  # balanced accuracy on reconstructions below which a judge's shares say little
_COLOURS = (palette.SOURCE, palette.RELOCATED, palette.TARGET, palette.MUTED)
_ROWS = ("source's own", "carried", "target's own")
_OWN_SOURCE, _CARRIED, _OWN, _CHANCE = EDITS


def direction_report(study: DirectionStudy) -> Report:
    """Return the page: the picture strips, who succeeds how often, and how the directions lie to each other."""
    return Report(
        title=f"“{study.attribute}”, carried from {study.source} to {study.target}",
        subtitle=(
            f"A direction found in the codes of {study.source} ({_method(study)}), carried by the linear part of a map that "
            f"knows nothing of the attribute, and applied to codes of {study.target}."
        ),
        summary=direction_findings(study),
        sections=[_pictures(study), _success(study), _geometry(study)],
        numbers=study.to_json(),
        provenance=study.provenance,
        details={"source": study.source, "target": study.target, "images": study.images, "measured on": study.test},
    )


def direction_findings(study: DirectionStudy) -> list[Finding]:
    """Return what a reader should take home: does the carried edit work, is it the target's own, can the judge be trusted."""
    carried, own, source, chance = (study.success(name) for name in (_CARRIED, _OWN, _OWN_SOURCE, _CHANCE))
    longest = study.steps[-1]
    travels = carried[0] >= 0.8 * own[0] and carried[0] > 1.5 * chance[0]
    found = [
        Finding(
            level="good" if travels else "note",
            headline=(
                f"The carried edit turns {_share(carried[0])} of images {study.without_name} into images "
                f"{study.with_name}, the target's own edit {_share(own[0])}."
            ),
            text=(
                f"At {longest} steps. In the source the same edit reaches {_share(source[0])}; random directions of the same "
                f"length {_share(chance[0])}. The other way, {-study.steps[0]} steps back: carried {_share(carried[1])}, the "
                f"target's own {_share(own[1])}, random {_share(chance[1])}."
            ),
        ),
        Finding(
            level="good" if study.cosine > 0.9 * study.halves_cosine else "note",
            headline=f"The carried direction and the target's own have a cosine of {study.cosine:.3f}.",
            text=(
                f"Found on two halves of the images, the target's own directions have {_number(study.halves_cosine)}; a random "
                f"direction has {study.random_cosine:.3f}."
            ),
        ),
    ]
    poor = [f"{share:.2f} of {name}" for name, share in _judged(study) if share < _UNSURE]
    if poor:
        found.append(
            Finding(
                level="warning",
                headline=f"The judge tells the attribute poorly: a balanced accuracy of {', of '.join(poor)}.",
                text=(
                    "Where the images themselves are told well and reconstructions are not, the model loses the attribute, and "
                    "no edit of its codes can show it. Train longer, or with a larger latent space."
                ),
            )
        )
    return found


def _pictures(study: DirectionStudy) -> Section:
    blocks: list[Block] = []
    for name, strips in study.strips.items():
        if len(strips):
            count = len(strips) // (len(_ROWS) * len(study.steps))
            side = strips.shape[3] * len(study.steps)
            blocks.append(
                Picture(
                    content=pictures.grid(
                        strips.clamp(0, 1), columns=len(study.steps), enlarge=max(1, round(_PICTURE_WIDTH / side))
                    ),
                    caption=(
                        f"Test images {name}, {study.steps[0]} to {study.steps[-1]} steps; the middle column is the "
                        "reconstruction. A step is one standard deviation of the codes along the direction."
                    ),
                    alt=f"Images {name}, edited step by step along three directions.",
                    row_labels=_ROWS * count,
                )
            )
    return Section(
        title="The edit, step by step",
        lead="For each image: the source's own edit of its own code; the carried edit of the target's code; the target's own edit.",
        blocks=blocks,
    )


def _success(study: DirectionStudy) -> Section:
    having, without = study.edited
    rows = [
        [edit.name, edit.added[-1], _error(edit.added[-1], without), edit.removed[0], _error(edit.removed[0], having)]
        for edit in study.edits
    ]
    unmoved = study.steps.index(0)
    target = next(edit for edit in study.edits if edit.name == _OWN)
    rows.append(["no edit (target)", target.added[unmoved], None, target.removed[unmoved], None])
    return Section(
        title="How often the edit succeeds",
        lead=f"Judged by {study.judge.name}, which saw neither model.",
        blocks=[
            Picture(
                content=_drawing(study),
                caption=(
                    "At 0 steps stands what the judge says of reconstructions. Random directions move codes as far as the "
                    "carried one does."
                ),
                alt="Two panels of curves: the share of images judged changed against the steps of each edit.",
            ),
            Table(
                columns=("edit", f"{study.without_name} → {study.with_name}", "standard error", f"{study.with_name} → {study.without_name}",
                         "standard error"),
                rows=rows,
                caption=f"Shares of {without} and of {having} test images, at {study.steps[-1]} steps.",
            ),
            Table(
                columns=("judged", "balanced accuracy"),
                rows=[[name, share] for name, share in _judged(study)],
                caption="How far the judge can be trusted. 0.5 is chance, where it chooses between two.",
            ),
        ],
    )  # fmt: skip


def _geometry(study: DirectionStudy) -> Section:
    names = {
        "source": "source's own, in the source",
        "carried": "carried, in the target",
        "target": "target's own",
        "random": "random, in the target",
    }
    return Section(
        title="How the directions lie",
        lead="The direction is carried by the linear part of the map alone; the map's shift does not move it.",
        blocks=[
            Numbers(
                items=[
                    (study.cosine, "cosine", "carried with the target's own"),
                    (study.halves_cosine, "between halves", "the target's own, found twice"),
                    (study.random_cosine, "random", "size of the cosine, on average"),
                    (study.step_ratio, "length of a step", "carried over the target's own"),
                ]
            ),
            Table(
                columns=("direction", "balanced accuracy"),
                rows=[[words, study.accuracy[name]] for name, words in names.items()],
                caption=(
                    f"Telling {study.tested[0]} test images {study.with_name} from {study.tested[1]} {study.without_name} by "
                    f"the position of their codes along a direction found on {study.found_on[0]} and {study.found_on[1]}."
                ),
            ),
        ],
    )


def _drawing(study: DirectionStudy) -> str:
    with mpl.rc_context(figures.STYLE):
        figure, panels = figures.stacked_axes(2, width=8.0, height=5.6)
        for axes, kind, words in zip(panels, ("added", "removed"), (study.without_name, study.with_name), strict=True):
            for edit, colour in zip(study.edits, _COLOURS, strict=True):
                shares = edit.added if kind == "added" else edit.removed
                count = study.edited[1] if kind == "added" else study.edited[0]
                axes.errorbar(
                    study.steps,
                    shares,
                    yerr=[2 * _error(share, count) for share in shares],
                    color=colour,
                    marker="o",
                    ms=3.5,
                    lw=1.6,
                    elinewidth=0.9,
                    ls="--" if edit.name == _CHANCE else "-",
                    label=edit.name if kind == "added" else None,
                )
            other = study.with_name if kind == "added" else study.without_name
            axes.set_title(f"Test images {words}: share judged {other}")
            axes.set_ylim(-0.04, 1.04)
            axes.set_ylabel("share")
        panels[-1].set_xlabel("steps along the direction (bars: 2 standard errors)")
        figure.legend(ncols=2, loc="outside lower left", fontsize=9)
        return figures.as_svg(figure)


def _judged(study: DirectionStudy) -> list[tuple[str, float]]:
    judge = study.judge
    return [
        ("test images", judge.real),
        (f"reconstructions of {study.source}", judge.source),
        (f"reconstructions of {study.target}", judge.target),
    ]


def _error(share: float, count: int) -> float:
    # Of a share of 0 or 1 the plain formula says 0, as if that were certain: Laplace's estimate stands in for it.
    likely = (share * count + 1) / (count + 2)
    return math.sqrt(likely * (1 - likely) / count)


def _share(share: float) -> str:
    return f"{100 * share:.0f} %"


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


def _method(study: DirectionStudy) -> str:
    return {"difference": "difference of means", "logistic": "logistic probe"}[study.method]
