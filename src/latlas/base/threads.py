"""How many processor threads a piece of work gets, for as long as it lasts."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Up to this many parameters a dense network's step is so short that handing it to several threads saves little, and
# costs a lot where other programs want the same cores: on two busy cores, fifteen times the time of one thread.
_SMALL = 1_000_000


def threads_for(parameters: int, *, convolutional: bool) -> int | None:
    """Return 1 for networks too small to share out, else None: leave it to torch."""
    return 1 if not convolutional and parameters <= _SMALL else None


@contextmanager
def using_threads(count: int | None) -> Iterator[None]:
    """Let torch use this many threads within the block; None changes nothing."""
    if count is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
