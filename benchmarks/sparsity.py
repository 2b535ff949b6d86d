"""Collapsed variables: how many, what noise does to one, and the variance law; the figures of the posts beside ours.

    make bench-variance-loss bench-maps      # whose models stand beside those trained here; once
    make bench-sparsity      # some two hours on two idle cores; goes on where it was cut off

Trainings and courses are kept under runs/bench-sparsity. Writes benchmarks/results/sparsity.json, the tables of
docs/reproductions/{sparsity,noise-injection,variance-law}.md and the pictures that they show.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tables import table, write_table

from latlas.base.provenance import package_versions
from latlas.cli.progress import shown
from latlas.data.loading import load_images
from latlas.models.vae import VAE
from latlas.reports.noise_injection import course_figure, noise_injection_report
from latlas.reports.page import write_report
from latlas.reports.sparsity import PUBLISHED, counts_figure, evolution_figure, generated_grid, sparsity_report
from latlas.reports.variance_law import law_figure, time_figure, variance_law_report
from latlas.studies import noise_injection, sparsity, variance_law
from latlas.studies.noise_events import EVENTS
from latlas.studies.variance_law import VarianceLawPoint, history_of, variance_law_point

ROOT = Path(__file__).parents[1]
WORK = ROOT / "runs" / "bench-sparsity"
RESULTS = ROOT / "benchmarks" / "results" / "sparsity.json"
PICTURES = ROOT / "docs" / "pictures"
PAGES = ROOT / "docs" / "reproductions"
# Trained by other benchmarks, which have to run first: folders under runs/, and the images to measure them on.
ELSEWHERE = {
    "bench-variance-loss/mnist-": "mnist:train[0:4000]",
    "bench-variance-loss/avatars-": "avatars:train?size=32[0:2000]",
    "bench-maps/split": "avatars:train[0:2000]",
    "bench-maps/4-channels-stride-4": "avatars:train?size=32[0:2000]",
    "bench-maps/8-channels-stride-8": "avatars:train?size=32[0:2000]",
}
NAMES = {"kl": "KL", "quadratic": "quadratic penalty alone", "none": "no KL"}


def main() -> int:
    """Measure, write; return 1 if a bound was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", default="paper", choices=("quick", "paper"), help="quick writes no documents")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    work = WORK / asked.budget
    if asked.budget == "paper" and (absent := [start for start in ELSEWHERE if not _folders(start)]):
        raise SystemExit(
            f"No model at {_list([f'runs/{start}*' for start in absent])}: make bench-variance-loss bench-maps first."
        )
    with shown() as progress:
        counted = sparsity.run(asked.budget, asked.seed, progress, work=work)
        write_report(sparsity_report(counted), work / "report-sparsity", replace=True)
        noisy = noise_injection.run(asked.budget, asked.seed, progress, work=work)
        write_report(noise_injection_report(noisy), work / "report-noise-injection", replace=True)
        more = elsewhere(progress) if asked.budget == "paper" else []
        law = variance_law.run(asked.budget, asked.seed, progress, more=more, work=work)
        write_report(variance_law_report(law), work / "report-variance-law", replace=True)
    record: dict[str, Any] = {
        "command": f"python benchmarks/sparsity.py --budget {asked.budget} --seed {asked.seed}",
        "sparsity": _without(counted.to_json(), "variance_of_means"),
        "noise_injection": _without(noisy.to_json(), "epochs"),
        "variance_law": _without(law.to_json(), "history"),
        "versions": package_versions(),
    }
    record["bounds"] = bounds(record)
    (RESULTS if asked.budget == "paper" else work / "sparsity.json").write_text(
        json.dumps(record, indent=1) + "\n", encoding="utf-8"
    )
    print("\n".join(record["bounds"]))
    if asked.budget == "paper":
        for name, content in (
            ("sparsity", sparsity_table(record)),
            ("noise-injection", noise_table(record)),
            ("variance-law", law_table(record)),
        ):
            write_table(f"docs/reproductions/{name}.md", name, content)
        write_table("docs/reproductions/sparsity.md", "sparsity-variables", variables_table(record))
        _draw("sparsity-counts.svg", counts_figure(counted))
        _draw("sparsity-evolution.svg", evolution_figure(counted.of("mnist", "dense", "kl")[0]))
        _draw("noise-injection.svg", course_figure(next((run for run in noisy.runs if run.events.as_published), noisy.runs[0])))
        _draw("variance-law.svg", law_figure(law))
        _draw("variance-law-time.svg", time_figure(law))
        if counted.generated:
            (PICTURES / "sparsity-generated.png").write_bytes(generated_grid(counted))
    return int(any(bound.startswith("MISSED") for bound in record["bounds"]))


def bounds(record: dict[str, Any]) -> list[str]:
    """Return what the posts lead one to expect, and whether it came."""
    lines = []

    def held(kept: bool, text: str) -> None:
        lines.append(f"{'kept' if kept else 'MISSED'}: {text}")

    cells = {(c["data"], c["network"], c["term"]): c for c in record["sparsity"]["counts"]}
    dense = cells["mnist", "dense", "kl"]["collapsed"]
    held(
        all(6 <= number <= 12 for number in dense) and max(dense) - min(dense) <= 3,
        f"dense net on MNIST, collapsed of 16 = {_list(dense)}, from 6 to 12, spread at most 3",
    )
    fewer = record["sparsity"]["convolutional_collapses_fewer"]["mnist"]
    held(
        fewer["seeds"] >= 0.8 * fewer["of"],
        f"convolutional collapses fewer in {fewer['seeds']} of {fewer['of']} seeds, at least 4 of 5",
    )
    for term in ("quadratic", "none"):
        numbers = [number for (_, _, name), cell in cells.items() if name == term for number in cell["collapsed"]]
        held(not any(numbers), f"{NAMES[term]}: collapsed = {_list(numbers)}, none")
    noisy = record["noise_injection"]
    held(
        9 * noisy["as_published"] >= 7 * noisy["of"],
        f"events in the published order in {noisy['as_published']} of {noisy['of']} runs, at least 7 of 9",
    )
    means = [p["mean"] for p in record["variance_law"]["points"] if p["model"].startswith("mnist-dense-kl")]
    held(all(abs(mean - 1) <= 0.05 for mean in means), f"variance law, dense net, means = {_list(means)}, within 5 % of 1")
    return lines


def _with_pictures(rows: str, pictures: Sequence[str]) -> str:
    """Return a table and the pictures below it: both are in the document only once they are measured."""
    return "\n\n".join([rows, *pictures])


def sparsity_table(record: dict[str, Any]) -> str:
    """Return the counts that docs/reproductions/sparsity.md shows."""
    published = {("mnist", "dense", "kl"): "8", ("mnist", "conv", "kl"): "3"}
    rows = []
    for cell in record["sparsity"]["counts"]:
        key = (cell["data"], cell["network"], cell["term"])
        runs = [r for r in record["sparsity"]["runs"] if (r["data"], r["network"], r["term"]) == key]
        rules = [", ".join(str(run["collapsed_by_rule"][rule]) for run in runs) for rule in runs[0]["collapsed_by_rule"]]
        said = published.get(key, "none" if key[2] != "kl" and key[0] == "mnist" else "–")
        rows.append([f"{key[1]}, {key[0]}", NAMES[key[2]], said, _list(cell["collapsed"]), *rules])
    rules = list(record["sparsity"]["runs"][0]["collapsed_by_rule"])
    return _with_pictures(
        table(["net, data", "latent term", "published", "collapsed of 16, by seed", *rules], rows),
        [
            "![Collapsed variables of each training, the published counts as crosses](../pictures/sparsity-counts.svg)",
        ],
    )


def variables_table(record: dict[str, Any]) -> str:
    """Return the published table of each net beside ours, both by falling variance of means."""
    columns, rows = ["place"], [[str(place)] for place in range(16)]
    for network in ("dense", "conv"):
        run = next(r for r in record["sparsity"]["runs"] if r["name"] == f"mnist-{network}-kl-0")
        ours = sorted(run["table"], key=lambda row: -row["variance_of_means"])
        theirs = sorted(PUBLISHED[network], reverse=True)
        columns += [f"{network}, published", f"{network}, ours", "ours: gain"]
        for row, (variance, posterior), mine in zip(rows, theirs, ours, strict=True):
            row += [
                f"{variance:.2g} + {posterior:.2g}",
                f"{mine['variance_of_means']:.2g} + {mine['mean_posterior_variance']:.2g}",
                f"{max(mine['gain'], 0.0):.2g}",
            ]
    return _with_pictures(
        table(columns, rows),
        [
            "![Variance of means of the 16 variables of the dense net over the epochs](../pictures/sparsity-evolution.svg)",
            "![Generated images, and the same with the collapsed variables at 0](../pictures/sparsity-generated.png)",
        ],
    )


def noise_table(record: dict[str, Any]) -> str:
    """Return the runs that docs/reproductions/noise-injection.md shows."""
    rows = []
    for run in record["noise_injection"]["runs"]:
        events = run["events"]
        rows.append(
            [
                f"{run['seed']}, {run['variable']} ({run['rank'] + 1} of {run['active']})",
                f"{events['kl_start']:.2f} → {events['kl_most']:.2f}",
                *("–" if events[name] is None else str(events[name]) for name in EVENTS),
                "–" if events["delay"] is None else str(events["delay"]),
                f"{events['gain_start']:.1f} → {events['gain_end']:.1f}",
                "; ".join(events["departures"]) or "as published",
            ]
        )
    columns = ["seed, variable (by gain)", "KL, nats", *EVENTS.values(), "delay, epochs", "gain, nats", "against the post"]
    return _with_pictures(
        table(columns, rows),
        [
            "![One variable's variances, gain and KL over the epochs](../pictures/noise-injection.svg)",
        ],
    )


def law_table(record: dict[str, Any]) -> str:
    """Return the sums that docs/reproductions/variance-law.md shows."""
    rows = []
    for name, values in PUBLISHED.items():
        sums = [sum(pair) for pair in values]
        alive = [sum(pair) for pair in values if pair[0] > 0.01]
        dead = [sum(pair) for pair in values if pair[0] <= 0.01]
        cells = [_mean(sums), _mean(alive), _mean(dead), f"{min(sums):.3f} to {max(sums):.3f}", "–", "–"]
        rows.append([f"published: {name}, MNIST", f"{len(alive)} of {len(sums)}", *cells])
    for point in record["variance_law"]["points"]:
        active = sum(variable["active"] for variable in point["variables"])
        rows.append(
            [
                point["model"],
                f"{active} of {len(point['variables'])}",
                *(_number(point[key]) for key in ("mean", "mean_active", "mean_collapsed")),
                f"{point['low']:.3f} to {point['high']:.3f}",
                _number(point["drift"]),
                f"{point['cost_nats']:.2g}",
            ]
        )
    columns = ["model", "active", "mean", "mean, active", "mean, collapsed", "least to most", "moved at the end", "costs, nats"]
    return _with_pictures(
        table(columns, rows),
        [
            "![The sum of every variable of every model; the band is within 5 % of 1](../pictures/variance-law.svg)",
            "![The sum of every variable over the epochs of four trainings](../pictures/variance-law-time.svg)",
        ],
    )


def elsewhere(progress: Any) -> list[VarianceLawPoint]:
    """Return the points of models that other benchmarks have trained."""
    points, loaded = [], {}
    for start, spec in ELSEWHERE.items():
        for folder in _folders(start):
            if spec not in loaded:
                loaded[spec] = load_images(spec, progress=progress)
            model = VAE.from_pretrained(folder)
            points.append(variance_law_point(model, loaded[spec], history=history_of(folder), progress=progress))
    return points


def _folders(start: str) -> list[Path]:
    return [folder for folder in sorted((ROOT / "runs").glob(f"{start}*")) if (folder / "config.json").is_file()]


def _without(value: Any, name: str) -> Any:
    """Drop what takes much room and no table shows."""
    if isinstance(value, dict):
        return {key: _without(item, name) for key, item in value.items() if key != name or not isinstance(item, list)}
    return [_without(item, name) for item in value] if isinstance(value, list) else value


def _list(numbers: list[Any]) -> str:
    return ", ".join(f"{number:.3f}" if isinstance(number, float) else str(number) for number in numbers)


def _mean(values: list[float]) -> str:
    return _number(sum(values) / len(values))


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _draw(name: str, drawing: str) -> None:
    """A drawing that stands alone needs an ink of its own."""
    text = drawing.replace("currentColor", "#1c2430").replace("<svg ", '<svg style="background:#ffffff" ', 1)
    (PICTURES / name).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
