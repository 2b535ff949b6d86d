"""Closed forms for Gaussians."""

from jaxtyping import Float
from torch import Tensor


def kl_to_prior_nats(mean: Float[Tensor, "n *latent"], log_variance: Float[Tensor, "n *latent"]) -> Float[Tensor, "n *latent"]:
    """Return KL(N(mean, variance) || N(0, 1)) of each variable of each row, in nats.

    1/2 (mean^2 + variance - log variance - 1): Kingma and Welling 2014 (arXiv:1312.6114), appendix B.

    >>> import torch
    >>> kl_to_prior_nats(torch.zeros(1, 1), torch.zeros(1, 1))
    tensor([[0.]])
    """
    # expm1 keeps the digits where the variance is near 1, that is, in every collapsed variable.
    return 0.5 * (mean.square() + log_variance.expm1() - log_variance)
