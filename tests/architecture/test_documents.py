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
    ("docs/benchmarks.md", "bench", "bench", "bench", "markdown"),
    ("docs/benchmarks.md", "bench-machine", "bench", "bench", "machine_markdown"),
    ("docs/start.md", "tour", "tour", "tour", "markdown_table"),
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
    ("docs/concepts/maps.md", "type-3-stylegan", "range", "ranges", "maps_table"),
    ("docs/concepts/range.md", "range", "range", "ranges", "range_table"),
    ("docs/concepts/range.md", "range-why", "range", "ranges", "why_table"),
    ("docs/concepts/range.md", "starts", "range", "ranges", "starts_table"),
    ("docs/concepts/range.md", "projector", "range", "ranges", "projector_table"),
    ("docs/concepts/support-sets.md", "order", "support", "support", "order_table"),
    ("docs/concepts/support-sets.md", "spread", "support", "support", "spread_table"),
    ("docs/concepts/support-sets.md", "selection", "support", "support", "selection_table"),
    ("docs/concepts/coverage.md", "planted", "planted", "planted", "markdown"),
    ("docs/reproductions/kl-curve.md", "kl-curve", "kl", "kl", "kl_curve_markdown"),
    ("docs/reproductions/trajectories.md", "trajectories", "kl", "kl", "trajectories_markdown"),
    ("docs/reproductions/latent-cloud.md", "latent-cloud", "kl", "kl", "latent_cloud_markdown"),
    ("docs/reproductions/sparsity.md", "sparsity", "sparsity", "sparsity", "sparsity_table"),
    ("docs/reproductions/sparsity.md", "sparsity-variables", "sparsity", "sparsity", "variables_table"),
    ("docs/reproductions/noise-injection.md", "noise-injection", "sparsity", "sparsity", "noise_table"),
    ("docs/reproductions/noise-injection.md", "noise-settled", "noise_settled", "noise_settled", "markdown"),
    ("docs/concepts/trust.md", "torture", "torture", "torture", "markdown"),
    ("docs/concepts/trust.md", "fuzz", "fuzz", "fuzzing", "markdown"),
    ("docs/reproductions/variance-law.md", "variance-law", "sparsity", "sparsity", "law_table"),
    ("docs/reproductions/pruning.md", "pruning", "pruning", "pruning", "markdown"),
    ("docs/concepts/maps.md", "little-data", "map_studies", "map_studies", "little_data_table"),
    ("docs/how-to/cluster.md", "scale-costs", "scale", "scale", "costs_table"),
    ("docs/how-to/cluster.md", "scale-race", "scale", "scale", "race_table"),
    ("docs/how-to/cluster.md", "scale-billion", "scale", "scale", "billion_table"),
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
    path = ROOT / "benchmarks" / "results" / f"{results}.json"
    text = (ROOT / document).read_text(encoding="utf-8")
    if not path.is_file():
        # Not measured yet: then the document must show nothing either.
        assert f"<!-- {marks}: begin -->\n<!-- {marks}: end -->" in text
        return
    content: Any = getattr(benchmark(module), function)(json.loads(path.read_text(encoding="utf-8")))
    assert f"<!-- {marks}: begin -->\n{content}\n<!-- {marks}: end -->" in text


def test_every_table_between_marks_is_tested() -> None:
    documents = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    found = {
        (str(document.relative_to(ROOT)), line.removeprefix("<!-- ").removesuffix(": begin -->"))
        for document in documents
        for line in document.read_text(encoding="utf-8").splitlines()
        if line.startswith("<!-- ") and line.endswith(": begin -->")
    }
    elsewhere = {
        ("docs/concepts/zoo.md", "zoo"),  # tests/models/test_carried.py
        ("docs/reproductions/index.md", "reproductions"),  # of all results: tests/docs/test_reproductions.py
    }
    assert found == {(document, marks) for document, marks, *_ in TABLES} | elsewhere


def test_marks_that_are_missing_are_refused(benchmark: Callable[[str], ModuleType]) -> None:
    tables = benchmark("tables")
    assert tables.between_marks("a <!-- x: begin -->old<!-- x: end --> b", "x", "new") == (
        "a <!-- x: begin -->\nnew\n<!-- x: end --> b"
    )
    with pytest.raises(ValueError, match="nowhere to go"):
        tables.between_marks("nothing", "x", "new")
