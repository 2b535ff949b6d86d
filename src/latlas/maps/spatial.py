"""Paired spatial codes -> SpatialMap, through the joint moments of their patches alone."""

import hashlib
import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from latlas.base.errors import IllPosedError
from latlas.base.provenance import Provenance, tensor_hash
from latlas.encodings.encoding import Encoding, require_paired
from latlas.maps.evidence import NEARLY_SINGULAR
from latlas.maps.inputs import check_ridge, codes_of, fingerprint_of, name_of
from latlas.maps.spatial_map import SpatialMap as SpatialMap
from latlas.maps.spatial_map import stated_scaling
from latlas.numerics.patches import PatchMoments, check_paired, geometry_between
from latlas.numerics.solve import LinearFit, choose_ridge, fit_affine

Ridge = float | Literal["gcv"] | None
RIDGES = ("gcv",)

_CONSTANT = 1e-12  # below this share of its mean a channel's spread is rounding


def fit_spatial_map(
    source: Tensor | Encoding,
    target: Tensor | Encoding,
    *,
    neighbourhood: int = 1,
    ridge: Ridge = None,
    bias: bool = True,
    source_scaling: str | None = None,
    target_scaling: str | None = None,
) -> SpatialMap:
    """Return the spatial map from source codes to target codes with the least squared error over all positions.

    Args:
        source: codes `n s h w`, or an encoding.
        target: codes `n t h' w'` of the same images in the same order, or an encoding. Either grid may be finer than the
            other by an integer factor.
        neighbourhood: source positions across that predict a target position (or block of them); odd.
        ridge: penalty on squared weights in scikit-learn's units; None for none, "gcv" to choose it by generalised
            cross-validation. That counts every position as an observation of its own; neighbouring positions are alike, so
            it tends to choose too little.
        bias: whether the map has an intercept.
        source_scaling: which of the model's latents these are ("raw", "scaled"); None for what the encoding states. Kept, and
            checked by `check_source`.
        target_scaling: likewise of the target.

    Raises:
        CodeShapeError: vector codes; codes of different numbers; grids that differ by no integer factor.
        IllPosedError: encodings of different images; constant codes; fewer positions than unknowns without a ridge.
        NonFiniteError: NaN among the codes.
        SettingError, UnknownNameError: an even neighbourhood; a ridge below 0, or a word for one that is not "gcv"; a scaling
            that contradicts the encoding.

    >>> codes = torch.randn(8, 4, 6, 6, dtype=torch.float64)
    >>> fit_spatial_map(codes, 2 * codes + 1).parameters
    20
    """
    check_ridge(ridge, RIDGES)
    left, right = codes_of(source), codes_of(target)
    scalings = stated_scaling(source, source_scaling), stated_scaling(target, target_scaling)
    check_paired(left, right)
    if isinstance(source, Encoding) and isinstance(target, Encoding):
        require_paired(source, target)
    geometry = geometry_between(left, right, neighbourhood=neighbourhood)
    fitted = fit_spatial_map_from(PatchMoments.of(left, right, geometry), ridge=ridge, bias=bias)
    return replace(
        fitted,
        source=name_of(source, "source"),
        target=name_of(target, "target"),
        source_fingerprint=fingerprint_of(source),
        target_fingerprint=fingerprint_of(target),
        source_scaling=scalings[0],
        target_scaling=scalings[1],
        provenance=Provenance(
            made_by="fit_spatial_map",
            made_from={"source": tensor_hash(left), "target": tensor_hash(right)},
            settings={"neighbourhood": neighbourhood, "ridge": ridge, "bias": bias},
        ),
    )


def fit_spatial_map_over(
    pairs: Iterable[tuple[Tensor, Tensor]],
    *,
    neighbourhood: int = 1,
    ridge: Ridge = None,
    bias: bool = True,
    source: str = "source",
    target: str = "target",
    source_scaling: str | None = None,
    target_scaling: str | None = None,
) -> SpatialMap:
    """Return the spatial map from a stream of paired batches, read once: memory does not grow with its length.

    Args:
        pairs: batches of source codes `n s h w` and of target codes `n t h' w'`. Grids may differ from batch to batch, as
            long as the factor between source and target stays.
        neighbourhood: as in `fit_spatial_map`, and so are the other settings.
        ridge: penalty on squared weights, or "gcv".
        bias: whether the map has an intercept.
        source: name of the source space.
        target: name of the target space.
        source_scaling: which of the model's latents these are.
        target_scaling: likewise of the target.

    Raises:
        IllPosedError: an empty stream; else as `fit_spatial_map`.
    """
    check_ridge(ridge, RIDGES)
    total: PatchMoments | None = None
    digests = hashlib.sha256(), hashlib.sha256()
    for left, right in pairs:
        check_paired(left, right)
        if total is None:
            total = PatchMoments.of(left, right, geometry_between(left, right, neighbourhood=neighbourhood))
        else:
            total = total.merge(PatchMoments.of(left, right, total.geometry, fill=_known_fill(total, left)))
        for digest, codes in zip(digests, (left, right), strict=True):
            for code in codes:  # one by one, so that the batches do not matter
                digest.update(tensor_hash(code).encode())
    if total is None:
        raise IllPosedError("A map was asked of an empty stream. Give at least one batch of source and target codes.")
    return replace(
        fit_spatial_map_from(total, ridge=ridge, bias=bias),
        source=source,
        target=target,
        source_scaling=source_scaling,
        target_scaling=target_scaling,
        provenance=Provenance(
            made_by="fit_spatial_map_over",
            made_from={"source": digests[0].hexdigest(), "target": digests[1].hexdigest()},
            settings={"neighbourhood": neighbourhood, "ridge": ridge, "bias": bias},
        ),
    )


def fit_spatial_map_from(moments: PatchMoments, *, ridge: Ridge = None, bias: bool = True) -> SpatialMap:
    """Return the spatial map from moments that were gathered elsewhere, over batches or processes, and merged.

    Raises:
        IllPosedError: constant codes; fewer positions than unknowns without a ridge.
        SettingError, UnknownNameError: a ridge below 0, or a word for one that is not "gcv".
    """
    check_ridge(ridge, RIDGES)
    flat = _constant_channels(moments)
    mean = moments.source_statistics()[0]
    fill = mean if bias else torch.zeros_like(mean)
    pairs = moments.refilled(fill).pairs()
    unknowns = pairs.source_size + int(bias)
    if ridge in (None, 0) and pairs.count < unknowns:
        raise IllPosedError(
            f"This map has {unknowns} unknowns for each target channel, and {moments.codes} codes gave {pairs.count} positions. "
            "Give more images, a smaller neighbourhood, or a ridge (ridge='gcv')."
        )
    strength = choose_ridge(pairs, bias=bias) if isinstance(ridge, str) else (ridge or 0.0)
    fit = fit_affine(pairs, ridge=strength, bias=bias)
    window = moments.geometry.window
    return SpatialMap(
        weight=fit.weight.T.reshape(-1, moments.channels, window, window),
        bias=fit.bias,
        fill=fill,
        geometry=moments.geometry,
        kind="affine",
        source="source",
        target="target",
        evidence=_evidence(moments, fit, unknowns=unknowns, flat=flat),
        provenance=Provenance(
            made_by="fit_spatial_map_from",
            settings={"neighbourhood": moments.geometry.neighbourhood, "ridge": ridge, "bias": bias},
        ),
    )


def _evidence(moments: PatchMoments, fit: LinearFit, *, unknowns: int, flat: tuple[list[int], list[int]]) -> dict[str, object]:
    lost = fit.residual_covariance.diagonal().clamp_min(0.0).view(moments.target_channels, -1).mean(dim=1)
    variance = moments.target_statistics()[1]
    r2 = [None if channel in flat[1] else float(1.0 - lost[channel] / variance[channel]) for channel in range(lost.numel())]
    rank, size = fit.rank, fit.weight.shape[0]
    warnings = [
        f"{side} channels that never vary: {', '.join(map(str, which))}. {meaning}"
        for side, which, meaning in (
            ("Source", flat[0], "Nothing can be learnt from them."),
            ("Target", flat[1], "R2 is undefined there."),
        )
        if which
    ]
    if rank + int(fit.constant.sum()) < size:  # what never varies was told of, and no ridge settles it
        warnings.append(
            f"Ill-posed: the patches span {rank} of {size} dimensions, and the shortest of all weights that fit was taken. "
            "More varied images, a smaller neighbourhood or a ridge (ridge='gcv') would settle it."
        )
    elif math.isfinite(fit.condition) and fit.condition > NEARLY_SINGULAR:
        warnings.append(
            f"Nearly ill-posed: noise in the patches grows up to {fit.condition:.1e}-fold in the weights. A ridge (ridge='gcv') or "
            "a smaller neighbourhood would settle it."
        )
    if fit.ridge == 0.0 and fit.count < 2 * unknowns:
        warnings.append(
            f"Only {fit.count} positions for {unknowns} unknowns: the map fits these codes better than others. Give more images, or "
            "a ridge (ridge='gcv')."
        )
    return {
        "pairs": moments.codes,
        "positions": fit.count,
        "unknowns": unknowns,
        "ridge": fit.ridge,
        "rank": rank,
        "condition": fit.condition if math.isfinite(fit.condition) else None,
        "ill_posed": rank < size,
        "r2": r2,
        "residual_variance": lost.tolist(),
        "warnings": warnings,
    }


def _constant_channels(moments: PatchMoments) -> tuple[list[int], list[int]]:
    found = []
    for name, (mean, variance) in (("source", moments.source_statistics()), ("target", moments.target_statistics())):
        flat = variance.clamp_min(0.0).sqrt() <= _CONSTANT * mean.abs()
        if bool(flat.all()):
            raise IllPosedError(
                f"The {name} codes are the same at every position of every image; no map can be fitted. Give images that differ, "
                "and look at the encoder."
            )
        found.append(flat.nonzero().flatten().tolist())
    return found[0], found[1]


def _known_fill(total: PatchMoments, codes: Tensor) -> Tensor | None:
    return total.fill if codes.shape[1] == total.channels else None  # else `merge` says what is wrong
