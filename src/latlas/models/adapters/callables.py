"""A model from two functions: the adapter for everything that has no other."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from latlas.base.errors import CapabilityError, CodeShapeError, SettingError
from latlas.base.provenance import UNSTATED
from latlas.base.shapes import Codes, Images, ImageShape, LatentShape
from latlas.models.adapters.first_look import FirstLook, tell_of_range
from latlas.models.adapters.modules import read_images, read_posterior
from latlas.models.drawn import check_shape
from latlas.models.protocols import Posterior, check_codes, checked_shapes

EncodeFunction = Callable[[Tensor], Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class CallableModel:
    """A model made of two functions, one of them at least: images to codes, and codes to images.

    Both get and give torch tensors, of one row an image; images lie in [0, 1]: convert within the functions what was trained on
    another range. Networks that they use belong into evaluation mode. Anything that is one `torch.nn.Module` is wrapped more
    easily by `latlas.from_module`.

    Args:
        name: what reports call it.
        image_shape: channels, height, width, as (1, 28, 28).
        latent_shape: of one code: (16,) for 16 variables, (4, 8, 8) for channels, rows and columns.
        encode_with: images `n c h w` to the means of their codes, `n` x `latent_shape`, or to a pair (mean, log-variance), or any
            other answer that `latlas.from_module` understands; no samples. None: the model cannot encode.
        decode_with: codes to images. For `invert` and `range_test` gradients must go through it: no `no_grad` in it. None: the
            model cannot decode.
        sample_with: a number n and a `torch.Generator` to n codes, drawn with that generator and nothing else: the latent space
            of a GAN. None: a standard normal prior.
        fingerprint: yours to state, since latlas cannot look into a function: what changes when the weights change, as a hash
            of them.
        device: where they want their input, as "cuda", and leave their output.

    Raises:
        SettingError: shapes that no images or codes have; something that is no function; a device that there is not.

    >>> half = CallableModel(
    ...     name="half", image_shape=(1, 2, 2), latent_shape=(4,),
    ...     encode_with=lambda images: images.flatten(1) / 2,
    ...     decode_with=lambda codes: 2 * codes.view(-1, 1, 2, 2),
    ... )
    >>> half.encode(torch.ones(1, 1, 2, 2)).mean
    tensor([[0.5000, 0.5000, 0.5000, 0.5000]])
    """

    name: str
    image_shape: ImageShape
    latent_shape: LatentShape
    encode_with: EncodeFunction | None = None
    decode_with: Callable[[Tensor], Tensor] | None = None
    sample_with: Callable[[int, torch.Generator], Tensor] | None = None  # None: a standard normal prior
    fingerprint: str = UNSTATED
    device: torch.device | str = torch.device("cpu")
    _looked: FirstLook = field(default_factory=FirstLook, init=False, repr=False)

    def __post_init__(self) -> None:
        checked_shapes(self.image_shape, self.latent_shape, name=self.name)
        for part in ("encode_with", "decode_with", "sample_with"):
            if getattr(self, part) is not None and not callable(getattr(self, part)):
                raise SettingError(f"{self.name}: {part} takes a function, got a {type(getattr(self, part)).__name__}.")
        try:
            object.__setattr__(self, "device", torch.device(self.device))
        except (RuntimeError, TypeError) as failure:
            raise SettingError(f"{self.name}: unknown device {self.device!r}. Give cpu, cuda or cuda:1.") from failure

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """The networks that the functions plainly name: `check_model` asks whether they are in training mode."""
        functions = (self.encode_with, self.decode_with, self.sample_with)
        return tuple({id(each): each for function in functions for each in _networks_of(function)}.values())

    @property
    def lacks(self) -> frozenset[str]:
        """The methods for which no function was given: `require_autoencoder` and its like ask this before any work."""
        given = {"encode": self.encode_with, "decode": self.decode_with}
        return frozenset(method for method, function in given.items() if function is None)

    def encode(self, images: Images) -> Posterior:
        """Return the posterior of each image.

        Raises:
            CapabilityError: no function to encode with was given, or its answer is none that is understood.
            CodeShapeError: the codes are not of the latent shape that was stated, or not one an image.
        """
        if self.encode_with is None:
            raise CapabilityError(f"{self.name} was given no function to encode with.")
        posterior = read_posterior(self.encode_with(images), name=self.name)
        if tuple(posterior.mean.shape) != (images.shape[0], *self.latent_shape):  # not its length, which an export would fix
            raise CodeShapeError(
                f"{self.name} was said to have codes of {'x'.join(map(str, self.latent_shape))}, and it encodes {len(images)} images "
                f"as {'x'.join(map(str, posterior.mean.shape))}. State the latent_shape that it has, and give one code an image."
            )
        return posterior

    def decode(self, codes: Codes) -> Images:
        """Return the image of each code.

        Raises:
            CapabilityError: no function to decode with was given, or its answer is none that is understood.
            CodeShapeError: codes of another latent space.
            ImageFormatError: images of another shape than was stated, or not one a code.
        """
        if self.decode_with is None:
            raise CapabilityError(f"{self.name} was given no function to decode with.")
        check_codes(codes, self)
        images = read_images(self.decode_with(codes), name=self.name)
        check_shape(images, self, count=codes.shape[0])
        if not self._looked.decoded:
            cure = "latlas takes them for values in [0, 1]: rescale what decode_with returns."
            self._looked.decoded = tell_of_range(images, 0.0, 1.0, name=self.name, cure=cure)
        return images

    def sample_codes(self, n: int, generator: torch.Generator) -> Codes:
        """Return codes from `sample_with`, or from a standard normal prior.

        Raises:
            SettingError: `sample_with` draws with another generator than the one that it is given.
            CodeShapeError: it draws codes of another shape than was stated.
        """
        if self.sample_with is None:
            return torch.randn(n, *self.latent_shape, generator=generator)
        before = generator.get_state()
        codes: Any = self._drawn(n, generator)
        if not isinstance(codes, Tensor) or tuple(codes.shape) != (n, *self.latent_shape):
            found = "x".join(map(str, codes.shape)) if isinstance(codes, Tensor) else f"a {type(codes).__name__}"
            raise CodeShapeError(
                f"{self.name} was said to have codes of {'x'.join(map(str, self.latent_shape))}, and asked for {n} its sample_with draws "
                f"{found}. Let it return a tensor, one code a row."
            )
        if not self._looked.drawn:
            unused = generator.get_state().equal(before)
            if unused and not codes.equal(self._drawn(n, generator)):  # and no codes that are kept
                raise SettingError(
                    f"The sample_with of {self.name} draws other codes from the same generator, so that no seed would decide them. Use the "
                    "one that it is given and no other: torch.randn(n, 16, generator=generator)."
                )
            self._looked.drawn = True
        return codes

    def _drawn(self, n: int, generator: torch.Generator) -> Tensor:
        assert self.sample_with is not None
        try:
            inspect.signature(self.sample_with).bind(n, generator)
        except TypeError as failure:
            raise SettingError(
                f"The sample_with of {self.name} takes a number and a torch.Generator, as lambda n, generator: ... ({failure})."
            ) from failure
        except ValueError:  # a function that tells nothing of what it takes
            pass
        return self.sample_with(n, generator)


def _networks_of(function: object) -> list[nn.Module]:
    """Return the networks that a function is, belongs to, or names: what it reaches in other ways stays unseen."""
    if isinstance(function, nn.Module):
        return [function]
    if isinstance(function, functools.partial):
        inner = (function.func, *function.args, *function.keywords.values())
        return [each for part in inner for each in _networks_of(part)]
    if not callable(function):
        return []
    owner = getattr(function, "__self__", None)
    named: list[Any] = [owner]
    try:
        variables = inspect.getclosurevars(inspect.unwrap(function))
        named += [*variables.nonlocals.values(), *variables.globals.values()]
    except (TypeError, ValueError):  # no function of Python
        pass
    return [each for each in named if isinstance(each, nn.Module)]
