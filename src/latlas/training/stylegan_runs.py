"""A StyleGAN2 from settings to artifact: style mixing, fresh noise, lazy penalties on both networks."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from latlas.base.errors import SettingError
from latlas.base.progress import Progress, silent
from latlas.base.seeds import derived_seed, generator
from latlas.data.images import ImageSet, to_floats
from latlas.models.architectures.stylegan2 import StyleGAN2, StyleGAN2Generator
from latlas.models.generator import GeneratorModel
from latlas.training.adversarial import AdversarialSchedule, AdversarialTraining
from latlas.training.adversarial_runs import TrainedGAN, check_settings, steps_in_all, train_adversarially
from latlas.training.asked import checked_seed, learning, number, whole

_PATH_EVERY = 4  # steps: the path penalty costs a second derivative
_PATH_MEMORY = 0.01  # share by which the running mean length moves
_MEAN_STYLE_OF = 10_000  # codes


@dataclass(frozen=True, kw_only=True)
class StyleSchedule(AdversarialSchedule):
    """What StyleGAN2 adds to the schedule of a GAN."""

    mixing: float  # share of the images whose later layers get the style of a second code
    path_penalty: float  # weight of the path length penalty; 0: none


class StyleGANTraining(AdversarialTraining):
    """Fits a StyleGAN2 to images held in memory.

    To the losses of `AdversarialTraining` come style mixing (Karras et al. 2019, arXiv:1812.04948, section 3.1) and,
    optionally, the path length penalty (|J^T y| - a)^2, where J is the derivative of an image by its style codes, y normal
    noise, and a the running mean of |J^T y| (Karras et al. 2020, arXiv:1912.04958, section 3.2). The penalty is on the
    network's own images, nominally in [-1, 1], so that weights in the literature carry over. The discriminator sees drawn
    images before they are clipped: what leaves [0, 1] is what no real image does.
    """

    path_mean: Tensor
    schedule: StyleSchedule

    def __init__(
        self,
        model: GeneratorModel,
        discriminator: torch.nn.Module,
        images: ImageSet,
        schedule: StyleSchedule,
        *,
        channels_last: bool,
    ) -> None:
        super().__init__(model, discriminator, images, schedule, channels_last=channels_last)
        self.schedule = schedule
        self.register_buffer("path_mean", torch.zeros(()))

    @property
    def network(self) -> StyleGAN2Generator:
        """The generator's network."""
        return _network(self.model)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Two Adams without momentum."""
        fused = self.device.type in ("cpu", "cuda")
        return [
            torch.optim.Adam(network.parameters(), lr=self.schedule.learning_rate, betas=(0.0, 0.99), fused=fused)
            for network in (self.model, self.discriminator)
        ]

    def training_step(self, pixels: Tensor) -> None:
        """Run one step of both networks on each mini-batch of `pixels`."""
        for mini_batch in torch.split(pixels, self.schedule.batch_size):
            if self.steps_done == self.steps:
                return
            images = to_floats(mini_batch).contiguous(memory_format=self.memory_format)
            fakes = self.network.draw(self.mixed_styles(len(images)), "random", self.noise)
            discriminator_loss, reals_judged, fakes_judged = self._teach_discriminator(images, fakes.detach())
            generator_loss = self._teach_generator(fakes)
            if self.schedule.path_penalty and self.steps_done % _PATH_EVERY == 0:
                self._straighten(max(len(images) // 2, 1))
            self.follow((self.steps_done + 1) * len(images), len(images))
            self.record(generator_loss, discriminator_loss, reals_judged.sigmoid().mean(), fakes_judged.sigmoid().mean())

    def mixed_styles(self, count: int) -> Tensor:
        """Return W+ codes of which some change, at a layer drawn for each, from the style of one z to that of another."""
        network = self.network
        codes = self.model.sample_codes(2 * count, self.noise).to(self.device)
        mixed = torch.rand(count, generator=self.noise) < self.schedule.mixing
        layer = torch.randint(1, max(network.num_ws, 2), (count,), generator=self.noise)
        layer = torch.where(mixed, layer, network.num_ws).to(self.device)
        first, second = torch.split(network.styles(codes), count)
        late = torch.arange(network.num_ws, device=self.device) >= layer[:, None]
        return torch.where(late[..., None], second[:, None], first[:, None])

    def _straighten(self, count: int) -> None:
        optimizer, _ = self._optimizers()
        with torch.autocast(self.device.type, enabled=False):
            styles = self.mixed_styles(count)
            lengths = path_lengths(self.network, styles, self.noise)
            self.path_mean.lerp_(lengths.detach().mean(), _PATH_MEMORY if self.path_mean > 0 else 1.0)
            penalty = (lengths - self.path_mean).square().mean()
        optimizer.zero_grad(set_to_none=True)
        self.manual_backward(self.schedule.path_penalty * _PATH_EVERY * penalty)
        optimizer.step()


def path_lengths(network: StyleGAN2Generator, styles: Tensor, noise: torch.Generator) -> Tensor:
    """Return, for each W+ code, the root mean square over layers of how far a unit of image noise moves its style.

    Args:
        network: whose images, nominally in [-1, 1], are differentiated.
        styles: `n num_ws style`, with a gradient.
        noise: draws the noise.
    """
    images = network.synthesis(styles, "random", noise)
    direction = torch.randn(images.shape, generator=noise).to(images) / (images.shape[2] * images.shape[3]) ** 0.5
    (moved,) = torch.autograd.grad((images * direction).sum(), styles, create_graph=True)
    return moved.square().sum(dim=2).mean(dim=1).sqrt()


@torch.no_grad()
def measure_mean_style(network: StyleGAN2Generator, *, seed: int) -> None:
    """Set the mean style, towards which truncation moves, to the mean over fresh codes: averaged weights have their own."""
    codes = torch.randn(_MEAN_STYLE_OF, network.mapping.latent, generator=generator(seed, "mean style"))
    styles = network.styles(codes.to(network.mapping.w_avg.device))
    network.mapping.w_avg.copy_(styles.double().mean(dim=0))


@learning()
def train_stylegan2(
    images: ImageSet,
    arch: StyleGAN2 | None = None,
    *,
    epochs: int | None = None,
    steps: int | None = None,
    batch_size: int = 32,
    learning_rate: float = 2.5e-3,
    gradient_penalty: float = 1.0,
    path_penalty: float = 0.0,
    mixing: float = 0.9,
    half_life: int = 10_000,
    seed: int = 0,
    device: str = "auto",
    precision: str = "float32",
    name: str | None = None,
    out: str | Path | None = None,
    replace: bool = False,
    progress: Progress = silent,
) -> TrainedGAN:
    """Fit a StyleGAN2 to images; keep the running average of its weights.

    The same arguments give the same weights on the same machine. With `out`, a training that was cut off goes on from its
    last whole pass over the images when it is started again with the same settings. There is no adaptive augmentation: with
    few images (below some thousands) the discriminator learns them by heart.

    Args:
        images: what to fit; square, their side a power of two from 8 on.
        arch: sizes of the networks; None for the defaults.
        epochs: passes over the images; 50 if neither this nor `steps` is given.
        steps: of both optimisers, in place of `epochs`.
        batch_size: images of a step.
        learning_rate: of both Adams.
        gradient_penalty: gamma of the R1 penalty, of images in [0, 1] (4 times that of images in [-1, 1]); 0: none.
        path_penalty: weight of the path length penalty; 2 in the original; 0: none.
        mixing: share of the images drawn in training that mix two styles.
        half_life: images after which the average has forgotten half; in a short training it reaches less far back.
        seed: decides initial weights, order, codes and noise.
        device: "auto", "cpu", "cuda", "cuda:1".
        precision: "float32", "bfloat16", or "auto" (see `choose_precision`).
        name: what reports call the generator.
        out: artifact folder: the generator, its history, and TensorBoard scalars under `run`.
        replace: whether an earlier artifact there may be replaced.
        progress: called after each step of the loop with the task, steps done, steps in all, and a note with the losses; `print`
            will do.

    Raises:
        SettingError: a setting out of range, or an architecture with classes.
        OutputExistsError: `out` already holds something.
        ImageFormatError: images that the architecture cannot serve.
        NonFiniteError: a loss left the numbers.
        ArtifactError: nothing can be written at `out`.
        KeyboardInterrupt: with a message that says what was kept.
    """
    epochs, steps = whole(epochs, "epochs"), whole(steps, "steps")
    batch_size, half_life = whole(batch_size, "batch size"), whole(half_life, "half-life")
    learning_rate, seed = number(learning_rate, "learning rate"), checked_seed(seed)
    gradient_penalty = number(gradient_penalty, "gradient penalty")
    check_settings(images, epochs, steps, batch_size, learning_rate, gradient_penalty, half_life)
    if not 0 <= mixing <= 1 or not 0 <= path_penalty < float("inf"):
        raise SettingError(f"Mixing must lie in [0, 1] and the path penalty be 0 or more, got {mixing} and {path_penalty}.")
    built = arch if arch is not None else StyleGAN2()
    if built.classes:
        raise SettingError(f"Training knows no classes, and the architecture has {built.classes}: set them to 0.")
    return train_adversarially(
        images,
        built,
        StyleSchedule(
            steps=steps_in_all(images, epochs=epochs, steps=steps, batch_size=batch_size),
            batch_size=batch_size,
            learning_rate=learning_rate,
            seed=derived_seed(seed, "training"),
            gradient_penalty=gradient_penalty,
            half_life=half_life,
            mixing=mixing,
            path_penalty=path_penalty,
        ),
        training=StyleGANTraining,
        finish=lambda kept: measure_mean_style(_network(kept), seed=seed),
        made_by="train_stylegan2",
        seed=seed,
        device=device,
        precision=precision,
        name=name,
        out=out,
        replace=replace,
        progress=progress,
    )


def _network(model: GeneratorModel) -> StyleGAN2Generator:
    assert isinstance(model.network, StyleGAN2Generator)
    return model.network
