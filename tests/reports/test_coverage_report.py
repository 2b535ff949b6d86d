"""The page of coverage says what was found, and nothing else."""

import re
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from latlas.data.images import ImageSet
from latlas.models.adapters.callables import CallableModel
from latlas.reports.coverage import coverage_findings, coverage_report, leaderboard_report, leaderboard_table
from latlas.reports.page import Picture, Table, render
from latlas.studies.coverage import cover_all
from latlas.studies.coverage_record import Coverage
from latlas.studies.support import build_support_set

SHAPE, LATENT = (1, 6, 6), 4


def linear(rows: int, name: str, blur: float = 1.0) -> CallableModel:
    basis = 0.06 * torch.randn(LATENT, 36, generator=torch.Generator().manual_seed(1))
    basis[3] = 0.0
    basis[3, :18] = 0.4  # what a model of three variables lacks: a bright upper half
    used = basis[:rows]
    back = torch.linalg.pinv(used)
    return CallableModel(
        name=name,
        image_shape=SHAPE,
        latent_shape=(rows,),
        encode_with=lambda images: (images.flatten(1) - 0.5) @ back,
        decode_with=lambda codes: (0.5 + blur * codes @ used).clamp(0, 1).unflatten(1, SHAPE),
        sample_with=lambda n, generator: 0.4 * torch.randn(n, rows, generator=generator),
        fingerprint=name,
    )


def images(n: int, seed: int, factors: bool = True) -> ImageSet:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randn(n, LATENT, generator=generator).clamp(-2, 2)
    bright = torch.rand(n, generator=generator) < 0.25
    codes[:, 3] = bright.float()
    pixels = linear(LATENT, "all").decode(codes) + 0.02 * torch.randn(n, *SHAPE, generator=generator)
    values = {"sky": tuple("bright" if one else "none" for one in bright.tolist())}
    return ImageSet("days & nights", pixels.clamp(0, 1), factors=values if factors else None)


@pytest.fixture(scope="module")
def models() -> list[CallableModel]:
    return [linear(3, "<lacking>"), linear(LATENT, "whole", blur=0.98)]


@pytest.fixture(scope="module")
def chooser() -> CallableModel:
    return linear(LATENT, "chooser")


@pytest.fixture(scope="module")
def results(models: list[CallableModel], chooser: CallableModel) -> Sequence[Coverage]:
    landmarks = build_support_set(chooser, images(600, 1), variables=4, order=[0, 1, 2, 3])
    return cover_all(models, landmarks, images(300, 2), reference=chooser, samples=30)


def blocks(report: object, kind: type) -> list[object]:
    return [block for section in report.sections for block in section.blocks if isinstance(block, kind)]  # type: ignore[attr-defined]


def test_the_page_names_what_is_missed_and_escapes_what_it_is_told(
    results: Sequence[Coverage], models: list[CallableModel], chooser: CallableModel
) -> None:
    report = coverage_report(results[0], models[0], chooser=chooser)
    page = render(report)
    assert "Missed: sky." in page
    assert "&lt;lacking&gt;" in page
    assert "<lacking>" not in page
    assert "days &amp; nights" in page
    assert report.numbers == results[0].to_json()
    assert "from and to the ends of its 95\u00a0% interval" in page
    assert re.findall(r"[0-9]%", page.split("</style>")[1]) == []
    titles = [section.title for section in report.sections]
    assert titles == ["The worst sectors", "Which attributes are missed", "What the variables mean", "Evidence"]
    assert any(
        isinstance(block, Picture) and block.row_labels == tuple(f"variable {i}" for i in range(4))
        for block in report.sections[2].blocks
    )


def test_slices_of_images_are_named_in_words(results: Sequence[Coverage], models: list[CallableModel]) -> None:
    sliced = replace(results[0], control="nights[10:40]")
    assert coverage_report(sliced, models[0]).subtitle.endswith("beside random images: images 10 to 39 of nights.")
    assert leaderboard_report([sliced], models[:1]).subtitle.endswith("beside random images: images 10 to 39 of nights.")


def test_the_evidence_tells_how_many_landmarks_lie_beyond_own_samples(
    results: Sequence[Coverage], models: list[CallableModel]
) -> None:
    for result, judged in zip(results, models, strict=True):
        evidence = coverage_report(result, judged).sections[-1]
        beyond, count = result.summary()["missed_against_own_samples"], len(result.support)
        caption = next(block.caption for block in evidence.blocks if isinstance(block, Picture))
        assert f"{beyond} of {count} landmarks lie beyond them, corrected" in caption
        assert "early every" not in caption


def test_variables_are_not_drawn_by_a_model_that_did_not_choose(
    results: Sequence[Coverage], models: list[CallableModel]
) -> None:
    for other in (None, models[1]):
        meaning = coverage_report(results[0], models[0], chooser=other).sections[2]
        assert not [block for block in meaning.blocks if isinstance(block, Picture)]


def test_findings_tell_of_a_mixed_control_and_of_what_it_takes(results: Sequence[Coverage]) -> None:
    words = " ".join(f"{finding.headline} {finding.text}" for finding in coverage_findings(results[0]))
    count = len(results[0].support)
    assert f"{int(results[0].missed.sum())} of {count} landmarks are missed." in words
    assert "of the control stand apart" in words
    assert "No reference model" not in words


def test_where_nothing_is_known_and_no_reference_given_the_page_says_so(
    models: list[CallableModel], chooser: CallableModel
) -> None:
    landmarks = build_support_set(chooser, images(300, 3, factors=False), variables=2, order=[0, 1, 2, 3])
    result = cover_all(models[1:], landmarks, images(150, 4, factors=False), samples=20)[0]
    words = " ".join(f"{finding.headline} {finding.text}" for finding in coverage_findings(result))
    assert "Nothing is known of the landmarks" in words
    assert "No reference model was given." in words
    assert "can be called missed" in words
    render(coverage_report(result, models[1]))


def test_the_leaderboard_begins_with_the_model_that_misses_least(
    results: Sequence[Coverage], models: list[CallableModel]
) -> None:
    report = leaderboard_report(results, models)
    table = next(block for block in report.sections[0].blocks if isinstance(block, Table))
    assert [row[0] for row in table.rows] == ["whole", "<lacking>"]
    assert table.rows[1][-1] == "sky"
    assert table.rows[0][-1] is None
    assert report.numbers["models"] == [result.to_json() for result in results]
    assert [section.title for section in report.sections[1:]] == ["whole", "<lacking>"]
    for section, result in zip(report.sections[1:], reversed(results), strict=True):
        assert section.findings == coverage_findings(result)
    render(report)
    assert len(leaderboard_table(results).columns) == len(table.rows[0])


def test_shown_landmarks_are_the_worst(results: Sequence[Coverage]) -> None:
    worst: Tensor = torch.tensor(results[0].worst)
    assert bool((results[0].p_values[worst].diff() >= 0).all())
    assert bool(results[0].missed[worst[: int(results[0].missed.sum())]].all())
