"""How many images fix a linear map, and whether it matters which: M error against the number of points, by selector."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from latlas.base.errors import CodeShapeError, IllPosedError, SettingError, unknown_name
from latlas.base.progress import Progress, silent, track
from latlas.base.provenance import Provenance
from latlas.base.records import plain
from latlas.base.seeds import derived_seed, generator
from latlas.data.images import ImageSet
from latlas.encodings.encode import encode
from latlas.encodings.encoding import Encoding
from latlas.maps.fit import fit_map
from latlas.measurements.conformal import adjusted_p_values
from latlas.measurements.gain import reconstruction_gain
from latlas.measurements.paired import paired_ratio
from latlas.measurements.reconstruction import decode_errors
from latlas.models.protocols import Autoencoder, LatentModel, require_autoencoder
from latlas.studies.bounds import ratio
from latlas.studies.pairs import check_comparable, split
from latlas.supports.selectors import SELECTORS, select

Ridge = Literal["none", "gcv"]
RIDGES: tuple[Ridge, ...] = ("none", "gcv")
REFERENCE = "random"  # every other selector is held against it
LEVEL = 0.05  # false discovery rate of the claims that a selector differs from random points
_MOST_POINTS = 512  # of the usual grid
_STEPS = 6  # of the usual grid
_GAIN_IMAGES = 200  # that order the variables of a Support Set: enough for the few leading ones


@dataclass(frozen=True, kw_only=True)
class FewPoints:
    """The M errors of maps fitted on as many points as one selector was asked for, one a draw."""

    selector: str
    points: int
    ridge: Ridge
    M: tuple[float, ...]  # squared error per pixel on the test images

    @property
    def mean(self) -> float:
        """Mean over draws."""
        return sum(self.M) / len(self.M)

    @property
    def standard_error(self) -> float:
        """Of the mean, over draws; NaN of a single one."""
        return float(torch.tensor(self.M, dtype=torch.float64).std() / len(self.M) ** 0.5) if len(self.M) > 1 else math.nan


@dataclass(frozen=True, kw_only=True)
class Advantage:
    """A selector against random points: as many of them, from the same pool, with the same ridge.

    The test is conditional on this image set: pools are random halves of it, which overlap, and all draws are measured on the same
    images. Its p-values are therefore on the small side.
    """

    selector: str
    points: int
    ridge: Ridge
    ratio: float  # geometric mean over draws of M over the M of random points
    p_value: float  # of a ratio of 1, paired by draw; NaN of a single draw
    adjusted: float  # the same, corrected over all that are asked (Benjamini and Hochberg)

    @property
    def differs(self) -> bool:
        """Whether the difference is claimed."""
        return self.adjusted <= LEVEL  # NaN is not


@dataclass(frozen=True, kw_only=True, eq=False)
class LittleData:
    """M error against the number of points, for several ways to choose them."""

    source: str
    target: str
    images: str  # chosen from
    test: str  # measured on
    measured: int  # test images
    latent: int  # variables of the source
    draws: int
    fits: tuple[FewPoints, ...]
    advantages: tuple[Advantage, ...]
    full: dict[str, float]  # ridge -> M of the map fitted on every image
    full_points: int
    target_R: float  # target's own reconstruction: what a perfect map would give
    provenance: Provenance

    @property
    def selectors(self) -> tuple[str, ...]:
        """In the order asked for."""
        return tuple(dict.fromkeys(fit.selector for fit in self.fits))

    @property
    def points(self) -> tuple[int, ...]:
        """Sizes that were tried, ascending."""
        return tuple(sorted({fit.points for fit in self.fits}))

    def fit(self, selector: str, points: int, ridge: Ridge) -> FewPoints:
        """Return the fits of one selector at one size."""
        return next(fit for fit in self.fits if (fit.selector, fit.points, fit.ridge) == (selector, points, ridge))

    def advantage(self, selector: str, points: int, ridge: Ridge) -> Advantage:
        """Return one selector against random points at one size."""
        return next(a for a in self.advantages if (a.selector, a.points, a.ridge) == (selector, points, ridge))

    def enough(self, ridge: Ridge, *, within: float = 0.1) -> int | None:
        """Return the smallest size from which on random points cost at most this share more than all images do."""
        good: int | None = None
        for points in reversed(self.points):
            if self.fit(REFERENCE, points, ridge).mean > (1 + within) * self.full[ridge]:
                break
            good = points
        return good

    def to_json(self) -> dict[str, Any]:
        """Return every number."""
        record: dict[str, Any] = plain(
            {
                "source": self.source,
                "target": self.target,
                "images": self.images,
                "test": self.test,
                "measured": self.measured,
                "latent": self.latent,
                "draws": self.draws,
                "full_M": self.full,
                "full_points": self.full_points,
                "target_R": self.target_R,
                "fits": [
                    {
                        "selector": fit.selector,
                        "points": fit.points,
                        "ridge": fit.ridge,
                        "M": fit.mean,
                        "standard_error": fit.standard_error,
                        "M_over_full_M": ratio(fit.mean, self.full[fit.ridge]),
                        "draws": list(fit.M),
                    }
                    for fit in self.fits
                ],
                "against_random": [{**plain(advantage), "differs": advantage.differs} for advantage in self.advantages],
                "enough_points": {ridge: self.enough(ridge) for ridge in RIDGES},
                "provenance": self.provenance.to_json(),
            }
        )
        return record


def study_little_data(
    source_model: LatentModel,
    target_model: LatentModel,
    images: ImageSet,
    *,
    test: ImageSet | None = None,
    selectors: Sequence[str] = SELECTORS,
    points: Sequence[int] | None = None,
    draws: int = 5,
    measured: int = 500,
    seed: int = 0,
    progress: Progress = silent,
) -> LittleData:
    """Fit maps on few images, chosen in several ways, and measure their M error on others.

    Every draw has a pool of its own, a random half of the images, from which each selector chooses by the source's
    codes. So rules without chance have a spread too, and selectors are compared within a draw.

    Args:
        source_model: whose codes are relocated, and by whose codes points are chosen; a vector latent space.
        target_model: into whose space; a vector latent space.
        images: to choose from.
        test: to measure on; None holds out the last fifth of `images`.
        selectors: rules of `latlas.supports.selectors`; random points are always among them.
        points: sizes to try, each more than the source's variables; None: six from one more than those to 512, each
            the same number of times the one before, as far as half the images go.
        draws: for each selector and size.
        measured: test images, at most: all decoding is of these.
        seed: decides pools, test images and selectors.
        progress: told throughout.

    Raises:
        CapabilityError: a model lacks an encoder or a decoder.
        CodeShapeError: a spatial latent space.
        ImageFormatError: images of another shape than a model's.
        UnknownNameError: no such selector.
        SettingError: sizes that half the images cannot give, or with which least squares has no answer; no draws.
        IllPosedError: codes that are all alike.

    Cost: one decode of the measured images for every selector, size and draw, twice (with a ridge and without).
    """
    source = require_autoencoder(source_model, "A study of little data")
    target = require_autoencoder(target_model, "A study of little data")
    wanted = _checked_selectors(selectors)
    if draws < 1 or measured < 2:
        raise SettingError(f"Ask for at least 1 draw and 2 test images, got {draws} and {measured}.")
    for model in (source, target):
        if len(model.latent_shape) != 1:
            raise CodeShapeError(
                f"{model.name} has a spatial latent space {tuple(model.latent_shape)}; a fit on few points needs a vector one."
            )
    if test is None:
        images, test = split(images)
    check_comparable((source, target), (images, test))
    sizes = _sizes(points, latent=source.latent_shape[0], pool=len(images) // 2)
    if len(test) > measured:
        some = torch.randperm(len(test), generator=generator(seed, "test images"))[:measured].sort().values
        test = test.take(some, name=f"{test.name}[{measured} at random]")
    codes, target_codes = encode(source, images, progress=progress), encode(target, images, progress=progress)
    test_codes = encode(source, test, progress=progress).mean
    order = _gain_order(source, codes, images, seed, progress) if "support-set" in wanted else None

    def error_of(rows: Tensor | None, ridge: Ridge) -> float:
        left, right = (codes.mean, target_codes.mean) if rows is None else (codes.mean[rows], target_codes.mean[rows])
        fitted = fit_map(left, right, ridge="gcv" if ridge == "gcv" else None)
        return float(decode_errors(target, fitted.apply(test_codes), test).mean())

    pools = [torch.randperm(len(images), generator=generator(seed, "pool", draw))[: len(images) // 2] for draw in range(draws)]
    errors: dict[tuple[str, int, Ridge], list[float]] = {}
    jobs = [(draw, selector, size) for draw in range(draws) for selector in wanted for size in sizes]
    for draw, selector, size in track(jobs, "maps from few points", progress):
        pool = pools[draw]
        chosen = select(selector, codes.mean[pool], size, seed=derived_seed(seed, "selector", draw), order=order)
        for ridge in RIDGES:
            errors.setdefault((selector, size, ridge), []).append(error_of(pool[chosen], ridge))
    fits = tuple(
        FewPoints(selector=selector, points=size, ridge=ridge, M=tuple(found))
        for (selector, size, ridge), found in errors.items()
    )
    return LittleData(
        source=source.name,
        target=target.name,
        images=images.name,
        test=test.name,
        measured=len(test),
        latent=source.latent_shape[0],
        draws=draws,
        fits=fits,
        advantages=_advantages(fits),
        full={ridge: error_of(None, ridge) for ridge in RIDGES},
        full_points=len(images),
        target_R=float(decode_errors(target, encode(target, test).mean, test).mean()),
        provenance=Provenance(
            made_by="study_little_data",
            seed=seed,
            made_from={
                "source": source.fingerprint,
                "target": target.fingerprint,
                "images": images.content_hash,
                "test": test.content_hash,
            },
            settings={"selectors": list(wanted), "points": list(sizes), "draws": draws, "measured": measured},
        ),
    )


def _checked_selectors(selectors: Sequence[str]) -> tuple[str, ...]:
    for selector in selectors:
        if selector not in SELECTORS:
            raise unknown_name("selector", selector, SELECTORS)
    return tuple(dict.fromkeys((REFERENCE, *selectors)))


def _sizes(points: Sequence[int] | None, *, latent: int, pool: int) -> tuple[int, ...]:
    fewest = latent + 1
    if pool < fewest:
        raise SettingError(
            f"A map from {latent} variables needs {fewest} points at least, and half the images are {pool}. Give more images."
        )
    if points is None:
        most = max(fewest, min(_MOST_POINTS, pool))
        exponents = [step / (_STEPS - 1) for step in range(_STEPS)]
        return tuple(sorted({round(fewest * (most / fewest) ** exponent) for exponent in exponents}))
    sizes = tuple(sorted(set(points)))
    if not sizes or sizes[0] < fewest or sizes[-1] > pool:
        raise SettingError(
            f"Sizes must lie between {fewest} (one more than the source's variables) and {pool} (half the images), "
            f"got {list(sizes)}."
        )
    return sizes


def _gain_order(source: Autoencoder, codes: Encoding, images: ImageSet, seed: int, progress: Progress) -> list[int]:
    some = torch.randperm(len(images), generator=generator(seed, "gain images"))[:_GAIN_IMAGES].sort().values
    gain = reconstruction_gain(source, codes.mean[some], images.take(some), progress=progress)
    active = codes.moments().active()
    order = [variable for variable in gain.order() if bool(active[variable])]
    if not order:
        raise IllPosedError(
            f"{source.name} has no active variable on {images.name}: no map can be fitted from its codes. Use another source."
        )
    return order


def _advantages(fits: Sequence[FewPoints]) -> tuple[Advantage, ...]:
    known = {(fit.selector, fit.points, fit.ridge): torch.tensor(fit.M, dtype=torch.float64) for fit in fits}
    asked = [key for key in known if key[0] != REFERENCE]
    if not asked:
        return ()
    found = [paired_ratio(known[key], known[REFERENCE, key[1], key[2]]) for key in asked]
    p_values = torch.tensor([one.p_value for one in found], dtype=torch.float64)
    adjusted = adjusted_p_values(p_values) if not bool(p_values.isnan().any()) else p_values
    return tuple(
        Advantage(selector=selector, points=points, ridge=ridge, ratio=one.mean, p_value=one.p_value, adjusted=float(level))
        for (selector, points, ridge), one, level in zip(asked, found, adjusted, strict=True)
    )
