"""Every ordered pair of a list of models: what a linear map from one to the other loses, in image space."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count as count_from
from typing import Any, Literal

from torch import Tensor

from latlas.base.errors import SettingError
from latlas.base.progress import Progress, silent
from latlas.base.provenance import Provenance
from latlas.base.records import plain
from latlas.data.images import ImageSet
from latlas.encodings.encode import encode
from latlas.encodings.encoding import Encoding
from latlas.measurements.reconstruction import decode_errors
from latlas.models.given import check_model
from latlas.models.protocols import Decoder, LatentModel, require_autoencoder, require_generator
from latlas.studies.bounds import ratio, recovered_share, share_of, target_bounds
from latlas.studies.pairs import (
    CodeMap,
    MapSettings,
    PairedCodes,
    check_comparable,
    is_stream_only,
    relocate,
    require_varied,
    split,
    stream_of,
    tell_if_alike,
)
from latlas.studies.routes import Error, explained, latent_error

_EXAMPLES = 6
_TESTED = 4  # codes of a stream fitted on for each that is measured on


@dataclass(frozen=True, kw_only=True, eq=False)
class Cell:
    """One ordered pair of models: the errors of the map, and the bounds that they must be read against."""

    source: str
    target: str
    images: str  # measured on
    L: Error
    M: Error
    target_R: Error  # 0 but for rounding where the target's codes are known
    mean_code: Error
    no_map: Error | None  # None where the latent shapes differ
    r2: float | None  # mean over target variables that vary
    linear_map: CodeMap
    examples: Tensor  # relocated codes of the first few images, for the target to decode

    @property
    def recovered_share(self) -> float | None:
        """Share of the way from the mean code's error to the target's own."""
        return recovered_share(self.M.mean, self.mean_code.mean, self.target_R.mean)

    @property
    def over_target(self) -> float | None:
        """M over the target's own reconstruction; None where that is exact, as of codes that are known."""
        return share_of(self.M.mean, self.target_R.mean, self.mean_code.mean)

    @property
    def over_no_map(self) -> float | None:
        """M over decoding the source's codes as they are; None where the target cannot."""
        return None if self.no_map is None else ratio(self.M.mean, self.no_map.mean)

    def to_json(self) -> dict[str, Any]:
        """Return every number."""
        errors = {name: getattr(self, name) for name in ("L", "M", "target_R", "mean_code", "no_map")}
        record: dict[str, Any] = plain(
            {
                "source": self.source,
                "target": self.target,
                "images": self.images,
                **{name: None if error is None else error.mean for name, error in errors.items()},
                "standard_errors": {name: None if error is None else error.standard_error for name, error in errors.items()},
                "M_over_target_R": self.over_target,
                "M_over_no_map": self.over_no_map,
                "recovered_share": self.recovered_share,
                "r2": self.r2,
                "map": {"kind": self.linear_map.kind, **self.linear_map.evidence},
            }
        )
        return record


@dataclass(frozen=True, kw_only=True, eq=False)
class ComparisonMatrix:
    """Every ordered pair of models, in the order in which they were given."""

    models: tuple[str, ...]  # a name that several have is numbered
    images: str  # measured on, but for generators
    fitted_on: str
    R: dict[str, Error]  # each model's own reconstruction of the images; without generators
    cells: tuple[Cell, ...]
    examples: ImageSet  # the first few test images
    codes: dict[str, Tensor]  # of the examples, by model; without generators
    provenance: Provenance

    def __repr__(self) -> str:
        return (
            f"<ComparisonMatrix of {', '.join(self.models)} on {self.images!r}: {len(self.cells)} pairs; .cell(source, target), "
            ".to_json()>"
        )

    def cell(self, source: str, target: str) -> Cell | None:
        """Return the pair; None for a model and itself, and where neither of the two encodes."""
        return next((cell for cell in self.cells if (cell.source, cell.target) == (source, target)), None)

    def to_json(self) -> dict[str, Any]:
        """Return every number: tables by source, then target, and each pair whole."""

        def table(name: str) -> dict[str, dict[str, float | None]]:
            return {
                source: {
                    target: None if (cell := self.cell(source, target)) is None else getattr(cell, name)
                    for target in self.models
                }
                for source in self.models
            }

        record: dict[str, Any] = plain(
            {
                "models": self.models,
                "images": self.images,
                "fitted_on": self.fitted_on,
                "R": {name: error.mean for name, error in self.R.items()},
                "M_over_target_R": table("over_target"),
                "M_over_no_map": table("over_no_map"),
                "recovered_share": table("recovered_share"),
                "pairs": [cell.to_json() for cell in self.cells],
                "provenance": self.provenance.to_json(),
            }
        )
        return record


@dataclass(frozen=True, kw_only=True, eq=False)
class _Seen:
    """One set of images to fit on and one to measure on, with the codes of every model that has them."""

    fitting: ImageSet
    measured: ImageSet
    codes: dict[str, tuple[Encoding, Encoding]]
    bounds: dict[str, dict[str, Error]]  # by target, on which alone they depend: target_R and mean_code


def compare_all(
    models: Sequence[LatentModel],
    images: ImageSet,
    *,
    test: ImageSet | None = None,
    kind: str = "affine",
    ridge: float | Literal["gcv", "loo"] | None = None,
    rank: int | None = None,
    neighbourhood: int | None = None,
    stream: int = 4000,
    seed: int = 0,
    progress: Progress = silent,
) -> ComparisonMatrix:
    """Fit and measure a linear map for every ordered pair of models. Each model encodes the images once.

    A generator without an encoder is paired with each model that encodes, on its own stream; two such have no pair.

    Args:
        models: at least two, of one image shape.
        images: to fit on.
        test: to measure on; None holds out the last fifth of `images`.
        kind: of the maps, as in `fit_map`; between two spatial latent spaces always "affine".
        ridge: as in `fit_map`.
        rank: of "reduced-rank" maps.
        neighbourhood: side of the window of maps between two spatial latent spaces; of no account to other pairs.
        stream: codes of a generator to fit on; a quarter as many fresh ones are measured on.
        seed: decides the streams.
        progress: told throughout.

    Raises:
        SettingError: fewer than two models; settings that no map has; too few images to hold some out.
        CapabilityError: no model encodes; or one neither encodes nor draws codes.
        ImageFormatError: models of different image shapes, or images of another.
        IllPosedError: fewer pairs than unknowns without a ridge; a model that gives all images one code.
    """
    if len(models) < 2:
        raise SettingError(f"A matrix needs at least 2 models, got {len(models)}.")
    if stream < 8:
        raise SettingError(f"A stream needs at least 8 codes to fit on, got {stream}.")
    settings = MapSettings(kind=kind, ridge=ridge, rank=rank, neighbourhood=neighbourhood)
    settings.check()
    for each in models:
        check_model(each, "A matrix")
    named: dict[str, Decoder] = {}
    for name, model in zip(_distinct([model.name for model in models]), models, strict=True):
        named[name] = require_generator(model, "A matrix") if is_stream_only(model) else require_autoencoder(model, "A matrix")
    drawing = [name for name, model in named.items() if is_stream_only(model)]
    encoding = [name for name in named if name not in drawing]
    if not encoding:
        raise SettingError(
            f"None of {', '.join(named)} encodes: no image has a known code in two of them. Add a model that does."
        )
    if test is None:
        images, test = split(images)
    check_comparable(tuple(models), (images, test))
    tell_if_alike(images, test, what="Every map")
    pairs = [
        (source, target)
        for source in named
        for target in named
        if source != target and not (source in drawing and target in drawing)
    ]
    for source, target in pairs:
        _settings(settings, named[source], named[target])
    seen = {"": _see(named, encoding, images, test, progress)}
    for name in drawing:
        seen[name] = _see_stream(named, encoding, name, stream, seed, progress)
    cells = []
    progress("pairs", 0, len(pairs))
    for done, (source, target) in enumerate(pairs, start=1):
        where = seen[next((name for name in (source, target) if name in drawing), "")]
        cells.append(_measure(named, source, target, where, settings))
        progress("pairs", done, len(pairs), f"{source} → {target}")
    shared = seen[""]
    shown = shared.measured.slice(0, min(_EXAMPLES, len(shared.measured)))
    return ComparisonMatrix(
        models=tuple(named),
        images=test.name,
        fitted_on=images.name,
        R={name: _bounds(named, name, shared)["target_R"] for name in encoding},
        cells=tuple(cells),
        examples=shown,
        codes={name: shared.codes[name][1].mean[: len(shown)] for name in encoding},
        provenance=Provenance(
            made_by="compare_all",
            seed=seed,
            made_from={
                **{f"model {name}": model.fingerprint for name, model in named.items()},
                "fitted_on": images.content_hash,
                "test": test.content_hash,
            },
            settings={
                "kind": kind,
                "ridge": ridge,
                "rank": rank,
                "neighbourhood": neighbourhood,
                "stream": stream if drawing else None,
            },
        ),
    )


def _measure(named: dict[str, Decoder], source: str, target: str, where: _Seen, settings: MapSettings) -> Cell:
    (left, codes), (right, own) = where.codes[source], where.codes[target]
    require_varied(PairedCodes(images=where.fitting, source=left, target=right))
    decoder = named[target]
    fitted = _settings(settings, named[source], decoder).fit(left, right)
    moved = relocate(fitted, codes.mean, own.latent_shape)
    shares = [share for share in explained(moved, own.mean) if share is not None]
    bounds = _bounds(named, target, where)
    return Cell(
        source=source,
        target=target,
        images=where.measured.name,
        L=latent_error(moved, own.mean),
        M=Error.of(decode_errors(decoder, moved, where.measured)),
        target_R=bounds["target_R"],
        mean_code=bounds["mean_code"],
        no_map=Error.of(decode_errors(decoder, codes.mean, where.measured)) if codes.latent_shape == own.latent_shape else None,
        r2=sum(shares) / len(shares) if shares else None,
        linear_map=fitted,
        examples=moved[:_EXAMPLES],
    )


def _bounds(named: dict[str, Decoder], target: str, where: _Seen) -> dict[str, Error]:
    if target not in where.bounds:
        where.bounds[target] = {
            name: Error.of(decode_errors(named[target], codes, where.measured))
            for name, codes in target_bounds(*where.codes[target]).items()
        }
    return where.bounds[target]


def _settings(settings: MapSettings, source: LatentModel, target: LatentModel) -> MapSettings:
    """Return the settings for one pair: what only spatial maps have is of no account to the others."""
    spatial = len(source.latent_shape) == len(target.latent_shape) == 3
    used = settings if spatial else MapSettings(kind=settings.kind, ridge=settings.ridge, rank=settings.rank)
    used.check(source.latent_shape, target.latent_shape)
    return used


def _see(
    named: dict[str, Decoder], encoding: Sequence[str], fitting: ImageSet, measured: ImageSet, progress: Progress
) -> _Seen:
    codes = {}
    for name in encoding:
        first = encode(named[name], fitting, progress=progress)
        codes[name] = (first, encode(named[name], measured, progress=progress))
    return _Seen(fitting=fitting, measured=measured, codes=codes, bounds={})


def _see_stream(
    named: dict[str, Decoder], encoding: Sequence[str], name: str, count: int, seed: int, progress: Progress
) -> _Seen:
    drawing = require_generator(named[name], "A stream")
    fitting, known = stream_of(drawing, count, part="fit", seed=seed, progress=progress)
    measured, fresh = stream_of(drawing, count // _TESTED, part="test", seed=seed, progress=progress)
    seen = _see(named, encoding, fitting, measured, progress)
    return _Seen(fitting=fitting, measured=measured, codes={**seen.codes, name: (known, fresh)}, bounds={})


def _distinct(names: Sequence[str]) -> list[str]:
    """Return names with a number after each that several have."""
    counts = Counter(names)
    taken = {name for name, count in counts.items() if count == 1}
    distinct = []
    for name in names:
        fresh = name
        if counts[name] > 1:
            fresh = next(label for number in count_from(1) if (label := f"{name} #{number}") not in taken)
            taken.add(fresh)
        distinct.append(fresh)
    return distinct
