"""`latlas map` and `latlas relocate`: from one latent space to another."""

from pathlib import Path
from typing import Annotated

import typer

from latlas.cli.options import Data, Device, Json, Out, Replace, Resize, Seed


def map_(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="The model whose codes are relocated.")],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="The model into whose latent space.")],
    data: Data,
    out: Out = None,
    test: Annotated[
        str | None, typer.Option("--test", help="Images to measure on.", show_default="the last fifth of DATA")
    ] = None,
    kind: Annotated[str, typer.Option("--kind", help="affine or orthogonal.")] = "affine",
    ridge: Annotated[str | None, typer.Option("--ridge", help="A penalty, or gcv to choose it.", show_default="none")] = None,
    resize: Resize = None,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
    replace: Replace = False,
) -> None:
    """Fit a linear map between two latent spaces, and tell what it loses in image space.

    With --out: the map as an artifact for `latlas relocate`, and a page beside it.

    Example: latlas map runs/a runs/b mnist:train --test mnist:test --out a-to-b
    """
    from latlas.base.artifacts import check_free, writing
    from latlas.base.errors import SettingError
    from latlas.cli.models import model_on
    from latlas.cli.output import print_findings, print_json, print_table, say_where
    from latlas.cli.progress import shown
    from latlas.data.loading import load_images
    from latlas.reports.comparison import comparison_report
    from latlas.reports.page import HTML, write_files
    from latlas.studies.compare import compare

    if out is not None:
        check_free(out, replace=replace)
    try:
        strength = None if ridge is None else ridge if ridge == "gcv" else float(ridge)
    except ValueError as failure:
        raise SettingError(f"--ridge takes a number or the word gcv, got {ridge!r}.") from failure
    first, second = model_on(source, device), model_on(target, device)
    with shown() as progress:
        images = load_images(data, size=resize, progress=progress)
        held_out = None if test is None else load_images(test, size=resize, progress=progress)
        result = compare(first, second, images, test=held_out, kind=kind, ridge=strength, seed=seed, progress=progress)  # type: ignore[arg-type]
    report = comparison_report(result, first, second, held_out if held_out is not None else images)
    if out is not None:
        with writing(out, replace=replace) as beside:
            result.linear_map.save_pretrained(beside / "map")
            write_files(report, beside)
    record = result.to_json()
    if json:
        print_json(record)
        return
    names = ("target_R", "R", "decode_encode", "M", "shuffled", "mean_code", "no_map")
    print_table(
        f"{result.source} → {result.target}, squared error per pixel on {result.images}",
        ("error", "value", "standard error"),
        [[name, record[name], record["standard_errors"][name]] for name in names],
    )
    print_findings((finding.level, finding.headline, finding.text) for finding in report.summary)
    if out is not None:
        say_where(out / HTML)


def relocate(
    map_folder: Annotated[
        Path, typer.Argument(metavar="MAP", help="A map that `latlas map` wrote (its folder, or map/ in it).")
    ],
    codes: Annotated[Path, typer.Argument(metavar="CODES", help="An encoding folder, or an .npy of codes, n x variables.")],
    out: Annotated[Path, typer.Option("--out", help="The .npy file to write; it must not exist yet.")],
    json: Json = False,
) -> None:
    """Carry codes into the other latent space. No image and no network takes part.

    Example: latlas relocate a-to-b codes --out relocated.npy
    """
    import numpy as np
    import torch

    from latlas.base.artifacts import check_place, write_file
    from latlas.base.errors import ArtifactError, MissingPathError, OutputExistsError
    from latlas.cli.output import print_json, say_where
    from latlas.encodings.encoding import Encoding
    from latlas.maps.linear import LinearMap

    if out.suffix != ".npy" or out.exists():
        raise OutputExistsError(f"{out} already exists, or is no .npy; name a new file that ends in .npy.")
    check_place(out)
    inner = map_folder / "map"
    fitted = LinearMap.from_pretrained(inner if inner.is_dir() else map_folder)
    if codes.is_dir():
        encoding = Encoding.from_pretrained(codes)
        fitted.check_source(encoding.provenance, name=encoding.model)
        rows = encoding.mean
    elif codes.is_file():
        try:
            rows = torch.from_numpy(np.load(codes, allow_pickle=False)).float()
        except (ValueError, TypeError, OSError, EOFError) as failure:
            raise ArtifactError(f"{codes} is not a readable .npy of numbers ({failure}).") from failure
    else:
        raise MissingPathError(f"No encoding folder or file {codes}.")
    moved = fitted.apply(rows)
    write_file(out, lambda stream: np.save(stream, moved.numpy(), allow_pickle=False))
    if json:
        print_json({"source": fitted.source, "target": fitted.target, "shape": list(moved.shape), "out": str(out)})
        return
    print(f"Relocated {moved.shape[0]:,} codes from {fitted.source} to {fitted.target}.")
    say_where(out, "result")
