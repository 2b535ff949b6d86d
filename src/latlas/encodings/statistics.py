"""Statistics of many codes as map and merge: each part by whoever computes it, merged in float64 in the order of the rows.

The division into parts and the order of merging depend on the number of rows alone: every engine gives the same digits.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from latlas.base.errors import ArtifactError, CodeShapeError, IllPosedError, MissingPathError, NonFiniteError, SettingError
from latlas.base.progress import Progress, silent
from latlas.encodings.arrays import read_header
from latlas.encodings.encoding import Encoding, posterior_moments_of
from latlas.encodings.engines.engine import Engine, LocalEngine
from latlas.encodings.mapped import map_joined, map_rows
from latlas.numerics.moments import Moments, PairedMoments
from latlas.numerics.posteriors import PosteriorMoments

CodesLike = Tensor | Encoding | str | Path  # a path: the folder of an encoding, which workers open themselves
Bounds = tuple[int, int]  # rows [start, stop)
Result = TypeVar("Result")

PART = 65_536  # rows of an item: what is read, lost with a worker, and merged at once
MOST_PARTS = 4096  # of more rows, larger parts: each brings its moments to the one who merges
_CHUNK = 8192  # rows in float64 at once


@runtime_checkable
class Rows(Protocol):
    """Rows that a worker can be sent, or sent the place of."""

    def __len__(self) -> int: ...
    def between(self, start: int, stop: int) -> Tensor:
        """Return rows [start, stop)."""
        ...


@dataclass(frozen=True, eq=False)
class HeldRows:
    """Rows in memory, which travel to the workers whole."""

    rows: Tensor

    def __len__(self) -> int:
        return self.rows.shape[0]

    def between(self, start: int, stop: int) -> Tensor:
        """Return rows [start, stop)."""
        return self.rows[start:stop]


@dataclass(frozen=True)
class StoredRows:
    """Rows in the `.npy` files of an encoding; only the files' names travel, and only what is asked for is mapped."""

    files: tuple[Path, ...]
    starts: tuple[int, ...]  # number of each file's first row, and of all rows

    @classmethod
    def of(cls, folder: str | Path, name: str) -> "StoredRows | None":
        """Return the rows called `name` ("mean", "log_variance") of an encoding; None where it has no such.

        Raises:
            MissingPathError, ArtifactError: no folder, or files that are no arrays.
        """
        place = Path(folder)
        if not place.is_dir():
            raise MissingPathError(f"No folder {place}: expected a latlas encoding there.")
        whole = place / f"{name}.npy"
        files = (whole,) if whole.is_file() else tuple(sorted(place.glob(f"{name}-*.npy")))
        if not files:
            return None
        try:
            counts = [read_header(file).shape[0] for file in files]
        except (OSError, ValueError, IndexError) as failure:
            raise ArtifactError(f"{place} is not a readable encoding ({failure}). Encode again.") from failure
        return cls(tuple(file.absolute() for file in files), tuple(accumulate(counts, initial=0)))

    def __len__(self) -> int:
        return self.starts[-1]

    def between(self, start: int, stop: int) -> Tensor:
        """Return rows [start, stop), in a mapping of their own: what was read is let go with them."""
        first, last = bisect_right(self.starts, start) - 1, bisect_right(self.starts, stop - 1) - 1
        offset = self.starts[first]
        mapped = map_rows(self.files[first]) if first == last else map_joined(self.files[first : last + 1])
        return mapped[start - offset : stop - offset]


def rows_of(codes: CodesLike, name: str = "mean") -> Rows:
    """Return the codes themselves, or where they lie.

    Raises:
        CapabilityError, MissingPathError, ArtifactError: as `StoredRows.of`; a folder without codes.
    """
    if isinstance(codes, str | Path):
        found = StoredRows.of(codes, name)
        if found is None:
            raise ArtifactError(f"{codes} is not a latlas encoding: it has no {name}.npy.")
        return found
    return HeldRows(codes.mean if isinstance(codes, Encoding) else codes)


def moments(codes: CodesLike, *, engine: Engine | None = None, rows: int = PART, progress: Progress = silent) -> Moments:
    """Return the moments of codes `n d`.

    Args:
        codes: in memory, an encoding, or the folder of one.
        engine: who computes; None: this process.
        rows: of a part.
        progress: told after each part.

    Raises:
        CodeShapeError: codes that are no matrix.
        IllPosedError: none.
        NonFiniteError: NaN among them; names the row.
    """
    return measure_rows([rows_of(codes)], _moments, Moments.merge, engine=engine, rows=rows, task="moments", progress=progress)


def paired_moments(
    source: CodesLike, target: CodesLike, *, engine: Engine | None = None, rows: int = PART, progress: Progress = silent
) -> PairedMoments:
    """Return the joint moments of source and target codes of the same images: all that a linear map is fitted from.

    Args:
        source: codes `n s`, as of `moments`.
        target: codes `n t`.
        engine: who computes; None: this process.
        rows: of a part.
        progress: told after each part.

    Raises:
        CodeShapeError: codes that are no matrices, or of different numbers.
        IllPosedError: none.
        NonFiniteError: NaN among them; names the row.
    """
    pair = [rows_of(source), rows_of(target)]
    if len(pair[0]) != len(pair[1]):
        raise CodeShapeError(f"Source and target codes must be paired: got {len(pair[0])} and {len(pair[1])} of them.")
    return measure_rows(
        pair, _paired, PairedMoments.merge, engine=engine, rows=rows, task="moments of pairs", progress=progress
    )


def posterior_moments(
    encoding: Encoding | str | Path, *, engine: Engine | None = None, rows: int = PART, progress: Progress = silent
) -> PosteriorMoments:
    """Return the statistics of each latent variable; a deterministic encoder counts as one of zero posterior variance.

    Args:
        encoding: or its folder.
        engine: who computes; None: this process.
        rows: of a part.
        progress: told after each part.

    Raises:
        IllPosedError: an encoding of no images.
        NonFiniteError: NaN among them; names the row.
    """
    parts = [rows_of(encoding)]
    second: Rows | None
    if isinstance(encoding, Encoding):
        second = None if encoding.log_variance is None else HeldRows(encoding.log_variance)
    else:
        second = StoredRows.of(encoding, "log_variance")
    parts += [] if second is None else [second]
    return measure_rows(
        parts, _posterior, PosteriorMoments.merge, engine=engine, rows=rows, task="posteriors", progress=progress
    )


def measure_rows(
    parts: Sequence[Rows],
    measure: Callable[..., Result],
    merge: Callable[[Result, Result], Result],
    *,
    engine: Engine | None = None,
    rows: int = PART,
    task: str = "rows",
    progress: Progress = silent,
) -> Result:
    """Return what a measure says of all rows, from what it says of parts of them.

    Args:
        parts: columns that belong together, of as many rows each.
        measure: of one tensor a column; it travels to the workers.
        merge: what it says of both of two sets of rows.
        engine: who computes; None: this process.
        rows: of a part, and more where there would be too many parts.
        task: what `progress` is told.
        progress: told after each part.

    Raises:
        IllPosedError: no rows.
        SettingError: parts of no rows.
        NonFiniteError: the measure met NaN; names the row.
    """
    count = len(parts[0])
    if count == 0:
        raise IllPosedError("Statistics were asked of no codes; give at least one.")
    bounds = divided(count, rows)
    found = (engine or LocalEngine()).map(_Part(tuple(parts), measure), bounds, task=task, progress=progress)
    return merged(found, bounds, merge)


def divided(count: int, rows: int) -> list[Bounds]:
    """Return bounds of parts of `rows` rows, at most 4,096 of them; the last may be smaller.

    >>> divided(10, 4)
    [(0, 4), (4, 8), (8, 10)]

    Raises:
        SettingError: parts of no rows.
    """
    if rows < 1:
        raise SettingError(f"A part holds at least 1 row, got {rows}.")
    size = rows * max(1, -(-count // (rows * MOST_PARTS)))
    return [(start, min(start + size, count)) for start in range(0, count, size)]


def merged(
    found: Iterable[tuple[Bounds, Result]], bounds: Sequence[Bounds], merge: Callable[[Result, Result], Result]
) -> Result:
    """Merge results in the order of their bounds, whatever order they come in; what came early waits."""
    early: dict[Bounds, Result] = {}
    wanted: Iterator[Bounds] = iter(bounds)
    following = next(wanted, None)
    total: Result | None = None
    for bound, result in found:
        early[bound] = result
        while following in early:
            part = early.pop(following)
            total = part if total is None else merge(total, part)
            following = next(wanted, None)
    assert total is not None  # there is at least one part
    return total


@dataclass(frozen=True)
class _Part:
    """Makes, in a worker, the function from bounds to what a measure says of them."""

    parts: tuple[Rows, ...]
    measure: Callable[..., Any]

    def __call__(self) -> Callable[[Bounds], Any]:
        return self.of

    def of(self, bounds: Bounds) -> Any:
        rows = [part.between(*bounds) for part in self.parts]
        try:
            return self.measure(*rows)
        except NonFiniteError as failure:
            for row, values in enumerate(zip(*rows, strict=True)):
                if not all(bool(value.isfinite().all()) for value in values):
                    raise NonFiniteError(
                        f"Row {bounds[0] + row} holds NaN or infinity; moments need finite numbers. Remove it first."
                    ) from failure
            raise


def _moments(codes: Tensor) -> Moments:
    _check_matrix(codes)
    return Moments.over(torch.split(codes, _CHUNK))


def _paired(source: Tensor, target: Tensor) -> PairedMoments:
    _check_matrix(source)
    _check_matrix(target)
    return PairedMoments.over(zip(torch.split(source, _CHUNK), torch.split(target, _CHUNK), strict=True))


def _posterior(mean: Tensor, log_variance: Tensor | None = None) -> PosteriorMoments:
    parts = []
    for start in range(0, len(mean), _CHUNK):
        first = mean[start : start + _CHUNK]
        second = None if log_variance is None else log_variance[start : start + _CHUNK]
        if not bool(first.isfinite().all()) or (second is not None and bool(second.isnan().any())):
            raise NonFiniteError("A posterior holds NaN or infinity.")
        parts.append(posterior_moments_of(first, second))
    return reduce(PosteriorMoments.merge, parts)


def _check_matrix(codes: Tensor) -> None:
    if codes.ndim != 2 or codes.shape[1] == 0:
        raise CodeShapeError(f"Moments are taken of codes n x variables, got shape {tuple(codes.shape)}.")
