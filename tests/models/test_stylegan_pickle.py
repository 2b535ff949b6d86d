"""Network pickles are read without running anything in them: well-formed ones to their weights, hostile ones to an error."""

import builtins
import io
import os
import pickle  # noqa: TID251
import struct
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from latlas.base.errors import ArtifactError, CapabilityError, MissingPathError
from latlas.models.adapters.stylegan2 import load_stylegan2, read_generator
from latlas.models.adapters.stylegan_networks import read_network_file
from latlas.models.adapters.stylegan_pickle import UnsafePickleError, read_pickle
from latlas.models.architectures.stylegan2 import StyleGAN2

# Writing the public format, by stand-ins of the modules that its writer imports

SOURCE = "raise SystemExit('the source of a class was executed')"


def _reconstruct_persistent_obj(meta: Any) -> None:
    raise AssertionError("a pickled class was rebuilt")


class EasyDict(dict):  # type: ignore[type-arg]
    """What the format keeps settings in."""


class Persistent:
    """A module that pickles itself as that format does: its state, the name and the source of its class."""

    def __init__(self, class_name: str, state: dict[str, Any]) -> None:
        self.class_name, self.state = class_name, state

    def __reduce__(self) -> tuple[Any, ...]:
        meta = {"type": "class", "version": 6, "module_src": SOURCE, "class_name": self.class_name, "state": self.state}
        return _reconstruct_persistent_obj, (meta,), None


@contextmanager
def public_names() -> Iterator[None]:
    """Let `pickle` write the two stand-ins under the names that they have there."""
    modules = {name: ModuleType(name) for name in ("torch_utils", "torch_utils.persistence", "dnnlib", "dnnlib.util")}
    before = {name: sys.modules.get(name) for name in modules}
    homes = (_reconstruct_persistent_obj.__module__, EasyDict.__module__)
    modules["torch_utils.persistence"]._reconstruct_persistent_obj = _reconstruct_persistent_obj  # type: ignore[attr-defined]
    modules["dnnlib.util"].EasyDict = EasyDict  # type: ignore[attr-defined]
    sys.modules.update(modules)
    _reconstruct_persistent_obj.__module__, EasyDict.__module__ = "torch_utils.persistence", "dnnlib.util"
    try:
        yield
    finally:
        _reconstruct_persistent_obj.__module__, EasyDict.__module__ = homes
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def persistent(module: nn.Module, class_name: str, *, kwargs: dict[str, Any] | None = None, **attributes: Any) -> Persistent:
    """Return a module, and all within it, as that format has them."""
    state: dict[str, Any] = {
        "training": False,
        "_parameters": OrderedDict(module._parameters),
        "_buffers": OrderedDict(module._buffers),
        "_non_persistent_buffers_set": set(),
        "_backward_hooks": OrderedDict(),
        "_modules": OrderedDict(
            (name, persistent(child, type(child).__name__)) for name, child in module._modules.items() if child
        ),
        "act_gain": np.sqrt(2),
        "activation": "lrelu",
        "shape": np.asarray([3, 4]),
        "_init_args": (),
        "_init_kwargs": EasyDict(kwargs or {}),
        **attributes,
    }
    return Persistent(class_name, state)


def dumped(value: Any, *, protocol: int = 4) -> bytes:
    """Return a pickle."""
    with public_names():
        return pickle.dumps(value, protocol=protocol)


# Well-formed files

SMALL = StyleGAN2(latent=6, style=5, layers=2, channel_base=64, channel_max=8)
SETTINGS = {
    "c_dim": 0,
    "z_dim": 6,
    "w_dim": 5,
    "img_resolution": 16,
    "img_channels": 3,
    "mapping_kwargs": EasyDict(num_layers=2),
    "synthesis_kwargs": EasyDict(channel_base=64, channel_max=8, num_fp16_res=4, conv_clamp=256),
}


def network(settings: StyleGAN2 = SMALL) -> nn.Module:
    torch.manual_seed(3)
    return settings.generator((3, 16, 16))


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def network_file(path: Path, module: nn.Module, *, protocol: int = 4, **kwargs: Any) -> Path:
    value = {
        "G": None,
        "D": None,
        "G_ema": persistent(module, "Generator", kwargs={**SETTINGS, **kwargs}),
        "augment_pipe": None,
    }
    return written(path, dumped({**value, "training_set_kwargs": EasyDict(path="x")}, protocol=protocol))


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_weights_and_arguments_come_out_as_they_went_in(protocol: int, tmp_path: Path) -> None:
    """The standard library's pickle and torch wrote the file; SOURCE, the code of each class, would end the program."""
    module = network()
    stored = read_network_file(network_file(tmp_path / "a.pkl", module, protocol=protocol)).network("G_ema")
    assert SOURCE.encode() in (tmp_path / "a.pkl").read_bytes()
    assert stored.class_name == "Generator"
    assert stored.family == "stylegan2"
    assert stored.settings == {
        **SETTINGS,
        "mapping_kwargs": {"num_layers": 2},
        "synthesis_kwargs": dict(SETTINGS["synthesis_kwargs"]),
    }  # type: ignore[call-overload]
    expected = module.state_dict()
    assert sorted(stored.weights) == sorted(expected)
    assert all(stored.weights[name].equal(tensor) for name, tensor in expected.items())
    assert stored.attributes["synthesis.b8.conv0.act_gain"] == np.sqrt(2)


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.int32, torch.bool, torch.uint8]
)
def test_tensors_of_every_kind_come_out(dtype: torch.dtype, tmp_path: Path) -> None:
    """Among them views: transposed, with an offset, of no elements, of none but one."""
    whole = torch.arange(24).reshape(4, 6).to(dtype)
    module = nn.Module()
    views = {"whole": whole, "turned": whole.T, "part": whole[1:3, ::2], "empty": whole[:0], "one": whole[2, 3]}
    for name, tensor in views.items():
        module.register_buffer(name, tensor)
    path = written(tmp_path / "a.pkl", dumped({"G_ema": persistent(module, "Generator")}))
    found = read_network_file(path).network().weights
    assert all(found[name].equal(tensor) and found[name].dtype == dtype for name, tensor in views.items())


def test_the_network_draws_what_it_drew(tmp_path: Path) -> None:
    module = network()
    module.mapping.w_avg.normal_()  # type: ignore[operator, union-attr]
    path = network_file(tmp_path / "net.pkl", module)
    model = load_stylegan2(f"{path}#w")
    codes = torch.randn(4, 5, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = module.draw(module.spread(codes)).clamp(0, 1)  # type: ignore[operator]
        assert model.decode(codes).equal(expected)
    assert model.latent_shape == (5,)
    assert model.image_shape == (3, 16, 16)
    assert model.network.synthesis.b16.conv1.clamp == 256
    again = read_generator(path)
    again.save_pretrained(tmp_path / "folder")
    with torch.no_grad():
        assert load_stylegan2(f"{tmp_path / 'folder'}#w").decode(codes).equal(expected)


@pytest.mark.parametrize("structure", ["orig", "resnet"])
def test_the_structure_is_read_from_the_arguments(structure: str, tmp_path: Path) -> None:
    module = network(StyleGAN2(latent=6, style=5, layers=2, channel_base=64, channel_max=8, structure=structure))
    settings = {"channel_base": 64, "channel_max": 8, "architecture": structure}
    model = read_generator(network_file(tmp_path / "net.pkl", module, synthesis_kwargs=settings))
    codes = torch.randn(2, 6, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert model.decode(codes).equal(module(codes))


def test_settings_of_the_synthesis_may_stand_beside_the_others(tmp_path: Path) -> None:
    """As StyleGAN3's copy of StyleGAN2 has them."""
    module = network()
    kwargs = {key: value for key, value in SETTINGS.items() if key != "synthesis_kwargs"}
    record = persistent(module, "Generator", kwargs={**kwargs, "channel_base": 64, "channel_max": 8})
    path = written(tmp_path / "net.pkl", dumped({"G_ema": record}))
    assert read_generator(path).network.state_dict().keys() == module.state_dict().keys()


def test_stylegan3_is_read_and_not_drawn(tmp_path: Path) -> None:
    module = nn.Module()
    module.synthesis = nn.Module()
    module.synthesis.input = nn.Module()
    module.synthesis.input.register_buffer("freqs", torch.ones(4, 2))
    path = written(tmp_path / "net.pkl", dumped({"G_ema": persistent(module, "Generator", kwargs=SETTINGS)}))
    stored = read_network_file(path).network()
    assert stored.family == "stylegan3"
    assert stored.weights["synthesis.input.freqs"].equal(torch.ones(4, 2))
    with pytest.raises(CapabilityError, match="StyleGAN3, whose synthesis is not implemented"):
        load_stylegan2(str(path))


# Hostile files. Each would make a file named `sentinel` if anything in it ran.


class Calls:
    """Pickles as a call of something."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def short(text: str) -> bytes:
    return b"\x8c" + bytes([len(text)]) + text.encode()


def stacked(module: str, name: str) -> bytes:
    return short(module) + short(name) + b"\x93"


def hostile(sentinel: str) -> dict[str, tuple[bytes, str]]:
    """Pickles, and the name that the refusal must tell."""
    touch = f"touch {sentinel}"
    python = f"open({sentinel!r}, 'w').close()"
    text = short(touch)
    allowed = b"ccollections\nOrderedDict\n"
    nested = pickle.dumps(Calls(os.system, touch))
    source = Persistent("Generator", {"_init_kwargs": Calls(os.system, touch)})
    jit = b"ctorch.jit\nload\n" + short(sentinel) + b"\x85R."
    return {
        "os.system": (pickle.dumps(Calls(os.system, touch)), "posix.system"),
        "builtins.eval": (pickle.dumps(Calls(builtins.eval, python)), "builtins.eval"),
        "builtins.exec": (pickle.dumps(Calls(builtins.exec, python)), "builtins.exec"),
        "protocol 0": (pickle.dumps(Calls(os.system, touch), protocol=0), "posix.system"),
        "within a network": (dumped({"G_ema": source}), "posix.system"),
        "subprocess": (b"csubprocess\nPopen\n" + text + b"\x85R.", "subprocess.Popen"),
        "code object": (b"ctypes\nCodeType\n(t\x52.", "types.CodeType"),
        "torch.jit": (jit, "torch.jit.load"),
        "torch.load": (b"ctorch\nload\n" + short(sentinel) + b"\x85R.", "torch.load"),
        "torch's own executor": (b"ctorch.utils._config_module\nconfig\n.", "torch.utils._config_module.config"),
        "nested": (b"cpickle\nloads\n" + b"C" + bytes([len(nested)]) + nested + b"\x85R.", "pickle.loads"),
        "getattr": (b"cbuiltins\ngetattr\n" + allowed + short("fromkeys") + b"\x86R.", "builtins.getattr"),
        "dotted name": (
            b"\x80\x04" + stacked("collections", "OrderedDict.__init__.__globals__") + b".",
            "OrderedDict.__init__.__globals__",
        ),
        "module of ours": (b"\x80\x04" + stacked("latlas.base.artifacts", "shutil.rmtree") + b".", "shutil.rmtree"),
        "STACK_GLOBAL": (b"\x80\x04" + stacked("os", "system") + text + b"\x85R.", "os.system"),
        "STACK_GLOBAL from the memo": (
            b"\x80\x04" + short("os") + b"\x940" + short("system") + b"\x940h\x00h\x01\x93" + text + b"\x85R.",
            "os.system",
        ),
        "STACK_GLOBAL of a computed name": (b"\x80\x04" + short("os") + allowed + b")R\x93.", "computes the name"),
        "INST": (b"(" + text + b"ios\nsystem\n.", "os.system"),
        "INST of an allowed name": (b"(icollections\nOrderedDict\n.", "INST"),
        "OBJ": (b"(cos\nsystem\n" + text + b"o.", "os.system"),
        "OBJ of an allowed name": (b"(" + allowed + b"o.", "OBJ"),
        "NEWOBJ": (b"\x80\x02cbuiltins\ntype\n)\x81.", "builtins.type"),
        "NEWOBJ_EX": (b"\x80\x04" + allowed + b")}\x92.", "NEWOBJ_EX"),
        "EXT1": (b"\x80\x02\x82\x01.", "EXT1"),
        "EXT4": (b"\x80\x02\x84\x01\x00\x00\x00.", "EXT4"),
        "persistent id": (b"Pos.system\n.", "PERSID"),
        "binary persistent id": (short("os.system") + b"Q.", "BINPERSID"),
        "out-of-band buffer": (b"\x80\x05\x97.", "NEXT_BUFFER"),
        "BUILD on a global": (allowed + b"}" + short("__setstate__") + b"cos\nsystem\nsb.", "os.system"),
        "BUILD on an allowed global": (
            allowed + b"}" + short("__call__") + short("x") + b"sb.",
            "sets the state of collections.OrderedDict",
        ),
        "BUILD on a dictionary": (b"}N}" + short("items") + short("x") + b"s\x86b.", "sets the state of dict"),
        "BUILD twice": (allowed + b")R}b}b.", "sets the state of Record"),
        "REDUCE of a result": (allowed + b")R)R.", "calls what is no global"),
        "REDUCE of a text": (text + b")R.", "calls what is no global"),
        "TensorFlow": (b"cdnnlib.tflib.network\nNetwork\n.", "written by TensorFlow"),
    }


@pytest.mark.parametrize("kind", list(hostile("x")))
def test_hostile_pickles_are_refused_by_name_and_never_run(kind: str, tmp_path: Path) -> None:
    sentinel = tmp_path / "sentinel"
    content, named = hostile(str(sentinel))[kind]
    path = written(tmp_path / "net.pkl", content)
    with pytest.raises(UnsafePickleError) as refusal:
        load_stylegan2(str(path))
    assert named in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert not sentinel.exists()


def test_a_hostile_pickle_would_have_run(tmp_path: Path) -> None:
    """That the sentinel tells: the usual loader makes it."""
    sentinel = tmp_path / "sentinel"
    pickle.loads(hostile(str(sentinel))["STACK_GLOBAL from the memo"][0])
    assert sentinel.exists()


def test_a_hostile_storage_is_refused(tmp_path: Path) -> None:
    """The bytes of a storage are a pickle of their own."""
    sentinel = tmp_path / "sentinel"
    for inner in (pickle.dumps(Calls(os.system, f"touch {sentinel}")), storage_bytes(kind=b"cos\nsystem\n")):
        path = written(tmp_path / "net.pkl", with_storage(inner))
        with pytest.raises(UnsafePickleError, match=r"system"):
            read_network_file(path).network()
    assert not sentinel.exists()


# Damaged and dishonest files


def storage_bytes(
    numbers: bytes = b"\0" * 16,
    *,
    kind: bytes = b"ctorch\nFloatStorage\n",
    count: int = 4,
    stated: int = 4,
    magic: int = 0x1950A86A20F9469CFC6C,
) -> bytes:
    """A storage as torch.save wrote it before 2020, by hand."""
    key = short("1")
    described = b"(" + short("storage") + kind + key + short("cpu") + b"J" + struct.pack("<i", count) + b"NtQ."
    head = b"".join(pickle.dumps(each, protocol=2) for each in (magic, 1001, {"little_endian": True}))
    return head + b"\x80\x02" + described + b"\x80\x02](" + key + b"e." + struct.pack("<q", stated) + numbers


def with_storage(content: bytes, *, offset: int = 0, size: tuple[int, ...] = (4,), stride: tuple[int, ...] = (1,)) -> bytes:
    """A network of one weight, whose tensor is put together as torch would, of a storage of these bytes."""

    class Storage:
        def __reduce__(self) -> tuple[Any, ...]:
            return torch.storage._load_from_bytes, (content,)  # type: ignore[attr-defined]

    class Tensor:
        def __reduce__(self) -> tuple[Any, ...]:
            return torch._utils._rebuild_tensor_v2, (Storage(), offset, size, stride, False, OrderedDict())

    return dumped({"G_ema": Persistent("Generator", {"_parameters": {"weight": Tensor()}})})


def test_a_storage_made_by_hand_is_read(tmp_path: Path) -> None:
    """So that what the next test refuses is refused for the one thing that it changes."""
    numbers = np.arange(4, dtype="<f4").tobytes()
    path = written(tmp_path / "net.pkl", with_storage(storage_bytes(numbers)))
    assert read_network_file(path).network().weights["weight"].tolist() == [0, 1, 2, 3]


def zip_bomb() -> bytes:
    """As torch.save writes now: a zip file, here one that unpacks to a thousand times its size."""
    stream = io.BytesIO()
    with (
        zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as bomb,
        bomb.open("archive/data/0", "w", force_zip64=True) as entry,
    ):
        for _ in range(64):
            entry.write(bytes(2**20))
    return stream.getvalue()


DISHONEST: dict[str, tuple[Callable[[], bytes], str]] = {
    "more numbers than bytes": (lambda: with_storage(storage_bytes(count=2**30, stated=2**30)), "says it has 1,073,741,824"),
    "fewer numbers than bytes": (lambda: with_storage(storage_bytes(count=1, stated=1)), "16 bytes that says it has 1 "),
    "a negative count": (lambda: with_storage(storage_bytes(count=-4, stated=-4)), "says it has -4"),
    "two counts": (lambda: with_storage(storage_bytes(count=4, stated=5)), "says it has 4"),
    "another magic number": (lambda: with_storage(storage_bytes(magic=5)), "torch did not write"),
    "a zip file": (lambda: with_storage(zip_bomb()), "a storage is a zip file"),
    "a shape beyond the storage": (lambda: with_storage(storage_bytes(), size=(5,)), "shape 5 in a storage of 4"),
    "an offset beyond it": (lambda: with_storage(storage_bytes(), offset=1), "shape 4 in a storage of 4"),
    "a stride beyond it": (lambda: with_storage(storage_bytes(), size=(2,), stride=(4,)), "shape 2 in a storage of 4"),
    "a negative offset": (lambda: with_storage(storage_bytes(), offset=-1), "no shape"),
    "a negative stride": (lambda: with_storage(storage_bytes(), stride=(-1,)), "no shape"),
    "a stride of nothing": (lambda: with_storage(storage_bytes(), size=(2**20, 2**15), stride=(0, 0)), "in a storage of 4"),
    "no tensor": (lambda: dumped({"G_ema": Persistent("Generator", {"_parameters": {"weight": 3}})}), "a weight is no tensor"),
    "a module that is none": (
        lambda: dumped({"G_ema": Persistent("Generator", {"_modules": {"a": 3}})}),
        "a int where a module",
    ),
    "arguments that are none": (lambda: dumped({"G_ema": Persistent("Generator", {"_init_kwargs": 5})}), "no arguments"),
}


@pytest.mark.parametrize("kind", list(DISHONEST))
def test_files_that_lie_about_themselves_are_refused(kind: str, tmp_path: Path) -> None:
    make, words = DISHONEST[kind]
    path = written(tmp_path / "net.pkl", make())
    with pytest.raises(ArtifactError, match=words):
        read_network_file(path).network()


def test_modules_too_deep_to_follow_end(tmp_path: Path) -> None:
    deep: Any = Persistent("Generator", {})
    for _ in range(40):
        deep = Persistent("Generator", {"_modules": {"a": deep}})
    path = written(tmp_path / "net.pkl", dumped({"G_ema": deep}))
    with pytest.raises(ArtifactError, match="24 deep"):
        read_network_file(path).network()


def test_modules_that_multiply_end(tmp_path: Path) -> None:
    """Each holds the one below it twice: 20 of them are a million."""
    below: Any = Persistent("Generator", {})
    for _ in range(20):
        below = Persistent("Generator", {"_modules": {"a": below, "b": below}})
    path = written(tmp_path / "net.pkl", dumped({"G_ema": below}))
    with pytest.raises(ArtifactError, match="more than 20,000 modules"):
        read_network_file(path).network()


def test_weights_that_multiply_end(tmp_path: Path) -> None:
    """One storage under a thousand names would be a thousand copies of it; under a few, as tied weights are, it may be."""
    numbers = torch.randn(5_000)
    for count, allowed in ((3, True), (1_000, False)):
        module = Persistent("Generator", {"_buffers": {f"weight{i}": numbers for i in range(count)}, "_init_kwargs": {}})
        path = written(tmp_path / "net.pkl", dumped({"G_ema": module}))
        if allowed:
            assert len(read_network_file(path).network().weights) == count
        else:
            with pytest.raises(ArtifactError, match="over and over"):
                read_network_file(path).network()


def test_arguments_that_multiply_end(tmp_path: Path) -> None:
    below: Any = ["x"] * 10
    for _ in range(6):
        below = [below] * 10
    path = written(tmp_path / "net.pkl", dumped({"G_ema": Persistent("Generator", {"_init_kwargs": {"a": below}})}))
    with pytest.raises(ArtifactError, match="too many"):
        read_network_file(path).network()


def test_every_truncation_is_told(tmp_path: Path) -> None:
    content = network_file(tmp_path / "net.pkl", network()).read_bytes()
    for length in [0, 1, 2, 10, *range(50, len(content), len(content) // 40), len(content) - 1]:
        with pytest.raises(ArtifactError):
            read_network_file(written(tmp_path / "cut.pkl", content[:length]))


def test_every_flipped_byte_is_told_or_harmless(tmp_path: Path) -> None:
    """No flip may end in anything but a network or a message for users."""
    content = bytearray(network_file(tmp_path / "net.pkl", network()).read_bytes())
    places = np.random.RandomState(0).randint(len(content), size=40).tolist() + list(range(0, 200, 5))
    for place in places:
        flipped = bytearray(content)
        flipped[place] ^= 0x55
        told = ""
        try:
            read_generator(written(tmp_path / "flipped.pkl", bytes(flipped)))
        except (ArtifactError, CapabilityError) as failure:
            told = str(failure)
        assert "\n" not in told


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no whole pickle|not a whole pickle"),
        (b"GIF89a and so on", "not a whole pickle"),
        (pickle.dumps([1, 2]), "a list where a dictionary should be"),
        (pickle.dumps({"G_ema": 3}), "holds no networks"),
        (pickle.dumps({}) + b"more", "more follows"),
        (b"PK\x03\x04", "torch.save"),
        (b"(((.", "not a whole pickle"),
        (b"NN.", "values are left"),
        (b"]]a", "not a whole pickle"),
        (b"h\x05.", "not a whole pickle"),
        (b"r\xff\xff\xff\xff.", "not a whole pickle"),
        (b"}(N\x85Nu.", "a tuple as a key"),
        (b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.", "not a whole pickle"),
        (b"I" + b"9" * 5000 + b"\n.", "not a whole pickle"),
    ],
)
def test_other_files_are_told(content: bytes, words: str, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=words):
        read_network_file(written(tmp_path / "net.pkl", content))


def test_a_missing_file_and_a_missing_network_are_told(tmp_path: Path) -> None:
    with pytest.raises(MissingPathError, match=r"network\.pkl"):
        read_network_file(tmp_path / "none.pkl")
    with pytest.raises(ArtifactError, match="holds no network G_ema; it has D"):
        read_network_file(written(tmp_path / "net.pkl", dumped({"D": Persistent("D", {})}))).network()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"img_resolution": 2**40}, "makes no StyleGAN2"),
        ({"img_resolution": 32}, "do not fit"),
        ({"img_resolution": "x"}, "makes no StyleGAN2"),
        ({"w_dim": 6}, "do not fit"),
        ({"mapping_kwargs": {"num_layers": 10**9}}, "makes no StyleGAN2"),
        ({"mapping_kwargs": {"num_layers": 3}}, "do not fit"),
        ({"mapping_kwargs": 7}, "make no StyleGAN2"),
        ({"synthesis_kwargs": {"channel_base": 2**20, "channel_max": 2**18}}, "do not fit"),
        ({"synthesis_kwargs": {"channel_base": 8, "channel_max": 8}}, "make no StyleGAN2"),
        ({"img_resolution": 12}, "power of two"),
        ({"synthesis_kwargs": {"resample_filter": ["x"]}}, "make no StyleGAN2"),
        ({"z_dim": None}, "its z_dim is a NoneType"),
        ({"synthesis_kwargs": {"architecture": "steep"}}, "steep"),
    ],
)
def test_arguments_that_do_not_fit_the_weights_are_told(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    path = network_file(tmp_path / "net.pkl", network(), **change)
    with pytest.raises(ArtifactError, match=words):
        read_generator(path)


def test_another_activation_is_told(tmp_path: Path) -> None:
    record = persistent(network(), "Generator", kwargs={**SETTINGS, "mapping_kwargs": {"activation": "swish", "num_layers": 2}})
    with pytest.raises(CapabilityError, match="swish; only lrelu"):
        read_generator(written(tmp_path / "net.pkl", dumped({"G_ema": record})))


def test_a_discriminator_is_no_generator(tmp_path: Path) -> None:
    record = persistent(SMALL.discriminator((3, 16, 16)), "Discriminator", kwargs=SETTINGS)
    with pytest.raises(CapabilityError, match="Discriminator, which is no generator"):
        load_stylegan2(str(written(tmp_path / "net.pkl", dumped({"G_ema": record}))))


def test_plain_values_come_out_as_pickle_has_them() -> None:
    """Against the standard library, on what needs no global."""
    value = {
        "a": [1, -2, 2**40, 2**80, 0.5, None, True, "text", b"bytes", (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
        "b": {1, 2},
        3: {},
    }
    shared: list[Any] = []
    value["c"] = [shared, shared, "x" * 300, b"y" * 300, frozenset({5})]
    for protocol in (4, 5):
        assert read_pickle(pickle.dumps(value, protocol=protocol)) == value
    del value["b"], value["c"][-1]
    value["a"].remove(b"bytes")  # type: ignore[attr-defined]
    value["c"].remove(b"y" * 300)
    for protocol in range(4):
        assert read_pickle(pickle.dumps(value, protocol=protocol)) == value
