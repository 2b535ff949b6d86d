"""Named random generators derived from one seed.

Every random choice in latlas takes a generator or a seed. Deriving a generator per purpose keeps two choices
independent of each other's number of draws: adding a draw to one does not change the other.
"""

import hashlib

import torch


def derived_seed(seed: int, *names: str | int) -> int:
    """Return a 63-bit seed that depends on `seed` and on every name, and on nothing else.

    >>> derived_seed(0, "map") == derived_seed(0, "map")
    True
    >>> derived_seed(0, "map") == derived_seed(0, "range")
    False
    """
    text = "/".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *names: str | int) -> torch.Generator:
    """Return a CPU generator seeded for one named purpose.

    >>> torch.rand(2, generator=generator(0, "a")).equal(torch.rand(2, generator=generator(0, "a")))
    True
    """
    return torch.Generator().manual_seed(derived_seed(seed, *names))
