"""The fully connected pair of the posts: 784-256-64-32-16 for digits, mirrored in the decoder."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar

from torch import Tensor, nn

from latlas.base.shapes import Codes, Images, ImageShape, LatentShape
from latlas.models.architectures.architecture import Architecture, check_positive
from latlas.models.architectures.surgery import Cut, Weights, prune_dense


@dataclass(frozen=True, kw_only=True)
class Dense:
    """Fully connected layers with ReLU between them."""

    name: ClassVar[str] = "dense"
    convolutional: ClassVar[bool] = False

    widths: tuple[int, ...] = (256, 64, 32)  # hidden layers of the encoder; the decoder has them in reverse
    latent: int = 16  # variables of the latent space

    def __post_init__(self) -> None:
        check_positive(self.name, widths=self.widths, latent=self.latent)

    def latent_shape(self, image_shape: ImageShape) -> LatentShape:
        return (self.latent,)

    def encoder(self, image_shape: ImageShape) -> nn.Module:
        return DenseEncoder(image_shape, self.widths, self.latent)

    def decoder(self, image_shape: ImageShape) -> nn.Module:
        return DenseDecoder(image_shape, self.widths, self.latent)

    def pruned(self, weights: Mapping[str, Tensor], cut: Cut) -> tuple[Architecture, Weights]:
        takes = "decoder.hidden.0" if self.widths else "decoder.head"
        return replace(self, latent=len(cut.kept)), prune_dense(weights, cut, makes="encoder.head", takes=takes)


class DenseEncoder(nn.Module):
    """Images to means and log-variances; both heads are halves of one layer."""

    def __init__(self, image_shape: ImageShape, widths: Sequence[int], latent: int) -> None:
        super().__init__()
        sizes = [math.prod(image_shape), *widths]
        self.hidden = nn.Sequential(*_layers(sizes))
        self.head = nn.Linear(sizes[-1], 2 * latent)

    def forward(self, images: Images) -> tuple[Codes, Codes]:
        mean, log_variance = self.head(self.hidden(images.flatten(1))).chunk(2, dim=1)
        return mean, log_variance


class DenseDecoder(nn.Module):
    """Codes to logits."""

    def __init__(self, image_shape: ImageShape, widths: Sequence[int], latent: int) -> None:
        super().__init__()
        sizes = [latent, *reversed(widths)]
        self.image_shape = tuple(image_shape)
        self.hidden = nn.Sequential(*_layers(sizes))
        self.head = nn.Linear(sizes[-1], math.prod(image_shape))

    def forward(self, codes: Codes) -> Tensor:
        return self.head(self.hidden(codes)).unflatten(1, self.image_shape)


def _layers(sizes: Sequence[int]) -> list[nn.Module]:
    return [layer for inputs, outputs in pairwise(sizes) for layer in (nn.Linear(inputs, outputs), nn.ReLU())]
