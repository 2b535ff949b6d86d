"""Run the code blocks of a documentation page, in order, and write what they printed below them.

    make docs-outputs                                  # run all of PAGES, and rewrite their output blocks
    python tools/run_pages.py docs/start.md            # one page
    python tools/run_pages.py --check docs/start.md    # run, and compare instead

Each page runs in a folder of its own, which starts empty. Blocks marked `sh` run in a shell that stops at the first error; blocks
marked `python` share one interpreter. A block with `title="Not run here: …"` is left alone, and the reader sees the reason; so
is one that holds nothing but calls of make, which the continuous integration runs itself. A block marked `output` shows what the
block before it printed on standard output. A picture under `<!-- picture 2 of health/report.html -->` is the second of that report,
and one under `<!-- samples.png -->` is that file, as the page's blocks left them in its folder.
"""

import argparse
import base64
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = (  # those whose every block runs
    "start",
    "tutorials/diagnose",
    "tutorials/translate",
    "tutorials/cover",
    "tutorials/train",
    "how-to/callable",
    "how-to/folder",
    "how-to/diffusers-vae",
    "how-to/stylegan",
    "how-to/several-gpus",
)
WIDTH = 96  # columns of what is printed: what a page shows without scrolling
SKIPPED = "Not run here: "
# What the shared interpreter does: blocks come in by files, which it names on standard input; a mark ends what each one printed.
_INTERPRETER = """
import sys, traceback
names = {"__name__": "__main__"}
for path in sys.stdin:
    path = path.strip()
    try:
        exec(compile(open(path, encoding="utf-8").read(), path, "exec"), names)
        print("\\x00done", flush=True)
    except BaseException:
        traceback.print_exc()
        print("\\x00failed", flush=True)
"""


class BlockError(Exception):
    """A block failed; the words say which one and how."""


@dataclass(frozen=True, kw_only=True)
class Made:
    """A picture of a page that the page's own blocks make.

    Args:
        place: the report or picture file, in the folder of the run.
        number: of the picture in the report, from 1.
        target: where the page has it, from the page's folder.
        start, stop: its place in the text.
    """

    place: str
    number: int
    target: str
    start: int
    stop: int


def made_pictures(text: str) -> list[Made]:
    """Return the pictures of a Markdown text that its blocks make, in order."""
    form = r"^<!-- (?:picture (\d+) of )?(\S+\.(?:html|png|svg)) -->\n!\[[^\]]*\]\(([^)\s]+)\)$"
    return [
        Made(place=found[2], number=int(found[1] or 1), target=found[3], start=found.start(), stop=found.end())
        for found in re.finditer(form, text, flags=re.MULTILINE)
    ]


def picture_of(place: str | Path, number: int = 1) -> bytes:
    """Return a picture file, or the picture with this number of a report: a drawing (SVG) or a PNG."""
    if Path(place).suffix != ".html":
        return Path(place).read_bytes()
    page = Path(place).read_text(encoding="utf-8")
    pictures = re.findall(r'<figure>.*?(?:(<svg.*?</svg>)|<img src="data:image/png;base64,([^"]+)")', page, flags=re.DOTALL)
    drawing, pixels = pictures[number - 1]
    return drawing.encode() if drawing else base64.b64decode(pixels)


def on_white(picture: bytes) -> bytes:
    """Return a drawing with an ink and a ground of its own, as it needs where it stands alone; a PNG as it is."""
    if not picture.startswith(b"<svg"):
        return picture
    return picture.replace(b"currentColor", b"#1c2430").replace(b"<svg ", b'<svg style="background:#ffffff" ', 1) + b"\n"


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block of a page.

    Args:
        language: the word behind the fence.
        title: the reader sees it above the block.
        code: without the fences.
        start, stop: its place in the text, fences included.
        line: of the opening fence, from 1.
    """

    language: str
    title: str
    code: str
    start: int
    stop: int
    line: int

    @property
    def runs(self) -> bool:
        """Whether the block is run."""
        commands = [line for line in self.code.splitlines() if line.strip() and not line.startswith("#")]
        only_make = bool(commands) and all(line.split()[0] == "make" for line in commands)
        return self.language in ("sh", "python") and not self.title.startswith(SKIPPED) and not only_make


def blocks(text: str) -> list[Block]:
    """Return the fenced blocks of a Markdown text, in order."""
    found = []
    for match in re.finditer(r"^```(\w+)?([^\n`]*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL):
        title = re.search(r'title="([^"]*)"', match[2])
        found.append(
            Block(
                language=match[1] or "",
                title=title[1] if title else "",
                code=match[3],
                start=match.start(),
                stop=match.end(),
                line=text.count("\n", 0, match.start()) + 1,
            )
        )
    return found


def run_page(text: str, folder: Path) -> list[tuple[Block, str]]:
    """Run a page's blocks.

    Args:
        text: Markdown.
        folder: where they run; what they write stays there.

    Returns:
        What each block that ran printed on standard output.

    Raises:
        BlockError: one failed; later ones were not run.
    """
    results = []
    with _Interpreter(folder) as interpreter:
        for block in blocks(text):
            if block.runs:
                printed = interpreter.run(block) if block.language == "python" else _shell(block, folder)
                results.append((block, printed))
    return results


def with_outputs(text: str, results: list[tuple[Block, str]]) -> str:
    """Return the text with what was printed in the output blocks behind the blocks that printed it."""
    printed = {block.start: output for block, output in results}
    pieces, done = [], 0
    for before, block in _pairs(text):
        if block.language == "output" and before is not None and before.start in printed:
            pieces += [text[done : block.start], f"```output\n{tidied(printed[before.start])}```"]
            done = block.stop
    return "".join([*pieces, text[done:]])


def shown(text: str) -> list[tuple[Block, str]]:
    """Return each run block that has an output block behind it, and what that one shows."""
    return [(before, block.code) for before, block in _pairs(text) if block.language == "output" and before and before.runs]


def tidied(output: str) -> str:
    """Return printed text without trailing blanks, and without empty lines at its ends."""
    lines = [line.rstrip() for line in output.splitlines()]
    while lines and not lines[0]:
        del lines[0]
    while lines and not lines[-1]:
        del lines[-1]
    return "".join(line + "\n" for line in lines)


def words(output: str) -> list[str]:
    """Return what must be the same on every machine: the words, without numbers and without where lines break."""
    return re.sub(r"[-+]?\d[\d.,]*(e[-+]?\d+)?", "#", output).split()


def _pairs(text: str) -> Iterator[tuple[Block | None, Block]]:
    before = None
    for block in blocks(text):
        yield before, block
        before = block


def _environment() -> dict[str, str]:
    """Return the environment of the blocks: this interpreter's commands first, and lines of one width."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {**os.environ, "PATH": path, "COLUMNS": str(WIDTH), "NO_COLOR": "1", "PYTHONUNBUFFERED": "1", "MPLBACKEND": "Agg"}


def _shell(block: Block, folder: Path) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.code],
        cwd=folder,
        env=_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BlockError(f"line {block.line}: exit code {done.returncode}\n{block.code}{done.stdout}{done.stderr}")
    return done.stdout


class _Interpreter:
    """One Python process for the blocks of a page, started with the first of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> "_Interpreter":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.communicate()

    def run(self, block: Block) -> str:
        """Return what the block printed."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _INTERPRETER],
                cwd=self._folder,
                env=_environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with tempfile.NamedTemporaryFile("w", suffix=f"-line-{block.line}.py", encoding="utf-8", delete=False) as file:
            file.write(block.code)
        self._process.stdin.write(file.name + "\n")
        self._process.stdin.flush()
        printed = []
        for line in self._process.stdout:
            text, mark, end = line.partition("\x00")
            printed.append(text)
            if mark:
                Path(file.name).unlink()
                if end.strip() == "done":
                    return "".join(printed)
                break
        raise BlockError(
            f"line {block.line}: a Python block failed; its traceback is on standard error\n{block.code}{''.join(printed)}"
        )


def main() -> int:
    """Run pages; rewrite their output blocks, or compare them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    pages = [ROOT / "docs" / f"{name}.md" for name in PAGES]
    parser.add_argument("pages", nargs="*", type=Path, default=pages, help="all of PAGES, if none is given")
    parser.add_argument("--check", action="store_true", help="compare the words of the output blocks instead of writing them")
    asked = parser.parse_args()
    differ = 0
    for page in asked.pages:
        text = page.read_text(encoding="utf-8")
        with tempfile.TemporaryDirectory() as folder:
            results = run_page(text, Path(folder))
            drawn = {made.target: on_white(picture_of(Path(folder) / made.place, made.number)) for made in made_pictures(text)}
        after = with_outputs(text, results)
        if not asked.check:
            page.write_text(after, encoding="utf-8")
            for target, picture in drawn.items():
                (page.parent / target).parent.mkdir(parents=True, exist_ok=True)
                (page.parent / target).write_bytes(picture)
        elif [words(output) for _, output in shown(text)] != [words(output) for _, output in shown(after)]:
            differ += 1
            print(f"{page}: prints something else now; python tools/run_pages.py {page}")
    return int(differ > 0)


if __name__ == "__main__":
    sys.exit(main())
