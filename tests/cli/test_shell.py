"""What the shell sees: exit codes, streams that are closed or full or of an old encoding, and one line for what went wrong."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from latlas.cli import progress, shell

MISTAKE, INTERRUPTED = 2, 130
PROGRAM = "from latlas.cli.main import run; run()"
MODEL = "zoo:digits-dense"
Latlas = Callable[..., tuple[int, str, str]]

posix = pytest.mark.skipif(os.name == "nt", reason="streams of a POSIX shell")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty images of noise, as a digit's model takes them."""
    path = tmp_path_factory.mktemp("data") / "noise.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (20, 28, 28), dtype=np.uint8))
    return path


def in_shell(redirected: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command with streams as a shell gives them."""
    line = ["sh", "-c", f'exec "$0" "$@" {redirected}', sys.executable, "-c", PROGRAM, *words]
    settings = {**os.environ, "COLUMNS": "80", **environment}
    return subprocess.run(line, capture_output=True, encoding="utf-8", errors="replace", timeout=300, check=False, env=settings)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("diagnos x y", "No such command 'diagnos'. Did you mean 'diagnose'? See latlas --help."),
        ("study sparcity", "No such command 'sparcity'. Did you mean 'sparsity'? See latlas study --help."),
        ("diagnose --outt x y z", "No such option: --outt. Did you mean --out? See latlas diagnose --help."),
        ("train dcgan x --latnt 3", "No such option: --latnt. Did you mean --latent? See latlas train dcgan --help."),
        ("--versoin", "No such option: --versoin. Did you mean --version? See latlas --help."),
        ("diagnose x", "Missing argument 'DATA'. See latlas diagnose --help."),
        ("sample x", "Missing option '--out'. See latlas sample --help."),
        ("sample x --out x.npy --count many", "--count takes a whole number, got 'many'. See latlas sample --help."),
        ("sample x --out x.npy -n 3 -n 3.5", "--count takes a whole number, got '3.5'. See latlas sample --help."),
        ("order x y --confidence=high", "--confidence takes a number, got 'high'. See latlas order --help."),
        ("train dense mnist --seed 1e3", "--seed takes a whole number, got '1e3'. See latlas train --help."),
    ],
)
def test_a_mistake_in_words_and_options_is_one_line_with_what_is_near(words: str, said: str, latlas: Latlas) -> None:
    assert latlas(*words.split()) == (MISTAKE, "", f"latlas: {said}\n")


@pytest.mark.parametrize(
    "words",
    ["diagnose a b --json=yes", "diagnose a b --out", "zoo a b c", "frobnicate", "-x", "train", "map", "diagnose a b --"],
)
def test_no_mistake_in_words_takes_more_than_a_line(words: str, latlas: Latlas) -> None:
    code, out, err = latlas(*words.split())
    assert (code, out) == (MISTAKE, "")
    assert err.startswith("latlas: ")
    assert err.count("\n") == 1
    assert err.endswith((".\n", "?\n"))


@pytest.mark.parametrize("words", [(), ("study",)])
def test_no_words_at_all_are_answered_with_the_help(words: tuple[str, ...], latlas: Latlas) -> None:
    code, out, err = latlas(*words)
    assert (code, err) == (MISTAKE, "")
    assert "Usage: latlas" in out


def test_short_and_long_help_are_the_same(latlas: Latlas) -> None:
    for verb in ([], ["zoo"], ["study", "all"], ["train"], ["train", "dcgan"]):
        shown = latlas(*verb, "-h")
        assert shown == latlas(*verb, "--help")
        assert shown[0] == 0
        assert "Usage: latlas" in shown[1]


def test_the_version_alone_is_printed(latlas: Latlas) -> None:
    from latlas._version import __version__

    assert latlas("--version") == (0, f"{__version__}\n", "")


@posix
def test_with_a_closed_standard_error_no_word_of_it_gets_into_the_json(images: Path) -> None:
    done = in_shell("2>&-", "diagnose", MODEL, str(images), "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["variables"] == 16
    refused = in_shell("2>&-", "diagnose", MODEL, "nowhere/at/all")
    assert (refused.returncode, refused.stdout, refused.stderr) == (MISTAKE, "", "")


@posix
def test_with_a_closed_standard_output_the_verb_still_writes_what_it_was_asked_for(images: Path, tmp_path: Path) -> None:
    done = in_shell(">&-", "diagnose", MODEL, str(images), "--out", str(tmp_path / "health"))
    assert done.returncode == 0
    assert (tmp_path / "health" / "report.html").is_file()


@posix
@pytest.mark.parametrize("words", [["zoo"], ["zoo", "--json"], ["--version"], ["--help"]])
def test_a_reader_who_has_enough_ends_the_command_without_a_word(words: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words], stdout=write, stderr=subprocess.PIPE, text=True, timeout=120, check=False
    )
    os.close(write)
    assert done.returncode == 1
    assert done.stderr == ""


@posix
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("words", [["zoo"], ["zoo", "--json"], ["--version"], ["--help"]])
def test_a_full_disk_behind_the_output_is_one_line(words: list[str]) -> None:
    done = in_shell(">/dev/full", *words)
    assert done.returncode == MISTAKE
    assert done.stderr == "latlas: No space left on device.\n"


@posix
def test_work_goes_on_when_nobody_reads_the_progress_any_more(images: Path, tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "diagnose", MODEL, str(images), "--out", str(tmp_path / "health"), "--json"],
        stdout=subprocess.PIPE, stderr=write, text=True, timeout=300, check=False,
    )  # fmt: skip
    os.close(write)
    assert done.returncode == 0
    assert json.loads(done.stdout) == json.loads((tmp_path / "health" / "report.json").read_text())


def test_progress_that_cannot_be_written_is_told_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        tries = 0

        def write(self, text: str) -> int:
            Gone.tries += 1
            raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(sys, "stderr", Gone())
    with progress.shown() as told:
        for done in range(4):
            told(f"task {done}", done, 3)
    assert Gone.tries == 1


@posix
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_signs_that_an_encoding_lacks_end_nothing(encoding: str, images: Path) -> None:
    assert in_shell("", "zoo", PYTHONIOENCODING=encoding).returncode == 0
    done = in_shell("", "diagnose", MODEL, str(images), PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n+ ") + done.stdout.count("\n- ") + done.stdout.count("\n! ") >= 3


@posix
def test_a_path_that_is_no_text_is_written_to_and_told_of(images: Path, tmp_path: Path) -> None:
    place = os.fsdecode(os.fsencode(tmp_path) + b"/health\xff")
    done = in_shell("", "diagnose", MODEL, str(images), "--out", place)
    assert done.returncode == 0, done.stderr
    assert (Path(place) / "report.html").is_file()
    assert done.stdout.splitlines()[-1].startswith("The report lies at ")


def test_what_the_machine_refuses_is_one_line() -> None:
    for ask in (lambda: torch.empty(10**15, 16), lambda: np.empty((10**15, 16), dtype=np.float32)):
        with pytest.raises((RuntimeError, MemoryError)) as refused:
            ask()
        line = shell.failure_line(refused.value)
        assert line is not None
        assert line.startswith("Not enough memory (")
        assert "\n" not in line
    for ask in (lambda: torch.empty(2**70), lambda: torch.randn(2**70), lambda: torch.zeros(3, 2**70)):
        with pytest.raises((RuntimeError, TypeError, ValueError)) as refused:
            ask()
        assert str(shell.failure_line(refused.value)).startswith("A number is too large to count with (")
    with pytest.raises(OSError) as refused:  # which one depends on the system
        Path("a" * 5_000).stat()
    assert str(shell.failure_line(refused.value)).startswith("File name too long: aaa")


def test_a_fault_of_our_own_keeps_its_traceback() -> None:
    for fault in (
        ValueError("shapes differ"),
        KeyError("x"),
        RuntimeError("mat1 and mat2"),
        OSError("no number"),
        TypeError("no"),
    ):
        assert shell.failure_line(fault) is None


def test_a_number_that_nothing_can_hold_is_one_line_and_leaves_nothing(
    latlas: Latlas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for count, said in ((10**15, "Not enough memory"), (10**20, "A number is too large")):
        code, out, err = latlas("sample", MODEL, "-n", str(count), "--out", "many.npy")
        assert (code, out) == (MISTAKE, "")
        assert err.startswith(f"latlas: {said}")
        assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_any_whole_number_is_a_seed(latlas: Latlas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    drawn = set()
    for seed in (0, -1, 2**32, 2**63, 2**64, 10**30):
        assert latlas("sample", MODEL, "-n", "2", "--seed", str(seed), "--out", f"{seed}.npy")[0] == 0
        drawn.add(np.load(tmp_path / f"{seed}.npy").tobytes())
    assert len(drawn) == 6


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["diagnose", "mnist:test[0:9]", MODEL], "mnist:test[0:9] names images, and a model was wanted there."),
        (["encode", "fashion-mnist", MODEL], "fashion-mnist names images"),
        (["support", "avatars?hat=1", MODEL], "avatars?hat=1 names images"),
        (["map", MODEL, "celeba:faces", MODEL], "celeba:faces names images"),
        (["invert", "hub:a/b", MODEL], "hub:a/b names images"),
        (["range", "photos-{000..003}.tar", MODEL], "photos-{000..003}.tar names images"),
        (["export", "mnist", "--out", "x.onnx"], "mnist names images"),
        (["train", "mnist", "dense"], "The architecture comes first, then the images: latlas train dense mnist."),
        (["diagnose", "", "mnist"], "A model was wanted, and what came is empty"),
    ],
)
def test_model_and_data_that_changed_places_are_told(
    words: list[str], said: str, latlas: Latlas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = latlas(*words)
    assert code == MISTAKE
    assert err.startswith(f"latlas: {said}")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_is_not_there_is_still_told_as_such(latlas: Latlas) -> None:
    assert "Train one with `latlas train" in latlas("diagnose", "mnist-model", "mnist")[2]
    assert "Did you mean 'zoo'?" in latlas("diagnose", "zooo:x", "mnist")[2]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sample", MODEL, "--out", ""], "--out takes a new file that ends in .npy, got '.'."),
        (["sample", MODEL, "--out", "x"], "--out takes a new file that ends in .npy, got 'x'."),
        (["sample", MODEL, "--out", "taken.npy"], "taken.npy already exists; name a new file that ends in .npy."),
        (["sample", MODEL, "--out", "drawn.npy"], "drawn.png already exists, and the first images would be drawn there;"),
        (["export", MODEL, "--out", "x.npy"], "--out takes a new file that ends in .onnx, got 'x.npy'."),
        (["export", MODEL, "--out", "taken.onnx"], "taken.onnx already exists; name a new file that ends in .onnx."),
        (["relocate", "m", "taken.npy", "--out", "/"], "--out takes a new file that ends in .npy, got '/'."),
        (["support", MODEL, "x.npy", "--npz", "x.npy"], "--npz takes a new file that ends in .npz, got 'x.npy'."),
        (["support", MODEL, "x.npy", "--export", "full", "--replace"], "full already holds something, and pictures replace"),
        (["support", MODEL, "x.npy", "--out", "a", "--export", "a"], "--out lies in --export"),
        (["support", MODEL, "x.npy", "--out", "a", "--npz", "a/b.npz"], "--npz lies in --out"),
        (["support", MODEL, "x.npy", "--out", "a/b", "--export", "a"], "--out lies in --export"),
        (["study", "sparsity", "--out", "a", "--work", "a/b"], "--work lies in --out (a), which is written as a whole;"),
        (["study", "noise-injection", "--out", "a", "--work", "a"], "--work lies in --out"),
        (["study", "variance-law", "--out", "a", "--work", "./a/b/c"], "--work lies in --out"),
        (["study", "all", "--out", "a", "--work", "a/b"], "--work lies in --out"),
        (["train", "recoder", MODEL, "--out", "a", "--cache", "a/b"], "--cache lies in --out"),
        (["map", MODEL, MODEL, "x.npy", "--kind", "reduced-rank"], "--kind reduced-rank needs --rank"),
    ],
)
def test_what_cannot_be_is_told_before_any_work(
    words: list[str], said: str, latlas: Latlas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    for name in ("taken.npy", "taken.onnx", "drawn.png", "full/notes.txt"):
        (tmp_path / name).write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    code, out, err = latlas(*words)
    assert (code, out) == (MISTAKE, "")
    assert err.startswith(f"latlas: {said}")
    assert err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("verb", [["train", "dense"], ["train", "dcgan"]])
def test_a_training_never_takes_another_side_than_was_asked_for(
    verb: list[str], images: Path, latlas: Latlas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for side in ("32", "0", "-5"):
        code, out, err = latlas(*verb, str(images), "--epochs", "1", "--resize", side, "--out", "model")
        assert (code, out) == (MISTAKE, "")
        assert err.endswith("convert an array before.\n")
        assert f"has images of 28 x 28, and --resize {side} was asked for" in err
    assert list(tmp_path.iterdir()) == []
    if verb[1] == "dense":
        assert latlas(*verb, str(images), "--epochs", "1", "--resize", "28", "--json")[0] == 0
