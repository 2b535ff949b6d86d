"""An IR file is data: what it holds is read, what would reach beyond it is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch

from latlas.base.errors import ArtifactError, MissingPathError
from latlas.models.adapters import openvino_weights
from latlas.models.adapters.openvino_weights import read_ir

FLOATS = np.arange(6, dtype="<f4")
WHOLE = np.array([2, 3], dtype="<i8")


def constant(number: int, name: str, kind: str, shape: str, offset: int, size: int) -> str:
    return (
        f'<layer id="{number}" name="{name}" type="Const" version="opset1">'
        f'<data element_type="{kind}" shape="{shape}" offset="{offset}" size="{size}"/>'
        '<output><port id="0"/></output></layer>'
    )


def network(*layers: str, edges: str = "") -> str:
    return f'<?xml version="1.0"?><net name="n" version="10"><layers>{"".join(layers)}</layers><edges>{edges}</edges></net>'


def edge(source: int, target: int, port: int) -> str:
    return f'<edge from-layer="{source}" from-port="0" to-layer="{target}" to-port="{port}"/>'


PARTS = (
    constant(0, "weight", "f32", "2, 3", 0, 24),
    constant(1, "axes", "i64", "2", 24, 16),
    constant(2, "one", "f32", "", 4, 4),
    '<layer id="3" name="add" type="Add" version="opset1"/>',
)
GOOD = network(*PARTS, edges=edge(2, 3, 1) + edge(0, 3, 0))


def write(folder: Path, text: str | bytes, weights: bytes = FLOATS.tobytes() + WHOLE.tobytes()) -> Path:
    path = folder / "network.xml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.with_suffix(".bin").write_bytes(weights)
    return path


def test_constants_come_with_their_shapes_types_and_names(tmp_path: Path) -> None:
    named = read_ir(write(tmp_path, GOOD)).named()
    assert set(named) == {"weight", "axes", "one"}
    torch.testing.assert_close(named["weight"], torch.from_numpy(FLOATS.reshape(2, 3).copy()), rtol=0, atol=0)
    torch.testing.assert_close(named["axes"], torch.tensor([2, 3]), rtol=0, atol=0)
    assert named["one"].shape == ()
    assert float(named["one"]) == 1.0


def test_inputs_follow_the_ports_whatever_the_order_of_the_edges(tmp_path: Path) -> None:
    graph = read_ir(write(tmp_path, GOOD))
    assert graph.operations[3].inputs == (0, 2)
    assert [tuple(value.shape) for value in graph.constants("Add")] == [(2, 3), ()]
    assert graph.constants("Convolution") == []


def test_what_is_read_does_not_hang_on_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    weight = read_ir(path).named()["weight"]
    path.with_suffix(".bin").write_bytes(b"\xff" * 40)
    weight += 1.0
    assert float(weight[0, 0]) == 1.0


BOMB = '<!DOCTYPE b [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]>'
FILE = '<!DOCTYPE b [<!ENTITY a SYSTEM "file:///etc/hostname">]>'


@pytest.mark.parametrize("start", [BOMB, FILE, '<!DOCTYPE net SYSTEM "x.dtd">'], ids=["entities", "a file", "another file"])
def test_a_document_type_is_refused_before_it_can_do_anything(start: str, tmp_path: Path) -> None:
    body = GOOD.removeprefix('<?xml version="1.0"?>').replace('name="weight"', 'name="&a;"')
    with pytest.raises(ArtifactError, match="declares a document type"):
        read_ir(write(tmp_path, start + body))


def test_a_document_type_cannot_hide_in_another_encoding(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot be read as XML"):
        read_ir(write(tmp_path, ('<?xml version="1.0" encoding="utf-16"?>' + BOMB + "<net/>").encode("utf-16")))
    with pytest.raises(ArtifactError, match="cannot be read as XML"):  # utf-7 has no byte of "<" here, and is not believed
        read_ir(write(tmp_path, b'<?xml version="1.0" encoding="utf-7"?>+ADwAIQ-DOCTYPE b>'))


@pytest.mark.parametrize(
    "layer",
    [
        constant(0, "x", "f32", "2, 3", 24, 24),
        constant(0, "x", "f32", "10", 4, 40),
        constant(0, "x", "f32", "1", 10**14, 4),
        constant(0, "x", "f32", "1", -4, 4),
        constant(0, "x", "f32", "2, 3", 0, 20),
        constant(0, "x", "f32", "-2, -3", 0, 24),
        constant(0, "x", "f32", "999999999999, 999999999999", 0, 24),
        constant(0, "x", "f32", "2; 3", 0, 24),
        constant(0, "x", "string", "2, 3", 0, 24),
        constant(0, "x", "f32", "2, 3", 0, 24).replace('offset="0"', ""),
        constant(0, "x", "f32", "2, 3", 0, 24).replace('offset="0"', 'offset="٣"'),
        constant(0, "x", "f32", "2, 3", 0, 24) * 2,
        '<layer id="0" name="x" type="Const"/>',
        '<layer name="x" type="Add"/>',
    ],
    ids=[
        "beyond the end",
        "too long",
        "far beyond",
        "before the start",
        "size and shape disagree",
        "negative",
        "too large",
        "no shape",
        "no type",
        "no offset",
        "another digit",
        "twice",
        "no data",
        "no id",
    ],
)
def test_a_constant_that_does_not_fit_is_refused(layer: str, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError):
        read_ir(write(tmp_path, network(layer)))


@pytest.mark.parametrize(
    "text",
    ["", "no xml", GOOD[:-20], "<net/>", GOOD.replace('version="10"', 'version="6"'), "<html></html>", b"\xff\xfe\x00"],
    ids=["empty", "text", "truncated", "no version", "older", "another kind", "bytes"],
)
def test_another_file_is_refused(text: str | bytes, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError):
        read_ir(write(tmp_path, text))


def test_edges_to_nowhere_are_refused(tmp_path: Path) -> None:
    for lost in (edge(9, 3, 2), edge(0, 9, 0)):
        with pytest.raises(ArtifactError, match="edges between layers that it does not have"):
            read_ir(write(tmp_path, network(*PARTS, edges=lost)))


@pytest.mark.parametrize("length", [0, 1, 39])
def test_truncated_weights_are_refused(length: int, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="truncated"):
        read_ir(write(tmp_path, GOOD, bytes(length)))


def test_a_missing_half_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    path.with_suffix(".bin").unlink()
    with pytest.raises(MissingPathError, match=r"network\.bin"):
        read_ir(path)
    with pytest.raises(MissingPathError, match=r"other\.xml"):
        read_ir(tmp_path / "other.xml")


def test_files_beyond_the_bounds_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, GOOD)
    monkeypatch.setattr(openvino_weights, "_LARGEST_WEIGHTS", 39)
    with pytest.raises(ArtifactError, match=r"network\.bin has 40 bytes"):
        read_ir(path)
    monkeypatch.setattr(openvino_weights, "_LARGEST_GRAPH", 10)
    with pytest.raises(ArtifactError, match=r"network\.xml has"):
        read_ir(path)
