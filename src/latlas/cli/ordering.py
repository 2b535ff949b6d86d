"""`latlas order`: which latent variables matter most, and what they draw."""

from typing import Annotated

import typer

from latlas.cli.options import Data, Device, Json, Model, Out, Replace, Resize, Seed

_TOP = 7  # as many as the sectors of a Support Set are made of
_LINES = 16  # variables that are shown running, at most
_STARTS = 6  # codes that traversals start from
_JACOBIAN_IMAGES = 100  # for comparison beside another measure; each costs two decodes a variable


def order(
    model: Model,
    data: Data,
    out: Out = None,
    top: Annotated[
        int | None,
        typer.Option(
            "--top",
            help="How many of the most informative variables, 1 to all.",
            show_default="7, or all where there are fewer",
        ),
    ] = None,
    by: Annotated[
        str,
        typer.Option(
            "--by",
            help="gain: growth of the error without the variable; kl and variance: of its posteriors; jacobian: how far it moves images.",
        ),
    ] = "gain",
    fast: Annotated[
        bool,
        typer.Option(
            "--fast/--exhaustive",
            help="By gain: stop decoding variables plainly out of the top, or in it; or decode all on all images.",
        ),
    ] = True,
    confidence: Annotated[
        float,
        typer.Option(
            "--confidence", help="That a fast top is the exhaustive one, but for ties; and of ties. From 0.5 to below 1."
        ),
    ] = 0.95,
    resize: Resize = None,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
    replace: Replace = False,
) -> None:
    """Tell which latent variables matter most, and show what each draws.

    Measured on DATA: held-out images tell more. With --out, a page with the other measures beside, and the leading variables
    running from -2.25 to 2.25 as traversals.png and, moving, traversals.webp.

    Example: latlas order zoo:digits-dense mnist:test --top 7 --out order
    """
    import torch

    from latlas.base.artifacts import check_free, writing
    from latlas.base.errors import CapabilityError, IllPosedError, NonFiniteError
    from latlas.base.seeds import generator
    from latlas.cli.models import model_on
    from latlas.cli.output import print_findings, print_json, print_table, say_where
    from latlas.cli.progress import shown
    from latlas.data.loading import load_images
    from latlas.encodings.encode import encode
    from latlas.measurements.ordering import MEASURES, check_settings, order_variables
    from latlas.models.protocols import require_autoencoder
    from latlas.reports.ordering import ordering_findings, ordering_record, ordering_report
    from latlas.reports.page import HTML, write_files
    from latlas.reports.traversals import animation, run_traversals, strip

    if out is not None:
        check_free(out, replace=replace)
    loaded = require_autoencoder(model_on(model, device), "An order of variables with its traversals")
    wanted = min(_TOP, int(loaded.latent_shape[0])) if top is None else top
    check_settings(loaded, by=by, top=wanted, confidence=confidence, fast=None)
    with shown() as progress:
        images = load_images(data, size=resize, progress=progress)
        codes = encode(loaded, images, progress=progress)
        found = order_variables(
            loaded,
            images,
            codes=codes,
            by=by,
            top=wanted,
            confidence=confidence,
            fast=None if fast else False,
            seed=seed,
            progress=progress,
        )
        others, left_out = [], {}
        if out is not None:
            some = torch.randperm(len(images), generator=generator(seed, "jacobian images"))[:_JACOBIAN_IMAGES].sort().values
            for measure in MEASURES:
                if measure == found.by or (measure == "kl" and codes.log_variance is None):
                    continue
                few = measure == "jacobian" and len(some) < len(images)
                try:
                    other = order_variables(
                        loaded,
                        images.take(some) if few else images,
                        codes=codes.mean[some] if few else codes,
                        by=measure,
                        top=wanted,
                        confidence=confidence,
                        seed=seed,
                        progress=progress,
                    )
                except (CapabilityError, IllPosedError, NonFiniteError) as failure:  # nobody asked for this one
                    left_out[measure] = str(failure)
                else:
                    others.append(other)
            starts = torch.randperm(len(images), generator=generator(seed, "starting codes"))[:_STARTS].sort().values
            lines = run_traversals(
                loaded, codes.mean[starts], found.leading[:_LINES], starts=[images.name_of(int(index)) for index in starts]
            )
    if out is not None:
        with writing(out, replace=replace) as beside:
            (beside / "traversals.png").write_bytes(strip(lines, 0))
            (beside / "traversals.webp").write_bytes(animation(lines))
            write_files(ordering_report(found, others, lines, left_out=left_out), beside)
    if json:
        print_json(ordering_record(found, others, left_out))
        return
    print_table(
        f"{found.model} on {found.images}, by {found.by}",
        ("rank", "variable", "score", "standard error", "images", "tied with next"),
        [
            [
                row["rank"],
                row["variable"],
                row["score"],
                row["standard_error"],
                row["images"],
                "yes" if row["tied_with_next"] else "",
            ]
            for row in found.table[:wanted]
        ],
    )
    print_findings((finding.level, finding.headline, finding.text) for finding in ordering_findings(found, left_out))
    if out is not None:
        say_where(out / HTML)
