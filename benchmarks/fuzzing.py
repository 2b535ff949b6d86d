"""The table of what came of fuzzing each loader, from what `make fuzz` records."""

import json
from typing import Any

from tables import ROOT, table, write_table

_WORDS = {
    "artifacts": "`config.json` of every kind of artifact, and what the zoo says of one",
    "weights": "Tensors of every kind of artifact",
    "encodings": "Arrays and lists of encodings, in one piece and in shards",
    "safetensors": "safetensors",
    "npy": "Images in `.npy`",
    "npz": "Images in `.npz`",
    "pickles": "StyleGAN2's pickles",
    "torch-files": "What `torch.save` wrote: checkpoints to go on from, weights of pythae",
    "idx": "MNIST's format",
    "openvino": "Networks of OpenVINO",
    "tables": "Factors in Parquet",
    "diffusers": "Autoencoders of diffusers",
    "pictures": "Pictures",
    "uploads": "Uploads of the explorer",
    "tars": "Pictures in tars",
    "parquet": "Pictures in Parquet",
    "hub-sets": "Data sets of Hugging Face, saved to disk",
    "celeba": "CelebA's lists and pictures",
    "data-specs": "Specs of images",
    "model-specs": "Specs of models",
    "repositories": "What the Hub says of an artifact",
    "work-folders": "What an encoding that died has left",
    "streams": "Images of a generator that are kept",
}


def markdown(record: list[dict[str, Any]]) -> str:
    """Return the table of the page."""
    rows = [
        [
            _WORDS[found["target"]],
            f"{found['done']:,}",
            f"{found['seconds']:.0f} s",
            "" if found["coverage"] is None else f"{found['coverage']:,}",
            f"{found['read']:,}",
            f"{1000 * found['slowest']:.0f} ms",
            f"{found['peak'] / 2**20:.0f} MiB",
            f"{found['grown'] / 2**20:.0f} MiB",
            str(len(found["findings"])),
        ]
        for found in record
    ]
    return table(
        [
            "Loader",
            "Runs",
            "Took",
            "Branches reached",
            "Read",
            "Slowest input",
            "Peak of the process",
            "of which runs added",
            "Found, and mended since",
        ],
        rows,
    )


def main() -> None:
    """Write the table into its page."""
    record = json.loads((ROOT / "benchmarks" / "results" / "fuzz.json").read_text(encoding="utf-8"))
    write_table("docs/concepts/trust.md", "fuzz", markdown(record))


if __name__ == "__main__":
    main()
