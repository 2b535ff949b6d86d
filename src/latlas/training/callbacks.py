"""Callbacks for Lightning trainings: progress, and what becomes of the posteriors of a few images as a network learns.

Those that watch posteriors serve any LightningModule.
"""

import csv
import io
import logging
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from latlas.base.artifacts import check_place, write_json
from latlas.base.errors import IllPosedError, SettingError, unknown_name
from latlas.base.progress import Progress
from latlas.base.records import plain
from latlas.data.images import ImageSet
from latlas.numerics.posteriors import ACTIVE_VARIANCE, PosteriorMoments, mean_by_channel, sum_by_channel
from latlas.training.module import VAETraining
from latlas.training.posterior_watch import PosteriorWatch

logger = logging.getLogger(__name__)

ACTIONS = ("warn", "stop")


class ReportProgress(L.Callback):
    """Tells a `Progress` how many images were seen, with the last epoch's error, KL and active variables as a note."""

    def __init__(self, task: str, progress: Progress, *, epochs: int, images: int) -> None:
        self.task, self.progress, self.epochs, self.images = task, progress, epochs, images
        self.note = ""

    def on_train_batch_end(  # Lightning's signature
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: Tensor, batch_idx: int
    ) -> None:
        """Report after each step of the loop."""
        within = (batch_idx + 1) / max(trainer.num_training_batches, 1)
        done = int((trainer.current_epoch + within) * self.images)
        self.progress(self.task, done, self.epochs * self.images, f"epoch {trainer.current_epoch + 1}/{self.epochs}{self.note}")

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the last epoch's figures into the note."""
        assert isinstance(pl_module, VAETraining)
        if pl_module.history:
            last = pl_module.history[-1]
            size = len(last["kl"])
            self.note = f" · error {last['squared_error']:.4f} · KL {last['kl_nats']:.1f} · active {last['active']}/{size}"


@dataclass(frozen=True, kw_only=True)
class HealthRecord:
    """The latent variables of a network at one moment, by the posteriors of a fixed set of images."""

    step: int  # optimiser steps done
    epoch: int  # epochs begun
    kl_nats: list[float]  # of each variable, or channel: KL to the prior, a mean over images
    variance_of_means: list[float]  # over images
    mean_posterior_variance: list[float]

    @property
    def active(self) -> int:
        """Variables whose variance of means is above 0.01 (Burda et al. 2016, arXiv:1509.00519)."""
        return sum(variance > ACTIVE_VARIANCE for variance in self.variance_of_means)


class LatentHealth(PosteriorWatch):
    """A table of every latent variable over time: KL, variance of means, mean posterior variance.

    Scalars go to every logger of the trainer, as NAME/kl_nats/003; the table is `records`, and a file.

    Args:
        images: at least two; some hundreds give two digits.
        encode, every, steps, name: as of `PosteriorWatch`.
        out: a .csv or .json file to keep the table in, renewed after each epoch; None for none.

    Raises:
        IllPosedError: fewer than two images.
        SettingError: a file of another kind; settings out of range.
    """

    def __init__(self, images: Tensor | ImageSet, *, out: str | Path | None = None, **settings: Any) -> None:
        super().__init__(images, **settings)
        if len(images) < 2:
            raise IllPosedError(f"A variance of means needs at least 2 images, got {len(images)}.")
        self.out = None if out is None else _table_file(out)
        self.records: list[HealthRecord] = []

    def look(self, trainer: L.Trainer, mean: Tensor, log_variance: Tensor) -> None:
        """Add a record, and log it."""
        moments = PosteriorMoments.of(mean, log_variance)
        record = HealthRecord(
            step=self.last_step,
            epoch=trainer.current_epoch + (self.last_step > 0),
            kl_nats=sum_by_channel(moments.kl_nats).tolist(),
            variance_of_means=mean_by_channel(moments.variance_of_means).tolist(),
            mean_posterior_variance=mean_by_channel(moments.posterior_variance).tolist(),
        )
        self.records.append(record)
        scalars = {f"{self.name}/active": float(record.active)}
        for quantity in ("kl_nats", "variance_of_means", "mean_posterior_variance"):
            values = getattr(record, quantity)
            scalars |= {f"{self.name}/{quantity}/{variable:03d}": value for variable, value in enumerate(values)}
        for each in trainer.loggers:
            each.log_metrics(scalars, step=self.last_step)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look, if epochs are the measure, and renew the file."""
        super().on_train_epoch_end(trainer, pl_module)
        if self.out is not None and trainer.is_global_zero:
            self.write(self.out)

    def table(self) -> list[dict[str, Any]]:
        """Return one row a record and variable."""
        return [
            {
                "step": record.step,
                "epoch": record.epoch,
                "variable": variable,
                "kl_nats": record.kl_nats[variable],
                "variance_of_means": record.variance_of_means[variable],
                "mean_posterior_variance": record.mean_posterior_variance[variable],
            }
            for record in self.records
            for variable in range(len(record.kl_nats))
        ]

    def write(self, path: str | Path) -> None:
        """Write the table as .csv, or as .json; a file of that name is replaced.

        Raises:
            SettingError: a file of another kind.
        """
        target = _table_file(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.with_name(f".{target.name}.partial")
        rows = self.table()
        if target.suffix == ".json":
            write_json(beside, plain(rows))
        else:
            stream = io.StringIO()
            writer = csv.DictWriter(stream, fieldnames=list(rows[0]) if rows else ["step"], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
            beside.write_text(stream.getvalue(), encoding="utf-8")
        beside.replace(target)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"last_step": self.last_step, "records": [asdict(record) for record in self.records]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it back."""
        self.last_step = state_dict["last_step"]
        self.records = [HealthRecord(**record) for record in state_dict["records"]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Trajectories:
    """Where the posteriors of some images were at some moments of a training, float32."""

    steps: Int64[Tensor, " frames"]  # optimiser steps done
    mean: Float[Tensor, "frames n variables"]
    log_variance: Float[Tensor, "frames n variables"]

    def squared_radius(self) -> Float[Tensor, "frames n"]:
        """Return the geometric mean over variables of each posterior's variance: in two dimensions, sigma_1 * sigma_2."""
        return self.log_variance.mean(dim=2).exp()


class LatentTrajectories(PosteriorWatch):
    """The path of chosen images through the latent space, with the variances of their posteriors.

    A spatial code counts as one long vector.

    Args:
        images: those to follow.
        encode, every, steps, name: as of `PosteriorWatch`.
    """

    def __init__(self, images: Tensor | ImageSet, **settings: Any) -> None:
        super().__init__(images, **settings)
        self.seen: list[tuple[int, Tensor, Tensor]] = []

    def look(self, trainer: L.Trainer, mean: Tensor, log_variance: Tensor) -> None:
        """Add the posteriors."""
        self.seen.append((self.last_step, mean.flatten(1), log_variance.flatten(1)))

    def trajectories(self) -> Trajectories:
        """Return what was seen so far.

        Raises:
            IllPosedError: nothing was.
        """
        if not self.seen:
            raise IllPosedError("No trajectory yet: the training has not reached the first of the chosen steps.")
        steps, means, log_variances = zip(*self.seen, strict=True)
        return Trajectories(steps=torch.tensor(steps), mean=torch.stack(means), log_variance=torch.stack(log_variances))

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"last_step": self.last_step, "seen": [list(moment) for moment in self.seen]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it back."""
        self.last_step = state_dict["last_step"]
        self.seen = [(step, mean, log_variance) for step, mean, log_variance in state_dict["seen"]]


class CollapseGuard(PosteriorWatch):
    """Warns of a training whose latent variables die, or stops it.

    It judges at the ends of epochs (or as `every` and `steps` say), and says so once. A loss that holds no KL term leaves
    the scale of the codes free: a small variance of means is then no collapse, and this is no guard for it.

    Args:
        images: at least two; some hundreds tell reliably.
        least_active: the share of variables, above 0 and at most 1, below which it speaks.
        action: "warn", or "stop": the training ends there.
        grace: epochs before it judges; codes start close together, and need a little time to part.
        encode, every, steps, name: as of `PosteriorWatch`.

    Raises:
        SettingError, UnknownNameError: settings out of range.
        IllPosedError: fewer than two images.
    """

    def __init__(
        self, images: Tensor | ImageSet, *, least_active: float, action: str = "warn", grace: int = 1, **settings: Any
    ) -> None:
        super().__init__(images, **settings)
        if len(images) < 2:
            raise IllPosedError(f"A variance of means needs at least 2 images, got {len(images)}.")
        if not 0 < least_active <= 1:
            raise SettingError(f"The least share of active variables lies above 0 and at most at 1, got {least_active}.")
        if action not in ACTIONS:
            raise unknown_name("action", action, ACTIONS)
        if grace < 0:
            raise SettingError(f"The epochs of grace must be 0 or more, got {grace}.")
        self.least_active, self.action, self.grace = least_active, action, grace
        self.spoke_at: int | None = None  # the step at which it found a collapse

    def look(self, trainer: L.Trainer, mean: Tensor, log_variance: Tensor) -> None:
        """Judge."""
        done = trainer.current_epoch + (self.every is None and self.steps is None)
        variances = mean_by_channel(PosteriorMoments.of(mean, log_variance).variance_of_means)
        if self.spoke_at is not None or done < self.grace or not bool(variances.isfinite().all()):
            return
        active, size = int((variances > ACTIVE_VARIANCE).sum()), len(variances)
        # All processes see the same weights; what one finds on the verge, none may find alone.
        if not trainer.strategy.reduce_boolean_decision(active < self.least_active * size, all=False):
            return
        self.spoke_at = self.last_step
        trainer.should_stop = trainer.should_stop or self.action == "stop"
        if trainer.is_global_zero:
            logger.warning(
                "%d of %d latent variables are active after step %d, fewer than the %d asked for: the KL term is winning.%s",
                active,
                size,
                self.last_step,
                math.ceil(self.least_active * size - 1e-9),
                " The training stops." if self.action == "stop" else "",
            )

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"last_step": self.last_step, "spoke_at": self.spoke_at}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it back."""
        self.last_step, self.spoke_at = state_dict["last_step"], state_dict["spoke_at"]


def _table_file(path: str | Path) -> Path:
    target = Path(path)
    if target.suffix not in (".csv", ".json"):
        raise SettingError(f"A table is written as .csv or .json, got {target.name!r}.")
    check_place(target)
    return target
