"""The latent variables of a model, one row each: moments, KL, gain, and the verdicts of four published rules."""

from dataclasses import dataclass

from torch import Tensor

from latlas.base.shapes import PerVariable
from latlas.numerics.posteriors import ACTIVE_VARIANCE, PosteriorMoments, mean_by_channel, sum_by_channel

# The rules that published code uses for "collapsed"; latlas decides by the first and shows the others beside it.
COLLAPSE_RULES = {
    "variance of means <= 0.01": "Burda et al. 2016",
    "variance of means < 0.05": "Split-VAE code",
    "mean posterior variance > 0.8": "GreenVAE code",
    "mean posterior deviation > 0.8": "Balancing-VAE code",
}


@dataclass(frozen=True, kw_only=True)
class LatentTable:
    """Statistics of each latent variable over an image set; a channel of a spatial latent counts as one variable."""

    mean: PerVariable  # of the posterior means
    variance_of_means: PerVariable
    mean_posterior_variance: PerVariable
    variance_law: PerVariable  # the sum of the two: 1 where the scale is stationary
    kl_nats: PerVariable  # mean KL to the prior; of a channel, summed over its positions
    active: Tensor  # bool: variance of means above Burda's threshold
    collapsed_by_rule: dict[str, Tensor]  # rule -> bool per variable

    def __len__(self) -> int:
        return int(self.active.shape[0])

    @property
    def active_count(self) -> int:
        """Number of active variables."""
        return int(self.active.sum())


def latent_table(moments: PosteriorMoments) -> LatentTable:
    """Return the table of a stream of posteriors.

    Deterministic encoders (posterior variance 0) have no KL to the prior: theirs is reported as infinite.
    """
    variance = mean_by_channel(moments.variance_of_means)
    posterior = mean_by_channel(moments.posterior_variance)
    deviation = mean_by_channel(moments.posterior_deviation)
    return LatentTable(
        mean=mean_by_channel(moments.means.mean),
        variance_of_means=variance,
        mean_posterior_variance=posterior,
        variance_law=variance + posterior,
        kl_nats=sum_by_channel(moments.kl_nats),
        active=variance > ACTIVE_VARIANCE,
        collapsed_by_rule=dict(
            zip(
                COLLAPSE_RULES,
                (variance <= ACTIVE_VARIANCE, variance < 0.05, posterior > 0.8, deviation > 0.8),
                strict=True,
            )
        ),
    )


def silence(codes: Tensor, variables: Tensor) -> Tensor:
    """Return codes in which the variables marked true are 0."""
    changed = codes.clone()
    changed[:, variables] = 0.0
    return changed
