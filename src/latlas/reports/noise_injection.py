"""Noise on one variable, as a page: its course, the events in their order, and what did not come as published."""

from latlas.reports.page import Block, Finding, Numbers, Picture, Report, Section, Table
from latlas.reports.sparsity_figures import noise_course
from latlas.reports.wording import capital
from latlas.studies.noise_events import EVENTS
from latlas.studies.noise_injection import NoiseInjectionStudy, NoiseRun

_SHARE = 7 / 9  # of the runs in which all must come as published


def noise_injection_report(study: NoiseInjectionStudy) -> Report:
    """Return the page: every run as a row, every course as a drawing."""
    blocks: list[Block] = [
        Numbers(
            items=[
                (f"{study.as_published} of {len(study.runs)}", "runs as published", "every event, in order, recovery in part"),
                *((f"{number} of {len(study.runs)}", EVENTS[name], "") for name, number in study.often.items()),
            ]
        ),
        Table(
            columns=(
                "run",
                "noise at most",
                "KL: start",
                "KL: most",
                *EVENTS,
                "delay",
                "gain: start",
                "gain: end",
                "departures",
            ),
            rows=[
                [
                    _name(run),
                    run.events.noise_most,
                    run.events.kl_start,
                    run.events.kl_most,
                    *(getattr(run.events, name) for name in EVENTS),
                    run.events.delay,
                    run.events.gain_start,
                    run.events.gain_end,
                    "; ".join(run.events.departures) or "none",
                ]
                for run in study.runs
            ],
            caption="Events by the epoch in which they were first seen. Gain and KL in nats an image; delay: epochs without noise until "
            "the variable was in use again.",
        ),
        Table(
            columns=("order of events", "runs"),
            rows=[[order, number] for order, number in study.orders.items()],
            caption="Events of one epoch stand in the order of the posts.",
        ),
    ]
    courses: list[Block] = [
        Picture(content=course_figure(run), caption=f"{_name(run)}.", alt="Variances, gain and KL of one variable over epochs.")
        for run in study.runs
    ]
    return Report(
        title="What noise does to a latent variable",
        subtitle="Growing noise on one variable of a trained VAE, an epoch a step, until its gain is below its KL; then none.",
        summary=noise_findings(study),
        sections=[
            Section(
                title="Events",
                lead="1 variable made worse."
                if len(study.runs) == 1
                else f"{len(study.runs)} variables made worse, one at a time.",
                blocks=blocks,
            ),
            Section(title="Courses", lead="The variables that had collapsed before are held so.", blocks=courses),
        ],
        numbers=study.to_json(),
        provenance=study.provenance,
        details={"runs": str(len(study.runs))},
    )


def noise_findings(study: NoiseInjectionStudy) -> list[Finding]:
    """Return what the study says."""
    total = len(study.runs)
    findings = [
        Finding(
            level="good" if study.as_published >= _SHARE * total else "note",
            headline=f"In {study.as_published} of {total} runs everything came as the posts tell it.",
            text="Means and KL grow, the gain falls below the KL, the variable collapses, and without noise it comes back late and in part.",
        )
    ]
    findings += [
        Finding(level="note", headline=f"{_name(run)} departs from it.", text=capital("; ".join(run.events.departures)) + ".")
        for run in study.runs
        if not run.events.as_published
    ]
    return findings


def course_figure(run: NoiseRun) -> str:
    """Return a run's course as a drawing."""
    events = run.events
    told = {"crossing": events.crossing, "collapse": events.collapse, "noise gone": events.removal, "in use": events.recovery}
    marks = [(name, epoch) for name, epoch in told.items() if epoch is not None]
    return noise_course(run.course.epochs, run.course.variable, marks=marks)


def _name(run: NoiseRun) -> str:
    return f"{run.model}, variable {run.course.variable} (gain {run.rank + 1} of {run.active})"
