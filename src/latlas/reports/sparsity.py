"""How many variables collapse, as a page: the published tables beside ours."""

from latlas.numerics.posteriors import ACTIVE_VARIANCE
from latlas.reports import figures, pictures
from latlas.reports.page import Block, Finding, Numbers, Picture, Report, Section, Table
from latlas.reports.sparsity_figures import collapsed_counts
from latlas.studies.sparsity import Count, SparsityRun, SparsityStudy

# Asperti 2018, on MNIST: variance of means and mean posterior variance of each of the 16 variables.
PUBLISHED = {
    "dense": (
        (8.847272e-05, 0.9802212), (1.1756e-04, 0.9955146), (6.665453e-05, 0.9851733), (0.9741793, 0.008741336),
        (0.9913182, 0.006186147), (1.001234, 0.01014252), (0.9456338, 0.05716935), (1.5841e-04, 0.9820533),
        (0.9469428, 0.03320761), (1.4789e-04, 0.9850559), (1.004038, 0.01815135), (0.9854388, 0.02399573),
        (1.0744e-04, 0.9829797), (4.506813e-05, 0.998983), (1.085e-04, 0.9604088), (0.9886438, 0.04440588),
    ),
    # Of variable 1 the source runs the two numbers together; the reading that has the others' digits is taken.
    "conv": (
        (1.5939e-04, 0.9932197), (0.9164458, 0.01582667), (1.054789, 0.00626239), (0.9810307, 0.01260294),
        (1.073533, 0.00513632), (1.069325, 0.006687337), (6.477744e-05, 0.9616321), (1.119551, 0.003191595),
        (0.8875564, 0.02470811), (0.9794330, 0.009488363), (0.9322856, 0.01698385), (1.400598, 0.002520811),
        (1.302276, 0.003375611), (1.9337e-04, 0.9953353), (1.135976, 0.007608894), (1.334826, 0.002084088),
    ),
}  # fmt: skip
PUBLISHED_COLLAPSED = {
    network: sum(variance <= ACTIVE_VARIANCE for variance, _ in table) for network, table in PUBLISHED.items()
}
NETWORK_NAMES = {"dense": "dense 784-256-64-32-16", "conv": "convolutional"}
TERM_NAMES: dict[str, str] = {"kl": "KL", "quadratic": "quadratic penalty alone", "none": "no KL"}


def sparsity_report(study: SparsityStudy) -> Report:
    """Return the page: counts, evolution, tables beside the published ones, rules, digits with and without."""
    sections = [_counts_section(study)]
    first = [found[0] for data in study.settings.data for net in NETWORK_NAMES if (found := study.of(data, net, "kl"))]
    sections += [_training_section(run) for run in first]
    if study.generated:
        sections.append(_generated_section(study))
    sections.append(_controls_section(study))
    return Report(
        title="How many latent variables collapse?",
        subtitle="Variational autoencoders of 16 latent variables, with the KL term, without it, and with its quadratic part alone.",
        summary=sparsity_findings(study),
        sections=sections,
        numbers=study.to_json(),
        provenance=study.provenance,
        details={"trainings": str(len(study.runs))},
    )


def sparsity_findings(study: SparsityStudy) -> list[Finding]:
    """Return what the study says, each claim of the posts beside what was found."""
    findings = []
    for data in study.settings.data:
        for network, name in NETWORK_NAMES.items():
            count = _count(study, data, network, "kl")
            if count is None:
                continue
            published = f" Published: {PUBLISHED_COLLAPSED[network]}." if data == "mnist" else ""
            findings.append(
                Finding(
                    level="good" if count.mean > 0 and count.spread <= 3 else "note",
                    headline=f"{name}, {data}: {_numbers(count)} of 16 collapse.",
                    text=f"Largest less smallest over {_seeds(len(count.collapsed))}: {count.spread}.{published}",
                )
            )
        fewer, of = study.fewer(data)
        if of:
            findings.append(
                Finding(
                    level="good" if fewer >= 0.8 * of else "note",
                    headline=f"On {data} the convolutional net collapses fewer variables than the dense one in {fewer} of {of} trainings.",
                    text="The posts say that it does.",
                )
            )
    controls = [run for run in study.runs if run.term != "kl"]
    if controls:
        worst = max(run.collapsed for run in controls)
        findings.append(
            Finding(
                level="good" if worst == 0 else "note",
                headline="Without the KL term, or with its quadratic part alone, no variable collapses."
                if worst == 0
                else f"Without the whole KL term up to {worst} variables collapse all the same.",
                text=f"{_seeds(len(controls), 'training')}; told by what share of a variable's variance tells images apart, "
                "since without the KL term nothing fixes the scale that the published rules count on.",
            )
        )
    split = [run for run in study.runs if run.term == "kl" and len(set(run.collapsed_by_rule.values())) > 1]
    of_kl = sum(run.term == "kl" for run in study.runs)
    findings.append(
        Finding(
            level="note" if split else "good",
            headline="The four published rules agree on every training with the KL term."
            if not split
            else f"The four published rules disagree on {len(split)} of {of_kl} trainings with the KL term.",
            text=", ".join(f"{run.name} ({_span(run)})" for run in split),
        )
    )
    return findings


def evolution_figure(run: SparsityRun) -> str:
    """Return the variance of means of each variable of a training over its epochs, as a drawing."""
    return figures.evolution(run.history, threshold=ACTIVE_VARIANCE)


def counts_figure(study: SparsityStudy) -> str:
    """Return the collapsed variables of every cell, as a drawing."""
    rows = [
        (_label(count.data, count.network, count.term), f"{count.network} {count.term}", count.collapsed)
        for count in sorted(study.counts, key=lambda count: (list(TERM_NAMES).index(count.term), count.data != "mnist"))
    ]
    published = [(_label("mnist", network, "kl"), number) for network, number in PUBLISHED_COLLAPSED.items()]
    return collapsed_counts(rows, published=published, variables=16)


def generated_grid(study: SparsityStudy) -> bytes:
    """Return generated images above the same with the collapsed variables at 0, of each model, as PNG."""
    strips = [strip for each in study.generated for strip in (each.whole, each.silenced)]
    return pictures.grid(pictures.rows(*strips), columns=study.generated[0].whole.shape[0])


def _counts_section(study: SparsityStudy) -> Section:
    blocks: list[Block] = [
        Numbers(
            items=[
                (
                    _numbers(count),
                    f"{NETWORK_NAMES[count.network]}, {count.data}",
                    f"collapsed of 16, {_seeds(len(count.collapsed))}",
                )
                for count in study.counts
                if count.term == "kl"
            ]
        ),
        Picture(
            content=counts_figure(study),
            caption="Collapsed by Burda's threshold where there is a KL term, by the same at any scale where there is none.",
            alt="Dot plot of collapsed variables for each network, data set and latent term.",
        ),
    ]
    rules = list(study.runs[0].collapsed_by_rule)
    blocks.append(
        Table(
            columns=("training", "active", *rules, "at any scale", "loss"),
            rows=[
                [
                    run.name,
                    f"{run.diagnosis.latents.active_count} of {len(run.diagnosis.latents)}",
                    *run.collapsed_by_rule.values(),
                    run.collapsed_at_any_scale,
                    run.history[-1]["loss"],
                ]
                for run in study.runs
            ],
            caption="Variables that each published rule calls collapsed. At any scale: variance of means at most 0.01 of the whole variance "
            "of a sample. Loss: nats an image, in the last epoch.",
            dim=[run.term != "kl" for run in study.runs],
        )
    )
    return Section(
        title="Counts",
        lead="One training a seed; the first images of the training set measured.",
        blocks=blocks,
    )


def _training_section(run: SparsityRun) -> Section:
    published = sorted(PUBLISHED.get(run.network, ()), reverse=True) if run.data == "mnist" else []
    ours = sorted(run.diagnosis.table, key=lambda row: -row["variance_of_means"])
    columns = ["variable", "variance of means", "mean posterior variance", "sum", "KL, nats", "gain", "verdict"]
    rows = []
    for place, row in enumerate(ours):
        cells = [row["variable"], row["variance_of_means"], row["mean_posterior_variance"], row["variance_law"]]
        cells += [row["kl_nats"], row["gain"], row["verdict"]]
        if published:
            cells += [*published[place], sum(published[place])]
        rows.append(cells)
    beside = ["published: variance", "published: posterior variance", "published: sum"] if published else []
    caption = "Ours by falling variance of means"
    caption += ", beside the published table in the same order: the rows have nothing else in common." if published else "."
    return Section(
        title=f"{NETWORK_NAMES[run.network]} on {run.data}",
        lead=f"The first seed, measured on {run.diagnosis.count:,} training images.",
        blocks=[
            Picture(
                content=evolution_figure(run),
                caption="Over the training images of each epoch. Grey: collapsed at the end.",
                alt="Line chart of the variance of means of each variable over training epochs.",
            ),
            Table(
                columns=[*columns, *beside],
                rows=rows,
                caption=caption,
                dim=[row["verdict"] == "collapsed" for row in ours],
            ),
        ],
    )


def _generated_section(study: SparsityStudy) -> Section:
    labels = [label for each in study.generated for label in (each.model, "collapsed at 0")]
    return Section(
        title="Generated with and without the collapsed variables",
        lead="Codes from the prior; below each row the same codes with every collapsed variable at 0.",
        blocks=[
            Picture(
                content=generated_grid(study),
                caption="What a decoder ignores makes no difference.",
                alt="Pairs of rows of generated images, equal to the eye.",
                row_labels=labels,
            ),
            Table(
                columns=(
                    "model",
                    "collapsed at 0",
                    "squared difference",
                    "largest of a pixel",
                    "active at 0 instead",
                    "squared difference, active",
                ),
                rows=[
                    [
                        each.model,
                        each.silenced_collapsed,
                        each.squared_difference,
                        each.largest_difference,
                        each.silenced_active,
                        each.active_squared_difference,
                    ]
                    for each in study.generated
                ],
                caption="Per pixel over 1,000 codes. The last two columns set the least informative active variables to 0 instead: "
                "as many as have collapsed, or all where fewer are active.",
            ),
        ],
    )


def _controls_section(study: SparsityStudy) -> Section:
    rows = []
    for run in study.runs:
        if run.term != "kl":
            table = run.diagnosis.latents
            rows.append(
                [
                    run.name,
                    run.collapsed_at_any_scale,
                    *run.collapsed_by_rule.values(),
                    float(table.variance_of_means.min()),
                    float(table.mean_posterior_variance.max()),
                    min(run.shares),
                ]
            )
    rules = list(study.runs[0].collapsed_by_rule)
    return Section(
        title="Without the KL term",
        lead="The same nets from the same weights. Nothing asks the posterior for a variance here, and nothing fixes the scale of the code.",
        blocks=[
            Table(
                columns=(
                    "training",
                    "at any scale",
                    *rules,
                    "least variance of means",
                    "largest posterior variance",
                    "least share",
                ),
                rows=rows,
                caption="Share: of a variable's whole variance, what tells images apart.",
            )
        ],
    )


def _count(study: SparsityStudy, data: str, network: str, term: str) -> Count | None:
    return next((c for c in study.counts if (c.data, c.network, c.term) == (data, network, term)), None)


def _numbers(count: Count) -> str:
    low, high = min(count.collapsed), max(count.collapsed)
    return str(low) if low == high else f"{low} to {high}"


def _seeds(number: int, what: str = "seed") -> str:
    return f"{number} {what}{'s'[: number != 1]}"


def _span(run: SparsityRun) -> str:
    numbers = run.collapsed_by_rule.values()
    return f"{min(numbers)} to {max(numbers)}"


def _label(data: str, network: str, term: str) -> str:
    return f"{network}, {data}, {TERM_NAMES[term]}"
