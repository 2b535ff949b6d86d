"""What the leading variables draw: strips of images, and the same as a picture that moves."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from latlas.base.shapes import Codes
from latlas.measurements.traversals import SPAN, traverse_all
from latlas.models.protocols import Decoder
from latlas.reports import pictures
from latlas.reports.page import Block, Picture

_STEPS = 21  # values of each variable; a strip shows every other one
_STRIPS = 3  # starts that get a strip; all of them move
_FRAME = 70  # milliseconds: there and back in under three seconds
_QUALITY = 80
_LABEL = 6.2  # width of a letter of a row's label, in pixels of the drawing


@dataclass(frozen=True, kw_only=True, eq=False)
class Traversals:
    """Images along lines through codes: starts x variables x steps."""

    images: Float[Tensor, "starts variables steps c h w"]
    variables: tuple[int, ...]
    values: tuple[float, ...]  # of the running variable, one a step
    starts: tuple[str, ...]  # what the codes are of
    spatial: bool

    @property
    def enlarge(self) -> int:
        """Return the whole factor that brings small images to a size people can look at."""
        return max(1, round(64 / self.images.shape[-1]))


def run_traversals(
    decoder: Decoder,
    codes: Codes,
    variables: Sequence[int],
    *,
    starts: Sequence[str],
    steps: int = _STEPS,
    span: tuple[float, float] = SPAN,
) -> Traversals:
    """Decode the lines: each variable in turn over the span, from each code.

    Args:
        decoder: what decodes.
        codes: where to start; a few.
        variables: most informative first; channels, of a spatial latent space, at all positions together.
        starts: what each code is of, as "#12".
        steps: values of each variable.
        span: first and last value.

    Raises:
        CodeShapeError, SettingError: as `traverse_all`.
    """
    return Traversals(
        images=traverse_all(decoder, codes, variables, steps=steps, span=span),
        variables=tuple(variables),
        values=tuple(torch.linspace(*span, steps).tolist()),
        starts=tuple(starts),
        spatial=codes.ndim > 2,
    )


def strip(traversals: Traversals, start: int) -> bytes:
    """Return a PNG of the lines from one code: a row a variable, and on its right where the two ends differ.

    The differences of all rows share one scale, on which the largest is white.
    """
    lines = traversals.images[start].clamp(0.0, 1.0)
    ends = pictures.difference(lines[:, -1], lines[:, 0]).mean(dim=1, keepdim=True)
    maps = pictures.heat(ends, max(float(ends.amax()), 1e-6))
    shown = lines[:, ::2] if lines.shape[1] > 2 else lines
    rows = torch.cat([shown.expand(-1, -1, 3, -1, -1), maps[:, None]], dim=1)
    return pictures.grid(rows.flatten(0, 1), columns=rows.shape[1], enlarge=traversals.enlarge)


def animation(traversals: Traversals) -> bytes:
    """Return a WebP that runs through the values and back, for ever: a row a variable, a column a start."""
    there = [_frame(traversals, step) for step in range(len(traversals.values))]
    frames = [*there, *there[-2:0:-1]]
    stream = io.BytesIO()
    frames[0].save(
        stream,
        format="WEBP",
        save_all=True,
        append_images=frames[1:],
        duration=_FRAME,
        loop=0,
        quality=_QUALITY,
        minimize_size=False,
    )
    return stream.getvalue()


def still(traversals: Traversals) -> bytes:
    """Return the first frame of the animation as a PNG."""
    stream = io.BytesIO()
    _frame(traversals, 0).save(stream, format="PNG", optimize=True)
    return stream.getvalue()


def traversal_blocks(traversals: Traversals) -> list[Block]:
    """Return the strips, one for each start, and the picture that moves; it stands still for those who ask for less motion."""
    low, high = (f"{value:g}".replace("-", "−") for value in (traversals.values[0], traversals.values[-1]))
    what = "channel, at all its positions," if traversals.spatial else "variable"
    labels = _labels(traversals)
    blocks: list[Block] = [
        Picture(
            content=strip(traversals, start),
            caption=(
                f"From the code of {name}: each {what} in turn from {low} to {high}, most informative on top. Right: where the "
                "two ends differ, from black (nowhere) to white (most), on one scale for all rows."
            ),
            alt=f"Rows of images in which one {what.split(',')[0]} changes, from the code of {name}.",
            row_labels=labels,
        )
        for start, name in enumerate(traversals.starts[:_STRIPS])
    ]
    blocks.append(
        Picture(
            content=_moving(traversals),
            caption=(
                f"The same lines as a picture that moves, from {low} to {high} and back; a column for each starting code "
                f"({', '.join(traversals.starts)})."
            ),
            alt=f"The images of {', '.join(labels)} changing together.",
        )
    )
    return blocks


def _labels(traversals: Traversals) -> tuple[str, ...]:
    return tuple(f"{'channel' if traversals.spatial else 'variable'} {variable}" for variable in traversals.variables)


def _frame(traversals: Traversals, step: int) -> Image.Image:
    images = traversals.images[:, :, step].transpose(0, 1).flatten(0, 1)
    picture = pictures.grid(images, columns=len(traversals.starts), enlarge=traversals.enlarge)
    return Image.open(io.BytesIO(picture))


def _moving(traversals: Traversals) -> str:
    """Return a drawing that holds the still and, over it, the moving picture, which a page may hide without a script."""
    first = still(traversals)
    width, height = Image.open(io.BytesIO(first)).size
    labels = _labels(traversals)
    margin = round(_LABEL * max(map(len, labels))) + 12
    row = height / len(labels)
    words = "".join(
        f'<text x="{margin - 10}" y="{(place + 0.5) * row:.1f}" dy=".35em" text-anchor="end">{label}</text>'
        for place, label in enumerate(labels)
    )
    place = f'x="{margin}" y="0" width="{width}" height="{height}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="traversals" width="{margin + width}" height="{height}" '
        f'viewBox="0 0 {margin + width} {height}" font-size="12" fill="currentColor" font-family="sans-serif">'
        "<style>.traversals image { image-rendering: pixelated } .traversals { min-width: 0 !important } "
        "@media (prefers-reduced-motion: reduce) { .traversals .moving { display: none } }</style>"
        f'{words}<image {place} href="{_address(first, "png")}"/>'
        f'<image class="moving" {place} href="{_address(animation(traversals), "webp")}"/></svg>'
    )


def _address(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
