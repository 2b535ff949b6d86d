"""How long work tells how far it is: a callable, so that nothing below the command line prints."""

from collections.abc import Iterable, Iterator, Sized
from typing import Protocol, TypeVar, runtime_checkable

T = TypeVar("T")


@runtime_checkable
class Progress(Protocol):
    """Called with the name of a task, how much of it is done, how much there is (None: unknown), and a short note."""

    def __call__(self, task: str, done: int, total: int | None, note: str = "") -> None: ...


def silent(task: str, done: int, total: int | None, note: str = "") -> None:
    """Tell nobody."""


def track(items: Iterable[T], task: str, progress: Progress, *, total: int | None = None) -> Iterator[T]:
    """Yield the items, reporting before the first and after each."""
    known = len(items) if total is None and isinstance(items, Sized) else total
    progress(task, 0, known)
    for done, item in enumerate(items, start=1):
        yield item
        progress(task, done, known)
