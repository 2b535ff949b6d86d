"""Support Sets, measured: the order of variables, how far apart the images lie, how long choosing takes, and what is named as missed.

    make bench-support                            # after bench-calibration, whose models it uses; a quarter of an hour on two cores
    python benchmarks/support.py --part spread    # one part again; the others from runs/bench-support

Each part is kept under runs/bench-support and not done again until it is asked for by name. The planted gaps are those of
benchmarks/planted.py, and what a Support Set is worth for fitting maps is in benchmarks/map_studies.py. Writes
benchmarks/results/support.json and the tables of docs/concepts/support-sets.md.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import support_ordering
import support_sets
from tables import table, write_table

from latlas.base.provenance import package_versions
from latlas.cli.progress import shown

ROOT = Path(__file__).parents[1]
WORK = ROOT / "runs" / "bench-support"
RESULTS = ROOT / "benchmarks" / "results"
PARTS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "ordering": support_ordering.measure,
    "spread": support_sets.spread,
    "selection": lambda _: support_sets.selection(),
}


def main() -> int:
    """Measure what is not there yet, write; return 1 if a bound was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="*", choices=PARTS, default=[], help="parts to do again")
    asked = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    parts: dict[str, Any] = {}
    with shown() as progress:
        for name, measure in PARTS.items():
            path = WORK / f"{name}.json"
            if name in asked.part or (not asked.part and not path.is_file()):
                path.write_text(json.dumps(measure(progress), indent=2), encoding="utf-8")
            if path.is_file():
                parts[name] = json.loads(path.read_text(encoding="utf-8"))
    planted = RESULTS / "planted.json"
    bounds = list(_bounds(parts))
    if planted.is_file():
        bounds += json.loads(planted.read_text(encoding="utf-8"))["bounds"]
    for line in bounds:
        print(line)
    if set(parts) == set(PARTS):
        record = {"command": "python benchmarks/support.py", **parts, "bounds": bounds, "versions": package_versions()}
        (RESULTS / "support.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        for mark, made in (("order", order_table), ("spread", spread_table), ("selection", selection_table)):
            write_table("docs/concepts/support-sets.md", mark, made(record))
    return 0 if all(line.startswith("kept") for line in bounds) else 1


def _bounds(parts: dict[str, Any]) -> Any:
    if "ordering" in parts:
        yield from parts["ordering"]["bounds"]
    if "spread" in parts:
        default = next(row for row in parts["spread"]["sets"] if row["variables"] == 7 and row["choose"] == "random")
        half = next(
            row
            for row in parts["spread"]["sets"]
            if row.get("threshold") and row.get("units") == "spread" and row["asked"] == 0.5
        )
        least = support_sets.BOUNDS["spread of avatars"]
        for name, row in (("as latlas builds it by default", default), ("threshold of half a standard deviation", half)):
            low, high = row["interval"]
            yield (
                f"{'kept' if row['ratio'] > least else 'MISSED'}: spread of the Support Set over random avatars, {name}: "
                f"{row['ratio']:.2f} ({low:.2f} to {high:.2f}), above {least:g}"
            )
    for row in parts.get("selection", {}).values():
        for key, unit in (("seconds", "s"), ("peak_GiB", "GiB")):
            limit = support_sets.BOUNDS[f"{'seconds' if key == 'seconds' else 'GiB'} of a selection"]
            verdict = "kept" if row[key] <= limit else "MISSED"
            yield f"{verdict}: {row['images']} of {row['of']:,} codes by {row['selector']}: {row[key]:.3g} {unit}, at most {limit:g}"


def order_table(record: dict[str, Any]) -> str:
    """Return decodes and agreement of the fast order."""
    rows = []
    for name, runs in record["ordering"]["variants"].items():
        share, worst = (f"{100 * runs[key]:.1f} %" for key in ("decodes_share", "decodes_share_worst"))
        rows.append([name, share, worst, f"{runs['agreeing_runs']} of {record['ordering']['runs']}"])
    return table(["order", "decodes over exhaustive, mean", "worst run", "runs with the exhaustive top"], rows)


def spread_table(record: dict[str, Any]) -> str:
    """Return the spread over random images of every set."""
    found = record["spread"]
    rows = []
    for row in [*found["sets"], *found["others"]]:
        low, high = row["interval"]
        by_sector = row.get("selector", "sectors") == "sectors"
        threshold = f"{row['threshold']:.3g} {'standard deviations' if row.get('units') == 'spread' else ''}".strip()
        rows.append(
            [
                row.get("selector", "sectors"),
                row.get("choose", "") if by_sector else "",
                str(row["variables"]) if by_sector else "",
                threshold if by_sector else "",
                str(row["inhabited"]) if by_sector else "",
                str(row["images"]),
                f"{row['ratio']:.2f} ({low:.2f} to {high:.2f})",
            ]
        )
    columns = [
        "chosen by",
        "of each sector",
        "variables",
        "threshold",
        "sectors inhabited",
        "images",
        "spread over random (95 %)",
    ]
    return table(columns, rows)


def selection_table(record: dict[str, Any]) -> str:
    """Return seconds and memory of choosing."""
    rows = [[row["selector"], f"{row['seconds']:.0f}", f"{row['peak_GiB']:.2f}"] for row in record["selection"].values()]
    return table(["chosen by", "seconds", "peak memory, GiB"], rows)


if __name__ == "__main__":
    sys.exit(main())
