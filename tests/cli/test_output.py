"""What a verb prints for a person: tables of which nothing is cut, and names that stand as they are."""

import io
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from latlas.cli import progress
from latlas.cli.output import print_findings, print_table

COLUMNS = ("variable", "variance of means", "mean posterior variance", "variance law", "kl nats", "gain", "verdict")
ROWS = [
    [0, 0.0009386123, 0.99591, 0.9968, 0.0005144, 1.5671e-07, "collapsed"],
    [1, 0.9914, 0.04758, 1.039, 1.586, 0.005109, "active"],
    [3, 0.000199, 1.0, 1.0, 0.0001312, -9.3712e-10, "collapsed"],
]
CELLS = [
    ["0", "0.0009386", "0.9959", "0.9968", "0.0005144", "1.567e-07", "collapsed"],
    ["1", "0.9914", "0.04758", "1.039", "1.586", "0.005109", "active"],
    ["3", "0.000199", "1", "1", "0.0001312", "-9.371e-10", "collapsed"],
]
# As files and data sets may be called: markup of rich, and the names of its pictures.
NAMES = ("x[/b].npy", "x[bold].npy", "hub:dog:train", "[red]", "a\\", "[[x]]", "猫")


@pytest.mark.parametrize("width", [20, 30, 45, 60, 70, 73, 74, 80, 92, 99, 120, 200])
def test_no_number_of_a_table_is_cut_at_any_width(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    print_table("zoo:digits-dense on mnist:test[0:300]", COLUMNS, ROWS)
    shown = capsys.readouterr().out
    assert "…" not in shown
    for cells in CELLS:
        words = [line.split() for line in shown.splitlines() if line.split()[:1] == cells[:1]]
        assert [word for line in words for word in line[1:]] == cells[1:]
        assert {line[0] for line in words} == {cells[0]}
    assert " ".join(shown.split()).startswith("zoo:digits-dense on mnist:test[0:300] ")
    if width >= 30:
        assert max(map(len, shown.splitlines())) <= width


def test_a_table_that_fits_is_one_block(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    print_table("a title", COLUMNS, ROWS)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[-3:]] == CELLS


@given(
    width=st.integers(10, 130),
    rows=st.lists(
        st.tuples(st.text("abcdefgh-/", min_size=1, max_size=50), *[st.floats(-1e12, 1e12) for _ in range(6)]),
        min_size=1,
        max_size=4,
        unique_by=lambda row: row[0],
    ),
)
def test_every_cell_stands_whole_beside_its_name(width: int, rows: list[tuple[str, float]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(width))
        told = io.StringIO()
        patch.setattr("sys.stdout", told)
        print_table("title", ("name", "a", "b c", "d", "e", "f", "g"), rows)
    lines = [line.split() for line in told.getvalue().splitlines()]
    for row in rows:
        cells = [word for line in lines if line[:1] == [row[0]] for word in line[1:]]
        assert cells == [f"{value:.4g}" for value in row[1:]]


@pytest.mark.parametrize("name", NAMES)
def test_names_stand_in_tables_and_findings_as_they_are(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    print_table(f"a model on {name}", ("name", name), [[name, 1.5]])
    print_findings([("good", f"Trained {name}.", f"On {name}, that is.")])
    told = f"a model on {name} name {name} {name} 1.5 ✓ Trained {name}. On {name}, that is."
    assert capsys.readouterr().out.split() == told.split()


@pytest.mark.parametrize("name", NAMES)
def test_names_stand_in_progress_bars_as_they_are(name: str) -> None:
    told = io.StringIO()
    console = Console(file=told, force_terminal=True, width=100)
    with progress._bars(console) as bars:
        bars(f"encoding {name}", 0, 2)
        bars(f"encoding {name}", 2, 2, f"note of {name}")
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", told.getvalue())
    assert f"encoding {name}" in plain
    assert f"note of {name}" in plain


def test_marks_are_letters_where_the_encoding_has_no_signs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with (tmp_path / "told.txt").open("w", encoding="ascii") as told:
        monkeypatch.setattr("sys.stdout", told)
        print_findings([("good", "One.", ""), ("note", "Two.", ""), ("warning", "Three.", "")])
    assert (tmp_path / "told.txt").read_text().splitlines() == ["+ One.", "- Two.", "! Three."]
