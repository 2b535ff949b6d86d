"""How ordinary a code is: its squared Mahalanobis distance from the codes that the generator draws."""

from dataclasses import dataclass

import torch
from torch import Tensor

from latlas.base.errors import IllPosedError, NonFiniteError
from latlas.base.seeds import generator
from latlas.base.shapes import Codes
from latlas.models.protocols import Generator

_DRAWS = 2000  # codes that moments are taken from, at least
_A_VARIABLE = 10  # draws for each variable that a whole covariance needs; with fewer its small eigenvalues are far too small
_MOST_VARIABLES = 1024  # of a whole covariance
_MOST_VALUES = 2**26  # of all draws together
_SMALLEST = 1e-6  # an eigenvalue, as a share of the largest, below which codes count as lying in a subspace


@dataclass(frozen=True, kw_only=True, eq=False)
class CodePrior:
    """Mean and covariance of codes, ready to measure distances from."""

    mean: Tensor  # of each variable, flat, float64
    whitening: Tensor  # variables x variables: deviations times it have unit covariance; or one factor a variable

    @property
    def whole(self) -> bool:
        """Whether correlations between variables count."""
        return self.whitening.ndim == 2

    def distance(self, codes: Codes) -> Tensor:
        """Return the squared Mahalanobis distance of each code, divided by the number of variables: 1 in the mean of draws."""
        deviation = codes.flatten(1) - self.mean.to(codes)
        factor = self.whitening.to(codes)
        return (deviation @ factor if self.whole else deviation * factor).square().mean(dim=1)


def code_prior(drawing: Generator, *, seed: int) -> CodePrior:
    """Return the moments of a generator's codes.

    The covariance is whole where there are at most 1,024 variables and codes fill their space. Elsewhere it is the variances
    alone: of spatial codes, and of W+, whose draws have one style in all layers and give none of the freedom that W+ is for.

    Args:
        drawing: whose codes.
        seed: decides the draws: ten for each variable, at least 2,000.

    Raises:
        NonFiniteError: it draws NaN or infinity.
        IllPosedError: it draws one code only.
    """
    variables = torch.Size(drawing.latent_shape).numel()
    draws = max(_DRAWS, _A_VARIABLE * variables if variables <= _MOST_VARIABLES else 0)
    draws = max(2, min(draws, _MOST_VALUES // variables))
    codes = drawing.sample_codes(draws, generator(seed, "code prior")).detach().cpu().flatten(1).double()
    if not bool(codes.isfinite().all()):
        raise NonFiniteError(f"{drawing.name} draws codes that are NaN or infinite. Mend its sampler.")
    mean, variances = codes.mean(dim=0), codes.var(dim=0)
    if not float(variances.max()) > 0:
        raise IllPosedError(f"{drawing.name} draws one and the same code: no distance from it can be measured.")
    if variables <= _MOST_VARIABLES and draws >= _A_VARIABLE * variables:
        values, vectors = torch.linalg.eigh(torch.cov(codes.T).reshape(variables, variables))
        if float(values[0]) > _SMALLEST * float(values[-1]):
            return CodePrior(mean=mean, whitening=vectors * values.rsqrt())
    return CodePrior(mean=mean, whitening=variances.clamp_min(_SMALLEST * float(variances.max())).rsqrt())
