"""What latlas is built on: pinned for development, bounded from below for users, with known licences and no known poison."""

import re
import tomllib
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "constraints.txt").read_text(encoding="utf-8")
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


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
    locked = {canonical(line.partition("==")[0]): line.partition("==")[2] for line in LOCK.splitlines()}
    assert len(bounds) > 20
    for name, lowest in bounds.items():
        if canonical(name) in locked:  # some extras are no part of development
            assert Version(locked[canonical(name)]) >= Version(lowest), name


def test_the_lock_holds_every_dependency_of_development() -> None:
    locked = {canonical(line.partition("==")[0]) for line in LOCK.splitlines()}
    extras = tomllib.loads(PYPROJECT)["project"]["optional-dependencies"]
    wanted = {
        canonical(Requirement(one).name)
        for name in ("dev", "test", "docs", "explore", "hub", "onnx", "data")
        for one in extras[name]
    }
    assert wanted - locked - {"latlas"} == set()


def test_of_several_bounds_the_highest_counts_and_developers_tools_do_not() -> None:
    text = """
        [project]
        dependencies = ["torch>=2.6"]
        optional-dependencies.onnx = ["torch>=2.10,<3"]
        optional-dependencies.test = ["pytest>=8"]
    """
    assert tool("lower_bounds").lower_bounds(text) == {"torch": "2.10"}


def test_a_dependency_without_a_lower_bound_is_an_error() -> None:
    with pytest.raises(ValueError, match="lower bound"):
        tool("lower_bounds").lower_bounds('[project]\ndependencies = ["numpy"]')


def test_the_page_of_licences_says_what_the_installed_packages_say() -> None:
    licences = tool("licences")
    page = (ROOT / "docs" / "licences.md").read_text(encoding="utf-8")
    assert licences.wrong(page, PYPROJECT) == [], "python tools/licences.py"
    rows = licences.rows_of(page)
    assert len(rows) > 60
    assert not [row for row in rows.values() if "not stated" in row or licences.STRONG.search(row)]


def test_the_page_of_licences_lists_the_versions_of_the_lock() -> None:
    locked = {canonical(line.partition("==")[0]): line.partition("==")[2] for line in LOCK.splitlines()}
    page = (ROOT / "docs" / "licences.md").read_text(encoding="utf-8")
    listed = {name: row.split("|")[2].strip() for name, row in tool("licences").rows_of(page).items()}
    assert {name: version for name, version in listed.items() if locked.get(name, version) != version} == {}


@pytest.mark.parametrize(
    ("requirement", "said"),
    [
        ("leftpad>=1", "leftpad has no row"),  # not installed anywhere
        ("pytest>=8", "pytest has no row"),  # installed, and so are its own dependencies
        ("pytest>=8", "pluggy has no row"),
    ],
)
def test_a_dependency_without_a_licence_on_the_page_is_found(requirement: str, said: str) -> None:
    page = (ROOT / "docs" / "licences.md").read_text(encoding="utf-8")
    planted = PYPROJECT.replace('  "torch>=', f'  "{requirement}",\n  "torch>=', 1)
    assert said in tool("licences").wrong(page, planted)


def test_a_wrong_licence_on_the_page_is_found() -> None:
    page = (ROOT / "docs" / "licences.md").read_text(encoding="utf-8")
    planted = re.sub(r"(?m)^(\| numpy \| [^|]+) \| [^|]+ \|$", r"\1 | GPL-3.0-only |", page)
    assert planted != page
    (said,) = tool("licences").wrong(planted, PYPROJECT)
    assert said.startswith("numpy: ")


def test_what_a_dependency_needs_with_an_extra_is_listed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain first and with the extra later, or the other way round."""
    licences = tool("licences")
    needs = {"one": ["two", "three"], "three": ["two[more]"], "two": ["four; extra == 'more'"], "four": [], "five": ["two"]}

    class Package:
        def __init__(self, name: str) -> None:
            self.requires = needs[name]

    monkeypatch.setattr(licences, "distribution", Package)
    assert list(licences.closure([Requirement("one")])) == ["four", "one", "three", "two"]
    assert list(licences.closure([Requirement("two[more]"), Requirement("five")])) == ["five", "four", "two"]
    assert list(licences.closure([Requirement("five")])) == ["five", "two"]


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
    developers = {"bench", "dev", "docs", "test"}
    assert developers <= set(extras)
    for name in ("imports", "licences", "lower_bounds"):
        assert set(tool(name).NOT_FOR_USERS) == developers
    users = set(extras) - developers
    assert not any("playwright" in one or "pytest" in one for name in users for one in extras[name])


def test_everything_that_is_imported_is_named_in_pyproject() -> None:
    assert tool("imports").unnamed(PYPROJECT) == {}, "name it in pyproject.toml, or in tools/imports.py with the reason"


def test_what_latlas_imports_may_not_come_with_a_developers_extra(tmp_path: Path) -> None:
    imports = tool("imports")
    for folder, code in (
        ("src", "import mpmath, numpy"),
        ("tests", "import mpmath"),
        ("tools", "import sphinx.ext"),
        ("benchmarks", ""),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "own.py").write_text(f"def inside():\n    import own\n    {code or 'import os'}\n")
    assert imports.unnamed(PYPROJECT, tmp_path) == {"mpmath": {"src/own.py"}, "sphinx": {"tools/own.py"}}


def test_no_exception_from_naming_is_left_over() -> None:
    imports = tool("imports")
    assert set(imports.ELSEWHERE) <= set(imports.imported())
    assert set(imports.ELSEWHERE).isdisjoint(imports.named(PYPROJECT, users_only=False))


def test_every_dependency_of_a_user_is_tried_at_both_ends_of_its_versions() -> None:
    ends = tool("ends")
    bounds = tool("lower_bounds").lower_bounds(PYPROJECT)
    assert set(ends.USES) | set(ends.ELSEWHERE) == set(bounds)
    assert set(ends.USES).isdisjoint(ends.ELSEWHERE)


def test_every_test_for_both_ends_exists() -> None:
    for test in tool("ends").tests():
        path, _, name = test.partition("::")
        text = (ROOT / path).read_text(encoding="utf-8")
        assert f"def {name or 'test_'}" in text, test
