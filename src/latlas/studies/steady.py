"""Whether an encoder gives an image the same code each time: what is told of codes that are chance would be told of that."""

import torch

from latlas.data.images import ImageSet
from latlas.encodings.encoding import Encoding
from latlas.models.adapters.first_look import COMPARED, check_same_codes
from latlas.models.protocols import Encoder, device_of


def check_steady(encoder: Encoder, encoding: Encoding, images: ImageSet) -> None:
    """Raise if the first images have other codes than they were encoded as.

    An encoder that draws samples makes every collapsed variable look active, for its samples vary.

    Args:
        encoder: asked once more, for two images.
        encoding: of the images, by this encoder.
        images: the same.

    Raises:
        CapabilityError: the codes differ by more than rounding.
    """
    few = images.slice(0, COMPARED).tensor().to(device_of(encoder))
    with torch.inference_mode():
        again = encoder.encode(few).mean
    check_same_codes(encoding.mean[:COMPARED], again, name=encoder.name)
