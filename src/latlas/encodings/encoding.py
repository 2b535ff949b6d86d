"""The Encoding: the codes of an ImageSet as one model sees it, with its provenance."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latlas.base.artifacts import read_config, write_config, writing
from latlas.base.errors import ArtifactError, IllPosedError
from latlas.base.hub import resolve
from latlas.base.provenance import Provenance
from latlas.base.shapes import Codes, LatentShape
from latlas.encodings.mapped import map_rows
from latlas.numerics.posteriors import PosteriorMoments

KIND = "encoding"


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoding:
    """Posterior means (and log-variances, where the encoder gives them) of a whole ImageSet, in its order."""

    mean: Codes
    log_variance: Codes | None
    model: str  # name of the model
    images: str  # name of the image set
    images_hash: str  # content hash: two encodings with one hash are paired row by row
    provenance: Provenance

    def __len__(self) -> int:
        return self.mean.shape[0]

    @property
    def latent_shape(self) -> LatentShape:
        """Shape of one code."""
        return tuple(int(size) for size in self.mean.shape[1:])

    def moments(self) -> PosteriorMoments:
        """Return the per-variable statistics; a deterministic encoder counts as one of zero posterior variance."""
        log_variance = self.log_variance if self.log_variance is not None else torch.full_like(self.mean, -torch.inf)
        return PosteriorMoments.of(self.mean, log_variance)

    def take(self, indices: Tensor) -> "Encoding":
        """Return the codes of the images at these indices."""
        rows = indices.tolist()
        whole = rows == list(range(len(self)))
        return Encoding(
            mean=self.mean[indices],
            log_variance=None if self.log_variance is None else self.log_variance[indices],
            model=self.model,
            images=f"{self.images}[{len(indices)} chosen]",
            images_hash=self.images_hash if whole else f"{self.images_hash}:{','.join(map(str, rows))}",
            provenance=self.provenance,
        )

    def save_pretrained(self, folder: str | Path, *, replace: bool = False) -> None:
        """Write `mean.npy`, `log_variance.npy` and `config.json`; any NumPy user can map them without latlas.

        Raises:
            OutputExistsError: the folder already holds something.
        """
        with writing(folder, replace=replace) as beside:
            np.save(beside / "mean.npy", self.mean.numpy(), allow_pickle=False)
            if self.log_variance is not None:
                np.save(beside / "log_variance.npy", self.log_variance.numpy(), allow_pickle=False)
            settings: dict[str, Any] = {"model": self.model, "images": self.images, "images_hash": self.images_hash}
            write_config(beside, kind=KIND, settings=settings, provenance=self.provenance)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> "Encoding":
        """Open what `save_pretrained` wrote; the codes stay on disk and are read where they are used.

        Raises:
            MissingPathError, ArtifactError: no such artifact, or a damaged one.
        """
        folder = resolve(folder)
        config = read_config(folder, kind=KIND)
        try:
            mean = map_rows(Path(folder) / "mean.npy")
            path = Path(folder) / "log_variance.npy"
            log_variance = map_rows(path) if path.is_file() else None
            settings = config["settings"]
            return cls(
                mean=mean,
                log_variance=log_variance,
                model=settings["model"],
                images=settings["images"],
                images_hash=settings["images_hash"],
                provenance=Provenance.from_json(config["provenance"]),
            )
        except (OSError, ValueError, KeyError) as failure:
            raise ArtifactError(f"{folder} is not a readable encoding ({failure}). Encode again.") from failure


def require_paired(source: Encoding, target: Encoding) -> None:
    """Raise unless two encodings are of the same images in the same order.

    Raises:
        IllPosedError: they are not.
    """
    if source.images_hash != target.images_hash or len(source) != len(target):
        raise IllPosedError(
            f"The encodings are of different images ({source.images}, {len(source)} codes; {target.images}, {len(target)} codes). "
            "Encode one image set with both models."
        )
