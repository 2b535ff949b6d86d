"""Pictures, notes and downloads as HTML: every picture with words, every text escaped, nothing fetched from anywhere."""

import base64
import html
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from latlas.data.images import to_pixels
from latlas.reports.pictures import heat

_SHARP = 256  # pixels up to which an image is enlarged without smoothing
_NARROW = 6  # images that stand side by side on a telephone; more are broken into two lines


@dataclass(frozen=True, kw_only=True, eq=False)
class Row:
    """Images side by side under one name."""

    title: str
    images: Float[Tensor, "n c h w"]
    words: Sequence[str]  # what each image is, for those who cannot see it
    captions: Sequence[str] = ()  # shown below each; none: nothing is
    remark: str = ""
    colour: str | None = None  # of the palette, where the idea has one


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A number with its name, what it says in plain words, and the colour of its idea."""

    name: str
    value: float
    meaning: str
    colour: str


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a chart."""

    name: str
    value: float
    colour: str
    words: str  # shown to whoever points at it


def png(image: Float[Tensor, "c h w"]) -> bytes:
    """Return an image in [0, 1] as PNG."""
    pixels = to_pixels(image[None])[0]
    array = pixels[0].numpy() if pixels.shape[0] == 1 else pixels.permute(1, 2, 0).contiguous().numpy()
    return _saved(array)


def heat_png(errors: Float[Tensor, "1 h w"], white: float) -> bytes:
    """Return an error map as PNG, in the colours that reports have: black where there is no error, white at `white`."""
    return png(heat(errors[None], white)[0])


def heat_scale(white: float) -> str:
    """Return the scale of error maps, with what its two ends are."""
    return (
        '<p class="la-legend"><span>Squared error of each pixel</span>'
        f'<span>0 <i class="la-heat"></i> {white:.2g} and more</span></p>'
    )


def picture(content: bytes, words: str, *, sharp: bool = True) -> str:
    """Return a picture with its words."""
    address = "data:image/png;base64," + base64.b64encode(content).decode()
    return f'<img class="la-image{" la-sharp" if sharp else ""}" src="{address}" alt="{html.escape(words, quote=True)}">'


def figure(image: Float[Tensor, "c h w"], words: str, caption: str) -> str:
    """Return one picture with a caption."""
    shown = picture(png(image), words, sharp=image.shape[-1] <= _SHARP)
    return f'<figure class="la-figure">{shown}<figcaption>{html.escape(caption)}</figcaption></figure>'


def figures(parts: Sequence[str]) -> str:
    """Return figures side by side."""
    return f'<div class="la-figures">{"".join(parts)}</div>'


def rows(parts: Sequence[Row], *, columns: int | None = None) -> str:
    """Return rows of images one below the other, the first image of each below the first of the others."""
    return "".join(_row(part, len(part.images) if columns is None else columns) for part in parts)


def note(text: str, level: str = "note") -> str:
    """Return a message that is read out when it appears; nothing for an empty one."""
    if not text:
        return ""
    return f'<p class="la-note la-{level}" role="{"alert" if level == "warning" else "status"}">{html.escape(text)}</p>'


def numbers(items: Sequence[tuple[str, str, str]]) -> str:
    """Return a few numbers large: (value, label, remark)."""
    cells = (
        f'<div class="la-number"><strong>{html.escape(value)}</strong><span>{html.escape(label)}</span>'
        f"<small>{html.escape(remark)}</small></div>"
        for value, label, remark in items
    )
    return f'<div class="la-numbers">{"".join(cells)}</div>'


def measures(parts: Sequence[Measure], *, columns: tuple[str, str], caption: str) -> str:
    """Return a table of numbers, each with a bar as long as it is large and a sentence that says what it is."""
    most = max((part.value for part in parts if math.isfinite(part.value)), default=0.0)
    head = "".join(f'<th scope="col">{html.escape(column)}</th>' for column in columns)
    lines = (
        f'<tr><th scope="row"><span class="la-key" style="--la-colour:{part.colour}">{html.escape(part.name)}</span>'
        f"<small>{html.escape(part.meaning)}</small></th>"
        f'<td><span class="la-bar" style="--la-colour:{part.colour};--la-share:{_share(part.value, most):.4f}"></span>'
        f"{part.value:.4f}</td></tr>"
        for part in parts
    )
    caption = f"<caption>{html.escape(caption)}</caption>"
    return f'<table class="la-table la-measures">{caption}<thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table>'


def chart(
    parts: Sequence[Column], *, axis: str, unit: str, words: str, legend: Sequence[tuple[str, str]], mark: float | None = None
) -> str:
    """Return a chart of columns, which is moved sideways where there are more than fit; no number below 0 is drawn.

    Args:
        parts: from left to right.
        axis: what the columns are.
        unit: what their height is, with its unit.
        words: the chart in words, for those who cannot see it.
        legend: (colour, name) of each sort of column.
        mark: a height to draw a line at; None: no line.
    """
    top = _round_up(
        max([part.value for part in parts if math.isfinite(part.value)] + ([] if mark is None else [mark]), default=0.0)
    )
    drawn = "".join(
        f'<li title="{html.escape(part.words, quote=True)}"><i style="--la-share:{_share(part.value, top):.4f};'
        f'--la-colour:{part.colour}"></i><span>{html.escape(part.name)}</span></li>'
        for part in parts
    )
    line = "" if mark is None else f'<hr style="--la-share:{_share(mark, top):.4f}">'
    keys = "".join(f'<span class="la-key" style="--la-colour:{colour}">{html.escape(name)}</span>' for colour, name in legend)
    return (
        f'<figure class="la-chart" role="group" aria-label="{html.escape(words, quote=True)}">'
        f"<figcaption>{html.escape(unit)}</figcaption>"
        f'<div class="la-plot"><ol class="la-ticks">{"".join(f"<li>{tick:.3g}</li>" for tick in (top, top / 2, 0))}</ol>'
        f'<div class="la-scroll" tabindex="0">{line}<ol class="la-columns">{drawn}</ol></div></div>'
        f'<p class="la-legend">{keys}<span>{html.escape(axis)}</span></p></figure>'
    )


def downloads(code: Tensor, facts: dict[str, object]) -> str:
    """Return links that save a code as .npy and as .json; both lie in the page itself, and no file on this machine."""
    stream = io.BytesIO()
    np.save(stream, code.numpy(), allow_pickle=False)
    record = json.dumps({**facts, "code": code.tolist()}, indent=1, allow_nan=False).encode()
    parts = (("code.npy", "application/octet-stream", stream.getvalue()), ("code.json", "application/json", record))
    links = (
        f'<a class="la-download" download="{name}" href="data:{kind};base64,{base64.b64encode(content).decode()}">Download {name}</a>'
        for name, kind, content in parts
    )
    return f'<p class="la-downloads">{" ".join(links)}</p>'


def _row(part: Row, columns: int) -> str:
    cells = []
    for place, (image, words) in enumerate(zip(part.images, part.words, strict=True)):
        below = f"<figcaption>{html.escape(part.captions[place])}</figcaption>" if part.captions else ""
        sharp = image.shape[-1] <= _SHARP
        cells.append(f'<figure class="la-cell">{picture(png(image), words, sharp=sharp)}{below}</figure>')
    remark = f'<p class="la-remark">{html.escape(part.remark)}</p>' if part.remark else ""
    narrow = columns if columns <= _NARROW else -(-columns // 2)
    key, end = ("", "") if part.colour is None else (f'<span class="la-key" style="--la-colour:{part.colour}">', "</span>")
    return (
        f'<section class="la-row"><h2>{key}{html.escape(part.title)}{end}</h2>{remark}'
        f'<div class="la-cells" style="--la-columns:{columns};--la-narrow:{narrow}">{"".join(cells)}</div></section>'
    )


def _saved(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, format="PNG", compress_level=3)
    return stream.getvalue()


def as_cpu(images: Tensor) -> Tensor:
    """Return images as they are shown: on the CPU, in float32, without a gradient; what is no number as 0."""
    return torch.nan_to_num(images.detach().float().cpu(), nan=0.0).clamp(0.0, 1.0)


def _share(value: float, whole: float) -> float:
    return min(max(value / whole, 0.0), 1.0) if whole > 0 and math.isfinite(value) else 0.0


def _round_up(value: float) -> float:
    """Return the next number above that is easily halved: 1, 2, 4, 5, 6 or 8 times a power of ten; 1 for 0 and below.

    >>> _round_up(0.0265), _round_up(7.0), _round_up(0.0)
    (0.03, 8.0, 1.0)
    """
    if value <= 0:
        return 1.0
    power = math.floor(math.log10(value))
    digit = next(digit for digit in (1, 2, 3, 4, 5, 6, 8, 10, 20) if digit >= value / 10.0**power * (1 - 1e-9))
    return float(f"{digit}e{power}")
