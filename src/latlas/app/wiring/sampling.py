"""Room 5 on the page: one seed, every sampler."""

from typing import Any

from latlas.app.charts import Atlas
from latlas.app.rooms import sampling as room
from latlas.app.wiring.common import PRIVATE, Opening, intro, shown, told, whole


def build(atlas: Atlas, model: Any) -> Opening:
    """Lay the room out and return what fills it.

    Args:
        atlas: what there is to look at.
        model: the page's choice of a model.
    """
    import gradio as gr

    waiting = gr.Progress()
    gr.HTML(intro("New images, decoded from codes that each sampler draws from the same seed."))
    note = gr.HTML(elem_classes="la-quiet")
    with gr.Row(elem_classes="la-line"):
        seed = gr.Number(0, precision=0, minimum=0, label="Seed", min_width=120, scale=0, elem_id="sampling-seed")
        following = gr.Button("Next seed", min_width=120, scale=0, size="md")
    pictures = gr.HTML(elem_id="sampling-pictures", elem_classes="la-waits")

    def draw(label: str, seed: int, progress: Any) -> list[Any]:
        return [room.pictures(room.draws(atlas, atlas.chart(label), seed, shown(progress)), seed)]

    @told(1)
    def fill(label: str, progress: Any = waiting, seed: float | None = 0) -> list[Any]:
        return draw(label, whole(seed), progress)

    @told(2)
    def advance(label: str, progress: Any = waiting, seed: float | None = 0) -> list[Any]:
        return [whole(seed) + 1, *draw(label, whole(seed) + 1, progress)]

    gr.on([seed.submit, seed.blur], fill, [model, seed], [note, pictures], show_progress="minimal", **PRIVATE)
    following.click(advance, [model, seed], [note, seed, pictures], show_progress="minimal", **PRIVATE)
    return Opening(fill=fill, inputs=[seed], outputs=[note, pictures])
