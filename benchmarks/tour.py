"""Run the tour with seeds 0 and 1 and hold its figures against the bounds that they must keep.

    python benchmarks/tour.py            # about four minutes a seed on two cores
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from latlas.cli.progress import shown
from latlas.reports.artifacts import write_tour
from latlas.studies.tour import TourSettings, run_tour

RESULTS = Path(__file__).parent / "results" / "tour.json"
SEEDS = (0, 1)

# key in report.json -> (lowest, highest)
BOUNDS = {
    "diagnosis.sparse.active": (4, 11),
    "diagnosis.sparse.zeroing_collapsed_relative_change": (-0.01, 0.01),
    "diagnosis.sparse.variance_law_mean": (0.95, 1.08),
    "diagnosis.sparse.variance_loss_over_mse": (0.8, 1.2),
    "map.type1.M_over_target_R": (0.0, 1.7),
    "map.type1.M_over_no_map": (0.0, 0.25),
    "map.support.M_over_full_M": (0.0, 1.3),
    "range.own_rejected_at_5pct": (0.02, 0.09),
    "range.fashion_rejected_at_5pct": (0.95, 1.0),
}
ALSO = (
    "diagnosis.balanced.active",
    "diagnosis.balanced.mse",
    "diagnosis.sparse.mse",
    "diagnosis.balanced.variance_law_mean",
    "diagnosis.balanced.variance_loss_over_mse",
    "map.type1.M_over_shuffled",
    "map.type1.M_over_decode_encode",
    "map.support.points",
    "map.support.random_M_over_full_M",
    "support.inhabited",
    "support.threshold",
    "support.spread.ratio",
    "range.digits_rejected_at_5pct",
    "range.digits.rejected_against_reference",
    "range.fashion.rejected_against_reference",
)


def look_up(record: dict[str, Any], key: str) -> Any:
    """Return the value at a dotted key."""
    value: Any = record
    for part in key.split("."):
        value = value[part]
    return value


def main() -> int:
    """Run, write `benchmarks/results/tour.json`, and return 1 if a bound was missed."""
    rows: dict[str, Any] = {"command": "python benchmarks/tour.py", "seeds": list(SEEDS), "bounds": BOUNDS, "measured": {}}
    seconds: dict[str, float] = {}
    missed = []
    with shown() as progress:
        for seed in SEEDS:
            tour = run_tour(TourSettings(seed=seed), progress=progress)
            record = tour.to_json()
            with tempfile.TemporaryDirectory() as folder:
                write_tour(tour, Path(folder) / "tour")
            seconds[str(seed)] = sum(record["seconds"].values())
            for key in (*BOUNDS, *ALSO):
                rows["measured"].setdefault(key, []).append(look_up(record, key))
    for key, (low, high) in BOUNDS.items():
        for seed, value in zip(SEEDS, rows["measured"][key], strict=True):
            kept = low <= value <= high
            print(f"{'kept  ' if kept else 'MISSED'} {key} = {value:.4g} in [{low}, {high}], seed {seed}")
            if not kept:
                missed.append(key)
    rows["missed"] = missed
    rows["versions"] = tour.comparison.provenance.to_json()["versions"]
    RESULTS.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    print(f"Written to {RESULTS}; seconds a seed (noisy): {seconds}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
