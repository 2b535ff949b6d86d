"""Can this decoder make these images? Inversion with one budget for all, judged against the decoder's own samples."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from latlas.base.errors import IllPosedError, NonFiniteError, SettingError
from latlas.base.progress import Progress, silent
from latlas.base.provenance import Provenance
from latlas.base.records import plain
from latlas.base.seeds import generator
from latlas.base.shapes import PerImage
from latlas.data.images import ImageSet, to_pixels
from latlas.encodings.encode import encode
from latlas.inversion.descent import Budget, Inversion, descend
from latlas.measurements.conformal import adjusted_p_values, conformal_p_values
from latlas.measurements.reconstruction import decode_batches
from latlas.models.protocols import Generator, LatentModel, check_images, is_encoder, require_generator

# A budget counts as enough if at least this share of the generator's own samples is recovered: their codes exist.
ENOUGH_RECOVERED = 0.95
# An own sample counts as recovered if inversion leaves at most this share of the error that the mean image has.
_RECOVERED_SHARE = 0.05


@dataclass(frozen=True, kw_only=True, eq=False)
class RangeCalibration:
    """What the same inversion achieves on images that the generator certainly can make: its own samples."""

    generator: str
    errors: PerImage  # of own samples, rounded to 8 bits as files are
    recovered: float  # share of them that inversion brought back
    budget: Budget
    seed: int
    fingerprint: str  # of the generator

    @property
    def budget_is_enough(self) -> bool:
        """Whether own samples were recovered; if not, an error says nothing of the range."""
        return self.recovered >= ENOUGH_RECOVERED


@dataclass(frozen=True, kw_only=True, eq=False)
class RangeResult:
    """The verdict on each image, with its evidence."""

    generator: str
    images: str
    errors: PerImage  # squared error per pixel after inversion
    p_values: PerImage  # against the generator's own samples
    adjusted: PerImage  # corrected over these images (Benjamini and Hochberg)
    reference_p_values: PerImage | None  # against reference images of the same kind, where given
    level: float
    names: tuple[str, ...]  # of the images
    inversion: Inversion
    calibration: RangeCalibration
    provenance: Provenance

    @property
    def verdict_given(self) -> bool:
        """Whether the errors say anything of the range: only if own samples were recovered with the same budget."""
        return self.calibration.budget_is_enough

    @property
    def rejected(self) -> Tensor:
        """Bool per image: p-value at most the level. Of images in range a share of at most `level` is rejected.

        It is a verdict only where `verdict_given`.
        """
        return self.p_values <= self.level

    def rows(self) -> list[dict[str, Any]]:
        """Return one record an image, the farthest out first; `rejected` is None where no verdict is given."""
        order = self.errors.argsort(descending=True, stable=True).tolist()
        rejected = self.rejected
        return [
            {
                "name": self.names[i],
                "error": float(self.errors[i]),
                "p_value": float(self.p_values[i]),
                "adjusted_p_value": float(self.adjusted[i]),
                "reference_p_value": None if self.reference_p_values is None else float(self.reference_p_values[i]),
                "rejected": bool(rejected[i]) if self.verdict_given else None,
            }
            for i in order
        ]

    @property
    def rejected_share(self) -> float:
        """Share of the images that is rejected."""
        return float(self.rejected.double().mean())

    def summary(self) -> dict[str, Any]:
        """Return the numbers of the whole set."""
        record: dict[str, Any] = plain(
            {
                "generator": self.generator,
                "images": self.images,
                "count": len(self.errors),
                "level": self.level,
                "rejected": self.rejected_share if self.verdict_given else None,
                "rejected_after_correction": (
                    float((self.adjusted <= self.level).double().mean()) if self.verdict_given else None
                ),
                "rejected_against_reference": (
                    None if self.reference_p_values is None else float((self.reference_p_values <= self.level).double().mean())
                ),
                "error_median": float(self.errors.median()),
                "error_mean": float(self.errors.mean()),
                "calibration_error_median": float(self.calibration.errors.median()),
                "calibration_count": len(self.calibration.errors),
                "recovered": self.calibration.recovered,
                "budget_is_enough": self.calibration.budget_is_enough,
                "starts_disagree_median": float(self.inversion.disagreement.median()),
            }
        )
        return record

    def to_json(self) -> dict[str, Any]:
        """Return every number."""
        return {
            **self.summary(),
            "per_image": self.rows(),
            "provenance": self.provenance.to_json(),
        }


def own_samples(model: LatentModel, n: int, *, seed: int, purpose: str = "own samples") -> ImageSet:
    """Return images that a generator drew, rounded to 8 bits as any image from a file is.

    Raises:
        CapabilityError: the model cannot draw codes.
        NonFiniteError: it drew NaN.
        SettingError: its images leave [0, 1].
    """
    drawing = require_generator(model, "A range test")
    codes = drawing.sample_codes(n, generator(seed, purpose))
    parts = []
    for batch in decode_batches(drawing, codes):
        if not bool(batch.isfinite().all()):
            raise NonFiniteError(f"{model.name} drew NaN or infinity; its range cannot be tested.")
        if float(batch.min()) < -1e-3 or float(batch.max()) > 1 + 1e-3:
            raise SettingError(
                f"{model.name} draws values in [{float(batch.min()):.3g}, {float(batch.max()):.3g}]; latlas needs images in "
                "[0, 1]. Wrap its decode so that it rescales."
            )
        parts.append(to_pixels(batch))
    return ImageSet(name=f"samples of {model.name}", storage=torch.cat(parts))


def invert(
    model: LatentModel, images: ImageSet, *, budget: Budget | None = None, seed: int = 0, progress: Progress = silent
) -> Inversion:
    """Return codes for images: from the encoder's answer where there is one, and from the mean of the prior, by descent.

    Args:
        model: a generator; its encoder is used if it has one.
        images: of its image shape.
        budget: of the descent.
        seed: decides the draws that the mean of the prior is estimated from.
        progress: told in images.
    """
    drawing = require_generator(model, "Inversion")
    check_images(images.image_shape, drawing, name=images.name)
    mean = drawing.sample_codes(2000, generator(seed, "prior mean")).mean(dim=0, keepdim=True)
    starts = [mean.expand(len(images), *mean.shape[1:]).contiguous()]
    if is_encoder(model):
        starts.insert(0, encode(model, images).mean)
    return descend(drawing, images, starts, budget=budget, progress=progress)


def calibrate_range(
    model: LatentModel, *, samples: int = 2000, budget: Budget | None = None, seed: int = 0, progress: Progress = silent
) -> RangeCalibration:
    """Return what inversion achieves on a generator's own samples.

    Args:
        model: a generator.
        samples: own samples to invert; the smallest possible p-value is 1 / (samples + 1).
        budget: the same that the images to be judged will get.
        seed: decides the samples.
        progress: told in images.

    Raises:
        CapabilityError: the model cannot draw codes.
        IllPosedError: the generator draws one image only.
    """
    if samples < 1:
        raise SettingError(f"Calibration needs at least 1 own sample, got {samples}.")
    drawing: Generator = require_generator(model, "A range test")
    work = budget if budget is not None else Budget()
    own = own_samples(model, samples, seed=seed, purpose="calibration samples")
    inverted = invert(model, own, budget=work, seed=seed, progress=progress)
    pixels = own.tensor().double()
    spread = (pixels - pixels.mean(dim=0)).square().flatten(1).mean(dim=1)
    if float(spread.mean()) < 1e-8:
        raise IllPosedError(
            f"{model.name} draws one and the same image whatever the code (collapsed?); it has no range to test."
        )
    return RangeCalibration(
        generator=drawing.name,
        errors=inverted.errors,
        recovered=float((inverted.errors <= _RECOVERED_SHARE * spread.mean()).double().mean()),
        budget=work,
        seed=seed,
        fingerprint=drawing.fingerprint,
    )


def range_test(
    generator: LatentModel,
    images: ImageSet,
    *,
    reference: ImageSet | None = None,
    level: float = 0.05,
    calibration: RangeCalibration | None = None,
    budget: Budget | None = None,
    samples: int = 2000,
    seed: int = 0,
    progress: Progress = silent,
) -> RangeResult:
    """Return a p-value an image: how its inversion error ranks among those of the generator's own samples.

    Args:
        generator: draws codes and decodes; its encoder is used if it has one.
        images: to judge, of its image shape.
        reference: images of the same kind known to be ordinary; each image is ranked among them too.
        level: rate of false alarms among images in range.
        calibration: from `calibrate_range`, to judge several sets by one; its budget is used.
        budget: of the inversion; None for the default.
        samples: own samples to calibrate on.
        seed: decides them.
        progress: told in images.

    Raises:
        CapabilityError: the generator cannot draw codes.
        ImageFormatError: images of another shape.
        SettingError: a level outside 0 to 1, or a calibration of another generator.
    """
    if not 0 < level < 1:
        raise SettingError(f"The level must lie between 0 and 1, got {level}.")
    if calibration is not None and calibration.fingerprint != generator.fingerprint:
        raise SettingError(f"The calibration is of another generator than {generator.name}. Calibrate this one.")
    check_images(images.image_shape, generator, name=images.name)
    own = samples if calibration is None else len(calibration.errors)
    if level * (own + 1) < 1:
        # The smallest conformal p-value is 1 / (own + 1): with fewer samples nothing could ever be rejected.
        raise IllPosedError(
            f"At level {level:g} the test needs at least {math.ceil(1 / level) - 1} own samples to calibrate on, got {own}. Give more (--samples)."
        )
    base = (
        calibration
        if calibration is not None
        else calibrate_range(generator, samples=samples, budget=budget, seed=seed, progress=progress)
    )
    inverted = invert(generator, images, budget=base.budget, seed=seed, progress=progress)
    p_values = conformal_p_values(inverted.errors, base.errors)
    against_reference = None
    if reference is not None:
        known = invert(generator, reference, budget=base.budget, seed=seed, progress=progress)
        against_reference = conformal_p_values(inverted.errors, known.errors)
    return RangeResult(
        generator=generator.name,
        images=images.name,
        errors=inverted.errors,
        p_values=p_values,
        adjusted=adjusted_p_values(p_values),
        reference_p_values=against_reference,
        level=level,
        names=tuple(images.name_of(index) for index in range(len(images))),
        inversion=inverted,
        calibration=base,
        provenance=Provenance(
            made_by="range_test",
            seed=seed,
            made_from={"generator": generator.fingerprint, "images": images.content_hash}
            | ({} if reference is None else {"reference": reference.content_hash}),
            settings={
                "level": level,
                "samples": len(base.errors),
                "budget": asdict(base.budget),
                "calibration_seed": base.seed,
            },
        ),
    )
