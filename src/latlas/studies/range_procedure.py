"""What is done to every image of a range test alike: inverted from the same starts, and measured in the same two spaces."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from latlas.base.errors import SettingError
from latlas.base.progress import Progress, silent
from latlas.base.shapes import PerImage
from latlas.data.images import ImageSet
from latlas.inversion.descent import Budget, Inversion
from latlas.inversion.invert import encoder_of, invert, start_kinds
from latlas.measurements.features import FeatureNetwork, features_of_batch
from latlas.measurements.reconstruction import decode_batches
from latlas.models.protocols import Encoder, Generator, LatentModel, images_at_once, require_generator
from latlas.studies.features import check_features


@dataclass(frozen=True, kw_only=True, eq=False)
class Procedure:
    """How images are inverted and measured: one value for all that are ranked among each other."""

    budget: Budget
    starts: tuple[str, ...]  # kinds of starts, as `latlas.inversion.invert` names them
    noise_starts: int
    recoder: Encoder | None
    prior_weight: float
    features: FeatureNetwork | None
    seed: int

    @property
    def settings(self) -> dict[str, Any]:
        """All that decides a result, for the provenance."""
        return {
            "budget": asdict(self.budget),
            "starts": list(self.starts),
            "noise_starts": self.noise_starts,
            "prior_weight": self.prior_weight,
            "features": None if self.features is None else self.features.name,
            "calibration_seed": self.seed,
        }

    def invert(self, model: LatentModel, images: ImageSet, progress: Progress = silent) -> Inversion:
        """Return codes and errors of images."""
        return invert(
            model,
            images,
            budget=self.budget,
            start=self.starts,
            recoder=self.recoder,
            starts=self.noise_starts,
            prior_weight=self.prior_weight,
            seed=self.seed,
            progress=progress,
        )

    def feature_errors(self, model: LatentModel, images: ImageSet, inverted: Inversion) -> PerImage | None:
        """Return the mean squared difference of features between each image and its inversion; None without a network."""
        if self.features is None:
            return None
        size = images_at_once(images.image_shape)
        drawn = decode_batches(require_generator(model, "A range test"), inverted.codes, size=size)
        pairs = zip(images.batches(size), drawn, strict=True)
        parts = [feature_distance(self.features, original, other.nan_to_num(), images.name) for original, other in pairs]
        return torch.cat(parts).masked_fill(~inverted.errors.isfinite(), torch.inf)


def feature_distance(network: FeatureNetwork, images: Tensor, others: Tensor, name: str) -> PerImage:
    """Return the mean squared difference between the features of images and of others, row by row."""
    first = features_of_batch(network, images, title=name).double()
    second = features_of_batch(network, others.clamp(0, 1), title=f"inversions of {name}").double()
    return (first - second).square().mean(dim=1)


def range_procedure(
    drawing: Generator,
    *,
    budget: Budget | None,
    start: str | Sequence[str],
    starts: int,
    recoder: Encoder | None,
    prior_weight: float,
    features: FeatureNetwork | None,
    seed: int,
) -> Procedure:
    """Return the procedure of a range test: always from two starts at least, so that one can tell whether they agree.

    A recoder has learnt from the generator's own samples: that it brings those back tells nothing of other images. The nearest
    of many draws knows the image without having learnt anything, and stands beside it. (The mean code of Z is one that no
    generator of many variables ever draws: descents from there end far from where others do.)

    Raises:
        UnknownNameError, CapabilityError, SettingError: as `latlas.inversion.invert` has it.
    """
    if features is not None:
        check_features(features)
    kinds = start_kinds(start, encoder_of(drawing, recoder))
    if kinds == ("recoder",):
        kinds = ("recoder", "nearest")
    if kinds in (("mean",), ("nearest",)):
        kinds = (*kinds, "noise")
    if kinds == ("noise",) and starts < 2:
        raise SettingError(f"A range test needs at least 2 starts, to see whether they agree, got {starts} from noise.")
    return Procedure(
        budget=budget if budget is not None else Budget(),
        starts=kinds,
        noise_starts=starts,
        recoder=recoder,
        prior_weight=prior_weight,
        features=features,
        seed=seed,
    )
