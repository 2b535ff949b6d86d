"""Reconstruction gain: what each latent variable buys."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from latlas.base.progress import Progress, silent, track
from latlas.base.shapes import Codes, PerVariable
from latlas.data.images import ImageSet
from latlas.measurements.reconstruction import decode_errors
from latlas.models.protocols import Decoder


@dataclass(frozen=True, kw_only=True)
class Gain:
    """Growth of the squared error per pixel when a variable is set to 0, averaged over images."""

    mean: PerVariable
    standard_error: PerVariable  # over images

    def order(self) -> list[int]:
        """Variables from the most to the least informative."""
        return [int(index) for index in self.mean.argsort(descending=True, stable=True)]


def reconstruction_gain(decoder: Decoder, codes: Codes, images: ImageSet, *, progress: Progress = silent) -> Gain:
    """Return the gain of each variable: mean of error(z with z_i = 0) - error(z), for codes z of images.

    A channel of a spatial latent space counts as one variable: it is set to 0 at every position.

    Cost: one decode of every image for each variable, and one more. `order_variables` finds the largest with far fewer.
    """
    growth = growths(decoder, codes, images, range(codes.shape[1]), progress=progress)
    unknown = torch.full((growth.shape[1],), float("nan"), dtype=torch.float64)
    return Gain(mean=growth.mean(dim=0), standard_error=growth.std(dim=0) / len(growth) ** 0.5 if len(growth) > 1 else unknown)


def growths(
    decoder: Decoder, codes: Codes, images: ImageSet, variables: Sequence[int], *, progress: Progress = silent
) -> Float64[Tensor, "n chosen"]:
    """Return by how much the squared error per pixel of each image grows when each of some variables is set to 0.

    Args:
        decoder: what decodes.
        codes: one an image, in order.
        images: the originals.
        variables: whose growths are wanted; channels, of a spatial latent space.
        progress: told after each variable.
    """
    base = decode_errors(decoder, codes, images)
    columns = []
    for variable in track(variables, "gain of each variable", progress):
        silenced = codes.clone()
        silenced[:, variable] = 0.0
        columns.append(decode_errors(decoder, silenced, images) - base)
    return torch.stack(columns, dim=1)
