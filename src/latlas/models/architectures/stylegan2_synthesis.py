"""The synthesis network of StyleGAN2: from one style code a layer to an image."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from latlas.base.errors import SettingError, unknown_name
from latlas.models.architectures.stylegan2_layers import Clamp, Convolution, StyledConvolution, ToImage, lowpass, upsample

STRUCTURES = ("orig", "skip", "resnet")
NOISES = ("const", "none", "random")

Noise = str | Sequence[Tensor]  # one of NOISES, or one tensor for each layer that takes noise

_HALF = math.sqrt(0.5)  # a sum of two equal variances, brought back to one


class Block(nn.Module):
    """The layers of one side: two styled convolutions (at the smallest side one), and a way to an image.

    Args:
        inputs: channels; 0 for the smallest side, which starts from a constant.
        outputs: channels.
        side: of the output.
        style: variables of a style.
        colours: channels of an image.
        structure: one of STRUCTURES.
        last: whether the image leaves here.
        taps: of the resampling filter.
        noisy: whether noise is added.
        clamp: where features are cut off.
    """

    resample_filter: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        side: int,
        style: int,
        colours: int,
        *,
        structure: str,
        last: bool,
        taps: Sequence[float],
        noisy: bool,
        clamp: Clamp,
    ) -> None:
        super().__init__()
        self.register_buffer("resample_filter", lowpass(taps))
        self.first, self.structure, self.draws = inputs == 0, structure, last or structure == "skip"

        def styled(channels: int, *, up: bool) -> StyledConvolution:
            return StyledConvolution(channels, outputs, side, style, taps=taps, up=up, noisy=noisy, clamp=clamp)

        if self.first:
            self.const = nn.Parameter(torch.randn(outputs, side, side))
        else:
            self.conv0 = styled(inputs, up=True)
        self.conv1 = styled(outputs, up=False)
        if self.draws:
            self.torgb = ToImage(outputs, colours, style, clamp=clamp)
        if structure == "resnet" and not self.first:
            self.skip = Convolution(inputs, outputs, 1, taps=taps, resampling="up", biased=False, active=False)

    @property
    def convolutions(self) -> list[StyledConvolution]:
        """In the order of the features."""
        return [self.conv1] if self.first else [self.conv0, self.conv1]

    def forward(
        self, features: Tensor | None, image: Tensor | None, styles: Sequence[Tensor], noises: Sequence[Tensor | None]
    ) -> tuple[Tensor, Tensor | None]:
        """Return features and the image so far.

        Args:
            features: of the block before; None in the first.
            image: of the block before, where there is one.
            styles: one for each convolution, and one more for the way to an image.
            noises: one for each convolution.
        """
        if self.first:
            # Channels last: whatever follows takes this layout over. On a CPU it halves the time of a whole pass.
            start = self.const.expand(len(styles[0]), -1, -1, -1).contiguous(memory_format=torch.channels_last)
            features = self.conv1(start, styles[0], noises[0])
        elif self.structure == "resnet":
            shortcut = self.skip(features, _HALF)
            features = shortcut + self.conv1(self.conv0(features, styles[0], noises[0]), styles[1], noises[1], _HALF)
        else:
            features = self.conv1(self.conv0(features, styles[0], noises[0]), styles[1], noises[1])
        assert features is not None
        if image is not None:
            image = upsample(image, self.resample_filter)
        if self.draws:
            drawn = self.torgb(features, styles[len(self.convolutions)])
            image = drawn if image is None else image + drawn
        return features, image


class Synthesis(nn.Module):
    """Blocks of sides 4, 8, 16 and on, up to the image's.

    Args:
        side: of the image: a power of two, at least 4.
        style: variables of a style.
        colours: channels of an image.
        channel_base: a side s has channel_base / s channels,
        channel_max: and this many at most.
        structure: "skip": the image is a sum over all sides; "resnet": blocks have shortcuts; "orig": neither.
        taps: of the resampling filter.
        noisy: whether noise is added.
        clamp: where features are cut off; None: nowhere.
    """

    def __init__(
        self,
        side: int,
        style: int,
        colours: int,
        *,
        channel_base: int = 32768,
        channel_max: int = 512,
        structure: str = "skip",
        taps: Sequence[float] = (1.0, 3.0, 3.0, 1.0),
        noisy: bool = True,
        clamp: Clamp = None,
    ) -> None:
        super().__init__()
        self.sides = sides_up_to(side)
        self.style, self.noisy = style, noisy
        inputs = 0
        for each in self.sides:
            outputs = min(channel_base // each, channel_max)
            block = Block(
                inputs,
                outputs,
                each,
                style,
                colours,
                structure=structure,
                last=each == side,
                taps=taps,
                noisy=noisy,
                clamp=clamp,
            )
            setattr(self, f"b{each}", block)
            inputs = outputs
        self.num_ws = sum(len(block.convolutions) for block in self.blocks) + 1

    @property
    def blocks(self) -> list[Block]:
        """From the smallest side on."""
        return [getattr(self, f"b{side}") for side in self.sides]

    @property
    def noise_buffers(self) -> list[Tensor]:
        """The constant noise of each layer, `side side`, as `noise="const"` adds it; empty in a network without noise."""
        layers = [layer for block in self.blocks for layer in block.convolutions]
        return [layer.noise_const for layer in layers] if self.noisy else []

    def forward(self, codes: Tensor, noise: Noise = "const", generator: torch.Generator | None = None) -> Tensor:
        """Return images as the network gives them: nominally in [-1, 1], and beyond.

        Args:
            codes: W+, `n num_ws style`.
            noise: "const", the same for all images; "none"; "random", anew for each image; or one tensor for each of
                `noise_buffers`, `side side` or `n 1 side side`.
            generator: draws the random noise.

        Raises:
            UnknownNameError: no such mode of noise.
            SettingError: random noise without a generator, or another number of tensors than there are layers.
        """
        features: Tensor | None = None
        image: Tensor | None = None
        layer = 0
        noises = self._noises(noise, len(codes), codes, generator)
        for block in self.blocks:
            count = len(block.convolutions)
            styles = [codes[:, number] for number in range(layer, layer + count + block.draws)]
            features, image = block(features, image, styles, noises[layer : layer + count])
            layer += count
        assert image is not None
        return image

    def _noises(self, noise: Noise, count: int, like: Tensor, generator: torch.Generator | None) -> Sequence[Tensor | None]:
        if isinstance(noise, str) and noise not in NOISES:
            raise unknown_name("noise", noise, NOISES)
        if noise == "none" or not self.noisy:
            return [None] * (self.num_ws - 1)
        if noise == "const":
            return self.noise_buffers
        if noise == "random":
            if generator is None:
                raise SettingError("Random noise needs a generator, that a seed may decide it.")
            shapes = [(count, 1, *buffer.shape) for buffer in self.noise_buffers]
            return [torch.randn(shape, generator=generator, device=generator.device).to(like) for shape in shapes]
        if len(noise) != self.num_ws - 1:
            raise SettingError(f"The noise must be one tensor for each of {self.num_ws - 1} layers, got {len(noise)}.")
        return [each for each in noise if isinstance(each, Tensor)]


def sides_up_to(side: int) -> list[int]:
    """Return the sides of the blocks of an image of this side.

    >>> sides_up_to(32)
    [4, 8, 16, 32]
    """
    return [2**power for power in range(2, side.bit_length())]
