"""Names of data as people say them."""

import re

_PART = re.compile(r"\[(\d*):(\d+)\]$")
_CHOSEN = re.compile(r"\[(\d+) chosen\]$")


def images_in_words(name: str) -> str:
    """Return the name of an image set with its slices in words; a name that has none as it is.

    >>> images_in_words("mnist:test[0:2000][1600:2000]")
    'images 1,600 to 1,999 of mnist:test'
    >>> images_in_words("photos[7:8]"), images_in_words("mnist:test[0:100][12 chosen]"), images_in_words("avatars?size=32")
    ('image 7 of photos', '12 chosen of images 0 to 99 of mnist:test', 'avatars?size=32')
    """
    chosen = _CHOSEN.search(name)
    if chosen:
        return f"{int(chosen[1]):,} chosen of {images_in_words(name[: chosen.start()])}"
    base, parts = name, []
    while part := _PART.search(base):
        parts.append((int(part[1] or 0), int(part[2])))
        base = base[: part.start()]
    if not parts or not base:
        return name
    first, count = 0, 0
    for start, stop in reversed(parts):  # the outermost stands last: it counts within those before it
        first, count = first + start, stop - start
    if count < 1:
        return name
    return f"image {first:,} of {base}" if count == 1 else f"images {first:,} to {first + count - 1:,} of {base}"


def counted_images(name: str, count: int) -> str:
    """Return the name of an image set in words, with its count where the words do not tell it.

    >>> counted_images("mnist:test", 10_000), counted_images("mnist:test[0:500]", 500)
    ('10,000 images of mnist:test', 'images 0 to 499 of mnist:test')
    """
    words = images_in_words(name)
    return f"{count:,} images of {name}" if words == name else words


def percent(share: float) -> str:
    """Return a share in percent, with the digits that it has, written as all reports write it.

    >>> percent(0.05), percent(0.005), percent(0.07)
    ('5 %', '0.5 %', '7 %')
    """
    return f"{100 * share:g} %"


def capital(text: str) -> str:
    """Return a text as the beginning of a sentence.

    >>> capital("images 0 to 9 of Photos")
    'Images 0 to 9 of Photos'
    """
    return text[:1].upper() + text[1:]
