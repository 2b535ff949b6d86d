"""Who comes with a question finds the answer on the first screen of one page, and what pages say in words is what was measured."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import beta

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
TEXTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")]
PAGES = [*TEXTS, *(page for page in DOCS.rglob("*.md") if page.parent.name != "reference")]
SCREEN = 16  # lines, of up to 160 letters

# question: page of the documentation, and the command that answers it
QUESTIONS = {
    "Is my VAE collapsed?": ("tutorials/diagnose.md", "latlas diagnose"),
    "Why are samples worse than reconstructions?": ("concepts/samplers.md", "latlas calibrate"),
    "from A to B": ("tutorials/translate.md", "latlas map"),
    "Can this generator make this image, or did my inversion fail?": ("tutorials/cover.md", "latlas range"),
}


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _prose(path: Path) -> str:
    """Return a page without its blocks of code, in one line."""
    return " ".join(re.sub(r"^```.*?^```$", "", _read(path), flags=re.MULTILINE | re.DOTALL).split())


def _results(name: str) -> Any:
    return json.loads(_read(ROOT / "benchmarks" / "results" / f"{name}.json"))


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_leads_to_one_page_which_names_the_answering_command_at_once(question: str) -> None:
    page, command = QUESTIONS[question]
    first = "\n".join(_read(DOCS / page).splitlines()[:SCREEN])
    assert f"`{command}" in first
    for start, prefix in (("README.md", "docs/"), ("docs/index.md", "")):
        (row,) = [row for row in _read(ROOT / start).splitlines() if row.startswith("| ") and question in row]
        assert f"]({prefix}{page}" in row, start


@pytest.mark.parametrize("path", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_extras_are_named_by_the_page_that_tells_how_to_install_them(path: Path) -> None:
    if path.name != "install.md":
        assert "pip install 'latlas[" not in _read(path), "there is no release: name the extra, and link to install.md#extras"


def test_the_rate_of_one_calibration_is_what_the_beta_law_gives() -> None:
    """The rate of one calibration of n samples is Beta(k, n + 1 - k), k the largest rank that is rejected (Vovk 2012)."""
    low, high = beta(50, 951).ppf([0.025, 0.975])
    assert f"between {100 * low:.1f} and {100 * high:.1f} % in 95 cases of 100" in _prose(DOCS / "concepts/range.md")


def test_what_few_images_cost_is_what_was_measured() -> None:
    found = _results("map_studies")["little_data"]

    def percent(data: str, points: int) -> tuple[int, int]:
        ratios = [fit["M_over_full_M"] for fit in found[data]["fits"] if (fit["points"], fit["ridge"]) == (points, "gcv")]
        return round(100 * min(ratios) - 100), round(100 * max(ratios) - 100)

    text = _prose(DOCS / "concepts/maps.md")
    for data, points, words in (
        ("avatars", 148, "leave {} to {} % more error than all of them on avatars (148 images)"),
        ("mnist", 34, "{} to {} % on digits (34)"),
        ("mnist", 66, "{} to {} % on digits (66)"),
    ):
        assert words.format(*percent(data, points)) in text
    tutorial = _prose(DOCS / "tutorials/translate.md")
    assert "With 66 images it is a tenth more, with 131 a twentieth" in tutorial
    assert np.mean(percent("mnist", 66)) == pytest.approx(10, abs=2)
    assert np.mean(percent("mnist", 131)) == pytest.approx(5, abs=2)


def test_the_mean_of_the_projector_is_not_shown_without_its_median() -> None:
    """The mean of eight images is that of the few which were missed: who reads it alone thinks the projector poor."""
    found = _results("range")["projector"]
    assert found["projector"]["median"] < found["hybrid, 25 steps"]["median"]
    text = _prose(DOCS / "concepts/range.md")
    assert f"at least four of its eight came back to {found['projector']['median']:.6f} or less" in text
    assert f"({found['hybrid, 400 steps']['median']:.6f}, of 64 images)" in text
    assert "its median is lower than ours" in _prose(ROOT / "README.md")
    assert "By the median the projector is ahead" in _prose(DOCS / "against-others.md")


def test_what_w_plus_leaves_is_compared_with_as_many_steps_in_w() -> None:
    why = _results("range")["range StyleGAN2"]["why"]
    kind = "training set's kind: {}five times the steps"
    assert why[kind.format("in W+, ")] / why[kind.format("")] == pytest.approx(0.4, abs=0.03)
    assert why[kind.format("in W+, ")] / why["own samples: in W+, five times the steps"] == pytest.approx(200, rel=0.1)
    assert "leaves two fifths of that error, and still two hundred times that of own samples" in _prose(
        DOCS / "concepts/range.md"
    )


def test_what_a_sampler_wins_is_what_the_table_below_says() -> None:
    (row,) = [
        row
        for row in _results("calibration")["rows"]
        if (row["data"], row["rule"], row["seed"]) == ("mnist", "running-error", 0)
    ]
    samplers = {name: found["distance"]["value"] for name, found in row["calibration"]["samplers"].items()}
    words = f"falls from {samplers['prior']:.0f} with the prior to {samplers['mixture']:.0f} with a mixture"
    assert words in _prose(DOCS / "concepts/samplers.md")


def test_the_shares_that_maps_recover_are_those_of_their_benchmarks() -> None:
    rows = _results("maps")["rows"]

    def shares(kind: str) -> list[float]:
        return [row["recovered_share"] for name, row in rows.items() if name.startswith(kind)]

    text = _prose(DOCS / "concepts/maps.md")
    assert f"less between kinds of model ({min(shares('type 2')):.2f} to {max(shares('type 2')):.2f} from VAE to VAE" in text
    assert np.mean(shares("type 3: GAN")) == pytest.approx(0.6, abs=0.02)
    tour = _results("tour")["measured"]
    there, shuffled = tour["map.type1.M_over_target_R"], tour["map.type1.M_over_shuffled"]
    lost = [(m / s - m) / (m / s - 1) for m, s in zip(there, shuffled, strict=True)]
    assert "trainings of one model (0.92 to 1.00 of what can be carried arrives)" in text
    assert min([*lost, *shares("type 1")]) == pytest.approx(0.92, abs=0.005)
    assert max([*lost, *shares("type 1")]) == pytest.approx(1, abs=0.005)


def test_the_recovered_shares_of_the_maps_of_the_zoo_are_those_of_their_records() -> None:
    text = _prose(DOCS / "concepts/zoo.md")
    found = 0
    for record in (ROOT / "src/latlas/models/carried").glob("*-to-*/zoo.json"):
        measured = json.loads(_read(record))["measured"]
        share = (measured["mean_code"] - measured["M"]) / (measured["mean_code"] - measured["target_R"])
        assert f"{share:.2f} (`{record.parent.name}`" in text
        found += 1
    assert found == 5


def test_the_errors_of_fixed_weights_are_three_times_the_default_as_the_decision_says() -> None:
    table = _results("calibration")["summary"]["table"]
    assert "errors are three times what they could be" in _prose(DOCS / "decisions/0001-running-error-balance.md")
    for data in ("mnist", "avatars"):
        assert table[data]["fixed"]["error"] / table[data]["running-error"]["error"] == pytest.approx(3, abs=0.35)
    kl = [table["mnist"][rule]["kl_nats"] for rule in ("fixed", "running-error")]
    assert f"({kl[0]:.0f} nats in place of {kl[1]:.0f} on digits, below)" in _prose(DOCS / "concepts/balance.md")
