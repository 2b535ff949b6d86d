"""What a model must offer, and how to ask for it.

A model encodes, decodes, or both, for one named latent space. Nothing above this package asks for more than these
protocols, so that a pair of callables serves wherever a VAE does.
"""

import math
from dataclasses import dataclass
from operator import index
from typing import Any, Protocol, TypeGuard, runtime_checkable

import torch
from torch import Tensor

from latlas.base.errors import CapabilityError, CodeShapeError, ImageFormatError, SettingError
from latlas.base.shapes import Codes, Images, ImageShape, LatentShape
from latlas.models.given import check_model

_COLOURS = {1: "grey", 3: "colour"}

# What is computed at once: values of images (channels x height x width, of all together), and images. A network that holds
# 128 channels at full resolution, as the autoencoders of latent diffusion do, keeps 180 MB for each such layer.
_VALUES_AT_ONCE = 2**20
_IMAGES_AT_ONCE = 1000


@dataclass(frozen=True)
class Posterior:
    """The codes of images: means, and log-variances unless the encoder is deterministic."""

    mean: Codes
    log_variance: Codes | None = None

    def sample(self, generator: torch.Generator) -> Codes:
        """Return one draw an image; the mean itself if the encoder is deterministic."""
        if self.log_variance is None:
            return self.mean
        noise = torch.randn(self.mean.shape, generator=generator, dtype=self.mean.dtype).to(self.mean.device)
        return self.mean + noise * (0.5 * self.log_variance).exp()


@dataclass(frozen=True, kw_only=True)
class CodeScale:
    """How a diffusion model has codes normalised: (code - shift) * factor.

    Args:
        factor: one number, or one a channel; none is 0.
        shift: one number, or one a channel.

    Raises:
        SettingError: numbers that are not finite, or a factor of 0.
    """

    factor: tuple[float, ...] = (1.0,)
    shift: tuple[float, ...] = (0.0,)

    def __post_init__(self) -> None:
        if not self.factor or not self.shift or not all(math.isfinite(value) for value in (*self.factor, *self.shift)):
            raise SettingError(f"A scale needs finite factors and shifts, got {self.factor} and {self.shift}.")
        if 0.0 in self.factor:
            raise SettingError(f"A scale cannot have a factor of 0, which no decoder could undo; got {self.factor}.")

    def apply(self, codes: Codes) -> Codes:
        """Return raw codes as the diffusion model sees them."""
        return (codes - _by_channel(self.shift, codes)) * _by_channel(self.factor, codes)

    def undo(self, codes: Codes) -> Codes:
        """Return codes of the diffusion model as the decoder takes them."""
        return codes / _by_channel(self.factor, codes) + _by_channel(self.shift, codes)

    def log_variance_gain(self, codes: Codes) -> Tensor:
        """Return by how much `apply` raises the log-variance of codes like these: one number, or one a channel."""
        return 2.0 * _by_channel(self.factor, codes).abs().log()


@runtime_checkable
class LatentModel(Protocol):
    """What every model has: a name, its two shapes, and a hash that changes with its weights."""

    @property
    def name(self) -> str: ...
    @property
    def image_shape(self) -> ImageShape: ...
    @property
    def latent_shape(self) -> LatentShape: ...
    @property
    def fingerprint(self) -> str: ...


@runtime_checkable
class Encoder(LatentModel, Protocol):
    """A model that offers `encode`."""

    def encode(self, images: Images) -> Posterior: ...


@runtime_checkable
class Decoder(LatentModel, Protocol):
    """A model that offers `decode`."""

    def decode(self, codes: Codes) -> Images: ...


@runtime_checkable
class Autoencoder(Encoder, Decoder, Protocol):
    """A model that offers both."""


@runtime_checkable
class Generator(Decoder, Protocol):
    """A decoder that also knows the distribution of its codes."""

    def sample_codes(self, n: int, generator: torch.Generator) -> Codes: ...


def require_autoencoder(model: LatentModel, question: str) -> Autoencoder:
    """Return the model if it encodes and decodes.

    Raises:
        CapabilityError: it does not, or is no model; the message names the question and what is missing.
        SettingError: it is in training mode.
    """
    check_model(model, question)
    if _has(model, "encode") and _has(model, "decode"):
        return model  # type: ignore[return-value]
    missing = "an encoder" if not _has(model, "encode") else "a decoder"
    raise CapabilityError(f"{question} needs {missing}, which {model.name} lacks. Give a model that encodes and decodes.")


def require_generator(model: LatentModel, question: str) -> Generator:
    """Return the model if it decodes and can draw codes.

    Raises:
        CapabilityError: it does not, or is no model.
        SettingError: it is in training mode.
    """
    check_model(model, question)
    if _has(model, "decode") and _has(model, "sample_codes"):
        return model  # type: ignore[return-value]
    cure = " It can draw those of images that you give: --codes-of DATA, or latlas.with_codes_of(model, images)."
    both = _has(model, "decode") and _has(model, "encode")
    raise CapabilityError(
        f"{question} needs a decoder that can draw its own codes, which {model.name} is not.{cure if both else ''}"
    )


def require_encoder(model: LatentModel, question: str) -> Encoder:
    """Return the model if it encodes.

    Raises:
        CapabilityError: it does not, or is no model.
        SettingError: it is in training mode.
    """
    check_model(model, question)
    if _has(model, "encode"):
        return model  # type: ignore[return-value]
    raise CapabilityError(f"{question} needs an encoder, which {model.name} lacks. Give a model that encodes.")


def is_encoder(model: LatentModel) -> TypeGuard[Encoder]:
    """Tell whether a model encodes."""
    return _has(model, "encode")


def check_images(images_shape: ImageShape, model: LatentModel, *, name: str) -> None:
    """Raise unless images of this shape are what the model was made for.

    Raises:
        ImageFormatError: the shapes differ.
    """
    if tuple(images_shape) != tuple(model.image_shape):
        want = "x".join(map(str, model.image_shape))
        got = "x".join(map(str, images_shape))
        raise ImageFormatError(
            f"{model.name} takes images of {want} (channels x height x width), {name} has {got}. {_cure(images_shape, model)}"
        )


def check_codes(codes: Tensor, model: LatentModel) -> None:
    """Raise unless codes have the model's latent shape.

    Raises:
        CodeShapeError: the shapes differ.
    """
    if tuple(codes.shape[1:]) != tuple(model.latent_shape):
        want = "x".join(map(str, model.latent_shape))
        got = "x".join(map(str, codes.shape[1:]))
        raise CodeShapeError(
            f"{model.name} takes codes of shape {want}, got {got}. Use codes of this model, or map them first."
        )


def checked_shapes(image_shape: object, latent_shape: object, *, name: str) -> tuple[ImageShape, LatentShape]:
    """Return the two shapes that a user states of a model.

    Args:
        image_shape: channels, height, width.
        latent_shape: variables; or of a spatial code channels, rows, columns.
        name: of the model, for the error.

    Raises:
        SettingError: another number of sizes, or a size that is no whole number above 0.
    """
    image, latent = _sizes(image_shape), _sizes(latent_shape)
    if image is None or len(image) != 3:
        raise SettingError(
            f"{name}: image_shape takes channels, height and width, whole numbers above 0, as (1, 28, 28); got {image_shape!r}."
        )
    if latent is None or len(latent) not in (1, 3):
        raise SettingError(
            f"{name}: latent_shape takes the number of variables, as (16,), or channels, rows and columns of a spatial code, as "
            f"(4, 8, 8), whole numbers above 0; got {latent_shape!r}."
        )
    return (image[0], image[1], image[2]), latent


def images_at_once(image_shape: ImageShape) -> int:
    """Return how many images of a shape are encoded or decoded at once: at most 1,000, and at most 2^20 values together.

    >>> images_at_once((1, 28, 28)), images_at_once((3, 64, 64)), images_at_once((3, 1024, 1024))
    (1000, 85, 1)
    """
    return max(1, min(_IMAGES_AT_ONCE, _VALUES_AT_ONCE // max(1, math.prod(image_shape))))


def scaling_of(model: object) -> str | None:
    """Return "raw" or "scaled" of a model that says whether its codes are normalised for a diffusion model, else None."""
    scaling: Any = getattr(model, "scaling", None)
    return scaling if isinstance(scaling, str) else None


def configured_scale(model: object) -> CodeScale | None:
    """Return the normalisation that a model's own config states for its raw codes, or None."""
    scale: Any = getattr(model, "scale", None)
    return scale if isinstance(scale, CodeScale) else None


def device_of(model: object) -> torch.device:
    """Return where a model computes: its parameters' device, or the CPU."""
    if isinstance(model, torch.nn.Module):
        parameter = next(model.parameters(), None)
        if parameter is not None:
            return parameter.device
    device: Any = getattr(model, "device", None)
    return device if isinstance(device, torch.device) else torch.device("cpu")


def parameter_count(model: object) -> int:
    """Return how many parameters a network has; 0 for what is no `torch.nn.Module`."""
    return sum(parameter.numel() for parameter in model.parameters()) if isinstance(model, torch.nn.Module) else 0


def is_convolutional(model: object) -> bool:
    """Tell whether a model has convolutions, or is no `torch.nn.Module` and may have."""
    if not isinstance(model, torch.nn.Module):
        return True
    return any(isinstance(layer, torch.nn.Conv2d | torch.nn.ConvTranspose2d) for layer in model.modules())


def _cure(images_shape: ImageShape, model: LatentModel) -> str:
    channels, height, width = model.image_shape
    if images_shape[0] != channels:
        wanted, found = (_COLOURS.get(count, f"{count}-channel") for count in (channels, images_shape[0]))
        if channels not in _COLOURS:
            return f"The model takes {wanted} images and these are {found}: convert them to {wanted} before."
        size = f"size={height}&" if height == width and images_shape[1:] != (height, width) else ""
        return (
            f"The model takes {wanted} images and these are {found}. Pictures in files are read as {wanted} ones where DATA ends in "
            f"?{size}channels={channels}, as 'photos?{size}channels={channels}'; convert others before."
        )
    stride: Any = getattr(model, "stride", None)
    if isinstance(stride, int) and images_shape[1] == images_shape[2] and images_shape[1] % stride == 0:
        return f"The model serves other sizes too: ask for it with ?size={images_shape[1]}."
    if height != width:  # --resize makes squares
        return f"Resize them to a height of {height} and a width of {width} before."
    return f"Folders of pictures can be resized with --resize {height}; convert arrays before."


def _sizes(shape: object) -> tuple[int, ...] | None:
    """Return a shape as whole numbers; None where it is none."""
    try:
        sizes = tuple(index(size) for size in shape)  # type: ignore[attr-defined]  # what is no sequence raises
    except TypeError:
        return None
    return sizes if all(size > 0 for size in sizes) else None


def _by_channel(values: tuple[float, ...], codes: Tensor) -> Tensor:
    numbers = torch.tensor(values, dtype=codes.dtype, device=codes.device)
    return numbers.reshape(1, -1, *[1] * (codes.ndim - 2))


def _has(model: object, method: str) -> bool:
    return callable(getattr(model, method, None)) and method not in getattr(model, "lacks", ())
