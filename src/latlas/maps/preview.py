"""Preview matrices: the colour of each position of a spatial code, for looking at latents without a decoder."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from latlas.base.artifacts import MISFITS, load_tensors, read_config, save_tensors, write_config, write_json, writing
from latlas.base.cards import write_card
from latlas.base.errors import ArtifactError, CodeShapeError, IllPosedError, ImageFormatError, NonFiniteError
from latlas.base.hub import Pushable, resolve
from latlas.base.provenance import Provenance, tensor_hash
from latlas.base.shapes import Images
from latlas.data.images import ImageSet
from latlas.encodings.encoding import Encoding
from latlas.maps.cards import preview_card
from latlas.maps.inputs import codes_of, exact_type, name_of
from latlas.maps.spatial_map import stated_scaling
from latlas.numerics.moments import PairedMoments
from latlas.numerics.patches import check_finite
from latlas.numerics.solve import fit_affine

KIND = "preview-matrix"
_TENSORS = "preview.safetensors"
_BATCH = 64  # images at a time: they are far larger than their codes


@dataclass(frozen=True, kw_only=True, eq=False)
class PreviewMatrix(Pushable):
    """RGB of a position = code at the position @ factors + bias, in [-1, 1], as ComfyUI's `latent_rgb_factors` have it.

    It holds for codes scaled as those that it was fitted on. Viewers see what a diffusion model sees: for ComfyUI, fit on
    scaled latents.
    """

    factors: Tensor  # c 3, float64
    bias: Tensor  # 3
    model: str = "model"  # name of the model whose codes these are
    scaling: str | None = None  # which of its latents ("raw", "scaled"); None where unstated
    evidence: Mapping[str, Any] = field(default_factory=dict)
    provenance: Provenance = field(default_factory=lambda: Provenance(made_by="PreviewMatrix"))

    def __post_init__(self) -> None:
        if self.factors.ndim != 2 or self.factors.shape[1] != 3 or tuple(self.bias.shape) != (3,):
            raise CodeShapeError(
                f"A preview matrix needs factors c x 3 and a bias of 3, got {tuple(self.factors.shape)}, {tuple(self.bias.shape)}."
            )

    @property
    def channels(self) -> int:
        """Channels of the codes."""
        return self.factors.shape[0]

    def unit(self) -> tuple[Float[Tensor, "c 3"], Float[Tensor, " 3"]]:
        """Return factors and bias for viewers whose colours lie in [0, 1]."""
        return self.factors / 2, (self.bias + 1) / 2

    def apply(self, codes: Float[Tensor, "n *source"]) -> Float[Tensor, "n 3 h w"]:
        """Return images in [0, 1], one pixel a position, in the type of the codes; colours beyond are clamped.

        Raises:
            CodeShapeError: vector codes, or codes of other channels.
        """
        if codes.ndim != 4 or codes.shape[1] != self.channels:
            raise CodeShapeError(
                f"This preview takes spatial codes of {self.channels} channels ({self.model}), got shape {tuple(codes.shape)}. "
                "Use codes of that model, or fit a preview for yours."
            )
        exact = exact_type(codes)
        factors, bias = (part.to(codes.device, exact) for part in self.unit())
        colours = torch.einsum("nchw,ck->nkhw", codes.to(exact), factors) + bias[:, None, None]
        return colours.clamp(0.0, 1.0).to(codes.dtype)

    def to_json(self) -> dict[str, Any]:
        """Return both forms under the names that viewers use, with what is known of the fit."""
        factors, bias = self.unit()
        return {
            "model": self.model,
            "scaling": self.scaling,
            "latent_rgb_factors": self.factors.tolist(),
            "latent_rgb_factors_bias": self.bias.tolist(),
            "range": [-1, 1],
            "unit": {"factors": factors.tolist(), "bias": bias.tolist(), "range": [0, 1]},
            "evidence": dict(self.evidence),
        }

    def save_pretrained(self, folder: str | Path, *, replace: bool = False) -> None:
        """Write the matrix as an artifact folder, with `preview.json` to copy numbers from.

        Raises:
            OutputExistsError: the folder already holds something.
        """
        with writing(folder, replace=replace) as beside:
            save_tensors(beside / _TENSORS, {"factors": self.factors, "bias": self.bias})
            write_json(beside / "preview.json", self.to_json())
            settings = {"model": self.model, "scaling": self.scaling, "evidence": dict(self.evidence)}
            card = preview_card(
                artifact=KIND, model=self.model, channels=self.channels, scaling=self.scaling, evidence=self.evidence
            )
            write_card(beside, card, self.provenance)
            write_config(beside, kind=KIND, settings=settings, provenance=self.provenance)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> "PreviewMatrix":
        """Read what `save_pretrained` wrote: its folder, or its Hub id.

        Raises:
            MissingPathError, ArtifactError: no such artifact, or a damaged one.
            HubError: a Hub id, and the Hub could not be reached.
        """
        folder = resolve(folder)
        config = read_config(folder, kind=KIND)
        tensors = load_tensors(Path(folder) / _TENSORS)
        settings = config["settings"]
        try:
            return cls(
                factors=tensors["factors"],
                bias=tensors["bias"],
                model=settings["model"],
                scaling=settings["scaling"],
                evidence=settings["evidence"],
                provenance=Provenance.from_json(config["provenance"]),
            )
        except (*MISFITS, CodeShapeError) as failure:
            raise ArtifactError(f"{folder} is not a readable preview matrix ({failure}). Fit it again.") from failure


def fit_preview(codes: Tensor | Encoding, images: Tensor | ImageSet, *, scaling: str | None = None) -> PreviewMatrix:
    """Return the preview matrix with the least squared error against images averaged onto the grid of their codes.

    Args:
        codes: `n c h w`, or an encoding.
        images: the images encoded, in the same order, in [0, 1]; grey ones count as three equal colours.
        scaling: which of the model's latents the codes are ("raw", "scaled"); None for what the encoding states. Kept with the
            matrix.

    Raises:
        CodeShapeError: vector codes, or codes of another number than the images.
        ImageFormatError: images that the grid does not divide, or outside [0, 1].
        IllPosedError: an encoding of other images; constant codes or images; fewer positions than unknowns.
        NonFiniteError: NaN among codes or images.
        SettingError: a scaling that contradicts the encoding.
    """
    points = codes_of(codes)
    pixels = images.storage if isinstance(images, ImageSet) else images
    _check(points, pixels)
    if isinstance(codes, Encoding) and isinstance(images, ImageSet) and not codes.is_of(images):
        raise IllPosedError(
            f"The encoding is of other images ({codes.images}) than were given ({images.name}). Give the images that were encoded."
        )
    total: PairedMoments | None = None
    batches: Iterator[Images] = images.batches(_BATCH) if isinstance(images, ImageSet) else iter(torch.split(images, _BATCH))
    for some, pictures in zip(torch.split(points, _BATCH), batches, strict=True):
        part = PairedMoments.of(_positions(some), _positions(_colours(pictures, some)))
        total = part if total is None else total.merge(part)
    assert total is not None
    _check_varied(total)
    fit = fit_affine(total)
    variance = total.target.variance()
    lost = fit.residual_covariance.diagonal().clamp_min(0.0)
    return PreviewMatrix(
        factors=fit.weight,
        bias=fit.bias,
        model=name_of(codes, "model"),
        scaling=stated_scaling(codes, scaling),
        evidence={
            "pairs": points.shape[0],
            "positions": fit.count,
            "rank": fit.rank,
            "ill_posed": fit.rank < points.shape[1],
            "r2": [None if math.isnan(value) else value for value in fit.r2.tolist()],  # red, green, blue
            "r2_overall": 1.0 - float(lost.sum() / variance.sum()),
            "squared_error": float(lost.mean()) / 4,  # per colour and position, of colours in [0, 1]
        },
        provenance=Provenance(
            made_by="fit_preview",
            made_from={"codes": tensor_hash(points), "images": tensor_hash(pixels)},
            settings={"scaling": scaling},
        ),
    )


def _check(codes: Tensor, images: Tensor) -> None:
    if codes.ndim != 4:
        raise CodeShapeError(
            f"A preview needs spatial codes, n x channels x rows x columns, got {tuple(codes.shape)}: vectors have no positions."
        )
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ImageFormatError(f"A preview needs images n x c x h x w of 1 or 3 channels, got {tuple(images.shape)}.")
    if codes.shape[0] != images.shape[0]:
        raise CodeShapeError(f"Codes and images must be paired: got {codes.shape[0]} codes and {images.shape[0]} images.")
    if 0 in codes.shape:
        raise IllPosedError(f"No codes were given: {tuple(codes.shape)}. Give those of some images.")
    (rows, columns), (height, width) = codes.shape[2:], images.shape[2:]
    if not height or height % rows or width % columns:
        raise ImageFormatError(
            f"Images of {height} x {width} pixels do not divide into the {rows} x {columns} positions of their codes. "
            "Give the images at the size at which they were encoded."
        )
    positions, channels = codes.shape[0] * rows * columns, codes.shape[1]
    if positions < channels + 1:
        raise IllPosedError(
            f"A preview of {channels} channels needs at least {channels + 1} positions, got {positions}. Give more images."
        )
    check_finite(codes, "code")


def _check_varied(moments: PairedMoments) -> None:
    for name, part in (("codes", moments.source), ("images", moments.target)):
        if bool((part.variance().clamp_min(0.0).sqrt() <= 1e-12 * part.mean.abs()).all()):
            raise IllPosedError(
                f"The {name} are the same at every position; no colours can be learnt. Give images that differ."
            )


def _colours(images: Tensor, codes: Tensor) -> Tensor:
    """Return images averaged onto the grid of their codes, as RGB in [-1, 1]."""
    exact = images.detach().to("cpu", torch.float64)
    low, high = float(exact.min()), float(exact.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise NonFiniteError("The images hold NaN or infinity. Leave those images out.")
    if low < 0.0 or high > 1.0:
        raise ImageFormatError(f"Images must lie in [0, 1], got [{low:.3g}, {high:.3g}]. Rescale them first.")
    block = exact.shape[2] // codes.shape[2], exact.shape[3] // codes.shape[3]
    return 2.0 * F.avg_pool2d(exact, block).expand(-1, 3, -1, -1) - 1.0


def _positions(grid: Tensor) -> Tensor:
    return grid.detach().to("cpu", torch.float64).permute(0, 2, 3, 1).flatten(0, 2)
