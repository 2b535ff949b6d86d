"""`latlas calibrate` and `latlas sample`: new images, and which sampler to draw them with."""

from pathlib import Path
from typing import Annotated

import typer

from latlas.cli.options import Data, Decoder, Device, Json, Model, Out, Replace, Resize, Seed


def calibrate(
    model: Model,
    data: Data,
    heldout: Annotated[
        str,
        typer.Option(
            "--heldout", metavar="DATA", help="Other images, 40 or more: half of them choose the sampler, half report."
        ),
    ],
    out: Out = None,
    features: Annotated[
        str,
        typer.Option(
            "--features",
            help="Feature network of the distance: auto, digits, fashion, efficientnet, pixels, or the file of an Inception "
            "checkpoint.",
        ),
    ] = "auto",
    components: Annotated[int, typer.Option("--components", help="Gaussians of the mixture that is tried.")] = 10,
    resize: Resize = None,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
    replace: Replace = False,
) -> None:
    """Choose the sampler whose images lie nearest to held-out ones; report all of them.

    Tried, each as it is and renormalised: the prior, per-variable moments, a full Gaussian, a mixture, a second-stage VAE. With
    --out: the chosen sampler as an artifact for `latlas sample`, and a page.

    Example: latlas calibrate zoo:digits-dense mnist:train --heldout mnist:test --out sampler
    """
    from latlas.base.artifacts import check_free, writing
    from latlas.cli.models import model_on
    from latlas.cli.output import print_findings, print_json, print_table, say_where
    from latlas.cli.progress import shown
    from latlas.data.loading import load_images
    from latlas.reports.calibration import calibration_report
    from latlas.reports.page import HTML, write_files
    from latlas.studies.calibrate import calibrate_sampler
    from latlas.studies.features import feature_network

    if out is not None:
        check_free(out, replace=replace)
    loaded = model_on(model, device)
    with shown() as progress:
        train = load_images(data, size=resize, progress=progress)
        others = load_images(heldout, size=resize, progress=progress)
        network = feature_network(features, others)
        result = calibrate_sampler(
            loaded,
            train,
            others,
            features=network,
            components=components,
            seed=seed,
            progress=progress,
        )
    report = calibration_report(result, loaded, others)
    if out is not None:
        with writing(out, replace=replace) as beside:
            result.best.sampler.save_pretrained(beside / "sampler")
            write_files(report, beside)
    if json:
        print_json(result.to_json())
        return
    rows = [[score.sampler.name, score.reported.value, score.reported.standard_error] for score in result.scores]
    rows += [["reconstructions", result.reconstructions.value, result.reconstructions.standard_error]]
    rows += [["real images", result.real.value, result.real.standard_error]]
    print_table(
        f"Fréchet distance of {network.name} features to {result.heldout}", ("sampler", "distance", "standard error"), rows
    )
    print_findings((finding.level, finding.headline, finding.text) for finding in report.summary)
    if out is not None:
        say_where(out / HTML)


def sample(
    model: Decoder,
    out: Annotated[Path, typer.Option("--out", help="The .npy file of images to write; it must not exist yet.")],
    count: Annotated[int, typer.Option("--count", "-n", help="How many images, 1 or more.")] = 64,
    sampler: Annotated[
        Path | None,
        typer.Option("--sampler", help="A sampler that `latlas calibrate` wrote.", show_default="the model's prior"),
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Draw new images, as uint8, and a PNG of the first 64 beside them.

    The array is of images x channels x height x width, its values 0 to 255.

    Example: latlas sample zoo:digits-dense -n 1000 --out digits.npy

    Example: latlas sample zoo:digits-dense --sampler sampler -n 1000 --out digits.npy
    """
    import numpy as np
    import torch

    from latlas.base.artifacts import write_file
    from latlas.base.errors import OutputExistsError, SettingError
    from latlas.base.seeds import generator
    from latlas.cli.models import model_on
    from latlas.cli.output import check_new_file, print_json, say_where
    from latlas.data.images import to_floats, to_pixels
    from latlas.measurements.reconstruction import decode_batches
    from latlas.models.protocols import require_generator
    from latlas.reports import pictures
    from latlas.samplers.fit import load_sampler

    check_new_file(out, ".npy")
    picture = out.with_suffix(".png")
    if picture.exists():
        raise OutputExistsError(
            f"{picture} already exists, and the first images would be drawn there; name another file than {out}."
        )
    if count < 1:
        raise SettingError(f"Asked for {count} images; ask for at least 1.")
    drawing = require_generator(model_on(model, device), "Sampling")
    chance = generator(seed, "samples")
    if sampler is None:
        codes = drawing.sample_codes(count, chance)
    else:
        inner = sampler / "sampler"
        fitted = load_sampler(inner if inner.is_dir() else sampler)
        fitted.check_fits(drawing)
        codes = fitted.sample(count, chance)
    pixels = torch.cat([to_pixels(batch) for batch in decode_batches(drawing, codes)])
    shown = to_floats(pixels[:64])
    drawn = pictures.grid(shown, columns=8, enlarge=max(1, 64 // shown.shape[3]))
    write_file(picture, lambda stream: stream.write(drawn))
    try:
        write_file(out, lambda stream: np.save(stream, pixels.numpy(), allow_pickle=False))
    except BaseException:
        picture.unlink(missing_ok=True)  # a picture of images that are nowhere would stand in the way of the next try
        raise
    if json:
        print_json({"count": count, "shape": list(pixels.shape), "out": str(out), "picture": str(picture)})
        return
    print(f"Drew {count:,} images; the first {len(shown)} are in {picture}.")
    say_where(out, "array of images")
