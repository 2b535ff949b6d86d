"""What every engine offers: a function made once in each worker, applied to many items, whoever computes them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

from latlas.base.progress import Progress, silent, track

Item = TypeVar("Item")
Result = TypeVar("Result")
Value = TypeVar("Value")


@runtime_checkable
class Engine(Protocol):
    """Applies a function to items in one worker or in many.

    An item is what is lost when a worker dies: another worker computes it again, and nothing else.
    """

    @property
    def name(self) -> str:
        """One of the names that `engine_named` knows."""
        ...

    @property
    def leads(self) -> bool:
        """Whether this process writes what all have made; of processes started together, one does."""
        ...

    def map(
        self,
        make: Callable[[], Callable[[Item], Result]],
        items: Sequence[Item],
        *,
        task: str = "items",
        progress: Progress = silent,
    ) -> Iterator[tuple[Item, Result]]:
        """Yield each item with its result, in any order.

        Args:
            make: called once in each worker, gives the function of an item; it travels there, so it can be pickled: an
                instance of a class at the top of a module, a `functools.partial` of a function there.
            items: they travel too, and so do the results: small ones. Where processes were started together, each has the same.
            task: what `progress` is told.
            progress: told after each item.

        Raises:
            EngineError: workers that keep ending.
            LatlasError: what the function raised.
        """
        ...

    def share(self, value: Value) -> Value:
        """Return the leader's value in every process; where there is one process, the value."""
        ...


@dataclass(frozen=True)
class LocalEngine:
    """The work in this process, one item after the other."""

    name: str = "local"

    @property
    def leads(self) -> bool:
        """There is nobody else."""
        return True

    def map(
        self,
        make: Callable[[], Callable[[Item], Result]],
        items: Sequence[Item],
        *,
        task: str = "items",
        progress: Progress = silent,
    ) -> Iterator[tuple[Item, Result]]:
        """Yield each item with its result, in order."""
        function = make()
        for item in track(items, task, progress):
            yield item, function(item)

    def share(self, value: Value) -> Value:
        """Return the value."""
        return value
