"""Trainings that a study needs: made once, kept in a folder where one is given, and taken from there the next time."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latlas.base.errors import ArtifactError
from latlas.base.progress import Progress, silent
from latlas.data.images import ImageSet
from latlas.models.architectures.architecture import Architecture
from latlas.models.vae import VAE
from latlas.training.objectives import Objective
from latlas.training.runs import train_vae

# The loss of the posts, as far as it is known: the log-likelihood of each pixel as a grey bit, and the KL, weighed alike.
PUBLISHED_OBJECTIVE = Objective(balance="fixed", likelihood="bernoulli")


@dataclass(frozen=True, kw_only=True, eq=False)
class Training:
    """A trained model and its history."""

    model: VAE
    history: list[dict[str, Any]]  # one record an epoch, as `TrainedVAE.history`


def kept_training(
    images: ImageSet,
    arch: Architecture,
    *,
    name: str,
    work: Path | None,
    objective: Objective = PUBLISHED_OBJECTIVE,
    epochs: int,
    batch_size: int = 128,
    seed: int,
    device: str = "auto",
    progress: Progress = silent,
) -> Training:
    """Return the training of this name in `work`, made there if it is not there yet; without `work`, made and not kept.

    Args:
        images: what to fit.
        arch: the network.
        name: what the model is called, and its folder.
        work: where trainings are kept; one that was cut off goes on.
        objective: as in `train_vae`, and so are the rest.
        epochs: passes over the images.
        batch_size: images of an optimiser step.
        seed: decides weights, order and noise.
        device: "auto", "cpu", "cuda".
        progress: told throughout.

    Raises:
        ArtifactError: the folder of that name holds another training.
    """
    folder = None if work is None else work / name
    if folder is None or not (folder / "config.json").is_file():
        done = train_vae(
            images,
            arch,
            objective=objective,
            epochs=epochs,
            batch_size=batch_size,
            seed=seed,
            device=device,
            name=name,
            out=folder,
            progress=progress,
        )
        return Training(model=done.model, history=done.history)
    model = VAE.from_pretrained(folder)
    made = model.provenance
    wanted = {"objective": objective.to_json(), "epochs": epochs, "batch_size": batch_size}
    if (
        made is None
        or made.seed != seed
        or made.made_from.get("images") != images.content_hash
        or any(made.settings.get(setting) != value for setting, value in wanted.items())
        or model.architecture != arch
    ):
        raise ArtifactError(f"{folder} holds a training with other settings. Delete it, or name another folder.")
    return Training(model=model, history=json.loads((folder / "run" / "history.json").read_text(encoding="utf-8")))
