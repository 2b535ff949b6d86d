"""Write the reference pages of the documentation: one a group of public names, and one of the commands.

    make docs          # or: python tools/make_reference.py

The pages of public names only say which docstrings stand there; the site's generator reads those. The page of the commands is made
of their help texts. `latlas.__all__` decides what is public: a name that no group has is an error.
"""

import re
import sys
from pathlib import Path
from typing import Any

import typer

import latlas
from latlas.cli.main import app
from latlas.cli.training import OTHERS

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "reference"

# page: title, what it says first, public names in the order in which they are read
GROUPS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "data": (
        "Images and codes",
        "From a DATA spec to images, and from images to codes.",
        ("load_images", "open_images", "ImageSet", "encode", "Encoding"),
    ),
    "models": (
        "Models",
        "What turns images into codes and back: loaded, wrapped, joined, exported, shared.",
        (
            "load_model",
            "CallableModel",
            "from_module",
            "VAE",
            "GeneratorModel",
            "Recoder",
            "with_recoder",
            "with_codes_of",
            "export_onnx",
            "push_to_hub",
        ),
    ),
    "training": (
        "Training",
        "Models of your own, and callbacks for any Lightning training.",
        (
            "train_vae",
            "Objective",
            "train_gan",
            "train_stylegan2",
            "train_recoder",
            "LatentHealth",
            "CollapseGuard",
            "LatentTrajectories",
        ),
    ),
    "diagnosis": (
        "Diagnosis, pruning, sampling",
        "What a latent space holds, without its collapsed variables, and where new codes come from.",
        (
            "diagnose",
            "Diagnosis",
            "order_variables",
            "prune",
            "PrunedModel",
            "variance_loss_point",
            "calibrate_sampler",
            "fit_sampler",
            "frechet_distance",
            "FrechetDistance",
        ),
    ),
    "maps": (
        "Maps",
        "From one latent space to another, and what is lost.",
        (
            "compare",
            "Comparison",
            "compare_all",
            "ComparisonMatrix",
            "fit_map",
            "LinearMap",
            "fit_spatial_map",
            "SpatialMap",
            "load_map",
            "relocate_encoding",
            "fold",
            "fit_perceptron",
            "fit_preview",
            "PreviewMatrix",
            "paired_moments_of",
            "fit_map_from",
            "LinearMapRegressor",
        ),
    ),
    "coverage": (
        "Support Sets, inversion, range",
        "Which images stand for all, which a model misses, and which it cannot draw.",
        (
            "build_support_set",
            "SupportSet",
            "select",
            "cover",
            "cover_all",
            "Coverage",
            "invert",
            "Budget",
            "Inversion",
            "range_test",
            "RangeResult",
        ),
    ),
    "studies": (
        "Studies",
        "Questions that take many fits to answer.",
        (
            "study_little_data",
            "study_direction",
            "variance_loss_study",
            "study_kl_curve",
            "study_trajectories",
            "study_latent_cloud",
        ),
    ),
}


def pages(defined_in: dict[str, str]) -> dict[str, str]:
    """Return the text of every reference page, by file name.

    Args:
        defined_in: module of each public name.

    Raises:
        ValueError: a public name that no group has, or one that several or none have.
    """
    placed = [name for _, _, names in GROUPS.values() for name in names]
    if sorted(placed) != sorted(defined_in):
        wrong = sorted(set(placed) ^ set(defined_in)) or sorted({name for name in placed if placed.count(name) > 1})
        raise ValueError(f"In tools/make_reference.py each public name stands in one group. Put right: {', '.join(wrong)}.")
    texts = {}
    for page, (title, first, names) in GROUPS.items():
        entries = "\n\n".join(f"::: {defined_in[name]}.{name}" for name in names)
        texts[f"{page}.md"] = f"# {title}\n\n{first} Every name below is importable from `latlas`.\n\n{entries}\n"
    texts["cli.md"] = _commands()
    texts["index.md"] = _index()
    return texts


def _index() -> str:
    rows = "\n".join(
        f"| [{title}]({page}.md) | {', '.join(f'`{name}`' for name in names)} |" for page, (title, _, names) in GROUPS.items()
    )
    return (
        "# Reference\n\n"
        "Importable from `latlas`. Tensors are PyTorch's; images are floats in [0, 1], `n c h w`; codes are `n latent` or "
        "`n channel row column`. Errors that a user can mend are of `latlas.base.errors.LatlasError`.\n\n"
        f"| page | names |\n| --- | --- |\n{rows}\n\n"
        "In the shell the same verbs: [commands](cli.md).\n"
    )


def _commands() -> str:
    root: Any = typer.main.get_command(app)
    parts = ["# Commands", _prose(root.help), "Errors of the user are one line, with exit code 2."]
    for name, command in root.commands.items():
        if hasattr(command, "commands"):
            for inner, one in command.commands.items():
                parts.append(_command(f"{name} {inner}", one))
        else:
            parts.append(_command(name, command))
        if name == "train":
            for other, function in OTHERS.items():
                single = typer.Typer(add_completion=False)
                single.command()(function)
                parts.append(_command(f"train {other}", typer.main.get_command(single)))
    return "\n\n".join(parts) + "\n"


def _command(name: str, command: Any) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and p.name != "help"]
    places = " ".join(str(p.metavar or p.name.upper()) for p in arguments)
    rows = [(f"`{p.metavar or p.name.upper()}`", p) for p in arguments]
    rows += [("`" + ", ".join([*p.opts, *p.secondary_opts]) + "`", p) for p in options]
    lines = [f"| {left} | {_cell(p.help or '')} | {_default(p)} |" for left, p in rows]
    usage = " ".join(f"latlas {name} {places} [OPTIONS]".split())
    table = "\n".join(["| option | what it does | if not given |", "| --- | --- | --- |", *lines])
    return f"## latlas {name}\n\n{_prose(command.help)}\n\n```text\n{usage}\n```\n\n{table}"


def _prose(text: str) -> str:
    """Return a help text as Markdown: its examples become code."""
    parts = []
    for paragraph in text.split("\n\n"):
        line = " ".join(paragraph.split())
        example = re.match(r"(?:Example|Start with): (.*)", line)
        parts.append(f"```text\n{example[1]}\n```" if example else line.replace("<", "&lt;"))
    return "\n\n".join(parts)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _default(parameter: Any) -> str:
    if parameter.required:
        return "must be given"
    if isinstance(parameter.show_default, str):
        return _cell(parameter.show_default)
    if parameter.default is None or parameter.default is False:
        return ""
    if isinstance(parameter.default, bool):
        return f"`{parameter.opts[0]}`"
    return f"`{_cell(str(getattr(parameter.default, 'value', parameter.default)))}`"


def main() -> int:
    """Write the pages."""
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages(latlas._DEFINED_IN).items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
