"""The layers of StyleGAN2: learning rates equalised by scaling, modulated convolutions, and resampling through a filter."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEAK = 0.2  # slope of the activation below 0
GAIN = math.sqrt(2)  # with which the activation keeps the second moment of a normal variable
_FLOOR = 1e-8  # under a square root

Clamp = float | None


def lowpass(taps: Sequence[float]) -> Tensor:
    """Return the square filter whose rows and columns go as `taps`, with a sum of 1."""
    line = torch.tensor(tuple(taps), dtype=torch.float32)
    square = torch.outer(line, line)
    return square / square.sum()


def activate(features: Tensor, bias: Tensor | None, *, gain: float = 1.0, clamp: Clamp = None) -> Tensor:
    """Return gain * sqrt(2) * leaky ReLU of features plus bias, cut off at gain * clamp on both sides."""
    if bias is not None:
        features = features + bias.reshape(1, -1, *[1] * (features.ndim - 2))
    features = F.leaky_relu(features, LEAK) * (gain * GAIN)
    return features if clamp is None else features.clamp(-clamp * gain, clamp * gain)


def unit_second_moment(rows: Tensor) -> Tensor:
    """Return each row divided by the root of its mean square."""
    return rows * (rows.square().mean(dim=1, keepdim=True) + _FLOOR).rsqrt()


def convolve_each(features: Tensor, square: Tensor, *, before: int, after: int) -> Tensor:
    """Return every channel convolved with one filter, after padding with zeros.

    Args:
        features: `n c h w`.
        square: the filter.
        before: rows above, and columns to the left; negative: cut off.
        after: below and to the right.
    """
    channels = features.shape[1]
    kernel = square.to(features.dtype).flip(0, 1).expand(channels, 1, *square.shape)  # torch correlates: it does not flip
    if before == after >= 0:
        return F.conv2d(features, kernel, padding=before, groups=channels)
    return F.conv2d(F.pad(features, [before, after, before, after]), kernel, groups=channels)


def upsample(features: Tensor, square: Tensor) -> Tensor:
    """Return features at twice the side: zeros between the positions, then the filter, with a gain of 4 for the zeros."""
    size = square.shape[-1]
    channels = features.shape[1]
    kernel = (4 * square).to(features.dtype).expand(channels, 1, *square.shape)
    before = (size + 1) // 2 - (size - 1)
    after = 2 - size - before
    if before == after <= 0:
        return F.conv_transpose2d(features, kernel, stride=2, padding=-before, groups=channels)
    spread = F.conv_transpose2d(features, kernel, stride=2, groups=channels)
    return F.pad(spread, [before, after, before, after])


def convolve_up(features: Tensor, weight: Tensor, square: Tensor) -> Tensor:
    """Return features convolved at twice the side: zeros between, then an odd kernel `out in k k`, then the filter."""
    kernel, size = weight.shape[-1], square.shape[-1]
    spread = F.conv_transpose2d(features, weight.transpose(0, 1), stride=2)
    before = kernel // 2 + (size + 1) // 2 - (kernel - 1)
    after = kernel // 2 + (size - 2) // 2 - (kernel - 2)
    return convolve_each(spread, 4 * square, before=before, after=after)


def convolve_down(features: Tensor, weight: Tensor, square: Tensor) -> Tensor:
    """Return features at half the side: the filter, then an odd kernel `out in k k` at every other position."""
    kernel, size = weight.shape[-1], square.shape[-1]
    before, after = kernel // 2 + (size - 1) // 2, kernel // 2 + (size - 2) // 2
    return F.conv2d(convolve_each(features, square, before=before, after=after), weight, stride=2)


class Dense(nn.Module):
    """A linear layer whose weights are kept at unit variance and scaled when used (Karras et al. 2018, arXiv:1710.10196).

    Args:
        inputs: features of a row.
        outputs: features of a row.
        bias: at the start.
        rate: factor on the learning rate; the weights kept are those used, divided by it.
        active: whether the activation follows.
    """

    def __init__(self, inputs: int, outputs: int, *, bias: float = 0.0, rate: float = 1.0, active: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.full((outputs,), bias))
        self.scale, self.rate, self.active = rate / math.sqrt(inputs), rate, active

    def forward(self, rows: Tensor) -> Tensor:
        weight, bias = self.weight * self.scale, self.bias * self.rate
        return activate(F.linear(rows, weight), bias) if self.active else F.linear(rows, weight, bias)


class Convolution(nn.Module):
    """A convolution with its scale equalised as `Dense`, at the same side, twice or half of it.

    Args:
        inputs: channels.
        outputs: channels.
        kernel: side of the kernel, odd.
        taps: of the resampling filter.
        resampling: "up": the side doubles; "down": it halves; None.
        biased: whether it has a bias.
        active: whether the activation follows.
        clamp: where features are cut off.
    """

    resample_filter: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        taps: Sequence[float],
        resampling: str | None = None,
        biased: bool = True,
        active: bool = True,
        clamp: Clamp = None,
    ) -> None:
        super().__init__()
        self.register_buffer("resample_filter", lowpass(taps))
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if biased else None
        self.scale = 1 / math.sqrt(inputs * kernel**2)
        self.resampling, self.active, self.clamp = resampling, active, clamp

    def forward(self, features: Tensor, gain: float = 1.0) -> Tensor:
        weight = self.weight * self.scale
        if self.resampling == "up" and weight.shape[-1] == 1:
            features = upsample(
                F.conv2d(features, weight), self.resample_filter
            )  # either order, this one at a quarter of the work
        elif self.resampling == "up":
            features = convolve_up(features, weight, self.resample_filter)
        elif self.resampling is None:
            features = F.conv2d(features, weight, padding=weight.shape[-1] // 2)
        else:
            features = convolve_down(features, weight, self.resample_filter)
        if self.active:
            return activate(features, self.bias, gain=gain, clamp=self.clamp)
        if self.bias is not None:
            features = features + self.bias[:, None, None]
        features = features * gain
        return features if self.clamp is None else features.clamp(-self.clamp * gain, self.clamp * gain)


class StyledConvolution(nn.Module):
    """A convolution whose input channels each style scales, with its output brought back to unit variance; then noise.

    The style scales features in place of weights, which is the same (Karras et al. 2020, arXiv:1912.04958, section 2.2) and
    leaves one kernel for all images of a batch, where scaled weights would need a grouped convolution, one group an image.

    Args:
        inputs: channels.
        outputs: channels.
        side: of the output.
        style: variables of a style.
        kernel: side of the kernel, odd.
        taps: of the resampling filter.
        up: whether the side doubles.
        noisy: whether noise is added.
        clamp: where features are cut off.
    """

    resample_filter: Tensor
    noise_const: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        side: int,
        style: int,
        *,
        kernel: int = 3,
        taps: Sequence[float],
        up: bool = False,
        noisy: bool = True,
        clamp: Clamp = None,
    ) -> None:
        super().__init__()
        self.register_buffer("resample_filter", lowpass(taps))
        self.affine = Dense(style, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        if noisy:
            self.register_buffer("noise_const", torch.randn(side, side))
            self.noise_strength = nn.Parameter(torch.zeros(()))
        self.side, self.up, self.noisy, self.clamp = side, up, noisy, clamp

    def forward(self, features: Tensor, styles: Tensor, noise: Tensor | None, gain: float = 1.0) -> Tensor:
        """Return features.

        Args:
            features: `n c h w`.
            styles: `n style`.
            noise: what broadcasts to `n 1 side side`, before its learnt strength; None: none.
            gain: on the result.
        """
        scales = self.affine(styles)
        features = features * scales[:, :, None, None]
        if self.up:
            features = convolve_up(features, self.weight, self.resample_filter)
        else:
            features = F.conv2d(features, self.weight, padding=self.weight.shape[-1] // 2)
        energy = F.linear(scales.square(), self.weight.square().sum(dim=(2, 3)))
        # The activation's gain goes in before it, which is the same, as it is positive: three passes over the features become two.
        total = gain * GAIN
        offset = (total * self.bias)[:, None, None]
        if noise is not None:
            offset = offset + noise * (total * self.noise_strength)
        features = torch.addcmul(offset, features, (total * (energy + _FLOOR).rsqrt())[:, :, None, None])
        features = F.leaky_relu(features, LEAK, inplace=True)
        return features if self.clamp is None else features.clamp(-self.clamp * gain, self.clamp * gain)


class ToImage(nn.Module):
    """A styled 1x1 convolution to the channels of an image; its output is not brought to unit variance."""

    def __init__(self, inputs: int, outputs: int, style: int, *, clamp: Clamp = None) -> None:
        super().__init__()
        self.affine = Dense(style, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.scale, self.clamp = 1 / math.sqrt(inputs), clamp

    def forward(self, features: Tensor, styles: Tensor) -> Tensor:
        scales = self.affine(styles) * self.scale
        image = F.conv2d(features * scales[:, :, None, None], self.weight, self.bias)
        return image if self.clamp is None else image.clamp(-self.clamp, self.clamp)
