"""What missed images have in common: over-representation of each attribute, and which attributes a latent variable carries."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from latlas.base.shapes import Codes
from latlas.data.avatar_styles import ABSENT
from latlas.measurements.corrections import holm_p_values
from latlas.measurements.proportions import ShareDifference, share_difference

Factors = Mapping[str, Sequence[str]]

_ABSENT = (ABSENT, "no")  # values that say that a factor is not there: of avatars, of CelebA
_FEWEST = 3  # images with an attribute, and without, of which shares are compared
_BINS = 4  # of a factor that is a number
_NUMBERS = 6  # different values from which a factor of numbers is cut into bins


@dataclass(frozen=True, kw_only=True)
class AttributeRow:
    """How often images with an attribute are missed, beside those without."""

    name: str  # "hat" or "hair=short04" or "angle 10 to 30"
    factor: str
    having: int  # images with it
    lacking: int
    missed_having: int
    missed_lacking: int
    shares: ShareDifference  # missed with it, less missed without
    adjusted: float  # the p-value, corrected over all attributes (Holm)

    def missed(self, level: float) -> bool:
        """Whether images with it are missed more often than others, at a level over all attributes."""
        return self.adjusted <= level


@dataclass(frozen=True, kw_only=True)
class Carried:
    """The attribute that goes most with a latent variable, over the landmarks."""

    variable: int
    name: str
    correlation: float  # of the variable with having it
    p_value: float  # of none, times the attributes tried


def indicators(factors: Factors) -> dict[str, tuple[str, Bool[Tensor, " n"]]]:
    """Return which images have each attribute: name -> (factor, has it).

    A factor that some images lack is an attribute by itself, each value is one, and numbers are cut at their quartiles. What
    the very same images have, as a hat and a colour of the hat, is named once, by the first.

    >>> list(indicators({"hat": ["none", "red", "blue", "red"], "mouth": ["a", "a", "b", "b"]}))
    ['hat', 'hat=blue', 'hat=red', 'mouth=a', 'mouth=b']
    """
    found: dict[str, tuple[str, Bool[Tensor, " n"]]] = {}
    for factor, values in factors.items():
        numbers = _numbers(values)
        if numbers is not None:
            quartiles = torch.quantile(numbers, torch.linspace(0, 1, _BINS + 1, dtype=torch.float64)).tolist()
            edges = sorted(set(quartiles))
            for place, (low, high) in enumerate(pairwise(edges), start=1):
                inside = (numbers >= low) & ((numbers <= high) if high == edges[-1] else (numbers < high))
                if not bool(inside.any()):  # cut within a gap between values
                    continue
                name = f"{factor} {low:.6g} to {high:.6g}"
                found[f"{name} ({place})" if name in found else name] = (factor, inside)
            continue
        absent = torch.tensor([value in _ABSENT for value in values])
        present = sorted({value for value in values if value not in _ABSENT})
        if bool(absent.any()) and present:
            found[factor] = (factor, ~absent)
        for value in present:
            found[f"{factor}={value}"] = (factor, torch.tensor([one == value for one in values]))
    different: dict[str, tuple[str, Bool[Tensor, " n"]]] = {}
    for name, (factor, has) in found.items():
        if not any(has.equal(known) for _, known in different.values()):
            different[name] = (factor, has)
    return different


def attribute_rows(missed: Bool[Tensor, " n"], factors: Factors) -> tuple[AttributeRow, ...]:
    """Return one row for each attribute that enough images have and enough lack, the surest over-representation first.

    Args:
        missed: of each image.
        factors: of the same images.
    """
    counted: list[tuple[str, str, int, int, int, int, ShareDifference]] = []
    for name, (factor, has) in indicators(factors).items():
        having, lacking = int(has.sum()), int((~has).sum())
        if min(having, lacking) < _FEWEST:
            continue
        with_it, without = int(missed[has].sum()), int(missed[~has].sum())
        shares = share_difference(with_it, having, without, lacking)
        counted.append((name, factor, having, lacking, with_it, without, shares))
    if not counted:
        return ()
    adjusted = holm_p_values(torch.tensor([shares.p_value for *_, shares in counted], dtype=torch.float64)).tolist()
    rows = [
        AttributeRow(
            name=name, factor=factor, having=having, lacking=lacking, missed_having=with_it, missed_lacking=without,
            shares=shares, adjusted=corrected,
        )
        for (name, factor, having, lacking, with_it, without, shares), corrected in zip(counted, adjusted, strict=True)
    ]  # fmt: skip
    return tuple(sorted(rows, key=lambda row: (row.shares.p_value, -row.shares.difference)))


def carried(codes: Codes, variables: Sequence[int], factors: Factors) -> tuple[Carried, ...]:
    """Return for each variable the attribute that goes most with it.

    Args:
        codes: of images, in a vector latent space.
        variables: of it.
        factors: of the same images.
    """
    from scipy import stats

    usable = {
        name: has.double()
        for name, (_, has) in indicators(factors).items()
        if min(int(has.sum()), int((~has).sum())) >= _FEWEST
    }
    if not usable or len(codes) < 2 * _FEWEST:
        return ()
    having = torch.stack(list(usable.values()))
    rows = []
    for variable in variables:
        column: Float64[Tensor, " n"] = codes[:, variable].double()
        if not float(column.std()) > 0:
            continue
        # Point-biserial: Pearson's, with having it as 0 and 1.
        correlations = torch.corrcoef(torch.cat([column[None], having]))[0, 1:]
        best = int(correlations.abs().argmax())
        p_value = float(stats.pearsonr(column.numpy(), having[best].numpy()).pvalue)
        rows.append(
            Carried(
                variable=variable,
                name=list(usable)[best],
                correlation=float(correlations[best]),
                p_value=min(1.0, p_value * len(usable)),
            )
        )
    return tuple(rows)


def _numbers(values: Sequence[str]) -> Float64[Tensor, " n"] | None:
    try:
        numbers = torch.tensor([float(value) for value in values], dtype=torch.float64)
    except ValueError:
        return None
    return numbers if bool(numbers.isfinite().all()) and len(set(numbers.tolist())) > _NUMBERS else None
