"""MobileStyleGAN as a model: one of its latent spaces, with the weights that the package random-face carries."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from latlas.base.errors import ArtifactError, SettingError, unknown_name
from latlas.base.provenance import Provenance, tensor_hash
from latlas.base.shapes import Codes, Images, ImageShape, LatentShape
from latlas.models.adapters.openvino_weights import Graph, read_ir
from latlas.models.architectures.mobile_stylegan import MobileStyleGAN
from latlas.models.protocols import check_codes

SPACES = ("z", "w")

_TOGETHER = 2  # images computed at once: each fills 1 GB where its gradient is wanted, and more are no faster an image
_MEAN_CODES = 4096  # of Z, whose images in W are averaged


class MobileStyleGANModel(nn.Module):
    """A generator of faces, 1024 x 1024, in the frame of FFHQ. It comes ready for use, in evaluation mode, its weights frozen.

    Args:
        space: "z", whose codes are standard normal, or "w", where the mapping network puts them.
        size: side of the images; where it is less than the network's own, each pixel is the mean of those that it covers.
        settings: of the networks; None for those of the published weights.
        name: what reports call it.
        provenance: where the weights come from.

    Raises:
        UnknownNameError: no such space.
        SettingError: a size that does not divide the network's own.
    """

    def __init__(
        self,
        space: str = "z",
        *,
        size: int | None = None,
        settings: MobileStyleGAN | None = None,
        name: str = "mobile-stylegan",
        provenance: Provenance | None = None,
    ) -> None:
        super().__init__()
        chosen = settings if settings is not None else MobileStyleGAN()
        side = size if size is not None else chosen.image_side
        if space not in SPACES:
            raise unknown_name("latent space of mobile-stylegan", space, SPACES, hint="Write zoo:mobile-stylegan#z or #w.")
        if side < 1 or chosen.image_side % side:
            raise SettingError(
                f"The images of mobile-stylegan have {chosen.image_side} pixels a side, of which {side} is no divisor. "
                "Ask for one, as ?size=64."
            )
        self.space: Literal["z", "w"] = "w" if space == "w" else "z"
        self.image_shape: ImageShape = (3, side, side)
        self.latent_shape: LatentShape = (chosen.latent,)
        self.name = name
        self.provenance = provenance
        self.mapping = chosen.mapping()
        self.synthesis = chosen.synthesis()
        self.requires_grad_(False)
        self.eval()

    def decode(self, codes: Codes) -> Images:
        """Return the image of each code, in [0, 1]; what the network draws beyond is cut off.

        Gradients reach the codes. Where they are asked for several images, each group's forward pass is computed again on the
        way back, which takes a third more time and spares the memory of all groups but one.

        Raises:
            CodeShapeError: codes of another latent space.
        """
        check_codes(codes, self)
        if len(codes) <= _TOGETHER:
            return self._draw(codes)
        if not (torch.is_grad_enabled() and codes.requires_grad):
            return torch.cat([self._draw(part) for part in torch.split(codes, _TOGETHER)])
        return torch.cat([checkpoint(self._draw, part, use_reentrant=False) for part in torch.split(codes, _TOGETHER)])

    def sample_codes(self, n: int, generator: torch.Generator) -> Codes:
        """Return codes of faces: of Z from its prior, of W as the mapping network makes them of those."""
        codes = torch.randn(n, *self.latent_shape, generator=generator)
        return self._mapped(codes) if self.space == "w" else codes

    def mean_code(self, generator: torch.Generator, n: int = _MEAN_CODES) -> Codes:
        """Return the mean of n sampled codes, 1 x latent: in W, the code of a face without particulars."""
        return self.sample_codes(n, generator).mean(dim=0, keepdim=True)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the weights, of the latent space and of the image size."""
        identity = torch.tensor([SPACES.index(self.space), *self.image_shape])
        return tensor_hash(identity, *self.state_dict().values())

    @torch.no_grad()
    def _mapped(self, codes: Codes) -> Codes:
        device = next(self.parameters()).device
        styles: Tensor = self.mapping(codes.to(device)).to(codes.device)
        return styles

    def _draw(self, codes: Codes) -> Images:
        styles = self.mapping(codes) if self.space == "z" else codes
        images: Tensor = (0.5 * self.synthesis(styles) + 0.5).clamp(0.0, 1.0)
        side = self.image_shape[-1]
        return images if images.shape[-1] == side else nn.functional.avg_pool2d(images, images.shape[-1] // side)


def read_mobile_stylegan(
    mapping: Path, synthesis: Path, space: str = "z", *, size: int | None = None, name: str, provenance: Provenance
) -> MobileStyleGANModel:
    """Return the model whose two networks lie in OpenVINO's IR files.

    Args:
        mapping: the .xml of the mapping network.
        synthesis: that of the synthesis network.
        space: "z" or "w".
        size: side of the images; None: the network's own.
        name: what reports call it.
        provenance: where the files come from.

    Raises:
        UnknownNameError, SettingError: no such space or size.
        MissingPathError, ArtifactError: a file is missing, damaged, or holds another network.
    """
    model = MobileStyleGANModel(space, size=size, name=name, provenance=provenance)
    for network, path, convert in (
        (model.mapping, mapping, mapping_weights),
        (model.synthesis, synthesis, synthesis_weights),
    ):
        graph = read_ir(path)
        try:
            network.load_state_dict(convert(graph))
        except (KeyError, IndexError, ValueError, RuntimeError) as failure:
            reason = (str(failure).splitlines() or [type(failure).__name__])[-1].strip()
            raise ArtifactError(f"{path} does not hold the {type(network).__name__.lower()} of {name} ({reason}).") from failure
    return model


def mapping_weights(graph: Graph) -> dict[str, Tensor]:
    """Return the state of a `Mapping` from its graph: dense layers in the order of computing.

    Raises:
        ValueError: the layers do not pair up with biases.
    """
    weights = [value for value in graph.constants("MatMul") if value.ndim == 2]
    biases = [value for value in graph.constants("Reshape") if value.is_floating_point()]
    pairs = list(zip(weights, biases, strict=True))
    return {
        f"layers.{number}.{kind}": value
        for number, pair in enumerate(pairs)
        for kind, value in zip(("weight", "bias"), pair, strict=True)
    }


def synthesis_weights(graph: Graph) -> dict[str, Tensor]:
    """Return the state of a `Synthesis` from its graph.

    Two things differ. There, a convolution's input is modulated and scaled by 1 / sqrt(channels * kernel positions), which is
    part of the weights here. And there, the three differences of a channel lie beside each other, where here each kind has a
    block of its own: the channels that an inverse transform reads are reordered.

    Raises:
        KeyError, IndexError, ValueError: a constant is missing, or has another form.
    """
    named = graph.named()
    full = graph.constants("Convolution")  # the first, two for each stage, and the last
    noises = [value[0, 0] for value in graph.constants("Add") if value.ndim == 4 and value.shape[1] == 1]
    stages = (len(full) - 2) // 2
    if len(full) != 2 * stages + 2 or len(noises) != 2 * stages + 1:
        raise ValueError(f"{len(full)} convolutions and {len(noises)} noises")
    by_band = _by_band(full[0].shape[0])
    state = {
        "constant": named["m.input.input"],
        "first.convolution.weight": (full[0] / math.sqrt(full[0][0].numel()))[by_band],
        "first.convolution.bias": named["m.conv1.bias"].flatten()[by_band],
        "first.noise": noises[0],
        **_style("first.style", named, "m.conv1.conv.modulation"),
    }
    for stage in range(stages):
        theirs, ours = f"m.layers.{stage}", f"stages.{stage}"
        state |= _style(f"{ours}.style", named, f"{theirs}.up.modulation", _by_band(full[2 * stage].shape[0]))
        for place, (mine, its) in enumerate((("first", "conv1"), ("second", "conv2"))):
            number = 2 * stage + 1 + place
            each = named[f"{theirs}.{its}.conv.weight_dw"].squeeze(1)
            between = full[number].flatten(1) / math.sqrt(len(each) * each[0].numel())
            bias = named[f"{theirs}.{its}.bias"].flatten()
            if mine == "second" and stage < stages - 1:
                between, bias = between[_by_band(len(between))], bias[_by_band(len(bias))]
            state |= {
                f"{ours}.{mine}.each.weight": each,
                f"{ours}.{mine}.between.weight": between,
                f"{ours}.{mine}.between.bias": bias,
                f"{ours}.{mine}.noise": noises[number],
                **_style(f"{ours}.{mine}.style", named, f"{theirs}.{its}.conv.modulation"),
            }
    theirs, by_band = f"m.layers.{stages - 1}.to_img", _by_band(full[-1].shape[0])
    return {
        **state,
        "last.weight": (full[-1].flatten(1) / math.sqrt(full[-1].shape[1]))[by_band],
        "last.bias": named[f"{theirs}.bias"].flatten()[by_band],
        **_style("last_style", named, f"{theirs}.conv.modulation"),
    }


def _style(ours: str, named: dict[str, Tensor], theirs: str, order: Sequence[int] | None = None) -> dict[str, Tensor]:
    weight, bias = named[f"{theirs}.weight"], named[f"{theirs}.bias"].flatten()
    if order is not None:
        weight, bias = weight[order], bias[order]
    return {f"{ours}.weight": weight, f"{ours}.bias": bias}


def _by_band(channels: int) -> list[int]:
    """Return the order that brings averages, then each kind of difference, together.

    >>> _by_band(8)
    [0, 1, 2, 5, 3, 6, 4, 7]
    """
    quarter = channels // 4
    return [*range(quarter), *(quarter + 3 * channel + kind for kind in range(3) for channel in range(quarter))]
