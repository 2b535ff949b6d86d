"""The explorer as `latlas explore` serves it, in a real Chromium; skipped where there is none."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from latlas.data.images import ImageSet

MODELS = ("zoo:digits-dense", "zoo:digits-dense-1", "zoo:avatars-dcgan")
PATIENCE = 120_000  # milliseconds: two busy cores may take long for what takes seconds


@dataclass
class Server:
    """The page's address, and what the process looked up on the network."""

    url: str
    audit: Path
    log: Path


@dataclass
class Watched:
    """What a page did that it must not do."""

    errors: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def server(browser: Any, mnist_test: ImageSet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Started after the browser, so that nothing is loaded where there is none."""
    pytest.importorskip("gradio", reason="the explorer needs gradio")
    folder = tmp_path_factory.mktemp("server")
    audit, log = folder / "audit", folder / "log"
    audit.touch()
    command = [sys.executable, str(Path(__file__).with_name("audited.py")), "explore", *MODELS]
    # Few images: what is tested is the page, and the mathematics is tested elsewhere.
    command += [
        "--data",
        "mnist:test[0:400]",
        "--data",
        "avatars:test[0:200]",
        "--port",
        "0",
        "--no-browser",
        "--device",
        "cpu",
    ]
    settings = {**os.environ, "LATLAS_AUDIT": str(audit), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, env=settings)
    try:
        url = _address(process, log)
        yield Server(url=url, audit=audit, log=log)
    finally:
        process.terminate()
        process.wait(timeout=30)


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    until = time.monotonic() + 2 * PATIENCE / 1000
    while time.monotonic() < until:
        text = log.read_text(encoding="utf-8")
        if found := re.search(r"http://127\.0\.0\.1:\d+/", text):
            return found[0]
        if process.poll() is not None:
            pytest.fail(f"latlas explore ended:\n{text}")
        time.sleep(0.2)
    return pytest.fail("latlas explore did not say where the page is")


@pytest.fixture
def visit(browser: Any, server: Server) -> Iterator[Callable[..., Any]]:
    """Open the page as a new visitor; at the end no page may have met an error or asked another host for anything."""
    contexts: list[tuple[Any, Watched]] = []

    def open_page(*, width: int = 1400, height: int = 900, dark: bool = False) -> Any:
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            accept_downloads=True,
            permissions=["clipboard-read", "clipboard-write"],
        )
        context.set_default_timeout(PATIENCE)
        seen = Watched()
        contexts.append((context, seen))
        page = context.new_page()
        page.on("console", lambda message: seen.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda failure: seen.errors.append(str(failure)))
        page.on("request", lambda request: _judge(request.url, server.url, seen))
        page.goto(server.url)
        page.wait_for_selector("#variables-pictures img")
        return page

    yield open_page
    for context, seen in contexts:
        for page in context.pages:
            assert "Traceback" not in page.inner_text("body")
        context.close()
        assert seen.errors == []
        assert seen.outside == []
    assert "Traceback" not in server.log.read_text(encoding="utf-8")


def _judge(url: str, home: str, seen: Watched) -> None:
    if not url.startswith((home, "data:", "blob:", home.replace("http", "ws", 1))):
        seen.outside.append(url)


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pictures of the page go: the folder that LATLAS_SCREENSHOTS names, for people to look at."""
    named = os.environ.get("LATLAS_SCREENSHOTS")
    folder = Path(named) if named else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
