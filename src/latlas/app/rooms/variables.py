"""Room 1: one code, its most informative variables under the visitor's hand."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from latlas.app.charts import Atlas, Chart
from latlas.app.markup import as_cpu, downloads, figure, figures
from latlas.app.measured import Variables, codes_of, variables_of
from latlas.base.errors import CapabilityError, SettingError
from latlas.base.progress import Progress, silent
from latlas.base.seeds import generator
from latlas.measurements.reconstruction import decode_batches
from latlas.models.protocols import Decoder, require_generator
from latlas.reports.wording import images_in_words

STARTS = ("a data image", "a random code", "the mean code")

# Sliders on the page. More would be more than anybody moves, and 512 of them no browser lays out at once.
LEADING, FURTHER, COLLAPSED = 12, 24, 12


@dataclass(frozen=True, kw_only=True, eq=False)
class Start:
    """Where a visitor's code comes from."""

    model: str  # label of the chart whose latent space it lies in
    code: Float[Tensor, "*latent"]
    words: str
    original: Float[Tensor, "c h w"] | None = None  # the data image, where it comes from one


@dataclass(frozen=True, kw_only=True)
class Slider:
    """One variable under the hand."""

    variable: int
    label: str
    low: float
    high: float
    value: float

    @property
    def step(self) -> float:
        """The least move: a power of ten, or the value that the slider starts from would be moved to the next step."""
        return 0.001 if self.high - self.low <= 100 else 1.0


def start(atlas: Atlas, chart: Chart, kind: str, number: int, progress: Progress = silent) -> Start:
    """Return a code to start from.

    Args:
        atlas: that keeps codes.
        chart: the model and its images.
        kind: one of `STARTS`.
        number: of the image, counted from 0 and over the end from the start again; or the seed of the random code.
        progress: told while images are encoded.

    Raises:
        SettingError: another kind, or a negative number.
        CapabilityError: a random code of a model that draws none.
    """
    if kind not in STARTS:
        raise SettingError(f"A code starts from {', '.join(STARTS)}; got {kind!r}.")
    if number < 0:
        raise SettingError(f"Images and seeds are numbered from 0, got {number}.")
    if kind == STARTS[1]:
        if not chart.draws:
            raise CapabilityError(f"{chart.label} states no distribution to draw codes from. Start from an image or the mean.")
        drawing = require_generator(chart.model, "A random code")
        code = drawing.sample_codes(1, generator(number, "explorer code"))[0].float().cpu()
        return Start(model=chart.label, code=code, words=f"random code, seed {number}")
    encoding = codes_of(atlas, chart, progress)
    if kind == STARTS[2]:
        return Start(
            model=chart.label, code=encoding.mean.double().mean(dim=0).float(), words=f"mean of {len(encoding):,} codes"
        )
    place = number % len(chart.images)
    original = chart.images.slice(place, place + 1).tensor()[0]
    return Start(model=chart.label, code=encoding.mean[place].clone(), words=f"image {place}", original=original)


def sliders(atlas: Atlas, chart: Chart, code: Tensor, progress: Progress = silent) -> tuple[list[Slider], list[Slider], int]:
    """Return the sliders of active variables by gain, those of some collapsed ones, and how many of these there are."""
    found = variables_of(atlas, chart, progress)
    gone = [variable for variable in found.order if variable in found.collapsed]
    active = [_slider(found, variable, code) for variable in found.active[: LEADING + FURTHER]]
    return active, [_slider(found, variable, code) for variable in gone[:COLLAPSED]], len(gone)


def moved(code: Tensor, shown: Sequence[Slider], values: Sequence[float]) -> Tensor:
    """Return a code whose variables stand where their sliders do; a channel of a spatial code moves as one.

    A slider that nobody touched leaves its variable as it is, to the last digit.

    Args:
        code: where the sliders started.
        shown: the sliders, at their start.
        values: where each stands now.
    """
    changed = code.clone()
    for slider, value in zip(shown, values, strict=True):
        if abs(value - slider.value) > 1e-6 * (slider.high - slider.low):
            changed[slider.variable] += value - slider.value
    return changed


def image_of(chart: Chart, code: Tensor) -> Float[Tensor, "c h w"]:
    """Return the image of one code."""
    decoder: Decoder = chart.model  # type: ignore[assignment]  # a chart's model decodes
    return as_cpu(torch.cat(list(decode_batches(decoder, code[None]))))[0]


def pictures(chart: Chart, begun: Start, code: Tensor) -> str:
    """Return what the start looks like beside what the code draws now."""
    first = [] if begun.original is None else [figure(begun.original, f"Original: {begun.words}", "original")]
    before = "reconstruction" if begun.original is not None else begun.words
    return figures(
        [
            figure(image_of(chart, code), "What the model draws from the code as the sliders stand", "now"),
            figure(image_of(chart, begun.code), f"What the model drew before any slider moved: {before}", before),
            *first,
        ]
    )


def written(code: Tensor) -> str:
    """Return a code as text that Python and JSON read."""
    return json.dumps([round(value, 6) for value in code.flatten().tolist()])


def saved(chart: Chart, begun: Start, code: Tensor) -> str:
    """Return links that save the code."""
    facts: dict[str, object] = {"model": chart.label, "fingerprint": chart.model.fingerprint, "start": begun.words}
    return downloads(code, {**facts, "shape": list(code.shape)})


def explained(atlas: Atlas, chart: Chart) -> str:
    """Return a sentence on the variables of a model."""
    found = variables_of(atlas, chart)
    total, alive = len(found.order), len(found.active)
    what = "channels" if len(chart.model.latent_shape) > 1 else "variables"
    hidden = max(0, alive - LEADING - FURTHER)
    return (
        f"{chart.label} has {total} {what}; {alive} are active. They are ordered by reconstruction gain: by how much the squared error "
        f"per pixel grows, over {found.count} images, when one is set to 0. The data are {images_in_words(chart.images.name)}."
        + (f" The {hidden} with the least gain have no slider here." if hidden else "")
        + (f" {chart.remark}" if chart.remark else "")
    )


def _slider(found: Variables, variable: int, code: Tensor) -> Slider:
    # To as many digits as a visitor reads: `moved` starts from these very numbers, and so loses nothing.
    value = round(float(code[variable].double().mean()), 3)
    return Slider(
        variable=variable,
        label=f"variable {variable} · gain {found.gain[variable]:.2g}",
        low=min(round(found.low[variable], 2), value),
        high=max(round(found.high[variable], 2), value),
        value=value,
    )
