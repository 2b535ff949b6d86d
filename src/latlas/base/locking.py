"""A folder that one process at a time writes to: the lock is the system's, and goes with the process however it ends."""

import contextlib
import errno
import os
import socket
import stat
import weakref
from pathlib import Path

from latlas.base.errors import ArtifactError

try:
    import fcntl
except ImportError:  # Windows: folders are not locked there
    fcntl = None  # type: ignore[assignment]

LOCK = "lock"
_MARKS = {LOCK, "job.json", "settings.json"}  # one of them is in every folder that was ever held
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)  # of file systems without: some of clusters have none
# Anybody may have put the file there, in a folder that others may write to: a link would have another file cut off and written to.
_WARY = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


class FolderLock:
    """Holds a folder, which is made if it is not there, until `release`.

    Raises:
        ArtifactError: another process holds it, whose number is named; the folder cannot be made; or it is a link, or holds what
            latlas did not write there, all of which would be cleared away with it.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK
        self._descriptor: int | None = None
        try:
            while not self._taken():
                continue
        except OSError as failure:
            raise ArtifactError(f"Could not write {folder}: {failure.strerror or failure}. Name another place.") from failure
        _HELD.add(self)

    @property
    def held(self) -> bool:
        """Whether the folder is held still: once it was removed, another of its name may be another process's."""
        return self._descriptor is not None and self._is_at_its_place(self._descriptor)

    def release(self) -> None:
        """Let others have the folder."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _taken(self) -> bool:
        folder = self.path.parent
        folder.mkdir(parents=True, exist_ok=True)
        _check_own(folder)
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | _WARY, 0o666)
        except FileNotFoundError:  # its holder finished and removed the folder just now
            return False
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ArtifactError(f"{self.path} is no file. Remove it, or name another place.")
            _lock(descriptor)
            if not self._is_at_its_place(descriptor):
                os.close(descriptor)
                return False
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()} on {socket.gethostname()}".encode())
        except BlockingIOError as held:
            holder = ""
            with contextlib.suppress(OSError):
                holder = os.read(descriptor, 200).decode(errors="replace")
            os.close(descriptor)
            raise ArtifactError(
                f"{folder} is being written by another process ({holder or 'number unknown'}). "
                "Wait for it, or name another place."
            ) from held
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return True

    def _is_at_its_place(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), self.path.stat())
        except FileNotFoundError:
            return False


_HELD: "weakref.WeakSet[FolderLock]" = weakref.WeakSet()


def _lock(descriptor: int) -> None:
    """Hold what a descriptor names, where the system and the file system can.

    Raises:
        BlockingIOError: another process holds it.
    """
    if fcntl is None:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as failure:
        if failure.errno not in _NO_LOCKS:
            raise


def _check_own(folder: Path) -> None:
    """Raise if what is in a folder that is to be held, and emptied when its work is done, was not put there by latlas.

    Raises:
        ArtifactError: it is not.
    """
    if folder.is_symlink():
        raise ArtifactError(
            f"{folder} is a link, and latlas works in a folder of its own there. Remove it, or name another place."
        )
    with contextlib.suppress(FileNotFoundError):  # its holder removed it just now
        found = sorted(path.name for path in folder.iterdir())
        if found and not _MARKS & set(found):
            raise ArtifactError(
                f"{folder} holds {found[0]!r}, which latlas did not write, and latlas would work there. Move it away, or name another place."
            )


def _let_go() -> None:
    # The system's lock goes with the last process that has its descriptor: one that was forked to decode may live for seconds
    # after this one was killed.
    for lock in list(_HELD):
        lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
