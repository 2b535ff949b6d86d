"""An attribute's direction found in one latent space and carried to another by a linear map."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from latlas.base.errors import CodeShapeError, IllPosedError, SettingError
from latlas.base.progress import Progress, silent, track
from latlas.base.provenance import Provenance
from latlas.base.records import plain
from latlas.base.seeds import generator
from latlas.base.shapes import Codes, Images
from latlas.data.images import ImageSet
from latlas.encodings.encode import encode
from latlas.maps.fit import fit_map
from latlas.measurements.directions import (
    Direction,
    balanced_accuracy,
    carry_direction,
    cosine,
    find_direction,
    random_direction,
)
from latlas.measurements.reconstruction import decode_batches
from latlas.models.protocols import Autoencoder, LatentModel, require_autoencoder
from latlas.studies.attributes import Judge, JudgeRecord, make_judge, with_attribute
from latlas.studies.pairs import check_comparable, split

EDITS = ("own edit in the source", "carried edit", "own edit in the target", "random directions")
STEPS = (-3, -2, -1, 0, 1, 2, 3)  # of an edit, in spreads of the codes along its direction
_RANDOM = 3  # random directions of the control
_STRIPS = 2  # images of each kind that are shown


@dataclass(frozen=True, kw_only=True)
class Edit:
    """What a judge says of test images moved along one direction, step by step."""

    name: str  # "own edit in the source", "carried edit", ...
    added: tuple[float, ...]  # of images without the attribute, the share judged to have it
    removed: tuple[float, ...]  # of images with it, the share judged to be without


@dataclass(frozen=True, kw_only=True, eq=False)
class DirectionStudy:
    """A direction of the source carried to the target, beside the target's own and random ones."""

    source: str
    target: str
    images: str  # directions found, and the map fitted, on
    test: str  # measured on
    attribute: str
    with_name: str
    without_name: str
    method: str
    found_on: tuple[int, int]  # images with the attribute and without
    tested: tuple[int, int]  # test images with the attribute and without
    edited: tuple[int, int]  # those of them that were edited
    steps: tuple[int, ...]
    cosine: float  # of the carried direction with the target's own
    halves_cosine: float  # of the target's own, found on one half of the images and on the other: how well defined it is
    random_cosine: float  # mean size of a random direction's with the target's own
    step_ratio: float  # length of a carried step over one of the target's own
    accuracy: dict[str, float]  # balanced, on test images, by position along: source, target, carried, random
    edits: tuple[Edit, ...]  # own in the source, carried, own in the target, random
    judge: JudgeRecord
    strips: dict[str, Images]  # kind of image -> pictures: for each image the first three edits, one row each
    provenance: Provenance

    def success(self, name: str) -> tuple[float, float]:
        """Return the shares of images in which an edit adds and removes the attribute, at its longest steps."""
        edit = next(edit for edit in self.edits if edit.name == name)
        return edit.added[-1], edit.removed[0]

    def to_json(self) -> dict[str, Any]:
        """Return every number."""
        names = (
            "source", "target", "images", "test", "attribute", "method", "found_on", "tested", "edited", "steps", "cosine",
            "halves_cosine", "random_cosine", "step_ratio", "accuracy", "edits", "judge",
        )  # fmt: skip
        record: dict[str, Any] = plain(
            {
                **{name: getattr(self, name) for name in names},
                "success": {
                    edit.name: dict(zip(("adding", "removing"), self.success(edit.name), strict=True)) for edit in self.edits
                },
                "provenance": self.provenance.to_json(),
            }
        )
        return record


def study_direction(
    source_model: LatentModel,
    target_model: LatentModel,
    images: ImageSet,
    *,
    attribute: str,
    test: ImageSet | None = None,
    method: str = "difference",
    edited: int = 200,
    seed: int = 0,
    progress: Progress = silent,
) -> DirectionStudy:
    """Find an attribute's direction in the source, carry it to the target by a linear map, and edit images with it.

    The map is fitted on all images (affine, its ridge chosen by generalised cross-validation) and knows nothing of the
    attribute. Edited are the target's own codes of test images. A judge that saw neither model tells what shows.

    Args:
        source_model: in whose latent space the direction is found; a vector latent space.
        target_model: to whose space it is carried; a vector latent space.
        images: with factors, or labels.
        attribute: a factor ("hat": present or not), a value of one ("hair=short04"), or two labels ("3:8": from 3 to 8).
        test: to measure on, with the same factors or labels; None holds out the last fifth of `images`.
        method: "difference" of means, or "logistic" probe.
        edited: test images of each kind to edit, at most.
        seed: decides the judge's training, random directions and which images are edited.
        progress: told throughout.

    Raises:
        CapabilityError: a model lacks an encoder or a decoder.
        CodeShapeError: a spatial latent space.
        ImageFormatError: images of another shape than a model's.
        UnknownNameError: no such factor, value, label or method.
        SettingError: images without factors or labels.
        IllPosedError: fewer than two images with the attribute, or without it.

    Cost: seven decodes of every edited image for each of six directions, and the judge's training.
    """
    source = require_autoencoder(source_model, "A study of directions")
    target = require_autoencoder(target_model, "A study of directions")
    for model in (source, target):
        if len(model.latent_shape) != 1:
            raise CodeShapeError(
                f"{model.name} has a spatial latent space {tuple(model.latent_shape)}; a direction needs a vector one."
            )
    if edited < 1:
        raise SettingError(f"Asked to edit {edited} images of each kind; ask for at least 1.")
    if test is None:
        images, test = split(images)
    check_comparable((source, target), (images, test))
    known, held_out = with_attribute(images, attribute), with_attribute(test, attribute)
    source_all, target_all = encode(source, images, progress=progress), encode(target, images, progress=progress)
    fitted = fit_map(source_all, target_all, ridge="gcv")
    # Two labels leave the images of all others out, which the map is fitted on all the same.
    whole = known.images is images
    source_codes = source_all.mean if whole else encode(source, known.images).mean
    target_codes = target_all.mean if whole else encode(target, known.images).mean
    here = find_direction(source_codes, known.has, method=method)
    own = find_direction(target_codes, known.has, method=method)
    carried = carry_direction(here, fitted.weight, target_codes, known.has)
    random = [
        # A step as long as that of the carried edit: a control that moves less would prove nothing.
        replace(random_direction(target_codes, known.has, generator(seed, "random direction", i)), spread=carried.spread)
        for i in range(_RANDOM)
    ]
    source_test, target_test = encode(source, held_out.images).mean, encode(target, held_out.images).mean
    judge, record = make_judge(known, held_out, (source, source_test), (target, target_test), seed, progress)
    some = {kind: _some(held_out.has == kind, edited, seed) for kind in (False, True)}
    ways = ((EDITS[0], source, source_test, [here]), (EDITS[1], target, target_test, [carried]),
            (EDITS[2], target, target_test, [own]), (EDITS[3], target, target_test, random))  # fmt: skip
    edits = tuple(
        Edit(
            name=name,
            added=_shares(decoder, codes[some[False]], lines, judge, 1),
            removed=_shares(decoder, codes[some[True]], lines, judge, 0),
        )
        for name, decoder, codes, lines in track(ways, "editing", progress)
    )
    return DirectionStudy(
        source=source.name,
        target=target.name,
        images=images.name,
        test=test.name,
        attribute=attribute,
        with_name=known.with_name,
        without_name=known.without_name,
        method=method,
        found_on=_counts(known.has),
        tested=_counts(held_out.has),
        edited=(len(some[True]), len(some[False])),
        steps=STEPS,
        cosine=cosine(carried, own),
        halves_cosine=_halves_cosine(target_codes, known.has, method, seed),
        random_cosine=sum(abs(cosine(line, own)) for line in random) / _RANDOM,
        step_ratio=carried.spread / own.spread,
        accuracy={
            "source": balanced_accuracy(here.tells(source_test), held_out.has),
            "target": balanced_accuracy(own.tells(target_test), held_out.has),
            "carried": balanced_accuracy(carried.tells(target_test), held_out.has),
            "random": sum(balanced_accuracy(line.tells(target_test), held_out.has) for line in random) / _RANDOM,
        },
        edits=edits,
        judge=record,
        strips={
            name: _strips(ways[:3], some[kind][:_STRIPS])
            for kind, name in ((False, known.without_name), (True, known.with_name))
        },
        provenance=Provenance(
            made_by="study_direction",
            seed=seed,
            made_from={
                "source": source.fingerprint,
                "target": target.fingerprint,
                "images": images.content_hash,
                "test": test.content_hash,
            },
            settings={"attribute": attribute, "method": method, "edited": edited},
        ),
    )


def _shares(decoder: Autoencoder, codes: Codes, lines: list[Direction], judge: Judge, wanted: int) -> tuple[float, ...]:
    shares = []
    for step in STEPS:
        verdicts = [judge(batch) for line in lines for batch in decode_batches(decoder, line.move(codes, float(step)))]
        shares.append(float((torch.cat(verdicts) == wanted).double().mean()))
    return tuple(shares)


def _strips(ways: Any, rows: Tensor) -> Images:
    strips: list[Tensor] = []
    for row in rows.tolist():
        for _, decoder, codes, (line,) in ways:
            moved = torch.cat([line.move(codes[row : row + 1], float(step)) for step in STEPS])
            strips.extend(decode_batches(decoder, moved))
    return torch.cat(strips).clone()


def _some(kind: Bool[Tensor, " n"], most: int, seed: int) -> Int[Tensor, " some"]:
    places = kind.nonzero().flatten()
    if len(places) <= most:
        return places
    return places[torch.randperm(len(places), generator=generator(seed, "edited images"))[:most].sort().values]


def _counts(has: Bool[Tensor, " n"]) -> tuple[int, int]:
    return int(has.sum()), int((~has).sum())


def _halves_cosine(codes: Codes, has: Bool[Tensor, " n"], method: str, seed: int) -> float:
    order = torch.randperm(len(codes), generator=generator(seed, "halves"))
    # Each kind is dealt out in turn, so that both halves have their share of a rare one.
    order = torch.cat([order[has[order]], order[~has[order]]])
    halves = [order[0::2], order[1::2]]
    try:
        one, other = (find_direction(codes[half], has[half], method=method) for half in halves)
    except IllPosedError:  # too few images of a kind for two halves; for the whole they sufficed
        return float("nan")
    return cosine(one, other)
