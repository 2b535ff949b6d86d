"""KL against variance at several ratios of deviation to mean, as a page."""

import matplotlib as mpl

from latlas.reports import palette
from latlas.reports.figures import STYLE, as_svg, stacked_axes
from latlas.reports.page import Finding, Numbers, Picture, Report, Section, Table
from latlas.studies.kl_curve import KLCurveStudy

# Relative for a variance, which a search in float64 finds no better since a minimum is flat; in nats for the KL there.
_EXACT = 1e-6


def kl_curve_report(study: KLCurveStudy) -> Report:
    """Return the page of a study: the curves, their minima by formula and by search."""
    agrees = max(study.deviation, study.deviation_nats) < _EXACT
    finding = Finding(
        level="good" if agrees else "warning",
        headline="The least KL lies where variance + squared mean is 1."
        if agrees
        else "The search finds other minima than the formula.",
        text=f"Formula and search differ by {study.deviation:.1e} of the variance at most, and by {study.deviation_nats:.1e} nats "
        "of the KL there.",
    )
    rows = [
        [
            curve.ratio,
            curve.minimum,
            curve.found_minimum,
            curve.minimum / curve.ratio**2,
            curve.least_kl_nats,
            curve.found_kl_nats,
        ]
        for curve in study.curves
    ]
    return Report(
        title="KL against variance",
        subtitle="What the KL term asks of a variance, where the ratio of deviation to mean stays as it is.",
        summary=[finding],
        sections=[
            Section(
                title="Evidence",
                lead="A network can scale mean and deviation of a variable together at no cost. KL decides by how much.",
                blocks=[
                    Numbers(
                        items=[(study.deviation, "largest difference", "of the minima by formula and by search, relative")]
                    ),
                    Picture(
                        content=kl_curve_figure(study),
                        caption="KL to the prior in nats; points mark the minima that the formula gives.",
                        alt="One curve a ratio, each falling to a single minimum further right the larger the ratio.",
                    ),
                    Table(
                        columns=("ratio", "variance, formula", "variance, search", "squared mean", "KL, formula", "KL, search"),
                        rows=rows,
                        caption="Ratio: deviation over mean. Variance and squared mean of least KL; KL in nats.",
                    ),
                ],
            )
        ],
        numbers=study.to_json(),
        provenance=study.provenance,
        details={"ratios": ", ".join(f"{curve.ratio:g}" for curve in study.curves)},
    )


def kl_curve_figure(study: KLCurveStudy) -> str:
    """Return the curves of a study as a drawing."""
    with mpl.rc_context(STYLE):
        figure, (axes,) = stacked_axes(1, width=8.0, height=4.2)
        for number, curve in enumerate(study.curves):
            colour = palette.SERIES[number % len(palette.SERIES)]
            axes.plot(study.variances, curve.kl_nats, color=colour, label=f"ρ = {curve.ratio:g}")
            axes.scatter([curve.minimum], [curve.least_kl_nats], color=colour, zorder=3, s=36)
            axes.annotate(
                f"{curve.minimum:.3g}",
                (curve.minimum, curve.least_kl_nats),
                xytext=(0, -14),
                textcoords="offset points",
                ha="center",
                fontsize=9,
            )
        axes.set_xscale("log")
        axes.set_ylim(-0.35, 6.0)
        axes.set_xlabel("posterior variance σ²")
        axes.set_ylabel("KL (nats)")
        axes.set_title("KL against variance at a fixed ratio ρ = σ / |μ|; the minimum lies at ρ² / (1 + ρ²)")
        axes.legend(loc="upper left", bbox_to_anchor=(0.03, 1.0))
        return as_svg(figure)
