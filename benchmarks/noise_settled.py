"""Does a variable come back at once because the noise left the moment that it had collapsed? Here the noise stays on.

    make bench-noise-settled     # some five minutes a course on one core; after make bench-sparsity, which trains the networks

The courses of the study of noise injection again, with the noise kept for 20 epochs after the collapse. A course that the results
hold already is not run again; `--runs 3` runs the first three. Writes benchmarks/results/noise_settled.json and the table of
docs/reproductions/noise-injection.md.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tables import table, write_table

from latlas.base.artifacts import write_json
from latlas.base.provenance import package_versions
from latlas.base.seeds import derived_seed
from latlas.cli.progress import shown
from latlas.data.loading import load_images
from latlas.models.vae import VAE
from latlas.studies.noise_events import events_of
from latlas.training.noise_injection import MEASURED, NoisePlan, inject_noise

ROOT = Path(__file__).parents[1]
WORK = ROOT / "runs" / "bench-sparsity" / "paper"
RESULTS = ROOT / "benchmarks" / "results" / "noise_settled.json"
SETTLED = 20


def main() -> int:
    """Inject, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=None, help="of the study's courses, the first so many; all if not given")
    asked = parser.parse_args()
    if not (WORK / "mnist-dense-kl-0").is_dir():
        raise SystemExit(f"No network at {WORK}: make bench-sparsity first.")
    earlier = json.loads((RESULTS.parent / "sparsity.json").read_text(encoding="utf-8"))["noise_injection"]["runs"]
    plan = NoisePlan(settled=SETTLED)
    found = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    kept = {(run["seed"], run["variable"]): run for run in found.get("runs", ())} if found.get("plan") == asdict(plan) else {}
    record: dict[str, Any] = {
        "command": "python benchmarks/noise_settled.py",
        "plan": asdict(plan),
        "runs": [],
        "versions": package_versions(),
    }
    with shown() as progress:
        images = load_images("mnist:train", progress=progress)
        for run in earlier[: asked.runs]:
            seed, variable = int(run["seed"]), int(run["variable"])
            done = kept.get((seed, variable))
            if done is None:
                course = inject_noise(
                    VAE.from_pretrained(WORK / f"mnist-dense-kl-{seed}"),
                    images,
                    variable,
                    plan=plan,
                    measured=images.slice(0, MEASURED),
                    seed=derived_seed(0, "noise", seed),
                    progress=progress,
                )
                events = events_of(course.epochs, variable)
                done = {
                    "seed": seed,
                    "variable": variable,
                    "delay_at_once": run["events"]["delay"],
                    "gain_end_at_once": run["events"]["gain_end"],
                    "delay": events.delay,
                    "events": plain_events(events),
                    "variance_of_means": [epoch.variance_of_means[variable] for epoch in course.epochs],
                    "phase": [epoch.phase for epoch in course.epochs],
                }
            record["runs"].append(done)
            write_json(RESULTS, record)
    write_table("docs/reproductions/noise-injection.md", "noise-settled", markdown(record))
    return 0


def plain_events(events: Any) -> dict[str, Any]:
    """Return what the table shows of a course."""
    return {
        name: getattr(events, name)
        for name in ("rise", "crossing", "collapse", "removal", "recovery", "gain_start", "gain_end", "departures")
    }


def markdown(record: dict[str, Any]) -> str:
    """Return the table of docs/reproductions/noise-injection.md."""
    rows = []
    for run in record["runs"]:
        events = run["events"]
        rows.append(
            [
                f"{run['seed']}, {run['variable']}",
                "–" if run["delay_at_once"] is None else str(run["delay_at_once"]),
                _delay(run),
                f"{run['gain_end_at_once']:.1f}",
                f"{events['gain_end']:.1f}",
                "; ".join(events["departures"]) or "as published",
            ]
        )
    settled = record["plan"]["settled"]
    columns = [
        "seed, variable",
        "epochs to recovery, noise gone at the collapse",
        f"noise gone {settled} epochs after it",
        "gain at the end, nats",
        f"noise gone {settled} epochs after",
        "then, against the post",
    ]
    return table(columns, rows)


def _delay(run: dict[str, Any]) -> str:
    if run["delay"] is not None:
        return str(run["delay"])
    return "no collapse" if run["events"]["collapse"] is None else "never"


if __name__ == "__main__":
    sys.exit(main())
