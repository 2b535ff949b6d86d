"""`latlas support`: the few images that stand for all."""

from pathlib import Path
from typing import Annotated, Any

import typer

from latlas.cli.options import Data, Device, Json, Model, Out, Replace, Resize, Seed


def support(
    model: Model,
    data: Data,
    out: Out = None,
    variables: Annotated[
        int,
        typer.Option(
            "--variables", help="How many of the most informative variables, of the latent size at most; 7 give 128 sectors."
        ),
    ] = 7,
    threshold: Annotated[
        str, typer.Option("--threshold", help="A number of 0 or more, or largest: the largest that empties no sector.")
    ] = "largest",
    threshold_unit: Annotated[
        str, typer.Option("--threshold-unit", help="Of the threshold: code, or spread (standard deviations of each variable).")
    ] = "code",
    centre: Annotated[
        str, typer.Option("--centre", help="Measure sectors from the mean of the codes, or from the origin.")
    ] = "mean",
    choose: Annotated[str, typer.Option("--choose", help="Which image of a sector: random, central or extreme.")] = "random",
    selector: Annotated[
        str,
        typer.Option("--selector", help="sectors; or random, k-means, farthest, d-optimal, facility-location, to hold beside."),
    ] = "sectors",
    size: Annotated[
        int | None,
        typer.Option(
            "--size", help="How many images, 2 or more: at least, by sectors; else exactly.", show_default="the latent size"
        ),
    ] = None,
    with_: Annotated[
        list[str] | None,
        typer.Option(
            "--with", help="Attribute that images must have, as hat, hair=short04 or label=3; repeatable.", show_default="none"
        ),
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option("--without", help="Attribute that images must not have, as hat; repeatable.", show_default="none"),
    ] = None,
    exclude: Annotated[
        Path | None, typer.Option("--exclude", help="Text file of images never to choose: a name a line.", show_default="none")
    ] = None,
    codes: Annotated[
        str | None,
        typer.Option(
            "--codes", help="Folder that latlas encode wrote of these images, so as not to encode again.", show_default="none"
        ),
    ] = None,
    export: Annotated[
        Path | None, typer.Option("--export", help="Folder to write the images to, as PNG.", show_default="nothing is written")
    ] = None,
    npz: Annotated[
        Path | None, typer.Option("--npz", help="New .npz to write images and codes to.", show_default="nothing is written")
    ] = None,
    resize: Resize = None,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
    replace: Replace = False,
) -> None:
    """Choose a Support Set: few images, one a latent sector, that cover the main factors of variation.

    With --out: the set as an artifact, and a page that shows it beside how many images each sector should hold.

    Example: latlas support zoo:digits-dense mnist:train --variables 5 --out landmarks
    """
    from latlas.base.artifacts import check_free, writing
    from latlas.cli.models import model_on
    from latlas.cli.output import check_new_file, check_outside, print_findings, print_json, say_where
    from latlas.cli.progress import shown
    from latlas.data.loading import load_images
    from latlas.encodings.encode import encode
    from latlas.encodings.encoding import Encoding
    from latlas.reports.page import HTML, write_files
    from latlas.reports.support import support_report, support_section
    from latlas.studies.sectors import study_sectors
    from latlas.studies.support import build_support_set, check_settings, compare_spread
    from latlas.supports.exporting import export_folder, export_npz
    from latlas.supports.filters import allowed

    if out is not None:
        check_free(out, replace=replace)
    if export is not None:
        _check_export(export)
    if npz is not None:
        check_new_file(npz, ".npz", option="--npz")
    places = (("--out", out), ("--export", export), ("--npz", npz))
    for place in places:
        check_outside(place, *(other for other in places if other is not place))
    level = _level(threshold)
    left_out = [] if exclude is None else _names(exclude)
    loaded = model_on(model, device)
    with shown() as progress:
        images = load_images(data, size=resize, progress=progress)
        kept = allowed(images, with_=with_ or (), without=without or (), exclude=left_out)
        settings: dict[str, Any] = {
            "variables": variables,
            "threshold": level,
            "units": threshold_unit,
            "centre": centre,
            "choose": choose,
            "selector": selector,
            "size": size,
        }
        check_settings(loaded, len(kept), **settings)
        encoding = encode(loaded, images, progress=progress) if codes is None else Encoding.from_pretrained(codes)
        chosen = build_support_set(
            loaded,
            images,
            **settings,
            with_=with_ or (),
            without=without or (),
            exclude=left_out,
            encoding=encoding,
            seed=seed,
            progress=progress,
        )
        pool = images if len(kept) == len(images) else images.take(kept, name=images.name)
        spread = compare_spread(chosen, pool, seed=seed)
        sectors = study_sectors(encoding.mean if pool is images else encoding.mean[kept], chosen.sectors, seed=seed)
    numbers: dict[str, Any] = {
        **chosen.to_json(),
        "spread": spread.to_json(),
        "sector_study": sectors.to_json(),
    }
    if out is not None:
        with writing(out, replace=replace) as beside:
            chosen.save_pretrained(beside / "support-set")
            write_files(support_report(chosen, spread, numbers, sectors=sectors, images=pool), beside)
    if export is not None:
        export_folder(chosen, export)
    if npz is not None:
        export_npz(chosen, npz)
    if json:
        print_json(numbers)
        return
    print(
        f"{len(chosen)} images for {chosen.inhabited} inhabited sectors of {chosen.sectors.count}, threshold {chosen.sectors.threshold:.4g}."
    )
    section = support_section(chosen, spread, sectors=sectors)
    print_findings((finding.level, finding.headline, finding.text) for finding in section.findings)
    if out is not None:
        say_where(out / HTML)
    for path, what in ((export, "folder of pictures"), (npz, "file of images and codes")):
        if path is not None:
            say_where(path, what)


def _level(threshold: str) -> float | str:
    from latlas.base.errors import SettingError

    try:
        return threshold if threshold == "largest" else float(threshold)
    except ValueError as failure:
        raise SettingError(f"--threshold takes a number or the word largest, got {threshold!r}.") from failure


def _check_export(folder: Path) -> None:
    """Refuse a folder that holds something, which --replace would not change: pictures are no artifact."""
    from latlas.base.artifacts import check_free
    from latlas.base.errors import OutputExistsError

    if folder.is_dir() and any(folder.iterdir()):
        raise OutputExistsError(
            f"{folder} already holds something, and pictures replace nothing. Name another folder (--export)."
        )
    check_free(folder)


def _names(path: Path) -> list[str]:
    from latlas.base.errors import MissingPathError, SettingError

    if not path.is_file():
        raise MissingPathError(f"No file {path}: --exclude takes a text file with the name of an image on each line.")
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as failure:
        raise SettingError(f"{path} cannot be read as text: --exclude takes the name of an image on each line.") from failure
