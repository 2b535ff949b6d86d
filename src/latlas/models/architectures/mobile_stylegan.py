"""MobileStyleGAN: a StyleGAN2 generator distilled into separable convolutions on wavelet coefficients."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from latlas.base.errors import SettingError
from latlas.base.shapes import Codes, Images
from latlas.models.architectures.architecture import check_positive

_BANDS = 4  # wavelet coefficients of 2 x 2 pixels: one average, three differences
_SLOPE = 0.2  # of the leaky rectifiers, below 0
_FLOOR = 1e-8  # under a root

# n row column channel, each step with its own: convolutions within and between channels are fastest with channels last.
Grid = Float[Tensor, "n _ _ _"]


@dataclass(frozen=True, kw_only=True)
class MobileStyleGAN:
    """The networks of Belousov 2021 (arXiv:2104.04767): a StyleGAN2 whose stages draw wavelet coefficients.

    A stage modulates the channels of its input, reads each four of them as the Haar coefficients of 2 x 2 pixels, and applies
    two separable convolutions. The network has no demodulation, and its noise is part of the weights: a code has one image.

    Raises:
        SettingError: a size below 1, fewer than two widths, or one before the last that is no multiple of 4.
    """

    widths: tuple[int, ...] = (512, 512, 512, 512, 512, 256, 128, 64)  # channels at each resolution, from the lowest on
    latent: int = 512  # variables of Z and of W
    layers: int = 8  # of the mapping network
    side: int = 4  # of the lowest resolution

    def __post_init__(self) -> None:
        check_positive("mobile-stylegan", widths=self.widths, latent=self.latent, layers=self.layers, side=self.side)
        if len(self.widths) < 2 or any(width % _BANDS for width in self.widths[:-1]):
            raise SettingError(
                f"mobile-stylegan: widths takes two or more, all but the last of them multiples of {_BANDS}, got {self.widths}."
            )

    @property
    def image_side(self) -> int:
        """Height and width of the images."""
        return int(self.side * 2 ** len(self.widths))

    def mapping(self) -> "Mapping":
        """Return the network from Z to W, its weights random."""
        return Mapping(self.latent, self.layers)

    def synthesis(self) -> "Synthesis":
        """Return the network from W to images, its weights random."""
        return Synthesis(self)


class Mapping(nn.Module):
    """Codes of Z to codes of W: each normalised to a mean square of 1, then dense layers.

    The learning rate multipliers of the training are part of the weights here.
    """

    def __init__(self, latent: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(latent, latent) for _ in range(layers))

    def forward(self, codes: Float[Tensor, "n latent"]) -> Float[Tensor, "n latent"]:
        hidden = codes * (codes.square().mean(dim=1, keepdim=True) + _FLOOR).rsqrt()
        for layer in self.layers:
            hidden = nn.functional.leaky_relu(layer(hidden), _SLOPE) * math.sqrt(2)
        return hidden


class Synthesis(nn.Module):
    """Codes of W to images: nominally in [-1, 1], and beyond where the network overshoots."""

    def __init__(self, settings: MobileStyleGAN) -> None:
        super().__init__()
        first, last = settings.widths[0], settings.widths[-1]
        self.constant = nn.Parameter(torch.randn(1, first, settings.side, settings.side))
        self.first = FirstConvolution(first, settings)
        self.stages = nn.ModuleList(
            Stage(inputs, outputs, settings.latent, settings.side * 2 ** (number + 1))
            for number, (inputs, outputs) in enumerate(zip(settings.widths[:-1], settings.widths[1:], strict=True))
        )
        self.last_style = nn.Linear(settings.latent, last)
        self.last = nn.Linear(last, _BANDS * 3)

    def forward(self, codes: Codes) -> Images:
        grid = self.first(self.constant, codes)
        for stage in self.stages:
            grid = stage(grid, codes)
        rows, columns = grid.shape[1:3]
        weight = self.last.weight * self.last_style(codes)[:, None, :]
        coefficients = torch.baddbmm(self.last.bias, grid.flatten(1, 2), weight.transpose(1, 2))
        return (
            inverse_haar(coefficients.reshape(len(codes), rows, columns, self.last.out_features))
            .permute(0, 3, 1, 2)
            .contiguous()
        )


class FirstConvolution(nn.Module):
    """The one full convolution, at the lowest resolution, of a constant that the code modulates."""

    def __init__(self, channels: int, settings: MobileStyleGAN) -> None:
        super().__init__()
        self.style = nn.Linear(settings.latent, channels)
        self.convolution = nn.Conv2d(channels, channels, 3, padding=1)
        self.noise = nn.Parameter(torch.zeros(settings.side, settings.side))

    def forward(self, constant: Tensor, codes: Codes) -> Grid:
        drawn = self.convolution(constant * self.style(codes)[:, :, None, None]) + self.noise
        grid: Tensor = nn.functional.leaky_relu(drawn, _SLOPE).permute(0, 2, 3, 1)
        return grid


class Stage(nn.Module):
    """Twice the resolution by an inverse wavelet transform, then two separable convolutions."""

    def __init__(self, inputs: int, outputs: int, latent: int, side: int) -> None:
        super().__init__()
        self.style = nn.Linear(latent, inputs)
        self.first = SeparableConvolution(inputs // _BANDS, outputs, latent, side)
        self.second = SeparableConvolution(outputs, outputs, latent, side)

    def forward(self, grid: Grid, codes: Codes) -> Grid:
        grid = inverse_haar(grid * self.style(codes)[:, None, None, :])
        drawn: Tensor = self.second(self.first(grid, codes), codes)
        return drawn


class SeparableConvolution(nn.Module):
    """A 3x3 convolution of each channel, then one between the channels, which the code modulates; noise, bias, rectifier."""

    def __init__(self, inputs: int, outputs: int, latent: int, side: int) -> None:
        super().__init__()
        self.style = nn.Linear(latent, inputs)
        self.each = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False)
        self.between = nn.Linear(inputs, outputs)
        self.noise = nn.Parameter(torch.zeros(side, side))

    def forward(self, grid: Grid, codes: Codes) -> Grid:
        filtered = self.each(grid.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        # A factor for each channel commutes with the convolution of that channel: the weights between the channels take the
        # code's modulation, which saves going through all positions once more.
        weight = self.between.weight * self.style(codes)[:, None, :]
        offset = self.noise.flatten()[:, None] + self.between.bias
        mixed = offset.expand(len(grid), -1, -1).contiguous().baddbmm_(filtered.flatten(1, 2), weight.transpose(1, 2))
        return nn.functional.leaky_relu_(mixed, _SLOPE).reshape(len(grid), *self.noise.shape, self.between.out_features)


def inverse_haar(
    coefficients: Float[Tensor, "n row column channel"],
) -> Float[Tensor, "n 2*row 2*column channel//4"]:
    """Return the grid, of twice the height and width, whose Haar transform is given.

    Args:
        coefficients: of `4 * c` channels. The first c hold, for each 2 x 2 pixels, half their sum; the next c half of what
            the upper row has more than the lower; then half of what the left column has more than the right; then half of what
            the diagonal has more than the other one.
    """
    n, rows, columns, channels = coefficients.shape
    average, upper, left, diagonal = (0.5 * coefficients).reshape(n, rows, columns, _BANDS, channels // _BANDS).unbind(3)
    total, spread = average + upper, left + diagonal
    top = torch.stack([total + spread, total - spread], dim=3)
    total, spread = average - upper, left - diagonal
    bottom = torch.stack([total + spread, total - spread], dim=3)
    return torch.stack([top, bottom], dim=2).reshape(n, 2 * rows, 2 * columns, channels // _BANDS)
