"""Nothing that a file holds is ever run: no module has a way to, and no loader does it when it is asked for by force."""

import ast
import builtins
import hashlib
import io
import json
import os
import pickle  # noqa: TID251
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from latlas.base.errors import LatlasError
from latlas.data.images import ImageSet
from latlas.data.loading import load_images, open_images
from latlas.encodings.encoding import Encoding
from latlas.maps.loading import load_map
from latlas.measurements.inception import InceptionFeatures
from latlas.models.architectures.dense import Dense
from latlas.models.loading import load_model
from latlas.samplers.fit import load_sampler
from latlas.supports.support_set import SupportSet
from latlas.training.runs import train_vae

SOURCE = Path(__file__).parents[2] / "src" / "latlas"

# Every way in the standard library, and in what latlas depends on, by which bytes become code.
MODULES = {
    "pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "jsonpickle", "imp", "runpy", "code",
    "codeop", "dbm", "pdb", "xmlrpc", "yaml", "msgpack", "h5py",
}  # fmt: skip
CALLS = {"eval", "exec", "compile", "__import__", "Unpickler", "read_pickle", "loads_pickle", "load_checkpoint", "hub_load"}
TORCH = {"load", "load_url", "load_state_dict_from_url", "jit.load", "package", "hub.load"}
METHODS = {"load_from_checkpoint", "unsafe_load", "full_load", "read_array", "read_pickle"}


def unsafe(tree: ast.AST) -> list[str]:
    """Return what in a module could run code that a file carries, whatever name it was imported under."""
    found: list[str] = []
    names: dict[str, str] = {}  # local name -> what it is
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {
                alias.asname or alias.name.split(".")[0]: alias.name if alias.asname else alias.name.split(".")[0]
                for alias in node.names
            }
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            found += [str(node.module)] if (node.module or "").split(".")[0] in MODULES else []
            found += [
                f"{node.module}.{alias.name}"
                for alias in node.names
                if f"{node.module}.{alias.name}" in ("torch.load", "numpy.load")
            ]
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        text = ast.unparse(node.func)
        head, _, rest = text.partition(".")
        name = f"{names.get(head, head)}.{rest}" if rest else names.get(head, head)
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if (
            given.get("allow_pickle", "False") != "False"
            or given.get("weights_only", "True") not in ("True", _RESUMING)
            or given.get("trust_remote_code", "False") != "False"
            or given.get("use_safetensors", "True") != "True"
        ):
            found.append(f"{name} with {given}")
        elif given.get("shell", "False") != "False" or name in ("os.system", "os.popen"):
            found.append(f"{name}: a shell")
        elif name in CALLS or (name.rpartition(".")[2] in METHODS and not name.startswith("latlas.")):
            found.append(name)
        elif name == "torch.load" and given.get("weights_only") != "True":
            found.append("torch.load without weights_only=True")
        elif name.startswith("torch.") and name.removeprefix("torch.") in TORCH - {"load"}:
            found.append(name)
        elif name == "numpy.load" and given.get("allow_pickle") != "False":
            found.append("numpy.load without allow_pickle=False")
        elif name.endswith("trainer.fit") and "ckpt_path" in given and "weights_only" not in given:
            found.append("fit from a checkpoint without weights_only")
        elif name.endswith("from_pretrained") and "local_files_only" in given and given.get("use_safetensors") != "True":
            found.append("weights of another program without use_safetensors=True")
    return found


_RESUMING = "True if resume_from is not None else None"  # Lightning asks for None where there is no checkpoint


def test_no_module_has_a_way_to_run_what_a_file_holds() -> None:
    found = {
        str(path.relative_to(SOURCE)): unsafe(ast.parse(path.read_text(encoding="utf-8"))) for path in SOURCE.rglob("*.py")
    }
    assert len(found) > 100
    assert {name: ways for name, ways in found.items() if ways} == {}


@pytest.mark.parametrize(
    "code",
    [
        "import pickle as p", "from marshal import loads", "import cloudpickle.cloudpickle", "import yaml", "eval('1')", "exec(x)",
        "compile(x, 'f', 'exec')", "__import__(name)", "import torch as t\nt.load(f)", "from torch import load as get\nget(f)",
        "torch.load(f, weights_only=False)", "torch.load(f, weights_only=flag)", "import numpy\nnumpy.load(f)",
        "import numpy as np\nnp.load(f, allow_pickle=maybe)", "from numpy import load\nload(f)", "torch.jit.load(f)", "torch.hub.load(r)",
        "self.trainer.fit(m, ckpt_path=p)", "kind.from_pretrained(p, local_files_only=True)", "load(p, trust_remote_code=True)",
        "np.lib.format.read_array(f)", "subprocess.run(c, shell=True)", "os.system(c)", "Model.load_from_checkpoint(p)",
    ],
)  # fmt: skip
def test_the_walk_sees_every_way(code: str) -> None:
    assert unsafe(ast.parse(code))


@pytest.mark.parametrize(
    "code",
    ["model.eval()", "json.loads(x)", "import torch\ntorch.load(f, map_location='cpu', weights_only=True)", "re.compile(x)"],
)
def test_the_walk_leaves_the_rest_alone(code: str) -> None:
    assert not unsafe(ast.parse(code))


def test_modules_are_imported_by_names_that_no_file_gives() -> None:
    """Two places import by name: the package its own parts, and the shell a function that the user names on its command line."""
    calls = [
        f"{path.relative_to(SOURCE)}: {ast.unparse(node)}"
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module")
    ]
    assert sorted(calls) == ["__init__.py: import_module(_DEFINED_IN[name])", "cli/mapping.py: importlib.import_module(module)"]


# At run time: pickles that leave a mark when they are run, in every file that a loader takes


class Calls:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def text(value: str) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value.encode()


def payloads(mark: Path) -> dict[str, bytes]:
    """Pickles that make a file when an unpickler that calls what it is told reads them."""
    touch, python = f"touch {mark}", f"open({str(mark)!r}, 'w').close()"
    inner = pickle.dumps(Calls(os.system, touch))
    by_attribute = b"\x80\x04" + text("os") + text("system") + b"\x93" + text(touch) + b"\x85R."
    return {
        "os.system": inner,
        "builtins.eval": pickle.dumps(Calls(builtins.eval, python)),
        "builtins.exec, protocol 0": pickle.dumps(Calls(builtins.exec, python), protocol=0),
        "a call of a call": pickle.dumps(Calls(pickle.loads, inner)),
        "by the stack": by_attribute,
        "within a dictionary": pickle.dumps({"model_state_dict": {"encoder.x": Calls(os.system, touch)}, "G_ema": 1}),
        "as torch's storage": pickle.dumps(Calls(torch.storage._load_from_bytes, _torch_bytes(Calls(os.system, touch)))),
        "in a list": pickle.dumps([1, Calls(os.system, touch)]),
    }


def _torch_bytes(value: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def test_the_payloads_do_run_where_they_are_let(tmp_path: Path) -> None:
    """Else the tests below would say nothing. In a process of its own: some of them want to be alone."""
    for number, kind in enumerate(payloads(tmp_path / "x")):
        if kind == "as torch's storage":
            continue  # torch obeys weights_only there, whose default has changed from version to version
        mark = tmp_path / str(number)
        (tmp_path / "payload").write_bytes(payloads(mark)[kind])
        code = f"import pickle; pickle.load(open({str(tmp_path / 'payload')!r}, 'rb'))"
        subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
        assert mark.exists(), kind


def _npy(content: bytes, *, shape: str = "(1, 2, 2)") -> bytes:
    """Return an .npy file of objects whose pickle is this."""
    head = f"{{'descr': '|O', 'fortran_order': False, 'shape': {shape}, }}".encode()
    head += b" " * ((64 - (10 + len(head) + 1) % 64) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + content


def _zip(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def _folder(place: Path, **files: bytes | str) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = place / name.replace("__", ".")
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return place


def artifact(place: Path, kind: str, file: str, payload: bytes) -> Path:
    """Return an artifact whose one data file is a pickle, and whose config vouches for it."""
    _folder(place)
    (place / file).write_bytes(payload)
    record = {
        "kind": kind,
        "format": 1,
        "files": {file: hashlib.sha256(payload).hexdigest()},
        "settings": {"architecture": {"name": "dense", "widths": [4], "latent": 2}, "image_shape": [1, 4, 4], "name": "x", "map": "affine",
                     "source": "a", "target": "b", "evidence": {}, "density": "prior", "latent_shape": [2], "model": "m", "images": "i",
                     "images_hash": "h", "rows": 1},
        "provenance": {"made_by": "x"},
    }  # fmt: skip
    (place / "config.json").write_text(json.dumps(record))
    return place


def doors(place: Path, payload: bytes) -> dict[str, Callable[[], object]]:
    """Every way in that takes a file from a stranger, with the pickle where it would be found."""
    as_torch = _zip({"archive/data.pkl": payload, "archive/version": b"3", "archive/byteorder": b"little"})
    pythae = {
        "model_config__json": json.dumps({"name": "VAEConfig", "input_dim": [1, 2, 2], "latent_dim": 2}),
        "environment__json": "{}",
    }
    own = {
        "model_config__json": json.dumps(
            {"name": "VAEConfig", "input_dim": [1, 2, 2], "latent_dim": 2, "uses_default_encoder": False}
        )
    }
    diffusers = {"config__json": json.dumps({"_class_name": "AutoencoderKL", "latent_channels": 4})}
    files = {"net.pkl": payload, "a.npy": _npy(payload), "raw.npy": payload, "a.npz": _zip({"images.npy": _npy(payload)}), "b.npz": payload,
             "p.tar": payload, "p.parquet": payload}  # fmt: skip
    for name, content in files.items():
        (place / name).write_bytes(content)
    weights = {name: place / name for name in files}
    pictures = _folder(place / "pictures", a__png=payload)
    return {
        "stylegan2": lambda: load_model(f"stylegan2:{weights['net.pkl']}"),
        "a model file": lambda: load_model(weights["net.pkl"]),
        "pythae": lambda: load_model(f"pythae:{_folder(place / 'pythae', model__pt=payload, **pythae)}"),
        "pythae, as torch's zip": lambda: load_model(f"pythae:{_folder(place / 'zip', model__pt=as_torch, **pythae)}"),
        "pythae, encoder": lambda: load_model(f"pythae:{_folder(place / 'own', model__pt=payload, encoder__pkl=payload, **own)}"),
        "diffusers, .bin": lambda: load_model(f"diffusers:{_folder(place / 'bin', diffusion_pytorch_model__bin=as_torch, **diffusers)}"),
        "diffusers, safetensors": lambda: load_model(
            f"diffusers:{_folder(place / 'safe', diffusion_pytorch_model__safetensors=payload, **diffusers)}"
        ),
        "a VAE": lambda: load_model(artifact(place / "vae", "vae", "model.safetensors", payload)),
        "a generator": lambda: load_model(artifact(place / "generator", "generator", "model.safetensors", payload)),
        "a map": lambda: load_map(artifact(place / "map", "linear-map", "map.safetensors", payload)),
        "a sampler": lambda: load_sampler(artifact(place / "sampler", "sampler", "sampler.safetensors", payload)),
        "an encoding": lambda: Encoding.from_pretrained(artifact(place / "encoding", "encoding", "mean.npy", _npy(payload, shape="(1, 2)"))),
        "a Support Set": lambda: SupportSet.from_pretrained(artifact(place / "support", "support-set", "support.safetensors", payload)),
        "a config": lambda: load_model(_folder(place / "config", config__json=payload)),
        "images .npy": lambda: load_images(weights["a.npy"]),
        "images .npy that is a pickle": lambda: load_images(weights["raw.npy"]),
        "images .npy, opened": lambda: open_images(weights["a.npy"]),
        "images .npz": lambda: load_images(weights["a.npz"]),
        "images .npz that is a pickle": lambda: open_images(weights["b.npz"]),
        "images .tar": lambda: load_images(weights["p.tar"]),
        "images .parquet": lambda: load_images(weights["p.parquet"]),
        "pictures": lambda: load_images(pictures),
    }  # fmt: skip


@pytest.mark.parametrize("payload", list(payloads(Path("x"))))
def test_no_door_runs_what_comes_through_it(payload: str, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    for name, enter in doors(tmp_path, payloads(mark)[payload]).items():
        with pytest.raises(LatlasError) as refusal:
            enter()
        assert str(refusal.value), name
        assert "\n" not in str(refusal.value), name
        assert not mark.exists(), name


def test_weights_for_measuring_are_not_run_either(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    for name, content in (("a.pth", payloads(mark)["os.system"]), ("b.pth", _torch_bytes(Calls(os.system, f"touch {mark}")))):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(LatlasError, match="read safely"):
            InceptionFeatures(tmp_path / name)
    assert not mark.exists()


def test_a_checkpoint_to_go_on_from_is_not_run(tmp_path: Path) -> None:
    """Somebody else may write to the folder beside the output. What is raised is the affair of those who write checkpoints."""

    class PowerCutError(Exception):
        pass

    def cut(task: str, done: int, total: int | None, note: str = "") -> None:
        if done > 40:
            raise PowerCutError

    def train(**settings: Any) -> object:
        images = ImageSet(
            name="noise",
            storage=torch.randint(0, 256, (32, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)),
        )
        fixed: dict[str, Any] = {"epochs": 3, "batch_size": 16, "device": "cpu", "seed": 1, "out": tmp_path / "model"}
        return train_vae(images, Dense(widths=(4,), latent=2), **fixed, **settings)

    with pytest.raises(PowerCutError):
        train(progress=cut)
    checkpoint = tmp_path / ".model.training" / "last.ckpt"
    assert checkpoint.is_file()
    mark = tmp_path / "mark"
    for content in (payloads(mark)["os.system"], _torch_bytes({"state_dict": Calls(os.system, f"touch {mark}")})):
        checkpoint.write_bytes(content)
        with pytest.raises((LatlasError, pickle.UnpicklingError, RuntimeError)):
            train()
        assert not mark.exists()
