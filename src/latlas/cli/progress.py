"""Progress for a person: bars on standard error; plain lines where there is no terminal."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from latlas.base.launch import is_first
from latlas.base.progress import Progress, silent

_EVERY = 10.0  # seconds between lines of one task, where there is no terminal


@contextmanager
def shown() -> Iterator[Progress]:
    """Yield a `Progress` that shows itself on standard error; of several processes, only the first one's does."""
    if not is_first():
        yield silent
        return
    from rich.console import Console

    console = Console(stderr=True)
    if console.is_terminal:
        with _bars(console) as progress:
            yield progress
    else:
        yield _Lines()


@contextmanager
def _bars(console: object) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TaskID, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    assert isinstance(console, Console)
    bars = Bars(
        SpinnerColumn(finished_text="[green]✓"),
        TextColumn("{task.description}", markup=False),  # names of files may hold what would be markup
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True, compact=True),
        TextColumn("{task.fields[note]}", style="dim", markup=False),
        console=console,
    )
    tasks: dict[str, TaskID] = {}

    def report(task: str, done: int, total: int | None, note: str = "") -> None:
        if task not in tasks or (done == 0 and bars.tasks[tasks[task]].finished):
            tasks[task] = bars.add_task(task, total=total, note=note)
        bars.update(tasks[task], completed=done, total=total, note=note)

    with bars:
        yield report


class _Lines:
    """A line when a task begins, every ten seconds, and when it ends; none any more once nobody can read it."""

    def __init__(self) -> None:
        self.told: dict[str, float] = {}
        self.heard = True

    def __call__(self, task: str, done: int, total: int | None, note: str = "") -> None:
        now = time.monotonic()
        if not self.heard or (done != total and now - self.told.get(task, -_EVERY) < _EVERY):
            return
        self.told[task] = now
        amount = f"{done}" if total is None else f"{done}/{total}"
        try:
            print(f"{task} {amount}{'  ' + note if note else ''}", file=sys.stderr, flush=True)
        except OSError:  # as behind `| head`, or on a full disk: the work is what counts
            self.heard = False
