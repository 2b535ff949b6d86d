"""Room 3: the codes beyond a threshold, in chosen directions of the leading variables."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from latlas.app.charts import Atlas, Chart
from latlas.app.markup import Row, as_cpu, figure, figures, numbers, rows
from latlas.app.measured import codes_of, variables_of
from latlas.base.errors import CapabilityError, SettingError
from latlas.base.progress import Progress, silent
from latlas.base.seeds import generator
from latlas.measurements.reconstruction import decode_batches
from latlas.models.protocols import Decoder
from latlas.supports.sectors import Sector, beyond

CHOSEN = 6  # variables whose sign can be chosen
SIGNS = ("−", "any", "+")
_SHOWN = 12  # members


@dataclass(frozen=True, kw_only=True, eq=False)
class Inhabitants:
    """Who lies in a sector."""

    sector: Sector
    members: Tensor  # numbers of the images, ascending
    codes: int  # of all images
    expected: float  # members, were the variables independent
    mean_image: Float[Tensor, "c h w"] | None  # of the members' images; None where there are none
    mean_code_image: Float[Tensor, "c h w"] | None  # what the model draws from the mean of their codes


def leading(atlas: Atlas, chart: Chart, progress: Progress = silent) -> tuple[int, ...]:
    """Return the variables whose sign can be chosen, most informative first.

    Raises:
        CapabilityError: codes that are no vectors.
    """
    if len(chart.model.latent_shape) != 1:
        shape = "x".join(map(str, chart.model.latent_shape))
        raise CapabilityError(f"Sectors are of vector latent spaces; a code of {chart.label} is a grid, {shape}.")
    found = variables_of(atlas, chart, progress)
    return (found.active or found.order)[:CHOSEN]


def inhabitants(atlas: Atlas, chart: Chart, signs: Sequence[str], threshold: float, progress: Progress = silent) -> Inhabitants:
    """Return the images whose codes lie in a sector about the mean of all codes.

    Args:
        atlas: that keeps the codes.
        chart: the model and its images.
        signs: one of `SIGNS` for each of the leading variables.
        threshold: in standard deviations of each variable, at least 0.
        progress: told while images are encoded.

    Raises:
        SettingError: other signs, or a threshold below 0.
        CapabilityError: codes that are no vectors.
    """
    variables = leading(atlas, chart, progress)
    if len(signs) != len(variables) or any(sign not in SIGNS for sign in signs):
        raise SettingError(f"Choose {', '.join(SIGNS)} for each of {len(variables)} variables, got {', '.join(signs)}.")
    if not threshold >= 0.0:
        raise SettingError(f"A sector's threshold is at least 0, got {threshold}.")
    codes = codes_of(atlas, chart, progress).mean
    sector, expected = Sector(), float(len(codes))
    for variable, sign in zip(variables, signs, strict=True):
        if sign == "any":
            continue
        values = codes[:, variable].double()
        scale = float(values.std(correction=0)) or 1.0
        half = beyond(variable, threshold, 1 if sign == "+" else -1, centre=float(values.mean()), scale=scale)
        sector, expected = sector & half, expected * half.occupancy(codes)
    members = sector.members(codes)
    mean_image = mean_code_image = None
    if len(members):
        decoder: Decoder = chart.model  # type: ignore[assignment]  # a chart's model decodes
        mean_image = chart.images.take(members).tensor().double().mean(dim=0).float()
        middle = codes[members].double().mean(dim=0, keepdim=True).float()
        mean_code_image = as_cpu(torch.cat(list(decode_batches(decoder, middle))))[0]
    return Inhabitants(
        sector=sector,
        members=members,
        codes=len(codes),
        expected=expected,
        mean_image=mean_image,
        mean_code_image=mean_code_image,
    )


def occupancy(found: Inhabitants) -> str:
    """Return how many lie there, beside how many were to be expected."""
    held = len(found.members)
    return numbers(
        [
            (f"{held:,}", "members", f"of {found.codes:,} images"),
            (f"{100 * held / found.codes:.1f} %", "occupancy", "share of all codes"),
            (f"{found.expected:.0f}", "expected", "were the variables independent"),
        ]
    )


def pictures(found: Inhabitants, chart: Chart, seed: int = 0) -> str:
    """Return the mean image, and some members drawn at random."""
    if found.mean_image is None or found.mean_code_image is None:
        return '<p class="la-remark">No image lies in this sector. Lower the threshold, or set a variable to “any”.</p>'
    order = torch.randperm(len(found.members), generator=generator(seed, "members of a sector"))
    some = found.members[order[:_SHOWN].sort().values]
    images = chart.images.take(some).tensor()
    means = figures(
        [
            figure(found.mean_image, f"Mean of the {len(found.members)} images in the sector", "mean image"),
            figure(found.mean_code_image, "What the model draws from the mean of their codes", "mean code, decoded"),
        ]
    )
    title = "Members" if len(some) == len(found.members) else f"{len(some)} of the {len(found.members):,} members"
    return means + rows([Row(title=title, images=images, words=[f"image {int(place)}" for place in some])], columns=6)
