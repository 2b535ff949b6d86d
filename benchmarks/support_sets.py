"""Support Sets, measured: how far apart their images lie, and how long choosing takes; what benchmarks/support.py writes down."""

import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import calibration
import numpy as np
import torch

from latlas.base.progress import Progress
from latlas.base.provenance import Provenance
from latlas.base.seeds import generator
from latlas.data.images import ImageSet
from latlas.data.loading import load_images
from latlas.encodings.encode import encode
from latlas.encodings.encoding import Encoding
from latlas.encodings.mapped import map_rows
from latlas.measurements.gain import reconstruction_gain
from latlas.models.adapters.callables import CallableModel
from latlas.models.vae import VAE
from latlas.studies.sectors import study_sectors
from latlas.studies.support import BY_SECTORS, OTHERS, build_support_set, compare_spread
from latlas.supports.selection import CHOICES

BOUNDS = {"spread of avatars": 1.15, "seconds of a selection": 60.0, "GiB of a selection": 2.0}
MODELS = calibration.WORK / "quick" / "avatars"
SEEDS = range(5)
VARIABLES = (4, 5, 6, 7)
GAIN_IMAGES = 500
CODES, LATENT, WANTED = 200_000, 64, 128  # of the selection
SIDE = 16  # of its images, which only have to be there


def spread(progress: Progress) -> dict[str, Any]:
    """Return the spread over random images of sets by sectors, over seeds, and of other selectors of the same size."""
    model = VAE.from_pretrained(MODELS / f"{calibration.DEFAULT}-0")
    images = load_images("avatars:test", progress=progress)
    encoding = encode(model, images, progress=progress)
    some = torch.randperm(len(images), generator=generator(0, "gain images"))[:GAIN_IMAGES].sort().values
    order = reconstruction_gain(model, encoding.mean[some], images.take(some), progress=progress).order()

    def measured(seeds: range, **settings: Any) -> dict[str, Any]:
        rows = []
        for seed in seeds:
            support = build_support_set(model, images, order=order, encoding=encoding, seed=seed, **settings)
            found = compare_spread(support, images, seed=seed)
            rows.append((found.ratio, *found.interval, len(support), support.inhabited, support.sectors.threshold))
        ratio, low, high, size, inhabited, threshold = rows[0]
        ratios = [row[0] for row in rows]
        return {
            **settings,
            "asked": settings.get("threshold", "largest"),
            "ratio": ratio,
            "interval": [low, high],
            "mean_over_seeds": statistics.fmean(ratios),
            "deviation_over_seeds": statistics.stdev(ratios) if len(ratios) > 1 else None,
            "images": size,
            "inhabited": inhabited,
            "threshold": threshold,
        }

    sets = [
        measured(SEEDS if choose == "random" else SEEDS[:1], variables=variables, choose=choose)
        for variables in VARIABLES
        for choose in CHOICES
    ]
    sets += [
        measured(SEEDS, variables=7, threshold=threshold, units="spread", choose="random") for threshold in (0.25, 0.5, 0.75)
    ]
    others = [measured(SEEDS[:1], variables=7, selector=selector) for selector in OTHERS]
    sectors = build_support_set(model, images, order=order, encoding=encoding).sectors
    study = study_sectors(encoding.mean, sectors).to_json()
    return {
        "model": model.name,
        "images": images.name,
        "sets": sets,
        "others": others,
        "unevenness": {
            null: {key: test[key] for key in ("statistic", "freedom", "p_value", "simulated", "effect", "entropy")}
            for null, test in study["unevenness"].items()
        },
        "published_on_celeba": {"support": 0.183, "random": 0.116, "ratio": 0.183 / 0.116},
    }


def selection() -> dict[str, Any]:
    """Return seconds and peak memory of choosing 128 of 200,000 encoded images, each selector in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        _in_process(_prepare, place)
        return {selector: _in_process(_select, place, selector) for selector in (BY_SECTORS, *OTHERS)}


def _in_process(work: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    # A child's peak is its own: memory that the parent used earlier does not count.
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


def _prepare(place: Path) -> dict[str, Any]:
    """Write images of noise, and codes from a seeded mixture of eight Gaussians, spread unevenly over their variables."""
    chance = generator(0, "codes of the selection benchmark")
    centres = torch.randn(8, LATENT, generator=chance)
    deviations = torch.logspace(0, -1, LATENT)
    component = torch.randint(8, (CODES,), generator=chance)
    codes = (centres[component] + torch.randn(CODES, LATENT, generator=chance)) * deviations
    np.save(place / "images.npy", torch.randint(256, (CODES, 3, SIDE, SIDE), generator=chance, dtype=torch.uint8).numpy())
    images = _images(place)
    Encoding(
        mean=codes,
        log_variance=None,
        model="mixture",
        images=images.name,
        images_hash=images.content_hash,
        provenance=Provenance(made_by="benchmarks/support_sets.py"),
    ).save_pretrained(place / "codes")
    return {}


def _select(place: Path, selector: str) -> dict[str, Any]:
    torch.set_num_threads(2)
    model = CallableModel(
        name="mixture",
        image_shape=(3, SIDE, SIDE),
        latent_shape=(LATENT,),
        encode_with=lambda images: images.flatten(1)[:, :LATENT],
        decode_with=lambda codes: codes.new_zeros(len(codes), 3, SIDE, SIDE),
    )
    images = _images(place)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    started = time.perf_counter()
    support = build_support_set(
        model,
        images,
        order=list(range(LATENT)),  # the gains are the decoder's work, and no part of choosing
        selector=selector,
        size=WANTED,
        encoding=Encoding.from_pretrained(place / "codes"),
    )
    return {
        "selector": selector,
        "images": len(support),
        "of": len(images),
        "seconds": time.perf_counter() - started,
        "peak_GiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "before_GiB": before,  # Python and torch themselves
    }


def _images(place: Path) -> ImageSet:
    return ImageSet("noise", map_rows(place / "images.npy"))
