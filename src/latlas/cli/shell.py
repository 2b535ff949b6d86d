"""How the command meets the shell: its streams, and the one line that it says of what went wrong."""

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NoReturn, cast

import typer

from latlas.base.errors import one_line

# What every mistake in words and options is raised as. Typer names none of its classes but this one's child.
UsageMistake = cast("type[Exception]", typer.BadParameter.__mro__[1])

# What Typer's words for a value of the wrong type have in them, of all its versions; and what was wanted.
_NUMBERS = {"integer": "a whole number", "float": "a number", "number": "a number"}
_NO_MEMORY = ("can't allocate memory", "out of memory", "not enough memory")
_TOO_LARGE = ("overflow when unpacking", "overflowed", "multiplication overflow", "too large to convert", "index-sized integer")


class Interrupted(Exception):
    """Ctrl-C; its text tells what is kept, where something is."""


def interruption_behind(end: BaseException | None) -> KeyboardInterrupt | None:
    """Return the interruption that an end came from: Typer, and others, turn one into an exit of their own."""
    while end is not None and not isinstance(end, KeyboardInterrupt):
        end = end.__cause__ or end.__context__
    return end


def settle_streams() -> None:
    """Let no word that is printed end the command.

    A stream that the shell closed (`2>&-`) leads nowhere: Python has None in its place, and what is printed there would go to the
    other one, into the JSON. What a terminal's encoding lacks becomes a question mark.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115  # until the process ends
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def flush() -> None:
    """Write what is printed, now: Python would do so when it ends, where a failure is no longer told in a line."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read it has enough, as `head` has
        _discard_output()
        sys.exit(1)
    except OSError:
        _discard_output()
        raise


def _discard_output() -> None:
    """Keep Python from writing again, when it ends, what could not be written."""
    with suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def leave(code: int, words: str) -> NoReturn:
    """Say one line on standard error, and end with this exit code."""
    with suppress(OSError):
        print(f"latlas: {words}", file=sys.stderr, flush=True)
    sys.exit(code)


def usage_line(mistake: Any, given: Sequence[str]) -> str | None:
    """Return a mistake in words and options as one line: what came, what is near, where to look.

    Args:
        mistake: as Typer raises it.
        given: the words of the command, without its own name.

    Returns:
        The line; None where help was shown in its place.
    """
    if type(mistake).__name__ == "NoArgsIsHelpError":  # Typer itself knows it by its name
        return None
    context = getattr(mistake, "ctx", None)
    words = one_line(mistake.format_message()).rstrip(".")
    near = getattr(mistake, "possibilities", None)
    if near:
        words = f"No such option: {one_line(mistake.option_name)}. Did you mean {' or '.join(sorted(near))}?"
    value = _value_of(mistake, given)
    number = next((number for sign, number in _NUMBERS.items() if sign in words.lower()), None)
    if value is not None and number is not None:
        words = f"{mistake.param.opts[0]} takes {number}, got {value!r}"
    end = "" if words.endswith("?") else "."
    return words + end + ("" if context is None else f" See {context.command_path} --help.")


def _value_of(mistake: Any, given: Sequence[str]) -> str | None:
    """Return what was given for the option whose value is a mistake, the last time: Typer does not keep it."""
    names = tuple(name for name in getattr(getattr(mistake, "param", None), "opts", ()) if name.startswith("-"))
    found = None
    for place, word in enumerate(given):
        name, equals, value = word.partition("=")
        if word in names and place + 1 < len(given):
            found = given[place + 1]
        elif equals and name in names:
            found = value
    return None if found is None else one_line(found)


def failure_line(failure: BaseException) -> str | None:
    """Return one line for what the machine refused; None of a fault of latlas, whose traceback is wanted.

    >>> failure_line(OSError(36, "File name too long", "a-name"))
    'File name too long: a-name.'
    """
    if isinstance(failure, OSError) and failure.errno is not None:
        names = [one_line(os.fsdecode(name)) for name in (failure.filename, failure.filename2) if isinstance(name, str | bytes)]
        return ": ".join([failure.strerror or str(failure), *names]) + "."
    first = one_line(str(failure).split("\n", 1)[0])
    told = first.lower()
    if isinstance(failure, MemoryError) or (isinstance(failure, RuntimeError) and any(sign in told for sign in _NO_MEMORY)):
        return f"Not enough memory ({first or 'of this machine'}). Ask for less at a time: fewer images, smaller ones, a smaller model."
    if isinstance(failure, ArithmeticError | RuntimeError | TypeError | ValueError) and any(
        sign in told for sign in _TOO_LARGE
    ):
        return f"A number is too large to count with ({first}). Give a smaller one."
    return None
