"""The engine `torch`: processes that torchrun or srun started, or that it starts on this machine."""

import weakref
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from latlas.base.errors import SettingError
from latlas.base.launch import launched
from latlas.data.decode_workers import usable_cores
from latlas.encodings.engines.engine import Engine, Item, LocalEngine, Result, Value


@dataclass(frozen=True, eq=False)
class TorchEngine(Engine):
    """Several processes, each on its own device.

    Where a launcher started this process with others, all of them make the same call: process r of w takes items r, r + w, ...,
    and each gets all results. There a process that dies ends the launch; started again (torchrun does it by itself with
    --max-restarts), it goes on with what is missing. Else `devices` processes are started here, each given the next item as it
    finishes one, and a process that dies costs its item. They stay for the next call, as long as the engine does.

    Args:
        devices: processes to start here; as many as a launcher has started, where one did.

    Raises:
        SettingError: fewer than 1.
    """

    devices: int = 1
    name: str = "torch"
    _idle: list[Any] = field(default_factory=list, init=False, repr=False, compare=False)  # workers, kept from call to call

    def __post_init__(self) -> None:
        if self.devices < 1:
            raise SettingError(f"An engine needs at least 1 device, got {self.devices}.")
        weakref.finalize(self, _dismiss, self._idle)  # at the latest when the program ends

    @property
    def leads(self) -> bool:
        """Whether this is the first of the processes that were started together, or the one that starts them."""
        launch = launched()
        return launch is None or launch.rank == 0

    @property
    def threads(self) -> int:
        """Of the threads of the process that starts the others, each gets its share; a launcher has shared them out already."""
        return torch.get_num_threads() if launched() is not None else max(1, torch.get_num_threads() // self.devices)

    @property
    def cores(self) -> int:
        """Those of this machine, shared out alike."""
        launch = launched()
        return max(1, usable_cores() // (self.devices if launch is None else launch.local_world))

    @property
    def several(self) -> bool:
        """Whether there is more than one process."""
        return launched() is not None or self.devices > 1

    def results(
        self, make: Callable[[], Callable[[Item], Result]], items: Sequence[Item]
    ) -> Generator[tuple[int, Result], None, None]:
        """Yield each result."""
        launch = launched()
        if launch is not None:
            from latlas.encodings.engines.ranks import map_over_ranks

            yield from map_over_ranks(launch, make, items)
        elif not self.several:
            yield from LocalEngine().results(make, items)
        else:
            from latlas.encodings.engines.pool import map_in_pool

            yield from map_in_pool(self._idle, self.devices, self.threads, make, items)

    def share(self, value: Value) -> Value:
        """Return the first process's value in all that were started together."""
        launch = launched()
        if launch is None:
            return value
        from latlas.encodings.engines.ranks import share_over_ranks

        return share_over_ranks(launch, value)


def _dismiss(idle: list[Any]) -> None:
    while idle:
        idle.pop().stop()
