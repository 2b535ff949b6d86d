"""`latlas study NAME`: questions that take many fits or decodes to answer."""

from typing import Annotated

import typer

from latlas.cli.all_studies import every_study
from latlas.cli.kl_studies import coverage_3d, kl_curve, trajectories
from latlas.cli.options import Data, Device, Json, Out, Replace, Resize, Seed, Source, Target, Test
from latlas.cli.sparsity_studies import noise_injection, sparsity, variance_law

app = typer.Typer(
    name="study",
    help="Ask a question that takes many fits to answer; each writes a page.\n\nStart with: latlas study little-data --help",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

# As in supports.selectors, which imports torch: help is shown without it. A test holds the two equal.
SELECTORS = ("random", "k-means", "farthest", "d-optimal", "facility-location", "support-set")


@app.command("little-data")
def little_data(
    source: Source,
    target: Target,
    data: Data,
    out: Out = None,
    test: Test = None,
    selectors: Annotated[str, typer.Option("--selectors", help="Ways to choose points, with commas between them.")] = ",".join(
        SELECTORS
    ),
    points: Annotated[
        str | None,
        typer.Option("--points", help="Sizes to try, as 17,64,512.", show_default="six, from one more than SOURCE's variables"),
    ] = None,
    draws: Annotated[int, typer.Option("--draws", help="Choices of each kind and size.")] = 5,
    measured: Annotated[int, typer.Option("--measured", help="Test images to decode, at most.")] = 500,
    resize: Resize = None,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
    replace: Replace = False,
) -> None:
    """Tell how many images fix a linear map, and whether it matters which.

    Maps are fitted on few images, chosen at random, by k-means, farthest first, D-optimally, by facility location or as a
    Support Set; with a ridge and without. Told is their error in image space.

    Example: latlas study little-data runs/a runs/b mnist:train --test mnist:test --out little
    """
    from latlas.base.artifacts import check_free
    from latlas.base.errors import SettingError
    from latlas.cli.models import model_on
    from latlas.cli.output import page_of, tell_study
    from latlas.cli.progress import shown
    from latlas.data.loading import load_images
    from latlas.reports.little_data import little_data_report
    from latlas.studies.little_data import study_little_data

    if out is not None:
        check_free(out, replace=replace)
    try:
        sizes = None if points is None else [int(size) for size in points.split(",")]
    except ValueError as failure:
        raise SettingError(f"--points takes whole numbers with commas between them, as 17,64,512; got {points!r}.") from failure
    first, second = model_on(source, device), model_on(target, device)
    with shown() as progress:
        images = load_images(data, size=resize, progress=progress)
        held_out = None if test is None else load_images(test, size=resize, progress=progress)
        study = study_little_data(
            first,
            second,
            images,
            test=held_out,
            selectors=[name.strip() for name in selectors.split(",")],
            points=sizes,
            draws=draws,
            measured=measured,
            seed=seed,
            progress=progress,
        )
    report = little_data_report(study)
    table = (
        f"{study.source} → {study.target}: M error with a ridge by generalised cross-validation ({study.full['gcv']:.4g} of all images)",
        ("selector", *map(str, study.points)),
        [[name, *(study.fit(name, size, "gcv").mean for size in study.points)] for name in study.selectors],
    )
    tell_study(report.numbers, report.summary, table, page=page_of(report, out, replace=replace), as_json=json)


@app.command("directions")
def directions(
    source: Source,
    target: Target,
    data: Data,
    attribute: Annotated[
        str,
        typer.Option("--attribute", help="A factor, as hat; a value of one, as hair=short04; or two labels, as 3:8."),
    ],
    out: Out = None,
    test: Test = None,
    method: Annotated[
        str, typer.Option("--method", help="difference (of the two means) or logistic (the normal of a probe).")
    ] = "difference",
    edited: Annotated[int, typer.Option("--edited", help="Test images of each kind to edit, at most.")] = 200,
    resize: Resize = None,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
    replace: Replace = False,
) -> None:
    """Carry an attribute's direction from one latent space to another, and tell how often the edit succeeds there.

    Found in SOURCE, carried by the linear map to TARGET, applied there; beside TARGET's own direction and random ones.

    Example: latlas study directions runs/a runs/b avatars:train --test avatars:test --attribute hat --out hat
    """
    from latlas.base.artifacts import check_free
    from latlas.cli.models import model_on
    from latlas.cli.output import page_of, tell_study
    from latlas.cli.progress import shown
    from latlas.data.loading import load_images
    from latlas.reports.directions import direction_report
    from latlas.studies.directions import study_direction

    if out is not None:
        check_free(out, replace=replace)
    first, second = model_on(source, device), model_on(target, device)
    with shown() as progress:
        images = load_images(data, size=resize, progress=progress)
        held_out = None if test is None else load_images(test, size=resize, progress=progress)
        study = study_direction(
            first,
            second,
            images,
            attribute=attribute,
            test=held_out,
            method=method,
            edited=edited,
            seed=seed,
            progress=progress,
        )
    report = direction_report(study)
    table = (
        f"{attribute}: share of test images in which an edit succeeds, at {study.steps[-1]} steps",
        ("edit", f"{study.without_name} → {study.with_name}", f"{study.with_name} → {study.without_name}"),
        [[edit.name, *study.success(edit.name)] for edit in study.edits],
    )
    tell_study(report.numbers, report.summary, table, page=page_of(report, out, replace=replace), as_json=json)


@app.command("variance-loss")
def variance_loss(
    models: Annotated[list[str], typer.Argument(metavar="MODEL... DATA", help="Three models at least, and then the images.")],
    out: Out = None,
    resize: Resize = None,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
    replace: Replace = False,
) -> None:
    """Tell whether the variance that reconstructions lose is their squared error, over several models.

    One point a model, the line through them with its 95 % interval, and which lie off it. A model whose decoder draws
    conditional means lies on the diagonal.

    Example: latlas study variance-loss runs/a runs/b runs/c mnist:test --out variance-loss
    """
    from latlas.base.artifacts import check_free
    from latlas.base.errors import SettingError
    from latlas.base.provenance import Provenance
    from latlas.cli.models import model_on
    from latlas.cli.output import page_of, tell_study
    from latlas.cli.progress import shown
    from latlas.data.loading import load_images
    from latlas.reports.variance_loss import variance_loss_report
    from latlas.studies.variance_loss import variance_loss_point, variance_loss_study

    *specs, data = models
    if len(specs) < 3:  # before any of them is loaded
        raise SettingError(f"A slope with an interval needs at least 3 models, and then the images; got {len(specs)} models.")
    if out is not None:
        check_free(out, replace=replace)
    loaded = [model_on(spec, device) for spec in specs]
    with shown() as progress:
        images = load_images(data, size=resize, progress=progress)
        study = variance_loss_study([variance_loss_point(model, images, seed=seed, progress=progress) for model in loaded])
    provenance = Provenance(
        made_by="variance_loss_study",
        seed=seed,
        made_from={"images": images.content_hash, **{model.name: model.fingerprint for model in loaded}},
        settings={"models": specs},
    )
    report = variance_loss_report(study, provenance)
    table = (
        f"Error and variance loss per pixel on {images.name}",
        ("model", "family", "error", "variance loss", "ratio"),
        [[point.model, point.family, point.error, point.variance_loss, point.ratio] for point in study.points],
    )
    tell_study(report.numbers, report.summary, table, page=page_of(report, out, replace=replace), as_json=json)


app.command("all")(every_study)
app.command("kl-curve")(kl_curve)
app.command("trajectories")(trajectories)
app.command("coverage-3d")(coverage_3d)
app.command("sparsity")(sparsity)
app.command("noise-injection")(noise_injection)
app.command("variance-law")(variance_law)
