"""The engines: inputs by chance alone, inputs that coverage leads to, and kept findings once more."""

import hashlib
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from fuzzers.chance import LONGEST
from fuzzers.judging import Outcome, judge, kind_of
from fuzzers.targets import TARGETS

_INSTRUMENTED = ["latlas", "PIL", "pickletools", "tarfile", "zipfile", "torch._weights_only_unpickler"]
_LONGEST_SILENCE = 20  # seconds after which an input counts as one that hangs outside of Python, where no signal is seen


def fuzz(name: str, runs: int, seed: int, findings: Path | None = None) -> Outcome:
    """Give a loader mutations of its well-formed files; the same seed gives the same inputs."""
    target = TARGETS[name]
    outcome = Outcome(target=name, engine="mutations", runs=runs)
    chance = random.Random(f"{name} {seed}")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        seeds = _well_formed(name, folder, outcome, findings)
        started = time.perf_counter()
        for _ in range(runs):
            data = target.mutate(chance.choice(seeds), chance)
            wrong = judge(target, data, folder, outcome)
            outcome.done += 1
            if wrong is not None:
                _keep(outcome, data, wrong, findings)
        outcome.seconds = time.perf_counter() - started
    return outcome


def replay(path: Path) -> str | None:
    """Load a kept finding again; return what is wrong with how that went."""
    name = path.name.rpartition("-")[0]
    target, outcome = TARGETS[name], Outcome(target=name, engine="replay", runs=1)
    with tempfile.TemporaryDirectory() as place:
        _well_formed(name, Path(place), outcome, None)
        return judge(target, path.read_bytes(), Path(place), outcome)


def guided(name: str, runs: int, seed: int, findings: Path | None) -> Outcome:
    """Give a loader inputs that coverage leads to, by atheris; it ends the process that it runs in, so that has one of its own.

    An input that ends that process is a finding, and so is one that keeps it from answering.
    """
    with tempfile.TemporaryDirectory() as place:
        told, crashes = Path(place) / "outcome.json", Path(place) / "crashes"
        crashes.mkdir()
        command = Path(__file__).parents[1] / "fuzz.py"
        asked = [sys.executable, str(command), name, "--runs", str(runs), "--seed", str(seed), "--engine", "atheris"]
        asked += ["--within", str(told)] + (["--findings", str(findings)] if findings else [])
        ended = subprocess.run(asked, capture_output=True, text=True, errors="replace", check=False)
        if not told.is_file():
            raise RuntimeError(f"atheris did not run: {ended.stderr[-2000:]}")
        outcome = Outcome(**json.loads(told.read_text()))
        counted = re.findall(r"cov: (\d+) ft: (\d+)", ended.stderr)
        if counted:
            outcome.coverage, outcome.features = map(int, counted[-1])
        for crash in sorted(crashes.iterdir()):
            _keep(
                outcome,
                crash.read_bytes(),
                f"the process ended ({crash.name.partition('-')[0]}): {ended.stderr[-300:]!r}",
                findings,
            )
        if outcome.done < runs and not outcome.findings:
            raise RuntimeError(f"atheris ended after {outcome.done} of {runs} runs: {ended.stderr[-2000:]}")
        return outcome


def within_atheris(name: str, runs: int, seed: int, told: Path, findings: Path | None) -> None:
    """Run atheris in this process, which ends with it; the outcome is written as it comes."""
    import atheris

    target = TARGETS[name]
    outcome = Outcome(target=name, engine="atheris", runs=runs)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        with atheris.instrument_imports(include=_INSTRUMENTED):
            seeds = _well_formed(name, folder, outcome, findings)
        heads = {data.partition(b"\n")[0] for data in seeds}
        corpus = folder / "corpus"
        corpus.mkdir()
        for number, data in enumerate(seeds):
            (corpus / str(number)).write_bytes(data)
        started = time.perf_counter()

        def one(data: bytes) -> None:
            wrong = judge(target, data, folder, outcome)
            if wrong is not None:
                _keep(outcome, data, wrong, findings)
            outcome.done += 1
            if outcome.done % 50 == 0 or outcome.done >= runs or wrong is not None:  # atheris ends the process without a word
                outcome.seconds = time.perf_counter() - started
                beside = told.with_suffix(".partial")
                beside.write_text(json.dumps(asdict(outcome)))
                beside.replace(told)

        def changed(data: bytes, most: int, number: int) -> bytes:
            # Half of the changes know the format, and reach what mere bytes never would; the other half is libFuzzer's own.
            # That prefers short inputs, whatever they lack: now and then it has to begin with a well-formed one again.
            chance = random.Random(number)
            if chance.random() < 0.2 or (target.named and data.partition(b"\n")[0] not in heads):
                data = chance.choice(seeds)
            if chance.random() < 0.5:
                with suppress(Exception):  # of what is no longer of that format
                    return target.mutate(data, chance)[:most]
            head, line, rest = data.partition(b"\n") if target.named else (b"", b"", data)
            mutation: bytes = atheris.Mutate(rest, most - len(head + line))
            return head + line + mutation

        told.write_text(json.dumps(asdict(outcome)))
        options = [
            f"-atheris_runs={runs}", f"-seed={seed + 1}", f"-max_len={LONGEST}", "-rss_limit_mb=0", f"-timeout={_LONGEST_SILENCE}",
            f"-artifact_prefix={told.parent / 'crashes'}/",
        ]  # fmt: skip
        atheris.Setup(["fuzz", *options, str(corpus)], one, custom_mutator=changed)
        atheris.Fuzz()


def _well_formed(name: str, folder: Path, outcome: Outcome, findings: Path | None) -> list[bytes]:
    """Return the seeds of a target after each was read: the first import takes its time here, and is not counted."""
    seeds = TARGETS[name].seeds(folder)
    with suppress(Exception):
        TARGETS[name].load(seeds[0], folder)
    for data in seeds:
        wrong = judge(TARGETS[name], data, folder, outcome)
        if wrong is not None:
            _keep(outcome, data, wrong, findings)
    if outcome.read == 0:
        raise RuntimeError(f"{name}: no well-formed file is read, so that nothing else would mean anything")
    outcome.slowest = 0.0
    return seeds


def _keep(outcome: Outcome, data: bytes, wrong: str, findings: Path | None) -> None:
    kind = kind_of(wrong)
    if any(known["kind"] == kind for known in outcome.findings):
        return
    name = f"{outcome.target}-{hashlib.sha256(data).hexdigest()[:12]}"
    outcome.findings.append({"kind": kind, "what": wrong, "file": name})
    if findings is not None:
        findings.mkdir(parents=True, exist_ok=True)
        (findings / name).write_bytes(data)
