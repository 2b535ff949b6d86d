"""Parts that several architectures are built of: the square frame that images are padded into, and residual blocks."""

from torch import Tensor, nn

from latlas.base.errors import ImageFormatError
from latlas.base.shapes import ImageShape


def square_side(name: str, image_shape: ImageShape, *, at_least: int = 1) -> int:
    """Return the side of square images.

    Args:
        name: of the architecture, for the error.
        image_shape: channels, height, width.
        at_least: the smallest side that it serves.

    Raises:
        ImageFormatError: the images are not square, or too small.
    """
    _, height, width = image_shape
    if height != width:
        raise ImageFormatError(f"{name} serves square images, got {height} x {width}. Crop or resize them (--resize N).")
    if height < at_least:
        raise ImageFormatError(
            f"{name} with these settings needs images of {at_least} x {at_least} at least, got {height} x {width}. "
            f"Resize them (--resize {at_least}), or halve them less often."
        )
    return height


def frame_padding(side: int, frame: int) -> list[int]:
    """Return what `pad` must add to centre a side in a frame: left, right, top, bottom. Negated, it crops back.

    >>> frame_padding(27, 32)
    [2, 3, 2, 3]
    """
    before = (frame - side) // 2
    after = frame - side - before
    return [before, after, before, after]


def next_multiple(side: int, factor: int) -> int:
    """Return the smallest multiple of a factor that holds a side.

    >>> next_multiple(28, 8)
    32
    """
    return -(-side // factor) * factor


def next_power_of_two(side: int) -> int:
    """Return the smallest power of two that holds a side.

    >>> next_power_of_two(28), next_power_of_two(32)
    (32, 32)
    """
    return 1 << (side - 1).bit_length()


class ResidualBlock(nn.Module):
    """Two of (batch norm, activation, 3x3 convolution), and a 3x3 convolution as shortcut (Dai and Wipf 2019).

    Batch norm keeps torch's memory of about ten steps (momentum 0.1), where the published code has a thousand: those
    statistics are already ten times steadier than what the network was trained under, and are right after a short run.
    """

    def __init__(self, channels: int, activation: type[nn.Module]) -> None:
        super().__init__()
        self.path = nn.Sequential(
            nn.BatchNorm2d(channels),
            activation(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),  # the next norm would subtract a bias again
            nn.BatchNorm2d(channels),
            activation(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )
        self.shortcut = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        out: Tensor = self.path(features) + self.shortcut(features)
        return out


class DenseResidual(nn.Module):
    """Two of (activation, dense), and a dense shortcut."""

    def __init__(self, inputs: int, outputs: int, activation: type[nn.Module]) -> None:
        super().__init__()
        self.path = nn.Sequential(activation(), nn.Linear(inputs, outputs), activation(), nn.Linear(outputs, outputs))
        self.shortcut = nn.Linear(inputs, outputs)

    def forward(self, features: Tensor) -> Tensor:
        out: Tensor = self.path(features) + self.shortcut(features)
        return out


def halving(inputs: int, outputs: int) -> nn.Conv2d:
    """Return a 3x3 convolution that halves an even side."""
    return nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)


def doubling(inputs: int, outputs: int) -> nn.ConvTranspose2d:
    """Return a transposed 3x3 convolution that doubles a side."""
    return nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1)
