"""The model cards of maps, whether between vectors or between grids, and of preview matrices."""

from collections.abc import Mapping, Sequence
from typing import Any

from latlas.base.cards import FOLDER, Card


def map_card(
    *,
    artifact: str,
    loader: str,
    fitted_as: str,
    source: str,
    target: str,
    codes: str,
    weight: Sequence[int],
    evidence: Mapping[str, Any],
) -> Card:
    """Return the card of a map.

    Args:
        artifact: its kind, for example "linear-map".
        loader: the class that reads it, as `module.Class`.
        fitted_as: "affine", "orthogonal", ...
        source: names of the two models.
        target: likewise.
        codes: shape of the codes that it takes, in words.
        weight: shape of its weight.
        evidence: of the fit. Under `comparison` it may hold `Comparison.to_json()`, which becomes the table of errors; under
            `warnings` what is to be minded, in words.
    """
    module, name = loader.rsplit(".", 1)
    r2 = [value for value in evidence.get("r2") or () if value is not None]
    return Card(
        title=f"Linear map: {source} → {target}",
        summary=(
            f"Carries codes of `{source}` into the latent space of `{target}`, whose decoder then makes images of them. "
            "The map itself needs neither images nor a network."
        ),
        usage=(
            f'from {module} import {name}\n\nto_target = {name}.from_pretrained("{FOLDER}")\n'
            f"relocated = to_target.apply(codes)  # codes of the source, {codes}\n"
            "images = target.decode(relocated)  # target: the model that the map leads to"
        ),
        kind=artifact,
        tags=(fitted_as,),
        facts={
            "fitted as": fitted_as,
            "source": source,
            "target": target,
            "weight": tuple(weight),
            "mean R2": sum(r2) / len(r2) if r2 else None,
            **evidence,
        },
        comparison=evidence.get("comparison"),
        warnings=tuple(evidence.get("warnings") or ()),
    )


def preview_card(*, artifact: str, model: str, channels: int, scaling: str | None, evidence: Mapping[str, Any]) -> Card:
    """Return the card of a preview matrix.

    Args:
        artifact: its kind.
        model: name of the model whose codes it shows.
        channels: of those codes.
        scaling: which of the model's latents these are; None where unstated.
        evidence: of the fit.
    """
    latents = "codes" if scaling is None else f"{scaling} codes"
    return Card(
        title=f"Preview of {model}",
        summary=(
            f"Shows {latents} of `{model}` as small pictures without its decoder: one pixel a position. `preview.json` holds the "
            "numbers as viewers take them (`latent_rgb_factors`)."
        ),
        usage=(
            f'from latlas import PreviewMatrix\n\npreview = PreviewMatrix.from_pretrained("{FOLDER}")\n'
            f"pictures = preview.apply(codes)  # {latents}, n x {channels} x rows x columns, to images in [0, 1]"
        ),
        kind=artifact,
        facts={"model": model, "channels": channels, "scaling": scaling, **evidence},
    )
