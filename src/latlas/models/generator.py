"""The one assembly of a generator: any architecture with a decoder and a prior, saved as safetensors and JSON."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import nn

from latlas.base.cards import FOLDER, Card
from latlas.base.errors import SettingError, unknown_name
from latlas.base.provenance import Provenance
from latlas.base.shapes import Codes, Images, ImageShape, LatentShape
from latlas.models.architectures.dcgan import DCGAN
from latlas.models.architectures.registry import architecture_to_json
from latlas.models.architectures.stylegan2 import StyleGAN2
from latlas.models.pretrained import PretrainedNetwork, read_pretrained, shape_of_images, shape_text
from latlas.models.protocols import check_codes, parameter_count

KIND = "generator"


@runtime_checkable
class GeneratorArchitecture(Protocol):
    """Settings of a generator and of the discriminator that trains it; a frozen dataclass, written as JSON.

    The generator maps codes, drawn from a standard normal prior, to `n c h w` images in [0, 1]; the discriminator maps images
    to `n` logits, positive where they look real.
    """

    name: ClassVar[str]
    convolutional: ClassVar[bool]

    def latent_shape(self, image_shape: ImageShape) -> LatentShape: ...  # noqa: D102
    def generator(self, image_shape: ImageShape) -> nn.Module: ...  # noqa: D102
    def discriminator(self, image_shape: ImageShape) -> nn.Module: ...  # noqa: D102


ARCHITECTURES: dict[str, type[Any]] = {kind.name: kind for kind in (DCGAN, StyleGAN2)}


class GeneratorModel(PretrainedNetwork):
    """A generator with a standard normal prior. It comes ready for use, in evaluation mode.

    Args:
        architecture: settings of the network, or the name of one with its default settings: "dcgan", "stylegan2".
        image_shape: channels, height, width.
        name: what reports call it.
        provenance: what it was trained from; None before training.

    Raises:
        UnknownNameError: no such architecture.
        ImageFormatError: an image shape that the architecture cannot serve.
    """

    kind = KIND

    def __init__(
        self,
        architecture: GeneratorArchitecture | str,
        image_shape: ImageShape,
        *,
        name: str | None = None,
        provenance: Provenance | None = None,
    ) -> None:
        super().__init__()
        if isinstance(architecture, str):
            architecture = generator_architecture(architecture)
        self.architecture = architecture
        self.image_shape: ImageShape = image_shape
        self.latent_shape: LatentShape = architecture.latent_shape(image_shape)
        self.name = name if name is not None else f"{architecture.name} generator"
        self.provenance = provenance
        self.network = architecture.generator(image_shape)
        self.eval()

    def decode(self, codes: Codes) -> Images:
        """Return the image of each code, in [0, 1].

        Raises:
            CodeShapeError: codes of another latent space.
        """
        check_codes(codes, self)
        images: Images = self.network(codes)
        return images

    def sample_codes(self, n: int, generator: torch.Generator) -> Codes:
        """Return codes drawn from the prior."""
        return torch.randn(n, *self.latent_shape, generator=generator)

    def settings_to_json(self) -> dict[str, Any]:
        """Return what rebuilds it, beside its weights."""
        return {
            "architecture": architecture_to_json(self.architecture),
            "image_shape": list(self.image_shape),
            "name": self.name,
        }

    def card(self) -> Card:
        """Return what its model card says."""
        images, codes = shape_text(self.image_shape), shape_text(self.latent_shape)
        settings = architecture_to_json(self.architecture)
        return Card(
            title=self.name,
            summary=(
                f"A generator: codes of {codes}, drawn from a standard normal prior, to images of {images} in [0, 1]. It does not "
                "encode; for that, train a recoder."
            ),
            usage=(
                f'import torch\nimport latlas\n\nmodel = latlas.load_model("{FOLDER}")\n'
                f"codes = model.sample_codes(16, torch.Generator().manual_seed(0))  # 16 x {codes}\n"
                f"images = model.decode(codes)  # float tensor 16 x {images}, in [0, 1]"
            ),
            kind=KIND,
            tags=(self.architecture.name,),
            facts={
                "architecture": settings.pop("name"),
                **settings,
                "images": self.image_shape,
                "codes": self.latent_shape,
                "parameters": parameter_count(self),
            },
        )

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> "GeneratorModel":
        """Read a generator that `save_pretrained` or `train_gan` wrote: its folder, or its Hub id.

        Raises:
            MissingPathError, ArtifactError: no such artifact, or a damaged one.
            HubError: a Hub id, and the Hub could not be reached.
        """

        def build(settings: Mapping[str, Any], provenance: Provenance) -> GeneratorModel:
            return cls(
                generator_architecture(**settings["architecture"]),
                shape_of_images(settings["image_shape"]),
                name=str(settings["name"]),
                provenance=provenance,
            )

        return read_pretrained(folder, build, kind=KIND, called="generator")


def generator_architecture(name: str, **settings: Any) -> GeneratorArchitecture:
    """Return the generator architecture of that name with its settings.

    Raises:
        UnknownNameError: no such architecture.
        SettingError: it has no such setting, or the value is out of range.

    >>> generator_architecture("dcgan", latent=2).latent_shape((1, 28, 28))
    (2,)
    """
    if name not in ARCHITECTURES:
        raise unknown_name("generator architecture", name, ARCHITECTURES)
    kind = ARCHITECTURES[name]
    known: Mapping[str, Any] = kind.__dataclass_fields__
    for setting in settings:
        if setting not in known or setting in ("name", "convolutional"):
            offered = ", ".join(sorted(set(known) - {"name", "convolutional"}))
            raise SettingError(f"The {name} architecture has no setting {setting!r}; it has {offered}.")
    built: GeneratorArchitecture = kind(**settings)
    return built
