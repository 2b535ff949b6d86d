"""Attributes of images: which images have one, and a judge of pictures that may have gained or lost it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Bool
from torch import Tensor

from latlas.base.errors import IllPosedError, SettingError, unknown_name
from latlas.base.progress import Progress
from latlas.base.shapes import Codes, Images
from latlas.data.images import ImageSet
from latlas.measurements.attribute_classifier import shows, train_attribute_classifier
from latlas.measurements.classifier import DigitsClassifier
from latlas.measurements.reconstruction import decode_batches
from latlas.models.protocols import Autoencoder
from latlas.supports.filters import has_attribute

_BUNDLED = ("mnist", "fashion-mnist")  # sets for which latlas carries a judge
_DIGITS = (1, 28, 28)

# Images -> 1 for each that shows the attribute, 0 for each that is without, -1 for what is neither.
Judge: TypeAlias = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True, eq=False)
class Attributed:
    """Images of which it is known whether they have an attribute; those that are neither are left out."""

    images: ImageSet
    has: Bool[Tensor, " n"]
    without_name: str  # what an image without it is called
    with_name: str


@dataclass(frozen=True, kw_only=True)
class JudgeRecord:
    """Who judges, and how far the judge can be trusted: balanced accuracies on the test images."""

    name: str
    real: float  # on the images themselves
    source: float  # on the source's reconstructions: what it loses counts against both
    target: float


def with_attribute(images: ImageSet, attribute: str) -> Attributed:
    """Return the images of which it is known whether they have an attribute.

    Args:
        images: with factors, or labels.
        attribute: "hat", "hair=short04" or "3:8", as in `study_direction`.

    Raises:
        UnknownNameError: no such factor, value or label.
        SettingError: images without factors or labels.
        IllPosedError: all images have it, or none.
    """
    first, colon, second = attribute.partition(":")
    if colon:
        return _between_labels(images, first, second)
    factor = attribute.partition("=")[0]
    if not images.factors:
        raise SettingError(
            f"{images.name} has no factors to find {attribute!r} among. Give avatars or CelebA, or two labels, as 3:8."
        )
    if factor not in images.factors:
        raise unknown_name(f"factor of {images.name}", factor, images.factors)
    has = has_attribute(images, attribute)
    if bool(has.all()) or not bool(has.any()):
        values = images.factors[factor]
        common = max(set(values), key=values.count)
        raise IllPosedError(
            f"{'All' if bool(has.all()) else 'None'} of {images.name} has {attribute}: there is no difference to find. "
            f"Name a value, as {factor}={common}, or give other images."
        )
    return Attributed(images=images, has=has, with_name=f"with {attribute}", without_name=f"without {attribute}")


def _between_labels(images: ImageSet, first: str, second: str) -> Attributed:
    if images.labels is None:
        raise SettingError(f"{images.name} has no labels to find {first} and {second} among. Name a factor instead.")
    known = {str(label) for label in torch.unique(images.labels).tolist()}
    for label in (first, second):
        if label not in known:
            raise unknown_name(f"label of {images.name}", label, known)
    if first == second:
        raise SettingError(f"Name two different labels, as 3:8; got {first} twice.")
    start, end = int(first), int(second)
    rows = ((images.labels == start) | (images.labels == end)).nonzero().flatten()
    chosen = images.take(rows, name=f"{images.name} of labels {start} and {end}")
    return Attributed(
        images=chosen, has=images.labels[rows] == end, with_name=f"of label {end}", without_name=f"of label {start}"
    )


def make_judge(
    known: Attributed,
    test: Attributed,
    source: tuple[Autoencoder, Codes],
    target: tuple[Autoencoder, Codes],
    seed: int,
    progress: Progress,
) -> tuple[Judge, JudgeRecord]:
    """Return a judge of an attribute, and how far it can be trusted.

    Of mnist and fashion-mnist it is the classifier that latlas carries; of anything else a light network trained here.

    Args:
        known: images to train on.
        test: images to try it on.
        source: a model, and its codes of the test images.
        target: the same of another.
        seed: of the training.
        progress: told of the training.
    """
    data = known.images.name.split(":")[0]
    if known.images.labels is not None and data in _BUNDLED and known.images.image_shape == _DIGITS:
        network = DigitsClassifier.bundled(data)
        without, having = (int(name.removeprefix("of label ")) for name in (known.without_name, known.with_name))

        def judge(images: Tensor) -> Tensor:
            with torch.inference_mode():
                label = network.logits(network(images)).argmax(dim=1)
            return torch.where(label == having, 1, torch.where(label == without, 0, -1))

        name = network.name
    else:
        light = train_attribute_classifier(known.images, known.has, seed=seed, progress=progress)

        def judge(images: Tensor) -> Tensor:
            return shows(light, images).long()

        name = f"a light network trained on {known.images.name}"

    def reliability(batches: Iterable[Images]) -> float:
        verdict = torch.cat([judge(batch) for batch in batches])
        with_it, without_it = (verdict[test.has] == 1).double().mean(), (verdict[~test.has] == 0).double().mean()
        return 0.5 * float(with_it + without_it)

    return judge, JudgeRecord(
        name=name,
        real=reliability(test.images.batches()),
        source=reliability(decode_batches(*source)),
        target=reliability(decode_batches(*target)),
    )
