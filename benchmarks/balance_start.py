"""Does the running error's start of 1 matter? Short trainings with other starts, and with rules that need none.

    make bench-balance-start      # four minutes

The dense network of the posts on 20,000 digits, 1, 3 and 10 epochs, three seeds. Writes benchmarks/results/balance_start.json.
"""

import json
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latlas.base.provenance import package_versions
from latlas.cli.progress import shown
from latlas.data.loading import load_images
from latlas.encodings.encode import encode
from latlas.measurements.reconstruction import measure_reconstruction
from latlas.training.objectives import Balance, Objective, RunningError
from latlas.training.runs import train_vae

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results" / "balance_start.json"
EPOCHS, SEEDS = (1, 3, 10), (0, 1, 2)


class Debiased(RunningError):
    """The running mean without the weight of its start, as Adam does it."""

    steps = 0
    weighted: Tensor | float = 0.0

    def update(self, squared_error: Tensor) -> None:
        """Take in the error of a batch."""
        self.steps += 1
        self.weighted = self.momentum * self.weighted + (1.0 - self.momentum) * squared_error.double()
        self.mean_error.copy_(self.weighted / (1.0 - self.momentum**self.steps))
        self.variance.copy_(torch.minimum(self.variance, self.mean_error))


class FromFirstBatch(RunningError):
    """The running mean started at the first batch's error."""

    started = False

    def update(self, squared_error: Tensor) -> None:
        """Take in the error of a batch."""
        if not self.started:
            self.started = True
            self.mean_error.copy_(squared_error.double())
        super().update(squared_error)


@dataclass(frozen=True, kw_only=True)
class Started(Objective):
    """An objective whose running error starts otherwise."""

    rule: type[RunningError]

    def build(self) -> Balance:
        """Return the module that computes it."""
        return self.rule(kl_weight=self.kl_weight)


def main() -> int:
    """Train, measure, write."""
    logging.disable(logging.WARNING)
    objectives: dict[str, Objective] = {
        "running error, start 1": Objective(),
        "running error, start removed": Started(rule=Debiased),
        "running error, start at the first batch": Started(rule=FromFirstBatch),
        "optimal sigma": Objective(balance="optimal-sigma"),
        "learned sigma": Objective(balance="learned-sigma"),
    }
    rows: list[dict[str, Any]] = []
    with shown() as progress:
        train = load_images("mnist:train[0:20000]", progress=progress)
        test = load_images("mnist:test[0:4000]", progress=progress)
        for epochs in EPOCHS:
            for label, objective in objectives.items():
                found = []
                for seed in SEEDS:
                    model = train_vae(train, "dense", objective=objective, epochs=epochs, seed=seed, progress=progress).model
                    encoding = encode(model, test)
                    error = measure_reconstruction(model, encoding.mean, test).error
                    found.append({"seed": seed, "error": error, "active": int(encoding.moments().active().sum())})
                rows.append({"epochs": epochs, "rule": label, "mean_error": sum(f["error"] for f in found) / 3, "runs": found})
    record = {"command": "python benchmarks/balance_start.py", "rows": rows, "versions": package_versions()}
    RESULTS.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    for row in rows:
        print(
            f"{row['epochs']:2} epochs  {row['rule']:42} {row['mean_error']:.4f}  active {[r['active'] for r in row['runs']]}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
