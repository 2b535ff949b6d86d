"""A model that another's codes decode with: a linear map in float32, and the decoder it leads to, as one network."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latlas.base.artifacts import MISFITS, load_tensors, read_config, save_tensors, write_config, writing
from latlas.base.cards import FOLDER, Card, write_card
from latlas.base.errors import ArtifactError, CapabilityError, CodeShapeError
from latlas.base.hub import Pushable, Saveable, resolve
from latlas.base.provenance import UNSTATED, Provenance, tensor_hash
from latlas.base.shapes import Codes, Images, ImageShape, LatentShape
from latlas.models.given import check_model
from latlas.models.protocols import Decoder, LatentModel, check_codes

KIND = "relocated-model"
_TENSORS = "relocation.safetensors"
_TARGET = "target"  # the folder of the decoder, inside the artifact


class AffineRelocation(nn.Module):
    """`codes @ weight + bias`; the answer is given the target's shape, row by row, where that is not a vector."""

    kind = "affine"
    weight: Tensor  # s t
    bias: Tensor  # t

    def __init__(self, weight: Tensor, bias: Tensor, target_shape: LatentShape) -> None:
        super().__init__()
        if weight.ndim != 2 or bias.shape != weight.shape[1:] or math.prod(target_shape) != bias.numel():
            raise CodeShapeError(
                f"A relocation to codes of {'x'.join(map(str, target_shape))} needs a weight s x {math.prod(target_shape)} and as "
                f"many biases, got {tuple(weight.shape)} and {tuple(bias.shape)}."
            )
        self.target_shape = tuple(target_shape)
        self.register_buffer("weight", weight.float())
        self.register_buffer("bias", bias.float())

    def forward(self, codes: Tensor) -> Tensor:
        """Return the codes in the target's space."""
        return (codes @ self.weight + self.bias).view(-1, *self.target_shape)

    def settings(self) -> dict[str, Any]:
        """Return what rebuilds it beside its tensors."""
        return {"target_shape": list(self.target_shape)}


class SpatialRelocation(nn.Module):
    """One convolution of patches, and its channels spread out into blocks of `up` x `up` positions.

    A position beyond the edge counts as `fill`. Codes are centred on it before zeros are padded, which is the same and needs
    no padding by channel; `bias` is that of centred codes.
    """

    kind = "spatial"
    weight: Tensor  # t*up*up s window window
    bias: Tensor  # t*up*up
    fill: Tensor  # s

    def __init__(self, weight: Tensor, bias: Tensor, fill: Tensor, *, down: int, up: int, margin: int) -> None:
        super().__init__()
        if weight.ndim != 4 or bias.shape != weight.shape[:1] or fill.shape != weight.shape[1:2] or bias.numel() % up**2:
            raise CodeShapeError(
                f"A relocation of patches needs a weight t*{up**2} x s x window x window, a bias t*{up**2} and a fill s, got "
                f"{tuple(weight.shape)}, {tuple(bias.shape)} and {tuple(fill.shape)}."
            )
        self.down, self.up, self.margin = down, up, margin
        self.register_buffer("weight", weight.float())
        self.register_buffer("bias", bias.float())
        self.register_buffer("fill", fill.float())

    def forward(self, codes: Tensor) -> Tensor:
        """Return the codes in the target's space."""
        centred = codes - self.fill[:, None, None]
        blocks = F.conv2d(centred, self.weight, self.bias, stride=self.down, padding=self.margin)
        return F.pixel_shuffle(blocks, self.up)

    def settings(self) -> dict[str, Any]:
        """Return what rebuilds it beside its tensors."""
        return {"down": self.down, "up": self.up, "margin": self.margin}


Relocation = AffineRelocation | SpatialRelocation


class RelocatedModel(nn.Module, Pushable):
    """Decodes the codes of one model with another: `target.decode(relocation(codes))`.

    It neither encodes nor draws codes: both are the source's to do.

    Args:
        target: what decodes.
        relocation: takes the source's codes into the target's latent space.
        latent_shape: of the source's codes.
        source: name of the source.
        evidence: what is known of the relocation, ready for JSON.
        provenance: what it was made from.
    """

    def __init__(
        self,
        target: Decoder,
        relocation: Relocation,
        *,
        latent_shape: LatentShape,
        source: str,
        evidence: Mapping[str, Any],
        provenance: Provenance,
    ) -> None:
        super().__init__()
        self.target = target
        self.relocation = relocation
        self.image_shape: ImageShape = target.image_shape
        self.latent_shape: LatentShape = tuple(latent_shape)
        self.source = source
        self.name = f"{source} → {target.name}"
        self.evidence = evidence
        self.provenance = provenance
        self.eval()

    def decode(self, codes: Codes) -> Images:
        """Return the image of each of the source's codes, in [0, 1].

        Raises:
            CodeShapeError: codes of another latent space than the source's.
        """
        check_codes(codes, self)
        return self.target.decode(self.relocation(codes))

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the relocation and of the target's fingerprint; "unstated" where that is."""
        if self.target.fingerprint == UNSTATED:
            return self.target.fingerprint
        told = torch.tensor(list(self.target.fingerprint.encode()), dtype=torch.uint8)
        return tensor_hash(*self.relocation.state_dict().values(), told)

    def save_pretrained(self, folder: str | Path, *, replace: bool = False) -> None:
        """Write relocation and target as one artifact folder.

        Raises:
            OutputExistsError: the folder already holds something.
            CapabilityError: the target is of a kind that cannot be written.
        """
        if not isinstance(self.target, Saveable):
            raise CapabilityError(
                f"{self.target.name} cannot be written to a folder, and so neither can a model that decodes with it. "
                "Save the map, and fold it anew; or export it to ONNX."
            )
        with writing(folder, replace=replace) as beside:
            self.target.save_pretrained(beside / _TARGET)
            save_tensors(beside / _TENSORS, self.relocation.state_dict())
            settings: dict[str, Any] = {
                "relocation": {"kind": self.relocation.kind, **self.relocation.settings()},
                "latent_shape": list(self.latent_shape),
                "source": self.source,
                "evidence": dict(self.evidence),
            }
            write_card(beside, self._card(), self.provenance)
            write_config(beside, kind=KIND, settings=settings, provenance=self.provenance)

    def _card(self) -> Card:
        shape = " x ".join(map(str, self.latent_shape))
        return Card(
            title=f"Relocated model: {self.name}",
            summary=(
                f"Decodes codes of `{self.source}` with the decoder of `{self.target.name}`: a linear map between the two latent "
                "spaces, folded into the decoder as one network."
            ),
            usage=(
                f'import latlas\n\nmodel = latlas.load_model("{FOLDER}")\n'
                f"images = model.decode(codes)  # codes of the source, n x {shape}, to images in [0, 1]"
            ),
            kind=KIND,
            facts={
                "source": self.source,
                "target": self.target.name,
                "codes": self.latent_shape,
                "images": self.image_shape,
                **self.evidence,
            },
            comparison=self.evidence.get("comparison"),
        )


def require_decoder(model: LatentModel, question: str) -> Decoder:
    """Return the model if it decodes.

    Raises:
        CapabilityError: it does not, or is no model.
        SettingError: it is in training mode.
    """
    check_model(model, question)
    if not callable(getattr(model, "decode", None)) or "decode" in getattr(model, "lacks", ()):
        raise CapabilityError(f"{question} needs a decoder, which {model.name} lacks. Give a model that decodes.")
    return model  # type: ignore[return-value]


def read_relocated(folder: str | Path, load_target: Callable[[Path], LatentModel]) -> RelocatedModel:
    """Read what `RelocatedModel.save_pretrained` wrote.

    Args:
        folder: the artifact, or a Hub id.
        load_target: reads a model's folder.

    Raises:
        MissingPathError, ArtifactError: no such artifact, or a damaged one.
    """
    path = resolve(folder)
    config = read_config(path, kind=KIND)
    tensors = load_tensors(path / _TENSORS)
    try:
        settings = config["settings"]
        return RelocatedModel(
            load_target(path / _TARGET),  # type: ignore[arg-type]  # only what decodes was written there
            _rebuild(tensors, dict(settings["relocation"])),
            latent_shape=tuple(int(size) for size in settings["latent_shape"]),
            source=str(settings["source"]),
            evidence=settings["evidence"],
            provenance=Provenance.from_json(config["provenance"]),
        )
    except (*MISFITS, CodeShapeError) as failure:
        raise ArtifactError(f"{folder} is not a readable relocated model ({failure}). Fold the map again.") from failure


def _rebuild(tensors: Mapping[str, Tensor], settings: dict[str, Any]) -> Relocation:
    kind = settings.pop("kind")
    if kind == AffineRelocation.kind:
        return AffineRelocation(tensors["weight"], tensors["bias"], tuple(settings["target_shape"]))
    if kind == SpatialRelocation.kind:
        return SpatialRelocation(tensors["weight"], tensors["bias"], tensors["fill"], **settings)
    raise ValueError(f"an unknown relocation {kind!r}")
