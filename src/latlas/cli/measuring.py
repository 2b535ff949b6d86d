"""`latlas encode`, `diagnose`, `support`, `range`: questions about one model."""

from typing import Annotated

import typer

from latlas.cli.inverting import BudgetName, RecoderFolder, Start, Starts, Steps
from latlas.cli.options import Data, Device, Json, Model, Out, Replace, Resize, Seed


def encode(
    model: Model,
    data: Data,
    out: Out = None,
    resize: Resize = None,
    device: Device = "auto",
    json: Json = False,
    replace: Replace = False,
) -> None:
    """Store the codes of images.

    Writes mean.npy and log_variance.npy, which NumPy reads without latlas.

    Example: latlas encode runs/digits mnist:test --out codes
    """
    from latlas.base.artifacts import check_free
    from latlas.cli.models import model_on
    from latlas.cli.output import print_json, say_where
    from latlas.cli.progress import shown
    from latlas.data.loading import load_images
    from latlas.encodings import encode as encodings

    if out is not None:
        check_free(out, replace=replace)
    loaded = model_on(model, device)
    with shown() as progress:
        encoding = encodings.encode(
            loaded, load_images(data, size=resize, progress=progress), out=out, replace=replace, progress=progress
        )
    shape = [len(encoding), *encoding.latent_shape]
    if json:
        print_json(
            {"model": encoding.model, "images": encoding.images, "shape": shape, "provenance": encoding.provenance.to_json()}
        )
        return
    print(f"Encoded {encoding.images}: codes of shape {' x '.join(map(str, shape))}.")
    if out is not None:
        say_where(out, "encoding")


def diagnose(
    model: Model,
    data: Data,
    out: Out = None,
    resize: Resize = None,
    device: Device = "auto",
    json: Json = False,
    replace: Replace = False,
) -> None:
    """Tell what each latent variable does, and what to do about it.

    Measured on DATA: held-out images tell more. With --out, a page with pictures as well.

    Example: latlas diagnose runs/digits mnist:test --out health
    """
    from latlas.base.artifacts import check_free
    from latlas.cli.models import model_on
    from latlas.cli.output import print_findings, print_json, print_table, say_where
    from latlas.cli.progress import shown
    from latlas.data.loading import load_images
    from latlas.reports.diagnosis import diagnosis_report
    from latlas.reports.page import write_report
    from latlas.studies import diagnose as studies

    if out is not None:
        check_free(out, replace=replace)
    loaded = model_on(model, device)
    with shown() as progress:
        images = load_images(data, size=resize, progress=progress)
        sheet = studies.diagnose(loaded, images, progress=progress)
    page = None if out is None else write_report(diagnosis_report(sheet, loaded, images), out, replace=replace)
    if json:
        print_json(sheet.to_json())
        return
    columns = ("variable", "variance_of_means", "mean_posterior_variance", "variance_law", "kl_nats", "gain", "verdict")
    print_table(
        f"{sheet.model} on {sheet.images}",
        [column.replace("_", " ") for column in columns],
        [[row[key] for key in columns] for row in sheet.table],
    )
    print_findings((advice.level, advice.headline, advice.text) for advice in sheet.advice)
    if page is not None:
        say_where(page)


def support(
    model: Model,
    data: Data,
    out: Out = None,
    variables: Annotated[
        int, typer.Option("--variables", help="How many of the most informative variables; 7 give 128 sectors.")
    ] = 7,
    threshold: Annotated[
        str, typer.Option("--threshold", help="A number, or largest: the largest that empties no sector.")
    ] = "largest",
    centre: Annotated[
        str, typer.Option("--centre", help="Measure sectors from the mean of the codes, or from the origin.")
    ] = "mean",
    resize: Resize = None,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
    replace: Replace = False,
) -> None:
    """Choose a Support Set: few images, one a latent sector, that cover the main factors of variation.

    With --out: the set as an artifact, and a page that shows it.

    Example: latlas support runs/digits mnist:train --out landmarks
    """
    from latlas.base.artifacts import check_free, writing
    from latlas.base.errors import SettingError
    from latlas.base.records import plain
    from latlas.cli.models import model_on
    from latlas.cli.output import print_findings, print_json, say_where
    from latlas.cli.progress import shown
    from latlas.data.loading import load_images
    from latlas.reports.page import HTML, write_files
    from latlas.reports.support import support_report, support_section
    from latlas.studies.support import build_support_set, compare_spread

    if out is not None:
        check_free(out, replace=replace)
    try:
        level = threshold if threshold == "largest" else float(threshold)
    except ValueError as failure:
        raise SettingError(f"--threshold takes a number or the word largest, got {threshold!r}.") from failure
    loaded = model_on(model, device)
    with shown() as progress:
        images = load_images(data, size=resize, progress=progress)
        chosen = build_support_set(
            loaded,
            images,
            variables=variables,
            threshold=level,  # type: ignore[arg-type]
            centre=centre,  # type: ignore[arg-type]
            seed=seed,
            progress=progress,
        )
        spread = compare_spread(chosen, images, seed=seed)
    numbers = {
        "members": plain(chosen.indices),
        "names": [images.name_of(int(index)) for index in chosen.indices],
        "sector": plain(chosen.sector),
        "variables": list(chosen.sectors.variables),
        "threshold": chosen.sectors.threshold,
        "centre": list(chosen.sectors.centre),
        "sectors": chosen.sectors.count,
        "inhabited": chosen.inhabited,
        "occupancy": plain(chosen.occupancy),
        "spread": spread.to_json(),
    }
    if out is not None:
        with writing(out, replace=replace) as beside:
            chosen.save_pretrained(beside / "support-set")
            write_files(support_report(chosen, spread, numbers), beside)
    if json:
        print_json(numbers)
        return
    print(
        f"{len(chosen)} images for {chosen.inhabited} inhabited sectors of {chosen.sectors.count}, threshold {chosen.sectors.threshold:.4g}."
    )
    print_findings((finding.level, finding.headline, finding.text) for finding in support_section(chosen, spread).findings)
    if out is not None:
        say_where(out / HTML)


def range_(
    generator: Annotated[str, typer.Argument(metavar="GENERATOR", help="A model folder, or scheme:rest.")],
    images: Annotated[str, typer.Argument(metavar="IMAGES", help="Images to judge: as DATA elsewhere.")],
    out: Out = None,
    reference: Annotated[
        str | None,
        typer.Option("--reference", help="Ordinary images of the same kind, to rank against too.", show_default="none"),
    ] = None,
    support: Annotated[
        str | None, typer.Option("--support", help="A Support Set's folder, judged beside.", show_default="none")
    ] = None,
    level: Annotated[float, typer.Option("--level", help="Rate of false alarms among images in range.")] = 0.05,
    samples: Annotated[int, typer.Option("--samples", help="Own samples to calibrate on.")] = 2000,
    budget: BudgetName = "default",
    steps: Steps = None,
    start: Start = "hybrid",
    starts: Starts = 2,
    recoder: RecoderFolder = None,
    features: Annotated[
        str | None,
        typer.Option(
            "--features",
            help="Measure errors in a feature space too: auto, digits, fashion, efficientnet, or an Inception file.",
            show_default="pixels alone",
        ),
    ] = None,
    resize: Resize = None,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
    replace: Replace = False,
) -> None:
    """Tell which images a generator cannot make, with a p-value each.

    Every image is inverted with one budget, and its error is ranked among those of the generator's own samples. If those do not
    come back, no verdict is given.

    Example: latlas range runs/digits "fashion-mnist:test[0:500]" --reference "mnist:test[0:500]" --out verdict
    """
    from latlas.base.artifacts import check_free
    from latlas.cli.models import model_on
    from latlas.cli.output import print_findings, print_json, print_table, say_where
    from latlas.cli.progress import shown
    from latlas.data.loading import load_images
    from latlas.inversion.descent import named_budget
    from latlas.models.protocols import require_encoder
    from latlas.reports.page import write_report
    from latlas.reports.ranges import range_findings, range_report
    from latlas.studies.features import feature_network
    from latlas.studies.range_test import range_test
    from latlas.supports.support_set import SupportSet

    if out is not None:
        check_free(out, replace=replace)
    work = named_budget(budget, steps=steps)
    loaded = model_on(generator, device)
    with shown() as progress:
        judged = load_images(images, size=resize, progress=progress)
        known = None if reference is None else load_images(reference, size=resize, progress=progress)
        landmarks = None if support is None else SupportSet.from_pretrained(support).images
        result = range_test(
            loaded,
            judged,
            reference=known,
            support=landmarks,
            level=level,
            samples=samples,
            budget=work,
            start=start,
            starts=starts,
            recoder=None if recoder is None else require_encoder(model_on(recoder, device), "--recoder"),
            features=None if features is None else feature_network(features, judged),
            seed=seed,
            progress=progress,
        )
    page = (
        None
        if out is None
        else write_report(range_report(result, judged, loaded, reference=known, support=landmarks), out, replace=replace)
    )
    if json:
        print_json(result.to_json())
        return
    print_findings((finding.level, finding.headline, finding.text) for finding in range_findings({"images": result}))
    if result.verdict_given:
        columns = ["name", "error", "p_value", "adjusted_p_value", "rejected"]
        columns[3:3] = ["reference_p_value"] if known is not None else []
        rows = [[row[column] for column in columns] for row in result.rows()[:10]]
        print_table("Farthest out (all of them in --json and --out)", [column.replace("_", " ") for column in columns], rows)
    if page is not None:
        say_where(page)
