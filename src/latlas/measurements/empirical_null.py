"""Ranks among a control that may itself hold what is sought: the control's ordinary part is estimated, and ranked against."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64
from numpy.typing import NDArray
from torch import Tensor

from latlas.base.errors import IllPosedError, NonFiniteError
from latlas.base.shapes import PerImage

FEWEST = 100  # scores from which two parts can be told apart
_EVIDENCE = 10.0  # difference of BIC from which it is called very strong (Kass and Raftery 1995, table of section 3.2)
_MOST = 0.5  # of the control; a larger part would be the ordinary one
_APART = 0.95  # share of the ordinary scores below the centre of the others
_DRAWN_OUT = 0.5  # least tail parameter of the ordinary part: lighter values let it reach over both
_Row = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class EmpiricalNull:
    """Scores of a control, each with the probability that it belongs to the ordinary part."""

    scores: Float64[Tensor, " control"]  # ascending
    ordinary: Float64[Tensor, " control"]  # probabilities; 1 throughout where the control is of one kind
    evidence: float  # how much lower the BIC of two parts is than that of one

    @property
    def mixed(self) -> bool:
        """Whether the control holds images that stand apart from the rest."""
        return bool((self.ordinary < 1).any())

    @property
    def apart(self) -> float:
        """Expected share of the control that stands apart."""
        return 1.0 - float(self.ordinary.mean())

    @property
    def smallest(self) -> float:
        """The smallest p-value that any image can get."""
        return 1.0 / (1.0 + float(self.ordinary.sum()))

    def p_values(self, scores: PerImage) -> PerImage:
        """Return (1 + ordinary control scores >= score) / (1 + ordinary control scores), per score.

        Where no second part is split off, this is the conformal p-value: exact for images exchangeable with the control, given
        that none is. Landmarks are extremes of sectors, and whether to split is decided by the same control: for them, and
        after a split, the level is nominal.

        Raises:
            NonFiniteError: a score is NaN.
        """
        if bool(scores.isnan().any()):
            raise NonFiniteError("A score is NaN; p-values of it would mean nothing. Leave that image out.")
        remaining = self.ordinary.flip(0).cumsum(dim=0).flip(0)
        remaining = torch.cat([remaining, remaining.new_zeros(1)])
        at_least = remaining[torch.searchsorted(self.scores, scores.contiguous(), right=False)]
        return (1.0 + at_least) / (1.0 + self.ordinary.sum())


def fit_null(scores: Float64[Tensor, " control"], *, mixed: bool = True) -> EmpiricalNull:
    """Return the null that a control gives: all of it, or its lower part if a second one clearly stands above.

    Efron's empirical null (2004, JASA 99:96) takes the bulk of the scores as ordinary, and as normal. Errors are skewed and
    have tails, so the bulk is here a sinh-arcsinh normal law (Jones and Pewsey 2009, Biometrika 96:761), to which a normal
    part above it is added where the BIC is lower for that by 10 and more. Nothing is read off the fitted law but how
    probably each control image is ordinary: ranks are then taken among the images themselves, so that the law need not
    hold in its tail.

    Args:
        scores: of the control, higher for what is done worse.
        mixed: False trusts the control to be ordinary throughout.

    Raises:
        IllPosedError: no scores, or too few to tell two parts apart.
        NonFiniteError: a score is NaN or infinite.
    """
    if scores.numel() == 0:
        raise IllPosedError("A null needs scores of a control; none were given. Give images of the data.")
    if not bool(scores.isfinite().all()):
        raise NonFiniteError("A control's score is NaN or infinite; nothing can be ranked among it. Leave that image out.")
    ordered = scores.sort().values
    whole = EmpiricalNull(scores=ordered, ordinary=torch.ones_like(ordered), evidence=0.0)
    if not mixed:
        return whole
    if len(scores) < FEWEST:
        raise IllPosedError(
            f"To tell what stands apart among the control takes at least {FEWEST} images, got {len(scores)}. Give more, or a "
            "control that is known to be represented (--represented)."
        )
    values = ordered.numpy()
    centre, unit = float(np.median(values)), float(np.subtract(*np.quantile(values, [0.75, 0.25])))
    if not unit > 0:
        return whole
    rows = (values - centre) / unit
    one, two = _fit_one(rows), _fit_two(rows)
    evidence = float(_bic(rows, one) - _bic(rows, two))
    found = EmpiricalNull(scores=ordered, ordinary=torch.ones_like(ordered), evidence=evidence)
    if evidence < _EVIDENCE or not _stands_apart(two):
        return found
    return EmpiricalNull(scores=ordered, ordinary=torch.from_numpy(_ordinary(rows, two)), evidence=evidence)


def _log_ordinary(rows: _Row, law: _Row) -> _Row:
    """Return the log density of the sinh-arcsinh normal: S(z) = sinh(tail * arcsinh(z) - skew) is standard normal."""
    z = (rows - law[0]) / np.exp(law[1])
    tail = _DRAWN_OUT + np.exp(law[3])
    inner = np.clip(tail * np.arcsinh(z) - law[2], -50.0, 50.0)
    # 0.9189 is log(2 pi) / 2
    density: _Row = np.log(tail * np.cosh(inner)) - 0.5 * np.log1p(z * z) - 0.5 * np.sinh(inner) ** 2 - 0.918938533 - law[1]
    return density


def _log_parts(rows: _Row, law: _Row) -> tuple[_Row, _Row]:
    """Return the log densities of the ordinary part and of the one above it, weighed by their shares."""
    share = _MOST / (1.0 + np.exp(-law[4]))
    above = -0.5 * ((rows - law[5]) / np.exp(law[6])) ** 2 - law[6] - 0.918938533
    return np.log1p(-share) + _log_ordinary(rows, law), np.log(share) + above


def _log_likelihood(rows: _Row, law: _Row) -> float:
    density = _log_ordinary(rows, law) if len(law) == 4 else np.logaddexp(*_log_parts(rows, law))
    # A law that runs away is as bad as any other number: the search must not meet infinity.
    return float(np.nan_to_num(density, nan=-1e3, neginf=-1e3).clip(-1e3).sum())


def _bic(rows: _Row, law: _Row) -> float:
    return len(law) * float(np.log(len(rows))) - 2.0 * _log_likelihood(rows, law)


def _search(rows: _Row, starts: list[list[float]], bounds: list[tuple[float, float]]) -> _Row:
    from scipy import optimize

    tried = [
        optimize.minimize(lambda law: -_log_likelihood(rows, law) / len(rows), start, method="L-BFGS-B", bounds=bounds)
        for start in starts
    ]
    best: _Row = min(tried, key=lambda found: float(found.fun)).x
    return best


# Of rows whose median is 0 and whose middle half is 1 wide: location, log scale, skew, log of the tail beyond its least.
_BOUNDS = [(-6.0, 6.0), (-4.0, 3.0), (-3.0, 3.0), (-6.0, 2.0)]


def _fit_one(rows: _Row) -> _Row:
    return _search(rows, [[0.0, -0.3, 0.0, -0.7], [-0.3, -0.3, 0.4, -0.7]], _BOUNDS)


def _fit_two(rows: _Row) -> _Row:
    highest = float(rows[-1])
    starts = []
    for share in (0.1, 0.3, 0.45):
        edge = float(np.quantile(rows, 1 - share))
        below, above = rows[rows <= edge], rows[rows >= edge]
        logit = float(np.log((share / _MOST) / (1 - min(share / _MOST, 0.95))))
        starts.append(
            [float(np.median(below)), float(np.log(below.std() + 1e-3)), 0.0, -0.7, logit, float(above.mean()),
             float(np.log(above.std() + 0.05))]
        )  # fmt: skip
    # The upper part is at least as wide as an eighth of the bulk: a few equal scores are no kind of image.
    return _search(rows, starts, [*_BOUNDS, (-6.0, 12.0), (0.0, max(highest, 0.1)), (np.log(0.125), 3.0)])


def _stands_apart(law: _Row) -> bool:
    """Tell whether the upper part's centre lies beyond nearly all of the ordinary part."""
    from scipy import stats

    z = (law[5] - law[0]) / np.exp(law[1])
    return bool(stats.norm.cdf(np.sinh((_DRAWN_OUT + np.exp(law[3])) * np.arcsinh(z) - law[2])) >= _APART)


def _ordinary(rows: _Row, law: _Row) -> _Row:
    """Return per score the probability that it is ordinary: 1 below the median, then never rising."""
    lower, upper = _log_parts(rows, law)
    probability = np.exp(lower - np.logaddexp(lower, upper))
    probability[rows <= 0] = 1.0
    falling: _Row = np.minimum.accumulate(probability)
    return falling
