"""The harness of the benchmarks: turns are taken, ratios are those of one round, a verdict is that of the median."""

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module


def test_runners_take_turns_and_change_who_begins(benchmark: Callable[[str], ModuleType]) -> None:
    ran: list[str] = []
    taken = benchmark("racing").race({"a": lambda: ran.append("a"), "b": lambda: ran.append("b")}, rounds=3)
    assert "".join(ran) == "ab" + "ab" + "ba" + "ab"  # once to warm up
    assert {name: len(spent) for name, spent in taken.items()} == {"a": 3, "b": 3}


def test_a_ratio_is_taken_round_by_round(benchmark: Callable[[str], ModuleType]) -> None:
    """A slow hour slows both: of the sums it would be 33 / 14, of the medians 3 / 2."""
    racing = benchmark("racing")
    over = [racing.Spent(wall=1.0, processor=value) for value in (2.0, 3.0, 28.0)]
    under = [racing.Spent(wall=0.5, processor=value) for value in (1.0, 2.0, 11.2)]
    row = racing.ratio_row("g", "w", over, under, least=2.0)
    assert row["value"] == pytest.approx(2.0)
    assert row["quartiles"] == pytest.approx([1.75, 2.25])
    assert row["wall_median"] == 2.0
    assert row["kept"] is True


@pytest.mark.parametrize(
    ("bounds", "kept"), [({"least": 2.1}, False), ({"most": 1.9}, False), ({"most": 2.0}, True), ({}, None)]
)
def test_a_verdict_is_that_of_the_median(bounds: dict[str, float], kept: bool | None, benchmark: Any) -> None:
    row = benchmark("racing").value_row("g", "w", [1.0, 2.0, 9.0], **bounds)
    assert row["kept"] is kept
    assert benchmark("bench").verdict(row) == {True: "kept", False: "MISSED", None: ""}[kept]


def test_what_was_not_measured_is_said_so(benchmark: Callable[[str], ModuleType]) -> None:
    row = benchmark("racing").failed_row("growth", "train", "no such verb")
    record = {"groups": {"verbs": {"rows": [row]}}}
    assert "| growth | train | no such verb |  |  | not measured |" in benchmark("bench").markdown(record)


def test_every_verb_that_takes_images_has_a_row_of_growth(benchmark: Callable[[str], ModuleType], tmp_path: Path) -> None:
    from typer.main import get_command

    from latlas.cli.main import app

    images = {"data", "images", "models_and_data"}
    without = {
        "tour",  # a chain of the others, on images of its own
        "explore",
        "relocate",  # codes, not images
        "study trajectories",  # nothing but trainings, which have a row
        "study coverage-3d",  # likewise
    }
    group: Any = get_command(app)
    found = set()
    for name, command in group.commands.items():
        for path, one in [(f"{name} {below}", each) for below, each in getattr(command, "commands", {}).items()] or [
            (name, command)
        ]:
            arguments = {parameter.name for parameter in one.params if parameter.param_type_name == "argument"}
            if arguments & images or any("DATA" in str(parameter.metavar) for parameter in one.params):
                found.add(path)
    rows = set(benchmark("bench_verbs")._commands(tmp_path))
    assert {path for path in found if not path.startswith("train ")} - without <= rows | {"train"}
