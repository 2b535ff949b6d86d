"""Latent variables from the most to the least informative, by one of four measures."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from latlas.base.errors import CapabilityError, CodeShapeError, IllPosedError, NonFiniteError, SettingError, unknown_name
from latlas.base.progress import Progress, silent
from latlas.base.provenance import Provenance
from latlas.base.records import plain
from latlas.base.seeds import generator
from latlas.base.shapes import Codes, PerVariable
from latlas.data.images import ImageSet
from latlas.encodings.encode import encode
from latlas.encodings.encoding import Encoding
from latlas.measurements.elimination import Elimination, eliminate, estimate
from latlas.measurements.gain import growths
from latlas.measurements.jacobians import squared_derivatives
from latlas.models.given import check_image_set, check_model
from latlas.models.protocols import Decoder, LatentModel, check_codes, check_images
from latlas.numerics.gaussians import kl_to_prior_nats

MEASURES = ("gain", "kl", "variance", "jacobian")
UNITS: Mapping[str, str] = {
    "gain": "squared error per pixel",
    "kl": "nats",
    "variance": "squared units of the code",
    "jacobian": "root mean square of pixels per unit of the code",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Ordering:
    """All variables of a model by one measure on an image set; a channel of a spatial latent space is one variable."""

    by: str
    model: str
    images: str
    count: int  # images asked about
    variables: tuple[int, ...]  # most informative first; those of the top before all others
    score: PerVariable  # in the order of the latent space
    standard_error: PerVariable  # over images, as drawn from all there could be; NaN of one image
    seen: Int64[Tensor, " latent"]  # images that each score was measured on
    tied: tuple[
        bool | None, ...
    ]  # of each neighbours in `variables`: within error; None beyond a fast top, where nobody looked
    top: int | None  # how many were asked for
    fast: bool  # found by elimination: beyond the top, order and scores are rough
    confidence: float  # of ties, and of a fast top being the exhaustive one
    decodes: int  # passes of one image through the decoder
    exhaustive_decodes: int
    provenance: Provenance

    @property
    def leading(self) -> tuple[int, ...]:
        """The variables of the top; all where no top was asked for."""
        return self.variables[: self.top]

    @property
    def border_tied(self) -> bool:
        """Whether the last variable of the top and the first beyond it are within error of each other."""
        return self.top is not None and self.top < len(self.variables) and bool(self.tied[self.top - 1])

    def ties(self) -> list[tuple[int, ...]]:
        """Return the runs of variables in which each is tied with the next."""
        runs: list[list[int]] = [[self.variables[0]]]
        for variable, tied in zip(self.variables[1:], self.tied, strict=True):
            if tied:
                runs[-1].append(variable)
            else:
                runs.append([variable])
        return [tuple(run) for run in runs if len(run) > 1]

    @property
    def table(self) -> list[dict[str, Any]]:
        """One row a variable, most informative first; NaN is None."""
        after = (*self.tied, None)
        return [
            {
                "rank": rank + 1,
                "variable": variable,
                "score": float(self.score[variable]),
                "standard_error": plain(float(self.standard_error[variable])),
                "images": int(self.seen[variable]),
                "tied_with_next": after[rank],
            }
            for rank, variable in enumerate(self.variables)
        ]

    def to_json(self) -> dict[str, Any]:
        """Return every number."""
        record: dict[str, Any] = plain(
            {
                "by": self.by,
                "unit": UNITS[self.by],
                "model": self.model,
                "images": self.images,
                "count": self.count,
                "top": self.top,
                "leading": self.leading,
                "border_tied": self.border_tied,
                "fast": self.fast,
                "confidence": self.confidence,
                "decodes": self.decodes,
                "exhaustive_decodes": self.exhaustive_decodes,
                "ties": self.ties(),
                "table": self.table,
            }
        )
        record["provenance"] = self.provenance.to_json()
        return record


def order_variables(
    model: LatentModel,
    images: ImageSet,
    *,
    codes: Encoding | Codes | None = None,
    by: str = "gain",
    top: int | None = None,
    confidence: float = 0.95,
    fast: bool | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Ordering:
    """Return the latent variables of a model from the most to the least informative.

    Args:
        model: decodes, for "gain" and "jacobian"; encodes, where no codes are given.
        images: held-out ones tell more.
        codes: of these images, one each; None encodes them. For generators, the codes of an inversion.
        by: "gain", the growth of the squared error when a variable is set to 0; "kl", the mean divergence of the posteriors from
            the prior, summed over the positions of a channel; "variance", that of the posterior means, averaged over positions;
            "jacobian", the root mean square over images of |d image / d z_i| per pixel and unit of the code.
        top: how many are wanted; None: all.
        confidence: with which a fast top is the exhaustive one, but for ties; and of the intervals within which neighbours are
            tied. From 0.5 to below 1.
        fast: whether variables plainly out of the top, or in it, stop being decoded. None: where it helps, which is for the gain
            and a top of fewer variables than there are.
        seed: decides the order in which a fast search draws images.
        progress: told throughout.

    Raises:
        CapabilityError: the model lacks what the measure needs.
        CodeShapeError: codes of another latent space.
        IllPosedError: codes of other images, or no images.
        NonFiniteError: codes or scores that are NaN or infinite.
        SettingError, UnknownNameError: a setting out of range.

    Cost: gain and jacobian pass every image through the decoder once for each variable; a fast gain usually a tenth or less.
    """
    check_model(model, "An order of variables")
    check_image_set(images, "An order of variables")
    check_settings(model, by=by, top=top, confidence=confidence, fast=fast)
    latent = int(model.latent_shape[0])
    if by in ("gain", "jacobian"):
        _decoder(model)  # before anything is encoded
    encoding, points = _codes(model, images, codes, by, progress)
    quick = by == "gain" and top is not None and top < latent and fast is not False
    if quick:
        assert top is not None  # or it would not be quick
        decoder = _decoder(model)
        energies = _energies(points)
        found = eliminate(
            lambda rows, variables: _finite(growths(decoder, points[rows], images.take(rows), variables), decoder),
            energies,
            top=top,
            confidence=confidence,
            generator=generator(seed, "order of images"),
            progress=progress,
        )
    else:
        contributions = _contributions(model, images, encoding, points, by, seed, progress)
        found = Elimination(
            top=(),
            rows=torch.arange(len(images)),
            growth=contributions,
            seen=torch.full((latent,), len(images)),
            settled=True,
            rounds=1,
            decodes={"gain": len(images) * (latent + 1), "jacobian": len(images) * latent}.get(by, 0),
        )
        energies = torch.zeros_like(contributions)
    score, error = _scores(found, energies)
    ranked = sorted(range(latent), key=lambda variable: (variable not in found.top, -float(score[variable]), variable))
    tied = tuple(
        None
        if quick and rank >= len(found.top)
        else _tied(found, energies, pair, confidence, border=rank + 1 == len(found.top))
        for rank, pair in enumerate(pairwise(ranked))
    )
    if by == "jacobian":
        score = score.sqrt()
        error = torch.where(score > 0, error / (2.0 * score), float("nan"))  # the delta method
    return Ordering(
        by=by,
        model=model.name,
        images=images.name,
        count=len(images),
        variables=tuple(ranked),
        score=score,
        standard_error=error,
        seen=found.seen,
        tied=tied,
        top=top,
        fast=quick,
        confidence=confidence,
        decodes=found.decodes,
        exhaustive_decodes=len(images) * (latent + 1) if quick else found.decodes,
        provenance=Provenance(
            made_by="order_variables",
            seed=seed,
            made_from={"model": model.fingerprint, "images": images.content_hash},
            settings={"by": by, "top": top, "confidence": confidence, "fast": quick},
        ),
    )


def check_settings(model: LatentModel, *, by: str, top: int | None, confidence: float, fast: bool | None) -> None:
    """Raise unless variables of a model can be ordered so: to be asked before anything is loaded or encoded.

    Raises:
        SettingError, UnknownNameError: as `order_variables`.
    """
    latent = int(model.latent_shape[0])
    if by not in MEASURES:
        raise unknown_name("measure", by, MEASURES)
    if top is not None and not 1 <= top <= latent:
        raise SettingError(f"Asked for the top {top} of {latent} variables of {model.name}; ask for 1 to {latent} (--top).")
    if not 0.5 <= confidence < 1.0:
        raise SettingError(f"A confidence lies from 0.5 to below 1, got {confidence} (--confidence).")
    if fast and (by != "gain" or top is None):
        raise SettingError(
            "A fast order finds a top by gain: give top, and by='gain' (--top 7 --by gain), or ask for no fast one."
        )


def rank_agreement(first: Ordering, second: Ordering) -> float:
    """Return Kendall's tau-b of the scores of two orders of the same variables: 1 where they agree, about 0 where unrelated.

    NaN where one of them gives all variables the same score.

    Raises:
        CodeShapeError: orders of different numbers of variables.
    """
    from scipy.stats import kendalltau

    if len(first.score) != len(second.score):
        raise CodeShapeError(f"Orders of {len(first.score)} and of {len(second.score)} variables cannot be compared.")
    return float(kendalltau(first.score.numpy(), second.score.numpy()).statistic)


def _codes(
    model: LatentModel, images: ImageSet, codes: Encoding | Codes | None, by: str, progress: Progress
) -> tuple[Encoding | None, Codes]:
    """Return the encoding, where there is one, and the codes themselves."""
    check_images(images.image_shape, model, name=images.name)
    if len(images) == 0:
        raise IllPosedError(f"{images.name} holds no images to order variables by.")
    encoding = encode(model, images, progress=progress) if codes is None else codes if isinstance(codes, Encoding) else None
    encoding = None if encoding is None else encoding.widened()
    points = codes.float() if isinstance(codes, Tensor) else encoding.mean if encoding is not None else None
    assert points is not None  # one of the two was given
    check_codes(points, model)
    if len(points) != len(images):
        raise IllPosedError(f"{len(points)} codes for the {len(images)} images of {images.name}. Give one each, in order.")
    if encoding is not None and not encoding.is_of(images):
        raise IllPosedError(f"The encoding is of {encoding.images}, not of {images.name}. Encode the same images.")
    if not bool(points.isfinite().all()):
        raise NonFiniteError(f"The codes for {images.name} hold NaN or infinity. Remove those images.")
    if by == "kl" and (encoding is None or encoding.log_variance is None):
        raise CapabilityError(
            f"The KL of a variable needs posterior variances, which {model.name} does not give. Order by gain."
        )
    return encoding, points


def _contributions(
    model: LatentModel,
    images: ImageSet,
    encoding: Encoding | None,
    points: Codes,
    by: str,
    seed: int,
    progress: Progress,
) -> Float64[Tensor, "n latent"]:
    """Return what each image adds to the score of each variable: scores are means over images."""
    if by == "gain":
        decoder = _decoder(model)
        return _finite(growths(decoder, points, images, range(points.shape[1]), progress=progress), decoder)
    if by == "jacobian":
        decoder = _decoder(model)
        return _finite(squared_derivatives(decoder, points, seed=seed, progress=progress), decoder)
    flat = points.double().reshape(len(points), points.shape[1], -1)
    if by == "variance":
        return (flat - flat.mean(dim=0)).square().mean(dim=2)
    assert encoding is not None  # checked before
    assert encoding.log_variance is not None
    return kl_to_prior_nats(flat, encoding.log_variance.double().reshape(flat.shape)).sum(dim=2)


def _energies(points: Codes) -> Float64[Tensor, "n latent"]:
    return points.double().reshape(len(points), points.shape[1], -1).square().mean(dim=2)


def _decoder(model: LatentModel) -> Decoder:
    if callable(getattr(model, "decode", None)) and "decode" not in getattr(model, "lacks", ()):
        return model  # type: ignore[return-value]
    raise CapabilityError(f"This order needs a decoder, which {model.name} lacks. Order by kl or variance.")


def _finite(values: Float64[Tensor, "n chosen"], decoder: Decoder) -> Float64[Tensor, "n chosen"]:
    if not bool(values.isfinite().all()):
        raise NonFiniteError(f"{decoder.name} decodes some codes with a variable changed as NaN or infinity: it has no order.")
    return values


def _mean_and_errors(
    found: Elimination, energies: Float64[Tensor, "images latent"], variables: list[int], signs: list[float]
) -> tuple[float, float, float]:
    """Return a signed sum of scores and two standard errors of it.

    The first is that of a sample for the whole set; the second that of the set itself, as a draw from all images there could be.
    """
    n, count = int(found.seen[variables].min()), len(energies)
    growth, drawn = found.growth[:n][:, variables], energies[found.rows[:n]][:, variables]
    sign = torch.tensor(signs, dtype=torch.float64)
    sample = estimate(growth, drawn, energies[:, variables].mean(dim=0), count)
    mean = float(sample.mean @ sign)
    if n < 2:
        return mean, float("nan"), float("nan")
    within = 0.0 if n == count else (sample.finite * float((sample.influence @ sign).square().sum())) ** 0.5 / n
    return mean, within, (float((growth @ sign).var()) / count) ** 0.5


def _scores(found: Elimination, energies: Float64[Tensor, "images latent"]) -> tuple[PerVariable, PerVariable]:
    rows = [_mean_and_errors(found, energies, [variable], [1.0]) for variable in range(energies.shape[1])]
    means, within, beyond = torch.tensor(rows, dtype=torch.float64).unbind(dim=1)
    return means.clone(), torch.hypot(within, beyond)


def _tied(
    found: Elimination,
    energies: Float64[Tensor, "images latent"],
    pair: tuple[int, int],
    confidence: float,
    *,
    border: bool,
) -> bool:
    """Tell whether the difference of two neighbours is within its error; what is not known is tied."""
    from scipy.stats import t as student

    if border and not found.settled and len(found.rows) < len(energies):
        return True  # elimination stopped where the difference was of no concern
    difference, within, beyond = _mean_and_errors(found, energies, list(pair), [1.0, -1.0])
    # Across a border that elimination settled, only another draw of images could swap them.
    error = beyond if border and found.settled else math.hypot(within, beyond)
    images = int(found.seen[list(pair)].min())
    width = float(student.isf((1.0 - confidence) / 2.0, images - 1)) * error if images > 1 else float("nan")
    return not abs(difference) > width
