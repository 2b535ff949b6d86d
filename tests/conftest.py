"""What every test may use: a seeded generator, a quiet hypothesis, and real digits where the machine has them."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings

from latlas.base.errors import DataUnavailableError
from latlas.data.builtin import cache_folder, load_builtin
from latlas.data.images import ImageSet

# The same examples on every run and every machine: a red test must stay red until it is mended.
settings.register_profile(
    "latlas",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("latlas")

# Everything here is small. On a busy machine threads wait for one another: measured, four times as long as one alone.
torch.set_num_threads(1)

# Nothing that a browser does of its own may be taken for what a page asked.
_CHROMIUM_ARGUMENTS = (
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-unsafe-swiftshader",
)


@pytest.fixture
def generator() -> torch.Generator:
    """A generator with a fixed seed, new for each test."""
    return torch.Generator().manual_seed(20240229)


@pytest.fixture(scope="session")
def mnist_test() -> ImageSet:
    """The 10,000 test digits; skipped only where no source delivers them and none lies in the cache."""
    return _builtin_or_skip("mnist", "test")


@pytest.fixture(scope="session")
def mnist_train() -> ImageSet:
    """The 60,000 training digits, as `mnist_test`."""
    return _builtin_or_skip("mnist", "train")


@pytest.fixture(scope="session")
def fashion_test() -> ImageSet:
    """The 10,000 test garments, as `mnist_test`."""
    return _builtin_or_skip("fashion-mnist", "test")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A real Chromium; skipped where there is none. One a module: its event loop would be in the way of other modules."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the browser is driven by playwright")
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next((found for name in names if (found := shutil.which(name))), None)
    with playwright.sync_playwright() as driver:
        try:
            started = driver.chromium.launch(executable_path=path, args=list(_CHROMIUM_ARGUMENTS))
        except playwright.Error:
            if path is not None:
                raise  # it is there and does not start: that is a fault, and no reason to skip
            pytest.skip("no Chromium on this machine: apt-get install chromium")
        yield started
        started.close()


def _builtin_or_skip(name: str, split: str) -> ImageSet:
    try:
        return load_builtin(name, split)
    except DataUnavailableError as failure:
        if (cache_folder() / name).is_dir():
            raise  # the files are here and cannot be read: that is a fault, and no reason to skip
        pytest.skip(str(failure))
