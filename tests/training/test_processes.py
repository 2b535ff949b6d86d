"""Two processes: they share the images out, hold the same weights, and report what all images together say."""

import importlib
import json
import os
import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchmetrics import Metric

import latlas
from latlas.data.images import ImageSet
from latlas.measurements.distances import frechet_distance
from latlas.models.architectures.dense import Dense
from latlas.models.vae import VAE
from latlas.training.callbacks import LatentHealth
from latlas.training.objectives import BALANCES, Objective
from latlas.training.runs import train_vae

Told = tuple[Path, list[dict[str, Any]]]  # the folder of a training, and what each process of it saw

# Lightning starts the second process by running the same file again, so it must be a file.
SCRIPT = """
import json, os, sys
from pathlib import Path
from typing import Any
import torch
from latlas.data.images import ImageSet
from latlas.models.architectures.dense import Dense
from latlas.training import objectives
from latlas.measurements.features import RawPixels
from latlas.measurements.metrics import FrechetDistanceMetric
from latlas.training.callbacks import LatentHealth
from latlas.training.module import VAETraining
from latlas.training.objectives import BALANCES, Objective
from latlas.training.runs import train_vae

folder = Path(sys.argv[1])
codes, errors, noises = [], [], []
statistics, mean_over_processes, drawn = VAETraining.epoch_statistics, objectives._mean_over_processes, VAETraining.draw_noise

def spy_on_posteriors(self):
    codes.append(self.epoch_posteriors.as_rows().tolist())  # of this process alone
    return statistics(self)

def spy_on_noise(self, count):
    noise = drawn(self, count)
    noises.append(noise.tolist())
    return noise

def spy_on_errors(value):
    errors.append(float(value))  # of this process alone
    return mean_over_processes(value)

VAETraining.epoch_statistics, objectives._mean_over_processes = spy_on_posteriors, spy_on_errors
VAETraining.draw_noise = spy_on_noise
images = ImageSet("blobs", torch.load(folder / "pixels.pt", weights_only=True))
run = train_vae(images, Dense(widths=(16,), latent=3), epochs=3, batch_size=32, learning_rate=5e-3, device="cpu", devices=2,
                seed=4, out=folder / "model")
record = {"codes": codes, "errors": list(errors), "noises": noises, "history": run.history, "fingerprint": run.model.fingerprint}

rank = int(os.environ.get("LOCAL_RANK", "0"))
# What follows is not watched.
VAETraining.epoch_statistics, objectives._mean_over_processes, VAETraining.draw_noise = statistics, mean_over_processes, drawn
record["balances"] = {}
for balance in BALANCES:
    health = LatentHealth(images.tensor()[:100], encode="vae.encode")
    other = train_vae(images, Dense(widths=(16,), latent=3), objective=Objective(balance=balance), epochs=2, batch_size=32,
                      learning_rate=5e-3, device="cpu", devices=2, seed=4, callbacks=[health])
    record["balances"][balance] = {"history": other.history, "health": health.table()}
metric = FrechetDistanceMetric(RawPixels((1, 8, 8)))
metric.update(images.tensor()[:100 if rank == 0 else 30], first=True)
metric.update(images.tensor()[200:] if rank == 0 else images.tensor()[150:200], first=False)
record["frechet"] = float(metric.compute())
(folder / f"process{rank}.json").write_text(json.dumps(record))
"""


@pytest.fixture(scope="module")
def two(blobs: ImageSet, tmp_path_factory: pytest.TempPathFactory) -> Told:
    """The folder of a training by two processes, and what each of them saw."""
    folder = tmp_path_factory.mktemp("two")
    torch.save(blobs.storage, folder / "pixels.pt")
    script = folder / "train.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"}
    ended = subprocess.run(
        [sys.executable, str(script), str(folder)], env=environment, timeout=900, capture_output=True, check=False
    )
    assert ended.returncode == 0, ended.stderr.decode()
    return folder, [json.loads((folder / f"process{rank}.json").read_text()) for rank in range(2)]


def test_both_processes_end_with_the_weights_that_were_written(two: Told) -> None:
    folder, (first, second) = two
    assert first["fingerprint"] == second["fingerprint"] == VAE.from_pretrained(folder / "model").fingerprint
    assert first["history"] == second["history"]
    assert json.loads((folder / "model" / "run" / "history.json").read_text()) == first["history"]


def test_health_is_that_of_all_images_and_not_of_one_process(two: Told) -> None:
    """Merged here in NumPy: means weighted by images, variance by the law of total variance."""
    _, (first, second) = two
    for epoch, record in enumerate(first["history"]):
        parts = [np.array(process["codes"][epoch]) for process in (first, second)]
        counts = [part[0, 0] for part in parts]
        assert counts == [160, 160]
        share = np.array(counts) / sum(counts)
        means, variances = np.stack([part[1] for part in parts]), np.stack([part[2] / part[0] for part in parts])
        assert np.abs(means[0] - means[1]).max() > 1e-4  # the processes did see different images
        overall = share @ means
        total = share @ variances + share @ (means - overall) ** 2
        assert record["variance_of_means"] == pytest.approx(total, rel=1e-6)
        assert record["mean_posterior_variance"] == pytest.approx(share @ np.stack([part[3] for part in parts]), rel=1e-6)
        assert record["kl"] == pytest.approx(share @ np.stack([part[5] for part in parts]), rel=1e-6)
        assert sum(record["kl"]) == pytest.approx(record["kl_nats"], rel=1e-5)


def test_no_two_images_have_the_same_noise(two: Told) -> None:
    """Neither in two epochs nor in two processes: shares of one mini-batch with one noise would be half a draw."""
    _, (first, second) = two
    drawn = np.array([first["noises"][:30], second["noises"][:30]])
    assert drawn.shape == (2, 30, 16, 3)
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) == 2 * 30 * 16


def check_alike(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Numbers to 1e-6 of their size, counts as they are."""
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name] == pytest.approx(value, rel=1e-6), name


@pytest.mark.parametrize("balance", BALANCES)
def test_two_processes_train_what_one_trains(two: Told, blobs: ImageSet, balance: str) -> None:
    """The same images, the same noise for each: terms, likelihood variance and health are those of one process."""
    _, (first, second) = two
    health = LatentHealth(blobs.tensor()[:100], encode="vae.encode")
    alone = train_vae(
        blobs,
        Dense(widths=(16,), latent=3),
        objective=Objective(balance=balance),
        epochs=2,
        batch_size=32,
        learning_rate=5e-3,
        device="cpu",
        seed=4,
        callbacks=[health],
    )
    for process in (first, second):
        together = process["balances"][balance]
        for record, single in zip(together["history"], alone.history, strict=True):
            check_alike(record, single)
        for row, single_row in zip(together["health"], health.table(), strict=True):
            check_alike(row, single_row)


def test_the_metric_is_that_of_all_images(two: Told, blobs: ImageSet) -> None:
    """The one torchmetrics shell there is; shares of unequal size."""
    _, (first, second) = two
    pixels = blobs.tensor().flatten(1)
    expected = frechet_distance(torch.cat([pixels[:100], pixels[:30]]), pixels[150:], resamples=0).value
    assert first["frechet"] == pytest.approx(expected, rel=1e-6)
    assert first["frechet"] == second["frechet"]


def test_every_torchmetrics_shell_is_tested_here() -> None:
    """A new one belongs into the launch above."""
    for found in pkgutil.walk_packages(latlas.__path__, "latlas."):
        if ".metrics" in found.name:
            importlib.import_module(found.name)
    source = Path(latlas.__path__[0])
    using = {path.stem for path in source.rglob("*.py") if "from torchmetrics import" in path.read_text(encoding="utf-8")}
    assert using == {"metrics"}
    ours = {each.__name__ for each in Metric.__subclasses__() if each.__module__.startswith("latlas.")}
    assert ours == {"FrechetDistanceMetric"}


def test_both_processes_balance_by_the_error_of_all_images(two: Told) -> None:
    _, (first, second) = two
    errors = np.array([first["errors"], second["errors"]])
    assert errors.shape == (2, 30)  # those of the first training
    assert (errors[0] != errors[1]).all()
    mean, variance, held = 1.0, 1.0, []
    for error in errors.mean(axis=0):
        mean = 0.99 * mean + 0.01 * error
        variance = min(variance, mean)
        held.append(variance)
    for process in (first, second):
        told = [record["likelihood_variance"] for record in process["history"]]
        assert told == pytest.approx(held[9::10], rel=1e-12)
