"""The notebooks are the tutorials: the same words, the same commands, and what they printed and drew."""

import difflib
import importlib
import json
import re
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
NAMES = sorted(path.stem for path in (ROOT / "docs" / "tutorials").glob("*.md") if path.stem != "index")
LIMIT = 1_000_000  # bytes of one notebook
ALIKE = 0.85  # share of words, numbers aside: page and notebook were run at two times


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    return importlib.import_module("make_notebooks")


def _read(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))


def _page(name: str) -> str:
    return (ROOT / "docs" / "tutorials" / f"{name}.md").read_text(encoding="utf-8")


def _code(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def _printed(cell: dict[str, Any]) -> str:
    return "".join("".join(output["text"]) for output in cell["outputs"] if output["output_type"] == "stream")


def test_every_tutorial_has_a_notebook_and_there_is_no_other(tools: ModuleType) -> None:
    assert sorted(tools.names()) == NAMES
    assert sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_has_the_words_and_commands_of_its_page(name: str, tools: ModuleType) -> None:
    kept, made = _read(name), tools.notebook(name, _page(name))
    for cell in [*kept["cells"], *made["cells"]]:
        cell["source"] = "".join(cell["source"])
        for of_the_run in ("outputs", "execution_count"):
            cell.pop(of_the_run, None)
    assert kept == made, f"make notebooks, or python tools/make_notebooks.py {name}"


@pytest.mark.parametrize("name", NAMES)
def test_every_cell_was_run_in_order_without_an_error(name: str) -> None:
    cells = _code(_read(name))
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    kinds = {output["output_type"] for cell in cells for output in cell["outputs"]}
    assert "error" not in kinds


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_prints_what_its_page_shows(name: str, tools: ModuleType) -> None:
    cells = {"".join(cell["source"]): cell for cell in _code(_read(name))}
    shown = tools.run_pages.shown(_page(name))
    assert shown
    for block, output in shown:
        source = block.code.rstrip("\n")
        cell = cells[f"%%bash\n{source}" if block.language == "sh" else source]
        before, now = (tools.run_pages.words(text) for text in (output, _printed(cell)))
        assert difflib.SequenceMatcher(None, before, now, autojunk=False).ratio() >= ALIKE, block.code


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_shows_pictures_is_small_and_names_no_place_of_a_machine(name: str) -> None:
    text = (ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8")
    assert len(text.encode()) < LIMIT
    for place in (str(ROOT), str(Path.home()) + "/", "/tmp/"):
        assert place not in text
    drawn = [cell for cell in _code(_read(name)) if "".join(cell["source"]).startswith("show(")]
    assert drawn
    for cell in drawn:
        (output,) = cell["outputs"]
        assert {"image/png", "image/svg+xml"} & set(output["data"])


@pytest.mark.parametrize("name", NAMES)
def test_every_link_of_a_notebook_leads_somewhere(name: str) -> None:
    for cell in _read(name)["cells"]:
        if cell["cell_type"] == "markdown":
            for link in re.findall(r"\]\((?![a-z]+:)([^)#\s]+)", "".join(cell["source"])):
                assert (ROOT / "notebooks" / link).exists(), link


@pytest.mark.skipif(find_spec("nbformat") is None, reason="needs pip install 'latlas[dev]'")
@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_of_the_published_form(name: str) -> None:
    import nbformat

    nbformat.validate(_read(name))


def test_blocks_prose_outputs_and_pictures_become_the_cells_they_should(tools: ModuleType) -> None:
    page = (
        "# Title\n\nWords with a [link](../how-to/folder.md#top) and [another](https://x.org/y.md).\n\n"
        "```sh\necho one\n```\n\n```output\none\n```\n\n"
        '```sh title="Not run here: it takes long"\nsleep 9\n```\n\n'
        "<!-- picture 2 of a/report.html -->\n![What it shows](../pictures/x.svg)\n\n"
        "<!-- s.png -->\n![What it shows](../pictures/s.png)\n\n```python\nx = 1\n```\n"
    )
    cells = [(cell["cell_type"], cell["source"]) for cell in tools.notebook("x", page)["cells"]]
    assert cells[0][1].startswith("# Title\n")
    assert cells[2:] == [
        ("markdown", "Words with a [link](../docs/how-to/folder.md#top) and [another](https://x.org/y.md)."),
        ("code", "%%bash\necho one"),
        ("markdown", '```sh title="Not run here: it takes long"\nsleep 9\n```'),
        ("code", 'show("a/report.html", 2)'),
        ("code", 'show("s.png")'),
        ("code", "x = 1"),
    ]


def test_a_run_joins_what_a_cell_printed_without_colours_and_keeps_what_it_drew(
    tools: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    for needed in ("nbclient", "ipykernel"):
        pytest.importorskip(needed, reason="needs pip install 'latlas[dev]'")
    for name, value in tools.run_pages._environment().items():
        monkeypatch.setenv(name, value)  # the run sets these, and they must not stay
    drawing = '<svg xmlns="http://www.w3.org/2000/svg"><path stroke="currentColor" d="M0 0"/></svg>'
    page = (
        "# Title\n\n```sh\nprintf '\\033[1mone\\033[0m '; sleep 1; echo two; echo progress >&2\n```\n\n"
        f"```python\nprint(3, end='')\nPath('a.svg').write_text('{drawing}')\nNone\n```\n\n"
        "<!-- a.svg -->\n![What it shows](../pictures/a.svg)\n"
    )
    shell, python, shown = _code(tools.run(tools.notebook("x", page)))[1:]
    assert [(output["name"], output["text"]) for output in shell["outputs"]] == [("stdout", "one two\n")]
    assert _printed(python) == "3\n"
    (output,) = shown["outputs"]
    assert "currentColor" not in output["data"]["image/svg+xml"]
    assert "background:#ffffff" in output["data"]["image/svg+xml"]


def test_outputs_are_kept_where_only_words_changed_and_refused_where_code_did(tools: ModuleType) -> None:
    page = "# Title\n\nWords.\n\n```python\nprint(1)\n```\n"
    kept = tools.notebook("x", page)
    kept["cells"][-1] |= {"execution_count": 2, "outputs": [{"output_type": "stream", "name": "stdout", "text": "1\n"}]}
    again = tools.with_outputs_of(tools.notebook("x", page.replace("Words", "Other words\n\nand more")), kept)
    assert again["cells"][-1] == kept["cells"][-1]
    assert "Other words" in again["cells"][-2]["source"]
    with pytest.raises(ValueError, match="run the notebook again"):
        tools.with_outputs_of(tools.notebook("x", page.replace("print(1)", "print(2)")), kept)


def test_a_picture_of_a_report_is_found_by_its_number(tools: ModuleType, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    report.write_text(
        '<svg>logo</svg><figure><div><svg a="1">one\n</svg></div></figure>\n<figure>\n<img src="data:image/png;base64,dHdv" alt=""></figure>'
        "<figure><svg>three</svg></figure>",
        encoding="utf-8",
    )
    found = [tools.run_pages.picture_of(report, number) for number in (1, 2, 3)]
    assert found == [b'<svg a="1">one\n</svg>', b"two", b"<svg>three</svg>"]
    with pytest.raises(IndexError):
        tools.run_pages.picture_of(report, 4)


def test_a_picture_of_a_report_is_that_of_the_writer_of_reports(tools: ModuleType, tmp_path: Path) -> None:
    from latlas.base.provenance import Provenance
    from latlas.reports.page import Picture, Report, Section, render

    pictures = [
        Picture(content=b"\x89PNG pixels", caption="", alt="pixels"),
        Picture(content='<svg viewBox="0 0 1 1"></svg>', caption="", alt="drawing"),
    ]
    section = Section(title="Evidence", lead="", blocks=pictures)
    provenance = Provenance(made_by="test", seed=0, made_from={}, settings={})
    page = Report(title="T", subtitle="", summary=[], sections=[section], numbers={}, provenance=provenance)
    (tmp_path / "report.html").write_text(render(page), encoding="utf-8")
    found = [tools.run_pages.picture_of(tmp_path / "report.html", number) for number in (1, 2)]
    assert found == [
        picture.content if isinstance(picture.content, bytes) else picture.content.encode() for picture in pictures
    ]
