"""The tour's page: the whole atlas, summary first."""

from latlas.base.provenance import Provenance
from latlas.reports.comparison import comparison_section
from latlas.reports.diagnosis import diagnosis_section
from latlas.reports.page import Finding, Numbers, Report, Section, Table
from latlas.reports.ranges import range_section
from latlas.reports.support import support_section
from latlas.studies.tour import Tour


def tour_report(tour: Tour) -> Report:
    """Return the page and the numbers of a tour."""
    models = tour.models
    numbers = tour.to_json()
    sparse = diagnosis_section(
        tour.diagnosis["sparse"],
        models["sparse"],
        tour.test,
        title="The sparse VAE",
        lead=(
            f"784-256-64-32-16, fixed-weight Bernoulli objective as in the posts of 2018 and 2019, measured on {len(tour.test):,} test digits. "
            "The latent space has 16 variables; how many does the model use?"
        ),
        history=tour.trained["sparse"].history,
    )
    balanced = diagnosis_section(
        tour.diagnosis["balanced"],
        models["balanced"],
        tour.test,
        title="The balanced VAE",
        lead="The same network with the running-error balance: the likelihood's variance follows the error, so the KL term cannot win.",
        history=tour.trained["balanced"].history,
    )
    mapping = comparison_section(tour.comparison, models["balanced"], models["balanced again"], tour.test)
    support = support_section(tour.support, tour.spread, tour.small_fits)
    ranges = range_section(tour.ranges, tour.judged, models["balanced"])
    first, second = tour.diagnosis["sparse"].summary, tour.diagnosis["balanced"].summary
    comparison = tour.comparison.to_json()
    summary = [
        Finding(
            level="warning" if first["active"] == 0 else "good" if first["active"] < first["variables"] else "note",
            headline=f"Diagnose: the sparse VAE uses {first['active']} of its {first['variables']} latent variables.",
            text=(
                f"The others can be set to 0 and the test error changes by {100 * first['zeroing_collapsed_relative_change']:.2g} %. "
                f"Balanced, the same network uses {second['active']}; test error {first['mse']:.4f} sparse, {second['mse']:.4f} balanced."
            ),
        ),
        _blur(first["variance_loss_over_mse"], second["variance_loss_over_mse"]),
        *mapping.findings,
        *support.findings[-1:],
        *ranges.findings,
    ]
    return Report(
        title="An atlas of latent spaces, on digits",
        subtitle=(
            f"Three VAEs trained on {len(tour.train):,} MNIST digits: how healthy their latent spaces are, how to get from one to the other, "
            "which images are their landmarks, and what their decoders cannot make."
        ),
        headline=Numbers(
            items=[
                (f"{first['active']} of 16", "variables the sparse VAE uses", "the posts: 8"),
                (comparison["M_over_target_R"], "relocation over target's own error", "one matrix and a shift"),
                (f"{100 * tour.ranges['own'].rejected_share:.1f} %", "own samples rejected at 5 %", "false alarms"),
                (
                    f"{100 * tour.ranges['fashion'].rejected_share:.0f} %",
                    "Fashion-MNIST rejected",
                    "out of range by construction",
                ),
            ]
        ),
        summary=summary,
        sections=[_published(tour), sparse, balanced, mapping, support, ranges, _training(tour)],
        numbers=numbers,
        provenance=Provenance(
            made_by="run_tour",
            seed=tour.settings.seed,
            settings=numbers["settings"],
            made_from={
                "training images": tour.train.content_hash,
                "test images": tour.test.content_hash,
                "Fashion-MNIST images": tour.judged["fashion"].content_hash,
            }
            | {f"{name} weights": model.fingerprint for name, model in models.items()},
        ),
        details={"command": _command(tour)},
    )


def _command(tour: Tour) -> str:
    settings = tour.settings
    some = "" if settings.train_images is None else f" --train-images {settings.train_images}"
    return f"latlas tour --seed {settings.seed} --epochs {settings.epochs} --device {settings.device}{some}"


def _blur(*ratios: float) -> Finding:
    """Return what the ratios of variance loss to error say of the claim that they are about 1."""
    listed = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    if all(0.8 <= ratio <= 1.2 for ratio in ratios):
        return Finding(
            level="good",
            headline=f"Why blurry: reconstructions lose as much variance as they have error ({listed}).",
            text="That is what a conditional mean does: the posts' claim, on both models.",
        )
    return Finding(
        headline=f"Variance loss over error is {listed}, where a conditional mean has 1.",
        text="The posts' claim does not hold here: see each model's section.",
    )


def _published(tour: Tour) -> Section:
    first = tour.diagnosis["sparse"].summary
    ratio = f"{tour.spread.ratio:.2f}"
    fashion = float(tour.ranges["fashion"].errors.median() / tour.ranges["own"].errors.median())
    rows = [
        ["collapsed variables of 16, dense VAE", "8", str(first["collapsed"])],
        [
            "variance law, range over variables",
            "0.96 to 1.03",
            f"{first['variance_law_min']:.2f} to {first['variance_law_max']:.2f}",
        ],
        ["variance loss over error", "0.995 (Keras VAE)", f"{first['variance_loss_over_mse']:.3f}"],
        ["Support Set spread over random images", "1.58 (CelebA)", f"{ratio} (digits)"],
        ["error out of range over error in range", "9.7 (StyleGAN)", f"{fashion:,.0f} (this VAE, medians)"],
    ]
    return Section(
        title="Beside the published figures",
        lead="What the posts report, on their models and data, and what this run measured on digits. Where they differ, that is a finding.",
        blocks=[Table(columns=("what", "published", "here"), rows=rows)],
    )


def _training(tour: Tour) -> Section:
    rows = [
        [
            name,
            len(run.history),
            run.history[-1]["squared_error"],
            run.history[-1]["kl_nats"],
            run.precision.autocast,
            round(run.images_per_second),
        ]
        for name, run in tour.trained.items()
    ]
    warnings = [
        Finding(level="warning", headline=f"{name}: {text}") for name, run in tour.trained.items() for text in run.warnings
    ]
    return Section(
        title="How the models were trained",
        lead="Adam, batches of 128, rate 0.001 rising over the first 5 % of the steps and falling along a cosine. Codes are sampled while training and are means everywhere else.",
        blocks=[
            Table(
                columns=("model", "epochs", "training error", "KL, nats", "computed in", "images per second"),
                rows=rows,
                caption="Error with sampled codes, mean of the last epoch. Why that number format is in report.json.",
            ),
            Table(
                columns=("part of the tour", "seconds"),
                rows=[[part, round(seconds, 1)] for part, seconds in tour.seconds.items()],
            ),
        ],
        findings=warnings,
    )
