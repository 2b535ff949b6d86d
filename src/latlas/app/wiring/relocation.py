"""Room 2 on the page: two models, and images carried from one to the other."""

from typing import Any

from latlas.app import markup
from latlas.app.charts import Atlas
from latlas.app.rooms import relocation as room
from latlas.app.wiring.common import PRIVATE, UPLOAD, Opening, images_in, intro, shown, told


def build(atlas: Atlas, model: Any) -> Opening:
    """Lay the room out and return what fills it.

    Args:
        atlas: what there is to look at.
        model: the page's choice of a model, which is the source here.
    """
    import gradio as gr

    waiting = gr.Progress()
    gr.HTML(
        intro(
            "The model chosen above is the source. A linear map carries its codes into the latent space of the target, which decodes "
            "them: the relocation. It shows how much of what the source knows of an image the target understands."
        )
    )
    note, remark = gr.HTML(elem_classes="la-quiet"), gr.HTML(elem_classes="la-quiet")
    seed, uploads = gr.State(0), gr.State(None, time_to_live=3600)
    with gr.Row(equal_height=False):
        with gr.Column(scale=1, min_width=280):
            target = gr.Dropdown(label="Target", choices=[], elem_id="relocation-target")
            others = gr.Button("Other images", size="md")
            upload = gr.File(
                label="A picture of your own", type="binary", file_types=["image"], height=UPLOAD, elem_id="relocation-upload"
            )
        with gr.Column(scale=3, min_width=300):
            pictures = gr.HTML(elem_id="relocation-pictures", elem_classes="la-waits")
            errors = gr.HTML(elem_id="relocation-errors")
    drawn = [pictures, errors]

    def draw(label: str, target: str, seed: int, own: Any, progress: Any) -> list[Any]:
        source, other = atlas.chart(label), atlas.chart(target)
        report = shown(progress)
        found = room.relocation(atlas, source, other, seed=seed, uploads=own or (), progress=report)
        return [room.pictures(found, source, other), room.errors(room.comparison(atlas, source, other))]

    @told(len(drawn) + 4)
    def fill(label: str, progress: Any = waiting, target: str | None = None, seed: int = 0) -> list[Any]:
        choices = atlas.comparable(label)
        chosen = target if target in choices and target != label else choices[0]
        # A picture in the shape of another model's images serves no longer.
        alone = markup.note(room.ALONE) if chosen == label else ""
        return [gr.update(choices=choices, value=chosen), None, None, alone, *draw(label, chosen, seed, None, progress)]

    @told(len(drawn))
    def change(label: str, progress: Any = waiting, target: str = "", seed: int = 0, own: Any = None) -> list[Any]:
        return draw(label, target, seed, own, progress)

    @told(len(drawn) + 1)
    def more(label: str, progress: Any = waiting, target: str = "", seed: int = 0, own: Any = None) -> list[Any]:
        return [seed + 1, *draw(label, target, seed + 1, own, progress)]

    @told(len(drawn) + 2)
    def take(label: str, progress: Any = waiting, target: str = "", seed: int = 0, content: Any = None) -> list[Any]:
        if content is None:
            return [None, "", *draw(label, target, seed, None, progress)]
        own, done = images_in([content], atlas.chart(label))
        return [own, done, *draw(label, target, seed, own, progress)]

    settings = [model, target, seed]
    target.input(change, [*settings, uploads], [note, *drawn], show_progress="minimal", **PRIVATE)
    others.click(more, [*settings, uploads], [note, seed, *drawn], show_progress="minimal", **PRIVATE)
    gr.on(
        [upload.upload, upload.clear],
        take,
        [*settings, upload],
        [note, uploads, remark, *drawn],
        show_progress="minimal",
        **PRIVATE,
    )
    return Opening(fill=fill, inputs=[target, seed], outputs=[note, target, uploads, upload, remark, *drawn])
