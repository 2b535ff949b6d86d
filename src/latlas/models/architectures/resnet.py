"""The residual pair of the balancing paper, which has it from Dai and Wipf 2019 (arXiv:1903.05789), figure 16."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar

from torch import Tensor, nn

from latlas.base.shapes import Codes, Images, ImageShape, LatentShape
from latlas.models.architectures.architecture import Architecture, check_positive
from latlas.models.architectures.blocks import (
    DenseResidual,
    ResidualBlock,
    doubling,
    frame_padding,
    halving,
    next_power_of_two,
    square_side,
)
from latlas.models.architectures.surgery import Cut, Weights, prune_dense

_WIDEST = 1024  # channels of the decoder double from the image inwards, up to this
_SMALLEST = 2  # the decoder starts from a grid of 2 x 2


@dataclass(frozen=True, kw_only=True)
class ResNet:
    """Residual blocks with batch norm, one a scale; the encoder pools globally, the decoder grows from 2 x 2.

    Asperti and Trentin 2020 (arXiv:2002.07514) use 3 scales for 32 x 32 and 4 for 64 x 64, 64 variables. Square images
    of at least 2^scales a side are served: they are zero-padded to the next power of two and cropped back.
    """

    name: ClassVar[str] = "resnet"
    convolutional: ClassVar[bool] = True

    scales: int = 3  # residual blocks of the encoder, each after the first at half the side of the one before
    base_dim: int = 32  # channels of the first scale; doubled with every halving
    fc_dim: int = 512  # width of the encoder's dense residual block
    latent: int = 64  # variables of the latent space

    def __post_init__(self) -> None:
        check_positive(self.name, scales=self.scales, base_dim=self.base_dim, fc_dim=self.fc_dim, latent=self.latent)

    def latent_shape(self, image_shape: ImageShape) -> LatentShape:
        return (self.latent,)

    def encoder(self, image_shape: ImageShape) -> nn.Module:
        return ResNetEncoder(image_shape, self)

    def decoder(self, image_shape: ImageShape) -> nn.Module:
        return ResNetDecoder(image_shape, self)

    def pruned(self, weights: Mapping[str, Tensor], cut: Cut) -> tuple[Architecture, Weights]:
        return replace(self, latent=len(cut.kept)), prune_dense(weights, cut, makes="encoder.head", takes="decoder.head")

    def padding(self, image_shape: ImageShape) -> list[int]:
        """Return what centres an image in its frame.

        Raises:
            ImageFormatError: images that are not square, or too small to be halved this often.
        """
        side = square_side(self.name, image_shape, at_least=2**self.scales)
        return frame_padding(side, next_power_of_two(side))


class ResNetEncoder(nn.Module):
    """Images to means and log-variances."""

    def __init__(self, image_shape: ImageShape, settings: ResNet) -> None:
        super().__init__()
        self.padding = settings.padding(image_shape)
        width = settings.base_dim
        layers: list[nn.Module] = [nn.Conv2d(image_shape[0], width, 3, padding=1), ResidualBlock(width, nn.ReLU)]
        for _ in range(settings.scales - 1):
            layers += [halving(width, 2 * width), ResidualBlock(2 * width, nn.ReLU)]
            width *= 2
        self.scales = nn.Sequential(*layers)
        self.dense = DenseResidual(width, settings.fc_dim, nn.ReLU)
        self.head = nn.Linear(settings.fc_dim, 2 * settings.latent)

    def forward(self, images: Images) -> tuple[Codes, Codes]:
        features = self.scales(nn.functional.pad(images, self.padding)).mean(dim=(2, 3))
        mean, log_variance = self.head(self.dense(features)).chunk(2, dim=1)
        return mean, log_variance


class ResNetDecoder(nn.Module):
    """Codes to logits."""

    def __init__(self, image_shape: ImageShape, settings: ResNet) -> None:
        super().__init__()
        padding = settings.padding(image_shape)
        self.crop = [-side for side in padding]
        frame = image_shape[1] + padding[0] + padding[1]
        doublings = (frame // _SMALLEST).bit_length() - 1
        widths = [min(settings.base_dim * 2**depth, _WIDEST) for depth in reversed(range(doublings + 1))]
        self.head = nn.Linear(settings.latent, widths[0] * _SMALLEST**2)
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers += [doubling(inputs, outputs), ResidualBlock(outputs, nn.ReLU)]
        self.scales = nn.Sequential(nn.Unflatten(1, (widths[0], _SMALLEST, _SMALLEST)), *layers)
        self.last = nn.Conv2d(widths[-1], image_shape[0], 3, padding=1)

    def forward(self, codes: Codes) -> Tensor:
        return nn.functional.pad(self.last(self.scales(self.head(codes))), self.crop)
