"""What callbacks share that watch posteriors: when they look, how they ask a network, what they take for an answer.

A network is asked with every part in evaluation mode, without gradients and with random numbers of its own, so that a
training that is watched ends with the weights of one that is not.
"""

from bisect import bisect_right
from collections.abc import Callable, Collection
from operator import attrgetter
from typing import Any

import lightning.pytorch as L
import torch
from torch import Tensor

from latlas.base.errors import CapabilityError, ImageFormatError, SettingError
from latlas.data.images import ImageSet
from latlas.models.given import described

Encode = Callable[[Tensor], Any]  # images -> (mean, log-variance), or an object with these two
_LOG_VARIANCES = ("log_variance", "logvar")  # as latlas calls it, and as diffusers does


class PosteriorWatch(L.Callback):
    """Asks a module for the posteriors of the same images again and again; what it does with them, a subclass says.

    Args:
        images: what `encode` takes, one row an image, or an ImageSet, which gives floats in [0, 1]; kept on the CPU.
        encode: returns mean and log-variance of each image, as a pair or as an object that has them. A function, or the
            name of a method of the LightningModule ("encode", "vae.encode").
        every: optimiser steps from one look to the next, the first before any step; None: at the end of each epoch.
        steps: the optimiser steps after which to look, 0 for before any; in place of `every`. Steps are counted as
            `trainer.global_step` counts them; where it leaps over one, the next look is for that.
        name: tells several of them in one training apart.

    Raises:
        SettingError: both `every` and `steps`, or numbers below 1 and 0.
        ImageFormatError: no images.
    """

    def __init__(
        self,
        images: Tensor | ImageSet,
        *,
        encode: Encode | str = "encode",
        every: int | None = None,
        steps: Collection[int] | None = None,
        name: str = "latent",
    ) -> None:
        if every is not None and steps is not None:
            raise SettingError("Give every or steps, not both.")
        if every is not None and every < 1:
            raise SettingError(f"A look every so many steps needs at least 1 step, got {every}.")
        if steps is not None and (not steps or min(steps) < 0):
            raise SettingError(f"Looks after chosen steps need steps of 0 or more, got {sorted(steps)[:5]}.")
        looked_at = images.tensor() if isinstance(images, ImageSet) else images
        if not isinstance(looked_at, Tensor) or looked_at.ndim < 1 or len(looked_at) == 0:
            found = "none" if isinstance(looked_at, Tensor) else described(images)
            raise ImageFormatError(f"Posteriors need images to look at, as a tensor or an ImageSet; got {found}.")
        self.images = looked_at.detach().cpu()
        self.encode = encode
        self.every = every
        self.steps = None if steps is None else sorted(set(steps))
        self.name = name
        self.last_step = -1  # at which it was last asked

    @property
    def state_key(self) -> str:
        """The place of what it has gathered, in a checkpoint."""
        return f"{type(self).__qualname__}.{self.name}"

    def look(self, trainer: L.Trainer, mean: Tensor, log_variance: Tensor) -> None:
        """Take in the posteriors of the images, float32 on the CPU; `last_step` is the step they belong to."""
        raise NotImplementedError

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look before the first step, where that was asked for."""
        self._look_if_due(trainer, pl_module)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *rest: object) -> None:  # noqa: ARG002
        """Look, if it is time."""
        self._look_if_due(trainer, pl_module)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look, if epochs are the measure."""
        if self.every is None and self.steps is None:
            self._look(trainer, pl_module)

    def _look_if_due(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        before, now = self.last_step, trainer.global_step
        if self.every is not None:
            due = now // self.every > before // self.every
        elif self.steps is not None:
            due = bisect_right(self.steps, now) > bisect_right(self.steps, before)
        else:
            due = False
        if due:
            self._look(trainer, module)

    def _look(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        encode = attribute_of(module, self.encode) if isinstance(self.encode, str) else self.encode
        training = {part: part.training for part in module.modules()}
        module.eval()
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[module.device] if module.device.type == "cuda" else []):
                mean, log_variance = mean_and_log_variance(encode(self.images.to(module.device)), len(self.images))
        finally:
            for part, was in training.items():
                part.training = was
        self.last_step = trainer.global_step
        self.look(trainer, mean, log_variance)


def attribute_of(module: L.LightningModule, name: str) -> Encode:
    """Return a method of a module by its name, dots allowed.

    Raises:
        CapabilityError: there is none.
    """
    try:
        found = attrgetter(name)(module)
    except AttributeError:
        found = None
    if not callable(found):
        raise CapabilityError(
            f"{type(module).__name__} has no method {name!r} to ask for posteriors. "
            "Give encode=, a function from images to (mean, log_variance), or the name of such a method."
        )
    return found


def mean_and_log_variance(answer: Any, count: int) -> tuple[Tensor, Tensor]:
    """Return the two of a posterior, however it was given, float32 on the CPU.

    Raises:
        CapabilityError: it is none, or has no variances, or is not of `count` images.
    """
    mean: Any
    if isinstance(answer, tuple | list) and len(answer) == 2:
        mean, log_variance = answer
    else:
        mean = getattr(answer, "mean", None)
        log_variance = next((found for name in _LOG_VARIANCES if (found := getattr(answer, name, None)) is not None), None)
    if isinstance(mean, Tensor) and log_variance is None:
        raise CapabilityError("The encoder gives no posterior variances: there is no size and no KL to watch.")
    if not (isinstance(mean, Tensor) and isinstance(log_variance, Tensor)):
        raise CapabilityError(
            f"encode should return (mean, log_variance) of each image, got {type(answer).__name__}. "
            "Wrap it: encode=lambda images: (mean of yours, log-variance of yours)."
        )
    if mean.shape != log_variance.shape or mean.ndim < 2 or len(mean) != count:
        raise CapabilityError(
            f"encode should return means and log-variances of {count} images, n x latent both; "
            f"got {tuple(mean.shape)} and {tuple(log_variance.shape)}."
        )
    return mean.detach().float().cpu(), log_variance.detach().float().cpu()
