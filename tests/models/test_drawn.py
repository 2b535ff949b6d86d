"""What a generator draws: NaN, other shapes, other ranges and one image for all codes are each told by name."""

import pytest
import torch
from torch import Tensor

from latlas.base.errors import IllPosedError, ImageFormatError, LatlasError, NonFiniteError
from latlas.models.adapters.callables import CallableModel
from latlas.models.drawn import check_drawn, check_varied
from latlas.numerics.moments import MarginalMoments

MODEL = CallableModel(name="painter", image_shape=(1, 2, 3), latent_shape=(2,))


def images(*values: float) -> Tensor:
    """Return one image of each of two rows, with values put into the first pixels."""
    drawn = torch.linspace(0.0, 1.0, 12).reshape(2, 1, 2, 3)
    drawn.view(-1)[: len(values)] = torch.tensor(values)
    return drawn


@pytest.mark.parametrize(
    ("drawn", "error", "words"),
    [
        (images(torch.nan), NonFiniteError, "painter draws NaN or infinity"),
        (images(torch.inf), NonFiniteError, "painter draws NaN or infinity"),
        (images(-torch.inf, torch.nan), NonFiniteError, "painter draws NaN or infinity"),
        (images(-0.002), ImageFormatError, r"from -0.002 to 1; .*\[0, 1\]. Rescale"),
        (images(1.002), ImageFormatError, "from 0.09091 to 1.002;"),
        (images() * 255, ImageFormatError, "from 0 to 255;"),
        (images()[..., :2], ImageFormatError, "shape 1x2x3, and draws 1x2x2"),
        (images().expand(2, 3, 2, 3), ImageFormatError, "shape 1x2x3, and draws 3x2x3"),
    ],
)
def test_images_that_are_no_pixels_are_refused(drawn: Tensor, error: type[LatlasError], words: str) -> None:
    with pytest.raises(error, match=words) as told:
        check_drawn(drawn, MODEL)
    assert "\n" not in str(told.value)


def test_rounding_is_no_mistake() -> None:
    check_drawn(images(-0.0009, 1.0009), MODEL)
    check_drawn(images()[:1], MODEL)
    check_drawn(images().requires_grad_(True), MODEL)


@pytest.mark.parametrize("difference", [0.0, 1e-6])
def test_images_that_differ_by_rounding_alone_are_alike(difference: float) -> None:
    one = images()[:1]
    with pytest.raises(IllPosedError, match=r"painter draws one and the same image whatever the code \(collapsed\?\)"):
        check_varied(torch.cat([one, one + difference]), MODEL)
    check_varied(torch.cat([one, one + 1e-3]), MODEL)


def test_many_large_images_are_judged_by_batches_as_they_are_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Alike within every batch, and not from batch to batch: the variance is that of all."""
    monkeypatch.setattr("latlas.models.drawn.images_at_once", lambda shape: 2)
    drawn = torch.zeros(6, 1, 2, 3)
    drawn[4:] = 2.4e-4  # variance 1.5e-8; that of the population is 1.3e-8
    check_varied(drawn, MODEL)
    check_varied(MarginalMoments.of(drawn), MODEL)
    drawn[4:] = 1.93e-4  # variance 0.99e-8
    for found in (drawn, MarginalMoments.of(drawn)):
        with pytest.raises(IllPosedError, match="one and the same image"):
            check_varied(found, MODEL)
    drawn[4:] = 2.0e-4  # variance 1.07e-8 of a sample, 0.89e-8 of a population
    check_varied(drawn, MODEL)
