"""How the published rules for "collapsed" vote on each latent variable, and a rule that no rescaling of the code changes."""

import torch
from jaxtyping import Bool
from torch import Tensor

from latlas.base.shapes import PerVariable
from latlas.measurements.latents import LatentTable
from latlas.numerics.posteriors import ACTIVE_VARIANCE


def information_share(table: LatentTable) -> PerVariable:
    """Return what share of the variance of each variable's samples tells images apart, in [0, 1].

    It is variance of means / (variance of means + mean posterior variance): the variance of means in units of the whole,
    the same for any scale of the code. Where the variance law holds the whole is 1, and this is the variance of means.
    A variable that is 0 throughout has no variance to share, and its share is 0.
    """
    return (table.variance_of_means / table.variance_law).nan_to_num(nan=0.0)


def collapsed_at_any_scale(table: LatentTable, *, threshold: float = ACTIVE_VARIANCE) -> Bool[Tensor, " variables"]:
    """Tell which variables are collapsed whatever the scale of the code.

    The published rules compare variances with numbers that mean something only where the KL term fixes the scale. Without
    it a network may shrink means and deviations alike, and the decoder undo it: means of deviation 0.01 with samples that
    stray by 0.0001 tell 10,000 images apart. This is Burda's threshold on `information_share`.
    """
    return information_share(table) <= threshold


def rules_agree(table: LatentTable) -> Bool[Tensor, " variables"]:
    """Tell of which variables all published rules say the same."""
    votes = torch.stack(list(table.collapsed_by_rule.values()))
    return votes.all(dim=0) | ~votes.any(dim=0)
