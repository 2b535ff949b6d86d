"""Resume: a training that was cut off ends with the weights it would have had, to the last bit."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from latlas.base.errors import ArtifactError, OutputExistsError, SettingError
from latlas.base.locking import FolderLock
from latlas.base.progress import Progress, silent
from latlas.base.provenance import Provenance
from latlas.data.images import ImageSet
from latlas.models.architectures.dense import Dense
from latlas.models.vae import VAE
from latlas.training import resumable, runs
from latlas.training.resumable import held_work_folder
from latlas.training.runs import TrainedVAE, train_vae

EPOCHS = 4


class PowerCut(Exception):
    """The machine went away."""


def cut(after: float, images: int) -> Progress:
    """A progress that ends the training once it has seen that many epochs."""

    def progress(task: str, done: int, total: int | None, note: str = "") -> None:
        if done > after * images:
            raise PowerCut

    return progress


def train(images: ImageSet, out: Path | None, progress: Progress = silent, **settings: Any) -> TrainedVAE:
    fixed: dict[str, Any] = {"epochs": EPOCHS, "batch_size": 32, "learning_rate": 5e-3, "device": "cpu", "seed": 2}
    return train_vae(images, Dense(widths=(16,), latent=3), out=out, progress=progress, **{**fixed, **settings})


def same(first: TrainedVAE, second: TrainedVAE) -> bool:
    return all(tensor.equal(second.model.state_dict()[name]) for name, tensor in first.model.state_dict().items())


@pytest.fixture(scope="module")
def uninterrupted(blobs: ImageSet) -> TrainedVAE:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    run = train(blobs, None)
    torch.set_num_threads(threads)
    return run


@pytest.mark.parametrize("epochs", [1.0, 1.9, 3.1])
def test_a_training_that_was_cut_off_goes_on_to_the_same_weights(
    epochs: float, blobs: ImageSet, uninterrupted: TrainedVAE, tmp_path: Path
) -> None:
    """1.9: within an epoch, which is then run again from its start with the same order and the same noise."""
    out = tmp_path / "model"
    with pytest.raises(PowerCut):
        train(blobs, out, cut(epochs, len(blobs)))
    assert not out.exists()
    seen: list[int] = []
    resumed = train(blobs, out, lambda task, done, total, note="": seen.append(done))
    assert min(seen) > int(epochs) * len(blobs)  # it went on, and did not begin again
    assert same(resumed, uninterrupted)
    assert resumed.history == uninterrupted.history
    assert resumed.images_per_second * resumed.seconds == pytest.approx((EPOCHS - int(epochs)) * len(blobs))
    assert VAE.from_pretrained(out).fingerprint == resumed.model.fingerprint
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_training_can_be_cut_off_twice(blobs: ImageSet, uninterrupted: TrainedVAE, tmp_path: Path) -> None:
    for epochs in (1.2, 2.2):
        with pytest.raises(PowerCut):
            train(blobs, tmp_path / "model", cut(epochs, len(blobs)))
    resumed = train(blobs, tmp_path / "model")
    assert same(resumed, uninterrupted)
    assert resumed.history == uninterrupted.history


def test_a_cut_in_the_first_epoch_begins_again(blobs: ImageSet, uninterrupted: TrainedVAE, tmp_path: Path) -> None:
    with pytest.raises(PowerCut):
        train(blobs, tmp_path / "model", cut(0.0, len(blobs)))
    assert same(train(blobs, tmp_path / "model"), uninterrupted)


@pytest.mark.parametrize(("after", "message"), [(1.2, "the same command goes on from epoch 2 of 4"), (0.0, "")])
def test_ctrl_c_leaves_as_an_interruption_that_says_what_was_kept(
    after: float, message: str, blobs: ImageSet, uninterrupted: TrainedVAE, tmp_path: Path
) -> None:
    def progress(task: str, done: int, total: int | None, note: str = "") -> None:
        if done > after * len(blobs):
            os.kill(os.getpid(), signal.SIGINT)

    # A shell without job control starts its background processes with SIGINT ignored; a person's shell does not.
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt) as ended:
            train(blobs, tmp_path / "model", progress)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, inherited)
    assert str(ended.value) == message
    assert [path.name for path in tmp_path.iterdir()] == ([".model.training"] if message else [])
    assert same(train(blobs, tmp_path / "model"), uninterrupted)


def test_a_work_folder_that_cannot_be_made_is_told(blobs: ImageSet, tmp_path: Path) -> None:
    (tmp_path / ".model.training").write_text("a file in its way")
    with pytest.raises(ArtifactError, match=r"Could not write .*\.model\.training"):
        train(blobs, tmp_path / "model")


def test_a_training_that_is_done_leaves_the_folder_of_the_next_one_alone(tmp_path: Path) -> None:
    provenance = Provenance(made_by="train_vae", seed=0, made_from={}, settings={})
    with held_work_folder(tmp_path / "model", provenance) as work:
        assert work is not None
        shutil.rmtree(work)  # as once the artifact has its place
        following = FolderLock(work)
    assert following.held
    following.release()
    with held_work_folder(tmp_path / "model", provenance):
        (work / "settings.json").unlink()
    assert list(tmp_path.iterdir()) == [], "what held nothing is removed by whoever holds it"


def test_a_training_that_died_when_its_model_had_its_place_is_done(
    blobs: ImageSet, uninterrupted: TrainedVAE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*places: Path) -> None:
        raise PowerCut

    out = tmp_path / "model"
    with monkeypatch.context() as patched:
        patched.setattr(resumable, "discard", dies)
        with pytest.raises(PowerCut):
            train(blobs, out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    told: list[tuple[int, int | None, str]] = []
    again = train(blobs, out, lambda task, done, total, note="": told.append((done, total, note)))
    assert told == [(EPOCHS * len(blobs), EPOCHS * len(blobs), "it was done before")]
    assert same(again, uninterrupted)
    assert again.history == uninterrupted.history
    assert (again.seconds, again.warnings) == (0.0, uninterrupted.warnings)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    with pytest.raises(OutputExistsError):
        train(blobs, out)


@pytest.mark.parametrize("replace", [True, False])
def test_another_training_is_not_done_by_one_that_died_when_it_was(
    replace: bool, blobs: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "model"
    with monkeypatch.context() as patched:
        patched.setattr(resumable, "discard", lambda *places: None)
        first = train(blobs, out)
    if replace:
        assert not same(train(blobs, out, seed=3, replace=True), first)
    else:
        with pytest.raises(OutputExistsError):
            train(blobs, out, seed=3)
        assert VAE.from_pretrained(out).fingerprint == first.model.fingerprint
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


KILLED = """
import os, signal, sys
import torch
from latlas.data.images import ImageSet
from latlas.models.architectures.dense import Dense
from latlas.training.runs import train_vae

def progress(task, done, total, note=""):
    if done > 1.5 * 320:
        os.kill(os.getpid(), signal.SIGKILL)

images = ImageSet("blobs", torch.load(sys.argv[1], weights_only=True))
train_vae(images, Dense(widths=(16,), latent=3), epochs=4, batch_size=32, learning_rate=5e-3, device="cpu", seed=2,
          out=sys.argv[2], progress=progress)
"""


def test_a_killed_process_leaves_what_the_next_one_needs(
    blobs: ImageSet, uninterrupted: TrainedVAE, read_scalars: Callable[[Path], dict[str, dict[int, float]]], tmp_path: Path
) -> None:
    """SIGKILL runs no handler: whatever is needed must lie on the disk already."""
    torch.save(blobs.storage, tmp_path / "pixels.pt")
    out = tmp_path / "there" / "model"
    command = [sys.executable, "-c", KILLED, str(tmp_path / "pixels.pt"), str(out)]
    ended = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=120, capture_output=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    assert not out.exists()
    resumed = train(blobs, out)
    assert same(resumed, uninterrupted)
    assert resumed.history == uninterrupted.history
    assert sorted(read_scalars(out / "run")["loss"]) == [1, 2, 3, 4]


@pytest.mark.parametrize("change", [{"seed": 3}, {"learning_rate": 1e-3}, {"epochs": 5}, {"batch_size": 16}])
def test_other_settings_do_not_go_on_with_it(change: dict[str, Any], blobs: ImageSet, tmp_path: Path) -> None:
    with pytest.raises(PowerCut):
        train(blobs, tmp_path / "model", cut(1.2, len(blobs)))
    with pytest.raises(SettingError, match=r"unfinished training with other settings\. Start again with those .* or delete it"):
        train(blobs, tmp_path / "model", **change)


def test_other_images_do_not_go_on_with_it(blobs: ImageSet, tmp_path: Path) -> None:
    with pytest.raises(PowerCut):
        train(blobs, tmp_path / "model", cut(1.2, len(blobs)))
    darker = ImageSet("blobs", blobs.storage // 2)
    with pytest.raises(SettingError, match="unfinished training with other settings"):
        train(darker, tmp_path / "model")


def test_a_training_that_only_failed_to_write_is_not_trained_again(
    blobs: ImageSet, uninterrupted: TrainedVAE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*args: object, **kwargs: object) -> None:
        raise PowerCut

    with monkeypatch.context() as patch:
        patch.setattr(runs, "_publish", full_disk)
        with pytest.raises(PowerCut):
            train(blobs, tmp_path / "model")
    seen: list[int] = []
    resumed = train(blobs, tmp_path / "model", lambda task, done, total, note="": seen.append(done))
    assert seen == []
    assert same(resumed, uninterrupted)
    assert resumed.history == uninterrupted.history
