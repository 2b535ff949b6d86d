"""`latlas invert`: codes for images of a generator that has no encoder, or a better one than its encoder gives."""

from typing import Annotated

import typer

from latlas.cli.options import DATA, Device, Generator, Json, Out, Replace, Resize, Seed

BudgetName = Annotated[
    str, typer.Option("--budget", help="Work for each image: quick (60 steps), default (200) or thorough (1,000).")
]
Steps = Annotated[
    int | None, typer.Option("--steps", help="Steps of descent from each start, 0 or more.", show_default="those of --budget")
]
Start = Annotated[
    str,
    typer.Option(
        "--start",
        help="Where descents start: recoder, nearest (of many draws), mean, noise, or hybrid: the recoder if there is one, else mean and noise.",
    ),
]
Starts = Annotated[int, typer.Option("--starts", help="How many starts from noise, 1 or more, where --start has them.")]
RecoderFolder = Annotated[
    str | None,
    typer.Option(
        "--recoder",
        metavar="RECODER",
        help="What `latlas train recoder GENERATOR` wrote, to start from.",
        show_default="the generator's own encoder, if any",
    ),
]


def invert(
    generator: Generator,
    images: Annotated[str, typer.Argument(metavar="IMAGES", help=f"Images to find codes for: {DATA}")],
    out: Out = None,
    budget: BudgetName = "default",
    steps: Steps = None,
    start: Start = "hybrid",
    starts: Starts = 2,
    recoder: RecoderFolder = None,
    prior: Annotated[
        float,
        typer.Option(
            "--prior", help="Cost of a code as far out as codes are on average, in squared error per pixel, 0 or more."
        ),
    ] = 0.0,
    noise_weight: Annotated[
        float | None,
        typer.Option(
            "--noise-weight",
            help="Descend the noise of a StyleGAN2 too, as 1e-3; the weight of keeping it white, in squared error per pixel.",
            show_default="the noise stays as it is",
        ),
    ] = None,
    resize: Resize = None,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
    replace: Replace = False,
) -> None:
    """Find the codes whose images are nearest to given ones, by descent through the generator.

    With --out: the codes as an encoding (mean.npy, which NumPy reads), and a page that shows each image beside its inversion;
    with --noise-weight the noise that was found too (noise.safetensors).

    Example: latlas invert zoo:avatars-dcgan "avatars:test?size=32[0:50]" --recoder zoo:avatars-dcgan-recoder --out codes

    Example: latlas invert 'stylegan2:ffhq.pkl#w' faces --resize 1024 --budget thorough --out codes
    """
    from dataclasses import replace as changed

    from latlas.base.artifacts import check_free, save_tensors, writing
    from latlas.cli.models import model_on
    from latlas.cli.output import print_findings, print_json, say_where
    from latlas.cli.progress import shown
    from latlas.data.loading import load_images
    from latlas.inversion.descent import named_budget
    from latlas.inversion.noise import NoisyGenerator
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
            noise_weight=noise_weight,
            seed=seed,
            progress=progress,
        )
    if out is not None:
        with writing(out, replace=replace) as beside:
            encoding.save_pretrained(beside / "codes")
            drawn, by = found, loaded
            if found.noises:  # codes alone would draw other images than those that the errors are of
                save_tensors(beside / "noise.safetensors", {f"layer {i}": layer for i, layer in enumerate(found.noises)})
                by = noisy = NoisyGenerator(loaded)
                drawn = changed(found, codes=noisy.joined(found.codes, found.noises))
            write_files(inversion_report(drawn, wanted, by, provenance=encoding.provenance), beside)
    if json:
        print_json({**inversion_record(found), "provenance": encoding.provenance.to_json()})
        return
    print_findings((finding.level, finding.headline, finding.text) for finding in inversion_findings(found))
    if out is not None:
        say_where(out / "codes", "encoding")
        say_where(out / HTML)
