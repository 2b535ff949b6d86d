"""Encoding -> Sampler: fitted on training codes, never on the images that judge it."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latlas.base.errors import CodeShapeError, IllPosedError, NonFiniteError, SettingError, unknown_name
from latlas.base.progress import Progress, silent
from latlas.base.provenance import Provenance, tensor_hash
from latlas.base.seeds import derived_seed, generator
from latlas.encodings.encoding import Encoding
from latlas.models.carried_folders import artifact_folder
from latlas.samplers.densities import (
    Prior,
    fit_gaussian,
    fit_mixture,
    fit_moments,
    marginal_moments,
    mixture_from_tensors,
)
from latlas.samplers.sampler import KIND, Density, Renormalisation, Sampler, read_sampler
from latlas.samplers.second_stage import SecondStageSettings, fit_second_stage, second_stage_from_tensors

SAMPLER_KINDS = ("prior", "moments", "gaussian", "mixture", "second-stage")
# Below this share of the codes' variance a density has lost what it was fitted to: no rescaling brings that back.
COLLAPSED_RATIO = 0.5
_CHECKED = 10_000  # codes drawn to measure the variance ratio
_NUMBERS = 2**26  # in them at most: of codes of more than 6,710 variables fewer are drawn
_LARGEST = 4_096  # variables of a full covariance

_DENSITIES: dict[str, Any] = {
    "prior": Prior.from_tensors,
    **{kind: partial(mixture_from_tensors, kind) for kind in ("moments", "gaussian", "mixture")},
    "second-stage": second_stage_from_tensors,
}


def fit_sampler(
    kind: str,
    encoding: Encoding,
    *,
    renormalised: bool = False,
    components: int = 10,
    second_stage: SecondStageSettings | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Sampler:
    """Return a sampler of new codes, fitted to the aggregate posterior of an encoding.

    Args:
        kind: "prior" (N(0, 1)), "moments" (each variable's own Gaussian), "gaussian" (full covariance), "mixture"
            (scikit-learn's), "second-stage" (a small VAE on the codes, with its likelihood's noise).
        encoding: codes of training images. Where it has log-variances, densities are fitted to draws from the posteriors.
        renormalised: whether each drawn variable is stretched to the moments that the variance law gives.
        components: of the mixture.
        second_stage: size and training of the second stage; None for the defaults.
        seed: decides posterior draws and the fit.
        progress: told during long fits.

    Raises:
        UnknownNameError: no such kind.
        SettingError: no components; a second stage's setting out of its range.
        IllPosedError: fewer than two codes, codes that are all alike, or more components than codes.
        CodeShapeError: a latent space too large for a covariance.
        NonFiniteError: NaN or infinity among the codes, or a posterior without a variance; names the image's row.
    """
    if kind not in SAMPLER_KINDS:
        raise unknown_name("sampler", kind, SAMPLER_KINDS)
    settings = second_stage if second_stage is not None else SecondStageSettings()
    if kind == "second-stage":
        settings.check()
    if kind == "mixture" and components < 1:
        raise SettingError(f"A mixture has at least 1 component, got {components} (--components).")
    if len(encoding) < 2:
        raise IllPosedError(f"A sampler is fitted to at least 2 codes, got {len(encoding)}.")
    mean = encoding.mean.flatten(1)
    log_variance = None if encoding.log_variance is None else encoding.log_variance.flatten(1)
    if kind in ("gaussian", "mixture") and mean.shape[1] > _LARGEST:
        raise CodeShapeError(f"A covariance of {mean.shape[1]} variables is too large; use 'moments' or 'prior'.")
    _check_finite(encoding.images, mean, log_variance)
    target = marginal_moments(mean)
    target_variance = target.variance()
    if log_variance is not None:
        target_variance = target_variance + log_variance.double().exp().mean(dim=0)
    if bool(target.constant().all()) and not bool((target_variance > target.variance()).any()):
        raise IllPosedError(
            f"All {len(encoding)} codes of {encoding.images} are alike: nothing can be fitted to them. Give images that differ, and "
            "look at the encoder: it may have collapsed."
        )
    codes = _posterior_draws(mean, log_variance, seed)
    density: Density
    if kind == "prior":
        density = Prior(mean.shape[1])
    elif kind == "moments":
        density = fit_moments(codes)
    elif kind == "gaussian":
        density = fit_gaussian(codes)
    elif kind == "mixture":
        density = fit_mixture(codes, components=components, seed=derived_seed(seed, "mixture"))
    else:
        density = fit_second_stage(mean, log_variance, settings=settings, seed=seed, progress=progress)
    count = max(2, min(_CHECKED, _NUMBERS // mean.shape[1]))
    drawn = marginal_moments(density.draw(count, generator(seed, "variance ratio")))
    if not bool(drawn.scatter.isfinite().all()):
        raise NonFiniteError(
            f"The {kind} sampler draws codes that are NaN or infinite: its training ran away. Lower its learning rate."
        )
    ratio = float(drawn.variance().mean() / target_variance.mean().clamp_min(1e-300))
    renormalisation = None
    if renormalised:
        scale = (target_variance / drawn.variance().clamp_min(1e-300)).sqrt()
        renormalisation = Renormalisation(scale=scale, shift=target.mean - scale * drawn.mean)
    evidence: dict[str, Any] = {"codes": len(encoding), "variables": mean.shape[1]}
    if kind == "mixture":
        evidence["components"] = components
    if hasattr(density, "gamma"):
        evidence["gamma"] = float(density.gamma)
    return Sampler(
        density=density,
        latent_shape=encoding.latent_shape,
        model=encoding.model,
        renormalisation=renormalisation,
        variance_ratio=ratio,
        evidence=evidence,
        warnings=_warnings(kind, ratio),
        provenance=Provenance(
            made_by="fit_sampler",
            seed=seed,
            made_from={"codes": tensor_hash(encoding.mean)}
            | ({} if encoding.provenance.model is None else {"model": encoding.provenance.model}),
            settings={"kind": kind, "renormalised": renormalised, "components": components},
        ),
    )


def load_sampler(folder: str | Path) -> Sampler:
    """Read a sampler that `save_pretrained` wrote: its folder, its Hub id, or `zoo:name`.

    Raises:
        MissingPathError, ArtifactError: no such artifact, or a damaged one.
        UnknownNameError: no such sampler in the zoo.
    """
    return read_sampler(artifact_folder(folder, (KIND,), called="sampler"), _DENSITIES)


def _check_finite(images: str, mean: Tensor, log_variance: Tensor | None) -> None:
    good = mean.isfinite().all(dim=1)
    if log_variance is not None:  # minus infinity is a posterior of no width
        good &= (log_variance < torch.inf).all(dim=1)
    if not bool(good.all()):
        bad = int((~good).nonzero()[0, 0])
        raise NonFiniteError(
            f"Row {bad} of the codes of {images} holds NaN or infinity; no sampler can be fitted. Leave that image out, or encode it "
            "again."
        )


def _posterior_draws(mean: Tensor, log_variance: Tensor | None, seed: int) -> Tensor:
    if log_variance is None:
        return mean
    noise = torch.randn(mean.shape, generator=generator(seed, "posterior draws"))
    return mean + noise * (0.5 * log_variance).exp()


def _warnings(kind: str, ratio: float) -> tuple[str, ...]:
    if kind == "prior" or ratio >= COLLAPSED_RATIO:
        return ()
    message = (
        f"The {kind} sampler has collapsed: its codes have {100 * ratio:.0f} % of the variance that they were fitted to. "
        "Renormalising stretches them and cannot bring back what was lost; use another sampler, or train it longer."
    )
    return (message,)
