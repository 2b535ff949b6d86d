"""Pages: self-contained, escaped, readable; what a number looks like."""

import io
import os
import re
from dataclasses import replace
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


def test_every_row_of_a_table_says_what_it_is_of() -> None:
    page = render(_report())
    assert '<th scope="row"><span>a &lt;b&gt;</span></th><td>1</td>' in page
    assert '<th scope="row"><span>c</span></th><td>–</td>' in page
    assert '<th scope="col">name</th><th scope="col">value</th>' in page


def test_whoever_moves_by_landmarks_or_by_keys_finds_each_thing_once_and_reaches_all() -> None:
    page = render(_report())
    assert page.count('role="region"') == 0  # each section is one already, by its heading
    assert len(re.findall(r"<section [^>]*aria-labelledby", page)) == 2
    for scrolled in re.findall(r'<div class="(?:scroll|drawing)"[^>]*>', page):
        assert 'tabindex="0"' in scrolled
    assert [int(level) for level in re.findall(r"<h(\d)", page)] == [1, 2, 2]
    assert '<html lang="en">' in page


def test_what_is_not_said_leaves_no_empty_paragraph() -> None:
    page = render(_report())
    assert re.findall(r"<(p|figcaption|caption|small)\b[^>]*>\s*</", page) == []


def test_every_section_is_reached_though_two_bear_one_name() -> None:
    titles = ("model", "model", "model 2", "???", "!")
    page = render(replace(_report(), sections=[Section(title=title, lead="", blocks=[]) for title in titles]))
    reached = re.findall(r'<a href="#([^"]+)">', page)
    assert reached == re.findall(r'<section id="([^"]+)"', page)
    assert len(set(reached)) == len(titles)


def test_no_line_breaks_between_a_number_and_its_sign_of_percent() -> None:
    blocks = [Numbers(items=[("5 %", "of 7 %", "level 8 %")]), Table(columns=("a",), rows=[], caption="At 9 %.")]
    page = render(replace(_report(), sections=[Section(title="S", lead="", blocks=blocks)]))
    assert re.findall("[0-9]\u00a0%", page) == [f"{number}\u00a0%" for number in (5, 7, 8, 9)]


def test_a_long_word_among_large_numbers_is_smaller() -> None:
    items = [("mixture, renormalised", "chosen", ""), (0.5, "half", ""), ("128 of 128", "sectors", "")]
    report = replace(_report(), sections=[Section(title="S", lead="", blocks=[Numbers(items=items)])])
    assert re.findall(r'<b class="long">([^<]*)</b>', render(report)) == ["mixture, renormalised"]


def test_a_drawing_says_how_wide_it_was_meant_to_be() -> None:
    narrow = figures.p_value_steps([("a", [0.2, 0.7], "#000000")], level=0.05)
    assert Picture(content=narrow, caption="", alt="a").width == f"{72 * 4.2:g}pt"
    assert (
        Picture(content='<svg class="x" width="480" height="3"><rect width="7"/></svg>', caption="", alt="a").width == "480px"
    )
    for other in ("<svg><rect width='7'/></svg>", '<svg stroke-width="3"></svg>', b"\x89PNG"):
        assert Picture(content=other, caption="", alt="a").width == ""


def _luminance(colour: str) -> float:
    """Relative luminance of WCAG 2.2."""
    values = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
    red, green, blue = (value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in values)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_can_be_read_on_every_ground(scheme: str) -> None:
    """4.5 is what WCAG 2.2 asks of small letters (AA)."""
    found = re.findall(r":root \{([^}]*)\}", render(_report()))
    colours = dict(re.findall(r"--(\w+): (#\w{6})", found[0]))
    colours |= dict(re.findall(r"--(\w+): (#\w{6})", found[1])) if scheme == "dark" else {}
    for words in ("ink", "soft", "accent"):
        for ground in ("ground", "card"):
            lighter, darker = sorted((_luminance(colours[words]), _luminance(colours[ground])), reverse=True)
            assert (lighter + 0.05) / (darker + 0.05) >= 4.5, (words, ground)


def test_the_same_report_is_the_same_bytes() -> None:
    assert render(_report()) == render(_report())


def test_a_report_is_written_whole_and_replaces_nothing(tmp_path: Path) -> None:
    page = write_report(_report(), tmp_path / "r")
    assert page.read_text() == render(_report())
    with pytest.raises(OutputExistsError, match="already holds something"):
        write_report(_report(), tmp_path / "r")


def test_a_name_that_is_no_text_is_written_in_signs_that_are(tmp_path: Path) -> None:
    """As files that were named on another system have: when all was measured, the page could not be written."""
    title = os.fsdecode(b"caf\xe9")
    page = write_report(_report(title), tmp_path / "r")
    assert "caf\\udce9" in page.read_text(encoding="utf-8")


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
