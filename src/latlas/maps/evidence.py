"""What is known of a fit, ready for JSON, and in words what a person must hear of it."""

import math

import torch
from torch import Tensor

from latlas.numerics.solve import LinearFit

NEARLY_SINGULAR = 1e10  # condition at which a solve in float64 keeps some six digits
_LISTED = 8  # variables that a warning names one by one


def evidence(fit: LinearFit, *, unknowns: int | None = None) -> dict[str, object]:
    """Return what is known of a fit, ready for JSON (None for what is undefined).

    Args:
        fit: the fit.
        unknowns: free numbers a target variable, which least squares needs as many pairs for; None for a rotation.
    """
    record: dict[str, object] = {
        "pairs": fit.count,
        "ridge": fit.ridge,
        "rank": fit.rank,
        "condition": fit.condition if math.isfinite(fit.condition) else None,
        "ill_posed": fit.ill_posed,
        "constant_source_variables": _where(fit.constant.tolist()),
        "r2": [None if math.isnan(value) else value for value in fit.r2.tolist()],
        "residual_variance": fit.residual_covariance.diagonal().tolist(),
        "warnings": warnings_of(fit, unknowns=unknowns),
    }
    if fit.rank_errors is not None:
        record["rank_errors"] = fit.rank_errors.tolist()
    return record


def warnings_of(fit: LinearFit, *, unknowns: int | None) -> list[str]:
    """Return what is wrong with a fit, and what would cure it: one or two sentences each."""
    constant = _where(fit.constant.tolist())
    found = []
    if constant:
        listed = ", ".join(map(str, constant[:_LISTED])) + (
            f" and {len(constant) - _LISTED} more" if constant[_LISTED:] else ""
        )
        found.append(
            f"Source variables that never vary: {listed} (counted from 0). Nothing can be learnt from them and they get no "
            "weight. Prune them from the model, or give more varied images."
        )
    if fit.rank + len(constant) < fit.full_rank:
        found.append(
            f"Ill-posed: {fit.count} pairs decide {fit.rank} of {fit.full_rank} directions, and of all maps that fit equally well "
            "the one with the smallest weights was taken. A ridge (ridge='gcv'), more varied images, or pruning variables that "
            "repeat others would settle it."
        )
    elif fit.condition > NEARLY_SINGULAR and math.isfinite(fit.condition):
        found.append(
            f"Nearly ill-posed: noise in the codes grows up to {fit.condition:.1e}-fold in the weights. A ridge (ridge='gcv') or "
            "more varied images would settle it."
        )
    if unknowns is not None and fit.ridge == 0.0 and fit.count < 2 * unknowns:
        found.append(
            f"Only {fit.count} pairs for {unknowns} unknowns a target variable: the map fits the noise of these pairs, and will err "
            "more on others than R2 says. Give more images, or a ridge (ridge='gcv')."
        )
    return found


def evidence_of_inverse(weight: Tensor) -> dict[str, object]:
    """Return what is known of the way back from what a weight makes, ready for JSON.

    Args:
        weight: of the way there, `s t`.
    """
    values = torch.linalg.svdvals(weight)
    rank = int((values > values[0] * torch.finfo(values.dtype).eps * max(weight.shape)).sum())
    condition = float(values[0] / values[rank - 1]) if rank else None
    warnings = []
    if rank < weight.shape[0]:
        warnings.append(
            f"The map there keeps {rank} of {weight.shape[0]} directions of its source. What it loses does not come back: of all "
            "codes that it takes to the same place, the way back gives the shortest. A map fitted the other way gives the likeliest."
        )
    if condition is not None and condition > NEARLY_SINGULAR:
        warnings.append(
            f"Nearly singular: noise in the codes grows up to {condition:.1e}-fold on the way back. Fit the other way instead."
        )
    return {"rank": rank, "condition": condition, "warnings": warnings}


def _where(flags: list[bool]) -> list[int]:
    return [index for index, flag in enumerate(flags) if flag]
