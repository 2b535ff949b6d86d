"""An autoencoder that draws its codes from the aggregate posterior of given images: for those that have no prior to draw from."""

import hashlib

import torch

from latlas.base.errors import CapabilityError, IllPosedError
from latlas.base.progress import Progress, silent
from latlas.base.shapes import Codes, Images, ImageShape, LatentShape
from latlas.data.images import ImageSet
from latlas.encodings.encode import encode
from latlas.encodings.encoding import Encoding
from latlas.models.protocols import Autoencoder, LatentModel, Posterior, require_autoencoder


class AggregateGenerator(torch.nn.Module):
    """An autoencoder whose codes are drawn from the mixture of the posteriors of a set of images.

    Autoencoders of latent diffusion state no prior; what they decode in practice are codes near those of images. Without
    variances, codes of the images themselves are drawn.

    Args:
        model: encodes and decodes.
        encoding: of the images, by this model.

    Raises:
        CapabilityError: codes of another latent shape.
        IllPosedError: an encoding of no images.
    """

    def __init__(self, model: Autoencoder, encoding: Encoding) -> None:
        super().__init__()
        if tuple(encoding.latent_shape) != tuple(model.latent_shape):
            raise CapabilityError(
                f"The codes of {encoding.images} have shape {tuple(encoding.latent_shape)}, those of {model.name} "
                f"{tuple(model.latent_shape)}: encode the images with this model."
            )
        if not len(encoding):
            raise IllPosedError(f"{encoding.images} holds no images to take codes from.")
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
        count = len(self.encoding)
        rounds = [torch.randperm(count, generator=generator) for _ in range(-(-n // count))]
        rows = torch.cat(rounds)[:n]
        codes = self.encoding.mean[rows].float()
        if self.encoding.log_variance is None:
            return codes
        noise = torch.randn(codes.shape, generator=generator)
        return codes + noise * (0.5 * self.encoding.log_variance[rows].float()).exp()

    @property
    def fingerprint(self) -> str:
        """Changes with the model's weights and with the images."""
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
        IllPosedError: no images.
    """
    autoencoder = require_autoencoder(model, "Drawing codes of images")
    return AggregateGenerator(autoencoder, encode(autoencoder, images, progress=progress))
