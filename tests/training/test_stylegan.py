"""StyleGAN2's training: styles are mixed as told, path lengths are those of the derivative, a cut training goes on."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from latlas.base.errors import ImageFormatError, NonFiniteError, OutputExistsError, SettingError
from latlas.base.progress import Progress, silent
from latlas.base.seeds import generator
from latlas.data.images import ImageSet
from latlas.models.architectures.stylegan2 import StyleGAN2, StyleGAN2Generator
from latlas.models.generator import GeneratorModel
from latlas.training.adversarial_runs import TrainedGAN
from latlas.training.stylegan_runs import StyleGANTraining, StyleSchedule, measure_mean_style, path_lengths, train_stylegan2

SMALL = StyleGAN2(latent=4, style=4, layers=2, channel_base=64, channel_max=8)
STEPS = 25  # of batches of 32: ten in a pass over 320 images, so that the last pass is cut off half-way


class PowerCut(Exception):
    """The machine went away."""


def train(images: ImageSet, out: Path | None = None, progress: Progress = silent, **settings: Any) -> TrainedGAN:
    fixed: dict[str, Any] = {"steps": STEPS, "batch_size": 32, "device": "cpu", "seed": 2, "path_penalty": 2.0}
    return train_stylegan2(images, SMALL, out=out, progress=progress, **{**fixed, **settings})


def same(first: TrainedGAN, second: TrainedGAN) -> bool:
    others = second.model.state_dict()
    return all(tensor.equal(others[name]) for name, tensor in first.model.state_dict().items())


@pytest.fixture(scope="module")
def uninterrupted(blobs: ImageSet) -> TrainedGAN:
    return train(blobs)


def training(images: ImageSet, **settings: Any) -> StyleGANTraining:
    schedule = StyleSchedule(
        steps=1,
        batch_size=8,
        learning_rate=1e-3,
        seed=1,
        gradient_penalty=1.0,
        half_life=100,
        **{"mixing": 0.9, "path_penalty": 0.0, **settings},
    )
    torch.manual_seed(0)
    model = GeneratorModel(SMALL, images.image_shape)
    return StyleGANTraining(model, SMALL.discriminator(images.image_shape), images, schedule, channels_last=False)


@pytest.mark.parametrize("mixing", [0.0, 0.5, 1.0])
def test_styles_are_mixed_as_often_as_told_and_at_one_layer(mixing: float, blobs: ImageSet) -> None:
    module = training(blobs, mixing=mixing)
    module.noise.manual_seed(4)
    with torch.no_grad():
        layers = module.mixed_styles(2000)
    changes = (layers[:, 1:] != layers[:, :-1]).any(dim=2)
    assert int(changes.sum(dim=1).max()) <= 1
    assert float(changes.any(dim=1).float().mean()) == pytest.approx(mixing, abs=0.04)
    if mixing:
        where = changes.float().sum(dim=0) / changes.sum()
        torch.testing.assert_close(where, torch.full((3,), 1 / 3), rtol=0, atol=0.05)


def test_path_lengths_are_those_of_the_derivative() -> None:
    """Their mean square over directions is the squared Frobenius norm of the derivative, over pixels of a side and layers."""
    torch.manual_seed(0)
    network = StyleGAN2(latent=4, style=4, layers=2, channel_base=64, channel_max=8, noisy=False).generator((1, 8, 8))
    assert isinstance(network, StyleGAN2Generator)
    codes = torch.randn(1, 4, 4)
    jacobian: Tensor = torch.autograd.functional.jacobian(network.synthesis, codes)  # type: ignore[no-untyped-call]
    expected = float(jacobian.square().sum()) / 64 / 4
    many = codes.expand(4000, -1, -1).clone().requires_grad_(True)
    lengths = path_lengths(network, many, generator(1, "directions"))
    assert float(lengths.square().mean()) == pytest.approx(expected, rel=0.1)


def test_the_path_penalty_evens_lengths_out(blobs: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its steps alone, without an opponent: lengths come to differ less from each other."""
    module = training(blobs, path_penalty=2.0)
    adam = torch.optim.Adam(module.model.parameters(), lr=2.5e-3, betas=(0.0, 0.99))
    monkeypatch.setattr(module, "_optimizers", lambda: (adam, None))
    monkeypatch.setattr(module, "manual_backward", lambda loss: loss.backward())
    codes = torch.randn(200, 4, generator=generator(0, "codes"))

    def spread() -> float:
        with torch.no_grad():
            styles = module.network.spread(module.network.styles(codes)).contiguous()
        lengths = path_lengths(module.network, styles.requires_grad_(True), generator(0, "noise")).detach()
        return float(lengths.std() / lengths.mean())

    before = spread()
    for _ in range(60):
        module._straighten(16)
    after = spread()
    assert after < 0.9 * before, (before, after)


def test_the_mean_style_is_the_mean_over_codes(uninterrupted: TrainedGAN) -> None:
    network = uninterrupted.model.network
    assert isinstance(network, StyleGAN2Generator)
    with torch.no_grad():
        styles = network.styles(torch.randn(20_000, 4, generator=generator(9, "others")))
    torch.testing.assert_close(network.mapping.w_avg, styles.mean(dim=0), rtol=0, atol=0.05)
    before = network.mapping.w_avg.clone()
    network.mapping.w_avg.zero_()
    measure_mean_style(network, seed=2)
    assert network.mapping.w_avg.equal(before)


def test_the_same_seed_gives_the_same_weights_and_another_others(blobs: ImageSet, uninterrupted: TrainedGAN) -> None:
    assert same(train(blobs), uninterrupted)
    assert not same(train(blobs, seed=3), uninterrupted)
    assert [record["step"] for record in uninterrupted.history] == [10, 20, 25]


def test_a_training_that_was_cut_off_ends_with_the_same_weights(
    blobs: ImageSet, uninterrupted: TrainedGAN, tmp_path: Path
) -> None:
    """Cut in the second pass: it goes on from the end of the first, with its optimisers and its mean path length."""

    def cut(task: str, done: int, total: int, note: str) -> None:
        if done >= 15:
            raise PowerCut

    with pytest.raises(PowerCut):
        train(blobs, tmp_path / "gan", cut)
    assert not (tmp_path / "gan").exists()
    resumed = train(blobs, tmp_path / "gan")
    assert same(resumed, uninterrupted)
    assert resumed.history == uninterrupted.history
    saved = GeneratorModel.from_pretrained(tmp_path / "gan")
    assert saved.fingerprint == uninterrupted.model.fingerprint
    assert saved.architecture == SMALL
    with pytest.raises(OutputExistsError):
        train(blobs, tmp_path / "gan")


def test_the_generator_learns_where_the_spots_are(blobs: ImageSet) -> None:
    """Its mean image and the spread of its samples approach the data's; an untrained one has neither."""
    run = train(blobs, steps=400, batch_size=16, path_penalty=0.0)
    with torch.no_grad():
        drawn = run.model.decode(run.model.sample_codes(500, generator(0, "look")))
    real = blobs.tensor()
    scale = float((real.mean(dim=0) - real.mean()).square().mean())
    assert float((drawn.mean(dim=0) - real.mean(dim=0)).square().mean()) < 0.5 * scale  # of a flat image: 1
    assert 0.6 < run.spread_ratio < 1.4
    assert run.warnings == []


@pytest.mark.parametrize(
    "settings", [{"mixing": 1.5}, {"mixing": float("nan")}, {"path_penalty": -1.0}, {"steps": 0}, {"batch_size": 1}]
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], blobs: ImageSet) -> None:
    with pytest.raises(SettingError):
        train(blobs, **settings)


def test_what_cannot_be_trained_is_told(blobs: ImageSet) -> None:
    with pytest.raises(SettingError, match="Training knows no classes"):
        train_stylegan2(blobs, StyleGAN2(classes=3))
    odd = ImageSet("odd", torch.zeros(4, 1, 12, 12, dtype=torch.uint8))
    with pytest.raises(ImageFormatError, match="power of two"):
        train_stylegan2(odd, SMALL)


def test_a_loss_that_leaves_the_numbers_is_told(blobs: ImageSet) -> None:
    with pytest.raises(NonFiniteError, match="Lower the learning rate"):
        train(blobs, gradient_penalty=1e38, steps=10)
