"""The autoencoder of latent diffusion (Rombach et al. 2022, arXiv:2112.10752), as diffusers builds it, to be trained here."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from latlas.base.errors import MissingExtraError, SettingError
from latlas.base.shapes import Codes, Images, ImageShape, LatentShape
from latlas.models.architectures.architecture import Architecture, check_positive
from latlas.models.architectures.blocks import frame_padding, next_multiple, square_side
from latlas.models.architectures.surgery import Cut, Weights, identity_convolution, replaced


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
    between: int = 0  # channels between the decoder's first convolution, of 1 x 1, and its second; 0: as many as latent

    def __post_init__(self) -> None:
        check_positive(self.name, latent=self.latent, channels=self.channels, layers=self.layers, norm_groups=self.norm_groups)
        if not isinstance(self.between, int) or self.between < 0:
            raise SettingError(f"{self.name}: between must be at least 0, in whole numbers, got {self.between!r}.")
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

    def pruned(self, weights: Mapping[str, Tensor], cut: Cut) -> tuple[Architecture, Weights]:
        exact = {name: weight.cpu().double() for name, weight in weights.items() if name.rpartition(".")[0] in _LATENT_LAYERS}
        kept, removed = list(cut.kept), list(cut.removed)
        # Two linear layers that follow one another are one: of 3x3, and then of 1x1, which pads nothing.
        last = exact["encoder.last.weight"][cut.doubled, :, 0, 0]
        changed = {
            "encoder.network.conv_out.weight": torch.einsum("oi,ichw->ochw", last, exact["encoder.network.conv_out.weight"]),
            "encoder.network.conv_out.bias": last @ exact["encoder.network.conv_out.bias"]
            + exact["encoder.last.bias"][cut.doubled],
            "encoder.last.weight": identity_convolution(2 * len(kept)),
            "encoder.last.bias": torch.zeros(2 * len(kept)),
        }
        first = exact["decoder.first.weight"][:, :, 0, 0]
        constant = first[:, removed] @ cut.folded + exact["decoder.first.bias"]
        between = len(first)
        if len(kept) + 1 < between:
            # What is constant ends where the padding of the second layer begins, so that no bias of that layer could stand for
            # it: it becomes one channel of ones, which is padded like the others.
            between = len(kept) + 1
            second = exact["decoder.network.conv_in.weight"]
            inputs = torch.cat([first[:, kept], constant[:, None]], dim=1)
            changed["decoder.network.conv_in.weight"] = torch.einsum("ochw,ci->oihw", second, inputs)
            changed["decoder.first.weight"] = identity_convolution(between)[:, :-1]
            changed["decoder.first.bias"] = torch.eye(between, dtype=torch.float64)[-1]
        else:
            changed["decoder.first.weight"] = exact["decoder.first.weight"][:, kept]
            changed["decoder.first.bias"] = constant
        return replace(self, latent=len(kept), between=between), replaced(weights, changed)

    def padding(self, image_shape: ImageShape) -> list[int]:
        """Return what centres an image in its frame.

        Raises:
            ImageFormatError: images that are not square, or too small to be halved this often.
        """
        side = square_side(self.name, image_shape, at_least=2 * self.reduction)
        return frame_padding(side, next_multiple(side, self.reduction))


# Layers that make codes and that take them, under the names that a VAE gives their weights.
_LATENT_LAYERS = ("encoder.network.conv_out", "encoder.last", "decoder.first", "decoder.network.conv_in")


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
        between = settings.between or settings.latent
        self.first = nn.Conv2d(settings.latent, between, 1)  # diffusers' post_quant_conv
        self.network = _diffusers().Decoder(
            in_channels=between,
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
