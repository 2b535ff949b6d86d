"""What pruning a model did and cost, as a page."""

import math
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.ticker import MaxNLocator

from latlas.base.records import plain
from latlas.data.images import ImageSet
from latlas.models.protocols import LatentModel, require_autoencoder
from latlas.reports import figures, palette, pictures
from latlas.reports.diagnosis import enlargement, reconstruct
from latlas.reports.page import Block, Finding, Numbers, Picture, Report, Section, Table
from latlas.reports.wording import capital, counted_images, images_in_words
from latlas.studies.pruning import PrunedModel

_SHOWN = 12  # images a row
_UNCHANGED = 0.005  # of the error: what a collapsed variable may cost
_EXACT = 1e-5  # in [0, 1] units: rounding of float32 through a network
_FEW = 100  # images, below which a variable may only seem not to vary


def pruning_report(result: PrunedModel, original: LatentModel, images: ImageSet) -> Report:
    """Return the page: findings, the curve, pictures, one row a variable.

    Args:
        result: of `prune`.
        original: the model that was pruned.
        images: to show; those that errors were measured on.
    """
    errors = result.errors
    some = images.slice(0, _SHOWN)
    originals = some.tensor()
    table: Any = plain(result.table)  # where the KL of a deterministic encoder is no number
    strips = (
        originals,
        reconstruct(require_autoencoder(original, "A report"), originals),
        reconstruct(result.model, originals),
    )
    keys = (
        "variable",
        "becomes",
        "constant",
        "variance_of_means",
        "mean_posterior_variance",
        "kl_nats",
        "gain",
        "verdict",
    )
    blocks: list[Block] = [
        Numbers(
            items=[
                (f"{len(result.kept)} of {result.variables}", "variables kept", f"{result.latents.active_count} are active"),
                (errors.before, "error before", f"squared, per pixel, on {images_in_words(errors.images)}"),
                (errors.after, "error after", _change(result)),
                (errors.largest_output_difference, "largest difference", "from the original with removed variables held"),
            ]
        ),
        Picture(
            content=error_curve(result),
            caption=(
                "Variables of the largest reconstruction gain are kept first; the others are held at their means. What a variable buys "
                "depends on which others there are, so that the order need not be the best one."
            ),
            alt="Line chart of the reconstruction error against the number of variables kept.",
        ),
        Picture(
            content=pictures.grid(pictures.rows(*strips), columns=len(some), enlarge=enlargement(images)),
            caption=f"{capital(counted_images(some.name, len(some)))}, what the original makes of them, and what the pruned model makes of them.",
            alt="Three rows of images: originals, reconstructions before and after pruning.",
            row_labels=("original", "before", "pruned"),
        ),
        Table(
            columns=(
                "variable",
                "becomes",
                "constant",
                "variance of means",
                "mean posterior variance",
                "KL, nats",
                "gain",
                "verdict",
            ),
            rows=[[row[key] for key in keys] for row in table],
            caption=(
                f"One row a latent variable of {result.original}, measured on {images_in_words(result.images)}. Becomes: its place in the new codes; a "
                "dash where it was removed, and is held at the constant."
            ),
            dim=[row["becomes"] is None for row in table],
        ),
    ]
    return Report(
        title=f"{result.original}, with {len(result.kept)} of {result.variables} variables",
        subtitle=(
            f"Means and gains were measured on {images_in_words(result.images)}, errors on "
            f"{counted_images(errors.images, errors.count)}."
        ),
        summary=pruning_findings(result),
        sections=[Section(title="Evidence", lead="", blocks=blocks)],
        numbers=result.to_json(),
        provenance=result.provenance,
        details={"original": result.original, "images": result.images, "measured on": errors.images},
    )


def pruning_findings(result: PrunedModel) -> list[Finding]:
    """Return what pruning did and cost, in words; the cost first."""
    errors, kept, total = result.errors, len(result.kept), result.variables
    active_lost = sum(bool(result.latents.active[variable]) for variable in result.removed)
    lost = f" {active_lost} of the removed ones {'are' if active_lost > 1 else 'is'} active." if active_lost else ""
    findings = [
        Finding(
            level="good" if errors.relative_change <= _UNCHANGED else "note",
            headline=f"{kept} of {total} latent variables are kept, and the error {_change(result)}.",
            text=(
                f"Squared error per pixel on {counted_images(errors.images, errors.count)}: {errors.before:.4g} before, {errors.after:.4g} "
                f"after.{lost}"
            ),
        ),
        Finding(
            level="good" if errors.largest_output_difference <= _EXACT else "note",
            headline=(
                "The pruned model computes what the original does with the removed variables at their means: no pixel differs by "
                f"more than {_EXACT:g}."
            )
            if errors.largest_output_difference <= _EXACT
            else (
                f"Pixels differ by up to {errors.largest_output_difference:.2g} from the original with the removed variables at their "
                "means."
            ),
            text=""
            if errors.largest_output_difference <= _EXACT
            else (
                "An encoder that watches its decoder draw, as DRAW's, sees the constants at every step and gives other codes for them, "
                "which make up for part of what is lost. The curve holds variables of the original's own codes."
            ),
        ),
    ]
    varying = result.varying_by_position
    if varying:
        findings.append(
            Finding(
                level="note",
                headline=(
                    f"{_channels(varying)} nothing of the images, and {'is' if len(varying) == 1 else 'are'} kept all the same."
                ),
                text="The mean differs from position to position, so that no one constant could stand for it.",
            )
        )
    if result.count < _FEW:
        findings.append(
            Finding(
                level="warning",
                headline=f"Means and gains are of {result.count} images only.",
                text=f"So few may not show that a variable varies. Measure on {_FEW} at least, better a few thousand.",
            )
        )
    return findings


def error_curve(result: PrunedModel) -> str:
    """Draw the error against the number of kept variables, and where this model stands."""
    counts = [point.kept for point in result.curve]
    errors = [point.error for point in result.curve]
    chosen = len(result.kept)
    left = chosen < 0.6 * result.variables  # where the curve may still be steep, and would cross words above the point
    with mpl.rc_context(figures.STYLE):
        figure, (axes,) = figures.stacked_axes(1, width=8.0, height=3.0)
        axes.plot(counts, errors, color=palette.ACTIVE, lw=1.6, marker="o", ms=3.5)
        axes.axhline(result.errors.before, color=palette.MUTED, ls="--", lw=1)
        axes.annotate(
            "as it was", (0, result.errors.before), xytext=(0, 4), textcoords="offset points", fontsize=9, va="bottom"
        )
        axes.scatter([chosen], [result.errors.after], color=palette.KL, s=60, marker="D", zorder=3)
        axes.annotate(
            f"pruned: {chosen} of {result.variables}",
            (chosen, result.errors.after),
            xytext=(8, 6) if left else (0, 10),
            textcoords="offset points",
            fontsize=9,
            ha="left" if left else "center",
            va="bottom",
        )
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("variables kept, by reconstruction gain")
        axes.set_ylabel("squared error\nper pixel")
        axes.set_title("What each number of variables costs")
        return figures.as_svg(figure)


def _change(result: PrunedModel) -> str:
    errors = result.errors
    if not errors.before > 0:
        return f"becomes {errors.after:.4g}" if errors.after > 0 else "stays 0"
    error = errors.relative_standard_error
    within = "" if math.isnan(error) else f" (± {200 * error:.2g})"
    return f"changes by {100 * errors.relative_change:+.3g} %{within}"


def _channels(variables: Sequence[int]) -> str:
    listed = ", ".join(map(str, variables))
    return f"Channel {listed} carries" if len(variables) == 1 else f"Channels {listed} carry"
