"""Codes found by inversion, as an encoding: what everything takes that takes codes of images."""

from collections.abc import Sequence
from dataclasses import asdict

from latlas.base.progress import Progress, silent
from latlas.base.provenance import Provenance
from latlas.data.images import ImageSet
from latlas.encodings.encoding import Encoding
from latlas.inversion.descent import Budget, Inversion
from latlas.inversion.invert import encoder_of, invert, start_kinds
from latlas.models.protocols import Encoder, LatentModel, require_generator


def invert_images(
    model: LatentModel,
    images: ImageSet,
    *,
    budget: Budget | None = None,
    start: str | Sequence[str] = "hybrid",
    starts: int = 2,
    recoder: Encoder | None = None,
    prior_weight: float = 0.0,
    noise_weight: float | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> tuple[Inversion, Encoding]:
    """Return what `latlas.inversion.invert` finds, and its codes as an encoding without variances.

    Args:
        model: draws codes and decodes.
        images: of its image shape.
        budget: of the descent; None for the default.
        start: where descents start.
        starts: how many of them from noise, if any.
        recoder: for the generator's images; None: its own encoder, if it has one.
        prior_weight: of ordinary codes.
        noise_weight: descend the noise of a StyleGAN too. The encoding holds codes alone: the noise is in the inversion.
        seed: decides the starts.
        progress: told in images.

    Raises:
        LatlasError: as `latlas.inversion.invert` has it.
    """
    work = budget if budget is not None else Budget()
    kinds = start_kinds(start, encoder_of(require_generator(model, "Inversion"), recoder))
    found = invert(
        model,
        images,
        budget=work,
        start=kinds,
        recoder=recoder,
        starts=starts,
        prior_weight=prior_weight,
        noise_weight=noise_weight,
        seed=seed,
        progress=progress,
    )
    made_from = {"model": model.fingerprint, "images": images.content_hash}
    if recoder is not None:
        made_from["recoder"] = recoder.fingerprint
    provenance = Provenance(
        made_by="invert",
        seed=seed,
        made_from=made_from,
        settings={
            "budget": asdict(work),
            "starts": list(kinds),
            "noise_starts": starts,
            "prior_weight": prior_weight,
            "noise_weight": noise_weight,
        },
    )
    encoding = Encoding(
        mean=found.codes,
        log_variance=None,
        model=model.name,
        images=images.name,
        images_hash=images.content_hash,
        provenance=provenance,
    )
    return found, encoding
