"""The page of a Support Set: what the study found stands there, and CelebA's published figures only beside CelebA."""

import math
import re
from dataclasses import replace

import pytest
import torch

from latlas.base.provenance import Provenance
from latlas.data.images import ImageSet
from latlas.measurements.spread import Spread
from latlas.reports.page import Picture, Table, render
from latlas.reports.support import support_report, support_section
from latlas.studies.sectors import SectorStudy, study_sectors
from latlas.studies.support import SpreadComparison
from latlas.supports.sectors import Sectors
from latlas.supports.support_set import SupportSet
from latlas.supports.unevenness import unevenness

WIDE = SpreadComparison(support=Spread(mean=0.2, standard_error=0.004), random=Spread(mean=0.1, standard_error=0.001))


def study_of(n: int = 300) -> tuple[SectorStudy, ImageSet, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    codes = torch.randn(n, 4, generator=generator) @ (torch.eye(4) + 0.5 * torch.randn(4, 4, generator=generator))
    images = ImageSet("pictures", torch.rand(n, 1, 6, 6, generator=generator))
    return study_sectors(codes, Sectors(variables=(2, 0, 1), threshold=0.1)), images, codes


def a_set(study: SectorStudy, images: ImageSet, codes: torch.Tensor, chosen_from: str, **settings: object) -> SupportSet:
    rows = torch.arange(8)
    return SupportSet(
        images=images.take(rows),
        indices=rows,
        codes=codes[rows],
        sector=study.sectors.of(codes[rows]),
        sectors=study.sectors,
        occupancy=study.occupancy,
        model="a model",
        chosen_from=chosen_from,
        provenance=Provenance(made_by="build_support_set", settings=settings),
    )


def words(report: object) -> str:
    return render(report)  # type: ignore[arg-type]


def test_the_page_shows_counts_expectations_the_curve_and_members() -> None:
    study, images, codes = study_of()
    page = words(support_report(a_set(study, images, codes, "pictures"), WIDE, {}, sectors=study, images=images))
    for text in (
        "independent variables",
        "the fitted Gaussian",
        "Sectors that hold an image",
        "Fullest",
        "2.00 times as far apart",
    ):
        assert text in page
    section = support_section(a_set(study, images, codes, "pictures"), WIDE, sectors=study, images=images)
    tables = [block for block in section.blocks if isinstance(block, Table)]
    assert [row[1] for row in tables[0].rows] == [test.statistic for test in study.tests.values()]
    # Each row of the last table: found, and expected of each, in the order of the tests.
    for row, sector in zip(tables[-1].rows, study.occupancy.argsort(descending=True, stable=True).tolist(), strict=True):
        assert row[1] == int(study.occupancy[sector])
        assert row[3:] == [float(study.tests[null].expected[sector]) for null in ("independence", "gaussian")]
    pictures = [block for block in section.blocks if isinstance(block, Picture)]
    assert len(pictures) == 3 + len({sector for sector, _ in study.examples.values()})


@pytest.mark.parametrize("chosen_from", ["celeba:faces:train", "avatars:test", "mnist:train", "my/celeba"])
def test_the_posts_figures_stand_beside_celeba_alone(chosen_from: str) -> None:
    study, images, codes = study_of()
    page = words(support_report(a_set(study, images, codes, chosen_from), WIDE, {}))
    assert ("0.183" in page) == ("0.116" in page) == ("1.578" in page) == chosen_from.startswith("celeba:")


@pytest.mark.parametrize(
    ("ratio", "error", "headline", "level"),
    [
        (1.5, 0.01, "1.50 times as far apart as random ones (95 % interval 1.47 to 1.54)", "good"),
        (1.05, 0.1, "about as far apart as random ones (1.05, 95 % interval", "note"),
        (0.8, 0.01, "closer together than random ones (0.80, 95 % interval", "note"),
        (1.5, math.nan, "1.50 times as far apart as random ones (interval of no known width)", "note"),
    ],
)
def test_the_verdict_on_the_spread_follows_its_interval(ratio: float, error: float, headline: str, level: str) -> None:
    study, images, codes = study_of()
    spread = SpreadComparison(
        support=Spread(mean=0.1 * ratio, standard_error=0.1 * error), random=Spread(mean=0.1, standard_error=0.001)
    )
    finding = support_section(a_set(study, images, codes, "pictures"), spread).findings[0]
    assert headline in finding.headline
    assert finding.level == level


def test_random_images_that_are_all_alike_break_no_page() -> None:
    study, images, codes = study_of()
    spread = SpreadComparison(support=Spread(mean=0.1, standard_error=0.01), random=Spread(mean=0.0, standard_error=0.0))
    assert "Random images are all alike" in words(support_report(a_set(study, images, codes, "celeba:x:train"), spread, {}))


def test_the_caption_says_how_they_were_chosen() -> None:
    study, images, codes = study_of()

    def caption(**settings: object) -> str:
        blocks = support_section(a_set(study, images, codes, "pictures", **settings), WIDE).blocks
        return next(block.caption for block in blocks if isinstance(block, Picture))

    assert "drawn at random within its sector" in caption()
    assert "the one farthest beyond the threshold. Images with hat were left out." in caption(choose="extreme", without=["hat"])
    assert "Images on a list of 2 names were left out." in caption(exclude=["#1", "#2"])
    assert "Images without hat or on a list of 1 name were left out." in caption(**{"with": ["hat"], "exclude": ["#1"]})
    assert "left out" not in caption()
    assert "chosen by another rule (k-means)" in caption(selector="k-means")


def test_even_sectors_show_no_unevenness() -> None:
    codes = torch.randn(800, 2, generator=torch.Generator().manual_seed(5))
    study = study_sectors(codes, Sectors(variables=(0, 1), threshold=0.1))
    images = ImageSet("pictures", torch.rand(800, 1, 2, 2, generator=torch.Generator().manual_seed(0)))
    found = support_section(a_set(study, images, codes, "pictures"), WIDE, sectors=study).findings[-1]
    assert found.level == "good"
    assert re.fullmatch(
        rf"No unevenness is shown \(p = [\d.]+, {int(study.occupancy.sum())} images in 4 sectors\)\.", found.headline
    )
    uneven = support_section(a_set(*study_of(), "pictures"), WIDE, sectors=study_of()[0]).findings[-1]
    assert "unevenly inhabited" in uneven.headline
    assert "against the fitted Gaussian" in uneven.text


def test_too_few_images_to_show_unevenness_are_no_good_news() -> None:
    """12 images in 128 sectors: that nothing was found says nothing."""
    codes = torch.randn(12, 7, generator=torch.Generator().manual_seed(1))
    study = study_sectors(codes, Sectors(variables=tuple(range(7)), threshold=0.0))
    images = ImageSet("pictures", torch.rand(12, 1, 2, 2))
    found = support_section(a_set(study, images, codes, "pictures"), WIDE, sectors=study).findings[-1]
    assert "12 images in 128 sectors" in found.headline
    assert found.level == "note"


@pytest.mark.parametrize(
    ("counts", "level"), [((100, 104, 98, 98, 101, 99, 103, 97), "good"), ((100, 130, 90, 80, 100, 105, 95, 100), "note")]
)
def test_a_small_p_value_is_no_good_news_either(counts: tuple[int, ...], level: str) -> None:
    study, images, codes = study_of()
    test = unevenness(torch.tensor(counts), "uniform")
    told = replace(study, tests={**study.tests, "uniform": test})
    found = support_section(a_set(study, images, codes, "pictures"), WIDE, sectors=told).findings[-1]
    assert found.level == level, test.p_value
    assert found.headline.startswith("No unevenness is shown")
