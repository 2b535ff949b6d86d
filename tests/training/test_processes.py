"""Two processes: they share the images out, hold the same weights, and report what all images together say."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from latlas.data.images import ImageSet
from latlas.models.architectures.dense import Dense
from latlas.models.vae import VAE
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
from latlas.training.module import VAETraining
from latlas.training.runs import train_vae

folder = Path(sys.argv[1])
codes, errors, seeds = [], [], []
statistics, mean_over_processes = VAETraining.epoch_statistics, objectives._mean_over_processes

def spy_on_posteriors(self):
    codes.append(self.epoch_posteriors.as_rows().tolist())  # of this process alone
    seeds.append(self.noise.initial_seed())
    return statistics(self)

def spy_on_errors(value):
    errors.append(float(value))  # of this process alone
    return mean_over_processes(value)

VAETraining.epoch_statistics, objectives._mean_over_processes = spy_on_posteriors, spy_on_errors
images = ImageSet("blobs", torch.load(folder / "pixels.pt", weights_only=True))
run = train_vae(images, Dense(widths=(16,), latent=3), epochs=3, batch_size=32, learning_rate=5e-3, device="cpu", devices=2,
                seed=4, out=folder / "model")
record = {"codes": codes, "errors": errors, "seeds": seeds, "history": run.history, "fingerprint": run.model.fingerprint}
(folder / f"process{os.environ.get('LOCAL_RANK', '0')}.json").write_text(json.dumps(record))
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
        [sys.executable, str(script), str(folder)], env=environment, timeout=180, capture_output=True, check=False
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


def test_no_two_epochs_and_no_two_processes_draw_the_same_noise(two: Told) -> None:
    """Shares of one mini-batch with one noise would be half a draw."""
    _, (first, second) = two
    assert len({*first["seeds"], *second["seeds"]}) == 6


def test_both_processes_balance_by_the_error_of_all_images(two: Told) -> None:
    _, (first, second) = two
    errors = np.array([first["errors"], second["errors"]])
    assert errors.shape == (2, 30)
    assert (errors[0] != errors[1]).all()
    mean, variance, held = 1.0, 1.0, []
    for error in errors.mean(axis=0):
        mean = 0.99 * mean + 0.01 * error
        variance = min(variance, mean)
        held.append(variance)
    for process in (first, second):
        told = [record["likelihood_variance"] for record in process["history"]]
        assert told == pytest.approx(held[9::10], rel=1e-12)


def test_two_processes_learn_what_one_learns(two: Told, blobs: ImageSet) -> None:
    """Other noise, the same mini-batches: the errors of an epoch agree to what noise leaves of 320 images."""
    _, (first, _) = two
    alone = train_vae(blobs, Dense(widths=(16,), latent=3), epochs=3, batch_size=32, learning_rate=5e-3, device="cpu", seed=4)
    for together, single in zip(first["history"], alone.history, strict=True):
        assert together["squared_error"] == pytest.approx(single["squared_error"], rel=0.03)
        assert together["reconstruction_nats"] == pytest.approx(single["reconstruction_nats"], rel=0.03)
