"""Rows of encoding: a folder of pictures over bare decoding and the bare forward; memory for many rows against few."""

import io
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from racing import Row, Spent, race, ratio_row, value_row

from latlas.data.loading import load_images, open_images
from latlas.encodings.encode import encode
from latlas.encodings.encoding import Encoding
from latlas.maps.fit import fit_map
from latlas.models.architectures.dense import Dense
from latlas.models.architectures.registry import architecture
from latlas.models.vae import VAE

WORK = Path(__file__).parents[1] / "runs"
_OF_SLOWER, _MEMORY = 0.75, 1.1
_SIDE, _BATCH = 64, 500


def rows(*, full: bool) -> list[Row]:
    """Return all rows."""
    return [*folder_rows(images=30_000 if full else 8_000, rounds=5 if full else 3), *memory_rows()]


def folder_rows(*, images: int, rounds: int) -> list[Row]:
    """Return images a second of encoding a folder of 64 x 64 JPEGs, over those of the slower of its two halves."""
    found = []
    with _scratch() as folder:
        _write_pictures(folder / "pictures", images)
        files = sorted((folder / "pictures").iterdir())
        pixels = load_images(folder / "pictures")
        for name in ("dense", "conv"):
            model = VAE(architecture(name), (3, _SIDE, _SIDE))

            def ours(model: VAE = model, name: str = name) -> None:
                encode(model, open_images(folder / "pictures"), out=folder / name, replace=True)

            def forward(model: VAE = model) -> None:
                with torch.inference_mode():
                    for batch in pixels.batches(_BATCH):
                        model.encode(batch)

            def decode() -> None:
                for file in files:
                    with Image.open(io.BytesIO(file.read_bytes())) as picture:
                        np.asarray(picture.convert("RGB"))

            taken = race({"ours": ours, "decode": decode, "forward": forward}, rounds=rounds)
            slower = max(("decode", "forward"), key=lambda half: median(one.processor for one in taken[half]))
            both = [_sum(one, other) for one, other in zip(taken["decode"], taken["forward"], strict=True)]
            what = f"{name}, {images:,} JPEGs of {_SIDE} x {_SIDE}: images/s"
            found += [
                ratio_row(
                    "encoding",
                    f"{what} over those of the slower of bare decode and bare forward (here {slower})",
                    taken[slower],
                    taken["ours"],
                    least=_OF_SLOWER,
                ),
                ratio_row("encoding", f"{what} over those of both, one after the other on the same cores", both, taken["ours"]),
            ]
    return found


def memory_rows(*, few: int = 10_000, many: int = 1_000_000, side: int = 8, latent: int = 16) -> list[Row]:
    """Return the peak memory of encoding, and of fitting a map, of many rows over that of few; each in a fresh process."""
    peaks: dict[str, dict[int, float]] = {"encoding": {}, "map fitting": {}}
    with _scratch() as folder:
        VAE(Dense(widths=(32,), latent=latent), (1, side, side)).save_pretrained(folder / "model")
        for count in (few, many):
            images = np.lib.format.open_memmap(folder / f"{count}.npy", mode="w+", dtype=np.uint8, shape=(count, 1, side, side))
            generator = np.random.default_rng(0)
            for start in range(0, count, 10_000):
                images[start : start + 10_000] = generator.integers(
                    0, 256, (min(10_000, count - start), 1, side, side), np.uint8
                )
            images.flush()
            for task in peaks:
                answer = subprocess.run(
                    [sys.executable, __file__, task, str(folder), str(count)], capture_output=True, text=True, check=True
                )
                peaks[task][count] = json.loads(answer.stdout.splitlines()[-1])
    return [
        value_row(
            "memory",
            f"peak memory of {task}: {many:,} rows over {few:,}",
            [found[many] / found[few]],
            most=_MEMORY,
            mebibytes=found,
        )
        for task, found in peaks.items()
    ]


def _child(task: str, folder: Path, count: int) -> None:
    if task == "encoding":
        encode(VAE.from_pretrained(folder / "model"), open_images(folder / f"{count}.npy"), out=folder / f"codes-{count}")
    else:
        codes = Encoding.from_pretrained(folder / f"codes-{count}")
        fit_map(codes, codes)
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(json.dumps(int(line.split()[1]) / 1024))


def _sum(one: Spent, other: Spent) -> Spent:
    return Spent(wall=one.wall + other.wall, processor=one.processor + other.processor)


def _write_pictures(folder: Path, count: int) -> None:
    """Smooth random pictures, which compress about as photographs do."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number in range(count):
        small = generator.integers(0, 256, (12, 12, 3), dtype=np.uint8)
        Image.fromarray(small).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC).save(folder / f"{number:06d}.jpg", quality=90)


@contextmanager
def _scratch() -> Iterator[Path]:
    WORK.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=WORK))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    _child(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
