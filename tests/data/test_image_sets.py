"""The ImageSet: one range inside, whatever came in, and a hash for what it holds."""

from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from latlas.base.errors import ImageFormatError, NonFiniteError, SettingError
from latlas.data.images import ImageSet, to_floats, to_pixels


def pixels(n: int = 10, *, channels: int = 1, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, channels, 3, 4), generator=generator, dtype=torch.uint8)


def image_set(n: int = 10) -> ImageSet:
    return ImageSet("set", pixels(n), labels=torch.arange(n) * 2, names=tuple(f"{index}.png" for index in range(n)))


# Range and type


def test_bytes_become_floats_in_the_unit_interval_and_come_back() -> None:
    every = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    floats = ImageSet("all", every).tensor()
    assert floats.dtype == torch.float32
    np.testing.assert_allclose(floats.flatten().double().numpy(), np.arange(256) / 255, rtol=1e-7)
    assert to_pixels(floats).equal(every)
    assert (float(floats.min()), float(floats.max())) == (0.0, 1.0)


def test_converting_does_not_touch_what_is_stored() -> None:
    images = ImageSet("set", pixels())
    before = images.storage.clone()
    to_floats(images.storage).zero_()
    assert images.storage.equal(before)


def test_floats_are_rounded_to_the_nearest_level_and_clamped() -> None:
    values = torch.tensor([-0.5, 0.4 / 255, 0.6 / 255, 254.4 / 255, 1.5]).reshape(1, 1, 1, 5)
    assert to_pixels(values).flatten().tolist() == [0, 0, 1, 254, 255]
    assert to_pixels(values).dtype == torch.uint8


def test_floats_in_the_unit_interval_pass_unchanged() -> None:
    values = torch.tensor([0.0, 1e-30, 0.1, 1.0]).reshape(1, 1, 2, 2)
    assert ImageSet("set", values).tensor().equal(values)


@pytest.mark.parametrize("value", [-1e-6, 1.0001, 255.0, -1.0])
def test_floats_of_another_range_are_refused_with_what_came(value: float) -> None:
    values = torch.full((3, 1, 2, 2), 0.5)
    values[1, 0, 1, 0] = value
    with pytest.raises(ImageFormatError, match=r"set: float images must lie in \[0, 1\], got .*Rescale them, or give uint8"):
        ImageSet("set", values)


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf")])
def test_an_image_that_holds_nan_is_named(poison: float) -> None:
    values = torch.zeros(5, 1, 2, 2)
    values[3, 0, 0, 1] = poison
    values[4] = poison
    with pytest.raises(NonFiniteError, match=r"set: image 3 holds NaN or infinity. Remove or repair it"):
        ImageSet("set", values)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.int64, torch.bool, torch.int8])
def test_other_types_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(ImageFormatError, match=f"must be uint8 or float32, got {dtype}. Convert them first"):
        ImageSet("set", torch.zeros(2, 1, 3, 3, dtype=dtype))


@pytest.mark.parametrize("shape", [(3, 3), (2, 3, 3), (2, 2, 3, 3), (2, 4, 3, 3), (2, 3, 3, 1, 1), (2, 28, 28, 1)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageFormatError, match="n x c x h x w with 1 or 3 channels, got"):
        ImageSet("set", torch.zeros(shape))


@pytest.mark.parametrize("labels", [torch.zeros(9), torch.zeros(10, 1), torch.zeros(())])
def test_labels_that_are_not_one_an_image_are_refused(labels: torch.Tensor) -> None:
    with pytest.raises(ImageFormatError, match=r"labels have shape .*expected \(10,\), one an image"):
        ImageSet("set", pixels(10), labels=labels)


def test_names_that_are_not_one_an_image_are_refused() -> None:
    with pytest.raises(ImageFormatError, match="got 2 names for 10 images"):
        ImageSet("set", pixels(10), names=("a", "b"))


# Batches


@pytest.mark.parametrize("floats", [False, True])
@given(n=st.integers(0, 12), size=st.integers(1, 14))
def test_batches_laid_end_to_end_are_the_whole(floats: bool, n: int, size: int) -> None:
    images = ImageSet("set", to_floats(pixels(n)) if floats else pixels(n))
    batches = list(images.batches(size))
    assert [len(batch) for batch in batches] == [size] * (n // size) + ([n % size] if n % size else [])
    whole = torch.cat([torch.zeros(0, 1, 3, 4), *batches])
    assert whole.equal(images.tensor())


@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_of_nothing_is_refused(size: int) -> None:
    with pytest.raises(SettingError, match=f"at least 1 image, got {size}"):
        next(image_set().batches(size))


# Parts


@given(indices=st.lists(st.integers(-10, 9), max_size=15))
def test_taking_keeps_pixels_labels_and_names_together(indices: list[int]) -> None:
    images = image_set()
    taken = images.take(torch.tensor(indices, dtype=torch.int64))
    assert len(taken) == len(indices)
    for place, index in enumerate(indices):
        assert taken.storage[place].equal(images.storage[index])
        assert taken.labels is not None
        assert images.labels is not None
        assert int(taken.labels[place]) == int(images.labels[index])
        assert taken.name_of(place) == images.name_of(index % 10)


def test_a_choice_says_how_many_it_holds_unless_it_is_named() -> None:
    assert image_set().take(torch.tensor([1, 5])).name == "set[2 chosen]"
    assert image_set().take(torch.tensor([1, 5]), name="mine").name == "mine"


@given(start=st.none() | st.integers(-12, 12), stop=st.none() | st.integers(-12, 12))
def test_slicing_counts_as_python_does(start: int | None, stop: int | None) -> None:
    images = image_set()
    expected = list(range(10))[start:stop]
    if not expected:
        with pytest.raises(SettingError, match=r"set\[.*\] is empty: the set has 10 images"):
            images.slice(start, stop)
        return
    part = images.slice(start, stop)
    assert part.storage.equal(images.storage[expected])
    assert part.labels is not None
    assert part.labels.tolist() == [2 * index for index in expected]
    assert part.names == tuple(f"{index}.png" for index in expected)
    assert part.name == ("set" if len(expected) == 10 else f"set[{expected[0]}:{expected[-1] + 1}]")


def test_an_image_without_a_file_is_called_by_its_number() -> None:
    assert ImageSet("set", pixels()).name_of(7) == "#7"
    assert image_set().name_of(7) == "7.png"


def test_a_set_says_how_many_images_of_what_shape_it_holds() -> None:
    images = ImageSet("set", pixels(6, channels=3))
    assert len(images) == 6
    assert images.image_shape == (3, 3, 4)


# Content


def test_the_content_hash_is_of_pixels_and_their_order_alone() -> None:
    images = image_set()
    assert ImageSet("other", pixels()).content_hash == images.content_hash
    assert images.take(torch.arange(10)).content_hash == images.content_hash
    assert images.take(torch.arange(9, -1, -1)).content_hash != images.content_hash
    assert images.slice(0, 9).content_hash != images.content_hash
    changed = pixels()
    changed[4, 0, 1, 1] ^= 1
    assert ImageSet("set", changed).content_hash != images.content_hash


# Factors


def test_factors_go_with_their_images() -> None:
    hats = tuple("abcdefghij")
    images = ImageSet("set", pixels(10), factors={"hat": hats, "hair": hats[::-1]})
    assert images.take(torch.tensor([7, 0, 7])).factors == {"hat": ("h", "a", "h"), "hair": ("c", "j", "c")}
    assert images.slice(2, 5).factors == {"hat": ("c", "d", "e"), "hair": ("h", "g", "f")}
    assert images.slice(None, None).factors == images.factors
    assert image_set().take(torch.tensor([1])).factors is None


def test_factors_that_are_not_one_an_image_are_refused() -> None:
    with pytest.raises(ImageFormatError, match=r"factor 'hat' has 2 values for 10 images. Give one an image"):
        ImageSet("set", pixels(10), factors={"hat": ("a", "b")})


def test_a_set_is_a_value_that_nobody_changes() -> None:
    """Its content hash is remembered, so what it was made of must stay."""
    with pytest.raises(FrozenInstanceError):
        image_set().storage = pixels(3)  # type: ignore[misc]


def test_blocks_are_the_set_in_parts_with_all_that_is_known_of_each() -> None:
    images = ImageSet(
        name="some",
        storage=torch.arange(7 * 4, dtype=torch.uint8).view(7, 1, 2, 2),
        labels=torch.arange(7),
        names=tuple("abcdefg"),
    )
    blocks = list(images.blocks([(5, 7), (0, 3)]))
    assert [block.indices.tolist() for block in blocks] == [[5, 6], [0, 1, 2]]
    assert [block.names for block in blocks] == [("f", "g"), ("a", "b", "c")]
    for block in blocks:
        assert torch.equal(block.pixels, images.storage[block.indices])
        assert block.labels is not None
        assert torch.equal(block.labels, block.indices)
    assert images.listing_hash == images.content_hash


@pytest.mark.parametrize("bounds", [(0, 11), (9, 11), (-1, 2), (10, 10), (4, 3)])
def test_a_block_that_leaves_the_set_or_holds_nothing_is_refused(bounds: tuple[int, int]) -> None:
    with pytest.raises(SettingError, match=r"set has 10 images; a block must lie in \[0, 10\)"):
        list(image_set().blocks([bounds]))
    (last,) = image_set().blocks([(9, 10)])
    assert last.names == ("9.png",)
