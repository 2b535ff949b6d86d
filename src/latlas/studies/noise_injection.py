"""What noise on one latent variable does to it, as an order of events, over several variables and seeds."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latlas.base.artifacts import read_json, write_json
from latlas.base.errors import ArtifactError, IllPosedError
from latlas.base.progress import Progress, silent
from latlas.base.provenance import Provenance
from latlas.base.records import plain
from latlas.base.seeds import derived_seed
from latlas.data.images import ImageSet
from latlas.data.loading import load_images
from latlas.models.protocols import LatentModel
from latlas.studies.budgets import Budget, as_budget
from latlas.studies.diagnose import diagnose
from latlas.studies.noise_events import DELAYED, EVENTS, PROMPT, Events, events_of
from latlas.studies.sparsity import trained
from latlas.training.noise_injection import MEASURED, NoiseCourse, NoiseEpoch, NoisePlan, inject_noise, require_noisable

_EPOCH = 60_000  # images of an epoch of the posts


@dataclass(frozen=True, kw_only=True)
class NoiseSettings:
    """How much is trained before, with and after the noise."""

    images: int | None  # training digits, the first so many; None: all
    epochs: int  # of the dense net before the noise
    seeds: int
    variables: int  # of each net: from the most informative active one to the least
    plan: NoisePlan
    data: str = "mnist"


SETTINGS: Mapping[Budget, NoiseSettings] = {
    "quick": NoiseSettings(
        images=20_000, epochs=20, seeds=1, variables=2, plan=NoisePlan(increment=0.3, growing=15, held=15, removed=12)
    ),
    "paper": NoiseSettings(images=None, epochs=30, seeds=3, variables=3, plan=NoisePlan()),
}


@dataclass(frozen=True, kw_only=True)
class NoiseRun:
    """One variable of one net."""

    model: str
    number: int  # of the seed
    rank: int  # of the variable's gain among the active ones, from 0
    active: int  # variables of the net before the noise
    course: NoiseCourse
    events: Events

    def to_json(self) -> dict[str, Any]:
        """Return every number."""
        record: dict[str, Any] = plain(
            {
                "model": self.model,
                "seed": self.number,
                "variable": self.course.variable,
                "rank": self.rank,
                "active": self.active,
                "frozen": self.course.frozen,
                "events": {
                    **vars(self.events),
                    "delay": self.events.delay,
                    "recovered_gain": self.events.recovered_gain,
                    "order": self.events.order,
                    "as_published": self.events.as_published,
                    "departures": self.events.departures,
                },
                "epochs": self.course.epochs,
            }
        )
        return record


@dataclass(frozen=True, kw_only=True, eq=False)
class NoiseInjectionStudy:
    """Noise on several variables of several nets."""

    runs: list[NoiseRun]
    settings: NoiseSettings
    provenance: Provenance

    @property
    def as_published(self) -> int:
        """Runs in which every event came as the posts tell it."""
        return sum(run.events.as_published for run in self.runs)

    @property
    def often(self) -> dict[str, int]:
        """In how many runs each event came."""
        return {name: sum(getattr(run.events, name) is not None for run in self.runs) for name in EVENTS}

    @property
    def orders(self) -> dict[str, int]:
        """How often each order of events came, the most frequent first."""
        found: dict[str, int] = {}
        for run in self.runs:
            told = ", ".join(run.events.order) or "nothing"
            found[told] = found.get(told, 0) + 1
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    def to_json(self) -> dict[str, Any]:
        """Return every number."""
        record: dict[str, Any] = plain(
            {
                "settings": self.settings,
                "as_published": self.as_published,
                "of": len(self.runs),
                "often": self.often,
                "orders": self.orders,
                "runs": [run.to_json() for run in self.runs],
                "provenance": self.provenance.to_json(),
            }
        )
        return record


def run(
    budget: str, seed: int = 0, progress: Progress = silent, *, work: Path | None = None, device: str = "auto"
) -> NoiseInjectionStudy:
    """Run the study at a budget: "paper" is 60,000 digits, three nets and three variables of each.

    The nets are those of the `sparsity` study under the same seed and budget.

    Args:
        budget: "quick" or "paper".
        seed: decides everything random.
        progress: told throughout.
        work: folder to keep trainings and courses in, and to take them from.
        device: as in `train_vae`.

    Raises:
        UnknownNameError: no such budget.
        DataUnavailableError: the digits cannot be had.
    """
    return study_noise_injection(SETTINGS[as_budget(budget)], seed=seed, work=work, device=device, progress=progress)


def study_noise_injection(
    settings: NoiseSettings, *, seed: int = 0, work: Path | None = None, device: str = "auto", progress: Progress = silent
) -> NoiseInjectionStudy:
    """Train dense nets, and make one variable after another worse.

    Args:
        settings: how much.
        seed: decides everything random.
        work: folder to keep trainings and courses in, and to take them from.
        device: as in `train_vae`.
        progress: told throughout.

    Raises:
        DataUnavailableError: the digits cannot be had.
    """
    images = load_images(f"{settings.data}:train", progress=progress).slice(0, settings.images)
    runs = []
    for number in range(settings.seeds):
        model = trained(
            images,
            data=settings.data,
            network="dense",
            term="kl",
            number=number,
            epochs=settings.epochs,
            seed=seed,
            work=work,
            device=device,
            progress=progress,
        ).model
        runs += _runs(model, images, settings, number=number, seed=seed, work=work, device=device, progress=progress)
    provenance = Provenance(
        made_by="study_noise_injection", seed=seed, made_from={"images": images.content_hash}, settings=plain(settings)
    )
    return NoiseInjectionStudy(runs=runs, settings=settings, provenance=provenance)


def study_noise_on(
    model: LatentModel,
    images: ImageSet,
    settings: NoiseSettings,
    *,
    seed: int = 0,
    device: str = "auto",
    progress: Progress = silent,
) -> NoiseInjectionStudy:
    """Make variables of a trained VAE worse, one after another; the model stays as it is.

    Args:
        model: a VAE; it is trained on with the objective that it says it was trained with.
        images: what it was trained on.
        settings: how the noise grows, and on how many variables; what it says of data and nets has no use here.
        seed: of order and noise.
        device: as in `train_vae`.
        progress: told throughout.

    Raises:
        CapabilityError: the model is no VAE of latlas, or one that encodes in steps.
        ImageFormatError: images of another shape.
        IllPosedError: none of its variables is active.
    """
    require_noisable(model)
    runs = _runs(model, images, settings, number=0, seed=seed, work=None, device=device, progress=progress)
    made_from = {"model": model.fingerprint, "images": images.content_hash}
    provenance = Provenance(made_by="study_noise_on", seed=seed, made_from=made_from, settings=plain(settings))
    return NoiseInjectionStudy(runs=runs, settings=settings, provenance=provenance)


def _runs(
    model: LatentModel,
    images: ImageSet,
    settings: NoiseSettings,
    *,
    number: int,
    seed: int,
    work: Path | None,
    device: str,
    progress: Progress,
) -> list[NoiseRun]:
    measured = images.slice(0, MEASURED)
    diagnosis = diagnose(model, measured, progress=progress)
    active = [variable for variable in diagnosis.gain.order() if bool(diagnosis.latents.active[variable])]
    if not active:
        raise IllPosedError(f"Every variable of {model.name} has collapsed on {images.name}: there is none to make worse.")
    shorter = _EPOCH / len(images)  # what is counted in epochs means as many steps as it would with all digits
    runs = []
    for rank in chosen_ranks(len(active), settings.variables):
        name = f"noise-{number}-{active[rank]}"
        made_from = {"settings": plain(settings), "model": model.fingerprint, "seed": seed}
        course = _kept(name, work, made_from)
        if course is None:
            course = inject_noise(
                model,
                images,
                active[rank],
                plan=settings.plan,
                measured=measured,
                seed=derived_seed(seed, "noise", number),
                device=device,
                progress=progress,
            )
            if work is not None:
                _keep(course, work / f"{name}.json", made_from)
        events = events_of(
            course.epochs,
            course.variable,
            prompt=max(round(PROMPT * shorter), PROMPT),
            delayed=max(round(DELAYED * shorter), DELAYED),
        )
        runs.append(NoiseRun(model=model.name, number=number, rank=rank, active=len(active), course=course, events=events))
    return runs


def chosen_ranks(active: int, wanted: int) -> list[int]:
    """Return which of the active variables, by gain, are made worse: from the first to the last, evenly.

    >>> chosen_ranks(9, 3), chosen_ranks(2, 3), chosen_ranks(5, 1)
    ([0, 4, 8], [0, 1], [0])
    """
    if wanted >= active:
        return list(range(active))
    return [0] if wanted == 1 else [round(place * (active - 1) / (wanted - 1)) for place in range(wanted)]


def _keep(course: NoiseCourse, path: Path, made_from: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".partial")  # cut off here, no half of a course is taken for a whole one
    write_json(beside, {**made_from, "course": plain(course)})
    beside.replace(path)


def _kept(name: str, work: Path | None, made_from: Mapping[str, Any]) -> NoiseCourse | None:
    path = None if work is None else work / f"{name}.json"
    if path is None or not path.is_file():
        return None
    try:
        record = read_json(path)
    except ArtifactError:
        return None
    if not isinstance(record, dict) or any(record.get(key) != value for key, value in made_from.items()):
        return None
    try:
        course = record["course"]
        epochs: list[dict[str, Any]] = [
            {key: tuple(value) if isinstance(value, list) else value for key, value in epoch.items()}
            for epoch in course["epochs"]
        ]
        return NoiseCourse(
            variable=course["variable"],
            frozen=tuple(course["frozen"]),
            epochs=tuple(NoiseEpoch(**epoch) for epoch in epochs),
        )
    except (LookupError, TypeError, AttributeError):  # no course that was written here: it is run again
        return None
