"""`latlas explore`: a local page to look at models on."""

import signal
import sys
from typing import Annotated

import typer

from latlas.cli.options import MODELS, Device


def explore(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL",
            help=f"Models to look at, {MODELS}",
            show_default="those of digits and avatars that latlas carries",
        ),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data",
            metavar="DATA",
            help="Images to look at them with; may be given several times: each model takes the first of its shape.",
            show_default="mnist:test or avatars:test, by the model's shape",
        ),
    ] = None,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen at. Beyond 127.0.0.1, whoever reaches it can use the page.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option("--port", help="Port to listen at; 0 takes a free one.", show_default="7860, or a free one")
    ] = None,
    names: Annotated[
        list[str] | None,
        typer.Option(
            "--name",
            metavar="NAME",
            help="Other name that the page is called by, as behind a proxy: lab.example.org; may be given several times. "
            "Under names other than these and the machine's own it then does not answer.",
            show_default="127.0.0.1 and localhost; any, with an address that others reach",
        ),
    ] = None,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in a browser.")] = True,
    device: Device = "auto",
) -> None:
    """Look at models on a local page: move variables, relocate images, walk through sectors, test ranges, sample, diagnose.

    Nothing leaves this machine. Needs: pip install 'latlas[explore]'. Stop with Ctrl-C.

    Example: latlas explore

    Example: latlas explore runs/a runs/b --data mnist:test
    """
    from importlib.util import find_spec

    from latlas.app.charts import open_atlas
    from latlas.app.serving import free_port, is_local, own_names, serve
    from latlas.base.errors import MissingExtraError
    from latlas.cli.progress import shown

    if find_spec("gradio") is None:
        raise MissingExtraError("The explorer needs gradio: pip install 'latlas[explore]'")
    free_port(host, port)  # before anything is loaded
    own_names(host, names or ())
    with shown() as progress:
        atlas = open_atlas(models or (), data=data or (), device=device, progress=progress)
    for chart in atlas.charts.values():
        if chart.remark:
            print(f"{chart.label}: {chart.remark}")
    served = serve(atlas, host=host, port=port, names=names or (), browser=browser)
    print(f"The explorer is at {served.url} (stop with Ctrl-C)", flush=True)
    if not is_local(host):
        print("Whoever reaches that address can use it: there is no password.", flush=True)
    signal.signal(signal.SIGTERM, _leave)
    served.wait()


def _leave(_number: int, _frame: object) -> None:
    sys.exit(143)  # as a shell reports it, and with what leaving does: visitors' uploads are removed
