"""What every engine offers: a function made once in each worker, applied to many items, whoever computes them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TypeVar

import torch

from latlas.base.progress import Progress, silent
from latlas.data.decode_workers import usable_cores

Item = TypeVar("Item")
Result = TypeVar("Result")
Value = TypeVar("Value")


class Engine(ABC):
    """Applies a function to items in one worker or in many.

    An item is what is lost when a worker dies: another worker computes it again, and nothing else.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """One of the names that `engine_named` knows."""

    @property
    def leads(self) -> bool:
        """Whether this process writes what all have made; of processes started together, one does."""
        return True

    @property
    def threads(self) -> int:
        """How many threads each worker computes with."""
        return torch.get_num_threads()

    @property
    def cores(self) -> int:
        """How many cores of its machine each worker has to itself."""
        return usable_cores()

    @property
    def several(self) -> bool:
        """Whether workers share machines: then each takes its part of the cores, and the GPU that is its own."""
        return False

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
            progress: told after each item, in the process that leads.

        Raises:
            EngineError: workers that keep ending.
            LatlasError: what the function raised.
        """
        tell = progress if self.leads else silent
        tell(task, 0, len(items))
        with closing(self.results(make, items)) as results:  # ends the workers' work with that of whoever asked for it
            for done, (place, result) in enumerate(results, start=1):
                tell(task, done, len(items))
                yield items[place], result

    @abstractmethod
    def results(
        self, make: Callable[[], Callable[[Item], Result]], items: Sequence[Item]
    ) -> Generator[tuple[int, Result], None, None]:
        """Yield the place of each item and its result, as `map` does."""

    def share(self, value: Value) -> Value:
        """Return the leader's value in every process; where there is one process, the value."""
        return value


@dataclass(frozen=True)
class LocalEngine(Engine):
    """The work in this process, one item after the other."""

    name: str = "local"

    def results(
        self, make: Callable[[], Callable[[Item], Result]], items: Sequence[Item]
    ) -> Generator[tuple[int, Result], None, None]:
        """Yield the results in order."""
        function = make()
        for place, item in enumerate(items):
            yield place, function(item)
