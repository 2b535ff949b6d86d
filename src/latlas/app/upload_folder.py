"""Where visitors' pictures lie until they are forgotten: under names of the server's own, in a folder of bounded size."""

import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

_NAME_BYTES = 32  # of chance in each name: no visitor finds another's picture by guessing
_MOST_FILES = 10_000  # small ones are reckoned as large as would make so many
_SETTLED = 60.0  # seconds after which a picture may make room for new ones: it was read long ago


@dataclass(frozen=True, kw_only=True)
class _Kept:
    size: int
    since: float


class UploadFolder:
    """Pictures in one folder, each forgotten after a time, earlier where room is needed.

    What a file is called where it comes from is never learnt: the name is drawn by chance, and knowing it is what gives access.
    """

    def __init__(
        self,
        folder: Path,
        *,
        most: int,
        lifetime: float,
        forgotten: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Keep pictures in a folder that exists and is nobody else's.

        Args:
            folder: that exists and is empty.
            most: bytes of all pictures together, those on their way counted in.
            lifetime: seconds until a picture is forgotten.
            forgotten: told each path that is no more.
            clock: seconds, never backwards.
        """
        self._folder = folder
        self._most = most
        self._lifetime = lifetime
        self._forgotten = forgotten
        self._clock = clock
        self._kept: dict[str, _Kept] = {}  # in the order in which they came
        self._coming = self._held = 0
        self._lock = Lock()

    def reserve(self, size: int) -> bool:
        """Return whether there is room for so many bytes; there is until `release` is told of as many."""
        with self._lock:
            self._make_room(size)
            if self._coming + self._held + size > self._most:
                return False
            self._coming += size
            return True

    def release(self, size: int) -> None:
        """Give back what `reserve` has reserved, once the pictures are in or did not come."""
        with self._lock:
            self._coming -= size

    def put(self, content: bytes) -> str:
        """Write a picture and return its path. Room for it was reserved before.

        Raises:
            OSError: the disk is full, or the folder is gone.
        """
        path = self._folder / secrets.token_urlsafe(_NAME_BYTES)
        try:
            with path.open("xb") as stream:
                path.chmod(0o600)
                stream.write(content)
        except OSError:
            path.unlink(missing_ok=True)  # of a full disk no half picture is left, which nothing would count
            raise
        with self._lock:
            kept = _Kept(size=len(content), since=self._clock())
            self._kept[str(path)] = kept
            self._held += self._reckoned(kept)
        return str(path)

    def size(self, path: str) -> int | None:
        """Return the bytes of a picture that this folder has given out under this very path, or None where there is none."""
        with self._lock:
            kept = self._kept.get(path)
        return None if kept is None else kept.size

    def sweep(self) -> None:
        """Forget what has had its time."""
        with self._lock:
            until = self._clock() - self._lifetime
            for path in [path for path, kept in self._kept.items() if kept.since <= until]:
                self._forget(path)

    def _make_room(self, size: int) -> None:
        settled = self._clock() - _SETTLED
        for path, kept in list(self._kept.items()):
            if self._coming + self._held + size <= self._most or kept.since > settled:
                return
            self._forget(path)

    def _reckoned(self, kept: _Kept) -> int:
        return max(kept.size, self._most // _MOST_FILES)

    def _forget(self, path: str) -> None:
        self._held -= self._reckoned(self._kept.pop(path))
        with suppress(FileNotFoundError):
            Path(path).unlink()
        self._forgotten(path)
