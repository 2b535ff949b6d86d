"""Linear maps as values: applying, following and going back are what matrices say they are."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from latlas.base.artifacts import CONFIG, save_tensors
from latlas.base.errors import ArtifactError, CodeShapeError, IllPosedError, MissingPathError, OutputExistsError
from latlas.base.provenance import Provenance, file_hash
from latlas.encodings.encoding import Encoding
from latlas.maps import linear as linear_module
from latlas.maps.fit import fit_map
from latlas.maps.linear import LinearMap

EXACT = {"rtol": 1e-12, "atol": 1e-12}  # float64, a few dozen products


def a_map(source: int, target: int, *, seed: int = 0, names: tuple[str, str] = ("A", "B")) -> LinearMap:
    generator = torch.Generator().manual_seed(seed)
    return LinearMap(
        weight=torch.randn(source, target, generator=generator, dtype=torch.float64),
        bias=torch.randn(target, generator=generator, dtype=torch.float64),
        kind="affine",
        source=names[0],
        target=names[1],
    )


def codes(width: int, n: int = 7) -> Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(9), dtype=torch.float64)


# Applying


@pytest.mark.parametrize(("source", "target"), [(1, 1), (3, 5), (5, 3), (4, 4)])
def test_applying_is_weight_and_bias(source: int, target: int) -> None:
    there = a_map(source, target)
    expected = codes(source).numpy() @ there.weight.numpy() + there.bias.numpy()
    np.testing.assert_allclose(there.apply(codes(source)).numpy(), expected, **EXACT)
    assert (there.source_size, there.target_size) == (source, target)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_codes_come_back_in_their_own_type_and_are_computed_in_double(dtype: torch.dtype) -> None:
    there = a_map(3, 5)
    given = codes(3).to(dtype)
    moved = there.apply(given)
    assert moved.dtype == dtype
    assert moved.equal((given.double() @ there.weight + there.bias).to(dtype))


def test_many_codes_are_moved_as_few_are(monkeypatch: pytest.MonkeyPatch) -> None:
    there, many = a_map(3, 5), codes(3, n=100)
    whole = there.apply(many)
    monkeypatch.setattr(linear_module, "_CHUNK", 7)
    torch.testing.assert_close(there.apply(many), whole, **EXACT)
    free = many.clone().requires_grad_()
    there.apply(free).sum().backward()
    torch.testing.assert_close(free.grad, there.weight.sum(dim=1).expand(100, 3), **EXACT)


def test_no_codes_are_moved_to_no_codes() -> None:
    assert a_map(3, 5).apply(torch.zeros(0, 3)).shape == (0, 5)


@pytest.mark.parametrize("given", [torch.zeros(4, 5), torch.zeros(4, 3, 1), torch.zeros(3)], ids=str)
def test_codes_of_another_space_are_refused_with_the_map_that_is_needed(given: Tensor) -> None:
    words = r"takes codes of 3 variables \(A\), got shape .*Use codes of that model, or fit a map on encodings of yours"
    with pytest.raises(CodeShapeError, match=words):
        a_map(3, 5).apply(given)


@pytest.mark.parametrize(("weight", "bias"), [((3, 5), (3,)), ((3,), (3,)), ((2, 3, 5), (3, 5)), ((3, 5), (1, 5))])
def test_a_weight_and_a_bias_that_do_not_fit_make_no_map(weight: tuple[int, ...], bias: tuple[int, ...]) -> None:
    with pytest.raises(CodeShapeError, match="weight s x t and a bias t"):
        LinearMap(weight=torch.zeros(weight), bias=torch.zeros(bias), kind="affine", source="A", target="B")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.int64])
def test_weights_of_any_type_are_kept_in_double(dtype: torch.dtype) -> None:
    there = a_map(3, 5)
    narrow = LinearMap(
        weight=(4 * there.weight).to(dtype), bias=(4 * there.bias).to(dtype), kind="affine", source="A", target="B"
    )
    assert (narrow.weight.dtype, narrow.bias.dtype) == (torch.float64, torch.float64)
    assert narrow.weight.equal((4 * there.weight).to(dtype).double())
    moved = narrow.apply(codes(3).float())
    assert moved.dtype == torch.float32
    torch.testing.assert_close(moved.double(), codes(3).float().double() @ narrow.weight + narrow.bias, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", [(3, 3), (5,), (5, 3)])
def test_a_residual_covariance_of_another_size_makes_no_map(shape: tuple[int, ...]) -> None:
    there = a_map(3, 5)
    with pytest.raises(CodeShapeError, match=r"residual covariance of this map is 5 x 5, got \("):
        dataclasses.replace(there, residual_covariance=torch.zeros(shape))


# Following


def test_then_applies_one_after_the_other() -> None:
    first, second = a_map(3, 5, names=("A", "B")), a_map(5, 2, seed=1, names=("B", "C"))
    both = first.then(second)
    torch.testing.assert_close(both.apply(codes(3)), second.apply(first.apply(codes(3))), **EXACT)
    assert (both.source, both.target, both.kind) == ("A", "C", "composed")


def test_following_is_associative() -> None:
    a, b, c = a_map(3, 5), a_map(5, 2, seed=1), a_map(2, 6, seed=2)
    left, right = a.then(b).then(c), a.then(b.then(c))
    torch.testing.assert_close(left.weight, right.weight, **EXACT)
    torch.testing.assert_close(left.bias, right.bias, **EXACT)


def test_a_map_that_starts_elsewhere_cannot_follow() -> None:
    words = r"Cannot follow a map into 5 variables \(B\) by one from 3 \(C\)"
    with pytest.raises(CodeShapeError, match=words):
        a_map(3, 5).then(a_map(3, 2, names=("C", "D")))


# Going back


@pytest.mark.parametrize(("source", "target"), [(4, 4), (3, 5)], ids=["square", "into more variables"])
def test_there_and_back_is_where_it_began(source: int, target: int) -> None:
    there = a_map(source, target)
    back = there.inverse()
    torch.testing.assert_close(back.apply(there.apply(codes(source))), codes(source), rtol=1e-10, atol=1e-10)
    assert (back.source, back.target, back.kind) == ("B", "A", "inverse")
    assert (back.source_size, back.target_size) == (target, source)


def test_back_from_fewer_variables_is_the_nearest_of_the_codes_that_lead_there() -> None:
    """Some of the source is lost; what comes back leads to the same target, and is the shortest that does, by NumPy."""
    there = a_map(5, 3)
    target = codes(3)
    returned = there.inverse().apply(target)
    torch.testing.assert_close(there.apply(returned), target, rtol=1e-10, atol=1e-10)
    shortest = np.linalg.lstsq(there.weight.numpy().T, (target - there.bias).numpy().T, rcond=None)[0].T
    np.testing.assert_allclose(returned.numpy(), shortest, rtol=1e-9, atol=1e-10)


def test_the_inverse_of_the_inverse_is_the_map() -> None:
    there = a_map(4, 4)
    again = there.inverse().inverse()
    torch.testing.assert_close(again.weight, there.weight, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(again.bias, there.bias, rtol=1e-10, atol=1e-10)


def test_an_inverse_starts_at_the_weights_where_the_map_ended_and_a_chain_knows_both_ends() -> None:
    there = dataclasses.replace(a_map(4, 4), source_fingerprint="a", target_fingerprint="b")
    back = there.inverse()
    assert (back.source_fingerprint, back.target_fingerprint) == ("b", "a")
    around = there.then(
        dataclasses.replace(a_map(4, 3, seed=1, names=("B", "C")), source_fingerprint="b", target_fingerprint="c")
    )
    assert (around.source_fingerprint, around.target_fingerprint) == ("a", "c")


def test_a_map_that_loses_a_direction_has_no_inverse() -> None:
    there = a_map(4, 4)
    flat = LinearMap(
        weight=there.weight @ torch.diag(torch.tensor([1.0, 1.0, 1.0, 0.0], dtype=torch.float64)),
        bias=there.bias,
        kind="affine",
        source="A",
        target="B",
    )
    with pytest.raises(IllPosedError, match=r"singular: some of the source is lost.*Fit the other way"):
        flat.inverse()


# Keeping


def fitted() -> LinearMap:
    """A map with evidence, of which one entry is undefined: the second target variable never moves."""
    generator = torch.Generator().manual_seed(4)
    source = torch.randn(30, 3, generator=generator, dtype=torch.float64)
    target = source @ torch.randn(3, 4, generator=generator, dtype=torch.float64)
    target[:, 1] = 2.0
    return fit_map(source, target, ridge=0.1)


def test_what_is_saved_comes_back_to_the_last_bit(tmp_path: Path) -> None:
    there = fitted()
    there.save_pretrained(tmp_path / "map")
    loaded = LinearMap.from_pretrained(tmp_path / "map")
    assert loaded.weight.equal(there.weight)
    assert loaded.bias.equal(there.bias)
    assert loaded.weight.dtype == torch.float64
    for name in ("kind", "source", "target", "evidence", "provenance"):
        assert getattr(loaded, name) == getattr(there, name)
    assert loaded.evidence["r2"][1] is None
    assert there.residual_covariance is not None
    assert loaded.residual_covariance is not None
    assert loaded.residual_covariance.equal(there.residual_covariance)
    assert loaded.apply(codes(3)).equal(there.apply(codes(3)))


def test_warnings_are_kept_with_the_map(tmp_path: Path) -> None:
    source = codes(3, n=5)
    doubled = fit_map(torch.cat([source, source[:, :1]], dim=1), source)
    assert len(doubled.warnings) == 2
    doubled.save_pretrained(tmp_path / "map")
    assert LinearMap.from_pretrained(tmp_path / "map").warnings == doubled.warnings
    assert a_map(3, 5).warnings == ()


def test_composed_and_inverted_maps_can_be_kept_too(tmp_path: Path) -> None:
    composed = a_map(3, 3).then(a_map(3, 3, seed=1).inverse())
    composed.save_pretrained(tmp_path / "map")
    loaded = LinearMap.from_pretrained(tmp_path / "map")
    assert loaded.weight.equal(composed.weight)
    assert loaded.residual_covariance is None, "nobody measured it"


def test_a_folder_that_is_taken_is_refused(tmp_path: Path) -> None:
    fitted().save_pretrained(tmp_path / "map")
    with pytest.raises(OutputExistsError, match="--replace"):
        a_map(3, 5).save_pretrained(tmp_path / "map")
    a_map(3, 5).save_pretrained(tmp_path / "map", replace=True)
    assert LinearMap.from_pretrained(tmp_path / "map").target_size == 5


def test_damage_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(MissingPathError, match="expected a latlas linear-map there"):
        LinearMap.from_pretrained(tmp_path / "nothing")
    folder = tmp_path / "map"
    fitted().save_pretrained(folder)
    path = folder / "map.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    with pytest.raises(ArtifactError, match=r"map\.safetensors is damaged"):
        LinearMap.from_pretrained(folder)


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"weight": torch.zeros(3, 2)}, "'bias'"),
        ({"weight": torch.zeros(3, 2), "bias": torch.zeros(3)}, "weight s x t and a bias t"),
    ],
)
def test_tensors_that_make_no_map_are_told_and_not_raised_raw(tensors: dict[str, Tensor], words: str, tmp_path: Path) -> None:
    """Hashes that fit, so that the content itself is read."""
    folder = tmp_path / "map"
    fitted().save_pretrained(folder)
    save_tensors(folder / "map.safetensors", tensors)
    record = json.loads((folder / CONFIG).read_text())
    record["files"]["map.safetensors"] = file_hash(folder / "map.safetensors")
    record.pop("checksum", None)  # as a stranger would
    (folder / CONFIG).write_text(json.dumps(record))
    with pytest.raises(ArtifactError, match=rf"not a readable map \(.*{words}.*\)\. Fit it again"):
        LinearMap.from_pretrained(folder)


def test_a_map_knows_what_it_was_fitted_from() -> None:
    there = fitted()
    assert isinstance(there.provenance, Provenance)
    assert there.provenance.made_by == "fit_map"
    assert set(there.provenance.made_from) == {"moments"}
    assert there.provenance.settings == {"kind": "affine", "ridge": 0.1, "bias": True}


# Whose codes


def encoding(model: str, weights: str, *, seed: int = 0) -> Encoding:
    mean = torch.randn(30, 3, generator=torch.Generator().manual_seed(seed))
    made_from = {"model": weights, "images": "i"}
    return Encoding(
        mean=mean,
        log_variance=None,
        model=model,
        images="images",
        images_hash="i",
        provenance=Provenance(made_by="encode", made_from=made_from),
    )


def test_a_map_knows_its_models_and_keeps_knowing_them(tmp_path: Path) -> None:
    there = fit_map(encoding("A", "weights of A"), encoding("B", "weights of B", seed=1))
    there.save_pretrained(tmp_path / "map")
    for one in (there, LinearMap.from_pretrained(tmp_path / "map")):
        assert (one.source_fingerprint, one.target_fingerprint) == ("weights of A", "weights of B")
        back = one.inverse()
        assert (back.source_fingerprint, back.target_fingerprint) == ("weights of B", "weights of A")
    onward = fit_map(encoding("B", "weights of B", seed=1), encoding("C", "weights of C", seed=2))
    both = there.then(onward)
    assert (both.source_fingerprint, both.target_fingerprint) == ("weights of A", "weights of C")


def test_what_is_not_known_of_a_model_is_not_invented() -> None:
    there = fit_map(encoding("A", "unstated"), torch.randn(30, 4, generator=torch.Generator().manual_seed(5)))
    assert (there.source_fingerprint, there.target_fingerprint) == (None, None)
    there.check_source(encoding("B", "weights of B").provenance, name="B")


def test_a_map_saved_before_maps_knew_their_models_still_loads(tmp_path: Path) -> None:
    a_map(3, 5).save_pretrained(tmp_path / "map")
    record = json.loads((tmp_path / "map" / CONFIG).read_text())
    del record["settings"]["source_fingerprint"], record["settings"]["target_fingerprint"]
    record.pop("checksum", None)  # as a stranger would
    (tmp_path / "map" / CONFIG).write_text(json.dumps(record))
    loaded = LinearMap.from_pretrained(tmp_path / "map")
    assert (loaded.source_fingerprint, loaded.target_fingerprint) == (None, None)


def test_an_encoding_of_another_model_is_refused_though_its_width_fits() -> None:
    there = fit_map(encoding("A", "weights of A"), encoding("B", "weights of B", seed=1))
    there.check_source(encoding("A again", "weights of A").provenance, name="A again")
    there.check_source(encoding("A", "unstated").provenance, name="A")
    words = r"takes codes of A \(weights weights of A\), the encoding is of B .*Encode the images with the map's source model"
    with pytest.raises(CodeShapeError, match=words):
        there.check_source(encoding("B", "weights of B").provenance, name="B")
