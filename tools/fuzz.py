"""Fuzz every loader: whatever a file holds, it is read, or refused in one line, within a second and a bound of memory.

    python tools/fuzz.py                         # every loader, seeded mutations of well-formed files, 500 runs each
    python tools/fuzz.py safetensors --runs 20000
    python tools/fuzz.py json --engine atheris   # guided by coverage; needs atheris

A loader may raise a `LatlasError`, or what its target names beside that; anything else is a finding, and so is a run that takes over a
second of processor time or makes the process grow by more than `MOST_MEMORY`. Findings are kept in `tests/hostile/findings` under
the name of their target, where the tests read each of them again for ever.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fuzzers.engines import fuzz, guided, replay, within_atheris
from fuzzers.judging import MOST_MEMORY, MOST_SECONDS, Outcome, Target, judge, limit_memory
from fuzzers.targets import TARGETS

ROOT = Path(__file__).parents[1]
FINDINGS = ROOT / "tests" / "hostile" / "findings"

__all__ = [
    "FINDINGS", "MOST_MEMORY", "MOST_SECONDS", "TARGETS", "Outcome", "Target", "fuzz", "guided", "judge", "main", "replay",
]  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz what is asked for; return 1 if anything was found."""
    parser = argparse.ArgumentParser(description="Fuzz the loaders of latlas.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; none: all")
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine", choices=("mutations", "atheris"), default="mutations")
    parser.add_argument("--findings", type=Path, help="a folder to keep findings in")
    parser.add_argument("--record", type=Path, help="a file for the outcomes, as JSON; those of other loaders stay in it")
    parser.add_argument(
        "--go-on", action="store_true", help="leave out what the record has of as many runs, with nothing found"
    )
    parser.add_argument("--within", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    for name in given.targets:
        if name not in TARGETS:
            parser.error(f"no target {name!r}; there are {', '.join(TARGETS)}")
    if given.within is not None:
        limit_memory()
        within_atheris(given.targets[0], given.runs, given.seed, given.within, given.findings)
        return 0
    if given.engine == "mutations":
        limit_memory()
    run = guided if given.engine == "atheris" else fuzz
    recorded = _recorded(given.record)
    found_any = False
    for name in given.targets or TARGETS:
        known = recorded.get(name, {})
        if given.go_on and (known.get("engine"), known.get("done"), known.get("findings")) == (given.engine, given.runs, []):
            continue
        outcome = run(name, given.runs, given.seed, given.findings)
        found_any |= bool(outcome.findings)
        print(_line(outcome), flush=True)
        for finding in outcome.findings:
            print(f"  {finding['file']}: {finding['what']}", flush=True)
        recorded[name] = asdict(outcome)
        if given.record is not None:
            _write(given.record, [recorded[each] for each in TARGETS if each in recorded])
    return int(found_any)


def _line(found: Outcome) -> str:
    reached = "" if found.coverage is None else f"{found.coverage} edges, "
    return (
        f"{found.target}: {found.done} of {found.runs} runs ({found.engine}) in {found.seconds:.0f} s, {found.read} read, {found.refused} refused, "
        f"{reached}slowest {found.slowest:.2f} s, {found.grown / 2**20:.0f} MiB grown, {len(found.findings)} findings"
    )


def _recorded(path: Path | None) -> dict[str, dict[str, Any]]:
    if path is None or not path.is_file():
        return {}
    return {each["target"]: each for each in json.loads(path.read_text(encoding="utf-8"))}


def _write(path: Path, outcomes: list[dict[str, Any]]) -> None:
    beside = path.with_suffix(".partial")
    beside.write_text(json.dumps(outcomes, indent=2) + "\n", encoding="utf-8")
    beside.replace(path)


if __name__ == "__main__":
    raise SystemExit(main())
