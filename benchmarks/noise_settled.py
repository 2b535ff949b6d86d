"""Does a variable come back at once because the noise left the moment that it had collapsed? The noise of seed 0 stays on.

    make bench-noise-settled     # some quarter of an hour on one core; after make bench-sparsity, which trains the network

The courses of the study of noise injection again, with the noise kept for 20 epochs after the collapse. Writes
benchmarks/results/noise_settled.json and the table of docs/reproductions/noise-injection.md.
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
from latlas.training.noise_injection import NoisePlan, inject_noise

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "runs" / "bench-sparsity" / "paper" / "mnist-dense-kl-0"
RESULTS = ROOT / "benchmarks" / "results" / "noise_settled.json"
SETTLED = 20


def main() -> int:
    """Inject, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    if not MODEL.is_dir():
        raise SystemExit(f"No network at {MODEL}: make bench-sparsity first.")
    model = VAE.from_pretrained(MODEL)
    earlier = json.loads((RESULTS.parent / "sparsity.json").read_text(encoding="utf-8"))["noise_injection"]["runs"]
    runs: list[dict[str, Any]] = []
    plan = NoisePlan(settled=SETTLED)
    with shown() as progress:
        images = load_images("mnist:train", progress=progress)
        for run in (run for run in earlier if run["number"] == 0) if "number" in earlier[0] else earlier[:3]:
            variable = int(run["variable"])
            course = inject_noise(
                model,
                images,
                variable,
                plan=plan,
                measured=images.slice(0, 2000),
                seed=derived_seed(0, "noise", 0),
                progress=progress,
            )
            events = events_of(course.epochs, variable)
            runs.append(
                {
                    "variable": variable,
                    "delay_at_once": run["events"]["delay"],
                    "gain_end_at_once": run["events"]["gain_end"],
                    "delay": events.delay,
                    "events": plain_events(events),
                    "variance_of_means": [epoch.variance_of_means[variable] for epoch in course.epochs],
                    "phase": [epoch.phase for epoch in course.epochs],
                }
            )
            write_json(
                RESULTS,
                {
                    "command": "python benchmarks/noise_settled.py",
                    "plan": asdict(plan),
                    "runs": runs,
                    "versions": package_versions(),
                },
            )
    write_table("docs/reproductions/noise-injection.md", "noise-settled", markdown({"plan": asdict(plan), "runs": runs}))
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
                f"0, {run['variable']}",
                str(run["delay_at_once"]),
                "never" if run["delay"] is None else str(run["delay"]),
                f"{run['gain_end_at_once']:.1f}",
                f"{events['gain_end']:.1f}",
            ]
        )
    settled = record["plan"]["settled"]
    columns = [
        "seed, variable",
        "epochs to recovery, noise gone at the collapse",
        f"noise gone {settled} epochs after it",
        "gain at the end, nats",
        f"noise gone {settled} epochs after",
    ]
    return table(columns, rows)


if __name__ == "__main__":
    sys.exit(main())
