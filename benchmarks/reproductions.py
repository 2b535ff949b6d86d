"""Every published figure beside ours, from the results of the other benchmarks: docs/reproductions/index.md.

    make docs          # or: python benchmarks/reproductions.py

Measures nothing. A figure whose benchmark has not written its results yet says so.
"""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tables import table, write_table

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
NOT_YET = "not measured yet"

READ = "number in the post"
SAID = "words in the post, no number"
DERIVED = "computed from the post's numbers"
CODE = "read-me of the published code"


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


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One published figure.

    Args:
        what: in words.
        published: as it stands there.
        source: how sure we are of it: one of the words above.
        ours: the same from our results, with what it was measured on; a text where it can be said without results.
        page: where it is explained, from docs/reproductions.
    """

    what: str
    published: str
    source: str
    ours: Callable[[Measured], str] | str
    page: str


def markdown(folder: Path = RESULTS) -> str:
    """Return one table a post, published beside ours.

    Args:
        folder: where the results files lie.
    """
    measured = Measured(folder)
    parts = []
    for post, figures in POSTS.items():
        rows = [[f.what, f.published, f.source, _ours(f, measured), f"[page]({f.page})"] for f in figures]
        parts.append(f"## {post}\n\n{table(['what', 'published', 'how sure', 'ours', 'more'], rows)}")
    return "\n\n".join(parts)


def _ours(figure: Figure, measured: Measured) -> str:
    if isinstance(figure.ours, str):
        return figure.ours
    try:
        return figure.ours(measured)
    except NotMeasuredError:
        return NOT_YET


def _range(values: Iterator[float] | list[float], form: str) -> str:
    """Return the least and the largest, or one of them where they read alike."""
    numbers = sorted(values)
    low, high = format(numbers[0], form), format(numbers[-1], form)
    return low if low == high else f"{low} to {high}"


def _minimum(measured: Measured) -> str:
    curves = measured["kl"]["kl-curve"]["curves"]
    worst = max(abs(curve["minimum"] - curve["found_minimum"]) for curve in curves)
    return f"the same, to {worst:.0e}, by search over {len(curves)} ratios"


def _course(measured: Measured) -> str:
    found = measured["kl"]["trajectories"]
    return f"{found['start']:.3f}, then {found['after_first_epoch']:.4f} (ten digits, mean)"


def _later(measured: Measured) -> str:
    epochs = measured["kl"]["trajectories"]["over_epochs"]
    least = min(range(len(epochs)), key=epochs.__getitem__)
    return f"{epochs[0]:.4f} after the first epoch, least {epochs[least]:.4f} after epoch {least + 1}, {epochs[-1]:.4f} after {len(epochs)}"


def _regular(measured: Measured) -> str:
    found = measured["kl"]["latent-cloud"]
    means = found["means"]
    ratio = means["sampling"]["energy"] / means["no sampling"]["energy"]
    return (
        f"more regular in {found['lower_with_sampling']['energy']} of {found['seeds']} seeds "
        f"(energy coefficient {ratio:.2f} of that without sampling)"
    )


def _drawn(measured: Measured) -> str:
    found = measured["kl"]["latent-cloud"]
    means = found["means"]
    return (
        f"not seen: nearer to real digits in {found['lower_with_sampling']['frechet']} of {found['seeds']} seeds "
        f"(Fréchet distance {means['sampling']['frechet']:.0f} with, {means['no sampling']['frechet']:.0f} without)"
    )


def _collapsed(network: str, term: str) -> Callable[[Measured], str]:
    def ours(measured: Measured) -> str:
        cells = measured["sparsity"]["sparsity"]["counts"]
        cell = next(c for c in cells if (c["data"], c["network"], c["term"]) == ("mnist", network, term))
        return ", ".join(str(number) for number in cell["collapsed"]) + " of 16 (by seed)"

    return ours


def _without_kl(measured: Measured) -> str:
    cells = [c for c in measured["sparsity"]["sparsity"]["counts"] if c["data"] == "mnist" and c["term"] != "kl"]
    numbers = [number for cell in cells for number in cell["collapsed"]]
    return f"{sum(numbers)} collapsed in {len(numbers)} trainings"


def _zeroed(measured: Measured) -> str:
    changes = measured["tour"]["measured"]["diagnosis.sparse.zeroing_collapsed_relative_change"]
    return f"the test error changes by {_range([100 * abs(c) for c in changes], '.4f')} %"


def _events(measured: Measured) -> str:
    found = measured["sparsity"]["noise_injection"]
    return f"in the published order in {found['as_published']} of {found['of']} runs"


def _law(prefix: str) -> Callable[[Measured], str]:
    def ours(measured: Measured) -> str:
        points = [p for p in measured["sparsity"]["variance_law"]["points"] if p["model"].startswith(prefix)]
        means = _range([p["mean"] for p in points], ".3f")
        return f"mean {means} over {len(points)} trainings; {min(p['low'] for p in points):.2f} to {max(p['high'] for p in points):.2f}"

    return ours


def _law_of_the_tour(measured: Measured) -> str:
    return f"{_range(measured['tour']['measured']['diagnosis.sparse.variance_law_mean'], '.3f')} on average (tour, two seeds)"


def _keras(measured: Measured) -> str:
    ours = measured["variance_loss"]["keras_example"]["ours"]
    return "; ".join(f"{found['error']:.4f} and {found['variance_loss']:.4f}" for found in ours) + " (two seeds)"


def _line(measured: Measured) -> str:
    found = measured["variance_loss"]
    slope = found["slope"]
    return f"slope {slope['value']:.3f} ({slope['low']:.3f} to {slope['high']:.3f}) over {len(found['points'])} trainings of four families"


def _always_lost(measured: Measured) -> str:
    points = measured["variance_loss"]["points"]
    return f"positive in {sum(p['variance_loss'] > 0 for p in points)} of {len(points)} trainings"


def _balance(measured: Measured) -> str:
    rows = measured["calibration"]["rows"]
    parts = []
    for data in ("mnist", "avatars"):
        error = {
            rule: _mean(r["error"] for r in rows if (r["data"], r["rule"]) == (data, rule))
            for rule in ("running-error", "fixed")
        }
        parts.append(f"{data} {error['running-error'] / error['fixed']:.2f}")
    return f"test error over that of fixed weights: {', '.join(parts)}"


def _renormalised(measured: Measured) -> str:
    found = measured["calibration"]["summary"]["table"]
    parts = [f"{data} {_range(cell['second_stage_renormalised_over_plain'], '.2f')}" for data, cell in found.items()]
    return f"Fréchet distance over that without: {', '.join(parts)}"


def _mean(values: Iterator[float]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers)


def _type(*names: str) -> Callable[[Measured], str]:
    def ours(measured: Measured) -> str:
        rows = measured["maps"]["rows"]
        parts = []
        for name in names:
            row = rows[name]
            recovered = (row["mean_code"] - row["M"]) / (row["mean_code"] - row["target_R"])
            parts.append(f"{name.partition(': ')[2]}: M {row['M']:.4f} beside {row['target_R']:.4f}, recovered {recovered:.2f}")
        return "; ".join(parts)

    return ours


def _stylegan(measured: Measured) -> str:
    rows = measured["range"]["maps"]
    there, back = rows["w to VAE, 16000 images"], rows["VAE to w, 16000 images"]
    return f"recovered from W {there['recovered_share']:.2f}, to W {back['recovered_share']:.2f} (a small StyleGAN2 of avatars)"


def _few(measured: Measured) -> str:
    ratios = measured["tour"]["measured"]["map.support.M_over_full_M"]
    return f"M {_range(ratios, '.2f')} times that of 60,000 images (digits, 128 images)"


def _spread(measured: Measured) -> str:
    found = measured["support"]["spread"]["sets"]
    seven = [s for s in found if s["variables"] == 7 and s["choose"] == "random"]
    parts = ", ".join(f"{s['ratio']:.2f} ({s['images']} images, threshold {_asked(s['asked'])})" for s in seven)
    return f"avatars: {parts}"


def _asked(asked: Any) -> str:
    return "the largest" if asked == "largest" else str(asked)


def _uneven(measured: Measured) -> str:
    found = measured["support"]["spread"]["unevenness"]
    return f"Cohen's w {found['uniform']['effect']:.2f} from even, {found['gaussian']['effect']:.2f} from a Gaussian (avatars)"


def _order(measured: Measured) -> str:
    found = measured["support"]["ordering"]
    return (
        f"the 7th and the 8th of {found['variables']} differ by {found['border_over_its_error']:.1f} standard errors (avatars)"
    )


def _range_ratio(measured: Measured) -> str:
    rows = measured["range"]["range StyleGAN2"]["rows"]
    own, hats = rows["own samples"]["median_error"], rows["headwear"]["median_error"]
    ordinary = rows["training set's kind"]["median_error"]
    return (
        f"{own:.5f} and {hats:.4f} in [0, 1] (a small StyleGAN2 of avatars, headwear, by descent); "
        f"ordinary images, which the post does not show: {ordinary:.4f}"
    )


def _descent(measured: Measured) -> str:
    why = measured["range"]["range StyleGAN2"]["why"]
    much = why["training set's kind: five times the steps, and four starts from noise"]
    return f"with five times the steps and four more starts real images stay at {much:.4f}, own samples at {why['own samples: five times the steps']:.0e}"


def _rejected(measured: Measured) -> str:
    parts = []
    for name in ("StyleGAN2", "DCGAN"):
        rows = measured["range"][f"range {name}"]["rows"]
        parts.append(
            f"{name} {100 * rows['headwear']['rejected']:.0f} % (own samples {100 * rows['own samples']['rejected']:.1f} %)"
        )
    return "rejected at 5 %: " + ", ".join(parts)


NO_CELEBA = "not measured: CelebA is fetched by nobody here, and FID needs a checkpoint that is not carried"

POSTS = {
    "About the Kullback-Leibler divergence (2018)": [
        Figure(
            what="posterior variance of ten digits, first epoch of a 2-variable VAE",
            published="close to 1, then rapidly very small",
            source=SAID,
            ours=_course,
            page="trajectories.md",
        ),
        Figure(
            what="the same of sixty digits over ten epochs",
            published="really small, and decreasing further",
            source=SAID,
            ours=_later,
            page="trajectories.md",
        ),
        Figure(
            what="cloud of codes in three variables, with sampling against without",
            published="much more regular",
            source=SAID,
            ours=_regular,
            page="latent-cloud.md",
        ),
        Figure(
            what="digits drawn from the prior, with sampling against without",
            published="drastically better",
            source=SAID,
            ours=_drawn,
            page="latent-cloud.md",
        ),
    ],
    "Sparsity in Variational Autoencoders (2019)": [
        Figure(
            what="collapsed variables, dense 784-256-64-32-16",
            published="8 of 16",
            source=READ,
            ours=_collapsed("dense", "kl"),
            page="sparsity.md",
        ),
        Figure(
            what="collapsed variables, convolutional",
            published="3 of 16",
            source=f"{READ}; layers shown as a picture only",
            ours=_collapsed("conv", "kl"),
            page="sparsity.md",
        ),
        Figure(
            what="without the KL term, or with its quadratic part alone",
            published="no collapse",
            source=SAID,
            ours=_without_kl,
            page="sparsity.md",
        ),
        Figure(
            what="collapsed variables set to 0",
            published="images indistinguishable",
            source=SAID,
            ours=_zeroed,
            page="pruning.md",
        ),
        Figure(
            what="noise on one variable: KL up, gain below KL, collapse, delayed and partial return",
            published="in this order",
            source=f"{SAID}; no schedule",
            ours=_events,
            page="noise-injection.md",
        ),
    ],
    "A stationary condition (2019)": [
        Figure(
            what="variance of least KL at a fixed ratio ρ",
            published="ρ² / (1 + ρ²)",
            source="formula in the post",
            ours=_minimum,
            page="kl-curve.md",
        ),
        Figure(
            what="variance law, dense net",
            published="0.961 to 1.033, mean 0.994",
            source=DERIVED,
            ours=_law("mnist-dense-kl"),
            page="variance-law.md",
        ),
        Figure(
            what="variance law, convolutional net",
            published="0.912 to 1.403, mean 1.078",
            source=f"{DERIVED}; two numbers of one row run together",
            ours=_law("mnist-conv-kl"),
            page="variance-law.md",
        ),
        Figure(
            what="variance law of a sparse dense VAE, mean over variables",
            published="1",
            source="formula in the post",
            ours=_law_of_the_tour,
            page="variance-law.md",
        ),
    ],
    "Loss of variance (2020)": [
        Figure(
            what="squared error and variance loss, 784-256-2, 50 epochs",
            published="0.0413 and 0.0411",
            source=READ,
            ours=_keras,
            page="../concepts/variance-loss.md",
        ),
        Figure(
            what="variance loss against squared error over architectures",
            published="about equal",
            source=f"{SAID}; a scatter plot",
            ours=_line,
            page="../concepts/variance-loss.md",
        ),
        Figure(
            what="sign of the variance loss",
            published="always positive",
            source=SAID,
            ours=_always_lost,
            page="../concepts/variance-loss.md",
        ),
    ],
    "Calibrating VAEs (2020)": [
        Figure(
            what="a balance that follows the error",
            published="the best results of a VAE at its time",
            source=SAID,
            ours=_balance,
            page="../concepts/balance.md",
        ),
        Figure(
            what="renormalising a second stage",
            published="a remarkable gain in FID",
            source=SAID,
            ours=_renormalised,
            page="../concepts/samplers.md",
        ),
        Figure(
            what="Split-VAE, MNIST, FID of another Inception network",
            published="7.47",
            source=f"{CODE}; how it was sampled is not said",
            ours="not measured: a network that is not carried; latlas measures Fréchet distances of its own classifiers",
            page="../concepts/samplers.md",
        ),
        Figure(
            what="Split-VAE, CelebA 64, FID of another Inception network",
            published="35.1 (earlier: 35.5)",
            source=f"{CODE}; how it was sampled is not said",
            ours=NO_CELEBA,
            page="../concepts/samplers.md",
        ),
    ],
    "Comparing latent spaces, 1 (2022)": [
        Figure(
            what="type 1, two trainings of one model: a linear map",
            published="almost identical images",
            source=SAID,
            ours=_type("type 1: VAE 0 to VAE 1", "type 1: VAE 1 to VAE 0"),
            page="../concepts/maps.md",
        ),
        Figure(
            what="type 2, VAE and Split-VAE",
            published="most of the information kept",
            source=SAID,
            ours=_type("type 2: VAE to Split-VAE", "type 2: Split-VAE to VAE"),
            page="../concepts/maps.md",
        ),
        Figure(
            what="type 3, GAN and VAE",
            published="most of the information kept",
            source=SAID,
            ours=_type("type 3: GAN to a VAE of its stream", "type 3: a VAE of its stream to GAN"),
            page="../concepts/maps.md",
        ),
        Figure(
            what="type 3, the W space of a StyleGAN and a VAE",
            published="astonishingly similar images",
            source=SAID,
            ours=_stylegan,
            page="../concepts/maps.md",
        ),
    ],
    "Comparing latent spaces, 2: Support Set (2022)": [
        Figure(
            what="a Support Set is enough to fit the map",
            published="128 images and a few more for 150 variables",
            source=READ,
            ours=_few,
            page="../concepts/maps.md",
        ),
        Figure(
            what="only a handful of variables is informative",
            published="7 of 150 taken",
            source=READ,
            ours=_order,
            page="../concepts/support-sets.md",
        ),
        Figure(
            what="spread of a Support Set over that of random images",
            published="0.183 / 0.116 = 1.58 (CelebA)",
            source=f"{READ}; ratio {DERIVED.removesuffix('s')}; threshold not given",
            ours=_spread,
            page="../concepts/support-sets.md",
        ),
        Figure(
            what="how evenly sectors are inhabited",
            published="far from uniform",
            source=SAID,
            ours=_uneven,
            page="../concepts/support-sets.md",
        ),
    ],
    "Comparing latent spaces, 3: generative range (2022)": [
        Figure(
            what="squared error of inversion: own samples, and Support Set",
            published="0.026 and 0.251 (CelebA-HQ StyleGAN)",
            source=f"{READ}; probably pixels in [-1, 1], a quarter of that in [0, 1]",
            ours=_range_ratio,
            page="../concepts/range.md",
        ),
        Figure(
            what="descent through the generator instead of a recoder",
            published="the same verdict",
            source=SAID,
            ours=_descent,
            page="../concepts/range.md",
        ),
        Figure(
            what="people with hats are outside a GAN's range",
            published="outside, or severely underrepresented",
            source=SAID,
            ours=_rejected,
            page="../concepts/range.md",
        ),
    ],
}


def main() -> int:
    """Write the table."""
    write_table("docs/reproductions/index.md", "reproductions", markdown())
    return 0


if __name__ == "__main__":
    sys.exit(main())
