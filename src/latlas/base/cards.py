"""The model card of an artifact: a README.md that the Hub and its readers understand, made of what the artifact knows.

latlas never reads a card, and keeps no hash of it: its owner may add to it without harm.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latlas.base.artifacts import CARD
from latlas.base.provenance import Provenance

FOLDER = "path/to/this/folder"  # stands in `Card.usage` for where the artifact lies; a push puts the Hub id there

_LIBRARY = "latlas"
_FENCE = "---"
# What the errors of a comparison say; one that is not listed is shown without words.
_MEANINGS = {
    "M": "the target decodes the relocated codes",
    "target_R": "the target's own reconstruction: what a perfect map would give",
    "R": "the source's own reconstruction",
    "decode_encode": "decode with the source, encode with the target: the way that the map replaces",
    "round_trip": "the source decodes codes carried there and back",
    "no_map": "the target decodes the source's codes as they are",
    "mean_code": "the target decodes its mean code, whatever the image",
    "shuffled": "a map fitted on shuffled pairs",
    "L": "of relocated codes, per variable and not per pixel",
}


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a card says beside the provenance."""

    title: str
    summary: str  # in Markdown
    usage: str  # Python that loads the artifact from FOLDER and uses it
    kind: str  # of the artifact
    tags: Sequence[str] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)  # numbers, words, short lists; anything else is left out
    comparison: Mapping[str, Any] | None = None  # as `Comparison.to_json()`: the errors, and the metrics of the front matter
    warnings: Sequence[str] = ()


def write_card(folder: Path, card: Card, provenance: Provenance) -> None:
    """Write the card into a folder that `writing` gave."""
    (folder / CARD).write_text(render_card(card, provenance), encoding="utf-8")


def render_card(card: Card, provenance: Provenance) -> str:
    """Return the card: front matter that any YAML reader parses, then Markdown.

    The same artifact gives the same card, byte for byte.
    """
    parts = [_front_matter(card), f"# {_line(card.title)}", card.summary, f"## Use\n\n```python\n{card.usage.strip()}\n```"]
    if card.warnings:
        parts.append("## Mind\n\n" + "\n".join(f"- {_line(warning)}" for warning in card.warnings))
    if card.comparison is not None:
        parts += _errors(card.comparison)
    shown = {name: text for name, value in card.facts.items() if (text := _fact(value)) is not None}
    if shown:
        parts.append("## What it is\n\n" + _table(("what", "value"), list(shown.items())))
    parts.append(_provenance(provenance))
    return "\n\n".join(parts) + "\n"


def with_license(text: str, license: str) -> str:  # noqa: A002  # the Hub's own word
    """Return a card with this licence in its front matter, instead of one that is there: no other card names one.

    Args:
        text: of the card, which its owner may have written.
        license: as the Hub names it, for example "cc0-1.0".
    """
    lines = text.splitlines(keepends=True)
    entry = f"license: {_scalar(license)}\n"
    if not lines or lines[0].rstrip() != _FENCE:
        return f"{_FENCE}\n{entry}{_FENCE}\n\n{text}"
    end = next((number for number, line in enumerate(lines[1:], start=1) if line.rstrip() == _FENCE), len(lines))
    kept = [line for line in lines[1:end] if not line.startswith("license:")]
    return "".join([lines[0], entry, *kept, *lines[end:]])


def errors_of(comparison: Mapping[str, Any]) -> list[tuple[str, float, float | None]]:
    """Return the errors of a comparison's record that were measured: name, mean, standard error; M error first."""
    deviations = comparison.get("standard_errors") or {}
    found = [name for name in deviations if isinstance(comparison.get(name), int | float)]
    known = list(_MEANINGS)
    found.sort(key=lambda name: known.index(name) if name in known else len(known))
    return [(name, float(comparison[name]), deviations[name]) for name in found]


def _front_matter(card: Card) -> str:
    lines = [f"library_name: {_LIBRARY}"]
    tags = list(dict.fromkeys([_LIBRARY, card.kind, *card.tags]))
    lines += ["tags:", *(f"- {_scalar(tag)}" for tag in tags)]
    errors = [] if card.comparison is None else errors_of(card.comparison)
    if errors:
        images = _scalar(str((card.comparison or {}).get("images", "images")))
        lines += ["metrics:", "- mse", "model-index:", f"- name: {_scalar(card.title)}", "  results:"]
        lines += ["  - task:", "      type: relocation", "      name: relocation between latent spaces"]
        lines += ["    dataset:", f"      type: {images}", f"      name: {images}", "    metrics:"]
        for name, value, _ in errors:
            lines += ["    - type: mse", f"      name: {_scalar(_error_name(name))}", f"      value: {_number(value)}"]
    return "\n".join([_FENCE, *lines, _FENCE])


def _errors(comparison: Mapping[str, Any]) -> list[str]:
    errors = errors_of(comparison)
    if not errors:
        return []
    measured = f"Measured on {_line(str(comparison.get('images', 'images')))}"
    fitted = f", fitted on {_line(str(comparison['fitted_on']))}" if comparison.get("fitted_on") else ""
    rows = [(_error_name(name), _short(value), _short(spread), _MEANINGS.get(name, "")) for name, value, spread in errors]
    words = f"Squared error per pixel, images in [0, 1], averaged over images. {measured}{fitted}."
    return [f"## What it loses\n\n{words}\n\n" + _table(("error", "value", "standard error", "of what"), rows)]


def _provenance(provenance: Provenance) -> str:
    rows = [("made by", f"`{_line(provenance.made_by)}`")]
    rows += [] if provenance.seed is None else [("seed", str(provenance.seed))]
    rows += [(f"{role} (content hash)", f"`{_line(found)[:16]}`") for role, found in provenance.made_from.items()]
    rows += [(name, text) for name, value in provenance.settings.items() if (text := _fact(value)) is not None]
    rows += [(f"{package} version", _line(version)) for package, version in provenance.versions.items()]
    told = "`config.json` holds all of it, and the hash of each file."
    return "## Provenance\n\n" + _table(("what", "value"), rows) + f"\n\n{told}"


def _error_name(name: str) -> str:
    return f"{name} error" if len(name) == 1 else name.replace("_", " ")


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return _line(text).replace("|", "\\|")


def _fact(value: Any) -> str | None:
    """Return a value as a cell shows it; None for what no cell can hold."""
    if value is None or isinstance(value, Mapping):
        return None
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return _short(value)
    if isinstance(value, list | tuple):
        short = len(value) <= 8 and all(isinstance(each, int | str) for each in value)
        return " × ".join(map(str, value)) if short and value else None
    return _line(str(value))


def _short(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.4g}"


def _number(value: float) -> str:
    # YAML 1.1 reads 1e-05 as a word: an exponent needs a point before it.
    return f"{value:.6e}" if math.isfinite(value) else ".nan"


def _line(text: str) -> str:
    """Return text as one line of what can be printed: names come from anywhere."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())


def _scalar(text: str) -> str:
    return json.dumps(_line(text), ensure_ascii=False)
