"""What all rooms share on the page: messages instead of stack traces, progress, uploads, and rooms that open when entered."""

import functools
import html
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from latlas.app.charts import Chart
from latlas.app.markup import note
from latlas.app.uploads import read_upload
from latlas.base.errors import LatlasError
from latlas.base.progress import Progress
from latlas.reports.wording import images_in_words

# Nothing here is an interface for programs: that is what the library is.
PRIVATE = {"api_visibility": "private"}
UPLOAD = 160  # pixels: height of a field that takes pictures
_EVERY = 0.2  # seconds between two reports of progress


@dataclass(frozen=True, kw_only=True)
class Opening:
    """What fills a room when it is entered, or when another model is chosen.

    `fill` takes the model's label, what `inputs` hold, and a gradio Progress; it returns a message and what `outputs` get.
    """

    fill: Callable[..., Any]
    inputs: Sequence[Any]
    outputs: Sequence[Any]


def told(outputs: int) -> Callable[[Callable[..., Sequence[Any]]], Callable[..., list[Any]]]:
    """Return a decorator: what a function returns follows an empty message; a visitor's mistake is the message alone.

    Args:
        outputs: how many values the function returns.
    """

    def decorate(work: Callable[..., Sequence[Any]]) -> Callable[..., list[Any]]:
        @functools.wraps(work)
        def answer(*args: Any) -> list[Any]:
            import gradio as gr

            try:
                return ["", *work(*args)]
            except LatlasError as mistake:
                return [note(str(mistake), "warning"), *[gr.skip()] * outputs]

        return answer

    return decorate


def shown(progress: Any) -> Progress:
    """Return a gradio Progress as the library reports it."""
    last = [0.0]

    def described(task: str, note: str) -> str:
        verb, _, name = task.partition(" ")
        return " ".join(part for part in (verb, images_in_words(name), note) if part)

    def report(task: str, done: int, total: int | None, note: str = "") -> None:
        now = time.monotonic()
        if total and (done == total or now - last[0] >= _EVERY):
            last[0] = now
            progress((done, total), desc=described(task, note))

    return report


def images_in(files: Sequence[bytes], chart: Chart) -> tuple[list[Tensor], str]:
    """Return the images that uploaded files hold, in the shape of a chart's, and a note of what was done to them.

    Raises:
        ImageFormatError: one cannot be used; says which, by its number.
    """
    found, remarks = [], []
    for place, content in enumerate(files):
        which = f"Picture {place + 1}: " if len(files) > 1 else ""
        try:
            upload = read_upload(bytes(content), chart.model.image_shape)
        except LatlasError as mistake:
            raise type(mistake)(f"{which}{mistake}") from mistake
        found.append(upload.image)
        remarks += [f"{which}{remark}" for remark in upload.remarks]
    return found, note(" ".join(remarks))


def whole(value: Any) -> int:
    """Return a number field's content; an empty one is 0, and one that is out of all range stays out of range.

    >>> whole(None), whole(3.0), whole(-1)
    (0, 3, -1)
    """
    return 0 if value is None else int(max(-1, min(float(value), 2**53)))


def intro(text: str) -> str:
    """Return the sentence at the top of a room."""
    return f'<p class="la-intro">{html.escape(text, quote=False)}</p>'
