"""Posteriors of a few images on their way through a two-dimensional latent space, as a page and as an animation."""

import base64
import io
from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Circle
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from latlas.base.artifacts import writing
from latlas.reports import palette
from latlas.reports.classes import colour_of
from latlas.reports.figures import STYLE, as_svg, stacked_axes
from latlas.reports.page import HTML, Finding, Numbers, Picture, Report, Section, Table, write_files
from latlas.studies.trajectories import TrajectoryStudy

ANIMATION = "trajectories.gif"
_SIDE, _FINER = 480, 3  # pixels of a frame, and how much finer it is drawn
_MARGIN = 1.08  # of the window beyond the farthest circle
_SHOWN = 60  # ms a frame
_HELD = 2500  # ms of the last
_WHITE = 248  # from which a colour's three parts are taken for the ground
_EACH = 2  # moments from one circle of the still picture to the next
_TAIL = 12  # earlier moments that a frame shows, fading


def write_trajectories(study: TrajectoryStudy, folder: str | Path, *, replace: bool = False) -> Path:
    """Write the page with its animation as an artifact folder; return the page's path.

    Raises:
        OutputExistsError: the folder already holds something.
    """
    with writing(folder, replace=replace) as beside:
        moving = trajectory_animation(study)
        (beside / ANIMATION).write_bytes(moving)
        write_files(trajectories_report(study, animation=moving), beside)
    return Path(folder) / HTML


def trajectories_report(study: TrajectoryStudy, *, animation: bytes | None = None) -> Report:
    """Return the page of a study: the first epoch, still and moving, and the images after the last epoch.

    Args:
        study: what was found.
        animation: of `trajectory_animation`; None to draw it now.
    """
    sizes = study.over_epochs
    return Report(
        title="Trajectories in the latent space",
        subtitle="A two-dimensional latent space as it is learnt: where posteriors go, and how they shrink.",
        summary=trajectories_findings(study),
        sections=[
            Section(
                title="The first epoch",
                lead=f"{len(study.labels)} images, one of each class, at {len(study.first.steps)} moments.",
                blocks=[
                    Picture(
                        content=trajectory_figure(study),
                        caption="Circles fade in with time; the area of each is the variance of the posterior. The number is the class.",
                        alt="Large circles about the origin shrink to points that part in all directions.",
                    ),
                    Picture(
                        content=moving_picture(trajectory_animation(study) if animation is None else animation),
                        caption="The same, moving. Where the system asks for less motion, the last moment stands still.",
                        alt="Animation: circles shrink and drift apart within the first epoch.",
                    ),
                ],
            ),
            Section(
                title="Later",
                lead=f"{len(study.later_labels)} images after {study.epochs} epochs.",
                blocks=[
                    Picture(
                        content=later_figure(study),
                        caption="Position and size of posteriors after the last epoch; dashed: two deviations of the prior.",
                        alt="Small circles spread about the origin, nearby ones often of one class.",
                    ),
                    Numbers(items=[(sizes[-1], "posterior variance", "geometric mean, at the end")]),
                    Table(
                        columns=("epoch", "posterior variance", "variance of means 0", "variance of means 1", "KL, nats"),
                        rows=[
                            [record.epoch, size, *record.variance_of_means, sum(record.kl_nats)]
                            for record, size in zip(study.health, sizes, strict=True)
                        ],
                        caption="Posterior variance: of the images drawn; the rest over up to 2,000 images.",
                    ),
                ],
            ),
        ],
        numbers=study.to_json(),
        provenance=study.provenance,
        details={"images": study.images, "epochs": str(study.epochs)},
    )


def trajectories_findings(study: TrajectoryStudy) -> list[Finding]:
    """Return what is to be heard of a study."""
    sizes = study.over_epochs
    fell = study.after_first_epoch < 0.5 * study.start
    falls_on = all(later < earlier for earlier, later in pairwise(sizes))
    findings = [
        Finding(
            level="good" if fell else "note",
            headline=f"Posteriors start at a variance of {study.start:.2f} and are at {study.after_first_epoch:.3g} after one epoch.",
            text="Variance: geometric mean of both variables, mean over the images followed.",
        )
    ]
    if len(sizes) > 1:
        findings.append(
            Finding(
                level="good" if falls_on else "note",
                headline=f"After {study.epochs} epochs it is {sizes[-1]:.3g}, from {sizes[0]:.3g} after the first.",
                text="It fell in every epoch." if falls_on else "It did not fall in every epoch; the table tells when.",
            )
        )
    return findings


def trajectory_figure(study: TrajectoryStudy) -> str:
    """Return the first epoch as a drawing: circles that fade in with time."""
    means, radii = study.first.mean, study.first.squared_radius().sqrt()
    with mpl.rc_context(STYLE):
        figure, (axes,) = stacked_axes(1, width=6.4, height=6.4)
        frames = len(means)
        for frame in range((frames - 1) % _EACH, frames, _EACH):
            share = (frame + 1) / frames
            for place, label in enumerate(study.labels.tolist()):
                _circle(axes, means[frame, place], float(radii[frame, place]), colour_of(label), 0.03 + 0.6 * share**3)
        for place, label in enumerate(study.labels.tolist()):
            axes.plot(means[:, place, 0], means[:, place, 1], color=colour_of(label), lw=0.7, alpha=0.6)
            axes.annotate(
                str(label),
                (float(means[-1, place, 0]), float(means[-1, place, 1])),
                xytext=(6, 6),
                textcoords="offset points",
                color=palette.INK,
                fontweight="bold",
            )
        _window(axes, _square_around(means, radii))
        axes.set_title("Through the first epoch, one image of each class")
        return as_svg(figure)


def later_figure(study: TrajectoryStudy) -> str:
    """Return the images after the last epoch as a drawing."""
    means, radii = study.later.mean[-1], study.later.squared_radius()[-1].sqrt()
    with mpl.rc_context(STYLE):
        figure, (axes,) = stacked_axes(1, width=6.4, height=6.4)
        axes.add_patch(Circle((0.0, 0.0), 2.0, fill=False, ls="--", lw=0.8, ec=palette.MUTED))
        for place, label in enumerate(study.later_labels.tolist()):
            _circle(axes, means[place], float(radii[place]), colour_of(label), 0.5)
            axes.annotate(
                str(label),
                (float(means[place, 0]), float(means[place, 1])),
                xytext=(4, 4),
                textcoords="offset points",
                fontsize=8,
                color=palette.INK,
            )
        x, y, half = _square_around(means, radii)
        reach = max(half + max(abs(x), abs(y)), 2.0 * _MARGIN)  # the prior's circle is whole, and in the middle
        _window(axes, (0.0, 0.0, reach))
        axes.set_title(f"After {study.epochs} {'epoch' if study.epochs == 1 else 'epochs'}")
        return as_svg(figure)


def trajectory_animation(study: TrajectoryStudy) -> bytes:
    """Return the first epoch as an animated GIF that plays over and over, on white."""
    frames = [_frame(study, frame) for frame in range(len(study.first.steps))]
    # One set of colours for all frames, taken from the one that shows most: colours that flicker would look like motion.
    colours = frames[-1].quantize(64, dither=Image.Dither.NONE)
    entries = colours.getpalette()
    assert entries is not None
    for start in range(0, len(entries), 3):
        if min(entries[start : start + 3]) >= _WHITE:  # a mixture of near whites, which would stand out from the page
            entries[start : start + 3] = [255, 255, 255]
    colours.putpalette(entries)
    first, *rest = [frame.quantize(palette=colours, dither=Image.Dither.NONE) for frame in frames]
    stream = io.BytesIO()
    first.save(
        stream,
        format="GIF",
        save_all=True,
        append_images=rest,
        duration=[_SHOWN] * len(rest) + [_HELD],
        loop=0,
        optimize=True,
    )
    return stream.getvalue()


def moving_picture(animation: bytes) -> str:
    """Return a drawing that shows an animation, or its last frame where the system asks for less motion, with a way to play it."""
    with Image.open(io.BytesIO(animation)) as opened:
        opened.seek(getattr(opened, "n_frames", 1) - 1)
        width, height = opened.size
        stream = io.BytesIO()
        opened.convert("RGB").save(stream, format="PNG", optimize=True)
    still, moving = (base64.b64encode(content).decode() for content in (stream.getvalue(), animation))
    place = f'width="{width}" height="{height}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="motion" viewBox="0 0 {width} {height}" {place}>'
        "<style>.motion .still, .motion a { display: none } @media (prefers-reduced-motion: reduce) "
        "{ .motion .still, .motion a { display: inline } .motion .moving { display: none } }</style>"
        f'<image class="still" {place} href="data:image/png;base64,{still}"/>'
        f'<image class="moving" {place} href="data:image/gif;base64,{moving}"/>'
        f'<a href="{ANIMATION}"><text x="{width - 12}" y="{height - 12}" text-anchor="end" font-size="16" '
        'font-family="sans-serif" fill="#0072b2">Play</text></a></svg>'
    )


def _frame(study: TrajectoryStudy, frame: int) -> Image.Image:
    means, radii = study.first.mean, study.first.squared_radius().sqrt()
    (x0, y0, half), side = _square_around(means, radii), _SIDE * _FINER
    canvas = Image.new("RGB", (side, side), "#ffffff")
    pen = ImageDraw.Draw(canvas, "RGBA")
    scale = side / (2 * half)

    def place_of(point: Tensor) -> tuple[float, float]:
        return (float(point[0]) - x0 + half) * scale, (y0 + half - float(point[1])) * scale

    across, down = place_of(torch.zeros(2))
    for ends in ((0.0, down, side, down), (across, 0.0, across, side)):
        pen.line(ends, fill="#e2e5ea", width=_FINER)
    large, small = (ImageFont.load_default(size * _FINER) for size in (16, 13))
    for number, label in enumerate(study.labels.tolist()):
        colour = colour_of(label)
        path = [place_of(means[moment, number]) for moment in range(max(0, frame - _TAIL), frame + 1)]
        for age, (start, end) in enumerate(pairwise(path), start=1):
            pen.line((*start, *end), fill=f"{colour}{int(160 * age / _TAIL):02x}", width=2 * _FINER)
        (x, y), radius = path[-1], max(float(radii[frame, number]) * scale, 2.0 * _FINER)
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=f"{colour}48", outline=f"{colour}ff", width=_FINER)
        pen.text((x, y), str(label), fill=palette.INK, font=large, anchor="mm" if radius > 12 * _FINER else "lb")
    pen.text((12 * _FINER, 10 * _FINER), f"step {int(study.first.steps[frame])}", fill=palette.INK, font=small)
    return canvas.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)


def _circle(axes: Axes, centre: Tensor, radius: float, colour: str, opacity: float) -> None:
    place = (float(centre[0]), float(centre[1]))
    axes.add_patch(Circle(place, radius, fc=(colour, 0.3 * opacity), ec=(colour, opacity), lw=0.8))


def _square_around(means: Tensor, radii: Tensor) -> tuple[float, float, float]:
    """The middle of the square that holds all circles and the origin, and half its side."""
    low = (means - radii[..., None]).flatten(0, -2).amin(dim=0).clamp_max(0.0)
    high = (means + radii[..., None]).flatten(0, -2).amax(dim=0).clamp_min(0.0)
    x, y = (0.5 * (low + high)).tolist()
    return x, y, max(0.5 * _MARGIN * float((high - low).max()), 1e-6)


def _window(axes: Axes, square: tuple[float, float, float]) -> None:
    x, y, half = square
    axes.set_xlim(x - half, x + half)
    axes.set_ylim(y - half, y + half)
    axes.set_aspect("equal")
    axes.set_xlabel("latent variable 0")
    axes.set_ylabel("latent variable 1")
