"""The health sheet of a model, as a section of a page."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from latlas.base.records import plain
from latlas.data.images import ImageSet
from latlas.measurements.scaling import LatentScaling
from latlas.measurements.traversals import traverse
from latlas.models.protocols import Autoencoder, LatentModel, device_of, require_autoencoder
from latlas.numerics.posteriors import ACTIVE_VARIANCE
from latlas.reports import figures, pictures
from latlas.reports.page import Block, Finding, Numbers, Picture, Report, Section, Table
from latlas.reports.wording import capital, counted_images
from latlas.studies.diagnose import Diagnosis

_SHOWN = 12  # images a row
_TRAVERSED = 7  # variables


def diagnosis_section(
    diagnosis: Diagnosis,
    model: LatentModel,
    images: ImageSet,
    *,
    title: str | None = None,
    lead: str | None = None,
    history: Sequence[Mapping[str, Any]] = (),
) -> Section:
    """Return the section: findings, pictures, one row a variable."""
    autoencoder = require_autoencoder(model, "A report")
    summary, table = diagnosis.summary, plain(diagnosis.table)  # where the KL of a deterministic encoder is no number
    blocks: list[Block] = [
        Numbers(
            items=[
                (f"{summary['active']} of {summary['variables']}", "variables active", "variance of means above 0.01"),
                (summary["mse"], "squared error per pixel", f"± {2 * summary['mse_standard_error']:.1e} (2 standard errors)"),
                (summary["variance_loss_over_mse"], "variance loss over error", "1 for a conditional mean"),
                (
                    summary["variance_law_mean"],
                    "variance law",
                    f"{summary['variance_law_min']:.2f} to {summary['variance_law_max']:.2f}",
                ),
                (
                    summary["kl_nats"] if math.isfinite(summary["kl_nats"]) else None,
                    "KL, nats",
                    "mean over images, all variables"
                    if math.isfinite(summary["kl_nats"])
                    else "a deterministic encoder has none",
                ),
            ]
        ),
        reconstructions(autoencoder, images.slice(0, _SHOWN)),
    ]
    if len(autoencoder.latent_shape) == 1:
        alive = [variable for variable in diagnosis.gain.order() if bool(diagnosis.latents.active[variable])]
        blocks.append(traversals(autoencoder, (alive or diagnosis.gain.order())[:_TRAVERSED], images))
    blocks.append(
        Picture(
            content=figures.gain_and_kl(table),
            caption="A variable is worth keeping while it buys more than it costs. Collapsed variables (grey) buy nothing and cost nothing.",
            alt="Bar charts of reconstruction gain and KL divergence of each latent variable.",
        )
    )
    if len(history) > 1:
        blocks.append(
            Picture(
                content=figures.evolution(history, threshold=ACTIVE_VARIANCE),
                caption="Measured on the training images of each epoch. Grey variables end below the threshold: the decoder ignores them.",
                alt="Line chart of the variance of means of each variable over training epochs.",
            )
        )
    blocks.append(
        Picture(
            content=figures.variance_law(table),
            caption="Where the sum is 1 the scale of the code has settled. Collapsed variables obey the law too.",
            alt="Stacked bars of variance of means and mean posterior variance for each variable.",
        )
    )
    blocks.append(_table(table))
    if diagnosis.scaling is not None:
        blocks += scaling_blocks(diagnosis.scaling)
    findings = [Finding(headline=advice.headline, text=advice.text, level=advice.level) for advice in diagnosis.advice]
    return Section(
        title=title if title is not None else f"Health of the {diagnosis.model}",
        lead=lead if lead is not None else f"Measured on {counted_images(diagnosis.images, diagnosis.count)}.",
        blocks=blocks,
        findings=findings,
    )


def diagnosis_report(diagnosis: Diagnosis, model: LatentModel, images: ImageSet) -> Report:
    """Return the page of one diagnosis."""
    section = diagnosis_section(diagnosis, model, images)
    return Report(
        title=f"Is this model healthy? {diagnosis.model}",
        subtitle=f"Every latent variable of it, measured on {counted_images(diagnosis.images, diagnosis.count)}.",
        summary=section.findings,
        sections=[Section(title="Evidence", lead=section.lead, blocks=section.blocks)],
        numbers=diagnosis.to_json(),
        provenance=diagnosis.provenance,
        details={"model": diagnosis.model, "images": diagnosis.images},
    )


def reconstructions(model: Autoencoder, images: ImageSet) -> Picture:
    """Return originals above their reconstructions."""
    originals = images.tensor()
    return Picture(
        content=pictures.grid(
            pictures.rows(originals, reconstruct(model, originals)), columns=len(images), enlarge=enlargement(images)
        ),
        caption=f"{capital(counted_images(images.name, len(images)))} (top), and what the model makes of them (bottom).",
        alt="Two rows of images: originals, reconstructions.",
        row_labels=("original", "reconstruction"),
    )


def traversals(model: Autoencoder, variables: Sequence[int], images: ImageSet) -> Picture:
    """Return one row a variable: the first image's code with that variable running over [-2.25, 2.25]."""
    code = encode_some(model, images.slice(0, 1).tensor())[0]
    strips = [traverse(model, code, variable) for variable in variables]
    return Picture(
        content=pictures.grid(pictures.rows(*strips), columns=strips[0].shape[0], enlarge=enlargement(images)),
        caption="The most informative variables, one a row, each running from −2.25 to 2.25 while the others keep the code of the first image.",
        alt="Rows of images in which one latent variable changes.",
        row_labels=tuple(f"variable {variable}" for variable in variables),
    )


def scaling_blocks(scaling: LatentScaling) -> list[Block]:
    """Return the numbers that a trainer of a diffusion model sets, for all channels together and for each."""
    items = [
        (scaling.scaling_factor, "scaling_factor", _sure(scaling.scaling_factor_error)),
        (scaling.shift_factor, "shift_factor", _sure(scaling.shift_factor_error)),
    ]
    stated = scaling.configured
    if stated is not None:
        items.append(
            (stated.deviation, "deviation after the model's own scale", f"1 is meant, {_sure(stated.deviation_error)}")
        )
    means, stds = scaling.latents_mean.tolist(), scaling.latents_std.tolist()
    errors = zip(scaling.latents_mean_error.tolist(), scaling.latents_std_error.tolist(), strict=True)
    table = Table(
        columns=("channel", "latents_mean", "standard error", "latents_std", "standard error"),
        rows=[[i, means[i], mean_error, stds[i], std_error] for i, (mean_error, std_error) in enumerate(errors)],
        caption=(
            "For a diffusion model on raw latents: (latent - shift_factor) * scaling_factor for all channels alike, or "
            "(latent - latents_mean) / latents_std. Of latents drawn from the posteriors; errors are over images."
        ),
    )
    return [Numbers(items=items), table]


def _sure(error: float) -> str:
    return "" if math.isnan(error) else f"± {2 * error:.1e} (2 standard errors)"


def encode_some(model: Autoencoder, images: Tensor) -> Tensor:
    """Return the means of a few images."""
    return model.encode(images.to(device_of(model))).mean.detach().float().cpu()


def decode_some(model: Autoencoder, codes: Tensor) -> Tensor:
    """Return the images of a few codes."""
    return model.decode(codes.to(device_of(model))).detach().float().cpu()


def reconstruct(model: Autoencoder, images: Tensor) -> Tensor:
    """Return the reconstructions of a few images."""
    return decode_some(model, encode_some(model, images))


def enlargement(images: ImageSet) -> int:
    """Return the whole factor that brings small images to a size people can look at."""
    return max(1, round(64 / images.image_shape[2]))


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    columns = ("variable", "mean", "variance of means", "mean posterior variance", "sum", "KL, nats", "gain", "verdict")
    keys = ("variable", "mean", "variance_of_means", "mean_posterior_variance", "variance_law", "kl_nats", "gain", "verdict")
    return Table(
        columns=columns,
        rows=[[row[key] for key in keys] for row in rows],
        caption="One row a latent variable. Verdict: Burda's threshold, variance of means above 0.01. Gain: squared error per pixel.",
        dim=[row["verdict"] == "collapsed" for row in rows],
    )
