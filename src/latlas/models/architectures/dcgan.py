"""The DCGAN pair: a batch-normed generator of transposed convolutions, and a discriminator that mirrors it."""

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from latlas.base.errors import SettingError
from latlas.base.shapes import Codes, Images, ImageShape, LatentShape
from latlas.models.architectures.architecture import check_positive
from latlas.models.architectures.blocks import frame_padding, next_multiple, square_side

_SMALLEST_SIDE = 4  # of a feature map; where a side is no multiple of a power of two, it may be up to 7
_WIDEST = 8  # times the base channels
_FLOOR = 1e-8  # under a square root, whose slope at 0 is infinite


@dataclass(frozen=True, kw_only=True)
class DCGAN:
    """4x4 convolutions of stride 2 between the image and a grid of 4 to 7 positions (Radford et al. 2016, arXiv:1511.06434).

    Any square side from 8 on is served: the networks work in the next frame that halves evenly down to that grid, and the
    image is its centre. The base channels double at each halving, up to eight times. The discriminator has no batch norm, which
    would tie the verdicts of a batch together: it is held by the R1 penalty of the training. It sees how much the images of a
    batch differ (Karras et al. 2018, arXiv:1710.10196), without which small generators draw one image for all codes.
    """

    name: ClassVar[str] = "dcgan"
    convolutional: ClassVar[bool] = True

    channels: int = 32  # of the generator's last hidden map and the discriminator's first; 64 in the original
    latent: int = 64  # variables of the latent space

    def __post_init__(self) -> None:
        check_positive(self.name, channels=self.channels, latent=self.latent)

    def latent_shape(self, image_shape: ImageShape) -> LatentShape:
        return (self.latent,)

    def generator(self, image_shape: ImageShape) -> nn.Module:
        return DCGANGenerator(image_shape, self.channels, self.latent)

    def discriminator(self, image_shape: ImageShape) -> nn.Module:
        return DCGANDiscriminator(image_shape, self.channels)


class DCGANGenerator(nn.Module):
    """Codes to images in [0, 1]."""

    def __init__(self, image_shape: ImageShape, channels: int, latent: int) -> None:
        super().__init__()
        self.grid, widths = stages(image_shape, channels)
        widths = widths[::-1]
        self.crop = [-side for side in _padding(image_shape)]
        self.head = nn.Linear(latent, widths[0] * self.grid**2, bias=False)  # batch norm would subtract a bias again
        layers: list[nn.Module] = [nn.BatchNorm2d(widths[0]), nn.ReLU()]
        for inputs, outputs in pairwise(widths):
            layers += [nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        self.stages = nn.Sequential(*layers)
        self.last = nn.ConvTranspose2d(widths[-1], image_shape[0], 4, 2, 1)

    def forward(self, codes: Codes) -> Images:
        grid = self.head(codes).unflatten(1, (-1, self.grid, self.grid))
        return nn.functional.pad(self.last(self.stages(grid)), self.crop).sigmoid()


class DCGANDiscriminator(nn.Module):
    """Images to one logit each: positive where they look real."""

    def __init__(self, image_shape: ImageShape, channels: int) -> None:
        super().__init__()
        grid, widths = stages(image_shape, channels)
        self.padding = _padding(image_shape)
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise([image_shape[0], *widths]):
            layers += [nn.Conv2d(inputs, outputs, 4, 2, 1), nn.LeakyReLU(0.2)]
        self.stages = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1] * grid**2 + 1, 1)

    def forward(self, images: Images) -> Tensor:
        padded = nn.functional.pad(2 * images - 1, self.padding)
        features = self.stages(padded).flatten(1)
        variety = (features.float().var(dim=0, correction=0) + _FLOOR).sqrt().mean().expand(len(features), 1)
        logits: Tensor = self.head(torch.cat([features, variety.to(features.dtype)], dim=1)).squeeze(1)
        return logits


def stages(image_shape: ImageShape, channels: int) -> tuple[int, list[int]]:
    """Return the side of the smallest feature map, and the channels after each halving of an image.

    Raises:
        ImageFormatError: the images are not square, or smaller than 8 x 8.

    >>> stages((3, 64, 64), 64)
    (4, [64, 128, 256, 512])
    >>> stages((1, 28, 28), 16)
    (7, [16, 32])
    """
    side = square_side(DCGAN.name, image_shape, at_least=2 * _SMALLEST_SIDE)
    halvings = (side // _SMALLEST_SIDE).bit_length() - 1
    return next_multiple(side, 2**halvings) // 2**halvings, [channels * min(2**stage, _WIDEST) for stage in range(halvings)]


def _padding(image_shape: ImageShape) -> list[int]:
    grid, widths = stages(image_shape, 1)
    return frame_padding(image_shape[1], grid * 2 ** len(widths))


def weights_from_tutorial(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state of `DCGANGenerator` from that of the generator of PyTorch's DCGAN tutorial.

    That network is one `nn.Sequential` named `main`: (transposed convolution, batch norm, ReLU) for each map, then a transposed
    convolution and tanh. Here the first convolution, which sees one position, is a linear layer; and the images lie in [0, 1]
    since (tanh(x) + 1) / 2 = sigmoid(2x).

    Args:
        state: tensors by name, as `main.0.weight`.

    Raises:
        SettingError: they are not those of such a network.
    """
    convolutions = sorted(int(name.split(".")[1]) for name, tensor in state.items() if _is_convolution(name, tensor))
    if len(convolutions) < 2 or convolutions != list(range(0, 3 * len(convolutions), 3)):
        raise SettingError("These are not the weights of the generator of PyTorch's DCGAN tutorial.")
    first, *middle, last = convolutions
    latent = state[f"main.{first}.weight"].shape[0]
    image_channels = state[f"main.{last}.weight"].shape[1]
    ours = {
        "head.weight": state[f"main.{first}.weight"].reshape(latent, -1).T.contiguous(),
        "last.weight": 2 * state[f"main.{last}.weight"],
        "last.bias": torch.zeros(image_channels),
    }
    for number in middle:
        ours[f"stages.{number - 1}.weight"] = state[f"main.{number}.weight"]
    for name, tensor in state.items():
        _, number_text, kind = name.split(".", 2)
        if int(number_text) not in convolutions:
            ours[f"stages.{int(number_text) - 1}.{kind}"] = tensor
    return ours


def _is_convolution(name: str, tensor: Tensor) -> bool:
    parts = name.split(".")
    return len(parts) == 3 and parts[0] == "main" and parts[1].isdigit() and parts[2] == "weight" and tensor.ndim == 4
