"""Room 4 on the page: pictures to judge, and the verdicts."""

import html
from typing import Any

from latlas.app.charts import Atlas
from latlas.app.rooms import ranges as room
from latlas.app.wiring.common import PRIVATE, UPLOAD, Opening, images_in, intro, shown, told
from latlas.base.errors import ImageFormatError

_HINT = '<p class="la-remark">Upload pictures, or try images of the data.</p>'


def build(atlas: Atlas, model: Any) -> Opening:
    """Lay the room out and return what fills it.

    Args:
        atlas: what there is to look at.
        model: the page's choice of a model.
    """
    import gradio as gr

    waiting = gr.Progress()
    gr.HTML(
        intro(
            "Can this model make this image at all? The nearest image that it can make is searched for (the inversion), and the error that "
            "is left is held against that of images which it drew itself. Of a model that blurs, the very images that it learnt from "
            "are out of range. The first question to a model of yours takes a minute or so, the next ones seconds."
        )
    )
    note, remark = gr.HTML(elem_classes="la-quiet"), gr.HTML(elem_classes="la-quiet")
    seed = gr.State(0)
    judged = gr.State(None)  # the model whose verdicts stand here
    with gr.Row(equal_height=False):
        with gr.Column(scale=1, min_width=280):
            upload = gr.File(
                label=f"Your pictures (up to {room.MOST})",
                type="binary",
                file_count="multiple",
                file_types=["image"],
                height=UPLOAD,
                elem_id="range-upload",
            )
            again = gr.Button("Judge your pictures again", size="md", visible=False, elem_id="range-again")
            tried = gr.Button(f"Try {room.TRIED} images of the data", size="md", elem_id="range-try")
        with gr.Column(scale=3, min_width=300):
            pictures = gr.HTML(_HINT, elem_id="range-pictures", elem_classes="la-waits")
            words = gr.HTML(elem_id="range-words")
    drawn = [pictures, words]

    def draw(label: str, images: Any, names: Any, progress: Any) -> list[Any]:
        chart = atlas.chart(label)
        found = room.judge(atlas, chart, images, names, shown(progress))
        return [room.pictures(found), intro(room.explained(found))]

    @told(len(drawn) + 1)
    def fill(label: str, _progress: Any = waiting, judged: str | None = None) -> list[Any]:
        atlas.chart(label)
        # On a busy server a room may be filled after its first question was answered: only another model's verdicts go.
        if judged in (None, label):
            return [gr.skip()] * (len(drawn) + 1)
        gone = f'<p class="la-remark">The verdicts that stood here were those of {html.escape(str(judged))}.</p>'
        return ["", gone + _HINT, ""]

    @told(len(drawn) + 3)
    def take(label: str, progress: Any = waiting, files: Any = None) -> list[Any]:
        if not files:
            return [None, gr.update(visible=False), "", _HINT, ""]
        if len(files) > room.MOST:  # before any is read: a small file may be a large picture
            raise ImageFormatError(f"At most {room.MOST} pictures are judged at once, got {len(files)}. Choose fewer.")
        images, done = images_in(files, atlas.chart(label))
        names = [f"picture {place + 1}" for place in range(len(images))]
        return [label, gr.update(visible=True), done, *draw(label, images, names, progress)]

    @told(len(drawn) + 3)
    def attempt(label: str, progress: Any = waiting, seed: int = 0) -> list[Any]:
        images, names = room.trials(atlas, atlas.chart(label), seed)
        return [label, seed + 1, "", *draw(label, images, names, progress)]

    gr.on(
        [upload.upload, upload.clear, again.click],
        take,
        [model, upload],
        [note, judged, again, remark, *drawn],
        show_progress="full",
        show_progress_on=[pictures],
        **PRIVATE,
    )
    tried.click(
        attempt,
        [model, seed],
        [note, judged, seed, remark, *drawn],
        show_progress="full",
        show_progress_on=[pictures],
        **PRIVATE,
    )
    return Opening(fill=fill, inputs=[judged], outputs=[note, remark, *drawn])
