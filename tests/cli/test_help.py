"""Help and completion: examples that can be typed, every form of MODEL and DATA, one meaning to an option's name."""

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import typer

from latlas.cli.main import app
from latlas.cli.training import ARCHITECTURES, OTHERS
from latlas.data.avatar_styles import STYLES
from latlas.data.builtin import BUILTIN_SETS
from latlas.models.carried_folders import zoo_entries
from latlas.models.loading import SCHEMES

Latlas = Callable[..., tuple[int, str, str]]


def commands() -> Iterator[tuple[str, Any]]:
    """Every verb, study and training with its words."""
    root: Any = typer.main.get_command(app)
    for name, command in root.commands.items():
        for inner, one in getattr(command, "commands", {"": command}).items():
            yield f"{name} {inner}".strip(), one
    for other, function in OTHERS.items():
        single = typer.Typer(add_completion=False)
        single.command(other)(function)
        yield f"train {other}", typer.main.get_command(single)


COMMANDS = dict(commands())


def examples(command: Any) -> list[str]:
    paragraphs = [" ".join(paragraph.split()) for paragraph in command.help.split("\n\n")]
    return [text.removeprefix("Example: ") for text in paragraphs if text.startswith("Example: ")]


@pytest.mark.parametrize("words", COMMANDS)
def test_every_example_can_be_typed_as_it_stands(words: str) -> None:
    """Its words are those of the command, its options exist, and what it takes of the zoo is there."""
    found = examples(COMMANDS[words])
    assert found
    known = {entry.name for entry in zoo_entries()}
    for example in found:
        program, *given = shlex.split(example)
        assert program == "latlas"
        assert given[: len(words.split())] == words.split()
        context: Any = typer.main.get_command(app).make_context("latlas", list(given))
        rest = [*context._protected_args, *context.args] if hasattr(context, "_protected_args") else context.args
        command = context.command
        while hasattr(command, "commands"):
            name, command, rest = command.resolve_command(context, rest)
            context = command.make_context(name, rest, parent=context)
            rest = context.args if not hasattr(context, "_protected_args") else [*context._protected_args, *context.args]
        assert context.params
        for word in given:
            if word.startswith("zoo:"):
                assert word.removeprefix("zoo:") in known


def test_the_help_names_every_form_of_model_and_data(latlas: Latlas, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shown = " ".join(latlas("--help")[1].split())
    for form in (*(f"{scheme}:" for scheme in SCHEMES), "Hub id", "GENERATOR+RECODER"):
        assert form in shown
    for form in (
        *BUILTIN_SETS,
        *STYLES,
        "celeba:FOLDER",
        "hub:",
        "a folder of pictures",
        ".tar",
        "Parquet",
        ".npy",
        ".npz",
        "[start:stop]",
    ):
        assert form in shown


@pytest.mark.parametrize("words", [words for words in COMMANDS if not words.startswith("explore")])
def test_an_option_that_takes_images_or_a_model_says_so(words: str) -> None:
    """One name means images with one verb and a model with another: which it is stands beside it."""
    images = {"test", "heldout", "control", "codes_of", "attributes"} | ({"reference"} if words == "range" else set())
    models = {"more"} | ({"reference"} if words == "cover" else set())
    for parameter in COMMANDS[words].params:
        if parameter.name in images:
            assert parameter.metavar == "DATA"
        elif parameter.name in models:
            assert parameter.metavar == "MODEL"


@pytest.mark.parametrize("width", ["40", "60", "80"])
@pytest.mark.parametrize("settings", [{}, {"TERM": "dumb"}, {"NO_COLOR": "1"}])
def test_help_fits_a_narrow_terminal(
    width: str, settings: dict[str, str], latlas: Latlas, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    for words in (["--help"], ["range", "--help"], ["study", "--help"]):
        code, shown, _ = latlas(*words)
        assert code == 0
        assert max(map(len, shown.splitlines())) <= int(width)
        assert "\x1b" not in shown


def complete(line: str) -> list[str]:
    """What bash would offer for the last word of a line."""
    environment = {**os.environ, "_LATLAS_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    command = [sys.executable, "-c", "import sys; sys.argv[0] = 'latlas'; from latlas.cli.main import run; run()"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_the_shell_completes_verbs_options_architectures_and_names_of_the_zoo() -> None:
    assert complete("latlas dia") == ["diagnose"]
    assert complete("latlas study sp") == ["sparsity"]
    assert complete("latlas diagnose --re") == ["--resize", "--replace"]
    assert complete("latlas train ") == [*ARCHITECTURES, *OTHERS]
    assert complete("latlas train dcgan --ch") == ["--channels"]
    assert complete("latlas zoo digits-d") == ["digits-dense", "digits-dense-1", "digits-dense-to-digits-conv"]
