"""What latlas carries under `carried/`: one artifact folder a name, found and described without loading its weights."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latlas.base.artifacts import peek, read_json
from latlas.base.errors import ArtifactError, unknown_name
from latlas.base.hub import resolve
from latlas.base.shapes import ImageShape, LatentShape

CARRIED = Path(__file__).parent / "carried"
ABOUT = "zoo.json"  # beside the files of the artifact itself: what made it, and what was measured of it
SCHEME = "zoo:"


@dataclass(frozen=True, kw_only=True)
class ZooEntry:
    """A name of the zoo, and what is known of it."""

    name: str
    kind: str  # of the artifact, as "vae" or "linear-map"
    images: ImageShape | None  # that it makes or takes; None of maps and samplers, which see none
    codes: LatentShape  # that it makes, takes or, of a map, comes from
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


def carried_names(kinds: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the names of what is carried, of these kinds or of all."""
    # A name that begins with a dot is a folder that is being written.
    found = {path.name: peek(path) for path in sorted(CARRIED.iterdir()) if path.is_dir() and path.name[0] != "."}
    return tuple(name for name, config in found.items() if config is not None and (not kinds or config["kind"] in kinds))


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
        about, config = read_json(folder / ABOUT), read_json(folder / "config.json")
        images = about["images"]
        return ZooEntry(
            name=name,
            kind=str(config["kind"]),
            images=None if images is None else (int(images[0]), int(images[1]), int(images[2])),
            codes=tuple(int(size) for size in about["codes"]),
            of=tuple(str(spec) for spec in about["of"]),
            made_by=str(about["made_by"]),
            measured=dict(about["measured"]),
            size=sum(path.stat().st_size for path in folder.iterdir()),
        )
    except (ArtifactError, KeyError, TypeError, ValueError, IndexError) as failure:
        raise ArtifactError(f"{folder} is incomplete ({failure}). Install latlas again.") from failure


def artifact_folder(spec: str | Path, kinds: Sequence[str], *, called: str) -> Path:
    """Return the folder that a spec names: carried as `zoo:name`, one on this machine, or that of a Hub id.

    Args:
        spec: a path that exists is a path, whatever signs it holds.
        kinds: of the artifacts that `zoo:name` may mean here.
        called: what errors call them: "map".

    Raises:
        UnknownNameError: nothing of these kinds has this name in the zoo.
        HubError: a Hub id, and the Hub could not be reached.
    """
    text = str(spec)
    if not text.startswith(SCHEME) or os.path.exists(text):  # noqa: PTH110  # a Path raises where no file could have that name
        return resolve(spec)
    name = text.removeprefix(SCHEME)
    known = carried_names(kinds)
    if name in known:
        return CARRIED / name
    other = (peek(CARRIED / name) or {}).get("kind") if name in carried_names() else None
    hint = "" if other is None else f"{text} is a {other}."
    raise unknown_name(f"{called} of the zoo", name, known, hint=hint)
