"""The recoder: a network that gives codes for images of one frozen generator, and the autoencoder that both make."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from latlas.base.cards import FOLDER, Card
from latlas.base.errors import CapabilityError
from latlas.base.provenance import Provenance, tensor_hash
from latlas.base.shapes import Codes, Images, ImageShape, LatentShape
from latlas.models.architectures.architecture import check_positive
from latlas.models.architectures.blocks import frame_padding, next_multiple, square_side
from latlas.models.pretrained import PretrainedNetwork, read_pretrained, shape_of_images, shape_text
from latlas.models.protocols import Generator, LatentModel, Posterior, check_images, parameter_count

KIND = "recoder"
_SMALLEST_SIDE = 4  # of a feature map; up to 7 where a side is no multiple of a power of two


@dataclass(frozen=True, kw_only=True)
class RecoderSettings:
    """4x4 convolutions of stride 2 down to a grid of 4 to 7 positions, then two dense layers."""

    channels: int = 32  # of the first map; they double at each halving
    widest: int = 256  # channels at most
    hidden: int = 512  # units of the dense layer before the codes

    def __post_init__(self) -> None:
        check_positive(KIND, channels=self.channels, widest=self.widest, hidden=self.hidden)


class Recoder(PretrainedNetwork):
    """A deterministic encoder for the images of one generator. It comes ready for use, in evaluation mode.

    Args:
        generator: whose images it codes: its name, fingerprint and shapes are remembered.
        settings: sizes of the network; None for the defaults.
        code_mean: of each variable, over the generator's own codes; None for 0.
        code_scale: standard deviation of each, which the network's output is multiplied by; None for 1.
        name: what reports call it.
        provenance: what it was trained from; None before training.

    Raises:
        ImageFormatError: images that are not square, or smaller than 8 x 8.
    """

    kind = KIND
    code_mean: Tensor
    code_scale: Tensor

    def __init__(
        self,
        generator: LatentModel,
        settings: RecoderSettings | None = None,
        *,
        code_mean: Tensor | None = None,
        code_scale: Tensor | None = None,
        name: str | None = None,
        provenance: Provenance | None = None,
    ) -> None:
        super().__init__()
        self.settings = settings if settings is not None else RecoderSettings()
        self.generator_name, self.generator_fingerprint = generator.name, generator.fingerprint
        self.image_shape: ImageShape = generator.image_shape
        self.latent_shape: LatentShape = tuple(generator.latent_shape)
        self.name = name if name is not None else f"recoder of {generator.name}"
        self.provenance = provenance
        variables = torch.Size(self.latent_shape).numel()
        self.register_buffer("code_mean", torch.zeros(self.latent_shape) if code_mean is None else code_mean.float().clone())
        self.register_buffer("code_scale", torch.ones(self.latent_shape) if code_scale is None else code_scale.float().clone())
        side = square_side(KIND, self.image_shape, at_least=2 * _SMALLEST_SIDE)
        halvings = (side // _SMALLEST_SIDE).bit_length() - 1
        frame = next_multiple(side, 2**halvings)
        self.padding = frame_padding(side, frame)
        widths = [min(self.settings.channels * 2**stage, self.settings.widest) for stage in range(halvings)]
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise([self.image_shape[0], *widths]):
            layers += [nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2)]
        self.stages = nn.Sequential(*layers)
        grid = frame // 2**halvings
        last = nn.Linear(self.settings.hidden, variables)
        nn.init.zeros_(last.weight)  # the first answer is the mean code
        nn.init.zeros_(last.bias)
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(widths[-1] * grid**2, self.settings.hidden, bias=False),
            nn.BatchNorm1d(self.settings.hidden),
            nn.LeakyReLU(0.2),
            last,
        )
        self.eval()

    def encode(self, images: Images) -> Posterior:
        """Return a code for each image: a posterior without variances.

        Raises:
            ImageFormatError: images of another shape than the generator's.
        """
        check_images(tuple(images.shape[1:]), self, name="the batch")  # type: ignore[arg-type]
        padded = nn.functional.pad(2 * images - 1, self.padding)
        standard: Codes = self.head(self.stages(padded)).unflatten(1, self.latent_shape)
        return Posterior(self.code_mean + self.code_scale * standard)

    def check_fits(self, generator: LatentModel) -> None:
        """Raise unless this is the generator that the recoder was trained for.

        Raises:
            CapabilityError: it is another one.
        """
        if generator.fingerprint != self.generator_fingerprint:
            raise CapabilityError(
                f"{self.name} codes the images of {self.generator_name}, with other weights than {generator.name} has. Train "
                "one for it: latlas train recoder GENERATOR --out FOLDER."
            )

    def settings_to_json(self) -> dict[str, Any]:
        """Return what rebuilds it, beside its weights."""
        return {
            "network": asdict(self.settings),
            "generator": {
                "name": self.generator_name,
                "fingerprint": self.generator_fingerprint,
                "image_shape": list(self.image_shape),
                "latent_shape": list(self.latent_shape),
            },
            "name": self.name,
        }

    def card(self) -> Card:
        """Return what its model card says."""
        images, codes = shape_text(self.image_shape), shape_text(self.latent_shape)
        return Card(
            title=self.name,
            summary=(
                f"A recoder: images of {images} in [0, 1] to codes of {codes} of the generator `{self.generator_name}`, on whose own "
                "images it was trained. It serves that generator, with the weights named below, and no other."
            ),
            usage=(
                f'import latlas\n\nrecoder = latlas.load_model("{FOLDER}")\n'
                f"codes = recoder.encode(images).mean  # images: float tensor n x {images}, in [0, 1]\n"
                "both = latlas.with_recoder(generator, recoder)  # an autoencoder; generator: the model named below"
            ),
            kind=KIND,
            facts={
                **asdict(self.settings),
                "generator": self.generator_name,
                "weights of the generator": self.generator_fingerprint,
                "images": self.image_shape,
                "codes": self.latent_shape,
                "parameters": parameter_count(self),
            },
        )

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> "Recoder":
        """Read a recoder that `save_pretrained` or `train_recoder` wrote: its folder, or its Hub id.

        Raises:
            MissingPathError, ArtifactError: no such artifact, or a damaged one.
            HubError: a Hub id, and the Hub could not be reached.
        """

        def build(settings: Mapping[str, Any], provenance: Provenance) -> Recoder:
            return cls(
                _RememberedGenerator.from_json(settings["generator"]),
                RecoderSettings(**settings["network"]),
                name=str(settings["name"]),
                provenance=provenance,
            )

        return read_pretrained(folder, build, kind=KIND, called="recoder")


@dataclass(frozen=True, kw_only=True)
class _RememberedGenerator:
    """What a recoder's folder knows of its generator."""

    name: str
    fingerprint: str
    image_shape: ImageShape
    latent_shape: LatentShape

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "_RememberedGenerator":
        return cls(
            name=str(record["name"]),
            fingerprint=str(record["fingerprint"]),
            image_shape=shape_of_images(record["image_shape"]),
            latent_shape=tuple(int(size) for size in record["latent_shape"]),
        )


class RecodedGenerator(nn.Module):
    """A generator that encodes through its recoder: an autoencoder whose decoder draws its own codes."""

    def __init__(self, generator: Generator, recoder: Recoder) -> None:
        super().__init__()
        self.generator, self.recoder = generator, recoder
        self.name = f"{generator.name} with recoder"
        self.image_shape: ImageShape = generator.image_shape
        self.latent_shape: LatentShape = tuple(generator.latent_shape)

    def encode(self, images: Images) -> Posterior:
        """Return the code that the recoder gives each image."""
        return self.recoder.encode(images)

    def decode(self, codes: Codes) -> Images:
        """Return the generator's image of each code."""
        return self.generator.decode(codes)

    def sample_codes(self, n: int, generator: torch.Generator) -> Codes:
        """Return codes as the generator draws them."""
        return self.generator.sample_codes(n, generator)

    @property
    def fingerprint(self) -> str:
        """Changes with the weights of either."""
        both = "".join(model.fingerprint for model in (self.generator, self.recoder))
        return tensor_hash(torch.tensor(list(both.encode()), dtype=torch.uint8))


def with_recoder(generator: Generator, recoder: Recoder) -> RecodedGenerator:
    """Return the autoencoder that a generator and its recoder make: what encodes takes the place of inversion.

    Args:
        generator: draws codes and decodes.
        recoder: trained for it, as by `train_recoder`.

    Raises:
        CapabilityError: the recoder was trained for another generator.
    """
    recoder.check_fits(generator)
    return RecodedGenerator(generator, recoder)
