"""`latlas invert`: codes for images of a generator that has no encoder, or a better one than its encoder gives."""

from typing import Annotated

import typer

from latlas.cli.options import Device, Json, Out, Replace, Resize, Seed

BudgetName = Annotated[
    str, typer.Option("--budget", help="Work for each image: quick (60 steps), default (200) or thorough (1,000).")
]
Steps = Annotated[
    int | None, typer.Option("--steps", help="Steps of descent from each start.", show_default="those of --budget")
]
Start = Annotated[
    str,
    typer.Option(
        "--start",
        help="Where descents start: recoder, mean, noise, or hybrid: the recoder if there is one, else mean and noise.",
    ),
]
Starts = Annotated[int, typer.Option("--starts", help="How many starts from noise.")]
RecoderFolder = Annotated[
    str | None,
    typer.Option(
        "--recoder",
        help="What `latlas train recoder GENERATOR` wrote, to start from.",
        show_default="the generator's own encoder, if any",
    ),
]


def invert(
    generator: Annotated[str, typer.Argument(metavar="GENERATOR", help="A model folder, or scheme:rest.")],
    images: Annotated[str, typer.Argument(metavar="IMAGES", help="Images to find codes for: as DATA elsewhere.")],
    out: Out = None,
    budget: BudgetName = "default",
    steps: Steps = None,
    start: Start = "hybrid",
    starts: Starts = 2,
    recoder: RecoderFolder = None,
    prior: Annotated[
        float,
        typer.Option("--prior", help="Cost of a code as far out as codes are on average, in squared error per pixel."),
    ] = 0.0,
    resize: Resize = None,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
    replace: Replace = False,
) -> None:
    """Find the codes whose images are nearest to given ones, by descent through the generator.

    With --out: the codes as an encoding (mean.npy, which NumPy reads), and a page that shows each image beside its inversion.

    Example: latlas invert zoo:dcgan-faces faces --resize 64 --recoder runs/recoder --out codes
    """
    from latlas.base.artifacts import check_free, writing
    from latlas.cli.models import model_on
    from latlas.cli.output import print_findings, print_json, say_where
    from latlas.cli.progress import shown
    from latlas.data.loading import load_images
    from latlas.inversion.descent import named_budget
    from latlas.models.protocols import require_encoder
    from latlas.reports.inversions import inversion_findings, inversion_record, inversion_report
    from latlas.reports.page import HTML, write_files
    from latlas.studies.inverting import invert_images

    if out is not None:
        check_free(out, replace=replace)
    work = named_budget(budget, steps=steps)
    loaded = model_on(generator, device)
    with shown() as progress:
        wanted = load_images(images, size=resize, progress=progress)
        found, encoding = invert_images(
            loaded,
            wanted,
            budget=work,
            start=start,
            starts=starts,
            recoder=None if recoder is None else require_encoder(model_on(recoder, device), "--recoder"),
            prior_weight=prior,
            seed=seed,
            progress=progress,
        )
    if out is not None:
        with writing(out, replace=replace) as beside:
            encoding.save_pretrained(beside / "codes")
            write_files(inversion_report(found, wanted, loaded, provenance=encoding.provenance), beside)
    if json:
        print_json({**inversion_record(found), "provenance": encoding.provenance.to_json()})
        return
    print_findings((finding.level, finding.headline, finding.text) for finding in inversion_findings(found))
    if out is not None:
        say_where(out / "codes", "encoding")
        say_where(out / HTML)
