"""Workers on this machine: each a process of its own, so that one that is killed takes only its item with it."""

import os
import signal
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, resource_tracker
from typing import Any

import torch

from latlas.base.errors import CapabilityError, EngineError
from latlas.base.orphans import watch_parent
from latlas.encodings.engines.engine import Item, Result

_PATIENCE = 3  # times that one item may end its worker: by then it is the item, and no accident

Make = Callable[[], Callable[[Any], Any]]

_function: Callable[[Any], Any] | None = None  # in a worker: what `make` gave there


class Worker:
    """One process: an executor of one, since an executor whose process was killed gives up all of its others.

    Args:
        index: which of the machine's devices is its own.
        threads: it computes with.
    """

    def __init__(self, index: int, threads: int) -> None:
        self.index, self.threads = index, threads
        # Not forked: a copy of a process with threads, or with a GPU in use, may hang.
        self.executor = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
        with _no_interrupts_inherited():
            self.executor.submit(_begin, index, threads)
        self.processes = list(self.executor._processes.values())  # which the executor forgets as soon as it is shut down
        self.ready: Future[None] = Future()

    def prepare(self, make: Make) -> None:
        """Have it make the function of the items to come."""
        self.ready = self._submit(_make, make)

    def work(self, item: Any) -> "Future[Any]":
        """Return the promise of an item's result."""
        return self._submit(_work, item)

    def result_of(self, promise: "Future[Any]") -> Any:
        """Return what was promised, or raise what kept the worker from it: first of all, that it could not begin."""
        failure = self.ready.exception() or promise.exception()
        if failure is None:
            return promise.result()
        if type(failure).__name__ == "PicklingError" or (
            isinstance(failure, AttributeError | TypeError) and "pickle" in str(failure)
        ):
            raise CapabilityError(
                f"What was given cannot travel to another process ({failure}). Define functions and classes at the top of a module "
                "that can be imported, or use the local engine."
            ) from failure
        raise failure

    def stop(self) -> None:
        """End the process, in the middle of its work if need be: nobody waits for that any more."""
        self.executor.shutdown(wait=False, cancel_futures=True)
        for process in self.processes:
            process.terminate()

    def _submit(self, function: Callable[..., Any], *given: Any) -> "Future[Any]":
        try:
            return self.executor.submit(function, *given)
        except BrokenProcessPool as ended:  # it died while it had nothing to do
            promise: Future[Any] = Future()
            promise.set_exception(ended)
            return promise


def map_in_pool(
    idle: list[Worker],
    count: int,
    threads: int,
    make: Callable[[], Callable[[Item], Result]],
    items: Sequence[Item],
) -> Generator[tuple[int, Result], None, None]:
    """Yield the place of each item and its result, as workers finish them.

    Args:
        idle: workers that an earlier call has left; those that this one leaves are put back.
        count: of workers.
        threads: that each computes with.
        make: as of `Engine.map`.
        items: as of `Engine.map`.

    Raises:
        EngineError: an item ended its worker three times.
        CapabilityError: what was given cannot be pickled.
    """
    waiting = deque(range(len(items)))
    deaths: Counter[int] = Counter()
    crew: dict[Future[Any], tuple[Worker, int]] = {}  # those at work, by what they have promised

    def hand_out(worker: Worker, *, fresh: bool) -> None:
        if fresh:
            worker.prepare(make)
        place = waiting.popleft()
        crew[worker.work(items[place])] = worker, place

    try:
        for index in range(min(count, len(items))):
            hand_out(idle.pop() if idle else Worker(index, threads), fresh=True)
        while crew:
            for promise in wait(crew, return_when=FIRST_COMPLETED).done:
                worker, place = crew.pop(promise)
                try:
                    result = worker.result_of(promise)
                except BrokenProcessPool as ended:
                    worker.stop()
                    deaths[place] += 1
                    if deaths[place] == _PATIENCE:
                        raise EngineError(
                            f"A worker process ended {_PATIENCE} times while it worked on {items[place]!r}: out of memory, or killed. "
                            "Take fewer processes or smaller parts. A script that starts workers needs "
                            "`if __name__ == '__main__':` around what it does."
                        ) from ended
                    waiting.appendleft(place)
                    hand_out(Worker(worker.index, threads), fresh=True)
                    continue
                if waiting:
                    hand_out(worker, fresh=False)
                else:
                    idle.append(worker)
                yield place, result
    finally:
        for worker, _ in crew.values():
            worker.stop()


@contextmanager
def _no_interrupts_inherited() -> Iterator[None]:
    """Start processes that Ctrl-C does not reach, not even while they are starting; for this one it waits till they are."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # would end the block
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(index: int, threads: int) -> None:
    """Begin a worker's life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the first one decides
    watch_parent()
    os.environ["LOCAL_RANK"] = str(index)
    torch.set_num_threads(threads)


def _make(make: Make) -> None:
    global _function
    _function = None  # what came before may be large
    _function = make()


def _work(item: Any) -> Any:
    assert _function is not None
    return _function(item)
