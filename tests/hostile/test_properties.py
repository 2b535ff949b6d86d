"""Laws of what is kept and of what maps and sectors do, whatever the numbers, the names and the shapes."""

import json
import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from safetensors.numpy import load_file as load_with_numpy

from latlas.base.artifacts import CONFIG, load_tensors, read_config, save_tensors, write_config, writing
from latlas.base.errors import ArtifactError
from latlas.base.provenance import Provenance
from latlas.encodings.encoding import Encoding
from latlas.maps.linear import LinearMap
from latlas.supports.sectors import Sectors

FEW = settings(max_examples=25)
# What JSON has words for; a text may hold anything that UTF-8 can say.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=12,
)
TYPES = (np.float32, np.float64, np.float16, np.int64, np.int32, np.uint8, np.bool_)
TENSORS = st.dictionaries(
    st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=8),
    st.sampled_from(TYPES).flatmap(lambda kind: arrays.arrays(kind, arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))),
    max_size=3,
)  # fmt: skip


@contextmanager
def folder() -> Iterator[Path]:
    """A folder of its own for each example: hypothesis shares one `tmp_path` among them all."""
    with tempfile.TemporaryDirectory() as place:
        yield Path(place)


def bits(array: np.ndarray) -> tuple[str, tuple[int, ...], bytes]:
    return array.dtype.str, array.shape, array.tobytes()


@FEW
@given(settings_=st.dictionaries(TEXT, PLAIN, max_size=4), tensors=TENSORS, seed=st.none() | st.integers(0, 2**63 - 1))
def test_an_artifact_comes_back_as_it_went_in(
    settings_: dict[str, Any], tensors: dict[str, np.ndarray], seed: int | None
) -> None:
    """To the last bit, NaN and negative zeros included; and the tensors to NumPy's own reader of the format as well."""
    provenance = Provenance(made_by="test", seed=seed, settings=settings_)
    with folder() as place:
        with writing(place / "a") as beside:
            save_tensors(beside / "t.safetensors", {name: torch.from_numpy(array.copy()) for name, array in tensors.items()})
            write_config(beside, kind="thing", settings=settings_, provenance=provenance)
        config = read_config(place / "a", kind="thing")
        assert json.dumps(config["settings"], sort_keys=True) == json.dumps(settings_, sort_keys=True)
        assert Provenance.from_json(config["provenance"]) == provenance
        wanted = {name: bits(array) for name, array in tensors.items()}
        assert {name: bits(tensor.numpy()) for name, tensor in load_tensors(place / "a" / "t.safetensors").items()} == wanted
        assert {name: bits(array) for name, array in load_with_numpy(place / "a" / "t.safetensors").items()} == wanted


@FEW
@given(place=st.integers(0, 10**9), bit=st.integers(0, 7))
def test_no_flipped_bit_of_a_config_passes(place: int, bit: int) -> None:
    with folder() as parent:
        with writing(parent / "a") as beside:
            save_tensors(beside / "t.safetensors", {"x": torch.zeros(2)})
            write_config(
                beside, kind="thing", settings={"size": 10, "names": ["a", "b"]}, provenance=Provenance(made_by="test")
            )
        content = bytearray((parent / "a" / CONFIG).read_bytes())
        content[place % len(content)] ^= 1 << bit
        (parent / "a" / CONFIG).write_bytes(content)
        with pytest.raises(ArtifactError):
            read_config(parent / "a", kind="thing")


@FEW
@given(
    codes=arrays.arrays(np.float32, arrays.array_shapes(min_dims=2, max_dims=4, max_side=5), elements=st.floats(-1e6, 1e6, width=32)),
    names=st.booleans(),
    spread=st.booleans(),
    name=TEXT,
)  # fmt: skip
def test_an_encoding_comes_back_as_it_went_in(codes: np.ndarray, names: bool, spread: bool, name: str) -> None:
    mean = torch.from_numpy(codes.copy())
    rows = len(mean)
    given_names = tuple(f"{'é' * index}{index}.png" for index in range(rows)) if names else ()
    encoding = Encoding(
        mean=mean,
        log_variance=-mean.abs() if spread else None,
        model=name,
        images=name,
        images_hash="h",
        provenance=Provenance(made_by="test"),
        indices=torch.arange(rows) * 3,
        names=given_names,
    )
    with folder() as place:
        encoding.save_pretrained(place / "e")
        back = Encoding.from_pretrained(place / "e")
        assert torch.equal(back.mean, mean)
        assert (back.log_variance is not None) == spread
        if spread:
            assert torch.equal(back.log_variance, -mean.abs())  # type: ignore[arg-type]
        assert (back.model, back.images, tuple(back.names)) == (name, name, given_names)
        assert torch.equal(back.indices, torch.arange(rows) * 3)  # type: ignore[arg-type]


def maps(source: int, target: int, seed: int) -> LinearMap:
    draw = torch.Generator().manual_seed(seed)
    return LinearMap(
        weight=torch.randn(source, target, generator=draw, dtype=torch.float64),
        bias=torch.randn(target, generator=draw, dtype=torch.float64),
        kind="affine",
        source=f"s{source}",
        target=f"s{target}",
    )


SIZES = st.tuples(*[st.integers(1, 6)] * 4)


@given(sizes=SIZES, seed=st.integers(0, 10**6))
def test_maps_compose_as_matrices_do_and_it_does_not_matter_where_one_begins(
    sizes: tuple[int, int, int, int], seed: int
) -> None:
    first, second, third = (maps(*pair, seed + number) for number, pair in enumerate(pairwise(sizes)))
    codes = torch.randn(7, sizes[0], generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    by_hand = codes.numpy()
    for each in (first, second, third):
        by_hand = by_hand @ each.weight.numpy() + each.bias.numpy()
    scale = 1 + np.abs(by_hand).max()
    for whole in (first.then(second).then(third), first.then(second.then(third))):
        assert np.abs(whole.apply(codes).numpy() - by_hand).max() < 1e-12 * scale


@given(size=st.integers(1, 6), seed=st.integers(0, 10**6))
def test_the_inverse_of_a_square_map_leads_back(size: int, seed: int) -> None:
    there = maps(size, size, seed)
    condition = float(np.linalg.cond(there.weight.numpy()))
    assume(condition < 1e6)
    codes = torch.randn(5, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    assert (there.inverse().apply(there.apply(codes)) - codes).abs().max() < 1e-13 * condition * 100


@FEW
@given(source=st.integers(1, 5), target=st.integers(1, 5), seed=st.integers(0, 10**6))
def test_a_map_comes_back_from_its_folder_to_the_last_bit(source: int, target: int, seed: int) -> None:
    there = maps(source, target, seed)
    with folder() as place:
        there.save_pretrained(place / "m")
        back = LinearMap.from_pretrained(place / "m")
    codes = torch.randn(4, source, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(back.weight, there.weight)
    assert torch.equal(back.apply(codes), there.apply(codes))


CODES = arrays.arrays(np.float64, st.tuples(st.integers(1, 30), st.just(4)), elements=st.floats(-10, 10))


@given(codes=CODES, threshold=st.floats(0, 3), chosen=st.permutations(range(4)), k=st.integers(1, 4))
def test_sectors_are_read_off_one_code_at_a_time(codes: np.ndarray, threshold: float, chosen: list[int], k: int) -> None:
    """In plain Python: bit i where the i-th chosen variable is positive, none where one is within the threshold."""
    variables = tuple(chosen[:k])
    sectors = Sectors(variables=variables, threshold=threshold)
    by_hand = [
        sum(1 << bit for bit, variable in enumerate(variables) if code[variable] > 0)
        if all(math.fabs(code[variable]) > threshold for variable in variables)
        else -1
        for code in codes.tolist()
    ]
    found = sectors.of(torch.from_numpy(codes))
    assert found.tolist() == by_hand
    assert sectors.occupancy(torch.from_numpy(codes)).tolist() == [by_hand.count(number) for number in range(1 << k)]


@given(codes=CODES, thresholds=st.tuples(st.floats(0, 3), st.floats(0, 3)))
def test_a_higher_threshold_only_ever_empties_sectors(codes: np.ndarray, thresholds: tuple[float, float]) -> None:
    low, high = (Sectors(variables=(2, 0), threshold=each).of(torch.from_numpy(codes)) for each in sorted(thresholds))
    inside = high >= 0
    assert torch.equal(high[inside], low[inside])


@given(codes=CODES)
def test_the_opposite_code_lies_in_the_opposite_sector(codes: np.ndarray) -> None:
    sectors = Sectors(variables=(3, 1, 0), threshold=0.5)
    here, there = sectors.of(torch.from_numpy(codes)), sectors.of(torch.from_numpy(-codes))
    assert torch.equal(here >= 0, there >= 0)
    assert torch.equal(here[here >= 0], sectors.count - 1 - there[there >= 0])
