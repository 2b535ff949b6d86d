"""Every published figure beside ours, from the results of the other benchmarks: docs/reproductions/index.md.

    make docs          # or: python benchmarks/reproductions.py

Measures nothing. A figure whose benchmark has not written its results yet says so.
"""

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from published import POSTS
from tables import table, write_table

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
NOT_YET = "not measured yet"
COLUMNS = ["what", "published", "how sure", "ours"]


class NotMeasuredError(Exception):
    """The benchmark has not written its results."""


class Measured:
    """The results files, each read when first asked for; `measured["kl"]` is the content of kl.json."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._read:
            path = self._folder / f"{name}.json"
            if not path.is_file():
                raise NotMeasuredError(name)
            self._read[name] = json.loads(path.read_text(encoding="utf-8"))
        return self._read[name]


Ours = Callable[[Measured], str]


def markdown(folder: Path = RESULTS) -> str:
    """Return one table a post, published beside ours.

    Args:
        folder: where the results files lie.
    """
    measured = Measured(folder)
    parts = []
    for post, figures in POSTS.items():
        rows = [[f"[{f.what}]({f.page})", f.published, f.source, _said(OURS[key], measured)] for key, f in figures.items()]
        parts.append(f"## {post}\n\n{table(COLUMNS, rows)}")
    return "\n\n".join(parts)


def _said(ours: Ours | str, measured: Measured) -> str:
    try:
        return ours if isinstance(ours, str) else ours(measured)
    except NotMeasuredError:
        return NOT_YET


def _range(values: Iterable[float], form: str) -> str:
    """Return the least and the largest, or one of them where they read alike."""
    numbers = sorted(values)
    low, high = format(numbers[0], form), format(numbers[-1], form)
    return low if low == high else f"{low} to {high}"


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers)


# Builders: what several figures have in common.


def _of_the_tour(name: str, words: str, form: str, *, factor: float = 1.0) -> Ours:
    """A measurement of the tour, over its seeds, in the place of {} in the words."""
    return lambda measured: words.format(_range((factor * abs(v) for v in measured["tour"]["measured"][name]), form))


def _of_the_clouds(quantity: str, words: str) -> Ours:
    """A quantity of the clouds of codes: `words` gets won, seeds, with and without."""

    def ours(measured: Measured) -> str:
        found = measured["kl"]["latent-cloud"]
        means = found["means"]
        return words.format(
            won=found["lower_with_sampling"][quantity],
            seeds=found["seeds"],
            sampling=means["sampling"][quantity],
            without=means["no sampling"][quantity],
            ratio=means["sampling"][quantity] / means["no sampling"][quantity],
        )

    return ours


def _collapsed(network: str) -> Ours:
    def ours(measured: Measured) -> str:
        (cell,) = [cell for cell in _counts(measured) if (cell["network"], cell["term"]) == (network, "kl")]
        return ", ".join(str(number) for number in cell["collapsed"]) + " of 16 (by seed)"

    return ours


def _law(network: str) -> Ours:
    def ours(measured: Measured) -> str:
        points = [p for p in measured["sparsity"]["variance_law"]["points"] if p["model"].startswith(f"mnist-{network}-kl")]
        means = _range((p["mean"] for p in points), ".3f")
        return f"mean {means} over {len(points)} trainings; {min(p['low'] for p in points):.2f} to {max(p['high'] for p in points):.2f}"

    return ours


def _maps(*names: str) -> Ours:
    def ours(measured: Measured) -> str:
        parts = []
        for name in names:
            row = measured["maps"]["rows"][name]
            recovered = (row["mean_code"] - row["M"]) / (row["mean_code"] - row["target_R"])
            parts.append(f"{name.partition(': ')[2]}: M {row['M']:.4f} beside {row['target_R']:.4f}, recovered {recovered:.2f}")
        return "; ".join(parts)

    return ours


def _counts(measured: Measured) -> list[Any]:
    return [cell for cell in measured["sparsity"]["sparsity"]["counts"] if cell["data"] == "mnist"]


# Figures that have a form of their own.


def _ten_digits(measured: Measured) -> str:
    found = measured["kl"]["trajectories"]
    return f"{found['start']:.3f}, then {found['after_first_epoch']:.4f} (ten digits, mean)"


def _sixty_digits(measured: Measured) -> str:
    epochs = measured["kl"]["trajectories"]["over_epochs"]
    least = min(range(len(epochs)), key=epochs.__getitem__)
    return f"{epochs[0]:.4f} after the first epoch, least {epochs[least]:.4f} after epoch {least + 1}, {epochs[-1]:.4f} after {len(epochs)}"


def _without_kl(measured: Measured) -> str:
    numbers = [number for cell in _counts(measured) if cell["term"] != "kl" for number in cell["collapsed"]]
    return f"{sum(numbers)} collapsed in {len(numbers)} trainings"


def _noise(measured: Measured) -> str:
    found = measured["sparsity"]["noise_injection"]
    ordered = found["orders"].get("rise, crossing, collapse, recovery", 0)
    return f"in the published order in {ordered} of {found['of']} runs, with a sudden collapse and a late return in {found['as_published']}"


def _least_kl(measured: Measured) -> str:
    curves = measured["kl"]["kl-curve"]["curves"]
    worst = max(abs(curve["minimum"] - curve["found_minimum"]) for curve in curves)
    return f"the same, to {worst:.0e}, by search over {len(curves)} ratios"


def _two_errors(measured: Measured) -> str:
    ours = measured["variance_loss"]["keras_example"]["ours"]
    return "; ".join(f"{found['error']:.4f} and {found['variance_loss']:.4f}" for found in ours) + " (two seeds)"


def _line(measured: Measured) -> str:
    found = measured["variance_loss"]
    slope = found["slope"]
    return f"slope {slope['value']:.3f} ({slope['low']:.3f} to {slope['high']:.3f}) over {len(found['points'])} trainings of four families"


def _sign(measured: Measured) -> str:
    points = measured["variance_loss"]["points"]
    return f"positive in {sum(p['variance_loss'] > 0 for p in points)} of {len(points)} trainings"


def _balance(measured: Measured) -> str:
    def error(data: str, rule: str) -> float:
        return _mean(row["error"] for row in measured["calibration"]["rows"] if (row["data"], row["rule"]) == (data, rule))

    parts = [f"{data} {error(data, 'running-error') / error(data, 'fixed'):.2f}" for data in ("mnist", "avatars")]
    return f"test error over that of fixed weights: {', '.join(parts)}"


def _renormalised(measured: Measured) -> str:
    found = measured["calibration"]["summary"]["table"]
    parts = [f"{data} {_range(cell['second_stage_renormalised_over_plain'], '.2f')}" for data, cell in found.items()]
    return f"Fréchet distance over that without: {', '.join(parts)}"


def _stylegan(measured: Measured) -> str:
    rows = measured["range"]["maps"]
    there, back = rows["w to VAE, 16000 images"], rows["VAE to w, 16000 images"]
    return f"recovered from W {there['recovered_share']:.2f}, to W {back['recovered_share']:.2f} (a small StyleGAN2 of avatars)"


def _handful(measured: Measured) -> str:
    found = measured["support"]["ordering"]
    return (
        f"the 7th and the 8th of {found['variables']} differ by {found['border_over_its_error']:.1f} standard errors (avatars)"
    )


def _spread(measured: Measured) -> str:
    seven = [s for s in measured["support"]["spread"]["sets"] if s["variables"] == 7 and s["choose"] == "random"]
    parts = []
    for found in seven:
        threshold = "the largest" if found["asked"] == "largest" else f"{found['asked']} standard deviations"
        parts.append(f"{found['ratio']:.2f} ({found['images']} images, threshold {threshold})")
    return f"avatars: {', '.join(parts)}"


def _unevenness(measured: Measured) -> str:
    found = measured["support"]["spread"]["unevenness"]
    return f"Cohen's w {found['uniform']['effect']:.2f} from even, {found['gaussian']['effect']:.2f} from a Gaussian (avatars)"


def _inversion(measured: Measured) -> str:
    rows = measured["range"]["range StyleGAN2"]["rows"]
    own, hats, ordinary = (rows[name]["median_error"] for name in ("own samples", "headwear", "training set's kind"))
    return (
        f"{own:.5f} and {hats:.4f} in [0, 1] (a small StyleGAN2 of avatars, headwear, by descent); "
        f"ordinary images, which the post does not show: {ordinary:.4f}"
    )


def _descent(measured: Measured) -> str:
    why = measured["range"]["range StyleGAN2"]["why"]
    much = why["training set's kind: five times the steps, and four starts from noise"]
    return f"with five times the steps and four more starts real images stay at {much:.4f}, own samples at {why['own samples: five times the steps']:.0e}"


def _hats(measured: Measured) -> str:
    parts = []
    for name in ("StyleGAN2", "DCGAN"):
        rows = measured["range"][f"range {name}"]["rows"]
        hats, own = (100 * rows[kind]["rejected"] for kind in ("headwear", "own samples"))
        parts.append(f"{name} {hats:.0f} % (own samples {own:.1f} %)")
    return "rejected at 5 %: " + ", ".join(parts)


# by the keys of published.POSTS; a text where it can be said without results
OURS: dict[str, Ours | str] = {
    "ten digits": _ten_digits,
    "sixty digits": _sixty_digits,
    "cloud": _of_the_clouds(
        "energy", "more regular in {won} of {seeds} seeds (energy coefficient {ratio:.2f} of that without sampling)"
    ),
    "drawn digits": _of_the_clouds(
        "frechet",
        "not seen: nearer to real digits in {won} of {seeds} seeds (Fréchet distance {sampling:.0f} with, {without:.0f} without)",
    ),
    "collapsed, dense": _collapsed("dense"),
    "collapsed, conv": _collapsed("conv"),
    "without the KL": _without_kl,
    "set to 0": _of_the_tour(
        "diagnosis.sparse.zeroing_collapsed_relative_change", "the test error changes by {} %", ".4f", factor=100
    ),
    "noise": _noise,
    "least KL": _least_kl,
    "law, dense": _law("dense"),
    "law, conv": _law("conv"),
    "law, tour": _of_the_tour("diagnosis.sparse.variance_law_mean", "{} on average (tour, two seeds)", ".3f"),
    "two errors": _two_errors,
    "line": _line,
    "sign": _sign,
    "balance": _balance,
    "renormalised": _renormalised,
    "Split-VAE, MNIST": "not measured: a network that is not carried; latlas measures Fréchet distances of its own classifiers",
    "Split-VAE, CelebA": "not measured: CelebA is fetched by nobody here, and FID needs a checkpoint that is not carried",
    "type 1": _maps("type 1: VAE 0 to VAE 1", "type 1: VAE 1 to VAE 0"),
    "type 2": _maps("type 2: VAE to Split-VAE", "type 2: Split-VAE to VAE"),
    "type 3": _maps("type 3: GAN to a VAE of its stream", "type 3: a VAE of its stream to GAN"),
    "type 3, W": _stylegan,
    "few images": _of_the_tour("map.support.M_over_full_M", "M {} times that of 60,000 images (digits, 128 images)", ".2f"),
    "a handful": _handful,
    "spread": _spread,
    "unevenness": _unevenness,
    "inversion": _inversion,
    "descent": _descent,
    "hats": _hats,
}


def main() -> int:
    """Write the table."""
    write_table("docs/reproductions/index.md", "reproductions", markdown())
    return 0


if __name__ == "__main__":
    sys.exit(main())
