"""DRAW (Gregor et al. 2015, arXiv:1502.04623): an image in steps, each seen and drawn through a window that moves.

The code of a step depends on the codes drawn before it, so an encoder cannot give the posterior of an image at once: it
gives posterior and codes together, for a given noise (`infer`). The decoder replays the steps from the codes alone.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from latlas.base.errors import SettingError
from latlas.base.shapes import Codes, Images, ImageShape, LatentShape
from latlas.models.architectures.architecture import Architecture, check_positive
from latlas.models.architectures.surgery import Cut, Weights, replaced, rows_in

_MOST_VARIABLES = 1_000_000  # of all steps together; the published digits had 6,400


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
    kept: tuple[int, ...] = ()  # variables that remain after pruning, of all steps together; empty: every one

    def __post_init__(self) -> None:
        check_positive(self.name, steps=self.steps, latent=self.latent, hidden=self.hidden, read=self.read, write=self.write)
        if self.attention and min(self.read, self.write) < 2:
            raise SettingError(f"{self.name}: a window needs 2 x 2 filters at least, got read {self.read}, write {self.write}.")

        if self.steps * self.latent > _MOST_VARIABLES:
            raise SettingError(
                f"{self.name}: steps times latent may be {_MOST_VARIABLES:,} at most, got {self.steps} times {self.latent}."
            )
        every = range(self.steps * self.latent)
        if not all(isinstance(variable, int) and variable in every for variable in self.kept) or any(
            variable >= following for variable, following in pairwise(self.kept)
        ):
            raise SettingError(
                f"{self.name}: kept must name variables from 0 to {every[-1]}, once each and ascending, got {self.kept}."
            )

    @property
    def places(self) -> list[list[int]]:
        """Which variables of its own each step has: all of them unless the network was pruned."""
        places: list[list[int]] = [[] for _ in range(self.steps)]
        for variable in self.kept or range(self.steps * self.latent):
            places[variable // self.latent].append(variable % self.latent)
        return places

    @property
    def used(self) -> list[int]:
        """Variables that at least one step has."""
        return sorted({variable for step in self.places for variable in step})

    def latent_shape(self, image_shape: ImageShape) -> LatentShape:
        return (len(self.kept) or self.steps * self.latent,)

    def encoder(self, image_shape: ImageShape) -> nn.Module:
        return DrawEncoder(image_shape, self)

    def decoder(self, image_shape: ImageShape) -> nn.Module:
        return DrawDecoder(image_shape, self)

    def pruned(self, weights: Mapping[str, Tensor], cut: Cut) -> tuple[Architecture, Weights]:
        # The steps share their layers, and a variable may be of use to some of them only: each step then has constants of its own
        # for the others, which no bias could hold for all steps. The encoder makes nothing that no step has.
        before = list(self.kept) or list(range(self.steps * self.latent))
        built = replace(self, kept=tuple(before[variable] for variable in cut.kept))
        rows = rows_in(built.used, among=self.used)
        rows += [len(self.used) + row for row in rows]
        fixed = weights["decoder.fixed"].flatten().clone() if self.kept else torch.zeros(self.steps * self.latent)
        fixed[[before[variable] for variable in cut.removed]] = cut.folded.to(fixed)
        heads = {name: weights[name][rows] for name in ("encoder.head.weight", "encoder.head.bias")}
        like = weights["encoder.head.bias"]
        return built, {**replaced(weights, heads), "decoder.fixed": fixed.view(self.steps, self.latent).to(like)}


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
        self.places = [rows_in(step, among=settings.used) for step in settings.places]
        seen = 2 * (image_shape[0] * settings.read**2 if settings.attention else math.prod(image_shape))
        self.window = Window(settings.hidden, settings.read, image_shape) if settings.attention else None
        self.network = nn.LSTMCell(seen + settings.hidden, settings.hidden)
        self.start = nn.Parameter(torch.zeros(2, settings.hidden))  # hidden and cell
        self.head = nn.Linear(settings.hidden, 2 * len(settings.used))

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
        for step, step_noise in enumerate(torch.split(noise, [len(places) for places in self.places], dim=1)):
            glimpse = self.look(images, images - canvas.sigmoid(), theirs.hidden)
            mine = Memory(*self.network(torch.cat([glimpse, theirs.hidden], dim=1), mine))
            mean, log_variance = (_taken(part, self.places[step]) for part in self.head(mine.hidden).chunk(2, dim=1))
            code = mean + step_noise * (0.5 * log_variance).exp()
            theirs, canvas = decoder.step(decoder.complete(code, step), theirs, canvas)
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


def _taken(values: Tensor, places: list[int]) -> Tensor:
    return values if len(places) == values.shape[1] else values[:, places]


class DrawDecoder(nn.Module):
    """Codes to logits: the last canvas."""

    fixed: Tensor | None

    def __init__(self, image_shape: ImageShape, settings: Draw) -> None:
        super().__init__()
        self.places = settings.places
        channels = image_shape[0]
        self.patch_shape = (channels, settings.write, settings.write) if settings.attention else tuple(image_shape)
        self.window = Window(settings.hidden, settings.write, image_shape) if settings.attention else None
        self.network = nn.LSTMCell(settings.latent, settings.hidden)
        self.start = nn.Parameter(torch.zeros(2, settings.hidden))  # hidden and cell
        self.blank = nn.Parameter(torch.zeros(image_shape))  # the canvas before the first step
        self.patch = nn.Linear(settings.hidden, math.prod(self.patch_shape))
        # Constants of removed variables, at their places.
        self.register_buffer("fixed", torch.zeros(settings.steps, settings.latent) if settings.kept else None)

    def forward(self, codes: Codes) -> Tensor:
        memory, canvas = self.begin(codes.shape[0])  # len() is a number where an export traces, the shape a symbol
        for step, code in enumerate(torch.split(codes, [len(places) for places in self.places], dim=1)):
            memory, canvas = self.step(self.complete(code, step), memory, canvas)
        return canvas

    def complete(self, code: Tensor, step: int) -> Tensor:
        """Return the code of a step with the constants of the variables that were removed from it."""
        if self.fixed is None:
            return code
        places = torch.tensor(self.places[step], dtype=torch.long, device=code.device)
        return self.fixed[step].to(code.dtype).expand(code.shape[0], -1).index_copy(1, places, code)

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
