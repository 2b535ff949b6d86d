"""What the README says is what was measured, and what it shows can be run."""

import json
import re
import shlex
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import latlas
from latlas.cli.main import app

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_tour_kept_its_bounds() -> None:
    assert json.loads((ROOT / "benchmarks/results/tour.json").read_text(encoding="utf-8"))["missed"] == []


def _shell_lines() -> list[str]:
    blocks = re.findall(r"```sh[^\n]*\n(.*?)```", README, flags=re.DOTALL)
    return [line.split(" #")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]


COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
GROUPS = {name: command.commands for name, command in COMMANDS.items() if hasattr(command, "commands")}
VERBS = {name: command for name, command in COMMANDS.items() if name not in GROUPS} | {
    f"{group} {name}": command for group, commands in GROUPS.items() for name, command in commands.items()
}


@pytest.mark.parametrize("line", [line for line in _shell_lines() if line.startswith("latlas")])
def test_every_command_shown_has_a_verb_and_options_that_exist(line: str) -> None:
    words = shlex.split(line)
    verb = words[1:3] if words[1] in GROUPS else words[1:2]
    shown = CliRunner().invoke(app, [*verb, "--help"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0, line
    for option in (word for word in words if word.startswith("--")):
        assert option in shown.output, line


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_takes_the_options_that_the_readme_says(verb: str) -> None:
    """`all but A, B and C take --x` names every verb that lacks it, and no other."""
    sentence = " ".join(README.split())
    always = re.search(r"Every verb but `(\w+)` and `(\w+)` takes `(--\w+)` and `(--\w+)`", sentence)
    partly = re.findall(r"all but ((?:`\w+`(?:, | and )?)+)(?:, which [^,]*,)? take `(--\w+)`", sentence)
    assert always is not None
    assert {option for _, option in partly} == {"--device", "--seed"}
    taken = {option for parameter in VERBS[verb].params for option in parameter.opts}
    assert taken.issuperset(always.groups()[2:]) == (verb not in always.groups()[:2])
    for lacking, option in partly:
        assert (option in taken) == (verb not in re.findall(r"`(\w+)`", lacking)), option


@pytest.mark.parametrize("line", [line for line in _shell_lines() if line.startswith("make")])
def test_every_make_target_shown_exists(line: str) -> None:
    target = line.split()[1]
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)


def test_every_public_name_shown_exists() -> None:
    for name in re.findall(r"latlas\.([A-Za-z_]+)\(", README):
        assert name in latlas.__all__


def test_every_link_inside_the_project_leads_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert link.startswith("http") or (page.parent / link).exists(), f"{page.name}: {link}"
