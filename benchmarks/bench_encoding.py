"""Rows of encoding: a folder of pictures over bare decoding and the bare forward; memory for many rows against few.

Decoding and network share the cores here: each image costs the time of both, so that the slower of the two alone is a speed that
nobody reaches. The most that can be is (1 / decode + 1 / forward)^-1 over the lower of the two speeds, 1/2 where they are equal.
"""

import io
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image
from racing import Row, Spent, race, ratio_row, value_row
from store_memory import memory_of
from torch import Tensor

from latlas.data.loading import load_images, open_images
from latlas.encodings.encode import encode
from latlas.models.architectures.registry import architecture
from latlas.models.vae import VAE

WORK = Path(__file__).parents[1] / "runs"
_OF_SLOWER, _MEMORY = 0.75, 1.1
_SIDE = 64
_BATCHES, _READY = (85, 500), 1_000  # images that the bare forward takes at once: the quicker; and that it has in memory
# Where decoding dominates, where both cost about the same, where the network does.
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "dense, narrow": ("dense", {"widths": (64,), "latent": 16}),
    "dense": ("dense", {}),
    "conv": ("conv", {}),
}


def rows(*, full: bool) -> list[Row]:
    """Return the rows of folders; `memory_rows` makes the others."""
    return folder_rows(images=20_000 if full else 10_000, rounds=5 if full else 3)


def folder_rows(*, images: int, rounds: int) -> list[Row]:
    """Return images a second of encoding a folder of 64 x 64 JPEGs over those of the slower of its halves, beside what can be."""
    found = []
    with _scratch() as folder:
        _write_pictures(folder / "pictures", images)
        files = sorted((folder / "pictures").iterdir())
        ready = load_images(f"{folder / 'pictures'}[0:{_READY}]").tensor()

        def decode() -> None:
            for file in files:
                with Image.open(io.BytesIO(file.read_bytes())) as picture:
                    np.asarray(picture.convert("RGB"))

        for name, (kind, settings) in NETWORKS.items():
            model = VAE(architecture(kind, **settings), (3, _SIDE, _SIDE)).eval()
            batch = _quicker(model, ready)

            def ours(model: VAE = model) -> None:
                encode(model, open_images(folder / "pictures"), out=folder / "codes", replace=True)

            def forward(model: VAE = model, batch: int = batch) -> None:
                with torch.inference_mode():
                    for start in range(0, images, batch):
                        at = start % _READY
                        model.encode(ready[at : at + min(batch, images - start)])

            taken = race({"ours": ours, "decode": decode, "forward": forward}, rounds=rounds)
            slower = max(("decode", "forward"), key=lambda half: median(one.processor for one in taken[half]))
            both = [_sum(one, other) for one, other in zip(taken["decode"], taken["forward"], strict=True)]
            what = f"{name}, {images:,} JPEGs of {_SIDE} x {_SIDE}: images/s"
            each = {part: median(one.processor for one in spent) / images * 1e6 for part, spent in taken.items()}
            found += [
                ratio_row(
                    "encoding",
                    f"{what} over those of the slower of bare decode and bare forward (here {slower})",
                    taken[slower],
                    taken["ours"],
                    least=_OF_SLOWER,
                    microseconds_an_image=each,
                    forward_batch=batch,
                ),
                ratio_row("encoding", f"{name}: the most that this can be where both share the cores", taken[slower], both),
                ratio_row("encoding", f"{name}: images/s over that most", both, taken["ours"]),
            ]
    return found


def _quicker(model: VAE, ready: Tensor) -> int:
    def forward(batch: int) -> None:
        with torch.inference_mode():
            for part in torch.split(ready, batch):
                model.encode(part)

    taken = race({str(batch): lambda batch=batch: forward(batch) for batch in _BATCHES}, rounds=5)
    return min(_BATCHES, key=lambda batch: median(one.processor for one in taken[str(batch)]))


def memory_rows(*, few: int = 10_000, many: int = 1_000_000, latent: int = 16) -> list[Row]:
    """Return the peak memory of encoding, and of fitting a map, of many rows over that of few; each in a fresh process."""
    with _scratch() as folder:
        peaks = {count: memory_of(count, folder / str(count), latent=latent) for count in (few, many)}
    return [
        value_row(
            "memory",
            f"peak memory of {task}: {many:,} rows over {few:,}",
            [peaks[many][work] / peaks[few][work]],
            most=_MEMORY,
            mebibytes={count: found[work] / 2**20 for count, found in peaks.items()},
        )
        for task, work in (("encoding", "encode"), ("map fitting", "fit_map"))
    ]


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
