"""Paired codes -> LinearMap, through their joint moments alone."""

import math
from typing import Literal

import torch
from torch import Tensor

from latlas.base.errors import CodeShapeError, IllPosedError, SettingError, unknown_name
from latlas.base.provenance import Provenance, tensor_hash
from latlas.encodings.encoding import Encoding, require_paired
from latlas.maps.linear import LinearMap, known_fingerprint
from latlas.numerics.moments import PairedMoments
from latlas.numerics.solve import LinearFit, choose_ridge, fit_affine, fit_orthogonal

KINDS = ("affine", "orthogonal")
_CHUNK = 65_536  # rows centred at a time: bounds the float64 copies


def fit_map(
    source: Tensor | Encoding,
    target: Tensor | Encoding,
    *,
    kind: str = "affine",
    ridge: float | Literal["gcv"] | None = None,
    bias: bool = True,
) -> LinearMap:
    """Return the linear map from source codes to target codes with the least squared latent error.

    Args:
        source: codes `n s`, or an encoding.
        target: codes `n t` of the same images in the same order, or an encoding.
        kind: "affine" (least squares), or "orthogonal" (rotation, one scale, shift).
        ridge: penalty on squared weights in scikit-learn's units; None for none, "gcv" to choose it by generalised
            cross-validation. Affine maps only.
        bias: whether the map has an intercept. Affine maps only.

    Raises:
        UnknownNameError: no such kind.
        CodeShapeError: codes that are no matrices, or of different numbers.
        IllPosedError: encodings of different images; fewer pairs than unknowns without a ridge.
        NonFiniteError: NaN among the codes.
        SettingError: a ridge or `bias=False` for an orthogonal map; a negative ridge.
    """
    check_settings(kind, ridge, bias=bias)
    if isinstance(source, Encoding) and isinstance(target, Encoding):
        require_paired(source, target)
    moments = paired_moments(_codes(source), _codes(target))
    if kind == "orthogonal":
        fit = fit_orthogonal(moments)
    else:
        strength = choose_ridge(moments, bias=bias) if isinstance(ridge, str) else (ridge or 0.0)
        fit = fit_affine(moments, ridge=strength, bias=bias)
    return LinearMap(
        weight=fit.weight,
        bias=fit.bias,
        kind=kind,
        source=source.model if isinstance(source, Encoding) else "source",
        target=target.model if isinstance(target, Encoding) else "target",
        source_fingerprint=_fingerprint(source),
        target_fingerprint=_fingerprint(target),
        evidence=evidence(fit),
        provenance=Provenance(
            made_by="fit_map",
            made_from={"source": tensor_hash(_codes(source)), "target": tensor_hash(_codes(target))},
            settings={"kind": kind, "ridge": ridge, "bias": bias},
        ),
    )


def check_settings(kind: str, ridge: float | str | None, *, bias: bool = True) -> None:
    """Raise unless `fit_map` could fit with these settings: asked before any work.

    Raises:
        UnknownNameError: no such kind, or a word for a ridge that is not "gcv".
        SettingError: a ridge or `bias=False` for an orthogonal map; a negative or non-finite ridge.
    """
    if kind not in KINDS:
        raise unknown_name("kind of map", kind, KINDS)
    if kind == "orthogonal" and (ridge is not None or not bias):
        raise SettingError("An orthogonal map has neither a ridge nor a choice of bias. Leave them out, or fit an affine map.")
    if isinstance(ridge, str):
        if ridge != "gcv":
            raise unknown_name("ridge", ridge, ["gcv"], hint="Or give a number, or None.")
    elif ridge is not None and not (ridge >= 0.0 and math.isfinite(ridge)):
        raise SettingError(f"Ridge must be a finite number of at least 0, got {ridge}.")


def paired_moments(source: Tensor, target: Tensor) -> PairedMoments:
    """Return the joint moments of paired codes, taken in chunks.

    Raises:
        CodeShapeError: codes that are no matrices, or of different numbers.
        IllPosedError: no pairs.
    """
    for name, codes in (("source", source), ("target", target)):
        if codes.ndim != 2:
            raise CodeShapeError(f"A vector map needs {name} codes of shape n x variables, got {tuple(codes.shape)}.")
    if source.shape[0] != target.shape[0]:
        raise CodeShapeError(f"Source and target codes must be paired: got {source.shape[0]} and {target.shape[0]} of them.")
    if source.shape[0] == 0:
        raise IllPosedError("No pairs of codes were given; a map needs at least one more pair than the source has variables.")
    total: PairedMoments | None = None
    for left, right in zip(torch.split(source, _CHUNK), torch.split(target, _CHUNK), strict=True):
        part = PairedMoments.of(left, right)
        total = part if total is None else total.merge(part)
    assert total is not None
    return total


def evidence(fit: LinearFit) -> dict[str, object]:
    """Return what is known of a fit, ready for JSON (None for what is undefined)."""
    return {
        "pairs": fit.count,
        "ridge": fit.ridge,
        "rank": fit.rank,
        "condition": fit.condition if math.isfinite(fit.condition) else None,
        "ill_posed": fit.rank < fit.weight.shape[0],
        "r2": [None if math.isnan(value) else value for value in fit.r2.tolist()],
        "residual_variance": torch.as_tensor(fit.residual_covariance).diagonal().tolist(),
    }


def _fingerprint(paired: Tensor | Encoding) -> str | None:
    return known_fingerprint(paired.provenance) if isinstance(paired, Encoding) else None


def _codes(paired: Tensor | Encoding) -> Tensor:
    return paired.mean if isinstance(paired, Encoding) else paired
