"""The page of a pruning: what was kept, what it cost, and a warning where too little was looked at."""

import math
import re
from dataclasses import replace

import pytest
import torch

from latlas.data.images import ImageSet
from latlas.models.adapters.callables import CallableModel
from latlas.reports.page import Numbers, Picture, Table, render
from latlas.reports.pruning import error_curve, pruning_findings, pruning_report
from latlas.studies.pruning import PrunedModel, prune

SHAPE = (1, 6, 6)
IMAGES = ImageSet("noise", torch.rand(120, *SHAPE, generator=torch.Generator().manual_seed(1)))
BASIS = torch.linalg.qr(torch.randn(36, 4, generator=torch.Generator().manual_seed(0))).Q * torch.tensor([3.0, 2.0, 1.0, 0.0])


def model(*, deterministic: bool = True) -> CallableModel:
    """Of four variables, the last of which is always 0."""

    def encode(images: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        mean = (images - 0.5).flatten(1) @ BASIS
        return mean if deterministic else (mean, torch.zeros_like(mean))

    return CallableModel(
        name="four <b>",
        image_shape=SHAPE,
        latent_shape=(4,),
        encode_with=encode,
        decode_with=lambda codes: (
            (0.5 + codes @ (BASIS / torch.tensor([9.0, 4.0, 1.0, 1.0])).T).clamp(0, 1).unflatten(1, SHAPE)
        ),
    )


@pytest.fixture(scope="module")
def result() -> PrunedModel:
    return prune(model(), IMAGES)


@pytest.mark.parametrize("deterministic", [True, False])
def test_the_page_shows_the_curve_the_pictures_and_one_row_a_variable(deterministic: bool) -> None:
    original = model(deterministic=deterministic)
    report = pruning_report(prune(original, IMAGES), original, IMAGES)
    page = render(report)
    assert "3 of 4" in page
    assert "four &lt;b&gt;" in page
    curve, strips, table = report.sections[0].blocks[1:]
    assert isinstance(curve, Picture)
    assert isinstance(strips, Picture)
    assert isinstance(table, Table)
    assert curve.is_svg
    assert strips.row_labels == ("original", "before", "pruned")
    assert list(table.dim) == [False, False, False, True]
    assert [row[1] for row in table.rows] == [0, 1, 2, None]
    assert ("nan" in page.lower().split("</style>")[1]) is False


def test_slices_of_images_are_named_in_words() -> None:
    part, original = IMAGES.slice(20, 120), model()
    numbers, _, strips, _ = pruning_report(prune(original, part), original, part).sections[0].blocks
    assert isinstance(numbers, Numbers)
    assert isinstance(strips, Picture)
    assert numbers.items[1][2] == "squared, per pixel, on images 20 to 119 of noise"
    assert strips.caption.startswith("Images 20 to 31 of noise, what the original makes of them")


def test_what_costs_nothing_is_good_news(result: PrunedModel) -> None:
    first, second = pruning_findings(result)
    assert (first.level, second.level) == ("good", "good")
    assert first.headline.startswith("3 of 4 latent variables are kept, and the error changes by +0 %")
    assert "no pixel differs by more than" in second.headline


def test_what_costs_something_says_how_much_and_how_many_active_ones_went() -> None:
    found = pruning_findings(prune(model(), IMAGES, keep=2))[0]
    assert found.level == "note"
    assert re.search(r"2 of 4 latent variables are kept, and the error changes by \+[\d.]+ % \(± [\d.]+\)", found.headline)
    assert found.text.endswith("1 of the removed ones is active.")


def test_a_difference_beyond_rounding_is_no_good_news(result: PrunedModel) -> None:
    watched = replace(result, errors=replace(result.errors, largest_output_difference=0.02))
    found = pruning_findings(watched)[1]
    assert found.level == "note"
    assert "Pixels differ by up to 0.02" in found.headline
    assert "DRAW" in found.text


def test_channels_that_stay_although_collapsed_are_named(result: PrunedModel) -> None:
    assert "Channels 1, 2 carry nothing" in pruning_findings(replace(result, varying_by_position=(1, 2)))[2].headline
    assert "Channel 1 carries nothing" in pruning_findings(replace(result, varying_by_position=(1,)))[2].headline


def test_few_images_are_warned_of() -> None:
    warned = pruning_findings(prune(model(), IMAGES.slice(0, 40)))[-1]
    assert warned.level == "warning"
    assert warned.headline == "Means and gains are of 40 images only."
    assert pruning_findings(prune(model(), IMAGES.slice(0, 100)))[-1].level == "good"


def test_a_model_without_error_has_a_curve_and_no_percentage() -> None:
    exact = CallableModel(
        name="exact",
        image_shape=(1, 1, 2),
        latent_shape=(3,),
        encode_with=lambda images: torch.cat([images.flatten(1), 0 * images.flatten(1)[:, :1]], dim=1) * 4,
        decode_with=lambda codes: (codes[:, :2] / 4).unflatten(1, (1, 1, 2)),
    )
    images = ImageSet("pairs", torch.rand(100, 1, 1, 2, generator=torch.Generator().manual_seed(2)))
    result = prune(exact, images)
    assert result.errors.before == 0.0
    assert "the error stays 0" in pruning_findings(result)[0].headline
    assert error_curve(result).startswith("<svg")


def test_rounding_makes_no_false_sentence(result: PrunedModel) -> None:
    def told(**changes: float) -> list[str]:
        found = replace(result, errors=replace(result.errors, **changes))  # type: ignore[arg-type]
        return [finding.headline for finding in pruning_findings(found)]

    assert "no pixel differs by more than 1e-05." in told(largest_output_difference=1.4e-6)[1]
    before = result.errors.before
    assert "changes by +20 % (± 12)." in told(after=1.2 * before, difference_standard_error=0.06 * before)[0]
    assert told(after=1.2 * before, difference_standard_error=math.nan)[0].endswith("changes by +20 %.")
