"""Joint moments of rows as they come, in one pass and in memory that does not grow with their number.

Rows are put as float64 into a buffer that is used again, shifted by the mean known so far, and only the upper
triangle of their products is taken: what the moments cost is what these products cost.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float64
from torch import Tensor

from latlas.base.errors import CodeShapeError, NonFiniteError

# A buffer of 2 MB stays in a core's cache between filling and multiplying; above 8,192 rows nothing more is gained.
_BUFFER = 1 << 18
_LEAST_ROWS, _MOST_ROWS = 256, 8192
# Columns a product: 64 are multiplied as fast as more, and of narrow panels less lies below the diagonal.
_PANEL = 64


class Accumulator:
    """Count, mean and scatter of rows whose variables come in one part or in several side by side.

    Each block of rows is shifted by the mean of those before it, and what is left of its own mean is taken out exactly
    (Chan, Golub and LeVeque 1983), so that a large mean costs no digits.

    Args:
        widths: variables of each part.
        names: what an error calls each part; empty for a single part that needs no name.
    """

    def __init__(self, *widths: int, names: tuple[str, ...] = ()) -> None:
        size = sum(widths)
        self.count = 0
        self.mean: Float64[Tensor, " d"] = torch.zeros(size, dtype=torch.float64)
        self._upper = torch.zeros(size, size, dtype=torch.float64)  # what lies below its diagonal means nothing
        self._widths, self._names = widths, names
        self._rows = min(_MOST_ROWS, max(_LEAST_ROWS, _BUFFER // max(size, 1)))
        self._buffer = torch.empty(0, size, dtype=torch.float64)

    def add(self, *parts: Tensor) -> None:
        """Take more rows in.

        Args:
            parts: one tensor `n width` for each part, on any device.

        Raises:
            CodeShapeError: parts of other widths than announced, or of different numbers of rows.
            NonFiniteError: a row holds NaN or infinity; told by its number among all rows so far.
        """
        if tuple(part.shape[1] for part in parts) != self._widths or len({part.shape[0] for part in parts}) > 1:
            shapes = ", ".join(str(tuple(part.shape)) for part in parts)
            widths = " and ".join(map(str, self._widths))
            raise CodeShapeError(
                f"Rows of {widths} variables are wanted, as many of each; got {shapes}. Give rows of one space."
            )
        count = parts[0].shape[0]
        if self._buffer.shape[0] < min(count, self._rows):
            self._buffer = torch.empty(min(count, self._rows), self.mean.numel(), dtype=torch.float64)
        for start in range(0, count, self._rows):
            self._add_block([part.detach()[start : start + self._rows].cpu() for part in parts])

    def scatter(self) -> Float64[Tensor, "d d"]:
        """Return the sum of centred outer products of all rows so far."""
        return torch.triu(self._upper) + torch.triu(self._upper, diagonal=1).T

    def _add_block(self, parts: Sequence[Tensor]) -> None:
        count = parts[0].shape[0]
        block = self._buffer[:count]
        shift = self.mean if self.count else torch.cat([part[0].double() for part in parts])
        widths = list(self._widths)
        for columns, part, its_shift in zip(torch.split(block, widths, dim=1), parts, torch.split(shift, widths), strict=True):
            if part.dtype == torch.float64:
                torch.sub(part, its_shift, out=columns)
            else:  # a conversion and a subtraction in the cache are quicker than one of mixed types
                columns.copy_(part).sub_(its_shift)
        own = _mean(block)  # of these rows, counted from the shift
        if not bool(own.isfinite().all()):
            raise self._non_finite(parts)
        total = self.count + count
        if self.count < count:
            # The mean so far says little of these rows: theirs is taken out before squaring. Later, what their own mean adds
            # to the squares is at most what all rows hold already: one bit.
            block -= own
            left = _mean(block)
            own = own + left
            self._upper.addr_(left, left, alpha=-count)
            self._upper.addr_(own, own, alpha=self.count * (count / total))
        else:
            # The squares hold count * own own' too much; of that, self.count / total belongs there.
            self._upper.addr_(own, own, alpha=-count * (count / total))
        for first in range(0, block.shape[1], _PANEL):
            panel = slice(first, first + _PANEL)
            self._upper[panel, first:].addmm_(block[:, panel].T, block[:, first:])
        self.mean = shift + own * (count / total)
        self.count = total

    def _non_finite(self, parts: Sequence[Tensor]) -> NonFiniteError:
        for row in range(parts[0].shape[0]):
            for index, part in enumerate(parts):
                if not bool(part[row].isfinite().all()):
                    where = f" among its {self._names[index]} codes" if self._names else ""
                    return NonFiniteError(
                        f"Row {self.count + row} holds NaN or infinity{where}; moments need finite numbers. Remove it first."
                    )
        return NonFiniteError("The rows are finite, and their sum is not: numbers near 1e308. Scale them down first.")


def _mean(rows: Tensor) -> Tensor:
    return torch.mv(rows.T, torch.full(rows.shape[:1], 1.0, dtype=torch.float64)) / rows.shape[0]
