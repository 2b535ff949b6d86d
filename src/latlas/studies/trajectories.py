"""Where the posteriors of a few images go as a two-dimensional latent space is learnt, and what becomes of their size."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from latlas.base.errors import SettingError
from latlas.base.progress import Progress, silent
from latlas.base.provenance import Provenance
from latlas.base.records import plain
from latlas.base.seeds import derived_seed, generator
from latlas.data.images import ImageSet
from latlas.data.loading import load_images
from latlas.models.architectures.dense import Dense
from latlas.studies.budgets import Budget, as_budget
from latlas.training.callbacks import HealthRecord, LatentHealth, LatentTrajectories, Trajectories
from latlas.training.objectives import Objective
from latlas.training.runs import train_vae

# The post names the two dimensions and no network: that of the Keras example of its time, with its likelihood.
NETWORK = Dense(widths=(256,), latent=2)
OBJECTIVE = Objective(balance="fixed", likelihood="bernoulli")
TRAIN: dict[Budget, str] = {"quick": "mnist:train[0:20000]", "paper": "mnist:train"}
EPOCHS: dict[Budget, int] = {"quick": 3, "paper": 10}
_PROBED = 2000  # images of the statistics over time
_ENCODE = "vae.encode"  # of our training module


@dataclass(frozen=True, kw_only=True, eq=False)
class TrajectoryStudy:
    """Posteriors of a few images through the first epoch, and of more after each."""

    images: str
    epochs: int
    labels: Int64[Tensor, " n"]  # classes of those of the first epoch: each once
    first: Trajectories  # through the first epoch, the first moment before any step
    later_labels: Int64[Tensor, " m"]
    later: Trajectories  # at the end of each epoch
    health: list[HealthRecord]  # at the end of each epoch, over many images
    provenance: Provenance

    @property
    def start(self) -> float:
        """Mean squared radius before the first step."""
        return float(self.first.squared_radius()[0].mean())

    @property
    def after_first_epoch(self) -> float:
        """Mean squared radius of the same images at the last moment of the first epoch."""
        return float(self.first.squared_radius()[-1].mean())

    @property
    def over_epochs(self) -> list[float]:
        """Mean squared radius of the other images at the end of each epoch."""
        return [float(size) for size in self.later.squared_radius().mean(dim=1)]

    def to_json(self) -> dict[str, Any]:
        """Return every number."""
        record: dict[str, Any] = plain(
            {
                "images": self.images,
                "epochs": self.epochs,
                "start": self.start,
                "after_first_epoch": self.after_first_epoch,
                "over_epochs": self.over_epochs,
                "first": {"labels": self.labels, **vars(self.first), "squared_radius": self.first.squared_radius()},
                "later": {"labels": self.later_labels, **vars(self.later), "squared_radius": self.later.squared_radius()},
                "health": self.health,
                "provenance": self.provenance.to_json(),
            }
        )
        return record


def study_trajectories(
    images: ImageSet,
    *,
    classes: int = 10,
    per_class: int = 6,
    epochs: int = 10,
    frames: int = 90,
    batch_size: int = 128,
    seed: int = 0,
    device: str = "auto",
    progress: Progress = silent,
) -> TrajectoryStudy:
    """Train a two-dimensional VAE and follow some of its images.

    Args:
        images: to train on, with labels.
        classes: one image of each is followed through the first epoch.
        per_class: images of each class whose posteriors are kept at the end of each epoch.
        epochs: of the training.
        frames: moments of the first epoch, at most; closer together at its start, where most happens.
        batch_size: images of an optimiser step.
        seed: of training and choice.
        device: "auto", "cpu", "cuda", "cuda:1".
        progress: told throughout.

    Raises:
        SettingError: images without labels, of too few classes, too few of a class; settings out of range.
        ImageFormatError: images that the network cannot serve.
    """
    if classes < 1 or per_class < 1:
        raise SettingError(f"At least 1 class and 1 image of each are followed, got {classes} and {per_class}.")
    if frames < 2:
        raise SettingError(f"A trajectory needs at least 2 moments, got {frames}.")
    rows = rows_by_class(images, classes=classes, per_class=per_class, seed=seed)
    one, several = rows[:, 0], rows.flatten()
    steps = max(len(images) // max(min(batch_size, len(images)), 1), 1)
    first = LatentTrajectories(images.take(one).tensor(), encode=_ENCODE, steps=moments_of(steps, frames), name="first epoch")
    later = LatentTrajectories(images.take(several).tensor(), encode=_ENCODE, name="epochs")
    probed = torch.randperm(len(images), generator=generator(seed, "probed"))[:_PROBED]
    health = LatentHealth(images.take(probed).tensor(), encode=_ENCODE)
    trained = train_vae(
        images,
        NETWORK,
        objective=OBJECTIVE,
        epochs=epochs,
        batch_size=batch_size,
        seed=derived_seed(seed, "trajectories"),
        device=device,
        name="2-D VAE",
        callbacks=[first, later, health],
        progress=progress,
    )
    assert images.labels is not None  # rows_by_class found them
    made_by = trained.model.provenance
    return TrajectoryStudy(
        images=images.name,
        epochs=epochs,
        labels=images.labels[one].long(),
        first=first.trajectories(),
        later_labels=images.labels[several].long(),
        later=later.trajectories(),
        health=health.records,
        provenance=Provenance(
            made_by="study_trajectories",
            seed=seed,
            made_from={"images": images.content_hash, "model": trained.model.fingerprint},
            settings={
                "classes": classes,
                "per_class": per_class,
                "frames": frames,
                "training": {} if made_by is None else dict(made_by.settings),
            },
        ),
    )


def run(budget: str, seed: int = 0, progress: Progress = silent) -> TrajectoryStudy:
    """Run the study on digits at a budget: "paper" is 60,000 of them and ten epochs.

    Raises:
        UnknownNameError: no such budget.
        DataUnavailableError: the digits cannot be had.
    """
    size = as_budget(budget)
    images = load_images(TRAIN[size], progress=progress)
    return study_trajectories(images, epochs=EPOCHS[size], seed=seed, progress=progress)


def rows_by_class(images: ImageSet, *, classes: int, per_class: int, seed: int) -> Int64[Tensor, "classes per_class"]:
    """Return rows of as many images of each of the first `classes` classes, chosen at random.

    Raises:
        SettingError: images without labels, of too few classes, too few of a class.
    """
    if images.labels is None:
        raise SettingError(f"{images.name} has no labels: one image of each class is followed. Give a set with classes.")
    found = torch.tensor(sorted(set(images.labels.tolist())))
    if len(found) < classes:
        raise SettingError(
            f"{images.name} has {len(found)} classes, fewer than the {classes} whose images shall be followed. "
            f"Ask for {len(found)}, or give more images."
        )
    order = torch.randperm(len(images), generator=generator(seed, "followed"))
    shuffled = images.labels[order]
    rows = []
    for label in found[:classes].tolist():
        mine = order[shuffled == label][:per_class]
        if len(mine) < per_class:
            raise SettingError(f"{images.name} has {len(mine)} images of class {label}, fewer than the {per_class} to follow.")
        rows.append(mine)
    return torch.stack(rows)


def moments_of(steps: int, frames: int) -> list[int]:
    """Return at most `frames` steps from 0 to `steps`, closer together at the start: squares of evenly spaced numbers.

    >>> moments_of(100, 6)
    [0, 4, 16, 36, 64, 100]
    """
    return sorted({math.floor(steps * (frame / (frames - 1)) ** 2 + 0.5) for frame in range(frames)})
