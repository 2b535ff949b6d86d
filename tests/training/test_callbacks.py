"""Callbacks on a training that is not ours: a plain LightningModule, whose posteriors the test plants or computes itself."""

import csv
import json
import logging
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from torch.utils.data import DataLoader, TensorDataset

import latlas
from latlas.base.errors import CapabilityError, IllPosedError, ImageFormatError, SettingError, UnknownNameError
from latlas.data.images import ImageSet
from latlas.models.architectures.dense import Dense
from latlas.training.callbacks import CollapseGuard, LatentHealth, LatentTrajectories
from latlas.training.runs import train_vae

STEPS = 5  # optimiser steps an epoch
ROWS = torch.randn(40, 6, generator=torch.Generator().manual_seed(3))


class PlainVAE(L.LightningModule):
    """Somebody else's training: dropout, batch norm, automatic optimisation."""

    def __init__(self, kl_weight: float = 0.01) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2))
        self.head, self.decoder = nn.Linear(16, 4), nn.Linear(2, 6)
        self.frozen = nn.BatchNorm1d(6).eval()  # a part that its owner keeps in evaluation mode
        self.kl_weight = kl_weight

    def encode(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.head(self.body(rows)).chunk(2, dim=1)
        return mean, log_variance

    def noisy(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.encode(rows)
        return mean + 0.0 * torch.randn_like(mean), log_variance

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        mean, log_variance = self.encode(batch[0])
        back = self.decoder(mean + torch.randn_like(mean) * (0.5 * log_variance).exp())
        kl = 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).sum(1).mean()
        return (back - batch[0]).square().sum(1).mean() + self.kl_weight * kl

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.01)


def fit(*callbacks: L.Callback, epochs: int = 3, module: L.LightningModule | None = None, **settings: Any) -> L.LightningModule:
    torch.manual_seed(11)
    trained = PlainVAE() if module is None else module
    fixed: dict[str, Any] = {"logger": False, "enable_checkpointing": False}
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        **{**fixed, **{key: value for key, value in settings.items() if key != "ckpt_path"}},
    )
    loader = DataLoader(TensorDataset(ROWS), batch_size=8)
    trainer.fit(trained, loader, ckpt_path=settings.get("ckpt_path"), weights_only=True if "ckpt_path" in settings else None)
    return trained


# What is seen


def test_the_last_record_is_what_torch_says_of_the_trained_network() -> None:
    health = LatentHealth(ROWS)
    module = fit(health)
    assert [record.step for record in health.records] == [5, 10, 15]
    assert [record.epoch for record in health.records] == [1, 2, 3]
    module.eval()
    with torch.no_grad():
        mean, log_variance = module.encode(ROWS)  # type: ignore[operator]
    prior = Normal(torch.zeros(2), torch.ones(2))
    last = health.records[-1]
    torch.testing.assert_close(
        torch.tensor(last.kl_nats), kl_divergence(Normal(mean, (0.5 * log_variance).exp()), prior).mean(0)
    )
    torch.testing.assert_close(torch.tensor(last.variance_of_means), mean.var(0, unbiased=False))
    torch.testing.assert_close(torch.tensor(last.mean_posterior_variance), log_variance.exp().mean(0))


def test_trajectories_begin_before_the_first_step_and_pass_through_the_chosen_ones() -> None:
    torch.manual_seed(11)
    start = PlainVAE().eval()
    with torch.no_grad():
        mean, log_variance = start.encode(ROWS[:4])
    path = LatentTrajectories(ROWS[:4], steps=[0, 1, 7, 15, 99])
    fit(path)
    seen = path.trajectories()
    assert seen.steps.tolist() == [0, 1, 7, 15]
    assert seen.mean[0].equal(mean)
    assert seen.squared_radius()[0] == pytest.approx(log_variance.exp().log().mean(1).exp())
    assert not seen.mean[1].equal(seen.mean[2])


@pytest.mark.parametrize(("every", "steps"), [(1, list(range(16))), (4, [0, 4, 8, 12]), (15, [0, 15]), (100, [0])])
def test_looks_come_every_so_many_steps(every: int, steps: list[int]) -> None:
    path = LatentTrajectories(ROWS[:2], every=every)
    fit(path)
    assert path.trajectories().steps.tolist() == steps


def test_a_step_that_the_count_leaps_over_is_made_up_for_at_the_next() -> None:
    class Twice(PlainVAE):
        """Two optimiser steps a batch, as GANs take."""

        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch: list[Tensor], batch_idx: int) -> None:  # type: ignore[override]
            for _ in range(2):
                optimizer: Any = self.optimizers()
                optimizer.zero_grad()
                self.manual_backward(PlainVAE.training_step(self, batch, batch_idx))
                optimizer.step()

    path = LatentTrajectories(ROWS[:2], steps=[1, 5, 6])
    torch.manual_seed(11)
    fit(path, module=Twice(), epochs=1)
    assert path.trajectories().steps.tolist() == [2, 6]


# Watching changes nothing


def test_a_training_that_is_watched_ends_with_the_weights_of_one_that_is_not() -> None:
    """Dropout and batch norm see no look, and an encoder that draws noise takes none of the training's."""
    alone = fit().state_dict()
    watched = fit(
        LatentHealth(ROWS, encode="noisy", every=1),
        LatentTrajectories(ROWS[:3], every=2),
        CollapseGuard(ROWS, least_active=0.5),
    )
    assert all(tensor.equal(alone[name]) for name, tensor in watched.state_dict().items())


def test_every_part_is_left_in_the_mode_it_was_in() -> None:
    class Modes(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *rest: Any) -> None:
            assert pl_module.training
            assert not pl_module.frozen.training  # type: ignore[union-attr]

    module = PlainVAE()

    class Freeze(L.Callback):
        def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            pl_module.frozen.eval()  # type: ignore[union-attr, operator]

    fit(Freeze(), LatentHealth(ROWS, every=1), Modes(), module=module)


def test_our_own_training_is_watched_step_by_step_and_ends_the_same(blobs: ImageSet) -> None:
    def run(callbacks: list[L.Callback]) -> Any:
        return train_vae(
            blobs, Dense(widths=(8,), latent=2), epochs=2, batch_size=32, seed=1, device="cpu", callbacks=callbacks
        ).model

    path = LatentTrajectories(blobs.tensor()[:3], encode="vae.encode", every=1)
    watched, alone = run([path]), run([])
    assert path.trajectories().steps.tolist() == list(range(21))
    assert watched.fingerprint == alone.fingerprint


# What is kept


def test_a_training_that_goes_on_keeps_what_was_seen_before(tmp_path: Path) -> None:
    def watchers() -> list[Any]:
        return [LatentHealth(ROWS), LatentHealth(ROWS[:9], name="few"), LatentTrajectories(ROWS[:2], every=4)]

    whole = watchers()
    keep = {"enable_checkpointing": True}
    fit(*whole, ModelCheckpoint(dirpath=tmp_path / "whole", every_n_epochs=1), epochs=4, **keep)
    first, rest = watchers(), watchers()
    fit(*first, ModelCheckpoint(dirpath=tmp_path / "parts", filename="half"), epochs=2, **keep)
    fit(*rest, epochs=4, ckpt_path=str(tmp_path / "parts" / "half.ckpt"))
    assert [record.step for record in rest[0].records] == [record.step for record in whole[0].records] == [5, 10, 15, 20]
    assert rest[0].records[:2] == first[0].records
    assert rest[1].records[:2] == first[1].records != first[0].records
    assert rest[2].trajectories().steps.tolist() == [0, 4, 8, 12, 16, 20]
    assert rest[2].trajectories().mean[:3].equal(first[2].trajectories().mean)


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_the_table_is_written_with_one_row_a_record_and_variable(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"health.{kind}"
    health = LatentHealth(ROWS, out=path)
    fit(health)
    text = path.read_text(encoding="utf-8")
    rows = json.loads(text) if kind == "json" else list(csv.DictReader(text.splitlines()))
    assert [(int(row["step"]), int(row["variable"])) for row in rows] == [(s, v) for s in (5, 10, 15) for v in (0, 1)]
    assert [float(row["kl_nats"]) for row in rows] == [value for record in health.records for value in record.kl_nats]
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_scalars_reach_the_trainings_own_logger(tmp_path: Path) -> None:
    health = LatentHealth(ROWS, name="probe")
    log = CSVLogger(tmp_path, name="", version="run")
    fit(health, logger=log, log_every_n_steps=1)
    lines = list(csv.DictReader((tmp_path / "run" / "metrics.csv").read_text(encoding="utf-8").splitlines()))
    told = {int(line["step"]): float(line["probe/kl_nats/001"]) for line in lines if line.get("probe/kl_nats/001")}
    assert told == {record.step: pytest.approx(record.kl_nats[1]) for record in health.records}


# Collapse


def collapsing(after: int) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """A planted encoder of four variables: all alive at first, one alive from the look numbered `after` on."""
    looks = iter(range(1000))

    def encode(rows: Tensor) -> tuple[Tensor, Tensor]:
        mean = torch.randn(len(rows), 4, generator=torch.Generator().manual_seed(0))
        if next(looks) >= after:
            mean[:, 1:] *= 1e-3
        return mean, torch.zeros_like(mean)

    return encode


def test_a_collapse_stops_the_training_where_it_is_found(caplog: pytest.LogCaptureFixture) -> None:
    guard = CollapseGuard(ROWS, encode=collapsing(after=2), least_active=0.5, action="stop")
    health = LatentHealth(ROWS)
    with caplog.at_level(logging.WARNING, logger="latlas.training.callbacks"):
        fit(guard, health, epochs=9)
    assert guard.spoke_at == health.records[-1].step == 15
    assert len(caplog.records) == 1
    assert "1 of 4 latent variables are active after step 15, fewer than the 2" in caplog.text
    assert "stops" in caplog.text


def test_a_warning_is_given_once_and_the_training_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    guard, health = CollapseGuard(ROWS, encode=collapsing(after=1), least_active=1.0), LatentHealth(ROWS)
    with caplog.at_level(logging.WARNING, logger="latlas.training.callbacks"):
        fit(guard, health, epochs=6)
    assert guard.spoke_at == 10
    assert len(caplog.records) == 1
    assert len(health.records) == 6


@pytest.mark.parametrize(("least", "speaks"), [(0.25, False), (0.26, True)])
def test_the_guard_speaks_below_the_share_and_not_at_it(least: float, speaks: bool) -> None:
    guard = CollapseGuard(ROWS, encode=collapsing(after=0), least_active=least)
    fit(guard)
    assert (guard.spoke_at is not None) is speaks


@pytest.mark.parametrize(("grace", "step"), [(0, 5), (1, 5), (3, 15)])
def test_the_first_epochs_are_not_judged(grace: int, step: int) -> None:
    guard = CollapseGuard(ROWS, encode=collapsing(after=0), least_active=0.5, grace=grace)
    fit(guard)
    assert guard.spoke_at == step


def test_steps_within_the_first_epochs_are_not_judged_either() -> None:
    guard = CollapseGuard(ROWS, encode=collapsing(after=0), least_active=0.5, grace=2, every=1)
    fit(guard)
    assert guard.spoke_at == 2 * STEPS + 1


def test_a_posterior_that_left_the_numbers_is_no_collapse() -> None:
    guard = CollapseGuard(ROWS, encode=lambda rows: (rows[:, :2] * math.nan, rows[:, :2]), least_active=0.5)
    fit(guard)
    assert guard.spoke_at is None


def test_a_kl_that_wins_is_caught_in_a_real_training() -> None:
    guard = CollapseGuard(ROWS, least_active=0.5, action="stop", grace=2)
    fit(guard, module=PlainVAE(kl_weight=300.0), epochs=60)
    assert guard.spoke_at is not None
    calm = CollapseGuard(ROWS, least_active=0.5, action="stop", grace=2)
    fit(calm, epochs=10)
    assert calm.spoke_at is None


def test_a_training_that_was_stopped_says_after_which_epoch(blobs: ImageSet, tmp_path: Path) -> None:
    guard = CollapseGuard(blobs.tensor(), encode=collapsing(after=1), least_active=0.5, action="stop")
    run = train_vae(
        blobs, Dense(widths=(8,), latent=2), epochs=5, batch_size=32, device="cpu", callbacks=[guard], out=tmp_path / "model"
    )
    assert len(run.history) == 2
    assert any("after epoch 2 of 5" in warning for warning in run.warnings)
    assert run.images_per_second * run.seconds == pytest.approx(2 * len(blobs))


# What encoders may give, and what they may not


@pytest.mark.parametrize(
    "wrap",
    [
        lambda mean, log: [mean, log],
        lambda mean, log: SimpleNamespace(mean=mean, log_variance=log),
        lambda mean, log: SimpleNamespace(mean=mean, logvar=log),
    ],
    ids=["list", "latlas", "diffusers"],
)
def test_posteriors_come_in_several_wrappings(wrap: Callable[[Tensor, Tensor], Any]) -> None:
    health = LatentHealth(ROWS, encode=lambda rows: wrap(rows[:, :2], torch.zeros(len(rows), 2)))
    fit(health, epochs=1)
    assert health.records[0].variance_of_means == pytest.approx(ROWS[:, :2].double().var(0, unbiased=False).tolist())


def test_channels_of_a_spatial_code_are_its_variables() -> None:
    code = torch.randn(40, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    health = LatentHealth(ROWS, encode=lambda rows: (code, torch.zeros_like(code)))
    fit(health, epochs=1)
    assert health.records[0].kl_nats == pytest.approx((0.5 * code.square()).mean(0).flatten(1).sum(1).tolist())


@pytest.mark.parametrize(
    ("encode", "words"),
    [
        ("nothing.there", "no method 'nothing.there'"),
        ("kl_weight", "no method 'kl_weight'"),
        (lambda rows: (rows, None), "no posterior variances"),
        (lambda rows: SimpleNamespace(mean=rows, log_variance=None), "no posterior variances"),
        (lambda rows: rows, "got Tensor"),
        (lambda rows: (rows, rows, rows), "got tuple"),
        (lambda rows: (rows[:3], rows[:3]), "of 40 images"),
        (lambda rows: (rows, rows[:, :2]), r"\(40, 2\)"),
    ],
)
def test_an_encoder_without_posteriors_is_refused_in_words(encode: Any, words: str) -> None:
    with pytest.raises(CapabilityError, match=words):
        fit(LatentHealth(ROWS, encode=encode))


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: LatentTrajectories(ROWS, every=2, steps=[1]), SettingError),
        (lambda: LatentTrajectories(ROWS, every=0), SettingError),
        (lambda: LatentTrajectories(ROWS, steps=[]), SettingError),
        (lambda: LatentTrajectories(ROWS, steps=[3, -1]), SettingError),
        (lambda: LatentTrajectories(ROWS[:0]), ImageFormatError),
        (lambda: LatentTrajectories(ROWS).trajectories(), IllPosedError),
        (lambda: LatentHealth(ROWS[:1]), IllPosedError),
        (lambda: LatentHealth(ROWS, out="health.txt"), SettingError),
        (lambda: CollapseGuard(ROWS[:1], least_active=0.5), IllPosedError),
        (lambda: CollapseGuard(ROWS, least_active=0.0), SettingError),
        (lambda: CollapseGuard(ROWS, least_active=1.5), SettingError),
        (lambda: CollapseGuard(ROWS, least_active=0.5, grace=-1), SettingError),
        (lambda: CollapseGuard(ROWS, least_active=0.5, action="halt"), UnknownNameError),
    ],
)
def test_settings_out_of_range_are_refused_at_once(make: Callable[[], object], error: type[Exception]) -> None:
    with pytest.raises(error):
        make()


def test_the_package_publishes_them() -> None:
    assert latlas.LatentHealth is LatentHealth
    assert latlas.LatentTrajectories is LatentTrajectories
    assert latlas.CollapseGuard is CollapseGuard
