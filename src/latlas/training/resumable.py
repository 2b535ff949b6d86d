"""What every training with Lightning shares: steps counted, a history, checkpoints to go on from, an honest interruption."""

import contextlib
import logging
import math
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
from torch import Tensor

from latlas.base.artifacts import CONFIG, check_free, read_json, write_json, writing
from latlas.base.errors import ArtifactError, NonFiniteError, SettingError
from latlas.base.launch import is_first, launched
from latlas.base.locking import LOCK, FolderLock
from latlas.base.placing import FINISHED, remove
from latlas.base.progress import Progress
from latlas.base.provenance import Provenance, file_hash
from latlas.base.work_folders import discard, is_finished, work_folder_of
from latlas.training.checkpoints import CHECKPOINT, Begun, WholeCheckpoints, going_on_from, last_checkpoint, read_checkpoint
from latlas.training.finite import bad_variables, check_finite
from latlas.training.precision import Precision
from latlas.training.scalar_log import ScalarLog

_SETTINGS = "settings.json"
_KIND = "training"  # of work folder
_HISTORY = "run/history.json"


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
        self._unread: tuple[Tensor, Tensor | None] | None = None  # terms and codes of the last step

    @property
    def epochs(self) -> int:
        """Records that the history will have."""
        return -(-self.steps // self.steps_per_epoch)

    def on_train_epoch_start(self) -> None:
        """Start the epoch's means."""
        self.steps_done = self.current_epoch * self.steps_per_epoch
        self.epoch_terms = []
        self._unread = None

    def record(self, *values: Tensor, codes: Tensor | None = None) -> None:
        """Count one step and keep its terms.

        Args:
            values: the step's terms.
            codes: what the step computed for each latent variable, `n variables`, for a message to name those that are bad.

        Raises:
            NonFiniteError: a term of the step before left the numbers.
        """
        # One step late: an accelerator has done that one by now, and nobody waits.
        self._check_step()
        self.epoch_terms.append(torch.stack([value.detach().float() for value in values]))
        self._unread = (self.epoch_terms[-1], None if codes is None else codes.detach())
        self.steps_done += 1

    def culprit(self, terms: dict[str, float], codes: Tensor | None) -> str:  # noqa: ARG002
        """Return which part of the training these terms point to, in words; empty where they do not tell."""
        return "" if codes is None else bad_variables(codes)

    def _check_step(self) -> None:
        if self._unread is None:
            return
        values, codes = self._unread
        if bool(values.isfinite().all()):
            return
        terms = dict(zip(self.terms, values.tolist(), strict=True))
        term = next(name for name, value in terms.items() if not math.isfinite(value))
        where = [f"batch {len(self.epoch_terms)} of epoch {self.current_epoch + 1}", self.culprit(terms, codes)]
        raise NonFiniteError(
            f"Training left the numbers in step {self.steps_done}: {term} became {terms[term]}. Lower the learning rate "
            f"({self.learning_rate:g}). It was {', '.join(filter(None, where))}."
        )

    def on_train_epoch_end(self) -> None:
        """Publish the means of the epoch's terms.

        Raises:
            NonFiniteError: a term or a weight left the numbers; the message names it and its step.
        """
        self._check_step()
        self._unread = None
        check_finite(self, when=f"after step {self.steps_done}", cure=f"Lower the learning rate ({self.learning_rate:g}).")
        values = torch.stack(self.epoch_terms).double().cpu()
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
        if not all(record.keys() >= {"step", *self.terms} for record in self.history):
            raise ValueError("its history is of another training")
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
        ArtifactError: the checkpoint is none that this training can go on from.
    """
    begun = Begun()
    callbacks: list[L.Callback] = [begun, ReportSteps(task, progress)]
    resume_from = None
    if work is not None:
        callbacks.append(last_checkpoint(work))
        checkpoint = work / f"{CHECKPOINT}.ckpt"
        resume_from = checkpoint if checkpoint.is_file() else None
    try:
        with quiet_lightning():
            trainer = L.Trainer(
                accelerator="gpu" if place.type == "cuda" else "cpu",
                devices=[place.index] if place.index is not None else 1,
                precision=precision.lightning,
                max_epochs=module.epochs,
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
    except KeyboardInterrupt as interruption:
        raise KeyboardInterrupt(*_what_is_kept(work, module.steps)) from interruption
    except NonFiniteError as failure:
        raise told_with_what_is_kept(failure, work) from failure


def check_out(out: str | Path, *, replace: bool = False) -> None:
    """Raise now, before any work, if no training could write there: as `check_free`, except where one is done.

    A training whose process died when its artifact had taken its place is left to `finished_before`, which knows whether it is
    the same.

    Raises:
        OutputExistsError, ArtifactError: as `check_free`.
    """
    if not is_finished(work_folder_of(Path(out), _KIND), Path(out)):
        check_free(out, replace=replace)


def finished_before(out: str | Path | None, provenance: Provenance, *, replace: bool = False) -> list[dict[str, Any]] | None:
    """Return the history of the same training if its artifact has taken its place, and its process died before it had cleared up.

    What it left is cleared away; where several processes were started together, the next training there does that.

    Raises:
        OutputExistsError: another training's artifact lies there, and is not to be replaced.
        ArtifactError: its history cannot be read.
    """
    if out is None:
        return None
    if not is_finished(work := work_folder_of(Path(out), _KIND), Path(out)):
        check_free(out, replace=replace)  # it may have been cleared up since `check_out` looked
        return None
    if read_json(work / _SETTINGS) != provenance.to_json():
        check_free(out, replace=replace)
        return None
    history: list[dict[str, Any]] = read_json(Path(out) / _HISTORY)
    if launched() is None:
        discard(work, Path(out))
    return history


@contextmanager
def held_work_folder(out: str | Path | None, provenance: Provenance) -> Iterator[Path | None]:
    """Yield the folder beside `out` where checkpoints and logs live until the artifact is whole, and hold it; None for no `out`.

    Raises:
        SettingError: an unfinished training with other settings lies there.
        ArtifactError: another process trains there, or the folder cannot be made.
    """
    if out is None:
        yield None
        return
    work = work_folder_of(Path(out), _KIND)
    lock = FolderLock(work) if is_first() else None  # of several processes of one training, the first holds it for all
    try:
        _prepare(work, provenance)
        yield work
    finally:
        if lock is not None:
            if lock.held:  # once it was removed, another process may have begun there
                _remove_if_empty(work)
            lock.release()


def _remove_if_empty(work: Path) -> None:
    with contextlib.suppress(OSError):
        if {path.name for path in work.iterdir()} <= {LOCK}:
            shutil.rmtree(work)


def _prepare(work: Path, provenance: Provenance) -> None:
    record = provenance.to_json()
    if (work / f"{CHECKPOINT}.ckpt").is_file():  # else it ended before its first whole epoch: there is nothing to go on with
        if read_json(work / _SETTINGS) != record:
            raise SettingError(
                f"{work} holds an unfinished training with other settings. Start again with those to go on with it, or delete it."
            )
        return
    try:
        if is_first():
            clear_work(work)  # of events of steps that are taken again
        work.mkdir(parents=True, exist_ok=True)
        write_json(work / _SETTINGS, record)
    except OSError as failure:
        raise ArtifactError(f"Could not write {work}: {failure.strerror or failure}. Name another place.") from failure


def publish(
    write_files: Callable[[Path], None], history: list[dict[str, Any]], out: Path, work: Path, *, replace: bool
) -> None:
    """Write the artifact with its history and logs, and remove the work folder."""
    with writing(out, replace=replace) as beside:
        run = beside / "run"
        if (work / "run").is_dir():
            shutil.copytree(work / "run", run, ignore=shutil.ignore_patterns("*.ckpt"))
        run.mkdir(exist_ok=True)
        write_json(beside / _HISTORY, history)
        write_files(beside)
        # Should the process die after the renaming, whoever comes next knows that the work is done with.
        (work / FINISHED).write_text(file_hash(beside / CONFIG), encoding="utf-8")
    discard(work, out)


def told_with_what_is_kept(failure: NonFiniteError, work: Path | None) -> NonFiniteError:
    """Return the same error with where the last good state lies; remove a folder that keeps nothing."""
    if work is None:
        return failure
    if not (work / f"{CHECKPOINT}.ckpt").is_file():
        clear_work(work)
        return failure
    return NonFiniteError(f"{failure} The last good state is kept in {work}; delete that to train with other settings.")


def clear_work(work: Path) -> None:
    """Empty a work folder whose process holds it."""
    for path in work.iterdir():
        if path.name != LOCK:  # which whoever holds it removes
            remove(path)


def _what_is_kept(work: Path | None, steps: int) -> tuple[str, ...]:
    """Say, as arguments of the exception, from where an interrupted training goes on; remove a folder that keeps nothing."""
    if work is None:
        return ()
    checkpoint = work / f"{CHECKPOINT}.ckpt"
    if not checkpoint.is_file():
        clear_work(work)
        return ()
    done = read_checkpoint(checkpoint)["latlas_history"][-1]["step"]
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
