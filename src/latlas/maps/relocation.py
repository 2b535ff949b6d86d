"""A whole encoding carried into another latent space: no image and no network takes part."""

from latlas.base.provenance import Provenance, tensor_hash
from latlas.encodings.encoding import Encoding
from latlas.maps.linear import LinearMap
from latlas.maps.spatial_map import SpatialMap


def relocate_encoding(fitted: LinearMap | SpatialMap, encoding: Encoding) -> Encoding:
    """Return the encoding of the same images in the map's target space.

    It is paired with every encoding of those images, and knows the target model where the map does, so that a further map's
    source can be checked. Posterior variances are not carried: a linear map would make full covariances of them.

    Raises:
        CodeShapeError: the encoding is of another model, or of other code shapes, than the map takes.
    """
    fitted.check_source(encoding.provenance, name=encoding.model)
    encoding = encoding.widened()  # relocated codes may be larger than float16 holds
    made_from = {"images": encoding.images_hash, "source codes": tensor_hash(encoding.mean)}
    if fitted.target_fingerprint is not None:
        made_from["model"] = fitted.target_fingerprint
    return Encoding(
        mean=fitted.apply(encoding.mean),
        log_variance=None,
        model=fitted.target,
        images=encoding.images,
        images_hash=encoding.images_hash,
        images_tree=encoding.images_tree,
        indices=encoding.indices,
        names=encoding.names,
        labels=encoding.labels,
        skipped=encoding.skipped,
        provenance=Provenance(made_by="relocate_encoding", made_from=made_from, settings={"map": fitted.kind}),
    )
