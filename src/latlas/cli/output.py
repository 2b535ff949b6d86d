"""What a verb prints: JSON alone on standard output, or a few lines for a person."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

_NAME = 40  # letters of the longest name

if TYPE_CHECKING:
    from latlas.reports.page import Finding, Report


def print_json(record: Mapping[str, Any]) -> None:
    """Print a record as JSON, and nothing else."""
    print(json.dumps(record, indent=2, allow_nan=False))


def print_findings(findings: Iterable[tuple[str, str, str]]) -> None:
    """Print findings: (level, headline, text)."""
    from rich.console import Console
    from rich.markup import escape

    marks = {"good": "[green]✓[/]", "note": "[yellow]•[/]", "warning": "[red]![/]"}
    console = Console()
    for level, headline, text in findings:
        console.print(f"{marks[level]} [bold]{escape(headline)}[/] {escape(text)}".rstrip())


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a table; numbers with four significant digits."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    lines = [[f"{cell:.4g}" if isinstance(cell, float) else "–" if cell is None else str(cell) for cell in row] for row in rows]
    # What stands first is often a name that is to be typed again: other columns make room for it, as long as no word or number of
    # theirs is cut.
    names = max((len(line[0]) for line in lines), default=0)
    words = [
        max(len(word) for cell in column for word in (cell.split() or [""])) for column in zip(columns, *lines, strict=False)
    ]
    whole = names <= _NAME and names + sum(word + 2 for word in words[1:]) <= console.width
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right", no_wrap=number == 0 and whole)
    for line in lines:
        table.add_row(*line)
    console.print(table)


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
