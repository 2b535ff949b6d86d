"""The LightningModule of a GAN: the non-saturating loss, and a running average of the generator's weights."""

import copy
import math
from dataclasses import dataclass

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from latlas.base.seeds import derived_seed, generator
from latlas.data.images import ImageSet, to_floats
from latlas.models.generator import GeneratorModel
from latlas.training.batches import ShuffledRows, training_loader
from latlas.training.resumable import SteppedTraining

# Losses in nats an image; scores are the share of belief that an image is real, near 1 and 0 where the discriminator wins.
TERMS = ("generator_loss", "discriminator_loss", "real_score", "fake_score")
_MINI_BATCHES = 8  # in a call of Lightning's loop, whose overhead is 1 to 2 ms a call
_PENALTY_EVERY = 16  # steps: the penalty costs a second derivative, and hardly changes from step to step
_RAMP = 0.05  # of the images seen: so far back the average reaches at most, so that it forgets the beginning
_RENEWING = 32  # batches over which the batch norm of the average is measured


@dataclass(frozen=True, kw_only=True)
class AdversarialSchedule:
    """How long, how fast, in what order."""

    steps: int
    batch_size: int
    learning_rate: float
    seed: int
    gradient_penalty: float  # gamma of R1; 0: none
    half_life: int  # images in which the average forgets half


class AdversarialTraining(SteppedTraining):
    """Fits a generator to images held in memory, against a discriminator.

    The discriminator's loss is softplus(-D(x)) + softplus(D(G(z))), the generator's softplus(-D(G(z))), of logits D
    (Goodfellow et al. 2014, arXiv:1406.2661); optionally with the R1 penalty gamma/2 |grad D(x)|^2 on real images
    (Mescheder et al. 2018, arXiv:1801.04406).
    """

    def __init__(
        self,
        model: GeneratorModel,
        discriminator: nn.Module,
        images: ImageSet,
        schedule: AdversarialSchedule,
        *,
        channels_last: bool = False,
    ) -> None:
        per_epoch = len(images) // min(schedule.batch_size, len(images))
        super().__init__(TERMS, steps=schedule.steps, steps_per_epoch=per_epoch, learning_rate=schedule.learning_rate)
        self.model = model
        self.discriminator = discriminator
        self.averaged = copy.deepcopy(model).requires_grad_(False)
        self.images = images
        self.schedule = schedule
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.noise = torch.Generator()

    def train_dataloader(self) -> DataLoader[Tensor]:
        """Return the loader of real images."""
        rows = ShuffledRows(len(self.images), self.schedule.batch_size, per_step=_MINI_BATCHES, seed=self.schedule.seed)
        return training_loader(self.images.storage, rows, pin=self.device.type == "cuda")

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Two Adams with the short memory of gradients that GANs need: what one should learn changes with the other."""
        fused = self.device.type in ("cpu", "cuda")
        return [
            torch.optim.Adam(network.parameters(), lr=self.schedule.learning_rate, betas=(0.5, 0.99), fused=fused)
            for network in (self.model, self.discriminator)
        ]

    def on_train_epoch_start(self) -> None:
        """Start the epoch's means, and its own stream of codes (so that a resumed epoch draws the same)."""
        super().on_train_epoch_start()
        self.noise = torch.Generator().manual_seed(derived_seed(self.schedule.seed, "codes", self.current_epoch))

    def training_step(self, pixels: Tensor) -> None:
        """Run one step of both networks on each mini-batch of `pixels`."""
        for mini_batch in torch.split(pixels, self.schedule.batch_size):
            if self.steps_done == self.steps:
                return
            images = to_floats(mini_batch).contiguous(memory_format=self.memory_format)
            fakes = self.model.decode(self.model.sample_codes(len(images), self.noise).to(images.device))
            discriminator_loss, reals_judged, fakes_judged = self._teach_discriminator(images, fakes.detach())
            generator_loss = self._teach_generator(fakes)
            self.follow((self.steps_done + 1) * len(images), len(images))
            self.record(generator_loss, discriminator_loss, reals_judged.sigmoid().mean(), fakes_judged.sigmoid().mean())

    def _teach_discriminator(self, images: Tensor, fakes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        _, optimizer = self._optimizers()
        # One after the other: a discriminator that looks at a whole batch must not see both kinds in one.
        reals_judged, fakes_judged = self.discriminator(images).float(), self.discriminator(fakes).float()
        loss = F.softplus(-reals_judged).mean() + F.softplus(fakes_judged).mean()
        penalised = loss
        if self.schedule.gradient_penalty and self.steps_done % _PENALTY_EVERY == 0:
            weight = 0.5 * self.schedule.gradient_penalty * _PENALTY_EVERY
            penalised = loss + weight * squared_gradient(self.discriminator, images)
        optimizer.zero_grad(set_to_none=True)
        self.manual_backward(penalised)
        optimizer.step()
        return loss, reals_judged.detach(), fakes_judged.detach()

    def _teach_generator(self, fakes: Tensor) -> Tensor:
        optimizer, _ = self._optimizers()
        self.discriminator.requires_grad_(False)
        loss = F.softplus(-self.discriminator(fakes).float()).mean()
        optimizer.zero_grad(set_to_none=True)
        self.manual_backward(loss)
        optimizer.step()
        self.discriminator.requires_grad_(True)
        return loss

    def culprit(self, terms: dict[str, float], codes: Tensor | None) -> str:  # noqa: ARG002
        """Return which of the two networks left the numbers first: a generator spoils the scores of drawn images alone."""
        if not math.isfinite(terms["real_score"]):
            return "the discriminator"
        return "the generator" if not math.isfinite(terms["fake_score"]) else ""

    def _optimizers(self) -> tuple[LightningOptimizer, LightningOptimizer]:
        both = self.optimizers()
        assert isinstance(both, list)
        of_generator, of_discriminator = both
        assert isinstance(of_generator, LightningOptimizer)
        assert isinstance(of_discriminator, LightningOptimizer)
        return of_generator, of_discriminator

    @torch.no_grad()
    def follow(self, seen: int, step: int) -> None:
        """Move the average towards the generator.

        Args:
            seen: images shown so far, with this step's.
            step: images of this step.
        """
        reach = min(self.schedule.half_life, _RAMP * seen)
        share = 1 - 0.5 ** (step / reach)
        for average, current in zip(self.averaged.parameters(), self.model.parameters(), strict=True):
            average.lerp_(current, share)


def squared_gradient(discriminator: nn.Module, images: Tensor) -> Tensor:
    """Return the squared norm of each image's gradient of the discriminator, averaged over images."""
    inputs = images.detach().requires_grad_(True)
    with torch.autocast(images.device.type, enabled=False):  # squares of small gradients would vanish in bfloat16
        logits = discriminator(inputs)
        (gradient,) = torch.autograd.grad(logits.sum(), inputs, create_graph=True)
    return gradient.square().flatten(1).sum(dim=1).mean()


@torch.no_grad()
def renew_batch_statistics(model: GeneratorModel, *, seed: int, batch_size: int = 256) -> None:
    """Measure anew what batch norm knows of the features: averaged weights do not have the average of their statistics."""
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    memories = [layer.momentum for layer in norms]
    device = next(model.parameters()).device
    for layer in norms:
        layer.reset_running_stats()
        layer.momentum = None  # a plain mean over all batches
    model.train()
    chance = generator(seed, "batch statistics")
    for _ in range(_RENEWING if norms else 0):
        model.decode(model.sample_codes(batch_size, chance).to(device))
    for layer, memory in zip(norms, memories, strict=True):
        layer.momentum = memory
    model.eval()
