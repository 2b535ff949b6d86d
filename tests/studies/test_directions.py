"""Directions carried: in a linear world the carried edit is the target's own, and on digits it turns threes into eights."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from latlas.base.errors import CodeShapeError, IllPosedError, SettingError, UnknownNameError
from latlas.data.images import ImageSet
from latlas.models.adapters.callables import CallableModel
from latlas.reports.directions import direction_findings, direction_report
from latlas.reports.page import write_report
from latlas.studies.attributes import with_attribute
from latlas.studies.directions import EDITS, STEPS, DirectionStudy, study_direction

SHAPE, PIXELS = (1, 8, 8), 64


def linear_model(drawing: Tensor, basis: Tensor, name: str, *, shape: tuple[int, int, int] = SHAPE, shift: float = 0.0) -> Any:
    """A model of images = drawing of factors, in coordinates factors @ basis + shift."""
    unmix, back = torch.linalg.pinv(drawing), torch.linalg.pinv(basis)
    middle = 0.5 if shape == SHAPE else 0.0

    def encode(images: Tensor) -> Tensor:
        return ((images.flatten(1).double() - middle) @ unmix @ basis + shift).to(images.dtype)

    def decode(codes: Tensor) -> Tensor:
        drawn = middle + (codes.double() - shift) @ back @ drawing
        return drawn.clamp(0, 1).to(codes.dtype).unflatten(1, shape)

    return CallableModel(
        name=name, image_shape=shape, latent_shape=(basis.shape[1],), encode_with=encode, decode_with=decode, fingerprint=name
    )


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def marked() -> tuple[ImageSet, Tensor]:
    """Images of four factors; the first is a bright square, there in a third of them, and named a factor of the set."""
    drawing = 0.03 * random(4, PIXELS, seed=1)
    square = torch.zeros(8, 8, dtype=torch.float64)
    square[1:5, 1:5] = 0.15
    drawing[0] = square.flatten()
    factors = random(600, 4, seed=2).clamp(-2.5, 2.5)
    has = torch.rand(600, generator=torch.Generator().manual_seed(3)) < 1 / 3
    factors[:, 0] = has.double() * 2 - 1 + 0.2 * factors[:, 0]
    pixels = (0.5 + factors @ drawing).float().clamp(0, 1).unflatten(1, SHAPE)
    words = tuple("red" if i % 2 else "blue" for i in range(600))
    named = {"square": tuple("one" if there else "none" for there in has.tolist()), "colour": words, "paper": ("white",) * 600}
    return ImageSet("squares", pixels, factors=named, labels=torch.arange(600) % 3), drawing


@pytest.fixture(scope="module")
def study(marked: tuple[ImageSet, Tensor]) -> DirectionStudy:
    images, drawing = marked
    mixing = torch.eye(4, dtype=torch.float64) + 0.4 * random(4, 4, seed=5)
    source = linear_model(drawing, torch.eye(4, dtype=torch.float64), "old")
    target = linear_model(drawing, mixing, "new", shift=1.5)
    return study_direction(source, target, images, attribute="square", edited=30)


def test_in_a_linear_world_the_carried_direction_is_the_targets_own(study: DirectionStudy) -> None:
    assert study.cosine == pytest.approx(1, abs=1e-6)
    assert 0.3 < study.step_ratio < 3
    assert study.halves_cosine > 0.95
    assert study.random_cosine < 0.95


def test_the_three_edits_then_draw_the_same_and_the_edit_succeeds(study: DirectionStudy) -> None:
    own_source, carried, _, chance = study.edits
    assert tuple(edit.name for edit in study.edits) == EDITS
    assert study.judge.real > 0.98
    assert study.judge.target > 0.98
    assert carried.added == pytest.approx(own_source.added, abs=0.04)
    assert study.success("carried edit") == (carried.added[-1], carried.removed[0])
    assert min(*study.success("carried edit"), *study.success("own edit in the target")) > 0.9
    assert carried.added[STEPS.index(0)] < 0.1
    assert max(carried.added[:3]) < 0.1  # the wrong way adds nothing
    assert chance.added[-1] < 0.7 * carried.added[-1]
    for strips in study.strips.values():
        rows = strips.unflatten(0, (2, 3, len(STEPS)))
        torch.testing.assert_close(rows[:, 0], rows[:, 1], rtol=0, atol=1e-3)  # the source's own, and carried


def test_the_attribute_is_told_in_every_space_and_not_by_chance(study: DirectionStudy) -> None:
    assert study.accuracy["source"] > 0.97
    assert study.accuracy["carried"] == study.accuracy["target"] > 0.8  # one direction, so one answer
    assert study.accuracy["random"] < 0.8
    assert study.found_on[0] + study.found_on[1] == 480
    assert study.tested[0] + study.tested[1] == 120
    assert study.edited == (30, 30)


def test_the_page_says_what_the_numbers_say(study: DirectionStudy, tmp_path: Path) -> None:
    page = write_report(direction_report(study), tmp_path / "page").read_text()
    numbers = json.loads((tmp_path / "page/report.json").read_text())
    assert numbers == json.loads(json.dumps(study.to_json(), allow_nan=False))
    shares = numbers["success"]["carried edit"]
    assert f"turns {100 * shares['adding']:.0f} % of images without square into images with square" in page
    assert page.count("<img") == 2
    assert [finding.level for finding in direction_findings(study)] == ["good", "good"]


def test_labels_leave_out_what_is_neither(marked: tuple[ImageSet, Tensor]) -> None:
    images, _ = marked
    found = with_attribute(images, "0:2")
    assert len(found.images) == 400
    assert found.has.tolist() == [i % 3 == 2 for i in range(600) if i % 3 != 1]
    assert (found.without_name, found.with_name) == ("of label 0", "of label 2")


def test_a_value_of_a_factor_is_an_attribute(marked: tuple[ImageSet, Tensor]) -> None:
    images, _ = marked
    assert with_attribute(images, "colour=red").has.tolist() == [i % 2 == 1 for i in range(600)]
    there = with_attribute(images, "square")
    assert there.images is images
    assert there.has.equal(with_attribute(images, "square=one").has)


def test_on_digits_the_carried_edit_turns_threes_into_eights(mnist_train: ImageSet, mnist_test: ImageSet) -> None:
    """Two bases of the leading principal components: the judge is the classifier that latlas carries."""
    images = mnist_train.slice(0, 4000)
    _, _, components = torch.linalg.svd(images.tensor().flatten(1).double(), full_matrices=False)
    drawing = components[:24]
    shape = (1, 28, 28)
    source = linear_model(drawing, torch.eye(24, dtype=torch.float64), "pca", shape=shape)
    target = linear_model(drawing, torch.linalg.qr(random(24, 24, seed=9)).Q, "turned", shape=shape)
    result = study_direction(source, target, images, attribute="3:8", test=mnist_test.slice(0, 2000), edited=60)
    assert result.judge.name == "digits classifier"
    assert result.judge.real > 0.95
    assert result.cosine == pytest.approx(1, abs=1e-3)
    assert min(result.success("carried edit")) > 0.3
    pairs = zip(result.success("random directions"), result.success("carried edit"), strict=True)
    assert all(chance < 0.6 * carried for chance, carried in pairs)
    assert min(result.accuracy["carried"], result.accuracy["target"]) > 0.85


# Mistakes


def test_attributes_that_do_not_exist_or_do_not_differ_are_refused(marked: tuple[ImageSet, Tensor]) -> None:
    images, _ = marked
    for attribute, error, words in (
        ("sqare", UnknownNameError, "Did you mean 'square'"),
        ("colour=rad", UnknownNameError, "Did you mean 'red'"),
        ("paper", IllPosedError, "All of squares has paper"),
        ("paper=white", IllPosedError, "no difference to find"),
        ("0:7", UnknownNameError, "Unknown label of squares '7'"),
        ("1:1", SettingError, "two different labels"),
        ("0:", UnknownNameError, "Unknown label"),
        ("", UnknownNameError, "Unknown factor"),
    ):
        with pytest.raises(error, match=words):
            with_attribute(images, attribute)
    bare = ImageSet("bare", images.storage)
    with pytest.raises(SettingError, match="no factors"):
        with_attribute(bare, "square")
    with pytest.raises(SettingError, match="no labels"):
        with_attribute(bare, "3:8")


def test_models_and_settings_that_cannot_answer_are_refused(marked: tuple[ImageSet, Tensor]) -> None:
    images, drawing = marked
    model = linear_model(drawing, torch.eye(4, dtype=torch.float64), "m")
    with pytest.raises(SettingError, match="edit 0 images"):
        study_direction(model, model, images, attribute="square", edited=0)
    with pytest.raises(UnknownNameError, match="method"):
        study_direction(model, model, images, attribute="square", method="magic")
    grid = CallableModel(
        name="grid", image_shape=SHAPE, latent_shape=(1, 2, 2), encode_with=model.encode_with, decode_with=model.decode_with,
        fingerprint="g",
    )  # fmt: skip
    with pytest.raises(CodeShapeError, match="grid has a spatial"):
        study_direction(grid, model, images, attribute="square")


def test_a_blind_judge_is_told_of(study: DirectionStudy) -> None:
    from dataclasses import replace

    poor = replace(study, judge=replace(study.judge, target=0.6), halves_cosine=math.nan)
    findings = direction_findings(poor)
    assert findings[-1].level == "warning"
    assert "0.60 of reconstructions of new" in findings[-1].headline
    assert "have –;" in findings[1].text
