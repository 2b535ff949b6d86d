"""The codes of the same images in two latent spaces: of images given, or of a generator's own stream."""

import dataclasses
import logging
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from latlas.base.errors import CapabilityError, IllPosedError, ImageFormatError, SettingError
from latlas.base.progress import Progress, silent, track
from latlas.base.provenance import Provenance
from latlas.base.seeds import generator
from latlas.base.shapes import Codes, LatentShape
from latlas.data.images import ImageSet
from latlas.encodings.encode import encode
from latlas.encodings.encoding import Encoding, require_paired
from latlas.maps.fit import check_settings, fit_map
from latlas.maps.linear import LinearMap
from latlas.maps.spatial import fit_spatial_map
from latlas.maps.spatial_map import SpatialMap
from latlas.measurements.reconstruction import decode_batches
from latlas.models.drawn import check_drawn
from latlas.models.given import check_image_set
from latlas.models.protocols import (
    Generator,
    LatentModel,
    check_images,
    images_at_once,
    is_encoder,
    require_autoencoder,
    require_generator,
)
from latlas.numerics.patches import PatchGeometry, geometry_between

logger = logging.getLogger(__name__)

CodeMap = LinearMap | SpatialMap

STREAM = "stream"
_CONSTANT = 1e-14  # deviation over size below which codes differ by rounding alone


@dataclass(frozen=True, kw_only=True, eq=False)
class PairedCodes:
    """Images, and their codes in two latent spaces, row by row."""

    images: ImageSet
    source: Encoding
    target: Encoding

    def __post_init__(self) -> None:
        require_paired(self.source, self.target)

    def __len__(self) -> int:
        return len(self.images)

    def first(self, count: int) -> "PairedCodes":
        """Return the first few pairs."""
        rows = torch.arange(min(count, len(self)))
        return PairedCodes(images=self.images.take(rows), source=self.source.take(rows), target=self.target.take(rows))


@dataclass(frozen=True, kw_only=True)
class MapSettings:
    """How a map between two latent spaces is fitted, whichever their shapes."""

    kind: str = "affine"
    ridge: float | str | None = None
    rank: int | None = None  # of a reduced-rank map
    neighbourhood: int | None = None  # positions across that a spatial map looks at; None: 1

    @property
    def window(self) -> int:
        """Positions across that a spatial map looks at."""
        return 1 if self.neighbourhood is None else self.neighbourhood

    def check(self, source: LatentShape | None = None, target: LatentShape | None = None) -> None:
        """Raise unless a map between these latent spaces could be fitted: asked before any work.

        Raises:
            UnknownNameError, SettingError: as `fit_map`; an even neighbourhood; settings of a vector map for two spatial
                latent spaces, or the other way round.
            CodeShapeError: spatial latent spaces whose grids differ by no integer factor.
        """
        check_settings(self.kind, self.ridge, rank=self.rank)
        PatchGeometry(self.window)
        if source is None or target is None:
            return
        if len(source) == len(target) == 3:
            geometry_between(*(torch.empty(1, *shape, device="meta") for shape in (source, target)))
            if self.kind != "affine":
                raise SettingError(f"Between two spatial latent spaces maps are affine, got {self.kind}. Leave the kind out.")
            if self.ridge == "loo":
                raise SettingError("Between two spatial latent spaces the ridge is a number or gcv, got loo.")
        elif self.neighbourhood is not None:
            shapes = " and ".join("x".join(map(str, shape)) for shape in (source, target))
            raise SettingError(f"A neighbourhood is for two spatial latent spaces; these have shapes {shapes}. Leave it out.")

    def fit(self, source: Encoding, target: Encoding) -> CodeMap:
        """Return the map between paired encodings; a spatial code beside a vector one is taken as one long vector.

        Raises:
            IllPosedError, NonFiniteError: as `fit_map` and `fit_spatial_map`.
        """
        if len(source.latent_shape) == len(target.latent_shape) == 3:
            return fit_spatial_map(source, target, neighbourhood=self.window, ridge=self.ridge)  # type: ignore[arg-type]
        left, right = flattened(source), flattened(target)
        return fit_map(left, right, kind=self.kind, ridge=self.ridge, rank=self.rank)  # type: ignore[arg-type]


def relocate(fitted: CodeMap, codes: Codes, shape: LatentShape) -> Float[Tensor, "n *target"]:
    """Return codes carried over by a map, in the shape of the target's."""
    if isinstance(fitted, LinearMap):
        return fitted.apply(codes.flatten(1)).reshape(-1, *shape)
    return fitted.apply(codes)


def stating_scaling(fitted: CodeMap, source: LatentModel, target: LatentModel) -> CodeMap:
    """Return a map that says which of the models' latents it joins, raw or scaled, where they say so themselves."""
    if isinstance(fitted, LinearMap):
        return fitted
    first, second = (getattr(model, "scaling", None) for model in (source, target))
    return dataclasses.replace(fitted, source_scaling=first, target_scaling=second)


def flattened(encoding: Encoding) -> Encoding:
    """Return an encoding with each code as one vector."""
    if encoding.mean.ndim == 2:
        return encoding
    return dataclasses.replace(encoding, mean=encoding.mean.flatten(1), log_variance=None)


def shuffled(encoding: Encoding, seed: int) -> Encoding:
    """Return an encoding whose codes are dealt out to other images, under the name of the right ones."""
    order = torch.randperm(len(encoding), generator=generator(seed, "shuffled pairs"))
    return dataclasses.replace(encoding, mean=encoding.mean[order], log_variance=None)


def is_stream_only(model: LatentModel) -> bool:
    """Tell whether a model knows the codes of no images but its own: it decodes and draws codes, and does not encode."""
    lacks = getattr(model, "lacks", ())
    draws = all(callable(getattr(model, name, None)) and name not in lacks for name in ("decode", "sample_codes"))
    return draws and not is_encoder(model)


def streaming_model(source: LatentModel, target: LatentModel) -> Generator:
    """Return the one of two models whose own stream pairs them: the generator without an encoder.

    Raises:
        CapabilityError: there is none, or both are.
    """
    only = [model for model in (source, target) if is_stream_only(model)]
    if len(only) == 2:
        raise CapabilityError(
            f"Neither {source.name} nor {target.name} encodes: no image has a known code in both. Train a recoder for one of them."
        )
    if not only:
        for model in (source, target):
            require_autoencoder(model, "A comparison")
        raise CapabilityError(
            f"Both {source.name} and {target.name} encode: there is no need of a stream. Give images to compare them on."
        )
    other = target if only[0] is source else source
    require_autoencoder(other, "A comparison")
    return require_generator(only[0], "A stream")


def pair_on_images(source: LatentModel, target: LatentModel, images: ImageSet, *, progress: Progress = silent) -> PairedCodes:
    """Return the codes of images as both models see them."""
    first = encode(source, images, progress=progress)
    return PairedCodes(images=images, source=first, target=encode(target, images, progress=progress))


def pair_on_stream(
    source: LatentModel, target: LatentModel, count: int, *, part: str, seed: int = 0, progress: Progress = silent
) -> PairedCodes:
    """Return codes drawn by the one generator of two models, its images, and their codes as the other sees them.

    Args:
        source: one of the two draws codes and has no encoder, the other encodes.
        target: as above.
        count: codes to draw.
        part: names the draw: other parts have other codes.
        seed: decides the codes.
        progress: told after each batch.

    Raises:
        CapabilityError: there is no such generator among the two, or both are.
        IllPosedError: fewer than one code.
        ImageFormatError: images out of [0, 1].
    """
    drawing = streaming_model(source, target)
    images, known = stream_of(drawing, count, part=part, seed=seed, progress=progress)
    seen = encode(target if drawing is source else source, images, progress=progress)
    first, second = (known, seen) if drawing is source else (seen, known)
    return PairedCodes(images=images, source=first, target=second)


def stream_of(
    drawing: Generator, count: int, *, part: str, seed: int = 0, progress: Progress = silent
) -> tuple[ImageSet, Encoding]:
    """Return images of a generator's own, and the codes that it drew them from.

    Raises:
        IllPosedError: fewer than one code.
        ImageFormatError, NonFiniteError: images out of [0, 1].
    """
    if count < 1:
        raise IllPosedError(f"A stream needs at least 1 code, got {count}.")
    at_once = images_at_once(drawing.image_shape)
    codes = drawing.sample_codes(count, generator(seed, "stream", part)).float().cpu()
    batches = track(
        decode_batches(drawing, codes, size=at_once), f"drawing from {drawing.name}", progress, total=-(-count // at_once)
    )
    pixels = torch.cat(list(batches)).clone()
    check_drawn(pixels, drawing)
    images = ImageSet(f"{drawing.name}'s own stream ({part})", pixels.clamp(0.0, 1.0))
    return images, Encoding(
        mean=codes,
        log_variance=None,
        model=drawing.name,
        images=images.name,
        images_hash=images.content_hash,
        provenance=Provenance(
            made_by="stream_of",
            seed=seed,
            made_from={"model": drawing.fingerprint, "images": images.content_hash},
            settings={"part": part},
        ),
    )


def require_varied(pairs: PairedCodes) -> None:
    """Raise where a model gives every image one code: there is no map to fit, and none to judge it by.

    Raises:
        IllPosedError: it does.
    """
    for encoding in (pairs.source, pairs.target):
        codes = encoding.mean.flatten(1).double()
        if len(codes) > 1 and float(codes.var(dim=0, correction=0).sum().sqrt()) <= _CONSTANT * float(codes.norm(dim=1).max()):
            raise IllPosedError(
                f"{encoding.model} gives all {len(codes)} images of {encoding.images} the same code: its latent space has "
                "collapsed, or the images are all alike. Train the model again, or give other images."
            )


def split(images: ImageSet) -> tuple[ImageSet, ImageSet]:
    """Return the first four fifths of images and the last fifth.

    Raises:
        SettingError: too few images.
        ImageFormatError: something that is no ImageSet.
    """
    check_image_set(images, "This study")
    cut = len(images) * 4 // 5
    if not 0 < cut < len(images):
        raise SettingError(f"{images.name} has {len(images)} images: too few to hold a fifth out. Give test images.")
    return images.slice(0, cut), images.slice(cut, None)


def check_comparable(models: tuple[LatentModel, ...], sets: tuple[ImageSet, ImageSet]) -> None:
    """Raise unless all models take the images to fit on and those to measure on, and the latter are at least two.

    Raises:
        ImageFormatError: they do not.
        IllPosedError: fewer than two images to measure on.
    """
    first = models[0]
    for other in models[1:]:
        check_one_shape(first, other)
    for images in sets:
        check_image_set(images, "This study")
        check_images(images.image_shape, first, name=images.name)
    if len(sets[1]) < 2:
        raise IllPosedError(
            f"{sets[1].name} has {len(sets[1])} image to measure on; a standard error needs at least 2. Give more test images."
        )


def tell_if_alike(fitted: ImageSet, measured: ImageSet, *, what: str) -> None:
    """Warn of images that are measured on and were fitted to: what is found of them says nothing of others.

    Args:
        fitted: images that something was fitted to.
        measured: images that it is measured on.
        what: "The map", for the warning.
    """
    if fitted.content_hash == measured.content_hash:
        logger.warning(
            "%s is measured on the images that it was fitted to (%s): errors on others are larger.", what, fitted.name
        )


def check_one_shape(source: LatentModel, target: LatentModel) -> None:
    """Raise unless two models take images of one shape.

    Raises:
        ImageFormatError: they do not.
    """
    if tuple(source.image_shape) != tuple(target.image_shape):
        first, second = ("x".join(map(str, model.image_shape)) for model in (source, target))
        raise ImageFormatError(
            f"{source.name} takes images of {first} and {target.name} of {second} (channels x height x width): no linear map "
            "between them can be studied on one image set. Compare models of one image shape, or train one for the other's."
        )
