"""The page of noise injection: every run as a row, its departures in words, its course as a drawing."""

from dataclasses import replace

from latlas.base.provenance import Provenance
from latlas.reports.noise_injection import noise_injection_report
from latlas.reports.page import Picture, Table, render
from latlas.studies.noise_events import events_of
from latlas.studies.noise_injection import NoiseInjectionStudy, NoiseRun, NoiseSettings
from latlas.training.noise_injection import NoiseCourse, NoiseEpoch, NoisePlan, Phase

GOOD: list[tuple[Phase, float, float, float]] = [
    ("start", 1.0, 2.0, 10.0), ("growing", 3.0, 2.6, 5.0), ("growing", 4.0, 2.4, 2.2), ("held", 0.005, 0.01, -0.01),
    ("removed", 0.0, 0.0, 0.0), ("removed", 0.4, 0.5, 2.0),
]  # fmt: skip
STUBBORN: list[tuple[Phase, float, float, float]] = [GOOD[0], ("growing", 1.0, 2.0, 9.0), ("removed", 1.0, 2.0, 9.0)]


def noise_run(name: str, states: list[tuple[Phase, float, float, float]]) -> NoiseRun:
    epochs = tuple(
        NoiseEpoch(
            epoch=number, phase=phase, deviation=0.1 if phase in ("growing", "held") else 0.0, reconstruction_nats=90.0,
            variance_of_means=(variance,), mean_posterior_variance=(0.1,), kl_nats=(kl,), gain_nats=(gain,),
        )
        for number, (phase, variance, kl, gain) in enumerate(states)
    )  # fmt: skip
    course = NoiseCourse(variable=0, frozen=(), epochs=epochs)
    return NoiseRun(model=name, number=0, rank=0, active=1, course=course, events=events_of(epochs, 0))


def test_the_page_tells_each_run_and_why_one_departs() -> None:
    study = NoiseInjectionStudy(
        runs=[noise_run("as told", GOOD), noise_run("<stubborn>", STUBBORN)],
        settings=NoiseSettings(images=None, epochs=1, seeds=1, variables=1, plan=NoisePlan()),
        provenance=Provenance(made_by="test"),
    )
    report = noise_injection_report(study)
    assert study.as_published == 1
    assert study.often == {"rise": 1, "crossing": 1, "collapse": 1, "recovery": 1}
    assert study.orders == {"rise, crossing, collapse, recovery": 1, "nothing": 1}
    assert "In 1 of 2 runs" in report.summary[0].headline
    assert len(report.summary) == 2  # the run that came as told needs no words
    assert report.summary[1].text[0].isupper()
    assert report.sections[0].lead == "2 variables made worse, one at a time."
    assert noise_injection_report(replace(study, runs=study.runs[:1])).sections[0].lead == "1 variable made worse."
    assert "&lt;stubborn&gt;" in render(report)
    rows = next(block for block in report.sections[0].blocks if isinstance(block, Table)).rows
    assert rows[0][-1] == "none"
    assert "never collapsed" in rows[1][-1]
    drawings = [block for block in report.sections[1].blocks if isinstance(block, Picture)]
    assert len(drawings) == 2
    assert "crossing" in str(drawings[0].content)
    assert "crossing" not in str(drawings[1].content)
    assert report.numbers["as_published"] == 1
    assert "nan" not in render(report).lower().split("</style>")[1]
