"""Artifact folders: `config.json` and data files, written beside and renamed into place.

A reader never sees half an artifact, a flipped byte is noticed, and nothing is ever unpickled.
"""

import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from latlas.base.errors import ArtifactError, MissingPathError, OutputExistsError
from latlas.base.placing import BESIDE, clear_leftovers, identity, make_beside, name_new, remove, swap, sync_folder
from latlas.base.provenance import Provenance, file_hash

CONFIG = "config.json"
CARD = "README.md"  # what people and the Hub read; latlas never does, so it may be edited: no hash is kept of it
MOST_JSON = 64 * 2**20  # bytes of a JSON file that is read; as Python's objects it takes some twenty times as much at the worst
FORMAT = 1  # raised when an older latlas could no longer read what this one writes

_USUAL_NAME = 255  # bytes, of nearly every file system
_CHECKSUM = "checksum"  # of the config itself, its own sixty-four digits taken as zeros; artifacts of before it have none
_NO_CHECKSUM = "0" * 64
_KEYS = {"kind", "format", "settings", "provenance", "files"}

# What a config raises in whoever builds something of it, where its settings are of other types or sizes than those written.
MISFITS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)


@contextmanager
def writing(folder: str | Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield an empty folder beside `folder`; rename it into place if the block ends well, else remove it.

    Args:
        folder: where the artifact shall lie. Its parents are made.
        replace: whether an earlier latlas artifact there may be replaced, once the new one is complete. Anything
            else that lies there is never touched.

    Raises:
        OutputExistsError: the folder holds something and may not be replaced, or another process put it there meanwhile.
        ArtifactError: it could not be written.
    """
    target = Path(folder)
    check_free(target, replace=replace)
    earlier = identity(target)
    beside: Path | None = None
    descriptor: int | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        beside, descriptor = make_beside(target, ".partial", folder=True)
        yield beside
        _sync_tree(beside)
        check_free(target, replace=replace)
        if target.exists() and any(target.iterdir()):
            _replace(beside, target, earlier)
        else:
            os.rename(beside, target)
        _sync_name(target)
    except OSError as failure:
        raise ArtifactError(f"Could not write {target}: {failure.strerror or failure}. Nothing was changed there.") from failure
    finally:
        if beside is not None:
            remove(beside)
        if descriptor is not None:
            os.close(descriptor)


def check_free(folder: str | Path, *, replace: bool = False) -> None:
    """Raise now, before any work, if `writing` would refuse this folder.

    What a process that died left beside it is cleared away; an artifact that it had moved aside gets its place back.

    Raises:
        OutputExistsError: the folder holds something and may not be replaced.
        ArtifactError: it could not be made there.
    """
    target = Path(folder)
    if target.name in ("", ".."):
        raise OutputExistsError(f"{target} cannot be renamed into place; name a folder that does not exist yet.")
    check_place(target)
    clear_leftovers(target, CONFIG, file_hash)
    if target.exists() and not target.is_dir():
        raise OutputExistsError(f"{target} is a file; name a folder that does not exist yet.")
    try:
        free = not target.exists() or not any(target.iterdir())
    except OSError as failure:
        raise ArtifactError(f"Could not write {target}: {failure.strerror or failure}. Name another place.") from failure
    if free and target.is_symlink():  # what leads nowhere, or to an empty folder: no folder can be renamed into its place
        raise OutputExistsError(f"{target} is a link; name the folder that it leads to, or another one.")
    if free:
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
        ArtifactError: that is no folder, or one that may not be written to; or the name is too long for its file system.
    """
    ancestor = Path(path).absolute().parent
    made = []  # folders that would have to be
    while not os.path.lexists(ancestor):
        made.append(ancestor.name)
        ancestor = ancestor.parent
    most = _longest_name(ancestor)
    if len(os.fsencode(Path(path).name)) > most - BESIDE or any(len(os.fsencode(name)) > most for name in made):
        raise ArtifactError(
            f"Could not write {path}: names have at most {most - BESIDE} bytes here, and folders around it {most}. Shorten it."
        )
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
    clear_leftovers(target, CONFIG, file_hash)
    beside: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        beside, descriptor = make_beside(target, ".partial", folder=False)
        with os.fdopen(descriptor, "wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
            try:
                name_new(beside, target)
            except FileExistsError:
                raise OutputExistsError(f"{target} already exists; name a new file.") from None
            _sync_name(target)
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
    (folder / CONFIG).write_text(config_text(record), encoding="utf-8")


def config_text(record: Mapping[str, Any]) -> str:
    """Return a config as it stands in its file, with a checksum of its own text."""
    text = _json_text({**record, _CHECKSUM: _NO_CHECKSUM})  # which the order of keys puts first
    return text.replace(_NO_CHECKSUM, hashlib.sha256(text.encode()).hexdigest(), 1)


def check_config(folder: Path, record: Mapping[str, Any]) -> None:
    """Raise unless the config of this folder, read as `record`, is as it was written.

    Raises:
        ArtifactError: its checksum is not that of its text; or it has none, and words that older versions never wrote.
    """
    found = record.get(_CHECKSUM)
    if _CHECKSUM not in record:
        whole = set(record) <= _KEYS
    elif isinstance(found, str) and re.fullmatch("[0-9a-f]{64}", found):
        text = (folder / CONFIG).read_bytes()
        whole = hashlib.sha256(text.replace(found.encode(), _NO_CHECKSUM.encode(), 1)).hexdigest() == found
    else:
        whole = False
    if not whole:
        raise ArtifactError(f"{folder / CONFIG} is damaged: it is not what its checksum says. Make the artifact again.")


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
    if not os.path.isdir(path):  # noqa: PTH112  # a Path raises where no folder could have that name
        raise MissingPathError(f"No folder {path}: expected a latlas {kind} there.")
    try:
        present = (path / CONFIG).is_file()
    except OSError as failure:  # of a folder that may not be entered
        raise ArtifactError(f"{path} cannot be read ({failure.strerror or failure}).") from failure
    if not present:
        raise ArtifactError(f"{path} is not a latlas {kind}: it has no {CONFIG}.")
    record = read_json(path / CONFIG)
    found = record.get("kind") if isinstance(record, dict) else None
    if not isinstance(record, dict) or not isinstance(found, str) or not _is_ours(record):
        raise ArtifactError(f"{path} is not a latlas {kind}: its {CONFIG} was written by another program.")
    if found != kind:
        raise ArtifactError(f"{path} holds a latlas {found}, where a latlas {kind} is needed.")
    if record["format"] > FORMAT:
        raise ArtifactError(
            f"{path} was written in format {record['format']}, this latlas reads up to {FORMAT}: update latlas{_needed(record)}."
        )
    for name in record["files"]:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ArtifactError(f"{path / CONFIG} lists {name!r}, which lies outside the artifact.")
    check_config(path, record)
    for name, expected in record["files"].items():
        file = path / name
        if not os.path.isfile(file):  # noqa: PTH113  # likewise
            raise ArtifactError(f"{path} is incomplete: {name} is missing. Make the artifact again.")
        try:
            found_hash = file_hash(file)
        except OSError as failure:
            raise ArtifactError(f"{file} cannot be read ({failure.strerror or failure}).") from failure
        if found_hash != expected:
            raise ArtifactError(f"{file} is damaged: its content is not what {CONFIG} says. Make the artifact again.")
    return record


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors.

    Raises:
        OSError: the disk refused, which safetensors tells in an error of its own.
    """
    path.touch()  # so that the user's mask decides on its rights: safetensors gives it its own, whatever colleagues are to read
    rights = stat.S_IMODE(path.stat().st_mode)
    try:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, str(path))
    except SafetensorError as failure:
        raise OSError(str(failure)) from failure
    path.chmod(rights)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        ArtifactError: the file is missing, truncated, or of another format.
    """
    if not path.is_file():  # to open a pipe would wait for ever
        raise ArtifactError(f"{path} is missing, or is no file. Make the artifact again.")
    try:
        return load_file(str(path))
    except (SafetensorError, OSError, ValueError, KeyError, AttributeError, MemoryError) as failure:
        raise ArtifactError(f"{path} is not a readable safetensors file ({failure}). Make the artifact again.") from failure


def write_json(path: Path, record: Any) -> None:
    """Write JSON with stable key order; NaN and infinity are refused, since JSON has no word for them."""
    path.write_text(_json_text(record), encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read JSON as `write_json` writes it: no NaN, no infinity, no key twice.

    Raises:
        ArtifactError: it does not parse, has more than `MOST_JSON` bytes, or is no file.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > MOST_JSON:
            raise ArtifactError(f"{path} is not readable JSON (no file of at most {MOST_JSON:,} bytes).")
        with path.open("rb") as stream:
            content = stream.read(MOST_JSON + 1)[:MOST_JSON]
        return json.loads(
            content.decode("utf-8"), parse_float=_finite, parse_constant=_finite, object_pairs_hook=_without_doubles
        )
    except (OSError, UnicodeDecodeError, ValueError, RecursionError, MemoryError) as failure:
        raise ArtifactError(f"{path} is not readable JSON ({type(failure).__name__}).") from failure


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is no number")
    return number


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):  # another reader might take the other of the two
        raise ValueError("a key stands there twice")
    return record


def _is_ours(record: Mapping[str, Any]) -> bool:
    return (
        isinstance(record.get("format"), int)
        and isinstance(record.get("files"), dict)
        and isinstance(record.get("settings"), dict)
        and isinstance(record.get("provenance"), dict)
    )


def _needed(record: Mapping[str, Any]) -> str:
    """Return, as the end of a sentence, the version that wrote an artifact, where its provenance names one."""
    versions = record["provenance"].get("versions")
    version = versions.get("latlas") if isinstance(versions, dict) else None
    return f" to {version} or newer" if isinstance(version, str) and re.fullmatch(r"[0-9][0-9A-Za-z.+-]{0,30}", version) else ""


def _json_text(record: Any) -> str:
    return json.dumps(record, indent=2, sort_keys=True, allow_nan=False) + "\n"


def _replace(beside: Path, target: Path, earlier: tuple[int, int] | None) -> None:
    """Put the new artifact into the place of the one that lay there when the writing began, and of no other."""
    told = f"{target} was written by another process meanwhile. That artifact was kept, and this one is gone."
    if identity(target) != earlier:
        raise OutputExistsError(told)
    swap(beside, target)
    if beside.exists() and identity(beside) != earlier:  # between the look and the swap
        swap(beside, target)
        raise OutputExistsError(told)


def _sync_tree(folder: Path) -> None:
    # Renaming is atomic for what the disk already holds: flush each file and the names of all before their folder gets its own.
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        elif path.is_dir():
            sync_folder(path)
    sync_folder(folder)


def _sync_name(target: Path) -> None:
    with suppress(OSError):  # it has its place, and what it replaced is gone: nothing to be told of as undone
        sync_folder(target.parent)


def _longest_name(folder: Path) -> int:
    """Return how many bytes a name in a folder may have."""
    try:
        return os.pathconf(folder, "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):  # Windows has no such call, and some file systems no answer
        return _USUAL_NAME
