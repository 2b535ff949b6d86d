"""Samplers side by side, as a page."""

import torch

from latlas.base.seeds import generator
from latlas.data.images import ImageSet
from latlas.measurements.reconstruction import decode_batches
from latlas.models.protocols import Autoencoder, LatentModel, require_autoencoder
from latlas.reports import figures, palette, pictures
from latlas.reports.diagnosis import enlargement
from latlas.reports.page import Block, Finding, Numbers, Picture, Report, Section, Table
from latlas.reports.wording import images_in_words
from latlas.samplers.sampler import Sampler
from latlas.studies.calibrate import Calibration

_SHOWN = 12


def calibration_report(calibration: Calibration, model: LatentModel, heldout: ImageSet) -> Report:
    """Return the page of one calibration: what was chosen, by how much, and what each sampler draws."""
    autoencoder = require_autoencoder(model, "A report")
    best = calibration.best
    prior = next((score for score in calibration.scores if score.sampler.name == "prior"), None)
    over = None if prior is None else best.reported.value / prior.reported.value
    ranked = [
        ("real images", calibration.real, palette.TARGET),
        ("reconstructions", calibration.reconstructions, palette.SOURCE),
    ]
    ranked += [
        (score.sampler.name, score.reported, palette.RELOCATED if score is best else palette.BOUND)
        for score in calibration.scores
    ]
    shown = [score.sampler for score in calibration.scores]
    blocks: list[Block] = [
        Numbers(
            items=[
                (best.sampler.name, "sampler chosen", "on one half of the held-out images"),
                (
                    best.reported.value,
                    "its Fréchet distance",
                    f"± {2 * (best.reported.standard_error or 0):.2g}, on the other half",
                ),
                (over, "over that of the prior", "below 1: closer to real images"),
                (calibration.reconstructions.value, "of reconstructions", "what this decoder allows"),
            ]
        ),
        Picture(
            content=figures.error_bars(
                [(name, found.value, found.standard_error or 0.0, colour) for name, found, colour in ranked],
                title=f"Fréchet distance to held-out images (bars: 2 standard errors), features: {calibration.features}",
                unit=f"squared distance of {calibration.features} features, {calibration.count:,} images each",
            ),
            caption="Real images: one half of the held-out ones against the other. No sampler of this decoder can be expected below its reconstructions.",
            alt="Horizontal bars of the distance of each sampler's images to real ones.",
        ),
        Picture(
            content=pictures.grid(
                torch.cat([draw_some(autoencoder, sampler, calibration) for sampler in shown]),
                columns=_SHOWN,
                enlarge=enlargement(heldout),
            ),
            caption="Each row is one sampler, the best on the choosing half first, all drawn from one seed.",
            alt="Rows of generated images, one a sampler.",
            row_labels=tuple(sampler.name for sampler in shown),
        ),
        Table(
            columns=("sampler", "distance", "standard error", "on the choosing half", "variance ratio"),
            rows=[
                [
                    score.sampler.name,
                    score.reported.value,
                    score.reported.standard_error,
                    score.chosen_by.value,
                    score.sampler.variance_ratio,
                ]
                for score in calibration.scores
            ],
            caption="In the order of the choosing half. Variance ratio: variance of drawn codes over that of the codes fitted, before any renormalisation.",
        ),
    ]
    findings = [
        Finding(
            level="good" if over is not None and over < 1 else "note",
            headline=f"The {best.sampler.name} sampler fits best.",
            text="" if over is None else f"Its images lie at {over:.2f} of the prior's distance from held-out ones.",
        ),
        *(Finding(level="warning", headline=warning) for warning in calibration.warnings),
    ]
    return Report(
        title=f"Which sampler fits? {calibration.model}",
        subtitle=f"Every sampler fitted on training codes, judged on images held out: {images_in_words(calibration.heldout)}.",
        summary=findings,
        sections=[Section(title="Evidence", lead="", blocks=blocks)],
        numbers=calibration.to_json(),
        provenance=calibration.provenance,
        details={"model": calibration.model, "held-out images": calibration.heldout, "features": calibration.features},
    )


def draw_some(model: Autoencoder, sampler: Sampler, calibration: Calibration) -> torch.Tensor:
    """Return a row of images that a sampler draws, from one seed for all samplers."""
    codes = sampler.sample(_SHOWN, generator(calibration.provenance.seed or 0, "samples"))
    return torch.cat(list(decode_batches(model, codes)))
