"""Make a notebook of each tutorial, run it, and keep it with what it printed and drew: notebooks/.

    make notebooks                                     # all of them
    python tools/make_notebooks.py diagnose            # one
    python tools/make_notebooks.py --words             # only the words are new: nothing is run, what was printed is kept

The pages under docs/tutorials are the only text: cells are made of them, and a test holds the notebooks to them. Prose becomes Markdown
cells, blocks that run become code cells, and a picture that the page's blocks made becomes a cell that shows it.
"""

import argparse
import inspect
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import run_pages

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "tutorials"
FOLDER = ROOT / "notebooks"
TIMEOUT = 900  # seconds for one cell
NOTE = """*Made from [docs/tutorials/{name}.md](../docs/tutorials/{name}.md) by `make notebooks`, and run: below each cell stands what it printed.
Start Jupyter with the environment of the project (`source .venv/bin/activate`), and run the cells from top to bottom. What they write
lies in a temporary folder.*"""

SETUP = """import base64
import os
import re
import tempfile
from pathlib import Path

from IPython.display import SVG, Image, display

os.chdir(tempfile.mkdtemp())


{helper}

def show(place, number=1):
    '''Show a picture file, or the picture with this number of a report.'''
    picture = picture_of(place, number)
    display(SVG(picture) if picture.startswith(b"<svg") else Image(picture))"""


def names() -> list[str]:
    """Return the tutorials that have a notebook."""
    return [name.removeprefix("tutorials/") for name in run_pages.PAGES if name.startswith("tutorials/")]


def notebook(name: str, text: str) -> dict[str, Any]:
    """Return the notebook of a page, not run yet (nbformat 4.5).

    Args:
        name: of the tutorial.
        text: its Markdown.
    """
    cells = [
        _cell(number, kind, source)
        for number, (kind, source) in enumerate([*_opening(name, text), *_cells(text.partition("\n")[2])])
    ]
    metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def _opening(name: str, text: str) -> Iterator[tuple[str, str]]:
    title = text.partition("\n")[0]
    yield "markdown", f"{title}\n\n{NOTE.format(name=name)}"
    yield "code", SETUP.format(helper=inspect.getsource(run_pages.picture_of))


def _cells(text: str) -> Iterator[tuple[str, str]]:
    """Yield the kind and the source of every cell, in the order of the page."""
    pieces: list[tuple[int, int, tuple[str, str] | None]] = []
    for block in run_pages.blocks(text):
        if block.runs:
            code = block.code.rstrip("\n")
            pieces.append((block.start, block.stop, ("code", f"%%bash\n{code}" if block.language == "sh" else code)))
        elif block.language == "output":
            pieces.append((block.start, block.stop, None))  # the cell before prints it
    for made in run_pages.made_pictures(text):
        numbered = f", {made.number}" if made.place.endswith(".html") else ""
        pieces.append((made.start, made.stop, ("code", f'show("{made.place}"{numbered})')))
    done = 0
    for start, stop, cell in sorted(pieces):
        yield from _prose(text[done:start])
        if cell is not None:
            yield cell
        done = stop
    yield from _prose(text[done:])


def _prose(text: str) -> Iterator[tuple[str, str]]:
    if text.strip():
        yield "markdown", re.sub(r"\]\((?![a-z]+:|#)([^)\s]+)\)", _link, text.strip())


def _link(found: re.Match[str]) -> str:
    """Return a link of the page as it must be from the folder of the notebooks."""
    place, mark, anchor = found[1].partition("#")
    return f"]({Path(os.path.relpath(PAGES / place, FOLDER)).as_posix()}{mark}{anchor})"


def _cell(number: int, kind: str, source: str) -> dict[str, Any]:
    cell: dict[str, Any] = {"cell_type": kind, "id": f"cell-{number}", "metadata": {}, "source": source}
    return cell | {"execution_count": None, "outputs": []} if kind == "code" else cell


def run(made: dict[str, Any]) -> dict[str, Any]:
    """Return the notebook with what its cells printed and drew.

    Raises:
        CellExecutionError: a cell failed (nbclient).
    """
    import nbclient
    import nbformat

    read = nbformat.from_dict(made)
    os.environ.update(run_pages._environment())  # the kernel's, and through it that of the shell cells
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        nbclient.NotebookClient(
            read, timeout=TIMEOUT, kernel_name="python3", resources=resources, record_timing=False
        ).execute()
    nbformat.validate(read)
    for cell in read.cells:
        if cell.cell_type == "code":
            cell.outputs = list(_tidied(cell.outputs))
    read.metadata["language_info"] = {"name": "python"}  # without the version of this machine
    return read


def with_outputs_of(made: dict[str, Any], kept: dict[str, Any]) -> dict[str, Any]:
    """Return the notebook with the outputs of an earlier one of the same code.

    Raises:
        ValueError: a code cell is not as it was, so that its outputs say nothing.
    """
    of_code = [[cell for cell in book["cells"] if cell["cell_type"] == "code"] for book in (made, kept)]
    if [cell["source"] for cell in of_code[0]] != ["".join(cell["source"]) for cell in of_code[1]]:
        raise ValueError("Not only words have changed: run the notebook again, without --words.")
    for cell, before in zip(*of_code, strict=True):
        cell |= {name: before[name] for name in ("execution_count", "outputs")}
    return made


def _tidied(outputs: list[Any]) -> Iterator[Any]:
    """Yield what a cell printed as one output, without colours and progress, and then what it drew."""
    import nbformat

    printed = "".join(output.text for output in outputs if output.get("name") == "stdout")
    if printed:
        text = run_pages.tidied(re.sub(r"\x1b\[[0-9;]*m", "", printed))
        yield nbformat.v4.new_output("stream", name="stdout", text=text)
    for output in outputs:
        if output.output_type != "stream":
            if "image/svg+xml" in output.get("data", {}):
                output.data["image/svg+xml"] = run_pages.on_white(output.data["image/svg+xml"].encode()).decode()
            yield output


def main() -> int:
    """Make and run notebooks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", default=names(), help="all tutorials, if none is given")
    parser.add_argument("--words", action="store_true", help="keep the outputs: only words have changed")
    asked = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    for name in asked.names:
        path = FOLDER / f"{name}.ipynb"
        made = notebook(name, (PAGES / f"{name}.md").read_text(encoding="utf-8"))
        done = with_outputs_of(made, json.loads(path.read_text(encoding="utf-8"))) if asked.words else run(made)
        path.write_text(json.dumps(done, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"notebooks/{name}.ipynb")
    return 0


if __name__ == "__main__":
    sys.exit(main())
