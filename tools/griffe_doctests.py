"""For the reference pages: doctests that stand in a docstring's prose become code blocks, or Markdown would read `>>>` as quotes."""

from typing import Any

from griffe import Extension, Object


class Doctests(Extension):
    """Fences every doctest of every docstring."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rewrite the docstring of a module, class, function or attribute."""
        if obj.docstring is not None and ">>>" in obj.docstring.value:
            obj.docstring.value = fenced(obj.docstring.value)


def fenced(text: str) -> str:
    r"""Return a text with its doctests, each up to the next empty line, in fences.

    >>> fenced("Two.\\n\\n>>> 1 + 1\\n2").splitlines()
    ['Two.', '', '```pycon', '>>> 1 + 1', '2', '```']
    """
    lines, inside = [], False
    for line in [*text.splitlines(), ""]:
        indent = line[: len(line) - len(line.lstrip())]
        if line.lstrip().startswith(">>>") and not inside:
            lines.append(f"{indent}```pycon")
            inside, margin = True, indent
        elif inside and not line.strip():
            lines.append(f"{margin}```")
            inside = False
        lines.append(line)
    return "\n".join(lines[:-1])
