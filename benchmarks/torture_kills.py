"""SIGKILL at any moment: of each verb that makes an artifact, over an earlier one and where there was none."""

import random
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torture_runs import check_whole, commands, content, count_operations, litter, must, run, two_renames

from latlas.base.artifacts import CONFIG

OUT = "out"


def kill_verb(
    name: str, inputs: Path, work: Path, *, moments: int, operations: int, seed: int = 0, tell: Callable[[str], None] = print
) -> dict[str, Any]:
    """Kill a verb at random moments and at file operations; return what was found, faults in words.

    Args:
        name: of the verb, as `commands` has it.
        inputs: as `make_inputs` filled them.
        work: an empty folder.
        moments: kills, each when the run has used a share of its processor time drawn uniformly.
        operations: kills, each just before a file operation: the last ones of a run, at which its artifact gets its place.
        seed: decides the moments.
        tell: told of each kill.
    """
    command, before = (([*arguments, "--out", OUT, "--replace"]) for arguments in commands(inputs)[name])
    work.mkdir(parents=True, exist_ok=True)
    references = []
    seconds = 0.0
    for number, arguments in enumerate((before, command)):
        folder = work / f"reference-{number}"
        folder.mkdir()
        seconds = must(run(arguments, folder)).seconds
        check_whole(folder / OUT)
        references.append(folder / OUT)
    earlier, wanted = references
    expected = {"earlier": content(earlier), "new": content(wanted)}
    (work / "counted").mkdir()
    count = count_operations(command, work / "counted") if operations else 0
    chance = random.Random(f"{seed} {name}")
    trials: list[dict[str, Any]] = [{"kill_after": chance.uniform(0, seconds)} for _ in range(moments)]
    trials += [{"kill_at": count - number} for number in range(min(operations, count))]
    found: Counter[str] = Counter()
    faults: list[str] = []
    for number, trial in enumerate(trials):
        replace = number % 2 == 0
        old_system = "kill_at" in trial and number % 4 == 0
        told = f"{name}, {'over an earlier one' if replace else 'new'}, {trial}{', two renames' if old_system else ''}"
        folder = work / f"trial-{number}"
        folder.mkdir()
        if replace:
            shutil.copytree(earlier, folder / OUT)
        arguments = command if replace else [each for each in command if each != "--replace"]
        state, fault = _try(arguments, folder, expected, replace, two_renames if old_system else None, trial)
        found[state] += 1
        if state == "ended before" and "kill_after" in trial and len(trials) < 2 * moments + operations:
            trials.append({"kill_after": chance.uniform(0, seconds)})  # it was quicker this time: another moment in its stead
        faults += [f"{told}: {fault}"] * bool(fault)
        tell(f"{told}: {state}{'; FAULT ' + fault if fault else ''}")
        shutil.rmtree(folder)
    return {"kills": sum(found.values()) - found["ended before"], "found": dict(sorted(found.items())), "faults": faults}


def _try(
    arguments: Sequence[str],
    folder: Path,
    expected: Mapping[str, Mapping[str, str]],
    replace: bool,
    before: Callable[[], None] | None,
    trial: Mapping[str, Any],
) -> tuple[str, str]:
    """Return what lay there after the kill, and what is wrong, if anything."""
    ended = run(arguments, folder, before=before, **trial)
    if not ended.killed and ended.code:
        return "failed", f"ended with {ended.code}: {ended.output[-500:]}"
    state = "ended before" if not ended.killed else _state(folder / OUT, expected)
    if state not in ("ended before", "absent", "earlier", "new"):
        return state, "what lay there after the kill is neither"
    if replace and state == "absent" and before is None:
        return state, "the earlier artifact was gone"
    again = run(arguments, folder, before=before)
    refused = again.code == 2 and "already holds something" in again.output and not replace and state in ("new", "ended before")
    if again.code and not refused:
        return state, f"started again, it ended with {again.code}: {again.output[-500:]}"
    if (after := _state(folder / OUT, expected)) != "new":
        return state, f"started again, it made something else ({after})"
    left = litter(folder, OUT)
    return state, f"left over: {', '.join(left)}" if left else ""


def _state(out: Path, expected: Mapping[str, Mapping[str, str]]) -> str:
    if not (out / CONFIG).is_file():
        return "half" if out.exists() else "absent"
    try:
        check_whole(out)
    except Exception as failure:
        return f"damaged ({failure})"
    found = content(out)
    for name, contents in expected.items():
        if found == contents:
            return name
    different = sorted(key for key in {*found, *expected["new"]} if found.get(key) != expected["new"].get(key))
    return f"another: {', '.join(different)}"
