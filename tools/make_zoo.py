"""Make what latlas carries: train or fit what is not there yet, measure it, and keep weights, config and card.

    make zoo                               # all of them: some hours on two cores; those under runs/ are not made again
    python tools/make_zoo.py digits-conv   # these only

Each is the result of one command with one seed. What is kept lies in src/latlas/models/carried and is small enough for the repository.
The order matters: recoders, samplers and maps belong to models above them.
"""

import argparse
import math
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latlas.base.artifacts import CONFIG, read_json, write_json, writing
from latlas.base.progress import Progress
from latlas.cli.progress import shown
from latlas.cli.zoo import shown_measure
from latlas.data.images import ImageSet
from latlas.data.loading import load_images
from latlas.encodings.encode import encode
from latlas.maps.loading import load_map
from latlas.measurements.latents import latent_table, silence
from latlas.measurements.reconstruction import decode_batches, measure_reconstruction
from latlas.models.carried_folders import ABOUT, CARRIED, carried_entry, carried_names
from latlas.models.generator import GeneratorModel
from latlas.models.loading import load_model
from latlas.models.recoder import Recoder
from latlas.models.vae import VAE
from latlas.samplers.fit import load_sampler
from latlas.studies.advice import Advice, Zeroing, advise
from latlas.studies.calibrate import calibrate_sampler
from latlas.studies.features import feature_network

ROOT = Path(__file__).parents[1]
RUNS = ROOT / "runs"
PAGE = ROOT / "docs" / "concepts" / "zoo.md"
BEGIN, END = "<!-- zoo: begin -->", "<!-- zoo: end -->"  # about the table in it
LARGEST = 5_000_000  # bytes
NETWORKS: dict[str, Any] = {"generator": GeneratorModel, "recoder": Recoder, "vae": VAE}

AVATARS = "avatars:test?size=32[0:1000]"
BARE = "avatars:test?hat=0&size=32[0:500]"  # what both GANs were trained on
DIGITS = "mnist:test[0:2000]"
SPARSE = "--balance fixed --likelihood bernoulli"  # the objective of the posts on sparsity, and of the tour's first model
SMALL_DIGITS = "'mnist:train[0:20000]'"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one artifact is made."""

    command: str  # behind `latlas`; the folder is added to it. Of a sampler: the model that it draws codes of, and the images
    measured_on: str = ""  # held-out images
    half: bool = False  # weights are kept in half precision, which loading turns into single


# Seeds of nineteen digits are those of the benchmarks that made the same models first.
RECIPES = {
    "avatars-dcgan": Recipe(
        command="train dcgan 'avatars:train?hat=0&size=32' --steps 9000 --channels 32 --precision bfloat16"
    ),
    "avatars-stylegan2": Recipe(command="train stylegan2 'avatars:train?hat=0&size=32' --steps 14000 --batch-size 16"),
    "avatars-dcgan-recoder": Recipe(
        command="train recoder zoo:avatars-dcgan --loss both --steps 6000 --channels 16", measured_on=BARE
    ),
    "avatars-stylegan2-recoder": Recipe(
        command="train recoder 'zoo:avatars-stylegan2#w' --loss both --steps 5000 --channels 16", measured_on=BARE
    ),
    "avatars-vae": Recipe(
        command="train conv 'avatars:train[0:8000]' --epochs 12 --latent 64 --seed 9166272895147823777",
        measured_on="avatars:test[0:500]",
        half=True,
    ),
    "avatars-vae-32": Recipe(
        command="train conv 'avatars:train?size=32[0:6000]' --epochs 16 --batch-size 64 --latent 32 --seed 5348259068586815524",
        measured_on=AVATARS,
    ),
    "avatars-split": Recipe(
        command=(
            "train split 'avatars:train?size=32[0:10000]' --epochs 12 --batch-size 64 --latent 32 --set scales=3 --set base_dim=16 "
            "--set fc_dim=128"
        ),
        measured_on=AVATARS,
    ),
    "digits-dense": Recipe(command=f"train dense mnist --epochs 30 {SPARSE} --seed 604279258567071686", measured_on=DIGITS),
    "digits-dense-1": Recipe(command=f"train dense mnist --epochs 30 {SPARSE} --seed 5194126195098409732", measured_on=DIGITS),
    "digits-conv": Recipe(command=f"train conv {SMALL_DIGITS} --epochs 12 --seed 5650371832620589210", measured_on=DIGITS),
    "digits-conv-1": Recipe(command=f"train conv {SMALL_DIGITS} --epochs 12 --seed 2056818189836653530", measured_on=DIGITS),
    "digits-conv-second-stage": Recipe(command=f"zoo:digits-conv {SMALL_DIGITS}", measured_on="mnist:test[0:4000]"),
    "digits-dense-to-digits-conv": Recipe(
        command=f"map zoo:digits-dense zoo:digits-conv {SMALL_DIGITS} --test '{DIGITS}'", measured_on=DIGITS
    ),
    "digits-conv-to-digits-conv-1": Recipe(
        command=f"map zoo:digits-conv zoo:digits-conv-1 {SMALL_DIGITS} --test '{DIGITS}'", measured_on=DIGITS
    ),
    "avatars-vae-32-to-avatars-split": Recipe(
        command=f"map zoo:avatars-vae-32 zoo:avatars-split 'avatars:train?size=32[0:6000]' --test '{AVATARS}'",
        measured_on=AVATARS,
    ),
    "avatars-dcgan-to-avatars-vae-32": Recipe(command="map zoo:avatars-dcgan zoo:avatars-vae-32 stream --stream 8000"),
    "avatars-stylegan2-w-to-avatars-vae-32": Recipe(
        command="map 'zoo:avatars-stylegan2#w' zoo:avatars-vae-32 stream --stream 8000"
    ),
}


def main() -> int:
    """Make, measure, copy, describe."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="which; all by default")
    asked = parser.parse_args()
    if unknown := [name for name in asked.names if name not in RECIPES]:
        parser.error(f"nothing in the zoo is called {', '.join(unknown)}; there are {', '.join(RECIPES)}")
    for name in asked.names or RECIPES:
        command = command_of(name)
        stamp = RUNS / f"{name}.command"  # what another command made is none of this artifact
        if not (RUNS / name / CONFIG).is_file() or not stamp.is_file() or stamp.read_text(encoding="utf-8") != command:
            make(name, command)
            stamp.write_text(command, encoding="utf-8")
        carry(name, command)
    write_page()
    return 0


def write_page() -> None:
    """Put the table into the page of the zoo."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


def table() -> str:
    """Return what is carried, as the page of the zoo shows it."""
    lines = ["| spec | what | images | codes | MB | measured on held-out images |", "| --- | --- | --- | --- | --- | --- |"]
    for entry in (carried_entry(name) for name in RECIPES if name in carried_names()):
        images = "" if entry.images is None else " × ".join(map(str, entry.images))
        codes = " × ".join(map(str, entry.codes))
        of = f" of {' and '.join(f'`{spec}`' for spec in entry.of)}" if entry.of else ""
        assert entry.size is not None  # it is carried
        lines.append(
            f"| `zoo:{entry.name}` | {entry.kind}{of} | {images} | {codes} | {entry.size / 1e6:.2f} | {shown_measure(entry) or ''} |"
        )
    return "\n".join(lines)


def command_of(name: str) -> str:
    """Return the whole command that makes an artifact."""
    verb, *_ = shlex.split(RECIPES[name].command)
    if verb == "train":
        return f"latlas {RECIPES[name].command} --name {name} --out runs/{name}"
    if verb == "map":
        return f"latlas {RECIPES[name].command} --out runs/{name}"
    return f"python tools/make_zoo.py {name}"


def make(name: str, command: str) -> None:
    """Train or fit into a folder under runs/."""
    program, *words = shlex.split(command)
    if program == "latlas":
        subprocess.run([str(Path(sys.executable).parent / "latlas"), *words, "--replace"], cwd=ROOT, check=True)
        return
    model, train = shlex.split(RECIPES[name].command)
    with shown() as progress:
        heldout = load_images(RECIPES[name].measured_on)
        found = calibrate_sampler(
            load_model(model),
            load_images(train),
            heldout,
            features=feature_network("auto", heldout),
            kinds=("prior", "second-stage"),
            renormalised=(False,),
            progress=progress,
        )
    with writing(RUNS / name, replace=True) as beside:
        record = found.to_json()
        write_json(beside / "calibration.json", record)
        found.score_of("second-stage").sampler.save_pretrained(beside / "sampler")
        shutil.copy(beside / "sampler" / CONFIG, beside / CONFIG)


def carry(name: str, command: str) -> None:
    """Keep an artifact without its history, with its card; what was carried before stays if it cannot be kept."""
    recipe, made = RECIPES[name], RUNS / name
    inner = next((made / part for part in ("map", "sampler") if (made / part).is_dir()), made)
    record: Any = read_json(inner / CONFIG)
    with writing(CARRIED / name, replace=True) as beside:
        if record["kind"] in NETWORKS:
            model = NETWORKS[record["kind"]].from_pretrained(inner)
            (model.half() if recipe.half else model).write_files(beside)
            images, codes = model.image_shape, model.latent_shape
        else:
            for file in (CONFIG, "README.md", *record["files"]):
                shutil.copyfile(inner / file, beside / file)
            images = None
            codes = load_sampler(inner).latent_shape if record["kind"] == "sampler" else (load_map(inner).source_size,)  # type: ignore[union-attr]
        measured, words = measure(name, record, beside)
        about = {
            "images": images,
            "codes": codes,
            "of": [word for word in shlex.split(recipe.command) if word.startswith("zoo:")],
            "made_by": command,
            "measured": measured,
        }
        write_json(beside / ABOUT, about)
        card = beside / "README.md"
        text = card.read_text(encoding="utf-8").replace("path/to/this/folder", f"zoo:{name}")
        half = "\n\nThe weights are kept in half precision." if recipe.half else ""
        card.write_text(f"{text.rstrip()}\n{words}\n## Made by\n\n```\n{command}\n```{half}\n", encoding="utf-8")
        size = sum(path.stat().st_size for path in beside.iterdir())
        if size > LARGEST:
            raise SystemExit(f"{name} takes {size:,} bytes; the repository carries at most {LARGEST:,} of each.")
    print(f"{name}: {size:,} bytes")


def measure(name: str, record: Mapping[str, Any], folder: Path) -> tuple[dict[str, Any], str]:
    """Return what is measured of an artifact, and the part of its card that says so."""
    recipe = RECIPES[name]
    if record["kind"] == "generator":
        return {}, "\n## Diagnosis\n\nA generator has no encoder: see the card of its recoder.\n"
    if record["kind"] == "sampler":
        calibration = read_json(RUNS / name / "calibration.json")
        found = {key: calibration["samplers"][key]["distance"]["value"] for key in ("second-stage", "prior")}
        found["reconstructions"] = calibration["reconstructions"]["value"]
        rows = "\n".join(f"| {key} | {value:.1f} |" for key, value in found.items())
        words = (
            f"Fréchet distance of {calibration['features']} features of {calibration['count']:,} images to as many of "
            f"{calibration['heldout']}. `latlas calibrate` tries the other samplers too, and a mixture is nearer on these digits.\n\n"
            f"| images drawn by | distance |\n| --- | --- |\n{rows}\n"
        )
        return {"images": calibration["heldout"], "distances": found}, f"\n## Diagnosis\n\n{words}"
    if record["kind"] not in NETWORKS:
        comparison = record["settings"]["evidence"]["comparison"]
        return {key: comparison[key] for key in ("images", "M", "target_R", "mean_code")}, ""  # the card of a map has a table
    spec = f"zoo:{name}"
    model = (
        NETWORKS[record["kind"]].from_pretrained(folder) if record["kind"] == "vae" else load_model(f"{spec_of(name)}+{folder}")
    )
    with shown() as progress:
        found, findings = diagnosed(model, load_images(recipe.measured_on), progress)
    command = f"latlas diagnose {shlex.quote(spec if record['kind'] == 'vae' else f'{spec_of(name)}+{spec}')}"
    words = (
        f"{found['active']} of {found['variables']} latent variables are active, and the squared error per pixel is "
        f"{found['mse']:.4f} ± {found['mse_standard_error']:.4f}, on {found['count']:,} images of {found['images']} "
        f"(`{command} {shlex.quote(recipe.measured_on)}`).\n\n"
    )
    advice = "\n".join(f"- {finding.headline} {finding.text}" for finding in findings)
    return found, f"\n## Diagnosis\n\n{words}{advice}\n"


def diagnosed(model: Any, images: ImageSet, progress: Progress) -> tuple[dict[str, Any], list[Advice]]:
    """Return the numbers and the advice of `latlas diagnose`, without the gain of each variable, which takes far longer."""
    codes = encode(model, images, progress=progress)
    latents, reconstruction = latent_table(codes.moments()), measure_reconstruction(model, codes.mean, images)
    collapsed = ~latents.active
    zeroing = None
    if bool(collapsed.any()):
        silenced = silence(codes.mean, collapsed)
        pairs = zip(decode_batches(model, codes.mean), decode_batches(model, silenced), strict=True)
        zeroing = Zeroing(
            error_before=reconstruction.error,
            error_after=measure_reconstruction(model, silenced, images).error,
            largest_output_difference=max(float((before - after).abs().max()) for before, after in pairs),
        )
    numbers = {
        "variables": len(latents),
        "active": latents.active_count,
        "kl_nats": float(latents.kl_nats.sum()),
        "mse": reconstruction.error,
        "mse_standard_error": reconstruction.standard_error(),
        "variance_loss_over_mse": reconstruction.variance_loss_over_error,
        "variance_law_mean": float(latents.variance_law.mean()),
    }
    # A recoder has no posteriors, and so no finite KL.
    finite = {key: value for key, value in numbers.items() if math.isfinite(value)}
    return {"images": images.name, "count": len(images), **finite}, advise(latents, reconstruction, zeroing)


def spec_of(name: str) -> str:
    """Return the generator that a recoder belongs to."""
    return next(word for word in shlex.split(RECIPES[name].command) if word.startswith("zoo:"))


if __name__ == "__main__":
    sys.exit(main())
