"""Artifact folders: `config.json` and data files, written beside and renamed into place.

A reader never sees half an artifact, a flipped byte in a data file is noticed, and nothing is ever unpickled.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from latlas.base.errors import ArtifactError, MissingPathError, OutputExistsError
from latlas.base.provenance import Provenance, file_hash

CONFIG = "config.json"
CARD = "README.md"  # what people and the Hub read; latlas never does, so it may be edited: no hash is kept of it
FORMAT = 1  # raised when an older latlas could no longer read what this one writes


@contextmanager
def writing(folder: str | Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield an empty folder beside `folder`; rename it into place if the block ends well, else remove it.

    Args:
        folder: where the artifact shall lie. Its parents are made.
        replace: whether an earlier latlas artifact there may be replaced, once the new one is complete. Anything
            else that lies there is never touched.

    Raises:
        OutputExistsError: the folder holds something and may not be replaced.
    """
    target = Path(folder)
    check_free(target, replace=replace)
    beside: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
        yield beside
        beside.chmod(0o755)  # mkdtemp gives 0o700, which colleagues on the same machine could not read
        _sync_tree(beside)
        check_free(target, replace=replace)
        if target.exists() and any(target.iterdir()):
            _swap(beside, target)
        else:
            os.rename(beside, target)
    except OSError as failure:
        raise ArtifactError(f"Could not write {target}: {failure.strerror or failure}. Nothing was changed there.") from failure
    finally:
        if beside is not None:
            shutil.rmtree(beside, ignore_errors=True)


def check_free(folder: str | Path, *, replace: bool = False) -> None:
    """Raise now, before any work, if `writing` would refuse this folder.

    Raises:
        OutputExistsError: the folder holds something and may not be replaced.
        ArtifactError: it could not be made there.
    """
    target = Path(folder)
    if target.name in ("", ".."):
        raise OutputExistsError(f"{target} cannot be renamed into place; name a folder that does not exist yet.")
    check_place(target)
    if target.is_file():
        raise OutputExistsError(f"{target} is a file; name a folder that does not exist yet.")
    if not target.exists() or not any(target.iterdir()):
        return
    if replace and peek(target) is not None:
        return
    remedy = (
        "It is not a latlas artifact, so it is never replaced: name another folder."
        if replace
        else "Name another folder, or replace it with --replace."
    )
    raise OutputExistsError(f"{target} already holds something. {remedy}")


def check_place(path: str | Path) -> None:
    """Raise now, before any work, if nothing could be written at this path: its nearest ancestor tells.

    Raises:
        ArtifactError: that is no folder, or one that may not be written to.
    """
    ancestor = Path(path).absolute().parent
    while not os.path.lexists(ancestor):
        ancestor = ancestor.parent
    if not ancestor.is_dir():
        raise ArtifactError(f"Could not write {path}: {ancestor} is not a folder. Name a place inside a folder.")
    if not os.access(ancestor, os.W_OK | os.X_OK):
        raise ArtifactError(f"Could not write {path}: Permission denied in {ancestor}. Name a place that you may write to.")


def write_file(path: str | Path, write: Callable[[BinaryIO], object]) -> None:
    """Write one new file beside `path` and rename it into place if `write` ends well, else remove it.

    Args:
        path: where the file shall lie. Its parents are made; what lies there already is never replaced.
        write: puts the content into the open file.

    Raises:
        OutputExistsError: something lies there.
        ArtifactError: it could not be written.
    """
    target = Path(path)
    check_place(target)
    beside: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent)
        beside = Path(name)
        with os.fdopen(descriptor, "wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        beside.chmod(0o644)  # mkstemp gives 0o600, which colleagues on the same machine could not read
        if os.path.lexists(target):
            raise OutputExistsError(f"{target} already exists; name a new file.")
        os.rename(beside, target)
    except OSError as failure:
        raise ArtifactError(f"Could not write {target}: {failure.strerror or failure}. Nothing was changed there.") from failure
    finally:
        if beside is not None:
            beside.unlink(missing_ok=True)


def write_config(folder: Path, *, kind: str, settings: Mapping[str, Any], provenance: Provenance) -> None:
    """Write `config.json` with the hash of every file that lies in the folder, cards excepted: call it last."""
    files = {
        path.relative_to(folder).as_posix(): file_hash(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / CONFIG and path.name != CARD
    }
    record = {
        "kind": kind,
        "format": FORMAT,
        "settings": dict(settings),
        "provenance": provenance.to_json(),
        "files": files,
    }
    write_json(folder / CONFIG, record)


def peek(folder: str | Path) -> dict[str, Any] | None:
    """Return the config of a latlas artifact of any kind, unchecked; None where the folder holds no such thing."""
    try:
        record = read_json(Path(folder) / CONFIG)
    except ArtifactError:
        return None
    ours = isinstance(record, dict) and isinstance(record.get("kind"), str) and _is_ours(record)
    return record if ours else None


def read_config(folder: str | Path, *, kind: str) -> dict[str, Any]:
    """Return the config of an artifact after checking its kind, its format and the hash of each of its files.

    Raises:
        MissingPathError: there is no such folder.
        ArtifactError: it is no artifact of this kind, or was written by a newer latlas, or a file is damaged.
    """
    path = Path(folder)
    if not path.is_dir():
        raise MissingPathError(f"No folder {path}: expected a latlas {kind} there.")
    if not (path / CONFIG).is_file():
        raise ArtifactError(f"{path} is not a latlas {kind}: it has no {CONFIG}.")
    record = read_json(path / CONFIG)
    found = record.get("kind") if isinstance(record, dict) else None
    if not isinstance(record, dict) or not isinstance(found, str) or not _is_ours(record):
        raise ArtifactError(f"{path} is not a latlas {kind}: its {CONFIG} was written by another program.")
    if found != kind:
        raise ArtifactError(f"{path} holds a latlas {found}, where a latlas {kind} is needed.")
    if record["format"] > FORMAT:
        raise ArtifactError(
            f"{path} was written in format {record['format']}, this latlas reads up to {FORMAT}: update latlas."
        )
    for name, expected in record["files"].items():
        file = path / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ArtifactError(f"{path / CONFIG} lists {name!r}, which lies outside the artifact.")
        if not file.is_file():
            raise ArtifactError(f"{path} is incomplete: {name} is missing. Make the artifact again.")
        if file_hash(file) != expected:
            raise ArtifactError(f"{file} is damaged: its content is not what {CONFIG} says. Make the artifact again.")
    return record


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors."""
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, str(path))
    path.chmod(0o644)  # safetensors gives 0o600, which colleagues on the same machine could not read


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        ArtifactError: the file is missing, truncated, or of another format.
    """
    try:
        return load_file(str(path))
    except (SafetensorError, OSError, ValueError) as failure:
        raise ArtifactError(f"{path} is not a readable safetensors file ({failure}). Make the artifact again.") from failure


def write_json(path: Path, record: Any) -> None:
    """Write JSON with stable key order; NaN and infinity are refused, since JSON has no word for them."""
    path.write_text(json.dumps(record, indent=2, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        ArtifactError: it does not parse.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as failure:
        raise ArtifactError(f"{path} is not readable JSON ({type(failure).__name__}).") from failure


def _is_ours(record: Mapping[str, Any]) -> bool:
    return (
        isinstance(record.get("format"), int)
        and isinstance(record.get("files"), dict)
        and isinstance(record.get("settings"), dict)
        and isinstance(record.get("provenance"), dict)
    )


def _swap(beside: Path, target: Path) -> None:
    # Whichever rename fails, the earlier artifact keeps its place or gets it back.
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".old", dir=target.parent))
    try:
        os.rename(target, aside / target.name)
    except OSError:
        aside.rmdir()
        raise
    try:
        os.rename(beside, target)
    except OSError:
        os.rename(aside / target.name, target)
        aside.rmdir()
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _sync_tree(folder: Path) -> None:
    # Renaming is atomic for what the disk already holds: flush each file before its folder gets its name.
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
