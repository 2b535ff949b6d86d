"""The site's search, in a real Chromium: from the disk as from a server; skipped where there is no Chromium."""

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.browser

PATIENCE = 60_000  # milliseconds


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def served(site: tuple[Path, str]) -> Iterator[str]:
    """The site's address on this machine, as `python -m http.server` gives it."""
    folder, _ = site
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def _searched(browser: Any, start: str, words: str) -> tuple[list[str], list[str], list[str]]:
    """Type words into the search of a page; return where the answers lead, and what went wrong or went out."""
    page = browser.new_page()
    wrong: list[str] = []
    asked: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: asked.append(request.url))
    page.goto(start)
    page.locator(".md-search__button").first.click()
    page.keyboard.type(words)
    answers = page.locator("[role=listbox] a[role=option]")
    answers.first.wait_for(timeout=PATIENCE)
    found = answers.evaluate_all("links => links.map(link => link.href)")
    page.close()
    return found, wrong, asked


@pytest.mark.parametrize("page", ["start.html", "concepts/maps.html"])
def test_the_search_of_a_page_that_lies_on_the_disk_finds_pages(page: str, browser: Any, site: tuple[Path, str]) -> None:
    folder, _ = site
    found, wrong, asked = _searched(browser, (folder / page).as_uri(), "collapse")
    assert f"{(folder / 'concepts/collapse.html').as_uri()}" in {link.partition("#")[0].partition("?")[0] for link in found}
    assert wrong == []
    assert all(address.startswith(("file:", "data:", "blob:", "about:")) for address in asked)


def test_the_search_of_a_page_from_a_server_finds_pages_and_asks_no_other_host(browser: Any, served: str) -> None:
    found, wrong, asked = _searched(browser, f"{served}/start.html", "collapse")
    assert f"{served}/concepts/collapse.html" in {link.partition("#")[0].partition("?")[0] for link in found}
    assert wrong == []
    assert all(address.startswith((served, "data:", "blob:")) for address in asked)
