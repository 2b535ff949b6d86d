"""Why renormalising a second stage helps digits and not avatars: its codes beside those that it was fitted to.

    make bench-renormalisation      # after bench-calibration, whose models it uses; some minutes

Writes benchmarks/results/renormalisation.json and a table of docs/concepts/samplers.md.
"""

import json
import sys
from pathlib import Path
from typing import Any

import calibration
import torch
from tables import table, write_table
from torch import Tensor

from latlas.base.provenance import package_versions
from latlas.base.seeds import generator
from latlas.cli.progress import shown
from latlas.data.loading import load_images
from latlas.encodings.encode import encode
from latlas.models.vae import VAE
from latlas.numerics.frechet import frechet_distance_of
from latlas.numerics.moments import Moments
from latlas.samplers.fit import fit_sampler

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results" / "renormalisation.json"
DRAWN = 10_000


def main() -> int:
    """Fit second stages, compare their codes with the encoder's, write."""
    rows: list[dict[str, Any]] = []
    budget = calibration.BUDGETS["quick"]
    with shown() as progress:
        for data in calibration.NETWORKS:
            train = load_images(budget.train[data], progress=progress)
            for seed in calibration.SEEDS:
                folder = calibration.WORK / "quick" / data / f"{calibration.DEFAULT}-{seed}"
                model = VAE.from_pretrained(folder)
                encoding = encode(model, train, progress=progress)
                assert encoding.log_variance is not None
                noise = torch.randn(encoding.mean.shape, generator=generator(seed, "posterior draws"))
                wanted = Moments.of(encoding.mean + noise * (0.5 * encoding.log_variance).exp())
                row: dict[str, Any] = {"data": data, "seed": seed}
                for label, flag in (("plain", False), ("renormalised", True)):
                    sampler = fit_sampler("second-stage", encoding, renormalised=flag, seed=seed, progress=progress)
                    drawn = Moments.of(sampler.sample(DRAWN, generator(seed, "samples")))
                    distance = frechet_distance_of(drawn, wanted)
                    row[label] = {
                        "latent_distance": distance.value,
                        "of_it_means": distance.mean_term,
                        "correlations_off": _off(_correlations(drawn), _correlations(wanted)),
                        "variance_ratio": float(drawn.variance().mean() / wanted.variance().mean()),
                        "least_variance_ratio": float((drawn.variance() / wanted.variance()).min()),
                    }
                row["correlation"] = float(_between(_correlations(wanted)).square().mean().sqrt())
                rows.append(row)
    record = {"command": "python benchmarks/renormalisation.py", "rows": rows, "versions": package_versions()}
    RESULTS.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    write_table("docs/concepts/samplers.md", "second-stage-codes", markdown(record))
    return 0


def markdown(record: dict[str, Any]) -> str:
    """Return the table of docs/concepts/samplers.md."""
    rows = []
    for row in record["rows"]:
        plain, scaled = row["plain"], row["renormalised"]
        rows.append(
            [
                f"{row['data']}, seed {row['seed']}",
                f"{plain['variance_ratio']:.2f} (least {plain['least_variance_ratio']:.2f})",
                f"{plain['latent_distance']:.2f}",
                f"{scaled['latent_distance']:.2f}",
                f"{plain['correlations_off']:.3f}",
                f"{scaled['correlations_off']:.3f}",
                f"{row['correlation']:.3f}",
            ]
        )
    columns = [
        "data",
        "variance ratio",
        "latent distance",
        "renormalised",
        "correlations off by",
        "renormalised",
        "correlations themselves",
    ]
    return table(columns, rows)


def _correlations(moments: Moments) -> Tensor:
    deviation = moments.variance().sqrt()
    return moments.covariance() / torch.outer(deviation, deviation)


def _between(correlations: Tensor) -> Tensor:
    size = len(correlations)
    return correlations[~torch.eye(size, dtype=torch.bool)]


def _off(found: Tensor, wanted: Tensor) -> float:
    return float((_between(found) - _between(wanted)).square().mean().sqrt())


if __name__ == "__main__":
    sys.exit(main())
