"""Source x target -> what a linear map between their latent spaces loses, in image space."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from latlas.base.errors import CapabilityError, IllPosedError, SettingError
from latlas.base.progress import Progress, silent
from latlas.base.provenance import Provenance
from latlas.data.images import ImageSet
from latlas.measurements.features import FeatureNetwork, distance_name
from latlas.measurements.quality import Perceptual
from latlas.models.given import check_image_set, described
from latlas.models.protocols import Decoder, LatentModel, is_encoder, require_autoencoder
from latlas.studies.bounds import target_bounds
from latlas.studies.comparison import Comparison, Yardstick
from latlas.studies.features import check_features
from latlas.studies.pairs import (
    STREAM,
    CodeMap,
    MapSettings,
    PairedCodes,
    check_comparable,
    check_one_shape,
    is_stream_only,
    pair_on_images,
    pair_on_stream,
    relocate,
    require_varied,
    shuffled,
    split,
    stating_scaling,
    streaming_model,
    tell_if_alike,
)
from latlas.studies.routes import (
    Error,
    Judge,
    explained,
    latent_error,
    measure_route,
    through_images,
    time_routes,
)
from latlas.studies.yardstick import code_similarity, fit_yardstick
from latlas.supports.support_set import SupportSet

_EXAMPLES = 12  # images kept for a report to show
_TESTED = 4  # codes of a stream fitted on for each that is measured on

FitOn = Literal["all"] | Tensor | Sequence[int] | SupportSet


def compare(
    source_model: LatentModel,
    target_model: LatentModel,
    images: ImageSet | Literal["stream"],
    *,
    fit_on: FitOn = "all",
    test: ImageSet | None = None,
    kind: str = "affine",
    ridge: float | Literal["gcv", "loo"] | None = None,
    rank: int | None = None,
    neighbourhood: int | None = None,
    stream: int = 4000,
    features: FeatureNetwork | None = None,
    perceptual: Perceptual | None = None,
    yardstick: bool = False,
    brief: bool = False,
    seed: int = 0,
    progress: Progress = silent,
) -> Comparison:
    """Fit a linear map between two models' codes of the same images, and measure what it loses on others.

    Args:
        source_model: whose codes are relocated.
        target_model: into whose space; same image shape.
        images: to fit on, encoded by both models; or "stream", where one of the two is a generator without an encoder: codes
            that it draws are then known, and the other model encodes their images.
        fit_on: "all" of the images, those at some indices (counted from 0, in a tensor or a list), or a Support Set (its own
            images). With `test` left out, indices are of the first four fifths.
        test: to measure on, others than those to fit on; None holds out the last fifth of `images`, and draws fresh codes of a
            stream.
        kind: of the map, as in `fit_map`; between two spatial latent spaces always "affine".
        ridge: as in `fit_map`.
        rank: of a "reduced-rank" map.
        neighbourhood: side of the window of a map between two spatial latent spaces; None for 1.
        stream: codes to fit on where `images` is "stream"; a quarter as many fresh ones are measured on.
        features: takes the Fréchet distance of relocated images, and of the bounds, to the test images;
            `latlas.studies.features.feature_network` finds one.
        perceptual: a distance of images to their originals, for example LPIPS with its weights: called with two batches in
            [0, 1], returns one number an image.
        yardstick: whether to train a multilayer perceptron on the same pairs, and measure what it gains.
        brief: whether squared errors are all that is wanted: PSNR, SSIM and times are left out, which take longer than the rest.
        seed: decides the shuffled pairs, the stream and the perceptron.
        progress: told throughout.

    Raises:
        CapabilityError: a model lacks an encoder or a decoder; or for a stream, both encode, or neither does.
        ImageFormatError: images of another shape than a model's, or models of two image shapes.
        UnknownNameError, SettingError: settings of a map that `fit_map` does not know, or that the latent shapes do not
            allow; too few images to hold some out; indices to fit on that there are not; features that are none.
        IllPosedError: fewer pairs than unknowns without a ridge; fewer than two images to measure on; a model that gives
            all images one code.
        NonFiniteError: a model, or a function given, returns NaN.

    >>> import latlas
    >>> model = latlas.load_model("zoo:digits-dense")
    >>> codes = model.sample_codes(200, torch.Generator().manual_seed(0))
    >>> images = latlas.ImageSet("own samples", model.decode(codes).detach())
    >>> found = latlas.compare(model, latlas.load_model("zoo:digits-dense-1"), images, ridge="gcv", brief=True)
    >>> found.target_R.mean < found.M.mean < found.mean_code.mean
    True
    >>> found.relocate(codes[:3]).shape
    torch.Size([3, 16])
    """
    settings = MapSettings(kind=kind, ridge=ridge, rank=rank, neighbourhood=neighbourhood)
    settings.check()
    if features is not None:
        check_features(features)
    known_codes = None
    if isinstance(images, str):
        if images != STREAM:
            raise SettingError(f"Images are an ImageSet or the word {STREAM!r}, got {images!r}. Load them with load_images.")
        known_codes = _check_stream(source_model, target_model, settings, fit_on, test, stream)
        fitting, measured = (
            pair_on_stream(source_model, target_model, count, part=part, seed=seed, progress=progress)
            for part, count in (("fit", stream), ("test", max(2, stream // _TESTED)))
        )
    else:
        for model, other in ((source_model, target_model), (target_model, source_model)):
            _require_encoding(model, other)
        for given in (images, *(() if test is None else (test,))):
            check_image_set(given, "A comparison")
        if test is None:
            images, test = split(images)
        chosen = _fitting_images(images, fit_on)
        check_comparable((source_model, target_model), (chosen, test))
        settings.check(source_model.latent_shape, target_model.latent_shape)
        tell_if_alike(chosen, test, what="The map")
        fitting = pair_on_images(source_model, target_model, chosen, progress=progress)
        measured = pair_on_images(source_model, target_model, test, progress=progress)
    return compare_pairs(
        source_model,  # type: ignore[arg-type]  # it decodes: that was asked above
        target_model,  # type: ignore[arg-type]
        fitting,
        measured,
        settings,
        judge=Judge.of(measured.images, perceptual=perceptual, features=features, likeness=not brief),
        timed=not brief,
        seed=seed,
        yardstick=yardstick,
        known_codes=known_codes,
        provenance=Provenance(
            made_by="compare",
            seed=seed,
            made_from={
                "source": source_model.fingerprint,
                "target": target_model.fingerprint,
                "fitted_on": fitting.images.content_hash,
                "test": measured.images.content_hash,
            },
            settings={
                "kind": kind,
                "ridge": ridge,
                "rank": rank,
                "neighbourhood": neighbourhood,
                "fit_on": f"stream of {stream} codes" if known_codes is not None else _told(fit_on, fitting.images),
                "features": None if features is None else features.name,
                "yardstick": yardstick,
            },
        ),
        progress=progress,
    )


def compare_pairs(
    source: Decoder,
    target: Decoder,
    fitting: PairedCodes,
    measured: PairedCodes,
    settings: MapSettings,
    *,
    judge: Judge,
    provenance: Provenance,
    seed: int = 0,
    yardstick: bool = False,
    timed: bool = True,
    known_codes: str | None = None,
    progress: Progress = silent,
) -> Comparison:
    """Return the errors, on measured pairs, of a map fitted on others, beside their bounds.

    Raises:
        IllPosedError: fewer pairs than unknowns without a ridge; a model that gives all images one code.
    """
    require_varied(fitting)
    fitted = stating_scaling(settings.fit(fitting.source, fitting.target), source, target)
    unpaired = settings.fit(shuffled(fitting.source, seed), fitting.target)
    images, codes, own = measured.images, measured.source.mean, measured.target.mean
    here, there = measured.source.latent_shape, measured.target.latent_shape
    moved = relocate(fitted, codes, there)
    ways: dict[str, tuple[Decoder, Tensor]] = {
        "R": (source, codes),
        "M": (target, moved),
        **{name: (target, its_codes) for name, its_codes in target_bounds(fitting.target, measured.target).items()},
        "shuffled": (target, relocate(unpaired, codes, there)),
    }
    encoder = require_autoencoder(target, "The way through images") if is_encoder(target) else None
    if encoder is not None:
        ways["decode_encode"] = (encoder, through_images(source, encoder, codes))
    if here == there:
        ways["no_map"] = (target, codes)
    back = _way_back(settings, fitting)
    if back is not None:
        ways["round_trip"] = (source, relocate(back, moved, here))
    learned = fit_yardstick(fitting, settings.window, seed=seed, progress=progress) if yardstick else None
    if learned is not None:
        ways["yardstick"] = (target, learned.apply(codes))
    routes = {}
    progress("measuring", 0, len(ways))
    for done, (name, (decoder, its_codes)) in enumerate(ways.items(), start=1):
        # The Fréchet distance is asked of what is to look like the images; a mean code is one image over and over.
        routes[name] = measure_route(decoder, its_codes, images, judge, frechet=name not in ("mean_code", "shuffled", "no_map"))
        progress("measuring", done, len(ways))
    errors: dict[str, Error | None] = {name: route.error for name, route in routes.items()}
    return Comparison(
        source=source.name,
        target=target.name,
        images=images.name,
        fitted_on=fitting.images.name,
        R=routes["R"].error,
        L=latent_error(moved, own),
        M=routes["M"].error,
        target_R=routes["target_R"].error,
        decode_encode=errors.get("decode_encode"),
        shuffled=routes["shuffled"].error,
        mean_code=routes["mean_code"].error,
        no_map=errors.get("no_map"),
        round_trip=errors.get("round_trip"),
        target_variance=float(own.double().var(dim=0, correction=0).mean()),
        r2=explained(moved, own),
        linear_map=fitted,
        latent_shapes=(here, there),
        routes=routes,
        times=time_routes(source, target, lambda part: relocate(fitted, part, there), codes, progress=progress)
        if timed
        else None,
        similarity=code_similarity(measured),
        yardstick=None
        if learned is None
        else Yardstick(L=latent_error(ways["yardstick"][1], own), M=routes["yardstick"].error, evidence=learned.evidence),
        features=None if judge.features is None else distance_name(judge.features),
        known_codes=known_codes,
        examples=measured.first(_EXAMPLES),
        provenance=provenance,
    )


def _check_stream(
    source: LatentModel, target: LatentModel, settings: MapSettings, fit_on: FitOn, test: ImageSet | None, stream: int
) -> str:
    drawing = streaming_model(source, target)
    if not (isinstance(fit_on, str) and fit_on == "all") or test is not None:
        raise SettingError("A stream is fitted and measured on codes of its own. Leave out fit_on and test images.")
    if stream < 2:
        raise SettingError(f"A stream needs at least 2 codes to fit on, got {stream}.")
    check_one_shape(source, target)
    settings.check(source.latent_shape, target.latent_shape)
    return drawing.name


def _require_encoding(model: LatentModel, other: LatentModel) -> None:
    try:
        require_autoencoder(model, "A comparison")
    except CapabilityError as failure:
        if is_stream_only(model) and is_encoder(other):
            raise CapabilityError(
                f"{failure} Or compare the two on its own stream: images='stream' in Python, stream for DATA in the shell."
            ) from None
        raise


def _way_back(settings: MapSettings, fitting: PairedCodes) -> CodeMap | None:
    try:
        return settings.fit(fitting.target, fitting.source)
    except IllPosedError:  # pairs that suffice one way may be too few the other, and the question is of the way there
        return None


def _told(fit_on: FitOn, fitting: ImageSet) -> str:
    if isinstance(fit_on, SupportSet):
        return f"Support Set of {len(fitting)} images"
    return fit_on if isinstance(fit_on, str) else f"{len(fitting)} chosen images"


def _fitting_images(images: ImageSet, fit_on: FitOn) -> ImageSet:
    if isinstance(fit_on, SupportSet):
        return fit_on.images
    if isinstance(fit_on, str):
        if fit_on != "all":
            raise SettingError(f"A map is fitted on all images, on indices of some, or on a Support Set; got {fit_on!r}.")
        return images
    try:
        chosen = torch.as_tensor(fit_on)
    except (TypeError, ValueError, RuntimeError) as failure:
        raise SettingError(
            f"A map is fitted on all images, on indices of some, or on a Support Set; got {described(fit_on)}."
        ) from failure
    if chosen.numel() == 0:
        raise IllPosedError("No images to fit on were given.")
    if chosen.dtype == torch.bool and chosen.shape == (len(images),):
        chosen = chosen.nonzero().flatten()
    whole = chosen.ndim == 1 and not chosen.is_floating_point() and chosen.dtype != torch.bool
    if not whole or int(chosen.min()) < -len(images) or int(chosen.max()) >= len(images):
        found = f"{int(chosen.min())} to {int(chosen.max())}" if whole else f"{described(chosen)} ({chosen.dtype})"
        raise SettingError(f"Indices to fit on are whole numbers, of {images.name} 0 to {len(images) - 1}, got {found}.")
    return images.take(chosen.long())
