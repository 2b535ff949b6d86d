"""The scatter of a source in its own axes, from which the fit with any ridge follows at once."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from latlas.base.errors import IllPosedError
from latlas.numerics.moments import PairedMoments

# Strengths tried, in powers of ten of the source's largest eigenvalue. Below, rounding is as large; above, no more than a
# ten-thousandth of a weight is left.
LOWEST, HIGHEST = -12, 4
_PER_DECADE = 8
_EPSILON = torch.finfo(torch.float64).eps


@dataclass(frozen=True, kw_only=True)
class Spectrum:
    """The source's scatter in its own axes: every ridge's fit, error and freedom follow from it at once."""

    count: int
    bias: bool
    source_mean: Float64[Tensor, " s"]  # zeros without bias
    target_mean: Float64[Tensor, " t"]
    values: Float64[Tensor, " k"]  # eigenvalues above rounding
    vectors: Float64[Tensor, "s k"]
    cross: Float64[Tensor, "k t"]  # of the source along its axes with the target
    total: float  # summed squared target
    complete: bool  # no direction of the source is empty

    @classmethod
    def of(cls, moments: PairedMoments, *, bias: bool = True) -> "Spectrum":
        """Return the spectrum of the joint moments.

        Raises:
            IllPosedError: fewer than three pairs, or a constant source.
            NonFiniteError: the moments hold NaN.
        """
        used = moments if bias else moments.uncentred()
        if used.count < 3:
            raise IllPosedError(
                f"Choosing a ridge needs at least 3 pairs, got {used.count}. Give more, or a number for the ridge."
            )
        used.require_finite()
        if bool(used.source.constant().all()):
            raise IllPosedError("The source codes are constant; no map can be fitted from them. Give codes that differ.")
        values, vectors = torch.linalg.eigh(used.source.scatter)
        kept = values > values[-1] * _EPSILON * values.numel()
        return cls(
            count=used.count,
            bias=bias,
            source_mean=used.source.mean,
            target_mean=used.target.mean,
            values=values[kept],
            vectors=vectors[:, kept],
            cross=vectors[:, kept].T @ used.cross,
            total=float(used.target.scatter.trace()),
            complete=bool(kept.all()),
        )

    @property
    def spare(self) -> int:
        """Rows beyond those that the fit without a ridge could interpolate; negative where there are too few."""
        return self.count - int(self.bias) - self.values.numel()

    def strengths(self, exponents: Iterable[float]) -> list[float]:
        """Return 10 ** exponent times the largest eigenvalue, and 0 before them wherever least squares is defined."""
        plain = [0.0] if self.spare > 0 and self.complete else []
        return plain + [float(self.values[-1]) * 10.0**exponent for exponent in exponents]


def eighths(lowest: int, highest: int) -> list[float]:
    """Return the exponents between two, both of them too, eight a decade."""
    return [lowest + step / _PER_DECADE for step in range((highest - lowest) * _PER_DECADE + 1)]
