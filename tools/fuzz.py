"""Fuzz every loader: whatever a file holds, it is read, or refused in one line, within a second and a bound of memory.

    python tools/fuzz.py                         # every loader, seeded mutations of well-formed files, 500 runs each
    python tools/fuzz.py safetensors --runs 20000
    python tools/fuzz.py json --engine atheris   # guided by coverage; needs the extra fuzz

A loader may raise a `LatlasError`, or what its target names beside that; anything else is a finding, and so is a run that takes over a
second of processor time or makes the process grow by more than `MOST_MEMORY`. Findings are kept in `tests/hostile/findings` under
the name of their target, where the tests read each of them again for ever.
"""

import argparse
import gzip
import hashlib
import io
import json
import os
import random
import re
import resource
import signal
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # a spec made by chance may be a name of the Hub

ROOT = Path(__file__).parents[1]
FINDINGS = ROOT / "tests" / "hostile" / "findings"
MOST_SECONDS = 1.0  # of processor time for one input
MOST_MEMORY = 512 * 2**20  # bytes by which one input may make the process grow
MOST_ADDRESSES = 6 * 2**30  # bytes of address space beside what the process has when it starts: a backstop
_LONGEST = 1 << 16  # bytes of an input


class Hang(BaseException):
    """A run took too long. No `except Exception` of a loader catches it."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """One loader."""

    seeds: Callable[[Path], list[bytes]]  # well-formed inputs; may lay files into the folder
    load: Callable[[bytes, Path], object]
    mutate: Callable[[bytes, random.Random], bytes] = lambda data, chance: mutated(data, chance)
    allowed: Callable[[], tuple[type[Exception], ...]] = tuple  # beside LatlasError: what the loader's own documentation names


@dataclass(kw_only=True)
class Outcome:
    """What came of fuzzing one target."""

    target: str
    engine: str
    runs: int
    read: int = 0  # inputs that were read
    refused: int = 0
    slowest: float = 0.0  # seconds of processor time
    grown: int = 0  # bytes, over all runs
    findings: list[dict[str, str]] = field(default_factory=list)


# Chance


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Return a changed copy: bits, bytes, numbers, pieces taken out, put twice or exchanged."""
    content = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 4, 16))):
        place = chance.randrange(len(content) + 1)
        end = min(len(content), place + chance.choice((1, 1, 2, 4, 8, 32)))
        match chance.randrange(7):
            case 0 if place < len(content):
                content[place] ^= 1 << chance.randrange(8)
            case 1 if place < len(content):
                content[place] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
            case 2:
                del content[place:end]
            case 3:
                content[place:place] = content[place:end] * chance.choice((1, 2, 50))
            case 4:
                width = chance.choice((2, 4, 8))
                number = chance.choice((0, 1, -1, 1 << (8 * width - 1), (1 << (8 * width - 1)) - 1, 1 << (4 * width)))
                order = chance.choice(("little", "big"))
                content[place : place + width] = (number % (1 << 8 * width)).to_bytes(width, order)  # type: ignore[arg-type]
            case 5:
                del content[place:]
            case _:
                content[place:place] = chance.choice(
                    (b"\0", b"\n", b"-1", b"999999999999", b"../", b"[", b"{", b'"', b"\xff\xfe")
                )
    return bytes(content[:_LONGEST])


def mutated_json(data: bytes, chance: random.Random) -> bytes:
    """Return a changed copy of a JSON text behind a first line that is left alone; one in five is changed as mere bytes."""
    head, _, text = data.partition(b"\n")
    try:
        record = json.loads(text)
    except ValueError:
        record = None
    if record is None or chance.random() < 0.2:
        return head + b"\n" + mutated(text, chance)
    for _ in range(chance.choice((1, 1, 2, 3))):
        holder, key = chance.choice(list(_places(record)) or [({}, "x")])
        match chance.randrange(8):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, dict):
                holder[chance.choice(("", "x", "__class__", "name"))] = holder.pop(key)
            case _:
                holder[key] = chance.choice(_NASTY)()
    return head + b"\n" + json.dumps(record).encode()


_NASTY: tuple[Callable[[], Any], ...] = (
    lambda: None,
    lambda: True,
    lambda: 0,
    lambda: -1,
    lambda: 3,
    lambda: 10**9,
    lambda: 10**30,
    lambda: 0.5,
    lambda: 1e308,
    lambda: float("nan"),
    lambda: "",
    lambda: "x\n\x1b[2J",
    lambda: "../../etc/passwd",
    lambda: "\ud800",
    lambda: "9" * 5000,
    list,
    dict,
    lambda: [[]],
    lambda: [1, 2],
    lambda: [10**9, 10**9, 10**9],
    lambda: ["a"] * 1000,
    lambda: [[[[[[[[[[]]]]]]]]]],
    lambda: {"x": {"y": None}},
)


def _places(record: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each container with each of its keys, all the way down."""
    for key, value in list(record.items() if isinstance(record, dict) else enumerate(record)):
        yield record, key
        if isinstance(value, dict | list):
            yield from _places(value)


def mutated_text(data: bytes, chance: random.Random) -> bytes:
    """Return a changed spec: its signs exchanged, put twice, made long."""
    text = data.decode()
    for _ in range(chance.choice((1, 2, 4))):
        place = chance.randrange(len(text) + 1)
        piece = chance.choice(("[0:", "]", ":", "?", "&", "=", "#", "+", "@", "{0..9}", "{a,b}", "*", "..", "/", "-1", "9" * 30, "9" * 5000,
                               "\0", "\ud800", "é", " ", "", "a" * 300, "{1..1}" * 1500, "0x10", "nan"))  # fmt: skip
        text = text[:place] + piece + text[place + chance.randrange(3) :]
    return text[:20_000].encode(errors="surrogatepass")


# Loaders


def _written(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def _load_artifact(data: bytes, folder: Path) -> object:
    from latlas.encodings.encoding import Encoding
    from latlas.maps.loading import load_map
    from latlas.maps.preview import PreviewMatrix
    from latlas.models.adapters.pythae import load_pythae
    from latlas.models.loading import load_model
    from latlas.samplers.fit import load_sampler
    from latlas.supports.support_set import SupportSet

    readers: dict[str, Callable[[Path], object]] = {
        "linear-map": load_map,
        "spatial-map": load_map,
        "preview": PreviewMatrix.from_pretrained,
        "sampler": load_sampler,
        "encoding": Encoding.from_pretrained,
        "support-set": SupportSet.from_pretrained,
        "pythae": lambda path: load_pythae(str(path)),
    }
    head, _, text = data.partition(b"\n")
    name = head.decode(errors="replace")
    if name not in _KINDS:
        return None
    place = folder / "artifacts" / name
    _written(place, "model_config.json" if name == "pythae" else "config.json", text)
    return readers.get(name, load_model)(place)


_KINDS = (
    "vae", "draw", "generator", "recoder", "relocated", "linear-map", "spatial-map", "preview", "sampler", "encoding", "support-set", "pythae",
)  # fmt: skip


def _artifacts(folder: Path) -> list[bytes]:
    """Lay one small artifact of each kind into the folder; return their configs."""
    import torch

    from latlas.base.provenance import Provenance
    from latlas.data.images import ImageSet
    from latlas.encodings.encoding import Encoding
    from latlas.maps.folding import fold
    from latlas.maps.linear import LinearMap
    from latlas.maps.preview import PreviewMatrix
    from latlas.maps.spatial_map import SpatialMap
    from latlas.models.adapters.pythae import PythaeDecoder, PythaeEncoder, PythaeNetwork
    from latlas.models.architectures.dcgan import DCGAN
    from latlas.models.architectures.dense import Dense
    from latlas.models.architectures.draw import Draw
    from latlas.models.generator import GeneratorModel
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
    generator = GeneratorModel(DCGAN(channels=2, latent=2), (1, 16, 16), name="generator")
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
    configs = [f"{name}\n".encode() + _unsigned(place / name / "config.json") for name in named]
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


def _saved(*arrays: Any, suffix: str) -> list[bytes]:
    import numpy as np

    found = []
    for array in arrays:
        stream = io.BytesIO()
        if suffix == ".npy":
            np.save(stream, array)
        else:
            np.savez_compressed(stream, images=array, labels=np.arange(len(array)))
        found.append(stream.getvalue())
    return found


def _arrays(suffix: str) -> Callable[[Path], list[bytes]]:
    def seeds(_: Path) -> list[bytes]:
        import numpy as np

        pixels = np.arange(48, dtype=np.uint8).reshape(3, 4, 4)
        return _saved(pixels, (pixels / 255).astype("f4"), pixels > 9, np.asfortranarray(pixels), suffix=suffix)

    return seeds


def _load_array(suffix: str) -> Callable[[bytes, Path], object]:
    def load(data: bytes, folder: Path) -> object:
        from latlas.data.array_files import open_array
        from latlas.data.files import load_array

        path = _written(folder, f"a{suffix}", data)
        load_array(path)
        return next(iter(open_array(path).blocks([(0, 1)])))

    return load


def _safetensors(_: Path) -> list[bytes]:
    import torch
    from safetensors.torch import save

    return [
        save({"a": torch.zeros(2, 3), "b": torch.ones(1)}),
        save({"h": torch.zeros(4, dtype=torch.bfloat16)}, metadata={"format": "pt"}),
    ]


def _load_safetensors(data: bytes, folder: Path) -> object:
    from latlas.base.artifacts import load_tensors

    return load_tensors(_written(folder, "a.safetensors", data))


def _text(value: str) -> bytes:
    return b"X" + len(value).to_bytes(4, "little") + value.encode()


def _storage() -> bytes:
    """Return six numbers as torch.save wrote a storage before 2020: five pickles, a count, the numbers."""
    magic = b"\x80\x02\x8a\x0a" + (0x1950A86A20F9469CFC6C).to_bytes(10, "little") + b"."
    system = b"\x80\x02}" + _text("little_endian") + b"\x88s."
    storage = b"\x80\x02(" + _text("storage") + b"ctorch\nFloatStorage\n" + _text("0") + _text("cpu") + b"K\x06NtQ."
    keys = b"\x80\x02]" + _text("0") + b"a."
    return magic + b"\x80\x02M\xe9\x03." + system + storage + keys + (6).to_bytes(8, "little") + struct.pack("<6f", *range(6))


def _pickles(_: Path) -> list[bytes]:
    """Return a network of one weight, put together opcode by opcode, with names written in two ways."""

    def network(named: Callable[[str, str], bytes]) -> bytes:
        raw = _storage()
        storage = named("torch.storage", "_load_from_bytes") + b"B" + len(raw).to_bytes(4, "little") + raw + b"\x85R"
        sizes = b"K\x02K\x03\x86K\x03K\x01\x86\x89}"
        tensor = named("torch._utils", "_rebuild_tensor_v2") + b"(" + storage + b"K\x00" + sizes + b"tR"
        parameters = _text("_parameters") + b"}" + _text("weight") + tensor + b"s"
        state = b"}(" + parameters + _text("_buffers") + b"}" + _text("_modules") + b"}u"
        meta = b"}(" + _text("type") + _text("class") + _text("class_name") + _text("Generator") + _text("state") + state + b"u"
        whole = named("torch_utils.persistence", "_reconstruct_persistent_obj") + meta + b"\x85R"
        return b"\x80\x04}" + _text("G_ema") + whole + b"s."

    return [
        network(lambda module, name: f"c{module}\n{name}\n".encode()),
        network(lambda module, name: _text(module) + _text(name) + b"\x93"),
    ]


def _load_pickle(data: bytes, folder: Path) -> object:
    from latlas.models.adapters.stylegan_networks import read_network_file

    found = read_network_file(_written(folder, "a.pkl", data))
    return [found.network(name) for name in found.names]


def _idx(_: Path) -> list[bytes]:
    plain = b"\0\0\x08\x03" + struct.pack(">3I", 2, 3, 4) + bytes(range(24))
    return [b"p" + plain, b"z" + gzip.compress(plain, mtime=0)]


def _load_idx(data: bytes, folder: Path) -> object:
    from latlas.data.idx import read_idx

    return read_idx(_written(folder, "a.gz" if data[:1] == b"z" else "a.idx", data[1:]))


def _pictures(_: Path) -> list[bytes]:
    from PIL import Image

    found = []
    picture = Image.effect_noise((9, 7), 60)
    for kind, mode in (("PNG", "P"), ("PNG", "LA"), ("JPEG", "RGB"), ("JPEG", "CMYK"), ("GIF", "P"), ("BMP", "RGB"), ("TIFF", "L"), ("WEBP", "RGB"), ("PPM", "RGB")):  # fmt: skip
        stream = io.BytesIO()
        picture.convert(mode).save(stream, kind)
        found.append(stream.getvalue())
    return found


def _load_picture(data: bytes, _: Path) -> object:
    from latlas.data.decoding import picture_shape, read_picture

    shape = picture_shape(data)
    if len(data) % 2:
        return read_picture(data, channels=3, side=4)
    return shape, read_picture(data)


def _graphs(_: Path) -> list[bytes]:
    layer = '<layer id="0" name="w" type="Const"><data element_type="f32" shape="2, 3" offset="0" size="24"/></layer>'
    other = '<layer id="1" name="one" type="Const"><data element_type="i64" shape="" offset="8" size="8"/></layer>'
    edges = '<edges><edge from-layer="0" from-port="0" to-layer="2" to-port="0"/></edges>'
    text = f'<?xml version="1.0"?><net name="n" version="10"><layers>{layer}{other}<layer id="2" name="a" type="Add"/></layers>{edges}</net>'
    return [text.encode() + b"\n<!---->" + bytes(24)]


def _load_graph(data: bytes, folder: Path) -> object:
    from latlas.models.adapters.openvino_weights import read_ir

    text, _, weights = data.partition(b"\n<!---->")
    _written(folder, "a.bin", weights)
    return read_ir(_written(folder, "a.xml", text))


def _tables(folder: Path) -> list[bytes]:
    """Return a table of factors, and lay it down with a config that has its hash: no other table is ever read.

    What reads them, arro3 0.9.1, ends the whole process on some damaged ones, so that the hash has to stand before it.
    """
    from latlas.base.artifacts import write_config
    from latlas.base.provenance import Provenance
    from latlas.data.tables import write_table

    place = folder / "table"
    place.mkdir()
    write_table(place / "factors.parquet", {"a": ["x", "y"], "b": ["1", "2"]})
    write_config(place, kind="avatars", settings={}, provenance=Provenance(made_by="fuzz"))
    return [(place / "factors.parquet").read_bytes()]


def _load_table(data: bytes, folder: Path) -> object:
    from latlas.base.artifacts import read_config
    from latlas.data.tables import read_table

    path = _written(folder / "table", "factors.parquet", data)
    read_config(path.parent, kind="avatars")
    return read_table(path)


def _tars(_: Path) -> list[bytes]:
    found = []
    for kind in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w", format=kind) as archive:
            for name, content in (("0.ppm", b"P6 1 1 255\n\0\1\2"), ("0.cls", b"7"), ("é" * 40 + "1.ppm", b"P5 1 1 255\n\0")):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        found.append(stream.getvalue()[:8192])
    return found


def _load_tar(data: bytes, folder: Path) -> object:
    from latlas.data.tar_shards import list_tars

    path = folder / f"{hashlib.sha256(data).hexdigest()[:16]}.tar"  # shards stay open under their names
    path.write_bytes(data)
    try:
        listing = list_tars(str(path), [path])
        return [listing.read(index) for index in range(min(len(listing), 3))]
    finally:
        path.unlink()


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
    text = data.decode(errors="surrogatepass")
    if re.search(r"(^|[:+])[/~]|\.\.(?![0-9])", text):
        return None  # whatever else this machine has is nobody's to walk through
    before = Path.cwd()
    os.chdir(folder / "here")
    try:
        return load(text)
    finally:
        os.chdir(before)


def _load_data_spec(data: bytes, folder: Path) -> object:
    from latlas.base.errors import DataUnavailableError
    from latlas.data import hub_sets, loading

    def absent(*_: Any, **__: Any) -> Any:
        raise DataUnavailableError("Nothing is fetched or drawn here.")

    # Of these the spec is read, and no more. Put back afterwards: findings are replayed in the process of the tests.
    doors = ((loading, "load_builtin"), (loading, "load_avatars"), (hub_sets, "list_hub"))
    before = [getattr(module, name) for module, name in doors]
    try:
        for module, name in doors:
            setattr(module, name, absent)
        return _load_spec(data, folder, loading.load_images)
    finally:
        for (module, name), door in zip(doors, before, strict=True):
            setattr(module, name, door)


def _load_model_spec(data: bytes, folder: Path) -> object:
    from latlas.models.loading import load_model

    return _load_spec(data, folder, load_model)


def _unreadable() -> tuple[type[BaseException], ...]:
    from latlas.data.decoding import UnreadableError

    return (UnreadableError,)


TARGETS: dict[str, Target] = {
    "artifacts": Target(seeds=_artifacts, load=_load_artifact, mutate=mutated_json),
    "safetensors": Target(seeds=_safetensors, load=_load_safetensors),
    "npy": Target(seeds=_arrays(".npy"), load=_load_array(".npy")),
    "npz": Target(seeds=_arrays(".npz"), load=_load_array(".npz")),
    "pickles": Target(seeds=_pickles, load=_load_pickle),
    "idx": Target(seeds=_idx, load=_load_idx),
    "pictures": Target(seeds=_pictures, load=_load_picture, allowed=_unreadable),
    "openvino": Target(seeds=_graphs, load=_load_graph),
    "tables": Target(seeds=_tables, load=_load_table),
    "tars": Target(seeds=_tars, load=_load_tar, allowed=lambda: (ValueError, OSError)),  # as Listing.read says
    "data-specs": Target(seeds=_data_specs, load=_load_data_spec, mutate=mutated_text),
    "model-specs": Target(seeds=_model_specs, load=_load_model_spec, mutate=mutated_text),
}


# Running


@contextmanager
def _clock() -> Iterator[None]:
    def ring(*_: Any) -> None:
        raise Hang(f"over {MOST_SECONDS:g} s")

    before = signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _place(failure: BaseException) -> str:
    """Return the innermost line of latlas that an exception came through."""
    frames = [frame for frame in traceback.extract_tb(failure.__traceback__) if "latlas" in frame.filename]
    return f"{Path(frames[-1].filename).name}:{frames[-1].name}" if frames else "no line of latlas"


def judge(target: Target, data: bytes, folder: Path, outcome: Outcome) -> str | None:
    """Load one input, and return what is wrong with how that went, in one line; None where nothing is."""
    from latlas.base.errors import LatlasError

    before, started = _peak(), time.process_time()
    wrong = None
    try:
        with _clock():
            target.load(data, folder)
        outcome.read += 1
    except LatlasError as failure:
        outcome.refused += 1
        if len(str(failure).splitlines()) != 1 or not str(failure).isprintable():
            wrong = f"its message is no line: {str(failure)!r:.200}"
    except target.allowed():
        outcome.refused += 1
    except KeyboardInterrupt:
        raise
    except BaseException as failure:  # whatever it is, it is what is looked for
        wrong = f"{type(failure).__name__} at {_place(failure)}: {str(failure)!r:.300}"
    grown = _peak() - before
    outcome.slowest = max(outcome.slowest, time.process_time() - started)
    outcome.grown += grown
    if wrong is None and grown > MOST_MEMORY:
        wrong = f"grew by {grown / 2**20:.0f} MiB"
    return wrong


def fuzz(name: str, runs: int, seed: int, findings: Path | None = None) -> Outcome:
    """Give a loader mutations of its well-formed files; the same seed gives the same inputs."""
    target = TARGETS[name]
    outcome = Outcome(target=name, engine="mutations", runs=runs)
    chance = random.Random(f"{name} {seed}")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        seeds = target.seeds(folder)
        for data in seeds:  # what is not touched is read, or nothing below means anything; the first import takes its time here
            target_wrong = judge(target, data, folder, outcome)
            if target_wrong is not None and not target_wrong.startswith("Hang"):
                _keep(outcome, data, target_wrong, findings)
        outcome.slowest = 0.0
        for _ in range(runs):
            data = target.mutate(chance.choice(seeds), chance)
            wrong = judge(target, data, folder, outcome)
            if wrong is not None:
                _keep(outcome, data, wrong, findings)
    return outcome


def _keep(outcome: Outcome, data: bytes, wrong: str, findings: Path | None) -> None:
    kind = re.sub(r"[0-9]+", "_", wrong.partition(": ")[0])
    if any(known["kind"] == kind for known in outcome.findings):
        return
    name = f"{outcome.target}-{hashlib.sha256(data).hexdigest()[:12]}"
    outcome.findings.append({"kind": kind, "what": wrong, "file": name})
    if findings is not None:
        findings.mkdir(parents=True, exist_ok=True)
        (findings / name).write_bytes(data)


def replay(path: Path) -> str | None:
    """Load a kept finding again; return what is wrong with how that went."""
    name = path.name.rpartition("-")[0]
    target, outcome = TARGETS[name], Outcome(target=name, engine="replay", runs=1)
    with tempfile.TemporaryDirectory() as place:
        for data in target.seeds(Path(place)):  # the first import takes its time
            judge(target, data, Path(place), outcome)
        return judge(target, path.read_bytes(), Path(place), outcome)


def guided(name: str, runs: int, seed: int, findings: Path | None) -> Outcome:
    """Give a loader inputs that coverage leads to, by atheris; it ends the process that it runs in, so that has one of its own."""
    with tempfile.TemporaryDirectory() as place:
        told = Path(place) / "outcome.json"
        asked = [
            sys.executable,
            __file__,
            name,
            "--runs",
            str(runs),
            "--seed",
            str(seed),
            "--engine",
            "atheris",
            "--within",
            str(told),
        ]
        ended = subprocess.run(
            [*asked, "--findings", str(findings)] if findings else asked, capture_output=True, text=True, check=False
        )
        if not told.is_file():
            raise RuntimeError(f"atheris did not run: {ended.stderr[-2000:]}")
        return Outcome(**json.loads(told.read_text()))


def _within_atheris(name: str, runs: int, seed: int, told: Path, findings: Path | None) -> None:
    import atheris

    target = TARGETS[name]
    outcome = Outcome(target=name, engine="atheris", runs=runs)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        with atheris.instrument_imports(include=["latlas", "pickletools", "tarfile", "zipfile"]):
            seeds = target.seeds(folder)
            for data in seeds:
                judge(target, data, folder, outcome)
        outcome.slowest, done = 0.0, 0
        corpus = folder / "corpus"
        corpus.mkdir()
        for number, data in enumerate(seeds):
            (corpus / str(number)).write_bytes(data)

        def one(data: bytes) -> None:
            wrong = judge(target, data, folder, outcome)
            if wrong is not None:
                _keep(outcome, data, wrong, findings)
            nonlocal done
            done += 1
            if done % 50 == 0 or done >= runs or wrong is not None:  # atheris ends the process without a word
                told.write_text(json.dumps(asdict(outcome)))

        told.write_text(json.dumps(asdict(outcome)))
        atheris.Setup(
            ["fuzz", f"-atheris_runs={runs}", f"-seed={seed + 1}", f"-max_len={_LONGEST}", "-rss_limit_mb=0", str(corpus)], one
        )
        atheris.Fuzz()


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz what is asked for; return 1 if anything was found."""
    parser = argparse.ArgumentParser(description="Fuzz the loaders of latlas.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; none: all")
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine", choices=("mutations", "atheris"), default="mutations")
    parser.add_argument("--findings", type=Path, help="a folder to keep findings in")
    parser.add_argument("--record", type=Path, help="a file for the outcomes, as JSON")
    parser.add_argument("--within", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    for name in given.targets:
        if name not in TARGETS:
            parser.error(f"no target {name!r}; there are {', '.join(TARGETS)}")
    _limit_memory()
    if given.within is not None:
        _within_atheris(given.targets[0], given.runs, given.seed, given.within, given.findings)
        return 0
    run = guided if given.engine == "atheris" else fuzz
    outcomes = []
    for name in given.targets or TARGETS:
        outcomes.append(run(name, given.runs, given.seed, given.findings))
        found = outcomes[-1]
        print(
            f"{name}: {found.runs} runs ({found.engine}), {found.read} read, {found.refused} refused, slowest {found.slowest:.2f} s, "
            f"{found.grown / 2**20:.0f} MiB grown, {len(found.findings)} findings",
            flush=True,
        )
        for finding in found.findings:
            print(f"  {finding['file']}: {finding['what']}", flush=True)
        if given.record is not None:
            given.record.write_text(json.dumps([asdict(each) for each in outcomes], indent=2) + "\n")
    return int(any(outcome.findings for outcome in outcomes))


def _limit_memory() -> None:
    import torch

    torch.set_num_threads(1)
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
    if pages:
        limit = pages * resource.getpagesize() + MOST_ADDRESSES
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


if __name__ == "__main__":
    raise SystemExit(main())
