"""Worker processes that end when the process which started them does, however that was."""

import os
import threading
from multiprocessing import parent_process


def watch_parent() -> None:
    """Have this process end with its parent; to be called once, when a worker begins.

    A worker of an executor waits for work on a pipe that it holds open itself: that its parent was killed, it would never hear.
    """
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
