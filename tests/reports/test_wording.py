"""Names of data in words: which images they are, counted as they were when the slices were taken."""

import pytest
import torch

from latlas.data.images import ImageSet
from latlas.reports.wording import capital, counted_images, images_in_words, percent

WHOLE = ImageSet("mnist:test", torch.arange(3000, dtype=torch.float32).view(-1, 1, 1, 1) / 3000)


@pytest.mark.parametrize(
    "slices", [[(0, 2000), (1600, 2000)], [(100, None)], [(500, 1500), (10, -10), (0, 7)], [(-5, None), (2, 3)], [(3, 1204)]]
)
def test_the_words_name_the_images_that_the_slices_leave(slices: list[tuple[int, int | None]]) -> None:
    part = WHOLE
    for start, stop in slices:
        part = part.slice(start, stop)
    first, last = (round(3000 * float(part.storage[place])) for place in (0, -1))
    expected = f"images {first:,} to {last:,} of mnist:test" if len(part) > 1 else f"image {first:,} of mnist:test"
    assert images_in_words(part.name) == expected
    assert counted_images(part.name, len(part)) == expected


def test_chosen_images_are_counted() -> None:
    chosen = WHOLE.slice(0, 2000).take(torch.tensor([3, 1, 4]))
    assert images_in_words(chosen.name) == "3 chosen of images 0 to 1,999 of mnist:test"


@pytest.mark.parametrize(
    "name", ["", "photos", "avatars:test?size=32", "[0:5]", "odd[5:5]", "odd[9:3]", "odd[-3:]", "a[b]", "]["]
)
def test_what_is_no_slice_stays_as_it_is(name: str) -> None:
    assert images_in_words(name) == name
    assert counted_images(name, 1200) == f"1,200 images of {name}"


def test_a_share_in_percent_keeps_its_digits() -> None:
    assert [percent(share) for share in (0.05, 0.001, 0.125, 1.0, 0.07)] == ["5 %", "0.1 %", "12.5 %", "100 %", "7 %"]


def test_a_sentence_begins_with_a_capital_and_keeps_the_others() -> None:
    assert capital("images of /data/Photos") == "Images of /data/Photos"
    assert capital("") == ""
