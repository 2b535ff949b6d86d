"""The documentation site builds without a warning, every link leads somewhere, and nothing is fetched from elsewhere."""

import importlib
import re
import subprocess
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urldefrag

import pytest
import yaml

import latlas

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
needs_zensical = pytest.mark.skipif(find_spec("zensical") is None, reason="needs pip install 'latlas[docs]'")


@pytest.fixture
def make_reference(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    return importlib.import_module("make_reference")


@needs_zensical
def test_the_site_builds_without_a_warning(site: tuple[Path, str]) -> None:
    _, said = site
    assert "No issues found" in said
    assert not [line for line in said.splitlines() if re.search(r"warning|griffe|error", line, flags=re.IGNORECASE)]


@needs_zensical
def test_a_link_that_leads_nowhere_fails_the_build(
    tmp_path: Path, build_site: Callable[[Path], subprocess.CompletedProcess[str]]
) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "mkdocs.yml").write_text("site_name: x\n", encoding="utf-8")
    for link, fails in (("[other](other.md)", True), ("nothing", False)):
        (tmp_path / "docs" / "index.md").write_text(f"# Page\n\n{link}\n", encoding="utf-8")
        assert (build_site(tmp_path).returncode != 0) == fails


class _Page(HTMLParser):
    """The anchors of a page, what it links to, and what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value for name, value in attrs if value is not None}
        self.anchors |= {found[name] for name in ("id", "name") if name in found}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if tag == "link" and found.get("rel") in ("stylesheet", "icon", "preconnect", "modulepreload"):
            self.loaded.append(found["href"])
        self.loaded += [found["src"]] if "src" in found else []


@pytest.fixture(scope="session")
def pages(site: tuple[Path, str]) -> dict[Path, _Page]:
    folder, _ = site
    return {
        path.resolve(): _Page(path.read_text(encoding="utf-8")) for path in folder.rglob("*.html") if path.name != "404.html"
    }


def _broken(pages: dict[Path, _Page]) -> Iterator[str]:
    for path, page in pages.items():
        for link in [*page.links, *page.loaded]:
            place, anchor = urldefrag(link)
            if re.match(r"[a-z]+:|//", place):
                continue
            target = (path.parent / unquote(place)).resolve() if place else path
            target = target / "index.html" if target.is_dir() else target
            if not target.exists():
                yield f"{path.name}: {link}"
            elif anchor and target in pages and unquote(anchor) not in pages[target].anchors | {"__codelineno"}:
                yield f"{path.name}: no such place: {link}"


def test_a_missing_page_picture_or_anchor_is_found(tmp_path: Path) -> None:
    text = '<p id="here"></p><a href="#here">1</a><a href="a.html#gone">2</a><a href="b.html">3</a><img src="c.png"><a href="https://x.org/y">4</a>'
    path = (tmp_path / "a.html").resolve()
    path.write_text(text, encoding="utf-8")
    found = list(_broken({path: _Page(text)}))
    assert found == ["a.html: no such place: a.html#gone", "a.html: b.html", "a.html: c.png"]


@needs_zensical
def test_every_link_anchor_and_picture_exists(pages: dict[Path, _Page]) -> None:
    assert len(pages) > 40
    assert sum(len(page.links) for page in pages.values()) > 1000
    assert not list(_broken(pages))


@needs_zensical
def test_no_page_loads_anything_from_another_host(pages: dict[Path, _Page]) -> None:
    elsewhere = {address for page in pages.values() for address in page.loaded if re.match(r"(https?:)?//", address)}
    assert elsewhere == set()


@needs_zensical
def test_every_public_name_has_its_place_in_the_reference(pages: dict[Path, _Page]) -> None:
    anchors = set().union(*(page.anchors for page in pages.values()))
    missing = {name for name, module in latlas._DEFINED_IN.items() if f"{module}.{name}" not in anchors}
    assert missing == set()


def _in_nav(entry: object) -> Iterator[str]:
    if isinstance(entry, str):
        yield entry
    elif isinstance(entry, dict):
        for value in entry.values():
            yield from _in_nav(value)
    elif isinstance(entry, list):
        for value in entry:
            yield from _in_nav(value)


def test_every_page_is_in_the_navigation_once_and_every_entry_exists() -> None:
    listed = list(_in_nav(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]))
    assert sorted(listed) == sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))


def test_every_picture_of_a_page_says_in_words_what_it_shows() -> None:
    for page in DOCS.rglob("*.md"):
        for words, place in re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
            assert len(words.split()) >= 3, f"{page.name}: {place}"


def test_every_picture_is_shown_on_some_page() -> None:
    texts = "".join(page.read_text(encoding="utf-8") for page in [ROOT / "README.md", *DOCS.rglob("*.md")])
    pictures = [path for path in (DOCS / "pictures").rglob("*") if path.is_file()]
    unused = {
        picture.name for picture in pictures if f"pictures/{picture.relative_to(DOCS / 'pictures').as_posix()}" not in texts
    }
    assert unused == set()


def test_every_drawing_has_an_ink_and_a_ground_of_its_own() -> None:
    """As an image a drawing takes no colours from the page that shows it, which may be dark."""
    for drawing in (DOCS / "pictures").rglob("*.svg"):
        text = drawing.read_text(encoding="utf-8")
        assert "currentColor" not in text, drawing.name
        assert re.match(r"<svg [^>]*background:#ffffff", text), drawing.name


def test_the_reference_pages_are_those_of_the_docstrings_and_help_texts(make_reference: ModuleType) -> None:
    for name, text in make_reference.pages(latlas._DEFINED_IN).items():
        assert (make_reference.FOLDER / name).read_text(encoding="utf-8") == text, f"{name}: python tools/make_reference.py"


def test_a_public_name_without_a_group_is_refused(make_reference: ModuleType) -> None:
    with pytest.raises(ValueError, match="conjure"):
        make_reference.pages(latlas._DEFINED_IN | {"conjure": "latlas.base.seeds"})
    with pytest.raises(ValueError, match="prune"):
        make_reference.pages({name: module for name, module in latlas._DEFINED_IN.items() if name != "prune"})


def test_every_command_and_option_stands_on_the_page_of_the_commands() -> None:
    import typer

    from latlas.cli.main import app

    text = (DOCS / "reference" / "cli.md").read_text(encoding="utf-8")
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        for inner, one in getattr(command, "commands", {"": command}).items():
            _, heading, rest = text.partition(f"\n## latlas {f'{name} {inner}'.strip()}\n")
            section = rest.partition("\n## ")[0]
            assert heading, name
            assert all(
                option in section
                for parameter in one.params
                if parameter.name != "help"
                for option in parameter.opts
                if "-" in option
            )
