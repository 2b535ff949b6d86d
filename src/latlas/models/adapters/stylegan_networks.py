"""From the records of a StyleGAN network pickle to weights and constructor arguments; tensors are decoded when asked for."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latlas.base.errors import ArtifactError, MissingPathError
from latlas.models.adapters.stylegan_pickle import (
    EASY,
    ORDERED,
    PARAMETER,
    PERSISTENT,
    STORAGE,
    TENSOR,
    PickleMachine,
    Record,
    read_pickle,
)

_STORAGES = {
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.DoubleStorage": torch.float64,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.BoolStorage": torch.bool,
    "torch.ByteStorage": torch.uint8,
}
_MAGIC, _PROTOCOL = (
    0x1950A86A20F9469CFC6C,
    1001,
)  # with which files of torch.save from before 2020, and storages in pickles, begin
_NUMBERS = {"f4", "f8", "i4", "i8", "u1", "b1"}  # NumPy's codes of the scalars that are read

_DEEPEST = 24  # modules within modules
_MOST_OF_FILE = 4  # a network's weights may be so many times the file: they share storages, but hardly ever
_MOST_MODULES = 20_000
_DEEPEST_PLAIN = 8  # containers within containers, of arguments
_MOST_PLAIN = 10_000  # values of arguments
_LONGEST = 60  # of a text of the file in an error


@dataclass(frozen=True, kw_only=True)
class StoredNetwork:
    """One network of a file."""

    class_name: str  # as its source has it: "Generator", of StyleGAN2 and StyleGAN3 alike
    arguments: tuple[Any, ...]  # that its constructor got by position,
    settings: dict[str, Any]  # and by name: numbers, texts, lists and dictionaries
    weights: dict[str, Tensor]  # parameters and buffers, by the names of `state_dict`
    attributes: dict[str, Any] = field(
        default_factory=dict
    )  # numbers and texts that modules keep, as "synthesis.b4.architecture"

    @property
    def family(self) -> str:
        """Return "stylegan2", "stylegan3", or "other", by the names of the weights."""
        if any(name.startswith("synthesis.input.") for name in self.weights):
            return "stylegan3"
        return "stylegan2" if "synthesis.b4.const" in self.weights else "other"


@dataclass(frozen=True, kw_only=True)
class NetworkFile:
    """A network pickle, read and not yet decoded."""

    path: Path
    records: dict[str, Record]
    size: int  # bytes of the file

    @property
    def names(self) -> list[str]:
        """The networks in it, as "G", "D" and "G_ema"."""
        return list(self.records)

    def network(self, name: str = "G_ema") -> StoredNetwork:
        """Return one of them.

        Raises:
            ArtifactError: there is no such network, or it is damaged.
        """
        if name not in self.records:
            raise ArtifactError(f"{self.path} holds no network {name}; it has {', '.join(map(printable, self.records))}.")
        try:
            return _network(self.records[name], limit=_MOST_OF_FILE * self.size)
        except ArtifactError as failure:
            raise type(failure)(f"{name} of {self.path} cannot be read: {failure}") from failure


def read_network_file(path: str | Path) -> NetworkFile:
    """Read a `.pkl` in the format of StyleGAN2-ADA (PyTorch) and StyleGAN3, and run nothing of what it holds.

    Raises:
        MissingPathError: no such file.
        UnsafePickleError: it names a global that no network file needs; the message names it.
        ArtifactError: it is no such file, or is damaged.
    """
    file = Path(path)
    if not file.is_file():
        raise MissingPathError(f"No file {path}: expected a network of StyleGAN2-ADA or StyleGAN3, as network.pkl.")
    content = file.read_bytes()
    if content[:2] == b"PK":
        raise ArtifactError(f"{path} was written by torch.save and is no StyleGAN pickle: expected the .pkl with G_ema in it.")
    try:
        value = read_pickle(content)
        entries = _mapping(value)
    except ArtifactError as failure:
        raise type(failure)(f"{path} cannot be read: {failure}") from failure
    networks = {str(name): each for name, each in entries.items() if isinstance(each, Record) and each.name == PERSISTENT}
    if not networks:
        raise ArtifactError(f"{path} holds no networks: expected a dictionary with G, D and G_ema.")
    return NetworkFile(path=file, records=networks, size=len(content))


def _network(record: Record, *, limit: int) -> StoredNetwork:
    meta = _meta(record)
    state = _mapping(meta["state"])
    weights: dict[str, Tensor] = {}
    attributes: dict[str, Any] = {}
    for count, (prefix, module) in enumerate(_modules("", record, 0)):
        if count >= _MOST_MODULES:
            raise _damaged(f"more than {_MOST_MODULES:,} modules")
        for kind in ("_parameters", "_buffers"):
            for name, stored in _mapping(module.get(kind, {})).items():
                if stored is not None:
                    weights[f"{prefix}{name}"] = tensor = _tensor(stored)
                    limit -= tensor.nbytes
                    if limit < 0:
                        raise _damaged("the same numbers named as weights over and over")
        for name, value in module.items():
            if isinstance(value, Record) and value.name.endswith("multiarray.scalar"):
                value = _number(value)
            if isinstance(value, bool | int | float | str) and len(str(name)) < 100:
                attributes[f"{prefix}{name}"] = value
    budget = [_MOST_PLAIN]
    arguments = _plain(state.get("_init_args", ()), budget, 0)
    settings = _plain(state.get("_init_kwargs", {}), budget, 0)
    if not isinstance(arguments, list) or not isinstance(settings, dict):
        raise _damaged("its constructor's arguments are no arguments")
    return StoredNetwork(
        class_name=printable(meta["class_name"]),
        arguments=tuple(arguments),
        settings=settings,
        weights=weights,
        attributes=attributes,
    )


def _meta(record: Record) -> Mapping[Any, Any]:
    """Return what a persistent object says of itself: everything but its source."""
    if record.name != PERSISTENT or len(record.arguments) != 1:
        raise _damaged(f"a module is a {record.name}")
    meta = _mapping(record.arguments[0])
    if meta.get("type") != "class" or not isinstance(meta.get("class_name"), str) or "state" not in meta:
        raise _damaged("a module has no class or no state")
    return meta


def _modules(prefix: str, record: Any, depth: int) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    if not isinstance(record, Record):
        raise _damaged(f"a {type(record).__name__} where a module should be")
    if depth > _DEEPEST:
        raise _damaged(f"modules lie more than {_DEEPEST} deep")
    state = _mapping(_meta(record)["state"])
    yield prefix, state
    for name, child in _mapping(state.get("_modules", {})).items():
        if child is not None:
            yield from _modules(f"{prefix}{name}.", child, depth + 1)


def _mapping(value: Any) -> Mapping[Any, Any]:
    """Return a dictionary, whichever kind was pickled."""
    if isinstance(value, Record) and value.name in (ORDERED, EASY) and not value.arguments and value.state in (None, {}):
        return value.items
    if isinstance(value, dict):
        return value
    raise _damaged(f"a {type(value).__name__} where a dictionary should be")


def _tensor(value: Any) -> Tensor:
    if isinstance(value, Record) and value.name == PARAMETER and value.arguments:
        value = value.arguments[0]
    if not isinstance(value, Record) or value.name != TENSOR or len(value.arguments) < 4:
        raise _damaged("a weight is no tensor")
    storage, offset, size, stride = value.arguments[:4]
    flat = _storage(storage)
    counts = [offset]
    for numbers in (size, stride):
        if not isinstance(numbers, tuple) or len(numbers) > 8:
            raise _damaged("a tensor has no shape")
        counts += numbers
    if not all(type(number) is int and 0 <= number < 2**40 for number in counts) or len(size) != len(stride):
        raise _damaged("a tensor has no shape")
    last = offset + sum((each - 1) * step for each, step in zip(size, stride, strict=True))
    # A stride of 0 would make a tensor of any size out of one number.
    if math.prod(size) > len(flat) - offset or (math.prod(size) and last >= len(flat)):
        raise _damaged(f"a tensor of shape {'x'.join(map(str, size))} in a storage of {len(flat)} numbers")
    return flat.as_strided(size, stride, offset).clone()


def _storage(value: Any) -> Tensor:
    """Return the numbers of a storage: five small pickles, the count, and the numbers themselves to the end."""
    if not isinstance(value, Record) or value.name != STORAGE or len(value.arguments) != 1:
        raise _damaged("a tensor has no storage")
    (content,) = value.arguments
    if not isinstance(content, bytes):
        raise _damaged("a storage without content")
    if content[:2] == b"PK":
        raise _damaged("a storage is a zip file, which no network file has")
    stream = BytesIO(content)
    names = frozenset(_STORAGES)

    def described(identity: Any) -> Record:
        return Record("storage", (identity,))

    magic, protocol, system, storage, keys = (PickleMachine(stream, names=names, persistent=described).run() for _ in range(5))
    if (magic, protocol) != (_MAGIC, _PROTOCOL) or not isinstance(system, dict) or system.get("little_endian") is not True:
        raise _damaged("a storage that torch did not write, or not on a little-endian machine")
    identity = storage.arguments[0] if isinstance(storage, Record) and storage.name == "storage" else None
    if not isinstance(identity, tuple) or len(identity) not in (5, 6) or identity[0] != "storage" or any(identity[5:]):
        raise _damaged("a storage that describes itself in another way")
    kind, key, count = identity[1], identity[2], identity[4]
    # Values of a stranger's pickle are never compared or hashed before their types are known: nested ones take for ever.
    plain = type(key) is str and type(keys) is list and len(keys) == 1 and type(keys[0]) is str
    if not plain or keys != [key] or getattr(kind, "text", None) not in _STORAGES or type(count) is not int:
        raise _damaged("a storage that describes itself in another way")
    dtype = _STORAGES[kind.text]
    numbers = content[stream.tell() + 8 :]
    stated = int.from_bytes(content[stream.tell() : stream.tell() + 8], "little", signed=True)
    if stated != count or count * dtype.itemsize != len(numbers):
        raise _damaged(f"a storage of {len(numbers):,} bytes that says it has {count:,} numbers of {dtype.itemsize}")
    return torch.frombuffer(bytearray(numbers), dtype=dtype) if count else torch.empty(0, dtype=dtype)


def _plain(value: Any, budget: list[int], depth: int) -> Any:
    """Return an argument as numbers, texts, lists and dictionaries; a text for what is none of them."""
    budget[0] -= 1
    if budget[0] < 0 or depth > _DEEPEST_PLAIN:
        raise _damaged("its constructor's arguments are too many")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(each, budget, depth + 1) for each in value]
    if isinstance(value, dict) or (isinstance(value, Record) and value.name in (ORDERED, EASY)):
        return {str(key): _plain(each, budget, depth + 1) for key, each in _mapping(value).items()}
    if isinstance(value, Record) and value.name.endswith("multiarray.scalar"):
        return _number(value)
    return f"<{value.name}>" if isinstance(value, Record) else f"<{type(value).__name__}>"


def _number(record: Record) -> float | int | bool:
    """Return a NumPy scalar as a number."""
    if len(record.arguments) == 2 and isinstance(record.arguments[0], Record) and record.arguments[0].name == "numpy.dtype":
        (kind, content), code = record.arguments, record.arguments[0].arguments[:1]
        state = kind.state
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else "|"
        if (
            code
            and type(code[0]) is str
            and code[0] in _NUMBERS
            and type(order) is str
            and order in ("<", "|")
            and isinstance(content, bytes)
        ):
            dtype = np.dtype(code[0])
            if len(content) == dtype.itemsize:
                number: float | int | bool = np.frombuffer(content, dtype=dtype)[0].item()
                return number
    raise _damaged("a number that NumPy did not write")


def printable(value: Any) -> str:
    """Return the beginning of a text, without what would break the line of an error."""
    return ascii(value[:_LONGEST])[1:-1] if isinstance(value, str) else f"a {type(value).__name__}"


def _damaged(reason: str) -> ArtifactError:
    return ArtifactError(f"It is damaged, or no network of StyleGAN ({reason}). Fetch the file again.")
