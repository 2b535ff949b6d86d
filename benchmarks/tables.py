"""Tables of measured figures inside the documents: written by the benchmark that measured them, between two marks."""

from pathlib import Path

ROOT = Path(__file__).parents[1]


def write_table(document: str, name: str, content: str) -> None:
    """Put a table between the marks `<!-- NAME: begin -->` and `<!-- NAME: end -->` of a document.

    Args:
        document: path from the root of the repository.
        name: of the marks.
        content: Markdown.

    Raises:
        ValueError: the document has no such marks.
    """
    path = ROOT / document
    path.write_text(between_marks(path.read_text(encoding="utf-8"), name, content), encoding="utf-8")


def between_marks(text: str, name: str, content: str) -> str:
    """Return a text with what stands between two marks replaced."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    if begin not in text or end not in text:
        raise ValueError(f"No marks {begin} and {end}: the table has nowhere to go.")
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n{content}\n{end}{after}"


def table(columns: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
