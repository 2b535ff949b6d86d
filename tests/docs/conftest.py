"""The built documentation site, for the tests of its pages and of its search."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def _build(folder: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("zensical")
    return subprocess.run([program, "build", "--strict"], cwd=folder, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture
def build_site() -> Callable[[Path], subprocess.CompletedProcess[str]]:
    """Runs the generator in a folder."""
    return _build


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The built site, and what the generator said."""
    if not Path(sys.executable).with_name("zensical").exists():
        pytest.skip("needs pip install 'latlas[docs]'")
    folder = tmp_path_factory.mktemp("docs")
    shutil.copytree(ROOT / "docs", folder / "docs")
    for name in ("mkdocs.yml", "CHANGELOG.md"):
        shutil.copy(ROOT / name, folder)
    for name in ("src", "tools"):
        (folder / name).symlink_to(ROOT / name)
    done = _build(folder)
    said = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)
    assert done.returncode == 0, said
    return folder / "site", said
