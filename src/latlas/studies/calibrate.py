"""Which sampler fits? Every kind, fitted on training codes, judged by the distance of its images to held-out ones."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from latlas.base.errors import IllPosedError, SettingError, unknown_name
from latlas.base.progress import Progress, silent, track
from latlas.base.provenance import Provenance
from latlas.base.records import plain
from latlas.base.seeds import generator
from latlas.base.shapes import Images, Rows
from latlas.data.images import ImageSet, to_floats, to_pixels
from latlas.encodings.encode import encode
from latlas.measurements.distances import frechet_distance
from latlas.measurements.features import FeatureNetwork, features_of_batch
from latlas.measurements.reconstruction import decode_batches
from latlas.models.given import check_image_set
from latlas.models.protocols import LatentModel, check_images, require_autoencoder
from latlas.numerics.frechet import FrechetDistance
from latlas.samplers.fit import SAMPLER_KINDS, fit_sampler
from latlas.samplers.sampler import Sampler
from latlas.samplers.second_stage import SecondStageSettings
from latlas.studies.features import check_features, feature_network
from latlas.studies.pairs import tell_if_alike

_BATCH = 500
_GROUPS = 20  # of the jackknife
_WIDE, _WIDE_GROUPS = 256, 5  # features beyond which one distance takes a second, and groups that are then enough


@dataclass(frozen=True, kw_only=True, eq=False)
class SamplerScore:
    """One sampler, and how far its images lie from real ones."""

    sampler: Sampler
    chosen_by: (
        FrechetDistance  # to the half of the held-out images that chooses; without an error, which the choice does not use
    )
    reported: FrechetDistance  # to the other half, which takes no part in the choice

    def __repr__(self) -> str:
        return f"<SamplerScore of {self.sampler.name}: {self.reported.value:.4g}; .sampler, .reported, .chosen_by>"


@dataclass(frozen=True, kw_only=True, eq=False)
class Calibration:
    """Every sampler's score, best first, beside what reconstructions and real images reach.

    Distances are Fréchet distances of the features named in `features`, in their squared units;
    `best.sampler.sample(n, generator)` draws codes, which the model decodes.
    """

    model: str
    heldout: str
    features: str  # name of the feature network; anything but the reference Inception gives a Fréchet distance, no FID
    count: int  # images of each kind
    active: int  # latent variables that the training images use
    variables: int
    scores: list[SamplerScore]  # by `chosen_by`
    reconstructions: FrechetDistance  # of held-out images: what no sampler of this decoder can be expected to beat
    real: FrechetDistance  # between the two halves of the held-out images: the floor
    provenance: Provenance

    def __repr__(self) -> str:
        scores = ", ".join(f"{score.sampler.name} {score.reported.value:.4g}" for score in self.scores)
        return (
            f"<Calibration of {self.model!r} on {self.heldout!r}, distances of {self.features} best first: {scores}; reconstructions "
            f"{self.reconstructions.value:.4g}; .best>"
        )

    @property
    def best(self) -> SamplerScore:
        """The sampler that was chosen."""
        return self.scores[0]

    def score_of(self, name: str) -> SamplerScore:
        """Return the score of a sampler by name."""
        return next(score for score in self.scores if score.sampler.name == name)

    @property
    def warnings(self) -> list[str]:
        """What must be heard of the model, or of any of the samplers."""
        collapsed = (
            f"Every latent variable of {self.model} has collapsed (0 of {self.variables} active): its decoder draws one mean image "
            "whatever it is given, and no sampler can cure that. Train again with --balance running-error, or with a smaller KL weight."
        )
        return ([] if self.active else [collapsed]) + [
            warning for score in self.scores for warning in score.sampler.warnings if score.sampler.renormalisation is None
        ]

    def to_json(self) -> dict[str, Any]:
        """Return every number."""
        prior = self.score_of("prior").reported.value if any(s.sampler.name == "prior" for s in self.scores) else None
        record: dict[str, Any] = plain(
            {
                "model": self.model,
                "heldout": self.heldout,
                "features": self.features,
                "count": self.count,
                "active": self.active,
                "variables": self.variables,
                "best": self.best.sampler.name,
                "best_over_prior": None if not prior else self.best.reported.value / prior,
                "samplers": {
                    score.sampler.name: {
                        "distance": score.reported,
                        "chosen_by": score.chosen_by,
                        "variance_ratio": score.sampler.variance_ratio,
                        "evidence": score.sampler.evidence,
                        "warnings": score.sampler.warnings,
                    }
                    for score in self.scores
                },
                "reconstructions": self.reconstructions,
                "real": self.real,
                "provenance": self.provenance.to_json(),
            }
        )
        return record


def calibrate_sampler(
    model: LatentModel,
    train: ImageSet,
    heldout: ImageSet,
    *,
    features: FeatureNetwork | None = None,
    kinds: str | Sequence[str] = SAMPLER_KINDS,
    renormalised: bool | Sequence[bool] = (False, True),
    components: int = 10,
    second_stage: SecondStageSettings | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Calibration:
    """Fit every sampler on training codes and choose the one whose images lie nearest to held-out ones.

    The held-out images are split in two: one half chooses, the other reports, so that what is particular to the images that
    chose does not flatter the figure of the chosen sampler. The codes drawn are the same for both, and all samplers start from one
    seed; what luck there was in the chosen one's draw is in its figure. Each reported distance
    comes with a jackknife error over twenty groups of both sets (five, where features are many).

    Args:
        model: encodes and decodes.
        train: images whose codes the samplers are fitted to.
        heldout: other images; half of them are compared with as many samples.
        features: the network that the distance is taken with; `latlas.studies.features.feature_network` finds one. None: the one
            that suits the images: the digits or garments classifier for 28 x 28 grey ones, else EfficientNet-Lite0 (the extra
            `features`).
        kinds: samplers to try, one or several of "prior", "moments", "gaussian", "mixture", "second-stage".
        renormalised: without, with, or both.
        components: of the mixture.
        second_stage: settings of the second stage.
        seed: decides fits and samples; all samplers start from one seed.
        progress: told throughout.

    Raises:
        CapabilityError: the model lacks an encoder or a decoder.
        ImageFormatError: images of another shape.
        UnknownNameError: no such sampler.
        SettingError: no sampler to try; features that are none.
        MissingExtraError: the extra that carries the network is not installed.
        IllPosedError: fewer than 40 held-out images.
        NonFiniteError: the feature network returned NaN.

    >>> import latlas
    >>> model = latlas.load_model("zoo:digits-dense")
    >>> codes = model.sample_codes(200, torch.Generator().manual_seed(0))
    >>> images = latlas.ImageSet("own samples", model.decode(codes).detach())
    >>> found = latlas.calibrate_sampler(model, images.slice(0, 100), images.slice(100, 200), kinds=("prior", "moments"))
    >>> new = model.decode(found.best.sampler.sample(3, torch.Generator().manual_seed(1)))
    >>> new.shape
    torch.Size([3, 1, 28, 28])
    """
    autoencoder = require_autoencoder(model, "Choosing a sampler")
    for images in (train, heldout):
        check_image_set(images, "Choosing a sampler")
        check_images(images.image_shape, autoencoder, name=images.name)
    if len(heldout) < 2 * _GROUPS:
        raise IllPosedError(f"Choosing a sampler needs at least {2 * _GROUPS} held-out images, got {len(heldout)}.")
    tell_if_alike(train, heldout, what="Every sampler")
    kinds = (kinds,) if isinstance(kinds, str) else tuple(kinds)
    for kind in kinds:
        if kind not in SAMPLER_KINDS:
            raise unknown_name("sampler", kind, SAMPLER_KINDS)
    flags = (renormalised,) if isinstance(renormalised, bool) else tuple(renormalised)
    if not kinds or not flags:
        raise SettingError("Choosing a sampler needs at least one kind to try, renormalised or not.")
    if features is None:
        features = feature_network("auto", heldout)
    check_features(features)
    order = torch.randperm(len(heldout), generator=generator(seed, "halves"))
    n = len(heldout) // 2
    halves = [heldout.take(order[:n].sort().values), heldout.take(order[n : 2 * n].sort().values)]
    choosing, reporting = (feature_rows(features, half.batches(_BATCH)) for half in halves)
    codes = encode(autoencoder, halves[1], progress=progress).mean
    rebuilt = feature_rows(features, map(as_file, decode_batches(autoencoder, codes)))
    encoding = encode(autoencoder, train, progress=progress)
    active = encoding.moments().active()
    scores = []
    plans = [(kind, flag) for kind in kinds for flag in flags]
    for kind, flag in track(plans, "samplers", progress):
        sampler = fit_sampler(
            kind,
            encoding,
            renormalised=flag,
            components=components,
            second_stage=second_stage,
            seed=seed,
            progress=progress,
        )
        drawn = sampler.sample(n, generator(seed, "samples"))
        rows = feature_rows(features, map(as_file, decode_batches(autoencoder, drawn)))
        scores.append(
            SamplerScore(
                sampler=sampler, chosen_by=frechet_distance(rows, choosing, resamples=0), reported=distance(rows, reporting)
            )
        )
    return Calibration(
        model=autoencoder.name,
        heldout=heldout.name,
        features=features.name,
        count=n,
        active=int(active.sum()),
        variables=active.numel(),
        scores=sorted(scores, key=lambda score: score.chosen_by.value),
        reconstructions=distance(rebuilt, choosing),
        real=distance(choosing, reporting),
        provenance=Provenance(
            made_by="calibrate_sampler",
            seed=seed,
            made_from={"model": autoencoder.fingerprint, "train": train.content_hash, "heldout": heldout.content_hash},
            settings={"components": components, "features": features.name},
        ),
    )


def distance(rows: Rows, others: Tensor) -> FrechetDistance:
    """Return the Fréchet distance of two sets of feature rows with its grouped-jackknife error."""
    return frechet_distance(rows, others, resamples=_GROUPS if rows.shape[1] <= _WIDE else _WIDE_GROUPS)


def feature_rows(features: FeatureNetwork, batches: Iterable[Images]) -> Tensor:
    """Return the features of a stream of images.

    Raises:
        NonFiniteError: they hold NaN; names the batch.
    """
    return torch.cat([features_of_batch(features, batch, title=f"batch {number}") for number, batch in enumerate(batches)])


def as_file(images: Images) -> Images:
    """Return images rounded to 8 bits, as the real ones are."""
    return to_floats(to_pixels(images))
