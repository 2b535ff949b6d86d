"""A model from two functions: the adapter for everything that has no other."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from latlas.base.errors import CapabilityError
from latlas.base.provenance import UNSTATED
from latlas.base.shapes import Codes, Images, ImageShape, LatentShape
from latlas.models.protocols import Posterior, check_codes, checked_shapes

EncodeFunction = Callable[[Tensor], Tensor | tuple[Tensor, Tensor]]


@dataclass(frozen=True, kw_only=True, eq=False)
class CallableModel:
    """A model made of `encode_with` (images to means, or to means and log-variances) and `decode_with`.

    Both take and give float tensors; images in [0, 1]. The fingerprint is yours to state, since latlas cannot look
    into a function: change it when the weights change.

    Raises:
        SettingError: shapes that no images or codes have.
    """

    name: str
    image_shape: ImageShape
    latent_shape: LatentShape
    encode_with: EncodeFunction | None = None
    decode_with: Callable[[Tensor], Tensor] | None = None
    sample_with: Callable[[int, torch.Generator], Tensor] | None = None  # None: a standard normal prior
    fingerprint: str = UNSTATED
    device: torch.device = torch.device("cpu")

    def __post_init__(self) -> None:
        checked_shapes(self.image_shape, self.latent_shape, name=self.name)

    @property
    def lacks(self) -> frozenset[str]:
        """The methods for which no function was given: `require_autoencoder` and its like ask this before any work."""
        given = {"encode": self.encode_with, "decode": self.decode_with}
        return frozenset(method for method, function in given.items() if function is None)

    def encode(self, images: Images) -> Posterior:
        """Return the posterior of each image.

        Raises:
            CapabilityError: no function to encode with was given.
        """
        if self.encode_with is None:
            raise CapabilityError(f"{self.name} was given no function to encode with.")
        answer = self.encode_with(images)
        return Posterior(*answer) if isinstance(answer, tuple) else Posterior(answer)

    def decode(self, codes: Codes) -> Images:
        """Return the image of each code.

        Raises:
            CapabilityError: no function to decode with was given.
        """
        if self.decode_with is None:
            raise CapabilityError(f"{self.name} was given no function to decode with.")
        check_codes(codes, self)
        return self.decode_with(codes)

    def sample_codes(self, n: int, generator: torch.Generator) -> Codes:
        """Return codes from `sample_with`, or from a standard normal prior."""
        if self.sample_with is not None:
            return self.sample_with(n, generator)
        return torch.randn(n, *self.latent_shape, generator=generator)
