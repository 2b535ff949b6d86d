"""A model from any `torch.nn.Module` with methods that encode and decode, whatever they answer with."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from latlas.base.errors import CapabilityError, CodeShapeError, ImageFormatError, SettingError
from latlas.base.provenance import tensor_hash
from latlas.base.shapes import Codes, Images, ImageShape, LatentShape
from latlas.models.adapters.first_look import COMPARED, FirstLook, check_same_codes, tell_of_range
from latlas.models.given import described
from latlas.models.protocols import CodeScale, Posterior, check_codes, check_images, checked_shapes

# By which names answers give their codes, and the log-variances beside them: pythae and many others, then diffusers.
_MEANS = ("embedding", "latents", "latent")
_LOG_VARIANCES = ("log_covariance", "log_variance", "logvar")
_IMAGES = ("sample", "reconstruction")


class ModuleModel(nn.Module):
    """A model made of a module's methods, which `from_module` builds. It comes ready for use, in evaluation mode.

    Its codes are raw, as the module gives them, or scaled, as a diffusion model sees them: `scaling` tells which, and so do
    the fingerprint and the provenance of every encoding.

    Its arguments, and what it raises, are those of `from_module`.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        image_shape: Sequence[int],
        latent_shape: Sequence[int],
        name: str | None = None,
        encode: str | None = "encode",
        decode: str | None = "decode",
        value_range: tuple[float | int, float | int] = (0.0, 1.0),
        scale: CodeScale | None = None,
        scaled: bool = False,
        stride: int | None = None,
        standard_normal: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(module, nn.Module):
            raise SettingError(
                f"A torch.nn.Module is wanted, got {described(module)}. Of two functions make a latlas.CallableModel."
            )
        self.name = name if name is not None else type(module).__name__
        shapes = checked_shapes(image_shape, latent_shape, name=self.name)
        for method in (encode, decode):
            if method is not None and not callable(getattr(module, method, None)):
                inside = callable(getattr(getattr(module, "module", None), method, None))  # of DataParallel and its like
                cure = (
                    "Give its .module, which has it."
                    if inside
                    else "Name the ones it has, as in encode='embed', or None for what it cannot do."
                )
                raise SettingError(f"{self.name} has no method {method!r}. {cure}")
        try:
            low, high = (float(edge) for edge in value_range)
        except (TypeError, ValueError):
            low = high = math.nan
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise SettingError(f"value_range takes (lowest, highest), as in (-1, 1); got {value_range}.")
        if scaled and scale is None:
            raise SettingError(f"{self.name} states no scale for its codes. Ask for raw codes.")
        self.image_shape: ImageShape = shapes[0]
        self.latent_shape: LatentShape = shapes[1]
        channels = self.latent_shape[0]
        if scale is not None and not {len(scale.factor), len(scale.shift)} <= {1, channels}:
            raise SettingError(
                f"{self.name} has {channels} latent channels, and its scale has {len(scale.factor)} factors and {len(scale.shift)} "
                "shifts. Give one number, or one a channel."
            )
        self.module = module
        self.scale = scale
        self.scaling: Literal["raw", "scaled"] = "scaled" if scaled else "raw"
        self.stride = stride
        self._looked = FirstLook()
        self._methods = {"encode": encode, "decode": decode}
        self._range = (low, high)
        self.lacks = frozenset(
            [verb for verb, method in self._methods.items() if method is None]
            + ([] if standard_normal else ["sample_codes"])  # read by `require_generator`
        )
        self.eval()

    def encode(self, images: Images) -> Posterior:
        """Return the posterior of each image.

        Raises:
            CapabilityError: the module does not encode; its answer is none that is understood, or another one each time.
            ImageFormatError: images of another shape.
            CodeShapeError: the codes are not of the latent shape that was stated.
        """
        check_images(tuple(images.shape[1:]), self, name="the batch")  # type: ignore[arg-type]
        low, high = self._range
        posterior = read_posterior(self._call("encode", images * (high - low) + low), name=self.name)
        mean, log_variance = posterior.mean.float(), posterior.log_variance
        if tuple(mean.shape) != (len(images), *self.latent_shape):
            raise CodeShapeError(
                f"{self.name} was said to have codes of {'x'.join(map(str, self.latent_shape))}, and it encodes {len(images)} images "
                f"as {'x'.join(map(str, mean.shape))}. State the latent_shape that it has."
            )
        if not self._looked.encoded:
            with torch.no_grad():
                again = read_posterior(self._call("encode", images[:COMPARED] * (high - low) + low), name=self.name).mean
            check_same_codes(mean[:COMPARED], again, name=self.name)
            self._looked.encoded = True
        log_variance = None if log_variance is None else log_variance.float()
        if self.scaling == "raw" or self.scale is None:
            return Posterior(mean, log_variance)
        gain = self.scale.log_variance_gain(mean)
        return Posterior(self.scale.apply(mean), None if log_variance is None else log_variance + gain)

    def decode(self, codes: Codes) -> Images:
        """Return the image of each code, in [0, 1].

        Raises:
            CapabilityError: the module does not decode, or its answer is none that is understood.
            CodeShapeError: codes of another latent space.
            ImageFormatError: the module decodes to images of another shape than was stated.
        """
        check_codes(codes, self)
        raw = self.scale.undo(codes) if self.scaling == "scaled" and self.scale is not None else codes
        images = read_images(self._call("decode", raw), name=self.name).to(codes.dtype)
        if tuple(images.shape) != (len(codes), *self.image_shape):
            raise ImageFormatError(
                f"{self.name} was said to make images of {'x'.join(map(str, self.image_shape))}, and it decodes {len(codes)} codes to "
                f"{'x'.join(map(str, images.shape))}. State the image_shape that it has."
            )
        low, high = self._range
        if not self._looked.decoded:
            cure = "What lies there is cut off: was it made for another value_range, as (-1, 1)?"
            self._looked.decoded = tell_of_range(images, low, high, name=self.name, cure=cure)
        return ((images - low) / (high - low)).clamp(0.0, 1.0)

    def sample_codes(self, n: int, generator: torch.Generator) -> Codes:
        """Return codes drawn from the standard normal prior.

        Raises:
            CapabilityError: nothing is known of the prior.
        """
        if "sample_codes" in self.lacks:
            raise CapabilityError(f"Nothing is known of the prior of {self.name}. Fit a sampler to its codes.")
        return torch.randn(n, *self.latent_shape, generator=generator)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the weights, and of what else decides the codes: class, methods, range, and the scale if it is applied."""
        weights = tensor_hash(*(value for value in self.module.state_dict().values() if isinstance(value, Tensor)))
        applied = self.scale if self.scaling == "scaled" else None
        rest = (type(self.module).__qualname__, sorted(self._methods.items(), key=str), self._range, self.scaling, applied)
        return hashlib.sha256(f"{weights}{rest}".encode()).hexdigest()

    def _call(self, verb: str, given: Tensor) -> object:
        method = self._methods[verb]
        if method is None:
            raise CapabilityError(f"{self.name} was given no method to {verb} with.")
        weights = next((weight for weight in self.module.parameters() if weight.is_floating_point()), None)
        return getattr(self.module, method)(given if weights is None else given.to(weights.dtype))


def from_module(
    module: nn.Module,
    *,
    image_shape: Sequence[int],
    latent_shape: Sequence[int],
    name: str | None = None,
    encode: str | None = "encode",
    decode: str | None = "decode",
    value_range: tuple[float | int, float | int] = (0.0, 1.0),
    scale: CodeScale | None = None,
    scaled: bool = False,
    stride: int | None = None,
    standard_normal: bool = False,
) -> ModuleModel:
    """Return a model made of the methods of a network of your own; all that takes a model takes it.

    Args:
        module: what computes, trained. It is put into evaluation mode; what it computes with is shared, not copied.
        image_shape: channels, height, width, as (1, 28, 28).
        latent_shape: of one code: (16,) for 16 variables, (4, 8, 8) for channels, rows and columns.
        name: what reports call it; None: the module's class.
        encode: the module's method from images to codes; None where it has none. It may answer with a tensor, a pair (mean,
            log-variance), a `torch.distributions.Normal`, or an object or mapping with `latent_dist`, `latents`, `latent`, or
            `embedding` (and `log_covariance`). It gives means and no samples: a method that draws is refused.
        decode: the module's method from codes to images; None where it has none. It may answer with a tensor, or an object
            or mapping with `sample` or `reconstruction`.
        value_range: of the module's images, as in (-1, 1). They are converted from and to [0, 1]; what a decoder draws
            beyond its range is cut off, and told of where it is much.
        scale: the normalisation that the module's makers state for its codes, where they do.
        scaled: whether to give and take normalised codes.
        stride: pixels a side for each position of a spatial latent space, where the module serves every multiple of it.
        standard_normal: whether its prior is the standard normal distribution, so that it can draw its own codes, as `invert` and
            `range_test` need.

    Raises:
        SettingError: no module, no such method, an impossible shape or range, or `scaled` without a scale that fits the channels.

    >>> model = from_module(nn.Flatten(), image_shape=(1, 2, 2), latent_shape=(4,), encode="forward", decode=None)
    >>> model.encode(torch.ones(1, 1, 2, 2)).mean
    tensor([[1., 1., 1., 1.]])
    """
    return ModuleModel(
        module,
        image_shape=image_shape,
        latent_shape=latent_shape,
        name=name,
        encode=encode,
        decode=decode,
        value_range=value_range,
        scale=scale,
        scaled=scaled,
        stride=stride,
        standard_normal=standard_normal,
    )


def read_posterior(answer: object, *, name: str) -> Posterior:
    """Return what an encoder's answer says of the codes.

    Args:
        answer: see `ModuleModel`.
        name: of the model, for the error.

    Raises:
        CapabilityError: it is none of the answers that are understood.
    """
    if isinstance(answer, Tensor):
        return Posterior(answer)
    distribution = _field(answer, "latent_dist")
    if distribution is not None:
        mean, log_variance = (getattr(distribution, field, None) for field in ("mean", "logvar"))
        if isinstance(mean, Tensor):
            return _checked(mean, log_variance, name=name)
    normal = answer.base_dist if isinstance(answer, torch.distributions.Independent) else answer
    if isinstance(normal, torch.distributions.Normal):
        return Posterior(normal.loc, 2.0 * normal.scale.log())
    for field in _MEANS:
        mean = _field(answer, field)
        if isinstance(mean, Tensor):
            beside = (_field(answer, other) for other in _LOG_VARIANCES)
            return _checked(mean, next((found for found in beside if isinstance(found, Tensor)), None), name=name)
    if isinstance(answer, tuple | list) and len(answer) == 1:
        return read_posterior(answer[0], name=name)
    if isinstance(answer, tuple | list) and len(answer) == 2 and all(isinstance(part, Tensor) for part in answer):
        return _checked(*answer, name=name)
    raise CapabilityError(
        f"{name} encodes images as {_described(answer)}. A tensor, a pair (mean, log-variance), or an object with latent_dist, "
        f"{', '.join(_MEANS)} is understood: wrap its method so that it gives one of them."
    )


def read_images(answer: object, *, name: str) -> Tensor:
    """Return the images of a decoder's answer.

    Args:
        answer: see `ModuleModel`.
        name: of the model, for the error.

    Raises:
        CapabilityError: it is none of the answers that are understood.
    """
    if isinstance(answer, Tensor):
        return answer
    for field in _IMAGES:
        images = _field(answer, field)
        if isinstance(images, Tensor):
            return images
    if isinstance(answer, tuple | list) and len(answer) == 1:
        return read_images(answer[0], name=name)
    raise CapabilityError(
        f"{name} decodes codes as {_described(answer)}. A tensor, or an object with {' or '.join(_IMAGES)} is understood: wrap its "
        "method so that it gives one of them."
    )


def _checked(mean: Tensor, log_variance: object, *, name: str) -> Posterior:
    if log_variance is None:
        return Posterior(mean)
    if not isinstance(log_variance, Tensor) or log_variance.shape != mean.shape:
        found = tuple(log_variance.shape) if isinstance(log_variance, Tensor) else type(log_variance).__name__
        raise CapabilityError(
            f"{name} encodes images as means of {tuple(mean.shape)} and log-variances of {found}. Only one log-variance a mean is understood: "
            "wrap its method so that it gives the diagonal, or means alone."
        )
    return Posterior(mean, log_variance)


def _field(answer: object, name: str) -> object:
    return answer.get(name) if isinstance(answer, Mapping) else getattr(answer, name, None)


def _described(answer: object) -> str:
    if isinstance(answer, Mapping):
        return f"a mapping with {', '.join(map(str, answer)) or 'nothing in it'}"
    if isinstance(answer, tuple | list):
        return f"a {type(answer).__name__} of {len(answer)}"
    return f"a {type(answer).__name__}"
