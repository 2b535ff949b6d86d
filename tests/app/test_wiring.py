"""Mistakes become messages, progress reaches the page, and a room is filled when it is entered and not before."""

import inspect
import io
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from latlas.app.charts import Atlas
from latlas.app.page import _entering
from latlas.app.wiring import ranges
from latlas.app.wiring.common import Opening, images_in, intro, shown, told
from latlas.base.errors import ImageFormatError, SettingError

gr = pytest.importorskip("gradio", reason="the explorer needs gradio")


def test_a_mistake_is_a_message_and_leaves_everything_else_as_it_is() -> None:
    @told(2)
    def work(value: int) -> list[int]:
        if value < 0:
            raise SettingError("<Below> 0.")
        return [value, value + 1]

    assert work(3) == ["", 3, 4]
    message, *rest = work(-1)
    assert 'role="alert"' in message
    assert "&lt;Below&gt; 0." in message
    assert rest == [gr.skip(), gr.skip()]


def test_a_fault_of_ours_is_not_hidden_as_a_message() -> None:
    @told(1)
    def work() -> list[int]:
        return [1 // 0]

    with pytest.raises(ZeroDivisionError):
        work()


def test_gradio_still_finds_the_progress_behind_the_decorator() -> None:
    waiting = gr.Progress()

    @told(1)
    def work(label: str, progress: Any = waiting, *rest: int) -> list[Any]:
        return [len(rest)]

    assert inspect.signature(work).parameters["progress"].default is waiting


def test_progress_is_told_in_shares_and_not_too_often() -> None:
    seen: list[tuple[Any, str]] = []
    report = shown(lambda share, desc: seen.append((share, desc)))
    for done in range(1001):
        report("decoding", done, 1000, "now")
    report("of unknown length", 3, None)
    named: list[str] = []
    shown(lambda share, desc: named.append(desc))("encoding mnist:test[0:2000][0:1600]", 1600, 1600)
    assert named == ["encoding images 0 to 1,599 of mnist:test"]
    assert seen[0] == ((0, 1000), "decoding now")
    assert seen[-1] == ((1000, 1000), "decoding now")
    assert len(seen) < 20


def test_of_several_pictures_the_wrong_one_is_named_by_its_number(atlas: Atlas) -> None:
    with pytest.raises(ImageFormatError, match="Picture 2: The file holds no picture"):
        images_in([_grey(), b"text"], atlas.chart("painter"))
    images, remarks = images_in([_grey()], atlas.chart("painter"))
    assert images[0].shape == (1, 8, 8)
    assert remarks == ""


def test_a_room_is_filled_once_for_each_model_and_only_when_it_is_open() -> None:
    filled: list[str] = []

    def fill(label: str, progress: Any, setting: int) -> list[Any]:
        filled.append(label)
        return ["a message" if label == "broken" else "", setting]

    enter = _entering(gr, Opening(fill=fill, inputs=[], outputs=[SimpleNamespace(), SimpleNamespace()]), "map")
    progress = gr.Progress()
    skipped = [gr.skip()] * 3
    assert enter("a", progress, "range", None, 5) == skipped  # another room is open
    assert enter("a", progress, "map", None, 5) == ["a", "", 5]
    assert enter("a", progress, "map", "a", 5) == skipped  # it shows this model already
    assert enter("broken", progress, "map", "a", 5) == [None, "a message", 5]  # to be tried again
    assert filled == ["a", "broken"]


def test_words_about_a_model_are_escaped() -> None:
    assert "<script" not in intro("<script>")


def _grey() -> bytes:
    stream = io.BytesIO()
    Image.new("L", (8, 8), 128).save(stream, format="PNG")
    return stream.getvalue()


def test_a_verdict_outlives_the_filling_of_its_room_and_not_another_model(atlas: Atlas) -> None:
    """Of two answers on a busy server the later filling must not wipe out a verdict that came before it."""
    with gr.Blocks():
        opening = ranges.build(atlas, gr.Dropdown(["painter"], value="painter"))
    assert len(opening.inputs) == 1  # whose verdicts stand there
    progress = gr.Progress()
    kept = ["", *[gr.skip()] * (len(opening.outputs) - 1)]
    assert opening.fill("painter", progress, None) == kept
    assert opening.fill("painter", progress, "painter") == kept
    message, _, pictures, words = opening.fill("painter", progress, "another")
    assert (message, words) == ("", "")
    assert "Upload pictures" in pictures
    assert "those of another." in pictures
    assert "<script" not in opening.fill("painter", progress, "<script>")[2]
