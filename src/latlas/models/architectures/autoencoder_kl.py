"""The autoencoder of latent diffusion (Rombach et al. 2022, arXiv:2112.10752), as diffusers builds it, to be trained here."""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from latlas.base.errors import MissingExtraError, SettingError
from latlas.base.shapes import Codes, Images, ImageShape, LatentShape
from latlas.models.architectures.architecture import check_positive
from latlas.models.architectures.blocks import frame_padding, next_multiple, square_side


@dataclass(frozen=True, kw_only=True)
class AutoencoderKL:
    """Residual blocks with group norm, attention in the middle, and a spatial latent space.

    The published one has channels (128, 256, 512, 512), 2 layers a block and 32 groups: 84 million parameters. Square
    images of at least 2^len(channels) a side are served: they are zero-padded to the next multiple of
    2^(len(channels) - 1) and cropped back.
    """

    name: ClassVar[str] = "autoencoder-kl"
    convolutional: ClassVar[bool] = True

    latent: int = 4  # channels of the latent space
    channels: tuple[int, ...] = (32, 64, 64)  # of each block of the encoder, at half the side of the one before
    layers: int = 1  # residual blocks of each block of the encoder; the decoder has one more
    norm_groups: int = 16  # of group norm; must divide every one of the channels

    def __post_init__(self) -> None:
        check_positive(self.name, latent=self.latent, channels=self.channels, layers=self.layers, norm_groups=self.norm_groups)
        if not self.channels:
            raise SettingError(f"{self.name}: channels must name at least one block, as in (32, 64, 64).")
        if any(width % self.norm_groups for width in self.channels):
            raise SettingError(
                f"{self.name}: norm_groups must divide each of the channels, got {self.norm_groups} for {self.channels}."
            )

    @property
    def reduction(self) -> int:
        """How many pixels of a side make one position of the latent space."""
        return int(2 ** (len(self.channels) - 1))

    def latent_shape(self, image_shape: ImageShape) -> LatentShape:
        frame = image_shape[1] + sum(self.padding(image_shape)[:2])
        return (self.latent, frame // self.reduction, frame // self.reduction)

    def encoder(self, image_shape: ImageShape) -> nn.Module:
        return KLEncoder(image_shape, self)

    def decoder(self, image_shape: ImageShape) -> nn.Module:
        return KLDecoder(image_shape, self)

    def padding(self, image_shape: ImageShape) -> list[int]:
        """Return what centres an image in its frame.

        Raises:
            ImageFormatError: images that are not square, or too small to be halved this often.
        """
        side = square_side(self.name, image_shape, at_least=2 * self.reduction)
        return frame_padding(side, next_multiple(side, self.reduction))


class KLEncoder(nn.Module):
    """Images to means and log-variances."""

    def __init__(self, image_shape: ImageShape, settings: AutoencoderKL) -> None:
        super().__init__()
        self.padding = settings.padding(image_shape)
        self.network = _diffusers().Encoder(
            in_channels=image_shape[0],
            out_channels=settings.latent,
            down_block_types=("DownEncoderBlock2D",) * len(settings.channels),
            block_out_channels=settings.channels,
            layers_per_block=settings.layers,
            norm_num_groups=settings.norm_groups,
        )
        self.last = nn.Conv2d(2 * settings.latent, 2 * settings.latent, 1)  # diffusers' quant_conv

    def forward(self, images: Images) -> tuple[Codes, Codes]:
        framed = nn.functional.pad(images, self.padding)
        mean, log_variance = self.last(self.network(2.0 * framed - 1.0)).chunk(2, dim=1)
        return mean, log_variance


class KLDecoder(nn.Module):
    """Codes to logits."""

    def __init__(self, image_shape: ImageShape, settings: AutoencoderKL) -> None:
        super().__init__()
        self.crop = [-side for side in settings.padding(image_shape)]
        self.first = nn.Conv2d(settings.latent, settings.latent, 1)  # diffusers' post_quant_conv
        self.network = _diffusers().Decoder(
            in_channels=settings.latent,
            out_channels=image_shape[0],
            up_block_types=("UpDecoderBlock2D",) * len(settings.channels),
            block_out_channels=settings.channels,
            layers_per_block=settings.layers,
            norm_num_groups=settings.norm_groups,
        )

    def forward(self, codes: Codes) -> Tensor:
        return nn.functional.pad(self.network(self.first(codes)), self.crop)


def _diffusers() -> Any:
    """Return the module of diffusers that holds the two networks: it takes seconds to import, and not everyone has it.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        from diffusers.models.autoencoders import vae
    except ImportError as failure:
        raise MissingExtraError(
            "The autoencoder-kl architecture needs the package diffusers, which is not installed "
            f"({failure}). Install it: pip install 'latlas[hub]'."
        ) from failure
    return vae
