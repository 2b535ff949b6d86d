"""A checkpoint that somebody else has put into the place of one's own: one line, exit code 2, and nothing else happens."""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from latlas.base.errors import ArtifactError
from latlas.cli import main
from latlas.training.checkpoints import WholeCheckpoints, read_checkpoint

Change = Callable[[dict[str, Any]], Any]


class Calls:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def train(place: Path, epochs: int) -> int:
    """Train by the command line, in this process; return its exit code."""
    asked = [
        "train",
        "dense",
        str(place / "data.npy"),
        "--widths",
        "4",
        "--latent",
        "2",
        "--epochs",
        str(epochs),
        "--device",
        "cpu",
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["latlas", *asked, "--batch-size", "8", "--out", str(place / "model")])
        try:
            main.run()
        except SystemExit as end:
            return int(end.code or 0)
    return 0


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images and a training of them that was interrupted after its first epoch."""
    place = tmp_path_factory.mktemp("interrupted")
    np.save(place / "data.npy", np.random.default_rng(0).integers(0, 256, (24, 4, 4), dtype=np.uint8))
    save = WholeCheckpoints.save_checkpoint

    def save_and_end(self: WholeCheckpoints, *arguments: Any, **named: Any) -> None:
        save(self, *arguments, **named)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WholeCheckpoints, "save_checkpoint", save_and_end)
        assert train(place, 3) == 130
    return place


@pytest.fixture
def place(interrupted: Path, tmp_path: Path) -> Path:
    """A copy of it, at the same names."""
    return Path(shutil.copytree(interrupted, tmp_path / "copy"))


def checkpoint_of(place: Path) -> Path:
    return place / ".model.training" / "last.ckpt"


def change(place: Path, how: Change) -> None:
    """Put a changed copy in the place of the checkpoint."""
    checkpoint = torch.load(checkpoint_of(place), weights_only=True)
    changed = how(checkpoint)
    torch.save(checkpoint if changed is None else changed, checkpoint_of(place))


def test_an_interrupted_training_goes_on_where_nothing_was_changed(place: Path) -> None:
    assert train(place, 3) == 0
    assert sorted(path.name for path in place.iterdir()) == ["data.npy", "model"]


HOSTILE: dict[str, Change] = {
    "a list": lambda found: [1, 2],
    "nothing of a checkpoint": lambda found: {"a": torch.ones(1)},
    "no weights": lambda found: found.pop("state_dict") and None,
    "weights of another network": lambda found: found["state_dict"].update({"vae.x": torch.ones(3)}),
    "weights of another shape": lambda found: found["state_dict"].update(
        {name: value.flatten()[:1] for name, value in found["state_dict"].items()}
    ),
    "weights of text": lambda found: found["state_dict"].update(dict.fromkeys(found["state_dict"], "x")),
    "epochs below zero": lambda found: found.update(epoch=-(10**9)),
    "a count of text": lambda found: found["loops"]["fit_loop"]["epoch_progress"]["current"].update(completed="x"),
    "a count beyond all": lambda found: found["loops"]["fit_loop"]["epoch_progress"]["current"].update(ready=10**30),
    "no loops": lambda found: found.update(loops={"fit_loop": {}}),
    "an optimiser's memory of another shape": lambda found: found["optimizer_states"][0]["state"][0].update(exp_avg=torch.ones(7)),
    "an optimiser without groups": lambda found: found["optimizer_states"][0].update(param_groups=[]),
    "no optimiser": lambda found: found.update(optimizer_states=[]),
    "a schedule that cannot be called": lambda found: found["lr_schedulers"][0].update(step=3),
    "no history": lambda found: found.update(latlas_history=[]),
    "a history of another training": lambda found: found.update(latlas_history=[{"step": 3}]),
    "a history with NaN": lambda found: found["latlas_history"][0].update(loss=float("nan")),
    "a version of no number": lambda found: found.update({"pytorch-lightning_version": "x.y"}),
    "a version of before all": lambda found: found.update({"pytorch-lightning_version": "0.0.1"}),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_checkpoint_of_something_else_is_one_line_and_exit_code_2(
    kind: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(place, HOSTILE[kind])
    capsys.readouterr()
    code = train(place, 3)
    told = capsys.readouterr().err.strip().splitlines()
    assert code == 2, told
    assert told[-1].startswith(f"latlas: {checkpoint_of(place)} is no checkpoint that this training can go on from (")
    assert "Delete" in told[-1]
    assert not any("Traceback" in line for line in told)
    assert not (place / "model").exists()


@pytest.mark.parametrize("where", ["as the whole", "as a weight", "in the history", "as a callback's state"])
def test_a_checkpoint_that_would_run_something_runs_nothing(
    where: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mark = place / "mark"
    bomb = Calls(os.system, f"touch {mark}")
    plans: dict[str, Change] = {
        "as the whole": lambda found: bomb,
        "as a weight": lambda found: found["state_dict"].update(x=bomb),
        "in the history": lambda found: found["latlas_history"].append(bomb),
        "as a callback's state": lambda found: found["callbacks"].update(ReportProgress=bomb),
    }
    change(place, plans[where])
    assert train(place, 3) == 2
    assert "cannot be read safely" in capsys.readouterr().err
    assert not mark.exists()
    torch.load(checkpoint_of(place), weights_only=False)  # which would have
    assert mark.exists()


def test_bytes_that_are_no_checkpoint_are_one_line(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = checkpoint_of(place).read_bytes()
    for content in (b"", b"x", whole[:100], whole[: len(whole) // 2], whole[:-30]):
        checkpoint_of(place).write_bytes(content)
        assert train(place, 3) == 2
        assert "cannot be read safely" in capsys.readouterr().err


@pytest.mark.parametrize("way", ["beside", "through the folder", "elsewhere", "another protocol"])
def test_a_checkpoint_has_nothing_removed_by_naming_it_as_the_best(way: str, place: Path) -> None:
    """Lightning removes the best checkpoint so far when there is a better one, where the checkpoint that it goes on from says."""
    treasure = place / "treasure"
    treasure.mkdir()
    (treasure / "thesis.txt").write_text("years")
    work = checkpoint_of(place).parent
    path = {
        "beside": str(work / "run"),
        "through the folder": f"{work}/../treasure",
        "elsewhere": str(treasure),
        "another protocol": f"local://{treasure}",
    }[way]
    key = "ModelCheckpoint{'monitor': None, 'mode': 'min', 'every_n_train_steps': 0, 'every_n_epochs': 1, 'train_time_interval': None}"
    state = {"best_model_path": path, "best_model_score": None, "dirpath": str(work)}

    def name(found: dict[str, Any]) -> None:
        found["callbacks"] = {key: state, key.replace("ModelCheckpoint", "_LastCheckpoint"): state}

    change(place, name)
    assert train(place, 3) == 0
    assert (treasure / "thesis.txt").read_text() == "years"
    assert list((place / "model" / "run").glob("events.*"))  # nor was the log of the first epoch


def test_a_finished_training_with_another_history_is_refused_too(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No step is left that could fail: the history alone would be told as this model's."""

    def finished(found: dict[str, Any]) -> None:
        found["latlas_history"] = [{"epoch": 3, "loss": 1.0}]
        for which in ("total", "current"):
            found["loops"]["fit_loop"]["epoch_progress"][which] = dict.fromkeys(
                ("ready", "completed", "started", "processed"), 3
            )

    change(place, finished)
    assert train(place, 3) == 2
    assert "history is of another training" in capsys.readouterr().err


def test_counts_that_never_end_are_refused(tmp_path: Path, place: Path) -> None:
    change(place, lambda found: found.update(global_step=2**60))
    with pytest.raises(ArtifactError, match="counts are out of range"):
        read_checkpoint(checkpoint_of(place))


def test_a_checkpoint_that_holds_itself_ends(place: Path) -> None:
    def within_itself(found: dict[str, Any]) -> None:
        found["loops"]["fit_loop"] = found["loops"]

    change(place, within_itself)
    with pytest.raises(ArtifactError, match="no checkpoint"):
        read_checkpoint(checkpoint_of(place))
