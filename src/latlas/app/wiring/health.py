"""Room 6 on the page: the diagnosis as chart and table; a row shows what its variable draws."""

from typing import Any

from latlas.app.charts import Atlas
from latlas.app.measured import health
from latlas.app.rooms import health as room
from latlas.app.wiring.common import PRIVATE, Opening, intro, shown, told, whole


def build(atlas: Atlas, model: Any) -> Opening:
    """Lay the room out and return what fills it.

    Args:
        atlas: what there is to look at.
        model: the page's choice of a model.
    """
    import gradio as gr
    import pandas as pd

    waiting = gr.Progress()
    gr.HTML(intro("What each latent variable holds. Choose a row of the table to see below it what its variable draws."))
    note, headline, advice = (
        gr.HTML(elem_classes="la-quiet"),
        gr.HTML(elem_id="health-numbers"),
        gr.HTML(elem_id="health-advice"),
    )
    measure = gr.Radio(list(room.MEASURES), value="gain", label="Chart", elem_id="health-measure")
    words = gr.HTML()
    drawing = gr.HTML(elem_id="health-chart", elem_classes="la-waits")
    table = gr.Dataframe(
        headers=list(room.COLUMNS),
        datatype=["number", "str", *["number"] * (len(room.COLUMNS) - 2)],
        interactive=False,
        max_height=420,
        show_search="none",
        buttons=[],
        elem_id="health-table",
    )
    with gr.Row():
        variable = gr.Number(0, precision=0, minimum=0, label="Variable", min_width=110, scale=0, elem_id="health-variable")
    traversal = gr.HTML(elem_id="health-traversal")

    def plotted(label: str, measure: str) -> list[Any]:
        found = health(atlas, atlas.chart(label))
        return [room.chart(found, measure), intro(f"{measure}: {room.MEASURES[measure]}.")]

    def styled(lines: list[list[Any]]) -> Any:
        frame = pd.DataFrame(lines, columns=list(room.COLUMNS))
        digits = dict.fromkeys(list(room.COLUMNS)[2:], room.written)
        return frame.style.format(digits, na_rep="–")

    @told(7)
    def fill(label: str, progress: Any = waiting, measure: str = "gain") -> list[Any]:
        chart = atlas.chart(label)
        report = shown(progress)
        found = health(atlas, chart, report)
        lines = room.sheet(found)
        first = int(lines[0][0])
        return [
            room.headline(found),
            room.advice(found),
            styled(lines),
            *plotted(label, measure),
            first,
            room.traversal(atlas, chart, first, progress=report),
        ]

    @told(2)
    def change(label: str, measure: str) -> list[Any]:
        return plotted(label, measure)

    @told(1)
    def run(label: str, variable: float | None) -> list[Any]:
        return [room.traversal(atlas, atlas.chart(label), whole(variable))]

    @told(2)
    def choose(label: str, event: gr.SelectData) -> list[Any]:
        chosen = int(event.row_value[0])
        return [chosen, room.traversal(atlas, atlas.chart(label), chosen)]

    measure.input(change, [model, measure], [note, drawing, words], show_progress="hidden", **PRIVATE)
    gr.on([variable.submit, variable.blur], run, [model, variable], [note, traversal], show_progress="hidden", **PRIVATE)
    table.select(choose, [model], [note, variable, traversal], show_progress="hidden", **PRIVATE)
    return Opening(fill=fill, inputs=[measure], outputs=[note, headline, advice, table, drawing, words, variable, traversal])
