"""The picture in docs/architecture.md, the contract in pyproject.toml and the code say the same."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

import latlas

ROOT = Path(__file__).parents[2]


def _in_new_process(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout.strip()


def test_the_documented_layers_are_the_ones_that_the_contract_checks() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    checked = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    picture = re.search(r"```layers\n(.*?)```", (ROOT / "docs/architecture.md").read_text(), flags=re.DOTALL)
    assert picture is not None
    assert picture[1].split("\n")[:-1] == checked


def test_every_package_has_a_row_in_the_documented_rooms() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    packages = {path.parent.name for path in (ROOT / "src/latlas").glob("*/__init__.py")}
    assert packages
    assert {name for name in packages if f"| `{name}` |" not in text} == set()


def test_importing_latlas_imports_neither_torch_nor_matplotlib_nor_typer() -> None:
    loaded = _in_new_process(
        "import sys, latlas; print([m for m in ('torch', 'matplotlib', 'typer', 'lightning') if m in sys.modules])"
    )
    assert loaded == "[]"


def test_the_command_line_shows_help_without_torch() -> None:
    code = (
        "import sys\nfrom latlas.cli.main import app\nsys.argv = ['latlas', 'map', '--help']\n"
        "try:\n    app()\nexcept SystemExit:\n    pass\nprint('torch' in sys.modules)"
    )
    assert _in_new_process(code).splitlines()[-1] == "False"


@pytest.mark.parametrize("name", [name for name in latlas.__all__ if name != "__version__"])
def test_every_public_name_loads_and_has_a_docstring(name: str) -> None:
    public = getattr(latlas, name)
    assert public.__module__.startswith("latlas.")
    assert public.__doc__


def test_the_names_that_design_promises_so_far_are_public() -> None:
    promised = {"load_model", "load_images", "encode", "diagnose", "fit_map", "LinearMap", "compare", "build_support_set"}
    assert promised | {"invert", "range_test", "train_vae"} <= set(latlas.__all__)


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        latlas.nothing  # noqa: B018


def test_torchvision_is_not_installed() -> None:
    assert find_spec("torchvision") is None


UNSAFE_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def _unsafe(tree: ast.AST) -> list[str]:
    """Return what in a module could run code that a file carries: imports, calls, and settings."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in UNSAFE_MODULES]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in UNSAFE_MODULES:
            found.append(str(node.module))
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            settings = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if name in ("eval", "exec") or settings.get("allow_pickle") == "True" or settings.get("weights_only") == "False":
                found.append(name)
            elif name == "torch.load" and settings.get("weights_only") != "True":
                found.append("torch.load without weights_only=True")
            elif name == "np.load" and settings.get("allow_pickle") != "False":
                found.append("np.load without allow_pickle=False")
    return found


def test_no_module_unpickles_or_evaluates() -> None:
    unsafe = {path.name: _unsafe(ast.parse(path.read_text())) for path in (ROOT / "src/latlas").rglob("*.py")}
    assert {name: found for name, found in unsafe.items() if found} == {}


@pytest.mark.parametrize(
    "line",
    ["import pickle", "from dill import loads", "eval('1')", "torch.load(f)", "np.load(f)", "np.load(f, allow_pickle=True)"],
)
def test_the_check_for_unpickling_sees_what_it_should(line: str) -> None:
    assert _unsafe(ast.parse(line))
