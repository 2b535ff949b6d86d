"""DRAW (Gregor et al. 2015, arXiv:1502.04623): an image in steps, each seen and drawn through a window that moves.

The code of a step depends on the codes drawn before it, so an encoder cannot give the posterior of an image at once: it
gives posterior and codes together, for a given noise (`infer`). The decoder replays the steps from the codes alone.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from latlas.base.errors import SettingError
from latlas.base.shapes import Codes, Images, ImageShape, LatentShape
from latlas.models.architectures.architecture import check_positive


@dataclass(frozen=True, kw_only=True)
class Draw:
    """Two recurrent networks that take turns: one looks at the image and at what is missing, the other adds to a canvas.

    The latent space is the codes of all steps in one vector, the first step first. Images of any shape are served.
    The published digits had 64 steps of 100 variables, 256 hidden units, windows of 2 x 2 to read and 5 x 5 to write.
    """

    name: ClassVar[str] = "draw"
    convolutional: ClassVar[bool] = False

    steps: int = 10  # how often the canvas is added to
    latent: int = 10  # variables a step
    hidden: int = 256  # units of each recurrent network
    attention: bool = True  # read and write through a moving window; False: all of the image in every step
    read: int = 5  # side of the window that is read, in filters; without attention it has no effect
    write: int = 5  # side of the window that is written; likewise

    def __post_init__(self) -> None:
        check_positive(self.name, steps=self.steps, latent=self.latent, hidden=self.hidden, read=self.read, write=self.write)
        if self.attention and min(self.read, self.write) < 2:
            raise SettingError(f"{self.name}: a window needs 2 x 2 filters at least, got read {self.read}, write {self.write}.")

    def latent_shape(self, image_shape: ImageShape) -> LatentShape:
        return (self.steps * self.latent,)

    def encoder(self, image_shape: ImageShape) -> nn.Module:
        return DrawEncoder(image_shape, self)

    def decoder(self, image_shape: ImageShape) -> nn.Module:
        return DrawDecoder(image_shape, self)


class Memory(NamedTuple):
    """What a recurrent network carries from one step to the next."""

    hidden: Float[Tensor, "n hidden"]
    cell: Float[Tensor, "n hidden"]


class Window(nn.Module):
    """Where a state looks: a grid of Gaussian filters over the image, and an intensity (equations 21 to 27)."""

    def __init__(self, hidden: int, grid: int, image_shape: ImageShape) -> None:
        super().__init__()
        self.grid = grid
        _, self.height, self.width = image_shape
        self.place = nn.Linear(hidden, 5)

    def forward(self, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the filters of the rows, those of the columns, and the intensity."""
        across, down, log_variance, log_stride, log_intensity = self.place(state).float().chunk(5, dim=1)
        stride = (max(self.height, self.width) - 1) / (self.grid - 1) * log_stride.exp()
        rows = filter_bank((self.height + 1) / 2 * (down + 1), stride, log_variance, grid=self.grid, size=self.height)
        columns = filter_bank((self.width + 1) / 2 * (across + 1), stride, log_variance, grid=self.grid, size=self.width)
        return rows, columns, log_intensity.exp()[:, :, None, None]


def filter_bank(
    centre: Float[Tensor, "n 1"],
    stride: Float[Tensor, "n 1"],
    log_variance: Float[Tensor, "n 1"],
    *,
    grid: int,
    size: int,
) -> Float[Tensor, "n 1 {grid} {size}"]:
    """Return one normalised Gaussian filter a row (equations 19, 20, 25 and 26).

    Each row sums to 1 however far outside the image it is centred: a softmax divides by the sum before anything can
    underflow, where the published quotient becomes 0 / 0.

    Args:
        centre: of the grid, in pixels; the first pixel is 1, as in the paper.
        stride: from one filter to the next, in pixels.
        log_variance: of the Gaussians, in squared pixels.
        grid: number of filters.
        size: pixels of the side.
    """
    offsets = torch.arange(1, grid + 1, device=centre.device) - grid / 2 - 0.5
    means = centre + offsets * stride
    pixels = torch.arange(1, size + 1, device=centre.device, dtype=centre.dtype)
    squared_distance = (pixels - means[:, :, None]).square()
    return (-0.5 * squared_distance * (-log_variance[:, :, None]).exp()).softmax(dim=2)[:, None]


class DrawEncoder(nn.Module):
    """Images and noise to means, log-variances and the codes of the noise."""

    def __init__(self, image_shape: ImageShape, settings: Draw) -> None:
        super().__init__()
        self.latent = settings.latent
        seen = 2 * (image_shape[0] * settings.read**2 if settings.attention else math.prod(image_shape))
        self.window = Window(settings.hidden, settings.read, image_shape) if settings.attention else None
        self.network = nn.LSTMCell(seen + settings.hidden, settings.hidden)
        self.start = nn.Parameter(torch.zeros(2, settings.hidden))  # hidden and cell
        self.head = nn.Linear(settings.hidden, 2 * settings.latent)

    def unroll(self, images: Images, noise: Codes, decoder: "DrawDecoder") -> tuple[Codes, Codes, Codes, Tensor]:
        """Return means, log-variances and codes of all steps, and the last canvas.

        Args:
            images: what to encode.
            noise: standard normal, of the latent shape; zeros follow the means.
            decoder: the other half, whose canvas and state the steps look at.
        """
        mine = Memory(*(start.expand(images.shape[0], -1) for start in self.start))
        theirs, canvas = decoder.begin(images.shape[0])
        means, log_variances, codes = [], [], []
        for step_noise in torch.split(noise, self.latent, dim=1):
            glimpse = self.look(images, images - canvas.sigmoid(), theirs.hidden)
            mine = Memory(*self.network(torch.cat([glimpse, theirs.hidden], dim=1), mine))
            mean, log_variance = self.head(mine.hidden).chunk(2, dim=1)
            code = mean + step_noise * (0.5 * log_variance).exp()
            theirs, canvas = decoder.step(code, theirs, canvas)
            means.append(mean)
            log_variances.append(log_variance)
            codes.append(code)
        return torch.cat(means, dim=1), torch.cat(log_variances, dim=1), torch.cat(codes, dim=1), canvas

    def look(self, images: Images, missing: Tensor, state: Tensor) -> Tensor:
        """Return what a step sees of the image and of what the canvas lacks, in one vector."""
        both = torch.cat([images, missing], dim=1)
        if self.window is None:
            return both.flatten(1)
        rows, columns, intensity = self.window(state)
        return (intensity * (rows @ both @ columns.mT)).flatten(1)


class DrawDecoder(nn.Module):
    """Codes to logits: the last canvas."""

    def __init__(self, image_shape: ImageShape, settings: Draw) -> None:
        super().__init__()
        self.latent = settings.latent
        channels = image_shape[0]
        self.patch_shape = (channels, settings.write, settings.write) if settings.attention else tuple(image_shape)
        self.window = Window(settings.hidden, settings.write, image_shape) if settings.attention else None
        self.network = nn.LSTMCell(settings.latent, settings.hidden)
        self.start = nn.Parameter(torch.zeros(2, settings.hidden))  # hidden and cell
        self.blank = nn.Parameter(torch.zeros(image_shape))  # the canvas before the first step
        self.patch = nn.Linear(settings.hidden, math.prod(self.patch_shape))

    def forward(self, codes: Codes) -> Tensor:
        memory, canvas = self.begin(codes.shape[0])  # len() is a number where an export traces, the shape a symbol
        for code in torch.split(codes, self.latent, dim=1):
            memory, canvas = self.step(code, memory, canvas)
        return canvas

    def begin(self, n: int) -> tuple[Memory, Tensor]:
        """Return the state and the canvas before the first step, for n images."""
        return Memory(*(start.expand(n, -1) for start in self.start)), self.blank.expand(n, -1, -1, -1)

    def step(self, code: Tensor, memory: Memory, canvas: Tensor) -> tuple[Memory, Tensor]:
        """Return state and canvas after one more code."""
        after = Memory(*self.network(code, memory))
        patch = self.patch(after.hidden).unflatten(1, self.patch_shape)
        if self.window is None:
            return after, canvas + patch
        rows, columns, intensity = self.window(after.hidden)
        return after, canvas + rows.mT @ patch @ columns / intensity
