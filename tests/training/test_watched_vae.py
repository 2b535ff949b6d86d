"""Callbacks that watch posteriors work with the training of a VAE as they are, without being told where its encoder is."""

import lightning.pytorch as L
import pytest
import torch

from latlas.data.images import ImageSet
from latlas.models.architectures.dense import Dense
from latlas.models.vae import VAE
from latlas.training.callbacks import CollapseGuard, LatentHealth, LatentTrajectories
from latlas.training.module import Schedule, VAETraining
from latlas.training.objectives import Objective


def test_health_needs_no_name_of_an_encoder_and_tells_what_the_vae_says(blobs: ImageSet) -> None:
    torch.manual_seed(0)
    images = blobs.slice(0, 100)
    schedule = Schedule(epochs=2, batch_size=32, learning_rate=5e-3, seed=1)
    module = VAETraining(VAE(Dense(widths=(8,), latent=3), images.image_shape), images, Objective(), schedule)
    plain, named = LatentHealth(images.tensor()), LatentHealth(images.tensor(), encode="vae.encode", name="named")
    trainer = L.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=2,
        logger=False,
        callbacks=[plain, named, CollapseGuard(images.tensor(), least_active=0.1), LatentTrajectories(images.tensor()[:4])],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module)
    assert plain.records == named.records
    assert len(plain.records) == 2
    module.vae.eval()
    with torch.no_grad():
        means = module.vae.encode(images.tensor()).mean.double()
    assert plain.records[-1].variance_of_means == pytest.approx(means.var(dim=0, correction=0).tolist(), rel=1e-5)
