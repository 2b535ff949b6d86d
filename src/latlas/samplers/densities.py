"""Densities in closed form, and the mixture: what codes look like, from loosest to closest."""

from dataclasses import dataclass

import torch
from torch import Tensor

from latlas.base.errors import IllPosedError
from latlas.base.shapes import Rows
from latlas.numerics.moments import MarginalMoments, Moments

_NUMBERS = 2**24  # in float64 at a time: 128 MiB
_WIDE = 1024  # variables from which a diagonal is kept as such, and no longer as the matrix that other densities have


@dataclass(frozen=True, eq=False)
class Prior:
    """N(0, 1) in every variable: what the objective hopes for."""

    size: int
    kind = "prior"

    def draw(self, n: int, generator: torch.Generator) -> Rows:
        return torch.randn(n, self.size, generator=generator)

    def tensors(self) -> dict[str, Tensor]:
        return {"size": torch.tensor(self.size)}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> "Prior":
        """Rebuild it."""
        return cls(int(tensors["size"]))


@dataclass(frozen=True, eq=False)
class Mixture:
    """A mixture of Gaussians with full covariances; one component is the Gaussian, a diagonal one the moments."""

    kind: str  # "moments", "gaussian" or "mixture"
    weights: Tensor  # components
    means: Tensor  # components d
    factors: Tensor  # components d d: a matrix L of each covariance L L'; or components d, the diagonals of diagonal ones

    def draw(self, n: int, generator: torch.Generator) -> Rows:
        component = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        codes = torch.randn(n, self.means.shape[1], generator=generator, dtype=torch.float64)
        # Component by component: a factor for every code would take n d^2 numbers.
        for number, (mean, factor) in enumerate(zip(self.means, self.factors, strict=True)):
            rows = (component == number).nonzero().flatten()
            codes[rows] = mean + (codes[rows] * factor if factor.ndim == 1 else codes[rows] @ factor.T)
        return codes

    def tensors(self) -> dict[str, Tensor]:
        return {"weights": self.weights, "means": self.means, "factors": self.factors}


def fit_moments(codes: Rows) -> Mixture:
    """Return independent Gaussians with each variable's mean and variance."""
    moments = marginal_moments(codes)
    deviations = moments.variance().sqrt()
    factor = deviations.diag() if len(deviations) <= _WIDE else deviations
    return Mixture("moments", torch.ones(1).double(), moments.mean[None], factor[None])


def fit_gaussian(codes: Rows) -> Mixture:
    """Return one Gaussian with the full covariance; a rank-deficient one stays on its subspace."""
    moments = Moments.of(codes)
    values, vectors = torch.linalg.eigh(moments.covariance())
    return Mixture("gaussian", torch.ones(1).double(), moments.mean[None], (vectors * values.clamp_min(0.0).sqrt())[None])


def fit_mixture(codes: Rows, *, components: int, seed: int) -> Mixture:
    """Return a Gaussian mixture by scikit-learn's expectation maximisation, full covariances.

    Raises:
        IllPosedError: more components than codes.
    """
    if components > codes.shape[0]:
        raise IllPosedError(
            f"A mixture of {components} components needs at least as many codes, got {codes.shape[0]}. Ask for fewer components."
        )
    from sklearn.mixture import GaussianMixture

    # In units of each variable's spread, so that scikit-learn's regularisation of covariances means the same in all.
    spread = codes.double().std(dim=0).clamp_min(1e-12)
    centre = codes.double().mean(dim=0)
    fitted = GaussianMixture(components, covariance_type="full", reg_covar=1e-5, max_iter=200, random_state=seed % (1 << 32))
    fitted.fit(((codes.double() - centre) / spread).numpy())
    factors = torch.linalg.cholesky(torch.from_numpy(fitted.covariances_))
    means = torch.from_numpy(fitted.means_) * spread + centre
    return Mixture("mixture", torch.from_numpy(fitted.weights_), means, spread[None, :, None] * factors)


def marginal_moments(codes: Rows) -> MarginalMoments:
    """Return mean and variance of each variable; a part of the codes at a time is in float64."""
    return MarginalMoments.over(torch.split(codes, max(1, _NUMBERS // codes.shape[1])))


def mixture_from_tensors(kind: str, tensors: dict[str, Tensor]) -> Mixture:
    """Rebuild a mixture of a kind."""
    return Mixture(kind, tensors["weights"], tensors["means"], tensors["factors"])
