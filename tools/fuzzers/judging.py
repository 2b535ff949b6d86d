"""The judge: what a loader may do with an input, and what it may not."""

import os
import re
import resource
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fuzzers.chance import Mutate, mutated

MOST_SECONDS = 1.0  # of processor time for one input
MOST_MEMORY = 512 * 2**20  # bytes by which one input may make the process grow
MOST_ADDRESSES = 6 * 2**30  # bytes of address space beside what the process has when it starts: a backstop


class Hang(BaseException):
    """A run took too long. No `except Exception` of a loader catches it."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """One loader."""

    seeds: Callable[[Path], list[bytes]]  # well-formed inputs; may lay files into the folder
    load: Callable[[bytes, Path], object]
    mutate: Mutate = lambda data, chance: mutated(data, chance)
    named: bool = False  # the first line of an input says which file the rest is put into
    allowed: Callable[[], tuple[type[BaseException], ...]] = (
        tuple  # beside LatlasError: what the loader's own documentation names
    )


@dataclass(kw_only=True)
class Outcome:
    """What came of fuzzing one target."""

    target: str
    engine: str
    runs: int
    done: int = 0  # of the runs
    read: int = 0  # inputs that were read, seeds counted
    refused: int = 0
    seconds: float = 0.0  # of all runs, by the clock on the wall
    slowest: float = 0.0  # seconds of processor time of one input
    grown: int = 0  # bytes, over all runs
    peak: int = 0  # bytes of the whole process
    coverage: int | None = None  # edges of the program that were reached, of a guided run
    features: int | None = None  # edges, each with how often it was passed
    findings: list[dict[str, str]] = field(default_factory=list)


def judge(target: Target, data: bytes, folder: Path, outcome: Outcome) -> str | None:
    """Load one input, and return what is wrong with how that went, in one line; None where nothing is."""
    from latlas.base.errors import LatlasError

    before, started = _peak(), time.process_time()
    wrong = None
    try:
        with _clock():
            target.load(data, folder)
        outcome.read += 1
    except LatlasError as failure:
        outcome.refused += 1
        if len(str(failure).splitlines()) != 1 or not str(failure).isprintable():
            wrong = f"its message is no line: {str(failure)!r:.200}"
    except target.allowed():
        outcome.refused += 1
    except KeyboardInterrupt:
        raise
    except BaseException as failure:  # whatever it is, it is what is looked for
        wrong = f"{type(failure).__name__} at {_place(failure)}: {str(failure)!r:.300}"
    grown = _peak() - before
    outcome.slowest = max(outcome.slowest, time.process_time() - started)
    outcome.grown += grown
    outcome.peak = _peak()
    if wrong is None and grown > MOST_MEMORY:
        wrong = f"grew by {grown / 2**20:.0f} MiB"
    return wrong


def kind_of(wrong: str) -> str:
    """Return which kind of finding a line tells of: one of each kind is kept."""
    return re.sub(r"[0-9]+", "_", wrong.partition(": ")[0])


def limit_memory() -> None:
    """Bound what this process may address, and have torch compute in one thread."""
    import torch

    torch.set_num_threads(1)
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
    if pages:
        limit = pages * resource.getpagesize() + MOST_ADDRESSES
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def written(folder: Path, name: str, content: bytes) -> Path:
    """Write a file anew, so that what an earlier run has mapped stays as it was; return its path."""
    path = folder / name
    path.unlink(missing_ok=True)
    path.write_bytes(content)
    return path


def named(data: bytes, folder: Path) -> tuple[Path, bytes] | None:
    """Return which file of a folder the first line of an input names, and what stands behind it; None where there is no such file."""
    head, _, content = data.partition(b"\n")
    if not re.fullmatch(rb"[A-Za-z0-9._-]{1,60}", head) or not (folder / head.decode()).is_file():
        return None
    return folder / head.decode(), content


@contextmanager
def exchanged(path: Path, content: bytes) -> Iterator[None]:
    """Let a file hold something else within the block."""
    before = path.read_bytes()
    try:
        written(path.parent, path.name, content)
        yield
    finally:
        written(path.parent, path.name, before)


@contextmanager
def replaced(*doors: tuple[Any, str, Any]) -> Iterator[None]:
    """Set attributes of modules within the block, and put them back: findings are replayed in the process of the tests."""
    before = [getattr(module, name) for module, name, _ in doors]
    try:
        for module, name, door in doors:
            setattr(module, name, door)
        yield
    finally:
        for (module, name, _), door in zip(doors, before, strict=True):
            setattr(module, name, door)


@contextmanager
def within(folder: Path) -> Iterator[None]:
    """Work in a folder."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@contextmanager
def _clock() -> Iterator[None]:
    def ring(*_: Any) -> None:
        raise Hang(f"over {MOST_SECONDS:g} s")

    before = signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _place(failure: BaseException) -> str:
    """Return the innermost line of latlas that an exception came through."""
    frames = [frame for frame in traceback.extract_tb(failure.__traceback__) if "latlas" in frame.filename]
    return f"{Path(frames[-1].filename).name}:{frames[-1].name}" if frames else "no line of latlas"
