"""GANs: the steps are those of a plain loop written apart, a cut training goes on to the same weights, a collapse is told."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from latlas.base.errors import ImageFormatError, NonFiniteError, OutputExistsError, SettingError, UnknownNameError
from latlas.base.progress import Progress, silent
from latlas.base.seeds import derived_seed, generator
from latlas.data.images import ImageSet
from latlas.models.architectures.dcgan import DCGAN
from latlas.models.generator import GeneratorModel
from latlas.training import adversarial_runs
from latlas.training.adversarial import renew_batch_statistics, squared_gradient
from latlas.training.adversarial_runs import TrainedGAN, spread_ratio
from latlas.training.batches import ShuffledRows
from latlas.training.gan_runs import train_gan

SMALL = DCGAN(channels=4, latent=3)
STEPS = 25  # of batches of 32: ten in a pass over 320 images, so that the last pass is cut off half-way


class PowerCut(Exception):
    """The machine went away."""


def train(images: ImageSet, out: Path | None = None, progress: Progress = silent, **settings: Any) -> TrainedGAN:
    fixed: dict[str, Any] = {"steps": STEPS, "batch_size": 32, "device": "cpu", "seed": 2}
    return train_gan(images, SMALL, out=out, progress=progress, **{**fixed, **settings})


def same(first: TrainedGAN, second: TrainedGAN) -> bool:
    others = second.model.state_dict()
    return all(tensor.equal(others[name]) for name, tensor in first.model.state_dict().items())


@pytest.fixture(scope="module")
def uninterrupted(blobs: ImageSet) -> TrainedGAN:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    run = train(blobs)
    torch.set_num_threads(threads)
    return run


# What a training computes


def plain_loop(
    images: ImageSet, *, steps: int, batch: int, rate: float, gamma: float, seed: int
) -> tuple[nn.Module, list[Any]]:
    """The same without Lightning or fused kernels; the losses as binary cross-entropies, the average as a sum."""
    torch.manual_seed(derived_seed(seed, "weights"))
    model = GeneratorModel(SMALL, images.image_shape)
    judge = SMALL.discriminator(images.image_shape)
    order_seed = derived_seed(seed, "training")
    rows = ShuffledRows(len(images), batch, seed=order_seed)
    adams = [torch.optim.Adam(network.parameters(), lr=rate, betas=(0.5, 0.99), fused=False) for network in (model, judge)]
    entropy = nn.BCEWithLogitsLoss()
    average = [parameter.detach().double().clone() for parameter in model.parameters()]
    losses, step, epoch = [], 0, 0
    model.train()
    while step < steps:
        rows.set_epoch(epoch)
        noise = torch.Generator().manual_seed(derived_seed(order_seed, "codes", epoch))
        for chosen in rows:
            if step == steps:
                break
            reals = images.storage[chosen].float() / 255
            drawn = model.network(torch.randn(batch, 3, generator=noise))
            loss = entropy(judge(reals), torch.ones(batch)) + entropy(judge(drawn.detach()), torch.zeros(batch))
            total = loss
            if step % 16 == 0:
                reals = reals.requires_grad_()
                (slope,) = torch.autograd.grad(judge(reals).sum(), reals, create_graph=True)
                total = loss + 16 * gamma / 2 * (slope**2).sum() / batch
            adams[1].zero_grad()
            total.backward()
            adams[1].step()
            fooled = entropy(judge(drawn), torch.ones(batch))
            adams[0].zero_grad()
            fooled.backward()
            adams[0].step()
            step += 1
            # Half of the average is younger than a twentieth of the images seen so far.
            kept = 0.5 ** (batch / min(10_000, 0.05 * step * batch))
            average = [
                kept * old + (1 - kept) * new.detach().double() for old, new in zip(average, model.parameters(), strict=True)
            ]
            losses.append([fooled.item(), loss.item()])
        epoch += 1
    for parameter, mean in zip(model.parameters(), average, strict=True):
        parameter.data = mean.float()
    return model, losses


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_a_training_is_two_adams_on_binary_cross_entropies(gamma: float, blobs: ImageSet) -> None:
    """1e-3: the two loops round differently in the last digit of float32, and Adam carries that on."""
    run = train(blobs, learning_rate=2e-3, gradient_penalty=gamma)
    expected, losses = plain_loop(blobs, steps=STEPS, batch=32, rate=2e-3, gamma=gamma, seed=2)
    ours = dict(run.model.named_parameters())
    for name, parameter in expected.named_parameters():
        torch.testing.assert_close(ours[name], parameter, rtol=5e-3, atol=2e-4)
    assert [record["step"] for record in run.history] == [10, 20, 25]
    for record, part in zip(run.history, (losses[:10], losses[10:20], losses[20:]), strict=True):
        means = torch.tensor(part).mean(dim=0).tolist()
        assert [record["generator_loss"], record["discriminator_loss"]] == pytest.approx(means, rel=1e-3)


def test_the_penalty_of_a_linear_judge_is_the_square_of_its_weights() -> None:
    weights = torch.randn(1, 2, 4, 4, generator=generator(1, "weights"))

    class Linear(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return (images * weights).sum(dim=(1, 2, 3))

    assert float(squared_gradient(Linear(), torch.rand(5, 2, 4, 4))) == pytest.approx(float((weights**2).sum()), rel=1e-5)


def test_batch_norm_is_measured_anew_after_averaging(blobs: ImageSet) -> None:
    """Planted: statistics that are far off. Afterwards the first layer's are those of the layer before it."""
    torch.manual_seed(0)
    model = GeneratorModel(SMALL, blobs.image_shape)
    norm = next(layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d))
    norm.running_mean.fill_(9)  # type: ignore[union-attr]
    norm.running_var.fill_(9)  # type: ignore[union-attr]
    renew_batch_statistics(model, seed=1)
    codes = torch.randn(20_000, 3, generator=generator(2, "other codes"))
    with torch.no_grad():
        features = model.network.head(codes).unflatten(1, (-1, 4, 4))  # type: ignore[operator, union-attr]
    torch.testing.assert_close(norm.running_mean, features.mean(dim=(0, 2, 3)), atol=0.03, rtol=0)
    torch.testing.assert_close(norm.running_var, features.var(dim=(0, 2, 3)), rtol=0.05, atol=0)
    assert norm.momentum == 0.1
    assert not model.training


def test_the_generator_learns_where_the_spots_are(blobs: ImageSet) -> None:
    """Its mean image and the spread of its samples approach the data's; an untrained one has neither."""
    run = train_gan(blobs, DCGAN(channels=16, latent=4), steps=600, batch_size=32, device="cpu", seed=1)
    with torch.no_grad():
        drawn = run.model.decode(run.model.sample_codes(500, generator(0, "look")))
    real = blobs.tensor()
    assert float((drawn.mean(dim=0) - real.mean(dim=0)).square().mean()) < 0.1 * float(real.mean(dim=0).square().mean())
    assert 0.7 < run.spread_ratio < 1.3
    assert run.warnings == []


def test_a_collapse_is_told_with_its_cure(blobs: ImageSet, caplog: pytest.LogCaptureFixture) -> None:
    """Two images, black and white: as far apart as can be, and one step teaches nothing."""
    far = ImageSet("far", torch.cat([torch.zeros_like(blobs.storage[:16]), torch.full_like(blobs.storage[:16], 255)]))
    run = train(far, steps=1, batch_size=8)
    assert run.spread_ratio < 0.5
    (warning,) = run.warnings
    assert "The generator has collapsed" in warning
    assert "--seed" in warning
    assert warning in caplog.text


def test_the_spread_is_one_for_a_generator_that_draws_the_data(blobs: ImageSet) -> None:
    class Echo(GeneratorModel):
        def decode(self, codes: Tensor) -> Tensor:
            return blobs.tensor()[(codes[:, 0].abs() * 1000).long() % len(blobs)]

    assert spread_ratio(Echo(SMALL, blobs.image_shape), blobs, seed=0) == pytest.approx(1, abs=0.1)
    flat = ImageSet("flat", torch.full_like(blobs.storage, 3))
    ratio = spread_ratio(Echo(SMALL, blobs.image_shape), flat, seed=0)
    assert ratio != ratio  # equal images have no spread to compare with


# Seeds, interruptions, artifacts


def test_the_same_seed_gives_the_same_weights(blobs: ImageSet, uninterrupted: TrainedGAN) -> None:
    torch.manual_seed(99)  # the caller's chance plays no part
    state = torch.get_rng_state()
    assert same(train(blobs), uninterrupted)
    assert torch.get_rng_state().equal(state)
    assert not same(train(blobs, seed=3), uninterrupted)


def cut(after: int) -> Progress:
    def progress(task: str, done: int, total: int | None, note: str = "") -> None:
        if done > after:
            raise PowerCut

    return progress


@pytest.mark.parametrize("after", [9, 14, 22])
def test_a_training_that_was_cut_off_goes_on_to_the_same_weights(
    after: int, blobs: ImageSet, uninterrupted: TrainedGAN, tmp_path: Path
) -> None:
    out = tmp_path / "g"
    with pytest.raises(PowerCut):
        train(blobs, out, cut(after))
    assert not out.exists()
    seen: list[int] = []
    resumed = train(blobs, out, lambda task, done, total, note="": seen.append(done))
    assert min(seen) > 10 * (after // 10)  # it went on, and did not begin again
    assert max(seen) == STEPS
    assert same(resumed, uninterrupted)
    assert resumed.history == uninterrupted.history
    assert GeneratorModel.from_pretrained(out).fingerprint == resumed.model.fingerprint
    assert [path.name for path in tmp_path.iterdir()] == ["g"]


def test_a_training_that_only_failed_to_write_is_not_trained_again(
    blobs: ImageSet, uninterrupted: TrainedGAN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*args: object, **kwargs: object) -> None:
        raise PowerCut

    with monkeypatch.context() as patch:
        patch.setattr(adversarial_runs, "publish", full_disk)
        with pytest.raises(PowerCut):
            train(blobs, tmp_path / "g")
    seen: list[int] = []
    resumed = train(blobs, tmp_path / "g", lambda task, done, total, note="": seen.append(done))
    assert seen == []
    assert same(resumed, uninterrupted)
    assert resumed.history == uninterrupted.history
    assert resumed.images_per_second == 0


@pytest.mark.parametrize(("after", "message"), [(12, "the same command goes on from step 10 of 25"), (0, "")])
def test_ctrl_c_says_what_was_kept(after: int, message: str, blobs: ImageSet, tmp_path: Path) -> None:
    def progress(task: str, done: int, total: int | None, note: str = "") -> None:
        if done > after:
            os.kill(os.getpid(), signal.SIGINT)

    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt) as ended:
            train(blobs, tmp_path / "g", progress)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, inherited)
    assert str(ended.value) == message
    assert [path.name for path in tmp_path.iterdir()] == ([".g.training"] if message else [])


@pytest.mark.parametrize("change", [{"seed": 3}, {"learning_rate": 1e-4}, {"steps": 26}, {"gradient_penalty": 0.5}])
def test_other_settings_do_not_go_on_with_it(change: dict[str, Any], blobs: ImageSet, tmp_path: Path) -> None:
    with pytest.raises(PowerCut):
        train(blobs, tmp_path / "g", cut(12))
    with pytest.raises(SettingError, match="unfinished training with other settings"):
        train(blobs, tmp_path / "g", **change)


def test_losses_lie_beside_the_model(
    blobs: ImageSet, read_scalars: Callable[[Path], dict[str, dict[int, float]]], tmp_path: Path
) -> None:
    run = train(blobs, tmp_path / "g")
    scalars = read_scalars(tmp_path / "g" / "run")
    for term in ("generator_loss", "discriminator_loss", "real_score", "fake_score"):
        assert scalars[term] == pytest.approx({record["step"]: record[term] for record in run.history}, rel=1e-5)
    with pytest.raises(OutputExistsError):
        train(blobs, tmp_path / "g")


def test_what_it_was_made_from_is_recorded(blobs: ImageSet, uninterrupted: TrainedGAN) -> None:
    record = uninterrupted.model.provenance
    assert record is not None
    assert (record.made_by, record.seed, dict(record.made_from)) == ("train_gan", 2, {"images": blobs.content_hash})
    assert record.settings["steps"] == STEPS
    assert record.settings["architecture"] == {"name": "dcgan", "channels": 4, "latent": 3}


def test_epochs_are_passes_over_the_images(blobs: ImageSet) -> None:
    run = train(blobs.slice(0, 70), steps=None, epochs=3)
    assert [record["step"] for record in run.history] == [2, 4, 6]


# What goes wrong


@pytest.mark.parametrize(
    "settings",
    [
        {"steps": 0},
        {"steps": None, "epochs": 0},
        {"epochs": 3},
        {"batch_size": 1},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"gradient_penalty": -1.0},
        {"gradient_penalty": float("nan")},
        {"half_life": 0},
    ],
    ids=str,
)
def test_settings_out_of_range_are_told_before_any_work(settings: dict[str, Any], blobs: ImageSet, tmp_path: Path) -> None:
    with pytest.raises(SettingError):
        train(blobs, tmp_path / "g", **settings)
    assert list(tmp_path.iterdir()) == []


def test_one_image_is_too_few(blobs: ImageSet) -> None:
    with pytest.raises(SettingError, match="at least 2 images"):
        train(blobs.slice(0, 1))


def test_images_and_names_that_no_architecture_serves(blobs: ImageSet) -> None:
    with pytest.raises(ImageFormatError, match="square"):
        train(ImageSet("wide", blobs.storage[:, :, :, :6]))
    with pytest.raises(UnknownNameError, match="Did you mean 'dcgan'"):
        train_gan(blobs, "dcgam")


class Breaking(DCGAN):
    """Its discriminator returns NaN from its fortieth call on: three are made in a step, the last by the generator."""

    def discriminator(self, image_shape: tuple[int, int, int]) -> nn.Module:
        judge, calls = super().discriminator(image_shape), iter(range(1000))
        judge.register_forward_hook(lambda module, given, logits: logits * (float("nan") if next(calls) >= 38 else 1))
        return judge


def test_a_loss_that_leaves_the_numbers_is_told_with_its_step(blobs: ImageSet) -> None:
    with pytest.raises(NonFiniteError, match=r"in step 13: generator_loss became nan. Lower the learning rate \(0.002\)"):
        train_gan(
            blobs,
            Breaking(channels=2, latent=3),
            steps=30,
            batch_size=32,
            device="cpu",
            learning_rate=2e-3,
            gradient_penalty=0.0,
        )


@pytest.mark.parametrize(("ratio", "told"), [(0.25, "50 %"), (0.04, "20 %"), (0.0, "0 %")])
def test_a_collapse_is_told_as_a_distance_and_not_as_its_square(ratio: float, told: str) -> None:
    (warning,) = adversarial_runs.collapse_warnings(ratio)
    assert f"its samples lie {told} as far from each other" in warning


@pytest.mark.parametrize("ratio", [0.5, 1.0, float("nan")])
def test_what_has_not_collapsed_is_not_said_to_have(ratio: float) -> None:
    assert adversarial_runs.collapse_warnings(ratio) == []
