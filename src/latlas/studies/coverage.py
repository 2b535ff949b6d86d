"""Which landmarks a model cannot draw: each image of a Support Set against its own samples and against random images."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import torch

from latlas.base.errors import IllPosedError, SettingError
from latlas.base.progress import Progress, silent
from latlas.base.provenance import UNSTATED, Provenance
from latlas.base.seeds import generator as seeded
from latlas.base.shapes import PerImage
from latlas.data.images import ImageSet
from latlas.inversion.descent import BUDGETS, Budget
from latlas.inversion.invert import check_fit, encoder_of, invert, start_kinds
from latlas.measurements.conformal import adjusted_p_values, conformal_p_values
from latlas.measurements.empirical_null import fit_null
from latlas.measurements.reconstruction import decode_batches
from latlas.measurements.windows import window_errors, worst_excess
from latlas.models.given import described
from latlas.models.protocols import Encoder, LatentModel, images_at_once, require_generator
from latlas.studies.coverage_record import Coverage, Drawn
from latlas.studies.missed_attributes import Factors, attribute_rows, carried
from latlas.studies.range_calibration import own_samples
from latlas.supports.support_set import SupportSet

_DEFAULT_BUDGET = BUDGETS["quick"]


def cover(
    model: LatentModel,
    support: SupportSet,
    control: ImageSet,
    *,
    reference: LatentModel | None = None,
    represented: bool = False,
    level: float = 0.05,
    budget: Budget | None = None,
    start: str | Sequence[str] = "hybrid",
    recoder: Encoder | None = None,
    samples: int = 500,
    controls: int = 1000,
    factors: Factors | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Coverage:
    """Return which landmarks of a Support Set a model cannot draw.

    Every image gets the same inversion. A landmark's score is the error of its worst window, less what a reference model
    leaves there; it is ranked among the control's scores, or among the ordinary part of them where a second part stands
    apart (`latlas.measurements.empirical_null`), and missed if its p-value, corrected over the landmarks, is at most the level.

    Args:
        model: draws codes and decodes.
        support: the landmarks.
        control: random images of the same data set.
        reference: a model that certainly represents the landmarks, as the one that the Support Set was chosen by. What makes
            an image hard for any model then cancels. Without it far fewer of those missed are found.
        represented: the control is known to be represented, as images held out from the model's own training set are: all of
            it is ranked against. Without, a second part of it may be split off, by what its scores are.
        level: nominal share of represented landmarks among those called missed. It is held for landmarks that are exchangeable
            with the control, as long as no second part is split off; landmarks of sectors are extremes.
        budget: of each inversion; None for "quick".
        start: where descents start, as `latlas.inversion.invert` has it.
        recoder: for the model's images; None: its own encoder, if it has one.
        samples: of the model's own, to rank errors among too.
        controls: images of the control to use, at most, chosen at random.
        factors: what is known of each landmark, one value each; None: what its Support Set says.
        seed: decides samples, starts and choice.
        progress: told in images.

    Raises:
        CapabilityError: a model that cannot draw codes or decode.
        ImageFormatError: images of another shape than the model's.
        SettingError: a level outside 0 to 1, fewer than 1 sample, a model that is its own reference, factors of other images.
        IllPosedError: too few images for the level, or to tell two parts of the control apart.
    """
    return cover_all(
        [model],
        support,
        control,
        reference=reference,
        represented=represented,
        level=level,
        budget=budget,
        start=start,
        recoder=recoder,
        samples=samples,
        controls=controls,
        factors=factors,
        seed=seed,
        progress=progress,
    )[0]


def cover_all(
    models: Sequence[LatentModel],
    support: SupportSet,
    control: ImageSet,
    *,
    reference: LatentModel | None = None,
    represented: bool = False,
    level: float = 0.05,
    budget: Budget | None = None,
    start: str | Sequence[str] = "hybrid",
    recoder: Encoder | None = None,
    samples: int = 500,
    controls: int = 1000,
    factors: Factors | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> tuple[Coverage, ...]:
    """Return the coverage of several models on the same images, in their order.

    Args:
        models: one or more, each draws codes and decodes.
        support: the landmarks, as of `build_support_set`.
        control: random images of the same data set; the same ones are drawn from it for every model.
        reference: a model that certainly represents the landmarks; none of `models`.
        represented: as `cover` has it, and so all that follow.
        level: 0 to 1.
        budget: of the inversions; None for the quick one.
        start: where descents start.
        recoder: of the one model, where there is but one.
        samples: own samples of each model.
        controls: images of the control, at most.
        factors: what is known of each landmark.
        seed: decides the control, the samples and the starts.
        progress: told in images.

    Raises:
        SettingError: no model, or a recoder beside several; and whatever `cover` raises.
        IllPosedError: too few images in the control for the level.
    """
    work = budget if budget is not None else _DEFAULT_BUDGET
    if not models:
        raise SettingError("Give at least 1 model to judge.")
    if recoder is not None and len(models) > 1:
        raise SettingError("A recoder belongs to one model: judge that one alone, or give models with encoders of their own.")
    known = _checked(models, support, control, reference, level, samples, controls, factors)
    chosen = control
    if len(control) > controls:
        rows = torch.randperm(len(control), generator=seeded(seed, "control"))[:controls].sort().values
        chosen = control.take(rows, name=f"{control.name}[{controls} chosen]")
    smallest = 1 / (1 + len(chosen))
    if smallest > level:
        # Even if every landmark stood out, none could be called.
        raise IllPosedError(f"At level {level:g} a control needs at least {round(1 / level) - 1} images, got {len(chosen)}.")

    def draw(drawing: LatentModel, images: ImageSet, encoder: Encoder | None, *, undrawn: float = 1.0) -> Drawn:
        return _draw(drawing, images, work, start, encoder, seed, progress, undrawn=undrawn)

    # Where a reference gives no number, nothing is taken off.
    ideal = None if reference is None else [draw(reference, images, None, undrawn=0.0) for images in (support.images, chosen)]
    meaning = () if known is None else carried(support.codes.flatten(1), support.sectors.variables, known)
    results = []
    for model in models:
        landmarks, randoms = (draw(model, images, recoder) for images in (support.images, chosen))
        own = draw(model, own_samples(model, samples, seed=seed), recoder)
        scores, control_scores = (
            worst_excess(mine.windows, None if theirs is None else theirs.windows)
            for mine, theirs in zip((landmarks, randoms), ideal or (None, None), strict=True)
        )
        unit = _unit(control_scores)
        null = fit_null(_evened(control_scores, unit), mixed=not represented)
        p_values = null.p_values(_evened(scores, unit))
        missed = adjusted_p_values(p_values) <= level
        results.append(
            Coverage(
                model=model.name,
                support=support,
                control=control.name,
                reference=None if reference is None else reference.name,
                represented=represented,
                level=level,
                landmarks=landmarks,
                controls=randoms,
                reference_landmarks=None if ideal is None else ideal[0],
                scores=scores,
                control_scores=control_scores,
                own_errors=own.errors,
                null=null,
                p_values=p_values,
                control_p_values=conformal_p_values(scores, control_scores),
                own_p_values=conformal_p_values(landmarks.errors, own.errors),
                attributes=() if known is None else attribute_rows(missed, known),
                variables=meaning,
                provenance=Provenance(
                    made_by="cover",
                    seed=seed,
                    made_from=_made_from(model, support, control, reference, recoder),
                    settings={
                        "level": level,
                        "budget": asdict(work),
                        "start": start if isinstance(start, str) else list(start),
                        "samples": samples,
                        "controls": len(chosen),
                        "represented": represented,
                    },
                ),
            )
        )
    return tuple(results)


def _draw(
    model: LatentModel,
    images: ImageSet,
    budget: Budget,
    start: str | Sequence[str],
    recoder: Encoder | None,
    seed: int,
    progress: Progress,
    *,
    undrawn: float,
) -> Drawn:
    """Return what a model draws of images; windows of those of which it never gave a number get the error `undrawn`."""
    drawing = require_generator(model, "Coverage")
    kinds = start_kinds(start, encoder_of(drawing, recoder))
    found = invert(model, images, budget=budget, start=kinds, recoder=recoder, seed=seed, progress=progress)
    size = images_at_once(images.image_shape)
    pairs = zip(images.batches(size), decode_batches(drawing, found.codes, size=size), strict=True)
    windows = torch.cat([window_errors(batch, drawn) for batch, drawn in pairs])
    # One image without a number shall not stop the others.
    finite = windows.isfinite().all(dim=1, keepdim=True)
    return Drawn(
        images=images,
        codes=found.codes,
        errors=found.errors.nan_to_num(nan=1.0, posinf=1.0),
        windows=windows.where(finite, torch.full_like(windows, undrawn)),
    )


def _unit(scores: PerImage) -> float:
    """Return the size of a control's scores.

    Where scores are differences about 0, it is their spread that counts: by a much smaller unit, asinh would drive the two
    signs apart into two humps that are not there.
    """
    low, high = scores.quantile(torch.tensor([0.25, 0.75], dtype=scores.dtype)).tolist()
    return max(float(scores.abs().median()), high - low)


def _evened(scores: PerImage, unit: float) -> PerImage:
    """Return asinh(score / unit): linear about 0, logarithmic where errors are.

    Ranks do not change by it; the law that is fitted to the control's scores meets tails that it can follow.
    """
    evened: PerImage = torch.asinh(scores / max(unit, 1e-12))
    return evened


def _checked(
    models: Sequence[LatentModel],
    support: SupportSet,
    control: ImageSet,
    reference: LatentModel | None,
    level: float,
    samples: int,
    controls: int,
    factors: Factors | None,
) -> Factors | None:
    """Raise where settings contradict each other; return the factors of the landmarks."""
    if not 0 < level < 1:
        raise SettingError(f"The level must lie between 0 and 1, got {level}.")
    if samples < 1 or controls < 1:
        raise SettingError(f"Coverage needs at least 1 own sample and 1 control image, got {samples} and {controls}.")
    if not isinstance(support, SupportSet):
        raise SettingError(
            f"Landmarks are a Support Set, got {described(support)}. Make one: latlas.build_support_set(model, images)."
        )
    for model in [*models, *([] if reference is None else [reference])]:
        drawing = require_generator(model, "Coverage")
        for images in (support.images, control):
            check_fit(images, drawing)
    if reference is not None:
        for model in models:
            if model is reference or model.fingerprint == reference.fingerprint != UNSTATED:
                raise SettingError(f"{model.name} is its own reference, beside which it misses nothing. Name another model.")
    known = factors if factors is not None else support.images.factors
    for factor, values in (known or {}).items():
        if len(values) != len(support):
            raise SettingError(f"Factor {factor!r} has {len(values)} values for {len(support)} landmarks. Give one each.")
    return known or None


def _made_from(
    model: LatentModel, support: SupportSet, control: ImageSet, reference: LatentModel | None, recoder: Encoder | None
) -> Mapping[str, str]:
    given = {
        "model": model.fingerprint,
        "support": support.images.content_hash,
        "control": control.content_hash,
        "reference": None if reference is None else reference.fingerprint,
        "recoder": None if recoder is None else recoder.fingerprint,
    }
    return {role: found for role, found in given.items() if found is not None}


def landmark_factors(support: SupportSet, images: ImageSet) -> Factors:
    """Return what is known of each landmark, from the images that the Support Set was chosen from.

    Raises:
        SettingError: those images have no factors, are of another shape, or are not those.
    """
    if not images.factors:
        raise SettingError(f"Nothing is known of the images of {images.name}: there are no attributes to look for.")
    if images.image_shape != support.images.image_shape:
        wanted, came = ("x".join(map(str, one.image_shape)) for one in (support.images, images))
        raise SettingError(
            f"The landmarks of {support.chosen_from} are images of {wanted}, those of {images.name} are of {came}. Give the "
            f"very images that were chosen from, at their side (size={support.images.image_shape[-1]})."
        )
    inside = bool((support.indices < len(images)).all())
    if not inside or not images.storage[support.indices].equal(support.images.storage):
        raise SettingError(f"The Support Set of {support.chosen_from} was not chosen from {images.name}: its images differ.")
    return images.take(support.indices).factors or {}
