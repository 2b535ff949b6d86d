"""Worker processes that decode ahead of whoever uses the images, into memory that they share with it."""

import mmap
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from latlas.base.errors import DataUnavailableError
from latlas.base.shapes import ImageShape

Bad: TypeAlias = tuple[tuple[int, str], ...]  # position in the source, what is wrong with it
# Decodes images [start, stop) of a source into an array, one a row, and says which it could not.
Decode: TypeAlias = Callable[[int, int, NDArray[np.uint8]], Bad]
Decoded: TypeAlias = tuple[int, int, Tensor, Bad]

_CHUNK = 256  # images that one message asks a worker for, at most: some 25 ms of work at 64 x 64
_CHUNK_BYTES = 1 << 22  # and at most this much, unless one image has more
_AHEAD = 2  # chunks that each worker may be ahead
_MOST = 8
_ALONE = 256  # up to so many images, processes take longer to start than to decode
# A fork starts in milliseconds and shares what is loaded; the workers run neither torch's threads nor CUDA, which is
# what a fork breaks. Elsewhere it is unsafe (macOS) or unknown (Windows), and each worker starts afresh, in seconds.
METHOD = "fork" if sys.platform == "linux" else "spawn"


def workers_for(images: int, asked: int | None = None) -> int:
    """Return how many processes decode: as many as asked for, else one a core and at most 8, and 0 for few images.

    0 means that this process decodes, as it must where it is itself a worker that may start none.
    """
    if multiprocessing.current_process().daemon:
        return 0
    if asked is not None:
        return asked
    return 0 if images <= _ALONE else min(usable_cores(), _MOST)


def usable_cores() -> int:
    """Return how many of the machine's cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class DecodeWorkers:
    """A source's worker processes: started with its first block, kept for the next pass, ended by `close` or with the object.

    Args:
        decode: sent to each worker once; picklable where workers are spawned.
        image_shape: of every image.
        count: how many processes, at least 1.
        source: the source's name, for messages.
        method: how processes start, "fork" or "spawn".
    """

    def __init__(self, decode: Decode, image_shape: ImageShape, *, count: int, source: str, method: str = METHOD) -> None:
        self._source = source
        self._shape = image_shape
        self._chunk = max(1, min(_CHUNK, _CHUNK_BYTES // int(np.prod(image_shape))))
        # One more than can be under way: the one that is being copied out of.
        self._slots = _shared((count * _AHEAD + 1, self._chunk, *image_shape), method)
        self._tasks = _Tasks()
        self._loader: DataLoader[Any] | None = DataLoader(
            _Chunks(decode, self._slots),
            sampler=self._tasks,
            batch_size=None,
            num_workers=count,
            prefetch_factor=_AHEAD,
            persistent_workers=True,
            collate_fn=_as_it_is,
            generator=torch.Generator(),  # else each pass takes a number from the one that all share
            multiprocessing_context=method,
        )
        self.busy = False

    def blocks(self, bounds: Iterable[tuple[int, int]], *, pinned: bool) -> Iterator[Decoded]:
        """Yield start, stop, the pixels (`n c h w`, those of bad images undefined) and the bad ones, for each of the bounds.

        Args:
            bounds: asked for as workers get free, so a little before the blocks are taken.
            pinned: whether the blocks lie in memory from which a GPU copies on its own.

        Raises:
            DataUnavailableError: a worker ended before its work.
        """
        if self._loader is None or self.busy:
            raise RuntimeError("these workers were closed, or serve another pass")
        under_way: deque[tuple[int, int]] = deque()
        free = deque(range(len(self._slots)))

        def tasks() -> Iterator[tuple[int, int, int]]:
            for start, stop in bounds:
                under_way.append((start, stop))
                messages = -(-(stop - start) // self._chunk)
                size = -(-(stop - start) // messages)  # alike, so that no worker waits for another with more
                for first in range(start, stop, size):
                    yield free.popleft(), first, min(first + size, stop)

        self.busy = True
        self._tasks.now = tasks()
        try:
            results = _without_signals(self._loader)
            while (result := next(results, None)) is not None:
                start, stop = under_way.popleft()
                pixels = torch.empty((stop - start, *self._shape), dtype=torch.uint8, pin_memory=pinned)
                bad: Bad = ()
                while True:
                    slot, first, last, found = result
                    pixels[first - start : last - start] = self._slots[slot, : last - first]
                    free.append(slot)
                    bad += found
                    if last == stop:
                        break
                    result = next(results)
                yield start, stop, pixels, bad
        except BaseException as failure:
            if isinstance(failure, GeneratorExit) and not under_way:
                raise  # all that was asked for was taken: the workers can serve another pass
            self.close()
            # What still refers to the loader keeps its processes: this frame, and those that the failure came through.
            results = iter(())
            traceback.clear_frames(failure.__traceback__)
            if isinstance(failure, RuntimeError) and str(failure).startswith("DataLoader worker"):
                raise DataUnavailableError(
                    f"A process that decodes {self._source} ended before its work: killed, or out of memory. Give fewer "
                    "workers; with workers=0 this process decodes. In a script, put what it does under: "
                    "if __name__ == '__main__':"
                ) from None
            raise
        finally:
            self.busy = False

    def close(self) -> None:
        """End the processes."""
        self._loader = None
        self._tasks.now = iter(())

    @property
    def closed(self) -> bool:
        """Whether the processes are gone."""
        return self._loader is None


class _Chunks(Dataset[tuple[int, int, int, Bad]]):
    """What a worker has: asked for a chunk, it decodes into a slot."""

    def __init__(self, decode: Decode, slots: Tensor) -> None:
        self._decode = decode
        self._slots = slots

    def __getitem__(self, task: tuple[int, int, int]) -> tuple[int, int, int, Bad]:
        slot, start, stop = task
        return slot, start, stop, self._decode(start, stop, self._slots[slot, : stop - start].numpy())


class _Tasks(Sampler[tuple[int, int, int]]):
    """What the workers are asked next: another iterator for every pass."""

    now: Iterator[tuple[int, int, int]] = iter(())

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        return self.now


def _as_it_is(item: Any) -> Any:
    return item


def _shared(shape: tuple[int, ...], method: str) -> Tensor:
    if method != "fork":
        return torch.empty(shape, dtype=torch.uint8).share_memory_()  # type: ignore[no-untyped-call]
    # Forked workers inherit nameless memory: /dev/shm, 64 MB in many containers, does not limit it, and nothing can stay.
    pages = mmap.mmap(-1, int(np.prod(shape)))
    return torch.from_numpy(np.frombuffer(pages, dtype=np.uint8).reshape(shape))


def _without_signals(loader: DataLoader[Any]) -> Iterator[Any]:
    """Start a pass; torch shall not raise from a signal, in the midst of whatever uses the images, when a worker dies."""
    before = signal.getsignal(signal.SIGCHLD) if hasattr(signal, "SIGCHLD") else None
    results = iter(loader)
    if before is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, before)
    return results
