"""Maps of differences: black for none, white for the most, ever lighter between, and never grey like an image."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from latlas.reports import pictures
from latlas.reports.palette import FOREIGN

STEPS = 33


def drawn(maps: torch.Tensor, white: float) -> Image.Image:
    return Image.open(io.BytesIO(pictures.grid(pictures.heat(maps, white), columns=1, enlarge=1))).convert("RGB")


def test_a_map_runs_from_black_through_the_palettes_colour_to_white_and_stays_there() -> None:
    pixels = np.asarray(drawn(torch.tensor([0.0, 0.1, 0.2, 7.0]).view(1, 1, 1, 4), 0.2))[0]
    assert pixels[0].tolist() == [0, 0, 0]
    assert "#" + "".join(f"{value:02x}" for value in pixels[1]) == FOREIGN
    assert pixels[2:].tolist() == [[255, 255, 255]] * 2


def test_more_is_lighter_for_every_eye_and_equal_steps_look_alike() -> None:
    """Lightness as Pillow has it; of the light that a red-blind eye sees (Viénot, Brettel and Mollon 1999) too."""
    ramp = drawn(torch.linspace(0, 1, STEPS).view(1, 1, 1, STEPS), 1.0)
    seen = (np.asarray(ramp).astype(float) / 255) ** 2.2 @ np.array(
        [[0.11238, 0.11238, 0.004], [0.88762, 0.88762, -0.004], [0, 0, 1]]
    )
    lightness = np.asarray(ramp.convert("L")).astype(float)[0]
    assert np.all(np.diff(lightness) > 0)
    assert np.all(np.diff(seen[0, :, 1]) > 0)
    assert np.diff(lightness).max() < 2.5 * np.diff(lightness).min()


def test_a_map_is_not_taken_for_a_grey_image() -> None:
    middle = np.asarray(drawn(torch.linspace(0.1, 0.9, STEPS).view(1, 1, 1, STEPS), 1.0)).astype(int)[0]
    assert np.all(middle.max(axis=1) - middle.min(axis=1) >= 40)


@pytest.mark.parametrize("channels", [1, 3])
def test_maps_stand_below_grey_and_coloured_images_and_leave_them_as_they_are(channels: int) -> None:
    images = torch.rand(2, channels, 4, 5, generator=torch.Generator().manual_seed(0))
    rows = pictures.rows(images, pictures.heat(torch.zeros(2, 1, 4, 5), 1.0))
    assert rows.shape == (4, 3, 4, 5)
    torch.testing.assert_close(rows[:2], images.expand(-1, 3, -1, -1))
    assert rows[2:].count_nonzero() == 0


def test_a_map_of_no_differences_is_black_whatever_its_scale() -> None:
    assert pictures.heat(torch.zeros(1, 1, 2, 2), 0.0).count_nonzero() == 0
