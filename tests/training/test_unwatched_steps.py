"""Several optimiser steps a call leave Lightning's hooks out: what comes of it, and what Lightning counts, stays the same."""

import lightning.pytorch as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from latlas.data.images import ImageSet
from latlas.models.architectures.dense import Dense
from latlas.models.vae import VAE
from latlas.training.module import Schedule, VAETraining
from latlas.training.objectives import Objective

EPOCHS, STEPS = 3, 3 * 9  # 300 images in mini-batches of 32


def fit(images: ImageSet, per_step: int, *callbacks: L.Callback) -> tuple[VAETraining, L.Trainer]:
    torch.manual_seed(0)
    schedule = Schedule(epochs=EPOCHS, batch_size=32, learning_rate=5e-3, seed=1, per_step=per_step)
    module = VAETraining(VAE(Dense(widths=(16,), latent=3), images.image_shape), images, Objective(), schedule)
    trainer = L.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=EPOCHS,
        logger=False,
        callbacks=list(callbacks),
        enable_checkpointing=bool(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    module.train()
    trainer.fit(module)
    return module, trainer


@pytest.mark.parametrize("per_step", [4, 8, 100])
def test_steps_in_one_call_end_with_the_weights_of_single_ones(per_step: int, blobs: ImageSet) -> None:
    images = blobs.slice(0, 300)
    (watched, _), (unwatched, _) = fit(images, 1), fit(images, per_step)
    for name, tensor in watched.state_dict().items():
        assert tensor.equal(unwatched.state_dict()[name]), name
    for one, other in zip(watched.history, unwatched.history, strict=True):
        for name, value in one.items():
            # The statistics of a call are merged with those before: in another order, another last digit.
            assert other[name] == pytest.approx(value, rel=1e-9, abs=1e-12), name


@pytest.mark.parametrize("per_step", [1, 8])
def test_lightning_counts_every_optimiser_step(per_step: int, blobs: ImageSet) -> None:
    module, trainer = fit(blobs.slice(0, 300), per_step)
    scheduler = module.lr_schedulers()
    assert isinstance(scheduler, torch.optim.lr_scheduler.LRScheduler)
    assert trainer.global_step == STEPS
    assert scheduler.last_epoch == STEPS


def test_a_checkpoint_knows_the_steps_that_nobody_watched(blobs: ImageSet, tmp_path_factory: pytest.TempPathFactory) -> None:
    kept = ModelCheckpoint(dirpath=tmp_path_factory.mktemp("kept"), filename="last")
    module, _ = fit(blobs.slice(0, 300), 8, kept)
    checkpoint = torch.load(kept.best_model_path, map_location="cpu", weights_only=True)
    assert checkpoint["global_step"] == STEPS
    assert [record["epoch"] for record in checkpoint["latlas_history"]] == [1, 2, 3]
    assert module.earlier_epochs == 0
