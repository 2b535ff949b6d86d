"""Putting what was written beside a place into it, and clearing away what processes that died left beside it.

Whoever writes holds the system's lock on what it writes to, which goes with the process however that ends: what nobody holds is left
over.
"""

import contextlib
import ctypes
import errno
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: nothing is held there, and nothing cleared
    fcntl = None  # type: ignore[assignment]

FINISHED = "finished"  # in a work folder: the hash of the config that takes its place next
_TAIL = re.compile(r"[a-z0-9_]{8}\.(partial|old)")
BESIDE = len("..12345678.partial")  # bytes by which the longest name beside a place is longer than the place's own
_DIGITS = 4  # random bytes of such a name, in hexadecimal
# Of what somebody else may have put there: no link is followed, and a pipe is not waited for.
_WARY = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_UNABLE = (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.ENOSYS)  # of file systems that sync no folder
_AT_FDCWD, _RENAME_NOREPLACE, _RENAME_EXCHANGE = -100, 1, 2
_CANNOT = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM)  # of kernels, and of file systems


def make_beside(target: Path, suffix: str, *, folder: bool) -> tuple[Path, int]:
    """Make an empty folder or file beside a place, and hold it; return it and its descriptor, which is to be closed.

    It has the rights that the user's mask and the folder around it give to what is new, as it will have them in its place.

    Args:
        target: the place; its parent exists.
        suffix: ".partial" for what is being written, ".old" for what makes room.
        folder: else a file.
    """
    while True:
        path = target.parent / f".{target.name}.{secrets.token_hex(_DIGITS)}{suffix}"
        try:
            if folder:
                path.mkdir()
            else:
                descriptor = new_file(path)
        except FileExistsError:  # by chance
            continue
        if folder:
            try:
                descriptor = os.open(path if fcntl is not None else os.devnull, os.O_RDONLY)
            except FileNotFoundError:  # as below
                continue
        if _held(descriptor) is not False and (fcntl is None or _is_at(path, descriptor)):
            return path, descriptor
        os.close(descriptor)  # another process took it for left over, just now


def new_file(path: Path) -> int:
    """Open a file that is not there yet, to be written, and return its descriptor; never one that a link leads to.

    Raises:
        FileExistsError: something has that name.
    """
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)


def sync_folder(folder: Path) -> None:
    """Have the disk keep the names in a folder, where the system can be told to."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folder
        return
    try:
        os.fsync(descriptor)
    except OSError as failure:
        if failure.errno not in _UNABLE:
            raise
    finally:
        os.close(descriptor)


def clear_leftovers(target: Path, config: str, hashed: Callable[[Path], str]) -> None:
    """Remove what dead processes left beside a place; put back what one of them had moved aside from it.

    Args:
        target: the place.
        config: name of the file that every artifact has.
        hashed: hash of a file, as a work folder that is done with keeps it.
    """
    with contextlib.suppress(OSError):
        with os.scandir(target.parent) as entries:
            found = [target.parent / entry.name for entry in entries if is_beside(entry.name, target)]
        for path in found:
            _clear(path, target, config)
    work = target.parent / f".{target.name}.training"
    with contextlib.suppress(OSError, UnicodeDecodeError):
        # A process that died between the two steps of finishing: the artifact has its place.
        if (work / FINISHED).is_file() and (work / FINISHED).read_text(encoding="utf-8") == hashed(target / config):
            shutil.rmtree(work, ignore_errors=True)
    with contextlib.suppress(OSError):
        work.rmdir()  # if it is empty


def is_beside(name: str, target: Path) -> bool:
    """Tell whether a name is one that `make_beside` gives beside a place."""
    head, tail = f".{target.name}.", name[len(target.name) + 2 :]
    return name.startswith(head) and _TAIL.fullmatch(tail) is not None


def remove(path: Path) -> None:
    """Remove a folder, a file, a link or a pipe; whatever stands against it."""
    with contextlib.suppress(OSError):
        if stat.S_ISDIR(path.lstat().st_mode):  # of anything else rmtree would open it, and a pipe never opens
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


def swap(beside: Path, target: Path) -> None:
    """Put a folder into the place of another; `beside` holds the other afterwards, or is gone.

    In one step where the system can exchange two names. Else in two: whichever fails, the earlier folder keeps its place or
    gets it back; a process that dies between them leaves that to `clear_leftovers`.
    """
    if exchange(beside, target):
        return
    aside, descriptor = make_beside(target, ".old", folder=True)
    try:
        try:
            os.rename(target, aside / target.name)
            try:
                os.rename(beside, target)
            except OSError:
                os.rename(aside / target.name, target)
                raise
        except OSError:
            aside.rmdir()
            raise
        remove(aside)
    finally:
        os.close(descriptor)


def exchange(one: Path, other: Path) -> bool:
    """Let two names change what they name, in one step; tell whether this system can.

    Raises:
        OSError: it can, and was refused.
    """
    return _renamed(one, other, _RENAME_EXCHANGE)


def name_new(beside: Path, target: Path) -> None:
    """Give a file the name of its place, which must be free: unlike a plain renaming this replaces nothing.

    Raises:
        FileExistsError: something has that name.
    """
    if not _renamed(beside, target, _RENAME_NOREPLACE):
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
        os.rename(beside, target)


def identity(path: Path) -> tuple[int, int] | None:
    """Return what tells a folder from one that was put into its place since; None where nothing lies."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _renamed(one: Path, other: Path, how: int) -> bool:
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2  # of Linux; Python has no call of its own
    except (AttributeError, OSError, TypeError):
        return False
    if rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), how) == 0:
        return True
    number = ctypes.get_errno()
    if number in _CANNOT:
        return False
    raise OSError(number, os.strerror(number), str(other))


def _clear(path: Path, target: Path, config: str) -> None:
    if path.is_symlink():  # an exchange left it: links are never written to
        remove(path)
        return
    try:
        descriptor = os.open(path, os.O_RDONLY | _WARY)
    except OSError:
        return
    try:
        if _held(descriptor) is not True:
            return
        moved = path / target.name
        if path.suffix == ".old" and (moved / config).is_file() and not os.path.lexists(target):
            os.rename(moved, target)
        remove(path)
    finally:
        os.close(descriptor)


def _held(descriptor: int) -> bool | None:
    """Hold what a descriptor names; None where the system has no locks, or the file system none."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False
