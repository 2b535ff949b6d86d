"""The command `latlas`: one verb per question. Help is shown without importing torch."""

import sys
from typing import Annotated

import typer

from latlas.base.errors import LatlasError
from latlas.cli import (
    covering,
    exploring,
    exporting,
    inverting,
    mapping,
    measuring,
    ordering,
    pruning,
    sampling,
    studying,
    supporting,
    touring,
    training,
    zoo,
)

app = typer.Typer(
    name="latlas",
    help=(
        "An atlas of latent spaces: train, diagnose, translate and cover generative models.\n\n"
        "MODEL is a folder that latlas wrote, diffusers:FOLDER-or-Hub-id, pythae:FOLDER, zoo:NAME, the scheme of an installed "
        "package, or GENERATOR+RECODER, as runs/gan+runs/codes. DATA is mnist, fashion-mnist, avatars or "
        "avatars-peeps with :train or :test, celeba:FOLDER with :train, :val or :test, hub:NAME, a folder of pictures, "
        "tar shards ('x-{000..009}.tar'), Parquet files, an .npy or an .npz; each may end in [start:stop].\n\n"
        "Avatars take settings after a ?: 'avatars:train?hat=0.01&glasses=1' draws a hat in 1 % of the images and glasses in all; "
        "'avatars?hair=long01' pins the hair. CelebA takes ?crop=140, files and Hub sets ?size=64. Quote what holds ?, & or [.\n\n"
        "Start with: latlas tour"
    ),
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
app.command("tour")(touring.tour)
app.command("train", cls=training.TrainCommand)(training.train)
app.command("encode")(measuring.encode)
app.command("diagnose")(measuring.diagnose)
app.command("prune")(pruning.prune)
app.command("calibrate")(sampling.calibrate)
app.command("sample")(sampling.sample)
app.command("map")(mapping.map_)
app.command("relocate")(mapping.relocate)
app.command("export")(exporting.export)
app.command("order")(ordering.order)
app.command("support")(supporting.support)
app.command("cover")(covering.cover)
app.command("invert")(inverting.invert)
app.command("range")(measuring.range_)
app.command("zoo")(zoo.zoo)
app.command("explore")(exploring.explore)
app.add_typer(studying.app, name="study")


def run() -> None:
    """Run the command line: a user's mistake is one line and exit code 2, an interruption 130."""
    try:
        app()
    except LatlasError as mistake:
        print(f"latlas: {mistake}", file=sys.stderr)
        sys.exit(2)
    except (KeyboardInterrupt, SystemExit) as end:
        interruption = _interruption(end)
        if interruption is None:
            raise
        print("latlas: interrupted" + (f"; {interruption}" if str(interruption) else ""), file=sys.stderr)
        sys.exit(130)


def _interruption(end: BaseException | None) -> KeyboardInterrupt | None:
    # Typer turns a KeyboardInterrupt into an exit of its own, with the interruption behind it.
    while end is not None and not isinstance(end, KeyboardInterrupt):
        end = end.__cause__ or end.__context__
    return end


def _version(value: bool) -> bool:
    if value:
        from latlas._version import __version__

        print(__version__)
        raise typer.Exit
    return value


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    """Carry options of the command itself."""
