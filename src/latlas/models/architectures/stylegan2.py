"""StyleGAN2 (Karras et al. 2020, arXiv:1912.04958): settings, the generator, and its named latent spaces."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from latlas.base.errors import CapabilityError, ImageFormatError, SettingError, unknown_name
from latlas.base.shapes import Codes, Images, ImageShape, LatentShape
from latlas.models.architectures.architecture import check_positive
from latlas.models.architectures.blocks import square_side
from latlas.models.architectures.stylegan2_discriminator import StyleGAN2Discriminator
from latlas.models.architectures.stylegan2_mapping import Mapping
from latlas.models.architectures.stylegan2_synthesis import STRUCTURES, Noise, Synthesis

SPACES = ("z", "w", "w+")


@dataclass(frozen=True, kw_only=True)
class StyleGAN2:
    """A mapping network from z to w, and a synthesis network in which w styles every layer.

    Serves square images whose side is a power of two. The names of the weights are those of public StyleGAN2-ADA checkpoints.
    The defaults train on one processor core at 32 x 32; published networks have 512 variables, 8 layers and up to 512 channels.
    """

    name: ClassVar[str] = "stylegan2"
    convolutional: ClassVar[bool] = True

    latent: int = 64  # variables of z
    style: int = 64  # variables of w
    classes: int = 0  # 0: none
    layers: int = 4  # of the mapping
    width: int | None = None  # features of its hidden layers; None: as many as w has variables
    embedding: int | None = None  # features of a class; None: as many as w has variables
    mapping_rate: float = 0.01  # its learning rate, as a share of the others'
    channel_base: int = 1024  # a side s has channel_base / s channels,
    channel_max: int = 64  # and this many at most
    structure: str = "skip"  # or "resnet", "orig": see Synthesis
    taps: Sequence[float] = (1.0, 3.0, 3.0, 1.0)  # of the resampling filter
    noisy: bool = True
    clamp: float | None = None  # where features are cut off

    def __post_init__(self) -> None:
        object.__setattr__(self, "taps", tuple(self.taps))  # JSON gives a list
        sizes = {"width": self.width, "embedding": self.embedding}
        check_positive(
            self.name,
            latent=self.latent,
            style=self.style,
            layers=self.layers,
            channel_base=self.channel_base,
            channel_max=self.channel_max,
            **{name: size for name, size in sizes.items() if size is not None},
        )
        if self.structure not in STRUCTURES:
            raise unknown_name("structure", self.structure, STRUCTURES)
        if self.classes < 0 or not self.mapping_rate > 0 or (self.clamp is not None and not self.clamp > 0):
            raise SettingError(
                f"{self.name}: classes must be 0 or more, mapping_rate and clamp above 0, got {self.classes}, {self.mapping_rate} "
                f"and {self.clamp}."
            )
        if not self.taps or not abs(sum(self.taps)) > 0:
            raise SettingError(f"{self.name}: the taps of a filter must not sum to 0, got {self.taps}.")

    def latent_shape(self, image_shape: ImageShape) -> LatentShape:
        return (self.latent,)

    def generator(self, image_shape: ImageShape) -> nn.Module:
        return StyleGAN2Generator(self, image_shape)

    def discriminator(self, image_shape: ImageShape) -> nn.Module:
        side = _side(self, image_shape, at_least=8)
        return StyleGAN2Discriminator(
            side, image_shape[0], channel_base=self.channel_base, channel_max=self.channel_max, taps=self.taps
        )


class StyleGAN2Generator(nn.Module):
    """Codes of Z, W or W+ to images.

    The network's own images are nominally in [-1, 1] and go beyond. They leave as x/2 + 1/2, clipped to [0, 1]: see `clip`.

    Raises:
        ImageFormatError: images that are not square, or whose side is no power of two.
    """

    def __init__(self, settings: StyleGAN2, image_shape: ImageShape) -> None:
        super().__init__()
        side = _side(settings, image_shape, at_least=4)
        self.classes = settings.classes
        self.synthesis = Synthesis(
            side,
            settings.style,
            image_shape[0],
            channel_base=settings.channel_base,
            channel_max=settings.channel_max,
            structure=settings.structure,
            taps=settings.taps,
            noisy=settings.noisy,
            clamp=settings.clamp,
        )
        self.mapping = Mapping(
            settings.latent,
            settings.style,
            classes=settings.classes,
            layers=settings.layers,
            width=settings.width,
            embedding=settings.embedding,
            rate=settings.mapping_rate,
        )

    @property
    def num_ws(self) -> int:
        """Style codes of an image: one for each layer."""
        return self.synthesis.num_ws

    def forward(self, codes: Codes) -> Images:
        """Return the image of each z, in [0, 1]."""
        return clip(self.draw(self.spread(self.styles(codes))))

    def styles(self, codes: Tensor, labels: Tensor | None = None, *, truncation: float = 1.0) -> Tensor:
        """Return w of each z, `n style`.

        Args:
            codes: z.
            labels: `n classes`, one of each row 1 and the others 0; None where the network has no classes.
            truncation: 1 leaves styles as they are, 0 gives the mean style.

        Raises:
            CapabilityError: labels are missing, or there is nothing that they could be of.
        """
        if self.classes and labels is None:
            raise CapabilityError(f"This generator draws {self.classes} classes of images: say which one, as in ?class=0.")
        if labels is not None and not self.classes:
            raise CapabilityError("This generator has no classes. Ask for its images without one.")
        return self.mapping.truncate(self.mapping(codes, labels), truncation)

    def spread(self, styles: Tensor) -> Tensor:
        """Return W+ of each w: the same style for every layer, `n num_ws style`."""
        return styles[:, None].expand(-1, self.num_ws, -1)

    def draw(self, codes: Tensor, noise: Noise = "const", generator: torch.Generator | None = None) -> Tensor:
        """Return the image of each W+ code, not yet clipped. `noise` and `generator` are those of `Synthesis`."""
        return self.synthesis(codes, noise, generator) * 0.5 + 0.5


class _Clip(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, images: Tensor) -> Tensor:
        ctx.save_for_backward(images)
        return images.clamp(0, 1)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> Tensor:
        (images,) = ctx.saved_tensors  # type: ignore[attr-defined]
        leads_out = ((images < 0) & (gradient > 0)) | ((images > 1) & (gradient < 0))
        return gradient.masked_fill(leads_out, 0)


def clip(images: Tensor) -> Tensor:
    """Return images with what lies beyond 0 or 1 shown as 0 or 1.

    Two codes whose images differ only beyond those bounds are the same to whoever looks at pixels. The gradient beyond them
    is what would bring a pixel back, and 0 only for what would lead further out: with a plain clamp, which has none there, a
    descent could never darken a pixel once it is whiter than white.
    """
    clipped: Tensor = _Clip.apply(images)  # type: ignore[no-untyped-call]
    return clipped


def _side(settings: StyleGAN2, image_shape: ImageShape, *, at_least: int) -> int:
    side = square_side(settings.name, image_shape, at_least=at_least)
    if side & (side - 1):
        nearest = 1 << (side.bit_length() - 1)
        raise ImageFormatError(
            f"{settings.name} draws images whose side is a power of two, got {side}. Resize them (--resize {nearest})."
        )
    if settings.channel_base < side:
        raise SettingError(
            f"{settings.name}: channel_base must be at least the images' side {side}, got {settings.channel_base}."
        )
    return side
