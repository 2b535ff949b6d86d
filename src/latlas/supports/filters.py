"""Which images may be chosen: those with or without an attribute, and none of a list of names."""

import difflib
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from latlas.base.errors import IllPosedError, SettingError, UnknownNameError, unknown_name
from latlas.data.avatar_styles import ABSENT
from latlas.data.images import ImageSet

_ABSENT = (ABSENT, "no")  # values that say that a factor is not there: of avatars, of CelebA


def has_attribute(images: ImageSet, attribute: str) -> Bool[Tensor, " n"]:
    """Tell of each image whether it has an attribute.

    Args:
        images: with factors, or with labels.
        attribute: "hat" (a factor that is there), "hair=short04" (a factor's value), or "label=3".

    Raises:
        SettingError: images without factors and labels.
        UnknownNameError: no such factor, value or label; names the nearest.
    """
    known: dict[str, Sequence[str]] = dict(images.factors or {})
    if images.labels is not None:
        known["label"] = [str(label) for label in images.labels.tolist()]
    if not known:
        raise SettingError(
            f"{images.name} has no attributes to find {attribute!r} among. Give avatars or CelebA, or a list of names to leave out."
        )
    factor, equals, value = attribute.partition("=")
    if factor not in known:
        raise unknown_name(f"attribute of {images.name}", factor, known)
    values = known[factor]
    if factor == "label" and not equals:
        raise SettingError("Every image has a label: name which, as label=3.")
    if equals and value not in values:
        raise unknown_name(f"value of {factor} in {images.name}", value, set(values))
    return torch.tensor([found == value if equals else found not in _ABSENT for found in values], dtype=torch.bool)


def allowed(
    images: ImageSet, *, with_: Sequence[str] = (), without: Sequence[str] = (), exclude: Sequence[str] = ()
) -> Int[Tensor, " kept"]:
    """Return the indices of the images that may be chosen, ascending.

    Args:
        images: to choose from.
        with_: attributes that an image must have, all of them, as in `has_attribute`; a single word is one.
        without: attributes that it must not have, none of them.
        exclude: names of images to leave out, as `ImageSet.name_of` gives them.

    Raises:
        SettingError: images without attributes.
        UnknownNameError: no such attribute or image; names the nearest.
        IllPosedError: no image is left.
    """
    with_, without, exclude = ((part,) if isinstance(part, str) else tuple(part) for part in (with_, without, exclude))
    kept = torch.ones(len(images), dtype=torch.bool)
    for attribute in with_:
        kept &= has_attribute(images, attribute)
    for attribute in without:
        kept &= ~has_attribute(images, attribute)
    if exclude:
        places = {images.name_of(index): index for index in range(len(images))}
        for name in exclude:
            if name not in places:
                close = difflib.get_close_matches(name, places, n=1, cutoff=0.5)
                suggestion = f" Did you mean {close[0]!r}?" if close else ""
                raise UnknownNameError(f"{images.name} holds no image {name!r}, which was to be left out.{suggestion}")
        kept[[places[name] for name in exclude]] = False
    if not bool(kept.any()):
        asked = [*with_, *(f"no {attribute}" for attribute in without), *(["the names left out"] if exclude else [])]
        raise IllPosedError(f"No image of {images.name} is left: {', '.join(asked)}. Ask for less.")
    return kept.nonzero().flatten()
