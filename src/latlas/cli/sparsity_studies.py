"""The verbs of `latlas study` about collapsed variables: `sparsity`, `noise-injection`, `variance-law`."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from latlas.cli.options import Budget, Device, Json, Out, Replace, Resize, Seed, Work


def sparsity(
    budget: Budget = "quick",
    out: Out = None,
    data: Annotated[
        str | None, typer.Option("--data", help="mnist, fashion-mnist, or both with a comma.", show_default="by budget")
    ] = None,
    work: Work = None,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
    replace: Replace = False,
) -> None:
    """Tell how many latent variables collapse, with the KL term and without it.

    A dense and a convolutional net of 16 variables, several seeds: which variables live, what each of four published rules
    says, what the decoder makes of codes without the collapsed ones; the same without KL, and with its quadratic part alone.

    Example: latlas study sparsity --budget quick --out sparsity
    """
    from latlas.base.artifacts import check_free
    from latlas.cli.output import check_outside, page_of, tell_study
    from latlas.cli.progress import shown
    from latlas.reports.sparsity import sparsity_report
    from latlas.studies.sparsity import run

    if out is not None:
        check_free(out, replace=replace)
    check_outside(("--work", work), ("--out", out))
    chosen = None if data is None else tuple(name.strip() for name in data.split(",") if name.strip())
    with shown() as progress:
        study = run(budget, seed, progress, data=chosen, work=work, device=device)
    rows = [[f"{c.network}, {c.data}, {c.term}", ", ".join(map(str, c.collapsed)), c.mean, c.spread] for c in study.counts]
    report = sparsity_report(study)
    table = ("Collapsed variables of 16, one number a seed", ("training", "collapsed", "mean", "spread"), rows)
    tell_study(report.numbers, report.summary, table, page=page_of(report, out, replace=replace), as_json=json)


def noise_injection(
    model: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL DATA]", help="A VAE and what it was trained on.", show_default="dense nets, trained on digits"
        ),
    ] = None,
    budget: Budget = "quick",
    out: Out = None,
    work: Work = None,
    resize: Resize = None,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
    replace: Replace = False,
) -> None:
    """Make one latent variable worse with growing noise until it collapses, take the noise away, and tell what came when.

    Means and KL grow, the gain falls below the KL, the variable collapses, and comes back late and in part: how often, in
    what order.

    Example: latlas study noise-injection --budget quick --out noise
    """
    from latlas.base.artifacts import check_free
    from latlas.cli.models import model_on
    from latlas.cli.output import check_outside, page_of, tell_study
    from latlas.cli.progress import shown
    from latlas.data.loading import load_images
    from latlas.reports.noise_injection import noise_injection_report
    from latlas.studies.budgets import as_budget
    from latlas.studies.noise_events import EVENTS
    from latlas.studies.noise_injection import SETTINGS, run, study_noise_on
    from latlas.training.noise_injection import require_noisable

    size = as_budget(budget)
    _check_own(model, work, wanted="one MODEL and then DATA, or neither", fits=lambda count: count == 2)
    if out is not None:
        check_free(out, replace=replace)
    check_outside(("--work", work), ("--out", out))
    with shown() as progress:
        if model:
            vae = require_noisable(model_on(model[0], "cpu"))
            images = load_images(model[1], size=resize, progress=progress)
            study = study_noise_on(vae, images, SETTINGS[size], seed=seed, device=device, progress=progress)
        else:
            study = run(budget, seed, progress, work=work, device=device)
    rows = [
        [f"{each.model}, variable {each.course.variable}", *(getattr(each.events, name) for name in EVENTS), each.events.delay]
        for each in study.runs
    ]
    report = noise_injection_report(study)
    table = ("Epoch in which each event was first seen", ("run", *EVENTS, "delay"), rows)
    tell_study(report.numbers, report.summary, table, page=page_of(report, out, replace=replace), as_json=json)


def variance_law(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL... DATA]", help="Models, and then the images.", show_default="the family of VAEs, trained on digits"
        ),
    ] = None,
    budget: Budget = "quick",
    out: Out = None,
    work: Work = None,
    resize: Resize = None,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
    replace: Replace = False,
) -> None:
    """Tell whether mean posterior variance + variance of posterior means is 1, for each latent variable, and where not.

    Of your own models, or of VAEs that are trained for it, over training time and at its end.

    Example: latlas study variance-law runs/a runs/b mnist:train --out variance-law
    """
    from latlas.base.artifacts import check_free
    from latlas.base.provenance import Provenance
    from latlas.cli.models import model_on
    from latlas.cli.output import check_outside, page_of, tell_study
    from latlas.cli.progress import shown
    from latlas.data.loading import load_images
    from latlas.reports.variance_law import variance_law_report
    from latlas.studies.budgets import as_budget
    from latlas.studies.variance_law import history_of, run, variance_law_point, variance_law_study

    as_budget(budget)
    _check_own(models, work, wanted="the models and then the images, or nothing at all", fits=lambda count: count > 1)
    if out is not None:
        check_free(out, replace=replace)
    check_outside(("--work", work), ("--out", out))
    with shown() as progress:
        if models:
            *specs, data = models
            loaded = [model_on(spec, device) for spec in specs]
            images = load_images(data, size=resize, progress=progress)
            points = [
                variance_law_point(model, images, history=history_of(Path(spec)), progress=progress)
                for spec, model in zip(specs, loaded, strict=True)
            ]
            made_from = {"images": images.content_hash, **{f"model {n}": model.fingerprint for n, model in enumerate(loaded)}}
            provenance = Provenance(made_by="variance_law_study", made_from=made_from, settings={"models": specs})
            study = variance_law_study(points, provenance=provenance)
        else:
            study = run(budget, seed, progress, work=work, device=device)
    report = variance_law_report(study)
    table = (
        "Variance of means + mean posterior variance, over variables",
        ("model", "mean", "mean, active", "mean, collapsed", "least", "most"),
        [[p.model, p.mean, p.mean_of(active=True), p.mean_of(active=False), p.low, p.high] for p in study.points],
    )
    tell_study(report.numbers, report.summary, table, page=page_of(report, out, replace=replace), as_json=json)


def _check_own(given: list[str] | None, work: Path | None, *, wanted: str, fits: Callable[[int], bool]) -> None:
    """Refuse a number of arguments that no study of models of one's own takes, and --work beside them."""
    from latlas.base.errors import SettingError

    if given and not fits(len(given)):
        raise SettingError(f"Give {wanted}; got {len(given)} argument{'s' if len(given) > 1 else ''}.")
    if given and work is not None:
        raise SettingError("--work keeps the nets that the study trains; with models of your own there are none. Leave it out.")
