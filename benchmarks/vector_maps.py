"""Vector maps against planted truths, bare matrix products, latentis, scikit-learn and the original code's Adam.

    python benchmarks/vector_maps.py [--latentis-python PATH]     # ten minutes on two idle cores, 4 GB under runs/
    python benchmarks/vector_maps.py --smoke                      # whether it runs: seconds, small, writes nothing

PATH is the Python of an environment of its own with torch and then latentis 0.0.8 in it; without one, its rows are left out.
Every time is the least of several, taken in turns, with one thread count for all; beside it stands the processor time, which
other programs on the machine move less. Writes benchmarks/results/vector_maps.json.
"""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import Ridge
from tables import table, write_table
from torch import Tensor

from latlas.base.artifacts import write_config, writing
from latlas.base.provenance import Provenance, package_versions
from latlas.encodings.encoding import KIND, Encoding
from latlas.maps.fit import fit_map, fit_map_from, paired_moments_of
from latlas.numerics.leave_one_out import leave_one_out
from latlas.numerics.moments import PairedMoments
from latlas.numerics.spectrum import Spectrum

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "vector_maps.json"
WORK = ROOT / "runs" / "bench-vector-maps"
LATENTIS = Path(__file__).with_name("latentis_affine.py")
MIB = 2**20
Row = dict[str, Any]


def randn(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return normal numbers of a seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def race(*runners: Callable[[], object], repeats: int = 3) -> list[tuple[float, float]]:
    """Return the least wall and processor seconds of each, run in turns."""
    best = [(float("inf"), float("inf")) for _ in runners]
    for _ in range(repeats):
        for index, runner in enumerate(runners):
            start, cpu = time.perf_counter(), time.process_time()
            runner()
            spent = time.perf_counter() - start, time.process_time() - cpu
            best[index] = min(best[index][0], spent[0]), min(best[index][1], spent[1])
    return best


def relative_error(found: Tensor, wanted: Tensor) -> float:
    """Return the root of the mean squared error over the target's variance."""
    return float(((found - wanted).square().mean() / wanted.var(dim=0, correction=0).mean()).sqrt())


# Planted maps


def planted_rows(
    *, sizes: tuple[int, ...] = (16, 64, 150, 512), biases: tuple[float, ...] = (0.0, 0.5, 3.0), latentis: Path | None = None
) -> list[Row]:
    """Return the held-out error of planted affine maps: 3,000 pairs to fit, 1,000 to measure on, as peers publish it."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            for bias in biases:
                weight, shift = randn(size, size, seed=1) / size**0.5, bias * randn(size, seed=2)
                x, fresh = randn(3000, size, seed=3), randn(1000, size, seed=4)
                y, wanted = x @ weight + shift, fresh @ weight + shift
                fitted = fit_map(x, y)
                error = relative_error(fitted.apply(fresh), wanted)
                rows.append({"size": size, "bias": bias, "relative_error": error, "relative_mse": error**2})
                _save_pairs(Path(folder) / f"{len(rows) - 1:03d}", x, y, fresh, wanted)
        if latentis is not None:
            answers = _latentis(latentis, "planted", Path(folder))
            for index, row in enumerate(rows):
                row["latentis_relative_mse"] = answers[f"{index:03d}"]
    return rows


# A million rows from disk


def disk_row(*, rows: int = 1_000_000, size: int = 512, threads: int = 1) -> Row:
    """Return memory and time of a fit from disk, beside the matrix products that it needs; measured in a fresh process."""
    with tempfile.TemporaryDirectory(dir=_made(WORK)) as folder:
        planted = _write_encodings(Path(folder), rows, size)
        answer = subprocess.run(
            [sys.executable, __file__, "--disk-child", folder, str(threads)],
            env=os.environ | {"OMP_NUM_THREADS": str(threads)},
            capture_output=True,
            text=True,
            check=True,
        )
        row: Row = json.loads(answer.stdout)
        weight = np.asarray(row.pop("weight"))
    row["weight_error"] = float(np.abs(weight - planted[: len(weight), : weight.shape[1]]).max())
    return row


def _write_encodings(folder: Path, rows: int, size: int) -> np.ndarray:
    weight = randn(size, size, seed=1) / size**0.5
    chunk = 10_000
    generator = torch.Generator().manual_seed(0)
    with writing(folder / "source") as first, writing(folder / "target") as second:
        files = [
            np.lib.format.open_memmap(beside / "mean.npy", mode="w+", dtype=np.float32, shape=(rows, size))
            for beside in (first, second)
        ]
        for start in range(0, rows, chunk):
            x = torch.randn(min(chunk, rows - start), size, generator=generator)
            noise = 0.1 * torch.randn(len(x), size, generator=generator)
            files[0][start : start + chunk] = x.numpy()
            files[1][start : start + chunk] = (x @ weight.float() + 3.0 + noise).numpy()
        for file in files:
            file.flush()
        for beside, name in ((first, "A"), (second, "B")):
            settings = {"model": name, "images": "planted", "images_hash": "planted"}
            write_config(beside, kind=KIND, settings=settings, provenance=Provenance(made_by="benchmark"))
    return weight.numpy()


def _disk_child(folder: Path, threads: int) -> None:
    torch.set_num_threads(threads)
    start = time.perf_counter()
    source, target = Encoding.from_pretrained(folder / "source"), Encoding.from_pretrained(folder / "target")
    opened = time.perf_counter() - start
    rows, size = source.mean.shape
    before = _bare_products(rows // 2, size, target.mean.shape[1])
    fit_map(source.take(torch.arange(2 * size)), target.take(torch.arange(2 * size)))  # what is loaded late is loaded here
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is held now
    base = _memory("VmRSS")
    start, cpu = time.perf_counter(), time.process_time()
    fitted = fit_map(source, target)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = _memory("VmHWM")
    after = _bare_products(rows - rows // 2, size, target.mean.shape[1])
    bare, bare_cpu = before[0] + after[0], before[1] + after[1]
    print(
        json.dumps(
            {
                "rows": rows,
                "source": size,
                "target": target.mean.shape[1],
                "threads": threads,
                "base_mib": base / MIB,
                "peak_over_base_mib": (peak - base) / MIB,
                "open_and_check_seconds": opened,
                "fit_seconds": seconds,
                "bare_products_seconds": bare,
                "time_over_bare": seconds / bare,
                "fit_cpu_seconds": cpu,
                "bare_products_cpu_seconds": bare_cpu,
                "cpu_over_bare": cpu / bare_cpu,
                "r2_least": min(fitted.evidence["r2"]),
                "weight": fitted.weight[:8, :8].tolist(),
            }
        )
    )


def _bare_products(rows: int, source: int, target: int, block: int = 8192) -> tuple[float, float]:
    """Return the seconds of S'S, S'T and T'T of as many rows in float64: of NumPy's, which halve the symmetric ones."""
    s, t = (np.random.default_rng(seed).standard_normal((block, width)) for seed, width in ((0, source), (1, target)))
    s.T @ s
    start, cpu = time.perf_counter(), time.process_time()
    for _ in range(max(1, round(rows / block))):
        s.T @ s, s.T @ t, t.T @ t
    return time.perf_counter() - start, time.process_time() - cpu


def _memory(key: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024


# Against others' affine fits


def latentis_row(latentis: Path, *, pairs: int = 10_000, size: int = 128, repeats: int = 5) -> Row:
    """Return the time of latentis' affine fit, tuned until its held-out error is within 1 % of ours, over ours."""
    x, fresh = randn(pairs, size, seed=3, dtype=torch.float32), randn(2000, size, seed=4, dtype=torch.float32)
    weight, shift = randn(size, size, seed=1, dtype=torch.float32) / size**0.5, 3.0 * randn(size, seed=2, dtype=torch.float32)
    y = x @ weight + shift + 0.3 * randn(pairs, size, seed=5, dtype=torch.float32)
    wanted = fresh @ weight + shift + 0.3 * randn(2000, size, seed=6, dtype=torch.float32)
    error = relative_error(fit_map(x, y).apply(fresh).double(), wanted.double()) ** 2
    ((seconds, cpu),) = race(lambda: fit_map(x, y), repeats=repeats)
    with tempfile.TemporaryDirectory() as folder:
        _save_pairs(Path(folder), x, y, fresh, wanted)
        theirs = _latentis(latentis, "tuned", Path(folder), str(1.01 * error))
    reached = "seconds" in theirs
    return {
        "pairs": pairs,
        "size": size,
        "relative_mse": error,
        "seconds": seconds,
        "cpu_seconds": cpu,
        "latentis": theirs,
        "time_ratio": theirs["seconds"] / seconds if reached else None,
        "cpu_ratio": theirs["cpu_seconds"] / cpu if reached else None,
    }


def sklearn_row(*, pairs: int = 200_000, size: int = 256, ridge: float = 1.0, repeats: int = 3) -> Row:
    """Return the time of scikit-learn's Ridge over that of the same fit, both from the same float64 rows in memory.

    "fit" is the fit alone: moments and solve. "evidence" adds to Ridge what every fit here brings: R2 of each target variable and
    the residual covariance.
    """
    x = randn(pairs, size, seed=3)
    y = x @ (randn(size, size, seed=1) / size**0.5) + 3.0 + 0.3 * randn(pairs, size, seed=5)
    arrays = x.numpy(), y.numpy()

    def theirs_with_evidence() -> object:
        fitted = Ridge(alpha=ridge).fit(*arrays)
        residual = arrays[1] - fitted.predict(arrays[0])
        return 1 - residual.var(axis=0) / arrays[1].var(axis=0), residual.T @ residual / pairs

    theirs, ours = Ridge(alpha=ridge).fit(*arrays), fit_map(x, y, ridge=ridge)
    times = race(
        lambda: Ridge(alpha=ridge).fit(*arrays),
        theirs_with_evidence,
        lambda: fit_map_from(paired_moments_of([(x, y)]), ridge=ridge),
        lambda: fit_map(x, y, ridge=ridge),
        repeats=repeats,
    )
    (alone, alone_cpu), (evidence, evidence_cpu), (fit, fit_cpu), (hashed, hashed_cpu) = times
    return {
        "pairs": pairs,
        "size": size,
        "weight_difference": float(np.abs(ours.weight.numpy() - theirs.coef_.T).max() / np.abs(theirs.coef_).max()),
        "ridge_seconds": alone,
        "ridge_and_evidence_seconds": evidence,
        "fit_seconds": fit,
        "fit_map_seconds": hashed,  # with the content hash of both sides for the provenance
        "fit_ratio": alone / fit,
        "evidence_ratio": evidence / fit,
        "fit_map_ratio": alone / hashed,
        "cpu_ratios": {
            "fit": alone_cpu / fit_cpu,
            "evidence": evidence_cpu / fit_cpu,
            "fit_map": alone_cpu / hashed_cpu,
        },
    }


# Leave-one-out


def leave_one_out_row(*, pairs: int = 60, source: int = 12, target: int = 5) -> Row:
    """Return the largest relative difference between leave-one-out errors by the hat matrix and by fitting again."""
    x = randn(pairs, source, seed=3) @ (torch.eye(source).double() + 0.2 * randn(source, source, seed=7)) + 1.5
    y = x @ randn(source, target, seed=1) - 4.0 + randn(pairs, target, seed=5)
    worst = 0.0
    for bias in (True, False):
        spectrum = Spectrum.of(PairedMoments.of(x, y), bias=bias)
        ridges = [0.0, 1e-3, 0.1, 1.0, 30.0]
        found = leave_one_out(spectrum, lambda: zip(x.split(7), y.split(7), strict=True), ridges)
        for index, ridge in enumerate(ridges):
            errors = torch.zeros(target, dtype=torch.float64)
            for left_out in range(pairs):
                kept = torch.arange(pairs) != left_out
                again = fit_map(x[kept], y[kept], ridge=ridge, bias=bias)
                errors += (again.apply(x[left_out : left_out + 1]) - y[left_out]).square()[0] / pairs
            worst = max(worst, float(((found[index] - errors) / errors).abs().max()))
    return {"pairs": pairs, "source": source, "target": target, "largest_relative_difference": worst}


# The original code's fit


def adam_loss(x: Tensor, y: Tensor, weight: Tensor, penalty: float) -> Tensor:
    """Return what the original code trains a map by: squared error, kernel penalty and activity penalty (arXiv:2207.06812).

    Keras divides an activity penalty by the batch.
    """
    moved = x @ weight
    return (moved - y).square().mean() + penalty * (weight.square().sum() + moved.square().sum() / len(x))


def adam_fit(x: Tensor, y: Tensor, *, penalty: float, steps: int = 2000, rate: float = 5e-4) -> Tensor:
    """Return the weight that the original code's training of a bias-free dense layer ends with.

    Full batch, Glorot start, Keras' epsilon of 1e-7.
    """
    source, target = x.shape[1], y.shape[1]
    limit = (6.0 / (source + target)) ** 0.5
    start = torch.rand(source, target, generator=torch.Generator().manual_seed(0)) * 2 * limit - limit
    weight = start.requires_grad_()
    adam = torch.optim.Adam([weight], lr=rate, eps=1e-7)
    for _ in range(steps):
        adam.zero_grad()
        adam_loss(x, y, weight, penalty).backward()
        adam.step()
    return weight.detach()


def adam_closed_form(x: Tensor, y: Tensor, *, penalty: float) -> Tensor:
    """Return the minimiser of the same loss: a ridge fit without bias, shrunk by what the activity penalty asks.

    Times n * t, the loss is |XW - Y|^2 + a |W|^2 + (s - 1) |XW|^2 with a = penalty * n * t and s = 1 + penalty * t, so that
    (s X'X + a I) W = X'Y: the ridge fit of strength a / s, divided by s.
    """
    pairs, target = y.shape
    shrink = 1.0 + penalty * target
    return fit_map(x, y, bias=False, ridge=penalty * pairs * target / shrink).weight / shrink


ADAM_CASES = {  # the pairs of latent spaces that the original work maps between, with their penalties
    "SVAE -> SVAE": (150, 150, 1e-4),
    "SVAE -> GAN": (150, 64, 1.5e-3),
    "GAN -> SVAE": (64, 150, 1.5e-3),
}


def adam_rows(*, pairs: int = 150, noise: float = 0.3, steps: int = 2000, seeds: int = 3) -> list[Row]:
    """Return errors on fresh pairs, and times, of the original code's training and of its closed form, over several draws."""
    rows = []
    for name, (source, target, penalty) in ADAM_CASES.items():
        errors = []
        for seed in range(0, 10 * seeds, 10):
            weight = randn(source, target, seed=seed + 1, dtype=torch.float32) * ((1 - noise**2) / source) ** 0.5
            x, fresh = (randn(count, source, seed=seed + 2, dtype=torch.float32) for count in (pairs, 5000))
            y, wanted = (
                rows @ weight + noise * randn(len(rows), target, seed=seed + 3, dtype=torch.float32) for rows in (x, fresh)
            )
            found = adam_fit(x, y, penalty=penalty, steps=steps), adam_closed_form(x, y, penalty=penalty)
            losses = [float(adam_loss(x.double(), y.double(), one.double(), penalty)) for one in found]
            errors.append([float((fresh.double() @ one.double() - wanted.double()).square().mean()) for one in found])
        (adam, _), (ours, _) = race(
            lambda x=x, y=y, penalty=penalty: adam_fit(x, y, penalty=penalty, steps=steps),  # type: ignore[misc]
            lambda x=x, y=y, penalty=penalty: adam_closed_form(x, y, penalty=penalty),  # type: ignore[misc]
            repeats=2,
        )
        rows.append(
            {
                "case": name,
                "penalty": penalty,
                "pairs": pairs,
                "source": source,
                "target": target,
                "adam_errors": [one for one, _ in errors],
                "closed_form_errors": [other for _, other in errors],
                "error_ratio": statistics.mean(one / other for one, other in errors),
                "loss_over_least": losses[0] / losses[1],  # above 1: Adam has not arrived yet
                "adam_seconds": adam,
                "closed_form_seconds": ours,
                "time_ratio": adam / ours,
            }
        )
    return rows


# The whole


def bounds_of(record: dict[str, Any]) -> Iterator[str]:
    """Yield one line a bound: kept or MISSED."""
    worst = max(row["relative_error"] for row in record["planted"])
    yield _bound("planted affine maps, largest relative error", worst, highest=1e-12)
    disk = record["disk"]
    what = f"{disk['rows']:,} x {disk['source']} -> {disk['target']} from disk, {disk['threads']} thread(s): "
    yield _bound(what + "peak memory over base, MiB", disk["peak_over_base_mib"], highest=1024)
    yield _bound(what + "time over bare products", disk["time_over_bare"], highest=2.0)
    if record["latentis"] is not None:
        yield _bound("time of latentis' affine fit at the same error, over ours", record["latentis"]["time_ratio"], least=50)
    for row in record["sklearn"]:
        what = f"{row['pairs']:,} x {row['size']} -> {row['size']}: "
        yield _bound(what + "largest difference from scikit-learn's Ridge", row["weight_difference"], highest=1e-8)
        yield _bound(what + "time of Ridge over ours, fit alone", row["fit_ratio"], least=2)
        yield _bound(what + "time of Ridge with R2 and residual covariance over ours", row["evidence_ratio"], least=2)
    worst = record["leave_one_out"]["largest_relative_difference"]
    yield _bound("leave-one-out by the hat matrix against fitting again", worst, highest=1e-8)
    for row in record["adam"]:
        off = abs(row["error_ratio"] - 1)
        yield _bound(
            f"Adam-2000, {row['case']}: |error over closed form's - 1| ({row['time_ratio']:.0f}x its time)", off, highest=0.02
        )


def markdown(record: Row) -> str:
    """Return the table of docs/against-others.md."""
    disk = record["disk"]
    rows = [
        [
            "planted affine maps, sizes 16 to 512, bias to 3: largest relative error",
            f"{max(r['relative_error'] for r in record['planted']):.1g}",
        ],
    ]
    for planted in record["planted"]:
        if planted["size"] == 64 and "latentis_relative_mse" in planted:
            theirs = ", ".join(f"{name} {value:.2g}" for name, value in planted["latentis_relative_mse"].items())
            rows.append([f"the same, 64 variables, bias {planted['bias']:g}: relative squared error of latentis", theirs])
    if record["latentis"] is not None:
        rows.append(["time of latentis' affine fit, tuned to our error, over ours", f"{record['latentis']['time_ratio']:.0f}"])
    for fit in record["sklearn"]:
        label = f"scikit-learn's Ridge, {fit['pairs']:,} x {fit['size']}: its time over ours"
        cells = (
            ("the weights alone", fit["fit_ratio"]),
            ("with R2 and residual covariance", fit["evidence_ratio"]),
            ("fit_map, which also hashes what it is given", fit["fit_map_ratio"]),
        )
        rows.append([label, ", ".join(f"{what} {value:.2f}" for what, value in cells)])
    rows += [
        [
            f"{disk['rows']:,} x {disk['source']} to {disk['target']} from disk: peak memory over the process",
            f"{disk['peak_over_base_mib']:.0f} MiB",
        ],
        ["the same: time over that of the bare matrix products", f"{disk['time_over_bare']:.2f}"],
        [
            "leave-one-out against fitting again without each pair: largest relative difference",
            f"{record['leave_one_out']['largest_relative_difference']:.1g}",
        ],
    ]
    for adam in record["adam"]:
        rows.append(
            [
                f"the original code's 2,000 steps of Adam, {adam['case']}: test error, and time, over the closed form's",
                f"{adam['error_ratio']:.3f}, {adam['time_ratio']:.0f}",
            ]
        )
    return table(["what", "measured"], rows)


def _bound(what: str, value: float | None, *, highest: float | None = None, least: float | None = None) -> str:
    limit = f"at most {highest:g}" if highest is not None else f"at least {least:g}"
    if value is None:
        return f"MISSED: {what}: not reached ({limit})"
    kept = value <= highest if highest is not None else value >= (least or 0.0)
    return f"{'kept' if kept else 'MISSED'}: {what} = {value:.3g}, {limit}"


def main() -> int:
    """Measure, write, and return 1 if a bound was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latentis-python", type=Path, help="the Python of an environment with latentis")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--disk-child", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.disk_child:
        _disk_child(Path(asked.disk_child[0]), int(asked.disk_child[1]))
        return 0
    if os.environ.get("OMP_NUM_THREADS") != str(asked.threads):
        # NumPy's products take their threads from the environment, and only at the start.
        environment = os.environ | {"OMP_NUM_THREADS": str(asked.threads)}
        return subprocess.run([sys.executable, *sys.argv], env=environment, check=False).returncode
    torch.set_num_threads(asked.threads)
    small = asked.smoke
    python = asked.latentis_python
    record: dict[str, Any] = {
        "command": shlex.join(["python", "benchmarks/vector_maps.py", "--threads", str(asked.threads)])
        + (" --latentis-python PATH" if python else ""),
        "planted": planted_rows(latentis=python, **({"sizes": (16, 64)} if small else {})),
        "leave_one_out": leave_one_out_row(),
        "adam": adam_rows(**({"steps": 20, "seeds": 1} if small else {})),
        "latentis": None if python is None else latentis_row(python, **({"pairs": 500, "size": 16} if small else {})),
        "sklearn": [sklearn_row(pairs=2000 if small else 200_000, size=size, repeats=1 if small else 3) for size in (64, 256)],
        "disk": disk_row(threads=asked.threads, **({"rows": 20_000, "size": 64} if small else {})),
        "threads": asked.threads,
    }
    record["bounds"] = list(bounds_of(record))
    record["versions"] = package_versions()
    if not small:
        RESULTS.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        write_table("docs/against-others.md", "vector-maps", markdown(record))
    for line in record["bounds"]:
        print(line)
    if small:
        print("Too small for any of these figures to mean something.")
        return 0
    return 0 if all(line.startswith("kept") for line in record["bounds"]) else 1


def _save_pairs(folder: Path, x: Tensor, y: Tensor, fresh_x: Tensor, fresh_y: Tensor) -> None:
    folder.mkdir(exist_ok=True)
    for name, rows in (("x", x), ("y", y), ("fresh_x", fresh_x), ("fresh_y", fresh_y)):
        np.save(folder / f"{name}.npy", rows.numpy(), allow_pickle=False)


def _latentis(python: Path, question: str, folder: Path, *more: str) -> Row:
    answer = subprocess.run(
        [str(python), str(LATENTIS), question, str(folder), *more],
        env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
        capture_output=True,
        text=True,
        check=True,
    )
    found: Row = json.loads(answer.stdout)
    return found


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


if __name__ == "__main__":
    sys.exit(main())
