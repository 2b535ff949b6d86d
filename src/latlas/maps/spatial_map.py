"""The SpatialMap value: codes on one grid of positions to codes on another, by one affine map for every patch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn import functional as F

from latlas.base.artifacts import MISFITS, load_tensors, read_config, save_tensors, write_config, writing
from latlas.base.cards import write_card
from latlas.base.errors import ArtifactError, CapabilityError, CodeShapeError, IllPosedError, SettingError
from latlas.base.hub import Pushable
from latlas.base.provenance import Provenance
from latlas.encodings.encoding import Encoding
from latlas.maps.cards import map_card
from latlas.maps.evidence import evidence_of_inverse
from latlas.maps.inputs import answer_type, check_follows, exact_type
from latlas.models.carried_folders import artifact_folder
from latlas.numerics.patches import PatchGeometry, padded

KIND = "spatial-map"
_TENSORS = "map.safetensors"
_ELEMENTS = 2**24  # numbers of patches at a time, 128 MiB: in float64 torch convolves by writing all patches out


@dataclass(frozen=True, kw_only=True, eq=False)
class SpatialMap(Pushable):
    """An affine map between spatial latent spaces, the same at every position: `n s h w` to `n t h*up/down w*up/down`.

    Each block of `down` x `down` source positions, with the neighbours that `geometry` takes in, predicts a block of `up` x
    `up` target positions. It is one convolution, in float64, and serves grids of any size: fitted on small images, it can be
    used on large ones.

    A neighbour beyond the edge counts as `fill`, the mean of its channel in the fit: relative to what the map learnt to
    expect, such a neighbour says nothing. Zeros would say something wherever a space is not centred, and mirrored positions
    would say twice what was said already. The fit sees the same fill, so that it is the exact least squares of what `apply`
    does, edges included. A map without bias is fitted with zeros for a fill, and is then linear to the edge.

    `evidence` tells how the fit went: pairs of codes, positions, unknowns, rank, condition, ridge, R2 and residual variance per target
    channel, and warnings in words.
    """

    weight: Tensor  # t*up*up s window window, as a convolution takes it
    bias: Tensor  # t*up*up
    fill: Tensor  # s; of no account without neighbours
    geometry: PatchGeometry
    kind: str  # how it was fitted: "affine", "composed", ...
    source: str  # names of the two spaces
    target: str
    source_fingerprint: str | None = None  # of the two models' weights; None where unknown
    target_fingerprint: str | None = None
    source_scaling: str | None = None  # "raw", "scaled", ...: which of a model's latents these are; None where unstated
    target_scaling: str | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)
    provenance: Provenance = field(default_factory=lambda: Provenance(made_by="SpatialMap"))

    def __post_init__(self) -> None:
        window, outputs = self.geometry.window, self.bias.numel()
        fits = (
            self.weight.ndim == 4
            and self.bias.shape == self.weight.shape[:1]
            and self.fill.shape == self.weight.shape[1:2]
            and tuple(self.weight.shape[2:]) == (window, window)
            and outputs % self.geometry.up**2 == 0
        )
        if not fits:
            raise CodeShapeError(
                f"A spatial map of this geometry needs a weight t*{self.geometry.up**2} x s x {window} x {window}, a bias "
                f"t*{self.geometry.up**2} and a fill s, got {tuple(self.weight.shape)}, {tuple(self.bias.shape)}, "
                f"{tuple(self.fill.shape)}."
            )
        for name in ("weight", "bias", "fill"):
            part: Tensor = getattr(self, name)
            if part.dtype != torch.float64:
                object.__setattr__(self, name, part.double())

    @property
    def source_channels(self) -> int:
        """Channels of the source space."""
        return self.weight.shape[1]

    @property
    def target_channels(self) -> int:
        """Channels of the target space."""
        return self.weight.shape[0] // self.geometry.up**2

    @property
    def parameters(self) -> int:
        """How many numbers were fitted: weights, and biases unless all are zero (as in a map without)."""
        return self.weight.numel() + (self.bias.numel() if bool(self.bias.any()) else 0)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is to be minded of this fit, in words; empty where nothing is known against it."""
        return tuple(self.evidence.get("warnings", ()))

    def apply(self, codes: Shaped[Tensor, "n *source"]) -> Float[Tensor, "n channel row column"]:
        """Return the codes relocated into the target space, in the type and on the device they came in; whole numbers as float64.

        Args:
            codes: `n s h w`; any grid that divides into blocks.

        Raises:
            CodeShapeError: vector codes, codes of other channels than the source's, or a grid that does not divide.
        """
        self._check(codes)
        exact, answer = exact_type(codes), answer_type(codes)
        weight, bias, fill = (part.to(codes.device, exact) for part in (self.weight, self.bias, self.fill))
        patches = weight[0].numel() * (codes.shape[2] // self.geometry.down) * (codes.shape[3] // self.geometry.down)
        parts = []
        for some in torch.split(codes, max(1, _ELEMENTS // patches)):
            wide = padded(some.to(exact), fill, self.geometry.margin)
            blocks = F.conv2d(wide, weight, bias, stride=self.geometry.down)
            parts.append(F.pixel_shuffle(blocks, self.geometry.up).to(answer))
        return torch.cat(parts)

    def target_grid(self, rows: int, columns: int) -> tuple[int, int]:
        """Return the grid that codes of `rows` x `columns` positions are mapped onto."""
        return rows // self.geometry.down * self.geometry.up, columns // self.geometry.down * self.geometry.up

    def check_source(self, encoded: Provenance, *, name: str) -> None:
        """Raise if codes are known to be of another model than this map takes, or of the same but scaled otherwise.

        Args:
            encoded: the encoding's provenance, which may state a scaling in its settings.
            name: of the encoding's model.

        Raises:
            CodeShapeError: both models are known, and differ; or both scalings are.
        """
        found = encoded.model
        if None not in (found, self.source_fingerprint) and found != self.source_fingerprint:
            raise CodeShapeError(
                f"This map takes codes of {self.source} (weights {str(self.source_fingerprint)[:12]}), the encoding is of {name} "
                f"(weights {str(found)[:12]}). Encode the images with the map's source model, or fit a map from this one."
            )
        known = f"This map takes {self.source_scaling} latents of {self.source}"
        _check_scaling(self.source_scaling, encoded.settings.get("scaling"), known, f"the encoding of {name}")

    def then(self, other: "SpatialMap") -> "SpatialMap":
        """Return the map that applies this one and then the other, where that is again such a map, exactly.

        It is whenever the other looks at no more than the blocks that this one makes. A neighbourhood after another would
        need to know what this map makes of positions beyond the edge.

        Raises:
            CodeShapeError: the other does not start where this one ends: in a space of other channels, or of another model.
            CapabilityError: the composition is no such map.
        """
        if other.source_channels != self.target_channels:
            raise CodeShapeError(
                f"Cannot follow a map into {self.target_channels} channels ({self.target}) by one from "
                f"{other.source_channels} ({other.source}). Fit one from {self.target}."
            )
        check_follows((self.target, self.target_fingerprint), (other.source, other.source_fingerprint))
        known = f"The first map ends in {self.target_scaling} latents of {self.target}"
        _check_scaling(self.target_scaling, other.source_scaling, known, f"the second map from {other.source}")
        up, down = self.geometry.up, other.geometry.down
        if other.geometry.neighbourhood > 1 or (self.geometry.neighbourhood > 1 and up % down):
            raise CapabilityError(
                f"A map with a {_square(other.geometry.neighbourhood)} neighbourhood after one with "
                f"{_square(self.geometry.neighbourhood)} is no single map of this kind at the edges. "
                f"Fit one from {self.source} to {other.target}, or apply one after the other."
            )
        block = math.lcm(up, down)
        first, first_bias = self._on_blocks(block // up)
        second, second_bias = other._on_blocks(block // down)
        geometry = PatchGeometry(
            self.geometry.neighbourhood, self.geometry.down * (block // up), other.geometry.up * (block // down)
        )
        return SpatialMap(
            weight=(second @ first).view(-1, self.source_channels, geometry.window, geometry.window),
            bias=second @ first_bias + second_bias,
            fill=self.fill,
            geometry=geometry,
            kind="composed",
            source=self.source,
            target=other.target,
            source_fingerprint=self.source_fingerprint,
            target_fingerprint=other.target_fingerprint,
            source_scaling=self.source_scaling,
            target_scaling=other.target_scaling,
            provenance=Provenance(made_by="SpatialMap.then"),
        )

    def inverse(self) -> "SpatialMap":
        """Return the map back; where a block has other numbers than what it predicts, the least-squares (pseudo-)inverse.

        Its `warnings` tell where something of the source is lost on the way, or noise would grow on the way back.

        Raises:
            CapabilityError: a map with a neighbourhood, whose inverse has no bounded one.
            IllPosedError: a square map that is singular to rounding.
        """
        if self.geometry.neighbourhood > 1:
            raise CapabilityError(
                f"A map with a {_square(self.geometry.neighbourhood)} neighbourhood has no inverse of this kind: going back, every "
                f"position would depend on all others. Fit the other way, from {self.target} to {self.source}."
            )
        there = self.weight.flatten(1)
        square = there.shape[0] == there.shape[1]
        if square and int(torch.linalg.matrix_rank(there)) < there.shape[0]:
            raise IllPosedError(
                "This map is singular: some of the source is lost, and no inverse brings it back. Fit the other way."
            )
        back = torch.linalg.inv(there) if square else torch.linalg.pinv(there)
        geometry = PatchGeometry(1, self.geometry.up, self.geometry.down)
        return SpatialMap(
            weight=back.view(-1, self.target_channels, geometry.window, geometry.window),
            bias=-back @ self.bias,
            fill=torch.zeros(self.target_channels, dtype=torch.float64),
            geometry=geometry,
            kind="inverse",
            source=self.target,
            target=self.source,
            source_fingerprint=self.target_fingerprint,
            target_fingerprint=self.source_fingerprint,
            source_scaling=self.target_scaling,
            target_scaling=self.source_scaling,
            evidence=evidence_of_inverse(there.T),
            provenance=Provenance(made_by="SpatialMap.inverse"),
        )

    def save_pretrained(self, folder: str | Path, *, replace: bool = False) -> None:
        """Write the map as an artifact folder.

        Raises:
            OutputExistsError: the folder already holds something.
        """
        with writing(folder, replace=replace) as beside:
            save_tensors(beside / _TENSORS, {"weight": self.weight, "bias": self.bias, "fill": self.fill})
            settings: dict[str, Any] = {
                "map": self.kind,
                "neighbourhood": self.geometry.neighbourhood,
                "down": self.geometry.down,
                "up": self.geometry.up,
                "source": self.source,
                "target": self.target,
                "source_fingerprint": self.source_fingerprint,
                "target_fingerprint": self.target_fingerprint,
                "source_scaling": self.source_scaling,
                "target_scaling": self.target_scaling,
                "evidence": dict(self.evidence),
            }
            card = map_card(
                artifact=KIND,
                loader="latlas.maps.spatial_map.SpatialMap",
                fitted_as=self.kind,
                source=self.source,
                target=self.target,
                codes=f"n x {self.source_channels} x rows x columns",
                weight=self.weight.shape,
                evidence=self.evidence,
            )
            write_card(beside, card, self.provenance)
            write_config(beside, kind=KIND, settings=settings, provenance=self.provenance)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> "SpatialMap":
        """Read what `save_pretrained` wrote: its folder, its Hub id, or `zoo:name`.

        Raises:
            MissingPathError, ArtifactError: no such artifact, or a damaged one.
            UnknownNameError: no such spatial map in the zoo.
        """
        folder = artifact_folder(folder, (KIND,), called="spatial map")
        config = read_config(folder, kind=KIND)
        tensors = load_tensors(Path(folder) / _TENSORS)
        settings = config["settings"]
        try:
            return cls(
                weight=tensors["weight"],
                bias=tensors["bias"],
                fill=tensors["fill"],
                geometry=PatchGeometry(settings["neighbourhood"], settings["down"], settings["up"]),
                kind=settings["map"],
                source=settings["source"],
                target=settings["target"],
                source_fingerprint=settings["source_fingerprint"],
                target_fingerprint=settings["target_fingerprint"],
                source_scaling=settings["source_scaling"],
                target_scaling=settings["target_scaling"],
                evidence=settings["evidence"],
                provenance=Provenance.from_json(config["provenance"]),
            )
        except (*MISFITS, CodeShapeError, SettingError) as failure:
            raise ArtifactError(f"{folder} is not a readable map ({failure}). Fit it again.") from failure

    def _on_blocks(self, repeats: int) -> tuple[Tensor, Tensor]:
        """Return the matrix and bias from `repeats` x `repeats` neighbouring patches to all that they predict."""
        up, down = self.geometry.up, self.geometry.window
        if repeats == 1:  # the only case in which patches may overlap
            return self.weight.flatten(1), self.bias
        each = torch.eye(repeats, dtype=torch.float64)
        weight = self.weight.view(self.target_channels, up, up, self.source_channels, down, down)
        matrix = torch.einsum("tabscd,ij,kl->tiakbsjcld", weight, each, each)
        bias = self.bias.view(self.target_channels, 1, up, 1, up).expand(-1, repeats, -1, repeats, -1)
        return matrix.reshape(bias.numel(), -1), bias.reshape(-1)

    def _check(self, codes: Tensor) -> None:
        if codes.ndim == 2:
            raise CodeShapeError(
                f"This map takes spatial codes of {self.source_channels} channels ({self.source}), got vector codes "
                f"{tuple(codes.shape)}. Use codes of that model, or fit_map for vectors."
            )
        if codes.ndim != 4 or codes.shape[1] != self.source_channels:
            raise CodeShapeError(
                f"This map takes spatial codes of {self.source_channels} channels ({self.source}), got shape "
                f"{tuple(codes.shape)}. Use codes of that model, or fit a map on encodings of yours."
            )
        down = self.geometry.down
        if 0 in codes.shape[2:] or codes.shape[2] % down or codes.shape[3] % down:
            raise CodeShapeError(
                f"This map takes blocks of {_square(down)} positions, and a grid of {codes.shape[2]} x {codes.shape[3]} does not "
                "divide into them. Crop or pad the images before encoding."
            )


def stated_scaling(paired: Tensor | Encoding, given: str | None) -> str | None:
    """Return which of a model's latents codes are ("raw", "scaled"): as given, or as their encoding states; None if neither.

    Raises:
        SettingError: what is given contradicts the encoding.
    """
    stated = paired.provenance.settings.get("scaling") if isinstance(paired, Encoding) else None
    if None not in (given, stated) and given != stated:
        raise SettingError(f"The encoding says that its latents are {stated}, and {given} was given. Leave the scaling out.")
    return given if stated is None else str(stated)


def _check_scaling(wanted: str | None, found: str | None, known: str, name: str) -> None:
    if None not in (wanted, found) and wanted != found:
        raise CodeShapeError(
            f"{known}, and {name} has {found} ones: they differ by the model's scale and shift. "
            f"Use {wanted} latents, or fit a map on {found} ones."
        )


def _square(size: int) -> str:
    return f"{size} x {size}"
