"""The page: six rooms under one choice of a model; a room is filled when it is entered."""

from importlib import resources
from types import ModuleType
from typing import Any

from latlas.app.charts import Atlas
from latlas.app.wiring import health, ranges, relocation, sampling, sectors, variables
from latlas.app.wiring.common import PRIVATE, Opening
from latlas.base.errors import MissingExtraError
from latlas.reports import palette

ROOMS: tuple[tuple[str, str, ModuleType], ...] = (
    ("variables", "Variables", variables),
    ("map", "Map", relocation),
    ("sectors", "Sectors", sectors),
    ("range", "Range", ranges),
    ("sampling", "Sampling", sampling),
    ("health", "Health", health),
)
TITLE = "latlas explorer"
FORGOTTEN = (600, 3600)  # seconds: every ten minutes, files of an hour ago are deleted


def build_page(atlas: Atlas) -> Any:
    """Return the page as gradio Blocks, to be served by `latlas.app.serving.serve`.

    Args:
        atlas: what there is to look at.

    Raises:
        MissingExtraError: gradio is not installed.
    """
    try:
        import gradio as gr
    except ModuleNotFoundError as failure:
        raise MissingExtraError("The explorer needs gradio: pip install 'latlas[explore]'") from failure

    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=FORGOTTEN, fill_width=True) as page:
        with gr.Row(equal_height=True, elem_classes="la-header"):
            gr.HTML("<h1>latlas <span>explorer</span></h1>")
            labels = list(atlas.charts)
            model = gr.Dropdown(labels, value=labels[0], label="Model", elem_id="model", min_width=240, filterable=False)
        entered = gr.State(ROOMS[0][0])
        openings: dict[str, Opening] = {}
        tabs = {}
        with gr.Tabs(elem_classes="la-tabs", overflow_behavior="wrap"):
            for name, title, room in ROOMS:
                with gr.Tab(title, id=name, elem_id=f"room-{name}", render_children=True) as tab:
                    openings[name] = room.build(atlas, model)
                tabs[name] = tab
        for name, opening in openings.items():
            filled = gr.State(None)  # the model that the room shows now
            enter = _entering(gr, opening, name)
            inputs, outputs = [model, entered, filled, *opening.inputs], [filled, *opening.outputs]
            # The first tab is selected as the page loads: its room needs no other event to be filled.
            tabs[name].select(_constant(name), None, entered, show_progress="hidden", **PRIVATE)
            tabs[name].select(
                _always(gr, enter, name), [model, filled, *opening.inputs], outputs, show_progress="minimal", **PRIVATE
            )
            model.input(enter, inputs, outputs, show_progress="minimal", **PRIVATE)
    return page


def theme() -> Any:
    """Return the page's looks: the reports' colours, and the system's own fonts, so that none is fetched."""
    import gradio as gr

    blue = {
        50: "#eef6fb",
        100: "#d6e9f5",
        200: "#aed4ec",
        300: "#7fbce0",
        400: palette.SOURCE,
        500: "#1f88c4",
        600: palette.ACTIVE,
    }
    blue |= {700: "#005f95", 800: "#004c77", 900: "#003a5b", 950: "#002740"}
    accent = gr.themes.Color(name="latlas", **{f"c{shade}": colour for shade, colour in blue.items()})
    sans = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica", "Arial", "sans-serif"]
    return gr.themes.Base(
        primary_hue=accent,
        secondary_hue=accent,
        neutral_hue="slate",
        radius_size="sm",
        font=sans,
        font_mono=["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"],
    ).set(
        body_background_fill="#fbfcfd",
        body_background_fill_dark="#12161c",
        block_background_fill="*background_fill_primary",
        block_background_fill_dark="*background_fill_primary",
        background_fill_primary_dark="#171c23",
        block_border_width="1px",
        block_shadow="none",
        # Gradio's own is too pale to read on either ground.
        body_text_color_subdued="#525d6b",
        body_text_color_subdued_dark="#a9b3c1",
        button_large_text_weight="500",
        button_medium_text_weight="500",
        slider_color="*primary_600",
        slider_color_dark="*primary_400",
    )


def style() -> str:
    """Return the page's own style sheet."""
    sheet = resources.files("latlas.app").joinpath("explorer.css").read_text(encoding="utf-8")
    colours = {
        "accent": palette.ACTIVE,
        "accent-dark": palette.SOURCE,
        "own": palette.OWN,
        "foreign": palette.FOREIGN,
        "note": palette.KL,
    }
    return ":root{" + "".join(f"--la-{name}:{value};" for name, value in colours.items()) + "}\n" + sheet


def _entering(gr: Any, opening: Opening, name: str) -> Any:
    """Return what fills a room, unless another one is open or it shows this model already."""
    waiting = gr.Progress()

    def enter(label: str, progress: Any = waiting, entered: str = "", filled: str | None = None, *rest: Any) -> list[Any]:
        if entered != name or filled == label:
            return [gr.skip()] * (1 + len(opening.outputs))
        found = list(opening.fill(label, progress, *rest))
        # A room that could not be filled says why, and is tried again when it is next entered.
        return [None if found[0] else label, *found]

    return enter


def _always(gr: Any, enter: Any, name: str) -> Any:
    waiting = gr.Progress()

    def select(label: str, progress: Any = waiting, filled: str | None = None, *rest: Any) -> list[Any]:
        found: list[Any] = enter(label, progress, name, filled, *rest)
        return found

    return select


def _constant(value: str) -> Any:
    return lambda: value
