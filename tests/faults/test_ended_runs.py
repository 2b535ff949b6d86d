"""Runs that are killed, refused by the disk, or not alone: the command line itself, in forks of one process that is not this one.

That process has imported what a run needs, and computed no gradient: torch refuses to in forks of one that has. The long form is
`make torture`.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SHORT = """
killed = {}
for verb, moments, operations in (("training", 2, 4), ("map", 1, 1)):
    killed[verb] = kill_verb(verb, inputs, work / verb, moments=moments, operations=operations, tell=say)
record = {
    "killed": killed,
    "full": limit_files(inputs, work / "full", names=["training", "report", "sample"]),
    "two": two_writers(inputs, work / "two", names=["training"], tell=say),
    "repeated": repeat(inputs, work / "repeated", names=["report"]),
}
"""
LONG = """
record = {
    "killed": {verb: kill_verb(verb, inputs, work / verb, moments=6, operations=8, tell=say) for verb in commands(inputs)},
    "full": limit_files(inputs, work / "full", names=list(writing_verbs(inputs)), shares=(0.1, 0.5, 0.9)),
    "two": two_writers(inputs, work / "two", tell=say),
    "repeated": repeat(inputs, work / "repeated"),
}
"""


def run(code: str, work: Path, *, images: int) -> dict[str, Any]:
    lines = f"""
import json, sys
from pathlib import Path
sys.path.insert(0, {str(ROOT / "benchmarks")!r})
from torture_disk import limit_files, repeat, two_writers, writing_verbs
from torture_kills import kill_verb
from torture_runs import commands, make_inputs, warm_up
say = lambda words: print(words, file=sys.stderr)
warm_up()
work = Path({str(work)!r})
inputs = make_inputs(work / "inputs", images={images})
{code}
print(json.dumps(record))
"""
    done = subprocess.run(
        [sys.executable, "-c", lines],
        capture_output=True,
        text=True,
        check=False,
        timeout=3000,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run(SHORT, tmp_path_factory.mktemp("short"), images=600)


def test_a_killed_run_leaves_nothing_or_a_whole_artifact_and_the_same_command_ends_with_the_same_bytes(
    short: dict[str, Any],
) -> None:
    for verb, found in short["killed"].items():
        assert found["faults"] == [], verb
    assert sum(found["kills"] for found in short["killed"].values()) >= 6


def test_a_disk_that_takes_no_more_is_one_line_and_leaves_nothing(short: dict[str, Any]) -> None:
    assert short["full"] == {"runs": 3, "faults": []}


def test_of_two_with_one_output_one_wins_and_the_other_is_told(short: dict[str, Any]) -> None:
    assert short["two"] == {"runs": 2, "faults": []}


def test_the_same_command_twice_writes_the_same_bytes(short: dict[str, Any]) -> None:
    assert short["repeated"] == {"runs": 2, "faults": []}


@pytest.mark.slow
def test_every_verb_at_many_moments(tmp_path: Path) -> None:
    found = run(LONG, tmp_path, images=2000)
    assert [fault for each in found["killed"].values() for fault in each["faults"]] == []
    assert [found[part]["faults"] for part in ("full", "two", "repeated")] == [[], [], []]
