"""Scalars for TensorBoard, on the disk when they are said to be."""

import os
import time
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers.logger import Logger


class ScalarLog(Logger):
    """An event file that is written in the process's own thread.

    TensorBoard's own writers hand events to another thread, and tensorboardX's flush does not wait for it: a process that dies
    after a checkpoint would lose epochs that the checkpoint takes for told.

    Args:
        folder: where event files lie; it is made.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self._writer: Any = None

    @property
    def name(self) -> str:
        """No folder of its own."""
        return ""

    @property
    def version(self) -> str:
        """As above."""
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Write each metric as a scalar."""
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        for name, value in metrics.items():
            summary = Summary(value=[Summary.Value(tag=name, simple_value=float(value))])
            self._opened().write_event(Event(wall_time=time.time(), step=step, summary=summary))

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """Nothing: the artifact's provenance has the settings."""

    @rank_zero_only
    def save(self) -> None:
        """Put what was written on the disk."""
        if self._writer is not None:
            self._writer.flush()

    @rank_zero_only
    def finalize(self, status: str) -> None:  # noqa: ARG002
        """Close the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _opened(self) -> Any:
        if self._writer is None:
            from tensorboardX.event_file_writer import EventsWriter

            self.folder.mkdir(parents=True, exist_ok=True)
            # Files are named by the second: without a number a resumed run could write over what it goes on from.
            number = len(list(self.folder.glob("events.*")))
            self._writer = EventsWriter(os.fspath(self.folder / "events"), f".{number}")
        return self._writer
