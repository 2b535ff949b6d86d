"""Print a constraint for every direct dependency: the oldest version that pyproject.toml says latlas works with.

    python tools/lower_bounds.py > lowest.txt && pip install --constraint lowest.txt -e '.[dev]'

torch stays as constraints.txt has it: older CPU builds are not on every package index.
"""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
_BOUND = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)(\[[^\]]*\])?\s*(>=|==)\s*(?P<version>[0-9][0-9a-z.]*)")
TOOLS = ("pytest", "hypothesis", "beartype", "ruff", "mypy", "import-linter", "playwright")  # of developers, not of users


def lower_bounds(pyproject: str) -> dict[str, str]:
    r"""Return name -> lowest version of the dependencies, extras included and the developers' tools excepted.

    Raises:
        ValueError: a dependency states no lower bound.

    >>> lower_bounds('[project]\ndependencies = ["numpy>=1.26,<3"]')
    {'numpy': '1.26'}
    """
    project = tomllib.loads(pyproject)["project"]
    listed = [*project.get("dependencies", [])]
    for requirements in project.get("optional-dependencies", {}).values():
        listed += requirements
    found: dict[str, str] = {}
    for requirement in listed:
        if requirement.startswith("latlas"):
            continue
        match = _BOUND.match(requirement)
        if match is None:
            raise ValueError(f"pyproject.toml: {requirement!r} states no lower bound. Write name>=version.")
        if match["name"] not in TOOLS:
            found[match["name"]] = match["version"]
    return found


def main() -> int:
    """Print the constraints."""
    bounds = lower_bounds((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    locked = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    torch = next(line for line in locked if line.startswith("torch=="))
    print("\n".join([torch, *(f"{name}=={version}" for name, version in sorted(bounds.items()) if name != "torch")]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
