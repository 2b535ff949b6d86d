"""Noise on one variable: what the decoder sees, when the noise grows, stays and goes, and that the model is left alone."""

from dataclasses import replace

import pytest
import torch
from scipy import stats
from torch import Tensor

from latlas.base.errors import CapabilityError, ImageFormatError, SettingError
from latlas.data.images import ImageSet
from latlas.models.adapters.callables import CallableModel
from latlas.models.architectures.dense import Dense
from latlas.models.architectures.draw import Draw
from latlas.models.architectures.resnet import ResNet
from latlas.models.vae import VAE
from latlas.training.module import Schedule
from latlas.training.noise_injection import (
    NoiseEpoch,
    NoisePlan,
    NoiseTraining,
    PerturbedVAE,
    Phase,
    inject_noise,
    next_phase,
)
from latlas.training.objectives import BALANCES, Objective

SHAPE = (1, 4, 4)
OBJECTIVE = Objective(balance="fixed", likelihood="bernoulli")
# Gain, KL and variance of means after each epoch: they grow, cross in the third epoch, and have collapsed after the fifth.
STATES = [
    (4.0, 2.0, 1.0),
    (3.0, 2.5, 1.5),
    (2.0, 2.1, 1.6),
    (1.0, 0.9, 0.5),
    (0.1, 0.05, 0.009),
    (0.0, 0.0, 0.0),
    (1.0, 1.0, 1.0),
]
PLAN = NoisePlan(increment=0.5, growing=3, held=2, removed=2, batch_size=16)


def vae(latent: int = 4, seed: int = 0) -> VAE:
    """Untrained, with large weights: every variable is in use."""
    torch.manual_seed(seed)
    model = VAE(Dense(widths=(8,), latent=latent), SHAPE, name="small")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.0)
    return model


@pytest.fixture
def images(generator: torch.Generator) -> ImageSet:
    return ImageSet("noise", torch.rand(96, *SHAPE, generator=generator))


def epoch(
    number: int, phase: Phase, *, gain: float = 5.0, kl: float = 2.0, variance: float = 1.0, deviation: float = 0.0
) -> NoiseEpoch:
    """One variable's planted state."""
    return NoiseEpoch(
        epoch=number,
        phase=phase,
        deviation=deviation,
        reconstruction_nats=100.0,
        variance_of_means=(variance,),
        mean_posterior_variance=(0.1,),
        kl_nats=(kl,),
        gain_nats=(gain,),
    )


def test_without_noise_and_held_variables_it_is_the_model_itself(images: ImageSet, generator: torch.Generator) -> None:
    model = vae()
    same = PerturbedVAE(model)
    noise = torch.randn(96, 4, generator=generator)
    posterior, codes = model.infer(images.tensor(), noise)
    copied, copies = same.infer(images.tensor(), noise)
    assert copied.mean.equal(posterior.mean)
    torch.testing.assert_close(copies, codes)


def test_a_sample_under_noise_is_normal_with_the_sum_of_both_variances(generator: torch.Generator) -> None:
    perturbed = PerturbedVAE(vae())
    perturbed.perturb(1, 0.7)
    image = torch.rand(1, *SHAPE, generator=generator).expand(4000, -1, -1, -1)
    posterior, codes = perturbed.infer(image, torch.randn(4000, 4, generator=generator))
    assert posterior.log_variance is not None
    variances = posterior.log_variance[0].exp().double()
    wanted = variances + torch.tensor([0.0, 0.49, 0.0, 0.0]).double()
    for variable in range(4):
        found = (codes[:, variable] - posterior.mean[0, variable]) / wanted[variable].sqrt()
        assert stats.kstest(found.detach().double().numpy(), "norm").pvalue > 1e-3
    assert posterior.log_variance.equal(PerturbedVAE(vae()).encode(image).log_variance)  # what the KL sees knows no noise


def test_noise_is_on_one_variable_at_a_time(generator: torch.Generator) -> None:
    perturbed = PerturbedVAE(vae())
    perturbed.perturb(1, 0.7)
    perturbed.perturb(2, 0.3)
    assert perturbed.noise_variance.tolist() == pytest.approx([0.0, 0.0, 0.09, 0.0])


def test_no_image_reaches_the_decoder_through_a_held_variable(images: ImageSet, generator: torch.Generator) -> None:
    perturbed = PerturbedVAE(vae(), frozen=(0, 3))
    noise = torch.randn(96, 4, generator=generator)
    posterior, codes = perturbed.infer(images.tensor(), noise)
    assert posterior.log_variance is not None
    assert codes[:, [0, 3]].equal(noise[:, [0, 3]])  # the prior's own sample
    assert not bool(posterior.mean[:, [0, 3]].any())
    assert not bool(posterior.log_variance[:, [0, 3]].any())
    codes[:, 0].sum().backward()
    assert all(p.grad is None or not bool(p.grad.any()) for p in perturbed.encoder.parameters())


def test_noise_grows_by_the_increment_until_the_gain_is_below_the_kl_and_goes_after_the_collapse() -> None:
    plan = replace(PLAN, growing=9, held=9, removed=2)
    told = [epoch(0, "start")]
    for gain, kl, variance in STATES:
        ahead = next_phase(told, 0, plan)
        assert ahead is not None
        told.append(epoch(len(told), ahead[0], gain=gain, kl=kl, variance=variance, deviation=ahead[1]))
    phases = ["start", "growing", "growing", "growing", "held", "held", "removed", "removed"]
    assert [each.phase for each in told] == phases
    assert [each.deviation for each in told] == pytest.approx([0, 0.5, 1.0, 1.5, 1.5, 1.5, 0, 0])
    assert next_phase(told, 0, plan) is None


def test_noise_that_is_to_settle_stays_for_so_many_epochs_after_the_collapse() -> None:
    plan = replace(PLAN, growing=9, held=2, settled=3, removed=1)
    told = [
        epoch(0, "start"),
        epoch(1, "growing", gain=1.0, kl=2.0, deviation=0.5),
        epoch(2, "held", variance=0.5, deviation=0.5),
    ]
    told.append(epoch(3, "held", variance=0.001, deviation=0.5))  # the collapse
    for _ in range(3):
        ahead = next_phase(told, 0, plan)
        assert ahead == ("held", 0.5)
        told.append(epoch(len(told), "held", variance=0.02, deviation=0.5))  # wherever it wanders meanwhile
    assert next_phase(told, 0, plan) == ("removed", 0.0)
    assert plan.epochs == 9 + 2 + 3 + 1


def test_noise_that_changes_nothing_ends_all_the_same() -> None:
    told = [epoch(0, "start")]
    while (ahead := next_phase(told, 0, PLAN)) is not None:
        told.append(epoch(len(told), ahead[0], deviation=ahead[1]))
    assert [each.phase for each in told[1:]] == ["growing"] * 3 + ["removed"] * 2
    told = [epoch(0, "start")]
    while (ahead := next_phase(told, 0, PLAN)) is not None:  # it crosses, and never collapses
        told.append(epoch(len(told), ahead[0], gain=1.0, deviation=ahead[1]))
    assert [each.phase for each in told[1:]] == ["growing"] + ["held"] * 2 + ["removed"] * 2


def test_a_gain_below_the_kl_before_the_noise_is_no_crossing() -> None:
    assert next_phase([epoch(0, "start", gain=0.5)], 0, PLAN) == ("growing", 0.5)


def test_a_course_leaves_the_model_alone_holds_what_it_shall_and_comes_out_the_same_again(images: ImageSet) -> None:
    model = vae()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    course = inject_noise(model, images, 1, frozen=(3,), objective=OBJECTIVE, plan=PLAN, device="cpu")
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    assert course.frozen == (3,)
    assert [each.epoch for each in course.epochs] == list(range(len(course.epochs)))
    assert course.epochs[0].phase == "start"
    assert course.epochs[-1].phase == "removed"
    assert len(course.epochs) <= 1 + PLAN.epochs
    for each in course.epochs:
        assert (each.variance_of_means[3], each.mean_posterior_variance[3], each.kl_nats[3]) == (0.0, 1.0, 0.0)
    assert course.epochs[-1].variance_of_means[0] != course.epochs[0].variance_of_means[0]  # it trains
    assert inject_noise(model, images, 1, frozen=(3,), objective=OBJECTIVE, plan=PLAN, device="cpu") == course


def test_the_gain_is_what_the_likelihood_loses_when_the_variable_is_0(images: ImageSet) -> None:
    model = vae()
    seen: list[Tensor] = []
    decode = VAE.decode_logits

    def spy(self: VAE, codes: Tensor) -> Tensor:
        seen.append(codes.detach().clone())
        return decode(self, codes)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VAE, "decode_logits", spy)
        course = inject_noise(
            model, images, 2, frozen=(), objective=OBJECTIVE, plan=replace(PLAN, growing=1, removed=1), device="cpu"
        )
    samples = seen[0]  # before any training
    silenced = samples.clone()
    silenced[:, 2] = 0
    target = images.tensor()

    def nats(codes: Tensor) -> float:
        with torch.no_grad():
            chance = model.decode(codes).double()
        return float(-(target * chance.log() + (1 - target) * (1 - chance).log()).sum() / len(target))

    assert course.epochs[0].reconstruction_nats == pytest.approx(nats(samples), rel=1e-5)
    assert course.epochs[0].gain_nats[2] == pytest.approx(nats(silenced) - nats(samples), rel=1e-3)


def test_measuring_teaches_neither_batch_norm_nor_the_balance(generator: torch.Generator) -> None:
    """Both learn from whatever passes in training mode, in which an epoch ends."""
    images = ImageSet("noise", torch.rand(24, 1, 8, 8, generator=generator))
    model = PerturbedVAE(VAE(ResNet(scales=2, base_dim=4, fc_dim=8, latent=2), (1, 8, 8)))
    schedule = Schedule(epochs=1, batch_size=8, learning_rate=1e-3, seed=0)
    training = NoiseTraining(model, images, Objective(), schedule, variable=0, plan=PLAN, measured=images).train()
    before = {name: value.clone() for name, value in training.state_dict().items()}
    training.measure()
    assert training.training
    assert all(value.equal(before[name]) for name, value in training.state_dict().items())


@pytest.mark.parametrize("balance", BALANCES)
def test_training_goes_on_where_it_was_left_whatever_the_balance_rule_had_learnt(
    balance: str, generator: torch.Generator
) -> None:
    """Next to no noise: what moves now is moved by a rule that starts over."""
    factors = torch.rand(512, 2, generator=generator) - 0.5
    directions = torch.linalg.qr(torch.randn(16, 2, generator=generator))[0].T
    plain = 0.5 + factors @ directions + 0.02 * torch.randn(512, 16, generator=generator)
    images = ImageSet("plane", plain.clamp(0, 1).reshape(-1, *SHAPE))
    objective = Objective(
        balance=balance,
        sigma=0.05 if balance in ("fixed", "warm-up", "free-bits") else None,
        warm_up_steps=300 if balance == "warm-up" else None,
    )
    torch.manual_seed(0)
    model = VAE(Dense(widths=(16,), latent=2), SHAPE)
    rule = objective.build()
    descent = torch.optim.Adam([*model.parameters(), *rule.parameters()], lr=1e-2)
    steps = 700
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(descent, steps)
    for _ in range(steps):
        rows = torch.randint(512, (64,), generator=generator)
        posterior, logits = model.reconstruct_logits(images.tensor()[rows], torch.randn(64, 2, generator=generator))
        descent.zero_grad()
        rule(logits, images.tensor()[rows], posterior).loss.backward()
        descent.step()
        rate.step()
    used = int(model.encode(images.tensor()).mean.var(dim=0).argmax())
    plan = NoisePlan(increment=1e-6, growing=1, removed=1, batch_size=16)
    course = inject_noise(model, images, used, frozen=(), objective=objective, plan=plan, device="cpu")
    start, after = (sum(each.kl_nats) for each in course.epochs[:2])
    assert after == pytest.approx(start, rel=0.2)


def test_what_cannot_be_made_noisy_is_refused_with_a_word_of_what_to_do(images: ImageSet) -> None:
    model = vae()
    with torch.no_grad():
        model.encoder.get_submodule("head").get_parameter("weight")[2] = 0.0  # its mean is one number for all images
    with pytest.raises(SettingError, match=r"Variable 2 .* collapsed already.*Active: 0, 1, 3"):
        inject_noise(model, images, 2, objective=OBJECTIVE)
    with pytest.raises(SettingError, match="is to be held"):
        inject_noise(model, images, 1, frozen=(1,), objective=OBJECTIVE)
    with pytest.raises(SettingError, match="0 to 3, and 9"):
        inject_noise(model, images, 9, objective=OBJECTIVE)
    with pytest.raises(SettingError, match="0 to 3, and -1"):
        inject_noise(model, images, 0, frozen=(-1,), objective=OBJECTIVE)
    with pytest.raises(CapabilityError, match="does not say what it was trained with"):
        inject_noise(model, images, 0)
    with pytest.raises(ImageFormatError):
        inject_noise(model, ImageSet("wide", torch.rand(4, 1, 4, 6)), 0, objective=OBJECTIVE)
    with pytest.raises(CapabilityError, match="in steps"):
        inject_noise(VAE(Draw(steps=2, latent=2, hidden=8, attention=False), SHAPE), images, 0, objective=OBJECTIVE)
    blind = CallableModel(name="pair", image_shape=SHAPE, latent_shape=(2,), encode_with=lambda batch: batch.flatten(1)[:, :2])
    with pytest.raises(CapabilityError, match="posterior variances"):
        inject_noise(blind, images, 0)


@pytest.mark.parametrize(
    "settings",
    [{"increment": 0.0}, {"increment": float("nan")}, {"growing": 0}, {"held": 0}, {"settled": -1}, {"learning_rate": -1.0}],
)
def test_a_plan_that_makes_no_sense_is_refused(settings: dict[str, float]) -> None:
    with pytest.raises(SettingError):
        NoisePlan(**settings)  # type: ignore[arg-type]
