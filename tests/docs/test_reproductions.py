"""The table of published figures is the one that the results give, and says so where there are none yet."""

import importlib
import json
import re
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


def test_the_page_shows_what_the_results_give(reproductions: ModuleType) -> None:
    marked = f"<!-- reproductions: begin -->\n{reproductions.markdown()}\n<!-- reproductions: end -->"
    assert marked in PAGE.read_text(encoding="utf-8"), "python benchmarks/reproductions.py"


def test_without_results_every_measured_figure_is_not_measured_yet(reproductions: ModuleType, tmp_path: Path) -> None:
    rows = [line for line in reproductions.markdown(tmp_path).splitlines() if line.startswith("| ") and "[page]" in line]
    measured = sum(callable(figure.ours) for figures in reproductions.POSTS.values() for figure in figures)
    assert sum(reproductions.NOT_YET in row for row in rows) == measured
    assert measured >= 0.9 * len(rows)


def test_every_figure_has_its_source_and_a_page_that_exists(reproductions: ModuleType) -> None:
    figures = [figure for figures in reproductions.POSTS.values() for figure in figures]
    assert len(figures) >= 25
    known = (reproductions.READ, reproductions.SAID, reproductions.DERIVED, reproductions.CODE, "formula in the post")
    for figure in figures:
        assert figure.source.startswith(known)
        assert (PAGE.parent / figure.page).is_file()


@pytest.mark.parametrize(
    ("post", "published"),
    [  # as the posts print them
        ("Sparsity in Variational Autoencoders (2019)", ["8 of 16", "3 of 16"]),
        ("Loss of variance (2020)", ["0.0413 and 0.0411"]),
        ("Comparing latent spaces, 2: Support Set (2022)", ["0.183", "0.116"]),
        ("Comparing latent spaces, 3: generative range (2022)", ["0.026", "0.251"]),
    ],
)
def test_the_numbers_of_the_posts_are_there(post: str, published: list[str], reproductions: ModuleType) -> None:
    shown = " ".join(figure.published for figure in reproductions.POSTS[post])
    assert all(number in shown for number in published)


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


def test_the_sums_of_the_published_tables_are_what_we_say_they_are() -> None:
    from latlas.reports.sparsity import PUBLISHED

    text = (ROOT / "benchmarks" / "reproductions.py").read_text(encoding="utf-8")
    stated = dict(re.findall(r'variance law, (dense|convolutional) net",\n\s+published="([^"]+)"', text))
    for name, values in PUBLISHED.items():
        sums = [variance + posterior for variance, posterior in values]
        mean = sum(sums) / len(sums)
        expected = f"{min(sums):.3f} to {max(sums):.3f}, mean {mean:.3f}"
        assert stated["dense" if "dense" in name else "convolutional"] == expected
