"""Disks that are full or may not be written, and two processes with one output: for commands that write."""

import contextlib
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torture_runs import Ended, check_whole, commands, content, litter, must, run, start, wait

OUT = "out"
_SHARES = (0.0, 0.2, 0.4, 0.6)  # of what a run needs, left on the disk


def writing_verbs(inputs: Path) -> Mapping[str, list[str]]:
    """Return commands that write, each less its --out: those that are killed, and others of the same few images."""
    data, first, second, gan = (str(inputs / name) for name in ("blobs.npy", "first", "second", "gan"))
    few = f"{data}[:200]"
    dcgan = ["train", "dcgan", data, "--channels", "4", "--latent", "4", "--steps", "40"]
    return {
        **{name: of_one for name, (of_one, _) in commands(inputs).items()},
        "dcgan": dcgan,
        "prune": ["prune", first, data, "--keep", "2"],
        "calibrate": ["calibrate", first, few, "--heldout", f"{data}[200:400]", "--features", "pixels", "--components", "2"],
        "order": ["order", first, data],
        "invert": ["invert", gan, f"{data}[:4]", "--steps", "3", "--starts", "1"],
        "sample": ["sample", second, "-n", "16"],
    }


def out_of(name: str) -> str:
    """Return what --out of a verb is called."""
    return "out.npy" if name == "sample" else OUT


def fill_disk(
    inputs: Path, place: Path, *, names: list[str] | None = None, tell: Callable[[str], None] = print
) -> dict[str, Any]:
    """Run every verb on a small disk of memory with too little room, and on one that may not be written.

    Args:
        inputs: as `make_inputs` filled them.
        place: an empty folder, to mount the disk at; only root may.
        names: of the verbs; None for all.
        tell: told of each verb.
    """
    verbs = writing_verbs(inputs)
    counts, faults, small = 0, [], []
    for name in names if names is not None else verbs:
        arguments, out = [*verbs[name], "--out", out_of(name)], out_of(name)
        free = place.parent / f"{name}-free"
        free.mkdir()
        must(run(arguments, free))
        needed = sum(path.stat().st_blocks * 512 for path in free.rglob("*")) * (1 if name == "sample" else 2)
        # In the way of a new artifact, or of one that shall replace it; a single file never replaces.
        earlier = None if name == "sample" else free / out
        for share in (*_SHARES, None):
            try:
                ended, found = _on_small_disk(arguments, place, out, earlier, None if share is None else int(share * needed))
            except OSError as failure:
                return {"skipped": f"no disk could be mounted here ({failure})"}
            counts += 1
            told = f"{name}, {'read-only' if share is None else f'room for {share:.0%}'}"
            if ended.code == 0 and share is not None:
                small.append(told)  # it needs less than was thought
                continue
            wrong = wrong_end(ended) or (
                earlier is not None and found.get(out) != content(earlier) and "the earlier artifact changed"
            )
            allowed = {out, f".{out}.training", f".{out}.encoding"} if earlier is not None else {f".{out}.training"}
            left = set(found) - allowed
            wrong = wrong or (left and f"left over: {', '.join(sorted(left))}")
            faults += [f"{told}: {wrong}"] * bool(wrong)
        tell(f"{name}: {len(faults)} faults so far")
        shutil.rmtree(free)
    return {"runs": counts, "had room": small, "faults": faults}


def limit_files(inputs: Path, work: Path, *, names: list[str], shares: tuple[float, ...] = (0.5,)) -> dict[str, Any]:
    """Run verbs where no file may have more than a share of the bytes of the largest that they write: a full disk for everybody."""
    verbs = writing_verbs(inputs)
    counts, faults = 0, []
    for name in names:
        arguments, out = [*verbs[name], "--out", out_of(name)], out_of(name)
        free = work / f"{name}-free"
        free.mkdir(parents=True)
        must(run(arguments, free))
        largest = max(path.stat().st_size for path in free.rglob("*") if path.is_file())
        for share in shares:
            limit = int(share * largest)
            folder = work / f"{name}-{share}"
            folder.mkdir()
            ended = run(arguments, folder, before=lambda limit=limit: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))  # type: ignore[misc]
            counts += 1
            left = set(litter(folder)) - {f".{out}.training", f".{out}.encoding"}
            wrong = wrong_end(ended) or (left and f"left over: {', '.join(sorted(left))}")
            faults += [f"{name}, files of at most {share:.0%}: {wrong}"] * bool(wrong)
    return {"runs": counts, "faults": faults}


def wrong_end(ended: Ended) -> str:
    """Return what is wrong with how a run that could not write ended; empty if it said so in one line, with exit code 2."""
    lines = [line for line in ended.output.splitlines() if line.strip()]
    told = [line for line in lines if line.startswith("latlas: ")]
    if ended.code != 2 or len(told) != 1 or any("Traceback" in line for line in lines):
        return f"it ended with {ended.code}: {ended.output[-600:]}"
    return ""


def two_writers(
    inputs: Path, work: Path, *, names: list[str] | None = None, tell: Callable[[str], None] = print
) -> dict[str, Any]:
    """Start two processes of each verb with one output; one shall win, and the other be told."""
    counts, faults = 0, []
    verbs = writing_verbs(inputs)
    for name in names if names is not None else verbs:
        if name == "sample":
            continue
        alone = work / f"{name}-alone"
        alone.mkdir(parents=True)
        arguments = [*verbs[name], "--out", OUT]
        must(run(arguments, alone))
        for options in ([], ["--replace"]):
            folder = work / f"{name}-{len(options)}"
            folder.mkdir()
            ended = [wait(each) for each in [start([*arguments, *options], folder) for _ in range(2)]]
            counts += 1
            wrong = ""
            codes = sorted(each.code for each in ended)
            if codes != [0, 2] and (codes != [0, 0] or not options):
                wrong = f"they ended with {codes}: {' / '.join(each.output[-300:] for each in ended)}"
            elif any(wrong_end(each) for each in ended if each.code):
                wrong = next(wrong_end(each) for each in ended if each.code)
            else:
                check_whole(folder / OUT)
                if content(folder / OUT) != content(alone / OUT):
                    wrong = "what lies there is not what one alone makes"
                elif left := litter(folder, OUT):
                    wrong = f"left over: {', '.join(left)}"
            faults += [f"{name} {' '.join(options)}: {wrong}"] * bool(wrong)
        tell(f"{name}: {len(faults)} faults so far")
    return {"runs": counts, "faults": faults}


def repeat(inputs: Path, work: Path, *, names: list[str] | None = None) -> dict[str, Any]:
    """Run each verb twice and return those whose files differ."""
    verbs = writing_verbs(inputs)
    chosen = names if names is not None else list(verbs)
    faults = []
    for name in chosen:
        found = []
        for number in range(2):
            folder = work / f"{name}-{number}"
            folder.mkdir(parents=True)
            must(run([*verbs[name], "--out", out_of(name)], folder))
            found.append(content(folder))
        different = sorted(key for key in {*found[0], *found[1]} if found[0].get(key) != found[1].get(key))
        faults += [f"{name}: {', '.join(different)}"] * bool(different)
    return {"runs": 2 * len(chosen), "faults": faults}


def _on_small_disk(
    arguments: list[str], place: Path, out: str, earlier: Path | None, room: int | None
) -> tuple[Ended, dict[str, dict[str, str]]]:
    """Run on a disk with an earlier artifact and so many bytes free, or read-only; return the end and what lies there."""
    with _mounted(place):
        if earlier is not None:
            shutil.copytree(earlier, place / out)
            arguments = [*arguments, "--replace"]
        if room is None:
            subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True, capture_output=True)
        else:
            free = os.statvfs(place)
            filler = max(free.f_bavail * free.f_frsize - room, 0)
            with (place / "filler").open("wb") as stream, contextlib.suppress(OSError):
                stream.write(bytes(filler))
        ended = run(arguments, place)
        found = {path.name: content(path) if path.is_dir() else {} for path in place.iterdir() if path.name != "filler"}
    return ended, found


@contextlib.contextmanager
def _mounted(place: Path) -> Iterator[None]:
    place.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(place)], check=False, capture_output=True, text=True
    )
    if done.returncode:
        raise OSError(done.stderr.strip())
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)
