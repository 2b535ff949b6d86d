"""What one machine does and what N do: costs measured here, worked out for a billion images.

    python benchmarks/scale.py             # three minutes on two idle cores; --full: ten
    python benchmarks/scale.py --smoke     # whether it runs: small, writes nothing
    python benchmarks/scale.py --tables    # the tables of docs/how-to/cluster.md from what was measured before

On a machine with a GPU the forward pass of the encoder is measured there too. Every rate is the median of several runs, those
that are compared in turns. Writes benchmarks/results/scale.json.
"""

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tables import table, write_table
from torch import Tensor

from latlas.base.provenance import package_versions
from latlas.data.decoding import read_picture
from latlas.data.images import ImageSet, to_floats
from latlas.encodings.engines.processes import TorchEngine
from latlas.encodings.statistics import MOST_PARTS
from latlas.models.architectures.conv import Conv
from latlas.models.vae import VAE
from latlas.numerics.moments import Moments
from latlas.training.runs import train_vae

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "scale.json"
DOCUMENT = "docs/how-to/cluster.md"
SIDE, LATENT, WIDTH = 64, 128, 512  # images, variables of the encoder, features of the moments
BATCH = 128
TRAINED = (128, 256)  # images of a mini-batch, over all processes: the gradients are summed once for each
BILLION = 1_000_000_000
Row = dict[str, Any]


def median_rate(run: Callable[[], int], repeats: int) -> Row:
    """Return how many a run does in a second of one core's time, median and range, after one that is not counted.

    Processor time, since what else the machine has to do moves it less; it is the second of a clock where a core is idle.
    """
    run()
    rates = []
    for _ in range(repeats):
        start = time.process_time()
        count = run()
        rates.append(count / (time.process_time() - start))
    return {"per_second": statistics.median(rates), "least": min(rates), "most": max(rates)}


def network() -> VAE:
    """Return the convolutional VAE whose encoder is measured."""
    torch.manual_seed(0)
    return VAE(Conv(latent=LATENT), (3, SIDE, SIDE), name="conv")


def jpegs(side: int, count: int) -> list[bytes]:
    """Return pictures as cameras give them: smooth, with some noise, quality 90."""
    chance = np.random.default_rng(0)
    pictures = []
    for _ in range(count):
        small = Image.fromarray(chance.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8))
        smooth = np.asarray(small.resize((side, side), Image.Resampling.BICUBIC)).astype(np.int16)
        pixels = np.clip(smooth + chance.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "JPEG", quality=90)
        pictures.append(stream.getvalue())
    return pictures


# Costs of one core


def decode(pictures: list[bytes]) -> int:
    """Decode pictures, resized where they are larger."""
    for picture in pictures:
        read_picture(picture, channels=3, side=SIDE)
    return len(pictures)


def forward(model: VAE, pixels: Tensor, device: torch.device) -> int:
    """Encode pixels as a shard does."""
    with torch.inference_mode():
        for batch in pixels.split(BATCH):
            model.encode(to_floats(batch.to(device))).mean.cpu()
    return len(pixels)


def gather(rows: Tensor) -> int:
    """Take the moments of rows."""
    Moments.of(rows)
    return len(rows)


def costs(*, repeats: int, count: int) -> Row:
    """Return what one core does a second of each kind of work, and what is moved for it."""
    torch.set_num_threads(1)
    model = network().eval()
    pixels = torch.randint(0, 256, (count, 3, SIDE, SIDE), dtype=torch.uint8)
    rows = torch.randn(8 * count, WIDTH)
    small, large = jpegs(SIDE, count), jpegs(4 * SIDE, count // 4)
    cpu = torch.device("cpu")
    found: Row = {
        "decode_64": median_rate(lambda: decode(small), repeats),
        "decode_256": median_rate(lambda: decode(large), repeats),
        "forward": median_rate(lambda: forward(model, pixels, cpu), repeats),
        "moments": median_rate(lambda: gather(rows), repeats),
        "bytes_64": statistics.mean(map(len, small)),
        "bytes_256": statistics.mean(map(len, large)),
        "bytes_codes": 2 * 4 * LATENT,
        "bytes_moments": (WIDTH + 2) * WIDTH * 8,
        "merge_seconds": 1 / median_rate(merger(Moments.of(rows)), repeats)["per_second"],
        "parameters": sum(each.numel() for each in model.parameters()),
        "gpu": None,
    }
    if torch.cuda.is_available():
        device = torch.device("cuda")
        on_gpu = network().eval().to(device)
        many = pixels.repeat(8, 1, 1, 1)
        found["gpu"] = median_rate(lambda: forward(on_gpu, many, device), repeats) | {
            "name": torch.cuda.get_device_name(device),
        }
    return found


def merger(moments: Moments) -> Callable[[], int]:
    """Return a run that merges moments twenty times."""

    def run() -> int:
        total = moments
        for _ in range(20):
            total = total.merge(moments)
        return 20

    return run


# Two processes against one


def encoder() -> Callable[[int], int]:
    """Return, in a worker, the function that encodes one item's images."""
    model = network().eval()
    return partial(encode_item, model)


def encode_item(model: VAE, seed: int) -> int:
    """Encode 1,024 images, made and not read: what is compared is the arithmetic."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (1024, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)
    return forward(model, pixels, torch.device("cpu"))


def encoding_race(*, repeats: int, items: int) -> Row:
    """Return images a second of one process with all cores and of as many processes with one each, in turns."""
    cores = os.cpu_count() or 1
    torch.set_num_threads(cores)
    engines = {"one process": TorchEngine(1), "a process each core": TorchEngine(cores)}
    for engine in engines.values():
        list(engine.map(encoder, range(cores)))  # the start is told apart
    rates: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(repeats):
        for name, engine in engines.items():
            start = time.perf_counter()
            done = sum(result for _, result in engine.map(encoder, range(items)))
            rates[name].append(done / (time.perf_counter() - start))
    return compared(rates, cores)


def training_race(*, repeats: int, images: int, batch: int) -> Row:
    """Return images a second of trainings by one process with all cores and by one a core: of epochs after the first."""
    cores = os.cpu_count() or 1
    rates: dict[str, list[float]] = {"one process": [], "a process each core": []}
    for _ in range(repeats):
        for name, devices in (("one process", 1), ("a process each core", cores)):
            with tempfile.TemporaryDirectory() as folder:
                command = [
                    sys.executable,
                    __file__,
                    "--training-child",
                    folder,
                    str(devices),
                    str(cores // devices),
                    str(images),
                    str(batch),
                ]
                environment = os.environ | {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": str(cores // devices)}
                subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
                rates[name].append(float((Path(folder) / "rate").read_text()))
    return compared(rates, cores)


def training_child(folder: Path, devices: int, threads: int, images: int, batch: int) -> None:
    """Train, and write how many images a second were seen in the epochs after the first."""
    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (images, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)
    ends: dict[int, float] = {}

    def progress(task: str, done: int, total: int | None, note: str = "") -> None:  # noqa: ARG001
        if done % images == 0:
            ends[done // images] = time.perf_counter()

    run = train_vae(
        ImageSet("noise", pixels),
        Conv(latent=LATENT),
        epochs=3,
        batch_size=batch,
        device="cpu",
        devices=devices,
        precision="float32",
        progress=progress,
    )
    if os.environ.get("LOCAL_RANK", "0") == "0":
        assert len(run.history) == 3
        (folder / "rate").write_text(str(images * 2 / (ends[3] - ends[1])))


def compared(rates: dict[str, list[float]], cores: int) -> Row:
    """Return medians and their ratio, run by run."""
    one, each = rates["one process"], rates["a process each core"]
    return {
        "cores": cores,
        "one": statistics.median(one),
        "each": statistics.median(each),
        "ratio": statistics.median(b / a for a, b in zip(one, each, strict=True)),
        "ratios": [b / a for a, b in zip(one, each, strict=True)],
    }


# Tables


def costs_table(results: Row) -> str:
    """Return what was measured."""
    if "costs" not in results:
        return "Not measured yet."
    cost = results["costs"]
    kilobytes = {key: cost[key] / 1000 for key in ("bytes_64", "bytes_256", "bytes_codes")}
    rows = [
        ["decode a 64 x 64 JPEG", _rate(cost["decode_64"]), f"{kilobytes['bytes_64']:.1f} KB read"],
        ["decode a 256 x 256 JPEG to 64 x 64", _rate(cost["decode_256"]), f"{kilobytes['bytes_256']:.1f} KB read"],
        [
            f"encode 3 x 64 x 64, conv of {LATENT} variables, float32",
            _rate(cost["forward"]),
            f"{kilobytes['bytes_codes']:.1f} KB of codes written",
        ],
        [f"moments of {WIDTH} features", _rate(cost["moments"]), f"{WIDTH * 4 / 1000:.1f} KB read"],
        [
            "merge the moments of a part, one core for all",
            f"{1 / cost['merge_seconds']:,.0f}",
            f"{cost['bytes_moments'] / 1e6:.1f} MB sent",
        ],
    ]
    if cost["gpu"] is not None:
        rows.append([f"encode the same on one {cost['gpu']['name']}", _rate(cost["gpu"]), "12.3 KB to the GPU"])
    return table(["work", "in a second of one core (range)", "moved, each"], rows)


def race_table(results: Row) -> str:
    """Return two processes against one."""
    lines = []
    names = {"encoding": "encoding"} | {f"training_{batch}": f"training, mini-batches of {batch}" for batch in TRAINED}
    for key, name in names.items():
        race = results.get(key)
        if race is None:
            lines.append([name, "not measured yet", "", "", ""])
            continue
        lines.append(
            [
                name,
                f"{race['one']:,.0f}",
                f"{race['each']:,.0f}",
                f"{race['ratio']:.2f} ({min(race['ratios']):.2f} to {max(race['ratios']):.2f})",
                f"{race['load']:.1f} on {race['cores']} cores",
            ]
        )
    columns = ["images a second", "one process, a thread a core", "a process a core, one thread each"]
    return table([*columns, "ratio (range over pairs)", "load of the machine before"], lines)


def billion_table(results: Row) -> str:
    """Return hours for a billion images by the number of cores, and the bandwidth at which they would run dry."""
    if "costs" not in results:
        return "Not measured yet."
    cost = results["costs"]
    rows = []
    for cores in (2, 16, 128, 1024, 8192):
        cells = [f"{cores:,}"]
        for decoding, size in (("decode_64", "bytes_64"), ("decode_256", "bytes_256")):
            rate = cores / (1 / cost[decoding]["per_second"] + 1 / cost["forward"]["per_second"])
            moved = rate * (cost[size] + cost["bytes_codes"]) / 1e6
            cells += [_hours(BILLION / rate), f"{moved:,.0f} MB/s"]
        read = cores * cost["moments"]["per_second"] * WIDTH * 4 / 1e6
        cells += [_hours(BILLION / (cores * cost["moments"]["per_second"])), f"{read:,.0f} MB/s"]
        rows.append(cells)
    columns = ["cores", "encode 64 x 64 JPEGs", "moved", "encode 256 x 256 JPEGs", "moved", f"moments of {WIDTH}", "read"]
    merging = MOST_PARTS * cost["merge_seconds"]
    alike = BILLION / cost["moments"]["per_second"] / merging
    fed = 1e9 / (cost["bytes_256"] * (1 / (1 / cost["decode_256"]["per_second"] + 1 / cost["forward"]["per_second"])))
    return (
        f"{table(columns, rows)}\n\n"
        f"One process merges the {MOST_PARTS:,} parts of the moments in {merging:.1f} s, as long as {alike:,.0f} cores take to gather "
        f"them: more serve nobody. Storage that reads 1,000 MB/s feeds {fed:,.0f} cores that encode 256 x 256 JPEGs."
    )


def _rate(row: Row) -> str:
    return f"{row['per_second']:,.0f} ({row['least']:,.0f} to {row['most']:,.0f})"


def _hours(seconds: float) -> str:
    if seconds >= 48 * 3600:
        return f"{seconds / 86400:,.1f} days"
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.1f} s"


def write_tables(results: Row) -> None:
    """Put the tables into the document."""
    write_table(DOCUMENT, "scale-costs", costs_table(results))
    write_table(DOCUMENT, "scale-race", race_table(results))
    write_table(DOCUMENT, "scale-billion", billion_table(results))


def main() -> None:
    """Measure, write the results, renew the document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--full", action="store_true")
    parser.add_argument(
        "--only", help="costs, encoding, training_128, training_256: those of them, with commas; the others stay as they were"
    )
    parser.add_argument("--tables", action="store_true")
    parser.add_argument("--training-child", nargs=5, metavar=("FOLDER", "DEVICES", "THREADS", "IMAGES", "BATCH"))
    given = parser.parse_args()
    if given.training_child:
        folder, *counts = given.training_child
        training_child(Path(folder), *map(int, counts))
        return
    if given.tables:
        write_tables(json.loads(RESULTS.read_text(encoding="utf-8")))
        return
    smoke, size = given.smoke, 4 if given.full else 1

    def train_race(batch: int) -> Row:
        return training_race(repeats=1 if smoke else 3, images=512 if smoke else 1024 * size, batch=batch)

    stages: dict[str, Callable[[], Any]] = {
        "costs": lambda: costs(repeats=1 if smoke else 3, count=64 if smoke else 128 * size),
        "encoding": lambda: encoding_race(repeats=1 if smoke else 3, items=2 * size),
        **{f"training_{batch}": partial(train_race, batch) for batch in TRAINED},
    }
    results: Row = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() and not smoke else {}
    for name in given.only.split(",") if given.only else stages:
        # The load of the five minutes before: what else the machine had to do.
        load = os.getloadavg()[1]
        results[name] = stages[name]() | {"load": load, "cores": os.cpu_count(), "versions": package_versions()}
        if not smoke:  # one by one: a long run that is cut off has measured something
            RESULTS.write_text(json.dumps(results, indent=2, sort_keys=True) + "\n", encoding="utf-8")
            write_tables(results)
    print(costs_table(results), race_table(results), billion_table(results), sep="\n\n")


if __name__ == "__main__":
    main()
