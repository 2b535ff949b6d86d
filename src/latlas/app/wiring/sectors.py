"""Room 3 on the page: signs of the leading variables, and who lies there."""

from typing import Any

from latlas.app.charts import Atlas
from latlas.app.measured import variables_of
from latlas.app.rooms import sectors as room
from latlas.app.wiring.common import PRIVATE, Opening, intro, shown, told

_FIRST = ("+", "any", "any", "any", "any", "any")  # a sector that is never empty


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
            "A sector holds the images whose codes lie beyond a threshold, above (+) or below (−) the mean, in each variable that is "
            "not set to “any”. Gain is by how much the squared error per pixel grows when a variable is set to 0."
        )
    )
    note = gr.HTML(elem_classes="la-quiet")
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=280):
            signs = [
                gr.Radio(
                    list(room.SIGNS),
                    value=_FIRST[place],
                    label=f"variable {place}",
                    elem_id=f"sign-{place}",
                    elem_classes="la-sign",
                )
                for place in range(room.CHOSEN)
            ]
            threshold = gr.Slider(
                0, 1.5, value=0.25, step=0.05, label="Threshold (standard deviations)", elem_id="sector-threshold", buttons=[]
            )
        with gr.Column(scale=3, min_width=300):
            occupancy = gr.HTML(elem_id="sectors-occupancy")
            pictures = gr.HTML(elem_id="sectors-pictures", elem_classes="la-waits")
    drawn = [occupancy, pictures]

    def draw(label: str, threshold: float, chosen: tuple[str, ...]) -> list[Any]:
        chart = atlas.chart(label)
        count = len(room.leading(atlas, chart))
        found = room.inhabitants(atlas, chart, chosen[:count], threshold)
        return [room.occupancy(found), room.pictures(found, chart)]

    @told(len(drawn) + len(signs))
    def fill(label: str, progress: Any = waiting, threshold: float = 0.0, *chosen: str) -> list[Any]:
        chart = atlas.chart(label)
        names = room.leading(atlas, chart, shown(progress))
        found = variables_of(atlas, chart)
        updates = [
            gr.update(label=f"variable {names[place]} · gain {found.gain[names[place]]:.2g}", visible=True)
            if place < len(names)
            else gr.update(visible=False)
            for place in range(len(signs))
        ]
        return [*updates, *draw(label, threshold, chosen)]

    @told(len(drawn))
    def change(label: str, threshold: float, *chosen: str) -> list[Any]:
        return draw(label, threshold, chosen)

    gr.on(
        [threshold.input, *(sign.input for sign in signs)],
        change,
        [model, threshold, *signs],
        [note, *drawn],
        show_progress="hidden",
        trigger_mode="always_last",
        concurrency_limit=4,
        **PRIVATE,
    )
    return Opening(fill=fill, inputs=[threshold, *signs], outputs=[note, *signs, *drawn])
