"""The generator artifact: what is read back draws the same images, and what is damaged is told."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from latlas.base.artifacts import CONFIG
from latlas.base.errors import ArtifactError, CapabilityError, CodeShapeError, OutputExistsError, SettingError, UnknownNameError
from latlas.base.provenance import Provenance
from latlas.models.architectures.dcgan import DCGAN
from latlas.models.generator import GeneratorModel, generator_architecture
from latlas.models.protocols import Generator, require_encoder, require_generator

SHAPE = (3, 16, 16)


@pytest.fixture
def model() -> GeneratorModel:
    torch.manual_seed(0)
    return GeneratorModel(DCGAN(channels=2, latent=5), SHAPE, name="small", provenance=Provenance(made_by="test", seed=4))


def test_it_decodes_and_draws_codes_and_does_not_encode(model: GeneratorModel, generator: torch.Generator) -> None:
    assert isinstance(model, Generator)
    assert require_generator(model, "A test") is model
    with pytest.raises(CapabilityError, match="needs an encoder, which small lacks"):
        require_encoder(model, "A test")
    codes = model.sample_codes(2000, generator)
    assert tuple(codes.shape) == (2000, *model.latent_shape)
    assert float(codes.mean().abs()) < 0.05
    assert float(codes.std()) == pytest.approx(1, abs=0.05)
    images = model.decode(codes[:3])
    assert tuple(images.shape) == (3, *SHAPE)
    assert bool(((images >= 0) & (images <= 1)).all())


def test_looking_does_not_change_it(model: GeneratorModel, generator: torch.Generator) -> None:
    """In training mode, batch norm would learn from every decode, and an image would depend on its company."""
    before, codes = model.fingerprint, model.sample_codes(6, generator)
    together = model.decode(codes)
    torch.testing.assert_close(model.decode(codes[2:3]), together[2:3], rtol=1e-5, atol=1e-6)
    assert model.fingerprint == before


def test_codes_of_another_space_are_refused(model: GeneratorModel) -> None:
    with pytest.raises(CodeShapeError, match="small takes codes of shape 5, got 4"):
        model.decode(torch.zeros(2, 4))


def test_what_is_read_back_is_the_same_model(model: GeneratorModel, generator: torch.Generator, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "g")
    again = GeneratorModel.from_pretrained(tmp_path / "g")
    codes = model.sample_codes(2, generator)
    assert again.decode(codes).equal(model.decode(codes))
    assert (again.name, again.architecture, again.image_shape, again.latent_shape, again.fingerprint) == (
        model.name, model.architecture, model.image_shape, model.latent_shape, model.fingerprint,
    )  # fmt: skip
    assert again.provenance == model.provenance
    assert not again.training
    with pytest.raises(OutputExistsError):
        model.save_pretrained(tmp_path / "g")


def test_the_fingerprint_changes_with_one_weight(model: GeneratorModel) -> None:
    before = model.fingerprint
    with torch.no_grad():
        next(model.parameters()).flatten()[0] += 1e-3
    assert model.fingerprint != before


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("settings", "architecture", "name"), "gan"),
        (("settings", "architecture", "latent"), 6),
        (("settings", "architecture", "depth"), 6),
        (("settings", "architecture", "channels"), "two"),
        (("settings", "image_shape"), [3, 16]),
        (("settings", "image_shape"), [3, 16, 24]),
        (("settings",), {}),
    ],
)
def test_a_config_that_does_not_fit_is_one_error(
    place: tuple[str, ...], value: Any, model: GeneratorModel, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path / "g")
    record = json.loads((tmp_path / "g" / CONFIG).read_text())
    inner = record
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    record.pop("checksum", None)  # as a stranger would
    (tmp_path / "g" / CONFIG).write_text(json.dumps(record))
    with pytest.raises(ArtifactError, match="not a generator that this latlas can rebuild"):
        GeneratorModel.from_pretrained(tmp_path / "g")


def test_weights_that_were_touched_are_noticed(model: GeneratorModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "g")
    path = tmp_path / "g" / "model.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    with pytest.raises(ArtifactError, match="is damaged"):
        GeneratorModel.from_pretrained(tmp_path / "g")


def test_names_and_settings_of_architectures_are_checked() -> None:
    assert generator_architecture("dcgan", channels=7) == DCGAN(channels=7)
    with pytest.raises(UnknownNameError, match="Did you mean 'dcgan'"):
        generator_architecture("dc-gan")
    for setting in ("depth", "convolutional"):
        with pytest.raises(SettingError, match=f"no setting '{setting}'; it has channels, latent"):
            generator_architecture("dcgan", **{setting: 3})  # type: ignore[arg-type]


def test_the_name_of_an_architecture_stands_for_its_default_settings() -> None:
    named = GeneratorModel("dcgan", (1, 8, 8))
    assert named.architecture == DCGAN()
    with pytest.raises(UnknownNameError, match="Did you mean 'dcgan'"):
        GeneratorModel("dcgn", (1, 8, 8))
