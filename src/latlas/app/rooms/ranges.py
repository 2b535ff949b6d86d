"""Room 4: can this model make this image? Judged beside what it makes of its own samples."""

import html
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from latlas.app.calibrations import calibration, generator_of
from latlas.app.charts import Atlas, Chart
from latlas.app.markup import as_cpu, heat_png, heat_scale, picture, png
from latlas.base.errors import ImageFormatError
from latlas.base.progress import Progress, silent
from latlas.base.seeds import generator
from latlas.data.images import ImageSet, to_pixels
from latlas.measurements.reconstruction import decode_batches
from latlas.models.protocols import Decoder
from latlas.reports.inversions import error_map
from latlas.reports.wording import percent
from latlas.studies.range_test import RangeResult, range_test

MOST = 6  # images judged at once
TRIED = 4  # data images that a visitor without pictures may try
LEVEL = 0.05
_OWN = 4  # own samples shown beside


@dataclass(frozen=True, kw_only=True, eq=False)
class Judged:
    """Images with their inversions and verdicts, and own samples with theirs."""

    model: str  # label of the chart whose verdicts these are
    result: RangeResult
    words: tuple[str, ...]
    originals: Float[Tensor, "n c h w"]
    inverted: Float[Tensor, "n c h w"]
    own: Float[Tensor, "m c h w"]
    own_inverted: Float[Tensor, "m c h w"]

    @property
    def white(self) -> float:
        """The squared error that maps draw white: one scale for all images, own samples included."""
        maps = torch.cat([error_map(self.originals, self.inverted).flatten(), error_map(self.own, self.own_inverted).flatten()])
        return max(float(maps[:: max(1, len(maps) // 2**20)].quantile(0.99)), 1e-6)

    def verdict(self, place: int) -> str:
        """Return "out of range", "in range", or "no verdict" where the budget did not bring back own samples."""
        if not self.result.verdict_given or not bool(self.result.judged[place]):
            return "no verdict"
        return "out of range" if bool(self.result.rejected[place]) else "in range"


def trials(atlas: Atlas, chart: Chart, seed: int) -> tuple[list[Tensor], list[str]]:
    """Return some data images to judge, and what to call them; none that the generator draws codes of."""
    first = 0 if chart.draws else len(generator_of(atlas, chart).encoding)  # type: ignore[attr-defined]  # an aggregate
    order = torch.randperm(len(chart.images) - first, generator=generator(seed, "images to judge"))[:TRIED] + first
    chosen = order.sort().values
    return list(chart.images.take(chosen).tensor()), [f"image {int(place)}" for place in chosen]


def judge(atlas: Atlas, chart: Chart, images: Sequence[Tensor], words: Sequence[str], progress: Progress = silent) -> Judged:
    """Return the verdict on images.

    Args:
        atlas: that keeps the calibration.
        chart: whose model is asked.
        images: of its shape, in [0, 1]; at most `MOST`.
        words: what to call each.
        progress: told while the generator's own samples are inverted, and then the images.

    Raises:
        ImageFormatError: no images, or too many.
        LatlasError: as `range_test` has it.
    """
    if not 1 <= len(images) <= MOST:
        raise ImageFormatError(f"Between 1 and {MOST} images are judged at once, got {len(images)}.")
    drawing = generator_of(atlas, chart, progress)
    base = calibration(atlas, chart, progress=progress)
    # As own samples are: rounded to 8 bits.
    given = ImageSet(name="images given", storage=to_pixels(torch.stack(list(images))), names=tuple(words))
    result = range_test(drawing, given, level=LEVEL, calibration=base, progress=progress)
    own = base.examples.slice(0, _OWN)
    return Judged(
        model=chart.label,
        result=result,
        words=tuple(words),
        originals=given.tensor(),
        inverted=_decoded(drawing, result.inversion.codes),
        own=own.tensor(),
        own_inverted=_decoded(drawing, base.example_codes[: len(own)]),
    )


def pictures(found: Judged) -> str:
    """Return each image with its inversion, error map and verdict, and whose it is; then own samples in the same form."""
    white, asked = found.white, f"{found.model}, level {percent(found.result.level)}"
    cards = []
    for place, word in enumerate(found.words):
        p_value, error = float(found.result.p_values[place]), float(found.result.errors[place])
        lines = (f"p = {p_value:.2f}, error {error:.2g}", asked)
        cards.append(_card(word, found.originals[place], found.inverted[place], white, lines, found.verdict(place)))
    own = [
        _card(
            f"own sample {place + 1}",
            found.own[place],
            found.own_inverted[place],
            white,
            (f"error {float(found.result.calibration.errors[place]):.2g}", found.model),
        )
        for place in range(len(found.own))
    ]
    return (
        f'<div class="la-cards">{"".join(cards)}</div>'
        f"<h2>For comparison, images that {html.escape(found.model)} can make for certain: its own samples</h2>"
        f'<div class="la-cards">{"".join(own)}</div>{heat_scale(white)}'
        '<p class="la-remark">The error of an image is the mean of these; images have values from 0 to 1.</p>'
    )


def explained(found: Judged) -> str:
    """Return what the verdict rests on."""
    base = found.result.calibration
    count = len(base.errors)
    text = (
        f"Each image was inverted with a small budget, {base.budget.steps} steps from each start, and its error ranked among those of "
        f"{count} of the model's own samples, inverted in the same way. p is the share of own samples, this image counted in, that do "
        f"no better; it cannot be below {1 / (count + 1):.2g}. At p up to {LEVEL:g} an image is called out of range: of images in range "
        f"{percent(LEVEL)} are, too. {100 * base.recovered:.0f} % of the own samples were brought back, and of "
        f"{100 * base.agreeing:.0f} % two starts agreed."
    )
    if not found.result.verdict_given:
        text += (
            " That is too few for a verdict: with this budget a large error says nothing of the range. Ask with a larger one: "
            "latlas range --budget thorough."
        )
    return text


def _card(word: str, original: Tensor, inverted: Tensor, white: float, lines: Sequence[str], verdict: str | None = None) -> str:
    sharp = original.shape[-1] <= 256
    error = error_map(original[None], inverted[None])[0]
    parts = (
        (picture(png(original), f"{word}, the image", sharp=sharp), "image"),
        (picture(png(inverted), f"{word}, the nearest image that the model was found to make", sharp=sharp), "inversion"),
        (picture(heat_png(error, white), f"{word}, where the two differ", sharp=sharp), "error"),
    )
    cells = "".join(f'<figure class="la-cell">{shown}<figcaption>{name}</figcaption></figure>' for shown, name in parts)
    badge = "" if verdict is None else f'<strong class="la-verdict la-{verdict.replace(" ", "-")}">{verdict}</strong> '
    told = "".join(f"<p>{html.escape(line)}</p>" for line in lines)
    return (
        f'<section class="la-card"><div class="la-cells" style="--la-columns:3;--la-narrow:3">{cells}</div>'
        f"<p>{badge}<span>{html.escape(word)}</span></p>{told}</section>"
    )


def _decoded(decoder: Decoder, codes: Tensor) -> Tensor:
    return as_cpu(torch.cat(list(decode_batches(decoder, codes))))
