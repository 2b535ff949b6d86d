"""Print a constraint for every dependency of a user: the oldest version that pyproject.toml says latlas works with.

    python tools/lower_bounds.py > lowest.txt && pip install --constraint lowest.txt -e '.[hub,onnx]'
    python tools/lower_bounds.py --torch 2.6.0

Unless another is asked for, torch stays as constraints.txt has it: package indexes serve older versions as CUDA builds of gigabytes.
"""

import argparse
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
_BOUND = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)(\[[^\]]*\])?\s*(>=|==)\s*(?P<version>[0-9][0-9a-z.]*)")
NOT_FOR_USERS = ("bench", "dev", "docs", "test")  # extras of developers, who take what is new


def lower_bounds(pyproject: str) -> dict[str, str]:
    r"""Return name -> lowest version of the dependencies, extras for users included; the highest bound, where there are several.

    Raises:
        ValueError: a dependency states no lower bound.

    >>> lower_bounds('[project]\ndependencies = ["numpy>=1.26,<3"]')
    {'numpy': '1.26'}
    """
    project = tomllib.loads(pyproject)["project"]
    listed = [*project.get("dependencies", [])]
    for extra, requirements in project.get("optional-dependencies", {}).items():
        listed += requirements if extra not in NOT_FOR_USERS else ()
    found: dict[str, str] = {}
    for requirement in listed:
        match = _BOUND.match(requirement)
        if match is None:
            raise ValueError(f"pyproject.toml: {requirement!r} states no lower bound. Write name>=version.")
        found[match["name"]] = max(found.get(match["name"], "0"), match["version"], key=_parts)
    return found


def _parts(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]


def main() -> int:
    """Print the constraints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch", help="its version; the one of constraints.txt, if none is given")
    asked = parser.parse_args()
    bounds = lower_bounds((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    locked = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    torch = next(line for line in locked if line.startswith("torch==")) if asked.torch is None else f"torch=={asked.torch}"
    print("\n".join([torch, *(f"{name}=={version}" for name, version in sorted(bounds.items()) if name != "torch")]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
