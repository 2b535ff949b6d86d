"""The one VAE assembly: any architecture, any latent shape, saved as safetensors and JSON."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latlas.base.cards import FOLDER, Card
from latlas.base.provenance import Provenance
from latlas.base.shapes import Codes, Images, ImageShape, LatentShape
from latlas.models.architectures.architecture import Architecture, SequentialEncoder
from latlas.models.architectures.registry import architecture_from_json, architecture_to_json
from latlas.models.pretrained import PretrainedNetwork, read_pretrained, shape_of_images, shape_text
from latlas.models.protocols import Posterior, check_codes, check_images, parameter_count

KIND = "vae"


class VAE(PretrainedNetwork):
    """A variational autoencoder with a diagonal Gaussian posterior and a standard normal prior.

    It comes ready for use, in evaluation mode, so that batch norm uses what it has learned and learns nothing from being
    looked at: call `train()` before a training loop of your own.

    Args:
        architecture: settings of the encoder/decoder pair, or the name of one with its default settings: "dense", "conv",
            "resnet", "split", "draw", "autoencoder-kl".
        image_shape: channels, height, width.
        name: what reports call it.
        provenance: what it was trained from; None before training.

    Raises:
        UnknownNameError: no such architecture.
        ImageFormatError: an image shape that the architecture cannot serve.
        MissingExtraError: the architecture needs a package that is not installed.

    >>> VAE("dense", (1, 28, 28)).encode(torch.rand(2, 1, 28, 28)).mean.shape
    torch.Size([2, 16])
    """

    kind = KIND

    def __init__(
        self,
        architecture: Architecture | str,
        image_shape: ImageShape,
        *,
        name: str | None = None,
        provenance: Provenance | None = None,
    ) -> None:
        super().__init__()
        if isinstance(architecture, str):
            architecture = architecture_from_json({"name": architecture})
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

        def build(settings: Mapping[str, Any], provenance: Provenance) -> VAE:
            return cls(
                architecture_from_json(settings["architecture"]),
                shape_of_images(settings["image_shape"]),
                name=str(settings["name"]),
                provenance=provenance,
            )

        return read_pretrained(folder, build, kind=KIND, called="model")
