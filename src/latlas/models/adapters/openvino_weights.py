"""Weights out of a network in OpenVINO's IR format (an .xml beside a .bin), read without OpenVINO."""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import torch
from torch import Tensor

from latlas.base.errors import ArtifactError, MissingPathError

_LARGEST_GRAPH = 16 * 2**20  # bytes of an .xml that is read at all
_LARGEST_WEIGHTS = 2 * 2**30  # bytes of a .bin
_NUMBER = re.compile(r"[0-9]{1,15}")
_TYPES = {"f32": "<f4", "f16": "<f2", "f64": "<f8", "i64": "<i8", "i32": "<i4", "i8": "<i1", "u8": "<u1"}
_CONSTANT = "Const"


@dataclass(frozen=True, kw_only=True, eq=False)
class Operation:
    """A node of the graph."""

    name: str
    kind: str  # OpenVINO's, for example "Convolution"
    inputs: tuple[int, ...]  # the nodes it reads, in the order of its ports
    value: Tensor | None  # of a constant, in the type that the file has


@dataclass(frozen=True, kw_only=True, eq=False)
class Graph:
    """A network: its nodes by number, in the order of the file, which is the order of computing."""

    operations: dict[int, Operation]

    def constants(self, kind: str) -> list[Tensor]:
        """Return the constants that operations of a kind read directly, operation by operation."""
        return [
            value
            for operation in self.operations.values()
            if operation.kind == kind
            for number in operation.inputs
            if (value := self.operations[number].value) is not None
        ]

    def named(self) -> dict[str, Tensor]:
        """Return the constants by name."""
        return {operation.name: operation.value for operation in self.operations.values() if operation.value is not None}


def read_ir(path: Path) -> Graph:
    """Return the graph of an .xml with the constants of the .bin beside it.

    Nothing is executed and no other file is opened: a document type, with which entities and files could come in, is refused;
    so is whatever reaches beyond the .bin.

    Args:
        path: the .xml of an IR of version 10 or 11.

    Raises:
        MissingPathError: one of the two files is missing.
        ArtifactError: they are not such a network, or are damaged.
    """
    weights = path.with_suffix(".bin")
    for file, largest in ((path, _LARGEST_GRAPH), (weights, _LARGEST_WEIGHTS)):
        if not file.is_file():
            raise MissingPathError(f"No file {file}. A network of OpenVINO is an .xml and a .bin of the same name.")
        if file.stat().st_size > largest:
            raise ArtifactError(f"{file} has {file.stat().st_size} bytes; at most {largest} are read.")
    root = _parse(path)
    if root.tag != "net" or root.get("version") not in ("10", "11"):
        raise ArtifactError(f"{path} is not a network in OpenVINO's IR of version 10 or 11. Convert it with OpenVINO.")
    content = np.memmap(weights, dtype=np.uint8, mode="r") if weights.stat().st_size else np.empty(0, dtype=np.uint8)
    sources = _sources(root, path)
    operations: dict[int, Operation] = {}
    for layer in root.iterfind("layers/layer"):
        number = _number(layer, "id", path)
        if number in operations:
            raise ArtifactError(f"{path} has two layers {number}.")
        kind, name = layer.get("type", ""), layer.get("name", "")
        inputs = tuple(source for _, source in sorted(sources.get(number, ())))
        value = _constant(layer, name, content, path) if kind == _CONSTANT else None
        operations[number] = Operation(name=name, kind=kind, inputs=inputs, value=value)
    strange = {source for operation in operations.values() for source in operation.inputs} | set(sources)
    if not strange <= set(operations):
        raise ArtifactError(f"{path} has edges between layers that it does not have.")
    return Graph(operations=operations)


def _parse(path: Path) -> ElementTree.Element:
    try:
        # As text in one known encoding, so that no declaration can hide from the search below in another one.
        text = path.read_text(encoding="utf-8")
        if "<!DOCTYPE" in text:
            raise ArtifactError(f"{path} declares a document type, which no network of OpenVINO does. It is not read.")
        return ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as failure:
        raise ArtifactError(f"{path} cannot be read as XML ({failure}).") from failure


def _sources(root: ElementTree.Element, path: Path) -> dict[int, list[tuple[int, int]]]:
    sources: dict[int, list[tuple[int, int]]] = {}
    for edge in root.iterfind("edges/edge"):
        place = (_number(edge, "to-port", path), _number(edge, "from-layer", path))
        sources.setdefault(_number(edge, "to-layer", path), []).append(place)
    return sources


def _constant(layer: ElementTree.Element, name: str, content: np.ndarray, path: Path) -> Tensor:
    data = layer.find("data")
    if data is None or data.get("element_type") not in _TYPES:
        known = ", ".join(_TYPES)
        found = "nothing" if data is None else repr(data.get("element_type"))
        raise ArtifactError(f"{path}: constant {name!r} is of type {found}; read are {known}.")
    kind = np.dtype(_TYPES[data.get("element_type", "")])
    sizes = [text.strip() for text in data.get("shape", "").split(",") if text.strip()]
    if not all(_NUMBER.fullmatch(text) for text in sizes):
        raise ArtifactError(f"{path}: constant {name!r} has the shape {data.get('shape')!r}, which is none.")
    shape = tuple(map(int, sizes))
    offset, size = _number(data, "offset", path), _number(data, "size", path)
    if size != math.prod(shape) * kind.itemsize:
        raise ArtifactError(f"{path}: constant {name!r} of shape {shape} cannot have {size} bytes.")
    if offset + size > len(content):
        raise ArtifactError(
            f"{path}: constant {name!r} ends at byte {offset + size}, and {path.stem}.bin has {len(content)}: the file is truncated."
        )
    return torch.from_numpy(np.frombuffer(content[offset : offset + size].tobytes(), dtype=kind).reshape(shape).copy())


def _number(element: ElementTree.Element, attribute: str, path: Path) -> int:
    text = element.get(attribute, "")
    if not _NUMBER.fullmatch(text):
        raise ArtifactError(f"{path}: a {element.tag} has {attribute}={text!r}, which is no number.")
    return int(text)
