"""Say which packages the code imports, and which of them pyproject.toml does not name: python tools/imports.py.

What a dependency brings along it may also drop: what latlas, its tests, tools and benchmarks import stands in pyproject.toml itself.
"""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
FOLDERS = ("src", "tests", "tools", "benchmarks")
# Import name -> the package that it comes in, where the two differ.
PACKAGES = {
    "PIL": "pillow",
    "arro3": "arro3-core",
    "dicebear": "dicebear-core",
    "griffe": "griffelib",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
# Not installed with any extra, and why they are imported all the same.
ELSEWHERE = {
    "atheris": "make fuzz installs it; its tests run without",
    "griffelib": "mkdocstrings-python calls its extension, which is written against it",
    "latentis": "benchmarks/latentis_affine.py runs in an environment of its own: it pins what latlas does not",
    "openvino": "make bench-mobile-stylegan OPENVINO=…: an environment of its own",
    "torchvision": "looked for, so that its absence is certain",
}
NOT_FOR_USERS = ("bench", "dev", "docs", "test")
_BY_NAME = ("find_spec", "import_module", "importorskip")


def canonical(name: str) -> str:
    """Return a package's name as indexes compare it.

    >>> canonical("Jinja2"), canonical("huggingface_hub")
    ('jinja2', 'huggingface-hub')
    """
    return re.sub(r"[-_.]+", "-", name).lower()


def imports_of(code: str) -> Iterator[str]:
    r"""Yield the modules that a file imports anywhere in it, relative ones excepted; by name too, where the name is written out.

    >>> sorted(imports_of("import os.path, numpy as np\nimportorskip('PIL.Image')\nfrom . import x"))
    ['PIL.Image', 'numpy', 'os.path']
    """
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module is not None:
            yield node.module
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = getattr(node.func, "attr", getattr(node.func, "id", None))
            if called in _BY_NAME and isinstance(node.args[0].value, str):
                yield node.args[0].value


def imported(root: Path = ROOT, folders: tuple[str, ...] = FOLDERS) -> dict[str, set[str]]:
    """Return package -> files that import it, of all that is neither Python's nor of this repository."""
    own = {"latlas"}  # the others are modules that lie beside one another, and folders of them
    for place in (root / folder for folder in FOLDERS if folder != "src"):
        own |= {path.stem for path in place.rglob("*.py")} | {path.parent.name for path in place.rglob("*.py")}
    found: dict[str, set[str]] = {}
    for folder in folders:
        for path in sorted((root / folder).rglob("*.py")):
            for module in imports_of(path.read_text(encoding="utf-8")):
                top = module.partition(".")[0]
                if top not in sys.stdlib_module_names and top not in own:
                    found.setdefault(canonical(PACKAGES.get(top, top)), set()).add(path.relative_to(root).as_posix())
    return found


def named(pyproject: str, *, users_only: bool) -> set[str]:
    """Return the packages that pyproject.toml names: all, or those of users without the developers' extras."""
    project = tomllib.loads(pyproject)["project"]
    extras = project.get("optional-dependencies", {})
    listed = [*project.get("dependencies", [])]
    for extra, some in extras.items():
        if not users_only or extra not in NOT_FOR_USERS:
            listed += some
    return {canonical(Requirement(one).name) for one in listed}


def unnamed(pyproject: str, root: Path = ROOT) -> dict[str, set[str]]:
    """Return package -> files, of what is imported and not named: by latlas itself, among its users' dependencies."""
    missing: dict[str, set[str]] = {}
    for folder in FOLDERS:
        names = named(pyproject, users_only=folder == "src") | set(ELSEWHERE)
        for package, files in imported(root, (folder,)).items():
            if package not in names:
                missing.setdefault(package, set()).update(files)
    return missing


def main() -> int:
    """Print what is missing."""
    missing = unnamed((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    for package, files in sorted(missing.items()):
        print(f"{package} is imported by {', '.join(sorted(files))}, and pyproject.toml does not name it.")
    return int(bool(missing))


if __name__ == "__main__":
    sys.exit(main())
