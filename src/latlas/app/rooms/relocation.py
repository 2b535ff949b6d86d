"""Room 2: the same images in two models, and what a linear map between their latent spaces keeps of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from latlas.app.charts import Atlas, Chart
from latlas.app.markup import Measure, Row, as_cpu, measures, rows
from latlas.base.errors import CapabilityError, IllPosedError, ImageFormatError
from latlas.base.progress import Progress, silent
from latlas.base.seeds import generator
from latlas.data.images import ImageSet
from latlas.encodings.encode import encode
from latlas.measurements.reconstruction import decode_batches
from latlas.models.protocols import Decoder, LatentModel
from latlas.reports import palette
from latlas.reports.wording import images_in_words
from latlas.studies.compare import compare
from latlas.studies.comparison import Comparison
from latlas.studies.pairs import split

SHOWN = 6  # images side by side
ALONE = (
    "No other model here makes images of this shape, so that the source is its own target: the map should lose nothing. Name another "
    "on the command line: latlas explore MODEL MODEL."
)
_STREAM = 2000  # codes that a map is fitted on where a model does not encode
_SPARE = 1.25  # pairs over unknowns, below which a map is fitted with a ridge
_FITTED = 0.8  # share of the images that `compare` fits on


@dataclass(frozen=True, kw_only=True, eq=False)
class Relocation:
    """A few images, and what each way makes of them."""

    words: tuple[str, ...]  # of each image
    originals: Float[Tensor, "n c h w"]
    source: Float[Tensor, "n c h w"]  # the source's own reconstructions
    relocated: Float[Tensor, "n c h w"]  # decoded by the target from relocated codes
    target: Float[Tensor, "n c h w"]  # the target's own reconstructions


def comparison(atlas: Atlas, source: Chart, target: Chart, progress: Progress = silent) -> Comparison:
    """Return the map between two models with its errors, fitted on four fifths of the images and measured on the rest.

    Where one of the two does not encode, on codes that it draws.

    Raises:
        CapabilityError: neither encodes.
        ImageFormatError: models of two image shapes.
        LatlasError: as `compare` has it.
    """

    def measure() -> Comparison:
        if source.encodes and target.encodes:
            images = _images(source, target)
            unknowns = source.model.latent_shape[0] + 1 if len(source.model.latent_shape) == 1 else 0
            ridge = "gcv" if _FITTED * len(images) < _SPARE * unknowns else None
            return compare(source.model, target.model, images, ridge=ridge, brief=True, progress=progress)  # type: ignore[arg-type]
        if not (source.encodes or target.encodes):
            raise CapabilityError("Neither of the two encodes, so no codes can be paired. Choose a model with an encoder.")
        return compare(source.model, target.model, "stream", stream=_STREAM, brief=True, progress=progress)

    return atlas.kept.get(("comparison", source.label, target.label), measure)


def relocation(
    atlas: Atlas,
    source: Chart,
    target: Chart,
    *,
    seed: int = 0,
    uploads: Sequence[Tensor] = (),
    progress: Progress = silent,
) -> Relocation:
    """Return a few images each way.

    Args:
        atlas: that keeps the map.
        source: whose codes are relocated.
        target: into whose space.
        seed: decides which images; of those that the map was not fitted on.
        uploads: a visitor's images, shown first.
        progress: told while the map is fitted.

    Raises:
        CapabilityError: an upload where a model has no encoder.
        ImageFormatError: an upload of another shape than the models'.
        LatlasError: as `comparison` has it.
    """
    found = comparison(atlas, source, target, progress)
    if not (source.encodes and target.encodes):
        if uploads:
            lacking = target.label if source.encodes else source.label
            raise CapabilityError(f"{lacking} has no encoder: it finds no code for an image that it did not draw itself.")
        pairs = found.examples.first(SHOWN)
        images, codes, own = pairs.images, pairs.source.mean, pairs.target.mean
        words = tuple(f"sample {place}" for place in range(len(images)))
    else:
        images = _images(source, target)
        for upload in uploads:
            if tuple(upload.shape) != tuple(images.image_shape):
                raise ImageFormatError("The picture was cut for another model. Upload it again.")
        _, held_out = split(images)
        first = len(images) - len(held_out)
        order = torch.randperm(len(held_out), generator=generator(seed, "relocated images")) + first
        chosen = order[: max(1, SHOWN - len(uploads))].sort().values
        words = tuple(f"upload {place + 1}" for place in range(len(uploads)))
        words += tuple(f"image {int(place)}" for place in chosen)
        shown = images.take(chosen).tensor()
        if uploads:
            shown = torch.cat([torch.stack(list(uploads)), shown])
        images = ImageSet(name="images shown", storage=shown)
        codes = encode(source.model, images).mean
        own = encode(target.model, images).mean
    return Relocation(
        words=words,
        originals=images.tensor(),
        source=_decoded(source.model, codes),
        relocated=_decoded(target.model, found.relocate(codes)),
        target=_decoded(target.model, own),
    )


def pictures(found: Relocation, source: Chart, target: Chart) -> str:
    """Return the four rows."""
    parts = (
        ("Original", found.originals, "the original", "", None),
        (
            "Source's reconstruction (R)",
            found.source,
            "reconstructed by the source",
            f"{source.label} decodes its own code of each image.",
            palette.SOURCE,
        ),
        (
            "Relocation (M)",
            found.relocated,
            "relocated and decoded by the target",
            f"The same codes, carried over by the linear map, and decoded by {target.label}.",
            palette.RELOCATED,
        ),
        (
            "Target's own reconstruction",
            found.target,
            "reconstructed by the target",
            f"{target.label} decodes its own code of each image, without a map.",
            palette.TARGET,
        ),
    )
    return rows(
        [
            Row(title=title, images=images, words=[f"{word}, {what}" for word in found.words], remark=remark, colour=colour)
            for title, images, what, remark, colour in parts
        ]
    )


def errors(found: Comparison) -> str:
    """Return the errors of the map beside their bounds."""
    lines = (
        ("R, source's reconstruction", found.R.mean, "What the source's code does not keep of an image.", palette.SOURCE),
        ("M, relocation", found.M.mean, "What both models and the map between them lose together.", palette.RELOCATED),
        (
            "Target's own reconstruction",
            found.target_R.mean,
            "What the target's code does not keep: as good as M can be expected to get.",
            palette.TARGET,
        ),
        (
            "Target's mean code",
            found.mean_code.mean,
            "One and the same image for all: what is lost where nothing is known of an image.",
            palette.BOUND,
        ),
        (
            "Map fitted on shuffled pairs",
            found.shuffled.mean,
            "A map that was shown wrong pairs. Should M come near this, the map knows nothing.",
            palette.BOUND,
        ),
    )
    share = found.recovered_share
    told = (
        ""
        if share is None
        else f"The map recovers {100 * share:.0f} % of the way from the target's mean code to its own reconstruction. "
    )
    return measures(
        [Measure(name=name, value=value, meaning=meaning, colour=colour) for name, value, meaning, colour in lines],
        columns=("what is decoded", "squared error per pixel"),
        caption=(
            f"{told}It was fitted on {images_in_words(found.fitted_on)}, and measured on {images_in_words(found.images)}. "
            "Images have values from 0 to 1."
        ),
    )


def _images(source: Chart, target: Chart) -> ImageSet:
    # Both charts have images of the one shape; a generator's own samples serve only where nothing else does.
    chosen = source if source.known_codes is None or target.known_codes is not None else target
    if len(chosen.images) < 10:
        raise IllPosedError(
            f"{chosen.images.name} has {len(chosen.images)} images, too few to fit a map and try it on others. Give more: --data."
        )
    return chosen.images


def _decoded(model: LatentModel, codes: Tensor) -> Tensor:
    decoder: Decoder = model  # type: ignore[assignment]  # a chart's model decodes
    return as_cpu(torch.cat(list(decode_batches(decoder, codes))))
