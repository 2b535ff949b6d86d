"""A map between two latent spaces, as a section of a page."""

from collections.abc import Sequence

from latlas.data.images import ImageSet
from latlas.models.protocols import LatentModel, require_autoencoder
from latlas.reports import figures, palette, pictures
from latlas.reports.diagnosis import decode_some, encode_some, enlargement, reconstruct
from latlas.reports.page import Block, Finding, Numbers, Picture, Report, Section, Table
from latlas.studies.compare import Comparison, Error

_SHOWN = 12


def comparison_section(
    comparison: Comparison, source_model: LatentModel, target_model: LatentModel, images: ImageSet
) -> Section:
    """Return the section: the three rows of the post, the errors beside their bounds."""
    source = require_autoencoder(source_model, "A report")
    target = require_autoencoder(target_model, "A report")
    shown = images.slice(0, _SHOWN)
    originals = shown.tensor()
    codes = encode_some(source, originals)
    strips = (
        originals,
        decode_some(source, codes),
        decode_some(target, comparison.linear_map.apply(codes)),
        reconstruct(target, originals),
    )
    record = comparison.to_json()
    no_map = (
        "not defined (sizes differ)"
        if record["M_over_no_map"] is None
        else f"{record['M_over_no_map']:.2f} of decoding without a map"
    )
    blocks: list[Block] = [
        Numbers(
            items=[
                (record["M_over_target_R"], "M over the best possible", "the target's own reconstruction has 1"),
                (record["M_over_decode_encode"], "M over decode-encode", "the route through image space"),
                (
                    record["L_over_target_variance"],
                    "share of latent variance lost",
                    "L error over the variance of target codes",
                ),
                (
                    f"{comparison.linear_map.source_size} → {comparison.linear_map.target_size}",
                    "variables",
                    f"{comparison.linear_map.evidence.get('pairs', 0):,} pairs fitted",
                ),
            ]
        ),
        Picture(
            content=pictures.grid(pictures.rows(*strips), columns=len(shown), enlarge=enlargement(images)),
            caption="Third row: the source's codes, carried over by one matrix and a shift, decoded by the target. No image was used on the way.",
            alt="Four rows of images: originals, source reconstructions, relocations, target reconstructions.",
            row_labels=("original", "source", "relocated", "target itself"),
        ),
        Picture(
            content=figures.error_bars(
                _bars(comparison),
                title="Error in image space (bars: 2 standard errors)",
                unit="squared error per pixel on test images",
            ),
            caption="A relocation lies between the target's own reconstruction and what needs no map at all: shuffled pairs, the mean code, the source's codes as they are.",
            alt="Horizontal bars of the errors of the map and of its bounds.",
        ),
        Table(
            columns=("error", "value", "standard error", "what it is"),
            rows=[[name, error.mean, error.standard_error, meaning] for name, error, meaning in _errors(comparison)],
            caption=f"Measured on {comparison.images}; fitted on {comparison.fitted_on}.",
        ),
    ]
    finding = Finding(
        level="good" if record["M_over_shuffled"] < 0.5 else "warning",
        headline=f"The relocation costs {100 * (record['M_over_target_R'] - 1):.0f} % more error than the target's own reconstruction.",
        text=f"It is {record['M_over_shuffled']:.2f} of what shuffled pairs give, and {no_map}.",
    )
    return Section(
        title="From one latent space to another",
        lead=f"A linear map, in closed form, from {comparison.source} to {comparison.target}.",
        blocks=blocks,
        findings=[finding],
    )


def comparison_report(comparison: Comparison, source: LatentModel, target: LatentModel, images: ImageSet) -> Report:
    """Return the page of one comparison."""
    section = comparison_section(comparison, source, target, images)
    return Report(
        title=f"{comparison.source} → {comparison.target}",
        subtitle="What is lost when codes are carried from one latent space to another by a linear map, in image space.",
        summary=section.findings,
        sections=[Section(title="Evidence", lead=section.lead, blocks=section.blocks)],
        numbers=comparison.to_json(),
        provenance=comparison.provenance,
        details={"source": comparison.source, "target": comparison.target, "images": comparison.images},
    )


def _errors(comparison: Comparison) -> Sequence[tuple[str, Error, str]]:
    listed = [
        ("target R", comparison.target_R, "target reconstructs the image: the best possible"),
        ("R", comparison.R, "source reconstructs the image"),
        ("decode-encode", comparison.decode_encode, "target reconstructs the source's reconstruction"),
        ("M", comparison.M, "target decodes the relocated code"),
        ("shuffled", comparison.shuffled, "a map fitted on shuffled pairs"),
        ("mean code", comparison.mean_code, "target decodes its mean code"),
    ]
    if comparison.no_map is not None:
        listed.append(("no map", comparison.no_map, "target decodes the source's code as it is"))
    return [*listed, ("L", comparison.L, "squared error of the relocated code, per variable")]


def _bars(comparison: Comparison) -> list[tuple[str, float, float, str]]:
    colours = {"target R": palette.TARGET, "R": palette.SOURCE, "M": palette.RELOCATED}
    return [
        (name, error.mean, error.standard_error, colours.get(name, palette.BOUND))
        for name, error, _ in _errors(comparison)
        if name != "L"
    ]
