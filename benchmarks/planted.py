"""The planted test of the coverage benchmark: models that never saw a factor, saw it rarely, or saw it often.

Three factors: headwear, a hair colour, a rotation. Of each, three models are trained on avatars in which it appears in no image,
in 1 %, and often, and one more, on other images, that chooses the Support Set, from images that none of them saw, and serves
as the reference.

    python benchmarks/planted.py                        # half an hour on two cores
    python benchmarks/planted.py --only headwear        # a part, to share out the work

Each training and each verdict is kept under runs/bench-planted, and done again only where its settings, images or models are
others now; after a change of the judgement itself, remove the verdicts (runs/bench-planted/*/*.json). Writes
benchmarks/results/planted.json and the table of docs/concepts/coverage.md once all parts are there.
"""

import argparse
import json
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tables import table, write_table
from torch import Tensor
from torch.nn import functional as F

from latlas.base.provenance import package_versions
from latlas.base.seeds import derived_seed
from latlas.base.seeds import generator as seeded
from latlas.cli.progress import shown
from latlas.data.images import ImageSet, to_pixels
from latlas.data.loading import load_images
from latlas.encodings.encode import encode
from latlas.measurements.conformal import adjusted_p_values, conformal_p_values
from latlas.measurements.empirical_null import fit_null
from latlas.measurements.gain import reconstruction_gain
from latlas.measurements.windows import worst_excess
from latlas.models.architectures.registry import architecture, architecture_to_json
from latlas.models.loading import load_model
from latlas.models.protocols import LatentModel, require_generator
from latlas.models.recoder import Recoder, with_recoder
from latlas.models.vae import VAE
from latlas.studies.coverage import cover_all
from latlas.studies.coverage_record import Coverage
from latlas.studies.missed_attributes import attribute_rows, indicators
from latlas.studies.support import build_support_set
from latlas.supports.support_set import SupportSet
from latlas.training.runs import train_vae

ROOT = Path(__file__).parents[1]
WORK = ROOT / "runs" / "bench-planted"
RESULTS = ROOT / "benchmarks" / "results" / "planted.json"
GENERATOR, RECODER = "zoo:avatars-dcgan", "zoo:avatars-dcgan-recoder"  # trained without headwear, on images of this side
CONTROLS, SAMPLES = 1000, 100
_GAIN_IMAGES = 500  # by which variables are ordered
IMAGES, EPOCHS, BATCH, LATENT, SIDE = 6000, 10, 64, 64, 32
RARE = 0.01
SETTINGS = {
    "controls": CONTROLS,
    "samples": SAMPLES,
    "images": IMAGES,
    "epochs": EPOCHS,
    "batch": BATCH,
    "latent": LATENT,
    "side": SIDE,
}
GREEN = "#91cb15"
WITHIN, BEYOND = 10.0, 30.0  # degrees: an ordinary image is turned by at most the first, a planted one by up to the second


@dataclass(frozen=True)
class Planted:
    """A factor, and how often it appears where it appears often."""

    attribute: str
    often: float
    setting: str  # of avatars; empty: images are turned

    def images(self, split: str, seed: int, share: float, count: int) -> ImageSet:
        """Return avatars that show the factor in this share of the images."""
        query = [f"seed={seed}", *([f"{self.setting}={share:.6g}"] if self.setting else [])]
        drawn = load_images(f"avatars:{split}?{'&'.join(query)}[0:{count}]", size=SIDE)
        return drawn if self.setting else turned(drawn, share, seed=derived_seed(seed, split))


FACTORS = {
    "headwear": Planted("hat", 0.3, "hat"),
    "green hair": Planted(f"hair_color={GREEN}", 1 / 11, f"hair_color.{GREEN}"),
    "rotation": Planted("rotation=beyond 10 degrees", 0.3, ""),
}
ROLES = ("none", "rare", "often", "reference")


def turned(images: ImageSet, share: float, *, seed: int) -> ImageSet:
    """Return images turned by up to 10 degrees, and a share of them by 10 to 30, with the factor `rotation`."""
    draws = torch.rand(3, len(images), generator=seeded(seed, "rotation"))
    far = draws[0] < share
    angle = torch.where(far, WITHIN + (BEYOND - WITHIN) * draws[1], WITHIN * draws[1]) * (2 * (draws[2] < 0.5) - 1)
    radians = angle * math.pi / 180
    rows = torch.stack(
        [radians.cos(), -radians.sin(), torch.zeros_like(angle), radians.sin(), radians.cos(), torch.zeros_like(angle)]
    )
    grid = F.affine_grid(rows.T.reshape(-1, 2, 3), list(images.storage.shape), align_corners=False)
    # Avatars stand on white, and what comes in from outside the picture is white too.
    pixels = 1 - F.grid_sample(1 - images.tensor(), grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    word = tuple(f"beyond {WITHIN:g} degrees" if one else f"within {WITHIN:g} degrees" for one in far.tolist())
    return ImageSet(f"{images.name}, turned", to_pixels(pixels), factors={**(images.factors or {}), "rotation": word})


def trained(factor: str, role: str) -> VAE:
    """Return the VAE of a cell, trained if it is not there yet, or was trained otherwise."""
    folder = WORK / factor.replace(" ", "-") / role
    planted = FACTORS[factor]
    share = {"none": 0.0, "rare": RARE}.get(role, planted.often)
    images = planted.images("train", 1 if role == "reference" else 0, share, IMAGES)
    arch, seed = architecture("conv", latent=LATENT), derived_seed(0, factor, role)
    if (folder / "config.json").is_file():
        kept = VAE.from_pretrained(folder)
        asked = {"architecture": architecture_to_json(arch), "epochs": EPOCHS, "batch_size": BATCH}
        made = kept.provenance
        if (
            made is not None
            and made.made_from == {"images": images.content_hash}
            and made.seed == seed
            and {key: made.settings.get(key) for key in asked} == asked
        ):
            return kept
    return train_vae(
        images,
        arch,
        epochs=EPOCHS,
        batch_size=BATCH,
        seed=seed,
        device="cpu",
        name=f"{factor}: {role}",
        out=folder,
        replace=True,
    ).model


def landmarks(reference: VAE, planted: Planted, folder: Path) -> SupportSet:
    """Return the Support Set of a factor, chosen if it is not there yet by the model that no verdict is on.

    From images that this model was not trained on either: else they would count against the models that are judged.
    """
    images = planted.images("train", 2, planted.often, IMAGES)
    if (folder / "config.json").is_file():
        kept = SupportSet.from_pretrained(folder)
        made_from = kept.provenance.made_from
        if made_from.get("model") == reference.fingerprint and made_from.get("images") == images.content_hash:
            return kept
    some = images.slice(0, _GAIN_IMAGES)
    order = reconstruction_gain(reference, encode(reference, some).mean, some).order()
    build_support_set(reference, images, order=order).save_pretrained(folder, replace=True)
    return SupportSet.from_pretrained(folder)


def judged(factor: str, roles: Sequence[str], progress: Any) -> list[dict[str, Any]]:
    """Return the verdicts on the models of a factor; those that are kept and of the same making are not sought again."""
    planted = FACTORS[factor]
    folder = WORK / factor.replace(" ", "-")
    reference = trained(factor, "reference")
    support = landmarks(reference, planted, folder / "landmarks")
    control = planted.images("test", 0, planted.often, CONTROLS)
    models = {role: _generator() if role == "generator" else trained(factor, role) for role in roles}
    shared = {"support": support.images.content_hash, "control": control.content_hash, "reference": reference.fingerprint}
    found: dict[str, dict[str, Any]] = {}
    for role, model in models.items():
        kept = _kept(folder / f"{role}.json")
        if kept.get("settings") == SETTINGS and kept.get("made_from") == {**shared, "model": model.fingerprint}:
            found[role] = kept
    waiting = [role for role in roles if role not in found]
    if waiting:
        judging = [models[role] for role in waiting]
        coverages = cover_all(judging, support, control, reference=reference, samples=SAMPLES, progress=progress)
        for role, coverage in zip(waiting, coverages, strict=True):
            found[role] = verdict(coverage, planted, factor, role)
            _keep(folder / f"{role}.json", found[role])
    return [found[role] for role in roles]


def _kept(path: Path) -> dict[str, Any]:
    """Return a verdict that was kept; an empty one if there is none, or it cannot be read."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _keep(path: Path, record: dict[str, Any]) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    beside.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    beside.replace(path)


def _generator() -> LatentModel:
    recoder = load_model(RECODER)
    assert isinstance(recoder, Recoder)
    return with_recoder(require_generator(load_model(GENERATOR), "Coverage"), recoder)


def verdict(coverage: Coverage, planted: Planted, factor: str, role: str) -> dict[str, Any]:
    """Return who was called missed, by the verdict and by those that were not chosen."""
    factors = coverage.support.images.factors
    assert factors is not None  # avatars have them
    has = indicators(factors)[planted.attribute][1]
    raw, raw_control = worst_excess(coverage.landmarks.windows), worst_excess(coverage.controls.windows)
    ways = {
        "verdict": coverage.p_values,
        "whole control": coverage.control_p_values,
        "no reference": fit_null(raw_control.log()).p_values(raw.log()),
        "mean error, no reference": fit_null(coverage.controls.errors.log()).p_values(coverage.landmarks.errors.log()),
        "own samples": conformal_p_values(coverage.landmarks.errors, coverage.own_errors),
    }
    rows = coverage.missed_attributes
    return {
        "factor": factor,
        "role": role,
        "settings": SETTINGS,
        "made_from": dict(coverage.provenance.made_from),
        "attribute": planted.attribute,
        "landmarks": len(has),
        "with": int(has.sum()),
        "error": float(coverage.landmarks.errors.mean()),
        "control_error": float(coverage.controls.errors.mean()),
        "own_error": float(coverage.own_errors.mean()),
        "apart": coverage.null.apart,
        "evidence": coverage.null.evidence,
        "missed_attributes": [row.name for row in rows],
        "named": any(row.name == planted.attribute for row in rows),
        "attribute_row": next(
            (
                {"difference": row.shares.difference, "low": row.shares.low, "high": row.shares.high, "p": row.adjusted}
                for row in attribute_rows(coverage.missed, factors)
                if row.name == planted.attribute
            ),
            None,
        ),
        **{name: _counts(adjusted_p_values(p_values) <= coverage.level, has) for name, p_values in ways.items()},
    }


def _counts(missed: Tensor, has: Tensor) -> dict[str, Any]:
    """Return how many are missed with the factor and without, and the share of those missed that have it."""
    total = int(missed.sum())
    return {
        "missed": total,
        "of_those_with": float(missed[has].double().mean()),
        "of_those_without": float(missed[~has].double().mean()),
        "have_it": float(has[missed].double().mean()) if total else None,
    }


def markdown(record: dict[str, Any]) -> str:
    """Return the table of the document."""
    share = {"none": "0 %", "rare": "1 %", "generator": "0 % (DCGAN)"}
    often = {"headwear": "30 %", "green hair": "9 %", "rotation": "30 %"}

    def percent(value: float | None) -> str:
        return "" if value is None else f"{100 * value:.0f} %"

    return table(
        ["factor", "in training", "missed, of landmarks with it", "missed, of those without", "of those missed, have it", "named",
         "ranked among the whole control", "without a reference"],
        [
            [
                row["factor"],
                share.get(row["role"], often[row["factor"]]),
                f"{percent(row['verdict']['of_those_with'])} of {row['with']}",
                f"{percent(row['verdict']['of_those_without'])} of {row['landmarks'] - row['with']}",
                percent(row["verdict"]["have_it"]),
                "yes" if row["named"] else "no",
                f"{percent(row['whole control']['of_those_with'])} / {percent(row['whole control']['of_those_without'])}",
                f"{percent(row['no reference']['of_those_with'])} / {percent(row['no reference']['of_those_without'])}",
            ]
            for row in record["rows"]
        ],
    )  # fmt: skip


def bounds(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return what was looked for, "kept" before it where it was found; only the promise can be "missed".

    The promise is headwear in VAEs. Of the others it is reported what came: green hair has few landmarks, and the generator
    has other gaps as large as headwear is.
    """
    lines = []
    for row in rows:
        counts = row["verdict"]
        if row["role"] in ("none", "generator"):
            kept = row["named"] and counts["of_those_with"] >= 0.8 and counts["of_those_without"] <= 0.1
            wanted = "named, of those with it at least 80 % missed, of those without at most 10 %"
        elif row["role"] == "often":
            kept = not row["named"] and counts["missed"] <= 0.1 * row["landmarks"]
            wanted = "not named, at most 10 % of the landmarks missed"
        else:
            continue
        promised = row["factor"] == "headwear" and row["role"] != "generator"
        said = "kept" if kept else "missed" if promised else "reported"
        came = (
            f"{'' if row['named'] else 'not '}named, {100 * counts['of_those_with']:.0f} % of those with it missed, "
            f"{100 * counts['of_those_without']:.0f} % of those without"
        )
        lines.append(f"{said}: {row['factor']}, {row['role']}: {wanted}{'' if kept else f'; came: {came}'}")
    return lines


def main() -> int:
    """Train, judge, write; return 1 if the promise was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=list(FACTORS), default=list(FACTORS), help="a part, to share out the work")
    parser.add_argument("--roles", nargs="*", default=["none", "rare", "often"], help="of the models to judge")
    asked = parser.parse_args()
    rows = []
    with shown() as progress:
        for factor in asked.only:
            extra = ["generator"] if factor == "headwear" else []
            whole = asked.roles == ["none", "rare", "often"]
            rows += judged(factor, [*asked.roles, *(extra if whole else [])], progress)
    lines = bounds(rows)
    if set(asked.only) == set(FACTORS) and asked.roles == ["none", "rare", "often"]:
        record = {"command": "python benchmarks/planted.py", "rows": rows, "bounds": lines, "versions": package_versions()}
        RESULTS.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        write_table("docs/concepts/coverage.md", "planted", markdown(record))
    for line in lines:
        print(line)
    return 1 if any(line.startswith("missed") for line in lines) else 0


if __name__ == "__main__":
    sys.exit(main())
