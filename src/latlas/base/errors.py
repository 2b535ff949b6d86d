"""One exception per kind of mistake that a user can make.

Each message says what was wanted, what came and what to do, in one line: the shell prints it and exits with code 2.
Programming errors inside latlas are ordinary Python exceptions and keep their traceback.
"""

import difflib
from collections.abc import Iterable

_LONGEST = 4_000  # characters of a message; what a file says of itself may have millions


class LatlasError(Exception):
    """A mistake that the caller can mend; the base of all the others.

    Its text is one line of bounded length, whatever names out of a stranger's file stand in it.
    """

    def __str__(self) -> str:
        return one_line(super().__str__())


class UnknownNameError(LatlasError):
    """A data set, model, architecture or option that nobody has registered."""


class MissingPathError(LatlasError):
    """A file or folder that is not there."""


class OutputExistsError(LatlasError):
    """An output folder that already holds something."""


class ArtifactError(LatlasError):
    """A folder that is not an artifact of the kind asked for, or whose content is damaged."""


class DataUnavailableError(LatlasError):
    """A data set that none of its sources could deliver."""


class MissingExtraError(LatlasError):
    """A package that only some of latlas needs, and that is not installed."""


class ImageFormatError(LatlasError):
    """Images that cannot be read, or whose shape, type or range does not fit."""


class NonFiniteError(LatlasError):
    """NaN or infinity where a number was expected."""


class CodeShapeError(LatlasError):
    """Codes of another latent space than the one asked for."""


class IllPosedError(LatlasError):
    """A fit or a test that the data given cannot support."""


class CapabilityError(LatlasError):
    """A model that lacks what a question needs (an encoder, posterior variances, a decoder)."""


class SettingError(LatlasError):
    """A setting out of its range, or settings that contradict each other."""


class EngineError(LatlasError):
    """Workers of a distributed computation that keep ending, or one that failed while the others wait."""


def one_line(text: str) -> str:
    r"""Return a text as one printable line: line breaks become spaces, and what cannot be printed its escape.

    That is what would steer a terminal, turn the reading direction, or be seen by nobody.

    Of more than 4,000 characters the middle is left out.

    >>> one_line("two\nlines and \x1b[2J")
    'two lines and \\x1b[2J'
    """
    text = _cut(text)
    if text.isprintable():
        return text
    return _cut("".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in " ".join(text.splitlines())))


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]} … {text[-_LONGEST // 2 + 3 :]}"


def unknown_name(kind: str, name: str, known: Iterable[str], *, hint: str = "") -> UnknownNameError:
    """Return the error for a name that is not registered, with the nearest known name.

    Args:
        kind: what the name should be, for example `"data set"`.
        name: what came.
        known: every name that would have been accepted.
        hint: what else is accepted, appended to the message.
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    suggestion = f" Did you mean {close[0]!r}?" if close else ""
    tail = f" {hint}" if hint else ""
    return UnknownNameError(f"Unknown {kind} {name!r}.{suggestion} Known: {', '.join(names)}.{tail}")
