"""The page of a range test says the level that was asked for, wherever it says one."""

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from latlas.data.images import ImageSet
from latlas.inversion.descent import Budget
from latlas.models.adapters.callables import CallableModel
from latlas.reports.page import HTML, Picture, Report, Table, write_report
from latlas.reports.ranges import range_report, rejection_threshold
from latlas.studies.range_calibration import calibrate_range
from latlas.studies.range_test import range_test

SHAPE = (1, 4, 6)


def uniform(n: int, generator: torch.Generator) -> Tensor:
    return 2 * torch.rand(n, 2, generator=generator) - 1


def draw(codes: Tensor) -> Tensor:
    rows = torch.randn(2, 24, generator=torch.Generator().manual_seed(3))
    return (0.5 + codes @ (0.45 * rows / rows.abs().sum(dim=0).max())).unflatten(1, SHAPE)


@pytest.mark.parametrize(("level", "words"), [(0.05, "5"), (0.125, "12.5"), (0.2, "20")])
def test_the_page_says_the_level_asked_for(level: float, words: str, tmp_path: Path) -> None:
    model = CallableModel(
        name="plane", image_shape=SHAPE, latent_shape=(2,), decode_with=draw, sample_with=uniform, fingerprint="plane"
    )
    base = calibrate_range(model, samples=40, budget=Budget(steps=120, learning_rate=0.1))
    assert base.budget_is_enough, "else there is no threshold to draw"
    images = ImageSet("strangers", torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(4)))
    result = range_test(model, images, calibration=base, level=level)
    write_report(range_report(result, images, model), tmp_path / "page")
    page = (tmp_path / "page" / HTML).read_text(encoding="utf-8")
    assert f"rejected at {words} % beyond" in page
    assert f"3 of 3 images are out of range at {words} %." in page
    assert set(re.findall("\\blevel ([0-9.]+)\u00a0%", page)) == {words}
    assert f'<th scope="col">rejected at {words} %</th>' in page
    # The threshold is that of the same level: as many own samples at or above it as p-values at most the level allow.
    beyond = int((base.errors > rejection_threshold(base, level)).sum())
    assert (beyond + 1) / 41 <= level < (beyond + 3) / 41


@pytest.fixture(scope="module")
def plane() -> CallableModel:
    return CallableModel(
        name="plane", image_shape=SHAPE, latent_shape=(2,), decode_with=draw, sample_with=uniform, fingerprint="plane"
    )


@pytest.fixture(scope="module")
def plane_report(plane: CallableModel) -> Report:
    """Three strangers beside two ordinary images, of which one is the model's own."""
    base = calibrate_range(plane, samples=40, budget=Budget(steps=120, learning_rate=0.1))
    images = ImageSet("strangers", torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(4)))
    other = draw(uniform(1, torch.Generator().manual_seed(5)))
    reference = ImageSet("ordinary", torch.cat([other, (other + 0.2).clamp(0, 1)]))
    result = range_test(plane, images, calibration=base, reference=reference)
    return range_report(result, images, plane, reference=reference)


def test_shares_of_images_are_told_from_numbers_of_images(plane_report: Report) -> None:
    (table,) = [block for block in plane_report.sections[0].blocks if isinstance(block, Table)]
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    assert [row["count"] for row in rows] == [3, 2]
    assert [row["rejected at 5 %"] for row in rows] == ["100.0 %", "50.0 %"]
    assert rows[1]["against reference"] is None


def test_the_maps_of_a_page_have_one_scale_so_that_they_can_be_compared(plane_report: Report) -> None:
    captions = [block.caption for block in plane_report.sections[0].blocks if isinstance(block, Picture)]
    whites = [found[1] for caption in captions if (found := re.search(r"black is none, white ([0-9.]+) and more", caption))]
    assert len(whites) == 3  # own samples, strangers, ordinary images
    assert len(set(whites)) == 1
