"""Rows of the command line: how each verb's cost grows with the images, and how quickly all begins."""

import contextlib
import io
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest import mock

from racing import Row, failed_row, race, ratio_row, spent_on, value_row

from latlas.data.loading import load_images

ROOT = Path(__file__).parents[1]
WORK = ROOT / "runs"
_GROWTH, _IMPORT = 11.0, 1.5
# Images, of verbs that look at each once, at each often, that descend for each; so many that the images cost more than the start.
_GLANCED, _FEW, _DESCENTS = 5_000, 1_000, 100
_DESCENT = ("--steps", "20", "--start", "mean")
_ONE, _TWO, _THREE = "zoo:digits-dense", "zoo:digits-dense-1", "zoo:digits-conv"  # the zoo's: small, and trained to the end
_DRAWING = ("zoo:avatars-vae-32", "zoo:avatars-split")


def rows(*, full: bool) -> list[Row]:
    """Return all rows."""
    return [*start_rows(rounds=9 if full else 5), *growth_rows(rounds=3 if full else 1)]


def start_rows(*, rounds: int) -> list[Row]:
    """Return the time of `import latlas` over that of `import torch`, and whether the help needs torch."""

    def python(code: str) -> Callable[[], object]:
        return lambda: subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)

    taken = race({"latlas": python("import latlas"), "torch": python("import torch")}, rounds=rounds)
    helped = (
        "import sys\nsys.argv = ['latlas', '--help']\nfrom latlas.cli.main import run\n"
        "try:\n    run()\nexcept SystemExit:\n    pass\nprint('\\n' + str('torch' in sys.modules), file=sys.stderr)"
    )
    ended = subprocess.run([sys.executable, "-c", helped], check=True, capture_output=True, text=True)
    imported = ended.stderr.split()[-1] == "True"
    return [
        ratio_row("start", "time of import latlas over that of import torch", taken["latlas"], taken["torch"], most=_IMPORT),
        value_row("start", "latlas --help: imports of torch", [float(imported)], most=0.0),
    ]


def growth_rows(*, rounds: int) -> list[Row]:
    """Return the cost of each verb that takes images: that of ten times as many over that of one time.

    All run in this process, once untimed before: what a command takes to begin, which does not grow, is left out.
    """
    WORK.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=WORK))
    try:
        load_images(drawn(10))  # drawn once and kept, whoever asks
        _latlas("support", _ONE, "mnist:train[0:6000]", "--variables", 3, "--out", folder / "landmarks")
        return [_growth(verb, command, folder, rounds) for verb, command in _commands(folder).items()]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _commands(folder: Path) -> dict[str, Callable[[int], list[object]]]:
    """Every verb of `latlas --help` that takes images: the arguments for so many times the least number of them.

    kl-curve, trajectories, coverage-3d and sparsity make their own images and models; tour and all are chains of the others.
    """

    def digits(count: int, split: str = "train") -> str:
        return f"mnist:{split}[0:{count}]"

    def controlled(count: int) -> list[object]:
        return [*("--control", digits(count, "test"), "--controls", count, "--samples", count), *_DESCENT]

    return {
        "train": lambda n: ["train", "dense", digits(_GLANCED * n), "--epochs", 1],
        "encode": lambda n: ["encode", _ONE, digits(_GLANCED * n)],
        "diagnose": lambda n: ["diagnose", _ONE, digits(_FEW * n)],
        "prune": lambda n: ["prune", _ONE, digits(_FEW * n), "--keep", 4],
        "calibrate": lambda n: ["calibrate", _ONE, digits(_FEW * n), "--heldout", digits(_FEW * n, "test")],
        "map": lambda n: ["map", _ONE, _TWO, digits(_FEW * n)],
        "order": lambda n: ["order", _ONE, digits(_GLANCED * n)],
        "support": lambda n: ["support", _ONE, digits(_GLANCED * n), "--variables", 3],
        "cover": lambda n: ["cover", _ONE, folder / "landmarks", *controlled(_DESCENTS * n)],
        "invert": lambda n: ["invert", _ONE, digits(_DESCENTS * n, "test"), *_DESCENT],
        "range": lambda n: ["range", _ONE, digits(_DESCENTS * n, "test"), "--samples", _DESCENTS * n, *_DESCENT],
        "study little-data": lambda n: ["study", "little-data", _ONE, _TWO, digits(_FEW * n)],
        "study directions": lambda n: ["study", "directions", *_DRAWING, drawn(n), "--attribute", "glasses"],
        "study variance-loss": lambda n: ["study", "variance-loss", _ONE, _TWO, _THREE, digits(_FEW * n)],
        "study variance-law": lambda n: ["study", "variance-law", _ONE, digits(_GLANCED * n)],
        "study noise-injection": lambda n: ["study", "noise-injection", _ONE, digits(_FEW // 2 * n), "--budget", "quick"],
    }


def drawn(times: int) -> str:
    """Return avatars, whose attributes are known."""
    return f"avatars:train?size=32[0:{_FEW // 4 * times}]"


def _growth(verb: str, command: Callable[[int], list[object]], folder: Path, rounds: int) -> Row:
    what = f"{verb}: cost of ten times the images over that of one time"

    def run(times: int) -> None:
        shutil.rmtree(folder / "out", ignore_errors=True)
        _latlas(*command(times), "--out", folder / "out")

    try:
        run(1)
        taken = {times: [spent_on(lambda times=times: run(times)) for _ in range(rounds)] for times in (1, 10)}
    except RuntimeError as failure:
        return failed_row("growth", what, str(failure))
    return ratio_row("growth", what, taken[10], taken[1], most=_GROWTH)


def _latlas(*arguments: object) -> None:
    """Run a command as the shell would, quietly.

    Raises:
        RuntimeError: it failed; the message is its last line.
    """
    from latlas.cli.main import run

    told = io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["latlas", *map(str, arguments)]),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(told),
    ):
        try:
            run()
        except SystemExit as end:
            if end.code:
                lines = told.getvalue().strip().splitlines() or [f"exit code {end.code}"]
                raise RuntimeError(lines[-1]) from None
