"""`latlas tour`."""

from pathlib import Path
from typing import Annotated

import typer

from latlas.cli.options import Device, Json, Replace, Seed


def tour(
    out: Annotated[Path, typer.Option("--out", help="Folder for the report, the models, the map and the Support Set.")] = Path(
        "tour"
    ),
    epochs: Annotated[int, typer.Option("--epochs", help="Passes over the digits, for each of the three models.")] = 20,
    train_images: Annotated[
        int | None, typer.Option("--train-images", help="Train on the first N digits only.", show_default="all")
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
    replace: Replace = False,
) -> None:
    """Run the whole atlas on MNIST digits in minutes, and write one report.

    Trains three small VAEs, then answers: which latent variables are alive? how do codes get from one model to another? which
    images are landmarks? what can the decoder not make?

    Example: latlas tour --out tour --seed 1
    """
    from latlas.base.artifacts import check_free
    from latlas.cli.output import print_findings, print_json, say_where
    from latlas.cli.progress import shown
    from latlas.reports.artifacts import write_tour
    from latlas.reports.tour import tour_report
    from latlas.studies.tour import TourSettings, run_tour

    check_free(out, replace=replace)
    settings = TourSettings(seed=seed, epochs=epochs, train_images=train_images, device=device)
    with shown() as progress:
        result = run_tour(settings, progress=progress)
    page = write_tour(result, out, replace=replace)
    if json:
        print_json(result.to_json())
        return
    print_findings((finding.level, finding.headline, finding.text) for finding in tour_report(result).summary)
    say_where(page)
