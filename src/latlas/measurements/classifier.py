"""The small classifier whose inner layer serves as features of digits, and of anything else of 28 x 28 grey pixels.

It is made by `tools/train_digits_classifier.py` and lies in the package, so that a distance between digits needs neither
a download nor another package. It knows nothing of natural images.
"""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from latlas.base.artifacts import MISFITS, load_tensors, read_config, save_tensors, write_config, writing
from latlas.base.errors import ArtifactError, ImageFormatError, unknown_name
from latlas.base.provenance import Provenance, tensor_hash
from latlas.base.shapes import Images, Rows

KIND = "classifier"
WEIGHTS = "model.safetensors"
_BUNDLED = {"mnist": "digits-classifier", "fashion-mnist": "fashion-classifier"}
_CLASSES = 10
_SIDE = 28


class DigitsClassifier(nn.Module):
    """Two convolutions and two dense layers for ten classes of 28 x 28 grey images; a feature network of 64 features.

    Args:
        name: what results call it.
        settings: what its artifact says beside the architecture, such as the accuracy measured.
        provenance: what it was trained from; None before training.
    """

    kind = "classifier"
    size = 64
    is_reference_inception = False
    batch_size = 1000

    def __init__(
        self, *, name: str = "digits classifier", settings: dict[str, Any] | None = None, provenance: Provenance | None = None
    ) -> None:
        super().__init__()
        self.name = name
        self.settings = dict(settings or {})
        self.provenance = provenance
        self.first = nn.Conv2d(1, 16, 3, padding=1)
        self.second = nn.Conv2d(16, 32, 3, padding=1)
        self.inner = nn.Linear(32 * (_SIDE // 4) ** 2, self.size)
        self.outer = nn.Linear(self.size, _CLASSES)

    def forward(self, images: Images) -> Rows:
        """Return the features of each image: what the last layer sees.

        Raises:
            ImageFormatError: not 28 x 28 grey images.
        """
        if tuple(images.shape[1:]) != (1, _SIDE, _SIDE):
            got = "x".join(map(str, images.shape[1:]))
            raise ImageFormatError(
                f"The {self.name} takes images of 1x{_SIDE}x{_SIDE} (channels x height x width), got {got}. "
                "Use another feature network, or resize the images."
            )
        hidden = F.max_pool2d(self.first(images).relu(), 2)
        hidden = F.max_pool2d(self.second(hidden).relu(), 2)
        features: Tensor = self.inner(hidden.flatten(1)).relu()
        return features

    def logits(self, features: Rows) -> Float[Tensor, "n classes"]:
        """Return the logits of the ten classes, from features."""
        return self.outer(features)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the weights."""
        return tensor_hash(*self.state_dict().values())

    def save_pretrained(self, folder: str | Path, *, replace: bool = False) -> None:
        """Write the classifier as an artifact folder.

        Raises:
            OutputExistsError: the folder already holds something.
        """
        provenance = self.provenance if self.provenance is not None else Provenance(made_by="DigitsClassifier")
        with writing(folder, replace=replace) as beside:
            save_tensors(beside / WEIGHTS, self.state_dict())
            write_config(beside, kind=KIND, settings={**self.settings, "name": self.name}, provenance=provenance)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> "DigitsClassifier":
        """Read a classifier that `save_pretrained` wrote.

        Raises:
            MissingPathError, ArtifactError: no such artifact, or a damaged one.
        """
        config = read_config(folder, kind=KIND)
        try:
            settings = dict(config["settings"])
            network = cls(
                name=str(settings.pop("name")), settings=settings, provenance=Provenance.from_json(config["provenance"])
            )
            network.load_state_dict(load_tensors(Path(folder) / WEIGHTS))
        except MISFITS as failure:
            reason = next(iter(str(failure).splitlines()), type(failure).__name__)
            raise ArtifactError(f"{folder} is not a classifier that this latlas can rebuild ({reason}).") from failure
        return network.eval().requires_grad_(False)

    @classmethod
    def bundled(cls, data: str = "mnist") -> "DigitsClassifier":
        """Return the classifier that latlas carries for a built-in data set.

        Args:
            data: `mnist`, or `fashion-mnist` for the same network trained on garments.

        Raises:
            UnknownNameError: latlas carries none for this set.
        """
        if data not in _BUNDLED:
            raise unknown_name("bundled classifier", data, _BUNDLED)
        return cls.from_pretrained(Path(__file__).parent / "weights" / _BUNDLED[data])


def accuracy(network: DigitsClassifier, images: Images, labels: Tensor) -> float:
    """Return the share of images whose class is right."""
    with torch.inference_mode():
        right = [
            (network.logits(network(part)).argmax(dim=1) == truth).sum()
            for part, truth in zip(
                torch.split(images, network.batch_size), torch.split(labels, network.batch_size), strict=True
            )
        ]
    return float(torch.stack(right).sum()) / len(labels)
