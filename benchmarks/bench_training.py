"""Rows of training: ours beside a bare loop over tensors and beside pythae's trainer, from the same initial weights."""

import contextlib
import io
import logging
import os
import tempfile
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from against_pythae import take_over, wrapped
from racing import Row, race, ratio_row, value_row
from torch import Tensor

from latlas.base.seeds import derived_seed
from latlas.data.images import ImageSet
from latlas.data.loading import load_images
from latlas.models.architectures.registry import architecture
from latlas.models.vae import VAE
from latlas.training.module import Schedule
from latlas.training.objectives import Objective
from latlas.training.precision import choose_precision
from latlas.training.runs import train_vae

NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "dense": ("dense", {"latent": 16}),
    "dense, wider": ("dense", {"widths": (512, 256), "latent": 16}),
    "conv": ("conv", {"channels": (16, 32, 64), "latent": 16}),
}
BATCH, RATE, SEED = 128, 1e-3, 0
_OF_BARE, _OF_PYTHAE, _ERROR = 0.85, 5.0, 1.02
_PYTHAE_MISSED = "one step's forward, backward and Adam leave so much to win, and no more: see the row of the bare loop"


# name: images, epochs and rounds of a quick run, and of a full one
SIZES = {
    "dense": ((10_000, 3, 3), (20_000, 8, 5)),
    "dense, wider": ((6_000, 3, 3), (20_000, 8, 5)),
    "conv": ((2_500, 2, 3), (20_000, 4, 3)),
}


def rows(*, full: bool) -> list[Row]:
    """Return the rows of every network."""
    return [row for name in NETWORKS for row in network_rows(name, full=full)]


def network_rows(name: str, *, full: bool) -> list[Row]:
    """Return the rows of one network, on as many images as a quick run takes, or a full one."""
    count, epochs, rounds = SIZES[name][full]
    test = load_images("mnist:test[0:4000]" if full else "mnist:test[0:1000]")
    return of_network(name, load_images(f"mnist:train[0:{count}]"), test, epochs=epochs, rounds=rounds)


def of_network(name: str, train: ImageSet, test: ImageSet, *, epochs: int, rounds: int) -> list[Row]:
    """Return the rows of one network: speeds over the bare loop and over pythae, and the errors that each ends with."""
    errors: dict[str, float] = {}

    def end(label: str, model: VAE) -> None:
        errors[label] = _test_error(model.eval(), test)

    runners = {
        "ours": lambda: end("ours", ours(name, train, epochs)),
        "bare": lambda: end("bare", bare(name, train, epochs)),
        "pythae": lambda: end("pythae", pythae(name, train, epochs)),
    }
    chosen = choose_precision("auto", convolutional=architecture(NETWORKS[name][0]).convolutional, device=torch.device("cpu"))
    if chosen.autocast != "float32":
        runners["bare alike"] = lambda: end("bare alike", bare(name, train, epochs, like=True))
    taken = race(runners, rounds=rounds)
    details = {"images": len(train), "epochs": epochs, "batch": BATCH, "learning_rate": RATE, "precision": chosen.to_json()}
    end("ours, default settings", ours(name, train, epochs, Objective(), constant_rate=False))
    strict = taken.get("bare alike", taken["bare"])
    found = [
        ratio_row(
            "training",
            f"{name}: images/s of ours over a bare loop's, in the same precision",
            strict,
            taken["ours"],
            least=_OF_BARE,
            **details,
        ),
        ratio_row("training", f"{name}: images/s of ours over pythae's", taken["pythae"], taken["ours"], least=_OF_PYTHAE),
        ratio_row("training", f"{name}: images/s of the bare float32 loop over pythae's", taken["pythae"], taken["bare"]),
    ]
    if "bare alike" in taken:
        found.append(
            ratio_row("training", f"{name}: images/s of the bare {chosen.autocast} loop over pythae's", taken["pythae"], strict)
        )
    if found[1]["kept"] is False:
        found[1]["why"] = _PYTHAE_MISSED
    found.append(
        value_row(
            "training",
            f"{name}: test error of ours over pythae's, same loss, same constant rate",
            [errors["ours"] / errors["pythae"]],
            most=_ERROR,
            errors=errors,
        )
    )
    found.append(
        value_row(
            "training",
            f"{name}: test error of ours by default over pythae's",
            [errors["ours, default settings"] / errors["pythae"]],
        )
    )
    return found


def ours(name: str, train: ImageSet, epochs: int, objective: Objective | None = None, *, constant_rate: bool = True) -> VAE:
    """Train with latlas; with the loss that pythae has and a constant rate, unless told otherwise."""
    kind, settings = NETWORKS[name]
    aim = Objective(balance="fixed") if objective is None else objective

    def constant(**given: Any) -> Schedule:
        return Schedule(**{**given, "warm_up": 0.0, "final_rate": 1.0})

    with _hushed(), mock.patch("latlas.training.runs.Schedule", constant if constant_rate else Schedule):
        return train_vae(
            train,
            architecture(kind, **settings),
            objective=aim,
            epochs=epochs,
            batch_size=BATCH,
            learning_rate=RATE,
            seed=SEED,
            device="cpu",
        ).model


def bare(name: str, train: ImageSet, epochs: int, *, like: bool = False) -> VAE:
    """Train with a loop as one writes it by hand: floats in memory, a permutation an epoch, nothing kept of the steps.

    Args:
        name: of `NETWORKS`.
        train: images.
        epochs: passes.
        like: in the number format and memory layout that latlas chooses here, else in float32.
    """
    model = _fresh(name, train).train()
    chosen = choose_precision("auto", convolutional=model.architecture.convolutional, device=torch.device("cpu"))
    lower, last = like and chosen.autocast == "bfloat16", like and chosen.channels_last
    pixels = train.storage.float() / 255
    optimizer = torch.optim.Adam(model.parameters(), RATE, fused=True)
    for _ in range(epochs):
        order = torch.randperm(len(pixels))
        for start in range(0, len(pixels) - BATCH + 1, BATCH):
            images = pixels[order[start : start + BATCH]]
            if last:
                images = images.contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16, enabled=lower):
                mean, log_variance = model.encoder(images)
                logits = model.decoder(mean + torch.randn_like(mean) * (0.5 * log_variance).exp())
            mean, log_variance = mean.float(), log_variance.float()
            error = (logits.float().sigmoid() - images).square().sum()
            kl = (mean.square() + log_variance.exp() - 1 - log_variance).sum()
            loss = 0.5 * (error + kl) / BATCH
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return model


def pythae(name: str, train: ImageSet, epochs: int) -> VAE:
    """Train the same modules with pythae's trainer and its default loss."""
    from pythae.data.datasets import BaseDataset
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    model = _fresh(name, train)
    pixels = train.tensor()
    with tempfile.TemporaryDirectory() as folder, _hushed():
        config = BaseTrainerConfig(
            output_dir=folder, num_epochs=epochs, per_device_train_batch_size=BATCH, learning_rate=RATE, no_cuda=True, seed=SEED
        )
        trainer = BaseTrainer(wrapped(model), BaseDataset(pixels, torch.zeros(len(pixels))), training_config=config)
        trainer.train()
        take_over(model, trainer.model)
    return model


def _fresh(name: str, train: ImageSet) -> VAE:
    """A model with the weights that `train_vae` begins with."""
    kind, settings = NETWORKS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(SEED, "weights"))
        return VAE(architecture(kind, **settings), train.image_shape)


@torch.no_grad()
def _test_error(model: VAE, test: ImageSet) -> float:
    total = torch.zeros((), dtype=torch.float64)
    for images in test.batches(500):
        rebuilt: Tensor = model.decode(model.encode(images).mean)
        total += (rebuilt - images).double().square().sum()
    return float(total) / test.storage.numel()


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """Keep logs and bars out of the timing's output."""
    logging.disable(logging.WARNING)
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)
