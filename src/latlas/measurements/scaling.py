"""The numbers that a diffusion model needs of its autoencoder: by how much to shift and scale the codes, and how surely."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from latlas.base.errors import IllPosedError
from latlas.base.shapes import Codes, PerVariable
from latlas.encodings.encoding import Encoding
from latlas.models.protocols import CodeScale

# How far from 1 the deviation of scaled codes may lie: a tenth is 0.8 dB of the signal-to-noise ratio of a noise schedule.
TOLERANCE = 0.1

_AT_ONCE = 1000  # images


@dataclass(frozen=True, kw_only=True)
class ConfiguredScaling:
    """What the normalisation that a model's config states makes of these codes: mean 0 and deviation 1 are meant."""

    scale: CodeScale
    mean: float  # of the scaled codes, over channels, positions and images
    mean_error: float  # standard error over images
    deviation: float
    deviation_error: float

    @property
    def fits(self) -> bool:
        """Whether the deviation is within `TOLERANCE` of 1, or within three standard errors where those are larger."""
        slack = TOLERANCE if math.isnan(self.deviation_error) else max(TOLERANCE, 3 * self.deviation_error)
        return abs(self.deviation - 1.0) <= slack


@dataclass(frozen=True, kw_only=True, eq=False)
class LatentScaling:
    """Means and deviations of codes drawn from the posteriors of images, under the names that diffusers gives them.

    One number for all channels, (code - shift_factor) * scaling_factor, or one a channel, (code - latents_mean) / latents_std:
    either makes codes of mean 0 and deviation 1. Standard errors are over images; NaN of one image.
    """

    count: int  # images
    scaling_factor: float  # infinite where codes do not vary
    scaling_factor_error: float
    shift_factor: float
    shift_factor_error: float
    latents_mean: PerVariable
    latents_mean_error: PerVariable
    latents_std: PerVariable
    latents_std_error: PerVariable
    configured: ConfiguredScaling | None  # None where the model states none


def latent_scaling(encoding: Encoding, *, configured: CodeScale | None = None) -> LatentScaling:
    """Return the shift and scale of codes, and what a stated normalisation makes of them.

    A trainer of a diffusion model sees codes drawn from the posteriors, so the variance of a channel is the variance of the
    means and the mean posterior variance together. The scaling factor is 1 / deviation over everything (Rombach et al. 2022,
    arXiv:2112.10752, appendix D.1). Positions of one image are no independent draws: errors are taken over images.

    Args:
        encoding: spatial codes, or vectors, each variable of which counts as a channel.
        configured: the normalisation to be checked, of the codes as the encoding has them.

    Raises:
        IllPosedError: the encoding is empty.

    Cost: two passes over the codes, in float64.
    """
    if len(encoding) == 0:
        raise IllPosedError(f"The scale of no codes was asked for: the encoding of {encoding.images} is empty. Encode some.")
    averages = torch.cat([_by_channel(part).mean(dim=2) for part in torch.split(encoding.mean, _AT_ONCE)])
    centre = averages.mean(dim=0)
    spreads = _spreads(encoding.mean, encoding.log_variance, centre)
    channel_std, channel_std_error = _deviation(spreads)
    shift, shift_error, std, std_error = _pooled(averages, spreads)
    return LatentScaling(
        count=len(encoding),
        scaling_factor=1.0 / std if std > 0 else float("inf"),
        scaling_factor_error=std_error / std**2 if std > 0 else float("nan"),
        shift_factor=shift,
        shift_factor_error=shift_error,
        latents_mean=centre,
        latents_mean_error=_standard_error(averages),
        latents_std=channel_std,
        latents_std_error=channel_std_error,
        configured=None if configured is None else _configured(configured, averages, spreads),
    )


def _configured(scale: CodeScale, averages: Tensor, spreads: Tensor) -> ConfiguredScaling:
    squared = torch.tensor(scale.factor, dtype=torch.float64).square()
    mean, mean_error, deviation, deviation_error = _pooled(scale.apply(averages), spreads * squared)
    return ConfiguredScaling(
        scale=scale, mean=mean, mean_error=mean_error, deviation=deviation, deviation_error=deviation_error
    )


def _spreads(means: Codes, log_variances: Codes | None, centre: Tensor) -> Tensor:
    """Return, of each image and channel, the mean over positions of the squared distance of a drawn code from the centre."""
    parts = []
    for start in range(0, len(means), _AT_ONCE):
        chosen = slice(start, start + _AT_ONCE)
        spread = (_by_channel(means[chosen]) - centre[:, None]).square().mean(dim=2)
        if log_variances is not None:
            spread = spread + _by_channel(log_variances[chosen]).exp().mean(dim=2)
        parts.append(spread)
    return torch.cat(parts)


def _pooled(averages: Tensor, spreads: Tensor) -> tuple[float, float, float, float]:
    """Return mean and deviation over all channels together, each with its standard error, from `n channel` averages and spreads."""
    centre = averages.mean(dim=0)
    away = centre - centre.mean()  # of a channel from the mean of all
    # (z - m)^2 = (z - m_c)^2 + 2 (z - m_c)(m_c - m) + (m_c - m)^2, averaged over the positions of an image.
    about_all = (spreads + 2.0 * (averages - centre) * away + away.square()).mean(dim=1, keepdim=True)
    deviation, error = _deviation(about_all)
    overall = averages.mean(dim=1, keepdim=True)
    return float(overall.mean()), float(_standard_error(overall)), float(deviation), float(error)


def _deviation(spreads: Tensor) -> tuple[Tensor, Tensor]:
    """Return the root of the mean of each column of squared distances, and its standard error by the delta method."""
    deviation = spreads.mean(dim=0).sqrt()
    return deviation, _standard_error(spreads) / (2.0 * deviation)


def _standard_error(rows: Tensor) -> Tensor:
    if len(rows) < 2:
        return torch.full_like(rows[0], float("nan"))
    return rows.std(dim=0) / len(rows) ** 0.5


def _by_channel(codes: Tensor) -> Tensor:
    """Return codes as `n channel position` in float64."""
    return codes.double().reshape(*codes.shape[:2], -1)
