"""The page in a real browser: nothing asked of any host, no errors, no sideways scrolling on a telephone."""

import shutil
from pathlib import Path

import pytest
import torch

from latlas.base.provenance import Provenance
from latlas.reports import figures, pictures
from latlas.reports.page import Picture, Report, Section, Table, write_report

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
]


@pytest.mark.browser
@pytest.mark.skipif(BROWSER is None, reason="no Chromium here; install one to see the page tested")
@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1400, "light")])
def test_a_page_opens_from_disk_without_a_network(width: int, scheme: str, tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

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
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)  # type: ignore[arg-type]
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.goto(page_path.as_uri())
        assert page.title() == "A page"
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
        browser.close()
    assert [address for address in asked if not address.startswith(("file:", "data:"))] == []
    assert said == []
