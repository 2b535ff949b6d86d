"""TensorBoard: every latent variable has curves of its own, and they are the history's numbers."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from latlas.data.images import ImageSet
from latlas.models.architectures.dense import Dense
from latlas.training.runs import train_vae

LATENT = 3
ReadScalars = Callable[[Path], dict[str, dict[int, float]]]


class PowerCut(Exception):
    """The machine went away."""


@pytest.mark.parametrize("interrupted", [False, True], ids=["in one go", "cut off and resumed"])
def test_a_collapse_can_be_watched_variable_by_variable(
    interrupted: bool, blobs: ImageSet, read_scalars: ReadScalars, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Event files are named by the second, and both halves of a training that was cut off may fall into one."""
    monkeypatch.setattr("tensorboardX.event_file_writer.time", SimpleNamespace(time=lambda: 1_700_000_000.0))

    def progress(task: str, done: int, total: int | None, note: str = "") -> None:
        if interrupted and done > 1.5 * len(blobs):
            raise PowerCut

    def train(told: object) -> list[dict[str, object]]:
        run = train_vae(
            blobs,
            Dense(widths=(16,), latent=LATENT),
            epochs=3,
            batch_size=32,
            device="cpu",
            out=tmp_path / "model",
            progress=told,  # type: ignore[arg-type]
        )
        return run.history

    if interrupted:
        with pytest.raises(PowerCut):
            train(progress)
    history = train(lambda task, done, total, note="": None)
    scalars = read_scalars(tmp_path / "model" / "run")
    for name in ("kl", "variance_of_means", "mean_posterior_variance"):
        assert sorted(tag for tag in scalars if tag.startswith(f"{name}/")) == [f"{name}/{i:03d}" for i in range(LATENT)]
        for variable in range(LATENT):
            told = scalars[f"{name}/{variable:03d}"]
            expected = {record["epoch"]: np.float32(record[name][variable]) for record in history}  # type: ignore[index]
            assert told == pytest.approx(expected, rel=1e-6)  # an event holds float32
    for name in ("loss", "reconstruction_nats", "kl_nats", "squared_error", "likelihood_variance", "active"):
        assert scalars[name] == pytest.approx({record["epoch"]: record[name] for record in history}, rel=1e-6)
