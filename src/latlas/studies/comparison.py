"""What a comparison found: errors of a relocation in image space, beside the bounds that they must be read against."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from jaxtyping import Float
from torch import Tensor

from latlas.base.provenance import Provenance
from latlas.base.records import plain
from latlas.base.shapes import Codes, LatentShape
from latlas.measurements.similarity import Similarity
from latlas.studies.bounds import ratio, recovered_share, share_of
from latlas.studies.pairs import CodeMap, PairedCodes, relocate
from latlas.studies.routes import Error, Route, Times


@dataclass(frozen=True, kw_only=True, eq=False)
class Yardstick:
    """What a multilayer perceptron makes of the same pairs: how much linearity leaves behind."""

    L: Error
    M: Error
    evidence: Mapping[str, Any]  # of its training


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """R, L and M errors of a relocation, beside the bounds that they must be read against.

    Each `Error` has `.mean`, `.standard_error` and `.deviation` over the test images; errors of images are squared, per pixel, of
    values in [0, 1], those of codes squared per variable. M is to be read between `target_R`, the best that the target could do,
    and `mean_code`, what it does knowing nothing of the image: `recovered_share` is where M lies between them, 1 at the best.
    `linear_map` is the map, `relocate(codes)` applies it, and `to_json()` holds all numbers.
    """

    source: str
    target: str
    images: str  # measured on
    fitted_on: str
    R: Error  # source's own reconstruction; 0 but for rounding where its codes are known
    L: Error  # map's squared error per target variable
    M: Error  # target decodes the relocated codes
    target_R: Error  # target's own reconstruction: what a perfect map would give; 0 but for rounding where its codes are known
    decode_encode: Error | None  # through image space: target reconstructs the source's reconstruction; None without encoder
    shuffled: Error  # a map fitted on shuffled pairs
    mean_code: Error  # target decodes its mean code, whatever the image
    no_map: Error | None  # target decodes the source's codes as they are; None where the shapes differ
    round_trip: Error | None  # source decodes the codes carried there and back; None where the way back has too few pairs
    target_variance: float  # mean variance of a target variable: what L would be for the mean code
    r2: tuple[float | None, ...]  # of each target variable (or channel) on the test images; None where it does not vary
    linear_map: CodeMap
    latent_shapes: tuple[LatentShape, LatentShape]
    routes: Mapping[str, Route]  # the errors above by name, each with PSNR, SSIM and what else was asked for
    times: Times | None  # None of a brief comparison
    similarity: Similarity | None  # of the test images' codes; None where it is not defined
    yardstick: Yardstick | None  # None unless asked for
    features: str | None  # what the Fréchet distances are called; None without a feature network
    known_codes: str | None  # the model, if any, whose codes were drawn and not encoded
    examples: PairedCodes  # the first few test images with their codes
    provenance: Provenance

    def __repr__(self) -> str:
        share = self.recovered_share
        return (
            f"<Comparison of {self.source!r} with {self.target!r} on {self.images!r}: M {self.M.mean:.4g}, the target's own R "
            f"{self.target_R.mean:.4g}, {'' if share is None else f'{100 * share:.0f} % recovered; '}.linear_map, .to_json()>"
        )

    @property
    def recovered_share(self) -> float | None:
        """Share of the way from the mean code's error to the target's own: (mean_code - M) / (mean_code - target_R)."""
        return recovered_share(self.M.mean, self.mean_code.mean, self.target_R.mean)

    def relocate(self, codes: Codes) -> Float[Tensor, "n *target"]:
        """Return the source's codes carried into the target space, in the shape that the target decodes."""
        return relocate(self.linear_map, codes, self.latent_shapes[1])

    def documented_map(self) -> CodeMap:
        """Return the map with these errors in its evidence, from where its model card shows them."""
        record = self.to_json()
        names = ("images", "fitted_on", "standard_errors", *record["standard_errors"])
        errors = {name: record[name] for name in names}
        return replace(self.linear_map, evidence={**self.linear_map.evidence, "comparison": errors})

    def to_json(self) -> dict[str, Any]:
        """Return every number, and the ratios that make them readable."""
        names = ("R", "L", "M", "target_R", "decode_encode", "shuffled", "mean_code", "no_map", "round_trip")
        errors: dict[str, Error | None] = {name: getattr(self, name) for name in names}

        def over(name: str, error: Error | None = self.M) -> float | None:
            whole = errors[name]
            return None if whole is None or error is None else share_of(error.mean, whole.mean, self.mean_code.mean)

        bounds = ("target_R", "decode_encode", "shuffled", "mean_code", "no_map")
        yardstick = None
        if self.yardstick is not None:
            yardstick = {
                "M": self.yardstick.M,
                "L": self.yardstick.L,
                "M_over_linear": ratio(self.yardstick.M.mean, self.M.mean),
                "L_over_linear": ratio(self.yardstick.L.mean, self.L.mean),
                **self.yardstick.evidence,
            }
        record: dict[str, Any] = plain(
            {
                "source": self.source,
                "target": self.target,
                "images": self.images,
                "fitted_on": self.fitted_on,
                "known_codes": self.known_codes,
                **{name: None if error is None else error.mean for name, error in errors.items()},
                "standard_errors": {name: None if error is None else error.standard_error for name, error in errors.items()},
                "deviations": {name: None if error is None else error.deviation for name, error in errors.items()},
                **{f"M_over_{name}": over(name) for name in bounds},
                "recovered_share": self.recovered_share,
                "round_trip_over_R": over("R", self.round_trip),
                "L_over_target_variance": ratio(self.L.mean, self.target_variance),
                "target_variance": self.target_variance,
                "r2": self.r2,
                "quality": {name: route.quality() for name, route in self.routes.items()},
                "features": self.features,
                "times": None if self.times is None else self.times.to_json(),
                "similarity": self.similarity,
                "yardstick": yardstick,
                "map": {"kind": self.linear_map.kind, **self.linear_map.evidence},
                "latent_shapes": self.latent_shapes,
                "provenance": self.provenance.to_json(),
            }
        )
        return record
