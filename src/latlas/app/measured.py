"""What rooms ask of a chart, measured by the library once and kept: codes, the order of variables, the health sheet."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from latlas.app.charts import Atlas, Chart
from latlas.base.errors import CapabilityError
from latlas.base.progress import Progress, silent
from latlas.data.images import ImageSet
from latlas.encodings.encode import encode
from latlas.encodings.encoding import Encoding
from latlas.measurements.gain import reconstruction_gain
from latlas.models.protocols import Decoder
from latlas.numerics.posteriors import mean_by_channel
from latlas.studies.diagnose import Diagnosis, diagnose

_MOST = 500  # images that variables are measured on, unless there are more variables
_FEWEST = 32  # of these, images that gains are measured on, each of which costs a decode a variable
_VALUES = 12_000_000  # pixels decoded for gains, about: some seconds of one core
_REACH = 3.0  # deviations that a slider runs to either side


@dataclass(frozen=True, kw_only=True, eq=False)
class Variables:
    """The variables of a latent space (of a spatial one, its channels), and how far codes reach in each."""

    order: tuple[int, ...]  # by gain, largest first
    gain: tuple[float, ...]  # of each variable, squared error per pixel; by number, not by order
    collapsed: frozenset[int]
    low: tuple[float, ...]  # by number
    high: tuple[float, ...]
    count: int  # images that gains were measured on

    @property
    def active(self) -> tuple[int, ...]:
        """The variables that are not collapsed, in order."""
        return tuple(variable for variable in self.order if variable not in self.collapsed)


def codes_of(atlas: Atlas, chart: Chart, progress: Progress = silent) -> Encoding:
    """Return the codes of the chart's images."""
    if chart.known_codes is not None:
        return chart.known_codes
    return atlas.kept.get(("codes", chart.label), lambda: encode(chart.model, chart.images, progress=progress))


def health(atlas: Atlas, chart: Chart, progress: Progress = silent) -> Diagnosis:
    """Return the diagnosis of the chart's model on some of its images.

    Raises:
        CapabilityError: the model does not encode.
    """
    if not chart.encodes:
        raise CapabilityError(
            f"{chart.label} has no encoder, so there are no posteriors to examine. Train a recoder for it: latlas train recoder."
        )
    return atlas.kept.get(("health", chart.label), lambda: _diagnosed(chart, progress))


def variables_of(atlas: Atlas, chart: Chart, progress: Progress = silent) -> Variables:
    """Return the variables of the chart's model, ordered by reconstruction gain."""
    return atlas.kept.get(("variables", chart.label), lambda: _variables(atlas, chart, progress))


def measured_images(chart: Chart) -> ImageSet:
    """Return the first images of a chart, as many as its variables are measured on: no fewer than variables, where there are."""
    return chart.images.slice(0, max(_MOST, chart.model.latent_shape[0]))


def weighed_images(chart: Chart) -> ImageSet:
    """Return the first of these, as many as gains are measured on in some seconds."""
    work = chart.model.latent_shape[0] * math.prod(chart.model.image_shape)
    return measured_images(chart).slice(0, max(_FEWEST, _VALUES // work))


def _diagnosed(chart: Chart, progress: Progress) -> Diagnosis:
    return diagnose(chart.model, measured_images(chart), gain_images=len(weighed_images(chart)), progress=progress)


def _variables(atlas: Atlas, chart: Chart, progress: Progress) -> Variables:
    encoding = codes_of(atlas, chart, progress)
    if chart.encodes:
        sheet = health(atlas, chart, progress)
        gain, count = sheet.gain, sheet.gain_count
        collapsed = frozenset((~sheet.latents.active).nonzero().flatten().tolist())
    else:
        images = weighed_images(chart)
        count = len(images)
        decoder: Decoder = chart.model  # type: ignore[assignment]  # a chart's model decodes
        gain = reconstruction_gain(decoder, encoding.mean[:count], images, progress=progress)
        collapsed = frozenset()
    low, high = _reach(encoding)
    return Variables(
        order=tuple(gain.order()),
        gain=tuple(gain.mean.tolist()),
        collapsed=collapsed,
        low=tuple(low.tolist()),
        high=tuple(high.tolist()),
        count=count,
    )


def _reach(encoding: Encoding) -> tuple[Tensor, Tensor]:
    moments = encoding.moments()
    middle = mean_by_channel(moments.means.mean)
    # Of draws from the posteriors: a collapsed variable reaches as far as the prior, and not nowhere.
    variance = mean_by_channel(moments.variance_of_means + moments.posterior_variance)
    deviation = torch.where(variance > 0, variance.sqrt(), 1.0)
    return middle - _REACH * deviation, middle + _REACH * deviation
