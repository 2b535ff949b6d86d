"""Memory does not grow with the rows: neither of encoding into a store nor of fitting a map to stored codes."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

MOST = 1.1


@pytest.fixture
def measure(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    return importlib.import_module("store_memory")


def test_four_times_the_rows_take_the_same_memory(measure: ModuleType) -> None:
    """Held in memory, the codes of the larger set would take a third more."""
    ratios = measure.ratios(10_000, 40_000, latent=256)
    assert {work: ratio for work, ratio in ratios.items() if ratio > MOST} == {}


@pytest.mark.slow
def test_a_million_rows_take_the_memory_of_ten_thousand(measure: ModuleType) -> None:
    ratios = measure.ratios(10_000, 1_000_000)
    assert {work: ratio for work, ratio in ratios.items() if ratio > MOST} == {}
