"""The one VAE assembly: any architecture, any latent shape, saved as safetensors and JSON."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from latlas.base.artifacts import load_tensors, read_config, save_tensors, write_config, writing
from latlas.base.cards import FOLDER, Card, write_card
from latlas.base.errors import ArtifactError, LatlasError, MissingExtraError
from latlas.base.hub import Pushable, resolve
from latlas.base.provenance import Provenance, tensor_hash
from latlas.base.shapes import Codes, Images, ImageShape, LatentShape
from latlas.models.architectures.architecture import Architecture, SequentialEncoder
from latlas.models.architectures.registry import architecture_from_json, architecture_to_json
from latlas.models.protocols import Posterior, check_codes, check_images, parameter_count

WEIGHTS = "model.safetensors"
KIND = "vae"


class VAE(nn.Module, Pushable):
    """A variational autoencoder with a diagonal Gaussian posterior and a standard normal prior.

    It comes ready for use, in evaluation mode, so that batch norm uses what it has learned and learns nothing from being
    looked at: call `train()` before a training loop of your own.

    Args:
        architecture: settings of the encoder/decoder pair.
        image_shape: channels, height, width.
        name: what reports call it.
        provenance: what it was trained from; None before training.

    Raises:
        ImageFormatError: an image shape that the architecture cannot serve.
        MissingExtraError: the architecture needs a package that is not installed.
    """

    def __init__(
        self,
        architecture: Architecture,
        image_shape: ImageShape,
        *,
        name: str | None = None,
        provenance: Provenance | None = None,
    ) -> None:
        super().__init__()
        self.architecture = architecture
        self.image_shape: ImageShape = image_shape
        self.latent_shape: LatentShape = architecture.latent_shape(image_shape)
        self.name = name if name is not None else f"{architecture.name} VAE"
        self.provenance = provenance
        self.encoder = architecture.encoder(image_shape)
        self.decoder = architecture.decoder(image_shape)
        self.eval()

    def encode(self, images: Images) -> Posterior:
        """Return the posterior of each image; of codes that are drawn in steps, the one along the means."""
        if isinstance(self.encoder, SequentialEncoder):
            return self.infer(images, images.new_zeros(images.shape[0], *self.latent_shape))[0]
        check_images(tuple(images.shape[1:]), self, name="the batch")  # type: ignore[arg-type]
        mean, log_variance = self.encoder(images)
        return Posterior(mean, log_variance)

    def infer(self, images: Images, noise: Codes) -> tuple[Posterior, Codes]:
        """Return the posterior of each image, and the code that standard normal noise makes of it.

        Codes that are drawn in steps have the posterior along the steps that were taken.
        """
        if isinstance(self.encoder, SequentialEncoder):
            check_images(tuple(images.shape[1:]), self, name="the batch")  # type: ignore[arg-type]
            mean, log_variance, codes, _ = self.encoder.unroll(images, noise, self.decoder)
            return Posterior(mean, log_variance), codes
        posterior = self.encode(images)
        assert posterior.log_variance is not None  # a VAE's encoder always gives one
        return posterior, posterior.mean + noise * (0.5 * posterior.log_variance).exp()

    def reconstruct_logits(self, images: Images, noise: Codes) -> tuple[Posterior, Tensor]:
        """Return the posterior of each image, and the logits of the image of the code that noise makes of it.

        The same as `infer` and then `decode_logits`; an encoder that draws while it looks has the picture already.
        """
        if isinstance(self.encoder, SequentialEncoder):
            check_images(tuple(images.shape[1:]), self, name="the batch")  # type: ignore[arg-type]
            mean, log_variance, _, canvas = self.encoder.unroll(images, noise, self.decoder)
            return Posterior(mean, log_variance), canvas
        posterior, codes = self.infer(images, noise)
        return posterior, self.decode_logits(codes)

    def decode(self, codes: Codes) -> Images:
        """Return the image of each code, in [0, 1]."""
        return self.decode_logits(codes).sigmoid()

    def decode_logits(self, codes: Codes) -> Tensor:
        """Return the logits of the image of each code."""
        check_codes(codes, self)
        logits: Tensor = self.decoder(codes)
        return logits

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
            "architecture": architecture_to_json(self.architecture),
            "image_shape": list(self.image_shape),
            "name": self.name,
        }
        provenance = self.provenance if self.provenance is not None else Provenance(made_by="VAE")
        write_card(folder, self._card(), provenance)
        write_config(folder, kind=KIND, settings=settings, provenance=provenance)

    def _card(self) -> Card:
        images, codes = (" x ".join(map(str, shape)) for shape in (self.image_shape, self.latent_shape))
        settings = architecture_to_json(self.architecture)
        return Card(
            title=self.name,
            summary=f"A variational autoencoder: images of {images} in [0, 1] to codes of {codes} and back.",
            usage=(
                f'import latlas\n\nmodel = latlas.load_model("{FOLDER}")\n'
                f"codes = model.encode(images).mean  # images: float tensor n x {images}, in [0, 1]\n"
                f"reconstructions = model.decode(codes)  # codes: n x {codes}"
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
    def from_pretrained(cls, folder: str | Path) -> "VAE":
        """Read a model that `save_pretrained` or `train_vae` wrote: its folder, or its Hub id.

        Raises:
            MissingPathError, ArtifactError: no such artifact, or a damaged one.
            MissingExtraError: its architecture needs a package that is not installed.
            HubError: a Hub id, and the Hub could not be reached.
        """
        folder = resolve(folder)
        config = read_config(folder, kind=KIND)
        try:
            settings = config["settings"]
            channels, height, width = (int(size) for size in settings["image_shape"])
            model = cls(
                architecture_from_json(settings["architecture"]),
                (channels, height, width),
                name=str(settings["name"]),
                provenance=Provenance.from_json(config["provenance"]),
            )
            model.load_state_dict(load_tensors(Path(folder) / WEIGHTS))
        except (KeyError, TypeError, ValueError, RuntimeError) as failure:
            reason = str(failure).splitlines()[0]
            raise ArtifactError(
                f"{folder} is not a model that this latlas can rebuild ({reason}). Train it again."
            ) from failure
        except MissingExtraError:
            raise  # the folder is sound
        except LatlasError as failure:
            raise ArtifactError(f"{folder} is not a model that this latlas can rebuild: {failure}") from failure
        return model.eval()
