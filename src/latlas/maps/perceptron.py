"""A multilayer perceptron on top of an affine map: the yardstick of what linearity leaves behind. Not an artifact."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from latlas.base.errors import CodeShapeError, IllPosedError, SettingError
from latlas.base.progress import Progress, silent
from latlas.base.seeds import derived_seed, generator
from latlas.encodings.encoding import Encoding, require_paired
from latlas.maps.fit import fit_map
from latlas.maps.inputs import answer_type, codes_of, exact_type
from latlas.maps.linear import LinearMap

_LEAST = 20  # pairs: fewer leave no two to hold out
_CHUNK = 65_536


@dataclass(frozen=True, kw_only=True)
class PerceptronSettings:
    """How the perceptron is built and trained."""

    hidden: int = 256  # units of each hidden layer
    layers: int = 2  # hidden layers
    epochs: int = 200  # at most
    patience: int = 10  # epochs without a better held-out error
    batch_size: int = 256
    learning_rate: float = 1e-3
    held_out: float = 0.1  # share of the pairs that decides when to stop

    def check(self) -> None:
        """Raise unless every setting lies in its range.

        Raises:
            SettingError: one does not.
        """
        for name in ("hidden", "layers", "epochs", "patience", "batch_size"):
            if getattr(self, name) < 1:
                raise SettingError(f"A perceptron's {name} must be at least 1, got {getattr(self, name)}.")
        if not (self.learning_rate > 0.0 and 0.0 < self.held_out < 1.0):
            raise SettingError(
                f"A perceptron needs a learning rate above 0 and a held-out share between 0 and 1, got {self.learning_rate} "
                f"and {self.held_out}."
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class Perceptron:
    """An affine map and a network that adds what it finds beyond it: target = affine(source) + scale * network(scaled source).

    The network starts as zero and the best state on held-out pairs is kept, which may be the affine map itself.
    """

    base: LinearMap
    network: nn.Module
    mean: Tensor  # of the source, float64
    spread: Tensor  # deviation of the source
    scale: Tensor  # deviation of what the affine map leaves, per target variable
    evidence: Mapping[str, Any]  # pairs, epochs, held_out_over_affine: squared error of held-out pairs, in shares of the affine

    def apply(self, codes: Shaped[Tensor, "n *source"]) -> Float[Tensor, "n target"]:
        """Return the codes carried into the target space, in the type they came in; whole numbers as float64.

        Raises:
            CodeShapeError: codes of another width than the source's.
        """
        carried = self.base.apply(codes.to(exact_type(codes)))
        with torch.inference_mode():
            parts = [self.network(self._scaled(part)).double() for part in torch.split(codes, _CHUNK)]
        found = torch.cat(parts).clone() if parts else torch.zeros_like(carried)
        return (carried + (found * self.scale).to(carried)).to(answer_type(codes))

    def _scaled(self, codes: Tensor) -> Tensor:
        return ((codes.detach().cpu().double() - self.mean) / self.spread).float()


def fit_perceptron(
    source: Tensor | Encoding,
    target: Tensor | Encoding,
    *,
    settings: PerceptronSettings | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Perceptron:
    """Return an affine map and a perceptron trained on what it leaves, stopped by a held-out part.

    The affine map is fitted on the pairs that train the network, its ridge by generalised cross-validation, so that the
    held-out error compares the two fairly. Inputs and residuals are standardised; the network has GELU hidden layers, is
    trained by Adam on the squared error of the codes, as the linear map is (so that a variable that hardly varies hardly
    counts), and starts as exactly zero.

    Args:
        source: codes `n s`, or an encoding.
        target: codes `n t` of the same images in the same order, or an encoding.
        settings: of network and training; None for the usual ones.
        seed: decides the held-out pairs, the first weights and the order of batches.
        progress: told after each epoch.

    Raises:
        CodeShapeError: codes that are no matrices, or of different numbers.
        IllPosedError: fewer than 20 pairs; encodings of different images; constant source codes.
        NonFiniteError: NaN among the codes.
        SettingError: a setting out of its range.
    """
    plan = settings if settings is not None else PerceptronSettings()
    plan.check()
    if isinstance(source, Encoding) and isinstance(target, Encoding):
        require_paired(source, target)
    x, y = codes_of(source), codes_of(target)
    if x.ndim != 2 or y.ndim != 2 or x.shape[0] != y.shape[0]:
        raise CodeShapeError(
            f"A perceptron needs paired codes n x variables, got {tuple(x.shape)} and {tuple(y.shape)}. Flatten spatial codes."
        )
    count = x.shape[0]
    if count < _LEAST:
        raise IllPosedError(f"A perceptron needs at least {_LEAST} pairs of codes, got {count}. Give more images.")
    order = torch.randperm(count, generator=generator(seed, "perceptron", "held out"))
    held = max(2, round(count * plan.held_out))
    rest, kept = order[held:], order[:held]
    x, y = x.detach().cpu().double(), y.detach().cpu().double()
    base = fit_map(x[rest], y[rest], ridge="gcv")
    mean, spread = x[rest].mean(dim=0), _positive(x[rest].std(dim=0))
    left = y - base.apply(x)
    deviation = left[rest].std(dim=0)
    scale = _positive(deviation)
    inputs, wanted = ((x - mean) / spread).float(), (left / scale).float()
    network = _network(x.shape[1], y.shape[1], plan, seed)
    # So that the loss is the squared error of the codes themselves; a variable that the affine map leaves nothing of has no say.
    weights = deviation.square() / deviation.square().sum().clamp_min(1e-300)
    weights = weights.float()
    affine = float(_loss(torch.zeros_like(wanted[kept]), wanted[kept], weights))
    best, best_state, best_epoch = affine, copy.deepcopy(network.state_dict()), 0
    optimiser = torch.optim.Adam(network.parameters(), lr=plan.learning_rate)
    chance = generator(seed, "perceptron", "batches")
    epoch = 0
    for epoch in range(1, plan.epochs + 1):
        for batch in torch.split(rest[torch.randperm(len(rest), generator=chance)], plan.batch_size):
            optimiser.zero_grad()
            _loss(network(inputs[batch]), wanted[batch], weights).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        with torch.no_grad():
            found = float(_loss(network(inputs[kept]), wanted[kept], weights))
        progress(
            "perceptron", epoch, plan.epochs, f"held-out error {found / affine if affine else 0.0:.3f} of the affine map's"
        )
        if found < best:
            best, best_state, best_epoch = found, copy.deepcopy(network.state_dict()), epoch
        elif epoch - best_epoch >= plan.patience:
            break
    progress("perceptron", plan.epochs, plan.epochs, f"stopped after epoch {epoch}")
    network.load_state_dict(best_state)
    return Perceptron(
        base=base,
        network=network.eval().requires_grad_(False),
        mean=mean,
        spread=spread,
        scale=scale,
        evidence={
            "pairs": count,
            "held_out": held,
            "epochs": epoch,
            "best_epoch": best_epoch,
            "held_out_over_affine": best / affine if affine else None,
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
        },
    )


def _network(inputs: int, outputs: int, plan: PerceptronSettings, seed: int) -> nn.Sequential:
    # The global generator is left as it was: initialisation has no generator of its own.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(seed, "perceptron", "weights"))
        layers: list[nn.Module] = []
        width = inputs
        for _ in range(plan.layers):
            layers += [nn.Linear(width, plan.hidden), nn.GELU()]
            width = plan.hidden
        last = nn.Linear(width, outputs)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(*layers, last)


def _loss(found: Tensor, wanted: Tensor, weights: Tensor) -> Tensor:
    return ((found - wanted).square() @ weights).mean()


def _positive(deviation: Tensor) -> Tensor:
    """Return deviations with 1 in place of those that are rounding: such a variable is left as it is."""
    return torch.where(deviation > 1e-12 * deviation.max().clamp_min(1e-300), deviation, torch.ones_like(deviation))
