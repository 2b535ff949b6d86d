"""What latlas is built on: pinned for development, bounded from below for users, with known licences and no known poison."""

import re
import tomllib
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
from packaging.version import Version

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "constraints.txt").read_text(encoding="utf-8")
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def tool(name: str) -> ModuleType:
    place = spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert place is not None
    assert place.loader is not None
    module = module_from_spec(place)
    place.loader.exec_module(module)
    return module


def test_the_lock_pins_everything_and_holds_nothing_that_is_refused() -> None:
    assert tool("audit").findings(LOCK) == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("lightning==2.6.2", "malicious"),
        ("Lightning==2.6.3", "malicious"),
        ("torchvision==0.28.0", "does not import|do not import"),
        ("numpy", "pins no version"),
        ("numpy==2.4.6\nNumPy==2.4.6", "twice"),
        ("x @ https://example.org/x.whl", "pins no version"),
    ],
)
def test_a_planted_fault_in_the_lock_is_found(line: str, said: str) -> None:
    (found,) = tool("audit").findings(line)
    assert re.search(said, found)


def test_users_get_lower_bounds_that_the_lock_keeps() -> None:
    bounds = tool("lower_bounds").lower_bounds(PYPROJECT)
    locked = {}
    for line in LOCK.splitlines():
        name, _, version = line.partition("==")
        locked[re.sub(r"[-_.]+", "-", name).lower()] = version
    assert len(bounds) > 20
    for name, lowest in bounds.items():
        key = re.sub(r"[-_.]+", "-", name).lower()
        if key in locked:  # some extras are no part of development
            assert Version(locked[key]) >= Version(lowest), name


def test_a_dependency_without_a_lower_bound_is_an_error() -> None:
    with pytest.raises(ValueError, match="lower bound"):
        tool("lower_bounds").lower_bounds('[project]\ndependencies = ["numpy"]')


def test_every_dependency_of_a_user_stands_on_the_page_of_licences() -> None:
    licences = tool("licences")
    page = (ROOT / "docs" / "licences.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| ([\w.-]+) \| [^|]+ \| ([^|]+) \|$", page, flags=re.MULTILINE))
    needed = licences.closure(licences.requirements(PYPROJECT))
    assert len(needed) > 60
    assert set(needed) <= set(rows), "python tools/licences.py"
    assert "not stated" not in rows.values()
    assert not [row for row in rows.values() if licences.STRONG.search(row)]


@pytest.mark.parametrize(
    ("text", "strong"),
    [
        ("GPL-3.0-only", True),
        ("GNU Affero General Public License v3", True),
        ("AGPL-3.0", True),
        ("LGPL-2.1", False),
        ("MPL-2.0", False),
        ("Apache-2.0", False),
    ],
)
def test_strong_copyleft_is_told_from_weak(text: str, strong: bool) -> None:
    assert bool(tool("licences").STRONG.search(text)) is strong


def test_developers_tools_are_in_no_extra_for_users() -> None:
    extras = tomllib.loads(PYPROJECT)["project"]["optional-dependencies"]
    assert {"bench", "dev", "docs"} <= set(extras)
    users = set(extras) - {"bench", "dev", "docs", "fuzz"}
    assert not any("playwright" in one or "pytest" in one for name in users for one in extras[name])
