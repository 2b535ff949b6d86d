"""The table of published figures is the one that the results give, and says so where there are none yet."""

import importlib
import json
import shutil
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reproductions" / "index.md"


@pytest.fixture
def reproductions(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("reproductions")


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("published")


def test_the_page_shows_what_the_results_give(reproductions: ModuleType) -> None:
    marked = f"<!-- reproductions: begin -->\n{reproductions.markdown()}\n<!-- reproductions: end -->"
    assert marked in PAGE.read_text(encoding="utf-8"), "python benchmarks/reproductions.py"


def test_without_results_every_measured_figure_is_not_measured_yet(reproductions: ModuleType, tmp_path: Path) -> None:
    rows = [line for line in reproductions.markdown(tmp_path).splitlines() if line.startswith("| [")]
    measured = sum(map(callable, reproductions.OURS.values()))
    assert len(rows) == len(reproductions.OURS)
    assert sum(reproductions.NOT_YET in row for row in rows) == measured
    assert measured >= 0.9 * len(rows)


def test_every_published_figure_has_ours_and_ours_has_no_other(reproductions: ModuleType) -> None:
    keys = [key for figures in reproductions.POSTS.values() for key in figures]
    assert sorted(keys) == sorted(reproductions.OURS)


def test_every_figure_has_its_source_and_a_page_that_exists(published: ModuleType) -> None:
    figures = [figure for figures in published.POSTS.values() for figure in figures.values()]
    assert len(figures) >= 25
    known = (published.READ, published.SAID, published.DERIVED, published.CODE, published.FORMULA)
    for figure in figures:
        assert figure.source.startswith(known)
        assert (PAGE.parent / figure.page).is_file()


@pytest.mark.parametrize(
    ("post", "numbers"),
    [  # as the posts print them
        ("Sparsity in Variational Autoencoders (2019)", ["8 of 16", "3 of 16"]),
        ("Loss of variance (2020)", ["0.0413 and 0.0411"]),
        ("Comparing latent spaces, 2: Support Set (2022)", ["0.183", "0.116"]),
        ("Comparing latent spaces, 3: generative range (2022)", ["0.026", "0.251"]),
    ],
)
def test_the_numbers_of_the_posts_are_there(post: str, numbers: list[str], published: ModuleType) -> None:
    shown = " ".join(figure.published for figure in published.POSTS[post].values())
    assert all(number in shown for number in numbers)


def test_ratios_follow_the_results_and_not_the_text(reproductions: ModuleType, tmp_path: Path) -> None:
    shutil.copy(ROOT / "benchmarks/results/tour.json", tmp_path)
    record = json.loads((tmp_path / "tour.json").read_text(encoding="utf-8"))
    record["measured"]["map.support.M_over_full_M"] = [1.25, 3.5]
    (tmp_path / "tour.json").write_text(json.dumps(record), encoding="utf-8")
    assert "M 1.25 to 3.50 times" in reproductions.markdown(tmp_path)


def test_a_results_file_of_another_form_is_an_error_and_no_gap(reproductions: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "kl.json").write_text("{}", encoding="utf-8")
    with pytest.raises(KeyError):
        reproductions.markdown(tmp_path)


def test_the_sums_of_the_published_tables_are_what_we_say_they_are(published: ModuleType) -> None:
    from latlas.reports.sparsity import PUBLISHED

    stated = published.POSTS["A stationary condition (2019)"]
    for name, values in PUBLISHED.items():
        sums = [variance + posterior for variance, posterior in values]
        mean = sum(sums) / len(sums)
        expected = f"{min(sums):.3f} to {max(sums):.3f}, mean {mean:.3f}"
        assert stated["law, dense" if "dense" in name else "law, conv"].published == expected
