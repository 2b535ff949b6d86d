"""Models that take no time, for rooms whose arithmetic can be followed by hand."""

import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from latlas.app.charts import Atlas, Chart
from latlas.data.images import ImageSet
from latlas.models.protocols import Posterior

SET_BY_SERVE = (
    "GRADIO_ANALYTICS_ENABLED",
    "GRADIO_ANALYTICS_MAX_EVENTS",
    "GRADIO_ANALYTICS_CACHE_FREQUENCY",
    "GRADIO_TEMP_DIR",
)
SIDE = 8
PIXELS = SIDE * SIDE


class Painter(torch.nn.Module):
    """Each variable is one pixel about grey: image = 0.5 + code / 10 at the first pixels; two more variables draw nothing."""

    def __init__(self, *, seen: int = 4, ignored: int = 2, draws: bool = True, turned: int = 0) -> None:
        super().__init__()
        self.seen, self.ignored, self.turned = seen, ignored, turned
        self.name = f"painter of {seen}"
        self.image_shape = (1, SIDE, SIDE)
        self.latent_shape = (seen + ignored,)
        self.lacks = () if draws else ("sample_codes",)
        self.weight = torch.nn.Parameter(torch.ones(1))

    @property
    def fingerprint(self) -> str:
        return f"painter {self.seen} {self.ignored} {self.turned}"

    def decode(self, codes: Tensor) -> Tensor:
        images = torch.full((len(codes), PIXELS), 0.5)
        # Decreasing weights, so that the order of the variables by gain is known: the first draws most.
        scales = self.weight * torch.linspace(0.12, 0.06, self.seen)
        images[:, : self.seen] = 0.5 + codes[:, : self.seen].roll(self.turned, dims=1) * scales
        return images.clamp(0, 1).view(-1, 1, SIDE, SIDE)

    def encode(self, images: Tensor) -> Posterior:
        scales = torch.linspace(0.12, 0.06, self.seen)
        codes = ((images.flatten(1)[:, : self.seen] - 0.5) / scales).roll(-self.turned, dims=1)
        mean = torch.cat([codes, torch.zeros(len(images), self.ignored)], dim=1)
        log_variance = torch.cat([torch.full_like(codes, -6.0), torch.zeros(len(images), self.ignored)], dim=1)
        return Posterior(mean=mean, log_variance=log_variance)

    def sample_codes(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.randn(n, *self.latent_shape, generator=generator)


def painted(count: int = 120) -> ImageSet:
    codes = torch.randn(count, 6, generator=torch.Generator().manual_seed(5))
    return ImageSet(name="painted", storage=Painter().decode(codes).detach())


def chart(label: str = "painter", **settings: Any) -> Chart:
    return Chart(label=label, model=Painter(**settings), images=painted())


def paintings() -> Atlas:
    return Atlas(charts={"painter": chart(), "turned": chart("turned", turned=1), "mute": chart("mute", draws=False)})


@pytest.fixture
def atlas() -> Atlas:
    return paintings()


@pytest.fixture(scope="module")
def served() -> Iterator[Any]:
    """The page, with what was set in the environment for it unset again at the end."""
    pytest.importorskip("gradio", reason="the explorer needs gradio")
    from latlas.app.serving import serve

    with pytest.MonkeyPatch.context() as patch:
        for name in SET_BY_SERVE:
            patch.setenv(name, os.environ.get(name, "1"))
        page = serve(paintings(), port=0)
        yield page
        page.close()


@pytest.fixture
def painter() -> SimpleNamespace:
    return SimpleNamespace(Painter=Painter, chart=chart, painted=painted)
