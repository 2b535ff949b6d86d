"""Source x target -> what a linear map between their latent spaces loses, in image space."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from latlas.base.errors import IllPosedError, ImageFormatError, SettingError
from latlas.base.progress import Progress, silent
from latlas.base.provenance import Provenance
from latlas.base.records import plain
from latlas.base.seeds import generator
from latlas.base.shapes import PerImage
from latlas.data.images import ImageSet
from latlas.encodings.encode import encode
from latlas.maps.fit import check_settings, fit_map
from latlas.maps.linear import LinearMap
from latlas.measurements.reconstruction import decode_errors
from latlas.models.protocols import Autoencoder, LatentModel, check_images, device_of, require_autoencoder
from latlas.supports.support_set import SupportSet


@dataclass(frozen=True, kw_only=True)
class Error:
    """A squared error per pixel (or per latent variable), averaged over images, with its standard error."""

    mean: float
    standard_error: float

    @classmethod
    def of(cls, errors: PerImage) -> "Error":
        """Return mean and standard error of errors per image."""
        deviation = float(errors.std() / len(errors) ** 0.5) if len(errors) > 1 else float("nan")
        return cls(mean=float(errors.mean()), standard_error=deviation)


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """R, L and M errors of a relocation, beside the bounds that they must be read against."""

    source: str
    target: str
    images: str  # measured on
    fitted_on: str
    R: Error  # source's own reconstruction
    L: Error  # map's squared error per target variable
    M: Error  # target decodes the relocated codes
    target_R: Error  # target's own reconstruction: the best possible
    decode_encode: Error  # through image space: target reconstructs the source's reconstruction
    shuffled: Error  # a map fitted on shuffled pairs
    mean_code: Error  # target decodes its mean code, whatever the image
    no_map: Error | None  # target decodes the source's codes as they are; None where the sizes differ
    target_variance: float  # mean variance of a target variable: what L would be for the mean code
    linear_map: LinearMap
    provenance: Provenance

    def to_json(self) -> dict[str, Any]:
        """Return every number, and the ratios that make them readable."""
        errors = {
            name: getattr(self, name)
            for name in ("R", "L", "M", "target_R", "decode_encode", "shuffled", "mean_code", "no_map")
        }
        ratios = {
            "M_over_target_R": ratio(self.M.mean, self.target_R.mean),
            "M_over_decode_encode": ratio(self.M.mean, self.decode_encode.mean),
            "M_over_shuffled": ratio(self.M.mean, self.shuffled.mean),
            "M_over_mean_code": ratio(self.M.mean, self.mean_code.mean),
            "M_over_no_map": None if self.no_map is None else ratio(self.M.mean, self.no_map.mean),
            "L_over_target_variance": ratio(self.L.mean, self.target_variance),
        }
        record: dict[str, Any] = plain(
            {
                "source": self.source,
                "target": self.target,
                "images": self.images,
                "fitted_on": self.fitted_on,
                **{name: None if error is None else error.mean for name, error in errors.items()},
                "standard_errors": {name: None if error is None else error.standard_error for name, error in errors.items()},
                **ratios,
                "target_variance": self.target_variance,
                "map": {"kind": self.linear_map.kind, **self.linear_map.evidence},
                "provenance": self.provenance.to_json(),
            }
        )
        return record


def compare(
    source_model: LatentModel,
    target_model: LatentModel,
    images: ImageSet,
    *,
    fit_on: Literal["all"] | Tensor | SupportSet = "all",
    test: ImageSet | None = None,
    kind: str = "affine",
    ridge: float | Literal["gcv"] | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Comparison:
    """Fit a linear map between two models' codes of the same images, and measure what it loses on others.

    Args:
        source_model: whose codes are relocated; encodes and decodes.
        target_model: into whose space; encodes and decodes; same image shape.
        images: to fit on.
        fit_on: "all" of them, those at some indices, or a Support Set (its own images).
        test: to measure on; None holds out the last fifth of `images`.
        kind: of the map, as in `fit_map`.
        ridge: as in `fit_map`.
        seed: decides the shuffled pairs.
        progress: told throughout.

    Raises:
        CapabilityError: a model lacks an encoder or a decoder.
        ImageFormatError: images of another shape than a model's, or models of two image shapes.
        UnknownNameError, SettingError: a kind or a ridge that `fit_map` does not know; too few images to hold some out.
        IllPosedError: fewer pairs than unknowns without a ridge; fewer than two images to measure on.
    """
    check_settings(kind, ridge)
    source = require_autoencoder(source_model, "A comparison")
    target = require_autoencoder(target_model, "A comparison")
    if test is None:
        cut = len(images) * 4 // 5
        if not 0 < cut < len(images):
            raise SettingError(f"{images.name} has {len(images)} images: too few to hold a fifth out. Give test images.")
        images, test = images.slice(0, cut), images.slice(cut, None)
    fitting = _fitting_images(images, fit_on)
    _check_comparable(source, target, fitting, test)
    source_fit = encode(source, fitting, progress=progress)
    target_fit = encode(target, fitting, progress=progress)
    fitted = fit_map(source_fit, target_fit, kind=kind, ridge=ridge)
    order = torch.randperm(len(fitting), generator=generator(seed, "shuffled pairs"))
    shuffled = fit_map(source_fit.mean[order], target_fit.mean, kind=kind, ridge=ridge)
    return measure_map(
        source,
        target,
        fitted,
        test,
        shuffled=shuffled,
        mean_code=target_fit.mean.mean(dim=0),
        fitted_on=fitting.name,
        provenance=Provenance(
            made_by="compare",
            seed=seed,
            made_from={
                "source": source.fingerprint,
                "target": target.fingerprint,
                "fitted_on": fitting.content_hash,
                "test": test.content_hash,
            },
            settings={"kind": kind, "ridge": ridge, "fit_on": _told(fit_on)},
        ),
        progress=progress,
    )


def measure_map(
    source: Autoencoder,
    target: Autoencoder,
    fitted: LinearMap,
    test: ImageSet,
    *,
    shuffled: LinearMap,
    mean_code: Tensor,
    fitted_on: str,
    provenance: Provenance,
    progress: Progress = silent,
) -> Comparison:
    """Return the errors of a fitted map on test images, beside their bounds."""
    source_codes = encode(source, test, progress=progress).mean
    target_codes = encode(target, test, progress=progress).mean
    relocated = fitted.apply(source_codes)
    return Comparison(
        source=source.name,
        target=target.name,
        images=test.name,
        fitted_on=fitted_on,
        R=Error.of(decode_errors(source, source_codes, test)),
        L=Error.of((relocated.double() - target_codes.double()).square().mean(dim=1)),
        M=Error.of(decode_errors(target, relocated, test)),
        target_R=Error.of(decode_errors(target, target_codes, test)),
        decode_encode=Error.of(decode_errors(target, through_images(source, target, source_codes), test)),
        shuffled=Error.of(decode_errors(target, shuffled.apply(source_codes), test)),
        mean_code=Error.of(decode_errors(target, mean_code.expand(len(test), *mean_code.shape).contiguous(), test)),
        no_map=(
            Error.of(decode_errors(target, source_codes, test))
            if tuple(source.latent_shape) == tuple(target.latent_shape)
            else None
        ),
        target_variance=float(target_codes.double().var(dim=0, correction=0).mean()),
        linear_map=fitted,
        provenance=provenance,
    )


def ratio(value: float, whole: float) -> float | None:
    """Return value / whole; None where the whole is 0, which has no shares."""
    return value / whole if whole else None


def through_images(source: Autoencoder, target: Autoencoder, codes: Tensor, *, size: int = 1000) -> Tensor:
    """Return the target's codes of the source's reconstructions: the route that a map replaces."""
    start, end = device_of(source), device_of(target)
    with torch.inference_mode():
        parts = [target.encode(source.decode(batch.to(start)).to(end)).mean.float().cpu() for batch in torch.split(codes, size)]
    return torch.cat(parts).clone()


def _check_comparable(source: Autoencoder, target: Autoencoder, fitting: ImageSet, test: ImageSet) -> None:
    if tuple(source.image_shape) != tuple(target.image_shape):
        first, second = ("x".join(map(str, model.image_shape)) for model in (source, target))
        raise ImageFormatError(
            f"{source.name} takes images of {first} and {target.name} of {second} (channels x height x width): no linear map "
            "between them can be studied on one image set. Compare models of one image shape, or train one for the other's."
        )
    for images in (fitting, test):
        check_images(images.image_shape, source, name=images.name)
    if len(test) < 2:
        raise IllPosedError(
            f"{test.name} has {len(test)} image to measure on; a standard error needs at least 2. Give more test images."
        )


def _told(fit_on: Literal["all"] | Tensor | SupportSet) -> str:
    if isinstance(fit_on, SupportSet):
        return f"Support Set of {len(fit_on.images)} images"
    return f"{fit_on.numel()} chosen images" if isinstance(fit_on, Tensor) else fit_on


def _fitting_images(images: ImageSet, fit_on: Literal["all"] | Tensor | SupportSet) -> ImageSet:
    if isinstance(fit_on, SupportSet):
        return fit_on.images
    if isinstance(fit_on, Tensor):
        if fit_on.numel() == 0:
            raise IllPosedError("No images to fit on were given.")
        return images.take(fit_on)
    return images
