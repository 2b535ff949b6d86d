"""`latlas zoo`: what `zoo:name` may name, without loading any of it, nor torch."""

import shutil
from typing import TYPE_CHECKING, Annotated

import typer

from latlas.cli.options import Json

if TYPE_CHECKING:
    from latlas.models.carried_folders import ZooEntry


_COLUMNS = ("zoo:", "kind", "images", "codes", "MB", "measured", "made by")
_ACROSS = {110: len(_COLUMNS), 76: 5, 0: 2}  # letters of a line, and how many of the columns it holds


def zoo(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="Show the card of this one.",
            show_default="all, as a table",
            autocompletion=lambda: _names(),
        ),
    ] = None,
    json: Json = False,
) -> None:
    """List the pretrained models, maps and samplers: zoo:NAME stands wherever a folder of such a thing does.

    Each was made by one command with one seed, which its card has. Of models: how many latent variables are active, and the squared
    error per pixel. Of maps: the squared error per pixel of what the target decodes from relocated codes. Of samplers: the Fréchet
    distance of their images.

    Example: latlas zoo

    Example: latlas zoo digits-dense
    """
    from latlas.base.errors import unknown_name
    from latlas.cli.output import print_json, print_table
    from latlas.models.carried_folders import SCHEME, carried_card, zoo_entries

    entries = {entry.name: entry for entry in zoo_entries()}
    if name is None:
        if json:
            print_json({"entries": [entry.to_json() for entry in entries.values()]})
            return
        letters = shutil.get_terminal_size().columns
        shown = next(few for wide, few in _ACROSS.items() if letters >= wide)
        rows = [_row(entry)[:shown] for entry in entries.values()]
        print_table(f"Where a MODEL, a MAP or a sampler is asked for, write {SCHEME}NAME", _COLUMNS[:shown], rows)
        if shown < len(_COLUMNS):
            print("What was measured of each, and what made it: latlas zoo NAME")
        return
    chosen = name.removeprefix(SCHEME).partition("#")[0]
    if chosen not in entries:
        raise unknown_name("name of the zoo", chosen, entries)
    if json:
        print_json(entries[chosen].to_json())
    elif entries[chosen].size is None:
        print_table(f"{SCHEME}{chosen}", ("", ""), entries[chosen].to_json().items())
    else:
        print(carried_card(chosen).rstrip())


def _names() -> list[str]:
    from latlas.models.carried_folders import zoo_entries

    return [entry.name for entry in zoo_entries()]


def _row(entry: "ZooEntry") -> list[str | None]:
    return [
        entry.name,
        entry.kind,
        None if entry.images is None else "x".join(map(str, entry.images)),
        "x".join(map(str, entry.codes)),
        None if entry.size is None else f"{entry.size / 1e6:.2f}",
        shown_measure(entry),
        _verb(entry.made_by) if entry.size is not None else entry.made_by,
    ]


def _verb(command: str) -> str:
    """Return the beginning of a command: the whole of it is in the card, and in JSON."""
    words = command.split()
    return " ".join(words[: 3 if words[1] == "train" else 2])


def shown_measure(entry: "ZooEntry") -> str | None:
    """Return what was measured of an artifact, in a few words; None where nothing was."""
    found = entry.measured
    if "active" in found:
        return f"{found['active']} of {found['variables']} active, error {found['mse']:.4f}"
    if "M" in found:
        return f"error {found['M']:.4f}"
    if "distances" in found:
        return ", ".join(f"{name} {value:.0f}" for name, value in found["distances"].items())
    return None
