"""A map between two latent spaces, as a section of a page."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from latlas.data.images import ImageSet
from latlas.measurements.reconstruction import decode_batches
from latlas.models.protocols import Decoder, LatentModel
from latlas.reports import figures, map_figures, palette, pictures
from latlas.reports.diagnosis import enlargement
from latlas.reports.page import Block, Finding, Numbers, Picture, Report, Section, Table
from latlas.reports.wording import images_in_words
from latlas.studies.comparison import Comparison
from latlas.studies.pairs import pair_on_images
from latlas.studies.routes import Error, Times

_SHOWN = 12
_WELL = 0.5  # M over shuffled pairs up to which a map is said to work


def comparison_section(
    comparison: Comparison, source_model: LatentModel, target_model: LatentModel, images: ImageSet | None = None
) -> Section:
    """Return the section: images and what each way makes of them, the errors beside their bounds, time, and likeness.

    Args:
        comparison: what was measured.
        source_model: as compared.
        target_model: as compared.
        images: whose first few to show, encoded by both; None for the first ones measured on.
    """
    record = comparison.to_json()
    blocks: list[Block] = [
        _headline(comparison, record),
        _strips(comparison, source_model, target_model, images),
        Picture(
            content=figures.error_bars(
                _bars(comparison),
                title="Error in image space (bars: 2 standard errors)",
                unit="squared error per pixel on test images",
            ),
            caption="A relocation lies between the target's own reconstruction and what needs no map at all: shuffled pairs, the mean code, the source's codes as they are.",
            alt="Horizontal bars of the errors of the map and of its bounds.",
        ),
        _table(comparison),
    ]
    if any(share is not None for share in comparison.r2):
        blocks.append(
            Picture(
                content=map_figures.r2_bars(
                    comparison.r2, what="channel" if len(comparison.latent_shapes[1]) == 3 else "variable"
                ),
                caption="1: the source knows it, linearly. Near 0: it is not in the source's codes, or not linearly. A variable that is collapsed in the target carries noise alone and cannot be predicted.",
                alt="Bars of the share of variance of each target variable that the map predicts.",
            )
        )
    blocks += [] if comparison.times is None else [_times(comparison.times)]
    blocks += _likeness(comparison)
    return Section(
        title="From one latent space to another",
        lead=f"A linear map, in closed form, from {comparison.source} to {comparison.target}.",
        blocks=blocks,
        findings=_findings(comparison, record),
    )


def comparison_report(
    comparison: Comparison, source: LatentModel, target: LatentModel, images: ImageSet | None = None
) -> Report:
    """Return the page of one comparison."""
    section = comparison_section(comparison, source, target, images)
    return Report(
        title=f"{comparison.source} → {comparison.target}",
        subtitle="What is lost when codes are carried from one latent space to another by a linear map, in image space.",
        summary=section.findings,
        sections=[Section(title="Evidence", lead=section.lead, blocks=section.blocks)],
        numbers=comparison.to_json(),
        provenance=comparison.provenance,
        details={"fitted on": comparison.fitted_on, "measured on": comparison.images},
    )


def decode(model: LatentModel, codes: Tensor) -> Tensor:
    """Return the images of a few codes."""
    assert isinstance(model, Decoder)  # or it could not have been compared
    return torch.cat(list(decode_batches(model, codes)))


def _headline(comparison: Comparison, record: Mapping[str, Any]) -> Numbers:
    sizes = " → ".join("x".join(map(str, shape)) for shape in comparison.latent_shapes)
    evidence = comparison.linear_map.evidence
    pairs = evidence.get("pairs", evidence.get("codes"))
    return Numbers(
        items=[
            (record["M_over_target_R"], "M over the target's own error", "the target's own reconstruction has 1"),
            (record["recovered_share"], "recovered share", "0: the mean code; 1: the target's own codes"),
            (record["M_over_decode_encode"], "M over decode-encode", "the route through image space"),
            (record["L_over_target_variance"], "share of latent variance lost", "L error over the variance of target codes"),
            (sizes, "variables", f"{pairs:,} pairs fitted" if isinstance(pairs, int) else ""),
        ]
    )


def _strips(comparison: Comparison, source: LatentModel, target: LatentModel, images: ImageSet | None) -> Picture:
    pairs = comparison.examples if images is None else pair_on_images(source, target, images.slice(0, _SHOWN))
    pairs = pairs.first(_SHOWN)
    codes = pairs.source.mean
    rows = {
        "original": pairs.images.tensor(),
        "source": decode(source, codes),
        "relocated": decode(target, comparison.relocate(codes)),
        "target itself": decode(target, pairs.target.mean),
    }
    known = comparison.known_codes
    note = ""
    if known is not None:
        rows.pop("source" if known == comparison.source else "target itself")  # the original itself
        note = f" The images are {known}'s own, so that its codes are known and its own row would be the first."
    place = list(rows).index("relocated") + 1
    return Picture(
        content=pictures.grid(pictures.rows(*rows.values()), columns=len(pairs), enlarge=enlargement(pairs.images)),
        caption=f"Row {place}: the source's codes, carried over by one linear map, decoded by the target. No image was used on the way.{note}",
        alt=f"Rows of images: {', '.join(rows)}.",
        row_labels=tuple(rows),
    )


def _errors(comparison: Comparison) -> Sequence[tuple[str, str, Error, str]]:
    known = "its codes are known: 0 but for rounding"
    source_known = comparison.known_codes == comparison.source
    target_known = comparison.known_codes == comparison.target
    listed: list[tuple[str, str, Error | None, str]] = [
        (
            "target_R",
            "target R",
            comparison.target_R,
            known if target_known else "target reconstructs the image: what a perfect map would give",
        ),
        ("R", "R", comparison.R, known if source_known else "source reconstructs the image"),
        ("decode_encode", "decode-encode", comparison.decode_encode, "target reconstructs the source's reconstruction"),
        ("M", "M", comparison.M, "target decodes the relocated code"),
        (
            "yardstick",
            "perceptron",
            None if comparison.yardstick is None else comparison.yardstick.M,
            "the same with a perceptron for a map",
        ),
        ("round_trip", "round trip", comparison.round_trip, "source decodes the code carried there and back"),
        ("shuffled", "shuffled", comparison.shuffled, "a map fitted on shuffled pairs"),
        ("mean_code", "mean code", comparison.mean_code, "target decodes its mean code"),
        ("no_map", "no map", comparison.no_map, "target decodes the source's code as it is"),
    ]
    return [(key, name, error, meaning) for key, name, error, meaning in listed if error is not None]


def _bars(comparison: Comparison) -> list[tuple[str, float, float, str]]:
    colours = {"target R": palette.TARGET, "R": palette.SOURCE, "M": palette.RELOCATED}
    return [
        (name, error.mean, error.standard_error, colours.get(name, palette.BOUND)) for _, name, error, _ in _errors(comparison)
    ]


def _table(comparison: Comparison) -> Table:
    routes = comparison.routes
    some = routes["M"]
    extra: list[tuple[str, Any]] = []
    if some.psnr is not None:
        extra.append(("PSNR, dB", lambda route: _finite(route.psnr.mean)))
    if some.ssim is not None:
        extra.append(("SSIM", lambda route: route.ssim.mean))
    if some.perceptual is not None:
        extra.append(("perceptual", lambda route: route.perceptual.mean))
    if some.frechet is not None:
        extra.append(("Fréchet", lambda route: route.frechet and route.frechet.value))
    rows: list[list[Any]] = [
        [name, error.mean, error.standard_error, error.deviation, *(read(routes[key]) for _, read in extra), meaning]
        for key, name, error, meaning in _errors(comparison)
    ]
    L = comparison.L
    rows.append(
        [
            "L",
            L.mean,
            L.standard_error,
            L.deviation,
            *([None] * len(extra)),
            "squared error of the relocated code, per variable",
        ]
    )
    return Table(
        columns=("error", "value", "standard error", "spread", *(name for name, _ in extra), "what it is"),
        rows=rows,
        caption=f"Measured on {images_in_words(comparison.images)}; fitted on {images_in_words(comparison.fitted_on)}. "
        "Spread: standard deviation over images."
        + (f" In the column Fréchet: {comparison.features} to the test images." if comparison.features else ""),
    )


def _times(times: Times) -> Picture:
    ending = ("decode by the target", times.target_decode, palette.TARGET)
    routes = [("by map", [("relocate", times.relocate, palette.RELOCATED), ending])]
    if times.target_encode is not None:
        steps = [
            ("decode by the source", times.source_decode, palette.SOURCE),
            ("encode by the target", times.target_encode, palette.BOUND),
        ]
        routes.append(("through images", [*steps, ending]))
    record = times.to_json()
    shares = record["relocate_over_decode_encode"]
    said = (
        "The target does not encode: there is no way through images."
        if shares is None
        else f"From code to code, without the last decoding, the map takes {100 * shares:.2g} % of the time of the way through images."
    )
    return Picture(
        content=map_figures.route_times(routes, images=times.batch),
        caption=f"{said} Medians over {times.rounds} batches, measured in one run.",
        alt="Bars of the time of the two routes, divided into steps.",
    )


def _likeness(comparison: Comparison) -> list[Block]:
    found = comparison.similarity
    if found is None:
        return []
    return [
        Table(
            columns=("likeness of the codes", "value", "what it is"),
            rows=[
                ["linear CKA", found.cka, "1 where the codes differ by rotation and scale"],
                ["debiased CKA", _finite(found.cka_debiased), "the same without the bias of few pairs"],
                ["SVCCA", found.svcca, "mean canonical correlation of the directions that hold 99 % of the variance"],
                ["mean CCA", found.mean_cca, "over all directions, collapsed variables among them"],
                ["Procrustes distance", found.procrustes, "0 where the codes differ by rotation and scale, at most 2"],
            ],
            caption=f"{found.pairs:,} pairs of test codes. These need no map and know no image: the errors above decide.",
        )
    ]


def _findings(comparison: Comparison, record: Mapping[str, Any]) -> list[Finding]:
    over, share = record["M_over_target_R"], record["recovered_share"]
    told = (
        ""
        if share is None
        else f"It recovers {100 * share:.0f} % of what lies between the mean code and the target's own codes. "
    )
    headline = (
        f"The relocation has {100 * abs(over - 1):.0f} % {'more' if over >= 1 else 'less'} error than the target's own reconstruction."
        if over is not None
        else told.strip() or "Neither the map nor the target loses anything."
    )
    no_map = (
        "no map cannot be had (shapes differ)"
        if comparison.no_map is None
        else "decoding without a map is exact"
        if record["M_over_no_map"] is None
        else f"{record['M_over_no_map']:.2f} of decoding without a map"
    )
    shuffled = record["M_over_shuffled"]
    beside = "" if shuffled is None else f"It is {shuffled:.2f} of what shuffled pairs give; {no_map}."
    findings = [
        Finding(
            level="good" if shuffled is not None and shuffled < _WELL else "warning",
            headline=headline,
            text=(told if over is not None else "") + beside,
        )
    ]
    if comparison.known_codes is not None:
        findings.append(
            Finding(
                headline=f"{comparison.known_codes} was compared on its own stream.",
                text="Its codes were drawn, not encoded: its own error is 0 by construction.",
            )
        )
    if share is None:
        findings.append(
            Finding(
                level="warning",
                headline=f"{comparison.target} decodes every code to nearly the same image.",
                text="Its own codes are worth no more than their mean: there is nothing that a map could recover. Train it again.",
            )
        )
    trip = record["round_trip_over_R"]
    if trip is not None:
        findings.append(Finding(headline=f"There and back, the source's error grows to {trip:.2f} of its own reconstruction."))
    if comparison.yardstick is not None:
        left = record["yardstick"]["M_over_linear"]
        if left is not None:
            findings.append(
                Finding(
                    headline=f"A perceptron on the same pairs reaches {left:.2f} of the linear map's M error.",
                    text=f"{100 * (1 - left):.0f} % of that error is what linearity leaves behind."
                    if left < 1
                    else "Linearity leaves nothing behind that a perceptron finds.",
                )
            )
    warnings = comparison.linear_map.evidence.get("warnings", ())
    findings += [Finding(level="warning", headline=str(warning)) for warning in warnings]
    return findings


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
