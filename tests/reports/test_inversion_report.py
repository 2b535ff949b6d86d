"""The page of an inversion names its images in words, and tells what black and white are in its maps."""

import torch
from torch import Tensor

from latlas.base.provenance import Provenance
from latlas.data.images import ImageSet
from latlas.inversion.descent import Budget
from latlas.inversion.invert import invert
from latlas.models.adapters.callables import CallableModel
from latlas.reports.inversions import inversion_report
from latlas.reports.page import Picture

SHAPE = (3, 4, 6)


def uniform(n: int, generator: torch.Generator) -> Tensor:
    return torch.rand(n, 2, generator=generator)


def draw(codes: Tensor) -> Tensor:
    return codes.clamp(0, 1).mean(dim=1).view(-1, 1, 1, 1).expand(-1, *SHAPE)


def test_the_page_names_the_images_and_the_ends_of_its_scale() -> None:
    model = CallableModel(
        name="grey", image_shape=SHAPE, latent_shape=(2,), decode_with=draw, sample_with=uniform, fingerprint="grey"
    )
    images = ImageSet("strangers", torch.rand(20, *SHAPE, generator=torch.Generator().manual_seed(4))).slice(3, 8)
    inversion = invert(model, images, budget=Budget(steps=2))
    report = inversion_report(inversion, images, model, provenance=Provenance(made_by="test"))
    assert report.title == "Codes of grey for images 3 to 7 of strangers"
    captions = [block.caption for block in report.sections[0].blocks if isinstance(block, Picture)]
    assert len(captions) == 2
    assert all("black is none, white 0." in caption for caption in captions)
