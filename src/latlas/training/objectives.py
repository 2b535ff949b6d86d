"""The two terms of the objective, and the rules that balance them.

A balance rule is a module: it sees the decoder's logits, the images and the posterior, and returns the loss with its
terms. What a rule must remember (a running error) is a buffer, so that checkpoints, resume and devices come for free.
"""

import math
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latlas.base.errors import SettingError, unknown_name
from latlas.base.shapes import Images
from latlas.models.protocols import Posterior
from latlas.numerics.gaussians import kl_to_prior_nats

Likelihood = Literal["bernoulli", "gaussian"]
BALANCES = (
    "running-error",  # Asperti and Trentin 2020, honest running mean, then its minimum
    "one-sided-error",  # the other published form, which drifts: to compare
    "fixed",  # the ELBO with constant weights
    "warm-up",  # the same, the KL weight rising from 0
    "free-bits",  # the same, no pressure on variables below a few bits
    "learned-sigma",  # Dai and Wipf 2019: the likelihood's deviation is a parameter
    "optimal-sigma",  # Rybkin et al. 2021: it is the error of the batch
)
LATENT_TERMS = (
    "kl",  # KL(posterior || prior)
    "quadratic",  # its part that holds the means: mean^2 / 2, nothing asked of the variance
    "none",  # no pressure at all
)
# An image reproduced exactly would give an infinite likelihood; 8-bit values cannot be told closer than this.
_SMALLEST_VARIANCE = (1 / 255) ** 2 / 12
_FIXED_LIKELIHOOD = ("fixed", "warm-up", "free-bits")  # rules under which the likelihood is the user's choice
# Settings that came after the first artifacts are recorded only where they depart from what those did: a training that was
# cut off before they came still finds its own settings, and goes on.
_LATER = {"latent_term": "kl", "sampling": True}
_USED_BY = {"sigma": _FIXED_LIKELIHOOD, "warm_up_steps": ("warm-up",), "free_nats": ("free-bits",)}  # setting: rules


@dataclass(frozen=True, kw_only=True)
class Terms:
    """The objective of one batch; every number is a mean over its images."""

    loss: Tensor  # what is minimised
    reconstruction_nats: Tensor  # -log p(image | code), summed over pixels
    kl_nats: Tensor  # KL(posterior || prior), summed over variables; whether or not it is what the loss holds
    squared_error: Tensor  # per pixel


@dataclass(frozen=True, kw_only=True)
class Objective:
    """Which objective, as plain settings that an artifact can record.

    Args:
        balance: how reconstruction and KL are weighed: "running-error" (the likelihood's variance follows the error: no weight to
            tune), "one-sided-error" (its other published form), "fixed" (constant weights: the usual beta-VAE), "warm-up" (the KL
            weight rises from 0), "free-bits", "learned-sigma", "optimal-sigma".
        likelihood: "gaussian", or "bernoulli" where the balance leaves the likelihood alone ("fixed", "warm-up", "free-bits").
        kl_weight: 0 or more; multiplies the KL term, or what stands in its place.
        latent_term: "kl", "quadratic" (its part that holds the means), or "none".
        sampling: whether the decoder sees a sample of the posterior in training; False: its mean.
        sigma: deviation of a fixed Gaussian likelihood, in units of pixel values, above 0; None for 1, with which nearly all
            variables of images in [0, 1] collapse. For "fixed", "warm-up" and "free-bits".
        warm_up_steps: optimiser steps over which the KL weight rises, for "warm-up"; None for 2000.
        free_nats: KL that each variable has for nothing, for "free-bits"; None for 0.1.

    Raises:
        UnknownNameError: no such balance, likelihood or latent term.
        SettingError: a number out of range, or one that the balance has no use for.

    >>> Objective(balance="fixed", sigma=0.1).to_json()["balance"]
    'fixed'
    """

    balance: str = "running-error"
    likelihood: Likelihood = "gaussian"
    kl_weight: float = 1.0
    # Without the KL term nothing fixes the scale of the codes, and without sampling nothing teaches the variance: both are
    # here to show what the two do.
    latent_term: str = "kl"
    sampling: bool = True
    # Each of these is refused under a rule that has no use for it.
    sigma: float | None = None
    warm_up_steps: int | None = None
    free_nats: float | None = None

    def __post_init__(self) -> None:
        if self.balance not in BALANCES:
            raise unknown_name("balance rule", self.balance, BALANCES)
        if self.likelihood not in ("bernoulli", "gaussian"):
            raise unknown_name("likelihood", self.likelihood, ("bernoulli", "gaussian"))
        if not (self.kl_weight >= 0 and math.isfinite(self.kl_weight)):
            raise SettingError(f"The KL weight must be at least 0, got {self.kl_weight}.")
        if self.latent_term not in LATENT_TERMS:
            raise unknown_name("latent term", self.latent_term, LATENT_TERMS)
        if self.latent_term == "none" and self.kl_weight != 1.0:
            raise SettingError("There is nothing for --kl-weight to multiply with --latent-term none: leave it out.")
        if self.latent_term != "kl" and self.balance == "free-bits":
            raise SettingError("The free-bits balance leaves each variable some KL: use --latent-term kl, or --balance fixed.")
        if self.latent_term == "none" and self.balance == "warm-up":
            raise SettingError("There is no weight to raise with --latent-term none: use --balance fixed.")
        if self.sigma is not None and not (self.sigma > 0 and math.isfinite(self.sigma)):
            raise SettingError(f"Sigma must be above 0, got {self.sigma}.")
        if self.warm_up_steps is not None and self.warm_up_steps < 1:
            raise SettingError(f"Warm-up needs at least 1 step, got {self.warm_up_steps}.")
        if self.free_nats is not None and not self.free_nats >= 0:
            raise SettingError(f"Free nats must be at least 0, got {self.free_nats}.")
        for setting, rules in _USED_BY.items():
            if getattr(self, setting) is not None and self.balance not in rules:
                option = setting.replace("_", "-")
                raise SettingError(
                    f"The {self.balance} balance has no use for --{option}: leave it out, or use --balance {' or '.join(rules)}."
                )
        if self.balance not in _FIXED_LIKELIHOOD and self.likelihood != "gaussian":
            raise SettingError(
                f"The {self.balance} balance estimates the variance of a Gaussian likelihood; "
                "use --balance fixed with the Bernoulli one."
            )

    def build(self) -> "Balance":
        """Return the module that computes it."""
        if self.balance in ("running-error", "one-sided-error"):
            return RunningError(
                kl_weight=self.kl_weight, one_sided=self.balance == "one-sided-error", latent_term=self.latent_term
            )
        if self.balance == "learned-sigma":
            return LearnedSigma(kl_weight=self.kl_weight, latent_term=self.latent_term)
        if self.balance == "optimal-sigma":
            return OptimalSigma(kl_weight=self.kl_weight, latent_term=self.latent_term)
        warm_up_steps = 2000 if self.warm_up_steps is None else self.warm_up_steps
        free_nats = 0.1 if self.free_nats is None else self.free_nats
        return FixedWeight(
            likelihood=self.likelihood,
            kl_weight=self.kl_weight,
            sigma=1.0 if self.sigma is None else self.sigma,
            warm_up_steps=warm_up_steps if self.balance == "warm-up" else None,
            free_nats=free_nats if self.balance == "free-bits" else None,
            latent_term=self.latent_term,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the settings that an artifact records."""
        settings = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in settings.items() if name not in _LATER or value != _LATER[name]}


class FixedWeight(nn.Module):
    """The ELBO with constant weights: reconstruction + kl_weight * KL.

    With a Gaussian likelihood a latent variable pays for itself only where the images vary by more than sigma^2 along its
    direction (Lucas et al. 2019, arXiv:1911.02469, for linear models). With sigma = 1 and values in [0, 1] few directions
    do: 12 of 784 on MNIST, the first with 5.1, so that nearly everything collapses, and all of it with sigma = 2.3. That
    sigma = 1 is the default elsewhere and offered here to compare.
    """

    steps: Tensor

    def __init__(
        self,
        *,
        likelihood: Likelihood,
        kl_weight: float,
        sigma: float,
        warm_up_steps: int | None = None,
        free_nats: float | None = None,
        latent_term: str = "kl",
    ) -> None:
        super().__init__()
        self.likelihood = likelihood
        self.latent_term = latent_term
        self.kl_weight = kl_weight
        self.variance = sigma**2  # of a Gaussian likelihood; a Bernoulli one has no use for it
        self.warm_up_steps = warm_up_steps
        self.free_nats = free_nats
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, logits: Tensor, images: Images, posterior: Posterior) -> Terms:
        squared_error = _squared_error(logits, images)
        if self.likelihood == "bernoulli":
            reconstruction = bernoulli_nats(logits, images)
        else:
            reconstruction = gaussian_nats(squared_error, _pixels(images), self.variance)
        kl_per_variable = _kl_nats_per_variable(posterior)
        pressed = kl_per_variable
        if self.latent_term != "kl":
            pressed = _instead_of_kl(posterior, self.latent_term)
        if self.free_nats is not None:
            # Kingma et al. 2016 (arXiv:1606.04934), appendix C.8: a variable feels the prior only above its allowance, by the KL
            # over the images of all processes.
            above = _mean_over_processes(kl_per_variable.detach()) > self.free_nats
            pressed = torch.where(above, kl_per_variable, self.free_nats)
        weight: Tensor | float = self.kl_weight
        if self.warm_up_steps is not None:
            # Bowman et al. 2016 (arXiv:1511.06349) and Sonderby et al. 2016: let the decoder learn before the prior presses.
            weight = self.kl_weight * (self.steps.float() / self.warm_up_steps).clamp_max(1.0)
        if self.training:
            self.steps += 1
        return Terms(
            loss=reconstruction + weight * pressed.sum(),
            reconstruction_nats=reconstruction.detach(),
            kl_nats=kl_per_variable.sum().detach(),
            squared_error=squared_error.detach(),
        )

    def settle(self, squared_error: float) -> None:
        """Take up where a training with this error per pixel has left off: past the warm-up, with the variance that was set."""
        self.steps.fill_(self.warm_up_steps or 0)


class RunningError(nn.Module):
    """The balance of Asperti and Trentin 2020 (arXiv:2002.07514): the likelihood's variance follows the error.

    variance = min over time of m, where m <- 0.99 m + 0.01 (squared error of the batch), starting at 1. The running
    mean is an honest one and the minimum is taken of it. The other published form, m <- min(m, 0.99 m + 0.01 batch),
    only ever moves down and so follows the easiest batches: with 10 % spread between batches it reads 0.69 of the
    true error after 114,000 steps, which silently multiplies the weight of the reconstruction by 1.5.
    """

    variance: Tensor
    mean_error: Tensor

    def __init__(
        self,
        *,
        kl_weight: float = 1.0,
        momentum: float = 0.99,
        one_sided: bool = False,
        latent_term: str = "kl",
    ) -> None:
        super().__init__()
        self.kl_weight = kl_weight
        self.latent_term = latent_term
        self.momentum = momentum
        self.one_sided = one_sided  # the other published form, to compare
        self.register_buffer("mean_error", torch.ones((), dtype=torch.float64))
        self.register_buffer("variance", torch.ones((), dtype=torch.float64))

    def forward(self, logits: Tensor, images: Images, posterior: Posterior) -> Terms:
        terms = _gaussian_terms(logits, images, posterior, self.variance.float(), self.kl_weight, self.latent_term)
        if self.training:
            self.update(terms.squared_error)
        return terms

    def update(self, squared_error: Tensor) -> None:
        """Take in the error of a batch (averaged over processes, so that all hold one variance)."""
        error = _mean_over_processes(squared_error.double())
        start = self.variance if self.one_sided else self.mean_error
        self.mean_error.copy_(self.momentum * start + (1.0 - self.momentum) * error)
        self.variance.copy_(torch.minimum(self.variance, self.mean_error))

    def settle(self, squared_error: float) -> None:
        """Take up where a training with this error per pixel has left off."""
        self.mean_error.fill_(max(squared_error, _SMALLEST_VARIANCE))
        self.variance.copy_(self.mean_error)


class LearnedSigma(nn.Module):
    """The likelihood's deviation as one learnt parameter: Dai and Wipf 2019 (arXiv:1903.05789), started at 1 as theirs."""

    def __init__(self, *, kl_weight: float = 1.0, latent_term: str = "kl") -> None:
        super().__init__()
        self.kl_weight = kl_weight
        self.latent_term = latent_term
        self.log_sigma = nn.Parameter(torch.zeros(()))

    @property
    def variance(self) -> Tensor:
        """The likelihood's variance, in squared pixel values."""
        return (2 * self.log_sigma).exp()

    def forward(self, logits: Tensor, images: Images, posterior: Posterior) -> Terms:
        return _gaussian_terms(logits, images, posterior, self.variance, self.kl_weight, self.latent_term)

    def settle(self, squared_error: float) -> None:
        """Take up where a training with this error per pixel has left off: its likelihood is greatest at sigma^2 = error."""
        with torch.no_grad():
            self.log_sigma.fill_(0.5 * math.log(max(squared_error, _SMALLEST_VARIANCE)))


class OptimalSigma(nn.Module):
    """The likelihood's variance is the batch's squared error, gradient included: sigma-VAE (arXiv:2006.13202).

    Minimising the likelihood over sigma gives sigma^2 = error, which leaves pixels / 2 * log(error): its gradient is that
    of the squared error divided by itself.
    """

    last_error: Tensor

    def __init__(self, *, kl_weight: float = 1.0, latent_term: str = "kl") -> None:
        super().__init__()
        self.kl_weight = kl_weight
        self.latent_term = latent_term
        self.register_buffer("last_error", torch.ones(()))

    @property
    def variance(self) -> Tensor:
        """The variance at the last batch, in squared pixel values."""
        return self.last_error

    def forward(self, logits: Tensor, images: Images, posterior: Posterior) -> Terms:
        # With the variance held, error / (2 variance) has the gradient of log(error) / 2; so the mean over processes has that of
        # the log of the error over all images, where a mean of their own logs would not.
        error = _squared_error(logits, images).detach()
        if self.training:
            error = _mean_over_processes(error)
        variance = error.clamp_min(_SMALLEST_VARIANCE)
        if self.training:
            self.last_error.copy_(variance)
        return _gaussian_terms(logits, images, posterior, variance, self.kl_weight, self.latent_term)

    def settle(self, squared_error: float) -> None:
        """Take up where a training with this error per pixel has left off."""
        self.last_error.fill_(max(squared_error, _SMALLEST_VARIANCE))


Balance = FixedWeight | RunningError | LearnedSigma | OptimalSigma


def bernoulli_nats(logits: Tensor, images: Images) -> Tensor:
    """Return -log p(images | logits) in nats, summed over pixels, averaged over images; grey values count as soft bits."""
    return F.binary_cross_entropy_with_logits(logits.float(), images, reduction="sum") / images.shape[0]


def gaussian_nats(squared_error: Tensor, pixels: int, variance: Tensor | float) -> Tensor:
    """Return the negative log-likelihood in nats of an image under N(reconstruction, variance) per pixel.

    Args:
        squared_error: mean over pixels (and images).
        pixels: values an image holds.
        variance: of a pixel's value.
    """
    log_variance = variance.log() if isinstance(variance, Tensor) else math.log(variance)
    return 0.5 * pixels * (squared_error / variance + log_variance + math.log(2 * math.pi))


def _squared_error(logits: Tensor, images: Images) -> Tensor:
    return (logits.float().sigmoid() - images).square().mean()


def _kl_nats_per_variable(posterior: Posterior) -> Tensor:
    """Return the mean over images of each variable's KL (a position of a spatial code is a variable of its own)."""
    assert posterior.log_variance is not None  # a VAE's encoder always gives one
    return kl_to_prior_nats(posterior.mean.float(), posterior.log_variance.float()).flatten(1).mean(dim=0)


def _instead_of_kl(posterior: Posterior, term: str) -> Tensor:
    """Return what stands in the place of each variable's KL, a mean over images."""
    mean = posterior.mean.float().flatten(1)
    return 0.5 * mean.square().mean(dim=0) if term == "quadratic" else mean.new_zeros(mean.shape[1])


def _gaussian_terms(
    logits: Tensor, images: Images, posterior: Posterior, variance: Tensor, kl_weight: float, latent_term: str
) -> Terms:
    squared_error = _squared_error(logits, images)
    reconstruction = gaussian_nats(squared_error, _pixels(images), variance)
    kl = _kl_nats_per_variable(posterior).sum()
    pressure = kl if latent_term == "kl" else _instead_of_kl(posterior, latent_term).sum()
    return Terms(
        loss=reconstruction + kl_weight * pressure,
        reconstruction_nats=reconstruction.detach(),
        kl_nats=kl.detach(),
        squared_error=squared_error.detach(),
    )


def _pixels(images: Images) -> int:
    return math.prod(images.shape[1:])


def _mean_over_processes(value: Tensor) -> Tensor:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return value
    total = value.clone()
    torch.distributed.all_reduce(total)
    return total / torch.distributed.get_world_size()
