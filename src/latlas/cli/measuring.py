"""`latlas encode`, `diagnose`, `range`: questions about one model."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from latlas.cli.inverting import BudgetName, RecoderFolder, Start, Starts, Steps
from latlas.cli.options import DATA, Data, Device, Generator, Json, Model, Out, Precision, Replace, Resize, Seed

if TYPE_CHECKING:
    from latlas.base.progress import Progress


def encode(
    model: Model,
    data: Data,
    out: Out = None,
    append: Annotated[
        bool, typer.Option("--append", help="Add the codes to the encoding at --out; begin one if there is none.")
    ] = False,
    half: Annotated[bool, typer.Option("--half", help="Keep codes as float16: half the space, three digits.")] = False,
    shard_rows: Annotated[
        int | None,
        typer.Option(
            "--shard-rows", help="Images of a shard, a multiple of 4096.", show_default="8192, or as what is appended to"
        ),
    ] = None,
    precision: Precision = "float32",
    on_bad: Annotated[
        str, typer.Option("--on-bad", help="stop or skip, at a picture that cannot be read; every one is named.")
    ] = "stop",
    workers: Annotated[
        int | None,
        typer.Option("--workers", help="Processes that decode pictures; 0 for none.", show_default="by the cores and pictures"),
    ] = None,
    engine: Annotated[
        str,
        typer.Option(
            "--engine",
            help="Who computes: local; torch, processes of this machine or of torchrun and srun; ray, a cluster of Ray.",
        ),
    ] = "local",
    address: Annotated[
        str | None, typer.Option("--address", help="Of the Ray cluster: HOST:PORT or auto.", show_default="one is started here")
    ] = None,
    devices: Annotated[
        int | None, typer.Option("--devices", help="Workers of the engine, 1 or more.", show_default="1; of ray, all it has")
    ] = None,
    resize: Resize = None,
    device: Device = "auto",
    json: Json = False,
    replace: Replace = False,
) -> None:
    """Store the codes of images.

    Writes .npy files (mean, log_variance, indices, names, labels) that NumPy reads without latlas. Pictures in files are read as
    they are encoded, and codes written shard by shard: memory does not grow with their number. A run that was cut off keeps its
    whole shards, and the same command goes on with the others.

    Example: latlas encode zoo:digits-dense mnist:test --out codes

    Example: latlas encode runs/faces "photos-{000..127}.tar" --resize 64 --half --on-bad skip --workers 8 --out codes

    Example: latlas encode runs/faces photos --resize 64 --engine torch --devices 8 --out codes
    """
    import time

    from latlas.base.artifacts import check_free
    from latlas.base.errors import SettingError, one_line
    from latlas.base.launch import is_first
    from latlas.cli.models import model_on
    from latlas.cli.output import print_json, say_where
    from latlas.cli.progress import shown
    from latlas.data.loading import open_images
    from latlas.encodings import encode as encodings
    from latlas.encodings.engines.named import engine_named
    from latlas.encodings.store import work_folder

    if append and out is None:
        raise SettingError("--append needs --out: the folder of the encoding to add to.")
    carrier = engine_named(engine, address=address, devices=devices)
    if engine != "local" and out is None:
        raise SettingError("--engine needs --out: its workers write what they compute.")
    if out is not None and not append and not work_folder(out).exists():
        check_free(out, replace=replace)
    loaded = model_on(model, device)
    with shown() as progress:
        images = open_images(data, size=resize, policy=policy_of(on_bad), workers=workers, progress=progress)
        counted = Counted(progress)
        began = time.perf_counter()
        encoding = encodings.encode(
            loaded,
            images,
            out=out,
            replace=replace,
            append=append,
            dtype="float16" if half else "float32",
            shard_rows=shard_rows,
            precision=precision,
            engine=None if engine == "local" else carrier,
            progress=counted,
        )
        seconds = time.perf_counter() - began
    if not is_first():  # one of several processes speaks
        return
    shape = [len(encoding), *encoding.latent_shape]
    speed = counted.encoded / seconds if counted.encoded else None
    if json:
        print_json(
            {
                "model": encoding.model,
                "images": encoding.images,
                "shape": shape,
                "encoded_now": counted.encoded,
                "images_per_second": speed,
                "skipped": [asdict(each) for each in encoding.skipped],
                "provenance": encoding.provenance.to_json(),
            }
        )
        return
    now = "" if speed is None else f" {counted.encoded:,} images now, {speed:,.0f} a second."
    print(f"Encoded {encoding.images}: codes of shape {' x '.join(map(str, shape))}.{now}")
    if encoding.skipped:
        print(f"Skipped {len(encoding.skipped)} that could not be read:")
        for each in encoding.skipped:
            print(f"  {one_line(each.name)}: {each.reason}")
    if out is not None:
        say_where(out, "encoding")


def policy_of(on_bad: str) -> Literal["stop", "skip"]:
    """Return the policy that --on-bad names.

    Raises:
        UnknownNameError: it names none.
    """
    from latlas.base.errors import unknown_name

    if on_bad not in ("stop", "skip"):
        raise unknown_name("policy for bad pictures", on_bad, ("stop", "skip"))
    return "stop" if on_bad == "stop" else "skip"


class Counted:
    """A `Progress` that also tells how many images were encoded in this run: those kept from an earlier one were not."""

    def __init__(self, progress: "Progress") -> None:
        self.progress = progress
        self.first: int | None = None
        self.encoded = 0

    def __call__(self, task: str, done: int, total: int | None, note: str = "") -> None:
        """Pass on what is told, and count."""
        if task.startswith("encoding "):
            self.first = done if self.first is None else self.first
            self.encoded = done - self.first
        self.progress(task, done, total, note)


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

    Example: latlas diagnose zoo:digits-dense mnist:test --out health
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
    images: Annotated[str, typer.Argument(metavar="IMAGES", help=f"Images to judge: {DATA}")],
    out: Out = None,
    reference: Annotated[
        str | None,
        typer.Option(
            "--reference", metavar="DATA", help="Ordinary images of the same kind, to rank against too.", show_default="none"
        ),
    ] = None,
    support: Annotated[
        str | None, typer.Option("--support", help="A Support Set's folder, judged beside.", show_default="none")
    ] = None,
    codes_of: Annotated[
        str | None,
        typer.Option(
            "--codes-of",
            metavar="DATA",
            help="Draw own samples from the codes of these images, none of which is judged: for a model without a prior.",
            show_default="the model's own prior",
        ),
    ] = None,
    level: Annotated[
        float, typer.Option("--level", help="Rate of false alarms among images in range, between 0 and 1.")
    ] = 0.05,
    samples: Annotated[
        int, typer.Option("--samples", help="Own samples to calibrate on; at the level 0.05, 19 or more.")
    ] = 2000,
    budget: BudgetName = "default",
    steps: Steps = None,
    start: Start = "hybrid",
    starts: Starts = 2,
    recoder: RecoderFolder = None,
    features: Annotated[
        str | None,
        typer.Option(
            "--features",
            help="Measure errors in a feature space too: auto, digits, fashion, efficientnet, or the file of an Inception checkpoint.",
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

    Example: latlas range zoo:digits-dense "fashion-mnist:test[0:500]" --reference "mnist:test[0:500]" --out verdict
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
