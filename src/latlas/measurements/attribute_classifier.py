"""A light network that tells from a picture whether it shows an attribute: the judge of edits."""

from itertools import pairwise

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from latlas.base.errors import IllPosedError, ImageFormatError
from latlas.base.progress import Progress, silent, track
from latlas.base.seeds import derived_seed, generator
from latlas.base.shapes import Images, ImageShape
from latlas.data.images import ImageSet, to_floats

_WIDTHS = (16, 32, 64)
_BATCH = 64
_SMALLEST = 8  # side of images, in pixels: three halvings leave one position
_AT_ONCE = 500


class AttributeClassifier(nn.Module):
    """Three convolutions that halve the image, and one linear layer."""

    def __init__(self, image_shape: ImageShape) -> None:
        super().__init__()
        self.image_shape = image_shape
        sizes = (image_shape[0], *_WIDTHS)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, stride=2, padding=1), nn.BatchNorm2d(b)) for a, b in pairwise(sizes)
        )
        sides = [-(-side // 2 ** len(_WIDTHS)) for side in image_shape[1:]]
        self.outer = nn.Linear(_WIDTHS[-1] * sides[0] * sides[1], 1)

    def forward(self, images: Images) -> Float[Tensor, " n"]:
        """Return the logit of each image showing the attribute."""
        hidden = images
        for layer in self.layers:
            hidden = layer(hidden).relu()
        return self.outer(hidden.flatten(1))[:, 0]


def train_attribute_classifier(
    images: ImageSet, has: Bool[Tensor, " n"], *, steps: int = 600, seed: int = 0, progress: Progress = silent
) -> AttributeClassifier:
    """Return a network trained to tell the images that have an attribute, half of each batch being such.

    Half of each batch is blurred, by averaging 3 x 3 pixels: what a decoder draws is smoother than what it was trained on,
    and the judge shall not take smoothness for an attribute, nor its lack.

    Args:
        images: to train on.
        has: which of them have the attribute.
        steps: of Adam, with 64 images each and a learning rate that falls from 2e-3 to 0 by a cosine.
        seed: decides first weights, batches and what is blurred.
        progress: told after each step.

    Raises:
        ImageFormatError: images of less than 8 pixels a side.
        IllPosedError: none with the attribute, or none without.
    """
    if min(images.image_shape[1:]) < _SMALLEST:
        raise ImageFormatError(
            f"{images.name}: a classifier halves images three times; give {_SMALLEST} pixels a side or more."
        )
    kinds = [has.nonzero().flatten(), (~has).nonzero().flatten()]
    if not all(len(kind) for kind in kinds):
        raise IllPosedError("A classifier of an attribute needs images with it and images without; give some of both.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(seed, "attribute classifier"))
        network = AttributeClassifier(images.image_shape)
    chance = generator(seed, "attribute batches")
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    wanted = torch.arange(_BATCH) < _BATCH // 2
    blurred = (torch.arange(_BATCH) % 2 == 0)[:, None, None, None]
    network.train()
    for _ in track(range(steps), "training the judge", progress):
        rows = torch.cat([kind[torch.randint(len(kind), (_BATCH // 2,), generator=chance)] for kind in kinds])
        batch = to_floats(images.storage[rows])
        batch = torch.where(blurred, F.avg_pool2d(batch, 3, stride=1, padding=1, count_include_pad=False), batch)
        loss = F.binary_cross_entropy_with_logits(network(batch), wanted.float())
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    return network.eval().requires_grad_(False)


def shows(network: AttributeClassifier, images: Images) -> Bool[Tensor, " n"]:
    """Return which images show the attribute."""
    with torch.inference_mode():
        return torch.cat([network(part) > 0 for part in torch.split(images, _AT_ONCE)]).clone()
