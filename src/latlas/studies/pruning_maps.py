"""The maps between the codes of a model and those of its pruned form."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from latlas.base.provenance import UNSTATED, Provenance
from latlas.maps.linear import LinearMap
from latlas.maps.spatial_map import SpatialMap
from latlas.models.protocols import LatentModel, scaling_of
from latlas.numerics.patches import PatchGeometry

Map = LinearMap | SpatialMap


def selection(model: LatentModel, pruned: LatentModel, kept: tuple[int, ...], provenance: Provenance) -> Map:
    """Return the map from codes of a model to those of the pruned one, which leaves the removed variables out."""
    weight = torch.eye(model.latent_shape[0], dtype=torch.float64)[:, list(kept)]
    return _map(weight, torch.zeros(len(kept), dtype=torch.float64), model, pruned, "selection", provenance)


def completion(
    model: LatentModel, pruned: LatentModel, kept: tuple[int, ...], held: Mapping[int, float], provenance: Provenance
) -> Map:
    """Return the map from codes of the pruned model to those of the original: removed variables get their constants."""
    bias = torch.zeros(model.latent_shape[0], dtype=torch.float64)
    bias[list(held)] = torch.tensor(list(held.values()), dtype=torch.float64)
    weight = torch.eye(len(bias), dtype=torch.float64)[list(kept)]
    return _map(weight, bias, pruned, model, "completion", provenance)


def _ends(source: LatentModel, target: LatentModel, *, spatial: bool) -> dict[str, Any]:
    known = {
        "source": source.name,
        "target": target.name,
        "source_fingerprint": None if source.fingerprint == UNSTATED else source.fingerprint,
        "target_fingerprint": None if target.fingerprint == UNSTATED else target.fingerprint,
    }
    return {**known, "source_scaling": scaling_of(source), "target_scaling": scaling_of(target)} if spatial else known


def _map(weight: Tensor, bias: Tensor, source: LatentModel, target: LatentModel, kind: str, provenance: Provenance) -> Map:
    """Return the map `codes @ weight + bias`, of vectors or of the channels at every position."""
    spatial = len(source.latent_shape) > 1
    ends = _ends(source, target, spatial=spatial)
    if not spatial:
        return LinearMap(weight=weight, bias=bias, kind=kind, provenance=provenance, **ends)
    return SpatialMap(
        weight=weight.T.contiguous()[:, :, None, None],
        bias=bias,
        fill=torch.zeros(weight.shape[0], dtype=torch.float64),
        geometry=PatchGeometry(),
        kind=kind,
        provenance=provenance,
        **ends,
    )
