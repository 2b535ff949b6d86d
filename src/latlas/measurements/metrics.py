"""torchmetrics shells: the same pure functions, for whoever wants a distance inside a training of several processes."""

from functools import partial
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor
from torchmetrics import Metric

from latlas.base.shapes import Images
from latlas.measurements.features import FeatureNetwork, features_of_batch
from latlas.numerics.frechet import FrechetDistance, frechet_distance_of
from latlas.numerics.moments import Moments


class FrechetDistanceMetric(Metric):
    """The Fréchet distance between two streams of images, over all processes.

    Its states are packed moments, merged by the formula that merges batches: any sharing out of the images gives the
    distance of all of them, up to rounding. torchmetrics' own sums raw second moments, which cancel where features
    are far from 0. `compute` returns a scalar; `distance` the whole record.

    Args:
        network: what turns images into features. It is neither saved nor moved with the metric.
        settings: what torchmetrics' `Metric` takes, such as `sync_on_compute`.
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False

    first: Tensor
    second: Tensor

    def __init__(self, network: FeatureNetwork, **settings: Any) -> None:
        super().__init__(**settings)
        # Bound in a function, so that its weights are no part of the metric's, nor of a checkpoint that holds the metric.
        self.extract = partial(features_of_batch, network)
        for name in ("first", "second"):
            self.add_state(name, default=pack(Moments.empty(network.size)), dist_reduce_fx=merge_packed)

    def update(self, images: Images, *, first: bool) -> None:
        """Take images into the first set (say, the real ones) or the second.

        Raises:
            NonFiniteError: their features hold NaN or infinity.
        """
        name = "first" if first else "second"
        before: Tensor = getattr(self, name)
        merged = unpack(before.cpu()).merge(Moments.of(self.extract(images)))
        setattr(self, name, pack(merged).to(before.device))

    def distance(self) -> FrechetDistance:
        """Return the distance of what this process holds; inside `sync_context`, of what all hold."""
        return frechet_distance_of(unpack(self.first.cpu()), unpack(self.second.cpu()))

    def compute(self) -> Float64[Tensor, ""]:
        """Return the squared Fréchet distance.

        Raises:
            IllPosedError: fewer than two images in a set.
        """
        return torch.tensor(self.distance().value, dtype=torch.float64)


def pack(moments: Moments) -> Float64[Tensor, "rows d"]:
    """Return moments as one tensor, so that they can travel between processes; `unpack` reads it."""
    count = torch.full_like(moments.mean, float(moments.count))
    return torch.cat([count[None], moments.mean[None], moments.scatter])


def unpack(packed: Float64[Tensor, "rows d"]) -> Moments:
    """Read what `pack` wrote."""
    return Moments(int(packed[0, 0]), packed[1], packed[2:])


def merge_packed(stacked: Float64[Tensor, "processes rows d"]) -> Float64[Tensor, "rows d"]:
    """Return the packed moments of all processes together: what torchmetrics reduces the states by."""
    total = unpack(stacked[0].cpu())
    for packed in stacked[1:]:
        total = total.merge(unpack(packed.cpu()))
    return pack(total).to(stacked.device)
