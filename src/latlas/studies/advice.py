"""Plain words from the numbers of a diagnosis: what they mean, and what to do."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from latlas.measurements.latents import LatentTable
from latlas.measurements.reconstruction import Reconstruction

Level = Literal["good", "note", "warning"]

_LAW_TOLERANCE = 0.08  # the published dense table stays within 0.04 of 1, the convolutional one reaches 0.08 on average
_NEXT_TO_NOTHING = 0.1  # nats of KL a variable, below which a variable that does not vary counts as collapsed
_VARIANCE_LOSS_RANGE = (0.8, 1.2)
_WIDE = 1.1  # variance of a posterior: a trained one is no wider than the prior, one that has collapsed has 1 but for a percent
_WORSE = 1.1  # times the error of the mean image: a collapsed model has that error, and on other images a little more
_FEWEST = 100  # images: of normal codes, the variance over so many is sure to sqrt(2 / 99), 14 %


@dataclass(frozen=True, kw_only=True)
class Advice:
    """One finding: a headline, and what follows from it."""

    level: Level
    headline: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Zeroing:
    """What setting the collapsed variables to 0 changes, measured."""

    error_before: float
    error_after: float
    largest_output_difference: float  # over all pixels of all images, in [0, 1] units

    @property
    def relative_change(self) -> float:
        """Growth of the error as a share of it; infinite where there was none before and is one after."""
        if self.error_before > 0:
            return self.error_after / self.error_before - 1.0
        return math.inf if self.error_after > 0 else 0.0


def advise(latents: LatentTable, reconstruction: Reconstruction, zeroing: Zeroing | None) -> list[Advice]:
    """Return the findings, most urgent first."""
    # An encoder without posteriors has no KL term: what is said of one would be about nothing.
    deterministic = bool((latents.mean_posterior_variance == 0).all())
    of_posteriors = [] if deterministic else [*_wide(latents), *_rules(latents), _law(latents)]
    findings = [*_misfit(reconstruction), _collapse(latents, zeroing), *of_posteriors, _variance_loss(reconstruction)]
    urgency = {"warning": 0, "note": 1, "good": 2}
    return sorted(findings, key=lambda finding: urgency[finding.level])


def few_images(count: int, variables: int) -> list[Advice]:
    """Return the finding that images are too few for a diagnosis; none where they are enough.

    Args:
        count: images measured.
        variables: of the latent space; of a spatial one, its channels.
    """
    wanted = max(_FEWEST, variables)
    if count >= wanted:
        return []
    doubt = 100 * math.sqrt(2 / (count - 1)) if count > 1 else math.inf
    fewer = f", and fewer than the {variables} latent variables" if count < variables else ""
    return [
        Advice(
            level="warning",
            headline=f"{count} images are too few for these statistics{fewer}.",
            text=(
                f"A variance over {count} images is uncertain by about {doubt:.0f} %, so verdicts may be other ones on other images. Give "
                f"at least {wanted:,}, better some thousand that the model was not trained on."
            ),
        )
    ]


def _misfit(reconstruction: Reconstruction) -> Sequence[Advice]:
    if reconstruction.error <= _WORSE * reconstruction.image_variance:
        return ()
    return (
        Advice(
            level="warning",
            headline="Reconstructions are farther from the images than one mean image would be.",
            text=(
                f"Their squared error is {reconstruction.error:.3g} a pixel, and that of the mean of these images "
                f"{reconstruction.image_variance:.3g}. Before anything else, see whether these are images such as the model was trained "
                "on (values between 0 and 1 or -1 and 1, order of the colours, kind of images), and whether it has its trained weights."
            ),
        ),
    )


def _collapse(latents: LatentTable, zeroing: Zeroing | None) -> Advice:
    total, active = len(latents), latents.active_count
    if active == 0 and not _posterior_is_the_prior(latents):
        return Advice(
            level="warning",
            headline=f"No verdict on the {total} latent variables: the codes of these images do not vary.",
            text=(
                "Their posteriors are not the prior, so this is no collapse of the model: the images are too few or too much alike. "
                "Measure on a few hundred that differ."
            ),
        )
    if active == 0:
        return Advice(
            level="warning",
            headline=f"Everything has collapsed: 0 of {total} latent variables are active.",
            text=(
                "The KL weight has won: every image gets the same code, and the decoder draws one mean image. The variance law "
                "can hold all the same, so do not be reassured by it. Train again with the running-error balance, or with a smaller "
                "KL weight or sigma."
            ),
        )
    if active == total:
        return Advice(
            level="note",
            headline=f"All {total} latent variables are in use.",
            text="The latent space may be too small for these data: try more variables and see whether the error falls.",
        )
    measured = ""
    if zeroing is not None:
        measured = (
            f" Setting them to 0 changes the error by {100 * zeroing.relative_change:+.2f} % and no pixel by more than "
            f"{zeroing.largest_output_difference:.2g}."
        )
    return Advice(
        level="good",
        headline=f"{active} of {total} latent variables are active, {total - active} collapsed.",
        text=(
            "The latent space is larger than these data need, which costs nothing but size: `latlas prune` writes the same model "
            f"without the collapsed ones.{measured}"
        ),
    )


def _wide(latents: LatentTable) -> Sequence[Advice]:
    narrowest = float(latents.mean_posterior_variance.min())
    if narrowest <= _WIDE:
        return ()
    return (
        Advice(
            level="warning",
            headline="Every posterior is wider than the prior.",
            text=(
                f"The narrowest has a variance of {narrowest:.3g} on average, and training leaves none above 1. Does the encoder "
                "give log-variances beside its means? Deviations or variances that are taken for those look like this: give the "
                "logarithm of the variance, or a torch.distributions.Normal."
            ),
        ),
    )


def _posterior_is_the_prior(latents: LatentTable) -> bool:
    """Tell whether variables carry next to nothing: a tenth of a nat each, at most, on average."""
    return float(latents.kl_nats.mean()) < _NEXT_TO_NOTHING


def _rules(latents: LatentTable) -> Sequence[Advice]:
    counts = {rule: int(collapsed.sum()) for rule, collapsed in latents.collapsed_by_rule.items()}
    if len(set(counts.values())) <= 1:
        return ()
    listed = "; ".join(f"{rule}: {count}" for rule, count in counts.items())
    return (
        Advice(
            level="note",
            headline="The published rules disagree on which variables are collapsed.",
            text=f"Collapsed by rule: {listed}. Variables on the border are used a little: look at their gain before you prune them; `latlas prune --keep` says what it costs.",
        ),
    )


def _law(latents: LatentTable) -> Advice:
    law = latents.variance_law
    mean, low, high = float(law.mean()), float(law.min()), float(law.max())
    caution = "The law holds in a collapsed model too, so it cannot tell health from collapse."
    if abs(mean - 1.0) <= _LAW_TOLERANCE:
        return Advice(
            level="good",
            headline=f"The variance law holds: {mean:.3f} on average.",
            text=f"Mean posterior variance + variance of means lies between {low:.2f} and {high:.2f}. {caution}",
        )
    return Advice(
        level="note",
        headline=f"The variance law is off: {mean:.3f} on average, where a stationary code has 1.",
        text=(
            f"It lies between {low:.2f} and {high:.2f}. The scale of the codes has not settled (train longer), or the decoder "
            "cannot rescale its input freely. Samples from the standard normal prior will not match the codes: fit a sampler."
        ),
    )


def _variance_loss(reconstruction: Reconstruction) -> Advice:
    if reconstruction.error == 0:
        return Advice(
            level="good",
            headline="Reconstructions are exact: there is no variance loss.",
            text="The latent space holds everything that these images hold.",
        )
    ratio = reconstruction.variance_loss_over_error
    low, high = _VARIANCE_LOSS_RANGE
    share = 100 * reconstruction.variance_loss / reconstruction.image_variance if reconstruction.image_variance > 0 else 0.0
    lost = f"Reconstructions lack {share:.0f} % of the variance of the images, {ratio:.2f} times their squared error."
    if low <= ratio <= high:
        return Advice(
            level="good",
            headline=f"Variance loss is {ratio:.2f} of the squared error, as a conditional mean has it.",
            text=f"{lost} The decoder draws the average of what a code could mean; that average is the blur you see.",
        )
    return Advice(
        level="note",
        headline=f"Variance loss is {ratio:.2f} times the squared error, where a conditional mean has 1.",
        text=f"{lost} The decoder is not the conditional mean of its codes on these images: over-fitted, cut short, or adversarial.",
    )
