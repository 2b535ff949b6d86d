"""Inception-v3 with random weights: names and shapes of the public layout, its count of parameters, its odd pools.

The reference weights are not here, so no feature is compared with the reference's.
"""

from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
import torch
from safetensors.torch import save_file
from torch import Tensor

from latlas.base.errors import ArtifactError, MissingPathError
from latlas.measurements import inception
from latlas.measurements.features import FeatureNetwork, distance_name
from latlas.measurements.inception import InceptionFeatures, InceptionV3


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    torch.manual_seed(3)
    return InceptionV3().state_dict()


@pytest.fixture(scope="module")
def checkpoint(weights: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As pytorch-fid's file is: with the classifier of 1008 classes, without the counters."""
    path = tmp_path_factory.mktemp("inception") / "random.pth"
    plain = {name: value for name, value in weights.items() if not name.endswith("num_batches_tracked")}
    torch.save({**plain, "fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}, path)
    return path


def test_it_has_torchvisions_count_of_parameters() -> None:
    """27,161,264 as torchvision states for Inception_V3_Weights, less classifier (2,049,000) and auxiliary one (3,326,696)."""
    parameters = sum(parameter.numel() for parameter in InceptionV3().parameters())
    assert parameters == 27_161_264 - (2048 * 1000 + 1000) - 3_326_696


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("Conv2d_1a_3x3.conv.weight", (32, 3, 3, 3)),
        ("Conv2d_4a_3x3.bn.running_var", (192,)),
        ("Mixed_5b.branch_pool.conv.weight", (32, 192, 1, 1)),
        ("Mixed_5d.branch3x3dbl_3.conv.weight", (96, 96, 3, 3)),
        ("Mixed_6a.branch3x3.conv.weight", (384, 288, 3, 3)),
        ("Mixed_6b.branch7x7_2.conv.weight", (128, 128, 1, 7)),
        ("Mixed_6e.branch7x7dbl_4.conv.weight", (192, 192, 7, 1)),
        ("Mixed_7a.branch7x7x3_4.conv.weight", (192, 192, 3, 3)),
        ("Mixed_7b.branch3x3_2a.conv.weight", (384, 384, 1, 3)),
        ("Mixed_7c.branch3x3dbl_3b.bn.bias", (384,)),
        ("Mixed_7c.branch1x1.conv.weight", (320, 2048, 1, 1)),
    ],
)
def test_names_and_shapes_are_torchvisions(weights: dict[str, Tensor], name: str, shape: tuple[int, ...]) -> None:
    assert tuple(weights[name].shape) == shape


def test_it_has_94_convolutions_and_as_many_normalisations(weights: dict[str, Tensor]) -> None:
    convolutions = [name for name in weights if name.endswith(".conv.weight")]
    assert len(convolutions) == 94
    assert len(weights) == 94 * (1 + 5)


def test_it_reads_a_checkpoint_and_does_not_call_unknown_weights_fid(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = InceptionFeatures(checkpoint)
    assert isinstance(network, FeatureNetwork)
    assert not network.is_reference_inception
    assert distance_name(network) == "Fréchet distance (Inception-v3 of unknown weights)"
    found = network(torch.rand(1, 1, 28, 28, generator=torch.Generator().manual_seed(0)))
    assert found.shape == (1, 2048)
    assert bool(found.isfinite().all())
    monkeypatch.setattr(inception, "REFERENCE_SHA256", inception.file_hash(checkpoint))
    assert distance_name(InceptionFeatures(checkpoint)) == "FID"


def test_means_leave_padding_out_and_the_last_block_takes_maxima(weights: dict[str, Tensor]) -> None:
    network = InceptionV3()
    assert inception.average_pool(torch.ones(1, 1, 4, 4)).equal(torch.ones(1, 1, 4, 4))
    assert network.Mixed_7b.pool is inception.average_pool
    assert network.Mixed_7c.pool is inception.largest_pool


def test_images_come_to_the_network_as_pytorch_fid_gives_them(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From -1 to 1, grey in three channels, resized by SciPy's linear interpolation between pixels without antialiasing."""
    given: list[Tensor] = []
    network = InceptionFeatures(checkpoint)
    monkeypatch.setattr(network.network, "forward", lambda images: given.append(images) or torch.zeros(len(images), 2048))
    grey = torch.rand(1, 1, 400, 600, generator=torch.Generator().manual_seed(1))
    network(grey)
    places = np.meshgrid(*((np.arange(299) + 0.5) * length / 299 - 0.5 for length in (400, 600)), indexing="ij")
    expected = 2 * scipy.ndimage.map_coordinates(grey[0, 0].numpy(), places, order=1, mode="nearest") - 1
    assert given[0].shape == (1, 3, 299, 299)
    for channel in given[0][0]:
        np.testing.assert_allclose(channel.numpy(), expected, atol=2e-4)


def test_its_normalisations_have_tensorflows_epsilon() -> None:
    """0.001 in the slim model, where PyTorch's own default is a hundredth of that."""
    norms = [module for module in InceptionV3().modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert {module.eps for module in norms} == {0.001}


def test_other_files_are_refused(weights: dict[str, Tensor], tmp_path: Path) -> None:
    with pytest.raises(MissingPathError, match="expected the Inception checkpoint"):
        InceptionFeatures(tmp_path / "absent.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(ArtifactError, match="is not a checkpoint that can be read safely"):
        InceptionFeatures(tmp_path / "text.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ArtifactError, match="holds no state dict"):
        InceptionFeatures(tmp_path / "list.pth")
    save_file({"conv1.weight": torch.zeros(2)}, str(tmp_path / "other.safetensors"))
    with pytest.raises(ArtifactError, match="not Inception-v3 in pytorch-fid's layout"):
        InceptionFeatures(tmp_path / "other.safetensors")
    wrong = {name: value.clone() for name, value in weights.items()}
    wrong["Mixed_7c.branch1x1.conv.weight"] = torch.zeros(320, 2048, 3, 3)
    save_file(wrong, str(tmp_path / "wrong.safetensors"))
    with pytest.raises(ArtifactError, match="weights of other shapes"):
        InceptionFeatures(tmp_path / "wrong.safetensors")
