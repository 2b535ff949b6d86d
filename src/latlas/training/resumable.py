"""What every training with Lightning shares: steps counted, a history, checkpoints to go on from, an honest interruption."""

import logging
import shutil
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from latlas.base.artifacts import read_json, write_json, writing
from latlas.base.errors import ArtifactError, NonFiniteError, SettingError
from latlas.base.progress import Progress
from latlas.base.provenance import Provenance
from latlas.training.precision import Precision

CHECKPOINT = "last"
_SETTINGS = "settings.json"


class SteppedTraining(L.LightningModule):
    """A training that is measured in optimiser steps: it ends after `steps` of them, though that be within an epoch.

    An epoch is what lies between two checkpoints: `steps_per_epoch` steps. Each has one record in the history: means of
    `terms`. What a step draws depends on seed and step alone, so that a training which goes on draws what it would have.

    Args:
        terms: names of what `record` is given after each step.
        steps: in all.
        steps_per_epoch: between two checkpoints.
        learning_rate: for the advice, should the loss leave the numbers.
    """

    def __init__(self, terms: tuple[str, ...], *, steps: int, steps_per_epoch: int, learning_rate: float) -> None:
        super().__init__()
        self.terms = terms
        self.steps, self.steps_per_epoch = steps, steps_per_epoch
        self.learning_rate = learning_rate
        self.automatic_optimization = False
        self.history: list[dict[str, Any]] = []
        self.epoch_terms: list[Tensor] = []
        self.steps_done = 0
        self.earlier_steps = 0  # of a resumed training: those before it was cut off

    @property
    def epochs(self) -> int:
        """Records that the history will have."""
        return -(-self.steps // self.steps_per_epoch)

    def on_train_epoch_start(self) -> None:
        """Start the epoch's means."""
        self.steps_done = self.current_epoch * self.steps_per_epoch
        self.epoch_terms = []

    def record(self, *values: Tensor) -> None:
        """Count one step and keep its terms."""
        self.epoch_terms.append(torch.stack([value.detach().float() for value in values]))
        self.steps_done += 1

    def on_train_epoch_end(self) -> None:
        """Publish the means of the epoch's terms.

        Raises:
            NonFiniteError: one left the numbers; the message names it and its step.
        """
        values = torch.stack(self.epoch_terms).double().cpu()
        if not bool(values.isfinite().all()):
            step, term = (int(index) for index in (~values.isfinite()).nonzero()[0])
            raise NonFiniteError(
                f"Training left the numbers in step {self.steps_done - len(values) + step + 1}: {self.terms[term]} became "
                f"{float(values[step, term])}. Lower the learning rate ({self.learning_rate:g})."
            )
        means = dict(zip(self.terms, values.mean(dim=0).tolist(), strict=True))
        self.history.append({"step": self.steps_done, **means})
        if self.logger is not None:
            self.logger.log_metrics(means, step=self.steps_done)
            self.logger.save()  # on the disk before the checkpoint is: a resumed run does not tell this epoch again

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the history with the checkpoint."""
        checkpoint["latlas_history"] = self.history

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the history back."""
        self.history = list(checkpoint["latlas_history"])
        self.earlier_steps = self.steps_done = self.history[-1]["step"] if self.history else 0


class ReportSteps(L.Callback):
    """Tells a `Progress` how many steps are done, with the last epoch's terms as a note."""

    def __init__(self, task: str, progress: Progress) -> None:
        self.task, self.progress = task, progress
        self.told = -1

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *rest: object) -> None:  # noqa: ARG002
        """Report after each step of the loop."""
        assert isinstance(pl_module, SteppedTraining)
        if pl_module.steps_done == self.told:  # the last pass runs on to its end without a step
            return
        self.told = pl_module.steps_done
        last = pl_module.history[-1] if pl_module.history else {}
        note = " · ".join(f"{term.replace('_', ' ')} {last[term]:.4g}" for term in pl_module.terms if term in last)
        self.progress(self.task, pl_module.steps_done, pl_module.steps, note)


def fit_resumable(
    module: SteppedTraining, *, task: str, place: torch.device, precision: Precision, work: Path | None, progress: Progress
) -> None:
    """Run a training to its last step, from the checkpoint in `work` where there is one.

    Raises:
        KeyboardInterrupt: with a message that says what was kept.
        NonFiniteError: a term of the loss left the numbers.
    """
    callbacks: list[L.Callback] = [ReportSteps(task, progress)]
    resume_from, suffix = None, ""
    if work is not None:
        callbacks.append(
            ModelCheckpoint(dirpath=work, filename=CHECKPOINT, save_top_k=1, every_n_epochs=1, enable_version_counter=False)
        )
        checkpoint = work / f"{CHECKPOINT}.ckpt"
        resume_from = checkpoint if checkpoint.is_file() else None
        # Event files are named by the second: without a suffix a resumed run could write over what it goes on from.
        suffix = f".{len(list((work / 'run').glob('events.*')))}"
    try:
        with quiet_lightning():
            trainer = L.Trainer(
                accelerator="gpu" if place.type == "cuda" else "cpu",
                devices=[place.index] if place.index is not None else 1,
                precision=precision.lightning,
                max_epochs=module.epochs,
                logger=work is not None and TensorBoardLogger(save_dir=work, name="", version="run", filename_suffix=suffix),
                callbacks=callbacks,
                enable_checkpointing=work is not None,
                enable_progress_bar=False,
                enable_model_summary=False,
                use_distributed_sampler=False,
            )
            module.train()
            with honest_interruption():
                trainer.fit(module, ckpt_path=resume_from, weights_only=True if resume_from is not None else None)
                if trainer.interrupted:  # as some versions of Lightning tell it
                    raise KeyboardInterrupt
    except KeyboardInterrupt as interruption:
        raise KeyboardInterrupt(*_what_is_kept(work, module.steps)) from interruption


def work_folder(out: Path, provenance: Provenance) -> Path:
    """Return the folder beside `out` where checkpoints and logs live until the artifact is whole.

    Raises:
        SettingError: an unfinished training with other settings lies there.
        ArtifactError: the folder cannot be made.
    """
    work = out.parent / f".{out.name}.training"
    record = provenance.to_json()
    if (work / f"{CHECKPOINT}.ckpt").is_file():  # else it ended before its first whole epoch: there is nothing to go on with
        if read_json(work / _SETTINGS) != record:
            raise SettingError(
                f"{work} holds an unfinished training with other settings. Start again with those to go on with it, or delete it."
            )
        return work
    try:
        work.mkdir(parents=True, exist_ok=True)
        write_json(work / _SETTINGS, record)
    except OSError as failure:
        raise ArtifactError(f"Could not write {work}: {failure.strerror or failure}. Name another place.") from failure
    return work


def publish(
    write_files: Callable[[Path], None], history: list[dict[str, Any]], out: Path, work: Path, *, replace: bool
) -> None:
    """Write the artifact with its history and logs, and remove the work folder."""
    with writing(out, replace=replace) as beside:
        run = beside / "run"
        if (work / "run").is_dir():
            shutil.copytree(work / "run", run, ignore=shutil.ignore_patterns("*.ckpt", "hparams.yaml"))
        run.mkdir(exist_ok=True)
        write_json(run / "history.json", history)
        write_files(beside)
    shutil.rmtree(work, ignore_errors=True)


def _what_is_kept(work: Path | None, steps: int) -> tuple[str, ...]:
    """Say, as arguments of the exception, from where an interrupted training goes on; remove a folder that keeps nothing."""
    if work is None:
        return ()
    checkpoint = work / f"{CHECKPOINT}.ckpt"
    if not checkpoint.is_file():
        shutil.rmtree(work, ignore_errors=True)
        return ()
    done = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)["latlas_history"][-1]["step"]
    if done >= steps:
        return ("all steps are done: the same command writes the model",)
    return (f"the same command goes on from step {done:,} of {steps:,}",)


@contextmanager
def honest_interruption() -> Iterator[None]:
    """Let Ctrl-C leave as KeyboardInterrupt: Lightning makes `sys.exit(1)` of it, and leaves the signal ignored."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as end:
        if isinstance(end.__context__, KeyboardInterrupt):
            raise end.__context__ from None
        raise
    finally:
        if threading.current_thread() is threading.main_thread() and handler is not None:
            signal.signal(signal.SIGINT, handler)


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keep Lightning's hints about hardware and workers out of a tool that reports for itself."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "lightning")]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\..*")
            yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
