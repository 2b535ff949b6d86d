"""Is the variance that reconstructions lose their squared error? One point a model, and the line through them."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latlas.base.errors import IllPosedError
from latlas.base.progress import Progress, silent
from latlas.base.records import plain
from latlas.base.seeds import generator
from latlas.data.images import ImageSet
from latlas.encodings.encode import encode
from latlas.encodings.encoding import Encoding
from latlas.measurements.reconstruction import Reconstruction, measure_reconstruction
from latlas.models.given import check_image_set
from latlas.models.protocols import Autoencoder, LatentModel, device_of, images_at_once, require_autoencoder
from latlas.models.vae import VAE

RATIO_BOUNDS = (0.8, 1.2)  # within which the two are called equal


@dataclass(frozen=True, kw_only=True)
class VarianceLossPoint:
    """Error and variance loss of one model on one image set, in squared units of [0, 1] values per pixel."""

    model: str
    family: str  # of the architecture, or what the caller calls it
    images: str
    error: float  # decoding posterior means
    variance_loss: float
    sampled_error: float | None = None  # decoding a sample of each posterior instead; None where there is none
    sampled_variance_loss: float | None = None
    active: int | None = None  # latent variables in use
    variables: int | None = None

    @property
    def ratio(self) -> float:
        """Variance loss over error: 1 for a conditional mean."""
        return self.variance_loss / self.error if self.error > 0 else math.nan

    @property
    def sampled_ratio(self) -> float | None:
        """The same where posteriors are sampled."""
        if self.sampled_error is None or self.sampled_variance_loss is None or self.sampled_error <= 0:
            return None
        return self.sampled_variance_loss / self.sampled_error

    @property
    def outlying(self) -> bool:
        """Whether the two differ by more than `RATIO_BOUNDS` allow."""
        return not RATIO_BOUNDS[0] <= self.ratio <= RATIO_BOUNDS[1]


@dataclass(frozen=True, kw_only=True)
class Slope:
    """Variance loss = slope * error, by least squares through the origin."""

    value: float
    low: float  # of the 95 % interval, trainings taken as independent
    high: float
    correlation: float  # of the two over the trainings; NaN where one is constant


@dataclass(frozen=True, kw_only=True, eq=False)
class VarianceLossStudy:
    """Variance loss against squared error over several trainings."""

    points: list[VarianceLossPoint]
    slope: Slope

    @property
    def share_within(self) -> float:
        """Share of the trainings whose ratio lies within `RATIO_BOUNDS`."""
        return statistics.mean(float(not point.outlying) for point in self.points)

    def to_json(self) -> dict[str, Any]:
        """Return every number."""
        record: dict[str, Any] = plain(
            {
                "points": [
                    {**vars(point), "ratio": point.ratio, "sampled_ratio": point.sampled_ratio, "outlying": point.outlying}
                    for point in self.points
                ],
                "slope": self.slope,
                "share_within": self.share_within,
                "ratio_bounds": list(RATIO_BOUNDS),
            }
        )
        return record


def variance_loss_point(
    model: LatentModel, images: ImageSet, *, family: str | None = None, seed: int = 0, progress: Progress = silent
) -> VarianceLossPoint:
    """Return a model's error and variance loss on images, from posterior means and from posterior samples.

    Args:
        model: encodes and decodes.
        images: of its image shape.
        family: what to count it as; None for its architecture's name, or "other".
        seed: of the posterior samples.
        progress: told throughout.

    Raises:
        CapabilityError: the model lacks an encoder or a decoder.
        ImageFormatError: images of another shape.
    """
    autoencoder = require_autoencoder(model, "The variance loss")
    check_image_set(images, "The variance loss")
    encoding = encode(autoencoder, images, progress=progress)
    means = measure_reconstruction(autoencoder, encoding.mean, images, progress=progress)
    sampled: Reconstruction | None = None
    if encoding.log_variance is not None:
        codes = _posterior_samples(autoencoder, encoding, images, seed)
        sampled = measure_reconstruction(autoencoder, codes, images, progress=progress)
    moments = encoding.moments()
    return VarianceLossPoint(
        model=autoencoder.name,
        family=family if family is not None else getattr(getattr(model, "architecture", None), "name", "other"),
        images=images.name,
        error=means.error,
        variance_loss=means.variance_loss,
        sampled_error=None if sampled is None else sampled.error,
        sampled_variance_loss=None if sampled is None else sampled.variance_loss,
        active=int(moments.active().sum()),
        variables=moments.active().numel(),
    )


def _posterior_samples(model: Autoencoder, encoding: Encoding, images: ImageSet, seed: int) -> Tensor:
    assert encoding.log_variance is not None
    noise = torch.randn(encoding.mean.shape, generator=generator(seed, "posterior samples"))
    if not isinstance(model, VAE):
        return encoding.mean + noise * (0.5 * encoding.log_variance).exp()
    # The steps of an iterative encoder depend on the codes drawn before: it must be asked again.
    with torch.inference_mode():
        at_once = images_at_once(images.image_shape)
        batches = zip(images.batches(at_once), torch.split(noise, at_once), strict=True)
        device = device_of(model)
        parts = [model.infer(batch.to(device), part.to(device))[1].float().cpu() for batch, part in batches]
    return torch.cat(parts).clone()


def variance_loss_study(points: Sequence[VarianceLossPoint]) -> VarianceLossStudy:
    """Return the line through the points, with its 95 % interval.

    The line goes through the origin, since a model without error loses no variance; the interval is Student's, from the
    scatter about the line.

    Raises:
        IllPosedError: fewer than three points, or none with an error above 0.
    """
    if len(points) < 3:
        raise IllPosedError(f"A slope with an interval needs at least 3 trainings, got {len(points)}. Give more models.")
    errors = np.array([point.error for point in points], dtype=np.float64)
    losses = np.array([point.variance_loss for point in points], dtype=np.float64)
    weight = float(errors @ errors)
    if weight <= 0.0:
        raise IllPosedError("Every model reconstructs exactly; there is no error to hold the variance loss against.")
    from scipy.stats import t as student

    slope = float(errors @ losses) / weight
    freedom = len(points) - 1
    deviation = math.sqrt(float(((losses - slope * errors) ** 2).sum()) / freedom / weight)
    margin = float(student.ppf(0.975, freedom)) * deviation
    varies = errors.std() > 0 and losses.std() > 0
    correlation = float(np.corrcoef(errors, losses)[0, 1]) if varies else math.nan
    return VarianceLossStudy(
        points=list(points), slope=Slope(value=slope, low=slope - margin, high=slope + margin, correlation=correlation)
    )
