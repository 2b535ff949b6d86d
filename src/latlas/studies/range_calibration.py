"""What inversion achieves on a generator's own samples: the measure of every range test."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from latlas.base.errors import SettingError
from latlas.base.progress import Progress, silent
from latlas.base.seeds import generator as seeded
from latlas.base.shapes import PerImage
from latlas.data.images import ImageSet, to_pixels
from latlas.inversion.descent import Budget
from latlas.measurements.features import FeatureNetwork
from latlas.measurements.reconstruction import decode_batches
from latlas.models.drawn import check_drawn, check_varied
from latlas.models.protocols import Encoder, Generator, LatentModel, images_at_once, require_generator
from latlas.numerics.moments import MarginalMoments
from latlas.studies.range_procedure import Procedure, range_procedure

# A budget counts as enough if at least this share of the generator's own samples is recovered: their codes exist.
ENOUGH_RECOVERED = 0.95
# And if of this share two starts end alike: where most own samples need one lucky start, an outsider may have lacked luck.
ENOUGH_AGREEING = 0.5
# An own sample counts as recovered if inversion leaves at most this share of the error that the mean image has, and two
# starts as alike if their errors lie no further apart. Two unrelated samples differ by twice what the mean image leaves.
_RECOVERED_SHARE = 0.05
_SHOWN = 12  # own samples that are kept, to be looked at


@dataclass(frozen=True, kw_only=True, eq=False)
class RangeCalibration:
    """What the same inversion achieves on images that the generator certainly can make: its own samples."""

    generator: str
    errors: PerImage  # of own samples, rounded to 8 bits as files are
    feature_errors: PerImage | None  # of the same, in the space of the feature network
    recovered: float  # share of them that inversion brought back
    agreeing: float  # share of them whose two best starts end alike
    unrelated_error: float  # squared error per pixel between two own samples that have nothing to do with each other
    procedure: Procedure
    examples: ImageSet  # the first few
    example_codes: Tensor  # what inversion found for those
    fingerprint: str  # of the generator
    model: LatentModel  # itself: what tells generators apart that state no fingerprint

    def __repr__(self) -> str:
        return (
            f"<RangeCalibration of {self.model.name!r} on {len(self.errors):,} of its own samples: {100 * self.recovered:.0f} % recovered, "
            f"{100 * self.agreeing:.0f} % of starts agree>"
        )

    @property
    def budget(self) -> Budget:
        """Of every inversion."""
        return self.procedure.budget

    @property
    def seed(self) -> int:
        """Which decided the own samples and the starts."""
        return self.procedure.seed

    @property
    def budget_is_enough(self) -> bool:
        """Whether own samples were recovered and starts agreed; if not, an error says nothing of the range."""
        return self.recovered >= ENOUGH_RECOVERED and self.agreeing >= ENOUGH_AGREEING


def own_samples(model: LatentModel, n: int, *, seed: int, purpose: str = "own samples") -> ImageSet:
    """Return images that a generator drew, rounded to 8 bits as any image from a file is.

    Raises:
        CapabilityError: the model cannot draw codes.
        NonFiniteError: it drew NaN.
        ImageFormatError: its images have another shape than it says, or leave [0, 1].
    """
    drawing = require_generator(model, "A range test")
    codes = drawing.sample_codes(n, seeded(seed, purpose))
    parts = []
    for batch in decode_batches(drawing, codes):
        check_drawn(batch, drawing)
        parts.append(to_pixels(batch))
    return ImageSet(name=f"samples of {model.name}", storage=torch.cat(parts))


def calibrate_range(
    model: LatentModel,
    *,
    samples: int = 2000,
    budget: Budget | None = None,
    start: str | Sequence[str] = "hybrid",
    starts: int = 2,
    recoder: Encoder | None = None,
    prior_weight: float = 0.0,
    features: FeatureNetwork | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> RangeCalibration:
    """Return what inversion achieves on a generator's own samples.

    Args:
        model: a generator.
        samples: own samples to invert; the smallest possible p-value is 1 / (samples + 1).
        budget: the same that the images to be judged will get.
        start: where descents start, as `latlas.inversion.invert` has it; beside a recoder always from the nearest of many draws too.
        starts: how many of them from noise, if any.
        recoder: for the generator's images; None: its own encoder, if it has one.
        prior_weight: of ordinary codes, as `latlas.inversion.invert` has it.
        features: a network in whose space errors are measured too.
        seed: decides the samples, and the starts.
        progress: told in images.

    Raises:
        CapabilityError: the model cannot draw codes.
        ImageFormatError, NonFiniteError: as `own_samples`.
        IllPosedError: the generator draws one image only.
        SettingError: no samples.
    """
    if samples < 1:
        raise SettingError(f"Calibration needs at least 1 own sample, got {samples}.")
    drawing: Generator = require_generator(model, "A range test")
    procedure = range_procedure(
        drawing,
        budget=budget,
        start=start,
        starts=starts,
        recoder=recoder,
        prior_weight=prior_weight,
        features=features,
        seed=seed,
    )
    own = own_samples(model, samples, seed=seed, purpose="calibration samples")
    pixels = _pixel_moments(own)
    if samples > 1:
        check_varied(pixels, drawing)
    spread = float(pixels.variance().mean())  # the squared error per pixel that the mean image has
    inverted = procedure.invert(model, own, progress)
    tolerance = _RECOVERED_SHARE * spread
    ordered = inverted.start_errors.sort(dim=0).values
    shown = torch.arange(min(_SHOWN, samples))
    return RangeCalibration(
        generator=drawing.name,
        errors=inverted.errors,
        feature_errors=procedure.feature_errors(model, own, inverted),
        recovered=float((inverted.errors <= tolerance).double().mean()),
        agreeing=float((ordered[1] - ordered[0] <= tolerance).double().mean()),
        unrelated_error=2 * spread * samples / max(samples - 1, 1),
        procedure=procedure,
        examples=own.take(shown, name=own.name),
        example_codes=inverted.codes[shown],
        fingerprint=drawing.fingerprint,
        model=model,
    )


def _pixel_moments(images: ImageSet) -> MarginalMoments:
    """Return the moments of every pixel, of images that as float64 would not be in memory together."""
    batches = images.batches(images_at_once(images.image_shape))
    return functools.reduce(MarginalMoments.merge, map(MarginalMoments.of, batches))
