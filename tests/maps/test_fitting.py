"""Fitting: a planted map is found to rounding, and a noisy one is NumPy's and scikit-learn's."""

import dataclasses
import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from scipy.linalg import orthogonal_procrustes
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.metrics import r2_score
from torch import Tensor

from latlas.base.errors import (
    CodeShapeError,
    IllPosedError,
    NonFiniteError,
    SettingError,
    UnknownNameError,
)
from latlas.base.provenance import Provenance, tensor_hash
from latlas.encodings.encoding import Encoding
from latlas.maps import fit as fit_module
from latlas.maps.fit import fit_map, fit_map_from, paired_moments_of

WIDTHS = [(3, 3), (2, 6), (6, 2), (1, 1)]


def pairs(source: int, target: int, *, n: int = 80, noise: float = 0.0, mean: float = 1.5) -> tuple[Tensor, Tensor]:
    """Codes that are not centred, and their images under a planted map."""
    generator = torch.Generator().manual_seed(source * 10 + target)
    weight, bias = planted(source, target)
    rows = mean + torch.randn(n, source, generator=generator, dtype=torch.float64)
    return rows, rows @ weight + bias + noise * torch.randn(n, target, generator=generator, dtype=torch.float64)


def planted(source: int, target: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(100 + source * 10 + target)
    return (
        torch.randn(source, target, generator=generator, dtype=torch.float64),
        torch.randn(target, generator=generator, dtype=torch.float64),
    )


def encoding(codes: Tensor, *, model: str = "A", images_hash: str = "the same") -> Encoding:
    return Encoding(
        mean=codes,
        log_variance=None,
        model=model,
        images=f"images of {model}",
        images_hash=images_hash,
        provenance=Provenance(made_by="test"),
    )


# What is found


@pytest.mark.parametrize(("source", "target"), WIDTHS)
def test_a_planted_map_is_found_to_rounding(source: int, target: int) -> None:
    weight, bias = planted(source, target)
    found = fit_map(*pairs(source, target))
    torch.testing.assert_close(found.weight, weight, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.bias, bias, rtol=0, atol=1e-12)
    assert found.evidence["pairs"] == 80
    assert found.evidence["rank"] == source
    assert found.evidence["ill_posed"] is False
    assert found.evidence["r2"] == pytest.approx([1.0] * target, abs=1e-12)
    assert found.evidence["residual_variance"] == pytest.approx([0.0] * target, abs=1e-12)


@pytest.mark.parametrize(("source", "target"), WIDTHS)
def test_a_noisy_fit_is_scikit_learns_regression(source: int, target: int) -> None:
    x, y = pairs(source, target, noise=0.7)
    found = fit_map(x, y)
    reference = LinearRegression().fit(x.numpy(), y.numpy())
    np.testing.assert_allclose(found.weight.numpy(), reference.coef_.T, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(found.bias.numpy(), reference.intercept_, rtol=1e-9, atol=1e-11)
    residual = y.numpy() - reference.predict(x.numpy())
    np.testing.assert_allclose(found.evidence["residual_variance"], residual.var(axis=0), rtol=1e-9)
    np.testing.assert_allclose(found.evidence["r2"], 1 - residual.var(axis=0) / y.numpy().var(axis=0), rtol=1e-9)


@pytest.mark.parametrize(("source", "target"), WIDTHS)
def test_without_a_bias_it_is_numpys_least_squares(source: int, target: int) -> None:
    x, y = pairs(source, target, noise=0.7)
    found = fit_map(x, y, bias=False)
    np.testing.assert_allclose(
        found.weight.numpy(), np.linalg.lstsq(x.numpy(), y.numpy(), rcond=None)[0], rtol=1e-9, atol=1e-11
    )
    assert not bool(found.bias.any())
    assert not np.allclose(found.weight.numpy(), fit_map(x, y).weight.numpy(), rtol=1e-3)  # the bias did matter


def test_without_a_bias_codes_that_never_vary_are_told_apart_from_none() -> None:
    """A line through the origin needs no variance: NumPy's least squares finds it. With a bias nothing would be left."""
    x, y = torch.full((20, 1), 2.0, dtype=torch.float64), pairs(1, 3, n=20)[1]
    expected = np.linalg.lstsq(x.numpy(), y.numpy(), rcond=None)[0]
    np.testing.assert_allclose(fit_map(x, y, bias=False).weight.numpy(), expected, rtol=1e-12)
    with pytest.raises(IllPosedError, match="source codes are constant"):
        fit_map(x, y)
    with pytest.raises(IllPosedError, match="source codes are constant"):
        fit_map(0 * x, y, bias=False)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("ridge", [0.1, 30.0])
def test_a_ridge_is_scikit_learns_alpha(ridge: float, bias: bool) -> None:
    x, y = pairs(6, 2, noise=0.7)
    found = fit_map(x, y, ridge=ridge, bias=bias)
    reference = Ridge(alpha=ridge, fit_intercept=bias, solver="cholesky").fit(x.numpy(), y.numpy())
    np.testing.assert_allclose(found.weight.numpy(), reference.coef_.T, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(found.bias.numpy(), np.broadcast_to(reference.intercept_, 2), rtol=1e-9, atol=1e-11)
    assert found.evidence["ridge"] == ridge


def test_an_orthogonal_map_is_scipys_procrustes_with_one_scale() -> None:
    x, y = pairs(4, 4, noise=0.3)
    found = fit_map(x, y, kind="orthogonal")
    left, right = x.numpy() - x.numpy().mean(axis=0), y.numpy() - y.numpy().mean(axis=0)
    rotation, nuclear = orthogonal_procrustes(left, right)
    expected = rotation * nuclear / np.square(left).sum()
    np.testing.assert_allclose(found.weight.numpy(), expected, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(found.bias.numpy(), y.numpy().mean(axis=0) - x.numpy().mean(axis=0) @ expected, atol=1e-11)
    gram = found.weight.T @ found.weight
    torch.testing.assert_close(gram, gram[0, 0] * torch.eye(4, dtype=torch.float64), rtol=0, atol=1e-12)


def test_as_few_pairs_as_variables_need_the_ridge_that_gcv_finds() -> None:
    """methods.md (f): 150 noisy points for a map of 150 variables leave least squares two orders of magnitude behind."""
    x, y = pairs(60, 60, n=61, noise=0.3 * 60**0.5, mean=0.0)
    fresh_x, fresh_y = pairs(60, 60, n=2000, mean=0.0)
    errors = {
        ridge: float((fit_map(x, y, ridge=ridge).apply(fresh_x) - fresh_y).square().mean())  # type: ignore[arg-type]
        for ridge in (None, "gcv")
    }
    assert errors["gcv"] < errors[None] / 10
    assert errors["gcv"] < float(fresh_y.square().mean())  # and better than no map at all


def test_gcv_records_the_ridge_that_it_chose() -> None:
    x, y = pairs(6, 2, n=20, noise=2.0)
    found = fit_map(x, y, ridge="gcv")
    chosen = found.evidence["ridge"]
    assert chosen > 0
    assert found.weight.equal(fit_map(x, y, ridge=chosen).weight)
    assert found.provenance.settings["ridge"] == "gcv"


@pytest.mark.parametrize("bias", [True, False])
def test_gcv_chooses_by_the_score_of_golub_heath_and_wahba(bias: bool) -> None:
    """The score n |y - H y|^2 / (n - trace H)^2 by NumPy's hat matrix: no neighbour on the grid of eight a decade scores better."""
    x, y = (codes.numpy() for codes in pairs(6, 2, n=20, noise=2.0))
    centre = np.eye(20) - bias / 20
    left, right = centre @ x, centre @ y

    def score(ridge: float) -> float:
        hat = left @ np.linalg.solve(left.T @ left + ridge * np.eye(6), left.T) + bias / 20
        return 20 * float(np.square(right - hat @ right).sum()) / (20 - float(np.trace(hat))) ** 2

    chosen = fit_map(torch.from_numpy(x), torch.from_numpy(y), ridge="gcv", bias=bias).evidence["ridge"]
    assert score(chosen) <= min(score(chosen * 10**step) for step in (-1 / 4, -1 / 8, 1 / 8, 1 / 4))


# How it is fed


SETTINGS: list[dict[str, Any]] = [
    {},
    {"bias": False},
    {"ridge": "gcv"},
    {"ridge": "loo"},
    {"kind": "orthogonal"},
    {"kind": "orthogonalised"},
    {"kind": "orthogonalised", "ridge": "loo", "bias": False},
    {"kind": "reduced-rank", "rank": 2},
    {"kind": "reduced-rank", "rank": 1, "ridge": 3.0, "bias": False},
]


@pytest.mark.parametrize("chunk", [1, 7, 79, 80])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_chunks_change_nothing(chunk: int, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = pairs(4, 3, noise=0.5)
    whole = fit_map(x, y, **settings)
    monkeypatch.setattr(fit_module, "_CHUNK", chunk)
    parts = fit_map(x, y, **settings)
    torch.testing.assert_close(parts.weight, whole.weight, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(parts.bias, whole.bias, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_codes_on_disk_give_the_map_of_codes_in_memory(settings: dict[str, Any], tmp_path: Path) -> None:
    x, y = (codes.float() for codes in pairs(4, 3, noise=0.5))
    both = encoding(x, model="A"), encoding(y, model="B")
    for one in both:
        one.save_pretrained(tmp_path / one.model)
    mapped = fit_map(*(Encoding.from_pretrained(tmp_path / one.model) for one in both), **settings)
    held = fit_map(*both, **settings)
    assert mapped.weight.equal(held.weight)
    assert mapped.bias.equal(held.bias)
    assert mapped.evidence == held.evidence
    assert mapped.provenance == held.provenance


# A stream has no second reading for "loo".
@pytest.mark.parametrize("settings", [one for one in SETTINGS if one.get("ridge") != "loo"], ids=str)
@examples(max_examples=20)
@given(cuts=st.lists(st.integers(0, 80), max_size=5).map(sorted), split=st.integers(0, 6))
def test_streams_cut_anywhere_and_merged_give_the_map_of_all_pairs(
    settings: dict[str, Any], cuts: list[int], split: int
) -> None:
    x, y = pairs(4, 3, noise=0.5)
    spans = list(zip([0, *cuts], [*cuts, 80], strict=True))
    parts = [spans[:split], spans[split:]]
    streams = [paired_moments_of((x[a:b], y[a:b]) for a, b in part) for part in parts if part]  # as two processes would
    moments = streams[0] if len(streams) == 1 else streams[0].merge(streams[1])
    found, wanted = fit_map_from(moments, **settings), fit_map(x, y, **settings)
    torch.testing.assert_close(found.weight, wanted.weight, rtol=1e-10, atol=1e-11)
    torch.testing.assert_close(found.bias, wanted.bias, rtol=1e-10, atol=1e-11)


def test_a_map_from_moments_is_named_and_says_what_it_was_made_from() -> None:
    x, y = pairs(4, 3)
    moments = paired_moments_of([(x, y)])
    found = fit_map_from(moments, source="A", target="B")
    assert (found.source, found.target) == ("A", "B")
    assert found.provenance.made_by == "fit_map_from"
    assert found.provenance.made_from == {"moments": tensor_hash(moments.joint.mean, moments.joint.scatter)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_maps_are_float64_whatever_the_codes_are(dtype: torch.dtype) -> None:
    x, y = (codes.to(dtype) for codes in pairs(4, 3, noise=0.5))
    found = fit_map(x, y)
    assert (found.weight.dtype, found.bias.dtype) == (torch.float64, torch.float64)
    reference = LinearRegression().fit(x.double().numpy(), y.double().numpy())
    np.testing.assert_allclose(found.weight.numpy(), reference.coef_.T, rtol=1e-9, atol=1e-11)


def test_encodings_name_the_spaces_of_their_map() -> None:
    x, y = pairs(4, 3)
    found = fit_map(encoding(x, model="old"), encoding(y, model="new"))
    assert (found.source, found.target) == ("old", "new")
    assert found.weight.equal(fit_map(x, y).weight)
    moments = paired_moments_of([(x, y)]).joint
    assert found.provenance.made_from == {"moments": tensor_hash(moments.mean, moments.scatter), "images": "the same"}
    known = Provenance(made_by="encode", made_from={"model": "weights of old"})
    assert fit_map(dataclasses.replace(encoding(x), provenance=known), y).provenance.made_from["source"] == "weights of old"
    mixed = fit_map(encoding(x, model="old"), y)
    assert (mixed.source, mixed.target) == ("old", "target")


def test_evidence_is_ready_for_json_even_where_nothing_is_defined() -> None:
    """A target that never moves has no R2, and a source that never moves no condition."""
    x, y = pairs(4, 3)
    y[:, 1] = 1.0
    evidence = fit_map(x, y).evidence
    assert evidence["r2"][1] is None
    json.dumps(evidence, allow_nan=False)
    x[:, 2] = x[:, 0]
    doubled = fit_map(x, y).evidence
    assert (doubled["rank"], doubled["ill_posed"]) == (3, True)
    json.dumps(doubled, allow_nan=False)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_residuals_and_r2_are_those_of_the_map_that_is_returned(settings: dict[str, Any]) -> None:
    x, y = pairs(4, 3, noise=2.0)
    found = fit_map(x, y, **settings)
    residual = (y - found.apply(x)).numpy()
    assert found.residual_covariance is not None
    np.testing.assert_allclose(found.residual_covariance.numpy(), residual.T @ residual / 80, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(found.evidence["residual_variance"], np.square(residual).mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(
        found.evidence["r2"], r2_score(y.numpy(), found.apply(x).numpy(), multioutput="raw_values"), rtol=1e-9, atol=1e-12
    )
    json.dumps(found.evidence, allow_nan=False)


@pytest.mark.parametrize("bias", [True, False])
def test_leave_one_out_records_the_ridge_and_the_error_that_it_expects(bias: bool) -> None:
    x, y = pairs(6, 2, n=20, noise=2.0)
    found = fit_map(x, y, ridge="loo", bias=bias)
    chosen = found.evidence["ridge"]
    assert found.weight.equal(fit_map(x, y, ridge=chosen, bias=bias).weight)
    errors = np.zeros(2)
    for left_out in range(20):
        kept = np.arange(20) != left_out
        again = Ridge(alpha=chosen, fit_intercept=bias, solver="svd").fit(x.numpy()[kept], y.numpy()[kept])
        errors += np.square(again.predict(x.numpy()[left_out : left_out + 1])[0] - y.numpy()[left_out]) / 20
    np.testing.assert_allclose(found.evidence["leave_one_out_error"], errors, rtol=1e-8)
    assert "leave_one_out_error" not in fit_map(x, y, ridge="gcv").evidence


def test_a_reduced_rank_map_brings_the_error_of_every_rank() -> None:
    x, y = pairs(5, 4, noise=2.0)
    found = fit_map(x, y, kind="reduced-rank", rank=2)
    assert (found.evidence["map_rank"], found.evidence["rank"], found.evidence["ill_posed"]) == (2, 5, False)
    curve = found.evidence["rank_errors"]
    assert len(curve) == 5
    assert curve[2] == pytest.approx(float((y - found.apply(x)).square().mean()), rel=1e-9)
    assert curve[4] == pytest.approx(float((y - fit_map(x, y).apply(x)).square().mean()), rel=1e-9)
    assert found.provenance.settings["rank"] == 2


# What is told


def test_a_well_posed_fit_has_nothing_to_say() -> None:
    for settings in SETTINGS:
        assert fit_map(*pairs(4, 3, noise=0.5), **settings).warnings == ()


def test_variables_that_never_vary_are_named_with_the_cure() -> None:
    x, y = pairs(4, 3, noise=0.5)
    x[:, 1], x[:, 3] = 0.3, -7.0
    found = fit_map(x, y)
    (told,) = found.warnings
    assert told.startswith("Source variables that never vary: 1, 3 (counted from 0).")
    assert "Prune them from the model" in told
    assert found.evidence["constant_source_variables"] == [1, 3]
    assert found.weight[[1, 3]].tolist() == [[0.0] * 3] * 2
    many = torch.cat([x[:, :1], torch.ones(80, 20)], dim=1)
    assert "1, 2, 3, 4, 5, 6, 7, 8 and 12 more" in fit_map(many, y).warnings[0]


def test_variables_that_repeat_others_are_told_with_the_cure() -> None:
    x, y = pairs(4, 3, noise=0.5)
    x[:, 2] = x[:, 0] - x[:, 1]
    found = fit_map(x, y)
    (told,) = found.warnings
    assert told.startswith("Ill-posed: 80 pairs decide 3 of 4 directions")
    for cure in ("ridge='gcv'", "more varied images", "pruning"):
        assert cure in told
    assert found.evidence["ill_posed"] is True
    assert fit_map(x, y, ridge="gcv").warnings == (), "the cure works"
    x[:, 2] += 1e-6 * torch.randn(80, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (told,) = fit_map(x, y).warnings
    assert told.startswith("Nearly ill-posed: noise in the codes grows up to ")


def test_hardly_more_pairs_than_unknowns_are_told_with_the_cure() -> None:
    x, y = pairs(10, 3, n=21, noise=0.5)
    (told,) = fit_map(x, y).warnings
    assert told.startswith("Only 21 pairs for 11 unknowns a target variable")
    assert "Give more images, or a ridge (ridge='gcv')" in told
    x, y = pairs(10, 3, n=22, noise=0.5)
    assert fit_map(x, y).warnings == ()
    assert fit_map(x[:15], y[:15], ridge=1.0).warnings == ()
    assert fit_map(x[:15], y[:15], kind="orthogonal").warnings == ()


def test_a_rotation_into_fewer_variables_is_not_ill_posed() -> None:
    for kind in ("orthogonal", "orthogonalised"):
        assert fit_map(*pairs(6, 2, noise=0.5), kind=kind).evidence["ill_posed"] is False
    x, y = pairs(6, 6, n=4, noise=0.5)
    told = fit_map(x, y, kind="orthogonal").warnings
    assert told[0].startswith("Ill-posed: 4 pairs decide 3 of 6 directions")


# What can go wrong


def test_encodings_of_different_images_are_refused() -> None:
    x, y = pairs(4, 3)
    words = r"different images \(images of A, 80 codes; images of B, 80 codes\)\. Encode one image set with both models"
    with pytest.raises(IllPosedError, match=words):
        fit_map(encoding(x), encoding(y, model="B", images_hash="other"))
    with pytest.raises(IllPosedError, match="80 codes; images of B, 79 codes"):
        fit_map(encoding(x), encoding(y[:79], model="B"))


@pytest.mark.parametrize(
    ("source", "target", "error", "words"),
    [
        (torch.zeros(5, 2, 2), torch.zeros(5, 3), CodeShapeError, r"source codes of shape n x variables, got \(5, 2, 2\)"),
        (torch.zeros(5, 2), torch.zeros(5), CodeShapeError, r"target codes of shape n x variables, got \(5,\)"),
        (torch.zeros(5, 0), torch.zeros(5, 3), CodeShapeError, r"source codes of shape n x variables, got \(5, 0\)"),
        (torch.rand(1, 2), torch.rand(1, 3), IllPosedError, "One pair of codes tells nothing"),
        (torch.zeros(5, 2), torch.zeros(4, 3), CodeShapeError, "must be paired: got 5 and 4 of them"),
        (torch.zeros(0, 2), torch.zeros(0, 3), IllPosedError, "No pairs of codes were given"),
        (
            torch.rand(2, 2),
            torch.rand(2, 3),
            IllPosedError,
            r"Give at least 3 pairs, or a ridge \(ridge='gcv' in Python, --ridge gcv in the shell\)",
        ),
        (
            torch.full((5, 2), torch.nan),
            torch.zeros(5, 3),
            NonFiniteError,
            "Row 0 holds NaN or infinity among its source codes",
        ),
        (torch.rand(5, 2), torch.full((5, 3), torch.inf), NonFiniteError, "Row 0 holds NaN or infinity among its target codes"),
        (
            torch.full((5, 2), 0.1),
            torch.rand(5, 3),
            IllPosedError,
            "source codes are constant: all 5 of them.*look at the encoder",
        ),
        (
            torch.rand(5, 2),
            torch.full((5, 3), 7.0),
            IllPosedError,
            "target codes are constant: all 5 of them.*look at the encoder",
        ),
    ],
)
def test_codes_that_make_no_map_are_refused(source: Tensor, target: Tensor, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        fit_map(source, target)


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"kind": "afine"}, UnknownNameError, r"Unknown kind of map 'afine'\. Did you mean 'affine'"),
        ({"kind": "orthogonal", "ridge": 1.0}, SettingError, "neither a ridge nor a choice of bias"),
        ({"kind": "orthogonal", "ridge": "gcv"}, SettingError, "neither a ridge nor a choice of bias"),
        ({"kind": "orthogonal", "bias": False}, SettingError, "neither a ridge nor a choice of bias"),
        ({"ridge": -1.0}, SettingError, "Ridge must be a finite number of at least 0, got -1.0"),
        ({"ridge": float("nan")}, SettingError, "Ridge must be a finite number of at least 0, got nan"),
        ({"kind": "reduced-rank"}, SettingError, r"needs a rank of at least 1, got None. Give one \(rank=8\)"),
        ({"kind": "reduced-rank", "rank": 0}, SettingError, "needs a rank of at least 1, got 0"),
        ({"kind": "reduced-rank", "rank": 4}, SettingError, "from 3 to 3 variables has a rank of 1 to 3, got 4"),
        ({"rank": 2}, SettingError, "Only a reduced-rank map has a rank to choose; got 2 for affine"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        fit_map(*pairs(3, 3), **settings)


def test_a_bad_row_is_counted_over_all_chunks_and_batches() -> None:
    x, y = pairs(4, 3, n=20_000)
    y[15_001, 2] = torch.nan
    with pytest.raises(NonFiniteError, match="Row 15001 holds NaN or infinity among its target codes"):
        fit_map(x, y)
    with pytest.raises(NonFiniteError, match="Row 15001 "):
        paired_moments_of(zip(x.split(999), y.split(999), strict=True))


def test_a_stream_that_cannot_be_mapped_is_refused() -> None:
    x, y = pairs(4, 3)
    with pytest.raises(IllPosedError, match="empty stream; give at least one batch of pairs"):
        paired_moments_of([])
    with pytest.raises(IllPosedError, match="No pairs of codes were given"):
        fit_map_from(paired_moments_of([(x[:0], y[:0])]))
    with pytest.raises(CodeShapeError, match="must be paired: got 80 and 79 of them"):
        paired_moments_of([(x, y), (x, y[1:])])
    with pytest.raises(CodeShapeError, match="Rows of 4 and 3 variables are wanted"):
        paired_moments_of([(x, y), (y, x)])
    with pytest.raises(CodeShapeError, match=r"source codes of shape n x variables, got \(80, 2, 2\)"):
        paired_moments_of([(x.view(80, 2, 2), y)])
    with pytest.raises(CodeShapeError, match="sources have 4 and 3 variables"):
        paired_moments_of([(x, y)]).merge(paired_moments_of([(y, x)]))
    with pytest.raises(SettingError, match="Leaving one out needs the pairs again, and moments hold none"):
        fit_map_from(paired_moments_of([(x, y)]), ridge="loo")


def test_an_unknown_ridge_is_answered_with_the_known() -> None:
    """Unwrapped: in tests the type checker would answer first."""
    with pytest.raises(
        UnknownNameError, match=r"Unknown ridge 'gvc'\. Did you mean 'gcv'.*Known: gcv, loo.*Or give a number, or None"
    ):
        inspect.unwrap(fit_map)(*pairs(3, 3), ridge="gvc")  # type: ignore[arg-type]


def test_the_leave_one_out_error_is_told_only_of_the_map_that_it_is_of() -> None:
    x, y = pairs(4, 3, noise=0.5)
    assert "leave_one_out_error" in fit_map(x, y, ridge="loo").evidence
    assert "leave_one_out_error" not in fit_map(x, y, kind="reduced-rank", rank=1, ridge="loo").evidence
