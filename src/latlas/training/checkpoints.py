"""Checkpoints that are whole or not there: what a training goes on from must survive its process and a full disk."""

import os
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from latlas.base.errors import ArtifactError

CHECKPOINT = "last"


class WholeCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside its place, onto the disk, and renames it.

    Lightning's own goes through a file in the system's folder for temporary ones; where that is another disk, it is copied into
    place, and a process that dies on the way leaves half of it in the place of the last good one.
    """

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
    return ModelCheckpoint(dirpath=work, filename=CHECKPOINT, save_top_k=1, every_n_epochs=1, enable_version_counter=False)
