"""The discriminator of StyleGAN2: residual blocks down to 4 x 4, and a look at how much the images of a batch differ."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from latlas.models.architectures.stylegan2_layers import Convolution, Dense
from latlas.models.architectures.stylegan2_synthesis import sides_up_to

_HALF = math.sqrt(0.5)
_FLOOR = 1e-8


class DownBlock(nn.Module):
    """Two convolutions to half the side, and a shortcut."""

    def __init__(self, inputs: int, outputs: int, colours: int, *, taps: Sequence[float]) -> None:
        super().__init__()
        if colours:
            self.fromrgb = Convolution(colours, inputs, 1, taps=taps)
        self.first = colours > 0
        self.conv0 = Convolution(inputs, inputs, 3, taps=taps)
        self.conv1 = Convolution(inputs, outputs, 3, taps=taps, resampling="down")
        self.skip = Convolution(inputs, outputs, 1, taps=taps, resampling="down", biased=False, active=False)

    def forward(self, features: Tensor) -> Tensor:
        if self.first:
            features = self.fromrgb(features)
        shortcut: Tensor = self.skip(features, _HALF)
        return shortcut + self.conv1(self.conv0(features), _HALF)


class Epilogue(nn.Module):
    """From features of 4 x 4 to one number: with the deviation between images of a group as a further feature."""

    def __init__(self, channels: int, *, taps: Sequence[float], group: int) -> None:
        super().__init__()
        self.group = group
        self.conv = Convolution(channels + 1, channels, 3, taps=taps)
        self.fc = Dense(channels * 16, channels, active=True)
        self.out = Dense(channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        count, _, height, width = features.shape
        # Groups of as nearly the same size as can be: an image in a group of its own would look like a collapse.
        groups = torch.tensor_split(features, max(count // self.group, 1))
        varieties = [_variety(each) for each in groups]
        variety = torch.cat(varieties).reshape(count, 1, 1, 1).expand(-1, 1, height, width)
        hidden = self.fc(self.conv(torch.cat([features, variety], dim=1)).flatten(1))
        logits: Tensor = self.out(hidden)
        return logits.squeeze(1)


class StyleGAN2Discriminator(nn.Module):
    """Images in [0, 1] to one logit each: positive where they look real.

    Args:
        side: of the image: a power of two, at least 8.
        colours: channels of an image.
        channel_base: a side s has channel_base / s channels,
        channel_max: and this many at most.
        taps: of the resampling filter.
        group: images whose deviation from each other is seen.
    """

    def __init__(
        self,
        side: int,
        colours: int,
        *,
        channel_base: int,
        channel_max: int,
        taps: Sequence[float] = (1.0, 3.0, 3.0, 1.0),
        group: int = 4,
    ) -> None:
        super().__init__()
        self.sides = sides_up_to(side)[:0:-1]

        def channels(each: int) -> int:
            return min(channel_base // each, channel_max)

        for each in self.sides:
            block = DownBlock(channels(each), channels(each // 2), colours if each == side else 0, taps=taps)
            setattr(self, f"b{each}", block)
        self.b4 = Epilogue(channels(4), taps=taps, group=group)

    def forward(self, images: Tensor) -> Tensor:
        features = 2 * images - 1
        for side in self.sides:
            features = getattr(self, f"b{side}")(features)
        logits: Tensor = self.b4(features)
        return logits


def _variety(features: Tensor) -> Tensor:
    deviation = (features.float().var(dim=0, correction=0) + _FLOOR).sqrt().mean()
    return deviation.to(features.dtype).expand(len(features))
