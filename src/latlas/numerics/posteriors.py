"""What a stream of Gaussian posteriors says of each latent variable, accumulated in float64."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from latlas.numerics.gaussians import kl_to_prior_nats
from latlas.numerics.moments import MarginalMoments

# Burda, Grosse and Salakhutdinov 2016 (arXiv:1509.00519): a variable is active if the variance of its means exceeds this.
ACTIVE_VARIANCE = 0.01


@dataclass(frozen=True)
class PosteriorMoments:
    """Per latent variable (any latent shape): moments of the means, and averages over images of three quantities."""

    means: MarginalMoments
    posterior_variance: Float64[Tensor, " *latent"]  # mean over images of sigma^2
    posterior_deviation: Float64[Tensor, " *latent"]  # mean over images of sigma
    kl_nats: Float64[Tensor, " *latent"]  # mean over images of KL to the prior

    @classmethod
    def of(cls, mean: Float[Tensor, "n *latent"], log_variance: Float[Tensor, "n *latent"]) -> "PosteriorMoments":
        """Return the statistics of a batch of posteriors; of none, averages that are NaN."""
        exact_mean, exact_log = mean.detach().cpu().double(), log_variance.detach().cpu().double()
        return cls(
            MarginalMoments.of(exact_mean),
            exact_log.exp().mean(dim=0),
            (0.5 * exact_log).exp().mean(dim=0),
            kl_to_prior_nats(exact_mean, exact_log).mean(dim=0),
        )

    def merge(self, other: "PosteriorMoments") -> "PosteriorMoments":
        """Return the statistics of both streams together; one of no posteriors changes nothing."""
        if 0 in (self.means.count, other.means.count):  # averages over nothing are NaN, and a share of 0 would not undo that
            return self if other.means.count == 0 else other
        count = self.means.count + other.means.count
        mine, theirs = self.means.count / count, other.means.count / count
        return type(self)(
            self.means.merge(other.means),
            self.posterior_variance * mine + other.posterior_variance * theirs,
            self.posterior_deviation * mine + other.posterior_deviation * theirs,
            self.kl_nats * mine + other.kl_nats * theirs,
        )

    @property
    def variance_of_means(self) -> Float64[Tensor, " *latent"]:
        """Variance over images of the posterior means."""
        return self.means.variance()

    def active(self) -> Tensor:
        """Tell, per variable, whether the variance of means exceeds Burda's threshold."""
        return self.variance_of_means > ACTIVE_VARIANCE

    def variance_law(self) -> Float64[Tensor, " *latent"]:
        """Return mean posterior variance + variance of means: 1 where the scale of the code is stationary."""
        return self.posterior_variance + self.variance_of_means

    def as_rows(self) -> Float64[Tensor, "rows *latent"]:
        """Return everything as one tensor, so that it can travel between processes; `from_rows` reads it."""
        count = torch.full_like(self.kl_nats, float(self.means.count))
        return torch.stack(
            [count, self.means.mean, self.means.scatter, self.posterior_variance, self.posterior_deviation, self.kl_nats]
        )

    @classmethod
    def from_rows(cls, rows: Float64[Tensor, "rows *latent"]) -> "PosteriorMoments":
        """Read what `as_rows` wrote."""
        count, mean, scatter, variance, deviation, kl = rows.unbind(0)
        return cls(MarginalMoments(int(count.flatten()[0]), mean, scatter), variance, deviation, kl)


def mean_by_channel(values: Float64[Tensor, " *latent"]) -> Float64[Tensor, " variables"]:
    """Return the average over the positions of each channel; a vector stays as it is.

    >>> mean_by_channel(torch.ones(2, 3, 3).double())
    tensor([1., 1.], dtype=torch.float64)
    """
    return values.flatten(1).mean(dim=1) if values.ndim > 1 else values


def sum_by_channel(values: Float64[Tensor, " *latent"]) -> Float64[Tensor, " variables"]:
    """Return the sum over the positions of each channel; a vector stays as it is.

    >>> sum_by_channel(torch.ones(2, 3, 3).double())
    tensor([9., 9.], dtype=torch.float64)
    """
    return values.flatten(1).sum(dim=1) if values.ndim > 1 else values
