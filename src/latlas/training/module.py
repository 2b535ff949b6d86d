"""The LightningModule of a VAE: Lightning owns devices, precision, checkpoints and processes; this owns the objective."""

import math
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.utils.data import DataLoader

from latlas.base.errors import NonFiniteError
from latlas.base.seeds import derived_seed
from latlas.base.shapes import Images
from latlas.data.images import ImageSet, to_floats
from latlas.models.protocols import Posterior
from latlas.models.vae import VAE
from latlas.numerics.posteriors import ACTIVE_VARIANCE, PosteriorMoments, mean_by_channel, sum_by_channel
from latlas.training.batches import ShuffledRows, training_loader
from latlas.training.finite import bad_variables, check_finite
from latlas.training.objectives import Objective, Terms

TERMS = ("loss", "reconstruction_nats", "kl_nats", "squared_error")  # per image, but for the error: per pixel


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long, how fast, in what order."""

    epochs: int
    batch_size: int
    learning_rate: float
    seed: int
    per_step: int = 8  # mini-batches a call of Lightning's loop: its overhead is 1 to 2 ms a call
    # The rate rises linearly over this share of the steps. At full rate from the first step on, the running error's start
    # of 1 lets the KL term kill units of the narrow layers before there is anything to reconstruct.
    warm_up: float = 0.05
    final_rate: float = 0.05  # the learning rate falls along a cosine to this share of its start


class VAETraining(L.LightningModule):
    """Fits a VAE to images held in memory."""

    def __init__(
        self, vae: VAE, images: ImageSet, objective: Objective, schedule: Schedule, *, channels_last: bool = False
    ) -> None:
        super().__init__()
        self.vae = vae
        self.balance = objective.build()
        self.sampling = objective.sampling
        self.images = images
        self.schedule = schedule
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.automatic_optimization = False
        self.noise: torch.Generator | None = None
        self.epoch_terms: list[Tensor] = []  # a row a step, one tensor a call
        self.parameters_at_hand: list[Tensor] = []  # walking through the modules again each step would take time
        self.epoch_posteriors: PosteriorMoments | None = None
        self.history: list[dict[str, Any]] = []  # one record an epoch
        self.earlier_epochs = 0  # of a resumed training: those that ran before it was cut off
        self._unread: tuple[Tensor, Tensor, Tensor] | None = None  # of the last call: terms, means, log variances

    def encode(self, images: Images) -> Posterior:
        """Return the posteriors of images: what callbacks that watch a training ask for by this name."""
        return self.vae.encode(images)

    def train_dataloader(self) -> DataLoader[Tensor]:
        """Return the loader of this process's share."""
        rows = ShuffledRows(
            len(self.images),
            self.schedule.batch_size,
            per_step=self.schedule.per_step,
            seed=self.schedule.seed,
            rank=self.trainer.global_rank,
            world=self.trainer.world_size,
        )
        return training_loader(self.images.storage, rows, pin=self.device.type == "cuda")

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Adam, its rate falling along a cosine over the whole training."""
        # One fused kernel instead of one per parameter: on small networks the optimiser is a third of the time.
        optimizer = torch.optim.Adam(
            self.parameters(), lr=self.schedule.learning_rate, fused=self.device.type in ("cpu", "cuda")
        )
        steps = self.schedule.epochs * max(len(self.images) // min(self.schedule.batch_size, len(self.images)), 1)
        low, warm = self.schedule.final_rate, max(int(self.schedule.warm_up * steps), 1)

        def share(step: int) -> float:
            falling = low + (1 - low) * 0.5 * (1 + math.cos(math.pi * min(step / steps, 1.0)))
            return falling * min((step + 1) / warm, 1.0)

        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.LambdaLR(optimizer, share)}

    def on_train_epoch_start(self) -> None:
        """Start the epoch's statistics, and its own stream of noise (so that a resumed epoch draws the same)."""
        seed = derived_seed(self.schedule.seed, "noise", self.current_epoch, 0)
        self.noise = torch.Generator(device=self.device).manual_seed(seed)
        self.epoch_terms = []
        self.epoch_posteriors = None
        self._unread = None
        self.parameters_at_hand = list(self.parameters())

    def training_step(self, pixels: Tensor, batch_idx: int) -> None:
        """Run one optimiser step on each mini-batch of `pixels`.

        Raises:
            NonFiniteError: the loss left the numbers in the call before.
        """
        if self.trainer.world_size == 1:  # one of several would leave the others waiting
            # One call late: an accelerator has done that one by now, and nobody waits.
            self.check_last_call()
        scheduler = self.lr_schedulers()
        assert isinstance(scheduler, torch.optim.lr_scheduler.LRScheduler)
        advance = self.advance_watched if self.schedule.per_step == 1 else self.advance_unwatched
        posteriors: list[Posterior] = []
        terms: list[Tensor] = []
        whole = to_floats(pixels).contiguous(memory_format=self.memory_format)  # at once: every kernel call has its price
        for images in torch.split(whole, max(self.schedule.batch_size // self.trainer.world_size, 1)):
            noise = self.draw_noise(len(images))
            posterior, logits = self.vae.reconstruct_logits(images, noise if self.sampling else torch.zeros_like(noise))
            found: Terms = self.balance(logits, images, posterior)
            advance(found.loss)
            scheduler.step()
            posteriors.append(posterior)
            terms += [found.loss.detach(), found.reconstruction_nats, found.kl_nats, found.squared_error]
        self.epoch_terms.append(torch.stack(terms).float().view(-1, len(TERMS)))
        means = torch.cat([posterior.mean for posterior in posteriors])
        log_variances = torch.cat([posterior.log_variance for posterior in posteriors if posterior.log_variance is not None])
        self._unread = (self.epoch_terms[-1], means.detach(), log_variances.detach())
        moments = PosteriorMoments.of(means, log_variances)
        self.epoch_posteriors = moments if self.epoch_posteriors is None else self.epoch_posteriors.merge(moments)

    def check_last_call(self) -> None:
        """Look at the terms of the last call.

        Raises:
            NonFiniteError: one left the numbers; the message names it, its batch, and the latent variables.
        """
        if self._unread is None:
            return
        terms, means, log_variances = self._unread
        self._unread = None
        if bool(terms.isfinite().all()):
            return
        history = torch.cat(self.epoch_terms)
        first = int((~history.isfinite()).any(dim=1).nonzero()[0, 0])
        # The loss is their sum, and a code out of bounds spoils every term after the KL: name the first to go.
        names = {2: "KL term", 1: "reconstruction term", 3: "squared error", 0: "loss"}
        term = next(index for index in names if not bool(history[first, index].isfinite()))
        share = max(self.schedule.batch_size // self.trainer.world_size, 1)
        start = (first - len(history) + len(terms)) * share  # negative where it was a call before the last
        # A term takes the square of one, and the exponential of the other: what does not survive that is bad already.
        codes = means.square() + log_variances.exp()
        where = bad_variables(codes[start : start + share]) if start >= 0 else ""
        raise NonFiniteError(
            f"Training left the numbers in epoch {self.current_epoch + 1}, step {first + 1} of it: the {names[term]} became "
            f"{float(history[first, term])}. Lower the learning rate ({self.schedule.learning_rate}), or use --precision float32."
            + (f" It was {where}." if where else "")
        )

    def advance_watched(self, loss: Tensor) -> None:
        """Run one optimiser step with all that Lightning does around it: its hooks, and the sums over processes."""
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        optimizer.zero_grad(set_to_none=True)
        self.manual_backward(loss)
        optimizer.step()

    def advance_unwatched(self, loss: Tensor) -> None:
        """Run one optimiser step of several in a call, which nobody watches: 6 % of a small dense network's time is in the hooks.

        Lightning is told of the step: checkpoints and loggers go by its count.
        """
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, torch.optim.Optimizer)
        for parameter in self.parameters_at_hand:
            parameter.grad = None
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        count = self.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
        count.increment_ready()
        count.increment_completed()

    def draw_noise(self, count: int) -> Tensor:
        """Return the noise of this process's images: its share of what the whole mini-batch draws, as `ShuffledRows` shares rows.

        So an image has the noise that it would have in a training by one process.
        """
        world, rank = self.trainer.world_size, self.trainer.global_rank
        whole = torch.randn(count * world, *self.vae.latent_shape, generator=self.noise, device=self.device)
        return whole[rank::world]

    def on_train_epoch_end(self) -> None:
        """Publish the epoch: means of the terms over all processes, and the health of each latent variable.

        Raises:
            NonFiniteError: the loss left the numbers; the message names the term and the step.
        """
        self.check_last_call()
        rate = self.schedule.learning_rate
        check_finite(
            self,
            when=f"at the end of epoch {self.current_epoch + 1}",
            cure=f"Lower the learning rate ({rate}), or use --precision float32.",
        )
        history = torch.cat(self.epoch_terms)
        self.share_buffers()
        means = history.double().mean(dim=0)
        epoch: dict[str, Any] = {"epoch": self.current_epoch + 1}
        for name, value in zip(TERMS, means, strict=True):
            shared = self.all_gather(value.float().to(self.device))
            assert isinstance(shared, Tensor)
            epoch[name] = float(shared.mean())
        variance = self.balance.variance  # a learnt one has a gradient, which float() would warn of
        epoch["likelihood_variance"] = variance.item() if isinstance(variance, Tensor) else variance
        statistics = self.epoch_statistics()
        variances = mean_by_channel(statistics.variance_of_means)
        epoch["active"] = int((variances > ACTIVE_VARIANCE).sum())
        epoch["kl"] = sum_by_channel(statistics.kl_nats).tolist()
        epoch["variance_of_means"] = variances.tolist()
        epoch["mean_posterior_variance"] = mean_by_channel(statistics.posterior_variance).tolist()
        self.history.append(epoch)
        if self.logger is not None:
            self.logger.log_metrics(_scalars(epoch), step=self.current_epoch + 1)
            self.logger.save()  # on the disk before the checkpoint is: a resumed run does not tell this epoch again

    def share_buffers(self) -> None:
        """Average what each process has gathered beside the weights (batch norm's statistics), so that all hold one model."""
        if self.trainer.world_size == 1:
            return
        for buffer in self.vae.buffers():
            if buffer.is_floating_point():
                gathered = self.all_gather(buffer)
                assert isinstance(gathered, Tensor)
                buffer.copy_(gathered.mean(dim=0))

    def epoch_statistics(self) -> PosteriorMoments:
        """Return the posteriors of the epoch so far, merged over all processes."""
        assert self.epoch_posteriors is not None  # an epoch has at least one step
        if self.trainer.world_size == 1:
            return self.epoch_posteriors
        gathered = self.all_gather(self.epoch_posteriors.as_rows().to(self.device))
        assert isinstance(gathered, Tensor)
        parts = [PosteriorMoments.from_rows(part.cpu()) for part in gathered]
        merged = parts[0]
        for part in parts[1:]:
            merged = merged.merge(part)
        return merged

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the history with the checkpoint, so that a resumed run has all of it."""
        checkpoint["latlas_history"] = self.history

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the history back."""
        self.history = list(checkpoint["latlas_history"])
        if not all(record.keys() >= {"epoch", *TERMS, "active", "kl"} for record in self.history):
            raise ValueError("its history is of another training")
        self.earlier_epochs = len(self.history)


def _scalars(epoch: dict[str, Any]) -> dict[str, float]:
    """One scalar a latent variable and quantity, so that a collapse can be watched as it happens."""
    scalars: dict[str, float] = {}
    for name, value in epoch.items():
        if isinstance(value, list):
            scalars |= {f"{name}/{variable:03d}": float(number) for variable, number in enumerate(value)}
        elif name != "epoch":
            scalars[name] = float(value)
    return scalars
