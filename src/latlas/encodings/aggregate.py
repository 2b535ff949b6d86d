"""An autoencoder that draws its codes from the aggregate posterior of given images: for those that have no prior to draw from."""

import hashlib

import torch

from latlas.base.errors import CapabilityError, IllPosedError, SettingError
from latlas.base.progress import Progress, silent
from latlas.base.provenance import UNSTATED
from latlas.base.shapes import Codes, Images, ImageShape, LatentShape
from latlas.data.images import ImageSet, to_pixels
from latlas.encodings.encode import encode
from latlas.encodings.encoding import Encoding
from latlas.models.protocols import Autoencoder, LatentModel, Posterior, device_of, require_autoencoder, scaling_of

_COMPARED = 500  # images at once


class AggregateGenerator(torch.nn.Module):
    """An autoencoder whose codes are drawn from the mixture of the posteriors of a set of images.

    Autoencoders of latent diffusion state no prior; what they decode in practice are codes near those of images. Without
    variances, codes of the images themselves are drawn. Every second image is kept back, for descents to start from: else
    the code of an own sample would be among the starts of its own inversion, and that of no other image.

    Args:
        model: encodes and decodes.
        encoding: of the images, by this model; at least two.

    Raises:
        CapabilityError: codes of another latent shape.
        IllPosedError: an encoding of fewer than two images.
    """

    def __init__(self, model: Autoencoder, encoding: Encoding) -> None:
        super().__init__()
        if tuple(encoding.latent_shape) != tuple(model.latent_shape):
            raise CapabilityError(
                f"The codes of {encoding.images} have shape {tuple(encoding.latent_shape)}, those of {model.name} "
                f"{tuple(model.latent_shape)}: encode the images with this model."
            )
        if len(encoding) < 2:
            raise IllPosedError(f"Codes are drawn from 2 images at least, and {encoding.images} holds {len(encoding)}.")
        self.model, self.encoding = model, encoding
        self.name = f"{model.name} on codes of {encoding.images}"
        self.image_shape: ImageShape = model.image_shape
        self.latent_shape: LatentShape = tuple(model.latent_shape)

    def encode(self, images: Images) -> Posterior:
        """Return the model's posterior."""
        return self.model.encode(images)

    def decode(self, codes: Codes) -> Images:
        """Return the model's image of each code."""
        return self.model.decode(codes)

    def sample_codes(self, n: int, generator: torch.Generator) -> Codes:
        """Return codes drawn from the posteriors of images that are drawn at random; each image once before any twice."""
        return self._drawn(n, generator, first=0)

    def start_codes(self, n: int, generator: torch.Generator) -> Codes:
        """Return codes for descents to start from: of the images that `sample_codes` never takes."""
        return self._drawn(n, generator, first=1)

    def _drawn(self, n: int, generator: torch.Generator, *, first: int) -> Codes:
        images = torch.arange(first, len(self.encoding), 2)
        rounds = [images[torch.randperm(len(images), generator=generator)] for _ in range(-(-n // len(images)))]
        rows = torch.cat(rounds)[:n]
        codes = self.encoding.mean[rows].float()
        if self.encoding.log_variance is None:
            return codes
        noise = torch.randn(codes.shape, generator=generator)
        return codes + noise * (0.5 * self.encoding.log_variance[rows].float()).exp()

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return device_of(self.model)

    @property
    def scaling(self) -> str | None:
        """As the model has it."""
        return scaling_of(self.model)

    @property
    def fingerprint(self) -> str:
        """Changes with the model's weights and with the images; unstated where the model's is."""
        if self.model.fingerprint == UNSTATED:
            return UNSTATED
        return hashlib.sha256(f"{self.model.fingerprint}/{self.encoding.images_hash}".encode()).hexdigest()


def with_codes_of(model: LatentModel, images: ImageSet, *, progress: Progress = silent) -> AggregateGenerator:
    """Return the model as a generator that draws codes from the aggregate posterior of images.

    Args:
        model: encodes and decodes.
        images: whose codes it draws from; no image that is to be judged may be among them.
        progress: told in images.

    Raises:
        CapabilityError: the model lacks an encoder or a decoder.
        ImageFormatError: images of another shape.
        IllPosedError: fewer than two images.
    """
    autoencoder = require_autoencoder(model, "Drawing codes of images")
    return AggregateGenerator(autoencoder, encode(autoencoder, images, progress=progress))


def check_apart(drawn_from: ImageSet, judged: ImageSet) -> None:
    """Raise if an image is in both sets: its inversion could start from its own code.

    Raises:
        SettingError: one is; names the first.
    """
    taken = {each.numpy().tobytes() for batch in drawn_from.batches(_COMPARED) for each in to_pixels(batch)}
    for number, batch in enumerate(judged.batches(_COMPARED)):
        for row, each in enumerate(to_pixels(batch)):
            if each.numpy().tobytes() in taken:
                name = judged.name_of(number * _COMPARED + row)
                raise SettingError(
                    f"{name} of {judged.name} is to be judged and is in {drawn_from.name} too. Give others (--codes-of)."
                )
