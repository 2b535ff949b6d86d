"""A model without the latent variables that it does not use, or with the few that buy the most; and what that costs."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latlas.base.artifacts import writing
from latlas.base.errors import CapabilityError, IllPosedError, SettingError
from latlas.base.progress import Progress, silent, track
from latlas.base.provenance import Provenance
from latlas.base.records import plain
from latlas.base.shapes import Codes, PerImage, PerVariable
from latlas.data.images import ImageSet
from latlas.encodings.encode import encode
from latlas.encodings.encoding import Encoding
from latlas.measurements.gain import Gain, reconstruction_gain
from latlas.measurements.latents import LatentTable, latent_table
from latlas.measurements.reconstruction import decode_batches, decode_errors, squared_error_per_pixel
from latlas.models.given import check_image_set
from latlas.models.protocols import Autoencoder, LatentModel, check_images, images_at_once, require_autoencoder
from latlas.models.pruning import PinnedModel, without_variables
from latlas.models.vae import VAE
from latlas.numerics.posteriors import ACTIVE_VARIANCE, PosteriorMoments, mean_by_channel
from latlas.studies.pruning_maps import Map, completion, selection
from latlas.studies.steady import check_steady

TO_NEW = "to-pruned"  # folders of the two maps, inside the model's
TO_OLD = "to-original"

_POINTS = 48  # of the curve, at most


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """The error with so many variables, those of the largest gain, the others being held at their means."""

    kept: int
    error: float


@dataclass(frozen=True, kw_only=True)
class PruningErrors:
    """Squared errors per pixel of reconstructions, on the images that they were measured on, and how far two models differ."""

    images: str
    count: int
    before: float  # the model as it was
    at_constants: float  # the model with the removed variables at their constants
    after: float  # the pruned model
    difference_standard_error: float  # of after - before, over images
    largest_output_difference: float  # pruned model and model at constants: over all pixels of all images, in [0, 1] units

    @property
    def relative_change(self) -> float:
        """What pruning adds to the error, as a share of it; infinite where there was none before."""
        if self.before > 0:
            return self.after / self.before - 1.0
        return 0.0 if self.after == 0 else math.inf

    @property
    def relative_standard_error(self) -> float:
        """Standard error of `relative_change` over images, the error before being taken as given; NaN where that is 0."""
        return self.difference_standard_error / self.before if self.before > 0 else math.nan


@dataclass(frozen=True, kw_only=True, eq=False)
class PrunedModel:
    """A model with fewer latent variables, the maps between its codes and those of the original, and what the change costs.

    `model` is what is used from now on; `errors` what the change costs on the images, `curve` what keeping other numbers of
    variables would.
    """

    model: VAE | PinnedModel
    original: str  # name of the model that it was made from
    images: str  # on which means and gains were measured
    count: int  # of them
    kept: tuple[int, ...]  # variables of the original, in the order that they have in the new model
    removed: tuple[int, ...]
    varying_by_position: tuple[
        int, ...
    ]  # collapsed, and kept all the same: channels whose mean differs from position to position
    constants: Mapping[int, float]  # removed variable -> mean of its posterior means, at which it is held
    latents: LatentTable  # of the original
    gain: Gain
    order: tuple[int, ...]  # the variables by gain, and collapsed ones after all others: those first are kept first
    to_new: Map  # codes of the original to codes of the pruned model: a selection
    to_old: Map  # and back: removed variables get their constants
    errors: PruningErrors
    curve: list[CurvePoint]
    keep: int | None  # as asked for; None: every variable that is in use
    provenance: Provenance

    def __repr__(self) -> str:
        return (
            f"<PrunedModel .model of {self.original!r}: {len(self.kept)} of {self.variables} variables kept, squared error "
            f"{self.errors.after:.4g} after {self.errors.before:.4g} on {self.errors.images!r}; .to_new, .to_old, .curve>"
        )

    @property
    def variables(self) -> int:
        """How many the original has."""
        return len(self.kept) + len(self.removed)

    @property
    def table(self) -> list[dict[str, Any]]:
        """One row a variable of the original."""
        rows, places = self.latents, {variable: place for place, variable in enumerate(self.kept)}
        return [
            {
                "variable": i,
                "becomes": places.get(i),
                "constant": self.constants.get(i),
                "variance_of_means": float(rows.variance_of_means[i]),
                "mean_posterior_variance": float(rows.mean_posterior_variance[i]),
                "kl_nats": float(rows.kl_nats[i]),
                "gain": float(self.gain.mean[i]),
                "gain_standard_error": float(self.gain.standard_error[i]),
                "verdict": "active" if bool(rows.active[i]) else "collapsed",
            }
            for i in range(self.variables)
        ]

    def to_json(self) -> dict[str, Any]:
        """Return every number, ready for JSON."""
        record: dict[str, Any] = plain(
            {
                "model": self.model.name,
                "original": self.original,
                "images": self.images,
                "count": self.count,
                "variables": self.variables,
                "kept": self.kept,
                "removed": self.removed,
                "varying_by_position": self.varying_by_position,
                "constants": self.constants,
                "keep": self.keep,
                "errors": self.errors,
                "relative_change": self.errors.relative_change,
                "relative_change_standard_error": self.errors.relative_standard_error,
                "order": self.order,
                "curve": self.curve,
                "table": self.table,
                "provenance": self.provenance.to_json(),
            }
        )
        return record

    def save_pretrained(self, folder: str | Path, *, replace: bool = False) -> None:
        """Write the model as an artifact folder that `load_model` reads, with the two maps in it.

        Raises:
            OutputExistsError: the folder already holds something.
            CapabilityError: a model that latlas did not train, whose pruned form lives in memory only.
        """
        with writing(folder, replace=replace) as beside:
            self.write_files(beside)

    def write_files(self, folder: Path) -> None:
        """Write model and maps into a folder that `writing` gave; call it last.

        Raises:
            CapabilityError: a model that cannot be written.
        """
        if not isinstance(self.model, VAE):
            raise CapabilityError(
                f"{self.original} is of no architecture of latlas: pruned, it cannot be written. Use it in Python, or train a VAE of "
                f"{len(self.kept)} variables."
            )
        self.to_new.save_pretrained(folder / TO_NEW)
        self.to_old.save_pretrained(folder / TO_OLD)
        self.model.write_files(folder)


def prune(
    model: LatentModel,
    images: ImageSet,
    *,
    keep: int | None = None,
    test: ImageSet | None = None,
    progress: Progress = silent,
) -> PrunedModel:
    """Return a model without the collapsed variables of another; or with those alone that buy the most.

    A removed variable is held at the mean over images of its posterior means, and a channel of a spatial latent space at the
    mean over images and positions. It is collapsed by Burda's rule: those means vary by no more than 0.01 about their mean.

    Args:
        model: encodes and decodes; it is not changed. A VAE of latlas becomes a smaller network, anything else a `PinnedModel`.
        images: on which means and gains are measured: a few thousand are enough.
        keep: how many variables to keep, by reconstruction gain, collapsed ones last; None: all that are in use.
        test: on which errors are measured; None: the same images.
        progress: told throughout.

    Raises:
        IllPosedError: nothing to prune, nothing to keep, or too few images.
        SettingError: a number to keep that leaves nothing to prune, or nothing.
        CapabilityError: the model lacks an encoder or a decoder, or encodes by chance.
        ImageFormatError: images of another shape.

    Cost: one encode of every image, one decode for each latent variable and one more; on the test images as many, 52 at most.

    >>> import latlas
    >>> model = latlas.load_model("zoo:digits-dense")
    >>> codes = model.sample_codes(200, torch.Generator().manual_seed(0))
    >>> images = latlas.ImageSet("own samples", model.decode(codes).detach())
    >>> pruned = latlas.prune(model, images)
    >>> pruned.model.latent_shape == (len(pruned.kept),), pruned.errors.relative_change < 0.01
    (True, True)
    """
    autoencoder = require_autoencoder(model, "Pruning")
    for given in (images, *(() if test is None else (test,))):
        check_image_set(given, "Pruning")
        check_images(given.image_shape, autoencoder, name=given.name)
    variables = autoencoder.latent_shape[0]
    if keep is not None and not (isinstance(keep, int) and 1 <= keep < variables):
        raise SettingError(
            f"{model.name} has {variables} latent variables: keep 1 to {variables - 1} of them, got {keep!r}."
            if variables > 1
            else f"{model.name} has one latent variable: there is nothing to prune."
        )
    if len(images) < 2:
        raise IllPosedError(
            f"{images.name} has {len(images)} image, and which variables are in use shows over images. Give some hundred."
        )
    encoding = encode(autoencoder, images, progress=progress)
    check_steady(autoencoder, encoding, images)
    moments = encoding.moments()
    latents = latent_table(moments)
    collapsed = mean_by_channel(_variance_about_constant(moments)) <= ACTIVE_VARIANCE
    _check_there_is_something_to_do(autoencoder, images, latents, collapsed, keep)
    gain = reconstruction_gain(autoencoder, encoding.mean, images, progress=progress)
    # What does not vary may still have a gain, if its mean is not 0; held at its mean it costs nothing.
    order = tuple(sorted(gain.order(), key=lambda variable: bool(collapsed[variable])))
    kept = tuple(sorted(order[:keep])) if keep is not None else tuple(int(i) for i in (~collapsed).nonzero().flatten())
    removed = tuple(variable for variable in range(variables) if variable not in set(kept))
    constants = mean_by_channel(moments.means.mean)
    held = {variable: float(constants[variable]) for variable in removed}
    provenance = _provenance(autoencoder, images, kept, held, keep)
    pruned = without_variables(autoencoder, kept=kept, constants=constants, provenance=provenance)
    judged = encoding if test is None else encode(autoencoder, test, progress=progress)
    judges = images if test is None else test
    errors = _measure(autoencoder, pruned, judged, judges, removed, constants, progress)
    curve = _curve(autoencoder, judged, judges, order, constants, {variables - len(removed), latents.active_count}, progress)
    return PrunedModel(
        model=pruned,
        original=autoencoder.name,
        images=images.name,
        count=len(images),
        kept=kept,
        removed=removed,
        varying_by_position=tuple(i for i in kept if not bool(latents.active[i]) and not bool(collapsed[i])),
        constants=held,
        latents=latents,
        gain=gain,
        order=order,
        to_new=selection(autoencoder, pruned, kept, provenance),
        to_old=completion(autoencoder, pruned, kept, held, provenance),
        errors=errors,
        curve=curve,
        keep=keep,
        provenance=Provenance(
            made_by="prune",
            made_from={**provenance.made_from, **({} if test is None else {"test": test.content_hash})},
            settings=provenance.settings,
        ),
    )


def hold(codes: Codes, variables: tuple[int, ...], constants: PerVariable) -> Codes:
    """Return codes in which some variables have their constants, at every position."""
    changed = codes.clone()
    for variable in variables:
        changed[:, variable] = float(constants[variable])
    return changed


def _variance_about_constant(moments: PosteriorMoments) -> Tensor:
    """Return the mean squared distance of posterior means from the one number of their channel, at each position."""
    mean = moments.means.mean
    centre = mean_by_channel(mean).reshape(-1, *[1] * (mean.ndim - 1))
    return moments.variance_of_means + (mean - centre).square()


def _check_there_is_something_to_do(
    model: Autoencoder, images: ImageSet, latents: LatentTable, collapsed: Tensor, keep: int | None
) -> None:
    variables = len(latents)
    if latents.active_count == 0:
        raise IllPosedError(
            f"None of the {variables} latent variables of {model.name} is active on {images.name}, so nothing would be left. Train the "
            "model again with a smaller KL weight, or give more images that differ; latlas diagnose tells which."
        )
    if keep is None and not bool(collapsed.any()):
        raise IllPosedError(
            f"Nothing to prune: all {variables} latent variables of {model.name} are in use on {images.name}. To give some up, say "
            "how many to keep: --keep, or keep=."
        )


def _measure(
    model: Autoencoder,
    pruned: VAE | PinnedModel,
    encoding: Encoding,
    images: ImageSet,
    removed: tuple[int, ...],
    constants: PerVariable,
    progress: Progress,
) -> PruningErrors:
    size = images_at_once(images.image_shape)
    codes = (encoding.mean, hold(encoding.mean, removed, constants), encode(pruned, images, progress=progress).mean)
    drawn = [decode_batches(decoder, part, size=size) for decoder, part in zip((model, model, pruned), codes, strict=True)]
    errors: list[list[PerImage]] = [[], [], []]
    largest = 0.0
    batches = zip(images.batches(size), *drawn, strict=True)
    for batch, *outputs in track(batches, "errors before and after", progress, total=math.ceil(len(images) / size)):
        for found, output in zip(errors, outputs, strict=True):
            found.append(squared_error_per_pixel(batch, output))
        largest = max(largest, float((outputs[1] - outputs[2]).abs().max()))
    before, at_constants, after = (torch.cat(found) for found in errors)
    deviation = float((after - before).std()) / len(before) ** 0.5 if len(before) > 1 else math.nan
    return PruningErrors(
        images=images.name,
        count=len(images),
        before=float(before.mean()),
        at_constants=float(at_constants.mean()),
        after=float(after.mean()),
        difference_standard_error=deviation,
        largest_output_difference=largest,
    )


def _curve(
    model: Autoencoder,
    encoding: Encoding,
    images: ImageSet,
    order: tuple[int, ...],
    constants: PerVariable,
    wanted: set[int],
    progress: Progress,
) -> list[CurvePoint]:
    counts = sorted(wanted | {round(count) for count in torch.linspace(0, len(order), min(len(order) + 1, _POINTS)).tolist()})
    return [
        CurvePoint(
            kept=count,
            error=float(decode_errors(model, hold(encoding.mean, order[count:], constants), images).mean()),
        )
        for count in track(counts, "error against kept variables", progress)
    ]


def _provenance(
    model: Autoencoder, images: ImageSet, kept: tuple[int, ...], held: Mapping[int, float], keep: int | None
) -> Provenance:
    trained = getattr(model, "provenance", None)
    return Provenance(
        made_by="prune",
        made_from={"model": model.fingerprint, "images": images.content_hash},
        settings={
            "original": model.name,
            "images": images.name,
            "keep": keep,
            "kept": ", ".join(map(str, kept)),
            "removed": ", ".join(map(str, held)),
            "constants": {str(variable): constant for variable, constant in held.items()},
            "original_made": None if trained is None else trained.to_json(),
        },
    )
