"""The command `latlas`: one verb per question. Help is shown without importing torch."""

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

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
    shell,
    studying,
    supporting,
    touring,
    training,
    zoo,
)


class Root(TyperGroup):
    """The command itself. Of an interruption it keeps the words, where Typer would make a number of it."""

    def invoke(self, ctx: Any) -> Any:
        """Run the verb.

        Raises:
            Interrupted: Ctrl-C.
        """
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, SystemExit) as end:
            interruption = shell.interruption_behind(end)
            if interruption is None:
                raise
            raise shell.Interrupted(str(interruption)) from interruption


app = typer.Typer(
    name="latlas",
    cls=Root,
    context_settings={"help_option_names": ["--help", "-h"]},
    help=(
        "An atlas of latent spaces: train, diagnose, translate and cover generative models.\n\n"
        "MODEL is a folder that latlas wrote, or its Hub id; zoo:NAME, of those that `latlas zoo` lists; diffusers:FOLDER or "
        "diffusers:HUB-ID; pythae:FOLDER; 'stylegan2:FILE.pkl#w', or #z, or #w+; the scheme of an installed package; or "
        "GENERATOR+RECODER, as runs/gan+runs/codes, which encodes too.\n\n"
        "DATA is mnist or fashion-mnist, with :train, which is meant where nothing is said, or :test; avatars or avatars-peeps, "
        "likewise; celeba:FOLDER with :train, :val or :test; hub:OWNER/NAME; a folder of pictures; tar shards "
        "('x-{000..009}.tar'); Parquet files; an .npy or an .npz. Each may end in [start:stop], as 'mnist:test[0:500]'.\n\n"
        "Avatars take settings after a ?: 'avatars:train?hat=0.01&glasses=1' draws a hat in 1 % of the images and glasses in all; "
        "'avatars?hair=long01' pins the hair. CelebA takes ?crop=140, files and Hub sets ?size=64. Quote what holds ?, & or [.\n\n"
        "Start with: latlas tour"
    ),
    no_args_is_help=True,
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
    shell.settle_streams()
    try:
        code = app(prog_name="latlas", standalone_mode=False)
        shell.flush()
    except shell.Interrupted as interruption:
        shell.leave(130, "interrupted" + (f"; {interruption}" if str(interruption) else ""))
    except LatlasError as mistake:
        shell.leave(2, str(mistake))
    except shell.UsageMistake as mistake:
        line = shell.usage_line(mistake, sys.argv[1:])
        if line is None:
            sys.exit(2)
        shell.leave(2, line)
    except Exception as failure:
        line = shell.failure_line(failure)
        if line is None:
            raise
        shell.leave(2, line)
    sys.exit(code if isinstance(code, int) else 0)


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
