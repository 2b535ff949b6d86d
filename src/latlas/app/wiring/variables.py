"""Room 1 on the page: sliders that redraw as they move."""

from typing import Any

from latlas.app.charts import Atlas
from latlas.app.rooms import variables as room
from latlas.app.wiring.common import PRIVATE, Opening, intro, shown, told, whole
from latlas.base.errors import SettingError


def build(atlas: Atlas, model: Any) -> Opening:
    """Lay the room out and return what fills it.

    Args:
        atlas: what there is to look at.
        model: the page's choice of a model.
    """
    import gradio as gr

    waiting = gr.Progress()
    gr.HTML(intro("Move a slider: the picture is what the model draws from the changed code."))
    note = gr.HTML(elem_classes="la-quiet")
    begun = gr.State(None, time_to_live=3600)
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=300, elem_classes="la-sticky"):
            pictures = gr.HTML(elem_id="variables-pictures", elem_classes="la-waits")
        with gr.Column(scale=3, min_width=300):
            with gr.Row(equal_height=True):
                kind = gr.Radio(list(room.STARTS), value=room.STARTS[0], label="Start from", scale=3, min_width=260)
                number = gr.Number(0, precision=0, minimum=0, label="Image or seed", scale=1, min_width=90)
            with gr.Row():
                following = gr.Button("Next", min_width=90, size="md")
                reset = gr.Button("Reset sliders", min_width=90, size="md")
            facts = gr.HTML()
            leading = [_slider(gr, f"variable-{place}") for place in range(room.LEADING)]
            with gr.Accordion("Further variables", open=False) as more:
                further = [_slider(gr, f"further-{place}") for place in range(room.FURTHER)]
            with gr.Accordion("Collapsed variables", open=False) as gone:
                gr.HTML(intro("The decoder ignores these: move one and nothing changes."))
                collapsed = [_slider(gr, f"collapsed-{place}") for place in range(room.COLLAPSED)]
    with gr.Accordion("The code", open=False):
        code = gr.Textbox(label="Code", lines=3, max_lines=6, interactive=False, buttons=["copy"], elem_id="variables-code")
        links = gr.HTML(elem_id="variables-downloads")
    all_sliders = [*leading, *further, *collapsed]
    drawn = [pictures, code, links]
    started = [note, begun, *drawn, facts, more, gone, *all_sliders]

    def current(label: str, start: room.Start | None) -> room.Start | None:
        if start is None:
            raise SettingError("This page was left alone for long and has let go of its code. Press Next, or reload the page.")
        return start if start.model == label else None  # another model has just been chosen: its own code is on the way

    def placed(active: list[room.Slider], ignored: list[room.Slider]) -> list[Any]:
        updates = [_placed(gr, active[place] if place < len(active) else None) for place in range(len(leading) + len(further))]
        return updates + [_placed(gr, ignored[place] if place < len(ignored) else None) for place in range(len(collapsed))]

    def draw(label: str, start: room.Start, values: tuple[float, ...]) -> list[Any]:
        chart = atlas.chart(label)
        active, ignored, _ = room.sliders(atlas, chart, start.code)
        places = {
            **dict(enumerate(active)),
            **{len(leading) + len(further) + place: slider for place, slider in enumerate(ignored)},
        }
        kept = {place: slider for place, slider in places.items() if values[place] is not None}
        now = room.moved(start.code, list(kept.values()), [float(values[place]) for place in kept])
        return [room.pictures(chart, start, now), room.written(now), room.saved(chart, start, now)]

    def begin(label: str, kind: str, number: float | None, progress: Any) -> list[Any]:
        chart = atlas.chart(label)
        report = shown(progress)
        start = room.start(atlas, chart, kind, whole(number), report)
        active, ignored, count = room.sliders(atlas, chart, start.code, report)
        updates = placed(active, ignored)
        values = tuple(update["value"] for update in updates)
        folded = max(0, len(active) - len(leading))
        return [
            start,
            *draw(label, start, values),
            intro(room.explained(atlas, chart)),
            gr.update(label=f"Further variables ({folded})", visible=folded > 0),
            gr.update(label=f"Collapsed variables ({count})", visible=count > 0),
            *updates,
        ]

    @told(len(started) - 1)
    def fill(label: str, progress: Any = waiting, kind: str = room.STARTS[0], number: float | None = 0) -> list[Any]:
        return begin(label, kind, number, progress)

    @told(len(started))
    def advance(label: str, progress: Any = waiting, kind: str = room.STARTS[0], number: float | None = 0) -> list[Any]:
        following = whole(number) + 1
        return [*begin(label, kind, following, progress), following]

    @told(len(drawn) + len(all_sliders))
    def restore(label: str, start: room.Start | None) -> list[Any]:
        base = current(label, start)
        if base is None:
            return [gr.skip()] * (len(drawn) + len(all_sliders))
        active, ignored, _ = room.sliders(atlas, atlas.chart(label), base.code)
        updates = placed(active, ignored)
        return [*draw(label, base, tuple(update["value"] for update in updates)), *updates]

    @told(len(drawn))
    def move(label: str, start: room.Start | None, *values: float) -> list[Any]:
        base = current(label, start)
        return [gr.skip()] * len(drawn) if base is None else draw(label, base, values)

    def count(kind: str) -> list[Any]:
        return [gr.update(visible=kind != room.STARTS[2])] * 2  # of means there is one

    settings = [model, kind, number]
    kind.input(count, kind, [number, following], show_progress="hidden", **PRIVATE)
    gr.on([kind.input, number.submit], fill, settings, started, show_progress="minimal", **PRIVATE)
    following.click(advance, settings, [*started, number], show_progress="minimal", **PRIVATE)
    reset.click(restore, [model, begun], [note, *drawn, *all_sliders], show_progress="hidden", **PRIVATE)
    gr.on(
        [slider.input for slider in all_sliders],
        move,
        [model, begun, *all_sliders],
        [note, *drawn],
        show_progress="hidden",
        trigger_mode="always_last",
        concurrency_limit=4,
        **PRIVATE,
    )
    return Opening(fill=fill, inputs=[kind, number], outputs=started)


def _slider(gr: Any, name: str) -> Any:
    return gr.Slider(
        -3, 3, value=0, step=0.02, visible=False, elem_id=name, elem_classes="la-slider", buttons=[], min_width=220
    )


def _placed(gr: Any, slider: room.Slider | None) -> Any:
    if slider is None:
        return gr.update(visible=False, value=0)
    return gr.update(
        visible=True, label=slider.label, minimum=slider.low, maximum=slider.high, step=slider.step, value=slider.value
    )
