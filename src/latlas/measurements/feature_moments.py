"""Moments of the features of more images than are in memory: what a Fréchet distance is computed from."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from latlas.base.errors import IllPosedError
from latlas.base.progress import Progress, silent
from latlas.data.images import ImageSet, ImageSource, to_floats
from latlas.encodings.distributed import decoded_by, on_own_device
from latlas.encodings.engines.engine import Engine, LocalEngine
from latlas.encodings.statistics import Bounds, divided, merged
from latlas.measurements.features import FeatureNetwork, features_of_batch
from latlas.models.protocols import device_of
from latlas.numerics.moments import Moments

_BATCH = 500  # images at once, of a network that states no number
_PART = 8  # batches of an item


def feature_moments(
    network: FeatureNetwork, images: ImageSet | ImageSource, *, engine: Engine | None = None, progress: Progress = silent
) -> Moments:
    """Return the moments of the features of images; `frechet_distance_of` compares two of them.

    Args:
        network: what turns images into features; it travels to the workers, and so do the images unless they are files.
        images: those that a source skips have no features and are not counted.
        engine: who computes; None: this process.
        progress: told after each part.

    Raises:
        IllPosedError: no images.
        NonFiniteError, ImageFormatError: the network returns NaN, or another shape than it states; names the images.
    """
    if len(images) == 0:
        raise IllPosedError(f"{images.name} holds no images: their features have no moments.")
    batch = int(getattr(network, "batch_size", _BATCH))
    bounds = divided(len(images), batch * _PART)
    carrier = engine or LocalEngine()
    make = _FeaturesOf(network, decoded_by(carrier, images, device_of(network)), batch, moved=carrier.several)
    found = carrier.map(make, bounds, task=f"features ({network.name})", progress=progress)
    return merged(found, bounds, Moments.merge)


@dataclass(frozen=True, eq=False)
class _FeaturesOf:
    network: FeatureNetwork
    images: ImageSet | ImageSource
    batch: int
    moved: bool  # to the worker's own GPU

    def __call__(self) -> Callable[[Bounds], Moments]:
        return (replace(self, network=on_own_device(self.network)) if self.moved else self).of

    def of(self, bounds: Bounds) -> Moments:
        starts = range(bounds[0], bounds[1], self.batch)
        blocks = self.images.blocks((start, min(start + self.batch, bounds[1])) for start in starts)
        total = Moments.empty(self.network.size)
        for start, block in zip(starts, blocks, strict=True):
            if len(block.pixels):
                title = f"images {start} to {min(start + self.batch, bounds[1]) - 1} of {self.images.name}"
                features = features_of_batch(self.network, to_floats(block.pixels), title=title)
                total = total.merge(Moments.of(features))
        return total
