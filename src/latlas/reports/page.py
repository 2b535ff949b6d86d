"""A report: a title, findings in words, sections of pictures and tables; written as one self-contained HTML file."""

import base64
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from latlas.base.artifacts import write_config, write_json, writing
from latlas.base.provenance import Provenance

KIND = "report"
HTML = "report.html"
JSON = "report.json"

_COMMAND = re.compile(r"`([^`]+)`")
_WIDTH = re.compile(r"<svg[^>]*\swidth=\"([0-9.]+)(pt|px)?\"")  # of a drawing, which begins with it
_SENTENCE = 32  # letters from which a cell is read as a sentence

Level = Literal["good", "note", "warning"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One sentence to read first, and what follows from it."""

    headline: str
    text: str = ""
    level: Level = "note"


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An SVG drawing or PNG bytes, with what it shows in words for those who cannot see it."""

    content: str | bytes
    caption: str
    alt: str
    row_labels: Sequence[str] = ()  # what each row of a grid is, top to bottom

    @property
    def kind(self) -> str:
        """The template's word for the block."""
        return "picture"

    @property
    def source(self) -> Markup:
        """The drawing itself, or a data address of the PNG."""
        if isinstance(self.content, str):
            return Markup(self.content)  # drawn by latlas.reports.figures, never by a user
        return Markup("data:image/png;base64," + base64.b64encode(self.content).decode())

    @property
    def width(self) -> str:
        """Return how wide a drawing was meant to be, as CSS has it; nothing where it does not say so."""
        found = _WIDTH.match(self.content) if isinstance(self.content, str) else None
        return "" if found is None else f"{found[1]}{found[2] or 'px'}"

    @property
    def is_svg(self) -> bool:
        """Whether the content is a drawing."""
        return isinstance(self.content, str)


@dataclass(frozen=True, kw_only=True)
class Table:
    """Columns and rows; numbers are formatted here, so that every page writes them alike."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""
    dim: Sequence[bool] = ()  # rows to show muted

    @property
    def kind(self) -> str:
        """The template's word for the block."""
        return "table"

    def wordy(self, column: int) -> bool:
        """Whether a column after the first holds sentences, which stand to the left and may break."""
        return column > 0 and any(isinstance(row[column], str) and len(row[column]) > _SENTENCE for row in self.rows)


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """A few numbers large: (value, label, remark)."""

    items: Sequence[tuple[Any, str, str]]

    @property
    def kind(self) -> str:
        """The template's word for the block."""
        return "numbers"


@dataclass(frozen=True, kw_only=True)
class Words:
    """A paragraph."""

    text: str

    @property
    def kind(self) -> str:
        """The template's word for the block."""
        return "words"


Block = Picture | Table | Numbers | Words


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading, a lead that says what is to be seen, blocks, and findings."""

    title: str
    lead: str
    blocks: Sequence[Block]
    findings: Sequence[Finding] = ()

    @property
    def anchor(self) -> str:
        """The section's address within the page."""
        return "".join(letter if letter.isalnum() else "-" for letter in self.title.lower()).strip("-")


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a page says, and the numbers that it says it from."""

    title: str
    subtitle: str
    summary: Sequence[Finding]
    sections: Sequence[Section]
    numbers: Mapping[str, Any]  # report.json
    provenance: Provenance
    headline: Numbers | None = None
    details: Mapping[str, str] = field(default_factory=dict)  # provenance in words: label -> value


def render(report: Report) -> str:
    """Return the page: no script, no address of another host, readable from 390 pixels up, light and dark."""
    environment = Environment(
        autoescape=select_autoescape(default=True), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = format_number
    environment.filters["commands"] = with_commands
    environment.filters["together"] = _together
    template = resources.files("latlas.reports").joinpath("templates/report.html.j2").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        report=report, parts=list(zip(_anchors(report), report.sections, strict=True))
    )


def _anchors(report: Report) -> list[str]:
    """Return an address for each section, no two alike: two models may bear one name."""
    found: list[str] = []
    for section in report.sections:
        free = (f"{section.anchor or 'section'}{f'-{number}' if number > 1 else ''}" for number in itertools.count(1))
        found.append(next(anchor for anchor in free if anchor not in found))
    return found


def write_report(report: Report, folder: str | Path, *, replace: bool = False) -> Path:
    """Write `report.html` and `report.json` as an artifact folder; return the page's path.

    Raises:
        OutputExistsError: the folder already holds something.
    """
    with writing(folder, replace=replace) as beside:
        write_files(report, beside)
    return Path(folder) / HTML


def write_files(report: Report, folder: Path) -> None:
    """Write page, numbers and config into a folder that `writing` gave; call it last."""
    # A file's name need be no text, and it stands in titles.
    (folder / HTML).write_text(render(report), encoding="utf-8", errors="backslashreplace")
    write_json(folder / JSON, report.numbers)
    write_config(folder, kind=KIND, settings={"title": report.title}, provenance=report.provenance)


def _together(text: str) -> str:
    """Return a text in whose numbers no line breaks before the sign of percent."""
    return text.replace(" %", "\u00a0%")


def with_commands(text: str) -> Markup:
    """Return a text as HTML, its commands, which stand between backticks, in the letters of the shell.

    >>> with_commands("`latlas prune` makes it < 1 MB")
    Markup('<code>latlas prune</code> makes it &lt; 1 MB')
    """
    return Markup(_COMMAND.sub(r"<code>\1</code>", str(escape(text))))


def format_number(value: Any) -> str:
    """Return a number as a person reads it: four significant digits, thousands apart, a dash for what is undefined.

    >>> format_number(0.0123456), format_number(60000), format_number(None), format_number(1.23e-7)
    ('0.01235', '60,000', '–', '1.2e-07')
    """
    if value is None:
        return "–"
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        if value == 0:
            return "0"
        return f"{value:.1e}" if abs(value) < 1e-4 else f"{value:.4g}" if abs(value) < 10_000 else f"{value:,.0f}"
    return str(value)
