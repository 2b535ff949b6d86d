"""Directions: planted ones are found, carried ones are those of the other coordinates, and telling agrees with scikit-learn."""

import math
from collections import Counter

import numpy as np
import pytest
import scipy.ndimage
import torch
from scipy.spatial.distance import cdist
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from torch import Tensor

from latlas.base.errors import CodeShapeError, IllPosedError, ImageFormatError, NonFiniteError, UnknownNameError
from latlas.data.images import ImageSet
from latlas.measurements.attribute_classifier import AttributeClassifier, shows, train_attribute_classifier
from latlas.measurements.directions import (
    METHODS,
    balanced_accuracy,
    carry_direction,
    cosine,
    find_direction,
    random_direction,
)
from latlas.measurements.paired import paired_ratio

PLANTED = torch.tensor([3.0, 0.0, -4.0, 0.0, 0.0], dtype=torch.float64) / 5


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def planted(n: int = 4_000, *, gap: float = 4.0, share: float = 0.3) -> tuple[Tensor, Tensor]:
    """Codes whose two kinds differ by `gap` along the planted direction, about a mean that is not 0, and nowhere else."""
    has = torch.rand(n, generator=torch.Generator().manual_seed(1)) < share
    return normal(n, 5) + 7 + gap * (has.double() - 0.5)[:, None] * PLANTED, has


@pytest.mark.parametrize("method", METHODS)
def test_a_planted_direction_is_found_whatever_the_scale(method: str) -> None:
    codes, has = planted()
    for scale in (1.0, 1e-3, 1e3):
        found = find_direction(scale * codes, has, method=method)
        assert float(found.vector @ PLANTED) > 0.99
        assert float(torch.linalg.vector_norm(found.vector)) == pytest.approx(1)
        along = (scale * codes) @ found.vector
        assert found.spread == pytest.approx(float(np.std(along.numpy())), rel=1e-9)
        # The two kinds lie at 2 and -2 about 7 times the sum of the direction's entries; the threshold lies between.
        assert found.threshold / scale == pytest.approx(7 * float(found.vector.sum()), abs=0.15)


def test_the_difference_of_means_is_that() -> None:
    codes, has = planted()
    difference = codes[has].mean(dim=0) - codes[~has].mean(dim=0)
    found = find_direction(codes.float(), has)
    torch.testing.assert_close(found.vector, difference / difference.norm(), rtol=0, atol=1e-6)


def test_the_logistic_probe_decides_as_scikit_learns_does() -> None:
    codes, has = planted(gap=1.5)
    codes = codes * torch.tensor([1.0, 20.0, 0.1, 1.0, 5.0])
    found = find_direction(codes, has, method="logistic")
    scaled = (codes - codes.mean(dim=0)) / codes.std(dim=0, correction=0)
    probe = LogisticRegression(class_weight="balanced", max_iter=1000).fit(scaled.numpy(), has.numpy())
    assert found.tells(codes).tolist() == probe.predict(scaled.numpy()).tolist()


@pytest.mark.parametrize("method", METHODS)
def test_a_constant_variable_takes_no_part(method: str) -> None:
    codes, has = planted()
    found = find_direction(torch.column_stack([codes, torch.full((len(codes),), 2.0)]), has, method=method)
    assert float(found.vector[-1]) == pytest.approx(0, abs=1e-12)


def test_the_probe_separates_where_the_difference_of_means_is_led_astray() -> None:
    """Noise that two variables share: the best normal is the inverse covariance times the difference (Fisher)."""
    codes, has = planted(gap=1.0)
    shared = 3 * normal(len(codes), 1, seed=8)
    codes = codes + shared * torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    difference, probe = (find_direction(codes, has, method=method) for method in METHODS)
    accuracies = [balanced_accuracy(found.tells(codes), has) for found in (difference, probe)]
    assert accuracies[1] > accuracies[0] + 0.05
    covariance = np.cov(codes[has].numpy().T) + np.cov(codes[~has].numpy().T)
    fisher = torch.from_numpy(np.linalg.solve(covariance, (codes[has].mean(0) - codes[~has].mean(0)).numpy()))
    assert float(probe.vector @ fisher / fisher.norm()) > 0.98
    assert float(difference.vector @ fisher / fisher.norm()) < 0.95


def test_a_move_changes_the_position_and_nothing_else() -> None:
    codes, has = planted(50)
    found = find_direction(codes, has)
    for steps in (-3.0, 0.0, 2.0):
        moved = found.move(codes, steps)
        torch.testing.assert_close(
            found.positions(moved) - found.positions(codes), torch.full((50,), steps * found.spread).double()
        )
        off = torch.eye(5, dtype=torch.float64) - torch.outer(found.vector, found.vector)
        torch.testing.assert_close(moved @ off, codes @ off)
    assert found.move(codes.float(), 1.0).dtype == torch.float32


# Carrying


@pytest.mark.parametrize("width", [3, 5, 8])
def test_a_carried_step_is_the_image_of_a_step(width: int) -> None:
    """Moving and then mapping is mapping and then moving, whatever the map's shift."""
    codes, has = planted(200)
    weight, shift = normal(5, width, seed=3), normal(width, seed=4)
    found = find_direction(codes, has)
    there = codes @ weight + shift
    carried = carry_direction(found, weight, there, has)
    assert float(carried.vector.norm()) == pytest.approx(1)
    torch.testing.assert_close(carried.move(there, 2.0), found.move(codes, 2.0) @ weight + shift)


def test_of_a_linear_world_the_carried_difference_is_the_others_own() -> None:
    codes, has = planted()
    weight = normal(5, 5, seed=3)
    there = codes @ weight + 2
    own = find_direction(there, has)
    carried = carry_direction(find_direction(codes, has), weight, there, has)
    assert cosine(carried, own) == pytest.approx(1)
    assert carried.threshold == pytest.approx(own.threshold)
    assert carried.tells(there).equal(own.tells(there))


def test_random_directions_are_uniform_and_of_unit_length() -> None:
    codes, has = planted(100)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([random_direction(codes, has, generator).vector for _ in range(3000)])
    torch.testing.assert_close(drawn.norm(dim=1), torch.ones(3000).double())
    torch.testing.assert_close(drawn.mean(dim=0), torch.zeros(5).double(), rtol=0, atol=0.03)
    torch.testing.assert_close(drawn.T @ drawn / 3000, torch.eye(5).double() / 5, rtol=0, atol=0.02)


def test_a_random_direction_is_measured_as_any_other() -> None:
    """Its step is the codes' deviation along it, and its threshold lies midway between the kinds, however few the one is."""
    codes, has = planted(share=0.1)
    found = random_direction(codes, has, torch.Generator().manual_seed(3))
    along = codes.numpy() @ found.vector.numpy()
    assert found.spread == pytest.approx(float(np.std(along)))
    assert found.threshold == pytest.approx(float(along[has].mean() + along[~has].mean()) / 2)
    assert abs(found.threshold - along.mean()) > 0.05, "the kinds must be unlike, or all would agree"


# Telling


def test_the_balanced_accuracy_is_scikit_learns() -> None:
    generator = torch.Generator().manual_seed(0)
    told, has = (torch.rand(300, generator=generator) < share for share in (0.6, 0.1))
    assert balanced_accuracy(told, has) == pytest.approx(balanced_accuracy_score(has.numpy(), told.numpy()))
    assert balanced_accuracy(has, has) == 1
    assert balanced_accuracy(torch.ones(300, dtype=torch.bool), has) == 0.5


def test_a_judge_learns_a_mark_and_nothing_else_by_seed_alone() -> None:
    """Images of noise, some with a bright corner; the rare kind is told as well as the common one."""
    state = torch.get_rng_state()
    generator = torch.Generator().manual_seed(0)
    pixels = 0.6 * torch.rand(500, 3, 12, 12, generator=generator)
    has = torch.rand(500, generator=generator) < 0.1
    pixels[has, :, :4, :4] += 0.35
    images = ImageSet("marks", pixels)
    judge = train_attribute_classifier(images.slice(0, 400), has[:400], steps=80)
    assert balanced_accuracy(shows(judge, pixels[400:]), has[400:]) > 0.95
    again = train_attribute_classifier(images.slice(0, 400), has[:400], steps=80)
    assert all(a.equal(b) for a, b in zip(judge.state_dict().values(), again.state_dict().values(), strict=True))
    other = train_attribute_classifier(images.slice(0, 400), has[:400], steps=80, seed=1)
    assert not other.outer.weight.equal(judge.outer.weight)
    assert torch.get_rng_state().equal(state)


def test_of_each_kind_half_is_shown_blurred_as_scipys_mean_filter_blurs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the judge would take smoothness, which a decoder's images have, for the attribute or for its lack."""
    pixels = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    has = torch.arange(6) < 3
    inside = np.ones((8, 8))
    blurred = [
        scipy.ndimage.uniform_filter(image, 3, mode="constant") / scipy.ndimage.uniform_filter(inside, 3, mode="constant")
        for image in pixels[:, 0].double().numpy()
    ]
    sights = np.stack([*pixels[:, 0].numpy(), *blurred]).reshape(12, -1)
    shown: list[np.ndarray] = []
    forward = AttributeClassifier.forward

    def watched(network: AttributeClassifier, images: Tensor) -> Tensor:
        shown.append(images.numpy().reshape(len(images), -1))
        return forward(network, images)

    monkeypatch.setattr(AttributeClassifier, "forward", watched)
    train_attribute_classifier(ImageSet("few", pixels), has, steps=3)
    for batch in shown:
        apart = cdist(batch, sights)
        assert float(apart.min(axis=1).max()) < 1e-5
        which = apart.argmin(axis=1)
        counts = Counter((bool(has[sight % 6]), sight >= 6) for sight in which.tolist())
        assert counts == {(kind, smooth): 16 for kind in (False, True) for smooth in (False, True)}


# Errors in pairs


def test_a_paired_ratio_agrees_with_scipy() -> None:
    from scipy import stats

    references = torch.tensor([1.0, 2.0, 3.0, 5.0, 4.0], dtype=torch.float64)
    errors = references * torch.tensor([0.8, 0.9, 0.85, 1.02, 0.7], dtype=torch.float64)
    found = paired_ratio(errors, references)
    logs = np.log((errors / references).numpy())
    assert found.mean == pytest.approx(float(stats.gmean((errors / references).numpy())))
    assert found.p_value == pytest.approx(float(stats.ttest_1samp(logs, 0.0).pvalue))


def test_a_ratio_without_spread_or_pairs() -> None:
    one, two = torch.ones(3, dtype=torch.float64), torch.full((3,), 2.0, dtype=torch.float64)
    assert (paired_ratio(one, one).mean, paired_ratio(one, one).p_value) == (1, 1)
    assert paired_ratio(two, one).p_value == 0
    assert math.isnan(paired_ratio(two[:1], one[:1]).p_value)
    for errors in (one[:0], 0 * one):
        with pytest.raises(IllPosedError, match="above 0"):
            paired_ratio(errors, errors)


# Mistakes


def test_bad_codes_are_refused() -> None:
    codes, has = planted(20)
    with pytest.raises(UnknownNameError, match="Did you mean 'logistic'"):
        find_direction(codes, has, method="logistc")
    for kind in (torch.zeros(20, dtype=torch.bool), torch.arange(20) < 1, torch.arange(20) < 19):
        with pytest.raises(IllPosedError, match="at least 2 images with the attribute"):
            find_direction(codes, kind)
    with pytest.raises(IllPosedError, match="same mean"):
        find_direction(torch.ones(4, 2), torch.tensor([True, False, True, False]))
    with pytest.raises(NonFiniteError):
        find_direction(torch.full((20, 2), math.nan), has)
    found = find_direction(codes, has)
    with pytest.raises(CodeShapeError, match="5 variables"):
        found.move(codes[:, :3], 1.0)
    with pytest.raises(CodeShapeError, match="5 variables needs a map"):
        carry_direction(found, torch.eye(3).double(), codes[:, :3], has)
    with pytest.raises(IllPosedError, match="lost on the way"):
        carry_direction(found, torch.zeros(5, 3).double(), codes[:, :3], has)
    with pytest.raises(CodeShapeError, match="no angle"):
        cosine(found, find_direction(codes[:, :3], has))
    with pytest.raises(IllPosedError, match="images without"):
        balanced_accuracy(torch.ones(3, dtype=torch.bool), torch.ones(3, dtype=torch.bool))


def test_a_judge_refuses_what_it_cannot_learn_from() -> None:
    images = ImageSet("blank", torch.zeros(10, 1, 8, 8))
    with pytest.raises(IllPosedError, match="with it and images without"):
        train_attribute_classifier(images, torch.ones(10, dtype=torch.bool))
    with pytest.raises(ImageFormatError, match="8 pixels"):
        train_attribute_classifier(ImageSet("tiny", torch.zeros(10, 1, 4, 9)), torch.arange(10) < 5)
