"""The hidden folder beside an artifact's place where it is made, over as many processes as die on the way."""

import os
import shutil
from pathlib import Path

from latlas.base.artifacts import CONFIG
from latlas.base.placing import FINISHED, clear_leftovers, make_beside, remove
from latlas.base.provenance import file_hash


def work_folder_of(target: Path, what: str) -> Path:
    """Return the work folder of an artifact: `.NAME.training`, `.NAME.encoding`."""
    return target.parent / f".{target.name}.{what}"


def is_finished(work: Path, target: Path) -> bool:
    """Tell whether an artifact has taken its place, and its process died before it had removed the work folder."""
    try:
        return (work / FINISHED).read_text(encoding="utf-8") == file_hash(target / CONFIG)
    except (OSError, UnicodeDecodeError):
        return False


def discard(work: Path, target: Path) -> None:
    """Remove a work folder in one step: whoever looks finds all of it, or nothing that somebody could go on with.

    Args:
        work: the folder; it may be gone already.
        target: the place beside which it lies. What this process does not live to delete, the next who writes there does;
            and this one what others did not.
    """
    try:
        aside, descriptor = make_beside(target, ".partial", folder=True)
        try:
            os.rename(work, aside / "work")
        finally:
            remove(aside)
            os.close(descriptor)
    except OSError:
        shutil.rmtree(work, ignore_errors=True)
    clear_leftovers(target, CONFIG, file_hash)
