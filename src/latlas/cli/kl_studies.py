"""`latlas study kl-curve`, `trajectories` and `coverage-3d`: what the KL term and sampling do, seen on small networks."""

from typing import Annotated

import typer

from latlas.cli.options import Budget, Device, Json, Out, Replace, Seed

Epochs = Annotated[int | None, typer.Option("--epochs", help="Of each training.", show_default="as the budget has it")]
Train = Annotated[
    str | None,
    typer.Option(
        "--data", metavar="DATA", help="Images to train on, as in latlas train.", show_default="digits, as the budget has it"
    ),
]


def kl_curve(
    budget: Budget = "quick",
    out: Out = None,
    seed: Seed = 0,
    device: Device = "auto",  # noqa: ARG001 - the options of every study, so that one command line serves all
    json: Json = False,
    replace: Replace = False,
) -> None:
    """Draw KL against variance where the ratio of deviation to mean is kept, and check where it is least.

    Nothing is trained and nothing is drawn at random: --seed and --device change nothing.

    Example: latlas study kl-curve --out kl-curve
    """
    from latlas.base.artifacts import check_free
    from latlas.cli.output import page_of, tell_study
    from latlas.reports.kl_curve import kl_curve_report
    from latlas.studies.kl_curve import run

    if out is not None:
        check_free(out, replace=replace)
    study = run(budget, seed)
    report = kl_curve_report(study)
    table = (
        "Least KL to the prior, by ratio of deviation to mean",
        ("ratio", "variance, formula", "variance, search", "KL, nats"),
        [[f"{curve.ratio:g}", curve.minimum, curve.found_minimum, curve.found_kl_nats] for curve in study.curves],
    )
    tell_study(report.numbers, report.summary, table, page=page_of(report, out, replace=replace), as_json=json)


def trajectories(
    budget: Budget = "quick",
    out: Out = None,
    data: Train = None,
    classes: Annotated[int, typer.Option("--classes", help="Classes of which an image is followed.")] = 10,
    epochs: Epochs = None,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
    replace: Replace = False,
) -> None:
    """Follow one image of each class through the first epoch of a two-dimensional latent space, and see posteriors shrink.

    Writes a page with a still and a moving picture.

    Example: latlas study trajectories --budget quick --out trajectories
    """
    from latlas.base.artifacts import check_free
    from latlas.cli.output import tell_study
    from latlas.cli.progress import shown
    from latlas.data.loading import load_images
    from latlas.reports.trajectories import trajectories_findings, write_trajectories
    from latlas.studies.budgets import as_budget
    from latlas.studies.trajectories import EPOCHS, TRAIN, study_trajectories

    size = as_budget(budget)
    if out is not None:
        check_free(out, replace=replace)
    with shown() as progress:
        images = load_images(TRAIN[size] if data is None else data, progress=progress)
        study = study_trajectories(
            images,
            classes=classes,
            epochs=EPOCHS[size] if epochs is None else epochs,
            seed=seed,
            device=device,
            progress=progress,
        )
    page = None if out is None else write_trajectories(study, out, replace=replace)
    table = (
        "Posterior variance, geometric mean over the variables, mean over the images followed",
        ("moment", "variance"),
        [
            ["before the first step", study.start],
            *([f"after epoch {epoch}", variance] for epoch, variance in enumerate(study.over_epochs, start=1)),
        ],
    )
    tell_study(study.to_json(), trajectories_findings(study), table, page=page, as_json=json)


def coverage_3d(
    budget: Budget = "quick",
    out: Out = None,
    data: Train = None,
    test: Annotated[
        str | None,
        typer.Option("--test", metavar="DATA", help="Images to measure on.", show_default="digits, as the budget has it"),
    ] = None,
    epochs: Epochs = None,
    seeds: Annotated[
        int | None, typer.Option("--seeds", help="Trainings of each kind.", show_default="as the budget has it")
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
    replace: Replace = False,
) -> None:
    """Train a three-dimensional latent space with sampling and without, and tell which one draws from the prior hit.

    Without sampling the penalty on the means is kept. Writes a page, and one on which the clouds of codes can be turned.

    Example: latlas study coverage-3d --budget quick --out coverage-3d
    """
    from latlas.base.artifacts import check_free
    from latlas.cli.output import tell_study
    from latlas.cli.progress import shown
    from latlas.data.loading import load_images
    from latlas.reports.latent_cloud import WORDS, latent_cloud_findings, write_latent_cloud
    from latlas.studies.budgets import as_budget
    from latlas.studies.latent_cloud import ARMS, SIZES, study_latent_cloud

    sizes = SIZES[as_budget(budget)]
    if out is not None:
        check_free(out, replace=replace)
    with shown() as progress:
        study = study_latent_cloud(
            load_images(sizes.train if data is None else data, progress=progress),
            load_images(sizes.test if test is None else test, progress=progress),
            epochs=sizes.epochs if epochs is None else epochs,
            seeds=sizes.seeds if seeds is None else seeds,
            shown=sizes.shown,
            samples=sizes.samples,
            seed=seed,
            device=device,
            progress=progress,
        )
    page = None if out is None else write_latent_cloud(study, out, replace=replace)
    table = (
        f"Means over seeds; {study.features} over {study.samples:,} images",
        ("quantity", *ARMS),
        [[words, *(study.mean_of(arm, quantity) for arm in ARMS)] for quantity, words in WORDS.items()],
    )
    tell_study(study.to_json(), latent_cloud_findings(study), table, page=page, as_json=json)
