"""What a verb prints: JSON alone on standard output, or a few lines for a person."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

_NAME = 40  # letters of the longest name
_GAP = 2  # between columns
_CUT = "…"  # where a word was

if TYPE_CHECKING:
    from rich.table import Table

    from latlas.reports.page import Finding, Report


def print_json(record: Mapping[str, Any]) -> None:
    """Print a record as JSON, and nothing else."""
    print(json.dumps(record, indent=2, allow_nan=False))


def print_findings(findings: Iterable[tuple[str, str, str]]) -> None:
    """Print findings: (level, headline, text)."""
    from rich.console import Console
    from rich.markup import escape

    console = Console()
    good, note = ("✓", "•") if _draws("✓•", console.encoding) else ("+", "-")
    marks = {"good": f"[green]{good}[/]", "note": f"[yellow]{note}[/]", "warning": "[red]![/]"}
    for level, headline, text in findings:
        # A name of data may hold what would be a picture: hub:dog:train.
        console.print(f"{marks[level]} [bold]{escape(headline)}[/] {escape(text)}".rstrip(), emoji=False)


def _draws(signs: str, encoding: str) -> bool:
    try:
        signs.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a table; numbers with four significant digits.

    No number or word of it is cut, an exponent least of all: columns that a narrow terminal has no room for stand below the others,
    with the first one beside them again.
    """
    from rich.cells import cell_len
    from rich.console import Console

    console = Console()
    lines = [[f"{cell:.4g}" if isinstance(cell, float) else "–" if cell is None else str(cell) for cell in row] for row in rows]
    texts = [list(columns), *lines]
    # What stands first is often a name that is to be typed again: other columns make room for it, as long as no word or number of
    # theirs is cut.
    names = max((cell_len(line[0]) for line in lines), default=0)
    words = [max(cell_len(word) for cell in column for word in (cell.split() or [""])) for column in zip(*texts, strict=False)]
    others = sum(word + _GAP for word in words[1:])
    whole = names <= _NAME and names + others <= console.width
    table = _table(title, texts, whole=whole)
    with console.capture() as drawn:
        console.print(table)
    cuts = drawn.get().count(_CUT) - "".join([title, *(cell for text in texts for cell in text)]).count(_CUT)
    if words[0] + others <= console.width and cuts <= 0:
        console.print(table)
        return
    for block, widths in _blocks(texts, words, console.width):
        part = [[text[column] for column in block] for text in texts]
        across = sum(widths) + _GAP * (len(widths) - 1)
        Console(width=max(across, console.width)).print(_table(title, part, widths))
        title = ""


def _blocks(texts: Sequence[Sequence[str]], words: Sequence[int], width: int) -> Iterable[tuple[list[int], list[int]]]:
    """Yield which columns stand beside the first one, block by block, and how wide each is: no less than its longest word."""
    from rich.cells import cell_len

    natural = [max(map(cell_len, column)) for column in zip(*texts, strict=False)]
    first = natural[0] if natural[0] <= _NAME else words[0]
    rest = list(range(1, len(natural)))
    while rest:
        taken = 1
        while taken < len(rest) and first + sum(words[column] + _GAP for column in rest[: taken + 1]) <= width:
            taken += 1
        block = [0, *rest[:taken]]
        rest = rest[taken:]
        least = [first, *(words[column] for column in block[1:])]
        widths = [max(natural[column], few) for column, few in zip(block, least, strict=True)]
        while sum(widths) + _GAP * (len(widths) - 1) > width and widths != least:
            widest = max((wide, -place) for place, wide in enumerate(widths) if wide > least[place])
            widths[-widest[1]] -= 1
        yield block, widths


def _table(title: str, texts: Sequence[Sequence[str]], widths: Sequence[int] | None = None, *, whole: bool = False) -> "Table":
    """Return a table whose cells stand as they are: names of files may hold what would be markup.

    Args:
        title: above it; none where it is empty.
        texts: columns' names, and then the rows.
        widths: of the columns, without the gaps between them; None: as rich has it.
        whole: never wrap the first column.
    """
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    heading = Text(title, style="table.title") if title else None
    columns, *lines = [[Text(cell) for cell in text] for text in texts]
    if widths is None:
        table = Table(title=heading, title_justify="left", header_style="bold", box=None, pad_edge=False)
        for number, column in enumerate(columns):
            table.add_column(column, justify="right" if number else "left", no_wrap=number == 0 and whole)
        for line in lines:
            table.add_row(*line)
        return table
    # The gap stands in the cells: which of its own paddings rich counts to a width that is given differs between its versions.
    table = Table(title=heading, title_justify="left", header_style="bold", box=None, padding=0)
    for number, (column, width) in enumerate(zip(columns, widths, strict=True)):
        gap = _GAP if number else 0
        table.add_column(Padding(column, (0, 0, 0, gap)), justify="right" if number else "left", width=width + gap)
    for line in lines:
        table.add_row(*(Padding(cell, (0, 0, 0, _GAP if number else 0)) for number, cell in enumerate(line)))
    return table


def check_new_file(path: Path, ends: str, *, option: str = "--out") -> None:
    """Raise now, before any work, unless a new file of this kind can lie there.

    Raises:
        SettingError: its name ends otherwise.
        OutputExistsError: something lies there.
        ArtifactError: nothing could be written there.
    """
    from latlas.base.artifacts import check_place
    from latlas.base.errors import OutputExistsError, SettingError

    if path.suffix != ends:
        raise SettingError(f"{option} takes a new file that ends in {ends}, got {str(path)!r}.")
    check_place(path)
    if os.path.lexists(path):
        raise OutputExistsError(f"{path} already exists; name a new file that ends in {ends}.")


def check_outside(inner: tuple[str, Path | None], *outer: tuple[str, Path | None]) -> None:
    """Raise now, before any work, where a place lies in one that is written too: the later of the two would find it taken.

    Args:
        inner: option and path, if it was given.
        outer: likewise, of the others.

    Raises:
        SettingError: it lies in one of them, or is the same.
    """
    from latlas.base.errors import SettingError

    option, path = inner
    for other, above in outer:
        if path is not None and above is not None and above.absolute() in (path.absolute(), *path.absolute().parents):
            raise SettingError(f"{option} lies in {other} ({above}), which is written as a whole; name a place beside it.")


def say_where(path: str | Path, what: str = "report") -> None:
    """Print where the result lies."""
    print(f"The {what} lies at {path}")


def page_of(report: "Report", out: Path | None, *, replace: bool) -> Path | None:
    """Write a report where --out asks for it; return its page, or None."""
    from latlas.reports.page import write_report

    return None if out is None else write_report(report, out, replace=replace)


def tell_study(
    numbers: Mapping[str, Any],
    findings: "Sequence[Finding]",
    *tables: tuple[str, Sequence[str], Iterable[Sequence[Any]]],
    page: Path | None,
    as_json: bool,
) -> None:
    """Print what a study found: its numbers alone as JSON; or its tables, its findings, and where its page lies.

    Args:
        numbers: all of them.
        findings: in words.
        tables: title, columns and rows of each.
        page: that was written, if any.
        as_json: whether --json was given.
    """
    if as_json:
        print_json(numbers)
        return
    for title, columns, rows in tables:
        print_table(title, columns, rows)
    print_findings((finding.level, finding.headline, finding.text) for finding in findings)
    if page is not None:
        say_where(page)
