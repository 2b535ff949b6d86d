"""One autoencoder and its images -> a health sheet: what each latent variable does, and what to do about it."""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch

from latlas.base.errors import IllPosedError, NonFiniteError, SettingError
from latlas.base.progress import Progress, silent
from latlas.base.provenance import Provenance
from latlas.base.records import plain
from latlas.data.images import ImageSet
from latlas.encodings.encode import encode
from latlas.encodings.encoding import Encoding
from latlas.measurements.gain import Gain, reconstruction_gain
from latlas.measurements.latents import LatentTable, latent_table, silence
from latlas.measurements.reconstruction import Reconstruction, decode_batches, measure_reconstruction
from latlas.measurements.scaling import LatentScaling, latent_scaling
from latlas.models.given import check_image_set
from latlas.models.protocols import Autoencoder, LatentModel, configured_scale, require_autoencoder, scaling_of
from latlas.studies.advice import Advice, Zeroing, advise, few_images
from latlas.studies.steady import check_steady

_URGENCY = ("warning", "note", "good")


@dataclass(frozen=True, kw_only=True, eq=False)
class Diagnosis:
    """The health sheet of a model on an image set.

    `advice` says in words what was found, the most urgent first: each has `.level` ("warning", "note", "good"), `.headline` and
    `.text`. `table` holds one row a latent variable, `summary` the numbers of the whole model, `to_json()` all of it.
    """

    model: str
    images: str
    count: int  # images measured
    gain_count: int  # of these, the first ones that gains were measured on
    latents: LatentTable
    gain: Gain
    reconstruction: Reconstruction
    zeroing: Zeroing | None  # None where nothing has collapsed
    advice: list[Advice]
    provenance: Provenance
    scaling: LatentScaling | None = None  # of raw latents, for a diffusion model; None of a vector latent space

    def __repr__(self) -> str:
        return (
            f"<Diagnosis of {self.model!r} on {self.count:,} images of {self.images!r}: {self.latents.active_count} of {len(self.latents)} "
            f"variables active, squared error {self.reconstruction.error:.4g}; .summary, .table, .advice>"
        )

    @property
    def table(self) -> list[dict[str, Any]]:
        """One row a latent variable, in the order of the latent space."""
        rows = self.latents
        return [
            {
                "variable": i,
                "mean": float(rows.mean[i]),
                "variance_of_means": float(rows.variance_of_means[i]),
                "mean_posterior_variance": float(rows.mean_posterior_variance[i]),
                "variance_law": float(rows.variance_law[i]),
                "kl_nats": float(rows.kl_nats[i]),
                "gain": float(self.gain.mean[i]),
                "gain_standard_error": float(self.gain.standard_error[i]),
                "verdict": "active" if bool(rows.active[i]) else "collapsed",
                "collapsed_by": [rule for rule, marked in rows.collapsed_by_rule.items() if bool(marked[i])],
            }
            for i in range(len(rows))
        ]

    @property
    def summary(self) -> dict[str, Any]:
        """The numbers of the whole model; errors are squared, per pixel, in [0, 1] units."""
        law = self.latents.variance_law
        return {
            "variables": len(self.latents),
            "active": self.latents.active_count,
            "collapsed": len(self.latents) - self.latents.active_count,
            "collapsed_by_rule": {rule: int(marked.sum()) for rule, marked in self.latents.collapsed_by_rule.items()},
            "kl_nats": float(self.latents.kl_nats.sum()),
            "variance_law_mean": float(law.mean()),
            "variance_law_min": float(law.min()),
            "variance_law_max": float(law.max()),
            "mse": self.reconstruction.error,
            "mse_standard_error": self.reconstruction.standard_error(),
            "image_variance": self.reconstruction.image_variance,
            "variance_loss": self.reconstruction.variance_loss,
            "variance_loss_over_mse": self.reconstruction.variance_loss_over_error,
            "zeroing_collapsed_relative_change": 0.0 if self.zeroing is None else self.zeroing.relative_change,
            "zeroing_collapsed_largest_difference": 0.0 if self.zeroing is None else self.zeroing.largest_output_difference,
        }

    def to_json(self) -> dict[str, Any]:
        """Return every number, ready for JSON."""
        record: dict[str, Any] = plain(
            {
                **self.summary,
                "model": self.model,
                "images": self.images,
                "count": self.count,
                "gain_count": self.gain_count,
                "table": self.table,
                "scaling": self._scaling_to_json(),
                "advice": self.advice,
                "provenance": self.provenance.to_json(),
            }
        )
        return record

    def _scaling_to_json(self) -> dict[str, Any] | None:
        if self.scaling is None:
            return None
        record: dict[str, Any] = plain(self.scaling)
        if self.scaling.configured is not None:
            record["configured"]["fits"] = self.scaling.configured.fits
        return record


def diagnose(model: LatentModel, images: ImageSet, *, gain_images: int | None = None, progress: Progress = silent) -> Diagnosis:
    """Return the health sheet of a model, measured on images (held-out ones tell more).

    Args:
        model: encodes and decodes.
        images: of its image shape; a few thousand are enough.
        gain_images: how many of them gains are measured on, which cost a decode a variable each; None: all of them.
        progress: told throughout.

    Raises:
        CapabilityError: the model lacks an encoder or a decoder, or encodes by chance.
        ImageFormatError: images of another shape.
        IllPosedError: fewer than two images.
        SettingError: gains on fewer than two; a model in training mode.
        NonFiniteError: the model gives NaN or infinity; names the first image.

    Cost: one encode of every image, and one decode for each latent variable and two more.

    >>> import latlas
    >>> model = latlas.load_model("zoo:digits-dense")
    >>> codes = model.sample_codes(200, torch.Generator().manual_seed(0))
    >>> images = latlas.ImageSet("own samples", model.decode(codes).detach())
    >>> sheet = latlas.diagnose(model, images)
    >>> sheet.summary["active"], sheet.table[0]["verdict"]
    (6, 'collapsed')
    """
    autoencoder = require_autoencoder(model, "A diagnosis")
    check_image_set(images, "A diagnosis")
    if len(images) < 2:
        raise IllPosedError(
            f"{images.name} has {len(images)} image, and a diagnosis is of how codes vary over images. Give at least 2, better some hundred."
        )
    if gain_images is not None and gain_images < 2:
        raise SettingError(f"Gains are measured on at least 2 images, got {gain_images}.")
    encoding = encode(autoencoder, images, progress=progress)
    check_steady(autoencoder, encoding, images)
    latents = latent_table(encoding.moments())
    reconstruction = measure_reconstruction(autoencoder, encoding.mean, images, progress=progress)
    _check_numbers(autoencoder, reconstruction, images)
    weighed = images.slice(0, gain_images)
    gain = reconstruction_gain(autoencoder, encoding.mean[: len(weighed)], weighed, progress=progress)
    zeroing = _measure_zeroing(autoencoder, encoding.mean, images, latents, reconstruction)
    scaling = _measure_scaling(autoencoder, encoding) if len(encoding.latent_shape) > 1 else None
    findings = few_images(len(images), len(latents)) + advise(latents, reconstruction, zeroing)
    findings += [] if scaling is None else [_advise_scaling(scaling)]
    return Diagnosis(
        model=autoencoder.name,
        images=images.name,
        count=len(images),
        gain_count=len(weighed),
        latents=latents,
        gain=gain,
        reconstruction=reconstruction,
        zeroing=zeroing,
        advice=sorted(findings, key=lambda finding: _URGENCY.index(finding.level)),
        provenance=Provenance(made_by="diagnose", made_from={"model": autoencoder.fingerprint, "images": images.content_hash}),
        scaling=scaling,
    )


def _check_numbers(model: LatentModel, reconstruction: Reconstruction, images: ImageSet) -> None:
    broken = (~reconstruction.errors.isfinite()).nonzero().flatten()
    if len(broken):
        raise NonFiniteError(
            f"{model.name} decodes the code of image {images.name_of(int(broken[0]))} of {images.name} to NaN or infinity, and of "
            f"{len(broken) - 1} more. Mend the model."
        )


def _measure_scaling(model: Autoencoder, encoding: Encoding) -> LatentScaling:
    scale = configured_scale(model)
    if scale is not None and scaling_of(model) == "scaled":
        # What is to be set in a config is of raw latents, whichever were asked for.
        log_variance = encoding.log_variance
        encoding = replace(
            encoding,
            mean=scale.undo(encoding.mean),
            log_variance=None if log_variance is None else log_variance - scale.log_variance_gain(log_variance),
        )
    return latent_scaling(encoding, configured=scale)


def _advise_scaling(scaling: LatentScaling) -> Advice:
    if not math.isfinite(scaling.scaling_factor):
        return Advice(
            level="note",
            headline="No scale for a diffusion model: the latents of these images do not vary.",
            text="Measure others.",
        )
    numbers = f"scaling_factor {scaling.scaling_factor:.4g} and shift_factor {scaling.shift_factor:.4g}"
    stated = scaling.configured
    if stated is None:
        return Advice(
            level="note",
            headline=f"A diffusion model on these latents needs {numbers}.",
            text="With them the latents have mean 0 and deviation 1; latents_mean and latents_std do the same for each channel.",
        )
    found = f"Scaled by it, the latents of these images have mean {stated.mean:.3g} and deviation {stated.deviation:.3g}."
    if stated.fits:
        return Advice(level="good", headline="The scale that the model states fits these images.", text=found)
    return Advice(
        level="note",
        headline="The scale that the model states does not fit these images.",
        text=(
            f"{found} A deviation of 1 is meant: to train a diffusion model on them, set {numbers}; one that was trained with the "
            "stated scale keeps it."
        ),
    )


def _measure_zeroing(
    model: Autoencoder, codes: torch.Tensor, images: ImageSet, latents: LatentTable, reconstruction: Reconstruction
) -> Zeroing | None:
    collapsed = ~latents.active
    if not bool(collapsed.any()):
        return None
    silenced = silence(codes, collapsed)
    largest = 0.0
    for before, after in zip(decode_batches(model, codes), decode_batches(model, silenced), strict=True):
        largest = max(largest, float((before - after).abs().max()))
    after_all = measure_reconstruction(model, silenced, images)
    return Zeroing(error_before=reconstruction.error, error_after=after_all.error, largest_output_difference=largest)
