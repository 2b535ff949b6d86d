"""Growing noise on one latent variable of a trained VAE, an epoch a step, the collapsed variables held as they are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import lightning.pytorch as L
import torch
from jaxtyping import Float
from torch import Tensor

from latlas.base.errors import CapabilityError, SettingError
from latlas.base.progress import Progress, silent
from latlas.base.seeds import derived_seed, generator
from latlas.base.shapes import Codes, Images
from latlas.base.threads import threads_for, using_threads
from latlas.data.images import ImageSet
from latlas.models.architectures.architecture import SequentialEncoder
from latlas.models.protocols import LatentModel, Posterior, check_images, parameter_count
from latlas.models.vae import VAE
from latlas.numerics.posteriors import ACTIVE_VARIANCE, PosteriorMoments, mean_by_channel, sum_by_channel
from latlas.training.callbacks import ReportProgress
from latlas.training.module import Schedule, VAETraining
from latlas.training.objectives import Balance, Objective
from latlas.training.precision import choose_device, choose_precision
from latlas.training.resumable import honest_interruption, quiet_lightning

Phase = Literal["start", "growing", "held", "removed"]
MEASURED = 2000  # images that are measured after each epoch, where the caller names none


@dataclass(frozen=True, kw_only=True)
class NoisePlan:
    """How the noise grows, how long it stays, and how long the training goes on without it."""

    # A tenth of the prior's deviation, so that the steps are small against any code; the post names no schedule.
    increment: float = 0.1  # of the noise's deviation, after each epoch, in units of the code
    growing: int = 40  # epochs in which it grows, at most: it stops where the gain falls below the KL
    held: int = 10  # epochs in which it stays there, at most: it goes once the variable has collapsed
    settled: int = 0  # epochs for which it stays after the collapse: the longer, the more the decoder forgets the variable
    removed: int = 20  # epochs without it
    batch_size: int = 128
    learning_rate: float = 1e-3  # of Adam, the same throughout: a rate that falls would slow what is to be watched

    def __post_init__(self) -> None:
        if not 0 < self.increment < float("inf"):
            raise SettingError(f"The noise must grow by more than 0 an epoch, got {self.increment}.")
        for what in ("growing", "held", "removed", "batch_size"):
            if getattr(self, what) < 1:
                raise SettingError(f"A noise plan needs at least 1 for {what}, got {getattr(self, what)}.")
        if self.settled < 0:
            raise SettingError(f"The noise stays 0 epochs or more after the collapse, got {self.settled}.")
        if not 0 < self.learning_rate < 10:
            raise SettingError(f"The learning rate must lie between 0 and 10, got {self.learning_rate}.")

    @property
    def epochs(self) -> int:
        """Epochs at most."""
        return self.growing + self.held + self.settled + self.removed


@dataclass(frozen=True, kw_only=True)
class NoiseEpoch:
    """Every latent variable after one epoch; of epoch 0, before any training."""

    epoch: int
    phase: Phase  # of the epoch that has just ended
    deviation: float  # of the noise in it
    reconstruction_nats: float  # with that noise
    variance_of_means: tuple[float, ...]
    mean_posterior_variance: tuple[float, ...]
    kl_nats: tuple[float, ...]  # of the posterior, which knows nothing of the noise
    gain_nats: tuple[float, ...]  # growth of the reconstruction term when the variable is 0 instead of its noisy sample


@dataclass(frozen=True, kw_only=True)
class NoiseCourse:
    """One variable's way through growing noise, its collapse, and what came after."""

    variable: int
    frozen: tuple[int, ...]  # variables held as collapsed
    epochs: tuple[NoiseEpoch, ...]


class PerturbedVAE(VAE):
    """The same network, with some variables held as collapsed and noise on others.

    A held variable has the prior for its posterior, whatever the image: the decoder sees what it has learned to ignore, and
    no image can ever reach it through that variable. Holding the weights of the encoder's head would not do: it would still
    see the layers below change.

    Noise of deviation s on a sample of deviation sigma is one draw of deviation sqrt(sigma^2 + s^2). The KL term is that of
    sigma alone, as it must be if the network is to meet the noise unprepared.

    Args:
        vae: what to copy; stays as it is.
        frozen: variables (channels) to hold.
    """

    frozen: Tensor
    noise_variance: Tensor

    def __init__(self, vae: VAE, *, frozen: Sequence[int] = ()) -> None:
        super().__init__(vae.architecture, vae.image_shape, name=vae.name, provenance=vae.provenance)
        self.load_state_dict(vae.state_dict())
        shape = (self.latent_shape[0], *[1] * (len(self.latent_shape) - 1))
        mask = torch.zeros(shape, dtype=torch.bool)
        mask[list(frozen)] = True
        self.register_buffer("frozen", mask, persistent=False)
        self.register_buffer("noise_variance", torch.zeros(shape), persistent=False)

    def perturb(self, variable: int, deviation: float) -> None:
        """Set the noise: of this deviation on this variable, and on no other."""
        self.noise_variance.zero_()
        self.noise_variance[variable] = deviation**2

    def encode(self, images: Images) -> Posterior:
        """Return the posterior of each image; the prior, of a held variable."""
        posterior = super().encode(images)
        assert posterior.log_variance is not None  # a VAE's encoder always gives one
        return Posterior(posterior.mean.masked_fill(self.frozen, 0.0), posterior.log_variance.masked_fill(self.frozen, 0.0))

    def infer(self, images: Images, noise: Codes) -> tuple[Posterior, Codes]:
        """Return the posterior of each image, and a sample of it with the noise on top."""
        posterior = self.encode(images)
        assert posterior.log_variance is not None
        return posterior, posterior.mean + noise * (posterior.log_variance.exp() + self.noise_variance).sqrt()


class NoiseTraining(VAETraining):
    """Trains on while `next_phase` sets the noise; measures after each epoch."""

    def __init__(
        self,
        vae: PerturbedVAE,
        images: ImageSet,
        objective: Objective,
        schedule: Schedule,
        *,
        variable: int,
        plan: NoisePlan,
        measured: ImageSet,
    ) -> None:
        super().__init__(vae, images, objective, schedule)
        self.perturbed = vae
        self.variable, self.plan = variable, plan
        self.shown = measured.tensor()
        self.shown_noise = torch.randn(len(measured), *vae.latent_shape, generator=generator(schedule.seed, "measured"))
        self.epochs: list[NoiseEpoch] = []
        self.ahead: tuple[Phase, float] | None = ("start", 0.0)

    def settle(self) -> None:
        """Give the balance what its training had taught it, which no artifact keeps: the error that the model has.

        Left as it is built it would start over, with a variance of 1 or a warm-up: for hundreds of steps the KL would weigh
        many times too much or nothing at all, and what is to be seen of the noise would be seen of that.
        """
        learning = self.training
        self.eval()
        images = self.shown.to(self.device)
        with torch.inference_mode():
            noise = self.shown_noise.to(self.device)
            posterior, logits = self.perturbed.reconstruct_logits(images, noise if self.sampling else torch.zeros_like(noise))
            error = float(self.balance(logits, images, posterior).squared_error)
        self.train(learning)
        self.balance.settle(error)

    def measure(self) -> None:
        """Add the state of every variable, and decide on the next epoch."""
        assert self.ahead is not None
        phase, deviation = self.ahead
        learning = self.training
        self.eval()  # neither batch norm nor a rule that remembers errors may learn from these
        self.epochs.append(
            _state(
                self.perturbed,
                self.balance,
                self.shown.to(self.device),
                self.shown_noise.to(self.device),
                epoch=len(self.epochs),
                phase=phase,
                deviation=deviation,
            )
        )
        self.train(learning)
        self.ahead = next_phase(self.epochs, self.variable, self.plan)

    def on_train_epoch_start(self) -> None:
        """Set the epoch's noise."""
        super().on_train_epoch_start()
        assert self.ahead is not None
        self.perturbed.perturb(self.variable, self.ahead[1])

    def on_train_epoch_end(self) -> None:
        """Measure, and stop after the last phase."""
        super().on_train_epoch_end()
        self.measure()
        self.trainer.should_stop = self.ahead is None


def next_phase(epochs: Sequence[NoiseEpoch], variable: int, plan: NoisePlan) -> tuple[Phase, float] | None:
    """Return phase and noise of the epoch after these; None after the last.

    The noise grows until the variable's gain is below its KL, stays until the variable has collapsed (and `settled` epochs
    more), and goes.
    """
    last = epochs[-1]
    spent = sum(epoch.phase == last.phase for epoch in epochs)
    if last.phase in ("start", "growing"):
        if last.phase == "growing" and last.gain_nats[variable] < last.kl_nats[variable]:
            return "held", last.deviation
        if last.phase == "growing" and spent >= plan.growing:
            return "removed", 0.0
        return "growing", (0 if last.phase == "start" else spent) * plan.increment + plan.increment
    if last.phase == "held":
        held = [epoch for epoch in epochs if epoch.phase == "held"]
        collapse = next((epoch.epoch for epoch in held if epoch.variance_of_means[variable] <= ACTIVE_VARIANCE), None)
        over = spent >= plan.held if collapse is None else last.epoch - collapse >= plan.settled
        return ("removed", 0.0) if over else ("held", last.deviation)
    return None if spent >= plan.removed else ("removed", 0.0)


def require_noisable(model: LatentModel) -> VAE:
    """Return the model if noise can be put on one of its variables while it trains on.

    Raises:
        CapabilityError: it is no VAE of latlas, or draws its codes in steps.
    """
    if not isinstance(model, VAE):
        raise CapabilityError(
            f"{model.name} cannot be trained on: noise injection needs posterior variances and the weights of a VAE of latlas."
        )
    if isinstance(model.encoder, SequentialEncoder):
        raise CapabilityError(
            f"{model.name} draws its codes in steps, each seeing what the last has drawn: noise on one variable would change "
            "the others. Give a model that encodes at once."
        )
    return model


def inject_noise(
    model: LatentModel,
    images: ImageSet,
    variable: int,
    *,
    frozen: Sequence[int] | None = None,
    objective: Objective | None = None,
    plan: NoisePlan | None = None,
    measured: ImageSet | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: Progress = silent,
) -> NoiseCourse:
    """Add growing noise to one variable of a trained VAE while it trains on, then take it away; the model stays as it is.

    The experiment of the posts on sparsity: after each increment one epoch of training, until the variable's gain falls
    below its KL; the noise stays until the variable has collapsed, and is then removed.

    Args:
        model: a trained VAE.
        images: what it was trained on.
        variable: whose samples get the noise; a channel of a spatial latent space.
        frozen: variables to hold as collapsed; None for those that are so on `measured`. Otherwise the network would use
            one of them in place of the one that is made worse.
        objective: of the training; None for the one that the model says it was trained with.
        plan: how the noise grows; None for the defaults.
        measured: images to measure on after each epoch; None for the first 2,000 of `images`.
        seed: decides order and noise.
        device: as in `train_vae`.
        progress: told after each step of the loop.

    Raises:
        CapabilityError: the model is no VAE of latlas, one that encodes in steps, or one that does not say its objective.
        ImageFormatError: images of another shape.
        SettingError: no such variable, or one that has collapsed already or is to be held.
        NonFiniteError: the loss left the numbers.
    """
    model = require_noisable(model)
    check_images(images.image_shape, model, name=images.name)
    shown = measured if measured is not None else images.slice(0, MEASURED)
    check_images(shown.image_shape, model, name=shown.name)
    plan = plan if plan is not None else NoisePlan()
    aim = objective if objective is not None else _objective_of(model)
    if not aim.sampling:
        raise SettingError(
            f"{model.name} was trained without sampling: noise on a variable would never reach its decoder. Give a model trained with it."
        )
    place = choose_device(device)
    held = _chosen(model, shown, variable, frozen)
    vae = PerturbedVAE(model, frozen=held).cpu()
    schedule = Schedule(
        epochs=plan.epochs,
        batch_size=plan.batch_size,
        learning_rate=plan.learning_rate,
        seed=derived_seed(seed, "noise injection", variable),
        warm_up=0.0,
        final_rate=1.0,
    )
    module = NoiseTraining(vae, images, aim, schedule, variable=variable, plan=plan, measured=shown)
    convolutional = model.architecture.convolutional
    with using_threads(threads_for(parameter_count(vae), convolutional=convolutional)):
        module.settle()
        module.measure()
        with quiet_lightning():
            trainer = L.Trainer(
                accelerator="gpu" if place.type == "cuda" else "cpu",
                devices=[place.index] if place.index is not None else 1,
                precision=choose_precision("auto", convolutional=convolutional, device=place).lightning,
                max_epochs=plan.epochs,
                logger=False,
                callbacks=[
                    ReportProgress(f"noise on variable {variable}", progress, epochs=plan.epochs, images=len(images)),
                ],
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
            module.train()
            with honest_interruption():
                trainer.fit(module)
                if trainer.interrupted:
                    raise KeyboardInterrupt
    return NoiseCourse(variable=variable, frozen=held, epochs=tuple(module.epochs))


def _objective_of(vae: VAE) -> Objective:
    settings = None if vae.provenance is None else vae.provenance.settings.get("objective")
    if settings is None:
        raise CapabilityError(f"{vae.name} does not say what it was trained with. Name the objective to train it on with.")
    return Objective(**settings)


def _chosen(vae: VAE, images: ImageSet, variable: int, frozen: Sequence[int] | None) -> tuple[int, ...]:
    """Return the variables to hold, having checked them and the one that gets the noise."""
    size = vae.latent_shape[0]
    for asked in (variable, *(frozen or ())):
        if not 0 <= asked < size:
            raise SettingError(f"{vae.name} has the variables 0 to {size - 1}, and {asked} was asked for.")
    with torch.inference_mode():
        posterior = vae.encode(images.tensor().to(next(vae.parameters()).device))
        assert posterior.log_variance is not None
        variances = mean_by_channel(PosteriorMoments.of(posterior.mean, posterior.log_variance).variance_of_means)
    collapsed = [index for index in range(size) if float(variances[index]) <= ACTIVE_VARIANCE]
    held = sorted(set(collapsed if frozen is None else frozen))
    if variable in held or variable in collapsed:
        active = ", ".join(str(index) for index in range(size) if index not in {*collapsed, *held})
        why = "has collapsed already" if variable in collapsed else "is to be held"
        raise SettingError(f"Variable {variable} of {vae.name} {why}: noise would change nothing. Active: {active or 'none'}.")
    return tuple(held)


def _state(
    vae: PerturbedVAE,
    balance: Balance,
    images: Images,
    noise: Float[Tensor, "n *latent"],
    *,
    epoch: int,
    phase: Phase,
    deviation: float,
) -> NoiseEpoch:
    with torch.inference_mode():
        posterior, codes = vae.infer(images, noise)
        assert posterior.log_variance is not None
        moments = PosteriorMoments.of(posterior.mean, posterior.log_variance)

        def reconstruction(changed: Tensor) -> float:
            return float(balance(vae.decode_logits(changed), images, posterior).reconstruction_nats)

        base = reconstruction(codes)
        gains = []
        for variable in range(vae.latent_shape[0]):
            silenced = codes.clone()
            silenced[:, variable] = 0.0
            gains.append(reconstruction(silenced) - base)
    return NoiseEpoch(
        epoch=epoch,
        phase=phase,
        deviation=deviation,
        reconstruction_nats=base,
        variance_of_means=tuple(mean_by_channel(moments.variance_of_means).tolist()),
        mean_posterior_variance=tuple(mean_by_channel(moments.posterior_variance).tolist()),
        kl_nats=tuple(sum_by_channel(moments.kl_nats).tolist()),
        gain_nats=tuple(gains),
    )
