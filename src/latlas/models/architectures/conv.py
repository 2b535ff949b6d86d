"""The plain convolutional pair: stride-2 convolutions down to a small grid, one linear layer to the codes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar

from torch import Tensor, nn

from latlas.base.errors import SettingError
from latlas.base.shapes import Codes, Images, ImageShape, LatentShape
from latlas.models.architectures.architecture import Architecture, check_positive
from latlas.models.architectures.blocks import frame_padding, next_multiple, square_side
from latlas.models.architectures.surgery import Cut, Weights, prune_dense


@dataclass(frozen=True, kw_only=True)
class Conv:
    """4x4 convolutions of stride 2 with ReLU, mirrored by transposed ones.

    Any square side is served: images are zero-padded to the next multiple of 2^len(channels) and cropped back.
    """

    name: ClassVar[str] = "conv"
    convolutional: ClassVar[bool] = True

    channels: tuple[int, ...] = (32, 64, 128)  # of each stride-2 stage of the encoder; reversed in the decoder
    latent: int = 16  # variables of the latent space

    def __post_init__(self) -> None:
        check_positive(self.name, channels=self.channels, latent=self.latent)
        if not self.channels:
            raise SettingError(f"{self.name}: channels must name at least one stage, as in (32, 64, 128).")

    def latent_shape(self, image_shape: ImageShape) -> LatentShape:
        return (self.latent,)

    def encoder(self, image_shape: ImageShape) -> nn.Module:
        return ConvEncoder(image_shape, self.channels, self.latent)

    def decoder(self, image_shape: ImageShape) -> nn.Module:
        return ConvDecoder(image_shape, self.channels, self.latent)

    def pruned(self, weights: Mapping[str, Tensor], cut: Cut) -> tuple[Architecture, Weights]:
        return replace(self, latent=len(cut.kept)), prune_dense(weights, cut, makes="encoder.head", takes="decoder.head")


class ConvEncoder(nn.Module):
    """Images to means and log-variances."""

    def __init__(self, image_shape: ImageShape, channels: Sequence[int], latent: int) -> None:
        super().__init__()
        grid = _grid(image_shape, len(channels))
        self.padding = _padding(image_shape, len(channels))
        stages = [(nn.Conv2d(inputs, outputs, 4, 2, 1), nn.ReLU()) for inputs, outputs in pairwise([image_shape[0], *channels])]
        self.stages = nn.Sequential(*(layer for stage in stages for layer in stage))
        self.head = nn.Linear(channels[-1] * grid * grid, 2 * latent)

    def forward(self, images: Images) -> tuple[Codes, Codes]:
        padded = nn.functional.pad(images, self.padding)
        mean, log_variance = self.head(self.stages(padded).flatten(1)).chunk(2, dim=1)
        return mean, log_variance


class ConvDecoder(nn.Module):
    """Codes to logits."""

    def __init__(self, image_shape: ImageShape, channels: Sequence[int], latent: int) -> None:
        super().__init__()
        self.grid = _grid(image_shape, len(channels))
        self.deepest = channels[-1]
        self.crop = [-side for side in _padding(image_shape, len(channels))]
        self.head = nn.Linear(latent, channels[-1] * self.grid * self.grid)
        outputs = [*reversed(channels[:-1]), image_shape[0]]
        layers: list[nn.Module] = []
        for inputs, output in zip(reversed(channels), outputs, strict=True):
            layers += [nn.ReLU(), nn.ConvTranspose2d(inputs, output, 4, 2, 1)]
        self.stages = nn.Sequential(*layers)

    def forward(self, codes: Codes) -> Tensor:
        grid = self.head(codes).unflatten(1, (self.deepest, self.grid, self.grid))
        return nn.functional.pad(self.stages(grid), self.crop)


def _grid(image_shape: ImageShape, stages: int) -> int:
    """The side of the smallest feature map."""
    return next_multiple(square_side("conv", image_shape), 2**stages) // 2**stages


def _padding(image_shape: ImageShape, stages: int) -> list[int]:
    return frame_padding(image_shape[1], _grid(image_shape, stages) * 2**stages)
