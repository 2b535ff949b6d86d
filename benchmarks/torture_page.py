"""Twenty visitors of the explorer at once, for five minutes: no request lost, no answer another's, memory bounded.

    python benchmarks/torture_page.py                                  # 20 visitors, 5 minutes; a part of make torture
    python benchmarks/torture_page.py --visitors 4 --minutes 0.5 --smoke    # looks whether it works, and writes nothing

The server is `latlas explore` with models of the zoo, in a process of its own; one visitor is a real Chromium, where there is one.
"""

import argparse
import asyncio
import contextlib
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from page_visitors import Tally, Visit, browse, visit

MODELS = ("zoo:digits-dense", "zoo:digits-dense-1", "zoo:avatars-dcgan")
DATA = ("mnist:test[0:400]", "avatars:test[0:200]")  # what is tried is the page: a few images do
VISITORS, MINUTES = 20, 5.0
GROWTH = 1.05  # of the second half's peak, and of what is left at the end, over the first half's peak
MOST_DISK = 500e6  # bytes of uploads
_SIDE = 28
_EVERY = 3.0  # seconds between two looks at the server
_PATIENCE = 240.0  # seconds until it says where the page is
_SETTLING = 30.0  # seconds after the last visitor has left


@dataclass(frozen=True, kw_only=True)
class Server:
    """`latlas explore` in a process of its own."""

    url: str
    process: "subprocess.Popen[bytes]"
    uploads: Path
    log: Path

    def resident(self) -> float:
        """Return its resident memory in MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return int(status.partition("VmRSS:")[2].split()[0]) / 1e3

    def disk(self) -> tuple[int, float]:
        """Return how many files it has made for visitors, and their MB."""
        sizes = []
        for path in self.uploads.rglob("*"):
            with contextlib.suppress(FileNotFoundError):  # forgotten just now
                sizes += [path.stat().st_size] if path.is_file() else []
        return len(sizes), sum(sizes) / 1e6


def explore() -> list[str]:
    """Return the command that serves the models of the zoo."""
    command = [
        sys.executable,
        "-c",
        "from latlas.cli.main import run; run()",
        "explore",
        *MODELS,
        "--port",
        "0",
        "--no-browser",
    ]
    for spec in DATA:
        command += ["--data", spec]
    return [*command, "--device", "cpu"]


@contextlib.contextmanager
def serving(command: Sequence[str], work: Path) -> Iterator[Server]:
    """Serve a page by a command that prints its address, and end it.

    Args:
        command: what to run.
        work: a folder that does not exist, for what the server writes.
    """
    uploads, log = work / "uploads", work / "log"
    uploads.mkdir(parents=True)
    settings = {**os.environ, "TMPDIR": str(uploads), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, env=settings)
    try:
        yield Server(url=_address(process, log), process=process, uploads=uploads, log=log)
    finally:
        process.terminate()
        process.wait(timeout=60)


def _address(process: "subprocess.Popen[bytes]", log: Path) -> str:
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until and process.poll() is None:
        if found := re.search(r"http://127\.0\.0\.1:\d+/", log.read_text(encoding="utf-8")):
            return found[0]
        time.sleep(0.2)
    raise RuntimeError(f"the server did not say where the page is: {log.read_text(encoding='utf-8')[-2000:]}")


def run(work: Path, *, visitors: int = VISITORS, minutes: float = MINUTES) -> dict[str, Any]:
    """Return what became of the visitors' requests, and of the server's memory meanwhile.

    Args:
        work: a folder that does not exist.
        visitors: at once; the first is a Chromium where there is one.
        minutes: for so long.
    """
    if find_spec("gradio") is None:
        return {"skipped": "gradio is not installed"}
    with serving(explore(), work) as server:
        found = asyncio.run(_load(server, visitors, minutes))
        log = server.log.read_text(encoding="utf-8")
    if "Traceback" in log:
        found["faults"].append(f"the server met an error: {log[log.index('Traceback') :][-500:]}")
    left = [str(path) for path in server.uploads.rglob("*") if path.is_file()]
    if left:
        found["faults"].append(f"{len(left)} files of visitors outlived the server")
    return found


async def _load(server: Server, visitors: int, minutes: float) -> dict[str, Any]:
    tally, warm = Tally(), Tally()
    await _warm_up(server, warm, visitors)
    chromium = _chromium()
    look = Look(server)
    looking = asyncio.create_task(look.go_on())
    began = time.monotonic()
    until = began + 60 * minutes
    plans = [Visit(number=number, models=MODELS, side=_SIDE, until=until) for number in range(visitors)]
    people = [visit(server.url, plan, tally) for plan in plans[1:]]
    people.insert(0, browse(server.url, plans[0], tally, chromium) if chromium else visit(server.url, plans[0], tally))
    await asyncio.gather(*people)
    took = time.monotonic() - began
    await asyncio.sleep(_SETTLING)
    looking.cancel()
    memory = look.memory(began, took)
    every = sorted(each for seconds in tally.seconds.values() for each in seconds)
    found = {
        "visitors": visitors,
        "chromium": chromium is not None,
        "minutes asked": minutes,
        "runs": tally.answered + len(tally.lost),
        "answered": tally.answered,
        "abandoned": tally.abandoned,
        "seconds": {"median": _median(every), "worst": round(every[-1], 2) if every else None},
        "kinds": {
            kind: {"answered": len(each), "median": _median(each), "worst": round(max(each), 2)}
            for kind, each in sorted(tally.seconds.items())
        },
        "memory_mb": memory,
        "disk": {"files": max(each[2] for each in look.seen), "mb": round(max(each[3] for each in look.seen), 2)},
        "watched": [[round(each[0] - began, 1), round(each[1], 1), each[2], round(each[3], 2)] for each in look.seen[::5]],
    }
    faults = [*(f"warming up: {each}" for each in warm.lost), *tally.lost[:20]]
    if len(tally.lost) > 20:
        faults.append(f"and {len(tally.lost) - 20} lost requests more")
    peak = memory["first half"]
    faults += [
        f"memory: {memory[name]} MB ({name}), above {GROWTH} times the first half's peak of {peak} MB"
        for name in ("second half", "end")
        if memory[name] > GROWTH * peak
    ]
    if found["disk"]["mb"] > MOST_DISK / 1e6:
        faults.append(f"{found['disk']['mb']} MB of uploads, above {MOST_DISK / 1e6:.0f}")
    return {**found, "faults": faults}


async def _warm_up(server: Server, tally: Tally, visitors: int) -> None:
    """Let what is the same for all be computed, each room of each model; then let everybody visit once, so that memory is used as it will be."""
    until = time.monotonic() + _PATIENCE
    plan = Visit(number=0, models=MODELS, side=_SIDE, until=until, rounds=len(MODELS), pause=(0.0, 0.0))
    await visit(server.url, plan, tally)
    plans = [Visit(number=number, models=MODELS, side=_SIDE, until=until, rounds=1) for number in range(visitors)]
    await asyncio.gather(*(visit(server.url, plan, tally) for plan in plans))


class Look:
    """The server's memory and disk, looked at again and again."""

    def __init__(self, server: Server) -> None:
        """Start with nothing seen."""
        self._server = server
        self.seen: list[tuple[float, float, int, float]] = []  # time.monotonic(), resident MB, files, their MB

    async def go_on(self) -> None:
        """Look until cancelled."""
        while True:
            self.seen.append((time.monotonic(), self._server.resident(), *self._server.disk()))
            await asyncio.sleep(_EVERY)

    def memory(self, began: float, took: float) -> dict[str, float]:
        """Return the resident memory at the start, the peaks of both halves, and at the end."""
        half = began + took / 2
        first, second = ([each[1] for each in self.seen if (each[0] < half) == early] for early in (True, False))
        return {
            "start": round(self.seen[0][1], 1),
            "first half": round(max(first), 1),
            "second half": round(max(second), 1),
            "end": round(self.seen[-1][1], 1),
        }


def _median(values: list[float]) -> float | None:
    return round(statistics.median(values), 2) if values else None


def _chromium() -> str | None:
    if find_spec("playwright") is None:
        return None
    return next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)


def main() -> int:
    """Load the page, write the part `page` of the results and the table, and return 1 if anything was lost."""
    from torture import keep

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--visitors", type=int, default=VISITORS)
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--smoke", action="store_true", help="write nothing")
    given = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="latlas-page-"))
    try:
        began = time.monotonic()
        found = run(work / "page", visitors=given.visitors, minutes=given.minutes)
        minutes = round((time.monotonic() - began) / 60, 1)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(json.dumps(found, indent=1))
    if not given.smoke:
        keep("page", {**found, "minutes": minutes})
    return int(bool(found.get("faults")))


if __name__ == "__main__":
    sys.exit(main())
