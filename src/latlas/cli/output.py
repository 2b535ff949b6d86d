"""What a verb prints: JSON alone on standard output, or a few lines for a person."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any


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

    table = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right")
    for row in rows:
        table.add_row(*(f"{cell:.4g}" if isinstance(cell, float) else "–" if cell is None else str(cell) for cell in row))
    Console().print(table)


def say_where(path: str | Path, what: str = "report") -> None:
    """Print where the result lies."""
    print(f"The {what} lies at {path}")
