"""`latlas encode`, `diagnose`, `range`: questions about one model."""

from typing import Annotated

import typer

from latlas.cli.inverting import BudgetName, RecoderFolder, Start, Starts, Steps
from latlas.cli.options import Data, Device, Generator, Json, Model, Out, Replace, Resize, Seed


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


def range_(
    generator: Generator,
    images: Annotated[str, typer.Argument(metavar="IMAGES", help="Images to judge: as DATA elsewhere.")],
    out: Out = None,
    reference: Annotated[
        str | None,
        typer.Option("--reference", help="Ordinary images of the same kind, to rank against too.", show_default="none"),
    ] = None,
    support: Annotated[
        str | None, typer.Option("--support", help="A Support Set's folder, judged beside.", show_default="none")
    ] = None,
    codes_of: Annotated[
        str | None,
        typer.Option(
            "--codes-of",
            help="Draw own samples from the codes of these images, none of which is judged: for a model without a prior.",
            show_default="the model's own prior",
        ),
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
    from latlas.encodings.aggregate import check_apart, with_codes_of
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
        if codes_of is not None:
            drawn_from = load_images(codes_of, size=resize, progress=progress)
            check_apart(drawn_from, judged)
            loaded = with_codes_of(loaded, drawn_from, progress=progress)
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
