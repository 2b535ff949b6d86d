"""The command in this process, driven by its own entry point."""

import sys
from collections.abc import Callable

import pytest

from latlas.cli import main


@pytest.fixture
def latlas(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """A function of the words after `latlas` that returns exit code, standard output and standard error."""

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["latlas", *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main.run()
        told = capsys.readouterr()
        return int(end.value.code or 0), told.out, told.err

    return run
