"""Pages of maps: what was measured stands on them, undefined numbers included."""

import io
import re

import pytest
import torch
from PIL import Image
from torch import Tensor

from latlas.data.images import ImageSet
from latlas.models.adapters.callables import CallableModel
from latlas.reports import map_figures
from latlas.reports.comparison import comparison_report
from latlas.reports.matrix import matrix_report
from latlas.reports.page import Picture, Table, render
from latlas.studies.compare import compare
from latlas.studies.matrix import compare_all

SHAPE = (1, 12, 12)
BASIS = torch.linalg.qr(torch.randn(144, 144, generator=torch.Generator().manual_seed(0))).Q


def model(width: int, name: str, *, dead: bool = False) -> CallableModel:
    """Some directions of pixel space; a dead one decodes everything alike."""
    turn = torch.linalg.qr(torch.randn(width, width, generator=torch.Generator().manual_seed(width))).Q
    span = BASIS[:, :width] @ turn
    return CallableModel(
        name=name,
        image_shape=SHAPE,
        latent_shape=(width,),
        encode_with=lambda images: (images - 0.5).flatten(1) @ span,
        decode_with=lambda codes: (0.5 + (0 if dead else 1) * codes @ span.T).clamp(0, 1).unflatten(1, SHAPE),
    )


class Drawer:
    name, fingerprint, image_shape, latent_shape = "drawer", "d", SHAPE, (5,)

    def decode(self, codes: Tensor) -> Tensor:
        return (0.5 + 0.1 * codes @ BASIS[:, :5].T).clamp(0, 1).unflatten(1, SHAPE)

    def sample_codes(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.randn(n, 5, generator=generator)


@pytest.fixture
def images() -> ImageSet:
    return ImageSet("noise", 0.5 + 0.2 * (torch.rand(200, *SHAPE, generator=torch.Generator().manual_seed(1)) - 0.5))


def pictures_of(report: object) -> list[Picture]:
    return [block for block in report.sections[0].blocks if isinstance(block, Picture)]  # type: ignore[attr-defined]


def test_a_page_shows_each_image_and_what_each_way_makes_of_it(images: ImageSet) -> None:
    source, target = model(20, "wide"), model(12, "narrow")
    result = compare(source, target, images)
    strips = pictures_of(comparison_report(result, source, target))[0]
    assert strips.row_labels == ("original", "source", "relocated", "target itself")
    shown = Image.open(io.BytesIO(strips.content))  # type: ignore[arg-type]
    scale = shown.height // (4 * 12 + 3 * 2)
    expected = target.decode(result.relocate(source.encode(images.tensor()[160:161]).mean))[0, 0, 3, 4]
    assert shown.getpixel((scale * 4, scale * (2 * 14 + 3)))[0] == round(float(expected) * 255)  # type: ignore[index]


def test_the_table_holds_every_error_of_the_record(images: ImageSet) -> None:
    source, target = model(20, "wide"), model(12, "narrow")
    result = compare(source, target, images, yardstick=True, perceptual=lambda a, b: (a - b).abs().mean(dim=(1, 2, 3)))
    report = comparison_report(result, source, target)
    (table,) = (block for block in report.sections[0].blocks if isinstance(block, Table) and block.columns[0] == "error")
    assert {"PSNR, dB", "SSIM", "perceptual"} <= set(table.columns)
    values = {row[0]: row[1] for row in table.rows}
    record = result.to_json()
    for name in ("R", "M", "L"):
        assert values[name] == record[name]
    assert values["round trip"] == record["round_trip"]
    assert values["perceptron"] == record["yardstick"]["M"]["mean"]
    assert "no map" not in values
    page = render(report)
    assert "shapes differ" in page
    assert "A perceptron on the same pairs reaches" in page
    assert report.numbers == record


def test_a_generators_page_says_whose_codes_are_known_and_does_not_show_the_original_twice() -> None:
    for source, target, rows in (
        (Drawer(), model(12, "seer"), ("original", "relocated", "target itself")),
        (model(12, "seer"), Drawer(), ("original", "source", "relocated")),
    ):
        report = comparison_report(compare(source, target, "stream", stream=100), source, target)
        assert pictures_of(report)[0].row_labels == rows
        page = render(report)
        assert "drawer was compared on its own stream" in page
        assert "0 by construction" in page


def test_a_target_that_decodes_everything_alike_is_warned_of(images: ImageSet) -> None:
    source, target = model(20, "wide"), model(12, "lifeless", dead=True)
    result = compare(source, target, images)
    assert result.recovered_share is None
    assert "lifeless decodes every code to nearly the same image" in render(comparison_report(result, source, target))
    matrix = compare_all([source, target], images)
    assert "nearly the same image by lifeless" in render(matrix_report(matrix, [source, target]))


def test_a_matrix_page_has_a_number_in_each_cell_and_an_image_along_each_map(images: ImageSet) -> None:
    models = [model(20, "wide"), model(12, "narrow"), model(20, "wide"), Drawer()]
    matrix = compare_all(models, images, stream=200)
    report = matrix_report(matrix, models)
    assert report.numbers == matrix.to_json()
    drawn = pictures_of(report)
    svg = drawn[0].content
    assert isinstance(svg, str)
    for cell in matrix.cells:
        if cell.over_target is not None:
            assert f">{cell.over_target:.3g}<" in svg
    carried = Image.open(io.BytesIO(drawn[-1].content))  # type: ignore[arg-type]
    assert carried.width == carried.height  # the three that encode, by three
    assert "wide #1, narrow, wide #2" in drawn[-1].caption
    assert "drawer → wide #2" in render(report)


def test_a_heat_map_takes_no_ground_where_nothing_is_known_and_colours_by_size() -> None:
    svg = map_figures.heat_map(
        ["a", "b"], ["a", "b"], [[None, 1.0], [8.0, None]], title="T", low=1.0, high=8.0, logarithmic=True
    )
    grounds = re.findall(r'<g id="patch_\d+">\s*<path[^>]*style="fill: (#[0-9a-f]{6})"', svg)
    assert len(grounds) == 2
    assert grounds == ["#eef4f9", "#0b3b5c"]
    assert svg.count(">–<") == 2
    flipped = map_figures.heat_map(["a"], ["b"], [[0.0]], title="T", low=0.0, high=1.0, low_is_dark=True)
    assert "fill: #0b3b5c" in flipped


def test_r2_bars_stand_in_order_and_leave_out_the_undefined() -> None:
    svg = map_figures.r2_bars([0.2, None, 0.9, -4.0])
    names = re.findall(r">(\d)</text>", svg)
    assert names[:3] == ["2", "0", "3"]
    assert "300 target channels" in map_figures.r2_bars([0.5] * 300, what="channel").replace("256", "300")
