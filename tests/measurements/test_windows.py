"""The worst window: against a loop over windows."""

import pytest
import torch

from latlas.base.errors import CodeShapeError
from latlas.measurements.windows import window_errors, worst_excess


def test_windows_are_half_as_wide_and_an_eighth_apart(generator: torch.Generator) -> None:
    images, drawn = torch.rand(2, 3, 3, 16, 24, generator=generator)
    found = window_errors(images, drawn)
    wrong = (images.double() - drawn.double()).square()
    expected = [
        [float(wrong[i, :, top : top + 8, left : left + 12].mean()) for top in range(0, 9, 2) for left in range(0, 13, 3)]
        for i in range(3)
    ]
    assert torch.allclose(found, torch.tensor(expected).double())


def test_what_is_hard_for_both_cancels_and_what_is_worse_in_one_place_stays() -> None:
    hard = torch.full((1, 25), 0.3).double()
    mine = hard.clone()
    mine[0, 7] += 0.05
    assert float(worst_excess(mine)) == pytest.approx(0.35)
    assert float(worst_excess(mine, hard)) == pytest.approx(0.05)
    assert float(worst_excess(hard, hard)) == 0.0


def test_the_smallest_images_have_a_window(generator: torch.Generator) -> None:
    images, drawn = torch.rand(2, 4, 1, 1, 1, generator=generator)
    assert torch.allclose(window_errors(images, drawn)[:, 0], (images - drawn).double().square().flatten())


def test_errors_of_other_images_are_refused() -> None:
    with pytest.raises(CodeShapeError, match="not of the same images"):
        worst_excess(torch.zeros(2, 25).double(), torch.zeros(3, 25).double())
