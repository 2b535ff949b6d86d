"""What a linear map is held against on the same pairs: a perceptron, and measures of likeness that need no map."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from latlas.base.errors import CodeShapeError, IllPosedError
from latlas.base.progress import Progress, silent
from latlas.base.seeds import generator
from latlas.base.shapes import Codes, LatentShape
from latlas.maps.perceptron import Perceptron, fit_perceptron
from latlas.measurements.similarity import Similarity, similarity
from latlas.numerics.patches import PatchGeometry, geometry_between, patch_rows
from latlas.studies.pairs import PairedCodes

_ROWS = 100_000  # positions that a perceptron is trained on: more take longer and change little


@dataclass(frozen=True, kw_only=True, eq=False)
class CodePerceptron:
    """A perceptron between two latent spaces; of spatial ones, between patches and blocks, the same at every position."""

    perceptron: Perceptron
    shape: LatentShape  # of a target code
    geometry: PatchGeometry | None  # None where codes are taken as vectors
    fill: Tensor  # of each source channel, beyond the edge

    @property
    def evidence(self) -> Mapping[str, Any]:
        """How the training went."""
        return self.perceptron.evidence

    def apply(self, codes: Codes) -> Float[Tensor, "n *target"]:
        """Return codes carried into the target space."""
        if self.geometry is None:
            return self.perceptron.apply(codes.flatten(1)).reshape(-1, *self.shape)
        up, (_, rows, columns) = self.geometry.up, self.shape
        moved = self.perceptron.apply(patch_rows(codes, self.geometry, self.fill))
        return F.pixel_shuffle(moved.view(len(codes), rows // up, columns // up, -1).permute(0, 3, 1, 2), up)


def fit_yardstick(pairs: PairedCodes, neighbourhood: int = 1, *, seed: int = 0, progress: Progress = silent) -> CodePerceptron:
    """Return a perceptron trained on paired codes, which sees of the source what a linear map of its kind sees.

    Args:
        pairs: codes of both models.
        neighbourhood: positions across, between two spatial latent spaces.
        seed: decides training, and the positions that take part where there are very many.
        progress: told after each epoch.

    Raises:
        IllPosedError: fewer than 20 pairs.
    """
    source, target = pairs.source.mean, pairs.target.mean
    shape = pairs.target.latent_shape
    if source.ndim == target.ndim == 4:
        geometry = geometry_between(source, target, neighbourhood=neighbourhood)
        fill = source.mean(dim=(0, 2, 3))
        # Whole codes are chosen, so that the patches of those left out need never exist.
        blocks = (source.shape[2] // geometry.down) * (source.shape[3] // geometry.down)
        order = torch.randperm(len(pairs), generator=generator(seed, "perceptron", "codes"))
        chosen = order[: max(1, _ROWS // blocks)]
        left = patch_rows(source[chosen], geometry, fill)
        right = F.pixel_unshuffle(target[chosen], geometry.up).permute(0, 2, 3, 1).flatten(0, 2)
    else:
        geometry, fill = None, torch.zeros(0)
        left, right = source.flatten(1), target.flatten(1)
    return CodePerceptron(
        perceptron=fit_perceptron(left, right, seed=seed, progress=progress), shape=shape, geometry=geometry, fill=fill
    )


def code_similarity(pairs: PairedCodes) -> Similarity | None:
    """Return measures of likeness of paired codes; None where they are not defined.

    Of two spatial latent spaces each position counts as a pair, the finer grid averaged down to the coarser one. Else
    codes are taken as vectors.
    """
    source, target = pairs.source.mean, pairs.target.mean
    try:
        if source.ndim == target.ndim == 4:
            geometry = geometry_between(source, target)
            source, target = F.avg_pool2d(source, geometry.down), F.avg_pool2d(target, geometry.up)
            return similarity(*(codes.permute(0, 2, 3, 1).flatten(0, 2) for codes in (source, target)))
        return similarity(source.flatten(1), target.flatten(1))
    except (IllPosedError, CodeShapeError):
        return None
