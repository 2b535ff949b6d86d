"""Recoders: they invert a generator whose inverse is known, fit only their own, and go on after a cut to the same weights."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from latlas.base.artifacts import CONFIG
from latlas.base.errors import (
    ArtifactError,
    CapabilityError,
    IllPosedError,
    ImageFormatError,
    NonFiniteError,
    SettingError,
    UnknownNameError,
)
from latlas.base.progress import Progress, silent
from latlas.base.seeds import generator
from latlas.models.adapters.callables import CallableModel
from latlas.models.architectures.dcgan import DCGAN
from latlas.models.generator import GeneratorModel
from latlas.models.protocols import Autoencoder, require_autoencoder
from latlas.models.recoder import Recoder, RecoderSettings, with_recoder
from latlas.training.recoders import TrainedRecoder, held_out_errors, train_recoder
from latlas.training.streams import CachedStream, Stream

SMALL = RecoderSettings(channels=8, widest=16, hidden=32)
SHAPE = (1, 8, 8)


class Planted(nn.Module):
    """A generator whose images are a linear function of two of its three variables; the third draws nothing."""

    def __init__(self, *, name: str = "planted", shift: float = 3.0) -> None:
        super().__init__()
        self.name, self.image_shape, self.latent_shape, self.fingerprint = name, SHAPE, (3,), f"{name} {shift}"
        self.weight = nn.Parameter(0.05 * torch.randn(2, 64, generator=generator(5, "planted")))
        self.shift = shift

    def decode(self, codes: Tensor) -> Tensor:
        images: Tensor = 0.5 + (codes[:, :2] - self.shift) @ self.weight
        return images.clamp(0, 1).unflatten(1, SHAPE)

    def sample_codes(self, n: int, generator: torch.Generator) -> Tensor:
        """Not standard: mean 3, and deviations of 1, 2 and 1."""
        return self.shift + torch.randn(n, 3, generator=generator) * torch.tensor([1.0, 2.0, 1.0])


def train(drawn_from: Any, out: Path | None = None, progress: Progress = silent, **settings: Any) -> TrainedRecoder:
    fixed: dict[str, Any] = {"steps": 230, "batch_size": 16, "settings": SMALL, "device": "cpu", "seed": 4}
    return train_recoder(drawn_from, out=out, progress=progress, **{**fixed, **settings})


def same(first: TrainedRecoder, second: TrainedRecoder) -> bool:
    others = second.recoder.state_dict()
    return all(tensor.equal(others[name]) for name, tensor in first.recoder.state_dict().items())


class PowerCut(Exception):
    """The machine went away."""


def cut(after: int) -> Progress:
    def progress(task: str, done: int, total: int | None, note: str = "") -> None:
        if done > after:
            raise PowerCut

    return progress


@pytest.fixture(scope="module")
def uninterrupted() -> TrainedRecoder:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    run = train(Planted())
    torch.set_num_threads(threads)
    return run


# What it learns


def test_the_code_loss_finds_what_can_be_seen_and_the_mean_of_what_cannot() -> None:
    """The best code for a variable that draws nothing is its mean, 3, at the cost of its variance, 1."""
    planted = Planted()
    run = train(planted, steps=1500, batch_size=32)
    codes = planted.sample_codes(400, generator(9, "fresh"))
    with torch.no_grad():
        found = run.recoder.encode(planted.decode(codes)).mean
    errors = (found - codes).square().mean(dim=0).tolist()
    assert errors[0] < 0.1
    assert errors[1] < 0.2  # of a variance of 4
    assert errors[2] == pytest.approx(1, abs=0.25)
    assert float(found[:, 2].mean()) == pytest.approx(3, abs=0.2)
    assert run.code_error == pytest.approx(sum(errors) / 3, rel=0.3)
    assert run.code_variance == pytest.approx((1 + 4 + 1) / 3, rel=0.15)
    assert run.image_error < 0.1 * run.image_variance


def test_the_image_loss_brings_images_back_and_leaves_free_what_draws_nothing() -> None:
    planted = Planted()
    run = train(planted, loss="image", steps=1000, batch_size=32)
    assert run.image_error < 0.1 * run.image_variance
    assert run.history[-1]["image_error"] < 0.1 * run.image_variance
    both = train(planted, loss="both", steps=1000, batch_size=32)
    assert both.image_error < 0.1 * both.image_variance
    assert both.code_error < run.code_error


def test_the_generator_is_left_as_it_was() -> None:
    planted = Planted()
    before = planted.weight.detach().clone()
    train(planted, loss="both", steps=3)
    assert planted.weight.equal(before)
    assert planted.weight.requires_grad
    assert planted.weight.grad is None
    planted.train()
    with pytest.raises(PowerCut):
        train(planted, loss="both", progress=cut(0))
    assert planted.weight.requires_grad
    assert planted.training


def test_batch_norm_of_the_generator_learns_nothing_from_being_inverted() -> None:
    torch.manual_seed(0)
    model = GeneratorModel(DCGAN(channels=2, latent=3), SHAPE).train()
    before = model.fingerprint
    train(model, loss="both", steps=3)
    assert model.fingerprint == before
    assert model.network.training


def test_the_first_answer_is_the_mean_code() -> None:
    """Which costs the variance of the codes: 1, 4 and 1."""
    run = train(Planted(), steps=1, batch_size=4000, loss="both")
    assert run.history[0]["code_error"] == pytest.approx(2, rel=0.05)


def test_held_out_errors_are_those_of_a_plain_loop() -> None:
    planted = Planted()
    recoder = Recoder(planted, SMALL)
    nn.init.normal_(recoder.head[-1].weight)  # else it answers with the mean, whatever the image
    answer = held_out_errors(planted, recoder, seed=1, count=100)
    codes = planted.sample_codes(100, generator(1, "held out")).detach()
    with torch.no_grad():
        images = planted.decode(codes)
        code = torch.cat([recoder.encode(image[None]).mean for image in images])
        again = planted.decode(code)
    assert answer["code_error"] == pytest.approx(float(nn.functional.mse_loss(code, codes)), rel=1e-4)
    assert answer["image_error"] == pytest.approx(float(nn.functional.mse_loss(again, images)), rel=1e-4)
    assert answer["image_variance"] == pytest.approx(float(images.flatten(1).var(dim=0).mean()), rel=1e-4)


def test_no_step_sees_what_another_saw_and_each_can_be_drawn_again() -> None:
    planted = Planted()
    stream = Stream(planted, batch_size=8, seed=3)  # type: ignore[arg-type]
    codes = [stream.codes(step) for step in range(50)]
    assert len({tuple(row.tolist()) for batch in codes for row in batch}) == 400
    again = Stream(planted, batch_size=8, seed=3)  # type: ignore[arg-type]
    assert again.codes(7).equal(codes[7])
    drawn, images = stream.batch(7)
    assert images.equal(planted.decode(drawn).detach())


# Artifacts


def test_recoder_and_generator_make_an_autoencoder(uninterrupted: TrainedRecoder) -> None:
    planted = Planted()
    both = with_recoder(planted, uninterrupted.recoder)  # type: ignore[arg-type]
    assert isinstance(both, Autoencoder)
    require_autoencoder(both, "A test")
    images = planted.decode(planted.sample_codes(5, generator(0, "x"))).detach()
    assert both.encode(images).mean.equal(uninterrupted.recoder.encode(images).mean)
    assert both.encode(images).log_variance is None
    codes = planted.sample_codes(2, generator(1, "x"))
    assert both.decode(codes).equal(planted.decode(codes))
    assert both.sample_codes(2, generator(1, "x")).equal(codes)
    assert both.fingerprint not in (planted.fingerprint, uninterrupted.recoder.fingerprint)


def test_another_generator_is_refused(uninterrupted: TrainedRecoder) -> None:
    with pytest.raises(CapabilityError, match="codes the images of planted, with other weights than other has"):
        with_recoder(Planted(name="other"), uninterrupted.recoder)  # type: ignore[arg-type]


def test_what_is_read_back_is_the_same_recoder(uninterrupted: TrainedRecoder, tmp_path: Path) -> None:
    uninterrupted.recoder.save_pretrained(tmp_path / "r")
    again = Recoder.from_pretrained(tmp_path / "r")
    images = torch.rand(3, *SHAPE, generator=generator(2, "x"))
    assert again.encode(images).mean.equal(uninterrupted.recoder.encode(images).mean)
    again.check_fits(Planted())
    assert (again.fingerprint, again.name) == (uninterrupted.recoder.fingerprint, "recoder of planted")
    assert again.provenance == uninterrupted.recoder.provenance
    assert again.provenance is not None
    assert again.provenance.made_from == {"generator": Planted().fingerprint}


@pytest.mark.parametrize("change", [{"network": {"channels": 9}}, {"network": {"depth": 1}}, {"generator": {}}])
def test_a_config_that_does_not_fit_is_one_error(change: dict[str, Any], uninterrupted: TrainedRecoder, tmp_path: Path) -> None:
    uninterrupted.recoder.save_pretrained(tmp_path / "r")
    record = json.loads((tmp_path / "r" / CONFIG).read_text())
    record["settings"] |= change
    record.pop("checksum", None)  # as a stranger would
    (tmp_path / "r" / CONFIG).write_text(json.dumps(record))
    with pytest.raises(ArtifactError, match="not a recoder that this latlas can rebuild"):
        Recoder.from_pretrained(tmp_path / "r")


def test_other_images_are_refused(uninterrupted: TrainedRecoder) -> None:
    with pytest.raises(ImageFormatError, match="takes images of 1x8x8"):
        uninterrupted.recoder.encode(torch.zeros(1, 1, 8, 9))


def test_spatial_codes_keep_their_shape() -> None:
    spatial = CallableModel(
        name="spatial",
        image_shape=(1, 12, 12),
        latent_shape=(2, 3, 3),
        decode_with=lambda codes: nn.functional.interpolate(codes.sum(dim=1, keepdim=True), (12, 12)).sigmoid(),
        fingerprint="1",
    )
    run = train(spatial, steps=3)
    assert tuple(run.recoder.encode(torch.rand(4, 1, 12, 12)).mean.shape) == (4, 2, 3, 3)


# Seeds and interruptions


@pytest.mark.parametrize("after", [99, 150, 215])
def test_a_training_that_was_cut_off_goes_on_to_the_same_weights(
    after: int, uninterrupted: TrainedRecoder, tmp_path: Path
) -> None:
    with pytest.raises(PowerCut):
        train(Planted(), tmp_path / "r", cut(after))
    seen: list[int] = []
    resumed = train(Planted(), tmp_path / "r", lambda task, done, total, note="": seen.append(done))
    assert min(seen) > 100 * (after // 100)
    assert max(seen) == 230
    assert same(resumed, uninterrupted)
    assert resumed.history == uninterrupted.history
    assert [path.name for path in tmp_path.iterdir()] == ["r"]


def test_a_checkpoint_holds_no_weights_of_the_generator(tmp_path: Path) -> None:
    with pytest.raises(PowerCut):
        train(Planted(), tmp_path / "r", cut(150))
    kept = torch.load(tmp_path / ".r.training" / "last.ckpt", weights_only=True)
    assert {name.split(".")[0] for name in kept["state_dict"]} == {"recoder"}


def test_the_same_seed_gives_the_same_weights(uninterrupted: TrainedRecoder) -> None:
    torch.manual_seed(99)
    state = torch.get_rng_state()
    assert same(train(Planted()), uninterrupted)
    assert torch.get_rng_state().equal(state)
    assert not same(train(Planted(), seed=5), uninterrupted)


@pytest.mark.parametrize("change", [{"loss": "image"}, {"steps": 231}, {"seed": 5}])
def test_other_settings_do_not_go_on_with_it(change: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(PowerCut):
        train(Planted(), tmp_path / "r", cut(150))
    with pytest.raises(SettingError, match="unfinished training with other settings"):
        train(Planted(), tmp_path / "r", **change)


# The cache


def cached(folder: Path, planted: Planted, **settings: Any) -> CachedStream:
    return CachedStream(planted, **{"batch_size": 8, "seed": 3, "folder": folder, "images": 40, **settings})  # type: ignore[arg-type]


def test_a_cache_draws_each_image_once_and_gives_pairs(tmp_path: Path) -> None:
    planted = Planted()
    drawn: list[int] = []
    decode = planted.decode
    planted.decode = lambda codes: (drawn.append(len(codes)), decode(codes))[1]  # type: ignore[func-returns-value, method-assign]
    stream = cached(tmp_path / "s", planted)
    first = [stream.batch(step) for step in range(12)]
    assert sum(drawn) == 40
    again = [cached(tmp_path / "s", planted).batch(step) for step in range(12)]
    assert sum(drawn) == 40
    for (codes, images), (codes_again, images_again) in zip(first, again, strict=True):
        assert codes.equal(codes_again)
        assert images.equal(images_again)
        assert float((images - decode(codes).detach()).abs().max()) <= 0.5 / 255 + 1e-6
    known = {tuple(row.tolist()) for codes, _ in first[:5] for row in codes}
    assert len(known) == 40
    assert all(tuple(row.tolist()) in known for codes, _ in first[5:] for row in codes)
    size = sum(path.stat().st_size for path in (tmp_path / "s").iterdir())
    assert size < 40 * (64 + 3 * 2) + 2000


def test_a_cache_that_was_cut_off_goes_on(tmp_path: Path) -> None:
    whole = [cached(tmp_path / "a", Planted()).batch(step) for step in range(8)]
    cached(tmp_path / "b", Planted()).batch(0)
    # The folder lacks batches 1 to 4 when the training is already beyond them.
    codes, images = cached(tmp_path / "b", Planted()).batch(7)
    assert codes.equal(whole[7][0])
    assert images.equal(whole[7][1])


@pytest.mark.parametrize("change", [{"seed": 4}, {"batch_size": 4}, {"images": 80}])
def test_the_cache_of_another_stream_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    cached(tmp_path / "s", Planted())
    with pytest.raises(SettingError, match="the stream of another generator, seed, batch size or number"):
        cached(tmp_path / "s", Planted(), **change)
    with pytest.raises(SettingError, match="the stream of another generator"):
        cached(tmp_path / "s", Planted(name="other"))


def test_bad_caches_are_told(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="must hold a batch of 8"):
        cached(tmp_path / "s", Planted(), images=7)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(SettingError, match="something else than a stream"):
        cached(tmp_path / "full", Planted())
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="Could not keep a stream"):
        cached(tmp_path / "file", Planted())
    cached(tmp_path / "s", Planted())
    (tmp_path / "s" / "images.npy").write_bytes(b"no array")
    with pytest.raises(ArtifactError, match="Could not keep a stream"):
        cached(tmp_path / "s", Planted())


def test_a_training_from_a_cache_learns_too(tmp_path: Path) -> None:
    run = train(Planted(), cache=tmp_path / "s", cache_images=1600, steps=800)
    assert run.image_error < 0.2 * run.image_variance
    assert run.recoder.provenance is not None
    assert run.recoder.provenance.settings["cache_images"] == 1600


# What goes wrong


def callable_generator(**changes: Any) -> CallableModel:
    fields: dict[str, Any] = {"name": "bad", "image_shape": SHAPE, "latent_shape": (64,), "fingerprint": "1"}
    return CallableModel(**{**fields, **changes})


BAD = {
    "NaN": (lambda codes: codes.unflatten(1, SHAPE) * float("nan"), NonFiniteError, "draws NaN or infinity"),
    "range": (lambda codes: codes.unflatten(1, SHAPE).tanh(), ImageFormatError, "Rescale what its decode returns"),
    "constant": (
        lambda codes: torch.full((len(codes), *SHAPE), 0.5),
        IllPosedError,
        "one and the same image whatever the code",
    ),
    "shape": (lambda codes: codes[:, :36].unflatten(1, (1, 6, 6)).sigmoid(), ImageFormatError, "1x8x8, and draws 1x6x6"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_generator_that_one_cannot_learn_from_is_refused(case: str) -> None:
    decode, error, words = BAD[case]
    with pytest.raises(error, match=words):
        train(callable_generator(decode_with=decode))


def test_a_generator_without_gradient_is_refused_for_image_losses_alone() -> None:
    rounded = callable_generator(decode_with=lambda codes: codes.detach().unflatten(1, SHAPE).sigmoid())
    train(rounded, steps=2)
    for loss in ("image", "both"):
        with pytest.raises(SettingError, match="has no gradient"):
            train(rounded, loss=loss, steps=2)


@pytest.mark.parametrize(
    "settings", [{"steps": 0}, {"batch_size": 1}, {"learning_rate": -1.0}, {"learning_rate": float("nan")}], ids=str
)
def test_settings_out_of_range_are_told_before_any_work(settings: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(SettingError):
        train(Planted(), tmp_path / "r", **settings)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_loss_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'image'"):
        train(Planted(), loss="images")


def test_images_too_small_to_halve_are_refused() -> None:
    small = callable_generator(
        image_shape=(1, 4, 4), latent_shape=(16,), decode_with=lambda codes: codes.unflatten(1, (1, 4, 4)).sigmoid()
    )
    with pytest.raises(ImageFormatError, match="8 x 8 at least"):
        train(small)


def test_a_dcgan_is_recoded_through_its_artifact(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = GeneratorModel(DCGAN(channels=2, latent=3), SHAPE)
    run = train(model, tmp_path / "r", steps=5)
    model.save_pretrained(tmp_path / "g")
    again = with_recoder(GeneratorModel.from_pretrained(tmp_path / "g"), Recoder.from_pretrained(tmp_path / "r"))
    assert again.recoder.fingerprint == run.recoder.fingerprint
    history = json.loads((tmp_path / "r" / "run" / "history.json").read_text())
    assert history[-1]["held_out"]["code_error"] == pytest.approx(run.code_error)
