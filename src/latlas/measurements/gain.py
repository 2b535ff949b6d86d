"""Reconstruction gain: what each latent variable buys."""

from dataclasses import dataclass

import torch

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

    Cost: one decode of every image for each variable, and one more.
    """
    base = decode_errors(decoder, codes, images)
    means, errors = [], []
    for variable in track(range(codes.shape[1]), "gain of each variable", progress):
        silenced = codes.clone()
        silenced[:, variable] = 0.0
        growth = decode_errors(decoder, silenced, images) - base
        means.append(growth.mean())
        errors.append(growth.std() / len(growth) ** 0.5 if len(growth) > 1 else torch.tensor(float("nan")).double())
    return Gain(mean=torch.stack(means), standard_error=torch.stack(errors))
