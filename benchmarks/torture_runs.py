"""The command line in forked processes: started warm, ended at a moment that is chosen, and what it left looked at.

Importing what a training needs takes ten times as long as a tiny training, so one process imports it and each run is a fork of it: the
same code from the first line of the command on. The process that forks never computes a gradient, for torch refuses to in its forks.
"""

import hashlib
import importlib
import json
import os
import pkgutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import latlas
from latlas.base import placing
from latlas.base.artifacts import CONFIG, peek, read_config, read_json

_WRITES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "os.truncate", "os.link"}
_PATIENCE = 300  # seconds; a run of this size that takes longer hangs


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a run ended."""

    code: int  # its exit code, or minus the signal that ended it
    seconds: float  # of processor time
    output: str

    @property
    def killed(self) -> bool:
        """Whether SIGKILL ended it."""
        return self.code == -signal.SIGKILL


def warm_up() -> None:
    """Import everything that a verb imports when it runs."""
    torch.set_num_threads(1)
    for name in ("lightning.pytorch", "tensorboardX", "rich.console", "rich.table", "PIL.Image", "sklearn.mixture"):
        importlib.import_module(name)
    for package in ("cli", "data", "training", "encodings", "maps", "supports", "samplers", "studies", "reports"):
        folder = importlib.import_module(f"latlas.{package}")
        for module in pkgutil.iter_modules(folder.__path__, f"latlas.{package}."):
            importlib.import_module(module.name)
    assert latlas.VAE is not None  # the package imports its names when they are asked for


def run(
    arguments: Sequence[str],
    cwd: Path,
    *,
    kill_after: float | None = None,
    kill_at: int | None = None,
    before: Callable[[], None] | None = None,
) -> Ended:
    """Run `latlas ARGUMENTS` in a folder, in a fork of this process.

    Args:
        arguments: of the command.
        cwd: where.
        kill_after: SIGKILL once it has used so many seconds of processor time, which does not depend on what else the machine does.
        kill_at: SIGKILL at the so-manieth file operation that changes something below `cwd`, before it is done.
        before: called in the fork before the command.
    """
    return wait(start(arguments, cwd, kill_at=kill_at, before=before), kill_after=kill_after)


def start(
    arguments: Sequence[str], cwd: Path, *, kill_at: int | None = None, before: Callable[[], None] | None = None
) -> tuple[int, Path]:
    """Start a run as `run` does; return its process and the file of what it prints."""
    descriptor, name = tempfile.mkstemp(prefix="latlas-torture-")
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        _become(arguments, cwd, descriptor, kill_at, before)
    os.close(descriptor)
    return child, Path(name)


def wait(started: tuple[int, Path], *, kill_after: float | None = None) -> Ended:
    """Return how a started run ended; it is killed once it has used so many seconds of processor time."""
    child, log = started
    clock = (~child << 3) | 2  # the processor clock of another process, as clock_getcpuclockid(3) makes it
    begun = time.monotonic()
    while True:
        done, status, used = os.wait4(child, os.WNOHANG)
        if done:
            break
        try:
            spent = time.clock_gettime(clock)
        except OSError:
            spent = 0.0
        if (kill_after is not None and spent >= kill_after) or time.monotonic() - begun > _PATIENCE:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.0005)
    text = log.read_text(errors="replace")
    log.unlink()
    return Ended(code=os.waitstatus_to_exitcode(status), seconds=used.ru_utime + used.ru_stime, output=text)


def count_operations(arguments: Sequence[str], cwd: Path) -> int:
    """Return how many file operations below its folder a run that is let alone makes."""
    ended = run(arguments, cwd, kill_at=0)
    if ended.code:
        raise RuntimeError(f"latlas {' '.join(arguments)} ended with {ended.code}: {ended.output[-2000:]}")
    return int(ended.output.rsplit("operations: ", 1)[1])


def two_renames() -> None:
    """Let this process believe that its system cannot exchange two names."""
    placing._renamed = lambda *_: False  # type: ignore[assignment]


def _become(arguments: Sequence[str], cwd: Path, log: int, kill_at: int | None, before: Callable[[], None] | None) -> None:
    code = 1
    try:
        os.setsid()
        os.chdir(cwd)
        os.dup2(log, 1)
        os.dup2(log, 2)
        if before is not None:
            before()
        counted = None if kill_at is None else _count(cwd, kill_at)
        from latlas.cli.main import run as latlas_run

        sys.argv = ["latlas", *arguments]
        try:
            latlas_run()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1 if end.code else 0
        if counted is not None:
            print(f"operations: {counted[0]}")
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _count(cwd: Path, kill_at: int) -> list[int]:
    counted, here = [0], str(cwd.resolve())

    def one() -> None:
        counted[0] += 1
        if counted[0] == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, values: tuple[Any, ...]) -> None:
        writes = event in _WRITES or (
            event == "open" and isinstance(values[2], int) and values[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        )
        if writes and isinstance(values[0], str | os.PathLike) and Path(values[0]).absolute().is_relative_to(here):
            one()

    sys.addaudithook(hook)
    renamed = placing._renamed

    def counting(first: Path, second: Path, how: int) -> bool:
        one()
        found = renamed(first, second, how)
        one()  # done, and nothing cleared up
        return found

    placing._renamed = counting
    return counted


def content(folder: Path) -> dict[str, str]:
    """Return a hash of every file of an artifact, what tells the time left out.

    That is TensorBoard's event files: each record holds the clock's time, and their names the second, the machine and the process.
    They are compared by what was measured; an epoch that was told, and cut off before its checkpoint, is told twice with the same
    numbers. And the report of `latlas map`, which says how long carrying codes took: its numbers are compared without those, its
    page not. Configs, which list all files with their hashes, are compared without those lines.
    """
    found = {}
    timed = [path.parent for path in folder.rglob("report.json") if "times" in json.loads(path.read_bytes())]
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or _tells_time(name) or (path.name == "report.html" and path.parent in timed):
            continue
        data = path.read_bytes()
        if path.name == "report.json" and path.parent in timed:
            data = json.dumps({key: value for key, value in json.loads(data).items() if key != "times"}).encode()
        if path.name == CONFIG and isinstance(record := json.loads(data), dict) and "files" in record:
            record.pop("checksum", None)
            # The config of a folder inside is listed with its hash, too: it is compared itself.
            record["files"] = {
                key: value
                for key, value in record["files"].items()
                if not _tells_time(key) and not key.endswith(CONFIG) and not (timed and key.startswith("report."))
            }
            data = json.dumps(record, sort_keys=True).encode()
        found[name] = hashlib.sha256(data).hexdigest()
    events = sorted({event for path in folder.rglob("events.*") for event in scalars(path)})
    if events:
        found["run/events"] = hashlib.sha256(json.dumps(events).encode()).hexdigest()
    return found


def scalars(path: Path) -> list[tuple[int, str, float]]:
    """Return what an event file says: step, name, value."""
    from tensorboardX.proto.event_pb2 import Event  # type: ignore[import-not-found]

    data, found, at = path.read_bytes(), [], 0
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 8], "little")
        event = Event.FromString(data[at + 12 : at + 12 + size])
        found += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
        at += 16 + size
    return found


def _tells_time(name: str) -> bool:
    return Path(name).name.startswith("events.")


def check_whole(folder: Path) -> None:
    """Raise unless this is an artifact whose every file, and every artifact inside, is as it was written."""
    for path in (folder / CONFIG, *sorted(folder.rglob(CONFIG))):
        record = peek(path.parent)
        if record is None:
            raise AssertionError(f"{path.parent} is no artifact")
        read_config(path.parent, kind=record["kind"])


def litter(parent: Path, *names: str) -> list[str]:
    """Return what lies in a folder beside what should."""
    return sorted(path.name for path in parent.iterdir() if path.name not in names)


def write_blobs(path: Path, count: int, *, side: int = 16, seed: int = 0) -> Path:
    """Write blurred random blobs as an .npy file, so that a network has something to learn."""
    coarse = torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    images = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear").clamp(0, 1)
    np.save(path, (images * 255).round().to(torch.uint8).numpy())
    return path


def small_vae(data: Path, seed: int) -> list[str]:
    """Return the command of a small training, less its --out."""
    sizes = ["--widths", "32", "--latent", "4", "--epochs", "3", "--batch-size", "50"]
    return ["train", "dense", str(data), *sizes, "--balance", "fixed", "--sigma", "0.1", "--seed", str(seed)]


def commands(inputs: Path) -> Mapping[str, tuple[list[str], list[str]]]:
    """Return, by the verb's name, its command and that of an earlier artifact at the same place, each less its --out.

    Args:
        inputs: the folder that `make_inputs` filled.
    """
    data, many = str(inputs / "blobs.npy"), str(inputs / "many.npy")
    first, second, gan = (str(inputs / name) for name in ("first", "second", "gan"))
    recoder = ["train", "recoder", gan, "--steps", "250", "--batch-size", "8", "--channels", "4", "--name", "codes"]
    return {
        "training": (
            [*small_vae(inputs / "blobs.npy", 0), "--name", "m"],
            [*small_vae(inputs / "blobs.npy", 5), "--name", "m"],
        ),
        "recoder": (recoder, [*recoder, "--seed", "5"]),
        "encoding": (["encode", first, many, "--shard-rows", "4096"], ["encode", second, many, "--shard-rows", "4096"]),
        "map": (["map", first, second, data], ["map", second, first, data]),
        "support": (["support", first, data, "--variables", "3"], ["support", second, data, "--variables", "3"]),
        "report": (["diagnose", first, data], ["diagnose", second, data]),
    }


def make_inputs(inputs: Path, *, images: int = 2000) -> Path:
    """Make the images and models that the commands take."""
    inputs.mkdir(parents=True, exist_ok=True)
    write_blobs(inputs / "blobs.npy", images)
    write_blobs(inputs / "many.npy", 12_288, seed=1)
    trainings = {
        name: [*small_vae(inputs / "blobs.npy", seed), "--name", name] for seed, name in enumerate(("first", "second"))
    }
    trainings["gan"] = ["train", "dcgan", str(inputs / "blobs.npy"), "--channels", "4", "--latent", "4", "--steps", "40"]
    for name, arguments in trainings.items():
        if not (inputs / name).is_dir():
            must(run([*arguments, "--out", name], inputs))
    return inputs


def must(ended: Ended) -> Ended:
    """Return how a run ended if it ended well.

    Raises:
        RuntimeError: it did not.
    """
    if ended.code:
        raise RuntimeError(f"ended with {ended.code}: {ended.output[-2000:]}")
    return ended


def kind_of(folder: Path) -> str:
    """Return the kind of the artifact in a folder."""
    return str(read_json(folder / CONFIG)["kind"])
