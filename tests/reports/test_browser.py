"""The page in a real browser: nothing asked of any host, no errors, no sideways scrolling on a telephone."""

from pathlib import Path
from typing import Any

import pytest
import torch

from latlas.base.provenance import Provenance
from latlas.reports import figures, pictures
from latlas.reports.page import Picture, Report, Section, Table, write_report


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1400, "light")])
def test_a_page_opens_from_disk_without_a_network(width: int, scheme: str, browser: Any, tmp_path: Path) -> None:
    blocks = [
        Picture(content=pictures.grid(torch.rand(24, 1, 28, 28), columns=12), caption="c", alt="a", row_labels=("one", "two")),
        Picture(content=figures.error_bars([("a", 1.0, 0.1, "#000000")], title="T", unit="u"), caption="c", alt="a"),
        Table(columns=[f"column {i}" for i in range(12)], rows=[[0.12345] * 12]),
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
    page.close()
    assert [address for address in asked if not address.startswith(("file:", "data:"))] == []
    assert said == []
