"""What pruning costs, on the networks of the sparsity study at the posts' sizes: held against its bounds.

    make bench-pruning     # some five minutes; after make bench-sparsity, which trains the networks

Which variables are removed, and the constants that stand for them, come from 10,000 training images; everything is measured on the
10,000 test images. Writes benchmarks/results/pruning.json and the table of docs/reproductions/pruning.md.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from tables import table, write_table

from latlas.base.artifacts import write_json
from latlas.base.errors import IllPosedError
from latlas.base.progress import Progress
from latlas.base.provenance import package_versions
from latlas.cli.progress import shown
from latlas.data.images import ImageSet
from latlas.data.loading import load_images
from latlas.encodings.encode import encode
from latlas.measurements.latents import latent_table
from latlas.models.protocols import parameter_count
from latlas.models.vae import VAE
from latlas.studies.pruning import prune

ROOT = Path(__file__).parents[1]
WORK = ROOT / "runs" / "bench-sparsity" / "paper"
RESULTS = ROOT / "benchmarks" / "results" / "pruning.json"
PAGE = "docs/reproductions/pruning.md"
SETS = {"mnist": "MNIST", "fashion-mnist": "Fashion-MNIST"}
LARGEST_DIFFERENCE, LARGEST_CHANGE = 1e-5, 0.005


def main() -> int:
    """Prune every network that has collapsed variables, write, and return 1 if a bound was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    folders = sorted(WORK.glob("*-kl-*"))
    if not folders:
        raise SystemExit(f"No network at {WORK}: make bench-sparsity first.")
    networks: dict[str, Any] = {}
    with shown() as progress:
        for data in SETS:
            chosen = [folder for folder in folders if folder.name.startswith(f"{data}-") and (folder / "config.json").is_file()]
            if not chosen:
                continue
            train, test = (
                load_images(f"{data}:train[0:10000]", progress=progress),
                load_images(f"{data}:test", progress=progress),
            )
            for folder in chosen:
                networks[folder.name] = _measure(VAE.from_pretrained(folder), train, test, progress)
    record = {
        "command": "python benchmarks/pruning.py",
        "networks": networks,
        "bounds": _bounds(networks),
        "versions": package_versions(),
    }
    write_json(RESULTS, record)
    write_table(PAGE, "pruning", markdown(record))
    print("\n".join(record["bounds"]))
    return int(any(line.startswith("MISSED") for line in record["bounds"]))


def _measure(model: VAE, train: ImageSet, test: ImageSet, progress: Progress) -> dict[str, Any]:
    variables = model.latent_shape[0]
    try:
        pruned = prune(model, train, test=test, progress=progress)
    except IllPosedError:  # no variable is collapsed
        return {"variables": variables, "active": variables, "kept": None}
    seen = latent_table(encode(pruned.model, test, progress=progress).moments())
    before, after = parameter_count(model), parameter_count(pruned.model)
    return {
        "variables": variables,
        "active": pruned.latents.active_count,
        "kept": len(pruned.kept),
        "active_after": seen.active_count,  # of the pruned model's own variables, on the test images
        "largest_output_difference": pruned.errors.largest_output_difference,
        "error_before": pruned.errors.before,
        "error_after": pruned.errors.after,
        "relative_change": pruned.errors.relative_change,
        "relative_standard_error": pruned.errors.relative_standard_error,
        "parameters_before": before,
        "parameters_after": after,
    }


def _bounds(networks: dict[str, Any]) -> list[str]:
    lines = []
    for name, found in networks.items():
        if found["kept"] is None:
            continue
        for what, kept, value, bound in (
            (
                "largest output difference from the original at constants",
                found["largest_output_difference"] <= LARGEST_DIFFERENCE,
                f"{found['largest_output_difference']:.2g}",
                f"at most {LARGEST_DIFFERENCE:g}",
            ),
            ("variables left", found["kept"] == found["active"], str(found["kept"]), f"exactly the {found['active']} active"),
            (
                "change of the test error",
                abs(found["relative_change"]) <= LARGEST_CHANGE,
                f"{100 * found['relative_change']:+.3f} %",
                f"at most {100 * LARGEST_CHANGE:.1f} %",
            ),
        ):
            lines.append(f"{'kept' if kept else 'MISSED'}: {name}: {what} = {value}, {bound}")
    return lines


def markdown(record: dict[str, Any]) -> str:
    """Return the table of the page."""
    rows = []
    for name, found in record["networks"].items():
        data, arch, _, seed = name.rsplit("-", 3)
        start = [f"{SETS[data]}, {'dense' if arch == 'dense' else 'convolutional'}, seed {seed}"]
        if found["kept"] is None:
            rows.append([*start, f"{found['variables']} of {found['variables']}", *["nothing to prune"], *["–"] * 3])
            continue
        rows.append(
            [
                *start,
                f"{found['kept']} of {found['variables']}",
                f"{found['largest_output_difference']:.1e}",
                f"{found['error_before']:.5f}",
                f"{100 * found['relative_change']:+.3f} % ± {100 * found['relative_standard_error']:.3f} %",
                f"{found['parameters_before']:,} → {found['parameters_after']:,}",
            ]
        )
    columns = ["network", "kept", "largest difference of outputs", "test error before", "its change", "parameters"]
    return table(columns, rows)


if __name__ == "__main__":
    sys.exit(main())
