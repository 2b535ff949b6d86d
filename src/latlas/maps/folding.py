"""A linear map folded into the decoder that it leads to: one network from codes of the source to images."""

import math

import torch
from torch import Tensor

from latlas.base.errors import CodeShapeError
from latlas.base.provenance import UNSTATED, Provenance, tensor_hash
from latlas.base.shapes import LatentShape
from latlas.maps.linear import LinearMap
from latlas.maps.spatial_map import SpatialMap
from latlas.models.protocols import LatentModel, scaling_of
from latlas.models.relocated import AffineRelocation, RelocatedModel, Relocation, SpatialRelocation, require_decoder


def fold(fitted: LinearMap | SpatialMap, target: LatentModel) -> RelocatedModel:
    """Return the model whose decoder is the map and then the target's decoder.

    The map's numbers are kept in float32, as a network's; where it is applied by itself, it computes in float64. It remains a
    layer of its own: multiplied into a first dense layer it would save less than one product in a hundred, and the decoder
    would be of no architecture that can be read again.

    Args:
        fitted: the map. One between vectors also leads to a spatial latent space of as many variables, row by row.
        target: the model whose codes the map makes.

    Raises:
        CapabilityError: a target that does not decode.
        CodeShapeError: the map leads elsewhere than to the target's latent space: to another shape, to another model, or to
            latents that are scaled otherwise.
    """
    decoder = require_decoder(target, "Folding a map")
    _check_leads_to(fitted, target)
    relocation: Relocation
    parts: tuple[Tensor, ...]
    if isinstance(fitted, SpatialMap):
        latent_shape = _source_shape(fitted, target)
        geometry = fitted.geometry
        # Of centred codes: what a whole window of fill gives is the same everywhere, and joins the bias.
        bias = fitted.bias.double() + torch.einsum("tsij,s->t", fitted.weight.double(), fitted.fill.double())
        relocation = SpatialRelocation(
            fitted.weight, bias, fitted.fill, down=geometry.down, up=geometry.up, margin=geometry.margin
        )
        parts = (fitted.weight, fitted.bias, fitted.fill)
    else:
        if math.prod(target.latent_shape) != fitted.target_size:
            raise _elsewhere(fitted, f"{fitted.target_size} variables", target)
        latent_shape = (fitted.source_size,)
        relocation = AffineRelocation(fitted.weight, fitted.bias, tuple(target.latent_shape))
        parts = (fitted.weight, fitted.bias)
    made_from = {"map": tensor_hash(*parts), "target": target.fingerprint}
    if fitted.source_fingerprint is not None:
        made_from["source"] = fitted.source_fingerprint
    return RelocatedModel(
        decoder,
        relocation,
        latent_shape=latent_shape,
        source=fitted.source,
        evidence={"map": fitted.kind, **fitted.evidence},
        provenance=Provenance(made_by="fold", made_from=made_from, settings={"fitted_by": fitted.provenance.to_json()}),
    )


def _check_leads_to(fitted: LinearMap | SpatialMap, target: LatentModel) -> None:
    wanted, found = fitted.target_fingerprint, target.fingerprint
    if wanted is not None and UNSTATED not in (wanted, found) and wanted != found:
        raise CodeShapeError(
            f"This map leads to {fitted.target} (weights {wanted[:12]}), and {target.name} has others (weights {found[:12]}). "
            "Give the map's own target, or fit a map to this model."
        )
    scaling = scaling_of(target)
    mapped: str | None = getattr(fitted, "target_scaling", None)
    if None not in (scaling, mapped) and scaling != mapped:
        raise CodeShapeError(
            f"This map leads to {mapped} latents of {fitted.target}, and {target.name} decodes {scaling} ones. "
            f"Load the model with {mapped} latents, or fit a map to {scaling} ones."
        )


def _source_shape(fitted: SpatialMap, target: LatentModel) -> LatentShape:
    channels, *grid = target.latent_shape
    up, down = fitted.geometry.up, fitted.geometry.down
    if len(grid) != 2 or channels != fitted.target_channels or any(side % up for side in grid):
        raise _elsewhere(fitted, f"{fitted.target_channels} channels in blocks of {up} x {up} positions", target)
    rows, columns = (side // up * down for side in grid)
    return (fitted.source_channels, rows, columns)


def _elsewhere(fitted: LinearMap | SpatialMap, reached: str, target: LatentModel) -> CodeShapeError:
    shape = "x".join(map(str, target.latent_shape))
    return CodeShapeError(
        f"This map leads to codes of {reached} ({fitted.target}), and {target.name} decodes codes of shape {shape}. "
        "Give the map's own target, or fit a map to this model."
    )
