"""Files of numbers that strangers made: arrays, tensors, tables, and what other programs keep their networks in."""

import gzip
import io
import json
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fuzzers.chance import LONGEST, behind_name, mutated, mutated_json, mutated_tensors
from fuzzers.judging import Target, exchanged, named, written
from fuzzers.sums import mutated_archive, mutated_safetensors, mutated_zipped


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

        path = written(folder, f"a{suffix}", data)
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

    return load_tensors(written(folder, "a.safetensors", data))


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

    found = read_network_file(written(folder, "a.pkl", data))
    return [found.network(name) for name in found.names]


def _idx(_: Path) -> list[bytes]:
    plain = b"\0\0\x08\x03" + struct.pack(">3I", 2, 3, 4) + bytes(range(24))
    return [b"p" + plain, b"z" + gzip.compress(plain, mtime=0)]


def _load_idx(data: bytes, folder: Path) -> object:
    from latlas.data.idx import read_idx

    return read_idx(written(folder, "a.gz" if data[:1] == b"z" else "a.idx", data[1:]))


def _graphs(_: Path) -> list[bytes]:
    layer = '<layer id="0" name="w" type="Const"><data element_type="f32" shape="2, 3" offset="0" size="24"/></layer>'
    other = '<layer id="1" name="one" type="Const"><data element_type="i64" shape="" offset="8" size="8"/></layer>'
    edges = '<edges><edge from-layer="0" from-port="0" to-layer="2" to-port="0"/></edges>'
    text = f'<?xml version="1.0"?><net name="n" version="10"><layers>{layer}{other}<layer id="2" name="a" type="Add"/></layers>{edges}</net>'
    return [text.encode() + b"\n<!---->" + bytes(24)]


def _load_graph(data: bytes, folder: Path) -> object:
    from latlas.models.adapters.openvino_weights import read_ir

    text, _, weights = data.partition(b"\n<!---->")
    written(folder, "a.bin", weights)
    return read_ir(written(folder, "a.xml", text))


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

    path = written(folder / "table", "factors.parquet", data)
    read_config(path.parent, kind="avatars")
    return read_table(path)


# What torch.save writes


def _torch_file(value: Any) -> bytes:
    import torch

    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def _parts(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _torch_files(folder: Path) -> list[bytes]:
    """Return a checkpoint of a training and weights of pythae, each as its pickle alone and as the whole archive."""
    import torch

    from latlas.models.adapters.pythae import PythaeDecoder, PythaeEncoder, PythaeNetwork

    progress = {"total": {"ready": 1, "completed": 1}, "current": {"ready": 1, "completed": 1}}
    checkpoint = {
        "epoch": 0,
        "global_step": 2,
        "pytorch-lightning_version": "2.6.4",
        "state_dict": {"vae.weight": torch.ones(2, 2)},
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": progress, "is_last_batch": True}},
        "callbacks": {"ModelCheckpoint": {"best_model_path": "last.ckpt", "kth_value": torch.zeros(())}},
        "optimizer_states": [
            {"state": {0: {"step": torch.ones(()), "exp_avg": torch.ones(2, 2)}}, "param_groups": [{"lr": 1e-3}]}
        ],
        "lr_schedulers": [{"base_lrs": [1e-3], "last_epoch": 2}],
        "latlas_history": [{"epoch": 1, "loss": 1.5, "kl": [0.5, 0.25]}],
    }
    torch.manual_seed(0)
    network = PythaeNetwork(PythaeEncoder((1, 2, 2), 2, variances=True), PythaeDecoder((1, 2, 2), 2))
    settings = {"name": "VAEConfig", "input_dim": [1, 2, 2], "latent_dim": 2}
    settings |= {"uses_default_encoder": True, "uses_default_decoder": True}
    (folder / "pythae").mkdir()
    (folder / "pythae" / "model_config.json").write_text(json.dumps(settings))
    (folder / "checkpoint").mkdir()
    files = {"checkpoint": _torch_file(checkpoint), "pythae": _torch_file({"model_state_dict": network.state_dict()})}
    found = []
    for name, content in files.items():
        (folder / name / "whole").write_bytes(content)
        pickled = next(part for path, part in _parts(content).items() if path.endswith("data.pkl"))
        found += [f"{name} pickle\n".encode() + pickled, f"{name} whole\n".encode() + content[:LONGEST]]
    return [data for data in found if len(data) < LONGEST]


def _load_torch_file(data: bytes, folder: Path) -> object:
    from latlas.models.adapters.pythae import load_pythae
    from latlas.training.checkpoints import read_checkpoint

    head, _, content = data.partition(b"\n")
    name, _, how = head.decode(errors="replace").partition(" ")
    if name not in ("checkpoint", "pythae"):
        return None
    if how == "pickle":
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            for path, part in _parts((folder / name / "whole").read_bytes()).items():
                archive.writestr(path, content if path.endswith("data.pkl") else part)
        content = stream.getvalue()
    if name == "checkpoint":
        return read_checkpoint(written(folder / name, "last.ckpt", content))
    written(folder / name, "model.pt", content)
    return load_pythae(str(folder / name))


# A network of diffusers


def _diffusers(folder: Path) -> list[bytes]:
    """Lay a small autoencoder down; return its config and its weights."""
    import torch
    from diffusers import AutoencoderTiny

    torch.manual_seed(0)
    place = folder / "model"
    # The quickest of them: to find the shapes of a model's codes takes more time than all that depends on the file.
    AutoencoderTiny(
        in_channels=1, out_channels=1, latent_channels=1, encoder_block_out_channels=(2,), decoder_block_out_channels=(2,),
        num_encoder_blocks=(1,), num_decoder_blocks=(1,),
    ).save_pretrained(place)  # fmt: skip
    return [
        f"{path.name}\n".encode() + path.read_bytes() for path in (place / "config.json", next(place.glob("*.safetensors")))
    ]


def _load_diffusers(data: bytes, folder: Path) -> object:
    from latlas.models.adapters.diffusers import load_diffusers

    found = named(data, folder / "model")
    if found is None:
        return None
    with exchanged(*found):
        return load_diffusers(f"{folder / 'model'}?size=4")


def _mutated_model(data: bytes, chance: random.Random) -> bytes:
    head, _, content = data.partition(b"\n")
    if head == b"config.json":
        return mutated_json(data, chance)
    return head + b"\n" + mutated_tensors(content, chance)


FILE_TARGETS = {
    "safetensors": Target(seeds=_safetensors, load=_load_safetensors, mutate=mutated_safetensors),
    "npy": Target(seeds=_arrays(".npy"), load=_load_array(".npy")),
    "npz": Target(seeds=_arrays(".npz"), load=_load_array(".npz"), mutate=mutated_archive),
    "pickles": Target(seeds=_pickles, load=_load_pickle),
    "torch-files": Target(seeds=_torch_files, load=_load_torch_file, mutate=behind_name(mutated), named=True),
    "idx": Target(seeds=_idx, load=_load_idx, mutate=mutated_zipped),
    "openvino": Target(seeds=_graphs, load=_load_graph),
    "tables": Target(seeds=_tables, load=_load_table),
    "diffusers": Target(seeds=_diffusers, load=_load_diffusers, mutate=_mutated_model, named=True),
}
