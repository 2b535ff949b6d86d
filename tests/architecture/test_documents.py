"""Every table of figures in the documents is the one that its benchmark's results file gives."""

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

# document, marks, results file, module of benchmarks/, its function
TABLES = [
    ("README.md", "tour", "tour", "tour", "markdown_table"),
    ("docs/concepts/balance.md", "balance", "calibration", "calibration", "balance_table"),
    ("docs/concepts/samplers.md", "samplers", "calibration", "calibration", "sampler_table"),
    ("docs/concepts/samplers.md", "renormalisation", "calibration", "calibration", "renormalisation_table"),
    ("docs/concepts/samplers.md", "second-stage-codes", "renormalisation", "renormalisation", "markdown"),
    ("docs/concepts/variance-loss.md", "variance-loss", "variance_loss", "variance_loss", "markdown"),
    ("docs/concepts/face-crops.md", "face-crops", "mobile_stylegan", "mobile_stylegan", "crop_table"),
    ("docs/against-others.md", "pythae", "against_pythae", "against_pythae", "markdown"),
    ("docs/against-others.md", "pythae-samplers", "against_pythae", "against_pythae", "sampler_markdown"),
    ("docs/against-others.md", "vector-maps", "vector_maps", "vector_maps", "markdown"),
    ("docs/concepts/maps.md", "maps", "maps", "maps", "markdown"),
    ("docs/concepts/maps.md", "little-data", "map_studies", "map_studies", "little_data_table"),
    ("docs/concepts/maps.md", "directions", "map_studies", "map_studies", "directions_table"),
]


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module


@pytest.mark.parametrize(("document", "marks", "results", "module", "function"), TABLES)
def test_a_table_shows_what_was_measured(
    document: str, marks: str, results: str, module: str, function: str, benchmark: Callable[[str], ModuleType]
) -> None:
    record = json.loads((ROOT / "benchmarks" / "results" / f"{results}.json").read_text(encoding="utf-8"))
    content: Any = getattr(benchmark(module), function)(record)
    text = (ROOT / document).read_text(encoding="utf-8")
    assert f"<!-- {marks}: begin -->\n{content}\n<!-- {marks}: end -->" in text


def test_every_table_between_marks_is_tested() -> None:
    documents = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    found = {
        (str(document.relative_to(ROOT)), line.removeprefix("<!-- ").removesuffix(": begin -->"))
        for document in documents
        for line in document.read_text(encoding="utf-8").splitlines()
        if line.startswith("<!-- ") and line.endswith(": begin -->")
    }
    assert found == {(document, marks) for document, marks, *_ in TABLES}


def test_marks_that_are_missing_are_refused(benchmark: Callable[[str], ModuleType]) -> None:
    tables = benchmark("tables")
    assert tables.between_marks("a <!-- x: begin -->old<!-- x: end --> b", "x", "new") == (
        "a <!-- x: begin -->\nnew\n<!-- x: end --> b"
    )
    with pytest.raises(ValueError, match="nowhere to go"):
        tables.between_marks("nothing", "x", "new")
