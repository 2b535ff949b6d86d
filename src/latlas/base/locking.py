"""A folder that one process at a time writes to: the lock is the system's, and goes with the process however it ends."""

import contextlib
import os
import socket
from pathlib import Path

from latlas.base.errors import ArtifactError

try:
    import fcntl
except ImportError:  # Windows: folders are not locked there
    fcntl = None  # type: ignore[assignment]

LOCK = "lock"


class FolderLock:
    """Holds a folder, which is made if it is not there, until `release`.

    Raises:
        ArtifactError: another process holds it, whose number is named; or the folder cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK
        self._descriptor: int | None = None
        try:
            while not self._taken():
                continue
        except OSError as failure:
            raise ArtifactError(f"Could not write {folder}: {failure.strerror or failure}. Name another place.") from failure

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
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:  # its holder finished and removed the folder just now
            return False
        try:
            if fcntl is not None:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not self._is_at_its_place(descriptor):
                os.close(descriptor)
                return False
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()} on {socket.gethostname()}".encode())
        except BlockingIOError as held:
            with contextlib.suppress(OSError):
                holder = os.read(descriptor, 200).decode(errors="replace")
            os.close(descriptor)
            raise ArtifactError(
                f"{self.path.parent} is being written by another process ({holder or 'number unknown'}). "
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
