"""A model and its images -> a Support Set, how far apart it lies, and how well it fixes a map."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from latlas.base.errors import CodeShapeError, IllPosedError, SettingError, unknown_name
from latlas.base.progress import Progress, silent, track
from latlas.base.provenance import UNSTATED, Provenance
from latlas.base.records import plain
from latlas.base.seeds import generator
from latlas.base.shapes import Codes
from latlas.data.images import ImageSet
from latlas.encodings.encode import encode
from latlas.encodings.encoding import Encoding
from latlas.encodings.mapped import batches
from latlas.maps.fit import fit_map
from latlas.measurements.gain import reconstruction_gain
from latlas.measurements.reconstruction import decode_errors
from latlas.measurements.spread import Spread, pairwise_spread, ratio_interval
from latlas.models.given import check_image_set
from latlas.models.protocols import LatentModel, require_autoencoder
from latlas.numerics.moments import MarginalMoments
from latlas.numerics.posteriors import ACTIVE_VARIANCE
from latlas.studies.bounds import ratio
from latlas.supports.filters import allowed
from latlas.supports.sectors import Sectors, columns, largest_threshold
from latlas.supports.selection import CHOICES, one_per_sector
from latlas.supports.selectors import SELECTORS, select
from latlas.supports.support_set import SupportSet

BY_SECTORS = "sectors"
OTHERS = tuple(selector for selector in SELECTORS if selector != "support-set")
_GAIN_IMAGES = 5_000  # enough for a standard error of a percent of the leading gains
_SPREAD_IMAGES = 5_000  # random images that a Support Set's spread is held against, at most
_SPREAD_PIXELS = 2**28  # of them together: a GiB in float32
_ROWS = 16_384  # codes read at a time


@dataclass(frozen=True, kw_only=True)
class SpreadComparison:
    """How far apart a Support Set's images lie, beside random images of the same set."""

    support: Spread
    random: Spread

    @property
    def ratio(self) -> float:
        """Spread of the Support Set over that of random images; NaN where those are all alike."""
        return self.support.mean / self.random.mean if self.random.mean > 0 else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """Where the ratio lies at 95 %; NaN where either spread has no standard error, or is 0."""
        return ratio_interval(self.support, self.random)

    def to_json(self) -> dict[str, Any]:
        """Return every number."""
        record: dict[str, Any] = plain(
            {"support": self.support, "random": self.random, "ratio": self.ratio, "interval": self.interval}
        )
        return record


@dataclass(frozen=True, kw_only=True)
class SmallFits:
    """The M error of maps fitted on few points, beside the map fitted on everything; all with the ridge that GCV chose."""

    points: int
    support_M: float
    random_M: list[float]  # one for each random draw of as many points
    full_M: float

    def to_json(self) -> dict[str, Any]:
        """Return every number and the ratios."""
        random = torch.tensor(self.random_M, dtype=torch.float64)
        record: dict[str, Any] = plain(
            {
                "points": self.points,
                "M": self.support_M,
                "M_over_full_M": ratio(self.support_M, self.full_M),
                "full_M": self.full_M,
                "random_M_mean": float(random.mean()),
                "random_M_deviation": float(random.std()) if len(random) > 1 else None,
                "random_M_over_full_M": ratio(float(random.mean()), self.full_M),
                "random_draws": len(self.random_M),
            }
        )
        return record


def build_support_set(
    model: LatentModel,
    images: ImageSet,
    *,
    variables: int = 7,
    threshold: float | Literal["largest"] = "largest",
    units: Literal["code", "spread"] = "code",
    centre: Literal["mean", "origin"] = "mean",
    order: list[int] | None = None,
    choose: str = "random",
    selector: str = BY_SECTORS,
    size: int | None = None,
    with_: Sequence[str] = (),
    without: Sequence[str] = (),
    exclude: Sequence[str] = (),
    encoding: Encoding | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> SupportSet:
    """Return one image for each sector of the most informative variables.

    Args:
        model: encodes and decodes into a vector latent space.
        images: to choose from. Of pixels that stay on disk (`latlas.encodings.mapped.map_rows`) only those needed are read.
        variables: how many of the most informative, at most; 7 give 128 sectors. Collapsed ones are never taken.
        threshold: of every sector; "largest" is the largest at which every sector that any image inhabits still is inhabited.
        units: of the threshold: the code's own, or the standard deviation of each variable over the images.
        centre: what sectors are measured from: the mean of the codes, or the origin as in the post. Codes are often far
            from centred, and about the origin some sectors of seven variables hold no image at all.
        order: variables from the most informative down; None measures the reconstruction gain on some of the images.
        choose: which image of a sector: "random", "central" or "extreme" (`latlas.supports.selection`).
        selector: "sectors", or a rule of `latlas.supports.selectors` that is held beside them; it chooses by the whole code.
        size: how many images, 2 or more: of sectors, at least (None: the latent size); of another rule, exactly (None: as many as
            sectors would give).
        with_: attributes that an image must have to be chosen, as "hat" or "hair=short04"; sectors are of such images alone.
        without: attributes that it must not have.
        exclude: names of images never to choose.
        encoding: of the same images by the same model, so that they need not be encoded again; it may stay on disk.
        seed: decides the choice within each sector.
        progress: told throughout.

    Raises:
        CapabilityError: the model lacks an encoder or a decoder.
        CodeShapeError: a spatial latent space, or an encoding of another.
        SettingError: more variables than the model has, more sectors than images, an order that does not name the variables,
            a size that the images cannot give.
        UnknownNameError: no such selector, choice, attribute or image.
        IllPosedError: no image lies in any sector, or fewer than 2 are left; an encoding of other images or another model.

    >>> import latlas
    >>> model = latlas.load_model("zoo:digits-dense")
    >>> codes = model.sample_codes(200, torch.Generator().manual_seed(0))
    >>> images = latlas.ImageSet("own samples", model.decode(codes).detach())
    >>> landmarks = latlas.build_support_set(model, images, variables=3)
    >>> len(landmarks.sectors.variables), landmarks.images.image_shape
    (3, (1, 28, 28))
    """
    autoencoder = require_autoencoder(model, "A Support Set")
    check_image_set(images, "A Support Set")
    filtered = bool(with_ or without or exclude)
    kept = allowed(images, with_=with_, without=without, exclude=exclude) if filtered else None
    candidates = len(images) if kept is None else len(kept)
    check_settings(
        autoencoder,
        candidates,
        variables=variables,
        threshold=threshold,
        units=units,
        centre=centre,
        order=order,
        choose=choose,
        selector=selector,
        size=size,
    )
    latent, given_order = autoencoder.latent_shape[0], order
    if encoding is None:
        encoding = encode(autoencoder, images, progress=progress)
    else:
        require_encoding_of(encoding, autoencoder, images)
        encoding = encoding.widened()
    codes = encoding.mean if kept is None else columns(encoding.mean, range(latent))[kept]
    if order is None:
        some = torch.randperm(candidates, generator=generator(seed, "gain images"))[:_GAIN_IMAGES].sort().values
        whole = some if kept is None else kept[some]
        order = reconstruction_gain(autoencoder, codes[some], images.take(whole), progress=progress).order()
    sectors = _sectors(codes, order, variables, threshold, units, centre, f"{autoencoder.name} on {images.name}")
    if selector == BY_SECTORS:
        chance = generator(seed, "support selection")
        chosen = one_per_sector(codes, sectors, at_least=latent if size is None else size, generator=chance, choose=choose)
        if len(chosen) == 0:
            raise IllPosedError(
                f"No image lies beyond the threshold {sectors.threshold:g} in all {variables} variables. Lower the threshold."
            )
    else:
        inhabited = int((sectors.occupancy(codes) > 0).sum())
        chosen = select(selector, codes, min(max(inhabited, latent), candidates) if size is None else size, seed=seed)
    indices = chosen if kept is None else kept[chosen]
    beside: dict[str, tuple[Any, Any]] = {
        "units": (units, "code"),
        "choose": (choose, "random"),
        "selector": (selector, BY_SECTORS),
        "size": (size, None),
        "order": (None if given_order is None else list(given_order), None),
        "with": (_listed(with_), []),
        "without": (_listed(without), []),
        "exclude": (_listed(exclude), []),
    }
    return SupportSet(
        images=images.take(indices, name=f"Support Set of {images.name}"),
        indices=indices,
        codes=codes[chosen],
        sector=sectors.of(codes[chosen]),
        sectors=sectors,
        occupancy=sectors.occupancy(codes),
        model=autoencoder.name,
        chosen_from=images.name,
        provenance=Provenance(
            made_by="build_support_set",
            seed=seed,
            made_from={"model": autoencoder.fingerprint, "images": images.content_hash},
            settings={
                "variables": variables,
                "threshold": threshold,
                "centre": centre,
                **{name: given for name, (given, usual) in beside.items() if given != usual},
            },
        ),
    )


def check_settings(
    model: LatentModel,
    candidates: int,
    *,
    variables: int = 7,
    threshold: float | str = "largest",
    units: str = "code",
    centre: str = "mean",
    order: Sequence[int] | None = None,
    choose: str = "random",
    selector: str = BY_SECTORS,
    size: int | None = None,
) -> None:
    """Raise unless a Support Set of so many candidates can be asked for so: to be called before anything is encoded.

    All settings are as `build_support_set` has them.

    Raises:
        CapabilityError, CodeShapeError, SettingError, UnknownNameError: as `build_support_set`.
        IllPosedError: fewer than 2 images to choose from.
    """
    autoencoder = require_autoencoder(model, "A Support Set")
    if len(autoencoder.latent_shape) != 1:
        raise CodeShapeError(
            f"{autoencoder.name} has a spatial latent space {tuple(autoencoder.latent_shape)}; sectors need a vector one."
        )
    latent = autoencoder.latent_shape[0]
    if not 1 <= variables <= latent:
        raise SettingError(
            f"Asked for {variables} variables of a latent space of {latent}; ask for 1 to that many (--variables)."
        )
    if order is not None and (len(order) < variables or not set(order) <= set(range(latent))):
        raise SettingError(f"An order must name {variables} of the variables 0 to {latent - 1} at least, got {order}.")
    for kind, name, known in (
        ("centre", centre, ("mean", "origin")),
        ("unit of a threshold", units, ("code", "spread")),
        ("choice within a sector", choose, CHOICES),
        ("selector", selector, (BY_SECTORS, *OTHERS)),
    ):
        if name not in known:
            raise unknown_name(kind, name, known)
    if isinstance(threshold, str) and threshold != "largest":
        raise unknown_name("threshold", threshold, ("largest",), hint="Or give a number.")
    leading = range(latent) if order is None else order
    Sectors(variables=tuple(leading[:variables]), threshold=0.0 if isinstance(threshold, str) else float(threshold))
    if selector != BY_SECTORS and choose != "random":
        raise SettingError(
            f"{choose!r} is a choice within a sector; {selector} chooses by the whole code. Leave one of them out."
        )
    if candidates < 2:
        raise IllPosedError(f"A Support Set is chosen from 2 images at least, got {candidates}. Give more, or leave out fewer.")
    if selector == BY_SECTORS and 1 << variables > candidates:
        raise SettingError(
            f"{variables} variables have {1 << variables} sectors, more than the {candidates} images to choose from: ask for "
            f"{candidates.bit_length() - 1} variables at most (--variables), or give more images."
        )
    if size is not None and not 2 <= size <= candidates:
        raise SettingError(f"Asked for {size} of {candidates} images; ask for 2 to that many (--size).")


def _sectors(
    codes: Codes,
    order: list[int],
    variables: int,
    threshold: float | Literal["largest"],
    units: Literal["code", "spread"],
    centre: Literal["mean", "origin"],
    whose: str,
) -> Sectors:
    # A collapsed variable has no sides: taking it would split every sector in two by noise.
    moments = functools.reduce(MarginalMoments.merge, map(MarginalMoments.of, batches(codes, _ROWS)))
    active = moments.variance() > ACTIVE_VARIANCE
    leading = tuple([variable for variable in order if bool(active[variable])][:variables])
    if not leading:
        raise IllPosedError(f"{whose} has no active variable: there are no sectors to choose from.")
    exact = columns(codes, leading).double()
    middle = tuple(exact.mean(dim=0).tolist()) if centre == "mean" else ()
    scale = tuple(exact.std(dim=0, correction=0).tolist()) if units == "spread" else ()
    level = largest_threshold(codes, leading, middle, scale) if threshold == "largest" else float(threshold)
    return Sectors(variables=leading, threshold=level, centre=middle, scale=scale)


def require_encoding_of(encoding: Encoding, model: LatentModel, images: ImageSet) -> None:
    """Raise unless an encoding is one of these images by this model, as far as can be told.

    Raises:
        IllPosedError: it is of other images, or by a model of other weights.
        CodeShapeError: its codes are of another shape than the model's.
    """
    if encoding.latent_shape != tuple(model.latent_shape):
        raise CodeShapeError(
            f"The encoding has codes of shape {encoding.latent_shape}; {model.name} has {tuple(model.latent_shape)}."
        )
    if not encoding.is_of(images):
        raise IllPosedError(
            f"The encoding is of other images ({encoding.images}, {len(encoding)} codes) than {images.name} ({len(images)} images). "
            "Encode these, or give those."
        )
    if encoding.provenance.model is not None and UNSTATED != model.fingerprint != encoding.provenance.model:
        raise IllPosedError(f"The encoding was made by a model of other weights than {model.name}. Encode again with this one.")


def _listed(names: Sequence[str]) -> list[str]:
    return [names] if isinstance(names, str) else list(names)


def compare_spread(support: SupportSet, images: ImageSet, *, seed: int = 0) -> SpreadComparison:
    """Return the spread of a Support Set beside that of random images of the set it was chosen from."""
    count = max(2, min(_SPREAD_IMAGES, _SPREAD_PIXELS // math.prod(images.image_shape)))
    rows = torch.randperm(len(images), generator=generator(seed, "spread"))[:count]
    return SpreadComparison(
        support=pairwise_spread(support.images.tensor()), random=pairwise_spread(images.take(rows).tensor())
    )


def compare_small_fits(
    source_model: LatentModel,
    target_model: LatentModel,
    images: ImageSet,
    support: SupportSet,
    test: ImageSet,
    *,
    draws: int = 10,
    seed: int = 0,
    progress: Progress = silent,
) -> SmallFits:
    """Fit maps on a Support Set, on random sets of its size, and on everything; return their M errors on test images.

    Args:
        source_model: whose codes are relocated.
        target_model: into whose space.
        images: that random sets are drawn from, and that "everything" means.
        support: chosen from the same images.
        test: held out.
        draws: random sets.
        seed: decides them.
        progress: told after each fit.
    """
    source = require_autoencoder(source_model, "A comparison")
    target = require_autoencoder(target_model, "A comparison")
    source_codes, target_codes = encode(source, images).mean, encode(target, images).mean
    test_codes = encode(source, test).mean

    def error_of(rows: Tensor | None) -> float:
        left, right = (source_codes, target_codes) if rows is None else (source_codes[rows], target_codes[rows])
        fitted = fit_map(left, right, ridge="gcv")
        return float(decode_errors(target, fitted.apply(test_codes), test).mean())

    size = len(support)
    random_sets = [
        torch.randperm(len(images), generator=generator(seed, "random points", draw))[:size] for draw in range(draws)
    ]
    return SmallFits(
        points=size,
        support_M=error_of(support.indices),
        random_M=[error_of(rows) for rows in track(random_sets, "maps from few points", progress)],
        full_M=error_of(None),
    )
