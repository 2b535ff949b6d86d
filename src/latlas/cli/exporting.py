"""`latlas export`: a model's decoder or encoder as an ONNX file, a map folded in where one is given."""

from pathlib import Path
from typing import Annotated

import typer

from latlas.cli.options import Json, Model


def export(
    model: Model,
    out: Annotated[Path, typer.Option("--out", help="The .onnx file to write; it must not exist yet.")],
    map_: Annotated[
        str | None,
        typer.Option("--map", metavar="MAP", help="A map that leads to MODEL: the file then takes the codes of its source."),
    ] = None,
    what: Annotated[str, typer.Option("--what", help="decode or encode.")] = "decode",
    batch: Annotated[str, typer.Option("--batch", help="How many at a time, 1 or more; dynamic for any number.")] = "dynamic",
    json: Json = False,
) -> None:
    """Write a model as one ONNX file, after checking that it gives what PyTorch gives.

    The decoder takes codes and gives images in [0, 1]; the encoder takes images and gives mean and log_variance. With --map, what
    is exported is the map and then the decoder: it takes the codes of another model.

    Needs pip install 'latlas[onnx]'.

    Example: latlas export runs/b --map a-to-b --out a-codes-to-images.onnx
    """
    from latlas.base.errors import SettingError
    from latlas.cli.models import model_on
    from latlas.cli.output import check_new_file, print_json, say_where
    from latlas.maps.folding import fold
    from latlas.maps.loading import load_map
    from latlas.models.exporting import export_onnx

    check_new_file(out, ".onnx")
    if map_ is not None and what == "encode":
        raise SettingError("A map leads to a decoder; an encoder is exported without one. Leave --map or --what encode out.")
    try:
        count = batch if batch == "dynamic" else int(batch)
    except ValueError as failure:
        raise SettingError(f"--batch takes a whole number or the word dynamic, got {batch!r}.") from failure
    loaded = model_on(model, "cpu")
    chosen = loaded if map_ is None else fold(load_map(map_), loaded)
    result = export_onnx(chosen, out, what=what, batch=count)  # type: ignore[arg-type]  # checked there
    if json:
        print_json(
            {
                "model": chosen.name,
                "what": result.what,
                "inputs": list(result.inputs),
                "outputs": list(result.outputs),
                "batch": result.batch,
                "largest_difference": result.largest_difference,
                "out": str(out),
            }
        )
        return
    print(
        f"{chosen.name}: {' and '.join(result.inputs)} to {' and '.join(result.outputs)}; "
        f"onnxruntime and PyTorch differ by {result.largest_difference:.1g} at most."
    )
    say_where(out, "ONNX file")
