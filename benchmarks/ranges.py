"""Generators: reading them, inverting them, testing their range, and mapping their latent spaces.

    make bench-range                                 # with the generators that latlas carries: about an hour on two cores
    python benchmarks/ranges.py --part outsiders      # one part again; the others from runs/bench-range

Each part is kept under runs/bench-range and not done again until it is asked for by name. Writes benchmarks/results/range.json,
the tables of docs/concepts/range.md and of docs/concepts/maps.md, and pictures under docs/pictures.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats
from tables import table, write_table
from torch import Tensor, nn

from latlas.base.provenance import package_versions
from latlas.base.records import plain
from latlas.base.seeds import derived_seed
from latlas.base.seeds import generator as seeded
from latlas.cli.progress import shown
from latlas.data.faces import celeba_crop
from latlas.data.images import ImageSet, to_pixels
from latlas.data.loading import load_images
from latlas.encodings.encode import encode
from latlas.inversion.descent import Budget, Inversion
from latlas.inversion.invert import invert
from latlas.maps.fit import fit_map
from latlas.measurements.reconstruction import decode_batches, squared_error_per_pixel
from latlas.models.architectures.registry import architecture
from latlas.models.architectures.stylegan2 import StyleGAN2
from latlas.models.loading import load_model
from latlas.models.protocols import Encoder, Generator, LatentModel, require_encoder, require_generator
from latlas.models.recoder import Recoder
from latlas.models.vae import VAE
from latlas.reports import pictures
from latlas.reports.comparison import decode
from latlas.studies.bounds import recovered_share
from latlas.studies.compare import compare
from latlas.studies.comparison import Comparison
from latlas.studies.range_calibration import RangeCalibration, calibrate_range, own_samples
from latlas.studies.range_test import range_test
from latlas.training.objectives import Objective
from latlas.training.recoders import train_recoder
from latlas.training.runs import train_vae

ROOT = Path(__file__).parents[1]
WORK = ROOT / "runs" / "bench-range"
RESULTS = ROOT / "benchmarks" / "results" / "range.json"
PICTURES = ROOT / "docs" / "pictures"
SAMPLES = ROOT / "tests" / "models" / "samples" / "stylegan2_32.npz"
LEVEL = 0.05


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A generator whose range is tested, and how."""

    spec: str
    recoder: str
    budget: Budget = Budget(steps=150)
    calibration: int = 1000  # own samples


# Both were trained on avatars without headwear (the zoo's cards have the commands).
SUBJECTS = {
    "StyleGAN2": Subject(spec="zoo:avatars-stylegan2#w", recoder="zoo:avatars-stylegan2-recoder"),
    "DCGAN": Subject(spec="zoo:avatars-dcgan", recoder="zoo:avatars-dcgan-recoder"),
}
OUTSIDERS = {
    "headwear": "avatars:test?hat=1&size=32[0:300]",
    "another avatar style": "avatars-peeps:test?size=32[0:300]",
    "digits": "mnist:test[0:300]",
}
INSIDERS = "avatars:test?hat=0&size=32[0:300]"  # of the training set's kind, not in it
FRESH = 300

FACES = 1500  # of MobileStyleGAN
HELD = 300  # of them, the last: no map is fitted on these
REDRAWN = 100  # of those, the first, where MobileStyleGAN draws relocated codes: half a second each


def main() -> int:
    """Measure what is not there yet, write; return 1 if a bound was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="*", choices=PARTS, default=[], help="parts to do again")
    asked = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    parts: dict[str, Any] = {}
    with shown() as progress:
        for name, measure in PARTS.items():
            if asked.part and name not in asked.part and not (WORK / f"{name}.json").is_file():
                continue
            parts[name] = _kept(name, measure, progress, again=name in asked.part)
    bounds = list(_bounds(parts))
    for line in bounds:
        print(line)
    if set(parts) == set(PARTS):
        record = {
            "command": "python benchmarks/ranges.py",
            **parts,
            "bounds": bounds,
            "versions": package_versions(),
        }
        RESULTS.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        for document, mark, made in TABLES:
            write_table(document, mark, made(record))
    return 0 if all(line.startswith("kept") for line in bounds) else 1


def _kept(name: str, measure: Callable[[Any], dict[str, Any]], progress: Any, *, again: bool) -> dict[str, Any]:
    path = WORK / f"{name}.json"
    if path.is_file() and not again:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found
    record: dict[str, Any] = plain({**measure(progress), "versions": package_versions()})
    path.write_text(json.dumps(record, indent=2), encoding="utf-8")
    return record


# --- reading -----------------------------------------------------------------------------------------------------------------


def measure_fixture(progress: Any) -> dict[str, Any]:  # noqa: ARG001 - one signature for every part
    """Return how far our StyleGAN2 is from the reference implementation's, relative to the largest value."""
    with np.load(SAMPLES, allow_pickle=False) as archive:
        known = {name: torch.from_numpy(archive[name]) for name in archive.files if name != "config"}
    network = StyleGAN2(latent=64, style=64, layers=4, channel_base=1024, channel_max=64).generator((3, 32, 32)).eval()
    network.load_state_dict({name.removeprefix("state/"): each for name, each in known.items() if name.startswith("state/")})
    with torch.inference_mode():
        drawn = {
            "w": network.spread(network.styles(known["z"])),  # type: ignore[operator]
            "w_truncated": network.spread(network.styles(known["z"], truncation=0.7)),  # type: ignore[operator]
            "image_const": network.synthesis(known["w"]),  # type: ignore[operator]
            "image_none": network.synthesis(known["w_truncated"], "none"),  # type: ignore[operator]
            "image_w_plus": network.synthesis(known["w_plus"]),  # type: ignore[operator]
        }
    far = {name: float((each - known[name]).abs().max() / known[name].abs().max()) for name, each in drawn.items()}
    return {"differences": far}


def measure_pickles(progress: Any) -> dict[str, Any]:  # noqa: ARG001
    """Return how many hostile pickles were refused by name, by the tests that would see one run."""
    report = WORK / "pickles.xml"
    command = [sys.executable, "-m", "pytest", "-q", "tests/models/test_stylegan_pickle.py", "-k", "hostile_pickle"]
    subprocess.run([*command, f"--junitxml={report}"], cwd=ROOT, check=False, capture_output=True)
    import xml.etree.ElementTree as ElementTree

    (suite,) = ElementTree.parse(report).getroot().iter("testsuite")
    cases = [case for case in suite.iter("testcase") if "are_refused_by_name" in case.attrib["name"]]
    failed = [case.attrib["name"] for case in cases if len(case)]
    return {
        "command": "python -m pytest " + " ".join(command[3:]),
        "refused": len(cases) - len(failed),
        "executed or accepted": failed,
    }


# --- range -------------------------------------------------------------------------------------------------------------------


def subject(name: str) -> tuple[Generator, Encoder, Subject]:
    """Return a generator, its recoder, and how it is inverted."""
    settings = SUBJECTS[name]
    model = require_generator(load_model(settings.spec), "A range test")
    return model, require_encoder(load_model(settings.recoder), "A recoder"), settings


def calibrated(
    name: str, progress: Any, *, budget: Budget | None = None, samples: int | None = None
) -> tuple[Generator, RangeCalibration]:
    """Return a generator and what inversion achieves on its own samples."""
    model, recoder, settings = subject(name)
    found = calibrate_range(
        model,
        samples=samples or settings.calibration,
        budget=budget or settings.budget,
        recoder=recoder,
        seed=derived_seed(0, name) % 2**31,
        progress=progress,
    )
    return model, found


def measure_range(name: str) -> Callable[[Any], dict[str, Any]]:
    """Return the part that tests one generator's range: false alarms, outsiders, real images of the training set's kind."""

    def measure(progress: Any) -> dict[str, Any]:
        started = time.process_time()
        model, calibration = calibrated(name, progress)
        fresh = own_samples(model, FRESH, seed=1, purpose="fresh samples")
        sets = {"own samples": fresh, "training set's kind": load_images(INSIDERS)}
        sets |= {label: _fitted(load_images(spec)) for label, spec in OUTSIDERS.items()}
        rows: dict[str, Any] = {}
        strips = []
        for label, images in sets.items():
            found = range_test(model, images, calibration=calibration, level=LEVEL, progress=progress)
            rows[label] = {
                "count": len(images),
                "rejected": found.rejected_share,
                "rejected_after_correction": float((found.adjusted <= LEVEL).double().mean()),
                "median_error": float(found.errors.median()),
                "smallest_error": float(found.errors.min()),
                "verdict_given": found.verdict_given,
                "winners": {
                    start: int((found.inversion.winners == i).sum()) for i, start in enumerate(found.inversion.start_names)
                },
            }
            if label == "own samples":
                # They share one calibration, which makes them vary more than independent ones: the bound is stricter than it looks.
                test = stats.kstest(found.p_values.numpy(), "uniform")
                rows[label] |= {"ks_statistic": float(test.statistic), "ks_p_value": float(test.pvalue)}
            shown_rows = torch.arange(8)
            originals = images.take(shown_rows).tensor()
            strips.append((originals, decode(model, found.inversion.codes[shown_rows])))
        _rows_of_pictures(f"range-{name.lower()}", strips)
        return {
            "generator": SUBJECTS[name].spec,
            "budget": asdict(calibration.budget),
            "starts": list(calibration.procedure.starts),
            "calibration": {
                "count": len(calibration.errors),
                "median_error": float(calibration.errors.median()),
                "95 % of errors below": float(calibration.errors.quantile(0.95)),
                "recovered": calibration.recovered,
                "starts_agree": calibration.agreeing,
                "unrelated_error": calibration.unrelated_error,
                "budget_is_enough": calibration.budget_is_enough,
            },
            "rows": rows,
            "why": _why(name, sets["training set's kind"].slice(0, 64), calibration, progress),
            "processor_seconds": time.process_time() - started,
        }

    return measure


def _why(name: str, images: ImageSet, calibration: RangeCalibration, progress: Any) -> dict[str, Any]:
    """Return what more work does to real images and to own samples: an error that stays is the generator's, not the descent's."""
    model, recoder, settings = subject(name)
    own = own_samples(model, len(images), seed=2, purpose="fresh samples")
    longer = replace(settings.budget, steps=5 * settings.budget.steps)
    record: dict[str, Any] = {"images": len(images)}
    for label, each in (("training set's kind", images), ("own samples", own)):
        for work, budget, start in (
            ("as tested", settings.budget, ("recoder", "nearest")),
            ("five times the steps", longer, ("recoder", "nearest")),
            ("five times the steps, and four starts from noise", longer, ("recoder", "nearest", "noise")),
        ):
            found = invert(
                model, each, budget=budget, start=start, starts=4, recoder=recoder, seed=calibration.seed, progress=progress
            )
            record[f"{label}: {work}"] = float(found.errors.median())
    if SUBJECTS[name].spec.endswith("#w"):
        wide = require_generator(load_model(f"{SUBJECTS[name].spec}+"), "A range test")
        for label, each in (("training set's kind", images), ("own samples", own)):
            found = invert(wide, each, budget=longer, start="mean", seed=calibration.seed, progress=progress)
            record[f"{label}: in W+, five times the steps"] = float(found.errors.median())
    return record


def _fitted(images: ImageSet) -> ImageSet:
    """Return images as colour pictures of 32 x 32; digits are framed, not enlarged."""
    pixels = images.tensor()
    if pixels.shape[1] == 1:
        pixels = pixels.expand(-1, 3, -1, -1)
    side = (32 - pixels.shape[2]) // 2
    return ImageSet(images.name, to_pixels(nn.functional.pad(pixels, [side] * 4)))


def _rows_of_pictures(name: str, strips: list[tuple[Tensor, Tensor]]) -> None:
    """Draw, for each set of images, originals, inversions and differences."""
    rows = [row for originals, again in strips for row in (originals, again, pictures.difference(originals, again))]
    PICTURES.mkdir(exist_ok=True)
    (PICTURES / f"{name}.png").write_bytes(pictures.grid(torch.cat(rows), columns=len(rows[0]), enlarge=2))


# --- inversion ---------------------------------------------------------------------------------------------------------------


def measure_starts(progress: Any) -> dict[str, Any]:
    """Return errors and processor times of recoder, descent and hybrid on 64 samples of the face DCGAN."""
    model = require_generator(load_model("zoo:dcgan-faces"), "Inversion")
    recoder = _face_recoder(model, progress)
    images = own_samples(model, 64, seed=3, purpose="faces to invert")

    def timed(start: str, steps: int, rate: float = 0.05) -> dict[str, float]:
        before = time.process_time()
        budget = Budget(steps=steps, learning_rate=rate)
        found = invert(model, images, budget=budget, start=start, starts=1, recoder=recoder, seed=0, progress=progress)
        return {
            "steps": steps,
            "rate": rate,
            "error": float(found.errors.mean()),
            "median": float(found.errors.median()),
            "seconds": time.process_time() - before,
        }

    timed("recoder", 2)  # the first call pays for what later ones find ready
    record: dict[str, Any] = {"images": len(images), "recoder alone": timed("recoder", 0)}
    record["noise, 1,000 steps"] = timed("noise", 1000)
    for steps in (25, 50, 90):
        record[f"hybrid, {steps} steps"] = timed("recoder", steps, 0.1)
        record[f"noise, {steps} steps"] = timed("noise", steps, 0.1)
    return record


def _face_recoder(model: Generator, progress: Any) -> Recoder:
    folder = WORK / "recoder-faces"
    if not (folder / "config.json").is_file():
        train_recoder(model, steps=600, precision="bfloat16", learning_rate=2e-3, out=folder, progress=progress)
    return Recoder.from_pretrained(folder)


def measure_projector(progress: Any) -> dict[str, Any]:
    """Return images a minute of the settings of StyleGAN's projector, and of the hybrid at the same error."""
    model, recoder, _ = subject("StyleGAN2")
    images = own_samples(model, 64, seed=4, purpose="to project")
    projector = Budget(steps=1000, learning_rate=0.1, warmup=0.05, batch=1)

    def rate(images: ImageSet, budget: Budget, start: str) -> tuple[dict[str, float], Inversion]:
        before = time.process_time()
        found = invert(model, images, budget=budget, start=start, recoder=recoder, seed=0, progress=progress)
        seconds = time.process_time() - before
        return {
            "steps": budget.steps,
            "error": float(found.errors.mean()),
            "median": float(found.errors.median()),
            "images_a_minute": 60 * len(images) / seconds,
        }, found

    few = images.slice(0, 8)
    record: dict[str, Any] = {}
    record["projector"], _ = rate(few, projector, "mean")
    for steps in (25, 50, 100, 200, 400):
        record[f"hybrid, {steps} steps"], found = rate(images, Budget(steps=steps, learning_rate=0.1), "recoder")
        record[f"hybrid, {steps} steps"]["error_of_the_same"] = float(found.errors[: len(few)].mean())
    return record


# --- maps --------------------------------------------------------------------------------------------------------------------


def stream_of(model: Generator, count: int, seed: int) -> ImageSet:
    """Return images that a generator draws."""
    codes = model.sample_codes(count, seeded(seed, "stream of a VAE"))
    return ImageSet(f"stream of {model.name}", torch.cat([to_pixels(batch) for batch in decode_batches(model, codes)]))


def stream_vae(
    name: str, images: ImageSet, progress: Any, *, kl_weight: float = 1.0, epochs: int = 12, latent: int = 64
) -> VAE:
    """Return a VAE of a generator's stream, trained if it is not there yet."""
    folder = WORK / f"vae-{name}"
    if not (folder / "config.json").is_file():
        train_vae(
            images,
            architecture("conv", latent=latent),
            objective=Objective(kl_weight=kl_weight),
            epochs=epochs,
            seed=derived_seed(0, name),
            name=f"VAE of {images.name}",
            out=folder,
            progress=progress,
        )
    return VAE.from_pretrained(folder)


def measure_maps(progress: Any) -> dict[str, Any]:
    """Return the recovered share of maps between the avatars StyleGAN's spaces and a VAE of its stream."""
    spaces: dict[str, LatentModel] = {space: load_model(f"zoo:avatars-stylegan2#{space}") for space in ("w", "z")}
    images = stream_of(require_generator(spaces["z"], "A map"), 12_000, seed=0)
    vaes = {
        "VAE": stream_vae("stylegan2", images, progress),
        "smoother VAE": stream_vae("stylegan2-smooth", images, progress, kl_weight=4.0),
    }
    record: dict[str, Any] = {}
    for space, generator in spaces.items():
        for label, vae in vaes.items():
            for count in (1000, 4000, 16_000) if label == "VAE" else (16_000,):
                record[f"{space} to {label}, {count} images"] = _row(
                    compare(generator, vae, "stream", stream=count, progress=progress)
                )
        for ridge in ("gcv", "loo"):
            for count in (1000, 16_000):
                found = compare(generator, vaes["VAE"], "stream", stream=count, ridge=ridge, progress=progress)
                record[f"{space} to VAE, {count} images, ridge {ridge}"] = _row(found)
        best = compare(generator, vaes["VAE"], "stream", stream=16_000, yardstick=True, progress=progress)
        record[f"{space} to VAE, 16000 images"] = _row(best)
        if space == "w":
            _three_rows("type-3-stylegan-w-to-vae", best, generator, vaes["VAE"])
        back = compare(vaes["VAE"], generator, "stream", stream=16_000, yardstick=True, progress=progress)
        record[f"VAE to {space}, 16000 images"] = _row(back)
        if space == "w":
            _three_rows("type-3-vae-to-stylegan-w", back, vaes["VAE"], generator)
    return record


def measure_mobile(progress: Any) -> dict[str, Any]:
    """Return the same for MobileStyleGAN's W and VAEs of its faces, cut as CelebA's are, 64 x 64: there and back."""
    faces = _CroppedFaces(require_generator(load_model("zoo:mobile-stylegan#w"), "A map"))
    images, codes = _cached_faces(faces, FACES, progress)
    most = FACES - HELD
    held, few = images.slice(most, FACES), images.slice(most, most + REDRAWN)
    drawn = faces.draw(codes[most : most + REDRAWN])
    record: dict[str, Any] = {"images": FACES, "held_out": {"w to VAE": HELD, "VAE to w": REDRAWN}}
    for label, weight, epochs in (("VAE", 1.0, 20), ("smoother VAE", 4.0, 20)):
        vae = stream_vae(f"mobile-{weight:g}", images.slice(0, most), progress, kl_weight=weight, epochs=epochs)
        own = encode(vae, images).mean
        again = decode(vae, own[most:])
        for fitted in (300, 600, most):
            for ridge in (None, "gcv") if fitted > codes.shape[1] else ("gcv",):
                name = f"w to {label}, {fitted} images{', ridge gcv' if ridge else ''}"
                record[name], moved = _fixed_map(codes, own, fitted, ridge, held, again, partial(decode, vae))
                if name == f"w to VAE, {most} images, ridge gcv":
                    _draw_rows("type-3-mobile-stylegan-w-to-vae", held, again, moved, enlarge=1)
        for fitted in (300, most):
            name = f"{label} to w, {fitted} images"
            record[name], moved = _fixed_map(own, codes, fitted, None, few, drawn, faces.draw)
            progress(name, 1, 1)
            if name == f"VAE to w, {most} images":
                _draw_rows("type-3-vae-to-mobile-stylegan-w", few, again, moved, enlarge=1)
    return record


class _CroppedFaces:
    """A generator of faces in FFHQ's frame, seen through CelebA's crop of 64 x 64."""

    def __init__(self, generator: Generator) -> None:
        self.generator, self.crop = generator, celeba_crop("ffhq", crop=128, size=64)

    def draw(self, codes: Tensor) -> Tensor:
        with torch.inference_mode():
            parts = [self.crop.apply(self.generator.decode(few)).clamp(0, 1) for few in torch.split(codes, 10)]
        return torch.cat(parts).clone()


def _cached_faces(faces: _CroppedFaces, count: int, progress: Any) -> tuple[ImageSet, Tensor]:
    """Return faces and their codes; each hundred is kept as it is drawn, since one takes half a second."""
    folder = WORK / "mobile-faces"
    folder.mkdir(exist_ok=True)
    codes, pixels = [], []
    for part in range(count // 100):
        path = folder / f"{part:03}.npz"
        drawn = faces.generator.sample_codes(100, seeded(0, "faces", part))
        if not path.is_file():
            beside = path.with_suffix(".part.npz")
            np.savez(beside, pixels=to_pixels(faces.draw(drawn)).numpy())
            beside.rename(path)
        with np.load(path, allow_pickle=False) as kept:
            pixels.append(torch.from_numpy(kept["pixels"]))
        codes.append(drawn)
        progress("faces of MobileStyleGAN", (part + 1) * 100, count)
    return ImageSet("faces of MobileStyleGAN", torch.cat(pixels)), torch.cat(codes)


def _fixed_map(
    source: Tensor,
    target: Tensor,
    fitted: int,
    ridge: Any,
    held: ImageSet,
    best: Tensor,
    draw: Callable[[Tensor], Tensor],
) -> tuple[dict[str, Any], Tensor]:
    """Return the errors of a map between codes that are there already, and the images of the codes that it carries over.

    Args:
        source: codes of all images; those of the held-out ones are the last.
        target: codes of the same images.
        fitted: the map is of the first so many.
        ridge: as in `fit_map`.
        held: images to measure on: held-out ones, from their first.
        best: what the target draws of its own codes of them.
        draw: the target's images of codes.
    """
    measured = slice(FACES - HELD, FACES - HELD + len(held))
    found = fit_map(source[:fitted], target[:fitted], ridge=ridge)
    moved = found.apply(source[measured])
    middle = draw(target[:fitted].double().mean(dim=0, keepdim=True).float())
    again, originals, own = draw(moved), held.tensor(), target[measured].double()
    m, r, mean = (float(squared_error_per_pixel(each, originals).mean()) for each in (again, best, middle.expand_as(originals)))
    latent = float((moved.double() - own).square().mean())
    return {
        "L": latent,
        "M": m,
        "target_R": r,
        "mean_code": mean,
        "recovered_share": recovered_share(m, mean, r),
        "L_over_target_variance": latent / float(own.var(dim=0, correction=0).mean()),
    }, again


def _row(found: Comparison) -> dict[str, Any]:
    record = found.to_json()
    keys = ("R", "L", "M", "target_R", "mean_code", "shuffled", "recovered_share", "L_over_target_variance")
    return {**{key: record[key] for key in keys}, "perceptron_M_over_linear": (record["yardstick"] or {}).get("M_over_linear")}


def _three_rows(name: str, found: Comparison, source: LatentModel, target: LatentModel) -> None:
    """The picture of the posts: what the generator drew, the other model's own reconstruction, and the relocated codes."""
    pairs = found.examples.first(12)
    known = found.known_codes
    middle = decode(target, pairs.target.mean) if known == found.source else decode(source, pairs.source.mean)
    _draw_rows(name, pairs.images, middle, decode(target, found.relocate(pairs.source.mean)), enlarge=2)


def _draw_rows(name: str, originals: ImageSet, middle: Tensor, moved: Tensor, *, enlarge: int) -> None:
    rows = torch.cat([originals.slice(0, 12).tensor(), middle[:12], moved[:12]])
    (PICTURES / f"{name}.png").write_bytes(pictures.grid(rows, columns=12, enlarge=enlarge))


# --- bounds and tables -------------------------------------------------------------------------------------------------------


def _bounds(parts: dict[str, Any]) -> Any:
    if "fixture" in parts:
        for name, value in parts["fixture"]["differences"].items():
            yield _at_most(f"StyleGAN2, {name}: difference from the reference, relative", value, 1e-4)
    if "pickles" in parts:
        yield _at_least("hostile pickles refused by name", parts["pickles"]["refused"], 12)
        yield _at_most("hostile pickles executed or accepted", len(parts["pickles"]["executed or accepted"]), 0)
    for name in SUBJECTS:
        if f"range {name}" not in parts:
            continue
        found = parts[f"range {name}"]
        own = found["rows"]["own samples"]
        yield _at_least(f"{name}: p-value of Kolmogorov and Smirnov for p-values of fresh own samples", own["ks_p_value"], 0.01)
        yield _at_least(f"{name}: own samples rejected at 5 %", own["rejected"], 0.02)
        yield _at_most(f"{name}: own samples rejected at 5 %", own["rejected"], 0.08)
        yield _at_least(f"{name}: verdict given", float(own["verdict_given"]), 1.0)
        for label in OUTSIDERS:
            yield _at_least(f"{name}: {label} rejected at 5 %", found["rows"][label]["rejected"], 0.9)
    if "starts" in parts:
        found = parts["starts"]
        hybrid, noise, alone = found["hybrid, 90 steps"], found["noise, 90 steps"], found["recoder alone"]
        yield _at_most("hybrid's error over that of descent alone at equal time", hybrid["error"] / noise["error"], 1.0)
        yield _at_most("hybrid's error over the recoder's alone", hybrid["error"] / alone["error"], 1.0)
        share = reaching(found)
        yield _at_most("time in which the hybrid has the error of 1,000 steps from noise, over theirs", share, 0.1)
    if "projector" in parts:
        yield _at_least("images a minute over the projector's settings at the same error", faster(parts["projector"]), 10)
    if "maps" in parts:
        vector = json.loads((ROOT / "benchmarks" / "results" / "maps.json").read_text(encoding="utf-8"))["rows"]
        share = vector["type 3: GAN to a VAE of its stream"]["recovered_share"]
        yield _at_least("Type 3, DCGAN Z to a VAE of its stream: recovered share (maps.json)", share, 0.5)


def reaching(found: dict[str, Any]) -> float:
    """Return the shortest time of a hybrid whose error is at most that of 1,000 steps from noise, over their time."""
    goal = found["noise, 1,000 steps"]
    times = [row["seconds"] for name, row in found.items() if name.startswith("hybrid") and row["error"] <= goal["error"]]
    return min(times) / goal["seconds"] if times else float("inf")


def faster(found: dict[str, Any]) -> float:
    """Return the images a minute of the fastest hybrid that has the projector's error on the same images, over its own."""
    goal = found["projector"]
    rates = [
        row["images_a_minute"]
        for name, row in found.items()
        if name.startswith("hybrid") and row["error_of_the_same"] <= goal["error"]
    ]
    return max(rates) / goal["images_a_minute"] if rates else 0.0


def _at_most(what: str, value: float, bound: float) -> str:
    return f"{'kept' if value <= bound else 'MISSED'}: {what}: {value:.3g}, at most {bound:g}"


def _at_least(what: str, value: float, bound: float) -> str:
    return f"{'kept' if value >= bound else 'MISSED'}: {what}: {value:.3g}, at least {bound:g}"


def range_table(record: dict[str, Any]) -> str:
    """Return the share rejected, by generator and set."""
    rows = []
    for name in SUBJECTS:
        for label, row in record[f"range {name}"]["rows"].items():
            cells = [f"{100 * row['rejected']:.1f} %", f"{row['median_error']:.5f}"]
            rows.append([name, label, str(row["count"]), *cells])
    return table(["generator", "images", "number", "rejected at 5 %", "median error"], rows)


def why_table(record: dict[str, Any]) -> str:
    """Return what more work does to the median error."""
    names = [key for key in record["range StyleGAN2"]["why"] if key != "images"]
    rows = [
        [
            key,
            *(
                f"{record[f'range {name}']['why'][key]:.5f}" if key in record[f"range {name}"]["why"] else ""
                for name in SUBJECTS
            ),
        ]
        for key in names
    ]
    return table(["median error of", *SUBJECTS], rows)


def starts_table(record: dict[str, Any]) -> str:
    """Return errors and relative times of the ways to invert."""
    found = record["starts"]
    whole = found["noise, 1,000 steps"]["seconds"]
    rows = [
        [name, f"{row['error']:.5f}", f"{row['median']:.5f}", f"{row['seconds'] / whole:.3f}"]
        for name, row in found.items()
        if isinstance(row, dict) and "seconds" in row
    ]
    return table(["way", "mean error", "median error", "time over that of 1,000 steps"], rows)


def projector_table(record: dict[str, Any]) -> str:
    """Return images a minute, relative to the projector's settings."""
    found = record["projector"]
    base = found["projector"]
    rows = [["1,000 steps from the mean, one at a time", f"{base['error']:.5f}", "1"]]
    rows += [
        [name, f"{row['error_of_the_same']:.5f}", f"{row['images_a_minute'] / base['images_a_minute']:.0f}"]
        for name, row in found.items()
        if name.startswith("hybrid")
    ]
    return table(["way", "mean error of the same 8 images", "images a minute, relative"], rows)


def maps_table(record: dict[str, Any]) -> str:
    """Return the Type 3 maps of StyleGANs."""
    rows = []
    for kind, part in (("avatars StyleGAN2", "maps"), ("MobileStyleGAN", "mobile")):
        for name, row in record[part].items():
            if isinstance(row, dict) and "M" in row:
                cells = [f"{row[key]:.5f}" for key in ("M", "target_R", "mean_code")]
                shares = [row[key] for key in ("recovered_share", "L_over_target_variance")]
                shares.append(row.get("perceptron_M_over_linear"))
                cells += ["" if share is None else f"{share:.2f}" for share in shares]
                rows.append([f"{kind}: {name}", *cells])
    return table(["map", "M", "target's own R", "mean code", "recovered", "L over variance", "perceptron"], rows)


TABLES = (
    ("docs/concepts/range.md", "range", range_table),
    ("docs/concepts/range.md", "range-why", why_table),
    ("docs/concepts/range.md", "starts", starts_table),
    ("docs/concepts/range.md", "projector", projector_table),
    ("docs/concepts/maps.md", "type-3-stylegan", maps_table),
)
PARTS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "fixture": measure_fixture,
    "pickles": measure_pickles,
    "starts": measure_starts,
    "projector": measure_projector,
    **{f"range {name}": measure_range(name) for name in SUBJECTS},
    "maps": measure_maps,
    "mobile": measure_mobile,
}

if __name__ == "__main__":
    sys.exit(main())
