"""Results as plain containers: all that JSON can say, and nothing that it cannot."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from latlas.base.records import plain


@dataclass(frozen=True)
class Inner:
    values: torch.Tensor
    where: Path


@dataclass(frozen=True)
class Outer:
    inner: Inner
    table: Mapping[int, tuple[float, ...]]


def test_records_in_records_become_dicts_and_lists() -> None:
    record = Outer(Inner(torch.tensor([[1, 2], [3, 4]]), Path("a/b")), MappingProxyType({7: (0.5, float("nan"))}))
    assert plain(record) == {"inner": {"values": [[1, 2], [3, 4]], "where": "a/b"}, "table": {"7": [0.5, None]}}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_json_has_no_word_for_become_null_wherever_they_stand(value: float) -> None:
    record = {"a": value, "b": [value, 1.0], "c": torch.tensor([value, 1.0]), "d": np.float64(value)}
    assert plain(record) == {"a": None, "b": [None, 1.0], "c": [None, 1.0], "d": None}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(json_values)
def test_what_is_plain_already_passes_unchanged(value: object) -> None:
    assert plain(value) == value
    json.dumps(plain(value), allow_nan=False)


def test_a_bool_stays_a_bool_and_a_scalar_tensor_becomes_a_number() -> None:
    assert plain(True) is True
    assert plain(torch.tensor(3)) == 3
    assert plain(torch.tensor([True, False])) == [True, False]


def test_a_set_has_one_order() -> None:
    """Python's own order of strings changes from process to process, and with it the bytes of a report."""
    assert plain({"conv", "dense", "avatars", "mnist", "faces"}) == ["avatars", "conv", "dense", "faces", "mnist"]
    assert plain(frozenset({10, 9, 1})) == [1, 9, 10]


@pytest.mark.parametrize("value", [object(), Inner, 1j, b"raw"])
def test_what_json_cannot_say_is_refused_by_its_type(value: object) -> None:
    with pytest.raises(TypeError, match=f"Cannot put a {type(value).__name__} into JSON"):
        plain([value])
