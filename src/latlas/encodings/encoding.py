"""The Encoding: the codes of a collection of images as one model sees them, with their provenance."""

import os
from collections.abc import Sequence, Sized
from dataclasses import dataclass, replace
from functools import reduce
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latlas.base.artifacts import CONFIG, FORMAT, check_config, peek, read_config, write_config, writing
from latlas.base.errors import ArtifactError, IllPosedError
from latlas.base.hub import resolve
from latlas.base.provenance import Provenance
from latlas.base.shapes import Codes, Labels, LatentShape
from latlas.data.images import ImageSet, SkippedImage
from latlas.encodings.arrays import StoredNames, write_array
from latlas.encodings.assembling import Piece, shards_of, whole_name
from latlas.encodings.left_out import keep_left_out, read_left_out
from latlas.encodings.mapped import batches, map_joined, map_rows
from latlas.encodings.shards import PARTS, image_hashes, tree_hash
from latlas.numerics.moments import MarginalMoments
from latlas.numerics.posteriors import PosteriorMoments

KIND = "encoding"
_ROWS = 4096  # read at a time: of codes on disk, no more are in memory


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoding:
    """Posterior means (and log-variances, where the encoder gives them) of every image that could be read, in their order."""

    mean: Codes
    log_variance: Codes | None
    model: str  # name of the model
    images: str  # name of the images
    images_hash: str  # content hash: two encodings with one hash are paired row by row
    provenance: Provenance
    indices: Labels | None = None  # positions in the source; None for 0, 1, 2, …
    names: Sequence[str] = ()  # a name a code; empty: the index is the name
    labels: Labels | None = None  # class numbers, where the source has classes; -1: this image has none
    skipped: tuple[SkippedImage, ...] = ()  # images that could not be read
    images_tree: str = ""  # the same images' hash, made of that of each; empty where it was not needed

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.latent_shape))
        beside = "" if self.log_variance is None else " and log-variances"
        return f"<Encoding of {self.images!r} by {self.model!r}: {len(self):,} means{beside} of {shape}; .mean, .log_variance>"

    def __len__(self) -> int:
        return self.mean.shape[0]

    @property
    def latent_shape(self) -> LatentShape:
        """Shape of one code."""
        return tuple(int(size) for size in self.mean.shape[1:])

    def name_of(self, row: int) -> str:
        """Return the name of the image of a row: its file, or its number in the source."""
        if self.names:
            return self.names[row]
        return f"#{row if self.indices is None else int(self.indices[row])}"

    def moments(self) -> PosteriorMoments:
        """Return the per-variable statistics; a deterministic encoder counts as one of zero posterior variance."""
        means = batches(self.mean, _ROWS)
        seconds = repeat(None) if self.log_variance is None else batches(self.log_variance, _ROWS)
        return reduce(PosteriorMoments.merge, map(posterior_moments_of, means, seconds))

    def take(self, indices: Tensor) -> "Encoding":
        """Return the codes of the images at these rows."""
        rows = indices.tolist()
        whole = rows == list(range(len(self)))
        return replace(
            self,
            mean=self.mean[indices],
            log_variance=None if self.log_variance is None else self.log_variance[indices],
            images=f"{self.images}[{len(indices)} chosen]",
            images_hash=self.images_hash if whole else f"{self.images_hash}:{','.join(map(str, rows))}",
            indices=indices.clone() if self.indices is None else self.indices[indices],
            names=tuple(self.names[row] for row in rows) if self.names else (),
            labels=None if self.labels is None else self.labels[indices],
            images_tree=self.images_tree if whole else "",
        )

    def widened(self) -> "Encoding":
        """Return the same codes in a type that networks compute in: float16 ones become float32, in memory; others stay."""
        if self.mean.dtype != torch.float16:
            return self
        log_variance = None if self.log_variance is None else self.log_variance.float()
        return replace(self, mean=self.mean.float(), log_variance=log_variance)

    def is_of(self, images: ImageSet) -> bool:
        """Tell whether these are the codes of exactly these images, row by row, from the pixels alone."""
        if len(self) != len(images):
            return False
        if self.images_hash == images.content_hash:
            return True
        return bool(self.images_tree) and self.images_tree == tree_of(images)

    def save_pretrained(self, folder: str | Path, *, replace: bool = False) -> None:
        """Write one `.npy` file each and `config.json`; any NumPy user can map them without latlas.

        The files are `mean`, `log_variance`, `indices`, `names` and `labels`, as far as there are such. What is on disk is
        read and written in batches.

        Raises:
            OutputExistsError: the folder already holds something.
        """
        arrays = {"mean": self.mean, "log_variance": self.log_variance, "indices": self.indices, "labels": self.labels}
        with writing(folder, replace=replace) as beside:
            for part, array in arrays.items():
                if array is not None:
                    chunks = (batch.numpy() for batch in batches(array.detach(), _ROWS))
                    write_array(beside / f"{part}.npy", _numpy_type(array), tuple(array.shape), chunks)
            if self.names:
                width = max(map(len, self.names))
                starts = range(0, len(self.names), _ROWS)
                names = (np.array(self.names[start : start + _ROWS], dtype=f"<U{width}") for start in starts)
                write_array(beside / "names.npy", np.dtype(f"<U{width}"), (len(self.names),), names)
            settings: dict[str, Any] = {
                "model": self.model,
                "images": self.images,
                "images_hash": self.images_hash,
                "images_tree": self.images_tree,
                "rows": len(self),
                "skipped": keep_left_out(self.skipped, beside)[0],
            }
            write_config(beside, kind=KIND, settings=settings, provenance=self.provenance)

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, verify: bool = True) -> "Encoding":
        """Open a stored encoding; the codes stay on disk and are read where they are used.

        Several shards appear as one tensor, and nothing is copied.

        Args:
            folder: on this machine, or the Hub's `owner/name`.
            verify: whether each file is read once and compared with its hash; without, only its place and size are looked at.

        Raises:
            MissingPathError, ArtifactError: no such artifact, or a damaged one.
        """
        folder = resolve(folder)
        record = read_record(folder, verify=verify)
        try:
            settings = record["settings"]
            paths = {part: [piece.files[part] for piece in pieces] for part, pieces in _by_part(folder, record).items()}
            tensors = {part: _mapped(part, paths[part]) for part in paths if part not in ("names", "image_hashes")}
            names = StoredNames(paths["names"]) if "names" in paths else ()
            rows = len(tensors["mean"])
            others: list[Sized] = [*tensors.values(), *([names] if names else [])]
            if any(len(other) != rows for other in others) or settings.get("rows", rows) != rows:
                raise ValueError(f"its files do not all have {settings.get('rows', rows)} rows")
            return cls(
                mean=tensors["mean"],
                log_variance=tensors.get("log_variance"),
                model=settings["model"],
                images=settings["images"],
                images_hash=settings["images_hash"],
                provenance=Provenance.from_json(record["provenance"]),
                indices=tensors.get("indices"),
                names=names,
                labels=tensors.get("labels"),
                skipped=read_left_out(folder, settings.get("skipped", ()), record["files"]),
                images_tree=settings.get("images_tree", ""),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as failure:
            raise ArtifactError(f"{folder} is not a readable encoding ({failure}). Encode again.") from failure


def posterior_moments_of(mean: Tensor, log_variance: Tensor | None) -> PosteriorMoments:
    """Return the per-variable statistics of at least one code `n *latent`; without log-variances, of posteriors that are points.

    Points have a deviation of 0 and lie infinitely far from the prior, in nats: nothing is computed for that.
    """
    if log_variance is not None:
        return PosteriorMoments.of(mean, log_variance)
    means = MarginalMoments.of(mean)
    nothing = torch.zeros_like(means.mean)
    return PosteriorMoments(means, nothing, nothing, torch.full_like(means.mean, torch.inf))


def require_paired(source: Encoding, target: Encoding) -> None:
    """Raise unless two encodings are of the same images in the same order.

    Raises:
        IllPosedError: they are not.
    """
    same = source.images_hash == target.images_hash or (source.images_tree and source.images_tree == target.images_tree)
    if not same or len(source) != len(target):
        raise IllPosedError(
            f"The encodings are of different images ({source.images}, {len(source)} codes; {target.images}, {len(target)} codes). "
            "Encode one image set with both models."
        )


def tree_of(images: ImageSet) -> str:
    """Return the hash of images that is made of that of each: the same whether they came from memory, files or shards."""
    bounds = ((start, min(start + _ROWS, len(images))) for start in range(0, len(images), _ROWS))
    return tree_hash(image_hashes(block.pixels) for block in images.blocks(bounds))


def read_record(folder: Path, *, verify: bool) -> dict[str, Any]:
    """Return the config of a stored encoding.

    Raises:
        MissingPathError, ArtifactError: as `read_config`; with `verify=False` no file is read.
    """
    record = None if verify else peek(folder)
    if record is None or record["kind"] != KIND or record["format"] > FORMAT:
        return read_config(folder, kind=KIND)
    for name in record["files"]:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ArtifactError(f"{folder / CONFIG} lists {name!r}, which lies outside the artifact.")
        if not os.path.isfile(folder / name):  # noqa: PTH113  # a Path raises where no file could have that name
            raise ArtifactError(f"{folder} is incomplete: {name} is missing. Make the artifact again.")
    check_config(folder, record)
    return record


def pieces_of(folder: Path) -> list[Piece]:
    """Return the shards of a stored encoding, unread."""
    record = read_record(folder, verify=False)
    return _pieces(folder, record)


def _pieces(folder: Path, record: dict[str, Any]) -> list[Piece]:
    settings, listed = record["settings"], record["files"]
    stated = [settings[key] for key in ("rows", "shard_rows") if key in settings]
    if not all(isinstance(number, int) and number >= 0 for number in stated) or settings.get("shard_rows", 1) == 0:
        raise ValueError(f"its rows and those of a shard are {stated}")
    shards = shards_of(settings["rows"], settings["shard_rows"]) if "shard_rows" in settings else 1
    if shards > len(listed):
        raise ValueError(f"it has {shards} shards and {len(listed)} files")
    rows = _rows_of(settings, 0)
    found = []
    for number in range(shards):
        names = {part: whole_name(part, number, shards) for part in PARTS}
        present = {part: name for part, name in names.items() if name in listed}
        found.append(
            Piece(
                rows=rows[number],
                files={part: folder / name for part, name in present.items()},
                hashes={part: listed[name] for part, name in present.items()},
            )
        )
    return found


def _by_part(folder: Path, record: dict[str, Any]) -> dict[str, list[Piece]]:
    pieces = _pieces(folder, record)
    if "mean" not in pieces[0].files:
        raise ValueError("it has no means")
    return {part: pieces for part in PARTS if part in pieces[0].files}


def _rows_of(settings: dict[str, Any], rows: int) -> list[int]:
    """Return the rows of each shard."""
    total = settings.get("rows", rows)
    step = settings.get("shard_rows", total) or 1
    return [min(step, total - start) for start in range(0, total, step)] or [0]


def _mapped(part: str, paths: Sequence[Path]) -> Tensor:
    return map_rows(paths[0]) if len(paths) == 1 else map_joined(paths, again=part in ("mean", "log_variance"))


def _numpy_type(tensor: Tensor) -> np.dtype:
    empty: np.ndarray = torch.empty(0, dtype=tensor.dtype).numpy()
    return empty.dtype
