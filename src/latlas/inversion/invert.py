"""Codes for images of any generator: where a descent starts from, and what it may cost."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from latlas.base.errors import CapabilityError, CodeShapeError, ImageFormatError, SettingError, unknown_name
from latlas.base.progress import Progress, silent
from latlas.base.seeds import generator as seeded
from latlas.base.shapes import Codes
from latlas.data.images import ImageSet
from latlas.inversion.descent import Budget, Inversion, descend
from latlas.inversion.prior import code_prior
from latlas.models.drawn import check_drawn, check_varied
from latlas.models.given import check_image_set, check_model
from latlas.models.protocols import (
    Encoder,
    Generator,
    LatentModel,
    check_codes,
    check_images,
    device_of,
    images_at_once,
    is_encoder,
    require_generator,
)
from latlas.models.recoder import Recoder

STARTS = ("hybrid", "recoder", "nearest", "noise", "mean")

_MEAN_DRAWS = 2000
_NEAREST_OF = 2000  # draws among which the nearest is looked for
_MOST_VALUES = 2**26  # of all draws together: large codes and images are drawn less often


def invert(
    generator: LatentModel,
    images: ImageSet,
    *,
    budget: Budget | None = None,
    start: str | Sequence[str] = "hybrid",
    recoder: Encoder | None = None,
    starts: int = 2,
    prior_weight: float = 0.0,
    noise_weight: float | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Inversion:
    """Return codes for images, by descent from each start; each image keeps its best.

    Starts from noise are the same codes for all images, so that what an image gets depends on that image alone.

    Args:
        generator: draws codes and decodes.
        images: of its image shape.
        budget: of the descent; None for the default.
        start: "recoder": the code that the recoder gives, or the generator's own encoder; "nearest": of 2,000 codes drawn at
            random (of large images, of fewer) the one whose image is nearest; "noise": codes drawn at random; "mean": the mean of the codes (of W, where the generator states it); several of them; or "hybrid": the recoder where
            there is one, else the mean and noise.
        recoder: an encoder of the generator's images; None: the generator's own, if it has one.
        starts: how many codes "noise" draws.
        prior_weight: what a code as far from the mean as codes are on average costs, in squared error per pixel.
        noise_weight: descend the noise of a StyleGAN too, as `latlas.inversion.descent.descend` says.
        seed: decides the codes of "noise" and "nearest", the mean, and the draws that the prior is measured on.
        progress: told in images.

    Raises:
        CapabilityError: the generator cannot draw codes, has no gradient, or there is no recoder to start from.
        ImageFormatError: images of another shape than the generator's, or a generator whose images leave [0, 1].
        CodeShapeError: a recoder for codes of another shape.
        SettingError: a setting out of range.
        IllPosedError: the generator draws one image only.
        NonFiniteError: it draws NaN or infinity.

    >>> import latlas
    >>> model = latlas.load_model("zoo:digits-dense")
    >>> codes = model.sample_codes(4, torch.Generator().manual_seed(0))
    >>> images = latlas.ImageSet("own samples", model.decode(codes).detach())
    >>> found = latlas.invert(model, images, budget=latlas.Budget(steps=60))
    >>> found.codes.shape, bool((found.errors < 0.001).all())
    (torch.Size([4, 16]), True)
    """
    drawing = require_generator(generator, "Inversion")
    check_fit(images, drawing)
    encoder = encoder_of(drawing, recoder)
    kinds = start_kinds(start, encoder)
    if "noise" in kinds and starts < 1:
        raise SettingError(f"Starting from noise needs at least 1 start, got {starts}.")
    if not len(images):
        raise ImageFormatError(f"{images.name} holds no images to invert.")
    noise = start_codes(drawing, max(starts, 2), seeded(seed, "noise starts"))
    mean = mean_code(drawing, seed=seed)
    check_draws(drawing, torch.cat([mean.to(noise), noise]))
    named: list[tuple[str, Codes]] = []
    for kind in kinds:
        if kind == "recoder":
            assert encoder is not None  # start_kinds asked
            named.append((kind, _encoded(encoder, images)))
        elif kind == "mean":
            named.append((kind, _for_all(mean, images)))
        elif kind == "nearest":
            named.append((kind, nearest_codes(drawing, images, seed=seed)))
        else:
            named += [(f"noise {i + 1}", _for_all(noise[i : i + 1], images)) for i in range(starts)]
    return descend(
        drawing,
        images,
        [codes for _, codes in named],
        start_names=[name for name, _ in named],
        budget=budget,
        prior=code_prior(drawing, seed=seed) if prior_weight > 0 else None,
        prior_weight=prior_weight,
        noise_weight=noise_weight,
        progress=progress,
    )


def start_codes(generator: Generator, n: int, chance: torch.Generator) -> Codes:
    """Return codes to start from: those that the generator keeps for it, where it does, else codes as it draws them."""
    kept: Any = getattr(generator, "start_codes", None)
    drawn: Tensor = kept(n, chance) if callable(kept) else generator.sample_codes(n, chance)
    return drawn.detach().cpu()


@torch.no_grad()
def nearest_codes(generator: Generator, images: ImageSet, *, seed: int) -> Codes:
    """Return for each image, of codes that the generator draws, the one whose image has the least squared error.

    Args:
        generator: draws 2,000 codes, of large images fewer.
        images: of its shape.
        seed: decides the codes, the same for all images.
    """
    values = max(torch.Size(generator.image_shape).numel(), torch.Size(generator.latent_shape).numel())
    count = max(1, min(_NEAREST_OF, _MOST_VALUES // values))
    codes = start_codes(generator, count, seeded(seed, "nearest draws"))
    size, device = images_at_once(generator.image_shape), device_of(generator)
    drawn = torch.cat([generator.decode(part.to(device)).float().cpu().flatten(1) for part in torch.split(codes, size)])
    drawn = drawn.nan_to_num(nan=torch.inf)
    # Not by a matrix product, whose rounding, and with it the choice between two equals, changes with the size of the batch.
    exact = "donot_use_mm_for_euclid_dist"
    found = [torch.cdist(batch.float().flatten(1), drawn, compute_mode=exact).argmin(dim=1) for batch in images.batches(size)]
    return codes[torch.cat(found)].float()


def start_kinds(start: str | Sequence[str], encoder: Encoder | None) -> tuple[str, ...]:
    """Return the kinds of starts, each once, without "hybrid".

    Raises:
        UnknownNameError: no such start.
        CapabilityError: "recoder", and there is none.
        SettingError: no start at all.
    """
    kinds: list[str] = []
    for kind in [start] if isinstance(start, str) else start:
        if kind not in STARTS:
            raise unknown_name("start", kind, STARTS)
        if kind == "hybrid":
            kinds += ["recoder"] if encoder is not None else ["mean", "noise"]
        else:
            kinds.append(kind)
    if "recoder" in kinds and encoder is None:
        raise CapabilityError(
            "Starting from a recoder needs one: train it (latlas train recoder GENERATOR --out FOLDER) and give it, or start "
            'from "noise" or "mean".'
        )
    if not kinds:
        raise SettingError(f"Inversion needs a start: one or more of {', '.join(STARTS)}.")
    return tuple(dict.fromkeys(kinds))


def encoder_of(generator: Generator, recoder: LatentModel | None = None) -> Encoder | None:
    """Return the recoder if it is given, else the generator's own encoder if it has one.

    Raises:
        CapabilityError: the recoder was trained for another generator, or does not encode.
        ImageFormatError, CodeShapeError: it takes other images, or gives other codes.
    """
    if recoder is None:
        return generator if is_encoder(generator) else None
    check_model(recoder, "A recoder's place")
    if not is_encoder(recoder):
        raise CapabilityError(f"{recoder.name} does not encode, and is no recoder. Train one: latlas train recoder.")
    inner = getattr(recoder, "recoder", recoder)  # of a generator with its recoder
    if isinstance(inner, Recoder):
        inner.check_fits(generator)
    check_images(generator.image_shape, recoder, name=generator.name)
    if tuple(recoder.latent_shape) != tuple(generator.latent_shape):
        want, got = ("x".join(map(str, shape)) for shape in (generator.latent_shape, recoder.latent_shape))
        raise CodeShapeError(f"{recoder.name} gives codes of shape {got}, and {generator.name} takes {want}.")
    return recoder


def mean_code(generator: Generator, *, seed: int) -> Codes:
    """Return the mean code, `1 latent`: the one that the generator states, else the mean of 2,000 draws (of large codes, of fewer)."""
    inner = getattr(generator, "generator", generator)  # of a generator with its recoder
    stated: Any = getattr(inner, "mean_code", None)
    draws = seeded(seed, "prior mean")
    if callable(stated):
        stated = stated(draws)
    if not isinstance(stated, Tensor):
        variables = torch.Size(generator.latent_shape).numel()
        stated = generator.sample_codes(max(1, min(_MEAN_DRAWS, _MOST_VALUES // variables)), draws).mean(dim=0)
    return stated.detach().float().cpu().reshape(1, *generator.latent_shape)


def check_fit(images: ImageSet, generator: LatentModel) -> None:
    """Raise unless images have the generator's shape.

    Raises:
        ImageFormatError: they have another, or are no ImageSet; says how to bring them there.
    """
    check_image_set(images, "Inversion")
    try:
        check_images(images.image_shape, generator, name=images.name)
    except ImageFormatError as failure:
        if images.image_shape[0] != 3 or generator.image_shape[0] != 3:
            raise
        raise ImageFormatError(
            f"{failure} Of faces, cut first what the generator's training images showed (latlas.data.faces): a crop that is "
            "misaligned raises the error by itself."
        ) from failure


@torch.no_grad()
def check_draws(generator: Generator, codes: Codes) -> None:
    """Raise unless a generator's images of these codes can be compared with pixels.

    Raises:
        CodeShapeError: its own codes do not have its latent shape.
        ImageFormatError: images of another shape than it says, or that leave [0, 1].
        NonFiniteError: NaN or infinity.
        IllPosedError: images that are all alike.
    """
    check_codes(codes, generator)
    device = device_of(generator)
    drawn = torch.cat(
        [generator.decode(part.to(device)).float().cpu() for part in torch.split(codes, images_at_once(generator.image_shape))]
    )
    check_drawn(drawn, generator)
    check_varied(drawn, generator)


@torch.no_grad()
def _encoded(encoder: Encoder, images: ImageSet) -> Codes:
    device = device_of(encoder)
    batches = images.batches(images_at_once(images.image_shape))
    return torch.cat([encoder.encode(batch.to(device)).mean.detach().float().cpu() for batch in batches])


def _for_all(code: Tensor, images: ImageSet) -> Tensor:
    return code.expand(len(images), *code.shape[1:]).contiguous()
