"""The Split-VAE: its decoder draws two images and a mask that blends them (Asperti, Bugo and Filippini 2022)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from latlas.base.shapes import Codes, Images, ImageShape, LatentShape
from latlas.models.architectures.architecture import Architecture, check_positive
from latlas.models.architectures.blocks import (
    DenseResidual,
    ResidualBlock,
    doubling,
    frame_padding,
    halving,
    next_multiple,
    square_side,
)
from latlas.models.architectures.surgery import Cut, Weights, prune_dense


@dataclass(frozen=True, kw_only=True)
class Split:
    """Two images blended by a mask, `mask * first + (1 - mask) * second`, all three from one decoder (arXiv:2202.02738).

    The published settings are the defaults, for 64 x 64; digits were padded to 32 x 32 and had 32 variables. Square
    images of at least 2^scales a side are served: they are zero-padded to the next multiple of that and cropped back.
    """

    name: ClassVar[str] = "split"
    convolutional: ClassVar[bool] = True

    scales: int = 4  # halvings of the encoder, doublings of the decoder
    base_dim: int = 64  # channels of the widest grid; doubled with every further halving
    fc_dim: int = 512  # width of the dense layers beside the code
    latent: int = 150  # variables of the latent space

    def __post_init__(self) -> None:
        check_positive(self.name, scales=self.scales, base_dim=self.base_dim, fc_dim=self.fc_dim, latent=self.latent)

    def latent_shape(self, image_shape: ImageShape) -> LatentShape:
        return (self.latent,)

    def encoder(self, image_shape: ImageShape) -> nn.Module:
        return SplitEncoder(image_shape, self)

    def decoder(self, image_shape: ImageShape) -> nn.Module:
        return SplitDecoder(image_shape, self)

    def pruned(self, weights: Mapping[str, Tensor], cut: Cut) -> tuple[Architecture, Weights]:
        return replace(self, latent=len(cut.kept)), prune_dense(weights, cut, makes="encoder.head", takes="decoder.head.0")

    def padding(self, image_shape: ImageShape) -> list[int]:
        """Return what centres an image in its frame.

        Raises:
            ImageFormatError: images that are not square, or too small to be halved this often.
        """
        side = square_side(self.name, image_shape, at_least=2**self.scales)
        return frame_padding(side, next_multiple(side, 2**self.scales))


class SplitEncoder(nn.Module):
    """Images to means and log-variances."""

    def __init__(self, image_shape: ImageShape, settings: Split) -> None:
        super().__init__()
        self.padding = settings.padding(image_shape)
        width = settings.base_dim
        layers: list[nn.Module] = [halving(image_shape[0], width)]
        for _ in range(settings.scales - 1):
            layers += [ResidualBlock(width, nn.SiLU), halving(width, 2 * width)]
            width *= 2
        self.scales = nn.Sequential(*layers)
        self.dense = DenseResidual(width, settings.fc_dim, nn.SiLU)
        self.head = nn.Linear(settings.fc_dim, 2 * settings.latent)

    def forward(self, images: Images) -> tuple[Codes, Codes]:
        features = self.scales(nn.functional.pad(images, self.padding)).mean(dim=(2, 3))
        mean, log_variance = self.head(self.dense(features)).chunk(2, dim=1)
        return mean, log_variance


class SplitDecoder(nn.Module):
    """Codes to logits of the blend."""

    def __init__(self, image_shape: ImageShape, settings: Split) -> None:
        super().__init__()
        padding = settings.padding(image_shape)
        self.crop = [-side for side in padding]
        self.channels = image_shape[0]
        grid = (image_shape[1] + padding[0] + padding[1]) // 2**settings.scales
        width = settings.base_dim * 2**settings.scales
        # An activation stands between the two: without one they would be a single layer of their product.
        self.head = nn.Sequential(
            nn.Linear(settings.latent, settings.fc_dim), nn.SiLU(), nn.Linear(settings.fc_dim, width * grid * grid)
        )
        layers: list[nn.Module] = [nn.Unflatten(1, (width, grid, grid))]
        for _ in range(settings.scales):
            layers += [doubling(width, width // 2), ResidualBlock(width // 2, nn.SiLU)]
            width //= 2
        self.scales = nn.Sequential(*layers)
        self.last = nn.Conv2d(width, 1 + 2 * self.channels, 3, padding=1)

    def forward(self, codes: Codes) -> Tensor:
        return blend_logits(*self.parts(codes))

    def parts(self, codes: Codes) -> tuple[Tensor, Tensor, Tensor]:
        """Return the logits of the mask (one channel) and of the two images that it blends."""
        drawn = nn.functional.pad(self.last(self.scales(self.head(codes))), self.crop)
        mask, first, second = torch.split(drawn, [1, self.channels, self.channels], dim=1)
        return mask, first, second


def blend_logits(mask: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Return the logit of s * a + (1 - s) * b, where s, a and b are the sigmoids of mask, first and second.

    1 - (s * a + (1 - s) * b) = s * (1 - a) + (1 - s) * (1 - b), so both sides of the odds are sums of products of
    sigmoids; adding them as logarithms loses no digit where a pixel saturates. In float32, whatever comes.
    """
    mask, first, second = mask.float(), first.float(), second.float()
    white = torch.logaddexp(logsigmoid(mask) + logsigmoid(first), logsigmoid(-mask) + logsigmoid(second))
    black = torch.logaddexp(logsigmoid(mask) + logsigmoid(-first), logsigmoid(-mask) + logsigmoid(-second))
    return white - black
