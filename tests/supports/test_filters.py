"""Filters: what is asked for is kept, and what does not exist is answered with the nearest."""

import pytest
import torch

from latlas.base.errors import IllPosedError, SettingError, UnknownNameError
from latlas.data.images import ImageSet
from latlas.supports.filters import allowed, has_attribute


def faces(*, names: bool = False) -> ImageSet:
    return ImageSet(
        "faces",
        torch.zeros(5, 1, 2, 2, dtype=torch.uint8),
        labels=torch.tensor([3, 8, 3, 3, 8]),
        names=tuple(f"{i}.png" for i in range(5)) if names else (),
        factors={"hat": ("none", "tall", "flat", "none", "tall"), "Smiling": ("yes", "no", "no", "yes", "yes")},
    )


@pytest.mark.parametrize(
    ("attribute", "expected"),
    [("hat", [1, 2, 4]), ("hat=tall", [1, 4]), ("hat=none", [0, 3]), ("Smiling", [0, 3, 4]), ("label=3", [0, 2, 3])],
)
def test_an_attribute_is_a_factor_that_is_there_or_a_value(attribute: str, expected: list[int]) -> None:
    assert has_attribute(faces(), attribute).nonzero().flatten().tolist() == expected


def test_all_that_is_asked_for_holds_at_once() -> None:
    assert allowed(faces()).tolist() == [0, 1, 2, 3, 4]
    assert allowed(faces(), without=("hat",)).tolist() == [0, 3]
    assert allowed(faces(), without="hat").tolist() == [0, 3], "a single word is one attribute, not letters"
    assert allowed(faces(), with_=("hat", "Smiling")).tolist() == [4]
    assert allowed(faces(), with_=("Smiling",), without=("hat=tall", "label=8")).tolist() == [0, 3]
    assert allowed(faces(), exclude=("#0", "#4")).tolist() == [1, 2, 3]
    assert allowed(faces(names=True), without=("hat",), exclude=("3.png",)).tolist() == [0]


def test_what_does_not_exist_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"Unknown attribute of faces 'hats'\. Did you mean 'hat'"):
        allowed(faces(), without=("hats",))
    with pytest.raises(UnknownNameError, match=r"Unknown value of hat in faces 'tal'\. Did you mean 'tall'"):
        allowed(faces(), with_=("hat=tal",))
    with pytest.raises(UnknownNameError, match=r"faces holds no image '33\.png'.*Did you mean '3\.png'"):
        allowed(faces(names=True), exclude=("33.png",))
    with pytest.raises(SettingError, match="name which, as label=3"):
        allowed(faces(), without=("label",))
    with pytest.raises(SettingError, match="plain has no attributes to find 'hat' among"):
        allowed(ImageSet("plain", torch.zeros(2, 1, 2, 2)), without=("hat",))


def test_a_filter_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(IllPosedError, match=r"No image of faces is left: hat=flat, no hat\."):
        allowed(faces(), with_=("hat=flat",), without=("hat",))
