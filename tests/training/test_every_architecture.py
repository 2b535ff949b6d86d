"""Every architecture through a training and what follows it: encode, diagnose, save, load."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from latlas.data.images import ImageSet
from latlas.encodings.encode import encode
from latlas.models.architectures.registry import ARCHITECTURES, architecture
from latlas.models.vae import VAE
from latlas.studies.diagnose import diagnose
from latlas.training.objectives import Objective
from latlas.training.runs import train_vae

SMALL: dict[str, dict[str, object]] = {
    "dense": {"widths": (16,), "latent": 3},
    "conv": {"channels": (4, 6), "latent": 3},
    "resnet": {"scales": 2, "base_dim": 4, "fc_dim": 8, "latent": 3},
    "split": {"scales": 2, "base_dim": 4, "fc_dim": 8, "latent": 3},
    "draw": {"steps": 2, "latent": 3, "hidden": 16, "read": 3, "write": 3},
    "autoencoder-kl": {"channels": (4, 4), "norm_groups": 2, "latent": 3},
}
VARIABLES = {"draw": 6}
every = pytest.mark.parametrize("name", ARCHITECTURES)


@pytest.mark.parametrize("image_shape", [(1, 28, 28), (3, 32, 32)])
@every
def test_two_steps_of_adam_lower_the_loss(name: str, image_shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    model = VAE(architecture(name, **SMALL[name]), image_shape).train()
    images = torch.rand(16, *image_shape, generator=torch.Generator().manual_seed(1)).square()
    noise = torch.randn(16, *model.latent_shape, generator=torch.Generator().manual_seed(2))
    rule = Objective(balance="fixed", sigma=0.3).build()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(3):
        posterior, codes = model.infer(images, noise)
        loss = rule(model.decode_logits(codes), images, posterior).loss
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[0] > losses[1] > losses[2]


@every
def test_a_training_ends_in_a_model_that_encodes_and_comes_back(name: str, blobs: ImageSet, tmp_path: Path) -> None:
    """In evaluation mode at the end, so that an image has one code whatever its company."""
    run = train_vae(
        blobs, architecture(name, **SMALL[name]), epochs=3, batch_size=32, learning_rate=5e-3, device="cpu", out=tmp_path / "m"
    )
    assert run.history[-1]["loss"] < run.history[0]["loss"]
    variables = VARIABLES.get(name, 3)
    assert [len(run.history[-1][key]) for key in ("kl", "variance_of_means", "mean_posterior_variance")] == [variables] * 3
    assert sum(run.history[-1]["kl"]) == pytest.approx(run.history[-1]["kl_nats"], rel=1e-3, abs=1e-3)
    assert 0 <= run.history[-1]["active"] <= variables
    again = VAE.from_pretrained(tmp_path / "m")
    assert again.fingerprint == run.model.fingerprint
    assert not any(module.training for module in run.model.modules())
    encoding = encode(run.model, blobs.slice(0, 40))
    assert encoding.mean.equal(encode(again, blobs.slice(0, 40)).mean)
    torch.testing.assert_close(encode(run.model, blobs.slice(0, 3)).mean, encoding.mean[:3], rtol=1e-4, atol=1e-5)
    assert run.model.fingerprint == again.fingerprint, "nothing was learned from looking"


@every
def test_a_diagnosis_has_one_row_a_variable(name: str, blobs: ImageSet) -> None:
    """A channel of a spatial latent space is one variable."""
    torch.manual_seed(0)
    model = VAE(architecture(name, **SMALL[name]), blobs.image_shape)
    health = diagnose(model, blobs.slice(0, 30))
    assert [row["variable"] for row in health.table] == list(range(VARIABLES.get(name, 3)))
    assert health.gain.mean.shape == (VARIABLES.get(name, 3),)


@every
def test_bfloat16_trains_every_architecture(name: str, blobs: ImageSet) -> None:
    run = train_vae(
        blobs.slice(0, 64), architecture(name, **SMALL[name]), epochs=1, batch_size=32, device="cpu", precision="bfloat16"
    )
    assert all(bool(tensor.isfinite().all()) for tensor in run.model.state_dict().values())


def test_the_same_seed_trains_a_stepwise_model_alike(blobs: ImageSet) -> None:
    first, second = (
        train_vae(blobs.slice(0, 64), architecture("draw", **SMALL["draw"]), epochs=1, batch_size=32, device="cpu")
        for _ in range(2)
    )
    assert first.model.fingerprint == second.model.fingerprint


def test_two_processes_agree_on_what_batch_norm_has_gathered(blobs: ImageSet, tmp_path: Path) -> None:
    """Each sees its own share of the images; the model that is written must not be that of one share."""
    script = tmp_path / "train.py"  # Lightning starts the second process by running the same file again
    script.write_text(
        """
import os, sys, torch
import os
import subprocess
import sys
from pathlib import Path
from latlas.data.images import ImageSet
from latlas.models.architectures.resnet import ResNet
from latlas.training.runs import train_vae
folder = Path(sys.argv[1])
images = ImageSet("blobs", torch.load(folder / "pixels.pt", weights_only=True))
run = train_vae(images, ResNet(scales=2, base_dim=4, fc_dim=8, latent=3), epochs=1, batch_size=32, device="cpu", devices=2)
(folder / f"process{os.environ.get('LOCAL_RANK', '0')}").write_text(run.model.fingerprint)
"""
    )
    torch.save(blobs.storage[:64], tmp_path / "pixels.pt")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"}
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], env=environment, timeout=180, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "process0").read_text() == (tmp_path / "process1").read_text()
