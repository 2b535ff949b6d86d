"""Rows of numerics: moments over the bare product, Fréchet distance over SciPy's and torchmetrics', maps over other fits."""

from pathlib import Path

import numpy as np
import torch
from racing import Row, failed_row, race, ratio_row, value_row
from torch import Tensor

from latlas.numerics.frechet import frechet_distance_of
from latlas.numerics.moments import Moments

_OF_PRODUCT, _OF_SCIPY, _SAME = 1.3, 8.0, 1e-6
_BLOCK = 8192


def rows(*, full: bool, latentis: Path | None = None) -> list[Row]:
    """Return all rows; those of latentis where an environment with it is given."""
    found = moments_rows(rounds=5 if full else 3)
    # SciPy takes a minute a root at 2,048 features on one core: once is enough to tell 8 from 20.
    found += frechet_rows(size=2048, rounds=3 if full else 1)
    found += map_rows(pairs=200_000 if full else 50_000, size=256, repeats=5 if full else 3)
    if latentis is None:
        return [*found, failed_row("maps", "time of latentis' affine fit over ours", "no --latentis-python")]
    from vector_maps import latentis_row

    row = latentis_row(latentis)
    ratio = row["cpu_ratio"]
    if ratio is None:
        return [*found, failed_row("maps", "time of latentis' affine fit over ours", "it never reached our error")]
    return [
        *found,
        value_row("maps", "time of latentis' affine fit, tuned to our error, over ours", [ratio], clock="processor"),
    ]


def moments_rows(*, rows: int = 1_000_000, size: int = 512, pool: int = 131_072, rounds: int) -> list[Row]:
    """Return the time of moments over that of the bare products, both reading the same rows of the same memory.

    The rows are those of a pool, again and again: half a gigabyte, more than the caches hold. Bare are NumPy's X'X of blocks, in
    float64, which halve the work by symmetry as ours do.
    """
    held = torch.randn(min(pool, rows), size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def blocks() -> list[Tensor]:
        passes, rest = divmod(rows, len(held))
        return [block for part in [held] * passes + [held[:rest]] for block in part.split(_BLOCK)]

    def bare() -> None:
        total = np.zeros((size, size))
        for block in blocks():
            array = block.numpy()
            total += array.T @ array

    taken = race({"ours": lambda: Moments.over(blocks()), "bare": bare}, rounds=rounds, warm=False)
    what = f"{rows:,} x {size}: time of the moments over that of the bare products"
    return [ratio_row("moments", what, taken["ours"], taken["bare"], most=_OF_PRODUCT)]


def frechet_rows(*, size: int, rounds: int) -> list[Row]:
    """Return the times of SciPy's root of a matrix and of torchmetrics' FID over ours, and how far the values differ."""
    from scipy.linalg import sqrtm
    from torchmetrics.image.fid import _compute_fid

    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(size, size, generator=generator, dtype=torch.float64) / size**0.5
    first = Moments.of(torch.randn(2 * size, size, generator=generator, dtype=torch.float64) @ mixing)
    second = Moments.of(torch.randn(2 * size, size, generator=generator, dtype=torch.float64) @ mixing.T + 0.1)
    shift = float((first.mean - second.mean).square().sum())
    one, other = first.covariance(ddof=1), second.covariance(ddof=1)
    values: dict[str, float] = {}

    def ours() -> None:
        values["ours"] = frechet_distance_of(first, second).value

    def scipy() -> None:
        root = sqrtm(one.numpy() @ other.numpy())
        values["scipy"] = shift + float(np.trace(one.numpy()) + np.trace(other.numpy()) - 2 * np.trace(root.real))

    def torchmetrics() -> None:
        values["torchmetrics"] = float(_compute_fid(first.mean, one, second.mean, other))

    taken = race({"ours": ours, "scipy": scipy, "torchmetrics": torchmetrics}, rounds=rounds, warm=False)
    name = f"{size:,} features"
    found = [
        ratio_row("fréchet", f"{name}: time of scipy.linalg.sqrtm over ours", taken["scipy"], taken["ours"], least=_OF_SCIPY),
        ratio_row("fréchet", f"{name}: time of torchmetrics' FID over ours", taken["torchmetrics"], taken["ours"]),
    ]
    for peer in ("scipy", "torchmetrics"):
        off = abs(values["ours"] / values[peer] - 1)
        found.append(
            value_row("fréchet", f"{name}: relative difference from {peer}'s value", [off], most=_SAME, distances=dict(values))
        )
    return found


def map_rows(*, pairs: int, size: int, repeats: int) -> list[Row]:
    """Return the times of scikit-learn's Ridge over those of the same fits."""
    from sklearn.linear_model import Ridge
    from vector_maps import randn

    from latlas.maps.fit import fit_map, fit_map_from, paired_moments_of

    x = randn(pairs, size, seed=3)
    y = x @ (randn(size, size, seed=1) / size**0.5) + 3.0 + 0.3 * randn(pairs, size, seed=5)
    arrays = x.numpy(), y.numpy()

    def with_evidence() -> object:
        fitted = Ridge(alpha=1.0).fit(*arrays)
        residual = arrays[1] - fitted.predict(arrays[0])
        return 1 - residual.var(axis=0) / arrays[1].var(axis=0), residual.T @ residual / pairs

    theirs = Ridge(alpha=1.0).fit(*arrays)
    off = float(np.abs(fit_map(x, y, ridge=1.0).weight.numpy() - theirs.coef_.T).max() / np.abs(theirs.coef_).max())
    taken = race(
        {
            "ours": lambda: fit_map_from(paired_moments_of([(x, y)]), ridge=1.0),
            "hashed": lambda: fit_map(x, y, ridge=1.0),
            "ridge": lambda: Ridge(alpha=1.0).fit(*arrays),
            "evidence": with_evidence,
        },
        rounds=repeats,
    )
    name = f"{pairs:,} x {size}: time of scikit-learn's Ridge"
    return [
        ratio_row("maps", f"{name} over the same fit's", taken["ridge"], taken["ours"], weight_difference=off),
        ratio_row(
            "maps",
            f"{name} with R² and residual covariance, which ours brings, over the same fit's",
            taken["evidence"],
            taken["ours"],
        ),
        ratio_row("maps", f"{name} with both, over fit_map's, which hashes its rows too", taken["evidence"], taken["hashed"]),
    ]
