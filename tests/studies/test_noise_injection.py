"""Events of planted courses, in the order of the posts and in others; the study keeps what it has measured."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from latlas.base.errors import CapabilityError, IllPosedError, UnknownNameError
from latlas.base.provenance import Provenance
from latlas.data.images import ImageSet
from latlas.models.adapters.callables import CallableModel
from latlas.models.architectures.dense import Dense
from latlas.models.vae import VAE
from latlas.studies import noise_injection
from latlas.studies.kept_trainings import PUBLISHED_OBJECTIVE, Training
from latlas.studies.noise_events import events_of
from latlas.studies.noise_injection import (
    NoiseSettings,
    chosen_ranks,
    run,
    study_noise_injection,
    study_noise_on,
)
from latlas.training.noise_injection import NoiseEpoch, NoisePlan, Phase

START: tuple[Phase, float, float, float] = ("start", 1.0, 2.0, 10.0)
# Phase, variance of means, KL, gain: what the posts tell.
PUBLISHED: list[tuple[Phase, float, float, float]] = [
    START,
    ("growing", 1.5, 2.1, 8.0),
    ("growing", 3.0, 2.6, 5.0),
    ("growing", 4.0, 2.4, 2.2),
    ("held", 1.0, 0.6, 0.4),
    ("held", 0.005, 0.01, 0.0),
    ("removed", 0.001, 0.0, 0.0),
    ("removed", 0.004, 0.0, 0.0),
    ("removed", 0.4, 0.5, 2.0),
    ("removed", 0.9, 1.2, 4.0),
]


def course(states: Sequence[tuple[Phase, float, float, float]]) -> list[NoiseEpoch]:
    """Two variables: the first as planted, the second always the same."""
    return [
        NoiseEpoch(
            epoch=number,
            phase=phase,
            deviation=0.5 * number if phase in ("growing", "held") else 0.0,
            reconstruction_nats=100.0,
            variance_of_means=(variance, 1.0),
            mean_posterior_variance=(0.1, 0.1),
            kl_nats=(kl, 2.0),
            gain_nats=(gain, 10.0),
        )
        for number, (phase, variance, kl, gain) in enumerate(states)
    ]


def changed(epoch: int, state: tuple[Phase, float, float, float]) -> list[NoiseEpoch]:
    return course([*PUBLISHED[:epoch], state, *PUBLISHED[epoch + 1 :]])


def test_the_published_course_is_read_as_published() -> None:
    events = events_of(course(PUBLISHED), 0)
    assert (events.rise, events.crossing, events.collapse, events.removal, events.recovery) == (2, 3, 5, 6, 8)
    assert events.delay == 3
    assert events.recovered_gain == pytest.approx(0.4)
    assert events.order == ["rise", "crossing", "collapse", "recovery"]
    assert (events.kl_start, events.kl_most, events.variance_most) == (2.0, 2.6, 4.0)
    assert events.noise_most == 2.5
    assert events.as_published
    assert events.departures == []


def test_the_undisturbed_variable_of_the_same_course_has_no_events() -> None:
    events = events_of(course(PUBLISHED), 1)
    assert events.order == []
    assert events.delay is None
    assert any("stayed above" in departure for departure in events.departures)
    assert any("never collapsed" in departure for departure in events.departures)


@pytest.mark.parametrize(
    ("epochs", "words"),
    [
        (course([START, ("growing", 1.0, 2.0, 1.5), *PUBLISHED[4:]]), "never grew"),
        (course([START, ("growing", 1.0, 2.0, 1.5), *PUBLISHED[2:]]), "before they grew (epoch 2)"),
        (course([*PUBLISHED[:3], ("growing", 0.001, 0.0, 0.5), *PUBLISHED[4:]]), "before the crossing"),
        (course([*PUBLISHED[:4], *[("held", 0.9, 0.5, 0.4)] * 5, *PUBLISHED[5:]]), "6 epochs after the crossing"),
        (course([*PUBLISHED[:5], *[("removed", 0.9, 0.5, 2.0)] * 3]), "never collapsed"),
        (course(PUBLISHED[:8]), "stayed collapsed"),
        (changed(6, ("removed", 0.4, 0.5, 2.0)), "after 1 epoch without noise"),
        (changed(9, ("removed", 0.9, 1.2, 10.0)), "1.00 of its first gain"),
    ],
    ids=[
        "no rise",
        "late rise",
        "crossing late",
        "slow collapse",
        "no collapse",
        "no recovery",
        "prompt recovery",
        "whole recovery",
    ],
)
def test_each_departure_is_told(epochs: list[NoiseEpoch], words: str) -> None:
    events = events_of(epochs, 0)
    assert any(words in departure for departure in events.departures), events.departures
    assert not events.as_published


def test_means_that_grow_in_the_epoch_of_the_crossing_stand_in_the_published_order() -> None:
    events = events_of(course([START, ("growing", 3.0, 2.6, 2.2), *PUBLISHED[4:]]), 0)
    assert (events.rise, events.crossing) == (1, 1)
    assert events.order == ["rise", "crossing", "collapse", "recovery"]
    assert events.as_published, events.departures


def test_a_kl_that_grows_while_the_means_do_not_is_no_rise() -> None:
    """Sharper posteriors cost KL as well: that is no flight from the noise."""
    states = [START, *[("growing", 1.0, 2.6, 5.0)] * 2, *PUBLISHED[3:]]
    states[3] = ("growing", 1.0, 2.4, 2.2)
    assert events_of(course(states), 0).rise is None  # type: ignore[arg-type]


def test_with_a_third_of_the_images_an_epoch_may_take_three_times_as_many() -> None:
    slow = course([*PUBLISHED[:4], *[("held", 0.9, 0.5, 0.4)] * 5, *PUBLISHED[5:]])
    assert not events_of(slow, 0).as_published
    assert events_of(slow, 0, prompt=15).as_published
    assert not events_of(slow, 0, prompt=15, delayed=6).as_published


def test_a_course_without_noise_is_refused() -> None:
    with pytest.raises(IllPosedError, match="at least one epoch"):
        events_of(course([START]), 0)
    with pytest.raises(IllPosedError):
        events_of(course(PUBLISHED[1:]), 0)


def test_ranks_run_from_the_most_informative_variable_to_the_least() -> None:
    for active in range(1, 17):
        for wanted in range(1, 6):
            ranks = chosen_ranks(active, wanted)
            assert len(ranks) == len(set(ranks)) == min(active, wanted)
            assert ranks[0] == 0
            assert wanted == 1 or ranks[-1] == active - 1


@pytest.fixture
def blobs(monkeypatch: pytest.MonkeyPatch) -> ImageSet:
    generator = torch.Generator().manual_seed(2)
    images = ImageSet("blobs", torch.rand(256, 1, 6, 6, generator=generator).round())
    monkeypatch.setattr(noise_injection, "load_images", lambda spec, progress: images)
    return images


SETTINGS = NoiseSettings(
    images=None, epochs=8, seeds=1, variables=2, plan=NoisePlan(increment=1.0, growing=2, held=1, removed=1, batch_size=32)
)


def test_the_study_takes_what_it_has_measured_from_its_folder(
    blobs: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(noise_injection, "trained", _usable)
    first = study_noise_injection(SETTINGS, work=tmp_path)
    assert len(first.runs) == 2
    assert first.runs[0].rank == 0
    assert first.runs[0].course.variable != first.runs[1].course.variable
    assert sum(first.orders.values()) == 2
    monkeypatch.setattr(noise_injection, "inject_noise", lambda *a, **k: pytest.fail("it is there already"))
    assert study_noise_injection(SETTINGS, work=tmp_path).to_json() == first.to_json()


def test_courses_under_other_settings_are_measured_again(
    blobs: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(noise_injection, "trained", _usable)
    one = replace(SETTINGS, variables=1)
    study_noise_injection(one, work=tmp_path)
    other = replace(one, plan=replace(one.plan, removed=3))
    phases = [epoch.phase for epoch in study_noise_injection(other, work=tmp_path).runs[0].course.epochs]
    assert phases.count("removed") == 3
    other = study_noise_injection(one, seed=1, work=tmp_path)
    assert other.runs[0].course.epochs[0] != study_noise_injection(one, work=tmp_path).runs[0].course.epochs[0]


@pytest.mark.parametrize("content", ["", '{"settings": {', "[]", "\xff"])
def test_a_course_that_was_cut_off_in_writing_is_measured_again(
    content: str, blobs: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(noise_injection, "trained", _usable)
    one = replace(SETTINGS, variables=1)
    first = study_noise_injection(one, work=tmp_path).to_json()
    (kept,) = tmp_path.iterdir()  # and nothing beside it
    kept.write_text(content, encoding="latin-1")
    assert study_noise_injection(one, work=tmp_path).to_json() == first

    def full(path: Path, record: object) -> None:
        path.write_text("{")
        raise OSError("no space")

    before = kept.read_bytes()
    monkeypatch.setattr(noise_injection, "write_json", full)
    with pytest.raises(OSError, match="no space"):
        study_noise_injection(replace(one, plan=replace(one.plan, removed=2)), work=tmp_path)
    assert kept.read_bytes() == before


def test_a_model_that_cannot_be_trained_on_is_refused_before_anything_is_measured(blobs: ImageSet) -> None:
    pair = CallableModel(name="pair", image_shape=(1, 6, 6), latent_shape=(2,), encode_with=lambda batch: pytest.fail("asked"))
    with pytest.raises(CapabilityError, match="posterior variances"):
        study_noise_on(pair, blobs, SETTINGS)


def test_a_model_with_nothing_active_is_refused(blobs: ImageSet) -> None:
    model = _usable().model
    with torch.no_grad():
        model.encoder.get_submodule("head").get_parameter("weight").zero_()
    with pytest.raises(IllPosedError, match="none to make worse"):
        study_noise_on(model, blobs, SETTINGS)


def test_an_unknown_budget_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(UnknownNameError, match="quick"):
        run("large")


def _usable(*_: object, **__: object) -> Training:
    """A net in which everything is in use: untrained, its weights large."""
    torch.manual_seed(3)
    provenance = Provenance(made_by="test", settings={"objective": PUBLISHED_OBJECTIVE.to_json()})
    model = VAE(Dense(widths=(12,), latent=3), (1, 6, 6), name="usable", provenance=provenance)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.0)
    return Training(model=model, history=[])
