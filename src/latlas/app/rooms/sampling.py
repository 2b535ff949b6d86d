"""Room 5: the same seed through every sampler."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from latlas.app.charts import Atlas, Chart
from latlas.app.markup import Row, as_cpu, rows
from latlas.app.measured import codes_of
from latlas.base.errors import IllPosedError, LatlasError, SettingError
from latlas.base.progress import Progress, silent
from latlas.base.seeds import generator
from latlas.measurements.reconstruction import decode_batches
from latlas.models.protocols import Decoder, require_generator
from latlas.samplers.fit import SAMPLER_KINDS, fit_sampler
from latlas.samplers.sampler import Sampler

SHOWN = 8  # images of each sampler
MOST_SEEDS = 2**31
OWN = "the model's own"
WORDS = {
    OWN: "Codes as the model itself draws them",
    "prior": "Independent standard normal variables",
    "moments": "Normal variables, each with its own mean and variance",
    "gaussian": "One Gaussian with the means and the full covariance of the codes",
    "mixture": "Ten Gaussians",
    "second-stage": "A small VAE trained on the codes",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawn:
    """What one sampler draws."""

    name: str
    images: Float[Tensor, "n c h w"] | None  # None where it could not be fitted
    remark: str


def samplers(atlas: Atlas, chart: Chart, progress: Progress = silent) -> dict[str, Sampler | str]:
    """Return every kind of sampler fitted to the codes of the chart's images; of one that cannot be, why."""

    def fit(kind: str) -> Sampler | str:
        try:
            return fit_sampler(kind, codes_of(atlas, chart, progress), progress=progress)
        except LatlasError as failure:
            return str(failure)

    found: dict[str, Sampler | str] = {}
    for done, kind in enumerate(SAMPLER_KINDS):
        progress("fitting samplers", done, len(SAMPLER_KINDS), kind)
        found[kind] = atlas.kept.get(("sampler", chart.label, kind), lambda kind=kind: fit(kind))  # type: ignore[misc]
    return found


def draws(atlas: Atlas, chart: Chart, seed: int, progress: Progress = silent) -> list[Drawn]:
    """Return a few images of every sampler, all from one seed.

    A generator whose codes follow another distribution than the prior's draws its own beside.

    Raises:
        SettingError: a seed out of range.
        IllPosedError: not a single sampler could be fitted.
    """
    if not 0 <= seed < MOST_SEEDS:
        raise SettingError(f"A seed is a whole number from 0 to {MOST_SEEDS - 1}, got {seed}.")
    fitted = samplers(atlas, chart, progress)
    if all(isinstance(sampler, str) for sampler in fitted.values()):
        raise IllPosedError(str(next(iter(fitted.values()))))
    encoding = codes_of(atlas, chart)
    found = []
    if chart.draws and encoding.log_variance is None:  # a VAE's own distribution is the prior
        drawing = require_generator(chart.model, "Sampling")
        codes = drawing.sample_codes(SHOWN, generator(seed, "explorer samples")).float().cpu()
        found.append(Drawn(name=OWN, images=_decoded(chart, codes), remark=f"{WORDS[OWN]}."))
    for kind, sampler in fitted.items():
        if isinstance(sampler, str):
            found.append(Drawn(name=kind, images=None, remark=sampler))
            continue
        codes = sampler.sample(SHOWN, generator(seed, "explorer samples"))
        held = (
            "" if kind == "prior" else f"; its codes have {100 * sampler.variance_ratio:.0f} % of the variance of those fitted"
        )
        remark = " ".join([f"{WORDS[kind]}{held}.", *sampler.warnings])
        found.append(Drawn(name=kind, images=_decoded(chart, codes), remark=remark))
    return found


def pictures(drawn: list[Drawn], seed: int) -> str:
    """Return one row a sampler."""
    empty = torch.zeros(0, 1, 1, 1)
    return rows(
        [
            Row(
                title=each.name,
                images=empty if each.images is None else each.images,
                words=[] if each.images is None else [f"{each.name}, seed {seed}, sample {i}" for i in range(len(each.images))],
                remark=each.remark,
            )
            for each in drawn
        ],
        columns=SHOWN,
    )


def _decoded(chart: Chart, codes: Tensor) -> Tensor:
    decoder: Decoder = chart.model  # type: ignore[assignment]  # a chart's model decodes
    return as_cpu(torch.cat(list(decode_batches(decoder, codes))))
