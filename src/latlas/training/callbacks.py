"""Callbacks for Lightning trainings."""

import lightning.pytorch as L
from torch import Tensor

from latlas.base.progress import Progress
from latlas.training.module import VAETraining


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
