"""Hostile files: every loader fuzzed, every crafted file refused. A part of `make torture`.

python benchmarks/torture_hostile.py --short     # 500 runs a loader, seeded; what CI does
python benchmarks/torture_hostile.py             # 20,000 a loader, guided by coverage where atheris is installed
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "torture.json"
RUNS, SHORT_RUNS = 20_000, 500
CRAFTED = (
    "test_no_code_runs.py",
    "test_containers.py",
    "test_pictures.py",
    "test_properties.py",
    "test_checkpoints.py",
    "test_npy_headers.py",
    "test_work_folders.py",
    "test_kept_files.py",
    "test_parquet_paths.py",
    "test_wild_files.py",
)


def run(progress: Callable[[str, int, int | None], object] | None = None, *, runs: int = RUNS, seed: int = 0) -> dict[str, Any]:
    """Return what came of fuzzing each loader and of the crafted files.

    Args:
        progress: told the task, how many are done, and of how many.
        runs: for each loader.
        seed: of the mutations.
    """
    sys.path.insert(0, str(ROOT / "tools"))
    import fuzz

    tell = progress if progress is not None else lambda *_: None
    started = time.perf_counter()
    engine = "atheris" if runs > SHORT_RUNS and find_spec("atheris") is not None else "mutations"
    fuzzed: dict[str, dict[str, Any]] = {}
    for done, name in enumerate(fuzz.TARGETS):
        tell("fuzzing", done, len(fuzz.TARGETS))
        if engine == "atheris":
            fuzzed[name] = asdict(fuzz.guided(name, runs, seed, fuzz.FINDINGS))
        else:
            fuzzed[name] = _by_mutations(name, runs, seed, fuzz.FINDINGS)
    tell("fuzzing", len(fuzz.TARGETS), len(fuzz.TARGETS))
    crafted = {}
    for done, name in enumerate(CRAFTED):
        tell("crafted files", done, len(CRAFTED))
        crafted[name] = _tested(ROOT / "tests" / "hostile" / name)
    tell("crafted files", len(CRAFTED), len(CRAFTED))
    return {
        "engine": engine,
        "seed": seed,
        "bounds": {"seconds": fuzz.MOST_SECONDS, "bytes": fuzz.MOST_MEMORY},
        "fuzzed": fuzzed,
        "crafted": crafted,
        "findings": sum(len(outcome["findings"]) for outcome in fuzzed.values()),
        "failed": sum(outcome["failed"] for outcome in crafted.values()),
        "minutes": round((time.perf_counter() - started) / 60, 1),
    }


def _by_mutations(name: str, runs: int, seed: int, findings: Path) -> dict[str, Any]:
    """Fuzz one loader in a process of its own, whose memory is bounded."""
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "record.json"
        asked = [sys.executable, str(ROOT / "tools" / "fuzz.py"), name, "--runs", str(runs), "--seed", str(seed)]
        ended = subprocess.run(
            [*asked, "--findings", str(findings), "--record", str(record)], capture_output=True, text=True, check=False
        )
        if not record.is_file():  # the process died of an input: that is a finding too
            what = f"the process ended with {ended.returncode}: {ended.stderr[-300:]}"
            return {
                "target": name,
                "engine": "mutations",
                "runs": runs,
                "findings": [{"kind": "death", "what": what, "file": ""}],
            }
        (outcome,) = json.loads(record.read_text())
        return dict(outcome)


def _tested(path: Path) -> dict[str, int]:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        asked = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(path), f"--junitxml={report}"]
        subprocess.run(asked, cwd=ROOT, capture_output=True, check=False)
        if not report.is_file():
            return {"tests": 0, "failed": 1}
        suite = ElementTree.parse(report).getroot().find("testsuite")
        assert suite is not None
        return {"tests": int(suite.get("tests", 0)), "failed": int(suite.get("failures", 0)) + int(suite.get("errors", 0))}


def main() -> int:
    """Write this part of the results; return 1 if anything was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--short", action="store_true", help=f"{SHORT_RUNS} runs a loader instead of {RUNS:,}")
    given = parser.parse_args()
    found = run(
        lambda task, done, total: print(f"{task}: {done} of {total}", flush=True), runs=SHORT_RUNS if given.short else RUNS
    )
    record = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    RESULTS.write_text(json.dumps({**record, "hostile": found}, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    print(f"{found['findings']} findings, {found['failed']} crafted files not refused, {found['minutes']} minutes")
    return int(bool(found["findings"] or found["failed"]))


if __name__ == "__main__":
    raise SystemExit(main())
