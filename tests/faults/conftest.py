"""The harness of `make torture`, which the short forms here share."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session", autouse=True)
def _benchmarks_on_the_path() -> None:
    import sys

    sys.path.insert(0, str(ROOT / "benchmarks"))


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small artifact of every kind."""
    import importlib

    return importlib.import_module("torture_artifacts").make_all(tmp_path_factory.mktemp("artifacts"))
