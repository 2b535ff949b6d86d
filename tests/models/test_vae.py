"""The VAE assembly: what it takes, what it saves, and what it refuses to load."""

import json
from pathlib import Path

import pytest
import torch

from latlas.base.artifacts import CARD, CONFIG, save_tensors
from latlas.base.errors import (
    ArtifactError,
    CodeShapeError,
    ImageFormatError,
    MissingPathError,
    OutputExistsError,
    UnknownNameError,
)
from latlas.base.provenance import Provenance, file_hash
from latlas.models.architectures.registry import ARCHITECTURES, architecture
from latlas.models.loading import load_model
from latlas.models.pretrained import WEIGHTS
from latlas.models.protocols import Autoencoder, Generator, Posterior
from latlas.models.vae import VAE

SMALL: dict[str, dict[str, object]] = {
    "dense": {"widths": (12,), "latent": 4},
    "conv": {"channels": (4, 6), "latent": 4},
    "resnet": {"scales": 2, "base_dim": 4, "fc_dim": 8, "latent": 4},
    "split": {"scales": 2, "base_dim": 4, "fc_dim": 8, "latent": 4},
    "draw": {"steps": 2, "latent": 2, "hidden": 8, "read": 2, "write": 3},
    "autoencoder-kl": {"channels": (4, 4), "norm_groups": 2, "latent": 2},
}


def build(kind: str = "dense", image_shape: tuple[int, int, int] = (1, 28, 28), **options: object) -> VAE:
    torch.manual_seed(0)
    return VAE(architecture(kind, **SMALL[kind]), image_shape, **options)  # type: ignore[arg-type]


def vouch(folder: Path) -> None:
    """Make the config's hashes those of the files, as whoever wrote them so would have done."""
    record = json.loads((folder / CONFIG).read_text())
    record["files"] = {name: file_hash(folder / name) for name in record["files"] if (folder / name).exists()}
    record.pop("checksum", None)  # as a stranger would
    (folder / CONFIG).write_text(json.dumps(record))


def edit_settings(folder: Path, **changes: object) -> None:
    record = json.loads((folder / CONFIG).read_text())
    for key, value in changes.items():
        if value is None:
            del record["settings"][key]
        else:
            record["settings"][key] = value
    record.pop("checksum", None)  # as a stranger would
    (folder / CONFIG).write_text(json.dumps(record))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    build().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


# What it offers


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_vae_answers_to_the_protocols(name: str) -> None:
    model = build(name)
    assert isinstance(model, Autoencoder)
    assert isinstance(model, Generator)
    assert model.name == f"{name} VAE"
    assert build(name, name="mine").name == "mine"


def test_codes_are_drawn_from_the_standard_normal_prior() -> None:
    """10,000 draws of 4 variables: means within 5 standard errors, variances too."""
    codes = build().sample_codes(10_000, torch.Generator().manual_seed(5))
    assert codes.shape == (10_000, 4)
    assert float(codes.mean(dim=0).abs().max()) < 5 / 100
    assert float((codes.var(dim=0) - 1).abs().max()) < 5 * 2**0.5 / 100
    assert codes.equal(build().sample_codes(10_000, torch.Generator().manual_seed(5)))
    assert not codes[:5].equal(build().sample_codes(5, torch.Generator().manual_seed(6)))


def test_images_of_another_size_are_refused_with_the_remedy() -> None:
    message = "dense VAE takes images of 1x28x28 .*the batch has 1x20x20. Folders of pictures can be resized with --resize 28"
    with pytest.raises(ImageFormatError, match=message):
        build().encode(torch.rand(2, 1, 20, 20))


def test_images_of_another_number_of_channels_are_not_told_to_resize() -> None:
    with pytest.raises(ImageFormatError, match="has 3x28x28") as raised:
        build().encode(torch.rand(2, 3, 28, 28))
    assert "--resize" not in str(raised.value)


@pytest.mark.parametrize("shape", [(2, 5), (2, 4, 1), (2, 2, 2)])
def test_codes_of_another_latent_space_are_refused(shape: tuple[int, ...]) -> None:
    got = "x".join(map(str, shape[1:]))
    for ask in (build().decode, build().decode_logits):
        with pytest.raises(CodeShapeError, match=f"takes codes of shape 4, got {got}. Use codes of this model, or map them"):
            ask(torch.zeros(shape))


# Posterior


def test_a_posterior_is_sampled_with_its_mean_and_deviation() -> None:
    n = 20_000
    mean, deviation = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 3.0])
    posterior = Posterior(mean.expand(n, 2), deviation.square().log().expand(n, 2))
    draws = posterior.sample(torch.Generator().manual_seed(7))
    assert float(((draws.mean(dim=0) - mean) / deviation).abs().max()) < 5 / n**0.5
    assert float((draws.std(dim=0) / deviation - 1).abs().max()) < 5 / (2 * n) ** 0.5
    assert draws.equal(posterior.sample(torch.Generator().manual_seed(7)))
    assert not draws.equal(posterior.sample(torch.Generator().manual_seed(8)))


def test_a_deterministic_code_is_its_own_sample() -> None:
    mean = torch.arange(6.0).reshape(3, 2)
    assert Posterior(mean).sample(torch.Generator().manual_seed(0)).equal(mean)


def test_sampling_passes_the_gradient_to_mean_and_log_variance() -> None:
    mean, log_variance = torch.zeros(3, 2, requires_grad=True), torch.zeros(3, 2, requires_grad=True)
    draws = Posterior(mean, log_variance).sample(torch.Generator().manual_seed(9))
    draws.sum().backward()
    assert mean.grad is not None
    assert mean.grad.equal(torch.ones(3, 2))
    assert log_variance.grad is not None
    torch.testing.assert_close(log_variance.grad, 0.5 * draws.detach())


# Saving and loading


@pytest.mark.parametrize("image_shape", [(1, 28, 28), (3, 32, 32), (1, 20, 20)])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_model_comes_back_bit_for_bit(name: str, image_shape: tuple[int, int, int], tmp_path: Path) -> None:
    provenance = Provenance(made_by="train_vae", seed=3, made_from={"images": "ab"}, settings={"epochs": 2})
    model = build(name, image_shape, name="mine", provenance=provenance).eval()
    model.save_pretrained(tmp_path / "model")
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == sorted([CARD, CONFIG, WEIGHTS])
    for again in (VAE.from_pretrained(tmp_path / "model"), load_model(str(tmp_path / "model"))):
        assert isinstance(again, VAE)
        assert again.fingerprint == model.fingerprint
        assert again.state_dict().keys() == model.state_dict().keys()
        assert all(again.state_dict()[key].equal(value) for key, value in model.state_dict().items())
        assert (again.architecture, again.image_shape, again.latent_shape) == (
            model.architecture,
            image_shape,
            model.latent_shape,
        )
        assert again.name == "mine"
        assert again.provenance == provenance
        assert not again.training
        images = torch.rand(2, *image_shape, generator=torch.Generator().manual_seed(1))
        assert again.encode(images).mean.equal(model.encode(images).mean)
        assert again.decode(again.encode(images).mean).equal(model.decode(model.encode(images).mean))


def test_saving_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("first", "second"):
        build().save_pretrained(tmp_path / folder)
    for name in (CONFIG, WEIGHTS):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_what_was_loaded_can_be_saved_and_loaded_again(saved: Path, tmp_path: Path) -> None:
    VAE.from_pretrained(saved).save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / WEIGHTS).read_bytes() == (saved / WEIGHTS).read_bytes()
    assert VAE.from_pretrained(tmp_path / "again").provenance == VAE.from_pretrained(saved).provenance


def test_a_model_is_replaced_only_on_request(saved: Path) -> None:
    torch.manual_seed(1)
    other = VAE(architecture("conv", **SMALL["conv"]), (1, 28, 28))
    before = VAE.from_pretrained(saved).fingerprint
    with pytest.raises(OutputExistsError, match="--replace"):
        other.save_pretrained(saved)
    assert VAE.from_pretrained(saved).fingerprint == before
    other.save_pretrained(saved, replace=True)
    assert VAE.from_pretrained(saved).fingerprint == other.fingerprint


def test_the_fingerprint_changes_with_every_parameter() -> None:
    model = build("conv")
    seen = {model.fingerprint}
    for parameter in model.parameters():
        with torch.no_grad():
            parameter.view(-1)[-1] += 1e-3
        seen.add(model.fingerprint)
    assert len(seen) == 1 + len(list(model.parameters()))


# What is refused


@pytest.mark.parametrize("length", [0, 7, 100, -1])
def test_truncated_weights_are_refused(saved: Path, length: int) -> None:
    (saved / WEIGHTS).write_bytes((saved / WEIGHTS).read_bytes()[:length])
    with pytest.raises(ArtifactError, match=f"{WEIGHTS} is damaged: its content is not what config.json says"):
        VAE.from_pretrained(saved)


@pytest.mark.parametrize("length", [0, 7, 100, -1])
def test_weights_that_were_truncated_before_they_were_hashed_are_refused(saved: Path, length: int) -> None:
    (saved / WEIGHTS).write_bytes((saved / WEIGHTS).read_bytes()[:length])
    vouch(saved)
    with pytest.raises(ArtifactError, match="not a readable safetensors file"):
        VAE.from_pretrained(saved)


def test_missing_weights_are_refused(saved: Path) -> None:
    (saved / WEIGHTS).unlink()
    with pytest.raises(ArtifactError, match=f"{WEIGHTS} is missing. Make the artifact again"):
        VAE.from_pretrained(saved)
    vouch(saved)
    with pytest.raises(ArtifactError, match="is missing, or is no file"):
        VAE.from_pretrained(saved)


def test_weights_of_another_model_are_refused(saved: Path) -> None:
    weights = build("conv").state_dict()
    save_tensors(saved / WEIGHTS, weights)
    vouch(saved)
    with pytest.raises(ArtifactError, match=r"is not a model that this latlas can rebuild .*Train it again"):
        VAE.from_pretrained(saved)


def test_weights_that_lack_a_layer_are_refused(saved: Path) -> None:
    weights = build().state_dict()
    del weights["decoder.head.bias"]
    save_tensors(saved / WEIGHTS, weights)
    vouch(saved)
    with pytest.raises(ArtifactError, match="is not a model that this latlas can rebuild"):
        VAE.from_pretrained(saved)


@pytest.mark.parametrize(
    "changes",
    [
        {"architecture": None},
        {"image_shape": None},
        {"name": None},
        {"image_shape": [28, 28]},
        {"image_shape": "1x28x28"},
        {"image_shape": [1, 28, 29]},
        {"architecture": "dense"},
        {"architecture": {"latent": 4}},
        {"architecture": {"name": "dense", "widths": 12, "latent": 4}},
        {"architecture": {"name": "dense", "widths": [12], "latent": "many"}},
        {"architecture": {"name": "dense", "widths": [12], "latent": 5}},
        {"architecture": {"name": "conv", "channels": [], "latent": 4}},
    ],
)
def test_settings_that_build_no_such_model_are_refused(saved: Path, changes: dict[str, object]) -> None:
    edit_settings(saved, **changes)
    with pytest.raises(ArtifactError, match="is not a model that this latlas can rebuild"):
        VAE.from_pretrained(saved)


def test_an_architecture_of_a_later_latlas_is_named_with_the_nearest(saved: Path) -> None:
    edit_settings(saved, architecture={"name": "dense2", "latent": 4})
    with pytest.raises(ArtifactError, match=r"Unknown architecture 'dense2'. Did you mean 'dense'"):
        VAE.from_pretrained(saved)


def test_a_setting_of_a_later_latlas_is_named(saved: Path) -> None:
    edit_settings(saved, architecture={"name": "dense", "latent": 4, "dropout": 0.1})
    with pytest.raises(ArtifactError, match="has no setting 'dropout'"):
        VAE.from_pretrained(saved)


def test_a_missing_model_is_a_missing_path(tmp_path: Path) -> None:
    with pytest.raises(MissingPathError, match="expected a latlas vae there"):
        VAE.from_pretrained(tmp_path / "nowhere")


def test_the_name_of_an_architecture_stands_for_its_default_settings() -> None:
    named = VAE("dense", (1, 8, 8))
    assert named.architecture == architecture("dense")
    assert named.name == "dense VAE"
    with pytest.raises(UnknownNameError, match="Did you mean 'dense'"):
        VAE("dens", (1, 8, 8))
