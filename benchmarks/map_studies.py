"""What moves with a map, and how few images fix one: the two studies on avatars, with digits beside them.

    make bench-map-studies      # after bench-calibration, whose models it uses; a quarter of an hour

Writes benchmarks/results/map_studies.json and two tables of docs/concepts/maps.md.
"""

import json
import sys
from pathlib import Path
from typing import Any

import calibration
from tables import table, write_table

from latlas.base.provenance import package_versions
from latlas.cli.progress import shown
from latlas.data.images import ImageSet
from latlas.data.loading import load_images
from latlas.models.vae import VAE
from latlas.studies.directions import study_direction
from latlas.studies.little_data import study_little_data

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results" / "map_studies.json"
DATA = {"avatars": ("avatars:train[0:8000]", "avatars:test[0:2000]"), "mnist": ("mnist:train[0:20000]", "mnist:test[0:4000]")}
DIRECTIONS = {"avatars": ("glasses", "hat"), "mnist": ("3:8",)}


def main() -> int:
    """Study, write."""
    record: dict[str, Any] = {"command": "python benchmarks/map_studies.py", "little_data": {}, "directions": {}}
    with shown() as progress:
        for data, (train_spec, test_spec) in DATA.items():
            train, test = (load_images(spec, progress=progress) for spec in (train_spec, test_spec))
            source, target = (_vae(data, seed, train, progress) for seed in (0, 1))
            study = study_little_data(source, target, train, test=test, measured=300, progress=progress)
            record["little_data"][data] = study.to_json()
            for attribute in DIRECTIONS[data]:
                found = study_direction(source, target, train, test=test, attribute=attribute, progress=progress)
                record["directions"][f"{data}, {attribute}"] = found.to_json()
    record["versions"] = package_versions()
    RESULTS.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    write_table("docs/concepts/maps.md", "little-data", little_data_table(record))
    write_table("docs/concepts/maps.md", "directions", directions_table(record))
    return 0


def _vae(data: str, seed: int, train: ImageSet, progress: Any) -> VAE:
    folder = calibration.WORK / "quick" / data / f"{calibration.DEFAULT}-{seed}"
    return calibration.trained(
        folder, data, calibration.DEFAULT, seed, train, calibration.BUDGETS["quick"].epochs[data], progress
    )


def little_data_table(record: dict[str, Any]) -> str:
    """Return M over that of all images, by selector and number of images, with a ridge by cross-validation."""
    parts = []
    for data, found in record["little_data"].items():
        points = sorted({fit["points"] for fit in found["fits"]})
        rows = []
        for selector in dict.fromkeys(fit["selector"] for fit in found["fits"]):
            cells = []
            for size in points:
                fit = next(f for f in found["fits"] if (f["selector"], f["points"], f["ridge"]) == (selector, size, "gcv"))
                whole = found["full_M"]["gcv"]
                cells.append(f"{fit['M'] / whole:.2f} ± {2 * (fit['standard_error'] or 0.0) / whole:.2f}")
            rows.append([selector, *cells])
        lead = f"{data} ({found['latent']} variables): M over that of {found['full_points']:,} images, ± 2 standard errors over {found['draws']} draws"
        parts.append(f"{lead}:\n\n{table(['chosen by', *(f'{size} images' for size in points)], rows)}")
    return "\n\n".join(parts)


def directions_table(record: dict[str, Any]) -> str:
    """Return how often each edit succeeds."""
    names = list(dict.fromkeys(name for found in record["directions"].values() for name in found["success"]))
    rows = []
    for label, found in record["directions"].items():
        cells = [
            f"{100 * found['success'][name]['adding']:.0f} / {100 * found['success'][name]['removing']:.0f} %" for name in names
        ]
        rows.append([label, *cells, f"{found['cosine']:.3f}"])
    columns = ["attribute", *(f"{name}: added / removed" for name in names), "cosine of carried and own"]
    return table(columns, rows)


if __name__ == "__main__":
    sys.exit(main())
