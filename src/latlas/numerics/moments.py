"""Mean and covariance of rows that never have to be in memory together.

Rows are centred before their products are taken, and sets of rows merged by the formula of Chan, Golub and LeVeque
(1983): adding up raw second moments instead loses every digit of a covariance whose mean is large.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from latlas.base.errors import CodeShapeError, IllPosedError, NonFiniteError
from latlas.numerics.accumulate import Accumulator

# Below this share of its size a variable's spread is rounding, and carries no information.
CONSTANT = 1e-14


@dataclass(frozen=True)
class Moments:
    """Count, mean and scatter (the sum of centred outer products) of rows; float64 throughout.

    Memory is d x d however many rows were seen, and merging is exact up to rounding, so that any split of the
    rows, over batches or over processes, gives the same result.
    """

    count: int
    mean: Float64[Tensor, " d"]
    scatter: Float64[Tensor, "d d"]

    @classmethod
    def empty(cls, size: int) -> "Moments":
        """Return the moments of no rows of `size` variables: the neutral element of `merge`."""
        return cls(0, torch.zeros(size, dtype=torch.float64), torch.zeros(size, size, dtype=torch.float64))

    @classmethod
    def of(cls, rows: Float[Tensor, "n d"]) -> "Moments":
        """Return the moments of rows that are all here.

        Raises:
            NonFiniteError: a row holds NaN or infinity.

        >>> Moments.of(torch.tensor([[0.0], [2.0]])).covariance()
        tensor([[1.]], dtype=torch.float64)
        """
        return cls.over([rows])

    @classmethod
    def over(cls, batches: Iterable[Float[Tensor, "_ d"]]) -> "Moments":
        """Return the moments of a stream of batches of rows, of which only one at a time is in memory.

        Raises:
            IllPosedError: the stream is empty.
            CodeShapeError: batches of different widths.
            NonFiniteError: a row holds NaN or infinity.
        """
        total: Accumulator | None = None
        for batch in batches:
            total = Accumulator(batch.shape[1]) if total is None else total
            total.add(batch)
        if total is None:
            raise IllPosedError("Moments were asked of an empty stream; give at least one batch of rows.")
        return cls(total.count, total.mean, total.scatter())

    @property
    def size(self) -> int:
        """How many variables a row has."""
        return self.mean.shape[0]

    def merge(self, other: "Moments") -> "Moments":
        """Return the moments of both sets of rows together.

        Raises:
            CodeShapeError: rows of different widths.
        """
        if other.size != self.size:
            raise CodeShapeError(f"Cannot merge moments of {self.size} and {other.size} variables; merge those of one space.")
        count = self.count + other.count
        if count == 0:
            return self
        shift = other.mean - self.mean
        weight = self.count * other.count / count
        # Weighting both means keeps full precision when the counts are alike, where mean + shift * share would not.
        mean = self.mean * (self.count / count) + other.mean * (other.count / count)
        return type(self)(count, mean, self.scatter + other.scatter + torch.outer(shift, shift) * weight)

    def covariance(self, *, ddof: int = 0) -> Float64[Tensor, "d d"]:
        """Return scatter / (count - ddof): the population's covariance, or with `ddof=1` the unbiased estimate.

        Raises:
            IllPosedError: there are not more than `ddof` rows.
        """
        if self.count <= ddof:
            raise IllPosedError(f"A covariance with ddof={ddof} needs more than {ddof} rows, got {self.count}.")
        return self.scatter / (self.count - ddof)

    def variance(self) -> Float64[Tensor, " d"]:
        """Return the population's variance of each variable."""
        return self.covariance().diagonal().clone()

    def constant(self) -> Bool[Tensor, " d"]:
        """Return which variables never vary, but for the rounding of their mean."""
        return _constant(self.scatter.diagonal(), self.mean, self.count)


@dataclass(frozen=True)
class MarginalMoments:
    """Count, mean and summed squared deviation of each variable alone: for rows too wide for a covariance."""

    count: int
    mean: Float64[Tensor, " *d"]
    scatter: Float64[Tensor, " *d"]

    @classmethod
    def of(cls, rows: Float[Tensor, "n *d"]) -> "MarginalMoments":
        """Return the marginal moments of rows of any shape.

        >>> float(MarginalMoments.of(torch.tensor([[0.0], [2.0]])).variance())
        1.0
        """
        exact = rows.detach().to(device="cpu", dtype=torch.float64)
        if exact.shape[0] == 0:
            return cls(0, exact.new_zeros(exact.shape[1:]), exact.new_zeros(exact.shape[1:]))
        mean = exact.mean(dim=0)
        return cls(exact.shape[0], mean, (exact - mean).square().sum(dim=0))

    @classmethod
    def over(cls, batches: Iterable[Float[Tensor, "_ *d"]]) -> "MarginalMoments":
        """Return the marginal moments of a stream of batches of rows, of which only one at a time is in float64.

        Raises:
            IllPosedError: the stream is empty.
        """
        total: MarginalMoments | None = None
        for batch in batches:
            part = cls.of(batch)
            total = part if total is None else total.merge(part)
        if total is None:
            raise IllPosedError("Moments were asked of an empty stream; give at least one batch of rows.")
        return total

    def merge(self, other: "MarginalMoments") -> "MarginalMoments":
        """Return the marginal moments of both sets of rows together."""
        count = self.count + other.count
        if count == 0:
            return self
        shift = other.mean - self.mean
        mean = self.mean * (self.count / count) + other.mean * (other.count / count)
        return type(self)(count, mean, self.scatter + other.scatter + shift.square() * (self.count * other.count / count))

    def variance(self) -> Float64[Tensor, " *d"]:
        """Return the population's variance of each variable; of no rows, zeros."""
        return self.scatter / max(self.count, 1)

    def constant(self) -> Bool[Tensor, " *d"]:
        """Return which variables never vary, but for the rounding of their mean."""
        return _constant(self.scatter, self.mean, self.count)


@dataclass(frozen=True)
class PairedMoments:
    """The joint moments of source and target rows: all that a linear fit between them needs."""

    joint: Moments
    source_size: int

    @classmethod
    def of(cls, source: Float[Tensor, "n s"], target: Float[Tensor, "n t"]) -> "PairedMoments":
        """Return the joint moments of paired rows.

        Raises:
            NonFiniteError: a row holds NaN or infinity.
        """
        return cls.over([(source, target)])

    @classmethod
    def over(cls, batches: Iterable[tuple[Float[Tensor, "_n s"], Float[Tensor, "_n t"]]]) -> "PairedMoments":
        """Return the joint moments of a stream of paired batches, of which only one at a time is in memory.

        Raises:
            IllPosedError: the stream is empty.
            CodeShapeError: batches of different widths, or halves of different lengths.
            NonFiniteError: a row holds NaN or infinity; told by its number in the whole stream.
        """
        total: Accumulator | None = None
        size = 0
        for source, target in batches:
            if total is None:
                size = source.shape[1]
                total = Accumulator(size, target.shape[1], names=("source", "target"))
            total.add(source, target)
        if total is None:
            raise IllPosedError("Moments were asked of an empty stream; give at least one batch of pairs.")
        return cls(Moments(total.count, total.mean, total.scatter()), size)

    def merge(self, other: "PairedMoments") -> "PairedMoments":
        """Return the joint moments of both sets of pairs together.

        Raises:
            CodeShapeError: pairs of different widths.
        """
        if other.source_size != self.source_size:
            raise CodeShapeError(
                f"Cannot merge pairs whose sources have {self.source_size} and {other.source_size} variables; merge those of one "
                "pair of spaces."
            )
        return type(self)(self.joint.merge(other.joint), self.source_size)

    @property
    def count(self) -> int:
        """How many pairs were seen."""
        return self.joint.count

    @property
    def source(self) -> Moments:
        """The moments of the source alone."""
        size = self.source_size
        return Moments(self.joint.count, self.joint.mean[:size], self.joint.scatter[:size, :size])

    @property
    def target(self) -> Moments:
        """The moments of the target alone."""
        size = self.source_size
        return Moments(self.joint.count, self.joint.mean[size:], self.joint.scatter[size:, size:])

    @property
    def cross(self) -> Float64[Tensor, "s t"]:
        """The sum of centred outer products of source and target."""
        return self.joint.scatter[: self.source_size, self.source_size :]

    def require_finite(self) -> None:
        """Raise unless every moment is a number.

        Raises:
            NonFiniteError: one is not.
        """
        if not bool(self.joint.scatter.isfinite().all() and self.joint.mean.isfinite().all()):
            raise NonFiniteError(
                "The moments hold NaN or infinity, or numbers beyond 1e150, whose squares overflow; nothing can be fitted from "
                "them. Remove those rows, or scale them down."
            )

    def uncentred(self) -> "PairedMoments":
        """Return the same pairs as if their means were zero: what a map without bias is fitted from."""
        mean = self.joint.mean
        raw = self.joint.scatter + self.joint.count * torch.outer(mean, mean)
        return PairedMoments(Moments(self.joint.count, torch.zeros_like(mean), raw), self.source_size)


def _constant(squares: Tensor, mean: Tensor, count: int) -> Tensor:
    return squares.clamp_min(0.0).sqrt() <= CONSTANT * mean.abs() * math.sqrt(max(count, 1))
