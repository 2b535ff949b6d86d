"""A number that is none, anywhere in a training: it stops, says where, and what was good is kept."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from latlas.base.errors import ArtifactError, NonFiniteError
from latlas.data.images import ImageSet
from latlas.models.architectures.dcgan import DCGAN
from latlas.models.architectures.dense import Dense
from latlas.models.architectures.stylegan2 import StyleGAN2
from latlas.models.generator import GeneratorModel
from latlas.models.recoder import RecoderSettings
from latlas.training import recoders
from latlas.training.adversarial import AdversarialTraining
from latlas.training.checkpoints import WholeCheckpoints
from latlas.training.finite import bad_variables
from latlas.training.gan_runs import train_gan
from latlas.training.module import VAETraining
from latlas.training.recoders import RecoderTraining, train_recoder
from latlas.training.runs import train_vae
from latlas.training.stylegan_runs import StyleGANTraining, train_stylegan2

SIDE = 8
STEPS = 5  # of an epoch: 40 images, 8 a step


@pytest.fixture(scope="module")
def images() -> ImageSet:
    coarse = torch.rand(40, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    return ImageSet("blobs", (torch.nn.functional.interpolate(coarse, size=SIDE) * 255).to(torch.uint8))


@pytest.fixture(scope="module")
def drawing(images: ImageSet) -> GeneratorModel:
    torch.manual_seed(0)
    return GeneratorModel(DCGAN(channels=2, latent=3), images.image_shape, name="g").eval()


def vae(images: ImageSet, out: Path | None, drawing: GeneratorModel) -> Any:
    return train_vae(images, Dense(widths=(8,), latent=3), epochs=3, batch_size=8, device="cpu", out=out)


def gan(images: ImageSet, out: Path | None, drawing: GeneratorModel) -> Any:
    return train_gan(images, DCGAN(channels=2, latent=3), epochs=3, batch_size=8, device="cpu", out=out)


def style(images: ImageSet, out: Path | None, drawing: GeneratorModel) -> Any:
    small = StyleGAN2(latent=3, style=3, layers=1, channel_base=16, channel_max=4)
    return train_stylegan2(images, small, epochs=3, batch_size=8, device="cpu", out=out)


def recoder(images: ImageSet, out: Path | None, drawing: GeneratorModel) -> Any:
    sizes = RecoderSettings(channels=2, widest=4, hidden=4)
    return train_recoder(drawing, steps=3 * STEPS, batch_size=4, settings=sizes, device="cpu", out=out)


# name -> training, its module's class, a network in it
TRAININGS: dict[str, tuple[Callable[..., Any], type[Any], str]] = {
    "vae": (vae, VAETraining, "vae"),
    "gan": (gan, AdversarialTraining, "model"),
    "stylegan2": (style, StyleGANTraining, "model"),
    "recoder": (recoder, RecoderTraining, "recoder"),
}


@pytest.fixture(autouse=True)
def _short_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recoders, "_STEPS_PER_EPOCH", STEPS)


def poison(monkeypatch: pytest.MonkeyPatch, module: type[Any], network: str, *, epoch: int, value: float) -> None:
    """Put a value into a weight when an epoch begins, as a flipped bit of memory would."""
    begin = module.on_train_epoch_start

    def poisoned(self: Any) -> None:
        begin(self)
        if self.current_epoch == epoch:
            with torch.no_grad():
                next(getattr(self, network).parameters()).view(-1)[0] = value

    monkeypatch.setattr(module, "on_train_epoch_start", poisoned)


def kept_epochs(work: Path) -> int:
    kept = torch.load(work / "last.ckpt", weights_only=True)
    bad = [name for name, tensor in kept["state_dict"].items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    assert bad == []
    return len(kept["latlas_history"])


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", TRAININGS)
def test_a_poisoned_weight_stops_a_training_which_keeps_its_last_good_epoch_and_ends_as_if_nothing_had_happened(
    name: str, value: float, images: ImageSet, drawing: GeneratorModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, module, network = TRAININGS[name]
    with monkeypatch.context() as patched:
        poison(patched, module, network, epoch=1, value=value)
        with pytest.raises(NonFiniteError) as raised:
            train(images, tmp_path / "out", drawing)
    said = str(raised.value)
    assert "\n" not in said
    assert "The last good state is kept in" in said
    first = "in epoch 2, step 1 of it" if name == "vae" else f"in step {STEPS + 1}: "
    assert first in said, said
    cause = {
        "vae": "latent variable",
        "gan": "the generator",
        "stylegan2": "the generator",
        "recoder": "every latent variable",
    }[name]
    assert cause in said, said
    assert not (tmp_path / "out").exists()
    assert kept_epochs(tmp_path / ".out.training") == 1
    train(images, tmp_path / "out", drawing)
    train(images, tmp_path / "whole", drawing)
    weights = [(tmp_path / each / "model.safetensors").read_bytes() for each in ("out", "whole")]
    assert weights[0] == weights[1]
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("name", TRAININGS)
def test_a_weight_that_breaks_in_an_epochs_last_step_never_reaches_the_checkpoint(
    name: str, images: ImageSet, drawing: GeneratorModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every term of that epoch is a number: nothing but a look at the weights can tell."""
    train, module, network = TRAININGS[name]
    end = module.on_train_epoch_end

    def broken(self: Any) -> None:
        if self.current_epoch == 1:
            with torch.no_grad():
                next(getattr(self, network).parameters()).view(-1)[0] = math.nan
        end(self)

    monkeypatch.setattr(module, "on_train_epoch_end", broken)
    with pytest.raises(
        NonFiniteError, match=rf"1 of [\d,]+ values of {network}\..* are NaN or infinite.*last good state is kept"
    ):
        train(images, tmp_path / "out", drawing)
    assert kept_epochs(tmp_path / ".out.training") == 1


def test_a_broken_discriminator_is_not_taken_for_the_generator(
    images: ImageSet, drawing: GeneratorModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, AdversarialTraining, "discriminator", epoch=1, value=math.nan)
    with pytest.raises(NonFiniteError, match=f"in step {STEPS + 1}: .*batch 1 of epoch 2, the discriminator"):
        gan(images, None, drawing)


def test_the_latent_variable_that_broke_is_named(
    images: ImageSet, drawing: GeneratorModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log variance of one variable, for one image of the third batch, overflows."""
    step = iter(range(1000))
    reconstruct = vae(images, None, drawing).model.__class__.reconstruct_logits

    def overflowing(self: Any, batch: Tensor, noise: Tensor) -> Any:
        posterior, logits = reconstruct(self, batch, noise)
        if next(step) == 2:
            changed = posterior.log_variance.clone()
            changed[5, 1] = 200.0
            posterior = type(posterior)(mean=posterior.mean, log_variance=changed)
        return posterior, logits

    monkeypatch.setattr("latlas.models.vae.VAE.reconstruct_logits", overflowing)
    with pytest.raises(
        NonFiniteError, match=r"epoch 1, step 3 of it: the KL term became inf\..* It was latent variable 1 of image 5"
    ):
        vae(images, None, drawing)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ([], ""),
        ([(3, 1)], "latent variable 1 of image 3 of the batch"),
        ([(3, 1), (2, 1), (2, 0)], "latent variable 0, 1 of image 2 of the batch and 1 more"),
        ([(1, each) for each in range(12)], "every latent variable of image 1 of the batch"),
        ([(1, each) for each in range(10)], "latent variable 0, 1, 2, 3, 4, 5, 6, 7, … of image 1 of the batch"),
    ],
)
@pytest.mark.parametrize("grid", [(), (2, 2)])
def test_bad_variables_are_named(bad: list[tuple[int, int]], words: str, grid: tuple[int, ...]) -> None:
    codes = torch.zeros(5, 12, *grid)
    for image, variable in bad:
        codes[(image, variable, *(0 for _ in grid))] = math.inf
    assert bad_variables(codes) == words


# Checkpoints


def test_a_disk_that_refuses_a_checkpoint_keeps_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "last.ckpt"
    WholeCheckpoints().save_checkpoint({"step": 1}, target)

    def full(checkpoint: object, stream: Any) -> None:
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(ArtifactError, match=r"No space left on device. The one before it is kept: the same command goes on"):
        WholeCheckpoints().save_checkpoint({"step": 2}, target)
    assert torch.load(target, weights_only=True) == {"step": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
    with pytest.raises(ArtifactError, match="There is none yet"):
        WholeCheckpoints().save_checkpoint({"step": 2}, tmp_path / "other.ckpt")


def test_scalars_are_on_the_disk_when_they_are_said_to_be(tmp_path: Path) -> None:
    """Read while the file is open: what a process that dies now leaves."""
    from latlas.training.scalar_log import ScalarLog

    log = ScalarLog(tmp_path / "run")
    log.log_metrics({f"v/{number:03d}": float(number) for number in range(500)}, step=1)
    log.save()
    (path,) = (tmp_path / "run").glob("events.*")
    assert len(re.findall(rb"v/\d{3}", path.read_bytes())) == 500
