"""Checkpoints that are whole or not there, and can do nothing but be read: a training goes on from them, whoever wrote them."""

import math
import os
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor

from latlas.base.errors import ArtifactError, LatlasError

CHECKPOINT = "last"

_DEEPEST = 32  # levels of a checkpoint; Lightning's own have nine
_MOST_COUNTED = 2**53  # epochs and steps: beyond, none of them would ever come to an end
# What Lightning and the trainings here look up without asking whether it is there.
_PARTS = {
    "epoch": int,
    "global_step": int,
    "pytorch-lightning_version": str,
    "state_dict": dict,
    "loops": dict,
    "callbacks": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
    "latlas_history": list,
}


class WholeCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside its place, onto the disk, and renames it; reads numbers and text, and runs nothing.

    Lightning's own goes through a file in the system's folder for temporary ones; where that is another disk, it is copied into
    place, and a process that dies on the way leaves half of it in the place of the last good one.
    """

    def load_checkpoint(self, path: str | Path, *_: Any, **__: Any) -> dict[str, Any]:
        """Read a checkpoint, whatever Lightning asks for: where it finds one by itself, it asks for less than this.

        Raises:
            ArtifactError: as `read_checkpoint`.
        """
        return read_checkpoint(Path(path))

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove nothing: a checkpoint takes the place of the one before it."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:  # noqa: ARG002
        """Write a checkpoint.

        Raises:
            ArtifactError: the disk refused; the checkpoint that was there stays.
        """
        target = Path(path)
        beside = target.with_name(f"{target.name}.partial")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with beside.open("wb") as stream:
                torch.save(checkpoint, stream)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(beside, target)  # noqa: PTH105
        except (OSError, RuntimeError) as failure:  # torch tells of a full disk in an error of its own
            beside.unlink(missing_ok=True)
            reason = getattr(failure, "strerror", None) or next(iter(str(failure).splitlines()), type(failure).__name__)
            kept = (
                "The one before it is kept: the same command goes on from there." if target.is_file() else "There is none yet."
            )
            raise ArtifactError(f"Could not write the checkpoint {target}: {reason}. {kept}") from failure


def last_checkpoint(work: Path) -> ModelCheckpoint:
    """Return the callback that keeps the state after the last whole epoch."""
    return _LastCheckpoint(dirpath=work, filename=CHECKPOINT, save_top_k=1, every_n_epochs=1, enable_version_counter=False)


class _LastCheckpoint(ModelCheckpoint):
    """Believes no checkpoint about where the one before it lies: Lightning's own would remove what is named there, any folder."""

    def state_dict(self) -> dict[str, Any]:
        """Return nothing to keep."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take nothing back."""


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return what a checkpoint holds: numbers, text and tensors, in the parts that a training goes on from.

    Raises:
        ArtifactError: it cannot be read without running what it holds, or is no checkpoint of a training here.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
        fault = _fault(found)
    except Exception as failure:  # what torch raises for a damaged file is no closed list
        raise _unusable(path, f"it cannot be read safely: {_first_line(failure)}") from failure
    if fault:
        raise _unusable(path, fault)
    return found


class Begun(L.Callback):
    """Knows whether a training has taken a step, and sees to it that the first one has what it needs.

    Args:
        others: callbacks that somebody else wrote: what they raise is their own fault, and no checkpoint's.
    """

    ready = begun = False

    def __init__(self, others: Iterable[L.Callback] = ()) -> None:
        self.others = tuple(others)

    def setup(self, *_: Any, **__: Any) -> None:
        """Note that the processes have met: what is read of a checkpoint is read from now on."""
        self.ready = True

    def at_stake(self, failure: Exception) -> bool:
        """Tell whether a failure can be the checkpoint's fault: not one of the network, of the disk, or of others' callbacks."""
        if not self.ready or self.begun or isinstance(failure, OSError | ImportError):
            return False
        frames = (frame.f_locals.get("self") for frame, _ in traceback.walk_tb(failure.__traceback__))
        return not any(found is other for found in frames for other in self.others)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look at what the optimisers remember, and at what the training does.

        Raises:
            ValueError: as `own_moments`, or of another epoch than the one that follows on the history.
        """
        if len(pl_module.history) != trainer.current_epoch:  # type: ignore[arg-type]
            raise ValueError("its history and its counts are of different epochs")
        for optimizer in trainer.optimizers:
            own_moments(optimizer)

    def on_train_batch_end(self, *_: Any, **__: Any) -> None:
        """Note it."""
        self.begun = True


@contextmanager
def going_on_from(checkpoint: Path | None, training: Begun) -> Iterator[None]:
    """Take what fails within the block, before the training has taken a step, for the fault of the checkpoint it goes on from.

    Raises:
        ArtifactError: instead of whatever Lightning or torch stumbled over.
    """
    try:
        yield
    except (LatlasError, torch.OutOfMemoryError):
        raise
    except Exception as failure:
        if checkpoint is None or not training.at_stake(failure):
            raise
        raise _unusable(checkpoint, _first_line(failure)) from failure


def own_moments(optimizer: torch.optim.Optimizer) -> None:
    """Give an optimiser of the Adam family its running means in memory of their own, laid out as the weights are.

    A fused step goes through weights and means by the weights' count alone: of shorter means, or of some that share memory, it
    would write over whatever lies behind them.

    Raises:
        ValueError: means of another shape than their weights'.
    """
    for weights, remembered in optimizer.state.items():
        for name, value in remembered.items():
            if not isinstance(value, Tensor):
                continue
            if name == "step" and value.numel() == 1 and value.is_floating_point():
                remembered[name] = value.detach().reshape(()).clone()
            elif name != "step" and value.shape == weights.shape and value.layout == torch.strided:
                remembered[name] = torch.empty_like(weights).copy_(value.detach())
            else:
                raise ValueError(f"the optimiser's {name} has another shape than its weights")


def _unusable(path: Path, reason: str) -> ArtifactError:
    return ArtifactError(
        f"{path} is no checkpoint that this training can go on from ({reason}). Delete {path.parent} to train from the start."
    )


def _first_line(failure: Exception) -> str:
    lines = str(failure).splitlines()
    return f"{type(failure).__name__}: {lines[0][:200]}" if lines else type(failure).__name__


def _fault(found: Any) -> str:
    """Return in words why something that was read is no checkpoint; empty of a good one."""
    if not isinstance(found, dict):
        return f"it holds a {type(found).__name__}"
    for name, kind in _PARTS.items():
        if not isinstance(found.get(name), kind):
            return f"its {name} is missing, or no {kind.__name__}"
    # What a callback keeps is its own affair: nothing that was read so can run anything.
    if not all(_plain(value, _DEEPEST) for name, value in found.items() if name != "callbacks"):
        return "it holds other things than numbers, text and tensors"
    if not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in found["state_dict"].items()):
        return "its state_dict is none"
    if not all(0 <= count <= _MOST_COUNTED for count in (found["epoch"], found["global_step"])) or not _counts(found["loops"]):
        return "its counts are out of range"
    if not found["optimizer_states"]:
        return "its optimizer_states are none"
    history = found["latlas_history"]
    if not history or not all(isinstance(record, dict) and all(map(_measured, record.values())) for record in history):
        return "its history is none"
    return ""


def _plain(value: Any, levels: int) -> bool:
    if isinstance(value, dict):
        return levels > 0 and all(
            (key is None or isinstance(key, str | int | float)) and _plain(item, levels - 1) for key, item in value.items()
        )
    if isinstance(value, list | tuple):
        return levels > 0 and all(_plain(item, levels - 1) for item in value)
    return value is None or isinstance(value, str | bool | int | float | Tensor)


def _counts(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_counts, value.values()))
    return isinstance(value, bool | int) and 0 <= value <= _MOST_COUNTED


def _measured(value: Any) -> bool:
    if isinstance(value, list):
        return all(isinstance(number, int | float) and math.isfinite(number) for number in value)
    return isinstance(value, int | float) and math.isfinite(value)  # else the artifact's history could not be written
