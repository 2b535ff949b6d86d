"""The LinearMap value: codes of one latent space to codes of another."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from latlas.base.artifacts import MISFITS, load_tensors, read_config, save_tensors, write_config, writing
from latlas.base.cards import write_card
from latlas.base.errors import ArtifactError, CodeShapeError, IllPosedError
from latlas.base.hub import Pushable
from latlas.base.provenance import Provenance
from latlas.encodings.mapped import batches
from latlas.maps.cards import map_card
from latlas.maps.evidence import evidence_of_inverse
from latlas.maps.inputs import answer_type, check_follows, exact_type
from latlas.models.carried_folders import artifact_folder

KIND = "linear-map"
_TENSORS = "map.safetensors"
_CHUNK = 65_536  # codes that are in double at a time


@dataclass(frozen=True, kw_only=True, eq=False)
class LinearMap(Pushable):
    """An affine map between vector latent spaces: target = source @ weight + bias, in float64 whatever it was made from.

    `evidence` tells how the fit went: pairs, rank, condition, ridge, R2 and residual variance per target variable, and in
    words what `warnings` gives.
    """

    weight: Tensor  # s t
    bias: Tensor  # t
    kind: str  # how it was fitted: "affine", "orthogonal", ...
    source: str  # names of the two spaces
    target: str
    source_fingerprint: str | None = None  # of the two models' weights; None where unknown
    target_fingerprint: str | None = None
    residual_covariance: Tensor | None = None  # t t: mean outer product of target - prediction over the pairs of the fit
    evidence: Mapping[str, Any] = field(default_factory=dict)
    provenance: Provenance = field(default_factory=lambda: Provenance(made_by="LinearMap"))

    def __post_init__(self) -> None:
        if self.weight.ndim != 2 or self.bias.shape != self.weight.shape[1:]:
            raise CodeShapeError(
                f"A map needs a weight s x t and a bias t, got {tuple(self.weight.shape)}, {tuple(self.bias.shape)}."
            )
        if self.residual_covariance is not None and self.residual_covariance.shape != (self.target_size, self.target_size):
            raise CodeShapeError(
                f"A residual covariance of this map is {self.target_size} x {self.target_size}, "
                f"got {tuple(self.residual_covariance.shape)}."
            )
        for name in ("weight", "bias", "residual_covariance"):
            part: Tensor | None = getattr(self, name)
            if part is not None and part.dtype != torch.float64:
                object.__setattr__(self, name, part.double())

    @property
    def source_size(self) -> int:
        """Variables of the source space."""
        return self.weight.shape[0]

    @property
    def target_size(self) -> int:
        """Variables of the target space."""
        return self.weight.shape[1]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person must hear of the fit before using it, with the cure; empty where it is well posed."""
        return tuple(self.evidence.get("warnings", ()))

    def apply(self, codes: Shaped[Tensor, "n *source"]) -> Float[Tensor, "n target"]:
        """Return the codes relocated into the target space, in the type they came in; whole numbers as float64.

        Raises:
            CodeShapeError: codes of another width than the source's.
        """
        if codes.ndim != 2 or codes.shape[1] != self.source_size:
            raise CodeShapeError(
                f"This map takes codes of {self.source_size} variables ({self.source}), got shape {tuple(codes.shape)}. "
                "Use codes of that model, or fit a map on encodings of yours."
            )
        exact, answer = exact_type(codes), answer_type(codes)
        weight, bias = self.weight.to(codes.device, exact), self.bias.to(codes.device, exact)
        return torch.cat([(part.to(exact) @ weight + bias).to(answer) for part in batches(codes, _CHUNK)])

    def check_source(self, encoded: Provenance, *, name: str) -> None:
        """Raise if an encoding is known to be of another model than the one whose codes this map takes.

        Args:
            encoded: the encoding's provenance.
            name: of the encoding's model.

        Raises:
            CodeShapeError: both models are known, and differ.
        """
        found = encoded.model
        if None not in (found, self.source_fingerprint) and found != self.source_fingerprint:
            raise CodeShapeError(
                f"This map takes codes of {self.source} (weights {str(self.source_fingerprint)[:12]}), the encoding is of {name} "
                f"(weights {str(found)[:12]}). Encode the images with the map's source model, or fit a map from this one."
            )

    def then(self, other: "LinearMap") -> "LinearMap":
        """Return the map that applies this one and then the other.

        Raises:
            CodeShapeError: the other does not start where this one ends: in a space of another size, or of another model.
        """
        if other.source_size != self.target_size:
            raise CodeShapeError(
                f"Cannot follow a map into {self.target_size} variables ({self.target}) by one from "
                f"{other.source_size} ({other.source}). Fit one from {self.target}."
            )
        check_follows((self.target, self.target_fingerprint), (other.source, other.source_fingerprint))
        return LinearMap(
            weight=self.weight @ other.weight,
            bias=self.bias @ other.weight + other.bias,
            kind="composed",
            source=self.source,
            target=other.target,
            source_fingerprint=self.source_fingerprint,
            target_fingerprint=other.target_fingerprint,
        )

    def inverse(self) -> "LinearMap":
        """Return the map back; where it is not square, the least-squares (pseudo-)inverse.

        Its `warnings` tell where something of the source is lost on the way, or noise would grow on the way back.

        Raises:
            IllPosedError: a square weight that is singular to rounding.
        """
        square = self.source_size == self.target_size
        if square and int(torch.linalg.matrix_rank(self.weight)) < self.source_size:
            raise IllPosedError(
                "This map is singular: some of the source is lost, and no inverse brings it back. Fit the other way."
            )
        back = torch.linalg.inv(self.weight) if square else torch.linalg.pinv(self.weight)
        return LinearMap(
            weight=back,
            bias=-self.bias @ back,
            kind="inverse",
            source=self.target,
            target=self.source,
            source_fingerprint=self.target_fingerprint,
            target_fingerprint=self.source_fingerprint,
            evidence=evidence_of_inverse(self.weight),
        )

    def save_pretrained(self, folder: str | Path, *, replace: bool = False) -> None:
        """Write the map as an artifact folder.

        Raises:
            OutputExistsError: the folder already holds something.
        """
        with writing(folder, replace=replace) as beside:
            tensors = {"weight": self.weight, "bias": self.bias}
            if self.residual_covariance is not None:
                tensors["residual_covariance"] = self.residual_covariance
            save_tensors(beside / _TENSORS, tensors)
            settings: dict[str, Any] = {
                "map": self.kind,
                "source": self.source,
                "target": self.target,
                "source_fingerprint": self.source_fingerprint,
                "target_fingerprint": self.target_fingerprint,
                "evidence": dict(self.evidence),
            }
            card = map_card(
                artifact=KIND,
                loader="latlas.LinearMap",
                fitted_as=self.kind,
                source=self.source,
                target=self.target,
                codes=f"n x {self.source_size}",
                weight=self.weight.shape,
                evidence=self.evidence,
            )
            write_card(beside, card, self.provenance)
            write_config(beside, kind=KIND, settings=settings, provenance=self.provenance)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> "LinearMap":
        """Read what `save_pretrained` wrote: its folder, its Hub id, or `zoo:name`.

        Raises:
            MissingPathError, ArtifactError: no such artifact, or a damaged one.
            UnknownNameError: no such linear map in the zoo.
        """
        folder = artifact_folder(folder, (KIND,), called="linear map")
        config = read_config(folder, kind=KIND)
        tensors = load_tensors(Path(folder) / _TENSORS)
        settings = config["settings"]
        try:
            if not isinstance(settings["evidence"], dict):
                raise TypeError("its evidence is no table")
            return cls(
                weight=tensors["weight"],
                bias=tensors["bias"],
                kind=settings["map"],
                source=settings["source"],
                target=settings["target"],
                source_fingerprint=settings.get("source_fingerprint"),  # absent from the first maps
                target_fingerprint=settings.get("target_fingerprint"),
                residual_covariance=tensors.get("residual_covariance"),  # absent from the first maps, and from composed ones
                evidence=settings["evidence"],
                provenance=Provenance.from_json(config["provenance"]),
            )
        except (*MISFITS, CodeShapeError) as failure:
            raise ArtifactError(f"{folder} is not a readable map ({failure}). Fit it again.") from failure
