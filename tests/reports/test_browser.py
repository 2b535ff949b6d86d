"""The page in a real browser: nothing asked of any host, no errors, no sideways scrolling on a telephone."""

from pathlib import Path
from typing import Any

import pytest
import torch

from latlas.base.provenance import Provenance
from latlas.reports import figures, pictures
from latlas.reports.page import Numbers, Picture, Report, Section, Table, write_report


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1400, "light")])
def test_a_page_opens_from_disk_without_a_network(width: int, scheme: str, browser: Any, tmp_path: Path) -> None:
    blocks = [
        Picture(content=pictures.grid(torch.rand(24, 1, 28, 28), columns=12), caption="c", alt="a", row_labels=("one", "two")),
        Picture(content=figures.error_bars([("a", 1.0, 0.1, "#000000")], title="T", unit="u"), caption="c", alt="a"),
        Table(
            columns=[f"column {i}" for i in range(10)],
            rows=[["a name of words", *[0.12345] * 9]],
            caption="A sentence of some length. " * 6,
        ),
        Numbers(items=[("mixture, renormalised", "sampler chosen", ""), (0.5, "distance", ""), ("16 of 16", "variables", "")]),
        Picture(content=figures.p_value_steps([("a", [0.2, 0.7], "#000000")], level=0.05), caption="c", alt="a"),
    ]
    report = Report(
        title="A page",
        subtitle="",
        summary=[],
        sections=[Section(title="S", lead="", blocks=blocks)],
        numbers={},
        provenance=Provenance(made_by="test"),
    )
    page_path = write_report(report, tmp_path / "r")
    asked: list[str] = []
    said: list[str] = []
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.goto(page_path.as_uri())
    assert page.title() == "A page"
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    scrolled = page.locator(".scroll")
    assert scrolled.evaluate("box => box.scrollWidth > box.clientWidth") == (width == 390)
    # However far a table is moved, its caption stays in sight; on a telephone what the row is of does too.
    scrolled.evaluate("box => box.scrollTo(box.scrollWidth, 0)")
    edges = "part => { const box = part.getBoundingClientRect(); return [box.left, box.right] }"
    for part in ("caption span", "tbody th"):
        left, right = scrolled.locator(part).evaluate(edges)
        assert 0 <= left < right <= width, part
    assert right - left > 100  # not a word a line, though the columns of numbers would take all room
    assert page.locator(".numbers b").evaluate_all("all => all.every(each => each.scrollWidth <= each.clientWidth)")
    # A small drawing is not blown up beyond the page.
    assert page.locator(".drawing").last.evaluate("box => box.scrollWidth <= box.clientWidth")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).color.match(/\\d+/g).every(part => part < 100)")  # ink, on paper
    page.close()
    assert [address for address in asked if not address.startswith(("file:", "data:"))] == []
    assert said == []


@pytest.mark.browser
@pytest.mark.parametrize(("label", "times"), [("a", 1), ("second-stage, renormalised", 1), ("second-stage, renormalised", 2)])
def test_every_word_of_a_drawing_lies_within_it(label: str, times: int, browser: Any) -> None:
    title = "Fréchet distance to held-out images (bars: 2 standard errors), features: digits classifier " * times
    page = browser.new_page()
    page.set_content(figures.error_bars([(label, 1.0, 0.1, "#000000"), ("b", 0.5, 0.1, "#000000")], title=title, unit="u"))
    beyond = page.evaluate(
        """() => {
            const whole = document.querySelector("svg").getBoundingClientRect();
            return [...document.querySelectorAll("svg text")].map(each => each.getBoundingClientRect()).filter(
                box => box.left < whole.left || box.right > whole.right || box.top < whole.top || box.bottom > whole.bottom
            ).length;
        }"""
    )
    page.close()
    assert beyond == 0
