"""No pixel of an image lies outside all windows, whatever its side."""

import pytest
import torch

from latlas.measurements.windows import window_errors, worst_excess


@pytest.mark.parametrize("side", [1, 2, 3, 7, 8, 12, 16, 28, 31, 32, 50, 64])
@pytest.mark.parametrize("other", [28, 32])
def test_one_wrong_pixel_is_found_wherever_it_lies(side: int, other: int) -> None:
    """Alone it fills its window's share of the error, and is in at least one window."""
    images = torch.zeros(side * other, 1, side, other)
    drawn = torch.eye(side * other).view(side * other, 1, side, other)
    share = 1.0 / (max(1, side // 2) * max(1, other // 2))
    torch.testing.assert_close(worst_excess(window_errors(images, drawn)), torch.full((side * other,), share).double())


def test_the_windows_of_28_pixels_begin_where_they_did_and_end_at_the_edges(generator: torch.Generator) -> None:
    images, drawn = torch.rand(2, 3, 2, 28, 28, generator=generator)
    wrong = (images.double() - drawn.double()).square()
    starts = (0, 3, 6, 9, 12, 14)
    expected = [
        [float(wrong[i, :, top : top + 14, left : left + 14].mean()) for top in starts for left in starts] for i in range(3)
    ]
    torch.testing.assert_close(window_errors(images, drawn), torch.tensor(expected).double())


def test_turning_an_image_about_does_not_change_its_worst_window_by_its_far_edge(generator: torch.Generator) -> None:
    """What is wrong in the last rows counts as what is wrong in the first."""
    images, drawn = torch.rand(2, 5, 1, 28, 28, generator=generator)
    drawn[:, :, -2:] = 1.0 - images[:, :, -2:].round()
    turned = [part.flip(2) for part in (images, drawn)]
    upright, upside = worst_excess(window_errors(images, drawn)), worst_excess(window_errors(turned[0], turned[1]))
    assert float((upright - upside).abs().max()) < 0.1 * float(upright.min())
