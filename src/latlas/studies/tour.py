"""The whole atlas on digits in minutes: train, diagnose, map, support, range, on MNIST with real controls."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from latlas.base.errors import SettingError
from latlas.base.progress import Progress, silent
from latlas.base.records import plain
from latlas.base.seeds import derived_seed
from latlas.data.images import ImageSet
from latlas.data.loading import load_images
from latlas.inversion.descent import Budget
from latlas.models.architectures.dense import Dense
from latlas.models.vae import VAE
from latlas.studies.compare import compare
from latlas.studies.comparison import Comparison
from latlas.studies.diagnose import Diagnosis, diagnose
from latlas.studies.range_calibration import calibrate_range, own_samples
from latlas.studies.range_test import RangeResult, range_test
from latlas.studies.support import (
    SmallFits,
    SpreadComparison,
    build_support_set,
    compare_small_fits,
    compare_spread,
)
from latlas.supports.support_set import SupportSet
from latlas.training.objectives import Objective
from latlas.training.runs import TrainedVAE, train_vae

OBJECTIVES = {
    # The posts on sparsity (2018-19) precede the balance rule: a Bernoulli ELBO with constant weights.
    "sparse": Objective(balance="fixed", likelihood="bernoulli"),
    "balanced": Objective(balance="running-error"),
}


@dataclass(frozen=True, kw_only=True)
class TourSettings:
    """How much the tour does; the defaults take under five minutes on two cores."""

    seed: int = 0
    epochs: int = 20  # of each of the three trainings
    train_images: int | None = None  # None: all 60,000
    test_images: int | None = None  # None: all 10,000
    judged: int = 1000  # test digits, and Fashion-MNIST images, that the range test judges
    own_samples: int = 200  # fresh samples that check the rate of false alarms
    calibration_samples: int = 2000
    budget: Budget = field(default_factory=lambda: Budget(steps=200))
    device: str = "auto"

    def __post_init__(self) -> None:
        for name in ("epochs", "judged", "own_samples", "calibration_samples"):
            if getattr(self, name) < 1:
                raise SettingError(f"The tour's {name} must be at least 1, got {getattr(self, name)}.")


@dataclass(frozen=True, kw_only=True, eq=False)
class Tour:
    """Everything that the tour found."""

    settings: TourSettings
    train: ImageSet
    test: ImageSet
    trained: dict[str, TrainedVAE]  # "sparse", "balanced", "balanced again" (another seed)
    diagnosis: dict[str, Diagnosis]  # "sparse", "balanced"
    comparison: Comparison  # "balanced" -> "balanced again"
    support: SupportSet
    spread: SpreadComparison
    small_fits: SmallFits
    ranges: dict[str, RangeResult]  # "own", "digits", "fashion"
    judged: dict[str, ImageSet]  # the images of each
    seconds: dict[str, float]  # of each part

    @property
    def models(self) -> dict[str, VAE]:
        """The three models by name."""
        return {name: run.model for name, run in self.trained.items()}

    def to_json(self) -> dict[str, Any]:
        """Return every number; the keys are stable."""
        record: dict[str, Any] = plain(
            {
                "settings": self.settings,
                "data": {
                    "train": {"name": self.train.name, "count": len(self.train)},
                    "test": {"name": self.test.name, "count": len(self.test)},
                },
                "training": {
                    name: {
                        "images_per_second": run.images_per_second,
                        "seconds": run.seconds,
                        "precision": run.precision,
                        "warnings": run.warnings,
                        "history": run.history,
                        "provenance": None if run.model.provenance is None else run.model.provenance.to_json(),
                    }
                    for name, run in self.trained.items()
                },
                "diagnosis": {name: sheet.to_json() for name, sheet in self.diagnosis.items()},
                "map": {"type1": self.comparison.to_json(), "support": self.small_fits.to_json()},
                "support": {
                    "members": len(self.support),
                    "variables": self.support.sectors.variables,
                    "threshold": self.support.sectors.threshold,
                    "centre": self.support.sectors.centre,
                    "sectors": self.support.sectors.count,
                    "inhabited": self.support.inhabited,
                    "occupancy": self.support.occupancy,
                    "spread": self.spread.to_json(),
                    "provenance": self.support.provenance.to_json(),
                },
                "range": {
                    **{f"{name}_rejected_at_5pct": result.summary()["rejected"] for name, result in self.ranges.items()},
                    **{name: result.summary() for name, result in self.ranges.items()},
                },
                "seconds": self.seconds,
            }
        )
        return record


def run_tour(settings: TourSettings | None = None, *, progress: Progress = silent) -> Tour:
    """Run the tour on MNIST, with Fashion-MNIST as images that are out of range by construction.

    Raises:
        DataUnavailableError: a data set cannot be had.
    """
    plan = settings if settings is not None else TourSettings()
    seconds: dict[str, float] = {}
    with _timed("data", seconds):
        train = load_images("mnist:train", progress=progress).slice(0, plan.train_images)
        test = load_images("mnist:test", progress=progress).slice(0, plan.test_images)
        fashion = load_images("fashion-mnist:test", progress=progress).slice(0, plan.judged)
    with _timed("training", seconds):
        trained = {
            name: train_vae(
                train,
                Dense(),
                objective=OBJECTIVES[name.split()[0]],
                epochs=plan.epochs,
                seed=derived_seed(plan.seed, name),
                device=plan.device,
                name=f"{name} VAE",
                progress=progress,
            )
            for name in ("sparse", "balanced", "balanced again")
        }
    source, target = trained["balanced"].model, trained["balanced again"].model
    with _timed("diagnosis", seconds):
        diagnosis = {name: diagnose(trained[name].model, test, progress=progress) for name in ("sparse", "balanced")}
    with _timed("map", seconds):
        comparison = compare(source, target, train, test=test, seed=plan.seed, progress=progress)
    with _timed("support", seconds):
        order = diagnosis["balanced"].gain.order()
        active = max(diagnosis["balanced"].latents.active_count, 1)
        support = build_support_set(source, train, variables=min(7, active), order=order, seed=plan.seed, progress=progress)
        spread = compare_spread(support, train, seed=plan.seed)
        small_fits = compare_small_fits(source, target, train, support, test, seed=plan.seed, progress=progress)
    with _timed("range", seconds):
        calibration = calibrate_range(
            source, samples=plan.calibration_samples, budget=plan.budget, seed=plan.seed, progress=progress
        )
        judged = {
            "own": own_samples(source, plan.own_samples, seed=plan.seed, purpose="fresh samples"),
            "digits": test.slice(0, plan.judged),
            "fashion": fashion,
        }
        # Other test digits, so that "no decoder sample" can be told from "no digit".
        ordinary = test.slice(plan.judged, 2 * plan.judged) if len(test) >= 2 * plan.judged else None
        ranges = {
            name: range_test(
                source, images, reference=None if name == "own" else ordinary, calibration=calibration, progress=progress
            )
            for name, images in judged.items()
        }
    return Tour(
        settings=plan,
        train=train,
        test=test,
        trained=trained,
        diagnosis=diagnosis,
        comparison=comparison,
        support=support,
        spread=spread,
        small_fits=small_fits,
        ranges=ranges,
        judged=judged,
        seconds=seconds,
    )


@contextmanager
def _timed(part: str, seconds: dict[str, float]) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[part] = time.perf_counter() - started
