"""Balance rules and samplers, measured: same network, same budget, two data sets, three seeds.

    make bench-calibration                             # --budget quick: the better part of an hour on two cores
    python benchmarks/calibration.py --budget full     # hours

Each training and each calibration is kept under runs/bench-calibration and not done again, so that a run that was cut off
goes on. Writes benchmarks/results/calibration.json.
"""

import argparse
import json
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tables import table, write_table

from latlas.base.provenance import package_versions
from latlas.base.seeds import derived_seed
from latlas.cli.progress import shown
from latlas.data.images import ImageSet
from latlas.data.loading import load_images
from latlas.encodings.encode import encode
from latlas.measurements.reconstruction import measure_reconstruction
from latlas.models.architectures.registry import architecture
from latlas.models.vae import VAE
from latlas.studies.calibrate import calibrate_sampler
from latlas.studies.features import feature_network
from latlas.training.objectives import BALANCES, Objective
from latlas.training.runs import train_vae

ROOT = Path(__file__).parents[1]
WORK = ROOT / "runs" / "bench-calibration"
RESULTS = ROOT / "benchmarks" / "results" / "calibration.json"
SEEDS = (0, 1, 2)
DEFAULT, REFERENCE = "running-error", "fixed"
# Avatars take several times as long: there the two best rules of the digits are compared, beside the textbook's.
RULES = {"mnist": BALANCES, "avatars": ("running-error", "optimal-sigma", "fixed")}
SAMPLED_RULES = (DEFAULT, REFERENCE)  # rules whose samples are measured too; the others' reconstructions only


@dataclass(frozen=True)
class Budget:
    """How much one training gets."""

    train: dict[str, str]
    heldout: dict[str, str]
    epochs: dict[str, int]


BUDGETS = {
    # Whether everything runs, in two minutes; its figures mean nothing and are printed only.
    "smoke": Budget(
        train={"mnist": "mnist:train[0:600]", "avatars": "avatars:train[0:300]"},
        heldout={"mnist": "mnist:test[0:200]", "avatars": "avatars:test[0:100]"},
        epochs={"mnist": 1, "avatars": 1},
    ),
    "quick": Budget(
        train={"mnist": "mnist:train[0:20000]", "avatars": "avatars:train[0:8000]"},
        heldout={"mnist": "mnist:test[0:4000]", "avatars": "avatars:test[0:2000]"},
        epochs={"mnist": 12, "avatars": 12},
    ),
    "full": Budget(
        train={"mnist": "mnist:train", "avatars": "avatars:train"},
        heldout={"mnist": "mnist:test", "avatars": "avatars:test"},
        epochs={"mnist": 40, "avatars": 60},
    ),
}
NETWORKS = {"mnist": {"latent": 16}, "avatars": {"latent": 64}}


def main() -> int:
    """Train, measure, write; return 1 if a bound was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", choices=BUDGETS, default="quick")
    parser.add_argument("--rules", nargs="*", choices=BALANCES, default=list(BALANCES))
    parser.add_argument(
        "--data", nargs="*", choices=list(NETWORKS), default=list(NETWORKS), help="a part, to share out the work"
    )
    asked = parser.parse_args()
    budget = BUDGETS[asked.budget]
    rows: list[dict[str, Any]] = []
    with shown() as progress:
        for data in asked.data:
            train = load_images(budget.train[data], progress=progress)
            heldout = load_images(budget.heldout[data], progress=progress)
            for rule in (rule for rule in RULES[data] if rule in asked.rules):
                for seed in SEEDS:
                    folder = WORK / asked.budget / data / f"{rule}-{seed}"
                    rows.append(_one(folder, data, rule, seed, train, heldout, budget.epochs[data], progress))
    record = {
        "command": f"python benchmarks/calibration.py --budget {asked.budget}",
        "rows": rows,
        "summary": summarise(rows),
        "versions": package_versions(),
    }
    whole = set(asked.rules) == set(BALANCES) and set(asked.data) == set(NETWORKS)
    if asked.budget != "smoke" and whole:
        RESULTS.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        write_table("docs/concepts/balance.md", "balance", balance_table(record))
        write_table("docs/concepts/samplers.md", "samplers", sampler_table(record))
        write_table("docs/concepts/samplers.md", "renormalisation", renormalisation_table(record))
    for line in record["summary"]["bounds"]:
        print(line)
    return 0 if all(line.startswith("kept") for line in record["summary"]["bounds"]) else 1


def _one(
    folder: Path, data: str, rule: str, seed: int, train: ImageSet, heldout: ImageSet, epochs: int, progress: Any
) -> dict[str, Any]:
    kept = folder.with_suffix(".json")
    if kept.is_file():
        found: dict[str, Any] = json.loads(kept.read_text())
        return found
    model = trained(folder, data, rule, seed, train, epochs, progress)
    encoding = encode(model, heldout)
    reconstruction = measure_reconstruction(model, encoding.mean, heldout)
    row: dict[str, Any] = {
        "data": data,
        "rule": rule,
        "seed": seed,
        "error": reconstruction.error,
        "variance_loss_over_error": reconstruction.variance_loss_over_error,
        "active": int(encoding.moments().active().sum()),
        "variables": model.latent_shape[0],
        "kl_nats": float(encoding.moments().kl_nats.sum()),
    }
    if rule in SAMPLED_RULES:
        row["calibration"] = calibrate_sampler(
            model, train, heldout, features=feature_network("auto", heldout), seed=seed, progress=progress
        ).to_json()
    kept.write_text(json.dumps(row, indent=2))
    return row


def trained(folder: Path, data: str, rule: str, seed: int, train: ImageSet, epochs: int, progress: Any) -> VAE:
    """Return the VAE of a cell, trained if it is not there yet."""
    if (folder / "config.json").is_file():
        return VAE.from_pretrained(folder)
    return train_vae(
        train,
        architecture("conv", **NETWORKS[data]),
        objective=Objective(balance=rule),
        epochs=epochs,
        seed=derived_seed(seed, data),
        name=f"{data} {rule} {seed}",
        out=folder,
        progress=progress,
    ).model


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return means over seeds, the ratios asked for, and whether each bound was kept."""
    table: dict[str, Any] = {}
    bounds = []
    for data in sorted({row["data"] for row in rows}):
        table[data] = {}
        for rule in {row["rule"]: None for row in rows if row["data"] == data}:
            chosen = [row for row in rows if row["data"] == data and row["rule"] == rule]
            table[data][rule] = {
                "error": statistics.mean(row["error"] for row in chosen),
                "error_spread": statistics.stdev([row["error"] for row in chosen]) if len(chosen) > 1 else None,
                "active": [row["active"] for row in chosen],
                "kl_nats": statistics.mean(row["kl_nats"] for row in chosen),
            }
        ours, theirs = ([row for row in rows if row["data"] == data and row["rule"] == rule] for rule in SAMPLED_RULES)
        if not (ours and theirs):
            continue
        ratio = table[data][DEFAULT]["error"] / table[data][REFERENCE]["error"]
        best, other = (statistics.mean(_best(row) for row in group) for group in (ours, theirs))
        over_prior = [row["calibration"]["best_over_prior"] for row in ours]
        table[data]["default_over_fixed_error"] = ratio
        table[data]["best_sampler_distance"] = {DEFAULT: best, REFERENCE: other}
        table[data]["chosen_over_prior"] = over_prior
        table[data]["second_stage_renormalised_over_plain"] = [_renormalised(row) for row in ours]
        bounds += [
            _bound(f"{data}: error of {DEFAULT} over fixed sigma = 1", ratio, 0.7),
            _bound(f"{data}: distance of its best sampler over that of fixed", best / other, 1.0),
            _bound(f"{data}: distance of the chosen sampler over the prior's, mean of seeds", statistics.mean(over_prior), 0.8),
        ]
    return {"table": table, "bounds": bounds}


def balance_table(record: dict[str, Any]) -> str:
    """Return the table of the balance rules, as docs/concepts/balance.md shows it."""
    rows = []
    for data, found in record["summary"]["table"].items():
        for rule in RULES[data]:
            cell = found[rule]
            errors = f"{cell['error']:.5f} ± {cell['error_spread']:.5f}"
            ratio = cell["error"] / found[REFERENCE]["error"]
            active = ", ".join(str(count) for count in cell["active"])
            rows.append([data, rule, errors, f"{ratio:.2f}", active, f"{cell['kl_nats']:.1f}"])
    return table(
        ["data", "rule", "test error (mean ± deviation over seeds)", "over fixed", "active, by seed", "KL (nats)"], rows
    )


def sampler_table(record: dict[str, Any]) -> str:
    """Return the distances of every sampler, as docs/concepts/samplers.md shows them."""
    rows = []
    for data in record["summary"]["table"]:
        ours = [row["calibration"] for row in record["rows"] if row["data"] == data and row["rule"] == DEFAULT]
        for label, key in (("real images", "real"), ("reconstructions", "reconstructions")):
            rows.append([data, label, *(f"{found[key]['value']:.1f}" for found in ours), ""])
        names = sorted(ours[0]["samplers"], key=lambda name: statistics.mean(_distance(found, name) for found in ours))
        for name in names:
            chosen = sum(found["best"] == name for found in ours)
            cells = [f"{_distance(found, name):.1f} ± {2 * _deviation(found, name):.1f}" for found in ours]
            rows.append([data, name, *cells, "" if not chosen else f"{chosen} of {len(ours)}"])
    return table(["data", "images of", *(f"seed {seed}" for seed in SEEDS), "chosen"], rows)


def renormalisation_table(record: dict[str, Any]) -> str:
    """Return what renormalising the second stage did, paired over seeds."""
    rows = []
    for data, found in record["summary"]["table"].items():
        ours = [
            row["calibration"]["samplers"]["second-stage"]
            for row in record["rows"]
            if row["data"] == data and row["rule"] == DEFAULT
        ]
        ratios = [f"{ratio:.3f}" for ratio in found["second_stage_renormalised_over_plain"]]
        rows.append([data, *ratios, ", ".join(f"{cell['variance_ratio']:.2f}" for cell in ours)])
    return table(["data", *(f"seed {seed}" for seed in SEEDS), "variance ratio before"], rows)


def _distance(calibration: dict[str, Any], sampler: str) -> float:
    return float(calibration["samplers"][sampler]["distance"]["value"])


def _deviation(calibration: dict[str, Any], sampler: str) -> float:
    return float(calibration["samplers"][sampler]["distance"]["standard_error"] or 0.0)


def _best(row: dict[str, Any]) -> float:
    return float(row["calibration"]["samplers"][row["calibration"]["best"]]["distance"]["value"])


def _renormalised(row: dict[str, Any]) -> float:
    samplers = row["calibration"]["samplers"]
    return float(samplers["second-stage, renormalised"]["distance"]["value"] / samplers["second-stage"]["distance"]["value"])


def _bound(what: str, value: float, highest: float) -> str:
    return f"{'kept' if value <= highest else 'MISSED'}: {what} = {value:.3f}, at most {highest}"


if __name__ == "__main__":
    sys.exit(main())
