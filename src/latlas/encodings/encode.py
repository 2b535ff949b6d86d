"""Encoder x images -> Encoding."""

from pathlib import Path

import torch

from latlas.base.artifacts import check_free
from latlas.base.errors import NonFiniteError
from latlas.base.progress import Progress, silent, track
from latlas.base.provenance import Provenance
from latlas.data.images import ImageSet
from latlas.encodings.encoding import Encoding
from latlas.models.protocols import (
    Encoder,
    LatentModel,
    check_images,
    device_of,
    images_at_once,
    require_encoder,
    scaling_of,
)


def encode(
    model: LatentModel, images: ImageSet, *, out: str | Path | None = None, replace: bool = False, progress: Progress = silent
) -> Encoding:
    """Return the codes of every image, in order.

    Args:
        model: anything with `encode`.
        images: of the model's image shape.
        out: folder to store the encoding in as well.
        replace: whether an earlier artifact there may be replaced.
        progress: told after each batch.

    Raises:
        CapabilityError: the model has no encoder.
        ImageFormatError: images of another shape.
        NonFiniteError: the encoder returned NaN or infinity; names the first image.
        OutputExistsError: `out` already holds something.
    """
    encoder: Encoder = require_encoder(model, "Encoding")
    check_images(images.image_shape, encoder, name=images.name)
    if out is not None:
        check_free(out, replace=replace)
    means, log_variances = [], []
    device = device_of(encoder)
    size = images_at_once(images.image_shape)
    batches = track(images.batches(size), f"encoding {images.name}", progress, total=-(-len(images) // size))
    with torch.inference_mode():
        for batch in batches:
            posterior = encoder.encode(batch.to(device))
            means.append(posterior.mean.float().cpu())
            if posterior.log_variance is not None:
                log_variances.append(posterior.log_variance.float().cpu())
    # Tensors made under inference mode cannot take part in later gradients; a clone can.
    mean = torch.cat(means).clone()
    log_variance = torch.cat(log_variances).clone() if log_variances else None
    for part in (mean, log_variance):
        if part is not None and not bool(part.isfinite().all()):
            first = int((~part.isfinite()).flatten(1).any(dim=1).nonzero()[0, 0])
            raise NonFiniteError(f"{encoder.name} encodes image {images.name_of(first)} of {images.name} as NaN or infinity.")
    scaling = scaling_of(encoder)
    encoding = Encoding(
        mean=mean,
        log_variance=log_variance,
        model=encoder.name,
        images=images.name,
        images_hash=images.content_hash,
        provenance=Provenance(
            made_by="encode",
            made_from={"model": encoder.fingerprint, "images": images.content_hash},
            settings={} if scaling is None else {"scaling": scaling},
        ),
    )
    if out is not None:
        encoding.save_pretrained(out, replace=replace)
    return encoding
