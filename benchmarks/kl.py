"""What the KL term and sampling do: the curve, trajectories in two dimensions, clouds in three, at the sizes of the posts.

    make bench-kl      # about ten minutes on two idle cores; goes on where it was cut off

Trains 784-256-2 once, and 784-256-64-16-3 with sampling and without, five seeds, ten epochs each. Writes
benchmarks/results/kl.json, and pictures and tables of docs/reproductions.
"""

import argparse
import inspect
import json
import sys
from pathlib import Path
from typing import Any

import torch
from tables import table, write_table

from latlas.base.provenance import Provenance, package_versions
from latlas.base.seeds import derived_seed
from latlas.cli.progress import shown
from latlas.data.loading import load_images
from latlas.models.architectures.registry import architecture_to_json
from latlas.models.vae import VAE
from latlas.reports.kl_curve import kl_curve_figure
from latlas.reports.latent_cloud import WORDS, cloud_figure, write_latent_cloud
from latlas.reports.pictures import grid
from latlas.reports.trajectories import ANIMATION, later_figure, trajectory_animation, trajectory_figure, write_trajectories
from latlas.studies import kl_curve, trajectories
from latlas.studies.features import feature_network
from latlas.studies.latent_cloud import (
    ARMS,
    NETWORK,
    OBJECTIVES,
    SIDE,
    SIZES,
    Arm,
    Cloud,
    LatentCloudStudy,
    gather_clouds,
    measure_cloud,
    train_arm,
)
from latlas.studies.trajectories import TrajectoryStudy
from latlas.training.callbacks import HealthRecord, Trajectories

ROOT = Path(__file__).parents[1]
WORK = ROOT / "runs" / "bench-kl"
RESULTS = ROOT / "benchmarks" / "results" / "kl.json"
PICTURES = ROOT / "docs" / "pictures"
BUDGET = "paper"
PARTS = ("kl-curve", "trajectories", "latent-cloud")


def main() -> int:
    """Run the parts that are not done yet, write; return 1 if a bound was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=PARTS, default=list(PARTS), help="parts of the work")
    parser.add_argument("--train", metavar="ARM-SEED", nargs="*", help="trainings of latent-cloud alone, as sampling-0")
    asked = parser.parse_args()
    with shown() as progress:
        if asked.train:
            for name in asked.train:
                arm, seed = name.rsplit("-", 1)
                _trained(_arm(arm), int(seed), progress)
            return 0
        parts = {name: PART[name](progress) for name in asked.only}
    if set(parts) != set(PARTS):
        return 0
    bounds = _bounds(parts)
    record = {"command": "python benchmarks/kl.py", "budget": BUDGET, **parts, "bounds": bounds, "versions": package_versions()}
    RESULTS.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    for name in PARTS:
        write_table(f"docs/reproductions/{name}.md", name, MARKDOWN[name](record))
    print("\n".join(bounds))
    return 0 if all(bound.startswith("kept") for bound in bounds) else 1


def _kl_curve(progress: Any) -> dict[str, Any]:
    study = kl_curve.run(BUDGET, progress=progress)
    (PICTURES / "kl-curve.svg").write_text(_on_white(kl_curve_figure(study)), encoding="utf-8")
    return {
        "curves": [{key: value for key, value in vars(curve).items() if key != "kl_nats"} for curve in study.curves],
        "deviation": study.deviation,
        "deviation_nats": study.deviation_nats,
    }


def _trajectories(progress: Any) -> dict[str, Any]:
    folder = WORK / "trajectories"
    if not (folder / "report.json").is_file():
        write_trajectories(trajectories.run(BUDGET, progress=progress), folder, replace=True)
    found = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    _check_kept(folder, Provenance.from_json(found["provenance"]), _of_trajectories(progress))
    study = _as_study(found)
    (PICTURES / "trajectories.svg").write_text(_on_white(trajectory_figure(study)), encoding="utf-8")
    (PICTURES / "trajectories-later.svg").write_text(_on_white(later_figure(study)), encoding="utf-8")
    (PICTURES / ANIMATION).write_bytes(trajectory_animation(study))
    return {key: found[key] for key in ("start", "after_first_epoch", "over_epochs", "health")}


def _of_trajectories(progress: Any) -> dict[str, Any]:
    """What the study's provenance shall say."""
    defaults = inspect.signature(trajectories.study_trajectories).parameters
    return {
        "images": load_images(trajectories.TRAIN[BUDGET], progress=progress).content_hash,
        "seed": 0,
        "architecture": architecture_to_json(trajectories.NETWORK),
        "objective": trajectories.OBJECTIVE.to_json(),
        "epochs": trajectories.EPOCHS[BUDGET],
        **{name: defaults[name].default for name in ("classes", "per_class", "frames", "batch_size")},
    }


def _as_study(found: dict[str, Any]) -> TrajectoryStudy:
    """The study of its own report, so that pictures can be drawn anew without training again."""
    paths = {
        name: Trajectories(**{key: torch.tensor(found[name][key]) for key in ("steps", "mean", "log_variance")})
        for name in ("first", "later")
    }
    return TrajectoryStudy(
        images=found["images"],
        epochs=found["epochs"],
        labels=torch.tensor(found["first"]["labels"]),
        later_labels=torch.tensor(found["later"]["labels"]),
        health=[HealthRecord(**record) for record in found["health"]],
        provenance=Provenance.from_json(found["provenance"]),
        **paths,
    )


def _latent_cloud(progress: Any) -> dict[str, Any]:
    sizes = SIZES[BUDGET]
    test = load_images(sizes.test, progress=progress)
    features = feature_network("auto", test)
    clouds = [
        measure_cloud(
            _trained(arm, seed, progress),
            arm,
            test,
            features=features,
            shown=sizes.shown,
            samples=sizes.samples,
            seed=seed,
            progress=progress,
        )
        for seed in range(sizes.seeds)
        for arm in ARMS
    ]
    provenance = Provenance(
        made_by="benchmarks/kl.py",
        seed=0,
        made_from={"test": test.content_hash},
        settings={"objectives": {arm: objective.to_json() for arm, objective in OBJECTIVES.items()}},
    )
    study = gather_clouds(clouds, features=features, samples=min(sizes.samples, len(test)), provenance=provenance)
    _draw_clouds(study)
    write_latent_cloud(study, WORK / "page", replace=True)
    record = study.to_json()
    del record["provenance"]
    return record


def _draw_clouds(study: LatentCloudStudy) -> None:
    (PICTURES / "latent-cloud.svg").write_text(_on_white(cloud_figure(study)), encoding="utf-8")
    for arm in ARMS:
        cloud: Cloud = study.of(arm)[0]
        name = f"latent-cloud-{arm.replace(' ', '-')}.png"
        (PICTURES / name).write_bytes(grid(cloud.slices, columns=SIDE * SIDE, enlarge=1))


def _trained(arm: Arm, seed: int, progress: Any) -> VAE:
    folder, sizes = WORK / f"{arm.replace(' ', '-')}-{seed}", SIZES[BUDGET]
    train = load_images(sizes.train, progress=progress)
    if (folder / "config.json").is_file():
        model = VAE.from_pretrained(folder)
        wanted = {
            "images": train.content_hash,
            "seed": derived_seed(seed, "latent cloud"),
            "architecture": architecture_to_json(NETWORK),
            "objective": OBJECTIVES[arm].to_json(),
            "epochs": sizes.epochs,
        }
        _check_kept(folder, model.provenance, wanted)
        return model
    return train_arm(train, arm, epochs=sizes.epochs, seed=seed, device="cpu", out=folder, progress=progress)


def _check_kept(folder: Path, made: Provenance | None, wanted: dict[str, Any]) -> None:
    """Stop where what is kept was made otherwise than it would be made now."""
    said: dict[str, Any] = {}
    if made is not None:
        said = {"images": made.made_from.get("images"), "seed": made.seed, **made.settings, **made.settings.get("training", {})}
    differing = [name for name, value in wanted.items() if said.get(name) != value]
    if differing:
        raise SystemExit(f"{folder} was made with other settings ({', '.join(differing)}). Delete it, and run again.")


def _arm(name: str) -> Arm:
    return next(arm for arm in ARMS if arm.replace(" ", "-") == name)


def _bounds(parts: dict[str, dict[str, Any]]) -> list[str]:
    lower, seeds = parts["latent-cloud"]["lower_with_sampling"]["frechet"], parts["latent-cloud"]["seeds"]
    difference = parts["kl-curve"]["deviation"]
    return [
        f"{'kept' if lower == seeds == 5 else 'MISSED'}: distance of samples lower with sampling in {lower} of {seeds} seeds, 5 of 5",
        f"{'kept' if difference < 1e-6 else 'MISSED'}: minima by formula and by search differ by {difference:.1e}, below 1e-6",
    ]


def kl_curve_markdown(record: dict[str, Any]) -> str:
    """Return the table of docs/reproductions/kl-curve.md."""
    part = record["kl-curve"]
    columns = ["ratio ρ of deviation to mean", "σ² of least KL, published: ρ² / (1 + ρ²)", "found by search", "least KL, nats"]
    rows = [
        [f"{found['ratio']:g}", f"{found['minimum']:.6f}", f"{found['found_minimum']:.6f}", f"{found['found_kl_nats']:.4f}"]
        for found in part["curves"]
    ]
    return table(columns, rows)


def trajectories_markdown(record: dict[str, Any]) -> str:
    """Return the table of docs/reproductions/trajectories.md."""
    part = record["trajectories"]
    sizes, last = part["over_epochs"], part["health"][-1]
    rows = [
        ["variance before the first step, ten digits", "close to 1", f"{part['start']:.3f}"],
        ["the same ten at the end of the first epoch", "rapidly very small", f"{part['after_first_epoch']:.4f}"],
        [f"sixty digits after {len(sizes)} epochs", "really small", f"{sizes[-1]:.4f}"],
        ["the same sixty, epoch by epoch", "decreases further", ", ".join(f"{size:.4f}" for size in sizes)],
        [
            "variance of the means, by variable, 2,000 digits",
            "Gaussian-like about the centre",
            " and ".join(f"{value:.2f}" for value in last["variance_of_means"]),
        ],
    ]
    return table(["what", "published", "ours"], rows)


def latent_cloud_markdown(record: dict[str, Any]) -> str:
    """Return the table of docs/reproductions/latent-cloud.md."""
    part = record["latent-cloud"]
    rows = []
    for quantity, words in WORDS.items():
        cells = [f"{part['means'][arm][quantity]:.4g}" for arm in ARMS]
        normal = part["normal"].get(quantity)
        lower = f"{part['lower_with_sampling'][quantity]} of {part['seeds']}"
        rows.append([words, *cells, "–" if normal is None else f"{normal:.2g}", lower])
    return table(["what", *(f"{arm}, mean over seeds" for arm in ARMS), "a normal cloud, at most", "lower with sampling"], rows)


PART = {"kl-curve": _kl_curve, "trajectories": _trajectories, "latent-cloud": _latent_cloud}
MARKDOWN = {"kl-curve": kl_curve_markdown, "trajectories": trajectories_markdown, "latent-cloud": latent_cloud_markdown}


def _on_white(drawing: str) -> str:
    """A drawing that stands alone needs an ink of its own."""
    return drawing.replace("currentColor", "#1c2430").replace("<svg ", '<svg style="background:#ffffff" ', 1) + "\n"


if __name__ == "__main__":
    sys.exit(main())
