"""The second-stage VAE of Dai and Wipf 2019 (arXiv:1903.05789): a small VAE whose data are the codes of the first."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from latlas.base.errors import SettingError
from latlas.base.progress import Progress, silent
from latlas.base.seeds import derived_seed, generator
from latlas.base.shapes import Rows
from latlas.base.threads import using_threads
from latlas.numerics.gaussians import kl_to_prior_nats
from latlas.numerics.moments import Moments


@dataclass(frozen=True, kw_only=True)
class SecondStageSettings:
    """The size and the training of a second stage; the originals are wider (1024 to 4096) and trained for 400 epochs and more."""

    width: int = 256  # of each hidden layer
    layers: int = 3  # hidden layers of encoder and of decoder
    epochs: int = 30
    batch_size: int = 256
    learning_rate: float = 1e-3  # of Adam; falls along a cosine to 0

    def check(self) -> None:
        """Raise unless every setting lies in its range.

        Raises:
            SettingError: one does not.
        """
        for name in ("width", "layers", "epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise SettingError(f"A second stage's {name} must be at least 1, got {getattr(self, name)}.")
        if not 0.0 < self.learning_rate < math.inf:
            raise SettingError(f"A second stage needs a finite learning rate above 0, got {self.learning_rate}.")


class SecondStageNetwork(nn.Module):
    """Codes z to u and back; each side's input joins its last hidden layer, as in the original."""

    def __init__(self, size: int, width: int, layers: int) -> None:
        super().__init__()
        self.encoder = _hidden(size, width, layers)
        self.encoder_head = nn.Linear(width + size, 2 * size)
        self.decoder = _hidden(size, width, layers)
        self.decoder_head = nn.Linear(width + size, size)
        # The likelihood's deviation in units of the standardised code: a learnt parameter, as in the original.
        self.log_gamma = nn.Parameter(torch.zeros(()))

    def encode(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance of u."""
        mean, log_variance = self.encoder_head(torch.cat([codes, self.encoder(codes)], dim=1)).chunk(2, dim=1)
        return mean, log_variance

    def decode(self, second: Tensor) -> Tensor:
        """Return the mean of z."""
        mean: Tensor = self.decoder_head(torch.cat([second, self.decoder(second)], dim=1))
        return mean


@dataclass(frozen=True, eq=False)
class SecondStage:
    """Draws u from its prior, decodes, and adds the likelihood's noise.

    Without the noise the drawn codes have the variance of conditional means, which is too small: the published code of
    several packages drops it.
    """

    network: SecondStageNetwork
    centre: Tensor  # d: codes are standardised for the network
    spread: Tensor  # d
    kind = "second-stage"

    @property
    def gamma(self) -> float:
        """The likelihood's deviation in units of the standardised code: near 1, the network has learnt only a Gaussian."""
        return float(self.network.log_gamma.detach().exp())

    def draw(self, n: int, generator: torch.Generator) -> Rows:
        size = self.centre.shape[0]
        second = torch.randn(n, size, generator=generator)
        noise = torch.randn(n, size, generator=generator)
        with torch.inference_mode():
            codes = self.network.decode(second) + self.gamma * noise
        return (codes.double() * self.spread + self.centre).clone()

    def tensors(self) -> dict[str, Tensor]:
        return {"centre": self.centre, "spread": self.spread} | {
            f"network.{name}": tensor for name, tensor in self.network.state_dict().items()
        }


def fit_second_stage(
    mean: Rows, log_variance: Rows | None, *, settings: SecondStageSettings, seed: int, progress: Progress = silent
) -> SecondStage:
    """Fit a second stage to the aggregate posterior: codes are drawn anew from their posteriors at every step.

    Args:
        mean: posterior means, flat.
        log_variance: of the posteriors; None for a deterministic encoder, whose codes are the means.
        settings: size and training.
        seed: decides weights, order and noise.
        progress: told after each epoch.
    """
    deviation = torch.zeros_like(mean) if log_variance is None else (0.5 * log_variance).exp()
    centre = mean.double().mean(dim=0)
    spread = (Moments.of(mean).variance() + deviation.double().square().mean(dim=0)).sqrt().clamp_min(1e-12)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(seed, "second stage weights"))
        network = SecondStageNetwork(mean.shape[1], settings.width, settings.layers)
    chance = generator(seed, "second stage")
    optimizer = torch.optim.Adam(network.parameters(), lr=settings.learning_rate, fused=True)
    batch = min(settings.batch_size, len(mean))
    steps = settings.epochs * (len(mean) // batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * min(step / steps, 1.0))))
    with using_threads(1):
        for epoch in range(settings.epochs):
            order = torch.randperm(len(mean), generator=chance)
            for rows in torch.split(order[: len(mean) // batch * batch], batch):
                codes = mean[rows] + deviation[rows] * torch.randn(len(rows), mean.shape[1], generator=chance)
                loss = _loss(network, ((codes.double() - centre) / spread).float(), chance)
                optimizer.zero_grad(set_to_none=True)
                torch.autograd.backward(loss)
                optimizer.step()
                schedule.step()
            progress("second stage", epoch + 1, settings.epochs, f"gamma {float(network.log_gamma.detach().exp()):.2f}")
    return SecondStage(network.eval(), centre, spread)


def second_stage_from_tensors(tensors: dict[str, Tensor]) -> SecondStage:
    """Rebuild a second stage."""
    state = {name.removeprefix("network."): tensor for name, tensor in tensors.items() if name.startswith("network.")}
    size, width = tensors["centre"].shape[0], state["encoder.0.weight"].shape[0]
    layers = sum(name.startswith("encoder.") and name.endswith(".weight") for name in state)
    network = SecondStageNetwork(size, width, layers)
    network.load_state_dict(state)
    return SecondStage(network.eval(), tensors["centre"], tensors["spread"])


def _loss(network: SecondStageNetwork, codes: Tensor, chance: torch.Generator) -> Tensor:
    mean, log_variance = network.encode(codes)
    second = mean + torch.randn(mean.shape, generator=chance) * (0.5 * log_variance).exp()
    error = (network.decode(second) - codes).square().sum(dim=1)
    reconstruction = 0.5 * error * (-2 * network.log_gamma).exp() + codes.shape[1] * network.log_gamma
    return (reconstruction + kl_to_prior_nats(mean, log_variance).sum(dim=1)).mean()


def _hidden(size: int, width: int, layers: int) -> nn.Sequential:
    blocks: list[nn.Module] = []
    for layer in range(layers):
        blocks += [nn.Linear(size if layer == 0 else width, width), nn.ReLU()]
    return nn.Sequential(*blocks)
