"""Pages: self-contained, escaped, readable; what a number looks like."""

import io
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from PIL import Image

from latlas.base.errors import OutputExistsError
from latlas.base.provenance import Provenance
from latlas.reports import figures, pictures
from latlas.reports.page import (
    Finding,
    Numbers,
    Picture,
    Report,
    Section,
    Table,
    Words,
    format_number,
    render,
    with_commands,
    write_report,
)


def _report(title: str = "A title") -> Report:
    image = torch.linspace(0, 1, 16).reshape(1, 1, 4, 4)
    blocks = [
        Words(text="Some words."),
        Numbers(items=[(0.5, "half", "")]),
        Table(columns=("name", "value"), rows=[["a <b>", 1.0], ["c", None]], caption="A caption."),
        Picture(content=pictures.grid(image, columns=1), caption="A picture.", alt="A gradient.", row_labels=("only",)),
        Picture(content=figures.error_bars([("a", 1.0, 0.1, "#000000")], title="T", unit="u"), caption="", alt="Bars."),
    ]
    return Report(
        title=title,
        subtitle="Under it.",
        summary=[Finding(headline="Found <it>.", text="Text & more.", level="warning")],
        sections=[Section(title="First part", lead="Lead.", blocks=blocks), Section(title="Second", lead="", blocks=[])],
        numbers={"a": 1},
        provenance=Provenance(made_by="test", seed=3, made_from={"x": "0" * 64}),
    )


class _Addresses(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.found += [value or "" for name, value in attributes if name in ("src", "href", "xlink:href", "data", "action")]


def test_a_page_asks_nothing_of_any_other_host_and_runs_no_script() -> None:
    parser = _Addresses()
    page = render(_report())
    parser.feed(page)
    assert "script" not in parser.tags
    assert "link" not in parser.tags
    assert {address for address in parser.found if not address.startswith(("#", "data:"))} == set()
    assert "@import" not in page
    assert re.findall(r"url\((?!#)", page) == []


def test_words_of_a_user_are_escaped() -> None:
    page = render(_report(title="<script>alert(1)</script>"))
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "a &lt;b&gt;" in page


def test_every_picture_has_words_for_those_who_cannot_see_it() -> None:
    page = render(_report())
    assert 'alt="A gradient."' in page
    assert 'role="img" aria-label="Bars."' in page


def test_the_same_report_is_the_same_bytes() -> None:
    assert render(_report()) == render(_report())


def test_a_report_is_written_whole_and_replaces_nothing(tmp_path: Path) -> None:
    page = write_report(_report(), tmp_path / "r")
    assert page.read_text() == render(_report())
    with pytest.raises(OutputExistsError, match="already holds something"):
        write_report(_report(), tmp_path / "r")


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (True, "True"), (12345, "12,345"), (0.0, "0"), (-0.25, "-0.25"), (123456.7, "123,457"), (5e-5, "5.0e-05")],
)
def test_numbers_read_as_a_person_writes_them(value: object, text: str) -> None:
    assert format_number(value) == text


@pytest.mark.parametrize("channels", [1, 3])
def test_a_grid_shows_each_image_at_its_place(channels: int) -> None:
    images = torch.rand(5, channels, 6, 6, generator=torch.Generator().manual_seed(0))
    png = Image.open(io.BytesIO(pictures.grid(images, columns=3, enlarge=2)))
    assert png.size == (2 * (3 * 6 + 2 * 2), 2 * (2 * 6 + 2))
    x, y, image = 2 * (1 * 8 + 4), 2 * (8 + 3), images[4]
    expected = tuple(int(value) for value in (image[:, 3, 4].expand(3) * 255).round())
    assert png.getpixel((x, y)) == (*expected, 255)
    assert png.getpixel((x + 2 * 8, y))[3] == 0, "a missing sixth image is transparent"


def test_figures_take_the_ink_of_the_page() -> None:
    drawing = figures.error_bars([("a", 1.0, 0.1, "#0072b2")], title="T", unit="u")
    assert drawing.startswith("<svg")
    assert "currentColor" in drawing


def test_commands_in_findings_stand_in_the_letters_of_the_shell_and_nothing_else_is_html() -> None:
    assert with_commands("`latlas prune` <b>`") == "<code>latlas prune</code> &lt;b&gt;`"
    report = Report(
        title="t",
        subtitle="s",
        summary=[Finding(headline="Ask `latlas zoo`.", text="`<script>`")],
        sections=[],
        numbers={},
        provenance=Provenance(made_by="test"),
    )
    page = render(report)
    assert "Ask <code>latlas zoo</code>." in page
    assert "<code>&lt;script&gt;</code>" in page
