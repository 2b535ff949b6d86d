"""What a training spends its time on: `make profile` keeps it in benchmarks/profiles/.

For each network operators by torch.profiler, on the wall's clock, and Python functions by cProfile, on processor time; one thread.
Profiling itself costs time, most where calls are many and short, and a busy machine adds its own: shares are a hint at where to
look, and bench.py measures.
"""

import cProfile
import io
import logging
import os
import platform
import pstats
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from bench_training import NETWORKS, bare, ours
from torch.autograd.profiler_util import EventList
from torch.profiler import ProfilerActivity, profile

from latlas.data.images import ImageSet
from latlas.data.loading import load_images
from latlas.training.objectives import Objective

FOLDER = Path(__file__).parent / "profiles"
_LINES = 25


def main() -> int:
    """Profile every network's training, and the bare loop beside it."""
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    FOLDER.mkdir(exist_ok=True)
    for name in NETWORKS:
        train = load_images("mnist:train[0:1280]" if name == "conv" else "mnist:train[0:6400]")
        file = FOLDER / f"training-{name.replace(', ', '-')}.txt"
        file.write_text(_profile(name, train), encoding="utf-8")
        print(file)
    return 0


def _profile(name: str, train: ImageSet) -> str:
    def balanced() -> object:
        return ours(name, train, 1, Objective(), constant_rate=False)

    def by_hand() -> object:
        return bare(name, train, 1)

    balanced()  # what is loaded late is loaded here
    parts = [
        f"{name}: one epoch of {len(train):,} digits, batches of 128, one thread; torch {torch.__version__}, {platform.machine()}",
        "train_vae, operators by wall time\n\n" + _operators(balanced),
        "a bare float32 loop, operators by wall time\n\n" + _operators(by_hand),
        "train_vae, Python functions by their own processor time\n\n" + _functions(balanced),
    ]
    return "\n\n".join(parts) + "\n"


def _operators(work: Callable[[], object]) -> str:
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        work()
    events: EventList = seen.key_averages()
    whole = sum(event.self_cpu_time_total for event in events)
    rows = sorted(events, key=lambda event: -event.self_cpu_time_total)[:_LINES]
    lines = [f"{'operator':60} {'own ms':>9} {'share':>6} {'calls':>7}"]
    lines += [
        f"{event.key[:60]:60} {event.self_cpu_time_total / 1e3:9.1f} {event.self_cpu_time_total / whole:6.1%} {event.count:7}"
        for event in rows
    ]
    return "\n".join(lines)


def _functions(work: Callable[[], object]) -> str:
    profiler = cProfile.Profile(time.process_time)
    profiler.enable()
    work()
    profiler.disable()
    text = io.StringIO()
    pstats.Stats(profiler, stream=text).sort_stats("tottime").print_stats(_LINES)
    kept = [
        line
        for line in text.getvalue().splitlines()
        if line.strip() and "Ordered by" not in line and "List reduced" not in line
    ]
    return re.sub(r"/\S*?/(site-packages|src|lib/python[\d.]+|benchmarks)/", "", "\n".join(kept))


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    sys.exit(main())
