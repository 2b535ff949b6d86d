"""Arguments and options that several verbs have, written once."""

from pathlib import Path
from typing import Annotated

import typer

Out = Annotated[
    Path | None,
    typer.Option("--out", help="Folder to write the result to; it must not exist yet.", show_default="nothing is written"),
]
Seed = Annotated[int, typer.Option("--seed", help="Decides every random choice; any whole number.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:1.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else, on standard output.")]
Replace = Annotated[bool, typer.Option("--replace", help="Replace an earlier latlas artifact at --out.")]
Resize = Annotated[
    int | None,
    typer.Option(
        "--resize",
        help="Crop a folder's pictures to their central square and resize them to this side, in pixels; the side of avatars and CelebA.",
    ),
]
# What an argument may be, in words that several of them have
_FORMS = "a folder that latlas wrote, zoo:NAME, diffusers:, pythae: or stylegan2:FILE, or GENERATOR+RECODER"
_MORE = "; latlas --help has all forms."
MODELS = f"each {_FORMS}{_MORE}"
DATA = (
    "mnist:test, fashion-mnist, avatars, celeba:FOLDER, hub:NAME, a folder, .npy, .npz, .tar or .parquet; [a:b] takes a part."
)

Model = Annotated[
    str,
    typer.Argument(metavar="MODEL", help=f"{_FORMS[0].upper()}{_FORMS[1:]}, as runs/gan+runs/codes, which encodes too{_MORE}"),
]
Decoder = Annotated[str, typer.Argument(metavar="MODEL", help=f"{_FORMS[0].upper()}{_FORMS[1:]}{_MORE}")]
Generator = Annotated[str, typer.Argument(metavar="GENERATOR", help=f"What draws images: {_FORMS}{_MORE}")]
Source = Annotated[str, typer.Argument(metavar="SOURCE", help=f"The model whose codes are relocated: {_FORMS}{_MORE}")]
Target = Annotated[str, typer.Argument(metavar="TARGET", help="The model into whose latent space, named likewise.")]
Test = Annotated[
    str | None, typer.Option("--test", metavar="DATA", help="Images to measure on.", show_default="the last fifth of DATA")
]
Data = Annotated[str, typer.Argument(metavar="DATA", help=DATA)]

# Of trainings
BatchSize = Annotated[int, typer.Option("--batch-size", help="Images of an optimiser step.")]
Precision = Annotated[str, typer.Option("--precision", help="auto, float32 or bfloat16.")]
Name = Annotated[
    str | None, typer.Option("--name", help="What reports call the result.", show_default="the folder's name, or the kind")
]

# Of studies
Budget = Annotated[str, typer.Option("--budget", help="quick: minutes; paper: the sizes of what was published, hours.")]
Work = Annotated[
    Path | None,
    typer.Option(
        "--work",
        help="Folder to keep trainings in: cut off, the study goes on, and others share them.",
        show_default="none is kept",
    ),
]
