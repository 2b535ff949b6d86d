"""A training from settings to artifact: seeded, resumable, recorded."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.strategies import DDPStrategy

from latlas.base.errors import NonFiniteError, SettingError
from latlas.base.launch import check_processes
from latlas.base.progress import Progress, silent
from latlas.base.provenance import Provenance
from latlas.base.seeds import derived_seed
from latlas.base.threads import threads_for, using_threads
from latlas.data.images import ImageSet
from latlas.models.architectures.architecture import Architecture
from latlas.models.architectures.registry import ARCHITECTURES, architecture, architecture_to_json
from latlas.models.given import check_image_set, described
from latlas.models.protocols import parameter_count
from latlas.models.vae import VAE
from latlas.training.asked import checked_callbacks, checked_seed, learning, number, whole
from latlas.training.callbacks import ReportProgress
from latlas.training.checkpoints import CHECKPOINT, Begun, WholeCheckpoints, going_on_from, last_checkpoint, read_checkpoint
from latlas.training.module import Schedule, VAETraining
from latlas.training.objectives import Objective
from latlas.training.precision import Precision, choose_device, choose_precision
from latlas.training.resumable import (
    check_out,
    clear_work,
    finished_before,
    held_work_folder,
    honest_interruption,
    publish,
    quiet_lightning,
    told_with_what_is_kept,
)
from latlas.training.scalar_log import ScalarLog

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainedVAE:
    """A trained model and how it came about."""

    model: VAE
    history: list[dict[str, Any]]  # one record an epoch: terms, likelihood variance, health per variable
    precision: Precision
    seconds: float  # of the training alone; of a resumed one, since it went on; 0 of one that was done before
    images_per_second: float
    warnings: list[str] = field(default_factory=list)  # what a person must hear, in words

    def __repr__(self) -> str:
        last = self.history[-1]
        return (
            f"<TrainedVAE .model {self.model.name!r}, epoch {last['epoch']}: squared error {last['squared_error']:.4g}, "
            f"{last['active']} of {len(last['kl'])} latent variables active>"
        )


@learning()
def train_vae(
    images: ImageSet,
    arch: Architecture | str = "dense",
    *,
    objective: Objective | None = None,
    epochs: int = 20,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    seed: int = 0,
    device: str = "auto",
    devices: int = 1,
    nodes: int = 1,
    precision: str = "auto",
    name: str | None = None,
    out: str | Path | None = None,
    replace: bool = False,
    callbacks: Sequence[L.Callback] = (),
    progress: Progress = silent,
) -> TrainedVAE:
    """Fit a VAE to images.

    The same arguments give the same weights on the same machine. With `out`, a training that was cut off goes on
    from its last whole epoch when it is started again with the same settings; one that was cut off when its model had taken
    its place is done.

    Args:
        images: what to fit.
        arch: an architecture, or the name of one with its default settings.
        objective: None for the running-error balance.
        epochs: passes over the images.
        batch_size: images of an optimiser step, over all processes.
        learning_rate: of Adam at the start; it falls along a cosine to 5 % of this.
        seed: decides initial weights, order and noise.
        device: "auto", "cpu", "cuda", "cuda:1".
        devices: processes on each machine, each on a device of that type; they train what one process would, but for the rounding
            of sums and for batch normalisation, which normalises by a process's own share.
        nodes: machines. Where there are several, a launcher (torchrun, srun) starts the same call in every process.
        precision: "auto" (see `choose_precision`), "float32", "bfloat16".
        name: what reports call the model.
        out: artifact folder: the model, its history, and TensorBoard scalars per latent variable under `run`.
        replace: whether an earlier artifact there may be replaced.
        callbacks: Lightning's, as those of `latlas.training.callbacks`; with any, the loop runs one optimiser step a call, so
            that they see each. What they gathered is kept with the checkpoint.
        progress: called after each step of the loop with the task, how many images it has seen, how many it will, and a note with
            error, KL and active variables; `print` will do.

    Raises:
        SettingError: a setting out of range.
        OutputExistsError: `out` already holds something.
        ImageFormatError: images that the architecture cannot serve.
        NonFiniteError: the loss left the numbers.
        ArtifactError: nothing can be written at `out`.
        KeyboardInterrupt: with a message that says what was kept.

    >>> import latlas
    >>> images = latlas.ImageSet("noise", torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(0)))
    >>> trained = latlas.train_vae(images, epochs=2, objective=latlas.Objective(balance="fixed", sigma=0.1))
    >>> trained.model.encode(images.tensor()).mean.shape, len(trained.history)
    (torch.Size([64, 16]), 2)
    """
    epochs, batch_size = whole(epochs, "epochs"), whole(batch_size, "batch size")
    devices, nodes = whole(devices, "devices"), whole(nodes, "nodes")
    learning_rate, seed = number(learning_rate, "learning rate"), checked_seed(seed)
    callbacks = checked_callbacks(callbacks)
    _check_settings(images, epochs, batch_size, learning_rate, devices, nodes)
    if out is not None:
        check_out(out, replace=replace)
    built = architecture(arch) if isinstance(arch, str) else arch
    if isinstance(built, type) or not isinstance(built, Architecture):
        raise SettingError(
            f"An architecture is a name ({', '.join(sorted(ARCHITECTURES))}) or the settings of one, got {described(arch)}. A network "
            "of your own trains in a loop of your own: wrap it then with latlas.from_module."
        )
    aim = objective if objective is not None else Objective()
    if not isinstance(aim, Objective):
        raise SettingError(f"An objective is latlas.Objective(...), as Objective(balance='fixed'), got {described(aim)}.")
    place = choose_device(device)
    chosen = choose_precision(precision, convolutional=built.convolutional, device=place)
    processes = devices * nodes
    schedule = Schedule(
        epochs=epochs,
        # Of equal shares, the mean over processes is that over images.
        batch_size=batch_size if processes == 1 else min(batch_size, len(images) // processes * processes),
        learning_rate=learning_rate,
        seed=derived_seed(seed, "training"),
        # Several backward passes in one step are more than Lightning's distributed wrapper can follow.
        per_step=8 if processes == 1 and not callbacks else 1,
    )
    settings = {
        "architecture": architecture_to_json(built),
        "objective": aim.to_json(),
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "precision": chosen.to_json(),
        "devices": devices,
        "device": place.type,
    } | ({} if nodes == 1 else {"nodes": nodes})
    provenance = Provenance(made_by="train_vae", seed=seed, made_from={"images": images.content_hash}, settings=settings)
    earlier = finished_before(out, provenance, replace=replace)
    if earlier is not None and out is not None:
        model = VAE.from_pretrained(out)
        progress(f"training {model.name}", epochs * len(images), epochs * len(images), "it was done before")
        return TrainedVAE(
            model=model,
            history=earlier,
            precision=chosen,
            seconds=0.0,
            images_per_second=0.0,
            warnings=_warnings(earlier, epochs, aim),
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(seed, "weights"))
        model = VAE(built, images.image_shape, name=name, provenance=provenance)
    module = VAETraining(model, images, aim, schedule, channels_last=chosen.channels_last)
    started = time.perf_counter()
    with held_work_folder(out, provenance) as work:
        with using_threads(threads_for(parameter_count(model), convolutional=built.convolutional)):
            try:
                _fit(module, place, devices, nodes, chosen, work, callbacks, progress)
            except KeyboardInterrupt as interruption:
                raise KeyboardInterrupt(*_what_is_kept(work, epochs)) from interruption
            except NonFiniteError as failure:
                raise told_with_what_is_kept(failure, work) from failure
        seconds = time.perf_counter() - started
        model = model.cpu().eval()
        result = TrainedVAE(
            model=model,
            history=module.history,
            precision=chosen,
            seconds=seconds,
            images_per_second=(len(module.history) - module.earlier_epochs) * len(images) / seconds,
            warnings=_warnings(module.history, epochs, aim),
        )
        if module.global_rank > 0:  # one of several processes speaks and writes
            return result
        for warning in result.warnings:
            logger.warning("%s", warning)
        if out is not None and work is not None:
            _publish(result, Path(out), work, replace=replace)
    return result


def _check_settings(images: ImageSet, epochs: int, batch_size: int, learning_rate: float, devices: int, nodes: int) -> None:
    check_image_set(images, "Training")
    if len(images) == 0:
        raise SettingError("Training needs at least one image.")
    for what, count in (("epoch", epochs), ("image a step", batch_size), ("device", devices), ("node", nodes)):
        if count < 1:
            raise SettingError(f"A training needs at least 1 {what}, got {count}.")
    if not 0 < learning_rate < 10:
        raise SettingError(f"The learning rate must lie between 0 and 10, got {learning_rate}.")
    processes = devices * nodes
    if batch_size % processes:
        raise SettingError(f"The batch size {batch_size} must be a multiple of the {processes} devices that share it.")
    if len(images) < processes:
        raise SettingError(f"Training on {processes} devices needs as many images at least, got {len(images)}.")
    check_processes(devices, nodes)


def _fit(
    module: VAETraining,
    place: torch.device,
    devices: int,
    nodes: int,
    precision: Precision,
    work: Path | None,
    given: Sequence[L.Callback],
    progress: Progress,
) -> None:
    begun = Begun(given)
    callbacks: list[L.Callback] = [
        begun,
        *given,
        ReportProgress(f"training {module.vae.name}", progress, epochs=module.schedule.epochs, images=len(module.images)),
    ]
    resume_from = None
    if work is not None:
        callbacks.append(last_checkpoint(work))
        checkpoint = work / f"{CHECKPOINT}.ckpt"
        resume_from = checkpoint if checkpoint.is_file() else None
    with quiet_lightning():
        trainer = L.Trainer(
            accelerator="gpu" if place.type == "cuda" else "cpu",
            devices=[place.index] if place.index is not None and devices * nodes == 1 else devices,
            num_nodes=nodes,
            # Every step runs the same graph; the processes, told so, sum its gradients as they come: 0.9 of the time.
            strategy="auto" if devices * nodes == 1 else DDPStrategy(gradient_as_bucket_view=True, static_graph=True),
            precision=precision.lightning,
            max_epochs=module.schedule.epochs,
            logger=work is not None and ScalarLog(work / "run"),
            callbacks=callbacks,
            enable_checkpointing=work is not None,
            plugins=[WholeCheckpoints()],
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        module.train()
        with honest_interruption(), going_on_from(resume_from, begun):
            trainer.fit(module, ckpt_path=resume_from, weights_only=True if resume_from is not None else None)
            if trainer.interrupted:  # as some versions of Lightning tell it
                raise KeyboardInterrupt


def _what_is_kept(work: Path | None, epochs: int) -> tuple[str, ...]:
    """Say, as arguments of the exception, from where an interrupted training goes on; remove a folder that keeps nothing."""
    if work is None:
        return ()
    checkpoint = work / f"{CHECKPOINT}.ckpt"
    if not checkpoint.is_file():
        clear_work(work)
        return ()
    done = len(read_checkpoint(checkpoint)["latlas_history"])
    if done >= epochs:
        return ("all epochs are done: the same command writes the model",)
    return (f"the same command goes on from epoch {done + 1} of {epochs}",)


def _publish(result: TrainedVAE, out: Path, work: Path, *, replace: bool) -> None:
    publish(result.model.write_files, result.history, out, work, replace=replace)


def _warnings(history: list[dict[str, Any]], epochs: int, objective: Objective) -> list[str]:
    last = history[-1]
    warnings = []
    if last["epoch"] < epochs:
        warnings.append(f"Training was stopped after epoch {last['epoch']} of {epochs}, by a callback.")
    # Where the loss holds no KL nothing fixes the scale of the codes: small variances of means are no collapse.
    if last["active"] > 0 or objective.latent_term != "kl":
        return warnings
    cure = (
        "use --balance running-error, which sets the weight from the error"
        if objective.balance == "fixed"
        else f"lower --kl-weight from {objective.kl_weight:g}, or train longer"
    )
    message = (
        f"Every latent variable has collapsed (0 of {len(last['kl'])} active): the KL term has won, and the decoder draws "
        f"one mean image whatever it is given. To cure it, {cure}."
    )
    return [*warnings, message]
