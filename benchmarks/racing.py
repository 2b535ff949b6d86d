"""Races: several ways to do the same work, taken in turns, and what their times say of each other."""

import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from latlas.base.provenance import package_versions

Row = dict[str, Any]
CLOCKS = {"processor": "processor time, children included", "wall": "wall time"}


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What one run took, in seconds."""

    wall: float
    processor: float  # of this process and of the children that it waited for: other programs move it less than the wall's

    def on(self, clock: str) -> float:
        """Return the seconds on one of `CLOCKS`."""
        return self.processor if clock == "processor" else self.wall


def spent_on(work: Callable[[], object]) -> Spent:
    """Run something once."""
    wall, processor = time.perf_counter(), _processor_seconds()
    work()
    return Spent(wall=time.perf_counter() - wall, processor=_processor_seconds() - processor)


def race(runners: dict[str, Callable[[], object]], *, rounds: int, warm: bool = True) -> dict[str, list[Spent]]:
    """Return what each runner took in each round; every second round goes the other way round.

    Args:
        runners: by name.
        rounds: how often each runs.
        warm: whether each runs once before, untimed: what is loaded late is loaded then.
    """
    if warm:
        for work in runners.values():
            work()
    taken: dict[str, list[Spent]] = {name: [] for name in runners}
    for number in range(rounds):
        names = list(runners) if number % 2 == 0 else list(reversed(runners))
        for name in names:
            taken[name].append(spent_on(runners[name]))
    return taken


def ratio_row(
    group: str,
    what: str,
    over: Sequence[Spent],
    under: Sequence[Spent],
    *,
    least: float | None = None,
    most: float | None = None,
    clock: str = "processor",
    **details: Any,
) -> Row:
    """Return the row of a ratio of times, round by round: median, quartiles, and the same on the other clock.

    Args:
        group: which table it belongs to.
        what: what the table says.
        over: what was spent on what is divided, one a round.
        under: what it is divided by, one a round.
        least: bound of the median from below.
        most: bound of the median from above.
        clock: which seconds are held against the bound.
        details: whatever the record keeps besides.
    """
    other = next(name for name in CLOCKS if name != clock)
    values = _ratios(over, under, clock)
    row = value_row(group, what, values, least=least, most=most, clock=clock, **details)
    row[f"{other}_median"] = statistics.median(_ratios(over, under, other))
    row["seconds"] = {"over": [one.on(clock) for one in over], "under": [one.on(clock) for one in under]}
    return row


def value_row(
    group: str, what: str, values: Sequence[float], *, least: float | None = None, most: float | None = None, **details: Any
) -> Row:
    """Return the row of a figure that was measured once or several times, held against its bound."""
    middle = statistics.median(values)
    kept = None
    if least is not None or most is not None:
        kept = (least is None or middle >= least) and (most is None or middle <= most)
    return {
        "group": group,
        "what": what,
        "value": middle,
        "quartiles": _quartiles(values),
        "rounds": len(values),
        "least": least,
        "most": most,
        "kept": kept,
        **details,
    }


def failed_row(group: str, what: str, why: str) -> Row:
    """Return the row of what could not be measured here."""
    return {"group": group, "what": what, "value": None, "kept": None, "why": why}


def machine(threads: int) -> dict[str, Any]:
    """Return what the figures depend on: processor, cores, threads, how busy it was, versions."""
    model = "unknown"
    facts = Path("/proc/cpuinfo")
    if facts.is_file():
        names = [line.partition(":")[2].strip() for line in facts.read_text().splitlines() if line.startswith("model name")]
        model = names[0] if names else model
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "threads": threads,
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "bfloat16_units": any(
            bool(probe())
            for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
            if (probe := getattr(torch.cpu, name, None))
        ),
        "versions": package_versions(),
    }


def _processor_seconds() -> float:
    spent = os.times()
    # process_time is finer than os.times, whose ticks are hundredths; children are known in ticks alone.
    return time.process_time() + spent.children_user + spent.children_system


def _ratios(over: Sequence[Spent], under: Sequence[Spent], clock: str) -> list[float]:
    return [one.on(clock) / max(other.on(clock), 1e-9) for one, other in zip(over, under, strict=True)]


def _quartiles(values: Sequence[float]) -> list[float]:
    if len(values) < 2:
        return [float(values[0])] * 2
    first, _, last = statistics.quantiles(values, n=4, method="inclusive")
    return [first, last]


def rounded(value: float) -> str:
    """Return a figure with three digits, or as many as its whole part has."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{digits}f}" if digits <= 6 else f"{value:.1e}"
