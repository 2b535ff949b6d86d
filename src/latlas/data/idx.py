"""The IDX format of the MNIST family, plain or gzipped: http://yann.lecun.com/exdb/mnist describes it."""

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from latlas.base.errors import ImageFormatError

_UINT8 = 0x08  # the only element type that the image sets use
_LARGEST = 1 << 30  # bytes; a header may claim anything, and is not believed beyond this
_LONGEST_HEADER = 20  # bytes, of four dimensions


def read_idx(path: Path) -> Tensor:
    """Return the uint8 array of an IDX file.

    Raises:
        ImageFormatError: it is no IDX file of bytes, or is truncated.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            raw = stream.read(_LARGEST + _LONGEST_HEADER + 1)  # a few bytes of gzip expand to any number
    except (OSError, EOFError, zlib.error) as failure:
        raise ImageFormatError(f"{path} cannot be read ({failure}). Delete it and fetch it again.") from failure
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] != _UINT8 or not 1 <= raw[3] <= 4:
        raise ImageFormatError(f"{path} is not an IDX file of bytes. Delete it and fetch it again.")
    start = 4 + 4 * raw[3]
    if len(raw) < start:
        raise ImageFormatError(f"{path} ends inside its header. Delete it and fetch it again.")
    shape = struct.unpack(f">{raw[3]}I", raw[4:start])
    size = int(np.prod(shape, dtype=object))
    if size > _LARGEST or len(raw) != start + size:
        raise ImageFormatError(f"{path} promises {size} values and holds {len(raw) - start}. Delete it and fetch it again.")
    return torch.from_numpy(np.frombuffer(raw, dtype=np.uint8, offset=start).reshape(shape).copy())
