"""What the pages show can be run: every block, in order, in a folder that starts empty."""

import difflib
import os
import shutil
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# The tools are scripts, no package: this one is imported from where it lies.
_PLACE = spec_from_file_location("run_pages", ROOT / "tools" / "run_pages.py")
assert _PLACE is not None
assert _PLACE.loader is not None
run_pages = module_from_spec(_PLACE)
sys.modules["run_pages"] = run_pages  # where its dataclass looks for its module
_PLACE.loader.exec_module(run_pages)

PAGES = {name: ROOT / "docs" / f"{name}.md" for name in run_pages.PAGES} | {"README": ROOT / "README.md"}
ALIKE = 0.9  # share of words, numbers aside: a variable at the border of collapse may be called otherwise elsewhere


def test_every_tutorial_is_among_the_pages_that_are_run() -> None:
    tutorials = {f"tutorials/{path.stem}" for path in (ROOT / "docs" / "tutorials").glob("*.md")} - {"tutorials/index"}
    assert tutorials <= set(run_pages.PAGES)


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_every_block_of_a_page_runs_and_prints_what_the_page_shows(name: str, tmp_path: Path) -> None:
    text = PAGES[name].read_text(encoding="utf-8")
    after = run_pages.with_outputs(text, run_pages.run_page(text, tmp_path))
    for (block, before), (_, now) in zip(run_pages.shown(text), run_pages.shown(after), strict=True):
        alike = difflib.SequenceMatcher(None, run_pages.words(before), run_pages.words(now), autojunk=False).ratio()
        assert alike >= ALIKE, f"line {block.line} prints now:\n{now}"
    for made in run_pages.made_pictures(text):
        assert run_pages.picture_of(tmp_path / made.place, made.number)


@pytest.mark.parametrize("name", PAGES)
def test_a_block_that_is_not_run_says_why(name: str) -> None:
    for block in run_pages.blocks(PAGES[name].read_text(encoding="utf-8")):
        if block.language in ("sh", "python") and not block.runs and not block.code.startswith("make "):
            assert len(block.title) > len(run_pages.SKIPPED), f"line {block.line}"


@pytest.mark.parametrize("name", [name for name in PAGES if name != "README"])
def test_no_output_is_left_empty_or_stands_behind_nothing(name: str) -> None:
    text = PAGES[name].read_text(encoding="utf-8")
    outputs = [block for block in run_pages.blocks(text) if block.language == "output"]
    assert len(outputs) == len(run_pages.shown(text))
    assert all(block.code.strip() for block in outputs), "python tools/run_pages.py writes them"


@pytest.mark.parametrize("name", PAGES)
def test_no_page_shows_a_place_of_the_machine_that_ran_it(name: str) -> None:
    text = PAGES[name].read_text(encoding="utf-8")
    for place in (str(ROOT), str(Path.home()) + os.sep, "/tmp/"):
        assert place not in text


@pytest.mark.parametrize("name", PAGES)
def test_a_picture_that_a_page_makes_is_in_the_folder_of_pictures(name: str) -> None:
    for made in run_pages.made_pictures(PAGES[name].read_text(encoding="utf-8")):
        assert (PAGES[name].parent / made.target).is_file(), "python tools/run_pages.py draws them"
        assert Path(made.target).suffix == (".svg" if _is_drawing(PAGES[name].parent / made.target) else ".png")


def _is_drawing(path: Path) -> bool:
    return path.read_bytes().startswith(b"<svg")


def _page(*blocks: tuple[str, str]) -> str:
    return "# Page\n\n" + "\n\n".join(f"```{fence}\n{code}```" for fence, code in blocks) + "\n"


def test_blocks_run_in_order_and_share_folder_and_names(tmp_path: Path) -> None:
    text = _page(
        ("python", "x = 2\nopen('made', 'w').write('by python')\n"),
        ("sh", "cat made; echo; echo by sh > made\n"),
        ("python", "print(x, open('made').read())\n"),
    )
    assert [printed for _, printed in run_pages.run_page(text, tmp_path)] == ["", "by python\n", "2 by sh\n\n"]


@pytest.mark.parametrize("block", [("sh", "false\ntrue\n"), ("sh", "false | true\n"), ("python", "print('a')\n1 / 0\n")])
def test_the_first_block_that_fails_is_named_and_ends_the_page(block: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(run_pages.BlockError, match="line 3"):
        run_pages.run_page(_page(block, ("sh", "touch later\n")), tmp_path)
    assert not (tmp_path / "later").exists()


def test_what_is_marked_and_calls_of_make_are_not_run(tmp_path: Path) -> None:
    text = _page(
        ('sh title="Not run here: it needs a GPU"', "touch a\n"),
        ("text", "touch b\n"),
        ("sh", "make tour     # comment\nmake test\n"),
        ('sh title="A title that is no reason"', "touch d\n"),
        ("sh", "make() { touch e; }\nmake it\n"),
    )
    run_pages.run_page(text, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d", "e"]


def test_outputs_are_written_behind_the_block_that_printed_them_and_nowhere_else(tmp_path: Path) -> None:
    text = _page(
        ("sh", "echo one\n"),
        ("sh", "echo two; echo; echo hidden >&2\n"),
        ("output", "old\n"),
        ("text", "kept\n"),
        ("output", "own\n"),
    )
    after = run_pages.with_outputs(text, run_pages.run_page(text, tmp_path))
    assert after == text.replace("```output\nold\n```", "```output\ntwo\n```")
    assert run_pages.with_outputs(after, run_pages.run_page(after, tmp_path)) == after


def test_numbers_and_line_breaks_may_differ_and_words_may_not() -> None:
    assert run_pages.words("error 0.05,  1.2e-05\nor +3 %") == run_pages.words("error 0.07, 4\nor\n-12 %")
    assert run_pages.words("active") != run_pages.words("collapsed")


def test_a_block_runs_with_the_commands_of_this_environment(tmp_path: Path) -> None:
    (_, printed), *_ = run_pages.run_page(_page(("sh", "command -v python; echo $COLUMNS\n")), tmp_path)
    where, columns = printed.split()
    assert Path(where).parent == Path(shutil.which("python", path=run_pages._environment()["PATH"]) or "").parent
    assert int(columns) == run_pages.WIDTH
