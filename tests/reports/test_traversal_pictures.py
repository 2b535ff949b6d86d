"""Traversals as pictures: the planted variable moves the planted pixels, and the moving picture has every frame."""

import base64
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from latlas.base.errors import CodeShapeError, SettingError
from latlas.base.provenance import Provenance
from latlas.measurements.traversals import SPAN, traverse, traverse_all
from latlas.models.adapters.callables import CallableModel
from latlas.reports.page import Picture, Report, Section, write_report
from latlas.reports.traversals import Traversals, animation, run_traversals, strip, traversal_blocks

SIDE, STEPS = 8, 5


def quarters(codes: Tensor) -> Tensor:
    """Four variables, each the brightness of a quarter: top left, top right, bottom left, bottom right."""
    bright = (codes / 9.0 + 0.5).clamp(0, 1).reshape(-1, 1, 2, 2)
    return bright.repeat_interleave(SIDE // 2, dim=2).repeat_interleave(SIDE // 2, dim=3)


@pytest.fixture
def model() -> CallableModel:
    return CallableModel(name="quarters", image_shape=(1, SIDE, SIDE), latent_shape=(4,), decode_with=quarters)


@pytest.fixture
def traversals(model: CallableModel) -> Traversals:
    return run_traversals(model, torch.zeros(2, 4), (3, 0), starts=("#4", "#9"), steps=STEPS)


def pixels(picture: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")).astype(float)


def test_only_the_planted_pixels_move_and_as_far_as_they_should(model: CallableModel) -> None:
    lines = traverse_all(model, torch.ones(2, 4), (2, 1), steps=STEPS)
    assert lines.shape == (2, 2, STEPS, 1, SIDE, SIDE)
    values = torch.linspace(*SPAN, STEPS) / 9.0 + 0.5
    torch.testing.assert_close(lines[1, 0, :, 0, -1, 0], values)  # variable 2: bottom left
    torch.testing.assert_close(lines[1, 1, :, 0, 0, -1], values)  # variable 1: top right
    still = torch.full((STEPS,), 1 / 9 + 0.5)
    for corner in ((0, 0), (-1, -1), (0, -1)):
        torch.testing.assert_close(lines[1, 0, :, 0, corner[0], corner[1]], still)
    assert lines[0, 1].equal(traverse(model, torch.ones(4), 1, steps=STEPS))


def test_each_line_starts_from_its_own_code(model: CallableModel) -> None:
    codes = torch.tensor([[0.0, -1.0, 0.0, 0.0], [0.0, 2.0, 0.0, 0.0]])
    lines = traverse_all(model, codes, (0,), steps=2)
    torch.testing.assert_close(lines[:, 0, :, 0, 0, -1], (codes[:, 1:2] / 9 + 0.5).expand(2, 2))


def test_a_channel_of_a_spatial_code_runs_at_every_position() -> None:
    model = CallableModel(
        name="tiled", image_shape=(1, 4, 6), latent_shape=(2, 2, 6), decode_with=lambda z: (z / 9 + 0.5).reshape(-1, 1, 4, 6)
    )
    lines = run_traversals(model, torch.zeros(1, 2, 2, 6), (1,), starts=("#0",), steps=3)
    assert lines.spatial
    assert lines.images[0, 0, 2, 0, 2:].unique().tolist() == pytest.approx([0.75])
    assert lines.images[0, 0, 2, 0, :2].unique().tolist() == pytest.approx([0.5])
    assert "channel 1" in str(traversal_blocks(lines)[0])


def test_a_strip_has_a_row_a_variable_and_shows_where_the_ends_differ(traversals: Traversals) -> None:
    picture = pixels(strip(traversals, 0))
    cell = (SIDE + 2) * traversals.enlarge
    rows, columns = 2, (STEPS + 1) // 2 + 1
    assert picture.shape == (rows * cell - 2 * traversals.enlarge, columns * cell - 2 * traversals.enlarge, 3)
    for row, (top, left) in enumerate([(1, 1), (0, 0)]):  # variable 3, variable 0
        end = picture[row * cell : row * cell + SIDE * traversals.enlarge, (columns - 1) * cell :]
        half = SIDE * traversals.enlarge // 2
        acts = end[top * half : (top + 1) * half, left * half : (left + 1) * half]
        assert acts.min() == 255
        assert end.sum() == acts.sum()


def test_the_moving_picture_runs_there_and_back_for_ever(traversals: Traversals) -> None:
    moving = Image.open(io.BytesIO(animation(traversals)))
    assert moving.format == "WEBP"
    assert moving.n_frames == 2 * STEPS - 2
    assert moving.info["loop"] == 0
    cell = (SIDE + 2) * traversals.enlarge
    assert moving.size == (2 * cell - 2 * traversals.enlarge, 2 * cell - 2 * traversals.enlarge)
    seen = []
    for frame in range(moving.n_frames):
        moving.seek(frame)
        seen.append(
            np.asarray(moving.convert("RGB")).astype(float)[SIDE * traversals.enlarge - 8, SIDE * traversals.enlarge - 8, 0]
        )
    expected = 255 * (np.linspace(*SPAN, STEPS) / 9 + 0.5)
    np.testing.assert_allclose(seen, [*expected, *expected[-2:0:-1]], atol=6)


def test_the_still_lies_beneath_and_alone_is_left_where_motion_is_not_wanted(traversals: Traversals) -> None:
    blocks = traversal_blocks(traversals)
    assert len(blocks) == 3  # a strip a start, and the moving one
    last = blocks[-1]
    assert isinstance(last, Picture)
    drawing = str(last.content)
    kinds = re.findall(r'<image (class="moving" )?[^>]*href="data:image/(\w+);base64,([^"]+)"', drawing)
    assert [(bool(moving), kind) for moving, kind, _ in kinds] == [(False, "png"), (True, "webp")]
    assert base64.b64decode(kinds[1][2]) == animation(traversals)
    assert "prefers-reduced-motion: reduce" in drawing
    assert drawing.count("<text") == 2


def test_nonsense_is_told(model: CallableModel) -> None:
    with pytest.raises(SettingError, match="got 0, 1 and 5"):
        traverse_all(model, torch.zeros(0, 4), (0,), steps=5)
    with pytest.raises(SettingError, match="got 1, 0 and 5"):
        traverse_all(model, torch.zeros(1, 4), (), steps=5)
    with pytest.raises(SettingError, match="2 steps at least"):
        traverse_all(model, torch.zeros(1, 4), (0,), steps=1)
    with pytest.raises(CodeShapeError, match="asked for 4"):
        traverse_all(model, torch.zeros(1, 4), (4,))
    with pytest.raises(CodeShapeError, match="takes codes of shape 4"):
        traverse_all(model, torch.zeros(1, 3), (0,))


def test_a_decoder_that_draws_always_the_same_gives_black_differences() -> None:
    model = CallableModel(
        name="same",
        image_shape=(3, SIDE, SIDE),
        latent_shape=(2,),
        decode_with=lambda z: torch.full((len(z), 3, SIDE, SIDE), 0.5),
    )
    lines = run_traversals(model, torch.zeros(1, 2), (0,), starts=("#0",), steps=3)
    assert pixels(strip(lines, 0))[:, -SIDE * lines.enlarge :].max() == 0


@pytest.mark.browser
def test_a_browser_plays_it_and_stands_still_when_asked(browser: Any, traversals: Traversals, tmp_path: Path) -> None:
    section = Section(title="S", lead="", blocks=traversal_blocks(traversals))
    report = Report(title="T", subtitle="", summary=[], sections=[section], numbers={}, provenance=Provenance(made_by="test"))
    address = write_report(report, tmp_path / "r").as_uri()
    for motion, pictures_seen in (("no-preference", range(2, 100)), ("reduce", range(1, 2))):
        page = browser.new_page(viewport={"width": 390, "height": 800}, reduced_motion=motion)
        page.goto(address)
        drawing = page.locator("svg.traversals")
        drawing.scroll_into_view_if_needed()
        shots = set()
        for _ in range(6):
            page.wait_for_timeout(90)
            shots.add(drawing.screenshot())
        assert len(shots) in pictures_seen
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        page.close()
