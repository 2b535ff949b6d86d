"""What an architecture is: settings that build an encoder and a decoder for an image shape."""

from typing import ClassVar, Protocol, runtime_checkable

from torch import Tensor, nn

from latlas.base.errors import SettingError
from latlas.base.shapes import Codes, Images, ImageShape, LatentShape


@runtime_checkable
class NamedSettings(Protocol):
    """Settings of networks, under a name: a frozen dataclass, written as JSON beside the weights."""

    name: ClassVar[str]


@runtime_checkable
class Architecture(Protocol):
    """Settings of an encoder/decoder pair; a frozen dataclass, written as JSON beside the weights.

    The encoder maps `n c h w` images in [0, 1] to a pair (means, log-variances) of codes; the decoder maps codes to
    `n c h w` logits, whose sigmoid is the image. Logits keep the Bernoulli likelihood exact where pixels saturate.

    An encoder whose posterior depends on the codes that were drawn before is a `SequentialEncoder` instead.
    """

    name: ClassVar[str]
    convolutional: ClassVar[bool]  # whether bfloat16 and channels-last pay: see training.precision

    def latent_shape(self, image_shape: ImageShape) -> LatentShape: ...
    def encoder(self, image_shape: ImageShape) -> nn.Module: ...
    def decoder(self, image_shape: ImageShape) -> nn.Module: ...


@runtime_checkable
class SequentialEncoder(Protocol):
    """An encoder that draws codes as it goes, watching the decoder: all comes together, for a given noise.

    `unroll` returns means, log-variances, the codes of the noise, and the logits that the decoder made of them.
    """

    def unroll(self, images: Images, noise: Codes, decoder: nn.Module) -> tuple[Codes, Codes, Codes, Tensor]: ...


def check_positive(name: str, **settings: int | tuple[int, ...]) -> None:
    """Raise unless every size is a whole number of at least 1.

    Raises:
        SettingError: one is not.
    """
    for setting, value in settings.items():
        sizes = value if isinstance(value, tuple) else (value,)
        if not all(isinstance(size, int) and size >= 1 for size in sizes):
            raise SettingError(f"{name}: {setting} must be at least 1, in whole numbers, got {value!r}.")
