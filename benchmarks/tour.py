"""Run the tour with seeds 0 and 1, hold its figures against the bounds that they must keep, and publish them.

    make bench-tour      # about three minutes a seed on two cores

Writes benchmarks/results/tour.json, the table in docs/start.md, and docs/pictures/relocation.png.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from tables import write_table

from latlas.cli.progress import shown
from latlas.reports import pictures
from latlas.reports.artifacts import write_tour
from latlas.reports.diagnosis import decode_some, encode_some
from latlas.studies.tour import Tour, TourSettings, run_tour

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "tour.json"
PICTURE = ROOT / "docs" / "pictures" / "relocation.png"
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


# what the table says of a key
WORDS = {
    "diagnosis.sparse.active": "latent variables that the 784-256-64-32-16 VAE uses, of 16 (the posts: 8)",
    "diagnosis.sparse.zeroing_collapsed_relative_change": "relative change of its test error when the others are set to 0",
    "diagnosis.sparse.variance_law_mean": "variance law, mean over variables (1 where the code is stationary)",
    "diagnosis.sparse.variance_loss_over_mse": "variance loss over squared error (the posts: about 1)",
    "map.type1.M_over_target_R": "relocation into another training, over that model's own reconstruction error",
    "map.type1.M_over_no_map": "the same, over decoding without a map",
    "map.support.M_over_full_M": "map fitted on the 128 images of a Support Set, over one fitted on 60,000",
    "map.support.random_M_over_full_M": "the same for random sets of 128 (mean of 10)",
    "support.spread.ratio": "spread of the Support Set over random images (the posts, on CelebA: 1.58)",
    "range.own_rejected_at_5pct": "fresh own samples called out of range at 5 %",
    "range.fashion_rejected_at_5pct": "Fashion-MNIST images called out of range at 5 %",
    "range.digits_rejected_at_5pct": "real test digits called out of range at 5 % (the decoder draws conditional means)",
    "range.digits.rejected_against_reference": "real test digits that stand out among other test digits at 5 %",
}


def markdown_table(results: dict[str, Any]) -> str:
    """Return the table of a results file."""
    lines = ["| what | seed 0 | seed 1 | must be |", "| --- | --- | --- | --- |"]
    for key, words in WORDS.items():
        first, second = (f"{value:.3g}" for value in results["measured"][key])
        low, high = results["bounds"].get(key, (None, None))
        bound = "reported" if low is None else f"{low:g} to {high:g}"
        lines.append(f"| {words} | {first} | {second} | {bound} |")
    return "\n".join(lines)


def relocation_picture(tour: Tour) -> bytes:
    """Return three rows: originals, reconstructions by the source, relocations."""
    originals = tour.test.slice(0, 16).tensor()
    source, target = tour.models["balanced"], tour.models["balanced again"]
    codes = encode_some(source, originals)
    relocated = decode_some(target, tour.comparison.linear_map.apply(codes))
    return pictures.grid(pictures.rows(originals, decode_some(source, codes), relocated), columns=16, enlarge=2)


def look_up(record: dict[str, Any], key: str) -> Any:
    """Return the value at a dotted key."""
    value: Any = record
    for part in key.split("."):
        value = value[part]
    return value


def main() -> int:
    """Run, write `benchmarks/results/tour.json`, and return 1 if a bound was missed."""
    rows: dict[str, Any] = {"command": "make bench-tour", "seeds": list(SEEDS), "bounds": BOUNDS, "measured": {}}
    seconds: dict[str, float] = {}
    missed = []
    with shown() as progress:
        for seed in SEEDS:
            tour = run_tour(TourSettings(seed=seed), progress=progress)
            record = tour.to_json()
            with tempfile.TemporaryDirectory() as folder:
                write_tour(tour, Path(folder) / "tour")
            if seed == SEEDS[0]:
                PICTURE.write_bytes(relocation_picture(tour))
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
    write_table("docs/start.md", "tour", markdown_table(rows))
    print(f"Written to {RESULTS}; seconds a seed (noisy): {seconds}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
