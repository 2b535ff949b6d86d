"""`pythae:`: folders that pythae wrote give what pythae computes, and no code in them is run. See samples/README.md."""

import json
import pickletools
import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from latlas.base.errors import ArtifactError, CapabilityError, MissingPathError
from latlas.models.adapters.modules import ModuleModel
from latlas.models.adapters.pythae import load_pythae
from latlas.models.loading import load_model
from latlas.models.protocols import require_autoencoder, require_generator

SAMPLES = Path(__file__).parent / "samples"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of a folder by pythae that a test may break."""
    return Path(shutil.copytree(SAMPLES / "pythae-vae", tmp_path / "final_model"))


def rewrite(folder: Path, **settings: Any) -> None:
    config = json.loads((folder / "model_config.json").read_text())
    (folder / "model_config.json").write_text(json.dumps({**config, **settings}))


def outputs(model: ModuleModel, images: Tensor) -> dict[str, np.ndarray]:
    with torch.no_grad():
        posterior = model.encode(images)
        decoded = model.decode(posterior.mean)
    found = {"mean": posterior.mean.numpy(), "decoded": decoded.numpy()}
    return found if posterior.log_variance is None else {**found, "log_variance": posterior.log_variance.numpy()}


def weights_by_name(shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    """Draw weights that depend on their names alone, as the script in samples/README.md does."""
    weights: dict[str, Any] = {}
    for name, shape in shapes.items():
        draw = np.random.RandomState(zlib.crc32(name.encode())).standard_normal
        if name.endswith("num_batches_tracked"):
            weights[name] = np.array(1)
        elif name.endswith("running_var"):
            weights[name] = 1 + 0.2 * np.abs(draw(shape)).astype("float32")
        elif len(shape) == 1:
            weights[name] = 0.2 * draw(shape).astype("float32") + name.endswith("weight")
        else:
            inputs = shape[0] if name.startswith("decoder.layers") and len(shape) == 4 else np.prod(shape[1:])
            weights[name] = (draw(shape) / np.sqrt(inputs)).astype("float32")
    return {name: torch.from_numpy(np.asarray(value)) for name, value in weights.items()}


# What pythae computes


@pytest.mark.parametrize("name", ["vae", "ae"])
def test_default_networks_compute_what_they_do_in_pythae(name: str) -> None:
    expected = {
        key.split(".")[1]: value for key, value in np.load(SAMPLES / "pythae-outputs.npz").items() if key.startswith(f"{name}.")
    }
    model = load_pythae(str(SAMPLES / f"pythae-{name}"))
    assert (model.image_shape, model.latent_shape) == ((1, 2, 3), (2,))
    assert model.name == f"pythae-{name} (pythae {name.upper()})"
    found = outputs(model, torch.from_numpy(expected.pop("images")))
    assert set(found) == set(expected)
    for key, values in expected.items():
        np.testing.assert_allclose(found[key], values, atol=1e-5, rtol=0, err_msg=key)


@pytest.mark.parametrize(
    ("data", "kind", "shape"),
    [
        ("MNIST", "VAE", (1, 28, 28)),
        ("MNIST", "AE", (1, 28, 28)),
        ("CELEBA", "VAE", (3, 64, 64)),
        ("CELEBA", "AE", (3, 64, 64)),
    ],
)
def test_convolutional_networks_compute_what_they_do_in_pythae(
    data: str, kind: str, shape: tuple[int, int, int], tmp_path: Path
) -> None:
    prefix = f"{data}.{kind}."
    sample = {key.removeprefix(prefix): value for key, value in np.load(SAMPLES / "pythae-convolutional.npz").items() if key.startswith(prefix)}  # fmt: skip
    (tmp_path / "model_config.json").write_text(str(sample["config"]))
    for part in ("encoder", "decoder"):
        (tmp_path / f"{part}.pkl").write_bytes(sample[f"{part}_head"].tobytes())
    torch.save({"model_state_dict": weights_by_name(json.loads(str(sample["shapes"])))}, tmp_path / "model.pt")
    model = load_pythae(str(tmp_path))
    assert (model.image_shape, model.latent_shape) == (shape, (3,))
    found = outputs(model, torch.from_numpy(np.random.RandomState(0).rand(2, *shape).astype("float32")))
    found["decoded"] = found["decoded"][:, :, ::3, ::3]
    assert set(found) == set(sample) & {"mean", "log_variance", "decoded"}
    for key, values in found.items():
        np.testing.assert_allclose(values, sample[key], atol=1e-5, rtol=0, err_msg=key)


def test_a_variational_model_draws_its_codes_and_a_deterministic_one_does_not() -> None:
    vae, ae = (load_model(f"pythae:{SAMPLES}/pythae-{name}") for name in ("vae", "ae"))
    assert require_generator(vae, "Sampling") is vae
    require_autoencoder(ae, "Comparing")
    with pytest.raises(CapabilityError, match="pythae AE"):
        require_generator(ae, "Sampling")


def test_other_models_of_pythae_with_the_same_codes_are_read_too(folder: Path) -> None:
    """What they have beside encoder and decoder is left: a factor VAE's discriminator, for one."""
    before = load_pythae(str(folder))
    rewrite(folder, name="FactorVAEConfig")
    record = torch.load(folder / "model.pt", weights_only=True)
    record["model_state_dict"]["discriminator.layers.0.weight"] = torch.zeros(3)
    torch.save(record, folder / "model.pt")
    after = load_pythae(str(folder))
    assert after.name.endswith("(pythae FactorVAE)")
    images = torch.rand(2, 1, 2, 3)
    assert after.encode(images).mean.equal(before.encode(images).mean)
    assert after.fingerprint == before.fingerprint


# What cannot be rebuilt


def as_custom(folder: Path, content: bytes, part: str = "encoder") -> None:
    rewrite(folder, **{f"uses_default_{part}": False})
    (folder / f"{part}.pkl").write_bytes(content)


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_a_network_of_the_users_own_is_refused_by_name_with_the_cure(folder: Path, part: str) -> None:
    head = np.load(SAMPLES / "pythae-convolutional.npz")[f"MNIST.VAE.{part}_head"].tobytes()
    theirs = b"Encoder_Conv_VAE_MNIST" if part == "encoder" else b"Decoder_Conv_AE_MNIST"
    as_custom(folder, head.replace(bytes([len(theirs)]) + theirs, b"\x07MyGreat"), part)
    with pytest.raises(
        CapabilityError, match=rf"{part} of its own, MyGreat, in {part}\.pkl.*from_module\(model, encode='encoder'"
    ):
        load_pythae(str(folder))


def test_a_users_class_that_borrows_a_name_is_not_taken_for_pythaes(folder: Path) -> None:
    head = np.load(SAMPLES / "pythae-convolutional.npz")["MNIST.VAE.encoder_head"].tobytes()
    module = b"pythae.models.nn.benchmarks.mnist.convnets"
    as_custom(folder, head.replace(bytes([len(module)]) + module, b"\x08__main__"))
    with pytest.raises(CapabilityError, match="Encoder_Conv_VAE_MNIST of another module"):
        load_pythae(str(folder))


def test_code_in_a_pickle_is_never_run(folder: Path, tmp_path: Path) -> None:
    """Of the encoder and of the weights: both pickles here would make a file if they were loaded."""
    import pickle  # noqa: TID251

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    trap = pickle.dumps(Trap())
    assert any(name == "REDUCE" for name in (step.name for step, _, _ in pickletools.genops(trap)))
    as_custom(folder, trap)
    with pytest.raises(CapabilityError, match="an encoder of its own"):
        load_pythae(str(folder))
    rewrite(folder, uses_default_encoder=True)
    (folder / "encoder.pkl").unlink()
    torch.save({"model_state_dict": {"encoder.layers": Trap()}}, folder / "model.pt")
    with pytest.raises(ArtifactError, match=r"model.pt does not hold the weights"):
        load_pythae(str(folder))
    assert not (tmp_path / "ran").exists()
    pickle.loads(trap)
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"\x80\x05", b"no pickle at all", bytes(range(256))])
def test_a_network_in_a_broken_pickle_is_of_an_unknown_class(folder: Path, content: bytes) -> None:
    as_custom(folder, content)
    with pytest.raises(CapabilityError, match="an encoder of its own, of an unknown class"):
        load_pythae(str(folder))


@pytest.mark.parametrize("kind", ["VAE_IAF_Config", "VQVAEConfig", "SVAEConfig", "RHVAEConfig", "MAFConfig"])
def test_models_whose_codes_are_more_than_their_encoders_are_refused_by_name(folder: Path, kind: str) -> None:
    rewrite(folder, name=kind)
    name = kind.removesuffix("Config").removesuffix("_")
    with pytest.raises(CapabilityError, match=rf"is a {name} of pythae, whose codes .*Served are AE, .*VAMP"):
        load_pythae(str(folder))


# Damage


def test_a_missing_folder_and_missing_files_are_told(tmp_path: Path, folder: Path) -> None:
    for rest in (f"{tmp_path}/nowhere", ""):
        with pytest.raises(MissingPathError, match="expected one that pythae wrote"):
            load_pythae(rest)
    with pytest.raises(ArtifactError, match=r"it has no model_config\.json"):
        load_pythae(str(tmp_path))
    rewrite(folder, uses_default_encoder=False)
    with pytest.raises(ArtifactError, match=r"has no encoder\.pkl, which its model_config.json announces"):
        load_pythae(str(folder))
    (folder / "model.pt").unlink()
    with pytest.raises(ArtifactError, match=r"it has no model\.pt"):
        load_pythae(str(folder))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"name": None}, "has no name"),
        ({"latent_dim": "two"}, "latent_dim 'two' and input_dim"),
        ({"latent_dim": 0}, "latent_dim 0"),
        ({"input_dim": None}, "input_dim None"),
        ({"input_dim": [1, 2, -3]}, "where sizes were expected"),
        ({"latent_dim": 3}, r"does not hold the weights that model_config.json describes .*size mismatch"),
        ({"input_dim": [1, 3, 3]}, "size mismatch"),
        ({"name": "AEConfig"}, "Unexpected key"),
    ],
)
def test_configs_that_do_not_fit_are_refused(folder: Path, settings: dict[str, Any], words: str) -> None:
    rewrite(folder, **settings)
    with pytest.raises(ArtifactError, match=words):
        load_pythae(str(folder))


def test_what_is_no_image_is_refused(folder: Path) -> None:
    rewrite(folder, input_dim=[6])
    with pytest.raises(CapabilityError, match="data of shape 6; latlas takes images"):
        load_pythae(str(folder))


@pytest.mark.parametrize("content", [b"", b"torn", b"PK\x03\x04torn"])
def test_torn_weights_are_refused(folder: Path, content: bytes) -> None:
    (folder / "model.pt").write_bytes(content)
    with pytest.raises(ArtifactError, match="does not hold the weights"):
        load_pythae(str(folder))


def test_a_folder_of_pythae_without_its_scheme_is_told_the_scheme(folder: Path) -> None:
    with pytest.raises(ArtifactError, match=rf"pythae wrote it: ask for pythae:{folder}"):
        load_model(folder)
