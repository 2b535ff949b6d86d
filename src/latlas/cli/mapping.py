"""`latlas map` and `latlas relocate`: from one latent space to another."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from latlas.cli.options import Device, Json, Out, Replace, Resize, Seed

if TYPE_CHECKING:
    from latlas.base.progress import Progress
    from latlas.base.shapes import ImageShape
    from latlas.data.images import ImageSet


def map_(
    specs: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE TARGET DATA",
            help="The model whose codes are relocated, the model into whose latent space, and the images; with --matrix two or "
            "more models, and the images last. DATA may be the word stream, where one of the two is a generator without an "
            "encoder: codes that it draws are then known.",
        ),
    ],
    matrix: Annotated[
        bool, typer.Option("--matrix", help="Every ordered pair of the models given; the images come last.")
    ] = False,
    out: Out = None,
    test: Annotated[
        str | None,
        typer.Option("--test", metavar="DATA", help="Images to measure on.", show_default="the last fifth of DATA"),
    ] = None,
    kind: Annotated[
        str, typer.Option("--kind", help="affine, orthogonal, orthogonalised or reduced-rank; affine between spatial latents.")
    ] = "affine",
    ridge: Annotated[
        str | None, typer.Option("--ridge", help="A penalty of 0 or more, or gcv or loo to choose it.", show_default="none")
    ] = None,
    rank: Annotated[
        int | None,
        typer.Option(
            "--rank", help="Of a reduced-rank map, which needs it: 1 to the smaller latent size.", show_default="none"
        ),
    ] = None,
    neighbourhood: Annotated[
        int | None,
        typer.Option(
            "--neighbourhood", help="Between spatial latents: positions across that predict one, odd.", show_default="1"
        ),
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(
            "--features",
            help="Take Fréchet distances too: auto, digits, fashion, efficientnet, pixels, or the file of an Inception checkpoint.",
            show_default="none",
        ),
    ] = None,
    perceptual: Annotated[
        str | None,
        typer.Option(
            "--perceptual",
            metavar="MODULE:FUNCTION",
            help="A distance of yours, such as LPIPS with its weights: takes two batches of images in [0, 1], returns one number "
            "an image.",
            show_default="none",
        ),
    ] = None,
    yardstick: Annotated[
        bool, typer.Option("--yardstick", help="Train a perceptron on the same pairs: what linearity leaves behind.")
    ] = False,
    stream: Annotated[
        int, typer.Option("--stream", help="Where DATA is stream: codes to fit on, 2 or more; a quarter as many measure.")
    ] = 4000,
    resize: Resize = None,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
    replace: Replace = False,
) -> None:
    """Fit a linear map between two latent spaces, and tell what it loses in image space.

    With --out: the map as an artifact for `latlas relocate`, and a page beside it.

    Example: latlas map runs/a runs/b mnist:train --test mnist:test --out a-to-b

    Example: latlas map --matrix runs/a runs/b runs/c mnist:train --test mnist:test --out every-pair

    Example: latlas map runs/gan runs/a stream --stream 10000 --yardstick
    """
    from latlas.base.artifacts import check_free
    from latlas.base.errors import SettingError

    if out is not None:
        check_free(out, replace=replace)
    try:
        strength = None if ridge is None else ridge if ridge in ("gcv", "loo") else float(ridge)
    except ValueError as failure:
        raise SettingError(f"--ridge takes a number or the word gcv, or loo, got {ridge!r}.") from failure
    if kind == "reduced-rank" and rank is None:
        raise SettingError("--kind reduced-rank needs --rank: a whole number from 1 to the smaller latent size.")
    *models, data = specs
    settings: dict[str, Any] = {
        "kind": kind, "ridge": strength, "rank": rank, "neighbourhood": neighbourhood, "stream": stream, "seed": seed,
    }  # fmt: skip
    if matrix:
        refused = {"--features": features, "--perceptual": perceptual, "--yardstick": yardstick or None}
        for option, value in refused.items():
            if value is not None:
                raise SettingError(f"{option} is for one pair of models, and --matrix was given. Leave one of them out.")
        if len(models) < 2:
            raise SettingError(f"--matrix takes two or more models and the images last, got {' '.join(specs)}.")
        _map_all(models, data, test, settings, out=out, resize=resize, device=device, json=json, replace=replace)
        return
    if len(models) != 2:
        raise SettingError(
            f"latlas map takes SOURCE TARGET DATA, got {len(specs)}: {' '.join(specs)}. For more than two models give --matrix."
        )
    settings |= {"yardstick": yardstick, "perceptual": None if perceptual is None else _function(perceptual)}
    _map_one(models, data, test, settings, out=out, features=features, resize=resize, device=device, json=json, replace=replace)


def _map_one(
    specs: Sequence[str],
    data: str,
    test: str | None,
    settings: Mapping[str, Any],
    *,
    out: Path | None,
    features: str | None,
    resize: int | None,
    device: str,
    json: bool,
    replace: bool,
) -> None:
    from latlas.base.artifacts import writing
    from latlas.base.errors import SettingError
    from latlas.cli.models import model_on
    from latlas.cli.output import print_findings, print_json, print_table, say_where
    from latlas.cli.progress import shown
    from latlas.reports.comparison import comparison_report
    from latlas.reports.page import HTML, write_files
    from latlas.studies.compare import compare
    from latlas.studies.features import feature_network
    from latlas.studies.pairs import STREAM

    source, target = (model_on(spec, device) for spec in specs)
    images: Any = STREAM
    with shown() as progress:
        if data == STREAM:
            if test is not None:
                raise SettingError("A stream is measured on fresh codes of its own. Leave --test out.")
            held_out, seen = None, _blank(source.image_shape)
        else:
            images, held_out = _images(data, test, resize, progress)
            seen = images
        network = None if features is None else feature_network(features, seen)
        result = compare(source, target, images, test=held_out, features=network, progress=progress, **settings)
    report = comparison_report(result, source, target)
    if out is not None:
        with writing(out, replace=replace) as beside:
            result.documented_map().save_pretrained(beside / "map")
            write_files(report, beside)
    record = result.to_json()
    if json:
        print_json(record)
        return
    names = ("target_R", "R", "decode_encode", "M", "round_trip", "shuffled", "mean_code", "no_map")
    print_table(
        f"{result.source} → {result.target}, squared error per pixel on {result.images}",
        ("error", "value", "standard error", "spread", "PSNR, dB"),
        [
            [
                name,
                record[name],
                record["standard_errors"][name],
                record["deviations"][name],
                record["quality"].get(name, {}).get("psnr", {}).get("mean"),
            ]
            for name in names
        ],
    )
    print_findings((finding.level, finding.headline, finding.text) for finding in report.summary)
    if out is not None:
        say_where(out / HTML)


def _map_all(
    specs: Sequence[str],
    data: str,
    test: str | None,
    settings: Mapping[str, Any],
    *,
    out: Path | None,
    resize: int | None,
    device: str,
    json: bool,
    replace: bool,
) -> None:
    from latlas.base.artifacts import writing
    from latlas.cli.models import model_on
    from latlas.cli.output import print_findings, print_json, print_table, say_where
    from latlas.cli.progress import shown
    from latlas.reports.matrix import matrix_report
    from latlas.reports.page import HTML, write_files
    from latlas.studies.matrix import compare_all

    models = [model_on(spec, device) for spec in specs]
    with shown() as progress:
        images, held_out = _images(data, test, resize, progress)
        result = compare_all(models, images, test=held_out, progress=progress, **settings)
    report = matrix_report(result, models)
    if out is not None:
        with writing(out, replace=replace) as beside:
            write_files(report, beside)
    record = result.to_json()
    if json:
        print_json(record)
        return
    for name, title in (("M_over_target_R", "M over the target's own error"), ("recovered_share", "Recovered share")):
        table = record[name]
        print_table(
            f"{title}: source by row, target by column",
            ("", *result.models),
            [[source, *(table[source][target] for target in result.models)] for source in result.models],
        )
    print_findings((finding.level, finding.headline, finding.text) for finding in report.summary)
    if out is not None:
        say_where(out / HTML)


def _images(data: str, test: str | None, resize: int | None, progress: "Progress") -> "tuple[ImageSet, ImageSet | None]":
    from latlas.data.loading import load_images

    images = load_images(data, size=resize, progress=progress)
    return images, None if test is None else load_images(test, size=resize, progress=progress)


def _blank(image_shape: "ImageShape") -> "ImageSet":
    """Return an image of a shape, for what asks images for nothing else."""
    import torch

    from latlas.data.images import ImageSet

    return ImageSet("stream", torch.zeros(1, *image_shape))


def _function(spec: str) -> Any:
    """Return the function that MODULE:FUNCTION names, of a module beside the user or installed."""
    import importlib
    import sys

    from latlas.base.errors import SettingError

    module, colon, name = spec.partition(":")
    if not (module and colon and name):
        raise SettingError(f"--perceptual takes MODULE:FUNCTION, got {spec!r}.")
    here = str(Path.cwd())
    sys.path.insert(0, here)  # as `python -m` would
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as failure:  # whatever the module does when it is imported
        raise SettingError(
            f"--perceptual {spec} cannot be had ({failure}). Name a module beside you or an installed one."
        ) from failure
    finally:
        if here in sys.path:
            sys.path.remove(here)
    if not callable(found):
        raise SettingError(f"--perceptual {spec} is a {type(found).__name__}; name a function of two batches of images.")
    return found


def relocate(
    map_folder: Annotated[
        str, typer.Argument(metavar="MAP", help="A map that `latlas map` wrote (its folder, or map/ in it).")
    ],
    codes: Annotated[Path, typer.Argument(metavar="CODES", help="An encoding folder, or an .npy of codes, n x variables.")],
    out: Annotated[
        Path,
        typer.Option("--out", help="A new .npy; or, where CODES is an encoding, a new folder for the encoding in the target."),
    ],
    json: Json = False,
    replace: Replace = False,
) -> None:
    """Carry codes into the other latent space. No image and no network takes part.

    Example: latlas relocate a-to-b codes --out relocated.npy

    Example: latlas relocate a-to-b codes --out codes-in-b
    """
    import numpy as np
    import torch

    from latlas.base.artifacts import check_free, write_file
    from latlas.base.errors import ArtifactError, MissingPathError, NonFiniteError
    from latlas.base.npy import check_header
    from latlas.cli.output import check_new_file, print_json, say_where
    from latlas.encodings.encoding import Encoding
    from latlas.maps.loading import load_map
    from latlas.maps.relocation import relocate_encoding

    if not codes.exists():
        raise MissingPathError(f"No encoding folder or file {codes}.")
    whole = codes.is_dir() and out.suffix != ".npy"
    if whole:
        check_free(out, replace=replace)
    else:
        check_new_file(out, ".npy")
    fitted = load_map(map_folder)
    if codes.is_dir():
        relocated = relocate_encoding(fitted, Encoding.from_pretrained(codes))
        moved = relocated.mean
        if whole:
            relocated.save_pretrained(out, replace=replace)
    else:
        try:
            with codes.open("rb") as stream:
                check_header(stream)
            rows = torch.from_numpy(np.load(codes, allow_pickle=False)).float()
        except (ValueError, TypeError, OSError, EOFError) as failure:
            raise ArtifactError(f"{codes} is not a readable .npy of numbers.") from failure
        if not bool(rows.isfinite().all()):
            bad = int((~rows.isfinite()).flatten(1).any(dim=1).nonzero()[0, 0])
            raise NonFiniteError(f"Row {bad} of {codes} holds NaN or infinity, which no map can carry. Remove it first.")
        moved = fitted.apply(rows)
    if not whole:
        write_file(out, lambda stream: np.save(stream, moved.numpy(), allow_pickle=False))
    if json:
        print_json({"source": fitted.source, "target": fitted.target, "shape": list(moved.shape), "out": str(out)})
        return
    print(f"Relocated {moved.shape[0]:,} codes from {fitted.source} to {fitted.target}.")
    say_where(out, "result")
