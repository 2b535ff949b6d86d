"""Can this decoder make these images? Inversion with one budget for all, judged against the decoder's own samples."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from latlas.base.errors import IllPosedError, SettingError
from latlas.base.progress import Progress, silent
from latlas.base.provenance import UNSTATED, Provenance
from latlas.base.records import plain
from latlas.base.shapes import PerImage
from latlas.data.images import ImageSet
from latlas.encodings.aggregate import AggregateGenerator
from latlas.inversion.descent import Budget, Inversion
from latlas.inversion.invert import check_fit
from latlas.measurements.conformal import adjusted_p_values, conformal_p_values
from latlas.measurements.corrections import holm_p_values
from latlas.measurements.features import FeatureNetwork
from latlas.models.protocols import Encoder, LatentModel, require_generator
from latlas.studies.range_calibration import RangeCalibration, calibrate_range


@dataclass(frozen=True, kw_only=True, eq=False)
class RangeResult:
    """The verdict on each image, with its evidence.

    `p_values` says how an image's error ranks among those of the generator's own samples, `rejected` which are at most the
    level: a verdict only where `verdict_given`, that is where the same budget was enough for own samples. `reference_p_values`
    ranks among ordinary images instead, where some were given. `rows()` is one record an image, `summary()` the whole, `to_json()`
    both.
    """

    generator: str
    images: str
    errors: PerImage  # squared error per pixel after inversion, of values in [0, 1]
    p_values: PerImage  # against the generator's own samples; 1 where the descent left the numbers
    reference_p_values: PerImage | None  # against reference images of the same kind, where given
    feature_errors: PerImage | None  # mean squared difference of features, where a network was given
    feature_p_values: PerImage | None  # of those, against the generator's own samples
    level: float
    names: tuple[str, ...]  # of the images
    inversion: Inversion
    calibration: RangeCalibration
    reference: "RangeResult | None"  # the same test of the reference images
    support: "RangeResult | None"  # and of the Support Set
    provenance: Provenance

    def __repr__(self) -> str:
        verdict = (
            f"{int(self.rejected.sum()):,} out of range at level {self.level:g}"
            if self.verdict_given
            else "no verdict, for the budget does not bring back the generator's own samples"
        )
        return f"<RangeResult of {self.generator!r} on {len(self.errors):,} images of {self.images!r}: {verdict}; .rows(), .summary()>"

    @property
    def verdict_given(self) -> bool:
        """Whether the errors say anything of the range: only if the same budget was enough for own samples."""
        return self.calibration.budget_is_enough

    @property
    def adjusted(self) -> PerImage:
        """p-values corrected over these images: of those rejected, a share of at most the level is in range.

        Benjamini and Hochberg; it holds for p-values that share one calibration (Bates et al. 2023, arXiv:2104.08279).
        """
        return adjusted_p_values(self.p_values)

    @property
    def holm(self) -> PerImage:
        """p-values corrected over these images: the chance that any image in range is rejected is at most the level."""
        return holm_p_values(self.p_values)

    @property
    def judged(self) -> Tensor:
        """Bool per image: whether its descent stayed within the numbers."""
        return ~self.inversion.broken.all(dim=0)

    @property
    def rejected(self) -> Tensor:
        """Bool per image: p-value at most the level. Of images in range a share of at most `level` is rejected.

        It is a verdict only where `verdict_given`.
        """
        return self.p_values <= self.level

    def rows(self) -> list[dict[str, Any]]:
        """Return one record an image, the farthest out first; `rejected` is None where no verdict is given."""
        order = self.errors.argsort(descending=True, stable=True).tolist()
        rejected, judged = self.rejected, self.judged
        columns: dict[str, Tensor | None] = {
            "error": self.errors,
            "p_value": self.p_values,
            "adjusted_p_value": self.adjusted,
            "holm_p_value": self.holm,
            "reference_p_value": self.reference_p_values,
            "feature_error": self.feature_errors,
            "feature_p_value": self.feature_p_values,
        }
        return [
            {
                "name": self.names[i],
                **{name: None if values is None else plain(float(values[i])) for name, values in columns.items()},
                "start": self.inversion.start_names[int(self.inversion.winners[i])],
                "rejected": bool(rejected[i]) if self.verdict_given and bool(judged[i]) else None,
            }
            for i in order
        ]

    @property
    def rejected_share(self) -> float:
        """Share of the images that is rejected."""
        return float(self.rejected.double().mean())

    def summary(self) -> dict[str, Any]:
        """Return the numbers of the whole set; shares of rejected images are None where no verdict is given."""

        def share(p_values: PerImage | None) -> float | None:
            if p_values is None or not self.verdict_given:
                return None
            return float((p_values <= self.level).double().mean())

        base = self.calibration
        against = self.reference_p_values
        record: dict[str, Any] = plain(
            {
                "generator": self.generator,
                "images": self.images,
                "count": len(self.errors),
                "level": self.level,
                "values": "[0, 1]",
                "rejected": share(self.p_values),
                "rejected_after_correction": share(self.adjusted),
                "rejected_after_holm": share(self.holm),
                "rejected_against_reference": share(against),
                "rejected_against_reference_after_correction": None if against is None else share(adjusted_p_values(against)),
                "rejected_by_features": share(self.feature_p_values),
                "features": None if base.procedure.features is None else base.procedure.features.name,
                "error_median": float(self.errors.median()),
                "error_mean": float(self.errors.mean()),
                "calibration_error_median": float(base.errors.median()),
                "calibration_count": len(base.errors),
                "recovered": base.recovered,
                "starts_agree": base.agreeing,
                "unrelated_error": base.unrelated_error,
                "budget_is_enough": base.budget_is_enough,
                "starts": list(self.inversion.start_names),
                "starts_disagree_median": float(self.inversion.disagreement.median()),
                "unfinished": list(self.inversion.unfinished),
            }
        )
        return record

    def to_json(self) -> dict[str, Any]:
        """Return every number."""
        return {
            **self.summary(),
            "reference": None if self.reference is None else self.reference.summary(),
            "support": None if self.support is None else self.support.summary(),
            "per_image": self.rows(),
            "provenance": self.provenance.to_json(),
        }


def range_test(
    generator: LatentModel,
    images: ImageSet,
    *,
    reference: ImageSet | None = None,
    support: ImageSet | None = None,
    level: float = 0.05,
    calibration: RangeCalibration | None = None,
    budget: Budget | None = None,
    start: str | Sequence[str] = "hybrid",
    starts: int = 2,
    recoder: Encoder | None = None,
    prior_weight: float = 0.0,
    features: FeatureNetwork | None = None,
    samples: int = 2000,
    seed: int = 0,
    progress: Progress = silent,
) -> RangeResult:
    """Return a p-value an image: how its inversion error ranks among those of the generator's own samples.

    Args:
        generator: draws codes and decodes; its encoder is used if it has one.
        images: to judge, of its image shape.
        reference: images of the same kind known to be ordinary; each image is ranked among them too.
        support: the images of a Support Set, judged beside.
        level: rate of false alarms among images in range.
        calibration: from `calibrate_range`, to judge several sets by one; it decides how they are inverted and measured.
        budget: of the inversion; None for the default.
        start: where descents start, as `latlas.inversion.invert` has it; beside a recoder always from the nearest of many draws too.
        starts: how many of them from noise, if any.
        recoder: for the generator's images; None: its own encoder, if it has one.
        prior_weight: of ordinary codes, as `latlas.inversion.invert` has it.
        features: a network in whose space errors are measured too.
        samples: own samples to calibrate on.
        seed: decides them.
        progress: told in images.

    Raises:
        CapabilityError: the generator cannot draw codes.
        ImageFormatError: images of another shape.
        SettingError: a level outside 0 to 1; a calibration of another generator, or one beside what it decides.
        IllPosedError: too few own samples for the level, or a generator that draws one image only.
        NonFiniteError: not one image could be inverted.

    >>> import latlas, torch
    >>> model = latlas.load_model("zoo:digits-dense")
    >>> noise = torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    >>> found = latlas.range_test(model, latlas.ImageSet("noise", noise), samples=40, budget=latlas.Budget(steps=40))
    >>> found.verdict_given, found.rejected.tolist()
    (True, [True, True, True, True])
    """
    require_generator(generator, "A range test")
    if not 0 < level < 1:
        raise SettingError(f"The level must lie between 0 and 1, got {level}.")
    if calibration is not None:
        unstated = calibration.fingerprint == UNSTATED and calibration.model is not generator
        if calibration.fingerprint != generator.fingerprint or unstated:
            raise SettingError(f"The calibration is of another generator than {generator.name}. Calibrate this one.")
        beside = {
            "budget": budget is not None,
            "start": start != "hybrid",
            "starts": starts != 2,
            "recoder": recoder is not None,
            "prior_weight": prior_weight != 0.0,
            "features": features is not None,
        }
        if any(beside.values()):
            given = ", ".join(name for name, is_given in beside.items() if is_given)
            raise SettingError(f"A calibration decides how images are inverted: give {given} to calibrate_range instead.")
    for each in (images, reference, support):
        if each is not None:
            check_fit(each, generator)
    own = samples if calibration is None else len(calibration.errors)
    if level * (own + 1) < 1:
        # The smallest conformal p-value is 1 / (own + 1): with fewer samples nothing could ever be rejected.
        raise IllPosedError(
            f"At level {level:g} the test needs at least {math.ceil(1 / level) - 1} own samples to calibrate on, got {own}. Give more (--samples)."
        )
    base = (
        calibration
        if calibration is not None
        else calibrate_range(
            generator,
            samples=samples,
            budget=budget,
            start=start,
            starts=starts,
            recoder=recoder,
            prior_weight=prior_weight,
            features=features,
            seed=seed,
            progress=progress,
        )
    )
    known, landmarks = (
        None if each is None else _judge(generator, each, base, level=level, seed=seed, progress=progress)
        for each in (reference, support)
    )
    return _judge(generator, images, base, level=level, seed=seed, reference=known, support=landmarks, progress=progress)


def _judge(
    generator: LatentModel,
    images: ImageSet,
    base: RangeCalibration,
    *,
    level: float,
    seed: int,
    reference: RangeResult | None = None,
    support: RangeResult | None = None,
    progress: Progress = silent,
) -> RangeResult:
    inverted = base.procedure.invert(generator, images, progress)
    feature_errors = base.procedure.feature_errors(generator, images, inverted)
    # A descent that broke off says nothing of the range: such an image is no evidence, however large its error.
    unknown = inverted.broken.all(dim=0)

    def ranked(errors: Tensor | None, known: Tensor | None) -> Tensor | None:
        return None if errors is None or known is None else conformal_p_values(errors, known).masked_fill(unknown, 1.0)

    p_values = ranked(inverted.errors, base.errors)
    assert p_values is not None  # both are given
    made_from = {"generator": generator.fingerprint, "images": images.content_hash}
    for role, result in (("reference", reference), ("support", support)):
        if result is not None:
            made_from[role] = result.provenance.made_from["images"]
    if isinstance(generator, AggregateGenerator):
        made_from["codes_of"] = generator.encoding.images_hash
    if base.procedure.recoder is not None:
        made_from["recoder"] = base.procedure.recoder.fingerprint
    return RangeResult(
        generator=generator.name,
        images=images.name,
        errors=inverted.errors,
        p_values=p_values,
        reference_p_values=None if reference is None else ranked(inverted.errors, reference.errors),
        feature_errors=feature_errors,
        feature_p_values=ranked(feature_errors, base.feature_errors),
        level=level,
        names=inverted.names,
        inversion=inverted,
        calibration=base,
        reference=reference,
        support=support,
        provenance=Provenance(
            made_by="range_test",
            seed=seed,
            made_from=made_from,
            settings={"level": level, "samples": len(base.errors), **base.procedure.settings},
        ),
    )
