"""Who made an artifact: hashes that notice every change, and a record that comes back."""

import hashlib
import json
import platform
from dataclasses import FrozenInstanceError
from importlib import metadata
from pathlib import Path

import pytest
import torch

from latlas._version import __version__
from latlas.base.provenance import Provenance, file_hash, package_versions, tensor_hash


def test_a_provenance_comes_back_from_json() -> None:
    made = Provenance(
        made_by="fit_map", seed=7, made_from={"source": "ab", "target": "cd"}, settings={"ridge": 0.5, "sizes": [1, 2]}
    )
    assert Provenance.from_json(json.loads(json.dumps(made.to_json()))) == made


def test_no_seed_is_told_apart_from_seed_zero() -> None:
    for seed in (None, 0):
        assert Provenance.from_json(json.loads(json.dumps(Provenance(made_by="f", seed=seed).to_json()))).seed == seed


def test_a_provenance_is_a_value_that_nobody_changes() -> None:
    with pytest.raises(FrozenInstanceError):
        Provenance(made_by="f").seed = 3  # type: ignore[misc]


def test_the_same_call_leaves_the_same_record() -> None:
    assert Provenance(made_by="f").to_json() == Provenance(made_by="f").to_json()


def test_versions_are_those_that_are_installed() -> None:
    versions = package_versions()
    assert versions["latlas"] == __version__
    assert versions["python"] == platform.python_version()
    assert versions["torch"] == metadata.version("torch")
    assert versions["numpy"] == metadata.version("numpy")


def test_a_package_that_is_not_installed_is_recorded_as_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    assert package_versions()["lightning"] == "absent"


def test_a_tensor_hash_is_the_sha256_of_type_shape_and_bytes() -> None:
    values = torch.tensor([[1.0, -2.0, 0.5]])
    by_hand = hashlib.sha256(b"torch.float32(1, 3)" + values.numpy().tobytes()).hexdigest()
    assert tensor_hash(values) == by_hand


def test_every_single_bit_of_a_tensor_enters_its_hash() -> None:
    raw = torch.arange(6, dtype=torch.uint8)
    hashes = {tensor_hash(raw)}
    for byte in range(6):
        for bit in range(8):
            changed = raw.clone()
            changed[byte] ^= 1 << bit
            hashes.add(tensor_hash(changed))
    assert len(hashes) == 1 + 6 * 8


@pytest.mark.parametrize(
    "other",
    [
        (torch.zeros(2, 3),),
        (torch.zeros(3, 2),),
        (torch.zeros(6, 1),),
        (torch.zeros(6, dtype=torch.float64),),
        (torch.zeros(6, dtype=torch.int32),),  # the same bytes as float32 zeros
        (torch.zeros(3), torch.zeros(3)),
        (torch.zeros(6), torch.zeros(0)),
        (torch.zeros(5),),
        (-torch.zeros(6),),
        (),
    ],
)
def test_shape_type_and_grouping_enter_a_tensor_hash(other: tuple[torch.Tensor, ...]) -> None:
    assert tensor_hash(*other) != tensor_hash(torch.zeros(6))


def test_the_order_of_tensors_enters_their_hash() -> None:
    one, two = torch.ones(2), torch.zeros(2)
    assert tensor_hash(one, two) != tensor_hash(two, one)


@pytest.mark.parametrize("dtype", [torch.bool, torch.bfloat16, torch.float16, torch.complex64, torch.int64])
def test_every_type_has_a_hash_of_its_content(dtype: torch.dtype) -> None:
    zeros, ones = torch.zeros((), dtype=dtype), torch.ones((), dtype=dtype)
    assert tensor_hash(zeros) == tensor_hash(torch.zeros((), dtype=dtype)) != tensor_hash(ones)


def test_how_a_tensor_lies_in_memory_does_not_enter_its_hash() -> None:
    grid = torch.arange(12.0).reshape(3, 4)
    plain = torch.tensor([[0.0, 4.0, 8.0], [1.0, 5.0, 9.0], [2.0, 6.0, 10.0], [3.0, 7.0, 11.0]])
    assert tensor_hash(grid.T) == tensor_hash(plain)
    assert tensor_hash(grid[:, ::2]) == tensor_hash(grid[:, ::2].clone())
    assert tensor_hash(plain.clone().requires_grad_()) == tensor_hash(plain)


def test_a_file_hash_is_the_sha256_of_the_bytes(tmp_path: Path) -> None:
    for raw in (b"", b"abc", bytes(range(256)) * 5000):
        (tmp_path / "f").write_bytes(raw)
        assert file_hash(tmp_path / "f") == hashlib.sha256(raw).hexdigest()
