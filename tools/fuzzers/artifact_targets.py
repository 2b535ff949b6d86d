"""The artifacts of latlas: their configs, their tensors, and the arrays of an encoding, each by somebody who made the hashes fit."""

import hashlib
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fuzzers.chance import behind_name, mutated, mutated_json, mutated_lines, mutated_tensors
from fuzzers.judging import Target, exchanged, named, replaced, written

_KINDS = (
    "vae", "draw", "generator", "recoder", "relocated", "linear-map", "spatial-map", "preview", "sampler", "encoding", "support-set",
    "classifier", "calibration", "pythae", "zoo",
)  # fmt: skip


def _readers() -> dict[str, Callable[[Path], object]]:
    from latlas.app.calibrations import read_calibration
    from latlas.encodings.encoding import Encoding
    from latlas.maps.loading import load_map
    from latlas.maps.preview import PreviewMatrix
    from latlas.measurements.classifier import DigitsClassifier
    from latlas.models import carried_folders
    from latlas.models.adapters.pythae import load_pythae
    from latlas.models.loading import load_model
    from latlas.samplers.fit import load_sampler
    from latlas.supports.support_set import SupportSet

    def entry(path: Path) -> object:
        with replaced((carried_folders, "CARRIED", path)):
            return carried_folders.carried_entry("x")

    return dict.fromkeys(_KINDS, load_model) | {
        "linear-map": load_map,
        "spatial-map": load_map,
        "preview": PreviewMatrix.from_pretrained,
        "sampler": load_sampler,
        "encoding": Encoding.from_pretrained,
        "support-set": SupportSet.from_pretrained,
        "classifier": DigitsClassifier.from_pretrained,
        "calibration": lambda path: read_calibration(path, _generator()),
        "pythae": lambda path: load_pythae(str(path)),
        "zoo": entry,
    }


def _load_artifact(data: bytes, folder: Path) -> object:
    head, _, text = data.partition(b"\n")
    name = head.decode(errors="replace")
    if name not in _KINDS:
        return None
    place = folder / "artifacts" / name
    written(place, {"pythae": "model_config.json", "zoo": "x/zoo.json"}.get(name, "config.json"), text)
    return _readers()[name](place)


def _generator() -> Any:
    import torch

    from latlas.models.architectures.dcgan import DCGAN
    from latlas.models.generator import GeneratorModel

    torch.manual_seed(0)
    return GeneratorModel(DCGAN(channels=2, latent=2), (1, 16, 16), name="generator")


def _artifacts(folder: Path) -> list[bytes]:
    """Lay one small artifact of each kind into the folder; return their configs."""
    import torch

    from latlas.base.artifacts import write_config
    from latlas.base.provenance import Provenance
    from latlas.data.images import ImageSet
    from latlas.encodings.encoding import Encoding
    from latlas.maps.folding import fold
    from latlas.maps.linear import LinearMap
    from latlas.maps.preview import PreviewMatrix
    from latlas.maps.spatial_map import SpatialMap
    from latlas.models.adapters.pythae import PythaeDecoder, PythaeEncoder, PythaeNetwork
    from latlas.models.architectures.dense import Dense
    from latlas.models.architectures.draw import Draw
    from latlas.models.recoder import Recoder
    from latlas.models.vae import VAE
    from latlas.numerics.patches import PatchGeometry
    from latlas.samplers.densities import Prior
    from latlas.samplers.sampler import Sampler
    from latlas.supports.sectors import Sectors
    from latlas.supports.support_set import SupportSet

    place = folder / "artifacts"
    place.mkdir()
    torch.manual_seed(0)
    vae = VAE(Dense(widths=(4,), latent=2), (1, 4, 4))
    generator = _generator()
    linear = LinearMap(weight=torch.eye(2), bias=torch.zeros(2), kind="affine", source="a", target=vae.name)
    square = torch.zeros(2, 2, 1, 1, dtype=torch.float64)
    spatial = SpatialMap(
        weight=square,
        bias=torch.zeros(2, dtype=torch.float64),
        fill=torch.zeros(2, dtype=torch.float64),
        geometry=PatchGeometry(1, 1, 1),
        kind="affine",
        source="a",
        target="b",
    )
    made_by = Provenance(made_by="fuzz")
    pixels = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    codes = torch.tensor([[-1.0, 2.0], [3.0, 4.0]])
    named: dict[str, Any] = {
        "vae": vae,
        "draw": VAE(Draw(steps=2, latent=2, hidden=4, read=2, write=2), (1, 4, 4)),
        "generator": generator,
        "recoder": Recoder(generator),
        "relocated": fold(linear, vae),
        "linear-map": linear,
        "spatial-map": spatial,
        "preview": PreviewMatrix(factors=torch.zeros(2, 3, dtype=torch.float64), bias=torch.zeros(3, dtype=torch.float64)),
        "sampler": Sampler(density=Prior(2), latent_shape=(2,), model="m"),
        "encoding": Encoding(mean=codes, log_variance=codes, model="m", images="i", images_hash="h", provenance=made_by),
        "support-set": SupportSet(
            images=ImageSet(name="i", storage=pixels, names=("a.png", "b.png")),
            indices=torch.tensor([0, 1]),
            codes=codes,
            sector=torch.tensor([0, 1]),
            sectors=Sectors(variables=(0,), threshold=0.0, centre=(0.0,)),
            occupancy=torch.tensor([1, 1]),
            model="m",
            chosen_from="i",
        ),
    }
    for name, value in named.items():
        value.save_pretrained(place / name)
    _keep_classifier(place / "classifier")
    _keep_calibration(place / "calibration")
    names = [*named, "classifier", "calibration"]
    configs = [f"{name}\n".encode() + _unsigned(place / name / "config.json") for name in names]
    (place / "zoo" / "x").mkdir(parents=True)
    write_config(place / "zoo" / "x", kind="vae", settings={}, provenance=made_by)
    about = {"images": [1, 4, 4], "codes": [2], "of": ["zoo:x"], "made_by": "latlas train", "measured": {"fid": 1.0}}
    configs.append(b"zoo\n" + json.dumps(about).encode())
    network = PythaeNetwork(PythaeEncoder((1, 2, 2), 2, variances=True), PythaeDecoder((1, 2, 2), 2))
    (place / "pythae").mkdir()
    torch.save({"model_state_dict": network.state_dict()}, place / "pythae" / "model.pt")
    settings = {
        "name": "VAEConfig",
        "input_dim": [1, 2, 2],
        "latent_dim": 2,
        "uses_default_encoder": True,
        "uses_default_decoder": True,
    }
    return [*configs, b"pythae\n" + json.dumps(settings).encode()]


def _unsigned(path: Path) -> bytes:
    """Return a config without its checksum, as before there were any: whoever means harm would make a new one."""
    record = json.loads(path.read_text(encoding="utf-8"))
    record.pop("checksum", None)
    return json.dumps(record).encode()


def _keep_classifier(place: Path) -> None:
    import torch

    from latlas.measurements.classifier import DigitsClassifier

    torch.manual_seed(0)
    DigitsClassifier(settings={"accuracy": 0.5}).save_pretrained(place)


def _keep_calibration(place: Path) -> None:
    import torch

    from latlas.app.calibrations import _procedure, write_calibration
    from latlas.data.images import ImageSet
    from latlas.inversion.descent import Budget
    from latlas.studies.range_calibration import RangeCalibration

    drawing = _generator()
    found = RangeCalibration(
        generator=drawing.name,
        errors=torch.rand(3, dtype=torch.float64),
        feature_errors=None,
        recovered=1.0,
        agreeing=1.0,
        unrelated_error=0.1,
        procedure=_procedure(drawing, Budget(steps=1, learning_rate=0.1)),
        examples=ImageSet(name="x", storage=torch.zeros(1, 1, 16, 16, dtype=torch.uint8)),
        example_codes=torch.zeros(1, 2),
        fingerprint=drawing.fingerprint,
        model=drawing,
    )
    write_calibration(found, place)


# Tensors


def _weights(folder: Path) -> list[bytes]:
    """Lay the same artifacts into the folder; return the tensors of those that have them in one file."""
    _artifacts(folder)
    found = []
    for name in _KINDS:
        files = list((folder / "artifacts" / name).glob("*.safetensors"))
        if len(files) == 1 and files[0].stat().st_size < 1 << 15:
            found.append(f"{name}\n".encode() + files[0].read_bytes())
    return found


def _load_weights(data: bytes, folder: Path) -> object:
    head, _, content = data.partition(b"\n")
    name = head.decode(errors="replace")
    files = list((folder / "artifacts" / name).glob("*.safetensors")) if name in _KINDS else []
    if len(files) != 1:
        return None
    path = written(files[0].parent, files[0].name, content)
    _vouch(path.parent, path)
    return _readers()[name](path.parent)


def _vouch(place: Path, *paths: Path) -> None:
    """Write hashes of files into their artifact's config, as whoever changed them on purpose would."""
    record = json.loads((place / "config.json").read_text(encoding="utf-8"))
    record.pop("checksum", None)
    record["files"] |= {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    (place / "config.json").write_text(json.dumps(record), encoding="utf-8")


# Encodings


def _encodings(folder: Path) -> list[bytes]:
    """Lay an encoding of one shard into the folder, and return its arrays, with the left-out images of another."""
    import torch

    from latlas.base.provenance import Provenance
    from latlas.encodings.encoding import Encoding

    codes = torch.arange(12, dtype=torch.float32).reshape(6, 2)
    whole = Encoding(
        mean=codes,
        log_variance=-codes,
        model="m",
        images="i",
        images_hash="h",
        provenance=Provenance(made_by="fuzz"),
        indices=torch.arange(6),
        names=tuple(f"{number}.png" for number in range(6)),
        labels=torch.arange(6),
    )
    whole.save_pretrained(folder / "one")
    _in_shards(folder / "one", folder / "several")
    (folder / "one" / "skipped.jsonl").write_text("")
    _grown(folder / "grown")
    found = [
        f"{place} {path.name}\n".encode() + path.read_bytes()
        for place in ("one", "several")
        for path in sorted((folder / place).glob("*.npy"))
    ]
    found += [f"{place} config.json\n".encode() + _unsigned(folder / place / "config.json") for place in ("several", "grown")]
    left_out = [{"index": 6, "name": "a.png", "reason": "damaged"}, {"index": 7, "name": "b.png", "reason": "damaged"}]
    return [*found, b"one skipped.jsonl\n" + b"\n".join(json.dumps(each).encode() for each in left_out)]


def _in_shards(whole: Path, place: Path) -> None:
    """Lay the same codes down in shards of four rows: latlas writes no shards that small, and reads them."""
    import numpy as np

    from latlas.encodings.arrays import write_array

    place.mkdir()
    for path in whole.glob("*.npy"):
        array = np.load(path)
        for number, part in enumerate((array[:4], array[4:])):
            write_array(place / f"{path.stem}-{number:05d}.npy", part.dtype, part.shape, [part])
    record = json.loads((whole / "config.json").read_text(encoding="utf-8"))
    record["settings"]["shard_rows"], record["files"] = 4, {}
    (place / "config.json").write_text(json.dumps(record), encoding="utf-8")
    _vouch(place, *place.glob("*.npy"))


def _load_encoding(data: bytes, folder: Path) -> object:
    from latlas.encodings.encoding import Encoding

    place, _, rest = data.partition(b" ")
    chosen = named(rest, folder / place.decode()) if place in (b"one", b"several", b"grown") else None
    if chosen is None:
        return None
    if chosen[0].name == "config.json":
        with exchanged(*chosen):
            if place == b"grown":
                return _append(chosen[0].parent)
            found = Encoding.from_pretrained(chosen[0].parent, verify=False)
            return len(Encoding.from_pretrained(chosen[0].parent)), found.mean.sum()
    if place == b"grown":
        return None
    with exchanged(*chosen):
        _vouch(chosen[0].parent, *chosen[0].parent.glob("*.npy"), chosen[0])  # those of the run before are put back
        found = Encoding.from_pretrained(chosen[0].parent)
        return found.name_of(0) if len(found) else None, len(found.skipped), found.mean.sum()


def _grown(place: Path) -> None:
    """Lay down an encoding as `encode` writes it, that something can be appended to."""
    from latlas.encodings.encode import encode

    encode(_encoder(), _pixels(0), out=place)


def _append(place: Path) -> object:
    from latlas.encodings.store import open_job

    with replaced((os, "fsync", lambda _: None)), open_job(_encoder(), _pixels(1), place, append=True) as job:
        return job.missing()


def _encoder() -> Any:
    import torch

    from latlas.models.architectures.dense import Dense
    from latlas.models.vae import VAE

    torch.manual_seed(0)
    return VAE(Dense(widths=(4,), latent=2), (1, 4, 4))


def _pixels(value: int) -> Any:
    import torch

    from latlas.data.images import ImageSet

    return ImageSet(name="i", storage=torch.full((2, 1, 4, 4), value, dtype=torch.uint8))


def _mutated_part(data: bytes, chance: random.Random) -> bytes:
    head, line, content = data.partition(b"\n")
    if head.endswith(b"config.json"):
        return mutated_json(data, chance)
    return head + line + (mutated_lines if content.startswith(b"{") else mutated)(content, chance)


ARTIFACT_TARGETS = {
    "artifacts": Target(seeds=_artifacts, load=_load_artifact, mutate=mutated_json, named=True),
    "weights": Target(seeds=_weights, load=_load_weights, mutate=behind_name(mutated_tensors), named=True),
    "encodings": Target(seeds=_encodings, load=_load_encoding, mutate=_mutated_part, named=True),
}
