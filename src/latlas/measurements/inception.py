"""The Inception-v3 network that FID is defined by, from a checkpoint that you have: nothing is downloaded.

The layout is that of `pt_inception-2015-12-05-6726825d.pth`, which pytorch-fid publishes: torchvision's names, and four
differences from torchvision's network that the original TensorFlow graph has.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latlas.base.artifacts import load_tensors
from latlas.base.errors import ArtifactError, MissingPathError
from latlas.base.provenance import file_hash
from latlas.base.shapes import Images, Rows
from latlas.measurements.features import as_colour_squares

# SHA-256 of pt_inception-2015-12-05-6726825d.pth, whose name carries its first digits.
REFERENCE_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
_SIDE = 299
_UNUSED = ("fc.", "AuxLogits.")  # the classifiers, which features do not need


class InceptionFeatures(nn.Module):
    """The 2048 pooled features of Inception-v3, from a local checkpoint.

    Images are resized bilinearly, without antialiasing, to 299 x 299 and scaled to [-1, 1], grey ones repeated to three
    channels, as pytorch-fid does. `is_reference_inception` tells whether the file is, byte for byte, the one that FIDs are
    computed with: only then is a Fréchet distance of these features an FID.

    Args:
        path: a `.pth` of a state dict, read without unpickling objects, or a `.safetensors` file.

    Raises:
        MissingPathError: no such file.
        ArtifactError: it cannot be read, or holds another network.
    """

    kind = "inception"
    size = 2048
    batch_size = 50

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        file = Path(path)
        if not file.is_file():
            raise MissingPathError(
                f"No file {file}: expected the Inception checkpoint pt_inception-2015-12-05-6726825d.pth of pytorch-fid."
            )
        self.is_reference_inception = file_hash(file) == REFERENCE_SHA256
        self.name = "Inception-v3" if self.is_reference_inception else "Inception-v3 of unknown weights"
        self.network = InceptionV3()
        _load(self.network, file)
        self.eval().requires_grad_(False)

    def forward(self, images: Images) -> Rows:
        """Return the features of each image."""
        features: Tensor = self.network(2 * as_colour_squares(images, _SIDE, antialias=False) - 1)
        return features


def _load(network: nn.Module, file: Path) -> None:
    try:
        found = load_tensors(file) if file.suffix == ".safetensors" else torch.load(file, map_location="cpu", weights_only=True)
    except ArtifactError:
        raise
    except Exception as failure:  # torch.load raises whatever the bytes at hand lead it to
        raise ArtifactError(f"{file} is not a checkpoint that can be read safely ({type(failure).__name__}).") from failure
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ArtifactError(f"{file} holds no state dict: expected names of Inception-v3's weights and tensors.")
    # Older files lack the counters of batches that batch normalisation keeps; in evaluation they mean nothing.
    counters = {name for name in network.state_dict() if name.endswith("num_batches_tracked")}
    given = {name: value for name, value in found.items() if not name.startswith(_UNUSED) and name not in counters}
    expected = set(network.state_dict()) - counters
    if set(given) != expected:
        odd = sorted(set(given) ^ expected)
        raise ArtifactError(
            f"{file} is not Inception-v3 in pytorch-fid's layout: {len(odd)} names are missing or unknown, such as {odd[0]}."
        )
    try:
        network.load_state_dict(given, strict=False)
    except RuntimeError as failure:
        raise ArtifactError(f"{file} has weights of other shapes than Inception-v3's.") from failure


class Convolution(nn.Module):
    """A convolution without bias, batch normalisation and ReLU."""

    def __init__(
        self, taken: int, given: int, kernel: int | tuple[int, int], *, stride: int = 1, padding: int | tuple[int, int] = 0
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(taken, given, kernel, stride=stride, padding=padding, bias=False)
        self.bn = nn.BatchNorm2d(given, eps=0.001)

    def forward(self, maps: Tensor) -> Tensor:
        """Return the maps after all three."""
        return F.relu(self.bn(self.conv(maps)))


def average_pool(maps: Tensor) -> Tensor:
    """Return 3 x 3 means that leave the padding out of their count, as TensorFlow does and torchvision does not."""
    return F.avg_pool2d(maps, 3, stride=1, padding=1, count_include_pad=False)


def largest_pool(maps: Tensor) -> Tensor:
    """Return 3 x 3 maxima: what the reference graph has in its last block, where the paper has a mean."""
    return F.max_pool2d(maps, 3, stride=1, padding=1)


class BlockA(nn.Module):
    """35 x 35: 1x1, 5x5, two 3x3, pooled."""

    def __init__(self, taken: int, pooled: int) -> None:
        super().__init__()
        self.branch1x1 = Convolution(taken, 64, 1)
        self.branch5x5_1 = Convolution(taken, 48, 1)
        self.branch5x5_2 = Convolution(48, 64, 5, padding=2)
        self.branch3x3dbl_1 = Convolution(taken, 64, 1)
        self.branch3x3dbl_2 = Convolution(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Convolution(96, 96, 3, padding=1)
        self.branch_pool = Convolution(taken, pooled, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """Return the branches side by side."""
        five = self.branch5x5_2(self.branch5x5_1(maps))
        three = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(maps)))
        return torch.cat([self.branch1x1(maps), five, three, self.branch_pool(average_pool(maps))], dim=1)


class BlockB(nn.Module):
    """35 x 35 to 17 x 17."""

    def __init__(self, taken: int) -> None:
        super().__init__()
        self.branch3x3 = Convolution(taken, 384, 3, stride=2)
        self.branch3x3dbl_1 = Convolution(taken, 64, 1)
        self.branch3x3dbl_2 = Convolution(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Convolution(96, 96, 3, stride=2)

    def forward(self, maps: Tensor) -> Tensor:
        """Return the branches side by side."""
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(maps)))
        return torch.cat([self.branch3x3(maps), double, F.max_pool2d(maps, 3, stride=2)], dim=1)


class BlockC(nn.Module):
    """17 x 17: 1x1, 7x7 and two 7x7 taken apart into lines, pooled."""

    def __init__(self, taken: int, inner: int) -> None:
        super().__init__()
        self.branch1x1 = Convolution(taken, 192, 1)
        self.branch7x7_1 = Convolution(taken, inner, 1)
        self.branch7x7_2 = Convolution(inner, inner, (1, 7), padding=(0, 3))
        self.branch7x7_3 = Convolution(inner, 192, (7, 1), padding=(3, 0))
        self.branch7x7dbl_1 = Convolution(taken, inner, 1)
        self.branch7x7dbl_2 = Convolution(inner, inner, (7, 1), padding=(3, 0))
        self.branch7x7dbl_3 = Convolution(inner, inner, (1, 7), padding=(0, 3))
        self.branch7x7dbl_4 = Convolution(inner, inner, (7, 1), padding=(3, 0))
        self.branch7x7dbl_5 = Convolution(inner, 192, (1, 7), padding=(0, 3))
        self.branch_pool = Convolution(taken, 192, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """Return the branches side by side."""
        single = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(maps)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(maps)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(maps), single, double, self.branch_pool(average_pool(maps))], dim=1)


class BlockD(nn.Module):
    """17 x 17 to 8 x 8."""

    def __init__(self, taken: int) -> None:
        super().__init__()
        self.branch3x3_1 = Convolution(taken, 192, 1)
        self.branch3x3_2 = Convolution(192, 320, 3, stride=2)
        self.branch7x7x3_1 = Convolution(taken, 192, 1)
        self.branch7x7x3_2 = Convolution(192, 192, (1, 7), padding=(0, 3))
        self.branch7x7x3_3 = Convolution(192, 192, (7, 1), padding=(3, 0))
        self.branch7x7x3_4 = Convolution(192, 192, 3, stride=2)

    def forward(self, maps: Tensor) -> Tensor:
        """Return the branches side by side."""
        three = self.branch3x3_2(self.branch3x3_1(maps))
        seven = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(maps))))
        return torch.cat([three, seven, F.max_pool2d(maps, 3, stride=2)], dim=1)


class BlockE(nn.Module):
    """8 x 8: 1x1, 3x3 and two 3x3 that end in a fork, pooled by a mean or, in the last block, by the maximum."""

    def __init__(self, taken: int, *, last: bool) -> None:
        super().__init__()
        self.pool = largest_pool if last else average_pool
        self.branch1x1 = Convolution(taken, 320, 1)
        self.branch3x3_1 = Convolution(taken, 384, 1)
        self.branch3x3_2a = Convolution(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3_2b = Convolution(384, 384, (3, 1), padding=(1, 0))
        self.branch3x3dbl_1 = Convolution(taken, 448, 1)
        self.branch3x3dbl_2 = Convolution(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = Convolution(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3dbl_3b = Convolution(384, 384, (3, 1), padding=(1, 0))
        self.branch_pool = Convolution(taken, 192, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """Return the branches side by side."""
        single = self.branch3x3_1(maps)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(maps))
        forks = [
            self.branch3x3_2a(single),
            self.branch3x3_2b(single),
            self.branch3x3dbl_3a(double),
            self.branch3x3dbl_3b(double),
        ]
        return torch.cat([self.branch1x1(maps), *forks, self.branch_pool(self.pool(maps))], dim=1)


class InceptionV3(nn.Module):
    """Szegedy et al. 2015 (arXiv:1512.00567) up to the pooled features, with the names of torchvision's weights."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Convolution(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = Convolution(32, 32, 3)
        self.Conv2d_2b_3x3 = Convolution(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = Convolution(64, 80, 1)
        self.Conv2d_4a_3x3 = Convolution(80, 192, 3)
        self.Mixed_5b = BlockA(192, 32)
        self.Mixed_5c = BlockA(256, 64)
        self.Mixed_5d = BlockA(288, 64)
        self.Mixed_6a = BlockB(288)
        self.Mixed_6b = BlockC(768, 128)
        self.Mixed_6c = BlockC(768, 160)
        self.Mixed_6d = BlockC(768, 160)
        self.Mixed_6e = BlockC(768, 192)
        self.Mixed_7a = BlockD(768)
        self.Mixed_7b = BlockE(1280, last=False)
        self.Mixed_7c = BlockE(2048, last=True)

    def forward(self, images: Tensor) -> Tensor:
        """Return the mean over positions of the last maps."""
        maps = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(images)))
        maps = F.max_pool2d(maps, 3, stride=2)
        maps = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(maps))
        maps = F.max_pool2d(maps, 3, stride=2)
        maps = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(maps)))
        maps = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(maps)))))
        maps = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(maps)))
        return maps.mean(dim=(2, 3))
