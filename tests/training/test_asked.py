"""What a training is asked with: it learns though gradients are switched off around it, and takes only what it can record."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from latlas.base.errors import SettingError
from latlas.data.images import ImageSet
from latlas.models.architectures.dcgan import DCGAN
from latlas.models.architectures.dense import Dense
from latlas.models.architectures.stylegan2 import StyleGAN2
from latlas.models.recoder import RecoderSettings
from latlas.training.asked import checked_callbacks, checked_seed, learning, number, whole
from latlas.training.callbacks import LatentHealth
from latlas.training.gan_runs import train_gan
from latlas.training.recoders import train_recoder
from latlas.training.runs import train_vae
from latlas.training.stylegan_runs import train_stylegan2

SMALL = Dense(widths=(16,), latent=3)
SPOTS = DCGAN(channels=4, latent=3)


def _recoder(images: ImageSet) -> Any:
    drawn_from = train_gan(images, SPOTS, steps=2, batch_size=8, device="cpu").model
    few = RecoderSettings(channels=4, widest=8, hidden=8)
    return train_recoder(drawn_from, loss="both", steps=3, batch_size=4, settings=few, device="cpu").recoder


TRAININGS: dict[str, Callable[[ImageSet], Any]] = {
    "vae": lambda images: train_vae(images, SMALL, epochs=2, device="cpu").model,
    "gan": lambda images: train_gan(images, SPOTS, steps=3, batch_size=8, device="cpu").model,
    "stylegan2": lambda images: (
        train_stylegan2(
            images, StyleGAN2(latent=4, style=4, layers=1, channel_base=32, channel_max=4), steps=2, batch_size=4, device="cpu"
        ).model
    ),
    "recoder": _recoder,
}


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("kind", TRAININGS)
def test_a_training_is_the_same_where_gradients_are_switched_off_around_it(
    kind: str, mode: Callable[[], Any], blobs: ImageSet
) -> None:
    expected = TRAININGS[kind](blobs).fingerprint
    with mode():
        # The images, too, may have been made there.
        made_there = replace(blobs, storage=blobs.storage.clone())
        assert TRAININGS[kind](made_there).fingerprint == expected
        assert not torch.is_grad_enabled()


def test_a_default_type_that_networks_here_are_not_made_for_is_refused(blobs: ImageSet) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        with pytest.raises(SettingError, match=r"default type is torch\.float64\. Call torch\.set_default_dtype"), learning():
            pass
    finally:
        torch.set_default_dtype(torch.float32)


def test_images_may_be_watched_as_they_were_loaded(blobs: ImageSet) -> None:
    as_set, as_tensor = LatentHealth(blobs.slice(0, 32), name="set"), LatentHealth(blobs.slice(0, 32).tensor(), name="tensor")
    train_vae(blobs, SMALL, epochs=2, device="cpu", callbacks=[as_set, as_tensor])
    assert len(as_set.records) == 2
    assert as_set.records == as_tensor.records


def test_results_are_one_line_where_a_notebook_shows_them(blobs: ImageSet) -> None:
    trained = train_vae(blobs, SMALL, epochs=2, device="cpu", name="spots")
    last = trained.history[-1]
    assert repr(trained) == (
        f"<TrainedVAE .model 'spots', epoch 2: squared error {last['squared_error']:.4g}, {last['active']} of 3 latent variables "
        "active>"
    )
    gan = train_gan(blobs, SPOTS, steps=3, batch_size=8, device="cpu", name="gan")
    assert repr(gan) == f"<TrainedGAN .model 'gan', step 3: spread of its samples {gan.spread_ratio:.3g} of the images'>"


@pytest.mark.parametrize(("value", "found"), [(3, 3), (np.int64(3), 3), (None, None)])
def test_a_whole_number_is_taken_from_whoever_counts(value: Any, found: int | None) -> None:
    counted = whole(value, "steps")
    assert counted == found
    assert counted is None or type(counted) is int  # which JSON can hold


def test_numbers_of_numpy_become_numbers_that_can_be_written() -> None:
    assert type(number(np.float32(0.5), "learning rate")) is float
    assert type(number(1, "learning rate")) is int  # and an artifact of earlier settings stays the same
    assert type(checked_seed(np.int64(7))) is int


def test_one_callback_is_as_good_as_a_list_of_one(blobs: ImageSet) -> None:
    watch = LatentHealth(blobs.tensor())
    assert checked_callbacks(watch) == checked_callbacks([watch]) == checked_callbacks((watch,)) == (watch,)
    assert checked_callbacks(()) == ()
