"""What names a place, and the folders that a run which died has left: specs, the Hub's answers, work folders."""

import json
import os
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fuzzers.chance import behind_name, mutated, mutated_json, mutated_text
from fuzzers.judging import Target, named, replaced, within, written

os.environ["HF_HUB_OFFLINE"] = "1"  # a spec made by chance may be a name of the Hub


def _data_specs(folder: Path) -> list[bytes]:
    (folder / "here" / "pictures").mkdir(parents=True)
    (folder / "here" / "pictures" / "0.ppm").write_bytes(b"P6 1 1 255\n\0\1\2")
    specs = ("pictures", "pictures?size=2&channels=3[0:1]", "mnist:test[0:10]", "avatars:train?hat=0.01&size=32", "x-{000..009}.tar",
             "celeba:pictures?crop=140", "hub:pictures:train?image=a", "x.npy[1:][:-1]", "avatars-peeps:test,seed=3")  # fmt: skip
    return [spec.encode() for spec in specs]


def _model_specs(folder: Path) -> list[bytes]:
    (folder / "here" / "model").mkdir(parents=True)
    specs = ("model", "owner/name@main", "stylegan2:net.pkl?psi=0.7#w", "diffusers:model?scaled&size=64#vae", "pythae:model",
             "zoo:mobile-stylegan?size=64#w", "model+owner/name", "zoo:digits-dense")  # fmt: skip
    return [spec.encode() for spec in specs]


def _load_spec(data: bytes, folder: Path, load: Callable[[str], object]) -> object:
    try:
        text = data.decode(errors="surrogatepass")
    except UnicodeDecodeError:
        text = data.decode(errors="surrogateescape")  # as Python takes what a shell has typed
    if re.search(r"(^|[:+])[/~]|\.\.(?![0-9])", text):
        return None  # whatever else this machine has is nobody's to walk through
    with within(folder / "here"):
        return load(text)


def _load_data_spec(data: bytes, folder: Path) -> object:
    from latlas.base.errors import DataUnavailableError
    from latlas.data import hub_sets, loading

    def absent(*_: Any, **__: Any) -> Any:
        raise DataUnavailableError("Nothing is fetched or drawn here.")

    # Of these the spec is read, and no more.
    doors = ((loading, "load_builtin", absent), (loading, "load_avatars", absent), (hub_sets, "list_hub", absent))
    with replaced(*doors):
        return _load_spec(data, folder, loading.load_images)


def _load_model_spec(data: bytes, folder: Path) -> object:
    from latlas.models.loading import load_model

    return _load_spec(data, folder, load_model)


# The Hub


def _repositories(folder: Path) -> list[bytes]:
    """Lay a repository down; return its config, which is what decides the files that are asked for."""
    import torch

    from latlas.maps.linear import LinearMap

    LinearMap(weight=torch.eye(2), bias=torch.zeros(2), kind="affine", source="a", target="b").save_pretrained(folder / "hub")
    (folder / "here").mkdir()
    record = json.loads((folder / "hub" / "config.json").read_text(encoding="utf-8"))
    record.pop("checksum")
    return [b"\n" + json.dumps(record).encode()]


def _load_repository(data: bytes, folder: Path) -> object:
    from latlas.base import hub
    from latlas.maps.linear import LinearMap

    hub_folder = folder / "hub"

    def snapshot(_: str, *, allow_patterns: list[str], **__: Any) -> str:
        for pattern in allow_patterns:
            name = re.sub(r"\[([*?[])\]", r"\1", pattern)
            if (
                name.startswith("/")
                or ".." in name.split("/")
                or not re.search(r"(\.json|\.safetensors|\.npy|\.parquet|README\.md)$", name)
            ):
                raise AssertionError(f"the Hub was asked for {name!r}")
        return str(hub_folder)

    import huggingface_hub.errors

    hub_stub = SimpleNamespace(snapshot_download=snapshot, errors=huggingface_hub.errors)
    written(hub_folder, "config.json", data.partition(b"\n")[2])
    with within(folder / "here"), replaced((hub, "_huggingface_hub", lambda *_: hub_stub)):
        return LinearMap.from_pretrained("owner/name@main")


# Work folders


def _work_folders(folder: Path) -> list[bytes]:
    """Lay the work of an encoding down, unfinished, and return the files that tell how far it is."""
    job = _open_job(folder)
    from latlas.encodings.shards import encode_shards, write_shard

    for shard in encode_shards(_model(), _images(), job.missing(), job):
        write_shard(job.work, shard)
    job.lock.release()
    shutil.copytree(job.work, folder / "before", ignore=shutil.ignore_patterns("lock"))
    kept = [path for path in sorted((folder / "before").iterdir()) if path.suffix in (".json", ".npy")]
    return [f"{path.name}\n".encode() + path.read_bytes() for path in kept] + [b"finished\nx", b"staged\n.out.x"]


def _load_work_folder(data: bytes, folder: Path) -> object:
    head, _, content = data.partition(b"\n")
    name = head.decode(errors="replace")
    if not re.fullmatch(r"[a-z_0-9-]{1,40}(\.json|\.npy)?", name) or name == "lock":
        return None
    work = folder / ".out.encoding"
    for place in (work, folder / "out"):
        shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(folder / "before", work)
    written(work, name, content)
    with replaced((os, "fsync", lambda _: None)), _open_job(folder) as job:  # the disk would take nine tenths of the time
        return None if job.missing() else len(job.finish())


def _open_job(folder: Path) -> Any:
    from latlas.encodings.store import open_job

    return open_job(_model(), _images(), folder / "out")


def _model() -> Any:
    import torch

    from latlas.models.architectures.dense import Dense
    from latlas.models.vae import VAE

    torch.manual_seed(0)
    return VAE(Dense(widths=(4,), latent=2), (1, 4, 4))


def _images() -> Any:
    import torch

    from latlas.data.images import ImageSet

    return ImageSet(name="i", storage=torch.zeros(2, 1, 4, 4, dtype=torch.uint8), names=("a.png", "b.png"))


def _mutated_work(data: bytes, chance: random.Random) -> bytes:
    return (mutated_json if data.partition(b"\n")[0].endswith(b".json") else behind_name(mutated))(data, chance)


# A stream that is kept


def _streams(folder: Path) -> list[bytes]:
    _keep_stream(folder)
    shutil.copytree(folder / "stream", folder / "before")
    return [f"{path.name}\n".encode() + path.read_bytes() for path in sorted((folder / "before").iterdir())]


def _load_stream(data: bytes, folder: Path) -> object:
    found = named(data, folder / "before")
    if found is None:
        return None
    shutil.rmtree(folder / "stream", ignore_errors=True)
    shutil.copytree(folder / "before", folder / "stream")
    written(folder / "stream", found[0].name, found[1])
    return _keep_stream(folder)


def _keep_stream(folder: Path) -> object:
    from latlas.training.streams import CachedStream

    stream = CachedStream(_drawing(), batch_size=2, seed=0, folder=folder / "stream", images=4)
    return stream.batch(0), stream.batch(2)


def _drawing() -> Any:
    import torch

    from latlas.models.architectures.dcgan import DCGAN
    from latlas.models.generator import GeneratorModel

    torch.manual_seed(0)
    return GeneratorModel(DCGAN(channels=2, latent=2), (1, 16, 16), name="generator")


PLACE_TARGETS = {
    "data-specs": Target(seeds=_data_specs, load=_load_data_spec, mutate=mutated_text),
    "model-specs": Target(seeds=_model_specs, load=_load_model_spec, mutate=mutated_text),
    "repositories": Target(seeds=_repositories, load=_load_repository, mutate=mutated_json, named=True),
    "work-folders": Target(seeds=_work_folders, load=_load_work_folder, mutate=_mutated_work, named=True),
    "streams": Target(seeds=_streams, load=_load_stream, mutate=_mutated_work, named=True),
}
