"""Keep artifacts of every kind as this version writes them, and what they answer, for later versions to read.

    python tests/faults/samples/make_samples.py

What is kept already is never made again: the command adds kinds that are missing to the newest generation, and answers that are
missing to `answers.json`. Answers are those of the version that first recorded them; a later version must give the same.
"""

import hashlib
import importlib
import json
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from latlas.app.calibrations import read_calibration, write_calibration
from latlas.base.artifacts import CONFIG, read_config, read_json
from latlas.base.provenance import Provenance
from latlas.data.avatar_styles import AvatarSettings
from latlas.data.avatars import load_avatars
from latlas.data.images import ImageSet
from latlas.data.tables import read_table
from latlas.encodings.encode import encode
from latlas.encodings.encoding import Encoding
from latlas.inversion.descent import Budget
from latlas.maps.folding import fold
from latlas.maps.loading import load_map
from latlas.maps.preview import PreviewMatrix
from latlas.maps.spatial import fit_spatial_map
from latlas.measurements.classifier import DigitsClassifier
from latlas.models.architectures.registry import architecture
from latlas.models.loading import load_model
from latlas.models.protocols import require_generator
from latlas.models.vae import VAE
from latlas.samplers.fit import load_sampler
from latlas.studies.range_calibration import calibrate_range
from latlas.supports.support_set import SupportSet

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
NEWEST = "format-1-checksum"  # the generation that new kinds join; a raised FORMAT begins another
ANSWERS = HERE / "answers.json"
KEPT = 6  # decimals of an answer
# Of architectures that `make_all` leaves out, as small as they can be.
SMALL: Mapping[str, Mapping[str, Any]] = {
    "conv": {"channels": (2,), "latent": 2},
    "resnet": {"scales": 1, "base_dim": 1, "fc_dim": 2, "latent": 2},
    "split": {"scales": 1, "base_dim": 1, "fc_dim": 2, "latent": 2},
    "draw": {"steps": 2, "latent": 2, "hidden": 3, "read": 2, "write": 2},
}


def _steps(*shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Return numbers of a shape that are drawn by nobody: they run from low to high again and again, seven at a time."""
    return (low + (high - low) * (torch.arange(math.prod(shape)) % 7) / 6).view(shape)


def _of_model(folder: Path) -> dict[str, Tensor]:
    model = load_model(folder)
    found: dict[str, Tensor] = {}
    with torch.inference_mode():
        if callable(getattr(model, "encode", None)):
            posterior = model.encode(_steps(2, *model.image_shape))
            found["means"] = posterior.mean
            if posterior.log_variance is not None:
                found["log-variances"] = posterior.log_variance
        if callable(getattr(model, "decode", None)):
            found["images"] = model.decode(_steps(2, *model.latent_shape, low=-1.0))
    return found


def _of_encoding(folder: Path) -> dict[str, Tensor]:
    found = Encoding.from_pretrained(folder)
    spread = {} if found.log_variance is None else {"log-variances": found.log_variance[:4].float()}
    return {"means": found.mean[:4].float(), **spread}


def _of_map(folder: Path) -> dict[str, Tensor]:
    found = load_map(folder)
    shape = (found.source_channels, 4, 4) if hasattr(found, "source_channels") else (found.source_size,)
    return {"codes": found.apply(_steps(2, *shape, low=-1.0))}


def _of_preview(folder: Path) -> dict[str, Tensor]:
    found = PreviewMatrix.from_pretrained(folder)
    return {"images": found.apply(_steps(2, found.channels, 2, 2, low=-1.0))}


def _of_support_set(folder: Path) -> dict[str, Tensor]:
    found = SupportSet.from_pretrained(folder)
    return {
        "members": found.indices,
        "codes": found.codes,
        "sectors": found.sector,
        "occupancy": found.occupancy,
        "thresholds": torch.as_tensor(found.sectors.threshold),
        "pixels": found.images.storage.double().mean(dim=(1, 2, 3)),
    }


def _of_sampler(folder: Path) -> dict[str, Tensor]:
    return {"codes": load_sampler(folder).sample(3, torch.Generator().manual_seed(5))}


def _of_report(folder: Path) -> dict[str, Tensor]:
    read_config(folder, kind="report")
    return {"value": torch.tensor([read_json(folder / "report.json")["value"]])}


def _of_avatars(folder: Path) -> dict[str, Tensor]:
    read_config(folder, kind="avatars")
    pixels = np.load(folder / "images.npy", allow_pickle=False)
    told = json.dumps(read_table(folder / "factors.parquet"), sort_keys=True)
    return {
        "pixels": torch.from_numpy(pixels).double().mean(dim=(2, 3)),
        "factors": torch.tensor(list(hashlib.sha256(told.encode()).digest()[:8])),
    }


def _of_calibration(folder: Path) -> dict[str, Tensor]:
    drawing = require_generator(load_model(folder.parent / "generator"), "A range test")
    found = read_calibration(folder, drawing)
    with torch.inference_mode():
        again = drawing.decode(found.example_codes[:2])
    return {"errors": found.errors, "images": again, "shares": torch.tensor([found.recovered, found.agreeing])}


def _of_classifier(folder: Path) -> dict[str, Tensor]:
    with torch.inference_mode():
        network = DigitsClassifier.from_pretrained(folder)
        return {"logits": network.logits(network(_steps(2, 1, 28, 28)))}


# kind, as configs state it -> what an artifact of it answers
ASK: Mapping[str, Callable[[Path], dict[str, Tensor]]] = {
    "avatars": _of_avatars,
    "classifier": _of_classifier,
    "encoding": _of_encoding,
    "generator": _of_model,
    "linear-map": _of_map,
    "preview-matrix": _of_preview,
    "range calibration": _of_calibration,
    "recoder": _of_model,
    "relocated-model": _of_model,
    "report": _of_report,
    "sampler": _of_sampler,
    "spatial-map": _of_map,
    "support-set": _of_support_set,
    "vae": _of_model,
}


def samples() -> dict[str, Path]:
    """Return name -> folder of every kept artifact; the classifiers that the package carries are of the first generation too."""
    kept = {config.parent.relative_to(HERE).as_posix(): config.parent for config in HERE.rglob(CONFIG)}
    weights = ROOT / "src" / "latlas" / "measurements" / "weights"
    kept |= {f"carried/{config.parent.name}": config.parent for config in weights.rglob(CONFIG)}
    return dict(sorted(kept.items()))


def answers(folder: Path) -> dict[str, list[float]]:
    """Return what an artifact answers, in numbers."""
    found = ASK[read_json(folder / CONFIG)["kind"]](folder)
    return {name: [round(float(value), KEPT) for value in tensor.flatten()] for name, tensor in found.items()}


def _make_rest(folder: Path) -> None:
    """Write beside what `make_all` of benchmarks/torture_artifacts.py wrote the kinds that it leaves out."""
    provenance = Provenance(made_by="sample", seed=11)
    torch.manual_seed(11)
    for name, settings in SMALL.items():
        model = VAE(architecture(name, **settings), (1, 8, 8), name=name, provenance=provenance)
        model.save_pretrained(folder / f"vae-{name}")
    vae, grid, gan = (load_model(folder / name) for name in ("vae", "autoencoder", "generator"))
    images = ImageSet(name="steps", storage=(_steps(40, 1, 8, 8) * 255 * _steps(40, 1, 1, 1)).to(torch.uint8))
    fold(load_map(folder / "pruned" / "to-original"), vae).save_pretrained(folder / "relocated")
    codes = encode(grid, images)
    fold(fit_spatial_map(codes, codes, ridge=1e-3), grid).save_pretrained(folder / "relocated-spatial")
    encode(vae, images, out=folder / "encoding-half", dtype="float16")
    found = calibrate_range(gan, samples=5, budget=Budget(steps=2, learning_rate=0.1), seed=0)
    write_calibration(found, folder / "range-calibration")
    with tempfile.TemporaryDirectory() as cache, patch.dict(os.environ, LATLAS_CACHE=cache):
        load_avatars(AvatarSettings(size=8, count=3), workers=1)
        (drawn,) = (Path(cache) / "avatars").iterdir()
        shutil.copytree(drawn, folder / "avatars")


def main() -> int:
    """Add what is missing."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        made = importlib.import_module("torture_artifacts").make_all(Path(scratch) / "made")
        _make_rest(made)
        for folder in sorted(made.iterdir()):
            if not (HERE / NEWEST / folder.name).exists():
                shutil.copytree(folder, HERE / NEWEST / folder.name)
                print(f"kept {NEWEST}/{folder.name}")
    recorded = json.loads(ANSWERS.read_text(encoding="utf-8")) if ANSWERS.is_file() else {}
    for name, folder in samples().items():
        if name not in recorded:
            recorded[name] = answers(folder)
            print(f"recorded {name}")
    lines = [f"{json.dumps(name)}: {json.dumps(recorded[name])}" for name in sorted(recorded)]
    ANSWERS.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
