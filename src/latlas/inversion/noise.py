"""The noise inputs of a StyleGAN, descended together with the code as StyleGAN2's projector does."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from latlas.base.errors import CapabilityError
from latlas.base.provenance import UNSTATED
from latlas.base.shapes import Codes, Images, ImageShape, LatentShape
from latlas.models.adapters.stylegan2 import StyleGANModel
from latlas.models.architectures.stylegan2 import clip
from latlas.models.protocols import LatentModel, check_codes, device_of

_COARSEST = 8  # side at which the pyramid of a noise map ends


@dataclass(frozen=True, kw_only=True, eq=False)
class NoiseInputs:
    """The way to draw with other noise than the network's own."""

    model: StyleGANModel

    def start(self, n: int) -> list[Tensor]:
        """Return the network's own noise, one copy an image: `n 1 side side` for each layer."""
        return [
            buffer.detach().clone().expand(n, 1, -1, -1).contiguous() for buffer in self.model.network.synthesis.noise_buffers
        ]

    def draw(self, codes: Codes, noises: Sequence[Tensor]) -> Images:
        """Return the image of each code with its own noise."""
        return clip(self.model.network.draw(self.model.layers(codes), list(noises)))


class NoisyGenerator:
    """A StyleGAN whose codes hold its noise too: the code, and behind it the noise of each layer, row by row.

    What was found with noise of its own is drawn by it as it was found.
    """

    def __init__(self, model: LatentModel) -> None:
        self.inputs = noise_inputs(model)
        self.code_size = self.inputs.model.latent_shape[0]
        self.sides = [noise.shape[-1] for noise in self.inputs.start(1)]
        self.name = f"{model.name} with noise"
        self.image_shape: ImageShape = model.image_shape
        self.latent_shape: LatentShape = (self.code_size + sum(side**2 for side in self.sides),)
        self.device = device_of(model)
        self.fingerprint = UNSTATED if model.fingerprint == UNSTATED else f"{model.fingerprint}/noise"

    def joined(self, codes: Codes, noises: Sequence[Tensor]) -> Float[Tensor, "n joined"]:
        """Return codes and their noise as codes of this generator."""
        return torch.cat([codes, *(noise.flatten(1) for noise in noises)], dim=1)

    def decode(self, codes: Codes) -> Images:
        """Return the image of each code with its noise."""
        check_codes(codes, self)
        code, *rows = torch.split(codes, [self.code_size, *(side**2 for side in self.sides)], dim=1)
        noises = [row.reshape(-1, 1, side, side) for row, side in zip(rows, self.sides, strict=True)]
        return self.inputs.draw(code, noises)

    def sample_codes(self, n: int, generator: torch.Generator) -> Codes:
        """Return codes as the generator draws them, with fresh noise."""
        codes = self.inputs.model.sample_codes(n, generator)
        return torch.cat([codes, torch.randn(n, self.latent_shape[0] - self.code_size, generator=generator)], dim=1)


def noise_inputs(decoder: LatentModel) -> NoiseInputs:
    """Return the noise inputs of a StyleGAN2.

    Raises:
        CapabilityError: the model has none.
    """
    inner = getattr(decoder, "generator", decoder)  # of a generator with its recoder
    if isinstance(inner, StyleGANModel) and inner.noise == "const" and inner.network.synthesis.noise_buffers:
        return NoiseInputs(model=inner)
    raise CapabilityError(
        f"{decoder.name} has no noise inputs that could be descended. Leave out noise_weight, or give a StyleGAN2 that was "
        "trained with noise, in one of its latent spaces (stylegan2:FILE#w)."
    )


def noise_penalty(noises: Sequence[Tensor]) -> Tensor:
    """Return, an image, how far its noise maps are from white: squared correlations of neighbours, summed over scales.

    Each map is compared with itself shifted by one pixel down and to the right, at its own side and at every half of it down
    to 8 (Karras et al. 2020, arXiv:1912.04958, appendix D).

    Args:
        noises: one for each layer, `n 1 side side`.
    """
    total = noises[0].new_zeros(len(noises[0]))
    for noise in noises:
        scaled = noise
        while True:
            for axis in (2, 3):
                total = total + (scaled * scaled.roll(1, dims=axis)).flatten(1).mean(dim=1).square()
            if scaled.shape[2] <= _COARSEST:
                break
            scaled = F.avg_pool2d(scaled, 2) * 2  # the sum of four, halved: white noise keeps its variance
    return total


@torch.no_grad()
def normalised(noise: Tensor) -> Tensor:
    """Return noise maps each brought to mean 0 and mean square 1, as the projector does after every step."""
    centred = noise - noise.mean(dim=(2, 3), keepdim=True)
    return centred * centred.square().mean(dim=(2, 3), keepdim=True).clamp_min(1e-12).rsqrt()
