"""Tables have as many cells in each row as in their head, or no reader sees a table; a share is written one way."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")]
PAGES = [*TEXTS, *(ROOT / "docs").rglob("*.md")]


def _outside_code(path: Path) -> str:
    return re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def _cells(row: str) -> int:
    return len(row.replace(r"\|", "").strip().removeprefix("|").removesuffix("|").split("|"))


@pytest.mark.parametrize("path", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_every_row_of_a_table_has_as_many_cells_as_its_head(path: Path) -> None:
    for table in re.findall(r"^\|.*\n\|(?: :?-+:? \|)+\n(?:\|.*\n)*", _outside_code(path) + "\n", flags=re.MULTILINE):
        head, *rows = table.splitlines()
        assert {_cells(row) for row in rows} == {_cells(head)}, head


@pytest.mark.parametrize("path", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_a_share_is_written_with_a_space(path: Path) -> None:
    assert re.findall(r"\d%", re.sub(r"\]\([^)]*\)", "", _outside_code(path))) == []
