"""Clouds of codes with and without sampling, as a page, and as one whose clouds can be turned."""

import base64
from importlib import resources
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from jinja2 import Environment, StrictUndefined, select_autoescape
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from torch import Tensor

from latlas.base.artifacts import writing
from latlas.reports import palette
from latlas.reports.classes import COLOURS, colour_of
from latlas.reports.figures import STYLE, as_svg
from latlas.reports.page import HTML, Block, Finding, Numbers, Picture, Report, Section, Table, write_files
from latlas.reports.pictures import grid
from latlas.studies.latent_cloud import ARMS, SIDE, SLICES, Cloud, LatentCloudStudy

TURNING = "cloud.html"
WORDS = {
    "frechet": "distance of samples, prior",
    "frechet_fitted": "distance of samples, fitted normal",
    "frechet_reconstructions": "distance of reconstructions",
    "energy": "energy coefficient of the shape",
    "empty": "share in empty cells",
    "energy_to_prior": "energy coefficient to the prior",
    "error": "squared error of reconstructions",
}
_STEPS = 32767  # of a coordinate, as the turning page has it: 16 bits
# A view from the side and a little from above: the first variable to the right, the third upwards.
_VIEW = torch.tensor([[0.87, -0.5, 0.0], [0.17, 0.3, 0.94]], dtype=torch.float64)


def write_latent_cloud(study: LatentCloudStudy, folder: str | Path, *, replace: bool = False) -> Path:
    """Write the page, and the one whose clouds can be turned, as an artifact folder; return the page's path.

    Raises:
        OutputExistsError: the folder already holds something.
    """
    with writing(folder, replace=replace) as beside:
        (beside / TURNING).write_text(turning_page(study), encoding="utf-8", errors="backslashreplace")
        write_files(latent_cloud_report(study), beside)
    return Path(folder) / HTML


def latent_cloud_report(study: LatentCloudStudy) -> Report:
    """Return the page of a study: both clouds, slices of new images, and every number of every seed."""
    seeds = len(study.of("sampling"))
    blocks: list[Block] = [
        Picture(
            content=_linked(cloud_figure(study)),
            caption="Posterior means of test images, coloured by class, from one side; dashed: two deviations of the prior.",
            alt="Two clouds of points: trained with sampling, and without.",
        ),
        *(
            Picture(
                content=grid(cloud.slices, columns=SIDE * SIDE, enlarge=1),
                caption=f"{_title(cloud)}: {SLICES} slices of the latent space, {SIDE * SIDE} codes each, at equally probable quantiles of the prior.",
                alt=f"{SLICES} rows of {SIDE * SIDE} generated images, trained with {cloud.arm}.",
            )
            for cloud in _first_pair(study)
        ),
    ]
    rows: list[list[Any]] = []
    for cloud in sorted(study.clouds, key=lambda cloud: (cloud.seed, ARMS.index(cloud.arm))):
        shape = cloud.shape
        rows.append(
            [
                f"{cloud.arm}, seed {cloud.seed}",
                cloud.frechet,
                cloud.frechet_fitted,
                cloud.frechet_reconstructions,
                shape.energy,
                shape.empty,
                shape.energy_to_prior,
                cloud.error,
                " / ".join(f"{deviation:.2f}" for deviation in cloud.deviations),
            ]
        )
    normal = study.normal
    rows.append(["a normal cloud, at most", None, None, None, normal.energy, normal.empty, normal.energy_to_prior, None, None])
    evidence = Section(
        title="Evidence",
        lead=f"One pair of {seeds}; the clouds can be turned in {TURNING}, which lies beside this page.",
        blocks=blocks,
    )
    figures = Section(
        title="Figures",
        lead=f"{study.features} over {study.samples:,} images.",
        blocks=[
            Numbers(
                items=[
                    (study.mean_of(arm, "frechet"), f"distance of samples, {arm}", f"mean of {seeds} {_seeds(seeds)}")
                    for arm in ARMS
                ]
                + [(study.mean_of(arm, "energy"), f"energy coefficient, {arm}", "of the standardised cloud") for arm in ARMS]
            ),
            Table(
                columns=("training", *WORDS.values(), "deviations of means"),
                rows=rows,
                dim=[False] * (len(rows) - 1) + [True],
                caption="Energy coefficient, of posterior means: 0 for the normal distribution, 1 for a compact cloud infinitely far away, "
                "0.29 for a normal cloud infinitely too wide.",
            ),
        ],
    )
    return Report(
        title="With sampling and without",
        subtitle="What sampling does to the cloud of codes in three dimensions, and to the images that it gives.",
        summary=latent_cloud_findings(study),
        sections=[evidence, figures],
        numbers=study.to_json(),
        provenance=study.provenance,
        details={"seeds": str(seeds), "distance": study.features},
    )


def latent_cloud_findings(study: LatentCloudStudy) -> list[Finding]:
    """Return what is to be heard of a study."""
    return [_finding(study, quantity) for quantity in ("frechet", "frechet_fitted", "energy", "empty")]


def cloud_figure(study: LatentCloudStudy) -> str:
    """Return the clouds of the first seed as a drawing, both to their own scale, beside the prior's two deviations."""
    with mpl.rc_context(STYLE | {"savefig.dpi": 150}):
        figure = Figure(figsize=(9.0, 4.6), layout="constrained")
        FigureCanvasSVG(figure)
        for axes, cloud in zip(figure.subplots(1, 2), _first_pair(study), strict=True):
            flat = _from_the_side(cloud.means)
            colours = palette.SOURCE if cloud.labels is None else [colour_of(label) for label in cloud.labels.tolist()]
            axes.scatter(flat[:, 0], flat[:, 1], c=colours, s=3, alpha=0.6, lw=0, rasterized=True)
            axes.add_patch(Circle((0.0, 0.0), 2.0, fill=False, ls="--", lw=1.0, ec=palette.INK))
            extent = 1.05 * max(float(flat.abs().max()), 2.0)
            axes.set_xlim(-extent, extent)
            axes.set_ylim(-extent, extent)
            axes.set_aspect("equal")
            axes.set_title(_title(cloud))
            axes.set_xlabel("across, seen from the side")
            axes.set_ylabel("up, seen from the side")
        return as_svg(figure)


def turning_page(study: LatentCloudStudy) -> str:
    """Return a page whose clouds are turned by dragging or with the arrow keys; it asks no other host for anything."""
    pair = _first_pair(study)
    clouds = []
    for cloud in pair:
        extent = max(float(cloud.means.abs().max()), 1e-6)
        places = (three(cloud.means) / extent * _STEPS).round().to(torch.int16).contiguous().numpy()
        labels = torch.zeros(len(places), dtype=torch.uint8) if cloud.labels is None else cloud.labels.to(torch.uint8)
        clouds.append(
            {
                "title": _title(cloud),
                "extent": extent,
                "places": base64.b64encode(places.astype("<i2").tobytes()).decode(),
                "labels": base64.b64encode(labels.numpy().tobytes()).decode(),
            }
        )
    classes = sorted({label for cloud in pair if cloud.labels is not None for label in cloud.labels.tolist()})
    environment = Environment(
        autoescape=select_autoescape(default=True), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = resources.files("latlas.reports").joinpath("templates/cloud.html.j2").read_text(encoding="utf-8")
    content = {"clouds": clouds, "classes": classes, "colours": list(COLOURS), "steps": _STEPS}
    return environment.from_string(template).render(content=content, report=HTML, points=len(pair[0].means))


def three(means: Tensor) -> Tensor:
    """Return the first three variables; of two, with 0 for the third."""
    return torch.nn.functional.pad(means, (0, max(3 - means.shape[1], 0)))[:, :3]


def _linked(drawing: str) -> str:
    """The drawing, with a way to the page where it can be turned."""
    words = (
        '<text x="644" y="14" text-anchor="end" font-size="12" font-family="sans-serif" style="fill: var(--accent, #0072b2)">'
    )
    link = f'<a href="{TURNING}">{words}Turn the clouds</text></a>'
    return drawing.replace("</svg>", f"{link}</svg>", 1)


def _from_the_side(means: Tensor) -> Tensor:
    rows, _ = torch.linalg.qr(_VIEW.T)  # the two directions of the view, made exactly orthonormal
    # Their signs are those of the view, whatever the factorisation chose.
    return three(means).double() @ (rows * (rows * _VIEW.T).sum(dim=0).sign())


def _first_pair(study: LatentCloudStudy) -> list[Cloud]:
    return [study.of(arm)[0] for arm in ARMS]


def _title(cloud: Cloud) -> str:
    return "With sampling" if cloud.arm == "sampling" else "Without sampling"


def _seeds(count: int) -> str:
    return "seed" if count == 1 else "seeds"


def _finding(study: LatentCloudStudy, quantity: str) -> Finding:
    lower, seeds = study.lower_with_sampling(quantity), len(study.of("sampling"))
    first, second = (study.mean_of(arm, quantity) for arm in ARMS)
    words = WORDS[quantity]
    return Finding(
        level="good" if lower == seeds else "note",
        headline=f"{words.capitalize()}: lower with sampling in {lower} of {seeds} {_seeds(seeds)}.",
        text=f"{first:.3g} with sampling, {second:.3g} without, means over seeds.",
    )
