"""The one assembly of a generator: any architecture with a decoder and a prior, saved as safetensors and JSON."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import nn

from latlas.base.artifacts import load_tensors, read_config, save_tensors, write_config, writing
from latlas.base.errors import ArtifactError, LatlasError, SettingError, unknown_name
from latlas.base.provenance import Provenance, tensor_hash
from latlas.base.shapes import Codes, Images, ImageShape, LatentShape
from latlas.models.architectures.dcgan import DCGAN
from latlas.models.architectures.stylegan2 import StyleGAN2
from latlas.models.protocols import check_codes

KIND = "generator"
WEIGHTS = "model.safetensors"


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


class GeneratorModel(nn.Module):
    """A generator with a standard normal prior. It comes ready for use, in evaluation mode.

    Args:
        architecture: settings of the network.
        image_shape: channels, height, width.
        name: what reports call it.
        provenance: what it was trained from; None before training.

    Raises:
        ImageFormatError: an image shape that the architecture cannot serve.
    """

    def __init__(
        self,
        architecture: GeneratorArchitecture,
        image_shape: ImageShape,
        *,
        name: str | None = None,
        provenance: Provenance | None = None,
    ) -> None:
        super().__init__()
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

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the weights."""
        return tensor_hash(*self.state_dict().values())

    def save_pretrained(self, folder: str | Path, *, replace: bool = False) -> None:
        """Write the model as an artifact folder.

        Raises:
            OutputExistsError: the folder already holds something.
        """
        with writing(folder, replace=replace) as beside:
            self.write_files(beside)

    def write_files(self, folder: Path) -> None:
        """Write weights and config into a folder that `writing` gave."""
        save_tensors(folder / WEIGHTS, self.state_dict())
        settings: dict[str, Any] = {
            "architecture": {"name": self.architecture.name, **asdict(self.architecture)},  # type: ignore[call-overload]
            "image_shape": list(self.image_shape),
            "name": self.name,
        }
        provenance = self.provenance if self.provenance is not None else Provenance(made_by="GeneratorModel")
        write_config(folder, kind=KIND, settings=settings, provenance=provenance)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> "GeneratorModel":
        """Read a generator that `save_pretrained` or `train_gan` wrote.

        Raises:
            MissingPathError, ArtifactError: no such artifact, or a damaged one.
        """
        config = read_config(folder, kind=KIND)
        try:
            settings = config["settings"]
            channels, height, width = (int(size) for size in settings["image_shape"])
            model = cls(
                generator_architecture(**settings["architecture"]),
                (channels, height, width),
                name=str(settings["name"]),
                provenance=Provenance.from_json(config["provenance"]),
            )
            model.load_state_dict(load_tensors(Path(folder) / WEIGHTS))
        except (KeyError, TypeError, ValueError, RuntimeError) as failure:
            reason = str(failure).splitlines()[0]
            raise ArtifactError(
                f"{folder} is not a generator that this latlas can rebuild ({reason}). Train it again."
            ) from failure
        except LatlasError as failure:
            raise ArtifactError(f"{folder} is not a generator that this latlas can rebuild: {failure}") from failure
        return model


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
