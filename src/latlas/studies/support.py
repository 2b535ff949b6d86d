"""A model and its images -> a Support Set, how far apart it lies, and how well it fixes a map."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from latlas.base.errors import CodeShapeError, IllPosedError, SettingError, unknown_name
from latlas.base.progress import Progress, silent, track
from latlas.base.provenance import Provenance
from latlas.base.records import plain
from latlas.base.seeds import generator
from latlas.data.images import ImageSet
from latlas.encodings.encode import encode
from latlas.maps.fit import fit_map
from latlas.measurements.gain import reconstruction_gain
from latlas.measurements.reconstruction import decode_errors
from latlas.measurements.spread import Spread, pairwise_spread
from latlas.models.protocols import LatentModel, require_autoencoder
from latlas.studies.compare import ratio
from latlas.supports.sectors import Sectors, largest_threshold
from latlas.supports.selection import one_per_sector
from latlas.supports.support_set import SupportSet

_GAIN_IMAGES = 5_000  # enough for a standard error of a percent of the leading gains
_SPREAD_IMAGES = 5_000  # random images that a Support Set's spread is held against


@dataclass(frozen=True, kw_only=True)
class SpreadComparison:
    """How far apart a Support Set's images lie, beside random images of the same set."""

    support: Spread
    random: Spread

    @property
    def ratio(self) -> float:
        """Spread of the Support Set over that of random images; NaN where those are all alike."""
        return self.support.mean / self.random.mean if self.random.mean > 0 else float("nan")

    def to_json(self) -> dict[str, Any]:
        """Return every number."""
        record: dict[str, Any] = plain({"support": self.support, "random": self.random, "ratio": self.ratio})
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
    centre: Literal["mean", "origin"] = "mean",
    order: list[int] | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> SupportSet:
    """Return one image for each sector of the most informative variables.

    Args:
        model: encodes and decodes into a vector latent space.
        images: to choose from.
        variables: how many of the most informative, at most; 7 give 128 sectors. Collapsed ones are never taken.
        threshold: of every sector, in units of the code; "largest" is the largest at which every sector that any image
            inhabits still is inhabited.
        centre: what sectors are measured from: the mean of the codes, or the origin as in the post. Codes are often far
            from centred, and about the origin some sectors of seven variables hold no image at all.
        order: variables from the most informative down; None measures the reconstruction gain on some of the images.
        seed: decides the choice within each sector.
        progress: told throughout.

    Raises:
        CapabilityError: the model lacks an encoder or a decoder.
        CodeShapeError: a spatial latent space.
        SettingError: more variables than the model has, or an order that does not name them.
        IllPosedError: no image lies in any sector.
    """
    autoencoder = require_autoencoder(model, "A Support Set")
    if len(autoencoder.latent_shape) != 1:
        raise CodeShapeError(
            f"{autoencoder.name} has a spatial latent space {tuple(autoencoder.latent_shape)}; sectors need a vector one."
        )
    if not 1 <= variables <= autoencoder.latent_shape[0]:
        raise SettingError(
            f"Asked for {variables} variables of a latent space of {autoencoder.latent_shape[0]}; ask for 1 to that many (--variables)."
        )
    if order is not None and (len(order) < variables or not set(order) <= set(range(autoencoder.latent_shape[0]))):
        raise SettingError(
            f"An order must name {variables} of the variables 0 to {autoencoder.latent_shape[0] - 1} at least, got {order}."
        )
    if centre not in ("mean", "origin"):
        raise unknown_name("centre", centre, ("mean", "origin"))
    if isinstance(threshold, str) and threshold != "largest":
        raise unknown_name("threshold", threshold, ("largest",), hint="Or give a number.")
    encoding = encode(autoencoder, images, progress=progress)
    if order is None:
        some = torch.randperm(len(images), generator=generator(seed, "gain images"))[:_GAIN_IMAGES].sort().values
        gain = reconstruction_gain(autoencoder, encoding.mean[some], images.take(some), progress=progress)
        order = gain.order()
    # A collapsed variable has no sides: taking it would split every sector in two by noise.
    active = encoding.moments().active()
    leading = tuple([variable for variable in order if bool(active[variable])][:variables])
    if not leading:
        raise IllPosedError(f"{autoencoder.name} has no active variable on {images.name}: there are no sectors to choose from.")
    middle = tuple(encoding.mean[:, list(leading)].double().mean(dim=0).tolist()) if centre == "mean" else ()
    level = largest_threshold(encoding.mean, leading, middle) if threshold == "largest" else float(threshold)
    sectors = Sectors(variables=leading, threshold=level, centre=middle)
    chosen = one_per_sector(
        encoding.mean, sectors, at_least=autoencoder.latent_shape[0], generator=generator(seed, "support selection")
    )
    if len(chosen) == 0:
        raise IllPosedError(f"No image lies beyond the threshold {level:g} in all {variables} variables. Lower the threshold.")
    return SupportSet(
        images=images.take(chosen, name=f"Support Set of {images.name}"),
        indices=chosen,
        codes=encoding.mean[chosen],
        sector=sectors.of(encoding.mean[chosen]),
        sectors=sectors,
        occupancy=sectors.occupancy(encoding.mean),
        model=autoencoder.name,
        chosen_from=images.name,
        provenance=Provenance(
            made_by="build_support_set",
            seed=seed,
            made_from={"model": autoencoder.fingerprint, "images": images.content_hash},
            settings={"variables": variables, "threshold": threshold, "centre": centre},
        ),
    )


def compare_spread(support: SupportSet, images: ImageSet, *, seed: int = 0) -> SpreadComparison:
    """Return the spread of a Support Set beside that of random images of the set it was chosen from."""
    rows = torch.randperm(len(images), generator=generator(seed, "spread"))[:_SPREAD_IMAGES]
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
