"""What becomes of artifacts when processes are killed, disks are full, two write at once, and bytes change; hostile files; the page under load.

    make torture                                  # all parts, under thirty minutes on two cores
    python benchmarks/torture.py --part two       # one part again; the others keep what was found

Writes benchmarks/results/torture.json part by part, and the table of docs/concepts/trust.md. Every run is the command line itself, in a
fork of one process that has imported what it needs (see torture_runs); hostile files (torture_hostile) and the page (torture_page) have
processes of their own.
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tables import table, write_table
from torture_disk import fill_disk, repeat, two_writers
from torture_kills import kill_verb
from torture_runs import make_inputs, warm_up

from latlas.base.artifacts import read_json, write_json
from latlas.base.provenance import package_versions

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "torture.json"
PAGE = "docs/concepts/trust.md"
KILLED = ("training", "recoder", "encoding", "map", "support", "report")
MOMENTS, OPERATIONS, FLIPS = 30, 12, 8  # of each verb, of each verb, of each file
FUZZED = 500  # mutations of each loader's files; make fuzz does many more


def main() -> int:
    """Run the parts asked for, write after each, and return 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=(*PARTS, "all"), default="all")
    parser.add_argument("--seed", type=int, default=0, help="decides the moments")
    given = parser.parse_args()
    record: dict[str, Any] = {}
    work = Path(tempfile.mkdtemp(prefix="latlas-torture-"))
    try:
        warm_up()
        for name in PARTS if given.part == "all" else (given.part,):
            began = time.monotonic()
            found = PARTS[name](work / name, given.seed)
            record = keep(name, {**found, "minutes": round((time.monotonic() - began) / 60, 1)})
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print("\n".join(record["bounds"]))
    return int(any(line.startswith("MISSED") for line in record["bounds"]))


def keep(name: str, found: dict[str, Any]) -> dict[str, Any]:
    """Write what a part found beside what the others have found, and the table; return all of it."""
    record: dict[str, Any] = read_json(RESULTS) if RESULTS.is_file() else {"parts": {}}
    record["parts"][name] = found
    record |= {"command": "python benchmarks/torture.py", "versions": package_versions(), "bounds": bounds(record)}
    RESULTS.parent.mkdir(exist_ok=True)
    write_json(RESULTS, record)
    write_table(PAGE, "torture", markdown(record))
    return record


def _killing(verb: str) -> Callable[[Path, int], dict[str, Any]]:
    def kill(work: Path, seed: int) -> dict[str, Any]:
        return kill_verb(verb, make_inputs(work.parent / "inputs"), work, moments=MOMENTS, operations=OPERATIONS, seed=seed)

    return kill


def _disk(work: Path, seed: int) -> dict[str, Any]:  # noqa: ARG001
    work.mkdir()
    return fill_disk(make_inputs(work.parent / "inputs"), work / "disk")


def _two(work: Path, seed: int) -> dict[str, Any]:  # noqa: ARG001
    return two_writers(make_inputs(work.parent / "inputs"), work)


def _repeat(work: Path, seed: int) -> dict[str, Any]:  # noqa: ARG001
    return repeat(make_inputs(work.parent / "inputs"), work)


def _flips(work: Path, seed: int) -> dict[str, Any]:  # noqa: ARG001
    from torture_artifacts import flip_all, make_all

    found = flip_all(make_all(work), each=FLIPS)
    return {**found, "faults": [f"unnoticed: {each}" for each in found.pop("missed")]}


def _hostile(work: Path, seed: int) -> dict[str, Any]:  # noqa: ARG001
    from torture_hostile import run

    found = run(runs=FUZZED, seed=seed)
    faults = [f"{name}: {each['kind']}: {each['what']}" for name, done in found["fuzzed"].items() for each in done["findings"]]
    faults += [f"{name}: {done['failed']} not refused" for name, done in found["crafted"].items() if done["failed"]]
    return {**found, "runs": sum(done["runs"] for done in found["fuzzed"].values()), "faults": faults}


def _page(work: Path, seed: int) -> dict[str, Any]:  # noqa: ARG001
    from torture_page import run

    return run(work)


# The one with a gradient in this very process last: its forks could compute none afterwards.
PARTS: dict[str, Callable[[Path, int], dict[str, Any]]] = {
    **{f"kill {verb}": _killing(verb) for verb in KILLED},
    "disk": _disk,
    "two": _two,
    "repeat": _repeat,
    "hostile": _hostile,
    "page": _page,
    "flips": _flips,
}


def _in_order(record: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(name, record["parts"][name]) for name in PARTS if name in record["parts"]]  # a file's keys are in another


def bounds(record: dict[str, Any]) -> list[str]:
    """Return, for each part, whether nothing was lost, and what was."""
    lines = []
    for name, found in _in_order(record):
        if "skipped" in found:
            lines.append(f"not measured: {name}: {found['skipped']}")
            continue
        lines.append(f"{'MISSED' if found['faults'] else 'kept'}: {name}: {len(found['faults'])} faults, none allowed")
        lines += [f"    {fault}" for fault in found["faults"]]
    return lines


def markdown(record: dict[str, Any]) -> str:
    """Return the table of the page."""
    rows = []
    for name, found in _in_order(record):
        if "skipped" in found:
            rows.append([_WORDS.get(name, name), "not measured", ""])
            continue
        if name.startswith("kill "):
            words, done = (
                f"`SIGKILL`: {_VERBS[name.removeprefix('kill ')]}",
                f"{found['kills']} kills ({_states(found['found'])})",
            )
        elif name == "flips":
            words, done = _WORDS[name], f"{found['flips']:,} bytes in {found['files']} files of {found['artifacts']} artifacts"
        elif name == "hostile":
            crafted = sum(each["tests"] for each in found["crafted"].values())
            words, done = (
                _WORDS[name],
                f"{found['runs']:,} mutations for {len(found['fuzzed'])} loaders, {crafted} crafted cases",
            )
        elif name == "page":
            words = f"{found['visitors']} visitors of the explorer at once, for {found['minutes asked']:g} minutes"
            memory = found["memory_mb"]
            done = (
                f"{found['runs']:,} requests (median {found['seconds']['median']:g} s, worst {found['seconds']['worst']:g} s; memory at most "
                f"{memory['first half']:.0f} MB in the first half, {memory['second half']:.0f} MB in the second, {memory['end']:.0f} MB at the end)"
            )
        else:
            words, done = _WORDS[name], f"{found['runs']} runs"
        rows.append([words, done, str(len(found["faults"]))])
    return table(["What was done", "How often", "Lost, changed, left half or let in"], rows)


_VERBS = {
    "training": "training of a VAE",
    "recoder": "training of a recoder",
    "encoding": "`latlas encode`",
    "map": "`latlas map`",
    "support": "`latlas support`",
    "report": "`latlas diagnose`",
}
_WORDS = {
    "disk": "A disk with too little room, or read-only: twelve commands that write",
    "two": "Two processes, one output",
    "repeat": "The same command twice",
    "hostile": "Hostile files: each loader fuzzed",
    "flips": "A byte changed",
}


def _states(found: dict[str, int]) -> str:
    words = {"absent": "nothing lay there", "earlier": "the earlier artifact", "new": "the new one, whole"}
    return ", ".join(f"{words[state]}: {count}" for state, count in found.items() if state in words)


if __name__ == "__main__":
    sys.exit(main())
