"""Memory that a process has asked the system for and no longer needs: the C library keeps it, unless it is told otherwise."""

import ctypes
import sys


def of_c_library(name: str, *arguments: int) -> None:
    """Call a function of the C library with whole numbers, where this system's has it."""
    function = getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
    if function is not None:
        function(*arguments)


def give_back_memory() -> None:
    """Hand back to the system what was allocated and is unused, where the C library can."""
    of_c_library("malloc_trim", 0)
