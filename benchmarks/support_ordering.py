"""The fast order of 64 variables against the exhaustive one: decodes, and agreement of the top 7 over 20 runs.

    python benchmarks/support_ordering.py      # 325,000 decodes of 64 x 64 images once, some minutes; then seconds

The model is a VAE of the calibration benchmark (64 variables, avatars), trained only where it is missing. The growth of the error of
every held-out image without every variable is measured once and kept under runs/bench-support; the 20 runs, each with images in
another random order, then ask it in place of the decoder. Beside the regression on squared codes stands elimination without it.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import calibration
import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from latlas.base.progress import Progress
from latlas.base.provenance import package_versions
from latlas.base.seeds import generator
from latlas.cli.progress import shown
from latlas.data.loading import load_images
from latlas.encodings.encode import encode
from latlas.measurements.elimination import INDIFFERENCE, eliminate, estimate
from latlas.measurements.gain import growths
from latlas.models.vae import VAE

ROOT = Path(__file__).parents[1]
WORK = ROOT / "runs" / "bench-support"
RESULTS = ROOT / "benchmarks" / "results" / "support_ordering.json"
TRAIN, TEST = "avatars:train[0:8000]", "avatars:test[0:5000]"
TOP, RUNS, CONFIDENCE = 7, 20, 0.95
MOST_DECODES, LEAST_AGREEMENT = 0.1, 19
_CHUNK = 250  # images between two savings
_SPREAD_DRAWS = 200


def measure(progress: Progress, *, most: int | None = None) -> dict[str, Any]:
    """Return decodes, agreement and calibration of the fast order of 64 variables on held-out images: 5,000, or `most`."""
    growth, energies = growth_table(_model(progress), TEST, progress, most=most)
    ranked = growth.mean(dim=0).argsort(descending=True)
    inside, outside = int(ranked[TOP - 1]), int(ranked[TOP])
    border = growth[:, inside] - growth[:, outside]
    variants = {
        "fast": _runs(growth, energies),
        "fast, without the codes": _runs(growth, torch.zeros_like(energies)),
        "fast, nothing indifferent": _runs(growth, energies, indifference=0.0),
    }
    fast = variants["fast"]
    return {
        "images": TEST,
        "count": len(growth),
        "variables": growth.shape[1],
        "top": TOP,
        "runs": RUNS,
        "confidence": CONFIDENCE,
        "exhaustive_decodes": len(growth) * (growth.shape[1] + 1),
        "exhaustive_top": ranked[:TOP].tolist(),
        "border_over_its_error": float(border.mean() / (border.std() / len(border) ** 0.5)),
        "variants": variants,
        "beyond_two_errors": _beyond_two_errors(growth, energies),
        "bounds": [
            _bound("decodes over exhaustive, worst run", fast["decodes_share_worst"], MOST_DECODES, at_most=True),
            _bound(f"runs of {RUNS} with the exhaustive top {TOP}", fast["agreeing_runs"], LEAST_AGREEMENT, at_most=False),
        ],
    }


def growth_table(
    model: VAE, spec: str, progress: Progress, *, most: int | None = None
) -> tuple[Float64[Tensor, "images latent"], Float64[Tensor, "images latent"]]:
    """Return the growth of the error of every image without every variable, and the squared codes; kept, and resumed."""
    whole = load_images(spec, progress=progress)
    folder = WORK / f"{model.fingerprint[:12]}-{whole.content_hash[:12]}"
    images = whole.slice(0, most)
    codes = encode(model, images, progress=progress).mean
    latent = codes.shape[1]
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    starts = range(0, len(images), _CHUNK)  # of a part of the set, whole chunks, so that they serve the whole set too
    for done, start in enumerate(starts):
        progress("growth of every image", done * _CHUNK, len(images))
        path = folder / f"{start}.npy"
        stop = min(start + _CHUNK, len(images))
        if not path.is_file():
            part = growths(model, codes[start:stop], images.slice(start, stop), range(latent))
            beside = path.with_suffix(".part.npy")
            np.save(beside, part.numpy(), allow_pickle=False)
            beside.rename(path)
        parts.append(torch.from_numpy(np.load(path, allow_pickle=False)))
    progress("growth of every image", len(images), len(images))
    return torch.cat(parts), codes.double().square()


def main() -> int:
    """Measure, write; return 1 if a bound was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--images", type=int, help=f"only the first so many images, a multiple of {_CHUNK}; printed, not written"
    )
    most = parser.parse_args().images
    if most is not None and (most < _CHUNK or most % _CHUNK):
        parser.error(f"--images takes a multiple of {_CHUNK}, got {most}")
    with shown() as progress:
        found = measure(progress, most=most)
    record = {"command": "python benchmarks/support_ordering.py", **found, "versions": package_versions()}
    text = json.dumps(record, indent=2) + "\n"
    if most is None:
        RESULTS.write_text(text, encoding="utf-8")
    else:
        print(text)
    for line in record["bounds"]:
        print(line)
    return 0 if all(line.startswith("kept") for line in record["bounds"]) else 1


def _model(progress: Progress) -> VAE:
    folder = calibration.WORK / "quick" / "avatars" / f"{calibration.DEFAULT}-0"
    if (folder / "config.json").is_file():
        return VAE.from_pretrained(folder)
    train = load_images(TRAIN, progress=progress)
    epochs = calibration.BUDGETS["quick"].epochs["avatars"]
    return calibration.trained(folder, "avatars", calibration.DEFAULT, 0, train, epochs, progress)


def _runs(growth: Tensor, energies: Tensor, *, indifference: float = INDIFFERENCE) -> dict[str, Any]:
    count, latent = growth.shape
    truth = set(growth.mean(dim=0).topk(TOP).indices.tolist())
    shares, agreeing, settled = [], 0, 0
    for seed in range(RUNS):
        found = eliminate(
            lambda rows, variables: growth[rows][:, variables],
            energies,
            top=TOP,
            confidence=CONFIDENCE,
            generator=generator(seed, "order of images"),
            indifference=indifference,
        )
        shares.append(found.decodes / (count * (latent + 1)))
        agreeing += set(found.top) == truth
        settled += found.settled
    return {
        "decodes_share": sum(shares) / RUNS,
        "decodes_share_worst": max(shares),
        "agreeing_runs": agreeing,
        "settled_runs": settled,
    }


def _beyond_two_errors(growth: Tensor, energies: Tensor) -> dict[str, float]:
    """Return how often the difference of two variables misses by two standard errors and more; 0.046 of a normal variable."""
    count, latent = growth.shape
    truth, whole = growth.mean(dim=0), energies.mean(dim=0)
    first, second = torch.triu_indices(latent, latent, 1)
    result = {}
    for size in (size for size in (64, 256, 1024) if size < count):
        beyond = known = 0
        for seed in range(_SPREAD_DRAWS):
            rows = torch.randperm(count, generator=generator(seed, "calibration of errors"))[:size]
            found = estimate(growth[rows], energies[rows], whole, count)
            misses = (found.differences() - (truth[:, None] - truth[None, :])) / found.errors()
            pairs = misses[first, second]
            beyond += int((pairs.abs() > 2.0).sum())
            known += int(pairs.isfinite().sum())
        result[str(size)] = beyond / known
    return result


def _bound(what: str, value: float, limit: float, *, at_most: bool) -> str:
    kept = value <= limit if at_most else value >= limit
    return f"{'kept' if kept else 'MISSED'}: {what} = {value:.3g}, {'at most' if at_most else 'at least'} {limit:g}"


if __name__ == "__main__":
    sys.exit(main())
