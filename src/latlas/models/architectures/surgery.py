"""Networks without some of their latent variables: what these contribute as constants is folded into the layer that takes codes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from latlas.base.errors import CodeShapeError, NonFiniteError, SettingError
from latlas.base.shapes import PerVariable
from latlas.models.architectures.architecture import Architecture

Weights = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True, eq=False)
class Cut:
    """Which latent variables of a network remain, and the constants that stand for the others.

    Args:
        kept: variables (channels of a spatial latent space), ascending; at least one.
        constants: one for each variable of the network; those of kept ones are of no account.

    Raises:
        SettingError: no variable is kept, one is named twice, or one is not there.
        CodeShapeError: constants that are no row of numbers.
        NonFiniteError: NaN or infinity among the constants of removed variables.
    """

    kept: tuple[int, ...]
    constants: PerVariable

    def __post_init__(self) -> None:
        if self.constants.ndim != 1:
            raise CodeShapeError(f"A cut needs one constant a variable, got shape {tuple(self.constants.shape)}.")
        if not self.kept or list(self.kept) != sorted({*self.kept}) or not 0 <= self.kept[0] <= self.kept[-1] < self.variables:
            raise SettingError(
                f"A cut keeps at least one of {self.variables} variables, each named once and in ascending order, from 0 on; got "
                f"{list(self.kept)}."
            )
        object.__setattr__(self, "constants", self.constants.detach().cpu().double())
        if not bool(self.folded.isfinite().all()):
            raise NonFiniteError(
                f"A cut folds constants into the network, and those of variables {list(self.removed)} hold NaN or infinity. Measure "
                "them on images whose codes are finite."
            )

    @property
    def variables(self) -> int:
        """How many the network has before."""
        return len(self.constants)

    @property
    def removed(self) -> tuple[int, ...]:
        """The others."""
        return tuple(variable for variable in range(self.variables) if variable not in set(self.kept))

    @property
    def doubled(self) -> list[int]:
        """Rows of a layer that makes means and then log-variances, of kept variables."""
        return [*self.kept, *(self.variables + variable for variable in self.kept)]

    @property
    def folded(self) -> Tensor:
        """The constants of removed variables."""
        return self.constants[list(self.removed)]


@runtime_checkable
class Prunable(Protocol):
    """An architecture whose networks can lose latent variables, and are of the same architecture afterwards.

    `pruned` takes the weights of encoder and decoder, as a VAE names them, and returns settings and weights. It changes none of
    those that it was given.
    """

    def pruned(self, weights: Mapping[str, Tensor], cut: Cut) -> tuple[Architecture, Weights]: ...


def prune_dense(weights: Mapping[str, Tensor], cut: Cut, *, makes: str, takes: str) -> Weights:
    """Return weights without some latent variables, where dense layers make and take codes.

    Args:
        weights: of the whole network.
        cut: what remains.
        makes: name of the layer whose outputs are means, and then as many log-variances.
        takes: name of the layer whose inputs are codes.
    """
    kept, removed = list(cut.kept), list(cut.removed)
    taking = weights[f"{takes}.weight"].cpu().double()
    bias = weights[f"{takes}.bias"].cpu().double() + taking[:, removed] @ cut.folded
    return replaced(
        weights,
        {
            f"{makes}.weight": weights[f"{makes}.weight"][cut.doubled],
            f"{makes}.bias": weights[f"{makes}.bias"][cut.doubled],
            f"{takes}.weight": weights[f"{takes}.weight"][:, kept],
            f"{takes}.bias": bias,
        },
    )


def replaced(weights: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> Weights:
    """Return weights with others in the place of some: of the type and on the device that these have."""
    return {**weights, **{name: other.to(weights[name]).contiguous() for name, other in others.items()}}


def rows_in(kept: Sequence[int], among: Sequence[int]) -> list[int]:
    """Return where each of some variables stands among others.

    >>> rows_in([2, 7], among=[0, 2, 7])
    [1, 2]
    """
    places = {variable: place for place, variable in enumerate(among)}
    return [places[variable] for variable in kept]


def identity_convolution(channels: int) -> Tensor:
    """Return the weight of a 1x1 convolution that gives what it takes."""
    return torch.eye(channels, dtype=torch.float64)[:, :, None, None]
