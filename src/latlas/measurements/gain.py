"""Reconstruction gain: what each latent variable buys."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from latlas.base.progress import Progress, silent, track
from latlas.base.shapes import Codes, PerVariable
from latlas.data.images import ImageSet
from latlas.encodings.engines.engine import Engine
from latlas.encodings.statistics import Bounds, divided, merged
from latlas.measurements.reconstruction import decode_errors
from latlas.models.protocols import Decoder, images_at_once
from latlas.numerics.moments import MarginalMoments

_PART = 1000  # images of an engine's item


@dataclass(frozen=True, kw_only=True)
class Gain:
    """Growth of the squared error per pixel when a variable is set to 0, averaged over images."""

    mean: PerVariable
    standard_error: PerVariable  # over images

    def order(self) -> list[int]:
        """Variables from the most to the least informative."""
        return [int(index) for index in self.mean.argsort(descending=True, stable=True)]


def reconstruction_gain(
    decoder: Decoder, codes: Codes, images: ImageSet, *, engine: Engine | None = None, progress: Progress = silent
) -> Gain:
    """Return the gain of each variable: mean of error(z with z_i = 0) - error(z), for codes z of images.

    A channel of a spatial latent space counts as one variable: it is set to 0 at every position.

    Args:
        decoder: what decodes.
        codes: one an image, in order.
        images: the originals.
        engine: who computes; decoder, codes and images travel to it. None: this process.
        progress: told after each variable; of an engine, after each part of the images.

    Cost: one decode of every image for each variable, and one more. `order_variables` finds the largest with far fewer.
    """
    if engine is not None:
        size = images_at_once(images.image_shape)  # parts of whole batches: each image is decoded beside the same others
        bounds = divided(len(images), size * -(-_PART // size))
        found = engine.map(_GrowthsOf(decoder, codes, images), bounds, task="gain of each variable", progress=progress)
        moments = merged(found, bounds, MarginalMoments.merge)
        spread = (moments.scatter / (moments.count - 1)).sqrt() if moments.count > 1 else moments.scatter * float("nan")
        return Gain(mean=moments.mean, standard_error=spread / moments.count**0.5)
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


@dataclass(frozen=True, eq=False)
class _GrowthsOf:
    decoder: Decoder
    codes: Tensor
    images: ImageSet

    def __call__(self) -> Callable[[Bounds], MarginalMoments]:
        return self.of

    def of(self, bounds: Bounds) -> MarginalMoments:
        part = slice(*bounds)
        growth = growths(self.decoder, self.codes[part], self.images.slice(*bounds), range(self.codes.shape[1]))
        return MarginalMoments.of(growth)
