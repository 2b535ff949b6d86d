"""Linear maps between the latent spaces of trained models, their loss in image space: avatars, three types, spatial latents.

    make bench-maps      # the vector part first (benchmarks/vector_maps.py); with all trainings an hour on two cores

Two VAEs of the calibration benchmark (64 variables), a Split-VAE, a DCGAN, and two small autoencoders of latent diffusion (4 channels
at a quarter of the side, 8 at an eighth; avatars of 32 x 32). Models are kept under runs/ and trained only where they are missing.
Writes benchmarks/results/maps.json and the tables of docs/concepts/maps.md.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import calibration
import torch
from tables import table, write_table

from latlas.base.provenance import package_versions
from latlas.base.seeds import derived_seed
from latlas.base.seeds import generator as seeded
from latlas.cli.progress import shown
from latlas.data.images import ImageSet, to_pixels
from latlas.data.loading import load_images
from latlas.encodings.encode import encode
from latlas.maps.fit import fit_map
from latlas.measurements.reconstruction import decode_batches, decode_errors
from latlas.models.architectures.registry import architecture
from latlas.models.generator import GeneratorModel
from latlas.models.protocols import LatentModel, require_autoencoder
from latlas.models.vae import VAE
from latlas.studies.compare import compare
from latlas.studies.comparison import Comparison
from latlas.training.gan_runs import train_gan
from latlas.training.objectives import Objective
from latlas.training.runs import train_vae

ROOT = Path(__file__).parents[1]
WORK = ROOT / "runs" / "bench-maps"
RESULTS = ROOT / "benchmarks" / "results" / "maps.json"
VECTOR = ROOT / "benchmarks" / "results" / "vector_maps.json"
TRAIN, TEST = "avatars:train[0:8000]", "avatars:test[0:2000]"
SMALL_TRAIN, SMALL_TEST = "avatars:train?size=32[0:6000]", "avatars:test?size=32[0:2000]"
SPLIT = {"base_dim": 8, "fc_dim": 128, "latent": 64}
SMALL = {
    "4 channels, stride 4": {"latent": 4, "channels": (16, 32, 32), "norm_groups": 8},
    "8 channels, stride 8": {"latent": 8, "channels": (16, 32, 32, 32), "norm_groups": 8},
}
# Latent diffusion trains its autoencoders with next to no KL term; with weight 1 half of each code's variance is noise.
SMALL_KL_WEIGHT = 0.01
STREAM = 8000  # codes of the generator that a map is fitted on
_TIMES_FASTER = 20


def main() -> int:
    """Train what is missing, compare, write; return 1 if a bound was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train-only", action="store_true", help="make the models, measure nothing")
    asked = parser.parse_args()
    with shown() as progress:
        train = load_images(TRAIN, progress=progress)
        first, second = (_vae(seed, train, progress) for seed in (0, 1))
        split = _split(train, progress)
        generator = _generator(train, progress)
        stream_vae = _stream_vae(generator, progress)
        small_train = load_images(SMALL_TRAIN, progress=progress)
        small = {name: _small(name, settings, small_train, progress) for name, settings in SMALL.items()}
        if asked.train_only:
            return 0
        test = load_images(TEST, progress=progress)
        small_test = load_images(SMALL_TEST, progress=progress)
        rows: dict[str, dict[str, Any]] = {}
        for name, source, target in (
            ("type 1: VAE 0 to VAE 1", first, second),
            ("type 1: VAE 1 to VAE 0", second, first),
            ("type 2: VAE to Split-VAE", first, split),
            ("type 2: Split-VAE to VAE", split, first),
        ):
            rows[name] = _row(compare(source, target, train, test=test, yardstick=True, progress=progress))
        for name, source, target in (
            ("type 3: GAN to VAE", generator, first),
            ("type 3: VAE to GAN", first, generator),
            ("type 3: GAN to a VAE of its stream", generator, stream_vae),
            ("type 3: a VAE of its stream to GAN", stream_vae, generator),
        ):
            rows[name] = _row(compare(source, target, "stream", stream=STREAM, yardstick=True, progress=progress))
        four, eight = small.values()
        for name, source, target in (("spatial: 4 to 8 channels", four, eight), ("spatial: 8 to 4 channels", eight, four)):
            for neighbourhood in (1, 3, 5):
                found = compare(source, target, small_train, test=small_test, neighbourhood=neighbourhood, progress=progress)
                rows[f"{name}, {neighbourhood}x{neighbourhood}"] = _row(found)
        whole = {
            "spatial: 4 to 8 channels": _whole(four, eight, small_train, small_test),
            "spatial: 8 to 4 channels": _whole(eight, four, small_train, small_test),
        }
    bounds = list(_bounds(rows))
    record = {
        "command": "python benchmarks/maps.py",
        "train": TRAIN,
        "test": TEST,
        "small": {"train": SMALL_TRAIN, "test": SMALL_TEST, "models": SMALL},
        "stream": STREAM,
        "whole_matrix_M": whole,
        "rows": rows,
        "bounds": bounds,
        "vector": json.loads(VECTOR.read_text(encoding="utf-8")) if VECTOR.is_file() else None,
        "versions": package_versions(),
    }
    RESULTS.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    write_table("docs/concepts/maps.md", "maps", markdown(record))
    for line in bounds:
        print(line)
    return 0 if all(line.startswith("kept") for line in bounds) else 1


def markdown(record: dict[str, Any]) -> str:
    """Return the table of docs/concepts/maps.md."""
    columns = [
        "map",
        "M",
        "target's own R",
        "M over it",
        "over decode-encode",
        "over shuffled",
        "over no map",
        "recovered",
        "perceptron",
    ]
    keys = ("M_over_target_R", "M_over_decode_encode", "M_over_shuffled", "M_over_no_map", "recovered_share")
    rows = []
    for name, row in record["rows"].items():
        perceptron = None if row["yardstick"] is None else row["yardstick"]["M_over_linear"]
        cells = [*(row[key] for key in keys), perceptron]
        rows.append(
            [name, f"{row['M']:.5f}", f"{row['target_R']:.5f}", *("" if cell is None else f"{cell:.2f}" for cell in cells)]
        )
    return table(columns, rows)


def _whole(source: LatentModel, target: LatentModel, train: ImageSet, test: ImageSet) -> float:
    """Return M of one matrix over all positions at once: not to be used, but it tells whether what is missing is locality."""
    left, right = (encode(model, train).mean.flatten(1) for model in (source, target))
    carried = fit_map(left, right).apply(encode(source, test).mean.flatten(1))
    decoder = require_autoencoder(target, "A map")
    return float(decode_errors(decoder, carried.reshape(-1, *target.latent_shape), test).mean())


def _row(comparison: Comparison) -> dict[str, Any]:
    record = comparison.to_json()
    record.pop("provenance")
    record["map"].pop("residual_covariance", None)
    record["parameters"] = sum(tensor.numel() for tensor in (comparison.linear_map.weight, comparison.linear_map.bias))
    return record


def _bounds(rows: dict[str, dict[str, Any]]) -> Any:
    for name, row in rows.items():
        if name.startswith("type 1"):
            yield _bound(f"{name}: M over target R", row["M_over_target_R"], 2.0)
            yield _bound(f"{name}: M over no map", row["M_over_no_map"], 0.25)
        if name.startswith("type"):
            yield _bound(f"{name}: M over shuffled pairs", row["M_over_shuffled"], 0.5)
            if row["M_over_no_map"] is not None:
                yield _bound(f"{name}: M over no map", row["M_over_no_map"], 0.5)
        if name.endswith("3x3"):
            yield _bound(f"{name}: M over the decode-encode route", row["M_over_decode_encode"], 1.5)
            yield _bound(f"{name}: time over that route's", row["times"]["relocate_over_decode_encode"], 1 / _TIMES_FASTER)


def _bound(what: str, value: float, highest: float) -> str:
    return f"{'kept' if value <= highest else 'MISSED'}: {what} = {value:.3f}, at most {highest:g}"


def _vae(seed: int, train: ImageSet, progress: Any) -> VAE:
    budget = calibration.BUDGETS["quick"]
    folder = calibration.WORK / "quick" / "avatars" / f"{calibration.DEFAULT}-{seed}"
    return calibration.trained(folder, "avatars", calibration.DEFAULT, seed, train, budget.epochs["avatars"], progress)


def _split(train: ImageSet, progress: Any) -> VAE:
    folder = WORK / "split"
    if (folder / "config.json").is_file():
        return VAE.from_pretrained(folder)
    built = architecture("split", **SPLIT)
    return train_vae(
        train, built, epochs=6, batch_size=64, seed=derived_seed(0, "split"), name="Split-VAE", out=folder, progress=progress
    ).model


def _small(name: str, settings: dict[str, Any], train: ImageSet, progress: Any) -> LatentModel:
    folder = WORK / name.replace(", ", "-").replace(" ", "-")
    if (folder / "config.json").is_file():
        return VAE.from_pretrained(folder)
    return train_vae(
        train,
        architecture("autoencoder-kl", **settings),
        objective=Objective(kl_weight=SMALL_KL_WEIGHT),
        epochs=5,
        batch_size=32,
        seed=derived_seed(0, name),
        name=name,
        out=folder,
        progress=progress,
    ).model


def _stream_vae(generator: GeneratorModel, progress: Any) -> VAE:
    """A VAE that saw what the generator draws, and nothing else."""
    folder = WORK / "stream-vae"
    if (folder / "config.json").is_file():
        return VAE.from_pretrained(folder)
    codes = generator.sample_codes(8000, seeded(0, "stream of a VAE"))
    images = ImageSet("stream of the DCGAN", torch.cat([to_pixels(batch) for batch in decode_batches(generator, codes)]))
    built, seed = architecture("conv", latent=64), derived_seed(0, "vae of a stream")
    return train_vae(images, built, epochs=12, seed=seed, name="VAE of the stream", out=folder, progress=progress).model


def _generator(train: ImageSet, progress: Any) -> GeneratorModel:
    folder = ROOT / "runs" / "dcgan-avatars"
    if (folder / "config.json").is_file():
        return GeneratorModel.from_pretrained(folder)
    built = architecture("dcgan", channels=16, latent=64)
    return train_gan(
        train, built, steps=3250, precision="bfloat16", seed=0, name="avatars DCGAN", out=folder, progress=progress
    ).generator


if __name__ == "__main__":
    sys.exit(main())
