"""Processes that a launcher started together: each takes every so-manieth item, and all get all results."""

import atexit
import os
from collections.abc import Callable, Generator, Sequence
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

import torch.distributed as dist

from latlas.base.errors import EngineError, SettingError
from latlas.base.launch import Launch
from latlas.encodings.engines.engine import Item, Result

Value = TypeVar("Value")
_ROUND = 4  # items that each process computes between two exchanges: so many results are held at once
_PATIENCE = timedelta(days=1)  # for the slowest; that a process died is noticed at once


def map_over_ranks(
    launch: Launch, make: Callable[[], Callable[[Item], Result]], items: Sequence[Item]
) -> Generator[tuple[int, Result], None, None]:
    """Yield the place of each item and its result, in every process, in one order.

    Raises:
        EngineError: another process failed; the message is its own.
    """
    group = _meet(launch)
    function: Callable[[Item], Result] | None = None
    for start in range(0, len(items), _ROUND * launch.world):
        stop = min(start + _ROUND * launch.world, len(items))
        results: list[tuple[int, Result]] = []
        failure: Exception | None = None
        try:
            function = make() if function is None else function
            results = [(place, function(items[place])) for place in range(start + launch.rank, stop, launch.world)]
        except Exception as problem:  # the others must hear of it: they wait for this process's results
            failure = problem
        told: list[Any] = [None] * launch.world
        dist.all_gather_object(told, (results, None if failure is None else str(failure) or repr(failure)), group=group)
        if failure is not None:
            raise failure
        for rank, (_, message) in enumerate(told):
            if message is not None:
                raise EngineError(f"Process {rank} of {launch.world} failed: {message}")
        for found, _ in told:
            yield from found


def share_over_ranks(launch: Launch, value: Value) -> Value:
    """Return the first process's value in all of them; all wait for it."""
    held: list[Any] = [value]
    dist.broadcast_object_list(held, src=0, group=_meet(launch))
    return held[0]


@cache
def _meet(launch: Launch) -> Any:
    """Return the group of all processes in which results travel: gloo, since they lie in memory and on no GPU."""
    if dist.is_initialized():
        return dist.new_group(backend="gloo", timeout=_PATIENCE)
    if launch.launcher == "srun" and "MASTER_PORT" not in os.environ:
        from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

        try:
            slurm = SLURMEnvironment(auto_requeue=False)
        except RuntimeError as failure:  # of --ntasks without --ntasks-per-node
            raise SettingError(f"The processes that srun started cannot meet: {failure}") from failure
        place = f"tcp://{slurm.main_address}:{slurm.main_port}"
        dist.init_process_group("gloo", init_method=place, rank=launch.rank, world_size=launch.world, timeout=_PATIENCE)
    else:
        dist.init_process_group("gloo", rank=launch.rank, world_size=launch.world, timeout=_PATIENCE)
    # Left to the interpreter's end, the threads of the connection outlive what they belong to, and the process aborts.
    atexit.register(_part)
    return dist.group.WORLD


def _part() -> None:
    """End the meeting, unless whoever shared it has."""
    _meet.cache_clear()
    if dist.is_initialized():
        dist.destroy_process_group()
