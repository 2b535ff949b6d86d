"""`latlas cover`: which landmarks a model cannot draw."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from latlas.cli.inverting import BudgetName, RecoderFolder, Start, Steps
from latlas.cli.options import Device, Json, Model, Out, Replace, Resize, Seed

if TYPE_CHECKING:
    from latlas.base.progress import Progress
    from latlas.studies.missed_attributes import Factors
    from latlas.supports.support_set import SupportSet


def cover(
    model: Model,
    support: Annotated[
        str, typer.Argument(metavar="SUPPORT_SET", help="What `latlas support` wrote: the folder, or its support-set.")
    ],
    control: Annotated[
        str,
        typer.Option(
            "--control",
            metavar="DATA",
            help="Random images of the same data set, best of a split that no model was trained on.",
        ),
    ],
    out: Out = None,
    reference: Annotated[
        str | None,
        typer.Option(
            "--reference",
            metavar="MODEL",
            help="A model that certainly represents the landmarks, as the one that chose them: what is hard for any model cancels.",
            show_default="none, and less is found",
        ),
    ] = None,
    more: Annotated[
        list[str] | None,
        typer.Option(
            "--more",
            metavar="MODEL",
            help="Another model to judge beside; may be given several times.",
            show_default="none",
        ),
    ] = None,
    represented: Annotated[
        bool, typer.Option("--represented", help="The control is known to be represented: all of it is ranked against.")
    ] = False,
    attributes: Annotated[
        str | None,
        typer.Option(
            "--attributes",
            metavar="DATA",
            help="The images that SUPPORT_SET was chosen from, with their factors.",
            show_default="those it names, if avatars or CelebA",
        ),
    ] = None,
    level: Annotated[
        float,
        typer.Option("--level", help="Nominal share of represented landmarks among those called missed, between 0 and 1."),
    ] = 0.05,
    samples: Annotated[int, typer.Option("--samples", help="The model's own samples to rank among.")] = 500,
    controls: Annotated[int, typer.Option("--controls", help="Images of the control to use, at most.")] = 1000,
    budget: BudgetName = "quick",
    steps: Steps = None,
    start: Start = "hybrid",
    recoder: RecoderFolder = None,
    resize: Resize = None,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
    replace: Replace = False,
) -> None:
    """Name the landmarks, sectors and attributes that a model misses.

    Each image of a Support Set is inverted, and how far off the result is, is ranked among random images of the same data
    set. With --more, a leaderboard of several models.

    Example: latlas cover runs/mine landmarks --control avatars:test --reference runs/other --out coverage
    """
    from latlas.base.artifacts import check_free
    from latlas.cli.models import model_on
    from latlas.cli.output import print_findings, print_json, print_table, say_where
    from latlas.cli.progress import shown
    from latlas.data.loading import load_images
    from latlas.inversion.descent import named_budget
    from latlas.models.protocols import require_encoder
    from latlas.reports.coverage import coverage_findings, coverage_report, leaderboard_report, leaderboard_table
    from latlas.reports.page import write_report
    from latlas.studies.coverage import cover_all

    if out is not None:
        check_free(out, replace=replace)
    work = named_budget(budget, steps=steps)
    landmarks = _support_set(support)
    models = [model_on(spec, device) for spec in (model, *(more or []))]
    ideal = None if reference is None else model_on(reference, device)
    with shown() as progress:
        random_images = load_images(control, size=resize, progress=progress)
        results = cover_all(
            models,
            landmarks,
            random_images,
            reference=ideal,
            represented=represented,
            level=level,
            budget=work,
            start=start,
            recoder=None if recoder is None else require_encoder(model_on(recoder, device), "--recoder"),
            samples=samples,
            controls=controls,
            factors=_factors(landmarks, attributes, progress),
            seed=seed,
            progress=progress,
        )
    page = None
    if out is not None:
        report = (
            coverage_report(results[0], models[0], chooser=ideal) if len(results) == 1 else leaderboard_report(results, models)
        )
        page = write_report(report, out, replace=replace)
    if json:
        print_json(results[0].to_json() if len(results) == 1 else {"models": [result.to_json() for result in results]})
        return
    if len(results) > 1:
        table = leaderboard_table(results)
        print_table(f"Coverage of {landmarks.chosen_from}", table.columns, table.rows)
    else:
        print_findings((finding.level, finding.headline, finding.text) for finding in coverage_findings(results[0]))
    if page is not None:
        say_where(page)


def _support_set(spec: str) -> "SupportSet":
    from latlas.supports.support_set import SupportSet

    # `latlas support --out FOLDER` writes a page, and the set beside it.
    inner = Path(spec) / "support-set"
    return SupportSet.from_pretrained(inner if inner.is_dir() else spec)


def _factors(landmarks: "SupportSet", attributes: str | None, progress: "Progress") -> "Factors | None":
    """Return what is known of the landmarks; None where nothing is."""
    from latlas.base.errors import LatlasError
    from latlas.data.loading import load_images
    from latlas.studies.coverage import landmark_factors

    def known(spec: str) -> "Factors":
        # A side that was asked for beside the data's name is not in that name.
        side = None if "size=" in spec else landmarks.images.image_shape[1]
        return landmark_factors(landmarks, load_images(spec, size=side, progress=progress))

    if attributes is not None:
        return known(attributes)
    if landmarks.images.factors or not landmarks.chosen_from.startswith(("avatars", "celeba:")):
        return None
    try:
        return known(landmarks.chosen_from)
    except LatlasError:  # nobody asked for attributes: without the packages or the files the rest is told all the same
        return None
