"""Runs: the weights are those of a plain loop that was written apart, and what went wrong is told with its cure."""

import json
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from latlas.base.artifacts import CONFIG
from latlas.base.errors import ImageFormatError, NonFiniteError, OutputExistsError, SettingError, UnknownNameError
from latlas.base.seeds import derived_seed
from latlas.data.images import ImageSet
from latlas.models.architectures.architecture import Architecture
from latlas.models.architectures.conv import Conv
from latlas.models.architectures.dense import Dense
from latlas.models.protocols import Posterior
from latlas.models.vae import VAE
from latlas.training.batches import ShuffledRows
from latlas.training.module import Schedule, VAETraining
from latlas.training.objectives import Objective, Terms
from latlas.training.precision import choose_precision
from latlas.training.runs import TrainedVAE, train_vae

DENSE = Dense(widths=(16,), latent=3)
CONV = Conv(channels=(4, 6), latent=3)
LATENT = 3


def train(images: ImageSet, arch: Architecture | str = DENSE, **settings: Any) -> TrainedVAE:
    """A training of a blink, unless settings say otherwise."""
    return train_vae(images, arch, **{"epochs": 2, "batch_size": 32, "learning_rate": 5e-3, "device": "cpu", **settings})


def weights(run: TrainedVAE) -> dict[str, Tensor]:
    return run.model.state_dict()


def same_weights(first: TrainedVAE, second: TrainedVAE) -> bool:
    return all(tensor.equal(weights(second)[name]) for name, tensor in weights(first).items())


# What a training computes


def plain_loop(
    images: ImageSet, arch: Architecture, *, epochs: int, batch: int, rate: float, seed: int
) -> tuple[VAE, list[Any]]:
    """The same training without Lightning, fused kernels or chunks; likelihoods and KL by torch.distributions."""
    torch.manual_seed(derived_seed(seed, "weights"))
    vae = VAE(arch, images.image_shape)
    optimizer = torch.optim.Adam(vae.parameters(), lr=rate, fused=False, foreach=False)
    order_seed = derived_seed(seed, "training")
    rows = ShuffledRows(len(images), batch, seed=order_seed)
    steps, warm = epochs * (len(images) // batch), int(0.05 * epochs * (len(images) // batch))
    step, mean_error, variance, history = 0, 1.0, 1.0, []
    for epoch in range(epochs):
        rows.set_epoch(epoch)
        noise = torch.Generator().manual_seed(derived_seed(order_seed, "noise", epoch, 0))
        means, deviations, losses = [], [], []
        for chosen in rows:
            pixels = images.storage[chosen].float() / 255
            posterior = vae.encode(pixels)
            assert posterior.log_variance is not None
            code = Normal(posterior.mean, (0.5 * posterior.log_variance).exp())
            drawn = vae.decode(code.loc + code.scale * torch.randn(code.loc.shape, generator=noise))
            reconstruction = -Normal(drawn, math.sqrt(variance)).log_prob(pixels).sum() / len(chosen)
            kl = kl_divergence(code, Normal(torch.zeros(()), torch.ones(()))).sum() / len(chosen)
            cosine = 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / steps))
            for group in optimizer.param_groups:
                group["lr"] = rate * cosine * min((step + 1) / warm, 1)
            optimizer.zero_grad()
            (reconstruction + kl).backward()
            optimizer.step()
            squared_error = (drawn - pixels).square().mean()
            mean_error = 0.99 * mean_error + 0.01 * squared_error.item()
            variance, step = min(variance, mean_error), step + 1
            means.append(code.loc.detach().double().numpy())
            deviations.append(code.scale.detach().double().numpy())
            losses.append([term.item() for term in (reconstruction + kl, reconstruction, kl, squared_error)])
        mean, deviation = np.concatenate(means), np.concatenate(deviations)
        record = dict(zip(("loss", "reconstruction_nats", "kl_nats", "squared_error"), np.mean(losses, axis=0), strict=True))
        record |= {
            "kl": 0.5 * (mean**2 + deviation**2 - 2 * np.log(deviation) - 1).mean(axis=0),
            "variance_of_means": mean.var(axis=0),
            "mean_posterior_variance": (deviation**2).mean(axis=0),
            "likelihood_variance": variance,
            "active": (mean.var(axis=0) > 0.01).sum(),
            "epoch": epoch + 1,
        }
        history.append(record)
    return vae, history


@pytest.mark.parametrize("per_step", [1, 8], ids=["one mini-batch a step", "eight mini-batches a step"])
def test_a_training_is_adam_on_the_balanced_elbo(per_step: int, blobs: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """300 images in mini-batches of 32: nine a epoch, so that chunks of eight do not come out even.

    1e-3: the two loops round differently in the last digit of float32, and 36 steps of Adam carry that on.
    """
    if per_step == 1:
        monkeypatch.setattr("latlas.training.runs.Schedule", lambda **settings: Schedule(**{**settings, "per_step": 1}))
    images = blobs.slice(0, 300)
    run = train(images, epochs=4, seed=5)
    expected, history = plain_loop(images, DENSE, epochs=4, batch=32, rate=5e-3, seed=5)
    for name, tensor in expected.state_dict().items():
        torch.testing.assert_close(weights(run)[name], tensor, rtol=1e-3, atol=1e-5)
    assert [record.keys() for record in run.history] == [record.keys() for record in history]
    for ours, theirs in zip(run.history, history, strict=True):
        for name, value in theirs.items():
            assert ours[name] == pytest.approx(value, rel=1e-3, abs=1e-5), name


def test_the_learning_rate_warms_up_and_then_follows_torchs_cosine(blobs: ImageSet) -> None:
    """40 steps: two of warm-up, then CosineAnnealingLR down to a twentieth."""
    schedule = Schedule(epochs=4, batch_size=32, learning_rate=0.1, seed=0)
    module = VAETraining(VAE(DENSE, (1, 8, 8)), blobs, Objective(), schedule)
    configured = module.configure_optimizers()
    optimizer, scheduler = configured["optimizer"], configured["lr_scheduler"]
    reference = torch.optim.Adam([nn.Parameter(torch.zeros(1))], lr=0.1)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(reference, T_max=40, eta_min=0.005)
    for step in range(41):
        expected = cosine.get_last_lr()[0] * (0.5 if step == 0 else 1.0)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(expected, rel=1e-9)
        for each in (optimizer, reference):
            each.step()
        scheduler.step()  # type: ignore[union-attr]
        cosine.step()


def test_the_loss_falls_and_images_come_back(blobs: ImageSet) -> None:
    run = train(blobs, Dense(widths=(32,), latent=LATENT), epochs=30)
    variance_of_pixels = float(blobs.tensor().var(dim=0, correction=0).mean())
    assert run.history[-1]["loss"] < run.history[0]["loss"]
    assert run.history[-1]["squared_error"] < 0.7 * variance_of_pixels
    assert run.warnings == []
    assert run.history[-1]["active"] >= 2  # where the spot is: down and across


def test_history_holds_one_record_an_epoch_and_one_number_a_variable(blobs: ImageSet) -> None:
    run = train(blobs, epochs=3)
    assert [record["epoch"] for record in run.history] == [1, 2, 3]
    for record in run.history:
        assert {len(record[name]) for name in ("kl", "variance_of_means", "mean_posterior_variance")} == {LATENT}
        assert sum(record["kl"]) == pytest.approx(record["kl_nats"], rel=1e-5)
        assert record["loss"] == pytest.approx(record["reconstruction_nats"] + record["kl_nats"], rel=1e-5)
    held = [record["likelihood_variance"] for record in run.history]
    assert held == sorted(held, reverse=True)


# Seeds


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("arch", "precision"), [(DENSE, "auto"), (CONV, "float32")], ids=["dense", "conv"])
def test_the_same_seed_gives_the_same_weights_to_the_last_bit(
    arch: Architecture, precision: str, threads: int, blobs: ImageSet
) -> None:
    torch.set_num_threads(threads)
    images = blobs.slice(0, 96)
    first, second = (train(images, arch, precision=precision, seed=3) for _ in range(2))
    assert same_weights(first, second)
    assert first.history == second.history


def test_another_seed_gives_other_weights(blobs: ImageSet) -> None:
    first, second = (train(blobs, seed=seed, epochs=1) for seed in (0, 1))
    assert not same_weights(first, second)


def test_a_training_neither_reads_nor_moves_the_callers_random_numbers(blobs: ImageSet) -> None:
    runs = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        runs.append(train(blobs, epochs=1))
        assert torch.get_rng_state().equal(before)
    assert same_weights(*runs)


# Precision


def test_convolutions_train_in_bfloat16_and_the_record_says_so(blobs: ImageSet, tmp_path: Path) -> None:
    run = train(blobs, CONV, precision="bfloat16", out=tmp_path / "model")
    assert (run.precision.autocast, run.precision.channels_last) == ("bfloat16", True)
    assert all(tensor.isfinite().all() for tensor in weights(run).values())
    assert {tensor.dtype for tensor in weights(run).values()} == {torch.float32}
    record = json.loads((tmp_path / "model" / CONFIG).read_text())["provenance"]["settings"]["precision"]
    assert (record["autocast"], record["channels_last"], record["why"]) == ("bfloat16", True, "asked for")
    exact = train(blobs, CONV, precision="float32")
    assert not same_weights(run, exact)  # it did compute in another format,
    assert run.history[-1]["loss"] == pytest.approx(exact.history[-1]["loss"], rel=0.02)  # and to its three digits the same


def test_convolutions_get_their_images_channels_last_and_dense_layers_do_not(blobs: ImageSet) -> None:
    """Of three channels: with one, both layouts are the same memory."""
    coloured = ImageSet("coloured", blobs.storage[:32].repeat(1, 3, 1, 1))
    seen: dict[str, bool] = {}

    def look(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if type(module).__name__ in ("ConvEncoder", "DenseEncoder"):
            seen[type(module).__name__] = inputs[0].is_contiguous(memory_format=torch.channels_last)

    hook = nn.modules.module.register_module_forward_pre_hook(look)
    try:
        for arch in (CONV, DENSE):
            train(coloured, arch, epochs=1, precision="float32")
    finally:
        hook.remove()
    assert seen == {"ConvEncoder": True, "DenseEncoder": False}


def test_auto_takes_what_the_table_says(blobs: ImageSet) -> None:
    for arch in (DENSE, CONV):
        expected = choose_precision("auto", convolutional=arch.convolutional, device=torch.device("cpu"))
        assert train(blobs.slice(0, 32), arch, epochs=1).precision == expected


# The artifact


def test_the_artifact_holds_the_model_that_was_returned(blobs: ImageSet, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "model"
    run = train(blobs, seed=11, name="spots", out=out)
    loaded = VAE.from_pretrained(out)
    assert loaded.fingerprint == run.model.fingerprint
    assert loaded.name == "spots"
    images = blobs.slice(0, 5).tensor()
    assert loaded.encode(images).mean.equal(run.model.encode(images).mean)
    assert [loaded.training, run.model.training] == [False, False]
    assert json.loads((out / "run" / "history.json").read_text()) == run.history
    assert loaded.provenance is not None
    assert loaded.provenance.seed == 11
    assert loaded.provenance.made_by == "train_vae"
    assert loaded.provenance.made_from == {"images": blobs.content_hash}
    settings = loaded.provenance.settings
    assert settings["architecture"] == {"name": "dense", "widths": [16], "latent": 3}
    assert (settings["epochs"], settings["batch_size"], settings["learning_rate"]) == (2, 32, 5e-3)
    assert [path.name for path in out.parent.iterdir()] == ["model"]  # nothing is left beside it


def test_writing_changes_no_weight(blobs: ImageSet, tmp_path: Path) -> None:
    assert same_weights(train(blobs), train(blobs, out=tmp_path / "model"))


def fail(task: str, done: int, total: int | None, note: str = "") -> None:
    pytest.fail("training began")


def test_a_folder_that_is_taken_is_refused_before_training(blobs: ImageSet, tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("thesis")
    with pytest.raises(OutputExistsError, match="already holds something"):
        train(blobs, out=tmp_path, progress=fail)
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


def test_an_earlier_artifact_is_replaced_only_on_request(blobs: ImageSet, tmp_path: Path) -> None:
    train(blobs, epochs=1, out=tmp_path / "model")
    with pytest.raises(OutputExistsError, match="--replace"):
        train(blobs, seed=1, out=tmp_path / "model", progress=fail)
    run = train(blobs, seed=1, epochs=1, out=tmp_path / "model", replace=True)
    assert VAE.from_pretrained(tmp_path / "model").fingerprint == run.model.fingerprint


def test_progress_is_told_in_images_up_to_the_last(blobs: ImageSet) -> None:
    told: list[tuple[str, int, int | None, str]] = []
    train(blobs, epochs=3, name="spots", progress=lambda task, done, total, note="": told.append((task, done, total, note)))
    done = [each[1] for each in told]
    assert done == sorted(done)
    assert done[-1] == 960
    assert {(task, total) for task, _, total, _ in told} == {("training spots", 960)}
    assert told[0][3] == "epoch 1/3"
    assert "epoch 3/3 · error 0." in told[-1][3]
    assert f"/{LATENT}" in told[-1][3]


# What can go wrong


def test_a_batch_larger_than_the_set_is_the_whole_set(blobs: ImageSet) -> None:
    images = blobs.slice(0, 20)
    large, exact = (train(images, batch_size=size, epochs=3) for size in (1000, 20))
    assert same_weights(large, exact)


def test_one_image_can_be_trained_on(blobs: ImageSet) -> None:
    run = train(blobs.slice(0, 1), epochs=1)
    assert run.history[0]["variance_of_means"] == [0.0] * LATENT
    assert all(tensor.isfinite().all() for tensor in weights(run).values())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"epochs": 0}, "at least 1 epoch, got 0.$"),
        ({"batch_size": 0}, "at least 1 image a step, got 0.$"),
        ({"devices": 0}, "at least 1 device, got 0.$"),
        ({"learning_rate": 0.0}, "learning rate must lie between 0 and 10, got 0.0"),
        ({"learning_rate": math.nan}, "learning rate must lie between 0 and 10, got nan"),
        ({"batch_size": 33, "devices": 2}, "batch size 33 must be a multiple of the 2 devices"),
        ({"device": "cuda"}, "Use --device cpu"),
    ],
)
def test_settings_out_of_range_are_refused(
    settings: dict[str, Any], words: str, blobs: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SettingError, match=words):
        train(blobs, progress=fail, **settings)


def test_too_few_images_are_refused(blobs: ImageSet) -> None:
    with pytest.raises(SettingError, match="at least one image"):
        train(ImageSet("nothing", torch.zeros(0, 1, 8, 8)))
    with pytest.raises(SettingError, match="2 devices needs as many images at least, got 1"):
        train(blobs.slice(0, 1), devices=2)


def test_unknown_names_and_images_that_do_not_fit_are_refused_before_a_folder_is_made(tmp_path: Path, blobs: ImageSet) -> None:
    out = tmp_path / "model"
    with pytest.raises(UnknownNameError, match=r"Unknown architecture 'dens'\. Did you mean 'dense'"):
        train(blobs, "dens", out=out)
    with pytest.raises(UnknownNameError, match="Unknown precision 'half'"):
        train(blobs, precision="half", out=out)
    with pytest.raises(ImageFormatError, match="square images, got 8 x 4"):
        train(ImageSet("oblong", torch.zeros(4, 1, 8, 4)), CONV, out=out)
    assert list(tmp_path.iterdir()) == []


def test_a_likelihood_wider_than_every_direction_of_the_images_collapses(
    mnist_train: ImageSet, caplog: pytest.LogCaptureFixture
) -> None:
    """Digits vary by 5.2 along their first direction, so nothing survives a variance of 9, and much does the running error's.

    Lucas et al. 2019 (arXiv:1911.02469): a linear VAE of fixed sigma keeps the directions that vary by more than sigma^2.
    """
    digits = mnist_train.slice(0, 1000)
    covariance = np.cov(digits.tensor().flatten(1).double().numpy().T)
    assert np.linalg.eigvalsh(covariance)[-1] < 9.0
    aim = Objective(balance="fixed", likelihood="gaussian", sigma=3.0)
    with caplog.at_level(logging.WARNING, logger="latlas"):
        run = train(digits, "dense", objective=aim, learning_rate=1e-3, epochs=4)
    assert run.history[-1]["active"] == 0
    (warning,) = run.warnings
    assert "Every latent variable has collapsed (0 of 16 active)" in warning
    assert "use --balance running-error" in warning
    assert warning in caplog.text
    healthy = train(digits, "dense", learning_rate=1e-3, epochs=4)
    assert healthy.warnings == []
    assert healthy.history[-1]["active"] > 0


def test_a_collapse_under_the_running_error_names_the_kl_weight(blobs: ImageSet) -> None:
    run = train(blobs, objective=Objective(kl_weight=500.0), epochs=4)
    (warning,) = run.warnings
    assert "lower --kl-weight from 500, or train longer" in warning


# Leaving the numbers


RULE = Objective(balance="fixed").build()


class Spoiled(nn.Module):
    """A balance rule, one of whose terms is NaN from a given step on."""

    def __init__(self, term: str, step: int, value: float) -> None:
        super().__init__()
        self.rule, self.term, self.step, self.value, self.calls = RULE, term, step, value, 0
        self.variance = 1.0

    def forward(self, logits: Tensor, images: Tensor, posterior: Posterior) -> Terms:
        self.calls += 1
        terms: Terms = self.rule(logits, images, posterior)
        if self.calls < self.step:
            return terms
        spoiled = torch.tensor(self.value)
        return Terms(
            loss=terms.loss * spoiled,
            reconstruction_nats=spoiled if self.term == "reconstruction term" else terms.reconstruction_nats,
            kl_nats=spoiled if self.term == "KL term" else terms.kl_nats,
            squared_error=terms.squared_error,
        )


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("term", ["reconstruction term", "KL term", "loss"])
def test_a_loss_that_leaves_the_numbers_is_traced_to_its_term_and_step(
    term: str, value: float, blobs: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten steps an epoch: the thirteenth is the third of the second epoch."""
    monkeypatch.setattr(Objective, "build", lambda aim: Spoiled(term, 13, value))
    with pytest.raises(NonFiniteError, match=f"in epoch 2, step 3 of it: the {term} became {value}") as raised:
        train(blobs, epochs=3)
    assert "Lower the learning rate (0.005), or use --precision float32" in str(raised.value)


def test_an_absurd_learning_rate_writes_nothing_and_can_be_mended(blobs: ImageSet, tmp_path: Path) -> None:
    """What was cut off in its first epoch has nothing to go on with, so it must not stand in the way of other settings."""
    out = tmp_path / "model"
    with pytest.raises(NonFiniteError, match=r"Lower the learning rate \(9\.9\)"):
        train(blobs, learning_rate=9.9, out=out)
    assert not out.exists()
    mended = train(blobs, out=out)
    assert same_weights(mended, train(blobs))
    assert VAE.from_pretrained(out).fingerprint == mended.model.fingerprint


def test_lightning_is_as_talkative_after_a_training_as_before(blobs: ImageSet) -> None:
    names = ("lightning.pytorch", "lightning.fabric", "lightning")
    before = [logging.getLogger(name).level for name in names]
    train(blobs, epochs=1)
    assert [logging.getLogger(name).level for name in names] == before
