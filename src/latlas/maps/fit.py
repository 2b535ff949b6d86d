"""Paired codes -> LinearMap, through their joint moments alone."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from torch import Tensor

from latlas.base.errors import CodeShapeError, IllPosedError, SettingError, unknown_name
from latlas.base.provenance import Provenance, tensor_hash
from latlas.encodings.encoding import Encoding, require_paired
from latlas.encodings.engines.engine import Engine
from latlas.encodings.mapped import batches
from latlas.encodings.statistics import paired_moments
from latlas.maps.evidence import evidence
from latlas.maps.inputs import check_ridge, codes_of, fingerprint_of, name_of
from latlas.maps.linear import LinearMap
from latlas.numerics.leave_one_out import Batches, choose_ridge_leaving_one_out
from latlas.numerics.moments import PairedMoments
from latlas.numerics.restricted import fit_orthogonalised, fit_reduced_rank
from latlas.numerics.solve import LinearFit, choose_ridge, fit_affine, fit_orthogonal

KINDS = ("affine", "orthogonal", "orthogonalised", "reduced-rank")
RIDGES = ("gcv", "loo")
_CHUNK = 8192  # rows read at a time: of codes on disk, no more are in memory

RidgeChoice = float | Literal["gcv", "loo"] | None


def fit_map(
    source: Tensor | Encoding | str | Path,
    target: Tensor | Encoding | str | Path,
    *,
    kind: str = "affine",
    ridge: RidgeChoice = None,
    bias: bool = True,
    rank: int | None = None,
    engine: Engine | None = None,
) -> LinearMap:
    """Return the linear map from source codes to target codes with the least squared latent error.

    The pairs are read once, in chunks (three times with `ridge="loo"`); memory does not grow with their number where the
    codes are on disk (`Encoding.from_pretrained`).

    Args:
        source: codes `n s`, an encoding, or the folder of one: workers open that themselves, where other codes travel to them.
        target: codes `n t` of the same images in the same order, an encoding, or a folder.
        kind: "affine" (least squares), "orthogonal" (rotation, one scale, shift: Procrustes), "orthogonalised" (the rotation
            nearest to the least-squares weight, one scale, shift) or "reduced-rank" (least squares of a given rank).
        ridge: penalty on squared weights in scikit-learn's units; None for none, "gcv" to choose it by generalised
            cross-validation, "loo" by exact leave-one-out. Not for orthogonal maps.
        bias: whether the map has an intercept. Not for orthogonal maps, which always have.
        rank: of a reduced-rank map, from 1 to the smaller of s and t. `evidence["rank_errors"]` tells what others would give.
        engine: who gathers the moments of the pairs; None: this process. Leaving one out reads the pairs here all the same.

    Raises:
        UnknownNameError: no such kind, or word for a ridge.
        CodeShapeError: codes that are no matrices, or of different numbers.
        IllPosedError: encodings of different images; fewer pairs than unknowns without a ridge; constant codes.
        NonFiniteError: NaN among the codes; names the row.
        SettingError: a ridge or `bias=False` for an orthogonal map; a negative ridge; a rank out of its range, for another
            kind, or none for a reduced-rank map.

    >>> import torch
    >>> codes = torch.randn(80, 3, dtype=torch.float64)
    >>> fit_map(codes, codes @ torch.ones(3, 2, dtype=torch.float64) + 5).weight.round().tolist()
    [[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]]
    """
    check_settings(kind, ridge, bias=bias, rank=rank)
    places = source, target
    source, target = (Encoding.from_pretrained(place) if isinstance(place, str | Path) else place for place in places)
    if isinstance(source, Encoding) and isinstance(target, Encoding):
        require_paired(source, target)
    left, right = codes_of(source), codes_of(target)
    _check_pair(left, right)
    if engine is None:
        moments = paired_moments_of(zip(batches(left, _CHUNK), batches(right, _CHUNK), strict=True))
    else:
        moments = paired_moments(*places, engine=engine)
    return _fitted(
        moments,
        kind=kind,
        ridge=ridge,
        bias=bias,
        rank=rank,
        again=lambda: zip(batches(left, _CHUNK), batches(right, _CHUNK), strict=True),
        spaces=(source, target),
        made_by="fit_map",
        made_from=_moments_hash(moments) | _origins(source, target),
    )


def fit_map_from(
    moments: PairedMoments,
    *,
    kind: str = "affine",
    ridge: RidgeChoice = None,
    bias: bool = True,
    rank: int | None = None,
    source: str = "source",
    target: str = "target",
) -> LinearMap:
    """Return the linear map from moments that were gathered elsewhere, over batches or processes, and merged.

    Args:
        moments: what `paired_moments_of` gave, or several of them merged.
        kind: as in `fit_map`, and so are the other settings.
        ridge: a number or "gcv"; "loo" needs the pairs again, which only `fit_map` has.
        bias: whether the map has an intercept.
        rank: of a reduced-rank map.
        source: name of the source space.
        target: name of the target space.

    Raises:
        SettingError: `ridge="loo"`; else as `fit_map`.
    """
    check_settings(kind, ridge, bias=bias, rank=rank)
    if ridge == "loo":
        raise SettingError(
            "Leaving one out needs the pairs again, and moments hold none. Use ridge='gcv', or give codes to fit_map."
        )
    return _fitted(
        moments,
        kind=kind,
        ridge=ridge,
        bias=bias,
        rank=rank,
        again=None,
        spaces=(source, target),
        made_by="fit_map_from",
        made_from=_moments_hash(moments),
    )


def paired_moments_of(pairs: Iterable[tuple[Tensor, Tensor]]) -> PairedMoments:
    """Return the joint moments of a stream of paired batches of codes, read once: memory does not grow with its length.

    The moments of several streams, in several processes, add up: `first.merge(second)`.

    Args:
        pairs: batches of source codes `n s` and of target codes `n t`.

    Raises:
        CodeShapeError: codes that are no matrices, of different numbers, or of other widths than those before.
        IllPosedError: an empty stream.
        NonFiniteError: NaN among the codes; names the row, counted over the whole stream.

    >>> import torch
    >>> paired_moments_of((torch.randn(5, 3), torch.randn(5, 2)) for _ in range(4)).count
    20
    """
    return PairedMoments.over(_checked(pairs))


def check_settings(kind: str, ridge: float | str | None, *, bias: bool = True, rank: int | None = None) -> None:
    """Raise unless `fit_map` could fit with these settings: asked before any work.

    Raises:
        UnknownNameError: no such kind, or a word for a ridge that is neither "gcv" nor "loo".
        SettingError: a ridge or `bias=False` for an orthogonal map; a negative or non-finite ridge; a rank below 1, for
            another kind than "reduced-rank", or none for that.
    """
    if kind not in KINDS:
        raise unknown_name("kind of map", kind, KINDS)
    if kind == "orthogonal" and (ridge is not None or not bias):
        raise SettingError("An orthogonal map has neither a ridge nor a choice of bias. Leave them out, or fit an affine map.")
    if kind == "reduced-rank" and not (isinstance(rank, int) and rank >= 1):
        raise SettingError(f"A reduced-rank map needs a rank of at least 1, got {rank}. Give one (rank=8).")
    if kind != "reduced-rank" and rank is not None:
        raise SettingError(f"Only a reduced-rank map has a rank to choose; got {rank} for {kind}. Leave it out.")
    check_ridge(ridge, RIDGES)


def _fitted(
    moments: PairedMoments,
    *,
    kind: str,
    ridge: RidgeChoice,
    bias: bool,
    rank: int | None,
    again: Batches | None,
    spaces: tuple[Encoding | Tensor | str, Encoding | Tensor | str],
    made_by: str,
    made_from: dict[str, str],
) -> LinearMap:
    if moments.count == 0:
        raise IllPosedError("No pairs of codes were given; a map needs at least one more pair than the source has variables.")
    _require_varied(moments if bias else moments.uncentred())
    left_out: Tensor | None = None
    if ridge == "loo":
        assert again is not None
        strength, left_out = choose_ridge_leaving_one_out(moments, again, bias=bias)
    elif ridge == "gcv":
        strength = choose_ridge(moments, bias=bias)
    else:
        strength = float(ridge or 0.0)
    fit = _fit(moments, kind=kind, ridge=strength, bias=bias, rank=rank)
    record = evidence(fit, unknowns=None if kind == "orthogonal" else moments.source_size + int(bias))
    if rank is not None:
        record["map_rank"] = rank
    if left_out is not None and kind == "affine":  # it is the error of the unrestricted map, of no other
        record["leave_one_out_error"] = left_out.tolist()
    return LinearMap(
        weight=fit.weight,
        bias=fit.bias,
        kind=kind,
        source=name_of(spaces[0], "source"),
        target=name_of(spaces[1], "target"),
        source_fingerprint=fingerprint_of(spaces[0]),
        target_fingerprint=fingerprint_of(spaces[1]),
        residual_covariance=fit.residual_covariance,
        evidence=record,
        provenance=Provenance(
            made_by=made_by,
            made_from=made_from,
            settings={"kind": kind, "ridge": ridge, "bias": bias} | ({} if rank is None else {"rank": rank}),
        ),
    )


def _fit(moments: PairedMoments, *, kind: str, ridge: float, bias: bool, rank: int | None) -> LinearFit:
    if kind == "orthogonal":
        return fit_orthogonal(moments)
    if kind == "orthogonalised":
        return fit_orthogonalised(moments, ridge=ridge, bias=bias)
    if kind == "reduced-rank":
        assert rank is not None
        return fit_reduced_rank(moments, rank=rank, ridge=ridge, bias=bias)
    return fit_affine(moments, ridge=ridge, bias=bias)


def _require_varied(used: PairedMoments) -> None:
    for name, side in (("source", used.source), ("target", used.target)):
        if bool(side.constant().all()):
            if used.count == 1:
                raise IllPosedError("One pair of codes tells nothing of how they vary; give at least 2, better many more.")
            raise IllPosedError(
                f"The {name} codes are constant: all {used.count} of them are alike, so no map can be fitted. Give images that "
                "differ, and look at the encoder: it may have collapsed."
            )


def _checked(pairs: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    for left, right in pairs:
        _check_pair(left, right)
        yield left, right


def _check_pair(source: Tensor, target: Tensor) -> None:
    for name, codes in (("source", source), ("target", target)):
        if codes.ndim != 2 or codes.shape[1] == 0:
            raise CodeShapeError(
                f"A vector map needs {name} codes of shape n x variables, got {tuple(codes.shape)}. Flatten spatial codes, or use "
                "fit_spatial_map where both are spatial."
            )
    if source.shape[0] != target.shape[0]:
        raise CodeShapeError(
            f"Source and target codes must be paired: got {source.shape[0]} and {target.shape[0]} of them. Encode the same images "
            "with both models."
        )


def _moments_hash(moments: PairedMoments) -> dict[str, str]:
    # All that a fit takes from the pairs; hashing every row would take longer than fitting them.
    return {"moments": tensor_hash(moments.joint.mean, moments.joint.scatter)}


def _origins(source: Encoding | Tensor, target: Encoding | Tensor) -> dict[str, str]:
    """Return what an encoding knows of where it comes from: its images, and its model's weights."""
    known = {}
    for name, space in (("source", source), ("target", target)):
        if isinstance(space, Encoding):
            known["images"] = space.images_hash
            fingerprint = fingerprint_of(space)
            if fingerprint is not None:
                known[name] = fingerprint
    return known
